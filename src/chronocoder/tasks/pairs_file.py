"""Minimal pairs from JSONL files of one's own: the attributes of `MinimalPair` are the keys."""

import json
from pathlib import Path
from typing import Any

from chronocoder.errors import TaskError
from chronocoder.tasks.lines import read_objects
from chronocoder.tasks.pairs import MinimalPair

_REQUIRED = ("prefix", "right", "wrong")
_OPTIONAL = ("counterfactual", "condition")
_FORM = f"{', '.join(_REQUIRED)} (and where wanted {', '.join(_OPTIONAL)})"


def read_pairs_file(path: Path, limit: int | None = None) -> list[MinimalPair]:
    """Read pairs as they stand: no space is put between prefix and continuation, so that all scripts can be written.

    Raises:
        TaskError: names the line that is no JSON object, has a key too many or too few, or holds something but text.
    """
    return [_to_pair(entry, where) for where, entry in read_objects(path, limit, _FORM)]


def _to_pair(entry: dict[str, Any], where: str) -> MinimalPair:
    for key, value in entry.items():
        if key not in (*_REQUIRED, *_OPTIONAL):
            raise TaskError(f"{where}: unknown key '{key}'; remove it or correct its spelling: a pair has {_FORM}")
        if not isinstance(value, str):
            raise TaskError(f"{where}: '{key}' is {json.dumps(value)}; give text, or leave out what is not required")
    missing = [key for key in _REQUIRED if key not in entry]
    if missing:
        raise TaskError(f"{where}: '{missing[0]}' is missing; add it: a pair has {_FORM}")
    return MinimalPair(**entry)
