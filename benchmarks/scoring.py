"""Time the scoring of sixty-seven sets of pairs, as many as BLiMP has, against the bare forward passes.

The sets are made up: sentences of 4 to 12 words, of which the wrong one has another word at one place, in tokens of a
BPE that was trained on them. They are scored by `sentence` and by `next_token` on an untrained model of Pythia-70M's
shape.

Bare is one call of the model for each batch of distinct texts and nothing more: equally long ones together, so that
nothing is padded, as many as a pass of the scoring has tokens. By `sentence` the model gives the logits of all
positions; by `next_token`, where it reads prefixes, those of the last position alone. Scoring is all that becomes of
tokenised tasks: their texts are collected, read, and made into right minus wrong of each pair.

Both take turns, round after round, and the ratio is of medians; on a CPU of CPU time.

    python benchmarks/scoring.py --pairs 20
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor
from transformers import PreTrainedModel
from untrained import gpt_neox

from chronocoder.behaviour.pool import Pool
from chronocoder.devices import default_device
from chronocoder.plan.sizes import TOKENS_AT_ONCE
from chronocoder.suites.logits import last_positions_only
from chronocoder.suites.nursery.tokenizer import train_tokenizer
from chronocoder.suites.tokenizers import separator_id
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.rows import reads_prefixes
from chronocoder.tasks.tokenise import tokenise_pairs

TARGET = 1.3
METRICS = ("sentence", "next_token")
FEWEST_WORDS, MOST_WORDS = 4, 12


class Setting(NamedTuple):
    """What is scored: by default as many sets of as many pairs as BLiMP has, and a model of Pythia-70M's shape.

    Attributes:
        sets: number of tasks.
        pairs: of each.
        words: in the lexicon.
        entries: of the tokenizer's vocabulary.
        width: d_model.
        blocks: of the model.
        heads: of attention.
        vocabulary: tokens that the model knows.
    """

    sets: int = 67
    pairs: int = 1000
    words: int = 5000
    entries: int = 8000
    width: int = 512
    blocks: int = 6
    heads: int = 8
    vocabulary: int = 50304


class Ratio(NamedTuple):
    """How long scoring takes.

    Attributes:
        texts: distinct texts that are read.
        tokens: in them.
        scored: seconds of scoring, median.
        bare: seconds of the bare passes, median.
    """

    texts: int
    tokens: int
    scored: float
    bare: float

    @property
    def ratio(self) -> float:
        """Seconds of scoring for each of the bare passes."""
        return self.scored / self.bare


def main() -> None:
    """Measure, and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=Setting().pairs, help="pairs of each set")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    setting = Setting(pairs=arguments.pairs)
    sys.stdout.write(f"{default_device()}, {arguments.threads} threads, {arguments.rounds} rounds, {setting}\n")
    for line in rows(measure(setting, arguments.rounds)):
        sys.stdout.write(line + "\n")


def rows(ratios: dict[str, Ratio]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield "| metric | texts | tokens | scoring, s | bare passes, s | ratio | target |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for metric, found in ratios.items():
        cells = (metric, found.texts, found.tokens, f"{found.scored:.1f}", f"{found.bare:.1f}", f"{found.ratio:.2f}")
        yield "| " + " | ".join(map(str, (*cells, TARGET))) + " |"


def measure(setting: Setting, rounds: int) -> dict[str, Ratio]:
    """Return by metric how long scoring takes, and the bare passes."""
    model, sets = gpt_neox(setting.width, setting.blocks, setting.heads, setting.vocabulary), random_sets(setting)
    model.requires_grad_(False)
    return {metric: measure_tasks(model, tokenised(sets, setting, metric), rounds) for metric in METRICS}


def measure_tasks(model: PreTrainedModel, tasks: Sequence[xr.Dataset], rounds: int) -> Ratio:
    """Return how long it takes to score tasks of one metric, and the bare passes."""
    pool, last = Pool.of(tasks), reads_prefixes(tasks[0])
    batches = batches_of(pool.texts, TOKENS_AT_ONCE, model.device)

    def scored() -> list[np.ndarray]:
        return Pool.of(tasks).differences(model)

    def bare() -> None:
        bare_passes(model, batches, last)

    model(input_ids=batches[0][:2])
    times = seconds((scored, bare), rounds)
    median_scored, median_bare = (statistics.median(of) for of in zip(*times, strict=True))
    return Ratio(len(pool.texts), sum(map(len, pool.texts)), median_scored, median_bare)


@torch.no_grad()
def bare_passes(model: PreTrainedModel, batches: Sequence[Tensor], last: bool) -> None:
    """Run a model on batches of token ids, to the logits of all positions or of the last ones."""
    with last_positions_only(model, 1) if last else nullcontext():
        for ids in batches:
            logits = model(input_ids=ids).logits
    logits[0, 0, 0].item()  # waits for a GPU


def batches_of(texts: Sequence[tuple[int, ...]], tokens: int, device: torch.device) -> list[Tensor]:
    """Return texts in batches of equal length and at most so many tokens."""
    found: list[Tensor] = []
    for length in sorted({len(text) for text in texts}):
        ids = torch.tensor([text for text in texts if len(text) == length], device=device)
        found += ids.split(max(1, tokens // length))
    return found


def seconds(works: Sequence[Callable[[], Any]], rounds: int) -> list[list[float]]:
    """Return how long each work takes, by round: they take turns. On a CPU it is CPU time."""
    clock = time.perf_counter if default_device().type == "cuda" else time.process_time
    times: list[list[float]] = []
    for _ in range(rounds):
        times.append([])
        for work in works:
            begin = clock()
            work()
            times[-1].append(clock() - begin)
    return times


def random_sets(setting: Setting) -> list[list[MinimalPair]]:
    """Return sets of pairs of random words; those of a pair differ in one word, but not in the first."""
    generator = np.random.default_rng(0)
    lexicon = sorted({made_up_word(generator) for _ in range(setting.words)})
    return [[random_pair(lexicon, generator) for _ in range(setting.pairs)] for _ in range(setting.sets)]


def made_up_word(generator: np.random.Generator) -> str:
    """Return a word of one to three syllables."""
    count = int(generator.integers(1, 4))
    syllables = ["".join(generator.choice(list(letters)) for letters in ("bdfklmnprst", "aeiou")) for _ in range(count)]
    return "".join(syllables) + str(generator.choice(["", "n", "s"]))


def random_pair(lexicon: Sequence[str], generator: np.random.Generator) -> MinimalPair:
    """Return a pair of sentences that part at a random word after the first."""
    count = int(generator.integers(FEWEST_WORDS, MOST_WORDS + 1))
    place = int(generator.integers(1, count))
    words = [lexicon[number] for number in generator.integers(len(lexicon), size=count)]
    right, other = words[place], lexicon[int(generator.integers(len(lexicon)))]
    wrong = other if other != right else other + "s"
    rest = " ".join(["", *words[place + 1 :]]) + "."
    return MinimalPair(" ".join(words[:place]), f" {right}{rest}", f" {wrong}{rest}")


def tokenised(sets: Sequence[Sequence[MinimalPair]], setting: Setting, metric: str) -> list[xr.Dataset]:
    """Return the sets as tasks."""
    sentences = (text for pair in chain.from_iterable(sets) for text in (pair.good, pair.bad))
    tokenizer = train_tokenizer(sentences, setting.entries)
    separator = separator_id(tokenizer)
    return [tokenise_pairs(pairs, tokenizer, separator, f"set {number}", metric) for number, pairs in enumerate(sets)]


if __name__ == "__main__":
    main()
