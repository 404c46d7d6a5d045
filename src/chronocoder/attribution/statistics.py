"""What is known of effects and of their controls, by the same procedure: means, intervals, tests and shares."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.attribution.controls import random_level
from chronocoder.attribution.measures import (
    SHUFFLED,
    Interval,
    course_support,
    mean_interval,
    measurable,
    share,
    share_interval,
)
from chronocoder.attribution.sampling import (
    Units,
    average,
    false_discovery_rates,
    resampled_means,
    swap_p_values,
    unit_sums,
)
from chronocoder.config import SCREEN, AttributionSettings

PUBLISHED, TOTAL, METRIC = BASES = ("published", "total_effect", "metric_size")
"""What effects are divided by before they are shared out: nothing; the sum of all |IE| of the checkpoint; its |mu|."""


class Sampling(NamedTuple):
    """What all effects on a task are resampled and tested by.

    Attributes:
        units: what is resampled.
        draws: how often, shape (sample, unit).
        settings: resamples, swaps, what counts as measurable, and the seed.
        floor: what rounding does to an effect, dims (checkpoint,), in logits.
    """

    units: Units
    draws: np.ndarray
    settings: AttributionSettings
    floor: xr.DataArray

    def generator(self, purpose: int) -> np.random.Generator:
        """Return a generator of its own for each purpose, so that no control changes the features' numbers."""
        return np.random.default_rng([self.settings.seed, purpose])


EPSILON = 1e-30
"""Size of effects below which they count as nothing."""
FEATURES, DIRECTIONS, ORDERS, HALVES, ERRORS = range(1, 6)
"""Purposes of random numbers."""


NEAREST = 19
"""Checked features whose errors may stand for that of an estimate: those of most similar size.

So many, because a further error exceeds the largest of n like ones in one of n + 1 cases: in 5 %.
"""


class Errors(NamedTuple):
    """What is known of the error of estimated effects: how far estimates of some features are from exact effects.

    An error grows with the effect. So it is taken as a fraction of the mean size of effects on examples, from features
    of similar size, and with either sign.

    Attributes:
        residuals: estimate less exact effect, summed by unit, dims (unit, checkpoint, checked_feature), in logits.
        sizes: size of the estimates of the same, summed by unit.
        estimated: the same of the features whose effects are estimates, dims (unit, checkpoint, feature).
        units: the units.
    """

    residuals: xr.DataArray
    sizes: xr.DataArray
    estimated: xr.DataArray
    units: Units

    def of(self, places: np.ndarray, units: Units) -> "Errors":
        """Return the same of some units, at these places."""
        residuals, sizes, estimated = (values.isel(unit=places) for values in self[:3])
        return Errors(residuals, sizes, estimated, units)

    def relative(self) -> xr.DataArray:
        """Return mean errors as a fraction of mean sizes, (condition, checkpoint, checked_feature); zero of nothing."""
        sizes = average(self.sizes, self.units)
        found: xr.DataArray = (average(self.residuals, self.units) / sizes.where(sizes > 0)).fillna(0.0)
        return found

    def size(self, confidence: float) -> xr.DataArray:
        """Return the fraction that most errors stay below, over checked features, dims (checkpoint,); NaN of none."""
        relative = abs(self.relative().isel(condition=0, drop=True))
        if not relative.sizes["checked_feature"]:
            return relative.sum("checked_feature") * np.nan
        return relative.quantile(confidence, "checked_feature").drop_vars("quantile")

    def added_to(self, means: xr.DataArray, generator: np.random.Generator) -> xr.DataArray:
        """Return resampled means (sample, condition, checkpoint, feature) with errors added to those of estimates.

        To each resample of each feature that of one of the `NEAREST` checked features, the same one at all conditions
        and checkpoints: so intervals of effects and of shares hold the estimator's error as well.
        """
        places = np.flatnonzero(np.isin(means["feature"], self.estimated["feature"]))
        count = self.residuals.sizes["checked_feature"]
        if not len(places) or not count:
            return means
        values = means.transpose("sample", "condition", "checkpoint", "feature").copy()
        own = average(self.estimated.sel(feature=means["feature"].values[places]), self.units)
        near = self._nearest(own)
        drawn = near[np.arange(len(places)), generator.integers(0, near.shape[1], (means.sizes["sample"], len(places)))]
        signs = generator.integers(0, 2, drawn.shape)[..., None, None] * 2 - 1
        of_drawn = signs * self.relative().transpose("checked_feature", "condition", "checkpoint").values[drawn]
        sizes = own.transpose("condition", "checkpoint", "feature").values
        values.values[..., places] += np.moveaxis(of_drawn, 1, -1) * sizes
        return values

    def _nearest(self, sizes: xr.DataArray) -> np.ndarray:
        """Return the checked features whose largest size is most like that of each feature, shape (feature, near)."""
        checked, wanted = (
            values.isel(condition=0).max("checkpoint").values for values in (average(self.sizes, self.units), sizes)
        )
        distance = abs(np.log(np.maximum(wanted, EPSILON))[:, None] - np.log(np.maximum(checked, EPSILON)))
        near: np.ndarray = np.argsort(distance, axis=1, kind="stable")[:, :NEAREST]
        return near


