"""Joining the attributions of several tasks. Imports no torch: collecting takes no longer than reading."""

import logging
from collections.abc import Mapping

import numpy as np
import xarray as xr

from chronocoder.attribution.trajectories import cluster_trajectories
from chronocoder.config import TrajectorySettings
from chronocoder.stores import labelled, strings
from chronocoder.tasks.groups import group_coordinates, group_means, groups_of, name_tasks

ENDS = {"": "{}", "_low": "lower end of the interval of the {}", "_high": "upper end of the interval of the {}"}
AVERAGED = {
    "indirect_effect": ("mean indirect effect over the group's tasks", "see group_unit"),
    "relative_indirect_effect": ("mean share of the absolute indirect effect over the group's tasks", "1"),
}
"""What is averaged over the tasks of a group: its name in words, and its units."""
FILLS = {"f": np.nan, "i": 0, "b": False}
"""What stands for a condition that a task does not have, by kind of number; for text nothing."""
_log = logging.getLogger(__name__)


def collect_attributions(attributions: Mapping[str, xr.Dataset], settings: TrajectorySettings) -> xr.Dataset:
    """Join the attributions of several tasks to dims (task, checkpoint, feature), and cluster longer courses.

    `language`, `phenomenon`, `metric` and `unit` are coordinates along `task`, and effects are averaged over the tasks
    of each language and phenomenon: `group_indirect_effect` and `group_relative_indirect_effect`, dims (group,
    checkpoint, feature).

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
    _warn_of_estimators(joined)
    named = _with_groups(name_tasks(joined, attributions))
    if named.sizes["checkpoint"] < 3:
        return named
    return named.merge(cluster_trajectories(named, settings))


def _with_groups(joined: xr.Dataset) -> xr.Dataset:
    """Return the effects with means of IE and of RelIE over the tasks of each group; none where there are no groups.

    Tasks of different units are not averaged: a group has the tasks of the unit that most of its tasks have.
    """
    groups = [group._replace(tasks=_of_one_unit(joined, group.tasks)) for group in groups_of(joined)]
    if not groups:
        return joined
    dims = ("group", "checkpoint", "feature")
    variables = {"group_tasks": labelled(dims[:1], [len(group.tasks) for group in groups], "tasks averaged")}
    for name, (words, units) in AVERAGED.items():
        mean, low, high = (joined[f"{name}{end}"].transpose("task", *dims[1:]).values for end in ENDS)
        for end, values in zip(ENDS, group_means(mean, low, high, groups), strict=True):
            variables[f"group_{name}{end}"] = labelled(dims, values.astype(np.float32), ENDS[end].format(words), units)
    units_of = [str(joined["unit"].values[group.tasks[0]]) for group in groups]
    return joined.assign(variables).assign_coords(
        {**group_coordinates(groups), "group_unit": labelled(dims[:1], strings(units_of), "unit of the mean effects")}
    )


def _of_one_unit(joined: xr.Dataset, tasks: np.ndarray) -> np.ndarray:
    """Return those of some tasks whose metric has the unit that most of them have."""
    units = [str(unit) for unit in joined["unit"].values[tasks]]
    most = max(dict.fromkeys(units), key=units.count)
    return tasks[[unit == most for unit in units]]


def _warn_of_estimators(joined: xr.Dataset) -> None:
    """Warn where `auto` measured some tasks exactly and estimated others."""
    by_task = joined["estimator"].transpose("task", "feature").values
    found = {tuple(sorted(set(map(str, of_task)))) for of_task in by_task}
    if len(found) > 1:
        _log.warning(
            "effects of the tasks come from different estimators (%s); to compare them set attribution.estimator",
            "; ".join(" and ".join(names) for names in sorted(found)),
        )


def _with_conditions(attribution: xr.Dataset, conditions: list[str]) -> xr.Dataset:
    """Return the attribution with all these conditions."""
    of_conditions = [name for name, values in attribution.data_vars.items() if "condition" in values.dims]
    fills = {name: FILLS.get(attribution[name].dtype.kind, "") for name in of_conditions}
    return attribution.reindex(condition=strings(conditions), fill_value=fills)
