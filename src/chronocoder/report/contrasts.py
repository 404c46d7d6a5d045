"""Which features stand for a surface rule, and which take over from them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.report.inputs import Contrast

NEGLIGIBLE = 0.05
ROLES = ("other", "surface rule", "took over", "changed sides")


class Ranked(NamedTuple):
    """Features in falling order of strength.

    Attributes:
        features: their numbers.
        strengths: what they are ranked by, in logits.
    """

    features: list[int]
    strengths: list[float]


class ContrastFeatures(NamedTuple):
    """The features of one run that a contrast brings out.

    Attributes:
        surface: by checkpoint, features that help the surface task and harm the conflicting one there.
        gave_way: those of them that stand for it no more at the last checkpoint: their effect on the surface task is
            discontinued and they harm the other no more, or they changed sides.
        took_over: features that help the conflicting task at the last checkpoint, where they emerged or reversed.
    """

    surface: dict[str, Ranked]
    gave_way: Ranked
    took_over: Ranked

    @property
    def clearest(self) -> str:
        """The checkpoint at which a feature stands for the surface rule most strongly."""
        return max(self.surface, key=lambda checkpoint: max(self.surface[checkpoint].strengths, default=0.0))

    @property
    def strength(self) -> float:
        """How strongly the strongest feature stands for the surface rule, in logits; zero if none does."""
        return max(self.surface[self.clearest].strengths, default=0.0)

    @property
    def newcomers(self) -> list[int]:
        """Features that took over and never stood for the surface rule."""
        return [feature for feature in self.took_over.features if feature not in self.changed_sides]

    @property
    def changed_sides(self) -> set[int]:
        """Features that stood for the surface rule at some checkpoint and took over later."""
        surface = {feature for ranked in self.surface.values() for feature in ranked.features}
        return surface & set(self.took_over.features)

    def role(self, feature: int) -> str:
        """Return what a feature is to this contrast, one of `ROLES`."""
        surface = any(feature in ranked.features for ranked in self.surface.values())
        later = feature in self.took_over.features
        return ROLES[int(surface) + 2 * int(later)]


def find_contrast_features(relie: xr.Dataset, contrast: Contrast) -> ContrastFeatures:
    """Find the features of a run that stand for the surface rule, and those that take over.

    A feature stands for the surface rule at a checkpoint where it measurably helps the surface task and harms the
    conflicting task, unless that is negligible: less than a twentieth of its largest |IE| on either task at any
    checkpoint. Its strength is the smaller of the two |IE|, and the largest of these at any checkpoint if it gives way:
    if its class is `discontinued` on the surface task, and it does not measurably harm the conflicting one at the last
    checkpoint, or if it takes over. A feature takes over if its class on the conflicting task is `emerged`, or its
    effect there reverses, and it measurably helps that task at the last checkpoint; its strength is that IE.
    """
    near, far = relie.sel(task=contrast.surface), relie.sel(task=contrast.conflicting)
    opposed = near["measurable"] & (near["indirect_effect"] > 0) & far["measurable"] & (far["indirect_effect"] < 0)
    size = abs(relie["indirect_effect"].sel(task=list(contrast)))
    strength = size.min("task")
    opposed &= strength >= NEGLIGIBLE * size.max(("task", "checkpoint"))
    strength = strength.where(opposed, 0.0)
    surface = {str(name): _ranked(strength.sel(checkpoint=name)) for name in relie["checkpoint"].values}
    last = far.isel(checkpoint=-1)
    arrived = (far["feature_class"] == "emerged") | far["reverses"]
    took_over = arrived & last["measurable"] & (last["indirect_effect"] > 0)
    harmless = ~(last["measurable"] & (last["indirect_effect"] < 0))
    gone = ((near["feature_class"] == "discontinued") & harmless) | took_over
    gave_way = _ranked(strength.max("checkpoint").where(gone, 0.0))
    return ContrastFeatures(surface, gave_way, _ranked(last["indirect_effect"].where(took_over, 0.0)))


def clearest_run(found: Sequence[ContrastFeatures]) -> int | None:
    """Return the place of the run that shows a contrast most clearly, or None if no run shows a surface rule.

    Runs in which a feature gave way go first, then those in which others took over, and then those in which the
    surface rule has the strongest feature.
    """
    ranked = [
        (max(of_run.gave_way.strengths, default=0.0), bool(of_run.newcomers), of_run.strength, -place)
        for place, of_run in enumerate(found)
    ]
    best = max((rank for rank in ranked if rank[2] > 0), default=None)
    return None if best is None else -best[3]


def _ranked(strength: xr.DataArray) -> Ranked:
    order = np.argsort(-strength.values, kind="stable")[: int((strength.values > 0).sum())]
    return Ranked(strength["feature"].values[order].tolist(), strength.values[order].tolist())
