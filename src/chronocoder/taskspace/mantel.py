"""The Mantel test: whether two relations between the same tasks are correlated, though their entries are dependent."""

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import rankdata

ENTRIES_AT_ONCE = 1 << 20
"""Entries of relabelled matrices that are compared at once."""
ROUNDING = 1e-9
"""Correlations that differ by less are ties."""


class Correlation(NamedTuple):
    """A correlation, and how often chance gives one as large.

    Attributes:
        value: Spearman's, over ordered pairs of different tasks; NaN where one of the relations is constant.
        p_value: fraction of relabellings that reach it, one-sided; NaN where there is none.
    """

    value: float
    p_value: float


def mantel(
    first: Float[np.ndarray, "task task"],
    second: Float[np.ndarray, "task task"],
    permutations: int,
    generator: np.random.Generator,
) -> Correlation:
    """Correlate two relations between tasks, and relabel the tasks of the second to tell chance (Mantel 1967).

    Entries of a row or a column are not independent, but tasks may be relabelled if the relations have nothing to do
    with each other. All relabellings are tried where they are no more than `permutations`; else so many random ones,
    and the observed one counts as reached: p = (1 + reached) / (1 + permutations).

    Args:
        first: a relation; the diagonal has no influence.
        second: another between the same tasks.
        permutations: random relabellings.
        generator: draws them.
    """
    count = len(first)
    apart = ~np.eye(count, dtype=bool)
    ranks = [_standardised(values[apart]) for values in (first, second)]
    if not np.isfinite(ranks).all():
        return Correlation(np.nan, np.nan)
    relation = np.zeros((count, count))
    relation[apart] = ranks[1]
    observed = float(ranks[0] @ ranks[1])
    exact = math.factorial(count) <= permutations
    reached = tried = 0
    for orders in _relabellings(count, None if exact else permutations, generator):
        relabelled = relation[orders[:, :, None], orders[:, None, :]][:, apart]
        reached += int((relabelled @ ranks[0] >= observed - ROUNDING).sum())
        tried += len(orders)
    return Correlation(observed, reached / tried if exact else (1 + reached) / (1 + tried))


def _standardised(values: np.ndarray) -> np.ndarray:
    """Return ranks with mean zero and norm one, NaN where all are equal."""
    if not np.isfinite(values).all():
        return np.full(len(values), np.nan)
    ranks = rankdata(values)
    ranks -= ranks.mean()
    norm = np.linalg.norm(ranks)
    found: np.ndarray = ranks / norm if norm > 0 else np.full(len(values), np.nan)
    return found


def _relabellings(
    count: int, permutations: int | None, generator: np.random.Generator
) -> Iterator[Int[np.ndarray, "order task"]]:
    """Yield orders of so many tasks in blocks: all of them, or so many random ones."""
    block = max(1, ENTRIES_AT_ONCE // count**2)
    if permutations is None:
        every = itertools.permutations(range(count))
        while orders := list(itertools.islice(every, block)):
            yield np.array(orders)
        return
    for start in range(0, permutations, block):
        yield generator.permuted(np.tile(np.arange(count), (min(block, permutations - start), 1)), axis=1)
