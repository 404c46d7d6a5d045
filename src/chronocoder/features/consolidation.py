"""Whether features serve several languages at once, and since when: overlap of their effects between languages.

Tasks of one phenomenon in several languages are a family. For each family, checkpoint and pair of languages, the
effects of features in the one language are compared with those in the other. Effects are those on half of the prefixes,
so that noise lowers the ceiling, the overlap between the two halves of one language, as much as the overlap between two
languages, and what selects a feature never confirms it.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from chronocoder.attribution.measures import SHUFFLED
from chronocoder.attribution.sampling import false_discovery_rates
from chronocoder.config import ConsolidationSettings
from chronocoder.errors import ConfigError
from chronocoder.features.overlap import (
    FEATURES_A_STRATUM,
    Interval,
    bootstrapped,
    crossed_overlap,
    exchanged_together,
    fractions,
    largest,
    overlap,
    permuted,
    ratio,
    strata_of,
)
from chronocoder.stores import labelled, strings

TOP, WEIGHTED = MEASURES = ("top", "weighted")
"""The Jaccard index of the features of largest effect; that of all features, weighted by fractions of the effect."""
EITHER, HELPING = SIGNS = ("either", "helping")
"""The size of an effect whatever its sign; only effects that help the right answer."""
LOW, HIGH = "_low", "_high"
SEEN = ("measurable", "indirect_effect")

Families = Mapping[str, Mapping[str, list[int]]]
"""The places of tasks by family and language."""


class Sizes(NamedTuple):
    """Sizes of effects, means over a family's tasks in a language; NaN where it has none.

    Attributes:
        halves: on each half of the prefixes.
        random: of random directions on all prefixes; zero where one has no effect.
        activity: what features write on the prefixes, in units of their own.
        measurable: whether an effect is measurable, on some task.
    """

    halves: Float[np.ndarray, "sign family language checkpoint half feature"]
    random: Float[np.ndarray, "sign family language checkpoint direction"]
    activity: Float[np.ndarray, "family language checkpoint feature"]
    measurable: Bool[np.ndarray, "sign family language checkpoint feature"]


def families_of(relie: xr.Dataset) -> dict[str, dict[str, list[int]]]:
    """Return the places of tasks by phenomenon and language, of the phenomena that have tasks in several languages."""
    found: dict[str, dict[str, list[int]]] = {}
    groups = zip(relie["phenomenon"].values.tolist(), relie["language"].values.tolist(), strict=True)
    for place, (phenomenon, language) in enumerate(groups):
        if phenomenon and language:
            found.setdefault(phenomenon, {}).setdefault(language, []).append(place)
    return {phenomenon: places for phenomenon, places in found.items() if len(places) > 1}


def consolidate(relie: xr.Dataset, settings: ConsolidationSettings) -> xr.Dataset:
    """Compare the effects of features between languages, beside null levels, a ceiling and other families.

    Args:
        relie: effects on all tasks, with the coordinates `language` and `phenomenon` along `task`.
        settings: how many top features, permutations and resamples.

    Returns:
        `overlap` with dims (measure, sign, family, checkpoint, language_pair) and what it is to be seen beside, and how
        many languages each feature serves, of all pairs of languages that have a family in common. NaN where one of the
        two languages has no measurable effect, or no task of the family.

    Raises:
        ConfigError: no phenomenon has tasks in several languages.
    """
    families = families_of(relie)
    if not families:
        raise ConfigError(
            "no phenomenon has tasks in several languages; give tasks of one phenomenon, each with its language"
        )
    languages = list(dict.fromkeys(language for places in families.values() for language in places))
    sizes = _sizes(relie, families, languages)
    together = {frozenset(pair) for places in families.values() for pair in combinations(places, 2)}
    every = combinations(range(len(languages)), 2)
    pairs = [pair for pair in every if frozenset(languages[place] for place in pair) in together]
    shape = (len(families), relie.sizes["checkpoint"], len(pairs))
    generator = np.random.default_rng(settings.seed)
    compared = [
        _compare(sizes, family, checkpoint, pairs[pair], settings, generator)
        for family, checkpoint, pair in np.ndindex(shape)
    ]
    arrays = {
        name: np.stack([values[name] for values in compared], axis=-1).reshape(*compared[0][name].shape, *shape)
        for name in compared[0]
    }
    dims = ("measure", "sign", "family", "checkpoint", "language_pair")
    found = {name: xr.DataArray(values, dims=dims[-values.ndim :]) for name, values in arrays.items()}
    return _described(
        {
            **found,
            **_claims(found, settings),
            **_serving(relie, families, languages, sizes),
            **_serving_by_chance(sizes, settings, generator),
        },
        {
            "measure": strings(MEASURES),
            "sign": strings(SIGNS),
            "family": strings(list(families)),
            "checkpoint": relie["checkpoint"].values,
            "tokens_seen": ("checkpoint", relie["tokens_seen"].values),
            "feature": relie["feature"].values,
            "language": strings(languages),
            "served": np.arange(1, len(languages) + 1),
            "language_pair": strings([f"{languages[first]}, {languages[second]}" for first, second in pairs]),
            "first_language": ("language_pair", strings([languages[first] for first, _ in pairs])),
            "second_language": ("language_pair", strings([languages[second] for _, second in pairs])),
        },
        settings,
    )


def _sizes(relie: xr.Dataset, families: Families, languages: Sequence[str]) -> Sizes:
    halves = relie["half_indirect_effect"].transpose("task", "condition", "checkpoint", "half", "feature").values
    written = relie["mean_activation"] * relie["relative_decoder_norm"]
    seen, effect = (relie[name].transpose("task", "checkpoint", "feature").values for name in SEEN)
    seen_by_sign = [seen, seen & (effect > 0)]
    return Sizes(
        np.stack([_grouped(_mean_size(halves, sign), families, languages) for sign in SIGNS]),
        np.stack([_grouped(_random_sizes(relie, sign), families, languages) for sign in SIGNS]),
        _grouped(written.transpose("task", "checkpoint", "feature").values, families, languages),
        np.stack([_grouped(of.astype(float), families, languages) > 0 for of in seen_by_sign]),
    )


def _random_sizes(relie: xr.Dataset, sign: str) -> Float[np.ndarray, "task checkpoint direction"]:
    """Return the sizes of the effects of all draws of random directions, side by side; none without draws."""
    if "control_indirect_effect" not in relie:
        return np.zeros((relie.sizes["task"], relie.sizes["checkpoint"], 0))
    draws = relie["control_indirect_effect"].sel(control=[name != SHUFFLED for name in relie["control"].values])
    values = draws.transpose("task", "condition", "checkpoint", "control", "feature").values
    found: np.ndarray = np.nan_to_num(_mean_size(values, sign).reshape(len(values), values.shape[2], -1))
    return found


def _mean_size(effects: Float[np.ndarray, "task condition ..."], sign: str) -> Float[np.ndarray, "task ..."]:
    """Return the size of effects by condition, a mean over the conditions that a task has; NaN without any.

    What helps in one condition and harms as much in another has a size, but does not help.
    """
    known = np.isfinite(effects)
    summed = np.where(known, np.abs(effects) if sign == EITHER else effects, 0).sum(axis=1)
    return ratio(summed.clip(min=0), known.sum(axis=1))


def _grouped(
    values: Float[np.ndarray, "task ..."], families: Families, languages: Sequence[str]
) -> Float[np.ndarray, "family language ..."]:
    """Return means over the tasks of a family in a language, NaN where there are none."""
    found = np.full((len(families), len(languages), *values.shape[1:]), np.nan)
    for family, places in enumerate(families.values()):
        for language, of_language in places.items():
            found[family, languages.index(language)] = values[of_language].mean(axis=0)
    return found


def _compare(
    sizes: Sizes,
    family: int,
    checkpoint: int,
    pair: tuple[int, int],
    settings: ConsolidationSettings,
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Compare two languages in one family at one checkpoint; values by measure and sign, counts by sign."""
    here = sizes.halves[:, :, :, checkpoint]
    seen = sizes.measurable[:, family, pair, checkpoint].sum(axis=-1).min(axis=1)
    counts = np.minimum(seen, settings.top_features)
    first, second = (_by_measure(here[:, family, language], counts) for language in pair)
    strata = strata_of(np.nan_to_num(sizes.activity[family, pair[1], checkpoint]), FEATURES_A_STRATUM)
    null = permuted(first, second, strata, settings.permutations, settings.confidence, generator)
    found = {
        **_with_ends("overlap", bootstrapped(first, second, settings.samples, settings.confidence, generator)),
        **_with_ends("permuted", null.level),
        "p_value": null.p_value,
        **_with_ends("random", _random_level(sizes, family, checkpoint, pair, counts, settings, generator)),
        "ceiling": np.mean([overlap(of[..., 0, :], of[..., 1, :]) for of in (first, second)], axis=0),
        "other_families": _other_families(here, family, pair, counts),
    }
    return {
        **{name: np.where(counts > 0, values, np.nan) for name, values in found.items()},
        "features_compared": counts,
    }


