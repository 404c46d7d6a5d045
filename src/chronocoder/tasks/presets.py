"""Minimal pairs from the rows of tables and from the published forms of test sets."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from chronocoder.config import (
    BlimpTask,
    ClamsTask,
    FileTask,
    MultiBlimpTask,
    PairsTask,
    TableColumns,
    TableSource,
    TableTask,
)
from chronocoder.errors import TaskError
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.tables import Row, read_dataset, read_lines, read_table, shortened

_ASKS = {"one_prefix_method": "next_token", "two_prefix_method": "continuation", "simple_LM_method": "sentence"}
"""BLiMP's names of the ways to score a set, and the metrics that they are here."""

_LABELS = ("condition", "language", "phenomenon")
_TEXTS = ("prefix", "right", "wrong", "counterfactual")
_BLIMP = TableColumns(good="sentence_good", bad="sentence_bad", phenomenon="linguistics_term")
_MULTIBLIMP = TableColumns(good="sen", bad="wrong_sen", phenomenon="phenomenon")
_PAIRS = TableColumns(**{key: key for key in (*_TEXTS, *_LABELS)})
_PAIR_FORM = f"{', '.join(_TEXTS[:3])} (and where wanted counterfactual, {', '.join(_LABELS)})"


def read_file_pairs(task: FileTask) -> Iterator[MinimalPair]:
    """Yield all pairs that a task's file or dataset holds, in its order.

    Raises:
        TaskError: the file, a line or a pair cannot be used; names it.
    """
    match task:
        case ClamsTask():
            yield from _read_clams(task)
        case PairsTask():
            yield from map(_to_own_pair, read_table(Path(task.path)))
        case BlimpTask():
            for row in _rows(task):
                yield replace(_to_pair(row, _BLIMP, optional=_LABELS), asks=_asks(row.values))
        case MultiBlimpTask():
            for row in _rows(task):
                pair = _to_pair(row, _MULTIBLIMP, optional=_LABELS)
                yield replace(pair, language=task.group.language)
        case TableTask():
            for row in _rows(task):
                yield _to_pair(row, task.columns)


def split_sentences(good: str, bad: str, where: str) -> MinimalPair:
    """Return two sentences as what both begin with, up to a boundary of words where there are spaces, and their rests.

    Raises:
        TaskError: the sentences are the same.
    """
    if good == bad:
        raise TaskError(f"{where}: right and wrong sentence are the same: '{good}'; remove or correct the pair")
    shared = _shared_words(good, bad)
    return MinimalPair(good[:shared], good[shared:], bad[shared:])


def _shared_words(good: str, bad: str) -> int:
    """Return how many characters two sentences share, no word cut in two; scripts without spaces may part anywhere."""
    parted = (place for place, (one, other) in enumerate(zip(good, bad, strict=False)) if one != other)
    shared = next(parted, min(len(good), len(bad)))
    if all(not text[shared:] or text[shared].isspace() for text in (good, bad)):
        return shared
    if not any(character.isspace() for character in good + bad):
        return shared
    return max((place for place in range(shared) if good[place].isspace()), default=0)


def _rows(task: TableSource) -> Iterator[Row]:
    if task.path is not None:
        return read_table(Path(task.path))
    return read_dataset(str(task.dataset), task.name, task.split, task.revision if task.needs_network else None)


def _to_pair(row: Row, columns: TableColumns, optional: Iterable[str] = ()) -> MinimalPair:
    """Return the pair of a row; `optional` are the keys of columns that need not be there."""
    named = columns.model_dump(exclude_none=True)
    values = {key: column for key, column in named.items() if column in row.values or key not in optional}
    for column in values.values():
        if column not in row.values:
            raise TaskError(
                f"{row.where}: no column '{column}'; there are {', '.join(row.values) or 'none'}: name the right one in"
                " `columns` of a task of kind table"
            )
    labels: dict[str, Any] = {key: _label(row, values.pop(key)) for key in _LABELS if key in values}
    texts: dict[str, Any] = {key: _sentence(row, column) for key, column in values.items()}
    if columns.good is None:
        return _checked(MinimalPair(**texts, **labels), row.where)
    pair = split_sentences(texts.pop("good").strip(), texts.pop("bad").strip(), row.where)
    return _checked(replace(pair, **texts, **labels), row.where)


def _sentence(row: Row, column: str) -> str:
    value = row.values[column]
    if not isinstance(value, str):
        raise TaskError(f"{row.where}: '{column}' is {json.dumps(value, default=str)}; give text")
    return value


def _label(row: Row, column: str) -> str:
    value = row.values[column]
    if isinstance(value, (list, dict)):
        raise TaskError(f"{row.where}: '{column}' is {json.dumps(value, default=str)}; give text or a number")
    return "" if value is None else str(value)


def _checked(pair: MinimalPair, where: str) -> MinimalPair:
    if pair.right == pair.wrong:
        raise TaskError(
            f"{where}: right and wrong continuation are the same: '{pair.right}'; remove or correct the pair"
        )
    for sentence, other in ((pair.good, pair.bad), (pair.bad, pair.good)):
        if not sentence.strip():
            raise TaskError(f"{where}: one sentence is empty, the other is '{other}'; complete or remove the pair")
    return pair


def _to_own_pair(row: Row) -> MinimalPair:
    """Return the pair of a line whose keys are the attributes of `MinimalPair`."""
    known = (*_TEXTS, *_LABELS)
    for key, value in row.values.items():
        if key not in known:
            raise TaskError(
                f"{row.where}: unknown key '{key}'; remove it or correct its spelling: a pair has {_PAIR_FORM}"
            )
        if not isinstance(value, str):
            raise TaskError(
                f"{row.where}: '{key}' is {json.dumps(value)}; give text, or leave out what is not required"
            )
    missing = [key for key in _TEXTS[:3] if key not in row.values]
    if missing:
        raise TaskError(f"{row.where}: '{missing[0]}' is missing; add it: a pair has {_PAIR_FORM}")
    return _checked(MinimalPair(**row.values), row.where)


def _asks(values: dict[str, Any]) -> tuple[str, ...]:
    return tuple(metric for flag, metric in _ASKS.items() if str(values.get(flag)).lower() == "true")


def _read_clams(task: ClamsTask) -> Iterator[MinimalPair]:
    """Yield a pair for each `False` sentence: with the `True` one before it, which may have several."""
    good, good_where, used = "", "", True
    for where, line in read_lines(task.place):
        label, _, sentence = line.partition("\t")
        if label not in ("True", "False") or not sentence.strip():
            raise TaskError(
                f"{where}: needs True or False, a tab and a sentence, not '{shortened(line)}'; correct the line, or the"
                " task's kind if the file is no CLAMS set"
            )
        if label == "True":
            if not used:
                raise TaskError(f"{good_where}: no False sentence follows this True one; remove or complete the pair")
            good, good_where, used = sentence.strip(), where, False
        elif not good:
            raise TaskError(f"{where}: a False sentence comes before any True one; begin with the True one")
        else:
            used = True
            pair = split_sentences(good, sentence.strip(), where)
            yield replace(pair, language=task.group.language, phenomenon=task.place_phenomenon)
    if not used:
        raise TaskError(f"{good_where}: no False sentence follows this True one; remove or complete the pair")
