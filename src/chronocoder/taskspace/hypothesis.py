"""Whether tasks that are hypothesised to belong together are more similar than others."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import t as student

from chronocoder.config import TaskSpaceSettings
from chronocoder.taskspace.relabelling import beside_chance, contrasts, groupings


class Contrast(NamedTuple):
    """Similarity within hypothesised groups less that between them.

    Attributes:
        within: mean similarity of two tasks of one group.
        between: mean similarity of two tasks of different groups.
        contrast: the former less the latter.
        low: lower end of its interval.
        high: upper end.
        p_value: fraction of groupings of the tasks, in groups of the same sizes, with at least this contrast.
        smallest_p: the smallest p-value that could be had.
        reason: why something is NaN; empty where nothing is.
    """

    within: float
    between: float
    contrast: float
    low: float
    high: float
    p_value: float
    smallest_p: float
    reason: str


def contrast_of(
    similarity: Float[np.ndarray, "task task"],
    groups: Sequence[str],
    settings: TaskSpaceSettings,
    generator: np.random.Generator,
) -> Contrast:
    """Return how much more similar tasks of one group are, with an interval over tasks and a permutation test.

    The test asks whether the groups could as well be any others of these tasks. The interval is of the jackknife that
    leaves out one task at a time, with Student's quantile: it says how far other tasks like these, in the same groups,
    would give another contrast. What tunings, pairs and seeds add to each task by chance is part of it; a choice of
    tasks that is one-sided, or the tasks being variants of one another, is not.

    Args:
        similarity: of every two tasks.
        groups: the group of each.
        settings: permutations and confidence.
        generator: draws the permutations.
    """
    given = np.unique(list(groups), return_inverse=True)[1] if len(groups) else np.empty(0, dtype=np.int64)
    if reason := _lacking(given):
        means = contrasts(similarity, given[None])[:, 0] if len(given) > 1 else np.full(2, np.nan)
        return Contrast(float(means[0]), float(means[1]), np.nan, np.nan, np.nan, np.nan, np.nan, reason)
    within, between = contrasts(similarity, groupings(groups, settings.permutations, generator))
    test = beside_chance(within - between)
    low, high = _jackknifed(similarity, given, test.observed, settings.confidence)
    reason = "" if np.isfinite(low) else "without one of the tasks no pair is left within groups, or none between them"
    return Contrast(
        float(within[0]), float(between[0]), test.observed, low, high, test.p_value, test.smallest_p, reason
    )


def _lacking(given: np.ndarray) -> str:
    """Return why there is no contrast; nothing where there is one."""
    sizes = np.bincount(given)
    if len(given) < 2:
        return f"tuning or gradients tell of {len(given)} of the tasks"
    if len(sizes) == 1:
        return "all tasks belong to one group"
    return "" if sizes.max() > 1 else "no two tasks belong to one group"


def _jackknifed(
    similarity: Float[np.ndarray, "task task"], given: np.ndarray, observed: float, confidence: float
) -> tuple[float, float]:
    """Return the interval of the contrast by leaving out one task at a time; NaN where that leaves no contrast."""
    count = len(given)
    left_out = []
    for task in range(count):
        rest = np.delete(np.arange(count), task)
        within, between = contrasts(similarity[np.ix_(rest, rest)], given[None, rest])[:, 0]
        left_out.append(within - between)
    error = np.sqrt((count - 1) / count * np.square(left_out - np.mean(left_out)).sum())
    margin = float(student.ppf((1 + confidence) / 2, count - 1) * error)
    return observed - margin, observed + margin
