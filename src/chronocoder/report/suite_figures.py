"""Figures of a suite and of its crosscoders' training, as JSON that plotly.js draws.

A selection of figures is a dict from the label of a choice to the figures drawn side by side for it.
"""

import html
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from chronocoder.report.inputs import Run, names
from chronocoder.report.phases import CHANCE
from chronocoder.report.style import INK, PALETTE, PAPER, Json, finished, short, wrapped
from chronocoder.report.text import in_words, short_count

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


def draw_ability(behaviour: xr.Dataset, comparisons: Mapping[str, Sequence[str]], emphasised: Sequence[str]) -> Json:
    """Return accuracy over tokens seen, with the checkpoints of each comparison below.

    Args:
        behaviour: accuracy with its interval, dims (task, checkpoint).
        comparisons: checkpoints by name of the comparison.
        emphasised: tasks to draw with heavier lines; all, if there are none.
    """
    below = min(0.5, 0.04 + 0.035 * len(comparisons))
    figure = make_subplots(rows=2, shared_xaxes=True, vertical_spacing=0.04, row_heights=[1 - below, below])
    tokens_seen = behaviour["tokens_seen"].values
    x = place_on_log(tokens_seen)
    for number, task in enumerate(names(behaviour, "task")):
        scores, heavy = behaviour.sel(task=task), not emphasised or task in emphasised
        colour = PALETTE[number % len(PALETTE)]
        figure.add_traces([_accuracy_band(scores, x, colour, heavy), _accuracy_line(scores, x, colour, heavy)], 1, 1)
    places = dict(zip(names(behaviour, "checkpoint"), x.tolist(), strict=True))
    for name, checkpoints in comparisons.items():
        figure.add_trace(_comparison_trace(name, checkpoints, places), 2, 1)
    _add_chance(figure)
    figure.update_xaxes(log_axis(tokens_seen))
    zero = "; 0 at the left edge" if (tokens_seen == 0).any() else ""
    figure.update_xaxes(title_text=f"tokens seen (log scale{zero})", row=2)
    figure.update_yaxes(title_text="accuracy (fraction of pairs)", range=[-0.02, 1.02], row=1)
    figure.update_yaxes(autorange="reversed", row=2)
    return finished(figure, "Accuracy on minimal pairs with its 95 % interval; below, the checkpoints compared", 560)


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
    }


def draw_trainings(runs: Sequence[Run]) -> dict[str, list[Json]]:
    """Return one figure for each training metric, with a line for each run."""
    return {title: [_training_figure(runs, name, title)] for name, title in METRICS.items()}


def _accuracy_band(scores: xr.Dataset, x: np.ndarray, colour: str, heavy: bool) -> go.Scatter:
    return go.Scatter(
        x=np.concatenate([x, x[::-1]]).tolist(),
        y=short(np.concatenate([scores["accuracy_high"].values, scores["accuracy_low"].values[::-1]])),
        fill="toself",
        fillcolor=colour,
        opacity=0.16 if heavy else 0.06,
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        legendgroup=str(scores["task"].values),
    )


def _accuracy_line(scores: xr.Dataset, x: np.ndarray, colour: str, heavy: bool) -> go.Scatter:
    task = str(scores["task"].values)
    return go.Scatter(
        x=x.tolist(),
        y=short(scores["accuracy"].values),
        name=wrapped(in_words(task)),
        legendgroup=task,
        mode="lines+markers",
        opacity=1 if heavy else 0.55,
        line={"color": colour, "width": 2.6 if heavy else 1.3},
        marker={"size": 6 if heavy else 4},
        text=_accuracy_hover(scores),
        hovertemplate="%{text}",
    )


def _accuracy_hover(scores: xr.Dataset) -> list[str]:
    columns = (scores[name].values.tolist() for name in ("tokens_seen", "accuracy", "accuracy_low", "accuracy_high"))
    return [
        f"{html.escape(checkpoint)}, {short_count(tokens)} tokens: {middle:.2f} ({low:.2f} to {high:.2f})"
        for checkpoint, tokens, middle, low, high in zip(names(scores, "checkpoint"), *columns, strict=True)
    ]


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
