"""Where the pairs of a task come from."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from chronocoder.config import FileTask, NurseryTask, Task
from chronocoder.errors import TaskError
from chronocoder.suites.nursery.grammar import Grammar
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.presets import read_file_pairs
from chronocoder.tasks.sampling import draw_pairs

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskPairs:
    """The pairs of a task and what is known of them as a whole.

    Attributes:
        pairs: those to use, in the order of their source.
        language: of all of them; empty where they differ or none is known.
        phenomenon: that all of them are about; likewise.
        duplicates: pairs left out since the same pair comes before them.
        not_drawn: pairs left out by the task's limit.
    """

    pairs: list[MinimalPair]
    language: str
    phenomenon: str
    duplicates: int = 0
    not_drawn: int = 0


def read_pairs(name: str, task: Task, language: str) -> TaskPairs:
    """Return the minimal pairs of a task: generated in the nursery's `language`, or read from a file or dataset.

    Raises:
        TaskError: the grammar has no such task, the file cannot be used, or it has no pairs of the task's language or
            phenomenon.
    """
    if isinstance(task, NurseryTask):
        pairs = Grammar.load(language).minimal_pairs(name, task.pairs, task.seed)
        return TaskPairs(pairs, task.language or language, task.phenomenon)
    return read_source(name, task)


def read_source(name: str, task: FileTask) -> TaskPairs:
    """Return the minimal pairs of a task that lie in a file or dataset.

    Raises:
        TaskError: as `read_pairs`.
    """
    read = list(read_file_pairs(task))
    if not read:
        raise TaskError(f"{_place(task)}: holds no pairs; give a table with a pair in each row")
    wanted = _select(_select(read, "language", task), "phenomenon", task)
    distinct = list(dict.fromkeys(wanted))
    drawn = draw_pairs(distinct, task.limit, task.sample_seed)
    found = TaskPairs(
        drawn,
        _common([pair.language for pair in drawn]),
        _common([pair.phenomenon for pair in drawn]),
        duplicates=len(wanted) - len(distinct),
        not_drawn=len(distinct) - len(drawn),
    )
    _log.info(
        "task %s: %d pairs from %s, %d duplicates left out, %d not drawn",
        name,
        len(drawn),
        _place(task),
        found.duplicates,
        found.not_drawn,
    )
    return found


def _select(
    pairs: Sequence[MinimalPair], key: Literal["language", "phenomenon"], task: FileTask
) -> Sequence[MinimalPair]:
    """Return the pairs with the task's own value of a key; all of them, so labelled, where they have none."""
    wanted: str = getattr(task, key)
    values = {getattr(pair, key) for pair in pairs}
    if not wanted:
        return pairs
    if values == {""}:
        return [_labelled(pair, key, wanted) for pair in pairs]
    if wanted not in values:
        raise TaskError(
            f"{_place(task)}: no pair has {key} '{wanted}'; there are {', '.join(sorted(values - {''}))}: set the"
            f" task's {key} to one of them, or leave it out"
        )
    return [pair for pair in pairs if getattr(pair, key) == wanted]


def _labelled(pair: MinimalPair, key: Literal["language", "phenomenon"], value: str) -> MinimalPair:
    return replace(pair, language=value) if key == "language" else replace(pair, phenomenon=value)


def _common(values: Sequence[str]) -> str:
    return values[0] if len(set(values)) == 1 else ""


def _place(task: FileTask) -> str:
    return task.path if task.path is not None else f"dataset '{getattr(task, 'dataset', '')}'"
