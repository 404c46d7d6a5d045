"""Which features of a run stand for a surface rule, and what becomes of them."""

from collections.abc import Mapping
from typing import NamedTuple

import xarray as xr

from chronocoder.attribution.surface import (
    KEPT,
    SMALLEST,
    SurfaceFeature,
    count_surface_features,
    find_surface_features,
    follow,
)
from chronocoder.report.inputs import Contrast, ReportInputs, Run
from chronocoder.report.phases import clearest_checkpoint, find_surface_phase
from chronocoder.stores import names
from chronocoder.wording import counted, quoted, signed


class ContrastFeatures(NamedTuple):
    """The features of one run that a contrast brings out.

    Attributes:
        checkpoint: where they are looked for.
        total: how many stand for the surface rule there, by one half of the prefixes.
        features: the strongest of them, in order.
        followed: what `follow` tells of them by the other half, from that checkpoint on; None if there are none.
    """

    checkpoint: str
    total: int
    features: list[SurfaceFeature]
    followed: xr.Dataset | None

    @property
    def numbers(self) -> list[int]:
        """The features' numbers."""
        return [of.feature for of in self.features]

    @property
    def checkpoints(self) -> list[str]:
        """Where the features are followed."""
        return [self.checkpoint] if self.followed is None else names(self.followed, "checkpoint")


class FollowedEffect(NamedTuple):
    """The effect of a feature at one checkpoint, in words.

    Attributes:
        effect: the effect.
        interval: its ends.
        level: what random directions stay within; empty if that is not known.
        beyond: whether the interval excludes zero and |effect| is above the level.
    """

    effect: str
    interval: str
    level: str
    beyond: bool


class FollowedLine(NamedTuple):
    """What becomes of a feature in one condition of the conflicting task.

    Attributes:
        feature: its number.
        condition: the condition.
        effects: one for each checkpoint from that on at which it was chosen.
        fate: what that comes to; may be empty.
    """

    feature: int
    condition: str
    effects: list[FollowedEffect]
    fate: str


Found = Mapping[Contrast, ContrastFeatures]


def find_contrast_features(relie: xr.Dataset, contrast: Contrast, checkpoint: str) -> ContrastFeatures:
    """Find the features of a run that stand for the surface rule at a checkpoint, and follow them."""
    total = count_surface_features(relie, *contrast, checkpoint)
    features = find_surface_features(relie, *contrast, checkpoint)
    later = relie.isel(checkpoint=slice(names(relie, "checkpoint").index(checkpoint), None))
    followed = follow(later, contrast.conflicting, features) if features else None
    return ContrastFeatures(checkpoint, total, features, followed)


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


def found_words(contrast: Contrast, found: ContrastFeatures) -> str:
    """Return how many features of a run stand for the surface rule of a contrast, in a clause."""
    near, far = map(quoted, contrast)
    shown = len(found.features)
    if not shown:
        return (
            f"no feature helps {near} and harms {far} at {found.checkpoint} by at least {SMALLEST} and by more than"
            " random directions do"
        )
    helps, harms = ("helps", "harms") if found.total == 1 else ("help", "harm")
    followed = f", of which the {shown} strongest are followed," if shown < found.total else ""
    return f"{counted(found.total, 'feature')}{followed} {helps} {near} and {harms} {far} at {found.checkpoint}"


def followed_lines(found: ContrastFeatures) -> list[FollowedLine]:
    """Return for each feature a line for the condition in which it harms, and one for the other if there is one."""
    if found.followed is None:
        return []
    return [
        _line(found.followed.isel(place=place, where=where))
        for place, feature in enumerate(found.features)
        for where in range(1 if feature.condition == feature.other_condition else 2)
    ]


def _line(told: xr.Dataset) -> FollowedLine:
    variables = ("effect", "effect_low", "effect_high", "level")
    effects = [_effect(*of) for of in zip(*(told[name].values.tolist() for name in variables), strict=True)]
    fate = _fate(told, effects[-1].beyond) if len(effects) > 1 else ""
    return FollowedLine(int(told["feature"]), str(told["condition"].values), effects, fate)


def _fate(told: xr.Dataset, beyond: bool) -> str:
    last = str(told["checkpoint"].values[-1])
    if str(told["where"].values) == "other":
        return f"comes to help at {last}" if told["helps_newly"] else ""
    if not told["kept"]:
        return _lost(told, last)
    return f"harms at {last}{'' if beyond else ', but no more than chance'}"


def _effect(effect: float, low: float, high: float, level: float) -> FollowedEffect:
    beyond = (low > 0 or high < 0) and abs(effect) > level
    return FollowedEffect(
        signed(effect), f"{signed(low)} to {signed(high)}", signed(level)[1:] if level > 0 else "", beyond
    )


def _lost(told: xr.Dataset, last: str) -> str:
    """Return why the harm of a feature does not count as kept."""
    if not told["confirmed"]:
        return "not confirmed by this half"
    first_effect, *_, last_effect = told["effect"].values
    if last_effect > KEPT * first_effect:
        return f"less than half of the harm is left at {last}"
    return f"the interval at {last} holds zero"
