"""What becomes of a surface rule and of the features that stand for it, in sentences."""

import numpy as np
import xarray as xr

from chronocoder.attribution.surface import SurfaceFeature
from chronocoder.report.contrasts import ContrastFeatures, found_words
from chronocoder.report.data import feature_words
from chronocoder.report.inputs import Contrast, Run
from chronocoder.report.phases import SurfacePhase
from chronocoder.wording import listed, plural, quoted, short_count, signed

ROLES_NAMED = 3


def phase_sentence(behaviour: xr.Dataset, contrast: Contrast, phase: SurfacePhase) -> str:
    """Return a surface phase in one or two sentences."""
    far = quoted(contrast.conflicting)
    text = (
        f"At {moment(behaviour, phase.clearest)} accuracy is {phase.surface_accuracy:.2f} on"
        f" {quoted(contrast.surface)} but {phase.conflicting_accuracy:.2f} on {far}, below chance, as if the model"
        f" followed the surface rule; this holds at {listed(list(phase.gaps))}."
    )
    if phase.end is None:
        return f"{text} No later checkpoint leaves it for good."
    final = float(behaviour["accuracy"].sel(task=contrast.conflicting).values[-1])
    return f"{text} From {phase.end} on it is above chance on both, and ends at {final:.2f} on {far}."


def surface_sentences(run: Run, contrast: Contrast, found: ContrastFeatures) -> str:
    """Return which features of a run stand for the surface rule, and what becomes of them, in sentences."""
    text = f"In {run.key.label}, {found_words(contrast, found)}"
    told, last = found.followed, run.checkpoints[-1]
    if told is None:
        return f"{text}."
    harming = int(told["confirmed"].sum())
    text = (
        f"{text}, as judged on one half of the prefixes. On the other half, {harming} of {len(found.features)}"
        f" {verb('harm', harming)} there in the same condition"
    )
    if found.checkpoint == last:
        return f"{text}. What becomes of them is not seen: {last} is its last checkpoint."
    fate, strongest = _fate_sentence(run, contrast, told, last), found.features[0]
    return f"{text}, and {fate} {_strongest_sentence(run, contrast, strongest, told)}"


def moment(behaviour: xr.Dataset, checkpoint: str) -> str:
    """Return a checkpoint with the tokens seen."""
    tokens = int(behaviour["tokens_seen"].sel(checkpoint=checkpoint))
    return f"{checkpoint} ({short_count(tokens)} tokens)"


def _fate_sentence(run: Run, contrast: Contrast, told: xr.Dataset, last: str) -> str:
    """Return how many features still harm, and how many come to help, by the half that did not choose them."""
    kept, helping = int(told["kept"].sum()), told["helps_newly"].values
    harm, unit = course(told["effect"].sel(where="harmed")), run.units[contrast.conflicting]
    text = f"{kept} of these still at {last}, mean IE of all {harm} {plural(unit)}"
    if helping.any():
        helped = course(told["effect"].sel(where="other").isel(place=helping))
        text = f"{text}; {helping.sum()} {verb('come', int(helping.sum()))} to help in another condition, {helped}"
    else:
        text = f"{text}; none comes to help in another condition"
    return f"{text}{level_words(run, told)}."


def verb(stem: str, count: int) -> str:
    """Return a verb in the form that goes with a count."""
    return f"{stem}s" if count == 1 else stem


def level_words(run: Run, told: xr.Dataset) -> str:
    """Return within which effect random directions stay, in brackets with a space before; empty without them."""
    level = float(told["level"].isel(checkpoint=-1).max())
    if not level > 0:
        return ""
    return f" ({run.random_level} of random directions that write as much stay within ±{level:.2f})"


def _strongest_sentence(run: Run, contrast: Contrast, strongest: SurfaceFeature, told: xr.Dataset) -> str:
    effect = told["effect"].isel(place=0)
    effects = [f"{course(effect.sel(where='harmed'))} in {quoted(strongest.condition)}"]
    if strongest.other_condition != strongest.condition:
        effects.append(f"{course(effect.sel(where='other'))} in {quoted(strongest.other_condition)}")
    return (
        f"The strongest, feature {strongest.feature}{_words_of(run, strongest.feature)}, has IE"
        f" {listed(effects)}{_roles_of(run, contrast, strongest)}."
    )


def _roles_of(run: Run, contrast: Contrast, strongest: SurfaceFeature) -> str:
    """Return what a feature's effect at the last checkpoint is made of, by the role of the token."""
    ablation, condition = run.ablations[contrast.conflicting], strongest.other_condition
    if strongest.feature not in ablation["top_feature"].values:
        return ""
    effects = ablation["role_effect"].sel(top_feature=strongest.feature, condition=condition).isel(checkpoint=-1)
    order = np.argsort(-abs(effects.values))[:ROLES_NAMED]
    parts = [(str(effects["position_role"].values[place]), signed(float(effects[place]))) for place in order]
    named = [f"{role} {effect}" for role, effect in parts if float(effect.replace("−", "-"))]
    which = "this" if condition == strongest.condition else "the latter"
    return f"; of {which} at {run.checkpoints[-1]}, by token (all prefixes): {', '.join(named)}" if named else ""


def course(effects: xr.DataArray) -> str:
    """Return effects at the first and last checkpoint, their mean over features, dims (place, checkpoint) or fewer."""
    means = effects.mean("place") if "place" in effects.dims else effects
    return f"{signed(float(means[0]))}\u00a0→\u00a0{signed(float(means[-1]))}"


def _words_of(run: Run, feature: int) -> str:
    if feature not in run.features["feature"].values:
        return ""
    words = feature_words(run.features.sel(feature=[feature]))[feature]
    return f" (most active on: {', '.join(words)})" if words else ""
