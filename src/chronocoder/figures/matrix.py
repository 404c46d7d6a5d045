"""Matrices of tasks: one manner of cells, numbers, marks and scales for all of them."""

from textwrap import fill
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from chronocoder.figures.chart import COLOUR_MAP, INK, MANY_MARKS, QUIET, Chart, plain
from chronocoder.figures.order import TaskOrder
from chronocoder.wording import counted, decimal

CELL_IN, BAR_IN, MARGIN_IN = 0.38, 0.9, 0.4
MANY_IN, LEAST_CELL_IN = 5.0, 0.12
LABEL_PT, LABEL_OF_MANY_PT = 8, 6
CHARACTER_IN = 0.64 / 72
"""Width of a character, for each point of its size."""
SMALLEST_IN = 3.0
WRAP_AT = 28
DARKEST_FOR_INK = 0.5
"""Lightness of a cell from which on what is written in it is dark."""


class Matrix(NamedTuple):
    """What a matrix shows.

    Attributes:
        values: shape (row, column), in the order of the store; cells that are NaN are hatched.
        rows: order of the tasks on the vertical axis, from the top.
        columns: order of those on the horizontal one.
        limits: values that have the first and the last colour.
        label: of the scale of colours.
        axes: what the horizontal and the vertical axis show; may be empty.
        marked: cells that get an asterisk, shape (row, column); none where None.
        noun: what a row is of.
    """

    values: np.ndarray
    rows: TaskOrder
    columns: TaskOrder
    limits: tuple[float, float]
    label: str
    axes: tuple[str, str] = ("", "")
    marked: np.ndarray | None = None
    noun: str = "task"


def draw_matrix(title: str, data: pd.DataFrame, matrix: Matrix) -> Chart:
    """Draw a matrix of tasks in the order of their groups, with lines between groups."""
    chart = Chart(title, data, _words(matrix), _size_in(matrix.columns) + BAR_IN, _size_in(matrix.rows))
    chart.set_layout_engine("compressed")  # cells are square, whatever room the labels take
    axes = chart.subplots()
    values = matrix.values[np.ix_(matrix.rows.places, matrix.columns.places)]
    mesh = axes.pcolormesh(
        np.ma.masked_invalid(values),
        cmap=COLOUR_MAP,
        vmin=matrix.limits[0],
        vmax=matrix.limits[1],
        edgecolors="white",
        linewidth=0 if matrix.rows.many else 1,
        rasterized=values.size > MANY_MARKS,
    )
    axes.patch.set(hatch="//////", edgecolor=QUIET, linewidth=0)  # seen where there is no value
    _label(axes, matrix)
    _write_cells(axes, mesh, values, matrix)
    chart.colorbar(mesh, ax=axes, label=matrix.label, extend=_extend(values, matrix.limits), fraction=0.05, pad=0.02)
    return chart


def _size_in(order: TaskOrder) -> float:
    """Return the size of the cells and of labels beside them."""
    count = len(order.labels)
    cell_in, label_pt = (max(MANY_IN / count, LEAST_CELL_IN), LABEL_OF_MANY_PT) if order.many else (CELL_IN, LABEL_PT)
    longest = max(len(line) for label in order.labels for line in _wrapped(label, order).split("\n"))
    return max(SMALLEST_IN, MARGIN_IN + cell_in * count + CHARACTER_IN * label_pt * longest)


def _extend(values: np.ndarray, limits: tuple[float, float]) -> Literal["neither", "min", "max", "both"]:
    """Return at which ends of the scale there are values beyond it."""
    below, above = bool((values < limits[0]).any()), bool((values > limits[1]).any())
    if below and above:
        return "both"
    return "min" if below else "max" if above else "neither"


def _label(axes: Axes, matrix: Matrix) -> None:
    rows, columns = matrix.rows, matrix.columns
    size = LABEL_OF_MANY_PT if rows.many else LABEL_PT
    row_labels, column_labels = ([_wrapped(label, order) for label in order.labels] for order in (rows, columns))
    axes.set_xticks(np.arange(len(column_labels)) + 0.5, labels=column_labels, rotation=90, fontsize=size)
    axes.set_yticks(np.arange(len(row_labels)) + 0.5, labels=row_labels, fontsize=size)
    axes.tick_params(length=0)
    axes.set(aspect="equal", xlabel=matrix.axes[0], ylabel=matrix.axes[1])
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if any(np.diff([0, *rows.ends, len(rows.labels)]) > 1):
        for end in rows.ends:
            axes.axhline(end, color=INK, linestyle="-", marker="", linewidth=1)
        for end in columns.ends:
            axes.axvline(end, color=INK, linestyle="-", marker="", linewidth=1)


def _wrapped(label: str, order: TaskOrder) -> str:
    return plain(label) if order.many else fill(plain(label), WRAP_AT)


def _write_cells(axes: Axes, mesh: QuadMesh, values: np.ndarray, matrix: Matrix) -> None:
    """Write numbers into cells, and asterisks into those that are marked; of many tasks asterisks alone."""
    picked = np.ix_(matrix.rows.places, matrix.columns.places)
    marked = np.zeros(values.shape, dtype=bool) if matrix.marked is None else matrix.marked[picked]
    many = matrix.rows.many
    colours = np.asarray(mesh.cmap(mesh.norm(np.nan_to_num(values))))
    light = colours[..., :3] @ [0.2126, 0.7152, 0.0722] > DARKEST_FOR_INK
    for row, column in np.argwhere(np.isfinite(values) & (marked | (not many))):
        text = f"{'' if many else decimal(float(values[row, column]))}{'*' * int(marked[row, column])}"
        colour = INK if light[row, column] else "white"
        axes.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=5 if many else 7.5, color=colour)


def _words(matrix: Matrix) -> str:
    """Return the largest and the smallest value off the diagonal in words."""
    whole = f"A matrix of {counted(len(matrix.rows.labels), matrix.noun)}"
    between = matrix.values.copy()
    np.fill_diagonal(between, np.nan)
    if not np.isfinite(between).any():
        return f"{whole} without a known value between different ones."
    ends = (("largest", np.nanargmax(between)), ("smallest", np.nanargmin(between)))
    parts = [f"{name} is {_cell_words(matrix, np.unravel_index(place, between.shape))}" for name, place in ends]
    return f"{whole}; between different ones the {', the '.join(parts)}."


def _cell_words(matrix: Matrix, cell: tuple[np.intp, ...]) -> str:
    row, column = (
        order.labels[order.places.tolist().index(int(place))]
        for order, place in zip((matrix.rows, matrix.columns), cell, strict=True)
    )
    return f"{decimal(float(matrix.values[cell]))} ({row}, {column})"
