"""Numbers and texts in few bytes, for the data inside the page."""

import math
from typing import Any

import numpy as np


class Vocabulary:
    """Token texts, each stored once and referred to by its place."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._places: dict[str, int] = {}

    def place(self, text: str) -> int:
        """Return the place of a text, adding it if it is new."""
        if text not in self._places:
            self._places[text] = len(self.texts)
            self.texts.append(text)
        return self._places[text]


def nested(values: np.ndarray) -> Any:
    """Return numbers in three digits as nested lists, with None for what is not finite."""
    if values.ndim > 1:
        return [nested(row) for row in values]
    return [rounded(value) for value in values.tolist()]


def rounded(value: float) -> float | None:
    """Return a number in three digits, or None if it is not finite."""
    return float(f"{value:.3g}") if math.isfinite(value) else None
