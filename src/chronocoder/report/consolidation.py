"""Whether languages share features, and since when: sentences, figures and a table beside null levels and ceiling."""

import html
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from chronocoder.report.inputs import Run, key_of, names
from chronocoder.report.style import INK, PALETTE, Json, finished, short
from chronocoder.report.text import decimal, in_words, listed, percent, quoted, sentence, signed

HEADLINE = {"measure": "weighted", "sign": "helping"}
KINDS = {
    "weighted by helping effect": HEADLINE,
    "weighted by |IE|": {"measure": "weighted", "sign": "either"},
    "top features that help": {"measure": "top", "sign": "helping"},
    "top features by |IE|": {"measure": "top", "sign": "either"},
}
LEVELS = {
    "ceiling": ("within a language (ceiling)", PALETTE[2], "dash"),
    "other_families": ("other families, same language", PALETTE[5], "dashdot"),
    "random": ("random directions", PALETTE[8], "dot"),
    "permuted": ("features exchanged", PALETTE[1], "dot"),
}
CODE = 3
"""Letters of the longest codes of languages."""
MOST_PAIRS = 3
"""Pairs of languages that the summary tells of one by one."""
COLUMNS = ("Overlap", "Ceiling", "Other families", "Random directions", "Exchanged", "q", "Serving several")
ROWS_A_FAMILY = 6
HEIGHT_PX = 330


class LanguageTable(NamedTuple):
    """The overlap between two languages in one run.

    Attributes:
        label: run and languages.
        sentences: what the numbers say.
        families: by family, the numbers of each checkpoint.
        features: by family, features that serve several languages at the last checkpoint.
        languages: heads of the columns of effects.
    """

    label: str
    sentences: list[str]
    families: dict[str, list[tuple[str, list[str]]]]
    features: dict[str, list[tuple[str, list[str], str]]]
    languages: list[str]


def language_tables(
    consolidations: Sequence[xr.Dataset], runs: Sequence[Run], words: Sequence[Mapping[int, Sequence[str]]]
) -> list[LanguageTable]:
    """Return a table for each run and pair of languages.

    Args:
        consolidations: of runs, in any order.
        runs: the runs.
        words: those that each feature of a run is most active on.
    """
    of_runs = {run.key: (run, of_run) for run, of_run in zip(runs, words, strict=True)}
    return [
        LanguageTable(
            f"{key_of(store).label}, {' and '.join(_languages(of_pair))}",
            pair_sentences(of_pair),
            {in_words(family): _rows(store, of_pair, family) for family in names(store, "family")},
            _features(store, of_pair, *of_runs[key_of(store)]),
            _languages(of_pair),
        )
        for store in consolidations
        for of_pair in _pairs(store)
    ]


def draw_consolidations(consolidations: Sequence[xr.Dataset]) -> dict[str, list[Json]]:
    """Return for each way to compare, run and pair of languages a figure of each family over the checkpoints."""
    return {
        _choice(kind, store, of_pair): [
            _figure(of_pair.sel(place).sel(family=family), family) for family in names(store, "family")
        ]
        for store in consolidations
        for of_pair in _pairs(store)
        for kind, place in KINDS.items()
    }


def language_sentences(store: xr.Dataset) -> list[str]:
    """Return what is found of each pair of languages; of many pairs, how many share features at the last checkpoint."""
    pairs = _pairs(store)
    if len(pairs) <= MOST_PAIRS:
        return [text for of_pair in pairs for text in pair_sentences(of_pair)]
    shared = store["shared"].sel(HEADLINE).isel(checkpoint=-1)
    count, last = int(shared.any("family").sum()), names(store, "checkpoint")[-1]
    return [f"At {last}, {count} of {len(pairs)} pairs of languages share features on at least one family."]


