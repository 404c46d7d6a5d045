"""Choosing comparisons from the accuracy curves of all tasks, and measuring on other pairs what was chosen."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from scipy.stats import false_discovery_control

from chronocoder.behaviour.changes import (
    Spread,
    accuracy,
    crossings,
    fitted,
    halve,
    p_value,
    percentiles,
    resampled,
    strongest_change,
    without_change,
)
from chronocoder.behaviour.choosing import choose_places, distances, rate_of_change
from chronocoder.config import ChoiceSettings, Comparison

HALVES, CHANCE, RESAMPLES, CONFIRMING = range(4)
"""Purposes of random numbers."""


class Curves(NamedTuple):
    """What comparisons are chosen from.

    Attributes:
        right: by task, which pairs each checkpoint judges rightly, shape (pair, checkpoint).
        conditions: by task, the condition of each pair.
        tokens_seen: by checkpoint, in order of training.
        similarity: linear CKA of every two checkpoints' activations.
    """

    right: Mapping[str, Bool[np.ndarray, "pair checkpoint"]]
    conditions: Mapping[str, np.ndarray]
    tokens_seen: Mapping[str, int]
    similarity: Float[np.ndarray, "checkpoint other"]

    @property
    def revisions(self) -> list[str]:
        """The checkpoints."""
        return list(self.tokens_seen)


def curves_of(tasks: Iterable[xr.Dataset], similarity: xr.Dataset, site: str) -> Curves:
    """Return the curves in the scores of tasks, dims (checkpoint, example), and the similarity at a site."""
    stores = {str(task.attrs["task"]): task for task in tasks}
    first = next(iter(stores.values()))
    seen = {
        str(name): int(tokens)
        for name, tokens in zip(first["checkpoint"].values, first["tokens_seen"].values, strict=True)
    }
    return Curves(
        {name: (store["difference"].transpose("example", "checkpoint").values > 0) for name, store in stores.items()},
        {name: np.array([str(one) for one in store["condition"].values]) for name, store in stores.items()},
        seen,
        similarity["linear_cka"].sel(site=site, checkpoint=list(seen), other_checkpoint=list(seen)).values,
    )


def tasks_of_scan(scan: xr.Dataset) -> list[xr.Dataset]:
    """Return what a collected scan tells of each task, dims (checkpoint, example), as in the scores of a task."""
    return [
        scan[["difference", "condition"]]
        .sel(task=task)
        .dropna("example", subset=["difference"])
        .assign_attrs(task=str(task))
        for task in scan["task"].values
    ]


class TaskCurve(NamedTuple):
    """The curve of a task and what is found in it.

    Attributes:
        task: name of the task.
        choosing: the half of its pairs that chooses, shape (pair, checkpoint).
        confirming: the other half.
        p_value: of a curve without change being as uneven.
        penalty: of a change in fits by steps: in curves without change, none is worth it but in a stated fraction.
        levels: fitted accuracies.
    """

    task: str
    choosing: Bool[np.ndarray, "pair checkpoint"]
    confirming: Bool[np.ndarray, "pair checkpoint"]
    p_value: float
    penalty: float
    levels: Float[np.ndarray, " checkpoint"]


class Move(NamedTuple):
    """How the accuracy on a task changes between two checkpoints.

    Attributes:
        task: name of the task.
        before: accuracy at the first checkpoint, on the half that chooses and on the half that confirms.
        after: the same at the second one.
        confirmed: the change on the half that confirms.
        by_chance: size that this has without change in no more than a stated fraction of cases.
        halfway: places of the first checkpoint half-way or beyond: on the half that chooses, and its interval.
    """

    task: str
    before: tuple[float, float]
    after: tuple[float, float]
    confirmed: Spread
    by_chance: float
    halfway: Spread

    @property
    def change(self) -> float:
        """The change on the half that chooses."""
        return self.after[0] - self.before[0]


class Step(NamedTuple):
    """Two checkpoints that a comparison holds one after the other.

    Attributes:
        before: place of the first.
        after: place of the second.
        similarity: linear CKA of their activations.
        moves: of the tasks that change between them by what is of interest or more, the largest first.
    """

    before: int
    after: int
    similarity: float
    moves: list[Move]


class Choice(NamedTuple):
    """The comparisons that were chosen, and what by.

    Attributes:
        curves: the curve of each task that counts.
        q_values: of each, the least false discovery rate at which it changes.
        changing: of each, whether it changes.
        comparisons: by name.
        steps: those of each comparison.
        repeated: names of given comparisons that would have been chosen, and were not chosen again.
    """

    curves: list[TaskCurve]
    q_values: Float[np.ndarray, " task"]
    changing: Bool[np.ndarray, " task"]
    comparisons: dict[str, Comparison]
    steps: dict[str, list[Step]]
    repeated: list[str]


def choose(curves: Curves, settings: ChoiceSettings, given: Mapping[str, Comparison], site: str) -> Choice:
    """Choose comparisons; none where no task changes.

    Args:
        curves: of all tasks.
        settings: the budget and what counts as a change.
        given: comparisons that need not be chosen again.
        site: the suite's.
    """
    tasks = [task_curve(task, curves, settings) for task in settings.tasks or curves.right]
    q_values = np.asarray(false_discovery_control([task.p_value for task in tasks]))
    ranges = np.array([np.ptp(task.levels) for task in tasks])
    changing = (q_values <= settings.false_discovery_rate) & (ranges >= settings.smallest_change)
    movers = [task for task, moves in zip(tasks, changing, strict=True) if moves]
    if not movers:
        return Choice(tasks, q_values, changing, {}, {}, [])
    moved = distances(np.stack([task.levels for task in movers]), settings.smallest_change)
    rate = rate_of_change(curves.similarity, list(curves.tokens_seen.values()))
    samples = np.stack([_resamples(task, settings) for task in movers])
    chosen = choose_places(moved, rate, settings, lambda corners: _error_of_length(samples, corners))
    known = {
        tuple(one.checkpoints): name for name, one in given.items() if (one.site or site) == (settings.site or site)
    }
    named = [[[curves.revisions[place] for place in one] for one in kind] for kind in chosen]
    pairs, triplets = ([one for one in kind if tuple(one) not in known] for kind in named)
    comparisons = settings.named(pairs, triplets)
    steps = {
        name: [
            _step(curves, movers, samples, settings, *map(curves.revisions.index, ends))
            for ends in pairwise(one.checkpoints)
        ]
        for name, one in comparisons.items()
    }
    repeated = [known[tuple(one)] for kind in named for one in kind if tuple(one) in known]
    return Choice(tasks, q_values, changing, comparisons, steps, repeated)


def task_curve(task: str, curves: Curves, settings: ChoiceSettings) -> TaskCurve:
    """Return the curve of a task on both halves of its pairs, and what the first one tells."""
    halves = halve(curves.conditions[task], _generator(settings, HALVES, task))
    choosing, confirming = (curves.right[task][places] for places in halves)
    if not len(confirming):
        return TaskCurve(task, choosing, confirming, 1.0, np.inf, np.zeros(choosing.shape[1]))
    curve = accuracy(choosing)[None]
    chance, noise = (
        strongest_change(without_change(choosing, settings.resamples, _generator(settings, CHANCE, task), around_curve))
        for around_curve in (False, True)
    )
    penalty = float(np.quantile(noise, 1 - settings.false_discovery_rate))
    p = p_value(float(strongest_change(curve)[0]), chance)
    return TaskCurve(task, choosing, confirming, p, penalty, fitted(curve, penalty)[0])


def change_points(task: TaskCurve, settings: ChoiceSettings) -> list[tuple[int, Move]]:
    """Return the changes in the fit of a task, each with its place, and measured between the means of both levels."""
    starts = [0, *(np.flatnonzero(np.diff(task.levels)) + 1).tolist(), len(task.levels)]
    refits = fitted(_resamples(task, settings), task.penalty)
    return [
        (middle, _move(task, refits, settings, slice(first, middle), slice(middle, last)))
        for first, middle, last in zip(starts, starts[1:], starts[2:], strict=False)
    ]


def _step(
    curves: Curves,
    movers: Sequence[TaskCurve],
    samples: Float[np.ndarray, "task sample checkpoint"],
    settings: ChoiceSettings,
    before: int,
    after: int,
) -> Step:
    ends = slice(before, before + 1), slice(after, after + 1)
    moves = [
        _move(task, fitted(of_task, task.penalty), settings, *ends)
        for task, of_task in zip(movers, samples, strict=True)
        if abs(task.levels[after] - task.levels[before]) >= settings.smallest_change
    ]
    moves.sort(key=lambda move: -abs(move.change))
    return Step(before, after, float(curves.similarity[before, after]), moves)


def _move(task: TaskCurve, refits: np.ndarray, settings: ChoiceSettings, before: slice, after: slice) -> Move:
    """Measure a change between the mean over some checkpoints and that over others after them."""
    ends = [
        (float(task.choosing[:, place].mean()), float(task.confirming[:, place].mean())) for place in (before, after)
    ]
    levels = float(task.levels[before].mean()), float(task.levels[after].mean())
    of_pairs = (task.confirming[:, after].mean(axis=1) - task.confirming[:, before].mean(axis=1))[:, None]
    generator = _generator(settings, CONFIRMING, task.task)
    interval = percentiles(resampled(of_pairs, settings.resamples, generator), settings.confidence)
    signs = generator.choice([-1.0, 1.0], size=(settings.resamples, len(of_pairs)))
    by_chance = np.quantile(abs(signs @ of_pairs) / len(of_pairs), 1 - settings.false_discovery_rate)
    own, others = (crossings(fits, before.start, after.stop - 1, levels) for fits in (task.levels[None], refits))
    halfway = Spread(int(own[0]), *percentiles(others, settings.confidence))
    return Move(task.task, ends[0], ends[1], Spread(ends[1][1] - ends[0][1], *interval), float(by_chance), halfway)


def _error_of_length(samples: Float[np.ndarray, "task sample checkpoint"], corners: Sequence[int]) -> float:
    """Return the standard error of a polygon's length over resamples of the pairs."""
    lengths = sum(np.sqrt(((samples[..., a] - samples[..., b]) ** 2).sum(axis=0)) for a, b in pairwise(corners))
    return float(np.std(lengths))


def _resamples(task: TaskCurve, settings: ChoiceSettings) -> Float[np.ndarray, "sample checkpoint"]:
    return resampled(task.choosing, settings.resamples, _generator(settings, RESAMPLES, task.task))


def _generator(settings: ChoiceSettings, purpose: int, task: str) -> np.random.Generator:
    """Return a generator of its own for each purpose and task, so that another task changes no number of this one."""
    return np.random.default_rng([settings.seed, purpose, zlib.crc32(task.encode())])
