"""Joining the attributions of several tasks. Imports no torch: collecting takes no longer than reading."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from chronocoder.attribution.trajectories import cluster_trajectories
from chronocoder.config import TrajectorySettings
from chronocoder.stores import strings

FILLS = {"f": np.nan, "i": 0, "b": False}
"""What stands for a condition that a task does not have, by kind of number; for text nothing."""


def collect_attributions(attributions: Mapping[str, xr.Dataset], settings: TrajectorySettings) -> xr.Dataset:
    """Join the attributions of several tasks to dims (task, checkpoint, feature), and cluster longer courses.

    The dimension `condition` has the conditions of all tasks; what a task has no condition for is NaN, zero or empty.
    """
    norms = next(iter(attributions.values()))["relative_decoder_norm"]
    conditions = list(dict.fromkeys(str(name) for each in attributions.values() for name in each["condition"].values))
    of_tasks = [
        _with_conditions(dataset.drop_vars("relative_decoder_norm"), conditions) for dataset in attributions.values()
    ]
    joined = (
        xr.concat(of_tasks, dim="task", join="exact", combine_attrs="override")
        .drop_attrs(deep=False)
        .assign(relative_decoder_norm=norms)
        .assign_coords(task=strings(list(attributions)))
    )
    if joined.sizes["checkpoint"] < 3:
        return joined
    return joined.merge(cluster_trajectories(joined, settings))


def _with_conditions(attribution: xr.Dataset, conditions: list[str]) -> xr.Dataset:
    """Return the attribution with all these conditions."""
    of_conditions = [name for name, values in attribution.data_vars.items() if "condition" in values.dims]
    fills = {name: FILLS.get(attribution[name].dtype.kind, "") for name in of_conditions}
    return attribution.reindex(condition=strings(conditions), fill_value=fills)
