"""Effects and shares of features over any number of checkpoints."""

import math

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from chronocoder.figures.chart import GRID, INK, LINES, MARKERS, PALETTE, QUIET, Chart, styled
from chronocoder.figures.pairs import set_checkpoints, thresholds
from chronocoder.stores import names
from chronocoder.wording import counted, in_words, listed, plural, sentence, signed

SHOWN = 8
DODGE = 0.1
"""How far features stand apart at a checkpoint, of the distance between checkpoints."""
PANELS_A_ROW = 3
PANEL_ROOM = 20
PANEL_IN = (2.6, 2.3)
QUARTILES = (0.25, 0.75)


@styled
def draw_largest(relie: xr.Dataset, task: str, count: int = SHOWN) -> Chart:
    """Draw the IE of the features of largest effect on a task at every checkpoint, with intervals.

    The grey band is what random directions that write as much as any of these features stay within.

    Args:
        relie: effects, dims (task, checkpoint, feature).
        task: name of the task.
        count: how many features, among those with a measurable effect at some checkpoint.
    """
    of_task = relie.sel(task=task)
    features, unit = largest_features(of_task, count), plural(str(of_task["unit"].values))
    shown = of_task.sel(feature=features)
    table = _effect_table(shown, unit)
    chart = Chart("Features of largest effect", table, _largest_alt(shown, unit), width_in=7.6)
    axes = chart.subplots()
    _shade_level(axes, shown)
    offsets = np.linspace(-DODGE, DODGE, len(features)) if len(features) > 1 else np.zeros(1)
    for number, (feature, offset) in enumerate(zip(features, offsets, strict=False)):
        own = shown.sel(feature=feature)
        effect, low, high = (own[f"indirect_effect{end}"].values for end in ("", "_low", "_high"))
        colour, marker, dashes = (of[number % len(of)] for of in (PALETTE, MARKERS, LINES))
        places, label = np.arange(len(effect)) + offset, f"{feature} ({own['feature_class'].values})"
        axes.plot(places, effect, color=colour, marker=marker, linestyle=dashes, label=label)
        axes.vlines(places, low, high, color=colour, linewidth=1)
    axes.axhline(0, color=INK, linestyle="-", marker="", linewidth=0.8)
    axes.set(xlabel="checkpoint", ylabel=f"IE ({unit})")
    set_checkpoints(axes, names(relie, "checkpoint"))
    if features:
        axes.legend(title="feature (class)", loc="center left", bbox_to_anchor=(1.01, 0.5))
    return chart


def largest_features(of_task: xr.Dataset, count: int = SHOWN) -> list[int]:
    """Return the features of largest |IE| at any checkpoint, among those with a measurable effect; largest first.

    Args:
        of_task: effects on one task, dims (checkpoint, feature).
        count: how many at most.
    """
    size = abs(of_task["indirect_effect"]).max("checkpoint").where(of_task["measurable"].any("checkpoint"), 0.0).values
    order = np.argsort(-size, kind="stable")[:count]
    return [int(feature) for feature in of_task["feature"].values[order[size[order] > 0]]]


