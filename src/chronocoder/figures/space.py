"""Tasks as points over training, and whether they lie as hypothesised."""

from itertools import product

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from chronocoder.figures.chart import GRID, INK, MARKERS, PALETTE, WIDTH_IN, Chart, plain, styled
from chronocoder.figures.lines import Line, draw_course
from chronocoder.figures.order import TaskOrder, largest_size, task_order
from chronocoder.stores import names
from chronocoder.wording import counted, decimal, in_words, percent, short_count

TRANSFER, GRADIENTS = BASES = ("transfer", "gradients")
P_SHOWN = 0.05
"""P-values below it fill a marker, and let a sentence call a difference one beyond chance."""
REACH = 1.2
PANELS_A_ROW = 2
PANEL_IN, LEGEND_LINE_IN = 3.3, 0.2
GROUP_MARKERS = MARKERS[:4]
LABEL_POINTS = 8
"""From the middle of a marker to that of its number, in points."""
LEGEND_CHARACTERS = 88


def group_style(place: int) -> tuple[str, str]:
    """Return the colour and the marker of a hypothesised group."""
    return PALETTE[place % len(PALETTE)], GROUP_MARKERS[place % len(GROUP_MARKERS)]


@styled
def draw_space(space: xr.Dataset, basis: str) -> Chart:
    """Draw the tasks as points, a panel for each checkpoint; all panels have the same scale.

    Of few tasks each point has the number that the legend gives to its task.
    """
    of_basis, order = space.sel(basis=basis), task_order(space)
    position = of_basis["position"].transpose("checkpoint", "task", "axis").values[:, order.places]
    reach, count = REACH * largest_size(position), len(position)
    rows, legend = -(-count // PANELS_A_ROW), _legend(order)
    height_in = PANEL_IN * rows + LEGEND_LINE_IN * sum(text.count("\n") + 1 for _, text in legend)
    chart = Chart(f"Task space from {basis}", _points(of_basis, order), _space_words(of_basis), WIDTH_IN, height_in)
    chart.set_layout_engine("compressed", h_pad=0.1)  # panels are square, whatever room the legend takes
    panels = chart.subplots(rows, PANELS_A_ROW, squeeze=False).ravel()
    for place, axes in enumerate(panels):
        if place < count:
            _draw_panel(axes, of_basis.isel(checkpoint=place), position[place], order, reach)
        else:
            axes.set_visible(False)
    handles = [handle for handle, _ in legend]
    chart.legend(handles, [text for _, text in legend], loc="outside lower left", fontsize=8.5, numpoints=1)
    return chart


@styled
def draw_group_course(space: xr.Dataset, basis: str) -> Chart:
    """Draw the mean similarity within and between groups over training; filled where the difference is clear."""
    of_basis = space.sel(basis=basis)
    p_values = of_basis["contrast_p"].values
    lines = [
        Line(
            "within groups",
            of_basis["within"].values,
            0,
            filled=_filled(p_values),
            facts={"p_value_of_difference": p_values},
        ),
        Line("between groups", of_basis["between"].values, 1),
    ]
    return draw_course(of_basis, lines, f"Mean similarity within and between groups, from {basis}", "similarity")


@styled
def draw_contrast_course(space: xr.Dataset, basis: str) -> Chart:
    """Draw the difference of similarity within and between groups over training, with its interval."""
    of_basis = space.sel(basis=basis)
    contrast, low, high, p_values = (of_basis[f"contrast{end}"].values for end in ("", "_low", "_high", "_p"))
    line = Line("within less between", contrast, 0, low, high, _filled(p_values), {"p_value": p_values})
    return draw_course(
        of_basis, [line], f"Similarity within less that between groups, from {basis}", "difference of similarity"
    )


@styled
def draw_stability_course(space: xr.Dataset, basis: str) -> Chart:
    """Draw how alike the spaces of successive checkpoints are, beside relabelled tasks and seeds of tuning."""
    of_basis = space.sel(basis=basis)
    shown = {"with the checkpoint before": ("stability", 0), "relabelled tasks": ("stability_chance", 8)}
    if basis == TRANSFER:
        shown["between seeds, same checkpoint"] = ("seed_stability", 2)
        shown["between seeds, checkpoint before"] = ("seed_stability_before", 4)
    lines = [Line(label, of_basis[name].values, style) for label, (name, style) in shown.items()]
    title = f"Procrustes similarity of spaces from {basis}"
    return draw_course(of_basis, lines, title, "1 − disparity", (-0.05, 1.05))


@styled
def draw_agreement_course(space: xr.Dataset) -> Chart:
    """Draw how far transfer and gradients agree on which tasks are similar, over training."""
    p_values = space["agreement_p"].values
    agreement = space["agreement"].values
    line = Line("transfer and gradients", agreement, 3, filled=_filled(p_values), facts={"p_value": p_values})
    return draw_course(space, [line], "Agreement of transfer and gradients", "Mantel correlation", (-1.05, 1.05))


def _filled(p_values: np.ndarray) -> np.ndarray:
    """Return which markers are filled; also where nothing is known, since the first one stands in the legend."""
    filled: np.ndarray = ~(p_values >= P_SHOWN)
    return filled


def _draw_panel(axes: Axes, at: xr.Dataset, placed: np.ndarray, order: TaskOrder, reach: float) -> None:
    known, of_tasks = np.isfinite(placed).all(axis=1), np.array(order.groups)
    for place, group in enumerate(dict.fromkeys(order.groups)):
        colour, marker = group_style(place)
        members = (of_tasks == group) & known
        axes.plot(
            *placed[members].T,
            color=colour,
            marker=marker,
            linestyle="none",
            markersize=5 if order.many else 6.5,
            markeredgecolor=INK,
            markeredgewidth=0.6,
        )
    if not order.many:
        _number(axes, placed, known, reach)
    for line in (axes.axhline, axes.axvline):
        line(0, color=GRID, linestyle="-", marker="", linewidth=1, zorder=0)
    axes.grid(visible=False)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xticks=[], yticks=[])
    axes.set(xlabel=_axis_text(at, 0), ylabel=_axis_text(at, 1))
    missing = int((~known).sum())
    absent = f" ({missing} of {len(known)} left out)" if missing else ""
    axes.set_title(
        f"{plain(str(at['checkpoint'].values))}, {short_count(int(at['tokens_seen']))} tokens{absent}", fontsize=9
    )


