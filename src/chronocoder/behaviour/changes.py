"""Changes of an accuracy curve over checkpoints, told from what the choice of pairs alone would give.

A curve is the fraction of a task's pairs that each checkpoint judges rightly. The same pairs are judged at every
checkpoint, so that neighbouring points err together; chance is therefore always drawn pair by pair, each with its whole
course. docs/choosing.md has the formulas and their sources.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

MOST_AT_ONCE = 2**22
"""Numbers in the largest temporary."""


class Halves(NamedTuple):
    """Two halves of a task's pairs, each with all conditions: one that chooses, one that does not and so confirms.

    Attributes:
        choosing: places of its pairs.
        confirming: places of the others.
    """

    choosing: Int[np.ndarray, " pair"]
    confirming: Int[np.ndarray, " pair"]


def halve(conditions: np.ndarray, generator: np.random.Generator) -> Halves:
    """Divide pairs at random, each condition by itself.

    Args:
        conditions: of each pair, shape (pair,).
        generator: of the order.
    """
    order = generator.permutation(len(conditions))
    order = order[np.argsort(conditions[order], kind="stable")]
    return Halves(np.sort(order[::2]), np.sort(order[1::2]))


def accuracy(right: Bool[np.ndarray, "pair checkpoint"]) -> Float[np.ndarray, " checkpoint"]:
    """Return the fraction of the pairs that each checkpoint judges rightly."""
    mean: np.ndarray = right.mean(axis=0)
    return mean


def resampled(
    right: Bool[np.ndarray, "pair checkpoint"], count: int, generator: np.random.Generator
) -> Float[np.ndarray, "sample checkpoint"]:
    """Return the curves of bootstrap resamples of the pairs."""
    pairs = len(right)
    drawn = generator.multinomial(pairs, np.full(pairs, 1 / pairs), size=count)
    curves: np.ndarray = drawn @ right.astype(float) / pairs
    return curves


def without_change(
    right: Bool[np.ndarray, "pair checkpoint"], count: int, generator: np.random.Generator, around_curve: bool = False
) -> Float[np.ndarray, "sample checkpoint"]:
    """Return curves about zero of a task that does not change, whose pairs vary as much as these.

    The course of each pair, less its mean over the checkpoints, gets a random sign (the wild bootstrap of Liu 1988):
    where nothing changes, a pair that comes to be judged rightly is as likely as one that ceases to be.

    Args:
        right: which pairs are judged rightly.
        count: how many curves.
        generator: of the signs.
        around_curve: take off the mean course of all pairs too, which leaves the noise of a curve that does change.
    """
    courses = right - right.mean(axis=1, keepdims=True)
    if around_curve:
        courses -= courses.mean(axis=0)
    signs = generator.choice([-1.0, 1.0], size=(count, len(right)))
    curves: np.ndarray = signs @ courses / len(right)
    return curves


def strongest_change(curves: Float[np.ndarray, "sample checkpoint"]) -> Float[np.ndarray, " sample"]:
    """Return the squared error a change point takes away at most: of one step, or of a stretch with two ends.

    With S the sum of a stretch of l of the T points, and m the mean of all: (S - l m)^2 T / (l (T - l)), divided by the
    number of its ends inside the curve.
    """
    points = curves.shape[1]
    sums = np.pad(np.cumsum(curves - curves.mean(axis=1, keepdims=True), axis=1), ((0, 0), (1, 0)))
    best = np.zeros(len(curves))
    for start in range(points):
        ends = np.arange(start + 1, points + 1)
        lengths = ends - start
        inner = lengths < points
        ends, lengths = ends[inner], lengths[inner]
        if len(ends):
            count = 1 + ((start > 0) & (ends < points))
            gain = (sums[:, ends] - sums[:, [start]]) ** 2 * (points / (lengths * (points - lengths) * count))
            np.maximum(best, gain.max(axis=1), out=best)
    return best


def fitted(curves: Float[np.ndarray, "sample checkpoint"], penalty: float) -> Float[np.ndarray, "sample checkpoint"]:
    """Return the curves' best fits by steps: least squared error plus a penalty for each change.

    Optimal partitioning (Jackson et al. 2005), exact, in time T^2.
    """
    samples = max(1, MOST_AT_ONCE // curves.shape[1])
    parts = [_fitted(curves[start : start + samples], penalty) for start in range(0, len(curves), samples)]
    return np.concatenate(parts)


def _fitted(curves: np.ndarray, penalty: float) -> np.ndarray:
    count, points = curves.shape
    sums, squares = (np.pad(np.cumsum(values, axis=1), ((0, 0), (1, 0))) for values in (curves, curves**2))
    least = np.full((count, points + 1), -penalty)
    start_of = np.zeros((count, points + 1), dtype=int)
    for end in range(1, points + 1):
        lengths = np.arange(end, 0, -1)
        errors = squares[:, [end]] - squares[:, :end] - (sums[:, [end]] - sums[:, :end]) ** 2 / lengths
        costs = least[:, :end] + penalty + errors
        start_of[:, end] = costs.argmin(axis=1)
        least[:, end] = costs.min(axis=1)
    found, rows, ends = np.empty_like(curves), np.arange(count), np.full(count, points)
    for point in range(points - 1, -1, -1):
        starts = start_of[rows, ends]
        found[:, point] = (sums[rows, ends] - sums[rows, starts]) / (ends - starts)
        ends = np.where(starts == point, starts, ends)
    return found


def crossings(
    curves: Float[np.ndarray, "sample checkpoint"], before: int, after: int, levels: tuple[float, float]
) -> Int[np.ndarray, " sample"]:
    """Return the first checkpoint after `before` and up to `after` that is half-way between two levels or beyond.

    Args:
        curves: fits by steps.
        before: place of a checkpoint at the first level.
        after: place of a checkpoint at the second level, taken where a curve never gets half-way.
        levels: first and second.
    """
    middle, direction = sum(levels) / 2, np.sign(levels[1] - levels[0])
    reached = (curves[:, before + 1 : after + 1] - middle) * direction >= 0
    reached[:, -1] = True
    places: np.ndarray = before + 1 + reached.argmax(axis=1)
    return places


class Spread(NamedTuple):
    """An estimate with its interval.

    Attributes:
        value: the estimate.
        low: lower end.
        high: upper end.
    """

    value: float
    low: float
    high: float


def percentiles(samples: np.ndarray, confidence: float) -> tuple[float, float]:
    """Return the ends of the percentile interval of resampled values, each a value that occurs."""
    ends = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2], method="nearest")
    return float(ends[0]), float(ends[1])


def p_value(observed: float, by_chance: Float[np.ndarray, " sample"]) -> float:
    """Return the p-value of a statistic by random draws of it, the observed one counted among them."""
    return float((1 + (by_chance >= observed).sum()) / (1 + len(by_chance)))
