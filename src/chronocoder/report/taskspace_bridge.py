"""Whether transfer goes with shared features, and without them: figures, a table and sentences of each run."""

import html
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from chronocoder.report.inputs import key_of, names
from chronocoder.report.style import GRID, INK, PALETTE, Json, finished
from chronocoder.report.taskspace import p_number, p_words, rounded, same_group, unit_words
from chronocoder.report.text import counted, decimal, in_words, listed, sentence

MOST_POINTS = 600
"""Pairs that a figure shows; of more, so many at random, since all would hide each other and slow the page down."""
SEED = 0
PERCENT = "\u00a0%"
HEIGHT_PX = 420
ZERO_LINE = {"zerolinecolor": GRID, "zerolinewidth": 2}
MEASURES = {"overlap": "feature_overlap", "cosine": "feature_cosine"}
CORRELATED = {"overlap": "the overlap of their top features", "cosine": "the cosine of the effects of all features"}
AXES = {"overlap": "fraction of top features in common", "cosine": "cosine of effects over all features"}
CORRELATION_COLUMNS = ("ρ with overlap (p)", "ρ with cosine (p)")
REMOVAL_COLUMNS = ("Ordered pairs", "Removed by shared", "Removed by others", "Difference")
RELATIONS = {"within": "within groups", "between": "between groups"}
COUNTED = ("transfer_intact", "transfer_without_shared", "transfer_without_others", "shared_features")
REMOVED = ("removed_by_shared", "removed_by_others", "removed_beyond_others")


class BridgeRow(NamedTuple):
    """The numbers of one checkpoint.

    Attributes:
        checkpoint: its name.
        correlations: one a column of `CORRELATION_COLUMNS`, as text.
        removals: by relation of the tasks, in words, one a column of `REMOVAL_COLUMNS`, as text.
    """

    checkpoint: str
    correlations: list[str]
    removals: dict[str, list[str]]


def draw_bridges(bridges: Sequence[xr.Dataset]) -> dict[str, dict[str, list[Json]]]:
    """Return for each run and checkpoint transfer against overlap and cosine of features, and without features."""
    return {
        key_of(bridge).label: {
            checkpoint: [
                *(_measure_figure(bridge.isel(checkpoint=place), measure) for measure in names(bridge, "measure")),
                _removal_figure(bridge.isel(checkpoint=place)),
            ]
            for place, checkpoint in enumerate(names(bridge, "checkpoint"))
        }
        for bridge in bridges
    }


def bridge_tables(bridges: Sequence[xr.Dataset]) -> dict[str, list[BridgeRow]]:
    """Return for each run the numbers of every checkpoint."""
    return {
        key_of(bridge).label: [_row(bridge.isel(checkpoint=place)) for place in range(bridge.sizes["checkpoint"])]
        for bridge in bridges
    }


def bridge_sentences(bridge: xr.Dataset) -> list[str]:
    """Return whether transfer goes with shared features at the last checkpoint of a run, and needs them."""
    last = bridge.isel(checkpoint=-1)
    return [_correlation_sentence(last), *_removal_sentences(last)]


def hidden_pairs(bridges: Sequence[xr.Dataset]) -> tuple[int, int]:
    """Return how many pairs the figures show, and of how many."""
    pairs = max((bridge.sizes["source"] * (bridge.sizes["source"] - 1) for bridge in bridges), default=0)
    return min(pairs, MOST_POINTS), pairs


def _correlation_sentence(last: xr.Dataset) -> str:
    parts = []
    for measure, words in CORRELATED.items():
        rho, p_value = (float(last[name].sel(measure=measure)) for name in ("correlation", "correlation_p"))
        parts.append(f"{decimal(rho)} with {words} ({p_words(p_value)})")
    return (
        f"at {last['checkpoint'].values}, Spearman’s correlation of transfer over ordered pairs of tasks is"
        f" {listed(parts)}, p-values by relabelling tasks."
    )


def _removal_sentences(last: xr.Dataset) -> list[str]:
    known = {name: words for name, words in RELATIONS.items() if int(last["pairs_compared"].sel(relation=name))}
    if not known:
        return [
            "Whether shared features carry transfer cannot be told: no task transfers to another for certain and shares"
            " features with it beside which there are others of like effect."
        ]
    return [_removal_sentence(last.sel(relation=name), words) for name, words in known.items()]


def _removal_sentence(of_relation: xr.Dataset, words: str) -> str:
    shared, others, _ = (_part(float(of_relation[name])) for name in REMOVED)
    more, low, high = (float(of_relation[f"{REMOVED[-1]}{end}"]) for end in ("", "_low", "_high"))
    pairs = counted(int(of_relation["pairs_compared"]), "ordered pair")
    return (
        f"Of the transfer {words}, removing the shared features removes {shared}, and removing as many others of like"
        f" effect {others}: a difference of {_part(more)} ({_part(low)} to {_part(high)}) over {pairs}."
    )


