"""The files of a suite's tasks: a folder, a pattern or a list of configurations becomes a task for each."""

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from chronocoder.config.tasks import ClamsTask, FileTask, MultiBlimpTask, NurseryTask, TableSource, Task, TaskSettings

_SHOWN = 8


def format_of(path: Path) -> str:
    """Return the ending that names a file's format, without that of its compression."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def expand_tasks(tasks: Mapping[str, Task]) -> dict[str, Task]:
    """Return the tasks with each folder, pattern or list of configurations in its place resolved, in stable order.

    Raises:
        ValidationError: names the key whose folder or pattern has no file of its kind, or none of its language, or
            whose tasks have the name of another.
    """
    expanded: dict[str, Task] = {}
    for key, task in tasks.items():
        for name, single in _expand(key, task).items():
            if name in expanded:
                message = f"gives a second task '{name}'; rename a file or a key, or let one pattern match all files"
                raise _wrong(key, _place_key(task), message, task)
            expanded[name] = single
    return expanded


def _expand(key: str, task: Task) -> dict[str, Task]:
    if isinstance(task, NurseryTask):
        return {key: task}
    if isinstance(task, TableSource) and task.names:
        singles = [task.model_copy(update={"name": name, "names": ()}) for name in task.names]
        return _of_language(key, task, _named(key, task, singles, list(task.names)))
    if isinstance(task, ClamsTask) and task.needs_network and task.name is None:
        sets = task.published()
        return _of_language(key, task, _named(key, task, sets, [single.place_phenomenon for single in sets]))
    if task.path is None or not (Path(task.path).is_dir() or is_pattern(task.path)):
        return {key: task}
    files = _files(key, task)
    return _of_language(key, task, _named(key, task, files, [_stem(Path(str(file.path))) for file in files]))


def is_pattern(path: str) -> bool:
    """Say whether a path stands for the files that match it."""
    return bool(set("*?[") & set(path)) and not Path(path).exists()


def files_at(path: str) -> list[Path]:
    """Return the files below a folder, those that a pattern matches, or the file itself; none that is hidden."""
    place = Path(path)
    places = Path(place.anchor).glob(str(place.relative_to(place.anchor))) if is_pattern(path) else [place]
    return sorted({file for place in places for file in _below(place)})


def _files(key: str, task: FileTask) -> list[FileTask]:
    """Return a task for each file of the right formats below a folder, or that a pattern matches."""
    path = str(task.path)
    found = files_at(path)
    files = [file for file in found if format_of(file) in task.formats]
    if not files:
        there = ", ".join(str(file) for file in found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        does = "matches" if is_pattern(path) else "holds"
        message = f"'{path}' {does} no file that ends in {' or '.join(task.formats)}"
        message += f" (there are: {there or 'no files'}); correct the path or the kind"
        raise _wrong(key, "path", message, task)
    return [task.model_copy(update={"path": str(file)}) for file in files]


def _below(place: Path) -> list[Path]:
    """Return the files below a folder, or the file itself; none that is hidden."""
    if place.is_file():
        return [] if place.name.startswith(".") else [place]
    files = (file for file in place.rglob("*") if file.is_file())
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(place).parts)]


def _of_language(key: str, task: FileTask, files: dict[str, Task]) -> dict[str, Task]:
    """Return the files of a task's language, where their places name languages and the task does."""
    languages = {name: file.place_language for name, file in files.items() if isinstance(file, FileTask)}
    there = sorted(set(languages.values()) - {""})
    if not task.language or not there:
        return files
    if task.language not in there:
        message = f"'{task.language}' is the language of none of its files; choose from {', '.join(there)}"
        raise _wrong(key, "language", message, task)
    return {name: file for name, file in files.items() if languages[name] == task.language}


def _named(key: str, task: FileTask, singles: Sequence[Any], stems: Sequence[str]) -> dict[str, Task]:
    """Name tasks by their files or configurations, and where those do not tell them apart, by language or folder."""
    languages = [single.place_language for single in singles]
    if isinstance(task, MultiBlimpTask) and all(languages):
        names = [f"{key}_{language}" for language in languages]
    elif all(languages) and len(set(languages)) > 1:
        names = [f"{stem}_{language}" for stem, language in zip(stems, languages, strict=True)]
    else:
        names = list(stems)
    names = [re.sub(r"[^A-Za-z0-9_.\-]+", "_", name).strip("_.-") for name in _with_folders(names, singles)]
    repeated = [name for name, count in Counter(names).items() if count > 1 or not name]
    if repeated:
        message = f"gives several tasks the name '{repeated[0]}'; rename the files or narrow the pattern"
        raise _wrong(key, _place_key(task), message, task)
    return dict(zip(names, singles, strict=True))


def _with_folders(names: Sequence[str], singles: Sequence[FileTask]) -> list[str]:
    """Add to names that repeat the file's folder, or all folders in which paths differ where that is too little."""
    counts = Counter(names)
    if max(counts.values()) == 1:
        return list(names)
    folders = [Path(str(single.path)).parent for single in singles]
    root = os.path.commonpath(folders)
    tails = [[folder.name for folder in folders], ["_".join(folder.relative_to(root).parts) for folder in folders]]
    told_apart: list[str] = []
    for tail in tails:
        told_apart = [name if counts[name] == 1 else f"{name}_{tail[place]}" for place, name in enumerate(names)]
        if len(set(told_apart)) == len(names):
            break
    return told_apart


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(Path(path.name.removesuffix(".gz")).suffix)


def _place_key(task: TaskSettings) -> str:
    return "names" if isinstance(task, TableSource) and task.names else "path"


def _wrong(key: str, field: str, message: str, task: TaskSettings) -> ValidationError:
    """Return an error at one key of a task, as the models themselves raise it."""
    error = PydanticCustomError("task_files", "{message}", {"message": message})
    details = InitErrorDetails(type=error, loc=(key, field), input=getattr(task, field, None))
    return ValidationError.from_exception_data("tasks", [details])
