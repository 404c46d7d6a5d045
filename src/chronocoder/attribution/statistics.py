"""What is known of effects and of their controls, by the same procedure: means, intervals, tests and shares."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.attribution.controls import SHUFFLED, random_level
from chronocoder.attribution.measures import (
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
from chronocoder.config import AttributionSettings

PUBLISHED, TOTAL, METRIC = BASES = ("published", "total_effect", "metric_size")
"""What effects are divided by before they are shared out: nothing; the sum of all |IE| of the checkpoint; its |mu|."""


class Sampling(NamedTuple):
    """What all effects on a task are resampled and tested by.

    Attributes:
        units: what is resampled.
        draws: how often, shape (sample, unit).
        settings: resamples, swaps, what counts as measurable, and the seed.
    """

    units: Units
    draws: np.ndarray
    settings: AttributionSettings

    def generator(self, purpose: int) -> np.random.Generator:
        """Return a generator of its own for each purpose, so that no control changes the features' numbers."""
        return np.random.default_rng([self.settings.seed, purpose])


FEATURES, DIRECTIONS, ORDERS, HALVES = range(1, 5)
"""Purposes of random numbers."""


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
    effects: xr.DataArray, sizes: Mapping[str, xr.DataArray], sampling: Sampling, purpose: int
) -> Statistics:
    """Return what is known of effects (checkpoint, example, feature), of those that are not zero throughout.

    Args:
        effects: in logits.
        sizes: what resampled means are divided by, by basis.
        sampling: what they are resampled and tested by.
        purpose: of the random numbers.
    """
    units, draws, settings = sampling
    sums = unit_sums(_with_effect(effects), units)
    means = resampled_means(draws, sums, units)
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
        found[SHUFFLED] = effect_statistics(shuffled["effects"], own_sizes, sampling, ORDERS)
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


def measurable_effects(statistics: Statistics, level: xr.DataArray, settings: AttributionSettings) -> xr.DataArray:
    """Return which effects stand out from chance, from zero and from a level, dims (condition, checkpoint, feature)."""
    return measurable(statistics.effect, statistics.interval, rates_of(statistics), level, settings)


def divided(effects: xr.DataArray, size: xr.DataArray) -> xr.DataArray:
    """Return effects divided by a size of their checkpoint; NaN where that is zero."""
    return effects / size.where(size > 0)
