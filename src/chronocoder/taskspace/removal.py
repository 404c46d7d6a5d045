"""What tuning does to pairs, in models as they are and in models from whose activation features are removed.

A feature i is removed from the activation x of a model at checkpoint m by taking away f_i W_dec,i^m at every position
but the first, on which crosscoders are not trained. What is left, the error term among it, stays. The codes f are those
of the joint code: the crosscoder's encoder is given the model's own activation at m, tuned or not, beside those of the
other checkpoints, which are never tuned.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from chronocoder.attribution.effects import Prompts, metric
from chronocoder.attribution.interventions import ZERO
from chronocoder.attribution.prompts import add_to_examples, read_prompts
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import NonFiniteError
from chronocoder.plan.sizes import LOGITS_AT_ONCE
from chronocoder.suites.precision import overflow_remedy
from chronocoder.suites.sites import Site
from chronocoder.tasks.readout import sequences_at_once
from chronocoder.tasks.rows import reads_prefixes, rows_of
from chronocoder.taskspace.shared_features import Removed

KINDS = ("intact", "without_shared", "without_others")
READ = ("token_id", "length", "scored_from", "right_id", "wrong_id")
"""Variables of a task that are read of it, as far as it has them."""

Tuning = Callable[[str], AbstractContextManager[Any]]
"""Given a task's name, tunes the model on it; when the context ends, the model is what it was."""
FeatureSets = Mapping[str, np.ndarray | None]
"""The features that are removed where a target's pairs are read, by target; None: they could not be chosen."""


class Targets(NamedTuple):
    """Pairs of several tasks, one task after another, which are read together.

    Attributes:
        pairs: as a task has them.
        names: of the tasks.
        numbers: place in `names` of each pair's task, ascending, shape (example,).
        entries: place of each pair among those of all tasks, shape (example,).
    """

    pairs: xr.Dataset
    names: list[str]
    numbers: np.ndarray
    entries: np.ndarray


