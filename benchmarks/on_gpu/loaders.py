"""Training steps with cached and with streamed activations, against steps that wait for nothing."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from loader import make_stores
from training import RESCUE, make_trainer, median_seconds, seconds, training_step

from chronocoder.activations.formats import StoredFormat
from chronocoder.activations.harvest import read_sequences
from chronocoder.activations.loader import shuffled_batches
from chronocoder.activations.sources import ActivationSource
from chronocoder.activations.streaming import StreamedActivations
from chronocoder.devices import default_device
from chronocoder.suites.sites import resolve_site
from on_gpu.effects import random_models
from on_gpu.measured import Budget, Row, Setting

VARIANT = "batchtopk"
FORMATS: tuple[StoredFormat, ...] = ("float16", "int8")
WAITING_TARGET = 0.05
"""Of a step's time."""
GROUPS = 4
"""Batches that a group of rows shuffled together makes where activations are streamed: few, to be soon at an end."""
PASS_SEQUENCES = 8
"""Sequences in a forward pass, as in the published experiments with Pythia-1B."""


class Steps(NamedTuple):
    """Training with a loader.

    Attributes:
        seconds: of a step.
        waiting: the part of it that the step waits for its batch.
    """

    seconds: float
    waiting: float


def measure(setting: Setting, budget: Budget) -> Iterator[Row]:
    """Yield the time of a step that waits for nothing, then with each stored format, then streamed."""
    device, arguments = default_device(), setting.arguments(default_device().type)
    shares = budget.shares(2 + len(FORMATS))
    step = {"step": training_step(VARIANT, arguments, device)}
    alone = median_seconds(step, device, setting.rounds, next(shares).ends)["step"]
    del step
    yield Row(f"step of {VARIANT} alone", 1e3 * alone, "ms")
    for stored_format in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            stores = make_stores(Path(folder), stored_format, arguments)
            steps = train(stores, setting, next(shares), buffer_tokens=setting.stored_rows // 2)
        yield Row(f"step, cached as {stored_format}", 1e3 * steps.seconds, "ms", "step alone", alone / steps.seconds)
        yield waiting_row(stored_format, steps, setting.judged(WAITING_TARGET))
    yield from measure_streaming(setting, next(shares), alone)


def measure_streaming(setting: Setting, budget: Budget, alone: float) -> Iterator[Row]:
    """Yield the time of a step with streamed activations, against the bare forward passes and the step alone."""
    device = default_device()
    sites = [resolve_site(model, setting.site) for model in random_models(setting)]
    generator = np.random.default_rng(0)
    ids = generator.integers(setting.vocabulary, size=(setting.sequences, setting.sequence_length)).astype(np.int32)
    numbers = np.arange(PASS_SEQUENCES, dtype=np.int32)

    def passes() -> None:
        for site in sites:
            read_sequences(site, ids, numbers)

    passes()
    of_pass = min(seconds(passes, device) for _ in range(2))
    bare = of_pass * setting.batch_tokens / (PASS_SEQUENCES * (setting.sequence_length - 1))
    source = StreamedActivations(sites, ids, "float16", PASS_SEQUENCES)
    steps = train(source, setting, budget, buffer_tokens=GROUPS * setting.batch_tokens)
    limit = alone + bare
    against = f"step alone and bare forward passes, {1e3 * limit:.3g} ms"
    yield Row("step, streamed", 1e3 * steps.seconds, "ms", against, limit / steps.seconds)
    yield waiting_row("the models", steps)


def waiting_row(what: str, steps: Steps, target: float | None = None) -> Row:
    """Return how long a step waits for its batch."""
    waited_ms = 1e3 * steps.waiting * steps.seconds
    return Row(f"waiting for {what}", waited_ms, "ms", "the step", steps.waiting, target, at_most=True)


def train(source: ActivationSource, setting: Setting, budget: Budget, buffer_tokens: int) -> Steps:
    """Train on a source; the first group of rows, which can only be waited for, does not count."""
    device = default_device()
    trainer = make_trainer(VARIANT, setting.arguments(device.type))
    loader = shuffled_batches(source, setting.batch_tokens, 0, buffer_tokens=buffer_tokens, device=device)
    with closing(loader) as batches:
        for _ in range(2):
            trainer.train_step(next(batches), RESCUE)
        before, begin, done = batches.waited_s, time.perf_counter(), 0
        while done < setting.steps and (budget.left or not done):
            trainer.train_step(next(batches), RESCUE)
            done += 1
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        elapsed = time.perf_counter() - begin
        return Steps(elapsed / done, (batches.waited_s - before) / elapsed)
