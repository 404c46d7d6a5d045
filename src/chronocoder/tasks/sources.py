"""Where the pairs of a task come from."""

from pathlib import Path

from chronocoder.config import NurserySource, NurseryTask, Source, Task
from chronocoder.suites.nursery.grammar import Grammar
from chronocoder.tasks.blimp import read_blimp
from chronocoder.tasks.pairs import MinimalPair


def read_pairs(name: str, task: Task, source: Source) -> list[MinimalPair]:
    """Return the minimal pairs of a task, generated or read.

    Raises:
        TaskError: the grammar has no such task, or the file cannot be used.
    """
    if isinstance(task, NurseryTask):
        assert isinstance(source, NurserySource)  # Suite has checked it
        return Grammar.load(source.language).minimal_pairs(name, task.pairs, task.seed)
    return read_blimp(Path(task.path), task.limit)
