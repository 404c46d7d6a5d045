"""Small models, tokenizers and stores that many tests share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from tiny import ARCHITECTURES, VOCABULARY, WIDTH, tiny_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from chronocoder.suites.nursery.tokenizer import train_tokenizer
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.tokenise import tokenise_pairs

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # of what tests start: tests run beside each other

TOGETHER = {
    "tests/cluster/": "slurm",
    "tests/workflow/test_nursery_workflow.py": "nursery",
    "tests/workflow/test_taskspace_workflow.py": "nursery",
}
"""By what their paths begin with, tests that share what takes minutes to make."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep on one process the tests of a file, and those of files that share what takes minutes."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            shared = (name for path, name in TOGETHER.items() if nodeid.startswith(path))
            return next(shared, super()._split_scope(nodeid))

    return Scheduling(config, log)


@pytest.fixture(params=ARCHITECTURES)
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    text = ["the cat sees the dogs", "the dogs see the cat", "a boy near the cats walks", "the boys walk"] * 20
    return train_tokenizer(text, VOCABULARY)


@pytest.fixture
def task(tokenizer: PreTrainedTokenizerFast) -> xr.Dataset:
    """Six pairs with prefixes of three lengths."""
    pairs = [
        MinimalPair("the cat", " sees", " see"),
        MinimalPair("the dogs", " see", " sees"),
        MinimalPair("the cat near the dogs", " sees", " see"),
        MinimalPair("the dogs near the cat", " see", " sees"),
        MinimalPair("a boy", " walks", " walk"),
        MinimalPair("the boy near the cats sees the", " cat", " the"),
    ]
    return tokenise_pairs(pairs, tokenizer, 0, "test").assign_attrs(task="test")


@pytest.fixture
def activation_store(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an activation store of random rows."""
    from chronocoder.activations.formats import StoredFormat
    from chronocoder.activations.writer import ActivationWriter, Rows

    def write(
        revision: str,
        rows: int = 3000,
        site: str = "residual.1",
        shift: int = 0,
        seed: int = 0,
        stored_format: StoredFormat = "float32",
        piece_rows: int = 100,
    ) -> Path:
        path = tmp_path / site / revision / "train.zarr"
        generator = np.random.default_rng([seed, len(revision), int(revision.removeprefix("step"))])
        values = generator.normal(size=(rows, WIDTH)).astype(np.float32) * (1 + int(revision.removeprefix("step")))
        number = np.arange(rows, dtype=np.int32)
        columns = Rows(torch.from_numpy(values), number % 50 + shift, number // 10, number % 10 + 1)
        facts = {"commit": "c", "split": "train", "tokens_digest": "t"}
        attributes = {"suite": "tiny", "revision": revision, "site": site, **facts}
        with ActivationWriter(path, rows, WIDTH, stored_format, piece_rows, attributes) as writer:
            writer.append(columns)
        return path

    return write
