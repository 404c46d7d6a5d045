"""Which tasks are served by the same features: overlap of their top features beside chance, noise and activity."""

from collections.abc import Mapping
from itertools import combinations_with_replacement
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from scipy.stats import false_discovery_control, hypergeom

from chronocoder.attribution.measures import SHUFFLED
from chronocoder.features.overlap import FEATURES_A_STRATUM, strata_of
from chronocoder.stores import labelled

TOP_FEATURES = 20
FALSE_DISCOVERY_RATE = 0.05
ROUNDING = 1e-9


class TopFeatures(NamedTuple):
    """Features by falling size of their effect, by checkpoint and task; no more than are compared.

    Attributes:
        measurable: those with a measurable effect.
        halves: those with an effect on each half of the prefixes.
        random: random directions with an effect, of each draw.
        strata: of like activity on the task's prefixes: what a feature is exchanged within.
    """

    measurable: list[list[np.ndarray]]
    halves: list[list[list[np.ndarray]]]
    random: list[list[list[np.ndarray]]]
    strata: list[list[Int[np.ndarray, " feature"]]]


class Pair(NamedTuple):
    """What is found of two tasks at a checkpoint.

    Attributes:
        compared: features of each that are compared.
        jaccard: their overlap; of one task that of its halves.
        chance: expected overlap with the features of one exchanged, the larger of the two ways.
        p_value: of the same.
        random: overlap of random directions, mean over draws.
    """

    compared: int
    jaccard: float
    chance: float
    p_value: float
    random: float


class Chance(NamedTuple):
    """What exchanging the features of one task at random would give.

    Attributes:
        jaccard: expected overlap.
        p_value: probability of an overlap at least as large as the one found.
    """

    jaccard: float
    p_value: float


def compare_tasks(relie: xr.Dataset, count: int = TOP_FEATURES) -> xr.Dataset:
    """Compare the sets of features of largest measurable |IE| between all tasks at each checkpoint.

    Of two tasks as many features are compared as are measurable on both, at most `count`. The diagonal compares the two
    halves of a task's prefixes: noise alone keeps it below one.

    Args:
        relie: effects, dims (task, checkpoint, feature).
        count: features of each task.

    Returns:
        dims (checkpoint, task, other_task): `jaccard`; `chance`, expected if the features of one of the tasks were
        exchanged at random among those of like activity on it, and `q_value`, both the larger of the two ways;
        `random`, the overlap of random directions; `beyond_chance`. NaN where a task has no measurable effect.
    """
    top = _top_features(relie, count)
    checkpoints, tasks = relie.sizes["checkpoint"], relie.sizes["task"]
    found = np.full((len(Pair._fields), checkpoints, tasks, tasks), np.nan)
    for checkpoint in range(checkpoints):
        for task, other in combinations_with_replacement(range(tasks), 2):
            found[:, checkpoint, task, other] = found[:, checkpoint, other, task] = _pair(top, checkpoint, task, other)
    return _described(relie, dict(zip(Pair._fields, found, strict=True)))


def exchanged_overlap(
    first: Int[np.ndarray, " top"], second: Int[np.ndarray, " top"], strata: Int[np.ndarray, " feature"]
) -> Chance:
    """Return what the overlap of two sets is if features of one are exchanged at random within strata: exactly.

    The number in common is a sum of hypergeometric ones, one for each stratum.
    """
    sizes, ones, twos = (np.bincount(of, minlength=strata.max() + 1) for of in (strata, strata[first], strata[second]))
    both = np.flatnonzero((ones > 0) & (twos > 0))
    common = np.arange(min(len(first), len(second)) + 1)
    law, laws = np.ones(1), hypergeom.pmf(common, *(of[both, None] for of in (sizes, ones, twos)))
    for of_stratum in laws:
        law = np.convolve(law, of_stratum)[: len(common)]
    overlaps = (common / (len(first) + len(second) - common))[: len(law)]
    reached = overlaps >= _jaccard(first, second) - ROUNDING
    return Chance(float(law @ overlaps), float(min(1.0, law[reached].sum())))


