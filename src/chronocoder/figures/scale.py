"""A scale for effects, of which most are near zero and a few are large."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from chronocoder.figures.chart import QUIET

LINEAR_PART = 0.004
HEADROOM = 2.5
SMALLEST = 1e-6


class EffectScale(NamedTuple):
    """A symmetric logarithmic scale: linear within `linear` of zero, logarithmic further out.

    Attributes:
        limit: largest effect shown, in the unit of the task.
        linear: where the scale turns from linear to logarithmic, likewise.
    """

    limit: float
    linear: float

    @property
    def ticks(self) -> np.ndarray:
        """Zero, and the powers of ten of either sign that are far enough from it."""
        powers = 10.0 ** np.arange(np.ceil(np.log10(2 * self.linear)), np.floor(np.log10(self.limit)) + 1)
        return np.concatenate([-powers[::-1], [0.0], powers])

    def place(self, effect: np.ndarray) -> np.ndarray:
        """Return where effects lie on an axis, from 0 at its lower to 1 at its upper end."""
        places: np.ndarray = (1 + np.arcsinh(effect / self.linear) / np.arcsinh(self.limit / self.linear)) / 2
        return places

    def apply(self, axes: Axes) -> None:
        """Give both axes the scale, and lines at zero."""
        labels = [f"{tick:g}".replace("-", "−") for tick in self.ticks]
        axes.set_xscale("asinh", linear_width=self.linear)
        axes.set_yscale("asinh", linear_width=self.linear)
        axes.set_xticks(self.ticks, labels)
        axes.set_yticks(self.ticks, labels)
        axes.minorticks_off()
        axes.set(xlim=(-self.limit, self.limit), ylim=(-self.limit, self.limit))
        axes.axhline(0, color=QUIET, linewidth=0.8, linestyle="-", marker="")
        axes.axvline(0, color=QUIET, linewidth=0.8, linestyle="-", marker="")


def effect_scale(effects: np.ndarray) -> EffectScale:
    """Return a scale that holds all effects, NaN aside."""
    limit = HEADROOM * max(float(np.nanmax(abs(effects), initial=0.0)), SMALLEST)
    return EffectScale(limit, LINEAR_PART * limit)
