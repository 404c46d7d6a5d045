"""Transfer beside what tuning on the target itself gives, and beside what chance gives: this project's own measures."""

import numpy as np
from jaxtyping import Bool, Float

from chronocoder.taskspace.intervals import Interval


def relative_transfer(
    mean: Float[np.ndarray, "*cell source target"], low: Float[np.ndarray, "*cell source target"], smallest: float
) -> Float[np.ndarray, "*cell source target"]:
    """Return mean transfer as a fraction of the target's gain by tuning on itself.

    Args:
        mean: mean transfer.
        low: lower ends of its intervals.
        smallest: gain of a target that the interval has to lie above; NaN for targets where it does not.
    """
    gain, certain = (np.diagonal(values, axis1=-2, axis2=-1)[..., None, :] for values in (mean, low))
    known = np.broadcast_to((certain > smallest) & (gain > 0), mean.shape)
    found: np.ndarray = np.divide(mean, gain, out=np.full(mean.shape, np.nan), where=known)
    return found


def chance_level(
    transfer: Float[np.ndarray, "swapped seed checkpoint source target"], confidence: float
) -> Float[np.ndarray, "checkpoint source target"]:
    """Return the size of transfer that a fraction `confidence` of the tunings with nothing to learn stays below.

    The tunings are those on all sources but the one that is judged: tunings with nothing to learn can be judged, too.
    The quantile is the next larger one found. It is of single seeds, beside which means over seeds vary less. NaN
    without such a method.
    """
    if not len(transfer):
        return np.full(transfer.shape[2:], np.nan)
    others = (np.delete(abs(transfer), source, axis=3) for source in range(transfer.shape[3]))
    levels = [np.quantile(sizes, confidence, axis=(0, 1, 3), method="higher") for sizes in others]
    return np.stack(levels, axis=1)


def beyond_chance(
    mean: Float[np.ndarray, "tuning checkpoint source target"],
    interval: Interval,
    level: Float[np.ndarray, "checkpoint source target"],
) -> Bool[np.ndarray, "tuning checkpoint source target"]:
    """Return where the interval excludes 0 and the size of the mean exceeds a level, which does not count where NaN."""
    found: np.ndarray = ((interval.low > 0) | (interval.high < 0)) & ~(abs(mean) <= level)
    return found