def _pair(top: TopFeatures, checkpoint: int, task: int, other: int) -> Pair:
    sets = [top.measurable[checkpoint][place] for place in (task, other)]
    number = min(map(len, sets))
    if not number:
        return Pair(0, *[np.nan] * 4)
    if task == other:
        return Pair(number, _jaccard(*(of[:number] for of in top.halves[checkpoint][task])), *[np.nan] * 3)
    first, second = (of[:number] for of in sets)
    draws = zip(top.random[checkpoint][task], top.random[checkpoint][other], strict=True)
    random = [_jaccard(one[:number], two[:number]) for one, two in draws]
    ways = [exchanged_overlap(first, second, top.strata[checkpoint][place]) for place in (task, other)]
    chance, p_value = (max(values) for values in zip(*ways, strict=True))
    return Pair(number, _jaccard(first, second), chance, p_value, float(np.mean(random)) if random else np.nan)


def _top_features(relie: xr.Dataset, count: int) -> TopFeatures:
    ordered = relie.transpose("checkpoint", "task", ..., "feature")
    size = abs(ordered["indirect_effect"]).where(ordered["measurable"], 0).values
    halves = abs(ordered["half_indirect_effect"].mean("condition")).transpose("checkpoint", "task", "half", "feature")
    written = (ordered["mean_activation"] * ordered["relative_decoder_norm"]).transpose("checkpoint", "task", "feature")
    return TopFeatures(
        [[_largest(of, count) for of in at] for at in size],
        [[[_largest(half, count) for half in of] for of in at] for at in halves.values],
        [[[_largest(draw, count) for draw in of] for of in at] for at in _random_sizes(ordered)],
        [[strata_of(np.nan_to_num(of), FEATURES_A_STRATUM) for of in at] for at in written.values],
    )


def _random_sizes(relie: xr.Dataset) -> Float[np.ndarray, "checkpoint task draw feature"]:
    """Return |IE| of the random directions of each draw; none without draws."""
    if "control_indirect_effect" not in relie:
        return np.zeros((relie.sizes["checkpoint"], relie.sizes["task"], 0, 0))
    draws = relie["control_indirect_effect"].sel(control=[name != SHUFFLED for name in relie["control"].values])
    sizes: np.ndarray = abs(draws.mean("condition")).transpose("checkpoint", "task", "control", "feature").values
    return sizes


def _largest(sizes: Float[np.ndarray, " feature"], count: int) -> Int[np.ndarray, " top"]:
    """Return the places of the largest sizes above zero, at most `count`, by falling size."""
    known = np.nan_to_num(sizes)
    order = np.argsort(-known, kind="stable")[:count]
    places: Int[np.ndarray, " top"] = order[known[order] > 0]
    return places


def _jaccard(first: Int[np.ndarray, " top"], second: Int[np.ndarray, " top"]) -> float:
    common = len(np.intersect1d(first, second))
    union = len(first) + len(second) - common
    return common / union if union else float("nan")


def _described(relie: xr.Dataset, found: Mapping[str, Float[np.ndarray, "checkpoint task other_task"]]) -> xr.Dataset:
    upper = np.triu_indices(relie.sizes["task"], 1)
    p_value, q_value = found["p_value"][:, *upper], np.full(found["p_value"].shape, np.nan)
    tested, rates = np.isfinite(p_value), np.full(p_value.shape, np.nan)
    if tested.any():
        rates[tested] = false_discovery_control(p_value[tested])
    for one, other in (upper, upper[::-1]):
        q_value[:, one, other] = rates
    beyond = (q_value <= FALSE_DISCOVERY_RATE) & (found["jaccard"] > np.nan_to_num(found["random"], nan=-1))
    dims = ("checkpoint", "task", "other_task")
    tasks = relie["task"].values
    return xr.Dataset(
        {
            "jaccard": labelled(dims, found["jaccard"], "Jaccard index of the top features of two tasks"),
            "chance": labelled(
                dims, found["chance"], "expected with features of one task exchanged among those of like activity"
            ),
            "q_value": labelled(
                dims, q_value, "least false discovery rate at which it passes, over pairs and checkpoints"
            ),
            "random": labelled(dims, found["random"], "Jaccard index of the top random directions of two tasks"),
            "beyond_chance": labelled(dims, beyond, "whether it passes, and exceeds that of random directions"),
            "features_compared": labelled(
                dims, found["compared"].astype(int), "features of each task that are compared"
            ),
        },
        coords={
            "checkpoint": relie["checkpoint"].values,
            "tokens_seen": ("checkpoint", relie["tokens_seen"].values),
            "task": tasks,
            "other_task": tasks,
            "phenomenon": ("task", relie["phenomenon"].values),
            "language": ("task", relie["language"].values),
        },
    )
