"""From effects on single examples to means, intervals, tests, shares and classes of features, beside their controls."""

import logging
from collections.abc import Mapping

import numpy as np
import xarray as xr

from chronocoder.attribution.attribute import completeness_gap
from chronocoder.attribution.controls import chance_of_counts, class_counts
from chronocoder.attribution.measures import (
    CLASSES,
    Interval,
    changes_sign,
    classify,
    mean_interval,
    peak,
    share,
)
from chronocoder.attribution.sampling import (
    Units,
    average,
    bootstrap_draws,
    resampled_means,
    unit_sums,
    units_of,
)
from chronocoder.attribution.statistics import (
    BASES,
    FEATURES,
    HALVES,
    METRIC,
    PUBLISHED,
    TOTAL,
    Controls,
    Errors,
    Sampling,
    Statistics,
    control_statistics,
    divided,
    effect_statistics,
    errors_of,
    intervals_of,
    measurable_effects,
    rates_of,
    resampled_sizes,
)
from chronocoder.config import AttributionSettings
from chronocoder.stores import labelled, strings
from chronocoder.tasks.rows import unit_of

OF_METRIC = ("_effect", "_level", "_floor", "metric_size")
_log = logging.getLogger(__name__)


def summarise_effects(
    measured: xr.Dataset,
    task: xr.Dataset,
    decoder_norms: np.ndarray,
    tokens_seen: Mapping[str, int],
    settings: AttributionSettings,
    shuffled: xr.Dataset | None = None,
) -> xr.Dataset:
    """Average effects over examples, with intervals, tests, shares and classes, of features and of their controls.

    Args:
        measured: what `measure_effects` returns.
        task: the task it was measured on.
        decoder_norms: in normalised units, shape (checkpoint, feature).
        tokens_seen: tokens seen by revision.
        settings: resamples, swaps, what counts as measurable, and the seed.
        shuffled: the effects on prefixes of shuffled tokens, where that control is wanted.

    Returns:
        The store `attribution/<task>.zarr`. Only features that have an effect on some example are resampled.
    """
    effects, units = measured["effects"], units_of(task)
    gap = completeness_gap(measured)
    gap = gap if settings.complete or settings.estimator != "published" else gap * np.nan
    _warn_of_gaps(gap, settings)
    draws = bootstrap_draws(units, settings.bootstrap_samples, np.random.default_rng(settings.seed))
    floor = measured["rounding"].mean("example")
    sampling, errors = Sampling(units, draws, settings, floor), errors_of(measured, units)
    norms = xr.DataArray(
        decoder_norms, dims=("checkpoint", "feature"), coords=effects.isel(example=0, drop=True).coords
    )
    sizes = resampled_sizes(measured, sampling)
    statistics = effect_statistics(effects, sizes, sampling, FEATURES, errors)
    controls = control_statistics(measured, shuffled, norms, statistics, sizes, sampling)
    used = effects["feature"].isin(statistics.effect["feature"])
    of_used = {
        **_effect_variables(statistics, controls.level, sampling),
        **_share_variables(statistics, _mean(abs(measured["clean_metric"]), units)),
        **_half_variables(unit_sums(effects.sel(feature=used), units), sampling, errors),
    }
    variables = {
        **{name: _of_all_features(values, name, effects["feature"]) for name, values in of_used.items()},
        **_control_variables(controls, effects["feature"], sampling),
        "relative_decoder_norm": share(norms),
        "activation_frequency": measured["activation_frequency"],
        "mean_activation": measured["mean_activation"],
        "error_effect": _mean(measured["error_effects"], units),
        "total_effect": _mean(measured["total_effects"], units),
        "metric_size": _mean(abs(measured["clean_metric"]), units),
        "completeness_gap": gap,
        "noise_floor": floor,
        "estimator": measured["estimator"],
        "estimation_error": errors.size(settings.confidence),
        "pairs": xr.DataArray(np.bincount(units.condition, units.size).astype(int), dims="condition"),
        "prefixes": xr.DataArray(np.bincount(units.condition), dims="condition"),
    }
    variables |= _count_variables(variables, used)
    revisions = [str(revision) for revision in effects["checkpoint"].values]
    return xr.Dataset(
        {name: _described(values, str(name), settings, unit_of(task)) for name, values in variables.items()},
        coords={
            "checkpoint": strings(revisions),
            "tokens_seen": ("checkpoint", [tokens_seen[revision] for revision in revisions]),
            "feature": effects["feature"].values,
            "condition": strings(units.conditions),
            "normalisation": strings(BASES[1:]),
            "basis": strings(BASES),
            "control": strings(list(controls.statistics)),
            "class": strings(CLASSES),
            "half": [0, 1],
        },
    )