def errors_of(measured: xr.Dataset, units: Units) -> Errors:
    """Return what `measure_effects` tells of its estimator's error; nothing unless it worked in two stages."""
    estimates = measured["estimates"]
    exact = measured["effects"].sel(feature=measured["checked_feature"].values).rename(feature="checked_feature")
    of_screen = measured["effects"].isel(feature=np.flatnonzero(measured["estimator"].values == SCREEN))
    residuals, sizes, estimated = (
        unit_sums(values, units) for values in (estimates - exact, abs(estimates), abs(of_screen))
    )
    return Errors(residuals, sizes, estimated, units)


class Statistics(NamedTuple):
    """What is known of effects, with the mean of conditions as the first entry of the dimension `condition`.

    Attributes:
        effect: mean effects, dims (condition, checkpoint, feature), in logits.
        interval: their bootstrap interval.
        p_values: of no effect.
        relative: interval of the shares by basis.
        support: fraction of resamples with the most frequent course of the published share, dims (feature,).
    """

    effect: xr.DataArray
    interval: Interval
    p_values: xr.DataArray
    relative: Mapping[str, Interval]
    support: xr.DataArray

    def of(self, places: np.ndarray, features: np.ndarray) -> "Statistics":
        """Return what is known of some, by their places, under the numbers of the features they stand in for."""

        def some(values: xr.DataArray) -> xr.DataArray:
            return values.isel(feature=places).assign_coords(feature=features)

        relative = {basis: Interval(*map(some, interval)) for basis, interval in self.relative.items()}
        parts = some(self.effect), Interval(*map(some, self.interval)), some(self.p_values)
        return Statistics(*parts, relative, some(self.support))


class Controls(NamedTuple):
    """The controls of one task.

    Attributes:
        statistics: by the control's name; features are numbered as those that the control stands in for.
        level: the |IE| that random directions stay below, dims (condition, checkpoint, feature), of the features.
        own_level: the same by the control's name, for its own effects; a draw is judged by the others.
    """

    statistics: Mapping[str, Statistics]
    level: xr.DataArray
    own_level: Mapping[str, xr.DataArray]


def resampled_sizes(measured: xr.Dataset, sampling: Sampling) -> dict[str, xr.DataArray]:
    """Return what resampled means are divided by, by basis but the published one, (sample, condition, checkpoint)."""
    units, draws = sampling.units, sampling.draws
    metric = resampled_means(draws, unit_sums(abs(measured["clean_metric"]), units), units)
    means = resampled_means(draws, unit_sums(_with_effect(measured["effects"]), units), units)
    return {TOTAL: abs(means).sum("feature", skipna=False), METRIC: metric}


def effect_statistics(
    effects: xr.DataArray,
    sizes: Mapping[str, xr.DataArray],
    sampling: Sampling,
    purpose: int,
    errors: Errors | None = None,
) -> Statistics:
    """Return what is known of effects (checkpoint, example, feature), of those that are not zero throughout.

    Args:
        effects: in logits.
        sizes: what resampled means are divided by, by basis.
        sampling: what they are resampled and tested by.
        purpose: of the random numbers.
        errors: of estimates, where exact effects tell it.
    """
    units, draws, settings, _ = sampling
    sums = unit_sums(_with_effect(effects), units)
    means = resampled_means(draws, sums, units)
    if errors is not None:
        means = errors.added_to(means, sampling.generator(ERRORS))
    return Statistics(
        average(sums, units),
        intervals_of(mean_interval, means, settings),
        swap_p_values(sums, units, settings.swaps, sampling.generator(purpose), settings.false_discovery_rate),
        {basis: intervals_of(share_interval, means, settings, sizes.get(basis)) for basis in BASES},
        course_support(share(means.isel(condition=0, drop=True))),
    )


def _with_effect(effects: xr.DataArray) -> xr.DataArray:
    """Return the effects of the features that have one on some example."""
    return effects.sel(feature=(effects != 0).any(("checkpoint", "example")))