def pair_sentences(of_pair: xr.Dataset) -> list[str]:
    """Return whether two languages share features, on which families, and since when.

    Args:
        of_pair: what is stored of one run and pair of languages, dims (measure, sign, family, checkpoint).
    """
    here = of_pair.sel(HEADLINE)
    last, languages = names(here, "checkpoint")[-1], " and ".join(map(_named, _languages(here)))
    tested = [name for name in names(here, "family") if here["overlap"].sel(family=name).notnull().any()]
    since = {name: _since(here["shared"].sel(family=name)) for name in tested}
    shared = [name for name, checkpoint in since.items() if checkpoint]
    if not tested:
        return [f"{languages}: no family has a measurable helping effect in both languages at any checkpoint."]
    apart = [name for name in tested if name not in shared]
    moments = [name for name in names(here, "checkpoint") if name in since.values()]
    parts = [
        f"from {moment} on, {listed([quoted(name) for name in shared if since[name] == moment])}" for moment in moments
    ]
    count = "1 family" if len(tested) == 1 else f"{len(tested)} families"
    text = f"{languages} share features at {last} on {len(shared)} of {count}: {'; '.join(parts)}"
    if not shared:
        levels = f"overlap clearly exceeds both null levels on none of {count}"
        text = f"{languages} are not found to share features at {last}: {levels}"
    elif apart:
        text = f"{text}; not found on {listed([quoted(name) for name in apart])}"
    return [f"{text}.{_lost_sentence(here, apart)}", _level_sentence(here.sel(family=tested), last)]


def _lost_sentence(here: xr.Dataset, apart: Sequence[str]) -> str:
    """Return where features were shared that are not at the last checkpoint, with a space before; else nothing."""
    shared = {name: here["shared"].sel(family=name).values for name in apart}
    lost = [
        f"{quoted(name)} at {listed([at for at, holds in zip(names(here, 'checkpoint'), of, strict=True) if holds])}"
        for name, of in shared.items()
        if of.any()
    ]
    return f" Before, they shared features on {'; '.join(lost)}." if lost else ""


def _level_sentence(here: xr.Dataset, last: str) -> str:
    end = here.isel(checkpoint=-1)
    overlap = {name: decimal(float(end[name].mean())) for name in ("overlap", *LEVELS)}
    low, high = (decimal(float(getattr(end["overlap"], of)())) for of in ("min", "max"))
    corrected = percent(float(end["corrected_overlap"].mean()))
    return (
        f"At {last}, overlap of helping effects between the languages is {overlap['overlap']} on average over families"
        f" ({low} to {high}), against {overlap['ceiling']} between halves of the prefixes of one language,"
        f" {overlap['other_families']} between families in one language, {overlap['random']} of random directions and"
        f" {overlap['permuted']} with features exchanged at random: beyond exchanges, it is {corrected} of the ceiling."
    )


def _since(shared: xr.DataArray) -> str | None:
    """Return the first checkpoint from which on sharing is found at every one; none where not at the last."""
    found = None
    for checkpoint, holds in zip(names(shared, "checkpoint")[::-1], shared.values[::-1], strict=True):
        if not holds:
            break
        found = checkpoint
    return found


def _pairs(store: xr.Dataset) -> list[xr.Dataset]:
    return [store.isel(language_pair=place) for place in range(store.sizes["language_pair"])]


def _languages(of_pair: xr.Dataset) -> list[str]:
    return [str(of_pair[name].values) for name in ("first_language", "second_language")]


def _named(language: str) -> str:
    """Return the name of a language as it begins a sentence; codes such as `fra` stay."""
    return language if len(language) <= CODE else sentence(language)


def _choice(kind: str, store: xr.Dataset, of_pair: xr.Dataset) -> str:
    return f"{key_of(store).label}, {' and '.join(_languages(of_pair))}, {kind}"


def _rows(store: xr.Dataset, of_pair: xr.Dataset, family: str) -> list[tuple[str, list[str]]]:
    here = of_pair.sel(HEADLINE).sel(family=family)
    by_number = store["effect_by_languages_served"].sel(family=family)
    several = by_number.isel(served=slice(1, None)).sum("served", skipna=False)
    found = []
    for place, checkpoint in enumerate(names(here, "checkpoint")):
        at = here.isel(checkpoint=place)
        overlap, low, high = (decimal(float(at[f"overlap{end}"])) for end in ("", "_low", "_high"))
        numbers = [decimal(float(at[name])) for name in ("ceiling", "other_families", "random", "permuted")]
        q_value = f"{float(at['q_value']):.3f}" if at["q_value"].notnull() else "–"
        found.append((checkpoint, [f"{overlap} ({low} to {high})", *numbers, q_value, percent(float(several[place]))]))
    return found


