"""Tuning a copy of a model on a task, of which nothing stays: the weights that it updates are put back afterwards."""

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import nn
from torch.nn.utils import get_total_norm
from transformers import PreTrainedModel

from chronocoder.attribution.sampling import sampling_units
from chronocoder.config import SWAPPED, MethodSettings, TuningSettings
from chronocoder.errors import NonFiniteError
from chronocoder.tasks.rows import by_member
from chronocoder.taskspace.losses import Loss, accumulate_gradient
from chronocoder.taskspace.subset import Adam, Entries, trainable

ORDER, SWAPS = range(2)
"""Purposes of random numbers."""


class Source(NamedTuple):
    """What copies are tuned on.

    Attributes:
        task: as `tokenise_pairs` returns it.
        pairs: places of the pairs that may be tuned on, shape (pair,).
        seed: of the order of the pairs, and of those that are swapped.
    """

    task: xr.Dataset
    pairs: np.ndarray
    seed: int

    @property
    def name(self) -> str:
        """Name of the task."""
        return str(self.task.attrs["task"])

    def batches(self, steps: int, size: int) -> Iterator[np.ndarray]:
        """Yield numbers of pairs: all in random order, again and again, each method's alike."""
        generator, count = self._generator(ORDER), len(self.pairs)
        rounds = math.ceil(steps * size / count)
        order = np.concatenate([generator.permutation(count) for _ in range(rounds)])
        yield from order[: steps * size].reshape(steps, size)

    def loss(self, numbers: np.ndarray, objective: str) -> Loss:
        """Return the loss of some of the pairs; about half of all, at random, are swapped where the objective says so.

        Those of one prefix, or right sentence, are swapped together: if some were and some not, what can be learnt of
        them would cancel, and the level of chance would come out too low.
        """
        signs = self._signs()[numbers] if objective == SWAPPED else None
        return Loss.of(self.task, self.pairs[numbers], objective, signs)

    def _signs(self) -> Float[np.ndarray, " pair"]:
        """Return -1 of the pairs that are swapped: as many prefixes, in random order, as have no more than half."""
        units = sampling_units([""] * len(self.pairs), self._prefixes())
        order = np.argsort(self._generator(SWAPS).permutation(len(units.size)))
        swapped = order[np.cumsum(units.size[order]) <= len(self.pairs) // 2]
        return np.where(np.isin(units.unit, swapped), -1.0, 1.0)

    def _prefixes(self) -> list[tuple[int, ...]]:
        return [tuple(row) for row in by_member(self.task, "token_id")[self.pairs, 0].tolist()]

    def _generator(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([zlib.crc32(self.name.encode()), purpose, self.seed % 2**32])


class Tuning(NamedTuple):
    """How a copy was tuned.

    Attributes:
        losses: of each step's batch before the step, in the unit of the objective, shape (step,).
        updated: entries of parameters that were updated.
        norm: of the whole change of the weights.
    """

    losses: Float[np.ndarray, " step"]
    updated: int
    norm: float


@contextmanager
def tuned(
    model: PreTrainedModel, source: Source, name: str, method: MethodSettings, settings: TuningSettings
) -> Iterator[Tuning]:
    """Tune a model on a task; afterwards its weights are what they were, bit for bit.

    The entries that are updated are those of largest mean gradient over all pairs that are tuned on, or, with
    `selection: step`, of the gradient of each step's batch; there the moments of Adam are those of all entries. Nothing
    but these entries is saved, so that there is no second model in memory. Dropout is off, as in evaluation.

    Args:
        model: in float32 and in evaluation mode, without gradients; it may be spread over devices.
        source: what to tune it on.
        name: of the method, for messages.
        method: objective, fraction and learning rate.
        settings: steps and pairs in each.

    Raises:
        NonFiniteError: a loss or gradient is NaN or infinite; the message names the step and the remedy.
    """
    with trainable(model, settings.embeddings) as parameters:
        tuning = _Run(model, parameters, source, name, method, settings)
        try:
            yield tuning.run()
        finally:
            tuning.restore()


def updatable(model: PreTrainedModel, embeddings: bool) -> int:
    """Return how many entries of a model's parameters may be updated, those of tied weights once."""
    with trainable(model, embeddings) as parameters:
        return sum(parameter.numel() for parameter in parameters)


class _Run:
    """A tuning on its way."""

    def __init__(
        self,
        model: PreTrainedModel,
        parameters: Sequence[nn.Parameter],
        source: Source,
        name: str,
        method: MethodSettings,
        settings: TuningSettings,
    ) -> None:
        self._model, self._parameters, self._source = model, parameters, source
        self._name, self._method, self._settings = name, method, settings
        self._count = max(1, round(method.fraction * sum(parameter.numel() for parameter in parameters)))
        self._anew = settings.selection == "step" and method.fraction < 1
        self._entries = self._to_update()
        self._before = self._entries.saved(parameters)

    def run(self) -> Tuning:
        adam = Adam(self._parameters, self._entries, self._method.learning_rate)
        losses, touched = [], [torch.zeros(one.numel(), dtype=torch.bool) for one in self._parameters if self._anew]
        for step, numbers in enumerate(self._source.batches(self._settings.steps, self._settings.batch_pairs)):
            losses.append(self._gradient(numbers, f"step {step}"))
            chosen = self._largest() if self._anew else None
            adam.step(chosen)
            for seen, places in zip(touched, chosen.places if chosen else [], strict=True):
                seen[slice(None) if places is None else places.cpu()] = True
        for parameter in self._parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
        updated = sum(int(seen.sum()) for seen in touched) if self._anew else self._entries.number
        return Tuning(np.array(losses), updated, self._entries.distance(self._parameters, self._before))

    def restore(self) -> None:
        self._entries.put(self._parameters, self._before)

    def _to_update(self) -> Entries:
        """Return the entries that may be updated in any step."""
        if self._anew or self._method.fraction == 1:
            return Entries.every(self._parameters)
        self._gradient(np.arange(len(self._source.pairs)), "the choice of parameters")
        return self._largest()

    def _largest(self) -> Entries:
        return Entries.largest([one.grad for one in self._parameters if one.grad is not None], self._count)

    def _gradient(self, numbers: np.ndarray, when: str) -> float:
        """Set the gradients to those of some pairs, and return the loss."""
        loss = self._source.loss(numbers, self._method.objective)
        value = accumulate_gradient(self._model, loss, self._settings.tokens_at_once)
        gradients = [one.grad for one in self._parameters if one.grad is not None]
        if not math.isfinite(value + float(get_total_norm(gradients, math.inf))):
            raise NonFiniteError(
                f"{self._model.name_or_path}: the loss of task '{self._source.name}' or its gradient is not finite at"
                f" {when} of method '{self._name}'; lower taskspace.methods.{self._name}.learning_rate"
                f" {self._method.learning_rate:g}"
            )
        return value