def _with_ends(name: str, interval: Interval) -> dict[str, np.ndarray]:
    return {name: interval.estimate, f"{name}{LOW}": interval.low, f"{name}{HIGH}": interval.high}


def _by_measure(
    sizes: Float[np.ndarray, "sign half feature"], counts: np.ndarray
) -> Float[np.ndarray, "measure sign half feature"]:
    """Return what each measure compares: which features are the largest, or fractions of the sum."""
    known = np.nan_to_num(sizes)
    top = np.stack([largest(of, int(count)) for of, count in zip(known, counts, strict=True)])
    return np.stack([top, fractions(known)])


def _random_level(
    sizes: Sizes,
    family: int,
    checkpoint: int,
    pair: tuple[int, int],
    counts: np.ndarray,
    settings: ConsolidationSettings,
    generator: np.random.Generator,
) -> Interval:
    """Return the overlap of random directions, of which the same fraction counts as the largest; on all prefixes."""
    features = (sizes.halves[:, family, pair, checkpoint] > 0).any(axis=(1, 2)).sum(axis=-1)
    effects = sizes.random[:, family, pair, checkpoint]
    directions = (effects > 0).any(axis=1).sum(axis=-1)
    scaled = np.maximum(1, np.round(np.nan_to_num(ratio(counts * directions, features)))).astype(int)
    first, second = (_by_measure(effects[:, language, None], scaled) for language in range(len(pair)))
    return bootstrapped(first, second, settings.samples, settings.confidence, generator)


