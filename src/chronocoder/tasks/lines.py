"""The lines of JSONL files that hold a task's pairs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chronocoder.errors import TaskError


def read_objects(path: Path, limit: int | None, form: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of the first `limit` lines, each with the words that name its place; skip empty lines.

    Args:
        path: the file.
        limit: lines to read; all where None.
        form: what an object holds, for messages.

    Raises:
        TaskError: there is no such file, it is no UTF-8 text, a line is no JSON object, or there is no pair.
    """
    if not path.is_file():
        raise TaskError(f"{path}: no such file; correct the task's path")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:limit]
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}: is no UTF-8 text ({error}); save it as UTF-8") from None
    numbered = [(f"{path}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise TaskError(f"{path}: holds no pairs; give a JSONL file with {form}")
    for where, line in numbered:
        yield where, _parse(line, where, form)


def _parse(line: str, where: str, form: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise TaskError(f"{where}: needs a JSON object with {form} ({error!r})") from None
    if not isinstance(entry, dict):
        raise TaskError(f"{where}: needs a JSON object with {form}, not {line}")
    return entry
