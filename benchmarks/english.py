"""Make a small suite of real English text: a model of six blocks at two checkpoints, a crosscoder, and tasks.

The text is prose that any machine with this project's environment has, sentences out of the documentation strings of
its Python packages, or what is given with `--text`. Results lie where those of an experiment do, and `estimators.py`
reads them:

    python benchmarks/english.py results/english --tasks DIRECTORY_OF_BLIMP_FILES
    python benchmarks/estimators.py results/english growth/batchtopk

Without `--tasks`, the tasks are made from templates.
"""

import argparse
import re
import sysconfig
from collections.abc import Iterable, Mapping
from itertools import cycle, islice, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.activations.streaming import stream_checkpoints
from chronocoder.config import BlimpTask, HarvestSettings, NurserySource, TextCorpus
from chronocoder.crosscoder.model import CrosscoderConfig
from chronocoder.crosscoder.state import StateDirectory, identity_of
from chronocoder.crosscoder.training import train_crosscoder
from chronocoder.stores import provenance, write_store
from chronocoder.suites.nursery.grammar import hash_share
from chronocoder.suites.nursery.pretraining import pretrain
from chronocoder.suites.nursery.tokenizer import train_tokenizer
from chronocoder.suites.packing import encode_documents, pack_documents
from chronocoder.suites.tokenizers import separator_id
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.sources import read_source
from chronocoder.tasks.tokenise import tokenise_pairs
from chronocoder.variants import VARIANTS
from chronocoder.variants.base import CrosscoderSettings

SITE, COMPARISON, VARIANT = "residual.1", "growth", "batchtopk"
ENDINGS = (".md", ".py", ".rst", ".txt")
QUOTED = re.compile(r'"""(.*?)"""', re.DOTALL)
PROSE = re.compile(r"\b[A-Z](?:[A-Za-z'-]+,? ){5,40}[A-Za-z'-]+[.!?](?=\s|$)")
"""A sentence of words alone: no code, no numbers, no markup."""
VALIDATION_SHARE = 0.05
STARTS = ("The", "By default, the", "In this case, the", "Note that the", "If given, the")
NOUNS = (
    ("file", "files"),
    ("function", "functions"),
    ("method", "methods"),
    ("object", "objects"),
    ("value", "values"),
    ("model", "models"),
    ("module", "modules"),
    ("option", "options"),
    ("name", "names"),
    ("parameter", "parameters"),
)
BETWEEN = ("for the", "in the", "of the", "with the", "used by the")


class Sizes(NamedTuple):
    """How large the suite is.

    Attributes:
        source: shape and training of the model.
        crosscoder: shape and training of the crosscoder.
        corpus: text that the crosscoder is trained on; the model has read it too.
    """

    source: NurserySource
    crosscoder: CrosscoderSettings
    corpus: TextCorpus


FULL = Sizes(
    NurserySource(
        steps=[100, 800],
        vocabulary_size=2048,
        blocks=6,
        sequence_length=64,
        batch_size=32,
        learning_rate=3e-3,
        warmup_steps=40,
    ),
    VARIANTS[VARIANT].model_validate(
        {
            "sparsity": VARIANT,
            "dictionary_size": 2048,
            "k": 32,
            "auxiliary_coefficient": 1.0,
            "auxiliary_k": 64,
            "dead_after_tokens": 20_000,
            "batch_tokens": 1024,
            "steps": 500,
            "learning_rate": 1e-3,
        }
    ),
    TextCorpus(kind="text", path="", train_tokens=200_000, validation_tokens=64, sequence_length=64),
)
PAIRS = 200


def main() -> None:
    """Read the arguments, make the suite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="directory to write the suite's results to")
    packages = [Path(sysconfig.get_paths()[name]) for name in ("stdlib", "purelib")]
    parser.add_argument("--text", type=Path, nargs="+", default=packages, help="directories with text or Python files")
    parser.add_argument("--tasks", type=Path, help="directory of BLiMP's JSONL files")
    arguments = parser.parse_args()
    files = sorted(arguments.tasks.glob("*.jsonl")) if arguments.tasks else []
    tasks = {path.stem: read_blimp(path) for path in files} or template_tasks(PAIRS)
    make_suite(arguments.suite, prose(arguments.text), tasks, FULL)


def read_blimp(path: Path) -> list[MinimalPair]:
    """Draw pairs from one of BLiMP's files."""
    return read_source(path.stem, BlimpTask(kind="blimp", path=str(path), limit=PAIRS)).pairs


