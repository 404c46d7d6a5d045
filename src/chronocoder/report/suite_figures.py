"""Figures of a suite's representations and of its crosscoders' training, as JSON that plotly.js draws.

A selection of figures is a dict from the label of a choice to the figures drawn side by side for it.
"""

import html
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from chronocoder.report.inputs import Run, names
from chronocoder.report.style import INK, PALETTE, PAPER, Json, finished, short
from chronocoder.report.text import short_count

DASHES = ("solid", "dash", "dot", "dashdot")
MARKS = ("square", "circle", "diamond", "triangle-up", "star", "hexagon")
ZERO_GAP = 4
FEW_DECADES = 3.5
MEASURES = {"cosine": "Cosine", "pearson": "Pearson correlation", "linear_cka": "Linear CKA"}
METRICS = {
    "explained_variance": "Explained variance of the batch",
    "l0": "Active latents a token (L0)",
    "dead_fraction": "Dead latents (fraction of all)",
    "loss": "Training loss",
}
LOG_METRICS = ("l0", "loss")


def place_on_log(tokens_seen: np.ndarray) -> np.ndarray:
    """Return places on a log axis: the counts themselves, with zero a fixed factor left of the smallest one above."""
    positive = tokens_seen[tokens_seen > 0]
    left = float(positive.min()) / ZERO_GAP if len(positive) else 1.0
    return np.where(tokens_seen > 0, tokens_seen, left).astype(float)


def log_axis(tokens_seen: np.ndarray) -> Json:
    """Return a log axis for the places of `place_on_log`, with zero labelled as what it is."""
    places = place_on_log(tokens_seen)
    low, high = np.log10([places.min(), places.max()]).tolist()
    steps = (1, 3) if high - low < FEW_DECADES else (1,)
    decades = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    ticks = {float(step * 10**decade): short_count(step * 10**decade) for decade in decades for step in steps}
    smallest = tokens_seen[tokens_seen > 0].min(initial=10**high)
    ticks = {place: text for place, text in ticks.items() if smallest <= place <= 10**high}
    if (tokens_seen == 0).any():
        ticks[10**low] = "0"
    return {
        "type": "log",
        "range": [low - 0.1, high + 0.1],
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
    }


def draw_similarities(similarity: xr.Dataset, comparisons: Mapping[str, Sequence[str]]) -> dict[str, list[Json]]:
    """Return a heat map for each measure at each site, with the steps of the comparisons marked."""
    sites = names(similarity, "site")
    return {
        title if len(sites) == 1 else f"{title}, {site}": [
            _similarity_map(similarity[name].sel(site=site), f"{title} of activations at {site}", comparisons)
        ]
        for site in sites
        for name, title in MEASURES.items()
        if name in similarity
    }


def draw_trainings(runs: Sequence[Run]) -> dict[str, list[Json]]:
    """Return one figure for each training metric, with a line for each run."""
    return {title: [_training_figure(runs, name, title)] for name, title in METRICS.items()}


def _similarity_map(values: xr.DataArray, title: str, comparisons: Mapping[str, Sequence[str]]) -> Json:
    revisions = [html.escape(str(revision)) for revision in values["checkpoint"].values]
    heat = go.Heatmap(
        x=revisions,
        y=revisions,
        z=short(values.values),
        colorscale="Cividis",
        colorbar={"thickness": 12},
        hovertemplate="%{x} and %{y}: %{z:.3f}<extra></extra>",
    )
    figure = go.Figure(heat)
    for number, (name, checkpoints) in enumerate(comparisons.items()):
        figure.add_trace(_step_marks(name, checkpoints, MARKS[number % len(MARKS)], 11 + 2 * (number // len(MARKS))))
    figure.update_xaxes(title_text="checkpoint", type="category", showgrid=False)
    figure.update_yaxes(title_text="checkpoint", type="category", showgrid=False)
    return finished(figure, title, 540)


def _step_marks(name: str, checkpoints: Sequence[str], symbol: str, size: int) -> go.Scatter:
    steps = list(pairwise(html.escape(checkpoint) for checkpoint in checkpoints))
    return go.Scatter(
        x=[later for _, later in steps],
        y=[earlier for earlier, _ in steps],
        mode="markers",
        name=html.escape(name),
        marker={"symbol": symbol, "size": size, "color": PAPER, "line": {"width": 2, "color": INK}},
        hovertemplate="%{y} to %{x}",
    )


def _training_figure(runs: Sequence[Run], metric: str, title: str) -> Json:
    comparisons = list(dict.fromkeys(run.key.comparison for run in runs))
    variants = list(dict.fromkeys(run.key.variant for run in runs))
    figure = go.Figure()
    for run in runs:
        colour = PALETTE[comparisons.index(run.key.comparison) % len(PALETTE)]
        figure.add_trace(_training_line(run, metric, colour, DASHES[variants.index(run.key.variant) % len(DASHES)]))
    figure.update_xaxes(title_text="training step")
    bounds = [0, 1.02] if metric == "explained_variance" else None
    figure.update_yaxes(title_text=title, type="log" if metric in LOG_METRICS else "linear", range=bounds)
    return finished(figure, f"{title}, by training step", 420)


def _training_line(run: Run, metric: str, colour: str, dash: str) -> go.Scatter:
    values = run.training[metric]
    return go.Scatter(
        x=run.training["step"].values.tolist(),
        y=short(values.mean([dim for dim in values.dims if dim != "step"]).values),
        name=html.escape(run.key.label),
        mode="lines",
        line={"color": colour, "dash": dash, "width": 1.6},
    )
