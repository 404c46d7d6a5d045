"""The features that matter to two tasks, and what to remove in their place as a control."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from chronocoder.features.overlap import largest, ratio

LARGEST_FACTOR = 2.0
"""Between the sums of |IE| of two sets of features, for the one to be a control of the other."""


class Removed(NamedTuple):
    """Features to remove for a source and a target.

    Attributes:
        shared: those that matter to both tasks, ascending.
        others: as many that are not shared and matter about as much to the target; None where there are none such, or
            nothing is shared.
    """

    shared: Int[np.ndarray, " feature"]
    others: Int[np.ndarray, " feature"] | None


class Similarity(NamedTuple):
    """How alike the effects of features on every two tasks are, each of shape (task, task).

    Attributes:
        overlap: fraction of the features of largest |IE| that two tasks have in common.
        chance: what is expected of it if each task's were drawn at random among the features with an effect on it.
        cosine: of the effects of all features, sign kept.
    """

    overlap: Float[np.ndarray, "task task"]
    chance: Float[np.ndarray, "task task"]
    cosine: Float[np.ndarray, "task task"]


def top_features(effects: Float[np.ndarray, "task feature"], count: int) -> Bool[np.ndarray, "task feature"]:
    """Return which features are among the `count` of largest |IE| on each task; those without an effect never are."""
    return largest(np.abs(effects), count) > 0


def compare_effects(effects: Float[np.ndarray, "task feature"], count: int) -> Similarity:
    """Compare the effects of features on tasks at one checkpoint, by the `count` features of largest |IE| and by all.

    Where fewer features have an effect, overlap is relative to the larger of the two sets. NaN without any.
    """
    top, active = (values.astype(float) for values in (top_features(effects, count), effects != 0))
    sizes, norms = top.sum(axis=1), np.linalg.norm(effects, axis=1)
    expected = np.outer(sizes, sizes) * ratio(active @ active.T, np.outer(active.sum(axis=1), active.sum(axis=1)))
    larger = np.maximum.outer(sizes, sizes)
    return Similarity(
        ratio(top @ top.T, larger), ratio(expected, larger), ratio(effects @ effects.T, np.outer(norms, norms))
    )


def features_to_remove(effects: Float[np.ndarray, "2 feature"], count: int) -> Removed:
    """Return what to remove for one source and one target.

    Each shared feature, from the largest |IE| on the target on, is matched with the feature of nearest rank in it that
    is neither shared nor taken; of two equally near with the larger one, so that the control removes rather more. Where
    tasks share nearly all features that matter, no others are like them: if the sums of |IE| differ by more than
    `LARGEST_FACTOR`, there is no control.

    Args:
        effects: IE on the source and on the target.
        count: features of largest |IE| of each task.
    """
    shared = np.logical_and(*top_features(effects, count))
    ranked = np.argsort(-np.abs(effects[1]), kind="stable")[: np.count_nonzero(effects[1])]
    ranks, free = np.flatnonzero(shared[ranked]), np.flatnonzero(~shared[ranked])
    if len(free) < len(ranks):
        return Removed(np.flatnonzero(shared), None)
    taken = np.empty(0, dtype=np.int64)
    for rank in ranks:
        nearest = int(np.abs(free - rank).argmin())
        taken = np.append(taken, free[nearest])
        free = np.delete(free, nearest)
    own, other = (np.abs(effects[1, ranked[places]]).sum() for places in (ranks, taken))
    alike = 0 < max(own, other) <= LARGEST_FACTOR * min(own, other)
    return Removed(np.flatnonzero(shared), np.sort(ranked[taken]) if alike else None)