def _effect_variables(statistics: Statistics, level: xr.DataArray, sampling: Sampling) -> dict[str, xr.DataArray]:
    """Return effects, tests and published classes, of the mean of conditions and of each condition."""
    effect, relative = statistics.effect, statistics.relative[PUBLISHED]
    seen = measurable_effects(statistics, level, sampling)
    each = {
        "indirect_effect": effect,
        "indirect_effect_low": statistics.interval.low,
        "indirect_effect_high": statistics.interval.high,
        "p_value": statistics.p_values,
        "q_value": rates_of(statistics),
        "measurable": seen,
        "relative_indirect_effect": share(effect),
        "relative_indirect_effect_low": relative.low,
        "relative_indirect_effect_high": relative.high,
        "reverses": changes_sign(effect, seen, "checkpoint"),
        **classify(relative, seen).data_vars,
    }
    overall = {str(name): _overall(values) for name, values in each.items()}
    of_conditions = {f"{OF_CONDITION}{name}": values.isel(condition=slice(1, None)) for name, values in each.items()}
    ever, classes = overall["measurable"].any("checkpoint"), _classes(statistics, seen)
    normalised = classes.isel(basis=slice(1, None)).rename(basis="normalisation")
    own, own_seen = (values.isel(condition=slice(1, None)) for values in (effect, seen))
    return {
        **overall,
        **of_conditions,
        "reverses": of_conditions[f"{OF_CONDITION}reverses"].any("condition"),
        "conditions_disagree": changes_sign(own, own_seen, "condition"),
        "normalised_class": _overall(normalised),
        f"{OF_CONDITION}normalised_class": normalised.isel(condition=slice(1, None)),
        "random_level": _overall(level),
        f"{OF_CONDITION}random_level": level.isel(condition=slice(1, None)),
        "class_support": statistics.support.where(ever),
        "peak": peak(Interval(*map(_overall, relative))).where(ever, ""),
    }


def _classes(statistics: Statistics, seen: xr.DataArray) -> xr.DataArray:
    """Return the class by each basis, of the mean of conditions and of each condition: (basis, condition, feature)."""
    found = [classify(statistics.relative[basis], seen)["feature_class"] for basis in BASES]
    joined: xr.DataArray = xr.concat(found, "basis")
    return joined


