"""Effects by condition: what a mean over opposite conditions would hide."""

from typing import Any

import xarray as xr

from chronocoder.report.compact import Part, arrays, at
from chronocoder.report.inputs import Run

NUMBERS = {
    "effect": "condition_indirect_effect",
    "low": "condition_indirect_effect_low",
    "high": "condition_indirect_effect_high",
    "q": "condition_q_value",
    "level": "condition_random_level",
}


def conditions_of(of_task: xr.Dataset) -> list[str]:
    """Return the conditions of a task, from effects of which those of all tasks are joined."""
    return [str(name) for name in of_task["condition"].values[of_task["prefixes"].values > 0]]


def condition_part(run: Run) -> Part:
    """Return what gives a feature's effects in each condition, by place of the task.

    Of tasks that have several conditions, in one of which the feature has a measurable effect.
    """
    of_tasks = [run.relie.sel(task=task) for task in run.tasks]
    by_task = {
        place: _of_conditions(of_task.sel(condition=conditions))
        for place, of_task in enumerate(of_tasks)
        if len(conditions := conditions_of(of_task)) > 1
    }
    return lambda place: {
        "conditions": {task: at(own, place) for task, own in by_task.items() if own["measurable"][place].any()}
    }


def _of_conditions(of_task: xr.Dataset) -> dict[str, Any]:
    by_checkpoint = {**NUMBERS, "measurable": "condition_measurable"}
    by_condition = {"class": "condition_feature_class", "reverses": "condition_reverses"}
    return {
        **arrays(of_task, by_checkpoint, "feature", "condition", "checkpoint"),
        **arrays(of_task, by_condition, "feature", "condition"),
    }
