"""The Mantel test: whether two relations between the same tasks, which may have a direction, are correlated."""

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from chronocoder.taskspace.relabelling import FEWEST, UNDEFINED, Tested, beside_chance, in_parts, orders


def mantel(
    first: Float[np.ndarray, "source target"],
    second: Float[np.ndarray, "source target"],
    permutations: int,
    generator: np.random.Generator,
) -> Tested:
    """Return Spearman's correlation over ordered pairs of different tasks, beside that with tasks relabelled.

    Entries of a row or a column are not independent, but tasks may be relabelled if the relations have nothing to do
    with each other (Mantel 1967).

    Args:
        first: a relation.
        second: another one between the same tasks.
        permutations: relabellings.
        generator: draws them, where there are more.

    Returns:
        NaN of fewer than three tasks, where an entry is NaN, or where one of the relations is constant.
    """
    if len(first) < FEWEST:
        return UNDEFINED
    row, column = np.nonzero(~np.eye(len(first), dtype=bool))
    fixed, moved = (_standardised(values[row, column]) for values in (first, second))
    if not (np.isfinite(fixed).all() and np.isfinite(moved).all()):
        return UNDEFINED
    relation = np.zeros(first.shape)
    relation[row, column] = moved
    every = orders(len(first), permutations, generator)
    products = [relation[part[:, row], part[:, column]] @ fixed for part in in_parts(every)]
    return beside_chance(np.concatenate(products))


def _standardised(values: np.ndarray) -> np.ndarray:
    """Return ranks with mean zero and norm one; NaN where all are equal or one is NaN."""
    ranks = rankdata(values) - (len(values) + 1) / 2
    norm = np.linalg.norm(ranks)
    found: np.ndarray = ranks / norm if norm > 0 else np.full(len(values), np.nan)
    return found
