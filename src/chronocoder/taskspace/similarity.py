"""How similar the gradients of tasks are, from the gradients of groups of their pairs. Imports no torch.

Gradients of a few pairs are noisy, and noise makes tasks look less alike than they are; texts that two tasks share have
the same noise, which makes them look more alike. What is done about it is our own choice. The cosine of means is given
as it is. Everything else never compares groups of the same number, which alone have texts in common: the corrected
cosine divides unbiased estimates of inner products; overlaps are of one half of the one task's groups and the other
half of the other's, by which a task compared with itself, on the diagonal, is what sampling allows at most.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.stats import t as student

ROUNDING = 1e-8
"""Eigenvalues below this fraction of the largest are taken for zero: gradients are sums in float32."""
COLUMNS = 1 << 16
"""Entries of all gradients that are worked on at once in float64."""
LABELS = ("true", "swapped")
"""Right and wrong as they are, and swapped in half of the pairs of each group, alike in all conditions."""
CROSSED = ((0, 1), (1, 0))
"""Halves that are compared: never the same of both tasks."""

Gram = Float[np.ndarray, "task group other_task other_group"]
Matrix = Float[np.ndarray, "task other_task"]
Weights = Float[np.ndarray, "task group"]


class Estimate(NamedTuple):
    """A number of every two tasks, with its jackknife interval over groups.

    Attributes:
        value: the estimate.
        low: lower end of the interval.
        high: upper end.
    """

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Overlap(NamedTuple):
    """An overlap of every two tasks, and what it is beside.

    Attributes:
        value: the overlap.
        swapped: the same where the labels of one of the two are swapped, the mean over which one it is: what the
            gradients of such pairs have in common, whatever is right.
        chance: what is expected if gradients were random but for their sizes.
    """

    value: Matrix
    swapped: Matrix
    chance: Matrix


class Selected(NamedTuple):
    """The parameters of largest mean gradient in each half of each task's groups.

    Attributes:
        bits: one for each parameter, or for each of a random sample, eight a byte.
        counts: how many are selected of each parameter tensor, of all parameters.
        sizes: parameters in each tensor.
    """

    bits: UInt8[np.ndarray, "labels task half byte"]
    counts: Int[np.ndarray, "labels task half tensor"]
    sizes: Int[np.ndarray, " tensor"]


def gram_matrix(gradients: Float[np.ndarray, "task group entry"]) -> Gram:
    """Return the inner products of all groups' gradients, added up in float64."""
    tasks, groups, entries = gradients.shape
    rows = gradients.reshape(tasks * groups, entries)
    total = np.zeros((len(rows), len(rows)))
    for first in range(0, entries, COLUMNS):
        part = rows[:, first : first + COLUMNS].astype(np.float64)
        total += part @ part.T
    return total.reshape(tasks, groups, tasks, groups)


def half_of(groups: int) -> Int[np.ndarray, " group"]:
    """Return the half (0 or 1) that each group is in: every other one."""
    return np.arange(groups) % 2


def cosines(gram: Gram, weights: Weights) -> Matrix:
    """Return the cosine of mean gradients; on the diagonal that of the two halves of a task's groups."""
    products = _products(gram, weights, weights)
    found = _divided(products, _outer_root(np.diag(products)))
    halves = [weights * (half_of(weights.shape[1]) == half) for half in (0, 1)]
    within, first, second = (
        np.diag(_products(gram, a, b)) for a, b in ((halves[0], halves[1]), (halves[0],) * 2, (halves[1],) * 2)
    )
    np.fill_diagonal(found, _divided(within, np.sqrt(first * second)))
    return found


def unbiased_products(gram: Gram, weights: Weights) -> Matrix:
    """Return the inner products of mean gradients without what noise adds: the mean over pairs of different groups."""
    same = np.einsum("agbg,ag,bg->ab", gram, weights, weights)
    weight = weights.sum(axis=1)[:, None] * weights.sum(axis=1) - weights @ weights.T
    return _divided(_products(gram, weights, weights) - same, weight)


def corrected_cosines(gram: Gram, weights: Weights) -> Matrix:
    """Return the cosine that means over endlessly many pairs would have, by unbiased inner products.

    It may exceed 1 by chance; one on the diagonal by definition. NaN where a task's own product is not above zero.
    """
    products = unbiased_products(gram, weights)
    return _divided(products, _outer_root(np.diag(products)))


def reliability(gram: Gram, weights: Weights) -> Float[np.ndarray, " task"]:
    """Return the part of the mean gradient's squared norm that is no noise of sampling."""
    return _divided(np.diag(unbiased_products(gram, weights)), mean_norms(gram, weights) ** 2)


def jackknife(
    statistic: Callable[[Gram, Weights], np.ndarray], gram: Gram, weights: Weights, confidence: float
) -> Estimate:
    """Return a statistic with its jackknife interval: each group is left out in turn, of all tasks together.

    The interval is the estimate and as many standard errors as Student's t says, with one degree of freedom fewer than
    there are groups (Tukey 1958); NaN where groups are too few to leave one out.
    """
    groups = weights.shape[1]
    value = statistic(gram, weights)
    kept = 1 - np.eye(groups)
    others = np.stack([statistic(gram, weights * keep) for keep in kept])
    error = np.sqrt((groups - 1) * others.var(axis=0))
    reach = error * student.ppf((1 + confidence) / 2, groups - 1)
    return Estimate(value, value - reach, value + reach)


