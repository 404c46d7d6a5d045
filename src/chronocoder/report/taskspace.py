"""What the parts of the section on task spaces share: the order of tasks, names of methods, matrices and courses."""

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from chronocoder.config.taskspace import DIFFERENTIAL, RIGHT, SWAPPED
from chronocoder.report.inputs import names
from chronocoder.report.style import GRID, INK, PALETTE, Json, finished, wrapped
from chronocoder.report.suite_figures import log_axis, place_on_log
from chronocoder.report.tasks import MANY_TASKS
from chronocoder.report.text import decimal, in_words, percent, short_count

HARMING, NEUTRAL, HELPING = "#D55E00", "#FFFFFF", "#0072B2"
DIVERGING = [[0.0, HARMING], [0.5, NEUTRAL], [1.0, HELPING]]
SEQUENTIAL = [[0.0, NEUTRAL], [1.0, HELPING]]
OBJECTIVES = {
    DIFFERENTIAL: "gradient differential",
    RIGHT: "right sentences only",
    SWAPPED: "right and wrong swapped at random",
}
P_SHOWN = 0.05
"""P-values below it fill a marker, and let a sentence call a difference one beyond chance."""
SMALLEST_P = 0.001
PLACES = 3
SMALL_HEIGHT_PX = 340
CELL_PX = 14
MATRIX_HEIGHT_PX, LABEL_PX = 470, 230


class TaskOrder(NamedTuple):
    """Tasks in the order of their hypothesised groups.

    Attributes:
        places: of the tasks in the store.
        labels: names in words.
        groups: the group of each.
        ends: how many tasks come up to the end of each group, without the last.
    """

    places: np.ndarray
    labels: list[str]
    groups: list[str]
    ends: list[int]

    @property
    def many(self) -> bool:
        """Whether there are more tasks than single cells can have their numbers written in."""
        return len(self.labels) > MANY_TASKS


class Line(NamedTuple):
    """A line over training.

    Attributes:
        name: in the legend.
        values: by checkpoint, with both ends of an interval: shape (3, checkpoint); without, shape (1, checkpoint).
        colour: of the line.
        dash: of the line.
        filled: whether each marker is filled.
        notes: what the hover says beside each number.
    """

    name: str
    values: np.ndarray
    colour: str
    dash: str = "solid"
    filled: Sequence[bool] = ()
    notes: Sequence[str] = ()


def task_order(store: xr.Dataset, dim: str = "task", group: str = "group") -> TaskOrder:
    """Return the tasks along a dimension by group, groups in the order in which they first come."""
    of_tasks = names(store, group)
    groups = list(dict.fromkeys(of_tasks))
    places = np.array(sorted(range(len(of_tasks)), key=lambda place: groups.index(of_tasks[place])))
    ordered = [of_tasks[place] for place in places]
    ends = [place for place in range(1, len(ordered)) if ordered[place] != ordered[place - 1]]
    return TaskOrder(places, [in_words(names(store, dim)[place]) for place in places], ordered, ends)


def same_group(store: xr.Dataset, dim: str = "task", group: str = "group", other_group: str = "group") -> np.ndarray:
    """Return which ordered pairs of different tasks are within a group and which between, shape (2, task, task)."""
    one, other = (np.array(names(store, name)) for name in (group, other_group))
    same, different = one[:, None] == other, ~np.eye(store.sizes[dim], dtype=bool)
    return np.stack([same & different, ~same & different])


def method_labels(transfer: xr.Dataset) -> dict[str, str]:
    """Return each way of tuning in words, by its name."""
    facts = zip(names(transfer, "tuning"), names(transfer, "objective"), transfer["fraction"].values, strict=True)
    return {
        name: f"{in_words(name)} ({OBJECTIVES[objective]}, {percent(float(fraction))} of the parameters)"
        for name, objective, fraction in facts
    }


def unit_words(store: xr.Dataset) -> str:
    """Return the unit of transfer in the plural: that of all targets, or that of each task where they differ."""
    units = set(names(store, "unit"))
    return f"{units.pop()}s" if len(units) == 1 else "in each task’s unit"


def p_words(p_value: float) -> str:
    """Return a p-value as a relation, such as `p = 0.03`."""
    if not np.isfinite(p_value):
        return "p –"
    return f"p < {SMALLEST_P}" if p_value < SMALLEST_P else f"p = {p_value:.2g}"


def p_number(p_value: float) -> str:
    """Return a p-value for a column that is headed by its name."""
    return p_words(p_value).removeprefix("p = ").removeprefix("p ")


def rounded(values: np.ndarray) -> list[Any]:
    """Return numbers in three decimals as nested lists, with None for what is not finite."""
    near = (np.round(np.asarray(values, dtype=float), PLACES) + 0.0).astype(object)
    near[~np.isfinite(values)] = None
    nested: list[Any] = near.tolist()
    return nested


def moments(store: xr.Dataset) -> list[str]:
    """Return each checkpoint with its tokens, in words."""
    pairs = zip(names(store, "checkpoint"), store["tokens_seen"].values.tolist(), strict=True)
    return [f"{html.escape(name)}, {short_count(tokens)} tokens" for name, tokens in pairs]


