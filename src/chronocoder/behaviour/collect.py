"""Joining the scores of several tasks. Imports no torch: collecting takes no longer than reading."""

from collections.abc import Mapping

import xarray as xr

from chronocoder.stores import labelled, strings
from chronocoder.tasks.groups import group_coordinates, group_means, groups_of, name_tasks, task_variables
from chronocoder.tasks.reasons import REASONS


def collect_behaviour(scores: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Join the summaries of several tasks to dims (task, checkpoint), with means of their groups.

    Returns:
        The store `behaviour.zarr`. Along `task` it has language, phenomenon, metric and unit as coordinates, and says
        why each metric was taken, and how many pairs were left out for which reason. Along `group` it has the mean
        accuracy of the tasks of each language and phenomenon; of neither where fewer than two are named.
    """
    summaries = [dataset.drop_dims("example") for dataset in scores.values()]
    joined = xr.concat(summaries, dim="task", join="exact", combine_attrs="override").drop_attrs(deep=False)
    named = name_tasks(joined, scores).assign(task_variables(scores)).assign_coords(reason=strings(list(REASONS)))
    for name in named.data_vars:
        if str(name).startswith("mean_difference"):
            named[name].attrs["units"] = _common_unit(named)
    groups = groups_of(named)
    if not groups:
        return named
    ends = [named[f"accuracy{end}"].transpose("task", "checkpoint").values for end in ("", "_low", "_high")]
    dims, words = ("group", "checkpoint"), "mean accuracy of the group's tasks"
    names = {"": words, "_low": f"lower end of the interval of the {words}", "_high": "upper end of that interval"}
    means = group_means(ends[0], ends[1], ends[2], groups)
    variables = {
        f"group_accuracy{end}": labelled(dims, values, names[end]) for end, values in zip(names, means, strict=True)
    }
    variables["group_tasks"] = labelled(dims[:1], [len(group.tasks) for group in groups], "tasks of the group")
    return named.assign(variables).assign_coords(group_coordinates(groups))


def _common_unit(named: xr.Dataset) -> str:
    """Return the unit of all tasks' differences, or where to find that of each."""
    units = sorted(set(map(str, named["unit"].values)))
    return units[0] if len(units) == 1 else "see unit"