def _number(axes: Axes, placed: np.ndarray, known: np.ndarray, reach: float) -> None:
    """Write the number of each task beside its point, on the side where there is most room."""
    unit = 2 * reach / (0.8 * PANEL_IN * 72)  # of the axes, a point
    sides = LABEL_POINTS * np.array([side for side in product((0, 1, -1), repeat=2) if any(side)])
    taken = [*placed[known]]
    for task in np.flatnonzero(known):
        room = [min(np.linalg.norm(placed[task] + unit * side - other) for other in taken) for side in sides]
        side = sides[int(np.argmax(np.round(room, 3)))]
        taken.append(placed[task] + unit * side)
        axes.annotate(
            str(task + 1), placed[task], side, textcoords="offset points", ha="center", va="center", fontsize=8
        )


def _axis_text(at: xr.Dataset, axis: int) -> str:
    part = float(at["explained"].isel(axis=axis))
    return f"axis {axis + 1}: {percent(part)}" if np.isfinite(part) else f"axis {axis + 1}"


def _legend(order: TaskOrder) -> list[tuple[Line2D, str]]:
    """Return the marker of each group, and its name with its tasks; of many tasks, with how many they are."""
    found = []
    for place, group in enumerate(dict.fromkeys(order.groups)):
        colour, marker = group_style(place)
        handle = Line2D([], [], color=colour, marker=marker, linestyle="none", markeredgecolor=INK, markersize=6)
        found.append((handle, f"{plain(in_words(group))}: {_members(order, group)}"))
    return found


def _members(order: TaskOrder, group: str) -> str:
    numbered = [
        f"{number}\u00a0{plain(label)}"
        for number, (label, of) in enumerate(zip(order.labels, order.groups, strict=True), start=1)
        if of == group
    ]
    if order.many:
        return counted(len(numbered), "task")
    lines = [numbered[0]]
    for name in numbered[1:]:
        joined = f"{lines[-1]}, {name}"
        lines = [*lines[:-1], joined] if len(joined) < LEGEND_CHARACTERS else [*lines[:-1], f"{lines[-1]},", name]
    return "\n".join(lines)


def _points(of_basis: xr.Dataset, order: TaskOrder) -> pd.DataFrame:
    """Return the place of each task at each checkpoint."""
    position = of_basis["position"].transpose("checkpoint", "task", "axis").values[:, order.places]
    tasks = [names(of_basis, "task")[place] for place in order.places]
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "checkpoint": checkpoint,
                    "number": np.arange(1, len(tasks) + 1),
                    "task": tasks,
                    "group": order.groups,
                    "axis_1": at[:, 0],
                    "axis_2": at[:, 1],
                }
            )
            for checkpoint, at in zip(names(of_basis, "checkpoint"), position, strict=True)
        ],
        ignore_index=True,
    )


def _space_words(of_basis: xr.Dataset) -> str:
    last = of_basis.isel(checkpoint=-1)
    within, between = (decimal(float(last[name])) for name in ("within", "between"))
    panels = counted(of_basis.sizes["checkpoint"], "panel")
    return (
        f"{panels}, one for each checkpoint, with a point for each task, marked by its hypothesised group. At"
        f" {last['checkpoint'].values} the mean similarity is {within} within groups and {between} between them."
    )