def _other_families(
    halves: Float[np.ndarray, "sign family language half feature"],
    family: int,
    pair: tuple[int, int],
    counts: np.ndarray,
) -> Float[np.ndarray, "measure sign"]:
    """Return the mean overlap with the other families in the same language; NaN if there are none."""
    others = [
        crossed_overlap(*(_by_measure(halves[:, one, language], counts) for one in (family, other)))
        for language in pair
        for other in range(halves.shape[1])
        if other != family and np.isfinite(halves[:, other, language]).all()
    ]
    found: np.ndarray = np.mean(others, axis=0) if others else np.full((len(MEASURES), len(SIGNS)), np.nan)
    return found


def _claims(found: Mapping[str, xr.DataArray], settings: ConsolidationSettings) -> dict[str, xr.DataArray]:
    """Return overlap corrected for chance, false discovery rates, and where it exceeds every control by some amount."""
    p_value = found["p_value"]
    q_value = xr.full_like(p_value, np.nan)
    for kind in np.ndindex(p_value.shape[:2]):
        tested = p_value[kind].notnull()
        q_value[kind] = false_discovery_rates(p_value[kind].fillna(1.0), tested).where(tested)
    room = found["ceiling"] - found["permuted"]
    beyond = found["overlap_low"] > found["random"]  # never without random directions
    corrected = (found["overlap"] - found["permuted"]) / room.where(room > 0)
    passes = (q_value <= settings.false_discovery_rate) & (corrected >= settings.smallest_overlap)
    return {"corrected_overlap": corrected, "q_value": q_value, "shared": passes & beyond}


def _serving(relie: xr.Dataset, families: Families, languages: Sequence[str], sizes: Sizes) -> dict[str, xr.DataArray]:
    """Return how many languages each feature serves, and how much of the effect is of features that serve so many."""
    helps = sizes.measurable[SIGNS.index(HELPING)]
    served = helps.sum(axis=1)
    effect = _grouped(relie["indirect_effect"].transpose("task", "checkpoint", "feature").values, families, languages)
    weight = fractions(np.where(helps, np.nan_to_num(effect).clip(min=0), 0.0))
    whole = weight.sum(axis=(1, 3))
    counts = np.arange(1, len(languages) + 1)
    parts = [ratio((weight * (served == count)[:, None]).sum(axis=(1, 3)), whole) for count in counts]
    return {
        "measurable_features": xr.DataArray(
            sizes.measurable.sum(axis=-1), dims=("sign", "family", "language", "checkpoint")
        ),
        "languages_served": xr.DataArray(served, dims=("family", "checkpoint", "feature")),
        "features_serving": xr.DataArray(
            (served[..., None] == counts).sum(axis=2), dims=("family", "checkpoint", "served")
        ),
        "effect_by_languages_served": xr.DataArray(np.stack(parts, axis=-1), dims=("family", "checkpoint", "served")),
    }