@styled
def draw_clusters(relie: xr.Dataset) -> Chart:
    """Draw the mean RelIE of each cluster of trajectories, with the middle half of its feature–task pairs.

    Above the dotted line a feature is present.

    Args:
        relie: effects, dims (task, checkpoint, feature), with clusters: of three or more checkpoints.
    """
    table, checkpoints = cluster_table(relie), names(relie, "checkpoint")
    numbers = sorted(set(table["cluster"]))
    columns = min(PANELS_A_ROW, max(len(numbers), 1))
    rows = max(math.ceil(len(numbers) / columns), 1)
    width, height = PANEL_IN
    chart = Chart(
        "RelIE over training, by cluster",
        table,
        _cluster_alt(table, checkpoints),
        width_in=columns * width + 0.4,
        height_in=rows * height + 0.4,
    )
    panels = chart.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for number, axes in zip(numbers, panels, strict=False):
        _draw_cluster(axes, table[table["cluster"] == number], checkpoints)
    for axes in panels[len(numbers) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel("RelIE")
    return chart


def cluster_table(relie: xr.Dataset) -> pd.DataFrame:
    """Return mean and quartiles of published RelIE by cluster, numbered from one, and checkpoint."""
    clusters = relie["trajectory_cluster"].transpose("task", "feature").values
    shares = relie["relative_indirect_effect"].transpose("task", "feature", "checkpoint").values
    means = relie["cluster_trajectory"].transpose("cluster", "checkpoint").values
    rows = []
    for number, size in enumerate(relie["cluster_size"].values):
        lower, upper = np.nanquantile(shares[clusters == number], QUARTILES, axis=0)
        for place, checkpoint in enumerate(relie["checkpoint"].values):
            rows.append((number + 1, int(size), str(checkpoint), means[number, place], lower[place], upper[place]))
    columns = ["cluster", "pairs", "checkpoint", "relie", "relie_lower_quartile", "relie_upper_quartile"]
    return pd.DataFrame(rows, columns=columns)


def _draw_cluster(axes: Axes, own: pd.DataFrame, checkpoints: list[str]) -> None:
    places = np.arange(len(checkpoints))
    axes.fill_between(
        places, own["relie_lower_quartile"], own["relie_upper_quartile"], color=PALETTE[4], alpha=0.35, linewidth=0
    )
    axes.plot(places, own["relie"], color=PALETTE[0], marker="o", linestyle="-")
    (present,) = thresholds(len(checkpoints))
    axes.axhline(present, color=QUIET, linestyle=":", marker="", linewidth=1.2)
    axes.set(xlim=(-0.35, len(checkpoints) - 0.65), ylim=(-0.03, 1.03))
    axes.set_title(f"Cluster {own['cluster'].iloc[0]} ({counted(own['pairs'].iloc[0], 'pair')})")
    set_checkpoints(axes, checkpoints, PANEL_ROOM)


def _shade_level(axes: Axes, shown: xr.Dataset) -> None:
    level = shown["random_level"].fillna(0).transpose("checkpoint", "feature").values.max(axis=1, initial=0)
    axes.fill_between(np.arange(len(level)), -level, level, color=GRID, linewidth=0, zorder=0)


def _effect_table(shown: xr.Dataset, unit: str) -> pd.DataFrame:
    ordered = shown.transpose("feature", "checkpoint", ...)
    count = shown.sizes["checkpoint"]
    return pd.DataFrame(
        {
            "task": str(shown["task"].values),
            "feature": np.repeat(shown["feature"].values, count),
            "class": np.repeat(shown["feature_class"].values, count).tolist(),
            "checkpoint": names(shown, "checkpoint") * shown.sizes["feature"],
            "tokens_seen": np.tile(shown["tokens_seen"].values, shown.sizes["feature"]),
            "unit": unit,
            "indirect_effect": ordered["indirect_effect"].values.ravel(),
            "indirect_effect_low": ordered["indirect_effect_low"].values.ravel(),
            "indirect_effect_high": ordered["indirect_effect_high"].values.ravel(),
            "random_level": ordered["random_level"].values.ravel(),
            "measurable": ordered["measurable"].values.ravel(),
            "relie": ordered["relative_indirect_effect"].values.ravel(),
        }
    )


def _largest_alt(shown: xr.Dataset, unit: str) -> str:
    first, last = (names(shown, "checkpoint")[place] for place in (0, -1))
    ends = shown["indirect_effect"].isel(checkpoint=[0, -1]).transpose("feature", "checkpoint").values.tolist()
    parts = [
        f"feature {feature}, {name}, from {signed(begin)} to {signed(end)}"
        for feature, name, (begin, end) in zip(
            shown["feature"].values, shown["feature_class"].values, ends, strict=True
        )
    ]
    task = in_words(str(shown["task"].values))
    return f"{sentence(task)}: lines of IE in {unit} with intervals, {first} to {last}: {'; '.join(parts) or 'none'}."


def _cluster_alt(table: pd.DataFrame, checkpoints: list[str]) -> str:
    parts = []
    for number, own in table.groupby("cluster"):
        largest = own["checkpoint"].iloc[int(own["relie"].argmax())]
        parts.append(f"cluster {number} ({counted(own['pairs'].iloc[0], 'pair')}) is largest at {largest}")
    return f"A panel for each cluster, over {listed(checkpoints)}. {sentence('; '.join(parts))}."
