"""Joining the attributions of several tasks. Imports no torch: collecting takes no longer than reading."""

from collections.abc import Mapping

import xarray as xr

from chronocoder.attribution.trajectories import cluster_trajectories
from chronocoder.config import TrajectorySettings
from chronocoder.stores import strings


def collect_attributions(attributions: Mapping[str, xr.Dataset], settings: TrajectorySettings) -> xr.Dataset:
    """Join the attributions of several tasks to dims (task, checkpoint, feature), and cluster longer courses."""
    norms = next(iter(attributions.values()))["relative_decoder_norm"]
    of_tasks = [dataset.drop_vars("relative_decoder_norm") for dataset in attributions.values()]
    joined = (
        xr.concat(of_tasks, dim="task", join="exact", combine_attrs="override")
        .drop_attrs(deep=False)
        .assign(relative_decoder_norm=norms)
        .assign_coords(task=strings(list(attributions)))
    )
    if joined.sizes["checkpoint"] < 3:
        return joined
    return joined.merge(cluster_trajectories(joined, settings))
