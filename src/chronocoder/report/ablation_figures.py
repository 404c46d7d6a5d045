"""Figures of what features do when they are ablated together, as JSON that plotly.js draws."""

import html

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from chronocoder.report.inputs import names
from chronocoder.report.style import INK, PALETTE, Json, finished, short
from chronocoder.report.text import decimal, plural

RANDOM = "#7F7F7F"
MARGIN = 0.08
HEIGHT_PX = 340


def draw_faithfulness(ablation: xr.Dataset) -> list[Json]:
    """Return the effect of ablating the top features together, one figure a checkpoint on the same scale.

    Beside it are the sum of their single effects, random sets of features, and the effect at which nothing is left of
    the model's preference for the right answer.

    Args:
        ablation: of one task.
    """
    drawn = ("top_set_effect", "top_set_estimate", "random_set_effect", "clean_difference")
    values = np.concatenate([ablation[name].values.ravel() for name in drawn] + [np.zeros(1)])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = MARGIN * max(high - low, 1e-6)
    bounds = [low - margin, high + margin]
    return [_faithfulness(ablation.sel(checkpoint=name), bounds) for name in names(ablation, "checkpoint")]


def _faithfulness(ablation: xr.Dataset, bounds: list[float]) -> Json:
    sizes = ablation["set_size"].values.tolist()
    figure = go.Figure([*_random_traces(ablation), *_top_traces(ablation), _preference_trace(ablation)])
    figure.update_xaxes(type="log", tickvals=sizes, title_text="features ablated together (log scale)")
    figure.update_yaxes(range=bounds, title_text=f"effect ({_units(ablation)})", zeroline=True, zerolinecolor=INK)
    checkpoint, accuracy = str(ablation["checkpoint"].values), float(ablation["clean_accuracy"])
    return finished(figure, f"At {checkpoint}, where accuracy is {decimal(accuracy)}", HEIGHT_PX)


def _preference_trace(ablation: xr.Dataset) -> go.Scatter:
    whole = short(ablation["clean_difference"].values[None])
    return go.Scatter(
        x=ablation["set_size"].values[[0, -1]].tolist(),
        y=2 * whole,
        name="no preference left",
        mode="lines",
        line={"color": INK, "width": 1.2, "dash": "dot"},
        hoverinfo="skip",
    )


def _top_traces(ablation: xr.Dataset) -> list[go.Scatter]:
    sizes, effect = ablation["set_size"].values.tolist(), ablation["top_set_effect"]
    together = go.Scatter(
        x=sizes,
        y=short(effect.values),
        customdata=short(ablation["top_set_accuracy"].values),
        name="top features",
        mode="lines+markers",
        line={"color": PALETTE[0], "width": 2.4},
        hovertemplate=_hover("top features", ablation),
    )
    summed = go.Scatter(
        x=sizes,
        y=short(ablation["top_set_estimate"].values),
        name="sum of their IE",
        mode="lines",
        line={"color": PALETTE[0], "width": 1.6, "dash": "dash"},
        hovertemplate=f"IE of %{{x}} top features, summed: %{{y:.2f}} {_units(ablation)}<extra></extra>",
    )
    return [together, summed]


def _random_traces(ablation: xr.Dataset) -> list[go.Scatter]:
    """Return the mean over draws, in a band from the smallest to the largest."""
    effect = ablation["random_set_effect"].dropna("set_size", how="all")
    accuracy = ablation["random_set_accuracy"].sel(set_size=effect["set_size"]).mean("draw")
    sizes = effect["set_size"].values
    band = go.Scatter(
        x=np.concatenate([sizes, sizes[::-1]]).tolist(),
        y=short(np.concatenate([effect.max("draw").values, effect.min("draw").values[::-1]])),
        mode="lines",
        fill="toself",
        fillcolor=RANDOM,
        opacity=0.25,
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
    )
    mean = go.Scatter(
        x=sizes.tolist(),
        y=short(effect.mean("draw").values),
        customdata=short(accuracy.values),
        name=html.escape(f"random features, {effect.sizes['draw']} draws"),
        mode="lines",
        line={"color": RANDOM, "width": 1.6},
        hovertemplate=_hover("random features", ablation),
    )
    return [band, mean]


def _hover(features: str, ablation: xr.Dataset) -> str:
    return f"%{{x}} {features}: %{{y:.2f}} {_units(ablation)}, accuracy %{{customdata:.2f}}<extra></extra>"


def _units(ablation: xr.Dataset) -> str:
    """Return what the effects on the task are measured in."""
    return plural(str(ablation["top_set_effect"].attrs["units"]))
