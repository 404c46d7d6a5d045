"""What effects are averaged over, resampled by and tested against: conditions, prefixes, random swaps."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.stores import strings
from chronocoder.tasks.rows import by_member

WHOLE = "all"
"""Name of the condition of tasks that name none."""
OVERALL = "mean of conditions"
SWAPS_AT_ONCE = 500
FINER = 100
"""Times as many swaps for effects that none reached, where there are too many tests to pass at their p-value."""
ROUNDING = 1e-5
"""Sums in float32 that differ by less than this fraction of the sum of sizes are ties."""


class Units(NamedTuple):
    """How the examples of a task are averaged and resampled.

    Pairs with the same prefix are not independent. A unit, which is resampled, is a prefix within a condition; right
    and wrong are swapped for a prefix in all conditions together, and a prefix belongs to one half of them.

    Attributes:
        conditions: their names, in order of appearance.
        unit: the unit of each example, shape (example,); units of one condition follow each other.
        condition: place in `conditions` of each unit, shape (unit,).
        prefix: number of each unit's prefix, shape (unit,); a prefix may occur in several conditions.
        size: examples in each unit, shape (unit,).
    """

    conditions: list[str]
    unit: np.ndarray
    condition: np.ndarray
    prefix: np.ndarray
    size: np.ndarray

    def half(self, number: int) -> np.ndarray:
        """Return the units of a half (0 or 1): their places, ascending.

        In each condition every other prefix that no earlier condition has; one of an earlier condition keeps its half.
        """
        halves = np.full(int(self.prefix.max()) + 1, -1)
        for place in range(len(self.conditions)):
            own = self.prefix[self.of_condition(place)]
            new = own[halves[own] < 0]
            halves[new] = np.arange(len(new)) % 2
        return np.flatnonzero(halves[self.prefix] == number)

    def some(self, places: np.ndarray) -> "Units":
        """Return some of the units, at places that ascend; which example is in which is left out."""
        chosen = self.condition[places], self.prefix[places], self.size[places]
        return Units(self.conditions, np.empty(0, dtype=np.int64), *chosen)

    def of_condition(self, place: int) -> slice:
        """Return the units of a condition."""
        return slice(*np.searchsorted(self.condition, [place, place + 1]))


def sampling_units(conditions: Sequence[str], prefixes: Sequence[Hashable]) -> Units:
    """Return the units of resampling of examples.

    Args:
        conditions: of each example.
        prefixes: of each example, as text or token ids.
    """
    names = list(dict.fromkeys(conditions))
    numbers = {prefix: number for number, prefix in enumerate(dict.fromkeys(prefixes))}
    keys = [(names.index(name), numbers[prefix]) for name, prefix in zip(conditions, prefixes, strict=True)]
    units = sorted(set(keys))
    places = {key: place for place, key in enumerate(units)}
    unit = np.array([places[key] for key in keys])
    condition, prefix = np.array(units).T
    size = np.bincount(unit, minlength=len(units))
    return Units([name or WHOLE for name in names], unit, condition, prefix, size)


def units_of(task: xr.Dataset) -> Units:
    """Return the units of a task's examples: their conditions and the tokens of their prefixes, or right sentences."""
    prefixes = [tuple(row) for row in by_member(task, "token_id")[:, 0].tolist()]
    return sampling_units([str(name) for name in task["condition"].values], prefixes)


def unit_sums(values: xr.DataArray, units: Units) -> xr.DataArray:
    """Return the sums over the examples of each unit; dims (unit, ...) for (..., example, ...)."""
    first = values.transpose("example", ...)
    order = np.argsort(units.unit, kind="stable")
    begins = np.cumsum(units.size) - units.size
    sums = np.add.reduceat(first.values[order], begins, axis=0)
    coordinates = {name: of for name, of in first.coords.items() if "example" not in of.dims}
    return xr.DataArray(sums, dims=("unit", *first.dims[1:]), coords=coordinates)


def average(sums: xr.DataArray, units: Units) -> xr.DataArray:
    """Return the mean of all conditions, then the mean over the examples of each: dims (condition, ...).

    Args:
        sums: what `unit_sums` returns, dims (unit, ...).
        units: the units. A condition without any has the mean NaN.
    """
    return resampled_means(np.ones((1, len(units.size))), sums, units).isel(sample=0)


def bootstrap_draws(units: Units, samples: int, generator: np.random.Generator) -> np.ndarray:
    """Return how often each unit is drawn in each resample, shape (sample, unit); every condition for itself."""
    counts = np.bincount(units.condition)
    parts = [generator.multinomial(count, np.full(count, 1 / count), size=samples) for count in counts if count]
    return np.concatenate(parts, axis=1)


