"""Figures of what features do to the two tasks of a contrast, as JSON that plotly.js draws."""

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from chronocoder.report.conditions import conditions_of
from chronocoder.report.contrasts import OTHER, ROLES, SURFACE, ContrastFeatures
from chronocoder.report.controls import SHUFFLED, has_random
from chronocoder.report.inputs import Contrast, Run
from chronocoder.report.style import INK, PALETTE, PAPER, Json, finished, short, wrapped
from chronocoder.report.text import in_words, plural

LABELLED = 5
SHADE = "#FBEDE3"
SHADE_INK = "#8A3E08"
RANDOM = "#CFD6DD"
LINEAR_PART = 0.004
HEADROOM = 2.5
HEIGHT_PX = 400
TITLE_WIDTHS = (40, 30)
"""Characters in a line of the titles of both axes."""


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


ROLE_STYLES = {
    OTHER: RoleStyle("#A9B1BA", "circle", 6),
    SURFACE: RoleStyle(PALETTE[1], "triangle-down", 10),
}


class Panel(NamedTuple):
    """What one figure of a contrast shows.

    Attributes:
        condition: of the conflicting task.
        checkpoint: revision.
        effects: on the surface task, where they are largest, and on the conflicting one, shape (task, feature).
        levels: what most random directions stay below on either task; NaN where there are none.
    """

    condition: str
    checkpoint: str
    effects: np.ndarray
    levels: np.ndarray


class EffectScale(NamedTuple):
    """A symmetric logarithmic scale of effects: linear within `linear` of zero, logarithmic outside.

    Attributes:
        limit: largest effect shown, in the unit of its task.
        linear: where the scale turns from linear to logarithmic, likewise.
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


def random_level(of_task: xr.Dataset, fraction: float) -> xr.DataArray:
    """Return the |IE| that a fraction of all random directions stays below, by condition of a task.

    Args:
        of_task: the task's effects and those of its controls.
        fraction: the fraction.

    Returns:
        Dims (condition, checkpoint); NaN where there are no random directions.
    """
    here = of_task.sel(condition=conditions_of(of_task))
    nothing = xr.full_like(here["condition_indirect_effect"].isel(feature=0, drop=True), np.nan)
    if not has_random(here):
        return nothing
    size = abs(here["control_indirect_effect"].sel(control=here["control"] != SHUFFLED))
    directions = size.stack(direction=("control", "feature")).dropna("direction")
    return directions.quantile(fraction, "direction") if directions.sizes["direction"] else nothing


def contrast_panels(run: Run, features: Sequence[int], contrast: Contrast) -> list[list[Panel]]:
    """Return for each condition of the conflicting task a panel a checkpoint.

    A feature stands for the surface rule if it helps the surface task in some condition; so the effect there is that
    in the condition in which it helps most.
    """
    near, far = (run.relie.sel(task=task, feature=list(features)) for task in contrast)
    near_level, far_level = (random_level(run.relie.sel(task=task), run.random_fraction) for task in contrast)
    helps, near_level = near["condition_indirect_effect"].max("condition"), near_level.max("condition")
    panels = []
    for condition in conditions_of(far):
        here = far.sel(condition=condition)
        effects = [helps, here["condition_indirect_effect"]]
        levels = np.stack([near_level.values, far_level.sel(condition=condition).values], axis=1)
        both = np.stack([values.transpose("checkpoint", "feature").values for values in effects], axis=1)
        panels.append([Panel(condition, *of_one) for of_one in zip(run.checkpoints, both, levels, strict=True)])
    return panels


def draw_contrast(
    run: Run, features: Sequence[int], contrast: Contrast, found: ContrastFeatures, words: Mapping[int, Sequence[str]]
) -> list[Json]:
    """Return IE on the surface task against IE on the conflicting one, by condition of that one: a row of figures each.

    All figures of a run hold the same features in the same order, so that a point can be followed.

    Args:
        run: its stores.
        features: those to show.
        contrast: the two tasks.
        found: what the contrast brings out in the run.
        words: by feature, the words it is most active on.

    Returns:
        For each condition its name and its figures, one a checkpoint.
    """
    panels = contrast_panels(run, features, contrast)
    scale = effect_scale(np.stack([panel.effects for row in panels for panel in row]))
    roles = np.array([found.role(feature) for feature in features])
    notes = np.array([_note(feature, words) for feature in features])
    numbers = np.array(features)
    chosen = {role: roles == role for role in ROLES}
    titles = [
        f"IE on {wrapped(in_words(task), width)} ({plural(run.units[task])})"
        for task, width in zip(contrast, TITLE_WIDTHS, strict=True)
    ]
    drawn = []
    for row in panels:
        figures = []
        for panel in row:
            traces = [
                _role_trace(role, numbers[own], panel.effects[:, own], notes[own], scale)
                for role, own in chosen.items()
            ]
            figures.append(_contrast_figure(traces, panel, scale, titles))
        drawn.append({"condition": row[0].condition, "figures": figures})
    return drawn


def _contrast_figure(traces: list[go.Scatter], panel: Panel, scale: EffectScale, titles: Sequence[str]) -> Json:
    """Draw one panel; `titles` are those of its axes."""
    figure = go.Figure(traces)
    end = scale.axis()["range"][1]
    figure.add_shape(type="rect", x0=0, x1=end, y0=-end, y1=0, fillcolor=SHADE, line_width=0, layer="below")
    if np.isfinite(panel.levels).all():
        x, y = scale.place(panel.levels).tolist()
        figure.add_shape(type="rect", x0=-x, x1=x, y0=-y, y1=y, fillcolor=RANDOM, line_width=0, layer="below")
    figure.add_annotation(
        x=end,
        y=-end,
        text="surface rule",
        xanchor="right",
        yanchor="bottom",
        showarrow=False,
        font={"color": SHADE_INK, "size": 11},
    )
    figure.update_xaxes(title_text=titles[0], **scale.axis())
    figure.update_yaxes(title_text=titles[1], **scale.axis())
    return finished(figure, f"At {panel.checkpoint}", HEIGHT_PX)


def _role_trace(
    role: str, features: np.ndarray, effects: np.ndarray, notes: np.ndarray, scale: EffectScale
) -> go.Scatter:
    """Return the points of a role; `effects` has shape (task, feature)."""
    style = ROLE_STYLES[role]
    x, y = scale.place(effects)
    named = _largest(effects, 2 * scale.linear) if role == SURFACE else np.zeros(len(features), dtype=bool)
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
