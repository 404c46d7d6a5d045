"""How far two sets of effects are those of the same features, beside what chance and noise alone would give."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

BLOCK_ENTRIES = 100_000
"""Entries of the permuted sizes that are compared at once."""


FEATURES_A_STRATUM = 10
WIDEST = 1.4
"""Factor between the largest and the smallest activity of a stratum."""


class Interval(NamedTuple):
    """An estimate and its interval, each of any shape.

    Attributes:
        estimate: the estimate.
        low: lower end.
        high: upper end.
    """

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Null(NamedTuple):
    """Overlap with the features of one side exchanged at random.

    Attributes:
        level: mean over permutations, with the range of most of them.
        p_value: fraction of permutations with at least the overlap observed, itself counted among them.
    """

    level: Interval
    p_value: np.ndarray


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part / whole, NaN where the whole is not above zero."""
    found: np.ndarray = np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)
    return found


def overlap(first: Float[np.ndarray, "... feature"], second: Float[np.ndarray, "... feature"]) -> np.ndarray:
    """Return sum_i min(a_i, b_i) / sum_i max(a_i, b_i), shape (...,): the weighted Jaccard index; of zeros, NaN.

    Of sizes that are zero or one it is the Jaccard index of two sets.
    """
    return ratio(np.minimum(first, second).sum(axis=-1), np.maximum(first, second).sum(axis=-1))


def largest(sizes: Float[np.ndarray, "... feature"], count: int) -> Float[np.ndarray, "... feature"]:
    """Return one for the `count` features of largest size, as far as it is above zero, and zero for the others."""
    order = np.argsort(-sizes, axis=-1, kind="stable")[..., :count]
    chosen = np.zeros_like(sizes)
    np.put_along_axis(chosen, order, 1.0, axis=-1)
    found: np.ndarray = chosen * (sizes > 0)
    return found


def fractions(sizes: Float[np.ndarray, "... feature"]) -> Float[np.ndarray, "... feature"]:
    """Return sizes as fractions of their sum; zeros stay."""
    found: np.ndarray = np.nan_to_num(ratio(sizes, sizes.sum(axis=-1, keepdims=True)))
    return found


def crossed_overlap(
    first: Float[np.ndarray, "... half feature"], second: Float[np.ndarray, "... half feature"]
) -> np.ndarray:
    """Return the overlap of each half of the one with each half of the other, their mean, shape (...,)."""
    found: np.ndarray = overlap(first[..., :, None, :], second[..., None, :, :]).mean(axis=(-2, -1))
    return found


def bootstrapped(
    first: Float[np.ndarray, "... half feature"],
    second: Float[np.ndarray, "... half feature"],
    samples: int,
    confidence: float,
    generator: np.random.Generator,
) -> Interval:
    """Return the crossed overlap with a bootstrap interval over features: whether it hangs on a few of them.

    Those that matter on either side are resampled; NaN where there are none.
    """
    found = np.full((3, *first.shape[:-2]), np.nan)
    for place in np.ndindex(first.shape[:-2]):
        kept = first[place].any(axis=0) | second[place].any(axis=0)
        if not kept.any():
            continue
        pair = first[place][:, None, kept], second[place][None, :, kept]
        lower, upper = np.minimum(*pair), np.maximum(*pair)
        features = int(kept.sum())
        counts = generator.multinomial(features, np.full(features, 1 / features), size=samples).T
        resampled = np.nanmean(ratio(lower @ counts, upper @ counts), axis=(0, 1))
        found[(slice(None), *place)] = overlap(*pair).mean(), *_ends(resampled, confidence)
    return Interval(*found)


def permuted(
    first: Float[np.ndarray, "... half feature"],
    second: Float[np.ndarray, "... half feature"],
    strata: Int[np.ndarray, " feature"],
    permutations: int,
    confidence: float,
    generator: np.random.Generator,
) -> Null:
    """Return the crossed overlap with the features of `second` exchanged at random among those of their stratum.

    Both halves are exchanged alike. If the features of the two sides have nothing to do with each other but that they
    are of some stratum, each p-value is below any level at most as often as the level says.
    """
    observed = crossed_overlap(first, second)
    totals = first.sum(axis=-1)[..., :, None, None] + second.sum(axis=-1)[..., None, :, None]
    found = []
    for order in _exchanges(strata, permutations, generator):
        exchanged = second[..., order]  # (..., half, permutation, feature)
        shared = np.minimum(first[..., :, None, None, :], exchanged[..., None, :, :, :]).sum(axis=-1)
        found.append(ratio(shared, totals - shared).mean(axis=(-3, -2)))
    values = np.concatenate(found, axis=-1)
    reached = (values >= observed[..., None] - 1e-9).sum(axis=-1)
    p_value = np.where(np.isfinite(observed), (1 + reached) / (1 + permutations), np.nan)
    return Null(Interval(values.mean(axis=-1), *_ends(values, confidence)), p_value)


def exchanged_together(
    flags: Bool[np.ndarray, "set feature"],
    strata: Int[np.ndarray, "set feature"],
    permutations: int,
    confidence: float,
    generator: np.random.Generator,
) -> Null:
    """Return how many features are in several sets if those of each set are exchanged at random within its strata.

    Only strata with features of the set matter, since all others stay without.
    """
    members = np.zeros((permutations, flags.shape[1]), dtype=np.int8)
    for flagged, of_set in zip(flags, strata, strict=True):
        places, start = np.flatnonzero(np.isin(of_set, of_set[flagged])), 0
        for order in _exchanges(of_set[places], permutations, generator):
            members[start : start + len(order), places] += flagged[places][order]
            start += len(order)
    counts = (members > 1).sum(axis=1)
    reached = int((counts >= (flags.sum(axis=0) > 1).sum()).sum())
    p_value = np.array((1 + reached) / (1 + permutations))
    return Null(Interval(counts.mean(), *_ends(counts, confidence)), p_value)


def strata_of(activity: Float[np.ndarray, " feature"], size: int) -> Int[np.ndarray, " feature"]:
    """Return the stratum of each feature: `size` or fewer of similar activity, those without any in the first.

    In a stratum activities differ at most by the factor `WIDEST`. Effects grow with activity, and a few features are
    far more active than all others: in wider strata these would overlap more than those that take their places, however
    unrelated the two sides are. What has no like is in a stratum of its own, and never exchanged.
    """
    strata = np.zeros(len(activity), dtype=np.int64)
    stratum, members, least = 0, size, 0.0
    for feature in np.argsort(activity, kind="stable")[(activity <= 0).sum() :]:
        if members == size or activity[feature] > WIDEST * least:
            stratum, members, least = stratum + 1, 0, activity[feature]
        strata[feature], members = stratum, members + 1
    return strata


def _exchanges(
    strata: Int[np.ndarray, " feature"], permutations: int, generator: np.random.Generator
) -> Iterator[Int[np.ndarray, "permutation feature"]]:
    """Yield random orders of the features that keep each in its stratum, some at a time."""
    places, block = np.argsort(strata, kind="stable"), max(1, BLOCK_ENTRIES // max(1, len(strata)))
    for start in range(0, permutations, block):
        keys = generator.random((min(block, permutations - start), len(strata))) + strata
        order = np.empty(keys.shape, dtype=np.int64)
        order[:, places] = np.argsort(keys, axis=1)
        yield order


def _ends(values: np.ndarray, confidence: float) -> np.ndarray:
    rest = (1 - confidence) / 2
    ends: np.ndarray = np.quantile(values, [rest, 1 - rest], axis=-1)
    return ends
