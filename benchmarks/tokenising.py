"""Build corpora of several sizes: tokens a second beside the bare tokenizer, and the peak of memory.

The text is made up: documents of words of an invented language, by Zipf's law, as JSONL; the tokenizer is trained on
some of it. Each corpus is built by the script that the DAG runs, its start included. `reading` is the part of the CPU
time that reading documents and choosing their splits takes. `MB` is the peak of the memory that its processes have for
themselves, together.

    python benchmarks/tokenising.py --tokens 5000000 20000000 --processes 1 2
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from chronocoder.config import TextCorpus
from chronocoder.suites.corpora.documents import read_documents
from chronocoder.suites.corpora.encoding import BATCH_CHARACTERS, encode_texts
from chronocoder.suites.nursery.tokenizer import train_tokenizer

SCRIPT = Path(__file__).parent.parent / "scripts" / "build_corpus.py"
WORDS, VOCABULARY, DOCUMENT_WORDS = 40_000, 16_000, 600
LENGTH, VALIDATION_SHARE = 1024, 0.02
SYLLABLES = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
BARE_DOCUMENTS = 1000


class Built(NamedTuple):
    """A corpus that was built.

    Attributes:
        seconds: from the start of the script to its end.
        cpu_s: seconds of one core that all its processes take together.
        peak_mb: memory of all its processes together.
    """

    seconds: float
    cpu_s: float
    peak_mb: float


def main() -> None:
    """Read the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[5_000_000, 20_000_000], help="sizes of the corpora")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="processes that tokenise")
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with tempfile.TemporaryDirectory() as directory:
        measure(Path(directory), arguments.tokens, arguments.processes)


def measure(directory: Path, sizes: list[int], processes: list[int]) -> None:
    """Print a row for each size and number of processes."""
    texts = list(islice(documents(), BARE_DOCUMENTS))
    tokenizer = train_tokenizer(texts, VOCABULARY)
    tokenizer.save_pretrained(directory / "tokenizer")
    started = time.process_time()
    tokens = sum(len(encode_texts(batch, tokenizer).token_ids) for batch in in_batches(texts))
    bare = tokens / (time.process_time() - started)
    show(f"bare tokenizer: {bare:,.0f} tokens a second of one core")
    text = directory / "text.jsonl"
    characters = sum(map(len, texts)) / tokens
    write_text(text, int(1.05 * max(sizes) * characters))
    show("| tokens | processes | tokens a second | for a core, beside the bare tokenizer | reading | MB |")
    show("| --- | --- | --- | --- | --- | --- |")
    for size in sizes:
        corpus = corpus_of(text, size)
        reading = time_reading(corpus, size / tokens * BARE_DOCUMENTS)
        for count in processes:
            built = build(directory, corpus, count)
            show(
                f"| {size:,} | {count} | {size / built.seconds:,.0f} | {size / built.cpu_s / bare:.2f}"
                f" | {reading / built.cpu_s:.2f} | {built.peak_mb:.0f} |"
            )


def show(line: str) -> None:
    """Write a line."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def documents() -> Iterator[str]:
    """Yield documents without end."""
    generator = np.random.default_rng(0)
    words = np.array(["".join(generator.choice(SYLLABLES, size=length)) for length in generator.integers(1, 5, WORDS)])
    frequency = 1 / np.arange(3, WORDS + 3)
    while True:
        drawn = generator.choice(words, size=(100, DOCUMENT_WORDS), p=frequency / frequency.sum())
        yield from (" ".join(row) for row in drawn)


def in_batches(texts: list[str]) -> Iterator[list[str]]:
    """Yield texts, about as many at once as a corpus tokenises."""
    step = max(1, BATCH_CHARACTERS // len(texts[0]))
    return (texts[start : start + step] for start in range(0, len(texts), step))


def write_text(path: Path, characters: int) -> None:
    """Write documents of so many characters together."""
    with path.open("w", encoding="utf-8") as file:
        for text in documents():
            file.write(json.dumps({"text": text}) + "\n")
            characters -= len(text)
            if characters < 0:
                return


def corpus_of(text: Path, size: int) -> TextCorpus:
    """Return a corpus of so many tokens."""
    validation = int(VALIDATION_SHARE * size)
    return TextCorpus(
        kind="text",
        path=str(text),
        train_tokens=size - validation,
        validation_tokens=validation,
        sequence_length=LENGTH,
    )


def time_reading(corpus: TextCorpus, count: float) -> float:
    """Return the seconds of a core that reading documents and choosing their splits takes, without tokenising."""
    started = time.process_time()
    for _ in islice(read_documents(corpus, "corpus", VALIDATION_SHARE, [Path(corpus.path)]), int(count)):
        pass
    return time.process_time() - started


def build(directory: Path, corpus: TextCorpus, processes: int) -> Built:
    """Run the script and watch its memory."""
    flags = ["--suite", "made-up", "--corpus", corpus.model_dump_json(), "--tokenizer", directory / "tokenizer"]
    places = [f"--{name}={directory / name}" for name in ("train", "validation", "state")]
    before, started, peak = cpu_seconds(), time.perf_counter(), 0.0
    command = [sys.executable, SCRIPT, *flags, *places, "--processes", str(processes)]
    script = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    watched = psutil.Process(script.pid)
    while script.poll() is None:
        peak = max(peak, memory_mb(watched))
        time.sleep(0.1)
    if script.returncode:
        raise SystemExit(script.communicate()[1])
    return Built(time.perf_counter() - started, cpu_seconds() - before, peak)


def cpu_seconds() -> float:
    """Return what all processes have taken that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def memory_mb(process: psutil.Process) -> float:
    """Return what a process and its children have for themselves."""
    total = 0
    try:
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_full_info().uss
    except psutil.NoSuchProcess:  # it ended meanwhile
        pass
    return total / 1e6


if __name__ == "__main__":
    main()
