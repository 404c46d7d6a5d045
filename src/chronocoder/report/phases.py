"""When a model follows a surface rule, by its accuracy alone."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.figures.ability import CHANCE
from chronocoder.report.inputs import Contrast
from chronocoder.stores import names


class SurfacePhase(NamedTuple):
    """The checkpoints at which a model follows a surface rule.

    Attributes:
        gaps: by checkpoint, accuracy on the surface task less that on the conflicting one; of those checkpoints that
            are above chance on the surface task and below it on the conflicting one, by their intervals.
        surface_accuracy: accuracy on the surface task at the clearest checkpoint.
        conflicting_accuracy: accuracy there on the conflicting task.
        end: the checkpoint from which on both tasks are above chance, if there is one.
    """

    gaps: Mapping[str, float]
    surface_accuracy: float
    conflicting_accuracy: float
    end: str | None

    @property
    def clearest(self) -> str:
        """The checkpoint at which the two accuracies differ most."""
        return max(self.gaps, key=lambda revision: self.gaps[revision])


def find_surface_phase(behaviour: xr.Dataset, contrast: Contrast) -> SurfacePhase | None:
    """Return the surface phase of a contrast, or None if no checkpoint shows one."""
    near, far = behaviour.sel(task=contrast.surface), behaviour.sel(task=contrast.conflicting)
    inside = ((near["accuracy_low"] > CHANCE) & (far["accuracy_high"] < CHANCE)).values
    if not inside.any():
        return None
    revisions = names(behaviour, "checkpoint")
    differences = (near["accuracy"] - far["accuracy"]).values
    gaps = {revisions[place]: float(differences[place]) for place in np.flatnonzero(inside)}
    clearest = int(np.where(inside, differences, -np.inf).argmax())
    settled = ((near["accuracy_low"] > CHANCE) & (far["accuracy_low"] > CHANCE)).values
    end = int(np.flatnonzero(~settled)[-1]) + 1
    return SurfacePhase(
        gaps,
        float(near["accuracy"].values[clearest]),
        float(far["accuracy"].values[clearest]),
        revisions[end] if end < len(revisions) else None,
    )


def clearest_checkpoint(phase: SurfacePhase | None, checkpoints: Sequence[str]) -> str:
    """Return the one of some checkpoints at which the surface phase is clearest, the first one if none lies in it."""
    gaps = phase.gaps if phase else {}
    return max(checkpoints, key=lambda revision: gaps.get(revision, 0.0))
