"""Which features of a run stand for a surface rule, and what becomes of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import xarray as xr

from chronocoder.attribution.surface import KEPT, SurfaceFeature, find_surface_features, follow
from chronocoder.report.compact import nested
from chronocoder.report.inputs import Contrast, ReportInputs, Run, names
from chronocoder.report.phases import clearest_checkpoint, find_surface_phase

OTHER, SURFACE = ROLES = ("other", "surface rule")


class ContrastFeatures(NamedTuple):
    """The features of one run that a contrast brings out.

    Attributes:
        checkpoint: where they are looked for.
        features: those that stand for the surface rule there, chosen on one half of the prefixes, the strongest first.
        followed: what `follow` tells of them by the other half, from that checkpoint on; None if there are none.
    """

    checkpoint: str
    features: list[SurfaceFeature]
    followed: xr.Dataset | None

    @property
    def numbers(self) -> list[int]:
        """The features' numbers."""
        return [of.feature for of in self.features]

    def role(self, feature: int) -> str:
        """Return what a feature is to this contrast, one of `ROLES`."""
        return SURFACE if feature in self.numbers else OTHER


Found = Mapping[Contrast, ContrastFeatures]


def find_contrast_features(relie: xr.Dataset, contrast: Contrast, checkpoint: str) -> ContrastFeatures:
    """Find the features of a run that stand for the surface rule at a checkpoint, and follow them."""
    features = find_surface_features(relie, *contrast, checkpoint)
    later = relie.isel(checkpoint=slice(names(relie, "checkpoint").index(checkpoint), None))
    return ContrastFeatures(checkpoint, features, follow(later, contrast.conflicting, features) if features else None)


def find_all_features(inputs: ReportInputs, run: Run) -> Found:
    """Return what each contrast brings out in a run, at the checkpoint where the surface phase is clearest."""
    return {
        contrast: find_contrast_features(
            run.relie,
            contrast,
            clearest_checkpoint(find_surface_phase(inputs.behaviour, contrast), run.checkpoints),
        )
        for contrast in inputs.contrasts
    }


def contrast_data(found: ContrastFeatures) -> dict[str, Any]:
    """Return what the page's table of a contrast shows: for each feature, a line for each of its two conditions."""
    if found.followed is None:
        return {"checkpoints": [found.checkpoint], "rows": []}
    rows = [
        _line(found.followed.isel(place=place, where=where))
        for place, feature in enumerate(found.features)
        for where in range(1 if feature.condition == feature.other_condition else 2)
    ]
    return {"checkpoints": names(found.followed, "checkpoint"), "rows": rows}


def _line(told: xr.Dataset) -> dict[str, Any]:
    last = str(told["checkpoint"].values[-1])
    if str(told["where"].values) == "harmed":
        note = f"harms at {last}" if told["kept"] else _lost(told, last)
    else:
        note = f"comes to help at {last}" if told["helps_newly"] else ""
    ends = {"effect": "effect", "low": "effect_low", "high": "effect_high", "level": "level"}
    return {
        "feature": int(told["feature"]),
        "condition": str(told["condition"].values),
        **{name: nested(told[variable].values) for name, variable in ends.items()},
        "note": note if told.sizes["checkpoint"] > 1 else "",
    }


def _lost(told: xr.Dataset, last: str) -> str:
    """Return why the harm of a feature does not count as kept."""
    if not told["confirmed"]:
        return "not confirmed by this half"
    first_effect, *_, last_effect = told["effect"].values
    if last_effect > KEPT * first_effect:
        return f"less than half of the harm is left at {last}"
    return f"no longer harms for certain at {last}"
