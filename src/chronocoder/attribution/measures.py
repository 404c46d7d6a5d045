"""Means, shares, intervals and classes of effects, as labelled arrays."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.stores import strings

CLASSES = ("no effect", "uncertain", "emerged", "maintained", "discontinued", "transient", "intermittent")
PRESENT_SHARE = 0.6
"""A feature counts as present at a checkpoint where its share exceeds 0.6 / M: for a pair, RelIE 0.3 and 0.7."""


class Interval(NamedTuple):
    """A bootstrap interval, each end with dims (checkpoint, feature).

    Attributes:
        low: lower end.
        high: upper end.
    """

    low: xr.DataArray
    high: xr.DataArray


def share(values: xr.DataArray, dim: str = "checkpoint") -> xr.DataArray:
    """Return |value| / sum over `dim` of |value|; NaN where the sum is zero.

    Of effects it is RelIE, of decoder norms RelDec (arXiv 2509.05291).
    """
    size = abs(values)
    total = size.sum(dim)
    shares: xr.DataArray = size / total.where(total > 0)
    return shares


def resample_means(effects: xr.DataArray, samples: int, generator: np.random.Generator) -> xr.DataArray:
    """Return bootstrap means of effects.

    Args:
        effects: dims (checkpoint, example, feature); one example is drawn at all checkpoints together.
        samples: resamples.
        generator: draws the examples.

    Returns:
        Dims (sample, checkpoint, feature).
    """
    count = effects.sizes["example"]
    weights = generator.multinomial(count, np.full(count, 1 / count), size=samples) / count
    counts = xr.DataArray(weights.astype(np.float32), dims=("sample", "example"))
    means: xr.DataArray = xr.dot(counts, effects, dim="example")
    return means.transpose("sample", "checkpoint", "feature")


def mean_interval(means: xr.DataArray, confidence: float) -> Interval:
    """Return the percentile interval of bootstrap means (sample, checkpoint, feature)."""
    return Interval(*_percentiles(means, means, confidence))


def share_interval(means: xr.DataArray, confidence: float) -> Interval:
    """Return the percentile interval of the shares of bootstrap means.

    A resample in which a feature has no effect at all leaves its share undefined: it could be anything, so it counts
    as zero for the lower and as one for the upper end. A feature that acts in only a few examples thereby gets a wide
    interval and not a spuriously narrow one. NaN where the feature never has an effect.
    """
    shares = share(means)
    low, high = _percentiles(shares.fillna(0.0), shares.fillna(1.0), confidence)
    ever = shares.notnull().any("sample")
    return Interval(low.where(ever), high.where(ever))


def classify(relative: Interval) -> xr.Dataset:
    """Return the class of each feature from the interval of its RelIE.

    A feature is present at a checkpoint where the whole interval of its share lies above 0.6 / M, absent where it lies
    below, M being the number of checkpoints. By the course from first to last checkpoint:

    - emerged: absent, then present to the end; discontinued: present, then absent to the end;
    - maintained: present throughout; transient: absent, present, absent; intermittent: any other course;
    - uncertain: at some checkpoint the interval holds the threshold; no effect: the share is undefined.

    Returns:
        `feature_class` and `onset` (the revision since which the feature is present to the end, or an empty string),
        both with dim (feature,).
    """
    low, high = (end.transpose("checkpoint", "feature") for end in relative)
    threshold = PRESENT_SHARE / low.sizes["checkpoint"]
    present, decided = (low > threshold).values, ((low > threshold) | (high < threshold)).values
    courses = [
        _course(present[:, feature], decided[:, feature], bool(np.isnan(low.values[:, feature]).any()))
        for feature in range(low.sizes["feature"])
    ]
    revisions = [str(revision) for revision in low["checkpoint"].values]
    onsets = [revisions[place] if place is not None else "" for _, place in courses]
    coordinates = {"feature": low["feature"].values}
    return xr.Dataset(
        {
            "feature_class": ("feature", strings([name for name, _ in courses])),
            "onset": ("feature", strings(onsets)),
        },
        coords=coordinates,
    )


def _course(present: np.ndarray, decided: np.ndarray, undefined: bool) -> tuple[str, int | None]:
    if undefined:
        return "no effect", None
    if not decided.all():
        return "uncertain", None
    changes = np.flatnonzero(np.diff(present.astype(int))) + 1
    name = {
        (True, 0): "maintained",
        (False, 1): "emerged",
        (True, 1): "discontinued",
        (False, 2): "transient",
    }.get((bool(present[0]), len(changes)), "intermittent")
    onset = (int(changes[-1]) if len(changes) else 0) if present[-1] else None
    return name, onset


def _percentiles(
    low_values: xr.DataArray, high_values: xr.DataArray, confidence: float
) -> tuple[xr.DataArray, xr.DataArray]:
    tail = (1 - confidence) / 2
    low = low_values.quantile(tail, dim="sample", skipna=False).drop_vars("quantile")
    high = high_values.quantile(1 - tail, dim="sample", skipna=False).drop_vars("quantile")
    return low, high