def _serving_by_chance(
    sizes: Sizes, settings: ConsolidationSettings, generator: np.random.Generator
) -> dict[str, xr.DataArray]:
    """Return how many features serve several languages if those of each are exchanged among those that write as much.

    NaN where features help in no two languages.
    """
    helps = sizes.measurable[SIGNS.index(HELPING)]
    dims = ("family", "checkpoint")
    names = ("several_by_chance", "several_by_chance_low", "several_by_chance_high", "several_p_value")
    found = np.full((len(names), helps.shape[0], helps.shape[2]), np.nan)
    for family, checkpoint in np.ndindex(found.shape[1:]):
        flags = helps[family, :, checkpoint]
        if flags.any(axis=1).sum() < 2:
            continue
        activity = np.nan_to_num(sizes.activity[family, :, checkpoint])
        strata = np.stack([strata_of(of, FEATURES_A_STRATUM) for of in activity])
        null = exchanged_together(flags, strata, settings.permutations, settings.confidence, generator)
        found[:, family, checkpoint] = *null.level, null.p_value
    arrays = {name: xr.DataArray(values, dims=dims) for name, values in zip(names, found, strict=True)}
    tested = arrays["several_p_value"].notnull()
    rates = false_discovery_rates(arrays["several_p_value"].fillna(1.0), tested).where(tested)
    return {**arrays, "several_q_value": rates, "several_beyond": rates <= settings.false_discovery_rate}


LONG_NAMES = {
    "overlap": "overlap of features between the two languages, on different prefixes",
    "overlap_low": "lower end of its {percent} interval over features",
    "overlap_high": "upper end of its {percent} interval over features",
    "ceiling": "overlap between the two halves of the prefixes of one language, mean of both languages",
    "permuted": "overlap with features of one language exchanged among those that write as much there, mean",
    "permuted_low": "lower end of the {percent} range of exchanges",
    "permuted_high": "upper end of the {percent} range of exchanges",
    "p_value": "fraction of exchanges with at least the overlap observed",
    "q_value": "least false discovery rate at which the overlap passes, over families, checkpoints and pairs",
    "random": "overlap of random directions between the two languages",
    "random_low": "lower end of its {percent} interval over directions",
    "random_high": "upper end of its {percent} interval over directions",
    "other_families": "overlap with other families in the same language, mean",
    "corrected_overlap": "overlap beyond exchanges, as a fraction of the ceiling beyond exchanges",
    "shared": "whether the overlap passes, is of interest, and has its interval above random directions",
    "features_compared": "features of largest effect that are compared",
    "measurable_features": "features with a measurable effect on the family's tasks in the language",
    "languages_served": "languages in which the feature measurably helps the right answer",
    "features_serving": "features that measurably help in so many languages",
    "several_by_chance": "features that help in several languages, with those of each exchanged, mean",
    "several_by_chance_low": "lower end of the {percent} range of exchanges",
    "several_by_chance_high": "upper end of the {percent} range of exchanges",
    "several_p_value": "fraction of exchanges with at least as many features that help in several languages",
    "several_q_value": "least false discovery rate at which they pass, over families and checkpoints",
    "several_beyond": "whether more features help in several languages than by chance",
    "effect_by_languages_served": "fraction of the measurable helping effect that is of features that serve so many",
}


def _described(
    variables: Mapping[str, xr.DataArray], coordinates: Mapping[str, object], settings: ConsolidationSettings
) -> xr.Dataset:
    percent = f"{settings.confidence:.0%}"
    return xr.Dataset(
        {
            name: labelled(
                tuple(map(str, values.dims)),
                values.astype(np.float32).values if values.dtype.kind == "f" else values.values,
                LONG_NAMES[name].format(percent=percent),
            )
            for name, values in variables.items()
        },
        coords=coordinates,
    )
