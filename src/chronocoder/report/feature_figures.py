"""Figures of how effects are spread over training, as JSON that plotly.js draws."""

import html

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from chronocoder.attribution.measures import PRESENT_SHARE
from chronocoder.report.data import measurable
from chronocoder.report.inputs import Run, names
from chronocoder.report.style import PALETTE, Json, finished, short, wrapped
from chronocoder.report.text import in_words

BINS = 20
BLUES = ((0, "#F7F9FB"), (0.1, "#BBD7EC"), (0.35, "#5FA3D4"), (1, "#0B2E4F"))


def draw_shares(run: Run) -> list[Json]:
    """Return how the summed |IE| is spread over RelIE, one figure a checkpoint; of a pair only the later one.

    Only features are counted that have a measurable effect at some checkpoint.
    """
    shown = run.checkpoints if len(run.checkpoints) > 2 else run.checkpoints[-1:]
    return [_share_map(run.relie, checkpoint) for checkpoint in shown]


def share_spread(relie: xr.Dataset, checkpoint: str) -> np.ndarray:
    """Return the summed |IE| of measurable features by task and bin of RelIE at a checkpoint, shape (task, bin)."""
    size = abs(relie["indirect_effect"]).sum("checkpoint").where(measurable(relie), 0.0)
    weight = size.transpose("task", "feature").values
    share = relie["relative_indirect_effect"].sel(checkpoint=checkpoint).transpose("task", "feature").values
    rows = zip(np.nan_to_num(share), weight, strict=True)
    return np.stack([np.histogram(row, BINS, (0, 1), weights=of_task)[0] for row, of_task in rows])


def thresholds(checkpoints: int) -> list[float]:
    """Return the shares at which classes change: for a pair both ends, else the one that means present."""
    present = PRESENT_SHARE / checkpoints
    return [present, 1 - present] if checkpoints == 2 else [present]


def _share_map(relie: xr.Dataset, checkpoint: str) -> Json:
    tasks, spread = names(relie, "task"), share_spread(relie, checkpoint)
    total = np.maximum(spread.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    edges = np.linspace(0, 1, BINS + 1)
    heat = go.Heatmap(
        x=short((edges[:-1] + edges[1:]) / 2),
        y=[wrapped(in_words(task)) for task in tasks],
        z=short(100 * spread / total),
        colorscale=BLUES,
        zmin=0,
        zmax=100,
        colorbar={"ticksuffix": " %", "thickness": 10},
        hovertemplate="published RelIE about %{x:.2f}: %{z:.1f} % of |IE|<extra>%{y}</extra>",
        xgap=1,
        ygap=3,
    )
    figure = go.Figure(heat)
    for place in thresholds(relie.sizes["checkpoint"]):
        figure.add_vline(place, line={"color": PALETTE[1], "width": 1.5, "dash": "dash"})
    figure.update_xaxes(title_text=f"published RelIE at {html.escape(checkpoint)}", range=[0, 1], showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return finished(figure, f"Where |IE| lies by published RelIE at {checkpoint}", 130 + 34 * len(tasks))