def resampled_means(draws: np.ndarray, sums: xr.DataArray, units: Units) -> xr.DataArray:
    """Return what `average` does, of each resample.

    Args:
        draws: what `bootstrap_draws` returns.
        sums: what `unit_sums` returns, dims (unit, ...).
        units: the units.

    Returns:
        Dims (sample, condition, ...).
    """
    means = np.full((len(draws), 1 + len(units.conditions), *sums.shape[1:]), np.nan, dtype=np.float32)
    for place in range(len(units.conditions)):
        own = units.of_condition(place)
        if units.size[own].size:
            weights = draws[:, own] / (draws[:, own] @ units.size[own])[:, None]
            means[:, 1 + place] = np.tensordot(weights.astype(np.float32), sums.values[own], axes=1)
    means[:, 0] = means[:, 1:].mean(axis=1)
    coordinates = {"condition": strings([OVERALL, *units.conditions]), **dict(sums.coords)}
    return xr.DataArray(means, dims=("sample", "condition", *sums.dims[1:]), coords=coordinates)


def swap_p_values(
    sums: xr.DataArray, units: Units, swaps: int, generator: np.random.Generator, rate: float = 1.0
) -> xr.DataArray:
    """Return how often chance gives a mean effect of at least the same size: right and wrong are swapped at random.

    A swap changes the sign of the effects of all pairs of a prefix, at all checkpoints together. If an effect has
    nothing to do with what is right, either sign is as likely. Means of the same size count as at least as large, and
    so does the observed one: p = (1 + number of swaps that reach it) / (1 + swaps), which is never too small (Phipson
    and Smyth 2010). One where an effect is zero throughout.

    The smallest p-value is 1 / (1 + swaps). Where so many effects are tested that none could pass the false discovery
    rate at it, `FINER` times as many swaps are drawn for those that no swap has reached, which keeps p-values valid:
    only those that had every chance to be reached before go on.

    Args:
        sums: effects summed by unit, dims (unit, checkpoint, feature), in logits.
        units: the units.
        swaps: random swaps.
        generator: draws the swaps.
        rate: false discovery rate that the p-values are for.

    Returns:
        Dims (condition, checkpoint, feature), as `average`.
    """
    observed, sizes = average(sums, units), average(abs(sums), units)
    limits = (abs(observed) - ROUNDING * sizes).values
    reached = _count_reached(sums.values, units, limits, swaps, generator)
    p_values = (1 + reached) / (1 + swaps)
    unreached = (reached == 0) & (sizes.values > 0)
    families = [(unreached[part], (sizes.values[part] > 0).sum()) for part in (slice(0, 1), slice(1, None))]
    if any(0 < own.sum() * rate * (1 + swaps) < tested for own, tested in families):
        features = np.flatnonzero(unreached.any(axis=(0, 1)))
        more = _count_reached(sums.values[..., features], units, limits[..., features], FINER * swaps, generator)
        finer = (1 + more) / (1 + (1 + FINER) * swaps)
        p_values[..., features] = np.where(unreached[..., features], finer, p_values[..., features])
    return observed.copy(data=p_values)


def _count_reached(
    sums: np.ndarray, units: Units, limits: np.ndarray, swaps: int, generator: np.random.Generator
) -> np.ndarray:
    """Return how many random swaps give means of at least the size of `limits`, shape (condition, ...)."""
    reached = np.zeros(limits.shape, dtype=np.int64)
    prefixes = int(units.prefix.max()) + 1
    for first in range(0, swaps, SWAPS_AT_ONCE):
        count = min(SWAPS_AT_ONCE, swaps - first)
        signs = generator.integers(0, 2, size=(count, prefixes), dtype=np.int8)[:, units.prefix] * 2 - 1
        overall = np.zeros((count, *limits.shape[1:]), dtype=np.float32)
        for place in range(len(units.conditions)):
            own = units.of_condition(place)
            weights = signs[:, own].astype(np.float32) / units.size[own].sum()
            swapped = np.tensordot(weights, sums[own], axes=1)
            reached[1 + place] += (abs(swapped) >= limits[1 + place]).sum(axis=0)
            overall += swapped / len(units.conditions)
        reached[0] += (abs(overall) >= limits[0]).sum(axis=0)
    return reached


def false_discovery_rates(p_values: xr.DataArray, tested: xr.DataArray) -> xr.DataArray:
    """Return the least false discovery rate at which each of many tests passes (Benjamini and Hochberg 1995).

    Args:
        p_values: of all tests, over all dimensions together.
        tested: which of them are tests at all; the others get one.
    """
    from scipy.stats import false_discovery_control  # nothing else here needs SciPy, nor does what tunes models

    rates = xr.ones_like(p_values)
    chosen = tested.transpose(*p_values.dims).values
    if chosen.any():
        rates.values[chosen] = false_discovery_control(p_values.values[chosen])
    return rates
