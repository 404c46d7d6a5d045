"""Names that a mistyped one may have meant."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher


def nearest_names(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return the names most like one: first those that differ in their numbers alone, by how far, then by spelling."""
    form, numbers = _parts(name)

    def distance(other: str) -> tuple[int, float]:
        other_form, other_numbers = _parts(other)
        if other_form == form:
            return 0, sum(abs(own - theirs) for own, theirs in zip(numbers, other_numbers, strict=True))
        return 1, -SequenceMatcher(None, name, other).ratio()

    return sorted(known, key=distance)[:count]


def _parts(name: str) -> tuple[str, list[int]]:
    return re.sub(r"\d+", "#", name), [int(digits) for digits in re.findall(r"\d+", name)]
