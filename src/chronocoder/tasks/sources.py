"""Where the pairs of a task come from."""

from pathlib import Path

from chronocoder.config import NurseryTask, Task
from chronocoder.suites.nursery.grammar import Grammar
from chronocoder.tasks.blimp import read_blimp
from chronocoder.tasks.pairs import MinimalPair


def read_pairs(name: str, task: Task, language: str) -> list[MinimalPair]:
    """Return the minimal pairs of a task: generated in the nursery's `language`, or read from a file.

    Raises:
        TaskError: the grammar has no such task, or the file cannot be used.
    """
    if isinstance(task, NurseryTask):
        return Grammar.load(language).minimal_pairs(name, task.pairs, task.seed)
    return read_blimp(Path(task.path), task.limit)
