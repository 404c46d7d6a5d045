"""How similar tasks are by transfer or by gradients, and the tasks that something is known of as points."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from chronocoder.config import TaskSpaceSettings
from chronocoder.taskspace.scaling import Configuration, classical_scaling

DIMS = ("basis", "checkpoint")
CONTRAST, STABILITY, AGREEMENT = range(3)
"""Purposes of random numbers."""


class Space(NamedTuple):
    """The tasks that something is known of, as points.

    Attributes:
        tasks: their places among all tasks, ascending.
        similarity: of every two of them.
        configuration: their points.
    """

    tasks: Int[np.ndarray, " place"]
    similarity: Float[np.ndarray, "place place"]
    configuration: Configuration


def transfer_similarity(relative: Float[np.ndarray, "*cell source target"]) -> Float[np.ndarray, "*cell task task"]:
    """Return relative transfer clipped to [-1, 1], mean of both directions; 1 of a task with itself.

    Each direction is clipped, so that one of extreme size cannot outweigh the other. NaN where one is.
    """
    clipped = np.clip(relative, -1, 1)
    return _with_itself((clipped + np.swapaxes(clipped, -2, -1)) / 2)


def space_of(similarity: Float[np.ndarray, "task task"]) -> Space:
    """Return the tasks whose similarity to one another is known, as points.

    While there is a pair whose similarity is NaN, the task that has most of these is left out.
    """
    kept = np.flatnonzero(np.isfinite(np.diagonal(similarity)))
    while (unknown := np.isnan(similarity[np.ix_(kept, kept)])).any():
        kept = np.delete(kept, unknown.sum(axis=0).argmax())
    known = similarity[np.ix_(kept, kept)]
    return Space(kept, known, classical_scaling(known))


def by_transfer(relative: xr.DataArray) -> Float[np.ndarray, "checkpoint task task"]:
    """Return similarities by the relative transfer of every two tasks at every checkpoint."""
    return transfer_similarity(relative.transpose("checkpoint", "source", "target").values)


def by_gradients(cosine: xr.DataArray) -> Float[np.ndarray, "checkpoint task task"]:
    """Return cosines; their diagonal, which tells what sampling allows, is no similarity of different things."""
    return _with_itself(cosine.transpose("checkpoint", "task", "other_task").values.astype(np.float64))


def _with_itself(similarity: Float[np.ndarray, "*cell task task"]) -> Float[np.ndarray, "*cell task task"]:
    """Return similarities with 1 on the diagonal, where it is not NaN."""
    itself = np.eye(similarity.shape[-1], dtype=bool) & np.isfinite(similarity)
    found: np.ndarray = np.where(itself, 1.0, similarity)
    return found


def spaces_by_seed(main: xr.Dataset, settings: TaskSpaceSettings) -> list[list[Space]]:
    """Return the spaces that single seeds of tuning give, by seed and checkpoint, of the tasks in the space of all."""
    transfer = main["transfer"].transpose("seed", "checkpoint", "source", "target").values
    gain = np.diagonal(transfer, axis1=-2, axis2=-1)[..., None, :]
    known = main["relative_transfer"].transpose("checkpoint", "source", "target").notnull().values
    known = known & (gain > settings.smallest_gain)
    relative = np.divide(transfer, gain, out=np.full(transfer.shape, np.nan), where=known)
    return [[space_of(values) for values in of_seed] for of_seed in transfer_similarity(relative)]


def common_tasks(first: Space, second: Space) -> tuple[np.ndarray, np.ndarray]:
    """Return the places, in each of two spaces, of the tasks in both."""
    _, one, other = np.intersect1d(first.tasks, second.tasks, return_indices=True)
    return one, other
