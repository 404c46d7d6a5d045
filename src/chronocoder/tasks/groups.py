"""Groups of tasks, by language and by phenomenon, and what tasks tell of themselves. Imports no torch."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.stores import labelled, names, strings
from chronocoder.tasks.reasons import REASONS

KINDS = ("language", "phenomenon")
WORDS = ("metric_reason", "warnings")
COUNTS = ("pairs_given", "several_tokens", "ties")
NAMES = (*KINDS, "metric", "unit")
COORDINATES = {
    "language": "language of the task's pairs; empty where unknown",
    "phenomenon": "phenomenon that the task's pairs are about; empty where unknown",
    "metric": "what is compared in a pair",
    "unit": "unit of the metric, and of effects on it",
}
DESCRIPTIONS = {
    "metric_reason": "why the metric was taken",
    "warnings": "why the metric does not ask what the pairs are about; empty if nothing says so",
    "pairs_given": "pairs of the task, those left out included",
    "several_tokens": "pairs used whose answers have more than one token",
    "ties": "pairs used whose sentences have the same tokens",
}


class Group(NamedTuple):
    """Tasks of one language or about one phenomenon.

    Attributes:
        kind: `language` or `phenomenon`.
        name: which one.
        tasks: places of its tasks.
    """

    kind: str
    name: str
    tasks: np.ndarray


def facts_of(task: xr.Dataset) -> dict[str, object]:
    """Return what the stores of a task's results repeat of the task: its metric, its groups and its counts."""
    known = (*NAMES, *WORDS, *COUNTS, *(f"left_out_{reason}" for reason in REASONS))
    return {name: task.attrs[name] for name in known if name in task.attrs}


def name_tasks(joined: xr.Dataset, tasks: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Return results with language, phenomenon, metric and unit of each task as coordinates along `task`.

    Args:
        joined: results of the tasks, with dimension `task`.
        tasks: by name, in the same order: stores whose attributes are those of `facts_of`.
    """
    of_tasks = {name: [str(task.attrs.get(name, "")) for task in tasks.values()] for name in NAMES}
    coordinates = {name: labelled(("task",), strings(of_tasks[name]), COORDINATES[name]) for name in NAMES}
    return joined.assign_coords({"task": strings(list(tasks)), **coordinates})


def task_variables(tasks: Mapping[str, xr.Dataset]) -> dict[str, xr.Variable]:
    """Return what tasks tell of themselves: reasons and warnings, and pairs left out by reason, dims (task, reason)."""
    words = {name: strings([str(task.attrs.get(name, "")) for task in tasks.values()]) for name in WORDS}
    counts = {name: np.array([int(task.attrs.get(name, 0)) for task in tasks.values()]) for name in COUNTS}
    left_out = [[int(task.attrs.get(f"left_out_{reason}", 0)) for reason in REASONS] for task in tasks.values()]
    described = {name: labelled(("task",), values, DESCRIPTIONS[name]) for name, values in (words | counts).items()}
    return {**described, "left_out": labelled(("task", "reason"), left_out, "pairs left out, by reason")}


def warnings_of(behaviour: xr.Dataset) -> dict[str, str]:
    """Return the warnings of the tasks that have any."""
    of_tasks = zip(names(behaviour, "task"), names(behaviour, "warnings"), strict=True)
    return {task: text for task, text in of_tasks if text}


def groups_of(joined: xr.Dataset) -> list[Group]:
    """Return the groups of the tasks along `task`: of a kind where there are several, and not of a single task each."""
    found = []
    for kind in KINDS:
        of_tasks = names(joined, kind)
        different = [name for name in dict.fromkeys(of_tasks) if name]
        if 1 < len(different) < sum(map(bool, of_tasks)):
            found += [Group(kind, name, np.flatnonzero(np.array(of_tasks) == name)) for name in different]
    return found


def groups_of_kind(store: xr.Dataset, kind: str) -> list[Group]:
    """Return the groups of tasks by language or by phenomenon that a store has means of, in its order."""
    if "group_kind" not in store:
        return []
    of_tasks = np.array(names(store, kind))
    of_kind = store.isel(group=store["group_kind"].values == kind)
    return [Group(kind, name, np.flatnonzero(of_tasks == name)) for name in names(of_kind, "group")]


def finest_groups(store: xr.Dataset) -> list[Group]:
    """Return the groups of tasks of the kind that has most of them; none where there are no groups."""
    return max((groups_of_kind(store, kind) for kind in KINDS), key=len)


def group_coordinates(groups: list[Group]) -> dict[str, xr.Variable]:
    """Return the coordinates along `group`."""
    own, kinds = (strings(values) for values in zip(*((group.name, group.kind) for group in groups), strict=True))
    return {
        "group": labelled(("group",), own, "language or phenomenon that the tasks have in common"),
        "group_kind": labelled(("group",), kinds, "which of the two it is"),
    }


def group_means(
    values: np.ndarray, low: np.ndarray, high: np.ndarray, groups: list[Group]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean over the tasks of each group, all of which count the same, and both ends of its interval.

    The intervals of independent means are added up by the distances from mean to end (Zou and Donner 2008, Statistics
    in Medicine 27): they say how far other pairs of the same tasks would give another mean, not other tasks.

    Args:
        values: of each task, shape (task, ...).
        low: lower ends of their intervals.
        high: upper ends.
        groups: the groups.

    Returns:
        Mean, lower and upper end, each of shape (group, ...). Tasks whose value is NaN are left out; the ends are NaN
        where the interval of one of the others is.
    """
    ends: list[list[np.ndarray]] = [[], [], []]
    for group in groups:
        own = values[group.tasks]
        count = np.maximum(np.isfinite(own).sum(axis=0), 1)
        mean = np.where(np.isfinite(own).any(axis=0), np.nansum(own, axis=0) / count, np.nan)
        known = np.isfinite(own)
        below, above = (
            np.sqrt(np.sum(np.square(own - end[group.tasks], where=known, out=np.zeros_like(own)), axis=0)) / count
            for end in (low, high)
        )
        for found, value in zip(ends, (mean, mean - below, mean + above), strict=True):
            found.append(value)
    shape = (0, *values.shape[1:])
    stacked = [np.stack(found) if found else np.empty(shape) for found in ends]
    return stacked[0], stacked[1], stacked[2]
