"""Figures of one run's features, as JSON that plotly.js draws."""

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from chronocoder.attribution.measures import PRESENT_SHARE
from chronocoder.report.contrasts import ROLES, ContrastFeatures
from chronocoder.report.data import measurable
from chronocoder.report.inputs import Contrast, Run, names
from chronocoder.report.style import INK, PALETTE, PAPER, Json, finished, short, wrapped
from chronocoder.report.text import in_words

BINS = 20
LABELLED = 5
BLUES = ((0, "#F7F9FB"), (0.1, "#BBD7EC"), (0.35, "#5FA3D4"), (1, "#0B2E4F"))
SHADE = "#FBEDE3"
SHADE_INK = "#8A3E08"
LINEAR_PART = 0.01
HEADROOM = 1.5


class RoleStyle(NamedTuple):
    """How a role looks.

    Attributes:
        colour: of the point and its label.
        symbol: plotly's name of it.
        size: in pixels.
    """

    colour: str
    symbol: str
    size: int


ROLE_STYLES = dict(
    zip(
        ROLES,
        (
            RoleStyle("#A9B1BA", "circle", 6),
            RoleStyle(PALETTE[1], "triangle-down", 10),
            RoleStyle(PALETTE[0], "circle", 10),
            RoleStyle("#A8478A", "diamond", 11),
        ),
        strict=True,
    )
)


class EffectScale(NamedTuple):
    """A symmetric logarithmic scale of effects: linear within `linear` of zero, logarithmic outside.

    Attributes:
        limit: largest effect shown, in logits.
        linear: where the scale turns from linear to logarithmic, in logits.
    """

    limit: float
    linear: float

    def place(self, effect: np.ndarray) -> np.ndarray:
        """Return where on the axis effects lie."""
        places: np.ndarray = np.arcsinh(effect / self.linear)
        return places

    def axis(self) -> Json:
        """Return the axis, ticked at powers of ten."""
        powers = 10.0 ** np.arange(np.ceil(np.log10(2 * self.linear)), np.floor(np.log10(self.limit)) + 1)
        ticks = np.concatenate([-powers[::-1], [0.0], powers])
        end = float(self.place(np.array(self.limit)))
        return {
            "range": [-end, end],
            "tickvals": self.place(ticks).tolist(),
            "ticktext": [f"{tick:g}".replace("-", "−") for tick in ticks],
            "zeroline": True,
            "zerolinecolor": INK,
            "zerolinewidth": 1,
        }


def effect_scale(effects: np.ndarray) -> EffectScale:
    """Return a scale that holds all effects."""
    limit = HEADROOM * max(float(np.abs(effects).max()), 1e-6)
    return EffectScale(limit, LINEAR_PART * limit)


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


def draw_contrast(
    run: Run, features: Sequence[int], contrast: Contrast, found: ContrastFeatures, words: Mapping[int, Sequence[str]]
) -> list[Json]:
    """Return IE on the surface task against IE on the conflicting one, one figure a checkpoint.

    All figures of a run hold the same features in the same order, so that a point can be followed.

    Args:
        run: its stores.
        features: those to show.
        contrast: the two tasks.
        found: what the contrast brings out in the run.
        words: by feature, the words it is most active on.
    """
    effect = run.relie["indirect_effect"].sel(feature=list(features), task=list(contrast))
    effects = effect.transpose("checkpoint", "task", "feature").values
    scale = effect_scale(effects)
    roles = np.array([found.role(feature) for feature in features])
    notes = np.array([_note(feature, words) for feature in features])
    numbers = np.array(features)
    figures = []
    for checkpoint, pair in zip(run.checkpoints, effects, strict=True):
        traces = [
            _role_trace(role, numbers[roles == role], pair[:, roles == role], notes[roles == role], scale)
            for role in ROLES
        ]
        figures.append(_contrast_figure(traces, scale, contrast, checkpoint))
    return figures


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
        hovertemplate="RelIE about %{x:.2f}: %{z:.1f} % of |IE|<extra>%{y}</extra>",
        xgap=1,
        ygap=3,
    )
    figure = go.Figure(heat)
    for place in thresholds(relie.sizes["checkpoint"]):
        figure.add_vline(place, line={"color": PALETTE[1], "width": 1.5, "dash": "dash"})
    figure.update_xaxes(title_text=f"RelIE at {html.escape(checkpoint)}", range=[0, 1], showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return finished(figure, f"Where |IE| lies by its share at {checkpoint}", 130 + 34 * len(tasks))


def _contrast_figure(traces: list[go.Scatter], scale: EffectScale, contrast: Contrast, checkpoint: str) -> Json:
    figure = go.Figure(traces)
    end = scale.axis()["range"][1]
    figure.add_shape(type="rect", x0=0, x1=end, y0=-end, y1=0, fillcolor=SHADE, line_width=0, layer="below")
    figure.add_annotation(
        x=end,
        y=-end,
        text="surface rule",
        xanchor="right",
        yanchor="bottom",
        showarrow=False,
        font={"color": SHADE_INK, "size": 11},
    )
    figure.update_xaxes(title_text=f"IE on {wrapped(in_words(contrast.surface), 40)} (logits)", **scale.axis())
    figure.update_yaxes(title_text=f"IE on {wrapped(in_words(contrast.conflicting), 30)} (logits)", **scale.axis())
    return finished(figure, f"At {checkpoint}", 460)


def _role_trace(
    role: str, features: np.ndarray, effects: np.ndarray, notes: np.ndarray, scale: EffectScale
) -> go.Scatter:
    """Return the points of a role; `effects` has shape (task, feature)."""
    style = ROLE_STYLES[role]
    x, y = scale.place(effects)
    named = _largest(effects, 2 * scale.linear) if role != ROLES[0] else np.zeros(len(features), dtype=bool)
    return go.Scatter(
        x=short(x),
        y=short(y),
        name=role,
        mode="markers+text",
        text=[str(feature) if shown else "" for feature, shown in zip(features, named, strict=True)],
        textposition="top center",
        textfont={"color": style.colour, "size": 11},
        marker={
            "color": style.colour,
            "symbol": style.symbol,
            "size": style.size,
            "line": {"color": PAPER, "width": 1},
        },
        customdata=[[note, *pair] for note, pair in zip(notes.tolist(), short(effects.T), strict=True)],
        hovertemplate="%{customdata[0]}<br>IE %{customdata[1]:+.3f} and %{customdata[2]:+.3f}",
    )


def _largest(effects: np.ndarray, at_least: float) -> np.ndarray:
    size = np.abs(effects).max(axis=0)
    largest = np.argsort(-size)[:LABELLED]
    named = np.zeros(len(size), dtype=bool)
    named[largest] = size[largest] >= at_least
    return named


def _note(feature: int, words: Mapping[int, Sequence[str]]) -> str:
    of_feature = ", ".join(words.get(feature, []))
    return html.escape(f"feature {feature}: {of_feature}" if of_feature else f"feature {feature}")
