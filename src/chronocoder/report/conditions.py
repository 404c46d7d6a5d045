"""Effects by condition: what a mean over opposite conditions would hide."""

from typing import Any

import xarray as xr

from chronocoder.report.compact import nested

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


def condition_data(of_task: xr.Dataset) -> dict[str, Any]:
    """Return the effects of features in each condition of a task, that has more than one; else without names.

    Args:
        of_task: the task's effects, dims (condition, checkpoint, feature), of the features the page shows.
    """
    conditions = conditions_of(of_task)
    if len(conditions) < 2:
        return {"names": []}
    chosen = of_task.sel(condition=conditions).transpose(..., "condition", "checkpoint", "feature")
    return {
        "names": conditions,
        **{name: nested(chosen[variable].values) for name, variable in NUMBERS.items()},
        "measurable": chosen["condition_measurable"].values.astype(int).tolist(),
        "class": [[str(name) for name in row] for row in chosen["condition_feature_class"].values],
        "reverses": chosen["condition_reverses"].values.astype(int).tolist(),
    }
