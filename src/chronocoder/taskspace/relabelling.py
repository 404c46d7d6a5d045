"""What chance gives: tasks relabelled, in every way that makes a difference where these are few, else at random.

A p-value is the fraction of relabellings whose statistic is at least that observed, which is counted among them: it is
exact over all of them, and never too small over random ones (Phipson and Smyth 2010).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from math import factorial, prod
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

ROUNDING = 1e-9
"""Statistics that differ by less are ties."""
AT_ONCE = 500
"""Relabellings whose statistics are computed together."""
FEWEST = 3
"""Any two tasks are as far apart as any other two: fewer than three say nothing."""


class Tested(NamedTuple):
    """A statistic beside what relabelled tasks give.

    Attributes:
        observed: the statistic.
        p_value: fraction of the relabellings with at least it.
        smallest_p: the smallest p-value that could be had.
        chance: mean over the relabellings.
    """

    observed: float
    p_value: float
    smallest_p: float
    chance: float


UNDEFINED = Tested(np.nan, np.nan, np.nan, np.nan)


def beside_chance(statistics: Float[np.ndarray, " relabelling"]) -> Tested:
    """Return the first of some statistics, that of the labels as they are, beside all of them; NaN where it is."""
    observed = statistics[0]
    if np.isnan(observed):
        return UNDEFINED
    reached = (statistics >= observed - ROUNDING).mean()
    return Tested(float(observed), float(reached), 1 / len(statistics), float(statistics.mean()))


def orders(tasks: int, most: int, generator: np.random.Generator) -> Int[np.ndarray, "relabelling task"]:
    """Return orders of tasks, the given one first: all if these are at most `most`, else so many random ones more."""
    if factorial(tasks) <= most:
        return np.array(list(permutations(range(tasks))))
    drawn = generator.permuted(np.tile(np.arange(tasks), (most, 1)), axis=1)
    return np.concatenate([np.arange(tasks)[None], drawn])


def groupings(groups: Sequence[str], most: int, generator: np.random.Generator) -> Int[np.ndarray, "relabelling task"]:
    """Return groupings of tasks in groups of the same sizes, the given one first; numbers stand for groups.

    All distinct ones if these are at most `most`, else so many random ones more. Groupings are distinct where they put
    different tasks together: exchanging the names of two groups of one size makes no other.
    """
    names = list(dict.fromkeys(groups))
    given = np.array([names.index(group) for group in groups])
    if distinct_groupings(groups) > most:
        return np.concatenate([given[None], generator.permuted(np.tile(given, (most, 1)), axis=1)])
    sizes = Counter(Counter(groups).values())
    every = np.array(list(_partitions(tuple(range(len(groups))), sizes, len(groups), 0)))
    same = (_together(every) == _together(given[None])).all(axis=1)
    return np.concatenate([every[same], every[~same]])


def distinct_groupings(groups: Sequence[str]) -> int:
    """Return how many groupings of tasks in groups of the same sizes are distinct."""
    sizes = Counter(groups).values()
    same = prod(factorial(count) for count in Counter(sizes).values())
    return factorial(len(groups)) // (prod(map(factorial, sizes)) * same)


def _partitions(left: tuple[int, ...], sizes: Counter[int], tasks: int, number: int) -> Iterator[np.ndarray]:
    """Yield the groupings of the tasks that are left; those of the others are zero."""
    if not left:
        yield np.zeros(tasks, dtype=np.int64)
        return
    for size in [size for size, count in sizes.items() if count]:
        for others in combinations(left[1:], size - 1):
            group = (left[0], *others)
            rest = tuple(task for task in left if task not in group)
            for grouping in _partitions(rest, sizes - Counter([size]), tasks, number + 1):
                grouping[list(group)] = number
                yield grouping


def _together(groupings: Int[np.ndarray, "relabelling task"]) -> np.ndarray:
    """Return whether each pair of tasks is in one group, shape (relabelling, pair)."""
    first, second = np.triu_indices(groupings.shape[1], 1)
    together: np.ndarray = groupings[:, first] == groupings[:, second]
    return together


def contrasts(
    similarity: Float[np.ndarray, "task task"], groupings: Int[np.ndarray, "relabelling task"]
) -> Float[np.ndarray, "kind relabelling"]:
    """Return the mean similarity of the pairs within groups, and between them; NaN where there is no such pair."""
    pairs = similarity[np.triu_indices(len(similarity), 1)]
    within = np.concatenate([_together(part) @ pairs for part in in_parts(groupings)])
    count = int(_together(groupings[:1]).sum())
    sums, counts = np.stack([within, pairs.sum() - within]), np.array([count, len(pairs) - count])[:, None]
    found: np.ndarray = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return found


def in_parts(relabellings: np.ndarray) -> list[np.ndarray]:
    """Return relabellings in parts whose statistics are computed together."""
    return [relabellings[start : start + AT_ONCE] for start in range(0, len(relabellings), AT_ONCE)]
