"""Numbers and texts in few bytes, for the data that pages load."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray as xr

Part = Callable[[int], dict[str, Any]]
"""Gives a part of what is shown of the feature at a place of the dictionary."""


def nested(values: np.ndarray) -> Any:
    """Return an array as nested lists: numbers in four digits, None for what is not finite, flags as 0 and 1."""
    if values.dtype.kind != "f":
        return (values.astype(int) if values.dtype.kind == "b" else values).tolist()
    if values.ndim > 1:
        return [nested(row) for row in values]
    return [rounded(value) for value in values.tolist()]


def rounded(value: float) -> float | None:
    """Return a number in four digits, or None if it is not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def arrays(store: xr.Dataset, variables: Mapping[str, str], *dims: str) -> dict[str, np.ndarray]:
    """Return variables, under other names, as arrays of the same dims, each in one piece of memory."""
    return {name: np.ascontiguousarray(store[variable].transpose(*dims).values) for name, variable in variables.items()}


def at(values: Mapping[str, np.ndarray], place: Any) -> dict[str, Any]:
    """Return what is at a place of each array, as nested lists."""
    return {name: nested(of[place]) for name, of in values.items()}
