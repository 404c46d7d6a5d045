"""Means, shares, intervals and classes of effects: labelled arrays in, labelled arrays out, for a notebook too."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.stores import strings

CLASSES = ("no effect", "uncertain", "emerged", "maintained", "discontinued", "transient", "intermittent")
UNDECIDED = CLASSES[:2]
NO_EFFECT, UNCERTAIN = CLASSES.index("no effect"), CLASSES.index("uncertain")
COURSES = (("maintained", True, 0), ("emerged", False, 1), ("discontinued", True, 1), ("transient", False, 2))
"""Course, presence at the first checkpoint, and number of changes; `intermittent` is any other."""
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
        effects: dims (..., example, ...); one example is drawn for all other dims together.
        samples: resamples.
        generator: draws the examples.

    Returns:
        Dims (sample, ...).
    """
    count = effects.sizes["example"]
    return _weighted(generator.multinomial(count, np.full(count, 1 / count), size=samples) / count, effects)


def null_band(effects: xr.DataArray, samples: int, confidence: float, generator: np.random.Generator) -> xr.DataArray:
    """Return the size of mean effect that chance gives: right and wrong are swapped in random examples.

    A swap changes the sign of an example's effect. An effect of either sign on single examples that has nothing to do
    with what is right stays within the band.

    Args:
        effects: dims (checkpoint, example, feature), in logits; one example is swapped at all checkpoints together.
        samples: random swaps.
        confidence: part of the swaps whose |mean effect| the band holds.
        generator: draws the swaps.

    Returns:
        Dims (checkpoint, feature), in logits.
    """
    count = effects.sizes["example"]
    signs = generator.integers(0, 2, size=(samples, count)) * 2 - 1
    sizes = abs(_weighted(signs / count, effects))
    band: xr.DataArray = sizes.quantile(confidence, dim="sample", skipna=False).drop_vars("quantile")
    return band


def measurable(effect: xr.DataArray, interval: Interval, band: xr.DataArray) -> xr.DataArray:
    """Return where a mean effect lies outside the null band and its whole interval on one side of zero."""
    found: xr.DataArray = (abs(effect) > band) & ((interval.low > 0) | (interval.high < 0))
    return found


def mean_interval(means: xr.DataArray, confidence: float) -> Interval:
    """Return the percentile interval of bootstrap means, dims (sample, ...)."""
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


def threshold_of(shares: xr.DataArray) -> float:
    """Return the share above which a feature counts as present at a checkpoint: 0.6 / M of M checkpoints."""
    return PRESENT_SHARE / shares.sizes["checkpoint"]


def classify(relative: Interval, seen: xr.DataArray) -> xr.Dataset:
    """Return the class of each feature from the interval of its RelIE.

    A feature is present at a checkpoint where the whole interval of its share lies above 0.6 / M, absent where it lies
    below, M being the number of checkpoints. By the course from first to last checkpoint:

    - emerged: absent, then present to the end; discontinued: present, then absent to the end;
    - maintained: present throughout; transient: absent, present, absent; intermittent: any other course;
    - uncertain: at some checkpoint the interval holds the threshold, or the feature is present where its effect is not
      measurable;
    - no effect: the effect is measurable at no checkpoint.

    Shares have no sign: a feature that first helps and then harms as much is maintained (see `reverses`).

    Args:
        relative: the interval of the share, dims (checkpoint, feature).
        seen: what `measurable` returns.

    Returns:
        `feature_class`, `onset` (the first revision at which the feature is present; empty where the class is not
        decided) and `kept` (present at the last checkpoint for certain), dims (feature,).
    """
    low, high, seen = (values.transpose("checkpoint", "feature") for values in (*relative, seen))
    present = low > threshold_of(low)
    effective = seen.any("checkpoint") & low.notnull().all("checkpoint")
    decided = effective & (present & seen | (high < threshold_of(low))).all("checkpoint")
    names = np.where(decided, course(present), np.where(effective, UNCERTAIN, NO_EFFECT))
    revisions = np.append(low["checkpoint"].values.astype(object), "")
    onset = revisions[np.where(decided, present.argmax("checkpoint"), -1)]
    kept = effective & (present & seen).isel(checkpoint=-1, drop=True)
    variables = {
        "feature_class": ("feature", strings(np.array(CLASSES)[names])),
        "onset": ("feature", strings(onset)),
        "kept": ("feature", kept.values),
    }
    return xr.Dataset(variables, coords={"feature": low["feature"].values})


def reverses(interval: Interval) -> xr.DataArray:
    """Return where an effect is certainly positive at one checkpoint and certainly negative at another, (feature,)."""
    found: xr.DataArray = (interval.low > 0).any("checkpoint") & (interval.high < 0).any("checkpoint")
    return found


def course(present: xr.DataArray) -> xr.DataArray:
    """Return the course of presence (checkpoint, ...) as a place in `CLASSES`, dims (...)."""
    first = present.isel(checkpoint=0, drop=True)
    changes = (present.astype(np.int8).diff("checkpoint") != 0).sum("checkpoint")
    names = xr.full_like(changes, CLASSES.index("intermittent"))
    for name, begins, count in COURSES:
        names = names.where((first != begins) | (changes != count), CLASSES.index(name))
    return names


def course_support(shares: xr.DataArray) -> xr.DataArray:
    """Return in which part of the resamples the most frequent course comes out.

    Args:
        shares: RelIE of bootstrap means, dims (sample, checkpoint, feature); a resample without any effect has no
            course, and supports none.

    Returns:
        Dims (feature,).
    """
    courses = course(shares > threshold_of(shares)).where(shares.notnull().all("checkpoint"), -1)
    parts = [(courses == place).mean("sample") for place in range(len(CLASSES))]
    support: xr.DataArray = xr.concat(parts, dim="course").max("course")
    return support


def peak(relative: Interval) -> xr.DataArray:
    """Return the revision at which a feature's share is largest for certain, or an empty string, dims (feature,).

    For certain: the interval there (checkpoint, feature) lies above those at all other checkpoints.
    """
    low, high = (end.transpose("checkpoint", "feature").fillna(0.0).values for end in relative)
    place = low.argmax(axis=0)
    columns = np.arange(low.shape[1])
    others = high.copy()
    others[place, columns] = -np.inf
    revisions = np.append(relative.low["checkpoint"].values.astype(object), "")
    names = revisions[np.where(low[place, columns] > others.max(axis=0), place, -1)]
    return xr.DataArray(strings(names), dims="feature", coords={"feature": relative.low["feature"].values})


def _weighted(weights: np.ndarray, effects: xr.DataArray) -> xr.DataArray:
    """Return the sums over examples with weights (sample, example); one product, which `xr.dot` would not make."""
    first = effects.transpose("example", ...)
    sums = np.tensordot(weights.astype(np.float32), first.values, axes=1)
    coordinates = {name: values for name, values in first.coords.items() if "example" not in values.dims}
    return xr.DataArray(sums, dims=("sample", *first.dims[1:]), coords=coordinates)


def _percentiles(
    low_values: xr.DataArray, high_values: xr.DataArray, confidence: float
) -> tuple[xr.DataArray, xr.DataArray]:
    tail = (1 - confidence) / 2
    low = low_values.quantile(tail, dim="sample", skipna=False).drop_vars("quantile")
    high = high_values.quantile(1 - tail, dim="sample", skipna=False).drop_vars("quantile")
    return low, high
