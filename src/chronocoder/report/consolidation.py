"""Whether languages share features, and since when: sentences and tables beside null levels and ceiling."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.figures.overlap import HEADLINE, LEVELS
from chronocoder.report.inputs import Run, RunKey
from chronocoder.stores import names
from chronocoder.wording import counted, decimal, in_words, listed, percent, quoted, sentence, signed

CODE = 3
"""Letters of the longest codes of languages."""
MOST_PAIRS = 3
"""Pairs of languages that are told of one by one."""
COLUMNS = ("Overlap", "Ceiling", "Other families", "Random directions", "Exchanged", "q", "Serving several")
ROWS_A_FAMILY = 6


class SharedFeature(NamedTuple):
    """A feature that helps in two languages.

    Attributes:
        feature: its number.
        effects: its IE in both languages at the last checkpoint, as text.
        words: those that it is most active on.
    """

    feature: int
    effects: list[str]
    words: str


class LanguageTable(NamedTuple):
    """The overlap between two languages in one run.

    Attributes:
        run: which one.
        languages: in words.
        families: by family, the numbers of each checkpoint, one a column of `COLUMNS`.
        features: by family, features that help in both languages at the last checkpoint.
    """

    run: RunKey
    languages: list[str]
    families: dict[str, list[tuple[str, list[str]]]]
    features: dict[str, list[SharedFeature]]


def language_tables(store: xr.Dataset, run: Run, words: Mapping[int, Sequence[str]]) -> list[LanguageTable]:
    """Return a table for each pair of languages; none where there are too many to tell of one by one.

    Args:
        store: the comparison of languages of the run.
        run: the stores of the run.
        words: those that each feature is most active on.
    """
    if is_many(store):
        return []
    return [
        LanguageTable(
            run.key,
            languages_of(of_pair),
            {in_words(family): _rows(store, of_pair, family) for family in names(store, "family")},
            _features(store, of_pair, run, words),
        )
        for of_pair in pairs_of(store)
    ]


def is_many(store: xr.Dataset) -> bool:
    """Return whether there are more pairs of languages than can be told of one by one."""
    return store.sizes["language_pair"] > MOST_PAIRS


def pairs_of(store: xr.Dataset) -> list[xr.Dataset]:
    """Return what is stored of each pair of languages."""
    return [store.isel(language_pair=place) for place in range(store.sizes["language_pair"])]


def languages_of(of_pair: xr.Dataset) -> list[str]:
    """Return the names of two languages."""
    return [str(of_pair[name].values) for name in ("first_language", "second_language")]


def language_sentences(store: xr.Dataset) -> list[str]:
    """Return what is found of each pair of languages; of many pairs, how many share features at the last checkpoint."""
    pairs = pairs_of(store)
    if not is_many(store):
        return [text for of_pair in pairs for text in pair_sentences(of_pair)]
    shared = store["shared"].sel(HEADLINE).isel(checkpoint=-1)
    count, last = int(shared.any("family").sum()), names(store, "checkpoint")[-1]
    return [f"At {last}, {count} of {len(pairs)} pairs of languages share features on at least one family."]


def serving_sentence(store: xr.Dataset) -> str:
    """Return how many features serve several languages at the end beside chance, and since when, to follow a colon."""
    last, tested = store.isel(checkpoint=-1), store["several_by_chance"].notnull()
    where = f"at {names(store, 'checkpoint')[-1]}"
    known = [name for name in names(store, "family") if tested.isel(checkpoint=-1).sel(family=name)]
    if not known:
        return f"{where}, no family has features that measurably help in one language beside such in another."
    of_known = last.sel(family=known)
    several = int(of_known["features_serving"].isel(served=slice(1, None)).sum())
    chance, over = (
        float(of_known["several_by_chance"].sum()),
        f" (summed over {len(known)} families)" * (len(known) > 1),
    )
    beyond = {name: _since(store["several_beyond"].sel(family=name)) for name in known}
    found = [f"{quoted(name)} (from {since} on)" for name, since in beyond.items() if since]
    verdict = f"There are more than by chance on {listed(found)}" if found else "On no family are there more"
    help_words = f"measurably {'helps' if several == 1 else 'help'} in two languages or more"
    return (
        f"{where}, {counted(several, 'feature')}{over} {help_words}, against {decimal(chance)}"
        f" with the features of each language exchanged at random. {verdict}."
    )


def pair_sentences(of_pair: xr.Dataset) -> list[str]:
    """Return whether two languages share features, on which families, and since when.

    Args:
        of_pair: what is stored of one run and pair of languages, dims (measure, sign, family, checkpoint).
    """
    here = of_pair.sel(HEADLINE)
    last, languages = names(here, "checkpoint")[-1], " and ".join(map(_named, languages_of(here)))
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
        where = f"at {last}" if here["shared"].any() else "at any checkpoint"
        text = f"{languages} are not found to share features {where}: {levels}"
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


def _named(language: str) -> str:
    """Return the name of a language as it begins a sentence; codes such as `fra` stay."""
    return language if len(language) <= CODE else sentence(language)


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
) -> dict[str, list[SharedFeature]]:
    """Return the features of each family that help most in the language in which they help less."""
    effect = run.relie["indirect_effect"].isel(checkpoint=-1).transpose("task", "feature")
    seen = run.relie["measurable"].isel(checkpoint=-1).transpose("task", "feature").values & (effect.values > 0)
    found = {}
    for family in names(store, "family"):
        tasks = [
            (run.relie["phenomenon"].values == family) & (run.relie["language"].values == language)
            for language in languages_of(of_pair)
        ]
        if not all(of.any() for of in tasks):
            continue
        effects = np.stack([effect.values[of].mean(axis=0) for of in tasks])
        least = np.where(np.all([seen[of].any(axis=0) for of in tasks], axis=0), effects.min(axis=0), 0)
        best = [place for place in np.argsort(-least, kind="stable")[:ROWS_A_FAMILY] if least[place] > 0]
        numbers = run.relie["feature"].values[best].tolist()
        found[in_words(family)] = [
            SharedFeature(
                number, [signed(value) for value in effects[:, place]], ", ".join(words.get(number, [])) or "–"
            )
            for number, place in zip(numbers, best, strict=True)
        ]
    return {family: rows for family, rows in found.items() if rows}
