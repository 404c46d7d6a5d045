"""Transfer between tasks with and without features, with intervals, and how much of it features carry."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float

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
    changes: xr.Dataset, tasks: Mapping[str, xr.Dataset], groups: Mapping[str, str], settings: TaskSpaceSettings
) -> xr.Dataset:
    """Average what tuning does to pairs, with intervals over the prefixes of pairs.

    Args:
        changes: what `measure_changes` returns, at one checkpoint.
        tasks: the pairs it was measured on, by name.
        groups: the hypothesised group of each task.
        settings: resamples, coverage, and their seed.

    Returns:
        By kind as the last part of the name: `difference` (source, target), of the untuned model, and `transfer`
        (source, target) with both ends of its interval. And `removed_by_shared`, `removed_by_others` and
        `removed_beyond_others`, their difference (relation), as `_fractions` has them, and `pairs_compared` (relation).
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
    ordered = {name: values.transpose("source", "target") for name, values in found.items()}
    fractions = _fractions(transfer, groups, settings.confidence)
    return xr.Dataset({**ordered, **fractions}, coords={"relation": list(RELATIONS)})


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


def _fractions(transfer: xr.DataArray, groups: Mapping[str, str], confidence: float) -> dict[str, xr.DataArray]:
    """Return which fraction of the transfer goes when features are removed, by relation of source and target.

    One minus the sum of transfers without the features, divided by the sum of those with all: over the ordered pairs of
    tasks for which as many other features could be removed, those that share none among them. Logits and nats are added
    up alike: both are of log odds. NaN where the sum of transfers is not above zero for certain.

    Args:
        transfer: dims (target, sample, source, kind), the first sample that of all pairs.
        groups: the hypothesised group of each task.
        confidence: coverage of the intervals, over resamples; the tuning is one and the same.
    """
    values = transfer.transpose("kind", "sample", "source", "target").values
    names = [groups[str(name)] for name in transfer["target"].values]
    own, same = np.eye(len(names), dtype=bool), np.array(names)[:, None] == np.array(names)
    compared = np.isfinite(values).all(axis=(0, 1))
    chosen = [pairs & compared for pairs in (own, same & ~own, ~same)]
    removed = [_removed(values[..., pairs].sum(axis=-1), confidence) for pairs in chosen]
    shared, others = xr.DataArray(removed, dims=("relation", "set", "sample")).transpose("set", ...)
    return {
        **_with_ends("removed_by_shared", shared, confidence),
        **_with_ends("removed_by_others", others, confidence),
        **_with_ends("removed_beyond_others", shared - others, confidence),
        "pairs_compared": xr.DataArray([int(pairs.sum()) for pairs in chosen], dims="relation"),
    }


def _removed(sums: Float[np.ndarray, "kind sample"], confidence: float) -> Float[np.ndarray, "2 sample"]:
    """Return the fraction that goes without shared and without other features."""
    certain = np.quantile(sums[0, 1:], (1 - confidence) / 2) > 0
    return np.where(certain, 1 - ratio(sums[1:], np.broadcast_to(sums[0], sums[1:].shape)), np.nan)


def _with_ends(name: str, samples: xr.DataArray, confidence: float) -> dict[str, xr.DataArray]:
    """Return the first sample, that of all pairs, and both ends of the interval of the others."""
    interval = mean_interval(samples.isel(sample=slice(1, None)), confidence)
    return {name: samples.isel(sample=0), f"{name}_low": interval.low, f"{name}_high": interval.high}
