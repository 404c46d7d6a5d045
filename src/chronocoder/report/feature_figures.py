"""Figures of how effects are spread over training, as JSON that plotly.js draws."""

import html

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from chronocoder.attribution.measures import PRESENT_SHARE
from chronocoder.report.data import measurable
from chronocoder.report.inputs import Run, names
from chronocoder.report.style import PALETTE, Json, finished, short, wrapped
from chronocoder.report.tasks import MANY_TASKS, finest_groups
from chronocoder.report.text import counted, in_words

BINS = 20
BLUES = ((0, "#F7F9FB"), (0.1, "#BBD7EC"), (0.35, "#5FA3D4"), (1, "#0B2E4F"))


def draw_shares(run: Run) -> list[Json]:
    """Return how the summed |IE| is spread over RelIE, one figure a checkpoint; of a pair only the later one.

    Only features are counted that have a measurable effect at some checkpoint. Of many tasks, means of their groups
    are drawn, of the kind that has most of them.
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


def spread_rows(relie: xr.Dataset, checkpoint: str) -> dict[str, np.ndarray]:
    """Return the fractions of the summed |IE| by bin of RelIE, by task, or by group where there are many tasks."""
    of_tasks = _parts(share_spread(relie, checkpoint))
    groups = finest_groups(relie)
    if len(of_tasks) <= MANY_TASKS or not groups:
        return dict(zip(names(relie, "task"), of_tasks, strict=True))
    labels = [f"{group.name} ({counted(len(group.tasks), 'task')})" for group in groups]
    of_groups = _parts(np.stack([of_tasks[group.tasks].sum(axis=0) for group in groups]))
    return dict(zip(labels, of_groups, strict=True))


def thresholds(checkpoints: int) -> list[float]:
    """Return the shares at which classes change: for a pair both ends, else the one that means present."""
    present = PRESENT_SHARE / checkpoints
    return [present, 1 - present] if checkpoints == 2 else [present]


def _parts(amounts: np.ndarray) -> np.ndarray:
    """Return each row as fractions of its sum; zeros where that is zero."""
    parts: np.ndarray = amounts / np.maximum(amounts.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return parts


def _share_map(relie: xr.Dataset, checkpoint: str) -> Json:
    rows = spread_rows(relie, checkpoint)
    edges = np.linspace(0, 1, BINS + 1)
    heat = go.Heatmap(
        x=short((edges[:-1] + edges[1:]) / 2),
        y=[wrapped(in_words(name)) for name in rows],
        z=short(100 * np.stack(list(rows.values()))),
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
    return finished(figure, f"Where |IE| lies by published RelIE at {checkpoint}", 130 + 34 * len(rows))