def intervals_of(
    interval_of: Callable[[xr.DataArray, float], Interval],
    means: xr.DataArray,
    settings: AttributionSettings,
    size: xr.DataArray | None = None,
) -> Interval:
    """Return the intervals of means, divided by a size if one is given, condition after condition to save memory."""
    found = []
    for place in range(means.sizes["condition"]):
        of_condition = means.isel(condition=[place])
        if size is not None:
            of_condition = divided(of_condition, size.isel(condition=[place]))
        found.append(interval_of(of_condition, settings.confidence))
    return Interval(*(xr.concat(ends, "condition") for ends in zip(*found, strict=True)))


def control_statistics(
    measured: xr.Dataset,
    shuffled: xr.Dataset | None,
    norms: xr.DataArray,
    features: Statistics,
    sizes: Mapping[str, xr.DataArray],
    sampling: Sampling,
) -> Controls:
    """Return what the same procedure says of the controls.

    Args:
        measured: what `measure_effects` returns.
        shuffled: the same of shuffled prefixes, where that control is wanted.
        norms: of decoder rows, dims (checkpoint, feature).
        features: what is known of the features.
        sizes: what their resampled means are divided by, by basis; random directions are divided by the same.
        sampling: what they are resampled and tested by.
    """
    found, level, own = {}, xr.full_like(features.effect, np.nan), {}
    if measured.sizes["control"]:
        together, draw, number = _all_directions(measured, sizes, sampling)
        written = average(unit_sums(measured["changes"], sampling.units), sampling.units) * norms
        written = written.transpose("condition", "checkpoint", "feature")

        def level_of(statistics: Statistics, places: np.ndarray) -> xr.DataArray:
            effects, wanted = together.effect.isel(feature=places), statistics.effect["feature"]
            return random_level(effects, number[places], wanted, written, sampling.settings.random_level)

        names = [str(name) for name in measured["control"].values]
        found = {name: together.of(draw == place, number[draw == place]) for place, name in enumerate(names)}
        level = level_of(features, np.arange(len(draw)))
        own = {name: level_of(found[name], np.flatnonzero(draw != place)) for place, name in enumerate(names)}
    if shuffled is not None:
        own_sizes = resampled_sizes(shuffled, sampling)
        errors = errors_of(shuffled, sampling.units)
        found[SHUFFLED] = effect_statistics(shuffled["effects"], own_sizes, sampling, ORDERS, errors)
        own[SHUFFLED] = level.reindex(feature=found[SHUFFLED].effect["feature"])
    return Controls(found, level, own)


def _all_directions(
    measured: xr.Dataset, sizes: Mapping[str, xr.DataArray], sampling: Sampling
) -> tuple[Statistics, np.ndarray, np.ndarray]:
    """Return what is known of the random directions of all draws, and the draw and the feature that each is of."""
    numbers = measured["control_features"].transpose("control", "control_feature").values
    flat = measured["control_effects"].stack(feature=("control", "control_feature"), create_index=False)
    effects = flat.drop_vars(["control", "control_feature"], errors="ignore")
    found = effect_statistics(effects.assign_coords(feature=np.arange(numbers.size)), sizes, sampling, DIRECTIONS)
    kept = found.effect["feature"].values
    return found, kept // numbers.shape[1], numbers.ravel()[kept]


def rates_of(statistics: Statistics) -> xr.DataArray:
    """Return the false discovery rates of the mean of conditions, and of all conditions together."""
    effect, interval = statistics.effect, statistics.interval
    tested = (effect != 0) | (interval.low != 0) | (interval.high != 0)
    parts = (slice(0, 1), slice(1, None))
    found = [
        false_discovery_rates(statistics.p_values.isel(condition=part), tested.isel(condition=part)) for part in parts
    ]
    return xr.concat(found, "condition", join="override", coords="minimal", compat="override")


def measurable_effects(statistics: Statistics, level: xr.DataArray, sampling: Sampling) -> xr.DataArray:
    """Return which effects stand out from chance, from zero, from a level and from rounding.

    Returns:
        Dims (condition, checkpoint, feature).
    """
    bar = xr.apply_ufunc(np.fmax, level, sampling.floor)
    return measurable(statistics.effect, statistics.interval, rates_of(statistics), bar, sampling.settings)


def divided(effects: xr.DataArray, size: xr.DataArray) -> xr.DataArray:
    """Return effects divided by a size of their checkpoint; NaN where that is zero."""
    return effects / size.where(size > 0)
