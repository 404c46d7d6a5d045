"""Where the pairs of a task come from."""

from collections.abc import Callable
from pathlib import Path

from chronocoder.config import NurseryTask, Task
from chronocoder.suites.nursery.grammar import Grammar
from chronocoder.tasks.blimp import read_blimp
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.pairs_file import read_pairs_file

READERS: dict[str, Callable[[Path, int | None], list[MinimalPair]]] = {"blimp": read_blimp, "pairs": read_pairs_file}
"""The reader of each kind of task that lies in a file."""


def read_pairs(name: str, task: Task, language: str) -> list[MinimalPair]:
    """Return the minimal pairs of a task: generated in the nursery's `language`, or read from a file.

    Raises:
        TaskError: the grammar has no such task, or the file cannot be used.
    """
    if isinstance(task, NurseryTask):
        return Grammar.load(language).minimal_pairs(name, task.pairs, task.seed)
    return READERS[task.kind](Path(task.path), task.limit)
