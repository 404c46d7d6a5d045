"""Figures of accuracy over training, by task and by group of tasks, as JSON that plotly.js draws."""

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from chronocoder.report.inputs import names
from chronocoder.report.phases import CHANCE
from chronocoder.report.style import INK, PALETTE, Json, finished, short, wrapped
from chronocoder.report.suite_figures import log_axis, place_on_log
from chronocoder.report.tasks import MANY_TASKS, MARK, finest_groups, groups_of_kind, warnings_of
from chronocoder.report.text import counted, in_words, short_count
from chronocoder.tasks.groups import KINDS

DASHES = ("solid", "dash", "dashdot")
WARNED = "dot"
HEIGHT_PX, SMALL_HEIGHT_PX = 560, 340
UNGROUPED = "others"
UNBROKEN = "\u00a0"


class Curve(NamedTuple):
    """Accuracy over training, of a task or of a group of tasks.

    Attributes:
        name: in the legend.
        note: what the hover says beside the numbers; may be empty.
        accuracy: with both ends of its interval, shape (3, checkpoint).
        heavy: whether its line is a heavy one.
        warned: whether a warning goes with it.
    """

    name: str
    note: str
    accuracy: np.ndarray
    heavy: bool
    warned: bool


def draw_abilities(
    behaviour: xr.Dataset, comparisons: Mapping[str, Sequence[str]], emphasised: Sequence[str]
) -> dict[str, list[Json]]:
    """Return accuracy over tokens seen by task, and by language and phenomenon where tasks name several.

    Of many tasks the groups come first, and the tasks of each group have a figure of their own.

    Args:
        behaviour: accuracy with its interval, dims (task, checkpoint) and (group, checkpoint).
        comparisons: checkpoints by name of the comparison, drawn below.
        emphasised: tasks to draw with heavier lines; all of few, if there are none.
    """
    curves = task_curves(behaviour, emphasised)
    by_kind = {
        f"by {kind}": [_figure(behaviour, group_curves(behaviour, kind), comparisons, f"Mean accuracy by {kind}")]
        for kind in KINDS
        if groups_of_kind(behaviour, kind)
    }
    if len(curves) <= MANY_TASKS or not by_kind:
        title = "Accuracy on minimal pairs"
        return {"by task": [_figure(behaviour, list(curves.values()), comparisons, title)], **by_kind}
    parts = _parted(behaviour, curves)
    return {**by_kind, "by task": [_figure(behaviour, part, {}, title) for title, part in parts.items()]}


def task_curves(behaviour: xr.Dataset, emphasised: Sequence[str]) -> dict[str, Curve]:
    """Return the accuracy on each task."""
    warnings = warnings_of(behaviour)
    ends = _with_ends(behaviour, "accuracy", "task")
    few = behaviour.sizes["task"] <= MANY_TASKS
    heavy = emphasised or (names(behaviour, "task") if few else [])
    return {
        task: Curve(
            name=f"{MARK} {in_words(task)}" if task in warnings else in_words(task),
            note=warnings.get(task, ""),
            accuracy=ends[:, place],
            heavy=task in heavy and task not in warnings,
            warned=task in warnings,
        )
        for place, task in enumerate(names(behaviour, "task"))
    }


def group_curves(behaviour: xr.Dataset, kind: str) -> list[Curve]:
    """Return the mean accuracy on the tasks of each language or phenomenon."""
    warnings, tasks = warnings_of(behaviour), names(behaviour, "task")
    ends = _with_ends(behaviour.isel(group=behaviour["group_kind"].values == kind), "group_accuracy", "group")
    curves = []
    for place, group in enumerate(groups_of_kind(behaviour, kind)):
        warned = sum(tasks[of] in warnings for of in group.tasks)
        size = counted(len(group.tasks), "task")
        name = f"({size}, {warned} {MARK})" if warned else f"({size})"
        note = f"mean of {size}, {warned} with a warning" if warned else f"mean of {size}"
        all_warned = warned == len(group.tasks)
        label = f"{in_words(group.name)} {name.replace(' ', UNBROKEN)}"
        curves.append(Curve(label, note, ends[:, place], not all_warned, all_warned))
    return curves


def _parted(behaviour: xr.Dataset, curves: Mapping[str, Curve]) -> dict[str, list[Curve]]:
    """Return the curves of tasks by group, of the kind that has most of them; last, those of no group."""
    finest, every = finest_groups(behaviour), list(curves.values())
    grouped = {place for group in finest for place in group.tasks.tolist()}
    rest = [curve for place, curve in enumerate(every) if place not in grouped]
    parts = {in_words(group.name): [every[place] for place in group.tasks] for group in finest}
    return {**parts, **({UNGROUPED: rest} if rest else {})}


