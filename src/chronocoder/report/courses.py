"""The courses of features over three or more checkpoints, in clusters."""

import html

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from chronocoder.report.feature_figures import thresholds
from chronocoder.report.inputs import names
from chronocoder.report.style import INK, PALETTE, Json, finished, short

DECIDED = ("emerged", "maintained", "discontinued", "transient", "intermittent")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "star", "cross", "x", "hexagon")


def draw_courses(relie: xr.Dataset) -> list[Json]:
    """Return the mean share of each cluster's features by checkpoint; no figure of a pair, which has no clusters."""
    if "cluster_trajectory" not in relie:
        return []
    trajectories = relie["cluster_trajectory"].transpose("cluster", "checkpoint").values
    sizes = relie["cluster_size"].values.tolist()
    checkpoints = [html.escape(name) for name in names(relie, "checkpoint")]
    figure = go.Figure(
        [
            _course(number, size, checkpoints, shares)
            for number, (size, shares) in enumerate(zip(sizes, trajectories, strict=True))
        ]
    )
    (present,) = thresholds(len(checkpoints))
    figure.add_hline(present, line={"color": INK, "dash": "dot", "width": 1})
    figure.update_xaxes(type="category", title_text="checkpoint")
    figure.update_yaxes(range=[-0.02, 1.02], title_text="RelIE, mean of the cluster")
    return [finished(figure, "Share of |IE| over training, by cluster", 420)]


def course_counts(relie: xr.Dataset) -> list[list[int]]:
    """Return for each cluster its size, and how many of its feature–task pairs are of each class in `DECIDED`."""
    if "cluster_size" not in relie:
        return []
    cluster = relie["trajectory_cluster"].transpose("task", "feature").values
    classes = relie["feature_class"].transpose("task", "feature").values
    return [
        [int(size), *(int(((cluster == number) & (classes == name)).sum()) for name in DECIDED)]
        for number, size in enumerate(relie["cluster_size"].values)
    ]


def _course(number: int, size: int, checkpoints: list[str], shares: np.ndarray) -> go.Scatter:
    return go.Scatter(
        x=checkpoints,
        y=short(shares),
        name=f"{number + 1} ({size} feature–task pairs)",
        mode="lines+markers",
        line={"color": PALETTE[number % len(PALETTE)], "width": 2.2},
        marker={"size": 8, "symbol": SYMBOLS[number % len(SYMBOLS)]},
        hovertemplate="%{x}: %{y:.2f}",
    )
