"""Confidence intervals of means over tuning seeds: what other pairs, and other seeds, would give.

The mean of a seed is over its held-out pairs. It varies because the pairs are a sample, and because a seed tunes on
other pairs, in another order. Pairs with the same prefix are no independent sample: they are one sampling unit. A unit
that several seeds hold out counts in each of their means, which are therefore correlated. With means T_k of K seeds,

    Var(mean of T) = (variance between seeds) / K + (mean covariance, between seeds, by the units held out in both),

and never less than what the sampling of units alone gives. A variance between two or three seeds is all but unknown, so
it is pooled over cells that are taken to vary alike, and quantiles are Student's, with degrees of freedom by
Satterthwaite (1946). So coverage holds over these cells together: those that vary more than the others are covered
less often. Nor do intervals hold that all seeds choose from the same pairs, so that those that two seeds tune on are
partly the same: the correlation that this brings cannot be had from them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import t as student


class Means(NamedTuple):
    """Means over entries, and what each sampling unit contributes to their deviation.

    Attributes:
        mean: the means.
        contribution: of each unit, zero for those without an entry; each mean's contributions sum to zero.
    """

    mean: Float[np.ndarray, "*cell"]
    contribution: Float[np.ndarray, "*cell unit"]


class Spread(NamedTuple):
    """What tells the variance of a mean over seeds, by cell.

    Attributes:
        mean: the mean over seeds.
        sampling: its variance by the sampling of units alone.
        shared: mean covariance of the means of two seeds, by the units that both hold out; 0 with one seed.
        between: variance of the seeds' means; NaN with one seed.
        units: sampling units behind each mean, of the seed that has fewest.
    """

    mean: Float[np.ndarray, "*cell"]
    sampling: Float[np.ndarray, "*cell"]
    shared: Float[np.ndarray, "*cell"]
    between: Float[np.ndarray, "*cell"]
    units: Int[np.ndarray, "*cell"]


class Interval(NamedTuple):
    """Confidence intervals; NaN where there are fewer than two sampling units.

    Attributes:
        low: lower ends.
        high: upper ends.
    """

    low: Float[np.ndarray, "*cell"]
    high: Float[np.ndarray, "*cell"]


def means_by_unit(values: Float[np.ndarray, "*cell entry"], unit: Int[np.ndarray, " entry"], units: int) -> Means:
    """Return means over entries.

    Args:
        values: what is averaged.
        unit: number of the sampling unit that each entry belongs to.
        units: how many there are, those without an entry included.
    """
    values = values.astype(np.float64)
    mean = values.mean(axis=-1)
    members = (unit[:, None] == np.arange(units)).astype(np.float64)
    return Means(mean, (values - mean[..., None]) @ members / len(unit))


def spread_of(seeds: list[Means], units: list[int]) -> Spread:
    """Return what tells the variance of the mean over seeds.

    Args:
        seeds: the means of each seed, of the same cells and units.
        units: how many units each seed's means are over.
    """
    count, fewest = len(seeds), min(units)
    means, contributions = (np.stack(parts) for parts in zip(*seeds, strict=True))
    correction = fewest / (fewest - 1) if fewest > 1 else np.nan
    sampling = correction * np.square(contributions.mean(axis=0)).sum(axis=-1)
    own = correction * np.square(contributions).sum(axis=(0, -1))
    shared = (count**2 * sampling - own) / (count * (count - 1)) if count > 1 else np.zeros_like(sampling)
    between = means.var(axis=0, ddof=1) if count > 1 else np.full_like(sampling, np.nan)
    return Spread(means.mean(axis=0), sampling, shared, between, np.full(sampling.shape, fewest))


def pooled_over_sources(
    variance: Float[np.ndarray, "*cell source target"], kinds: Sequence[str]
) -> tuple[Float[np.ndarray, "*cell source target"], Int[np.ndarray, "*cell source target"]]:
    """Return variances between seeds pooled over cells that are taken to vary alike, and over how many.

    These are all sources of a target but itself. Tuning on a task itself changes it more, and varies more: these cells
    are pooled among one another, over targets whose metric has the same unit.

    Args:
        variance: of each cell.
        kinds: unit of each target.
    """
    tasks = len(kinds)
    itself = np.eye(tasks, dtype=bool)
    pooled = np.broadcast_to(variance.mean(axis=-2, keepdims=True, where=~itself), variance.shape).copy()
    cells = np.full(variance.shape, tasks - 1)
    for kind in dict.fromkeys(kinds):
        own = np.flatnonzero([each == kind for each in kinds])
        pooled[..., own, own] = variance[..., own, own].mean(axis=-1, keepdims=True)
        cells[..., own, own] = len(own)
    return pooled, cells


def seed_interval(
    spread: Spread,
    pooled: Float[np.ndarray, "*cell"],
    cells: Int[np.ndarray, "*cell"],
    seeds: int,
    confidence: float,
) -> Interval:
    """Return confidence intervals of means over seeds.

    Args:
        spread: what `spread_of` returns.
        pooled: the variance between seeds, pooled over cells.
        cells: how many cells each is pooled over.
        seeds: how many seeds there are. With one, intervals hold the sampling of units alone.
        confidence: coverage.
    """
    between = pooled / seeds + spread.shared - spread.sampling if seeds > 1 else np.zeros_like(spread.sampling)
    between = np.maximum(between, 0)
    variance = spread.sampling + between
    # By the size of both parts; where the variance is zero, so is the margin, whatever the degrees of freedom.
    parts = between**2 / np.maximum((seeds - 1) * cells, 1) + spread.sampling**2 / np.maximum(spread.units - 1, 1)
    freedom = np.divide(variance**2, parts, out=np.ones_like(variance), where=parts > 0)
    margin = student.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance)
    return Interval(spread.mean - margin, spread.mean + margin)