def _share_variables(statistics: Statistics, metric: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return the shares of effects that are divided by what grows as a model becomes sure of its answers."""
    effect = statistics.effect
    divisors = {TOTAL: abs(effect).sum("feature"), METRIC: metric}
    name = "normalised_relative_indirect_effect"
    each = {
        name: [share(divided(effect, size)) for size in divisors.values()],
        f"{name}_low": [statistics.relative[basis].low for basis in divisors],
        f"{name}_high": [statistics.relative[basis].high for basis in divisors],
    }
    joined = {key: xr.concat(values, "normalisation") for key, values in each.items()}
    return {
        **{key: _overall(values) for key, values in joined.items()},
        **{f"{OF_CONDITION}{key}": values.isel(condition=slice(1, None)) for key, values in joined.items()},
    }


def _half_variables(sums: xr.DataArray, sampling: Sampling, errors: Errors) -> dict[str, xr.DataArray]:
    """Return the effects in each half of the prefixes, so that one may choose a feature and the other confirm it."""
    units, settings, generator = sampling.units, sampling.settings, sampling.generator(HALVES)
    effects, intervals = [], []
    for number in (0, 1):
        places = units.half(number)
        own, own_sums = units.some(places), sums.isel(unit=places)
        draws = bootstrap_draws(own, settings.bootstrap_samples, generator)
        effects.append(average(own_sums, own))
        means = errors.of(places, own).added_to(resampled_means(draws, own_sums, own), generator)
        intervals.append(intervals_of(mean_interval, means, settings))
    name = "half_indirect_effect"
    found = {name: effects, f"{name}_low": [of.low for of in intervals], f"{name}_high": [of.high for of in intervals]}
    return {name: xr.concat(halves, "half").isel(condition=slice(1, None)) for name, halves in found.items()}


def _control_variables(controls: Controls, features: xr.DataArray, sampling: Sampling) -> dict[str, xr.DataArray]:
    """Return effects and classes of the controls; NaN, false and empty for features that a control does not have."""
    found: dict[str, list[xr.DataArray]] = {}
    for name, statistics in controls.statistics.items():
        seen = measurable_effects(statistics, controls.own_level[name], sampling)
        classes = _classes(statistics, seen)
        own = {
            "control_indirect_effect": statistics.effect.isel(condition=slice(1, None)),
            "control_measurable": _overall(seen),
            "control_class": _overall(classes),
            f"{OF_CONDITION}control_class": classes.isel(condition=slice(1, None)),
            "control_reverses": _reverses(statistics, seen).any("condition"),
        }
        for key, values in own.items():
            fill = {"f": np.nan, "b": False}.get(values.dtype.kind, "")
            found.setdefault(key, []).append(values.reindex(feature=features, fill_value=fill))
    return {key: xr.concat(values, _names(controls)) for key, values in found.items()}


def _reverses(statistics: Statistics, seen: xr.DataArray) -> xr.DataArray:
    """Return which effects are measurable with either sign within a condition, dims (condition, feature)."""
    of_conditions = slice(1, None)
    return changes_sign(
        statistics.effect.isel(condition=of_conditions), seen.isel(condition=of_conditions), "checkpoint"
    )


def _count_variables(variables: Mapping[str, xr.DataArray], used: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return how many features and controls have each class, and whether features have it more often than chance."""
    classes = {
        part: xr.concat(
            [
                variables[f"{part}feature_class"],
                variables[f"{part}normalised_class"].rename(normalisation="basis"),
            ],
            "basis",
            coords="minimal",
            compat="override",
        )
        for part in ("", OF_CONDITION)
    }
    counts: dict[str, xr.DataArray] = {"features_tested": used.sum(), "reverses_count": variables["reverses"].sum()}
    for part, own in classes.items():
        counts[f"{part}class_count"] = class_counts(own, used)
    if "control_class" not in variables:
        return counts
    tested = variables["control_indirect_effect"].notnull().any(("condition", "checkpoint"))
    counts["controls_tested"] = tested.sum("feature")
    counts["control_reverses_count"] = variables["control_reverses"].sum("feature")
    for part in classes:
        found = class_counts(variables[f"{part}control_class"], tested)
        counts[f"{part}control_class_count"] = found
        counts[f"{part}class_p_value"] = chance_of_counts(
            counts[f"{part}class_count"], int(used.sum()), found, counts["controls_tested"]
        )
    return counts


OF_CONDITION = "condition_"
RATED = {
    "indirect_effect": "indirect effect of changing the feature",
    "indirect_effect_low": "lower end of its {percent} interval",
    "indirect_effect_high": "upper end of its {percent} interval",
    "p_value": "fraction of random swaps of right and wrong that give an effect of this size",
    "q_value": "least false discovery rate at which the effect passes",
    "measurable": "whether the effect stands out from chance, from random directions, from rounding and from zero",
    "relative_indirect_effect": "share of the absolute indirect effect",
    "relative_indirect_effect_low": "lower end of its {percent} interval",
    "relative_indirect_effect_high": "upper end of its {percent} interval",
    "reverses": "whether the effect is measurable with either sign within a condition",
    "feature_class": "course of the feature over training",
    "onset": "first checkpoint at which it is present",
    "kept": "whether it is present at the last checkpoint for certain",
    "random_level": "|IE| that {level} of random directions that write as much stay below",
    "normalised_relative_indirect_effect": "share of the indirect effect divided by a size of the checkpoint",
    "normalised_relative_indirect_effect_low": "lower end of its {percent} interval",
    "normalised_relative_indirect_effect_high": "upper end of its {percent} interval",
    "normalised_class": "course of the feature by the normalised share",
}
LONG_NAMES = {
    **{name: f"{words}, mean of conditions" for name, words in RATED.items()},
    **{f"{OF_CONDITION}{name}": f"{words}, by condition" for name, words in RATED.items()},
    "reverses": RATED["reverses"],
    "conditions_disagree": "whether the effect is measurable with either sign, by condition",
    "half_indirect_effect": "indirect effect in one half of the prefixes",
    "half_indirect_effect_low": "lower end of its {percent} interval",
    "half_indirect_effect_high": "upper end of its {percent} interval",
    "relative_decoder_norm": "share of the decoder norm",
    "activation_frequency": "fraction of the examples with the feature active",
    "mean_activation": "mean activation over the tokens of the prefixes",
    "class_support": "fraction of the resamples with the most frequent course",
    "peak": "checkpoint at which its share is largest for certain",
    "error_effect": "indirect effect of changing the error term",
    "total_effect": "true effect of changing all features and the error term",
    "metric_size": "mean of |wrong minus right|",
    "completeness_gap": "fraction of the true change that the effects miss or exceed",
    "noise_floor": "mean size of what rounding does to an effect",
    "estimator": "estimator that the feature's effects come from",
    "estimation_error": "fraction of the mean size of effects that {percent} of estimates err by less than",
    "pairs": "pairs of the condition",
    "prefixes": "different prefixes of the condition, the units that are resampled",
    "control_indirect_effect": "indirect effect of the control that stands in for the feature",
    "control_measurable": "whether that effect is measurable",
    "control_class": "course of the control over training",
    "condition_control_class": "course of the control over training, by condition",
    "features_tested": "features with an effect on some example",
    "reverses_count": "features whose effect reverses within a condition",
    "class_count": "features with the class",
    "condition_class_count": "features with the class, by condition",
    "controls_tested": "controls with an effect on some example",
    "control_reverses": "whether its effect reverses within a condition",
    "control_reverses_count": "controls whose effect reverses within a condition",
    "control_class_count": "controls with the class",
    "condition_control_class_count": "controls with the class, by condition",
    "class_p_value": "probability of so frequent a class if features had it as often as random directions",
    "condition_class_p_value": "the same by condition",
}
UNUSED = {
    "indirect_effect": 0.0,
    "indirect_effect_low": 0.0,
    "indirect_effect_high": 0.0,
    "p_value": 1.0,
    "q_value": 1.0,
    "measurable": False,
    "feature_class": "no effect",
    "normalised_class": "no effect",
    "onset": "",
    "kept": False,
    "reverses": False,
}
"""What is stored of features without effect on any example, where it is not NaN."""
UNUSED |= {f"{OF_CONDITION}{name}": value for name, value in UNUSED.items()}
UNUSED |= {f"half_indirect_effect{end}": 0.0 for end in ("", "_low", "_high")}
UNUSED |= {"conditions_disagree": False, "peak": ""}


def _of_all_features(values: xr.DataArray, name: str, features: xr.DataArray) -> xr.DataArray:
    return values.reindex(feature=features.values, fill_value=UNUSED.get(name, np.nan))


def _described(values: xr.DataArray, name: str, settings: AttributionSettings, unit: str) -> xr.Variable:
    of_effect = name.removesuffix("_low").removesuffix("_high").endswith(OF_METRIC)
    units = unit if of_effect and "relative" not in name else "1"
    words = LONG_NAMES[name].format(percent=f"{settings.confidence:.0%}", level=f"{settings.random_level:.0%}")
    stored = values.astype(np.float32) if values.dtype.kind == "f" else values
    return labelled(tuple(map(str, values.dims)), stored.values, words, units)


def _overall(values: xr.DataArray) -> xr.DataArray:
    """Return the mean of conditions, which comes first."""
    return values.isel(condition=0, drop=True)


def _names(controls: Controls) -> xr.DataArray:
    return xr.DataArray(strings(list(controls.statistics)), dims="control", name="control")


def _mean(values: xr.DataArray, units: Units) -> xr.DataArray:
    return _overall(average(unit_sums(values, units), units))


def _warn_of_gaps(gap: xr.DataArray, settings: AttributionSettings) -> None:
    if settings.estimator != "published" or not settings.complete:
        return
    for revision in gap["checkpoint"].values[(gap > settings.completeness_tolerance).values]:
        _log.warning(
            "effects at checkpoint %s miss the true change by %.1f %%, more than attribution.completeness_tolerance"
            " %.1f %%; raise attribution.steps above %d",
            revision,
            100 * float(gap.sel(checkpoint=revision)),
            100 * settings.completeness_tolerance,
            settings.steps,
        )
