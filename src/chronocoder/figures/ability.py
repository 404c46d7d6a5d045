"""Accuracy over training, of tasks and of groups of tasks."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from chronocoder.figures.chart import INK, LINES, MARKERS, PALETTE, QUIET, WIDTH_IN, Chart, plain, styled
from chronocoder.figures.tokens import draw_token_axis, token_places
from chronocoder.stores import names
from chronocoder.tasks.groups import groups_of_kind, warnings_of
from chronocoder.wording import MARK, counted, in_words

AXES_IN, LINE_IN, ROW_IN = 3.2, 0.17, 0.22
COLUMNS, WRAP_AT = 3, 24
HEAVY, LIGHT = 2.0, 1.1
SOLID, WARNED = LINES[:3], ":"
ENDS = ("", "_low", "_high")
UNBROKEN = "\u00a0"
CHANCE = 0.5


class Curve(NamedTuple):
    """Accuracy over training, of a task or of a group of tasks.

    Attributes:
        name: of the task or group, in words.
        label: in the legend.
        accuracy: with the lower and the upper end of its interval.
        heavy: whether its line is a heavy one.
        warned: whether a warning goes with it.
    """

    name: str
    label: str
    accuracy: Float[np.ndarray, "3 checkpoint"]
    heavy: bool
    warned: bool


@styled
def draw_ability(
    behaviour: xr.Dataset,
    tasks: Sequence[str] = (),
    comparisons: Mapping[str, Sequence[str]] | None = None,
    emphasised: Sequence[str] = (),
    title: str = "Accuracy on minimal pairs",
) -> Chart:
    """Draw the accuracy on tasks over tokens seen, with its interval.

    Args:
        behaviour: accuracy with its interval, dims (task, checkpoint); with the warnings of tasks.
        tasks: which of them, in this order; all where none is named.
        comparisons: checkpoints by name of the comparison, marked below.
        emphasised: tasks with heavy lines; all where none is named. A task with a warning never has one.
        title: what it shows.
    """
    chosen = behaviour.sel(task=list(tasks)) if tasks else behaviour
    warnings = warnings_of(chosen)
    ends = _with_ends(chosen, "accuracy", "task")
    curves = [
        Curve(
            name=in_words(task),
            label=_wrapped(f"{f'{MARK} ' * (task in warnings)}{plain(in_words(task))}"),
            accuracy=ends[:, place],
            heavy=task not in warnings and (task in emphasised or not emphasised),
            warned=task in warnings,
        )
        for place, task in enumerate(names(chosen, "task"))
    ]
    facts = {
        "task": names(chosen, "task"),
        "warning": [warnings.get(task, "") for task in names(chosen, "task")],
    }
    data = _table(chosen, facts, ends).assign(pairs=chosen["n"].transpose("task", "checkpoint").values.ravel())
    return _drawn(title, chosen, data, curves, comparisons or {}, "task")


@styled
def draw_group_ability(
    behaviour: xr.Dataset, kind: str, comparisons: Mapping[str, Sequence[str]] | None = None, title: str = ""
) -> Chart:
    """Draw the mean accuracy on the tasks of each group over tokens seen, with its interval.

    Args:
        behaviour: mean accuracy with its interval, dims (group, checkpoint); with the warnings of tasks.
        kind: of the groups, `language` or `phenomenon`.
        comparisons: checkpoints by name of the comparison, marked below.
        title: what it shows, if it is to be said in other words.
    """
    groups, tasks, warnings = groups_of_kind(behaviour, kind), names(behaviour, "task"), warnings_of(behaviour)
    ends = _with_ends(behaviour.isel(group=behaviour["group_kind"].values == kind), "group_accuracy", "group")
    warned = [sum(tasks[place] in warnings for place in group.tasks) for group in groups]
    sizes = [len(group.tasks) for group in groups]
    curves = [
        Curve(in_words(group.name), _group_label(group.name, size, count), ends[:, place], count < size, count == size)
        for place, (group, size, count) in enumerate(zip(groups, sizes, warned, strict=True))
    ]
    facts: dict[str, Sequence[object]] = {
        kind: [group.name for group in groups],
        "tasks": sizes,
        "tasks_with_a_warning": warned,
    }
    title = title or f"Mean accuracy by {kind}"
    return _drawn(title, behaviour, _table(behaviour, facts, ends), curves, comparisons or {}, kind)


def draw_chance(axes: Axes, level: float = CHANCE) -> None:
    """Draw the level of chance, named right of the axes, where no curve is."""
    axes.axhline(level, color=QUIET, linestyle=":", linewidth=1)
    axes.annotate(
        "chance",
        (1, level),
        xycoords=("axes fraction", "data"),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        color=QUIET,
        fontsize=8,
    )


def _group_label(name: str, size: int, warned: int) -> str:
    inside = counted(size, "task") + (f", {warned} {MARK}" if warned else "")
    return _wrapped(f"{plain(in_words(name))} ({inside.replace(' ', UNBROKEN)})")


def _with_ends(behaviour: xr.Dataset, name: str, dim: str) -> np.ndarray:
    """Return a variable with both ends of its interval, shape (3, `dim`, checkpoint)."""
    return np.stack([behaviour[f"{name}{end}"].transpose(dim, "checkpoint").values for end in ENDS])


def _table(behaviour: xr.Dataset, facts: Mapping[str, Sequence[object]], ends: np.ndarray) -> pd.DataFrame:
    """Return a row for each curve and checkpoint.

    Args:
        behaviour: has the checkpoints.
        facts: columns with a value for each curve.
        ends: shape (3, curve, checkpoint).
    """
    _, curves, checkpoints = ends.shape
    return pd.DataFrame(
        {
            **{name: np.repeat(np.array(values), checkpoints) for name, values in facts.items()},
            "checkpoint": np.tile(np.array(names(behaviour, "checkpoint")), curves),
            "tokens_seen": np.tile(behaviour["tokens_seen"].values, curves),
            **{f"accuracy{end}": values.ravel() for end, values in zip(ENDS, ends, strict=True)},
        }
    )


def _drawn(
    title: str,
    behaviour: xr.Dataset,
    data: pd.DataFrame,
    curves: Sequence[Curve],
    comparisons: Mapping[str, Sequence[str]],
    what: str,
) -> Chart:
    """Draw curves with their legend below, and the checkpoints of comparisons under the axes."""
    below = ROW_IN * len(comparisons)
    lines = max(curve.label.count("\n") + 1 for curve in curves)
    legend = LINE_IN * lines * -(-len(curves) // COLUMNS)
    chart = Chart(title, data, _alt(curves, comparisons, what), WIDTH_IN, AXES_IN + below + legend + 0.8)
    tokens_seen = behaviour["tokens_seen"].values
    x = token_places(tokens_seen)
    heights = [AXES_IN, below] if comparisons else [AXES_IN]
    upper, *lower = chart.subplots(len(heights), sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    handles = [_add_curve(upper, x, curve, number) for number, curve in enumerate(curves)]
    draw_chance(upper)
    upper.set(ylabel="accuracy (fraction of pairs)", ylim=(-0.02, 1.02))
    places = dict(zip(names(behaviour, "checkpoint"), x.tolist(), strict=True))
    for axes in lower:
        _add_comparisons(axes, places, comparisons)
    draw_token_axis([upper, *lower][-1], tokens_seen)
    chart.legend(handles, [curve.label for curve in curves], loc="outside lower left", ncols=COLUMNS)
    return chart


def _add_curve(axes: Axes, x: np.ndarray, curve: Curve, number: int) -> Line2D:
    """Draw a curve over the band of its interval; colours and markers go round, then lines change."""
    turn, place = divmod(number, len(PALETTE))
    colour, width = PALETTE[place], HEAVY if curve.heavy else LIGHT
    middle, low, high = curve.accuracy
    axes.fill_between(x, low, high, color=colour, alpha=0.16 if curve.heavy else 0.07, linewidth=0)
    (line,) = axes.plot(
        x,
        middle,
        color=colour,
        marker=MARKERS[place],
        markerfacecolor="none" if curve.warned else colour,
        linestyle=WARNED if curve.warned else SOLID[turn % len(SOLID)],
        linewidth=width,
    )
    return line


def _add_comparisons(axes: Axes, places: Mapping[str, float], comparisons: Mapping[str, Sequence[str]]) -> None:
    for row, checkpoints in enumerate(comparisons.values()):
        of_them = [places[checkpoint] for checkpoint in checkpoints]
        axes.plot(of_them, [row] * len(of_them), color=INK, linestyle="-", linewidth=1, marker="o")
    axes.set_yticks(range(len(comparisons)), list(map(plain, comparisons)), fontsize=8)
    axes.set_ylim(len(comparisons) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _alt(curves: Sequence[Curve], comparisons: Mapping[str, Sequence[str]], what: str) -> str:
    last = [float(curve.accuracy[0, -1]) for curve in curves]
    low, high = (
        f"{last[place]:.2f} ({curves[place].name})" for place in (last.index(min(last)), last.index(max(last)))
    )
    ends = f"ends at {high}" if len(curves) == 1 else f"ends between {low} and {high}"
    below = f" Below, the checkpoints of {counted(len(comparisons), 'comparison')}." if comparisons else ""
    return f"Accuracy over tokens seen, a line for each {what}: it {ends}; chance is {CHANCE}.{below}"


def _wrapped(label: str) -> str:
    return textwrap.fill(label, WRAP_AT, break_long_words=False, break_on_hyphens=False)
