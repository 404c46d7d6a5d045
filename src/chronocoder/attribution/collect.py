"""Joining the attributions of several tasks. Imports no torch: collecting takes no longer than reading."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from chronocoder.attribution.trajectories import cluster_trajectories
from chronocoder.config import TrajectorySettings
from chronocoder.stores import labelled, strings
from chronocoder.tasks.groups import group_coordinates, group_means, groups_of, name_tasks

ENDS = {"_low": "lower end of its interval", "_high": "upper end of its interval"}
FILLS = {"f": np.nan, "i": 0, "b": False}
"""What stands for a condition that a task does not have, by kind of number; for text nothing."""


def collect_attributions(attributions: Mapping[str, xr.Dataset], settings: TrajectorySettings) -> xr.Dataset:
    """Join the attributions of several tasks to dims (task, checkpoint, feature), and cluster longer courses.

    `language`, `phenomenon`, `metric` and `unit` are coordinates along `task`, and effects are averaged over the tasks
    of each language and phenomenon: `group_indirect_effect` and its share (group, checkpoint, feature).

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
    )
    named = _with_groups(name_tasks(joined, attributions))
    if named.sizes["checkpoint"] < 3:
        return named
    return named.merge(cluster_trajectories(named, settings))


def _with_groups(joined: xr.Dataset) -> xr.Dataset:
    """Return the effects with their means over the tasks of each group, and the shares of these; none without groups.

    Tasks of different units are not averaged: a group has the tasks of the unit that most of its tasks have.
    """
    groups = [group._replace(tasks=_of_one_unit(joined, group.tasks)) for group in groups_of(joined)]
    if not groups:
        return joined
    dims, name = ("group", "checkpoint", "feature"), "group_indirect_effect"
    of_tasks = [
        joined[f"indirect_effect{end}"].transpose("task", "checkpoint", "feature").values
        for end in ("", "_low", "_high")
    ]
    means = group_means(of_tasks[0], of_tasks[1], of_tasks[2], groups)
    words = {"": "mean indirect effect over the group's tasks", **ENDS}
    units = strings([str(joined["unit"].values[group.tasks[0]]) for group in groups])
    variables = {
        f"{name}{end}": labelled(dims, values.astype(np.float32), words[end], "see group_unit")
        for end, values in zip(words, means, strict=True)
    }
    total = np.abs(means[0]).sum(axis=1, keepdims=True)
    shares = np.abs(means[0]) / np.where(total > 0, total, np.nan)
    variables["group_relative_indirect_effect"] = labelled(
        dims, shares.astype(np.float32), "share of the absolute mean indirect effect over the group's tasks"
    )
    variables["group_tasks"] = labelled(("group",), [len(group.tasks) for group in groups], "tasks averaged")
    return joined.assign(variables).assign_coords({**group_coordinates(groups), "group_unit": ("group", units)})


def _of_one_unit(joined: xr.Dataset, tasks: np.ndarray) -> np.ndarray:
    """Return those of some tasks whose metric has the unit that most of them have."""
    units = [str(unit) for unit in joined["unit"].values[tasks]]
    most = max(dict.fromkeys(units), key=units.count)
    return tasks[[unit == most for unit in units]]


def _with_conditions(attribution: xr.Dataset, conditions: list[str]) -> xr.Dataset:
    """Return the attribution with all these conditions."""
    of_conditions = [name for name, values in attribution.data_vars.items() if "condition" in values.dims]
    fills = {name: FILLS.get(attribution[name].dtype.kind, "") for name in of_conditions}
    return attribution.reindex(condition=strings(conditions), fill_value=fills)
