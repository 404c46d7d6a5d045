"""The stores of a suite's tunings, arranged by checkpoint, seed and source task. Imports no torch."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from chronocoder.errors import ConfigError, StoreError
from chronocoder.stores import strings


class TunedWithSeed(NamedTuple):
    """What tunings with one seed made of the pairs that this seed holds out.

    Attributes:
        target: task of each held-out pair.
        example: its number in the task.
        before: right minus wrong before tuning.
        after: right minus wrong after tuning.
        loss_before: nats a token of each validation sequence, before tuning.
        loss: the same after tuning.
        updated: fraction of the parameters that were updated.
        pairs_tuned: pairs of each source.
    """

    target: np.ndarray
    example: Int[np.ndarray, " entry"]
    before: Float[np.ndarray, "checkpoint entry"]
    after: Float[np.ndarray, "tuning checkpoint source entry"]
    loss_before: Float[np.ndarray, "checkpoint sequence"]
    loss: Float[np.ndarray, "tuning checkpoint source sequence"]
    updated: Float[np.ndarray, "tuning checkpoint source"]
    pairs_tuned: Int[np.ndarray, " source"]


def arranged(
    tunings: Sequence[xr.Dataset], revisions: list[str], seeds: list[int], names: list[str]
) -> np.ndarray[tuple[int, int, int], np.dtype[np.object_]]:
    """Return the tunings by checkpoint, seed and source.

    Raises:
        ConfigError: one is missing or given twice.
    """
    by_key: dict[tuple[str, int, str], xr.Dataset] = {}
    for tuning in tunings:
        key = (str(tuning.attrs["revision"]), int(tuning.attrs["seed"]), str(tuning.attrs["task"]))
        if key in by_key:
            raise ConfigError(f"the tuning on {key[2]} at {key[0]} with seed {key[1]} is given twice; give it once")
        by_key[key] = tuning
    found = np.empty((len(revisions), len(seeds), len(names)), dtype=object)
    for place in np.ndindex(*found.shape):
        revision, seed, name = revisions[place[0]], seeds[place[1]], names[place[2]]
        if (revision, seed, name) not in by_key:
            raise ConfigError(f"there is no tuning on {name} at {revision} with seed {seed}; give its store")
        found[place] = by_key[revision, seed, name]
    return found


def with_seed(tunings: np.ndarray) -> TunedWithSeed:
    """Return what tunings with one seed found.

    Args:
        tunings: their stores, shape (checkpoint, source).

    Raises:
        StoreError: they differ in methods, or in the pairs held out.
    """
    first = tunings[0, 0]
    for tuning in tunings.flat:
        for name in ("tuning", "target", "example"):
            if not np.array_equal(tuning[name].values, first[name].values):
                raise StoreError(
                    f"tunings with seed {tuning.attrs['seed']} on {first.attrs['task']} and {tuning.attrs['task']}"
                    f" differ in '{name}'; make them anew"
                )

    def stacked(read: Callable[[xr.Dataset], np.ndarray]) -> np.ndarray:
        """Return (..., checkpoint, source, last)."""
        rows = [np.stack([read(tuning) for tuning in of_checkpoint], axis=-2) for of_checkpoint in tunings]
        return np.stack(rows, axis=-3)

    return TunedWithSeed(
        strings(first["target"].values),
        first["example"].values,
        np.stack([tuning["difference_before"].values for tuning in tunings[:, 0]]),
        stacked(lambda tuning: tuning["difference"].transpose("tuning", "entry").values),
        np.stack([tuning["loss_before"].values for tuning in tunings[:, 0]]),
        stacked(lambda tuning: tuning["loss"].transpose("tuning", "sequence").values),
        stacked(lambda tuning: tuning["updated_parameters"].values[:, None] / tuning.attrs["parameters"])[..., 0],
        np.array([int(tuning.attrs["pairs_tuned"]) for tuning in tunings[0]]),
    )