def subspace_overlaps(gradients: Float[np.ndarray, "row group entry"], gram: Gram) -> Overlap:
    """Return how far the subspaces that the gradients of tasks' groups span are the same.

    The overlap of orthonormal bases U and V of r and s dimensions is |U^T V|^2 / min(r, s): the mean squared cosine of
    their principal angles, zero for orthogonal subspaces and one where the one holds the other. Each is spanned by the
    gradients of half of the groups: the mean gradient is one of its dimensions, and the others are what pairs of the
    task differ by.

    By chance: what is expected if all gradients of a task kept the sizes of their entries, and one random sign for each
    entry were common to them. Where sizes are even that is r s / (entries min(r, s)); it is more where the same entries
    are large in both tasks.
    """
    halves = [np.flatnonzero(half_of(gradients.shape[1]) == half) for half in (0, 1)]
    bases = [[_basis(gram[row, half][:, row, half]) for half in halves] for row in range(len(gram))]
    ranks = np.array([[len(basis) for basis in of_row] for of_row in bases])
    found = []
    for (g, h), chance in zip(CROSSED, _shared_leverage(gradients, halves, bases), strict=True):
        between = gram[:, halves[g]][:, :, :, halves[h]]
        squares = np.array(
            [
                [np.sum((a[g] @ between[row, :, column] @ b[h].T) ** 2) for column, b in enumerate(bases)]
                for row, a in enumerate(bases)
            ]
        )
        found.append(_divided(np.stack([squares, chance]), np.minimum.outer(ranks[:, g], ranks[:, h])))
    return _overlap(*np.mean(found, axis=0))


def selection_overlaps(selected: Selected) -> Overlap:
    """Return the fraction of the parameters selected for one task that are selected for the other as well.

    By chance: expected if as many of each tensor were selected at random.
    """
    bits = selected.bits.reshape(-1, *selected.bits.shape[2:])
    counts = selected.counts.reshape(-1, *selected.counts.shape[2:]).astype(np.float64)
    known = np.bitwise_count(bits).sum(axis=2, dtype=np.int64)
    shared = []
    for g, h in CROSSED:
        common = [[np.bitwise_count(a[g] & b[h]).sum(dtype=np.int64) for b in bits] for a in bits]
        shared.append(_divided(2 * np.array(common), np.add.outer(known[:, g], known[:, h])))
    chance = [counts[:, g] / selected.sizes @ counts[:, h].T for g, h in CROSSED]
    return _overlap(np.mean(shared, axis=0), np.mean(chance, axis=0) / counts[0, 0].sum())


def _overlap(value: Matrix, chance: Matrix) -> Overlap:
    """Return what is known of overlaps, given those of all tasks with true labels and then of all with swapped ones."""
    tasks = len(value) // len(LABELS)
    true, swapped = slice(tasks), slice(tasks, None)
    return Overlap(value[true, true], (value[true, swapped] + value[swapped, true]) / 2, chance[true, true])


def mean_norms(gram: Gram, weights: Weights) -> Float[np.ndarray, " task"]:
    """Return the norm of each task's mean gradient."""
    norms: np.ndarray = np.sqrt(np.diag(_products(gram, weights, weights))) / weights.sum(axis=1)
    return norms


def _products(gram: Gram, a: Weights, b: Weights) -> Matrix:
    """Return the inner products of weighted sums of gradients."""
    found: np.ndarray = np.einsum("agbh,ag,bh->ab", gram, a, b, optimize=True)
    return found


def _basis(own: Float[np.ndarray, "group group"]) -> Float[np.ndarray, "dimension group"]:
    """Return weights of gradients by which they make an orthonormal basis of what they span, from inner products."""
    sizes, vectors = np.linalg.eigh(own)
    kept = sizes > ROUNDING * sizes[-1]
    basis: np.ndarray = vectors[:, kept].T / np.sqrt(sizes[kept])[:, None]
    return basis


def _shared_leverage(
    gradients: Float[np.ndarray, "task group entry"],
    halves: Sequence[np.ndarray],
    bases: Sequence[Sequence[np.ndarray]],
) -> Float[np.ndarray, "crossed task other_task"]:
    """Return the sum over entries of the product of their squared norms in two bases."""
    total = np.zeros((len(CROSSED), len(gradients), len(gradients)))
    for first in range(0, gradients.shape[2], COLUMNS):
        part = gradients[:, :, first : first + COLUMNS].astype(np.float64)
        squares = np.stack(
            [
                [((basis @ own[half]) ** 2).sum(axis=0) for basis, half in zip(of_task, halves, strict=True)]
                for own, of_task in zip(part, bases, strict=True)
            ],
            axis=1,
        )
        total += np.stack([squares[g] @ squares[h].T for g, h in CROSSED])
    return total


def _outer_root(squares: Float[np.ndarray, " task"]) -> Matrix:
    """Return the products of the roots of every two numbers; NaN where one is not above zero."""
    roots = np.sqrt(np.where(squares > 0, squares, np.nan))
    return np.multiply.outer(roots, roots)


def _divided(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return a ratio; NaN where it is undefined."""
    return numerator / np.where(denominator > 0, denominator, np.nan)
