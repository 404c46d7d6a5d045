"""The tasks of a suite: what is asked of which pairs, and what to bear in mind of the answers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import xarray as xr

from chronocoder.stores import names
from chronocoder.tasks.groups import KINDS, warnings_of
from chronocoder.tasks.reasons import REASONS
from chronocoder.wording import MARK, decimal, in_words, listed, plural, quoted, signed

NO_BREAK = "\u00a0"
MANY_TASKS = 12
"""Tasks that one figure can tell apart; where there are more, groups are shown first."""


class TaskRow(NamedTuple):
    """A line of the table of tasks.

    Attributes:
        name: of the task, in words.
        groups: its language and its phenomenon, of those that the table has columns for.
        metric: what is compared.
        accuracy: at the last checkpoint, with its interval.
        difference: mean of right minus wrong there, in the unit of the metric.
        used: pairs used, of how many.
        left_out: pairs left out, for each of the reasons that the table has columns for.
        ties: pairs whose sentences have the same tokens.
        notes: why the metric was taken, and what else there is to know.
        warnings: what a reader of the results should know; empty if there is nothing.
    """

    name: str
    groups: list[str]
    metric: str
    accuracy: str
    difference: str
    used: str
    left_out: list[int]
    ties: int
    notes: list[str]
    warnings: str


def caution(behaviour: xr.Dataset, tasks: Sequence[str]) -> str:
    """Return a sentence that says which of some tasks have a warning; empty if none has."""
    warned = [quoted(task) for task in tasks if task in warnings_of(behaviour)]
    if not warned:
        return ""
    return f" Read this with caution: a warning goes with {listed(warned)} ({MARK} in the table of tasks)."


def kinds_named(behaviour: xr.Dataset) -> list[str]:
    """Return by what the table groups tasks: by language and phenomenon, where that tells more than tasks' names."""
    tasks = names(behaviour, "task")
    return [kind for kind in KINDS if len(set(names(behaviour, kind))) > 1 and names(behaviour, kind) != tasks]


def reasons_named(behaviour: xr.Dataset) -> dict[str, str]:
    """Return the reasons for which some task leaves out pairs, in a word and in a clause."""
    counts = dict(zip(names(behaviour, "reason"), behaviour["left_out"].sum("task").values.tolist(), strict=True))
    return {reason: clause for reason, clause in REASONS.items() if counts[reason]}


def task_rows(behaviour: xr.Dataset) -> list[TaskRow]:
    """Return the table of tasks, a row each, in the order of the configuration."""
    kinds, reasons = kinds_named(behaviour), list(reasons_named(behaviour))
    last = behaviour.isel(checkpoint=-1)
    return [_row(last.isel(task=place), kinds, reasons) for place in range(behaviour.sizes["task"])]


def _row(of_task: xr.Dataset, kinds: Sequence[str], reasons: Sequence[str]) -> TaskRow:
    accuracy, low, high = (decimal(float(of_task[f"accuracy{end}"])) for end in ("", "_low", "_high"))
    return TaskRow(
        name=in_words(_text(of_task["task"])),
        groups=[in_words(_text(of_task[kind])) for kind in kinds],
        metric=in_words(_text(of_task["metric"])),
        accuracy=f"{accuracy} ({low}{NO_BREAK}to{NO_BREAK}{high})",
        difference=f"{signed(float(of_task['mean_difference']))} {plural(_text(of_task['unit']))}",
        used=f"{int(of_task['n'])} of {int(of_task['pairs_given'])}",
        left_out=of_task["left_out"].sel(reason=reasons).values.tolist(),
        ties=int(of_task["ties"]),
        notes=_notes(of_task),
        warnings=_text(of_task["warnings"]),
    )


def _notes(of_task: xr.Dataset) -> list[str]:
    several = int(of_task["several_tokens"])
    first = f"in {several} pairs the answers have several tokens, of which the first is compared"
    return [_text(of_task["metric_reason"]), *([first] if several else [])]


def _text(value: Any) -> str:
    return str(value.values)