def draw_matrix(
    values: np.ndarray,
    rows: TaskOrder,
    columns: TaskOrder,
    title: str,
    axes: tuple[str, str],
    hover: str,
    scale: Sequence[Sequence[Any]],
    ends: tuple[float, float],
    extra: np.ndarray | None = None,
    marked: np.ndarray | None = None,
) -> Json:
    """Draw a matrix of tasks in the order of their groups, with lines between groups.

    Args:
        values: shape (row, column), in the order of the store; cells that are NaN are grey.
        rows: order of the tasks on the vertical axis, from the top.
        columns: order of those on the horizontal one.
        title: of the figure.
        axes: what the horizontal and the vertical axis show.
        hover: template of what is said of a cell.
        scale: colours.
        ends: values that have the first and the last colour.
        extra: numbers that the template names, shape (row, column, number).
        marked: cells that get an asterisk.
    """
    height = LABEL_PX + CELL_PX * len(rows.labels) if rows.many else MATRIX_HEIGHT_PX
    document = finished(go.Figure(), title, height)
    layout, font = document["layout"], {"size": 9 if rows.many else 11}
    axis = {"type": "category", "tickfont": font, "dtick": 1, "showgrid": False}
    layout["plot_bgcolor"] = GRID
    layout["shapes"] = [*(_boundary(end, "x") for end in columns.ends), *(_boundary(end, "y") for end in rows.ends)]
    layout["xaxis"] |= {**axis, "title": {"text": axes[0]}, "tickangle": -90}
    layout["yaxis"] |= {**axis, "title": {"text": axes[1], "standoff": 8}, "autorange": "reversed"}
    picked = np.ix_(rows.places, columns.places)
    numbers = {} if extra is None else {"customdata": rounded(extra[picked])}
    marks = np.zeros(values.shape, dtype=bool) if marked is None else marked
    trace = {
        "type": "heatmap",
        "x": _tick_names(columns),
        "y": _tick_names(rows),
        "z": rounded(values[picked]),
        "zmin": ends[0],
        "zmax": ends[1],
        "colorscale": scale,
        "colorbar": {"thickness": 10, "outlinewidth": 0},
        "xgap": 1,
        "ygap": 1,
        "hoverongaps": False,
        "hovertemplate": f"{hover}<extra></extra>",
        **numbers,
    }
    if marks.any() or not rows.many:
        texts = _cell_texts(values[picked], marks[picked], rows.many)
        trace |= {"text": texts, "texttemplate": "%{text}", "textfont": {"size": 10}}
    return {**document, "data": [trace]}  # as it is, since plotly's own checks take long over large matrices


def draw_course(
    store: xr.Dataset, lines: Sequence[Line], title: str, axis: str, bounds: Sequence[float] | None = None
) -> Json:
    """Draw lines over tokens seen, on a log axis; where a line has an interval, with bars."""
    tokens_seen = store["tokens_seen"].values
    x, texts = place_on_log(tokens_seen), moments(store)
    figure = go.Figure([_course_trace(line, x, texts) for line in lines])
    figure.update_xaxes(log_axis(tokens_seen))
    figure.update_xaxes(title_text="tokens seen (log scale)")
    figure.update_yaxes(title_text=axis, range=bounds, zeroline=True, zerolinecolor=GRID, zerolinewidth=2)
    return finished(figure, title, SMALL_HEIGHT_PX)


def largest(values: np.ndarray, least: float = 1e-3) -> float:
    """Return the largest size among finite values, as the end of a scale of colours."""
    finite = abs(values[np.isfinite(values)])
    return max(float(finite.max(initial=0)), least)


def off_diagonal(values: np.ndarray) -> np.ndarray:
    """Return the values of pairs of different tasks, the last two dims of which are tasks in one order: 1-d."""
    return values[..., ~np.eye(values.shape[-1], dtype=bool)].ravel()


def group_style(place: int) -> tuple[str, str, str]:
    """Return the colour, plotly's symbol and the same as a character of a hypothesised group."""
    symbols = (("circle", "●"), ("square", "■"), ("diamond", "◆"), ("triangle-up", "▲"))
    return (PALETTE[place % len(PALETTE)], *symbols[place % len(symbols)])


def _boundary(end: int, axis: str) -> Json:
    """Return a line after so many tasks, across the other axis."""
    across = "y" if axis == "x" else "x"
    ends = {f"{axis}0": end - 0.5, f"{axis}1": end - 0.5, f"{across}0": 0, f"{across}1": 1}
    references = {f"{axis}ref": axis, f"{across}ref": f"{across} domain"}
    return {"type": "line", "line": {"color": INK, "width": 1}, **ends, **references}


def _tick_names(order: TaskOrder) -> list[str]:
    return [html.escape(label) if order.many else wrapped(label) for label in order.labels]


def _cell_texts(values: np.ndarray, marked: np.ndarray, many: bool) -> list[list[str]]:
    def text(value: float, mark: bool) -> str:
        star = "*" if mark else ""
        if many or not np.isfinite(value):
            return star
        return f"{decimal(value)}{star}"

    return [
        [text(*cell) for cell in zip(*row, strict=True)] for row in zip(values.tolist(), marked.tolist(), strict=True)
    ]


def _course_trace(line: Line, x: np.ndarray, texts: Sequence[str]) -> go.Scatter:
    middle = line.values[0]
    filled = line.filled or [True] * len(middle)
    notes = line.notes or [""] * len(middle)
    bars = {}
    if len(line.values) > 1:
        low, high = line.values[1:]
        lengths = {"array": rounded(high - middle), "arrayminus": rounded(middle - low)}
        bars = {"error_y": {**lengths, "thickness": 1.2, "width": 0}}
    return go.Scatter(
        x=x.tolist(),
        y=rounded(middle),
        name=html.escape(line.name),
        mode="lines+markers",
        line={"color": line.colour, "dash": line.dash, "width": 2},
        marker={"size": 8, "symbol": ["circle" if holds else "circle-open" for holds in filled]},
        text=[f"{text}{note and f'<br>{note}'}" for text, note in zip(texts, notes, strict=True)],
        hovertemplate="%{y:.3f} at %{text}",
        **bars,
    )
