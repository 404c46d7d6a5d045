"""Lines over checkpoints: one manner of intervals, bands, open markers and legends for all of them."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chronocoder.figures.chart import INK, LINES, MARKERS, PALETTE, Chart, plain
from chronocoder.figures.tokens import draw_token_axis, token_places
from chronocoder.stores import names
from chronocoder.wording import decimal, short_count

ROOM, PANEL_ROOM = 68, 30
"""Characters that there is room for below a figure, and below a panel of half its width."""
LEGEND_CHARACTERS = 80
BAND_ALPHA = 0.15


class Line(NamedTuple):
    """A line over checkpoints.

    Attributes:
        name: in the legend.
        values: by checkpoint; NaN where not known.
        style: place of its colour, its dashes and its markers among those of all figures.
        low: lower end of its interval by checkpoint.
        high: upper end.
        filled: whether each marker is filled; all where None.
        facts: more columns of the data, by checkpoint.
        band: whether the interval is a band instead of bars.
    """

    name: str
    values: np.ndarray
    style: int
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    filled: np.ndarray | None = None
    facts: Mapping[str, np.ndarray] = MappingProxyType({})
    band: bool = False


def draw_course(
    store: xr.Dataset,
    lines: Sequence[Line],
    title: str,
    label: str,
    bounds: tuple[float, float] | None = None,
    base: float = 0.0,
) -> Chart:
    """Draw lines over tokens seen, on a log axis.

    Args:
        store: names the checkpoints and the tokens seen.
        lines: what is drawn.
        title: of the figure.
        label: of the vertical axis.
        bounds: of the vertical axis; where None, it shows all lines and the base.
        base: the value of no effect, which has a line of its own.
    """
    tokens_seen = store["tokens_seen"].values
    chart = Chart(title, line_data(store, lines), course_words(store, lines))
    axes = chart.subplots()
    for line in lines:
        draw_line(axes, token_places(tokens_seen), line)
    draw_token_axis(axes, tokens_seen)
    axes.set_ylabel(label)
    if bounds is None:
        axes.axhline(base, color=INK, linestyle="-", marker="", linewidth=0.8, zorder=1)
    else:
        axes.set_ylim(*bounds)
    add_legend(chart, axes)
    return chart


def draw_line(axes: Axes, x: np.ndarray, line: Line) -> None:
    """Draw a line with its interval."""
    colour, marker, dashes = (of[line.style % len(of)] for of in (PALETTE, MARKERS, LINES))
    if line.low is not None and line.high is not None:
        if line.band:
            axes.fill_between(x, line.low, line.high, color=colour, alpha=BAND_ALPHA, linewidth=0)
        else:
            axes.vlines(x, line.low, line.high, color=colour, linewidth=1.2)
    axes.plot(x, line.values, color=colour, linestyle=dashes, marker=marker, label=plain(line.name))
    if line.filled is not None:
        is_open = ~line.filled
        axes.plot(
            x[is_open],
            line.values[is_open],
            color=colour,
            linestyle="none",
            marker=marker,
            markerfacecolor="white",
            zorder=3,
        )


def draw_checkpoint_axis(axes: Axes, store: xr.Dataset, room: int = ROOM) -> np.ndarray:
    """Name each checkpoint with its tokens on the horizontal axis, and return their places.

    Args:
        axes: to be labelled.
        store: names the checkpoints and the tokens seen.
        room: characters of labels that there is room for; where they have more, they are turned.
    """
    tokens = [short_count(count) for count in store["tokens_seen"].values.tolist()]
    labels = [f"{plain(name)}\n{count}" for name, count in zip(names(store, "checkpoint"), tokens, strict=True)]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    turned = (longest + 2) * len(labels) > room
    places = np.arange(len(labels))
    axes.set_xticks(places, labels=labels, rotation=90 * turned, fontsize=9 if room == ROOM else 8)
    axes.set_xlim(-0.4, len(labels) - 0.6)
    return places


def add_legend(chart: Figure, axes: Axes) -> None:
    """Put a legend below the figure, in as many columns as there is room for; none where one thing is shown."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        columns = max(1, LEGEND_CHARACTERS // (max(map(len, labels)) + 6))
        chart.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), handlelength=3)


def line_data(store: xr.Dataset, lines: Sequence[Line]) -> pd.DataFrame:
    """Return the numbers of lines: a row for each line and checkpoint."""
    moments = {"checkpoint": names(store, "checkpoint"), "tokens_seen": store["tokens_seen"].values.tolist()}
    return pd.concat([_rows(moments, line) for line in lines], ignore_index=True)


def course_words(store: xr.Dataset, lines: Sequence[Line]) -> str:
    """Return where each line begins and ends, in a sentence."""
    parts = [_line_words(line) for line in lines]
    first, last = (names(store, "checkpoint")[place] for place in (0, -1))
    return f"From {first} to {last}: {'; '.join(parts)}."


def _rows(moments: Mapping[str, Sequence[object]], line: Line) -> pd.DataFrame:
    ends = {name: of for name, of in (("low", line.low), ("high", line.high)) if of is not None}
    return pd.DataFrame({"line": line.name, **moments, "value": line.values, **ends, **line.facts})


def _line_words(line: Line) -> str:
    known = line.values[np.isfinite(line.values)]
    if not len(known):
        return f"{line.name} is not known"
    ends = [decimal(float(known[place])) for place in (0, -1)]
    return f"{line.name} {' to '.join(ends[: len(known)])}"
