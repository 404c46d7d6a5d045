"""Transfer between tasks with and without features, with intervals, and how much of it features carry."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Bool

from chronocoder.attribution.measures import mean_interval
from chronocoder.attribution.sampling import bootstrap_draws, resampled_means, sampling_units, unit_sums
from chronocoder.config import TaskSpaceSettings
from chronocoder.features.overlap import ratio
from chronocoder.tasks.rows import by_member
from chronocoder.taskspace.removal import KINDS

OWN, WITHIN, BETWEEN = "own", "within", "between"
RELATIONS = (OWN, WITHIN, BETWEEN)
"""A task and itself, and ordered pairs of different tasks of one hypothesised group or of two."""
MEAN = 1
"""Place of the mean of all pairs among what `resampled_means` returns of a single condition."""


def summarise_changes(
    changes: xr.Dataset,
    tasks: Mapping[str, xr.Dataset],
    groups: Mapping[str, str],
    settings: TaskSpaceSettings,
) -> xr.Dataset:
    """Average what tuning does to pairs, with intervals over the prefixes of pairs.

    Args:
        changes: what `measure_changes` returns, at one checkpoint.
        tasks: the pairs it was measured on, by name.
        groups: the hypothesised group of each task.
        settings: resamples, coverage, and their seed.

    Returns:
        By kind as the last part of the name: `difference` (source, target), of the untuned model, and `transfer`
        (source, target) with both ends of its interval. And what `_fractions` returns, with dimension `relation`.
    """
    sampled = {
        name: _resampled(changes, name, task, settings, place) for place, (name, task) in enumerate(tasks.items())
    }
    transfer = xr.concat(list(sampled.values()), xr.Variable("target", list(sampled)))
    before = changes["before"].groupby("target").mean("entry").sel(target=list(tasks))
    found = {}
    for kind in KINDS:
        found[f"difference_{kind}"] = before.sel(kind=kind, drop=True)
        found |= _with_ends(f"transfer_{kind}", transfer.sel(kind=kind, drop=True), settings.confidence)
    summary = xr.Dataset({name: values.transpose("source", "target") for name, values in found.items()})
    certain = (summary["transfer_intact_low"] > 0) | (summary["transfer_intact_high"] < 0)
    compared = certain.values & np.isfinite(summary["transfer_without_others"].values)
    fractions = _fractions(transfer, compared, groups, settings.confidence)
    return summary.assign(fractions).assign_coords(relation=list(RELATIONS))


def _resampled(
    changes: xr.Dataset, target: str, task: xr.Dataset, settings: TaskSpaceSettings, place: int
) -> xr.DataArray:
    """Return the mean transfer to a target, and that of each resample of its prefixes: dims (sample, source, kind)."""
    own = changes.isel(entry=np.flatnonzero(changes["target"].values == target))
    transfer = (own["after"] - own["before"]).drop_vars("target").rename(entry="example")
    prefixes = [tuple(row) for row in by_member(task, "token_id")[:, 0].tolist()]
    units = sampling_units([""] * len(prefixes), prefixes)
    generator = np.random.default_rng([settings.seed, 11, place])
    drawn = bootstrap_draws(units, settings.bootstrap_samples, generator)
    draws = np.concatenate([np.ones((1, len(units.size)), dtype=drawn.dtype), drawn])
    return resampled_means(draws, unit_sums(transfer, units), units).isel(condition=MEAN, drop=True)


def _fractions(
    transfer: xr.DataArray,
    compared: Bool[np.ndarray, "source target"],
    groups: Mapping[str, str],
    confidence: float,
) -> dict[str, xr.DataArray]:
    """Return which fraction of the transfer goes when features are removed, by relation of source and target.

    One minus the sum of transfers without the features, divided by the sum of those with all; negative transfers count
    with a minus in both. Logits and nats are added up alike: both are of log odds. A claim about the shared features
    needs the others as a control, so that both fractions are of the same pairs.

    Args:
        transfer: dims (target, sample, source, kind), the first sample that of all pairs.
        compared: the ordered pairs of tasks to add up: those of which the sign of transfer is certain, and that have a
            control. Where there are none, fractions are NaN.
        groups: the hypothesised group of each task.
        confidence: coverage of the intervals, over resamples of each target; the tuning is one and the same.

    Returns:
        `removed_by_shared`, `removed_by_others` and `removed_beyond_others`, their difference, with both ends of their
        intervals; `pairs_compared`.
    """
    values = transfer.transpose("kind", "sample", "source", "target").values
    signed = values * np.sign(values[0, 0])
    names = np.array([groups[str(name)] for name in transfer["target"].values])
    own, same = np.eye(len(names), dtype=bool), names[:, None] == names
    chosen = [pairs & compared for pairs in (own, same & ~own, ~same)]
    intact, *without = np.stack([signed[..., pairs].sum(axis=-1) for pairs in chosen], axis=1)
    shared, others = (xr.DataArray(1 - ratio(left, intact), dims=("relation", "sample")) for left in without)
    return {
        **_with_ends("removed_by_shared", shared, confidence),
        **_with_ends("removed_by_others", others, confidence),
        **_with_ends("removed_beyond_others", shared - others, confidence),
        "pairs_compared": xr.DataArray([int(pairs.sum()) for pairs in chosen], dims="relation"),
    }


def _with_ends(name: str, samples: xr.DataArray, confidence: float) -> dict[str, xr.DataArray]:
    """Return the first sample, that of all pairs, and both ends of the interval of the others."""
    interval = mean_interval(samples.isel(sample=slice(1, None)), confidence)
    return {name: samples.isel(sample=0), f"{name}_low": interval.low, f"{name}_high": interval.high}
