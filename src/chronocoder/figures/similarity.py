"""How similar the activations of checkpoints are, by each measure."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from chronocoder.figures.chart import INK, MANY_MARKS, MARKERS, WIDTH_IN, Chart, plain, styled
from chronocoder.figures.tokens import draw_token_axis, token_places
from chronocoder.stores import names

MEASURES = {"cosine": "Cosine", "pearson": "Pearson correlation", "linear_cka": "Linear CKA"}
MATRIX_WIDTH_IN, MATRIX_HEIGHT_IN, MOST_LABELS = 4.8, 4.2, 20
LEGEND_COLUMNS, LINE_IN = 3, 0.2
PAPER = "white"


@styled
def draw_similarity(values: xr.DataArray, comparisons: Mapping[str, Sequence[str]] | None = None) -> Chart:
    """Draw the similarity of every two checkpoints as a heat map.

    Args:
        values: by one measure at one site, dims (checkpoint, other_checkpoint); its name is that of the measure. NaN,
            left white, where the measure is undefined.
        comparisons: checkpoints by name of the comparison; marked where each of them meets the next.
    """
    values = values.transpose("checkpoint", "other_checkpoint")
    revisions, spans = names(values, "checkpoint"), comparisons or {}
    legend = LINE_IN * -(-len(spans) // LEGEND_COLUMNS)
    chart = Chart(_title(values), _pairs(values), _alt(values), MATRIX_WIDTH_IN, MATRIX_HEIGHT_IN + legend)
    axes = chart.subplots()
    low = float(np.nanmin(values.values))
    heat = axes.pcolormesh(
        values.values,
        vmin=low if low >= 0 else -1,
        vmax=1,
        edgecolors="face",
        linewidth=0.2,
        rasterized=values.size > MANY_MARKS,
    )
    _label_checkpoints(axes, revisions)
    for number, (name, checkpoints) in enumerate(spans.items()):
        _add_steps(axes, revisions, name, checkpoints, number)
    bar = chart.colorbar(heat, ax=axes, shrink=0.8)
    bar.set_label(MEASURES[str(values.name)])
    if spans:
        chart.legend(loc="outside lower left", ncols=LEGEND_COLUMNS)
    return chart


@styled
def draw_similarity_to_last(similarities: xr.Dataset) -> Chart:
    """Draw the similarity of each checkpoint to the last one over tokens seen, by each measure.

    Args:
        similarities: measures at one site, dims (checkpoint, other_checkpoint); those of `MEASURES` that it has.
    """
    last = similarities.isel(other_checkpoint=-1)
    measures = [name for name in MEASURES if name in last]
    tokens_seen, checkpoints = last["tokens_seen"].values, names(last, "checkpoint")
    data = pd.DataFrame(
        {"checkpoint": checkpoints, "tokens_seen": tokens_seen, **{name: last[name].values for name in measures}}
    )
    first = ", ".join(f"{MEASURES[name]} {float(last[name][0]):.2f}" for name in measures)
    alt = f"A line for each measure over tokens seen, which ends at one; at the first checkpoint: {first}."
    chart = Chart(f"Similarity to the last checkpoint{_where(last)}", data, alt, WIDTH_IN, 3.4)
    axes = chart.subplots()
    for name in measures:
        axes.plot(token_places(tokens_seen), last[name].values, label=MEASURES[name])
    draw_token_axis(axes, tokens_seen)
    axes.set_ylabel(f"similarity to {plain(checkpoints[-1])}")
    chart.legend(loc="outside lower left", ncols=LEGEND_COLUMNS)
    return chart


def _title(values: xr.DataArray) -> str:
    return f"{MEASURES[str(values.name)]} of activations{_where(values)}"


def _where(values: xr.DataArray | xr.Dataset) -> str:
    return f" at {values['site'].item()}" if "site" in values.coords else ""


def _pairs(values: xr.DataArray) -> pd.DataFrame:
    """Return a row for each pair of checkpoints."""
    count, revisions = values.sizes["checkpoint"], np.array(names(values, "checkpoint"))
    return pd.DataFrame(
        {
            "checkpoint": np.repeat(revisions, count),
            "other_checkpoint": np.tile(revisions, count),
            str(values.name): values.values.ravel(),
        }
    )


def _alt(values: xr.DataArray) -> str:
    """Return what the heat map shows: its range, and between which neighbours most changes."""
    revisions, measure = names(values, "checkpoint"), MEASURES[str(values.name)]
    text = f"Heat map of {len(revisions)} by {len(revisions)} checkpoints"
    steps = np.diagonal(values.values, 1)
    if not np.isfinite(steps).any():
        return f"{text}."
    least = int(np.nanargmin(steps))
    lowest = float(np.nanmin(values.values))
    return (
        f"{text}. {measure}: the lowest of any two is {lowest:.2f}; of neighbours, {revisions[least]} and"
        f" {revisions[least + 1]} differ most ({steps[least]:.2f})."
    )


def _label_checkpoints(axes: Axes, revisions: Sequence[str]) -> None:
    """Name checkpoints on both axes; of many, some that are spread evenly."""
    count = len(revisions)
    shown = np.unique(np.linspace(0, count - 1, min(count, MOST_LABELS)).round().astype(int))
    labels = [plain(revisions[place]) for place in shown]
    axes.set_xticks(shown + 0.5, labels, rotation=90, fontsize=8)
    axes.set_yticks(shown + 0.5, labels, fontsize=8)
    axes.set(xlabel="checkpoint", ylabel="checkpoint", aspect="equal")
    axes.grid(visible=False)


def _add_steps(axes: Axes, revisions: Sequence[str], name: str, checkpoints: Sequence[str], number: int) -> None:
    """Mark each checkpoint of a comparison against the next; markers go round, then grow."""
    turn, place = divmod(number, len(MARKERS))
    steps = [(revisions.index(later), revisions.index(earlier)) for earlier, later in pairwise(checkpoints)]
    x, y = np.array(steps).T + 0.5
    axes.plot(
        x,
        y,
        linestyle="",
        marker=MARKERS[place],
        markersize=6 + 2 * turn,
        markerfacecolor=PAPER,
        markeredgecolor=INK,
        label=plain(name),
    )
