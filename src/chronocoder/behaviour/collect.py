"""Joining the scores of several tasks. Imports no torch: collecting takes no longer than reading."""

from collections.abc import Mapping

import xarray as xr

from chronocoder.stores import strings


def collect_behaviour(scores: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Join the summaries of several tasks to dims (task, checkpoint)."""
    summaries = [dataset.drop_dims("example") for dataset in scores.values()]
    joined = xr.concat(summaries, dim="task", join="exact", combine_attrs="override")
    return joined.drop_attrs(deep=False).assign_coords(task=strings(list(scores)))