def _with_ends(behaviour: xr.Dataset, name: str, dim: str) -> np.ndarray:
    """Return a variable with both ends of its interval, shape (3, `dim`, checkpoint)."""
    return np.stack([behaviour[f"{name}{end}"].transpose(dim, "checkpoint").values for end in ("", "_low", "_high")])


def _figure(
    behaviour: xr.Dataset, curves: Sequence[Curve], comparisons: Mapping[str, Sequence[str]], title: str
) -> Json:
    """Draw curves with the checkpoints of comparisons below; without comparisons a smaller figure."""
    below = min(0.5, 0.04 + 0.035 * len(comparisons)) if comparisons else 0.0
    heights = [1 - below, below] if comparisons else [1.0]
    figure = make_subplots(rows=len(heights), shared_xaxes=True, vertical_spacing=0.04, row_heights=heights)
    tokens_seen = behaviour["tokens_seen"].values
    x = place_on_log(tokens_seen)
    moments = [
        f"{html.escape(name)}, {short_count(tokens)} tokens"
        for name, tokens in zip(names(behaviour, "checkpoint"), tokens_seen.tolist(), strict=True)
    ]
    for number, curve in enumerate(curves):
        dash = WARNED if curve.warned else DASHES[number // len(PALETTE) % len(DASHES)]
        line = _line(curve, x, moments, PALETTE[number % len(PALETTE)], dash)
        figure.add_traces([_band(curve, x, line.line.color), line], 1, 1)
    places = dict(zip(names(behaviour, "checkpoint"), x.tolist(), strict=True))
    for name, checkpoints in comparisons.items():
        figure.add_trace(_comparison_trace(name, checkpoints, places), 2, 1)
    _add_chance(figure)
    figure.update_xaxes(log_axis(tokens_seen))
    zero = "; 0 at the left edge" if (tokens_seen == 0).any() else ""
    figure.update_xaxes(title_text=f"tokens seen (log scale{zero})", row=len(heights))
    figure.update_yaxes(title_text="accuracy (fraction of pairs)", range=[-0.02, 1.02], row=1)
    if not comparisons:
        return finished(figure, title, SMALL_HEIGHT_PX)
    figure.update_yaxes(autorange="reversed", row=2)
    return finished(figure, f"{title} with its 95 % interval; below, the checkpoints compared", HEIGHT_PX)


def _band(curve: Curve, x: np.ndarray, colour: str) -> go.Scatter:
    _, low, high = curve.accuracy
    return go.Scatter(
        x=np.concatenate([x, x[::-1]]).tolist(),
        y=short(np.concatenate([high, low[::-1]])),
        fill="toself",
        fillcolor=colour,
        opacity=0.16 if curve.heavy else 0.06,
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        legendgroup=curve.name,
    )


def _line(curve: Curve, x: np.ndarray, moments: Sequence[str], colour: str, dash: str) -> go.Scatter:
    note = f"<br>{wrapped(f'{MARK} {curve.note}' if curve.warned else curve.note, 60)}" if curve.note else ""
    return go.Scatter(
        x=x.tolist(),
        y=short(curve.accuracy[0]),
        name=wrapped(curve.name),
        legendgroup=curve.name,
        mode="lines+markers",
        opacity=1 if curve.heavy else 0.55,
        line={"color": colour, "dash": dash, "width": 2.6 if curve.heavy else 1.3},
        marker={"size": 6 if curve.heavy else 4},
        text=[
            f"{moment}: {middle:.2f} ({low:.2f} to {high:.2f}){note}"
            for moment, (middle, low, high) in zip(moments, curve.accuracy.T.tolist(), strict=True)
        ],
        hovertemplate="%{text}",
    )


def _comparison_trace(name: str, checkpoints: Sequence[str], places: Mapping[str, float]) -> go.Scatter:
    return go.Scatter(
        x=[places[checkpoint] for checkpoint in checkpoints],
        y=[html.escape(name)] * len(checkpoints),
        mode="lines+markers",
        line={"color": INK, "width": 1.2},
        marker={"size": 8},
        text=[html.escape(checkpoint) for checkpoint in checkpoints],
        hovertemplate="%{y}: %{text}<extra></extra>",
        showlegend=False,
    )


def _add_chance(figure: go.Figure) -> None:
    figure.add_hline(
        CHANCE,
        line={"color": INK, "dash": "dot", "width": 1},
        annotation={"text": "chance", "xanchor": "right"},
        annotation_position="bottom right",
        row=1,
        col=1,
    )