@dataclass(frozen=True)
class Reading:
    """How a model is read, which is that of one of a crosscoder's checkpoints.

    Attributes:
        crosscoder: folded.
        sites: in each checkpoint's model, in the crosscoder's order.
        number: place of the checkpoint among them whose model is read, tuned or not; its weights are in float32.
        tokens_at_once: tokens in one pass from the site on.
    """

    crosscoder: Crosscoder
    sites: Sequence[Site]
    number: int
    tokens_at_once: int

    def differences(
        self, tasks: Mapping[str, xr.Dataset], removed: Sequence[FeatureSets]
    ) -> Float[np.ndarray, "version entry"]:
        """Return right minus wrong of each pair, in the unit of its task's metric.

        Args:
            tasks: by name, as `tokenise_pairs` returns them.
            removed: features to remove, one version after another.

        Returns:
            First with nothing removed, then of each version, the pairs of all tasks one after another. Where a version
            removes no feature it is the first exactly, and NaN where its features could not be chosen.

        Raises:
            NonFiniteError: one is NaN or infinite.
        """
        targets = np.repeat(list(tasks), [task.sizes["example"] for task in tasks.values()])
        found = np.zeros((1 + len(removed), len(targets)), dtype=np.float32)
        for pool in _pooled(tasks):
            found[:, pool.entries] = self._of_pool(pool, removed)
        if not np.isfinite(found).all():
            raise NonFiniteError(
                f"{self._site.model.name_or_path}: differences of right and wrong with features removed are not finite;"
                f" {overflow_remedy(self._site.model)}"
            )
        for version, sets in zip(found[1:], removed, strict=True):
            for name, features in sets.items():
                if features is None or not len(features):
                    version[targets == name] = np.nan if features is None else found[0, targets == name]
        return found

    @torch.no_grad()
    def _of_pool(self, targets: Targets, removed: Sequence[FeatureSets]) -> Float[np.ndarray, "version example"]:
        found = np.zeros((1 + len(removed), targets.pairs.sizes["example"]), dtype=np.float32)
        versions, size = [{}, *removed], self._sequences(targets.pairs)
        for batch in read_prompts(self.crosscoder, self.sites, targets.pairs, ZERO, size):
            prompts = batch.prompts[self.number]
            parts = _rows_of_targets(targets, batch.rows.examples)
            copies = max(1, size // len(batch.rows.examples))
            for first in range(0, len(versions), copies):
                some = slice(first, first + copies)
                activations = torch.stack([_without(prompts, parts, sets) for sets in versions[some]])
                for line, mu in zip(found[some], metric(self._site, prompts, activations), strict=True):
                    add_to_examples(line, batch.rows, -mu)
        return found

    @property
    def _site(self) -> Site:
        return self.sites[self.number]

    def _sequences(self, task: xr.Dataset) -> int:
        """Return how many sequences go through the model together: as many as tokens, logits and codes allow."""
        tokens = min(self.tokens_at_once, LOGITS_AT_ONCE // len(self.crosscoder.b_enc))
        wanted = max(1, tokens // int(rows_of(task).lengths.max()))
        return sequences_at_once(task, self._site.model.config.vocab_size, wanted)


def measure_changes(
    reading: Reading,
    tasks: Mapping[str, xr.Dataset],
    removed: Mapping[tuple[str, str], Removed],
    tuning: Tuning,
) -> xr.Dataset:
    """Measure what tuning on each task does to the pairs of every task, with and without features.

    Args:
        reading: of the model that is tuned.
        tasks: the pairs that no copy is tuned on, by name.
        removed: by source and target, the features that are removed before and after the tuning alike.
        tuning: tunes the model.

    Returns:
        `before` and `after`: right minus wrong; dims (source, kind, entry), the pairs of all targets one after another,
        with the coordinate `target` (entry).
    """
    names = list(tasks)
    sets = {
        source: [{target: removed[source, target][place] for target in names} for place in range(len(Removed._fields))]
        for source in names
    }
    intact, *without = reading.differences(tasks, [version for source in names for version in sets[source]])
    before = np.reshape(without, (len(names), len(KINDS) - 1, -1))
    before = np.concatenate([np.broadcast_to(intact, (len(names), 1, len(intact))), before], axis=1)
    after = []
    for source in names:
        with tuning(source):
            after.append(reading.differences(tasks, sets[source]))
    dims = ("source", "kind", "entry")
    target_of = np.repeat(names, [task.sizes["example"] for task in tasks.values()])
    coordinates = {"source": names, "kind": list(KINDS), "target": ("entry", target_of)}
    return xr.Dataset({"before": (dims, before), "after": (dims, np.stack(after))}, coords=coordinates)


def _pooled(tasks: Mapping[str, xr.Dataset]) -> Iterator[Targets]:
    """Yield the tasks whose metrics read prefixes, and those whose metrics read sentences."""
    ends = np.cumsum([0, *(task.sizes["example"] for task in tasks.values())])
    entries = {name: np.arange(*ends_of) for name, ends_of in zip(tasks, pairwise(ends), strict=True)}
    for of_prefixes in (True, False):
        own = {name: task for name, task in tasks.items() if reads_prefixes(task) is of_prefixes}
        if own:
            longest = max(task.sizes["position"] for task in own.values())
            padded = [_read_alone(task, longest) for task in own.values()]
            numbers = np.repeat(np.arange(len(own)), [len(entries[name]) for name in own])
            yield Targets(
                xr.concat(padded, "example"), list(own), numbers, np.concatenate([entries[name] for name in own])
            )


def _read_alone(task: xr.Dataset, positions: int) -> xr.Dataset:
    """Return what is read of a task, with texts padded to some length and without coordinates."""
    read = task[[name for name in READ if name in task]].reset_coords(drop=True)
    return read.drop_vars(list(read.coords)).pad(
        position=(0, positions - task.sizes["position"]), mode="constant", constant_values=-1
    )


def _rows_of_targets(targets: Targets, examples: np.ndarray) -> dict[str, slice]:
    """Return which rows of a batch are of each task."""
    numbers = targets.numbers[examples]
    ends = np.searchsorted(numbers, np.arange(len(targets.names) + 1))
    return {name: slice(*map(int, of)) for name, of in zip(targets.names, pairwise(ends), strict=True)}


def _without(
    prompts: Prompts, parts: Mapping[str, slice], sets: FeatureSets
) -> Float[Tensor, "batch position d_model"]:
    """Return the activation of the site with features removed from the rows of each target."""
    x = prompts.state.activation.clone()
    for name, features in sets.items():
        rows = parts.get(name, slice(0, 0))
        if features is not None and len(features) and rows.start != rows.stop:
            own = torch.from_numpy(features).to(x.device)
            x[rows] += (prompts.change[rows][..., own] @ prompts.weight[own]).to(x.dtype)
    return x