def make_suite(suite: Path, sentences: list[str], tasks: Mapping[str, list[MinimalPair]], sizes: Sizes) -> None:
    """Pretrain the model, tokenise the tasks, and train the crosscoder on what its checkpoints make of the text."""
    tokenizer = train_tokenizer(sentences, sizes.source.vocabulary_size)
    held_out = [text for text in sentences if hash_share(text) < VALIDATION_SHARE]
    read = [text for text in sentences if hash_share(text) >= VALIDATION_SHARE]
    pretrain(
        sizes.source, tokenizer, suite / "checkpoints", lambda split: cycle(held_out if split == "validation" else read)
    )
    separator = separator_id(tokenizer)
    for name, pairs in tasks.items():
        task = tokenise_pairs(pairs, tokenizer, separator, name)
        write_store(task, suite / "tasks" / f"{name}.zarr", provenance(sizes.source, suite=suite.name, task=name))
    packed = pack_documents(encode_documents(read, tokenizer), separator, sizes.corpus.sequence_length)
    token_ids = np.stack(list(islice(packed, sizes.corpus.sequences("train"))))
    corpus = xr.Dataset({"token_ids": (("sequence", "position"), token_ids)})
    checkpoints = {name: suite / "checkpoints" / name for name in sizes.source.tokens_seen}
    source, origin = stream_checkpoints(suite.name, checkpoints, SITE, corpus, HarvestSettings())
    config = CrosscoderConfig(
        suite=suite.name,
        comparison=COMPARISON,
        variant=VARIANT,
        checkpoints=origin.revisions,
        site=SITE,
        d_model=source.width,
        settings=sizes.crosscoder,
        seed=0,
        commits=origin.commits,
        folded=False,
    )
    run = suite / COMPARISON / VARIANT / "seed0"
    states = StateDirectory(run / "training_state", identity_of(config, origin, 0))
    trained = train_crosscoder(config, source, states, run / "last_good_crosscoder", sizes.crosscoder.steps + 1)
    write_store(trained.history, run / "training.zarr", provenance(sizes.crosscoder, **trained.crosscoder.facts))
    trained.crosscoder.save(run / "crosscoder")


def prose(directories: Iterable[Path]) -> list[str]:
    """Return each sentence of words alone in texts, and in documentation strings of Python files, in random order."""
    found: set[str] = set()
    for path in (path for directory in directories for path in directory.rglob("*") if path.suffix in ENDINGS):
        text = path.read_text(encoding="utf-8", errors="ignore")
        for part in QUOTED.findall(text) if path.suffix == ".py" else [text]:
            found.update(PROSE.findall(" ".join(part.split())))
    return sorted(found, key=hash_share)


def template_tasks(pairs: int) -> dict[str, list[MinimalPair]]:
    """Return pairs in which a verb agrees with a noun next to it, and with one that another noun parts from it."""
    near = [
        MinimalPair(f"{start} {subject}", right, wrong)
        for start, (subject, right, wrong) in product(STARTS, _subjects())
    ]
    far = [
        MinimalPair(f"{start} {subject} {between} {other}", right, wrong)
        for start, (subject, right, wrong), between, other in product(STARTS, _subjects(), BETWEEN, sum(NOUNS, ()))
        if not any({subject, other} <= set(nouns) for nouns in NOUNS)
    ]
    return {
        "agreement": near[:pairs],
        "agreement_across_phrase": sorted(far, key=lambda pair: hash_share(pair.prefix))[:pairs],
    }


def _subjects() -> list[tuple[str, str, str]]:
    """Return nouns in both numbers, with the verb that agrees and the one that does not."""
    numbers = [noun for nouns in NOUNS for noun in zip(nouns, ((" is", " are"), (" are", " is")), strict=True)]
    return [(noun, right, wrong) for noun, (right, wrong) in numbers]


if __name__ == "__main__":
    main()
