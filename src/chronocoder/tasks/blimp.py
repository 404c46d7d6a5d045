"""Minimal pairs from JSONL files in the format of BLiMP (Warstadt et al. 2020, TACL 8)."""

from itertools import takewhile
from pathlib import Path
from typing import Any

from chronocoder.errors import TaskError
from chronocoder.tasks.lines import read_objects
from chronocoder.tasks.pairs import MinimalPair

_FORM = "sentence_good and sentence_bad"


def read_blimp(path: Path, limit: int | None = None) -> list[MinimalPair]:
    """Read pairs: the prefix is the words both sentences begin with, the continuations the first that differ.

    Raises:
        TaskError: names the line whose sentences are the same, share no first word, or are missing.
    """
    return [_split_entry(entry, where) for where, entry in read_objects(path, limit, _FORM)]


def _split_entry(entry: dict[str, Any], where: str) -> MinimalPair:
    try:
        good, bad = str(entry["sentence_good"]), str(entry["sentence_bad"])
    except KeyError as error:
        raise TaskError(f"{where}: needs a JSON object with {_FORM} ({error!r})") from None
    return split_sentences(good, bad, where)


def split_sentences(good: str, bad: str, where: str) -> MinimalPair:
    """Return the shared first words of two sentences, and the first word of each that differs.

    Raises:
        TaskError: the sentences are the same, share no first word, or one is the beginning of the other.
    """
    right, wrong = good.split(), bad.split()
    if right == wrong:
        raise TaskError(f"{where}: right and wrong sentence are the same: '{good}'; remove or correct the pair")
    shared = sum(1 for _ in takewhile(lambda words: words[0] == words[1], zip(right, wrong, strict=False)))
    if shared == 0:
        raise TaskError(
            f"{where}: '{good}' and '{bad}' share no first word; such a pair has no prefix to continue: leave it out"
        )
    if shared == min(len(right), len(wrong)):
        raise TaskError(f"{where}: '{good}' and '{bad}': one begins with the whole other; leave the pair out")
    return MinimalPair(" ".join(right[:shared]), " " + right[shared], " " + wrong[shared])