def _features(
    store: xr.Dataset, of_pair: xr.Dataset, run: Run, words: Mapping[int, Sequence[str]]
) -> dict[str, list[tuple[str, list[str], str]]]:
    """Return the features of each family that help most in the language in which they help less.

    Of each its number, its IE in both languages at the last checkpoint, and the words that it is most active on.
    """
    effect = run.relie["indirect_effect"].isel(checkpoint=-1).transpose("task", "feature")
    seen = run.relie["measurable"].isel(checkpoint=-1).transpose("task", "feature").values & (effect.values > 0)
    found = {}
    for family in names(store, "family"):
        tasks = [
            (run.relie["phenomenon"].values == family) & (run.relie["language"].values == language)
            for language in _languages(of_pair)
        ]
        if not all(of.any() for of in tasks):
            continue
        effects = np.stack([effect.values[of].mean(axis=0) for of in tasks])
        least = np.where(np.all([seen[of].any(axis=0) for of in tasks], axis=0), effects.min(axis=0), 0)
        best = [place for place in np.argsort(-least, kind="stable")[:ROWS_A_FAMILY] if least[place] > 0]
        numbers = run.relie["feature"].values[best].tolist()
        found[in_words(family)] = [
            (str(number), [signed(value) for value in effects[:, place]], ", ".join(words.get(number, [])) or "–")
            for number, place in zip(numbers, best, strict=True)
        ]
    return {family: rows for family, rows in found.items() if rows}


def _figure(here: xr.Dataset, family: str) -> Json:
    checkpoints = [html.escape(name) for name in names(here, "checkpoint")]
    bands = [_band(here, name, checkpoints) for name in ("permuted", "random")]
    levels = [_level(here, name, checkpoints) for name in LEVELS]
    figure = go.Figure([*bands, *levels, _overlap_trace(here, checkpoints)])
    figure.update_xaxes(type="category")
    figure.update_yaxes(range=[-0.02, 1.02], title_text="overlap")
    return finished(figure, sentence(in_words(family)), HEIGHT_PX)


def _overlap_trace(here: xr.Dataset, checkpoints: Sequence[str]) -> go.Scatter:
    overlap, low, high = (here[f"overlap{end}"].values for end in ("", "_low", "_high"))
    return go.Scatter(
        x=list(checkpoints),
        y=short(overlap),
        error_y={"array": short(high - overlap), "arrayminus": short(overlap - low), "thickness": 1.4, "width": 0},
        name="between the languages",
        mode="lines+markers",
        line={"color": PALETTE[0], "width": 2.6},
        marker={"size": 9, "symbol": ["circle" if holds else "circle-open" for holds in here["shared"].values]},
        hovertemplate="%{x}: %{y:.2f}",
    )


def _level(here: xr.Dataset, name: str, checkpoints: Sequence[str]) -> go.Scatter:
    label, colour, dash = LEVELS[name]
    return go.Scatter(
        x=list(checkpoints),
        y=short(here[name].values),
        name=label,
        mode="lines",
        line={"color": colour, "dash": dash, "width": 1.8},
        hovertemplate="%{x}: %{y:.2f}",
    )


def _band(here: xr.Dataset, name: str, checkpoints: Sequence[str]) -> go.Scatter:
    ends = [here[f"{name}{end}"].values for end in ("_high", "_low")]
    known = np.flatnonzero(np.isfinite(ends).all(axis=0))
    order = [*known, *known[::-1]]
    values: list[Any] = short(np.concatenate([ends[0][known], ends[1][known[::-1]]]))
    return go.Scatter(
        x=[checkpoints[place] for place in order],
        y=values,
        mode="lines",
        fill="toself",
        fillcolor=LEVELS[name][1],
        opacity=0.15,
        line={"width": 0, "color": INK},
        hoverinfo="skip",
        showlegend=False,
    )