def _row(at: xr.Dataset) -> BridgeRow:
    correlations = []
    for measure in MEASURES:
        rho, p_value = (float(at[name].sel(measure=measure)) for name in ("correlation", "correlation_p"))
        correlations.append(f"{decimal(rho)} ({p_number(p_value)})" if np.isfinite(rho) else "–")
    removals = {words: _removal_numbers(at.sel(relation=name)) for name, words in RELATIONS.items()}
    return BridgeRow(str(at["checkpoint"].values), correlations, removals)


def _removal_numbers(of_relation: xr.Dataset) -> list[str]:
    parts = [[_part(float(of_relation[f"{name}{end}"])) for end in ("", "_low", "_high")] for name in REMOVED]
    texts = [f"{middle} ({low.removesuffix(PERCENT)} to {high.removesuffix(PERCENT)})" for middle, low, high in parts]
    return [str(int(of_relation["pairs_compared"])), *texts]


def _part(part: float) -> str:
    """Return a part, which may be negative, as a percentage without decimals."""
    return f"{round(100 * part)}{PERCENT}".replace("-", "−") if np.isfinite(part) else "–"


class _Points(NamedTuple):
    """Ordered pairs of different tasks that a figure shows.

    Attributes:
        places: of source and target, shape (2, pair).
        within: whether both are of one group.
        texts: what the hover calls them.
    """

    places: tuple[np.ndarray, np.ndarray]
    within: np.ndarray
    texts: np.ndarray


def _points(at: xr.Dataset) -> _Points:
    within, between = same_group(at, "target", "source_group", "group")
    sources, targets = np.nonzero(within | between)
    chosen = np.arange(len(sources))
    if len(chosen) > MOST_POINTS:
        chosen = np.sort(np.random.default_rng(SEED).choice(chosen, MOST_POINTS, replace=False))
    places = (sources[chosen], targets[chosen])
    sourced, targeted = ([html.escape(in_words(name)) for name in names(at, dim)] for dim in ("source", "target"))
    texts = [f"{sourced[one]} → {targeted[other]}" for one, other in zip(*places, strict=True)]
    return _Points(places, within[places], np.array(texts, dtype=object))


def _measure_figure(at: xr.Dataset, measure: str) -> Json:
    points, variable = _points(at), MEASURES[measure]
    x, y = (at[name].transpose("source", "target").values[points.places] for name in (variable, "transfer"))
    figure = go.Figure()
    for name, of, colour, symbol in (
        ("two tasks of one group", points.within, PALETTE[0], "circle"),
        ("of different groups", ~points.within, PALETTE[1], "diamond-open"),
    ):
        figure.add_trace(_scatter(x[of], y[of], points.texts[of], name, colour, symbol))
    if measure == "overlap":
        level = float(at["overlap_chance"].values[points.places].mean())
        figure.add_vline(level, line={"color": INK, "dash": "dot", "width": 1}, annotation={"text": "chance"})
    figure.update_xaxes(title_text=AXES[measure], **ZERO_LINE)
    figure.update_yaxes(**ZERO_LINE, title_text=f"transfer ({unit_words(at)})")
    rho, p_value = (float(at[name].sel(measure=measure)) for name in ("correlation", "correlation_p"))
    title = f"{sentence(measure)} of features: ρ = {decimal(rho)}, {p_words(p_value)}"
    return finished(figure, title, HEIGHT_PX)


def _removal_figure(at: xr.Dataset) -> Json:
    points = _points(at)
    value = {name: at[name].transpose("source", "target").values[points.places] for name in COUNTED}
    known = np.isfinite([value[name] for name in COUNTED]).all(axis=0) & (value["shared_features"] > 0)
    figure = go.Figure()
    for name, label, colour, symbol in (
        ("transfer_without_others", "without as many others", PALETTE[8], "circle-open"),
        ("transfer_without_shared", "without shared features", PALETTE[1], "diamond"),
    ):
        figure.add_trace(
            _scatter(value["transfer_intact"][known], value[name][known], points.texts[known], label, colour, symbol)
        )
    intact = value["transfer_intact"][known]
    ends = [min(0.0, float(intact.min(initial=0))), float(intact.max(initial=0))]
    unchanged = go.Scatter(
        x=rounded(np.array(ends)),
        y=rounded(np.array(ends)),
        mode="lines",
        name="unchanged",
        line={"color": INK, "dash": "dot", "width": 1},
        hoverinfo="skip",
    )
    figure.add_trace(unchanged)
    figure.update_xaxes(**ZERO_LINE, title_text=f"transfer with all features ({unit_words(at)})")
    figure.update_yaxes(**ZERO_LINE, title_text="transfer without some features")
    return finished(figure, "What is left of transfer without features", HEIGHT_PX)


def _scatter(x: np.ndarray, y: np.ndarray, texts: np.ndarray, name: str, colour: str, symbol: str) -> go.Scatter:
    return go.Scatter(
        x=rounded(x),
        y=rounded(y),
        text=texts.tolist(),
        name=name,
        mode="markers",
        marker={"color": colour, "symbol": symbol, "size": 7, "opacity": 0.8},
        hovertemplate="%{text}<br>%{x:.3f}, %{y:.3f}",
    )
