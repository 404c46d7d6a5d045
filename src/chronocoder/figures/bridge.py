"""Whether transfer between tasks goes with the features that they share, and what is left of it without them."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from chronocoder.figures.chart import INK, MANY_MARKS, MARKERS, PALETTE, Chart, styled
from chronocoder.figures.lines import add_legend
from chronocoder.figures.order import same_group
from chronocoder.figures.tidy import tidy
from chronocoder.figures.transfer import unit_words
from chronocoder.wording import counted, decimal, p_words, sentence

VARIABLES = {"overlap": "feature_overlap", "cosine": "feature_cosine"}
AXES = {"overlap": "fraction of top features in common", "cosine": "cosine of effects over all features"}
WITHIN, BETWEEN = "two tasks of one group", "tasks of different groups"
LEFT = ("transfer_intact", "transfer_without_shared", "transfer_without_others", "shared_features")
MARKER_PT = 5


@styled
def draw_transfer_by_features(bridge: xr.Dataset, measure: str, checkpoint: str) -> Chart:
    """Draw transfer against how alike the features of two tasks are, a point for each ordered pair of tasks.

    Args:
        bridge: transfer and features, dims (checkpoint, source, target).
        measure: `overlap` of the top features or `cosine` of all effects.
        checkpoint: its name.
    """
    at = bridge.sel(checkpoint=checkpoint)
    pairs = same_group(at, "target", "source_group", "group")
    x, y = (at[name].transpose("source", "target").values for name in (VARIABLES[measure], "transfer"))
    rho, p_value = (float(at[name].sel(measure=measure)) for name in ("correlation", "correlation_p"))
    found = f"ρ = {decimal(rho)}, {p_words(p_value)}"
    columns = {name: name for name in (VARIABLES[measure], "transfer", "overlap_chance")}
    chart = Chart(
        f"{sentence(measure)} of features and transfer at {checkpoint}: {found}",
        _of_different(tidy(at, columns, ("source", "target"))),
        f"A point for each ordered pair of tasks: transfer against {AXES[measure]}. Spearman’s {found}.",
    )
    axes = chart.subplots()
    for place, (label, of) in enumerate(zip((WITHIN, BETWEEN), pairs, strict=True)):
        _scatter(axes, x[of], y[of], label, place)
    if measure == "overlap":
        level = float(at["overlap_chance"].transpose("source", "target").values[pairs.any(axis=0)].mean())
        axes.axvline(level, color=INK, linestyle=":", marker="", linewidth=1.2, label="overlap by chance")
    axes.axhline(0, color=INK, linestyle="-", marker="", linewidth=0.8, zorder=1)
    axes.set(xlabel=AXES[measure], ylabel=f"transfer ({unit_words(at)})")
    add_legend(chart, axes)
    return chart


@styled
def draw_removal(bridge: xr.Dataset, checkpoint: str) -> Chart:
    """Draw what is left of transfer without shared features, and without as many others, at one checkpoint."""
    at = bridge.sel(checkpoint=checkpoint)
    value = {name: at[name].transpose("source", "target").values for name in LEFT}
    different = same_group(at, "target", "source_group", "group").any(axis=0)
    known = different & np.isfinite([value[name] for name in LEFT]).all(axis=0) & (value["shared_features"] > 0)
    data = tidy(at, {name: name for name in LEFT}, ("source", "target"))
    chart = Chart(
        f"What is left of transfer without features at {checkpoint}", data[known.ravel()], _removal_words(at, known)
    )
    axes = chart.subplots()
    intact = value["transfer_intact"][known]
    _scatter(axes, intact, value["transfer_without_others"][known], "without as many others", 8)
    _scatter(axes, intact, value["transfer_without_shared"][known], "without shared features", 1)
    ends = [min(0.0, float(intact.min(initial=0))), float(intact.max(initial=0))]
    axes.plot(ends, ends, color=INK, linestyle=":", marker="", linewidth=1.2, label="unchanged")
    axes.axhline(0, color=INK, linestyle="-", marker="", linewidth=0.8, zorder=1)
    axes.set(xlabel=f"transfer with all features ({unit_words(at)})", ylabel="transfer without some features")
    add_legend(chart, axes)
    return chart


def _scatter(axes: Axes, x: np.ndarray, y: np.ndarray, label: str, style: int) -> None:
    axes.plot(
        x,
        y,
        color=PALETTE[style],
        marker=MARKERS[style],
        markersize=MARKER_PT,
        linestyle="none",
        alpha=0.8,
        label=label,
        rasterized=x.size > MANY_MARKS,
    )


def _of_different(data: pd.DataFrame) -> pd.DataFrame:
    return data[data["source"] != data["target"]]


def _removal_words(at: xr.Dataset, known: np.ndarray) -> str:
    """Return in words what is left of transfer on average."""
    if not known.any():
        return "No point: no two tasks share features whose removal was measured."
    intact, shared, others = (
        decimal(float(at[name].transpose("source", "target").values[known].mean())) for name in LEFT[:3]
    )
    return (
        f"Points for {counted(int(known.sum()), 'ordered pair')} of tasks. On average, transfer is {intact} with all"
        f" features, {shared} without the shared ones, and {others} without as many others."
    )
