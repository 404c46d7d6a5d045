"""Joining the attributions of several tasks. Imports no torch: collecting takes no longer than reading."""

from collections.abc import Mapping

import xarray as xr

from chronocoder.stores import strings


def collect_attributions(attributions: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Join the attributions of several tasks to dims (task, checkpoint, feature)."""
    norms = next(iter(attributions.values()))["relative_decoder_norm"]
    of_tasks = [dataset.drop_vars("relative_decoder_norm") for dataset in attributions.values()]
    joined = xr.concat(of_tasks, dim="task", join="exact", combine_attrs="override")
    return (
        joined.drop_attrs(deep=False)
        .assign(relative_decoder_norm=norms)
        .assign_coords(task=strings(list(attributions)))
    )
