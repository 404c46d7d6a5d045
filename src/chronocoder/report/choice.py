"""The changes that comparisons were chosen by, as rows of a table."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.wording import in_words, rough, signed


class ChangeRow(NamedTuple):
    """A change in the curve of a task.

    Attributes:
        task: name of the task.
        q_value: of the task.
        place: last checkpoint before and first one after.
        interval: of the first checkpoint after.
        choosing: change on the half of the pairs that chose.
        confirming: change on the other half, with its interval.
        by_chance: what that exceeds without change in few cases.
    """

    task: str
    q_value: str
    place: str
    interval: str
    choosing: str
    confirming: str
    by_chance: str


def choice_rows(choice: xr.Dataset) -> list[ChangeRow]:
    """Return the changes in the order of the tasks and of training."""
    q_values = dict(zip(map(str, choice["task"].values), choice["q_value"].values.tolist(), strict=True))
    return [_row(choice.isel(change=place), q_values) for place in range(choice.sizes["change"])]


def _row(change: xr.Dataset, q_values: dict[str, float]) -> ChangeRow:
    words = {name: str(change[name].values) for name in ("change_task", "last_before", "first_after")}
    ends = [str(change[f"first_after_{end}"].values) for end in ("low", "high")]
    size = {name: float(change[f"change_{name}"]) for name in ("choosing", "confirming", "by_chance")}
    low, high = (signed(float(change[f"change_confirming_{end}"])) for end in ("low", "high"))
    return ChangeRow(
        task=in_words(words["change_task"]),
        q_value=rough(q_values[words["change_task"]]),
        place=f"{words['last_before']} → {words['first_after']}",
        interval=" to ".join(dict.fromkeys(ends)),
        choosing=signed(size["choosing"]),
        confirming=f"{signed(size['confirming'])} ({low} to {high})",
        by_chance=f"{np.abs(size['by_chance']):.2f}",
    )
