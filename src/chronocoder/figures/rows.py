"""Charts with a row for each task."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from chronocoder.figures.chart import plain

WRAP_AT = 24
ROWS_WIDTH_IN = 5.2
PADDING_IN, LINE_IN, FRAME_IN = 0.1, 0.15, 1.3
SPREAD = 0.25
"""How far, in rows, marks of the same row lie apart from its middle at the most."""


def row_labels(names: Sequence[str]) -> list[str]:
    """Return names in lines that are short enough to stand beside the axes."""
    return [textwrap.fill(plain(name), WRAP_AT) for name in names]


def rows_height_in(labels: Sequence[str]) -> float:
    """Return the height of a chart with these rows, in inches."""
    lines = max(label.count("\n") + 1 for label in labels)
    return FRAME_IN + len(labels) * (PADDING_IN + LINE_IN * lines)


def set_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Label the rows, the first one at the top."""
    axes.set_yticks(range(len(labels)), list(labels), fontsize=9)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)


def offsets(count: int) -> np.ndarray:
    """Return where in a row the marks of so many kinds lie, so that none covers another."""
    return np.linspace(-SPREAD, SPREAD, count) if count > 1 else np.zeros(count)
