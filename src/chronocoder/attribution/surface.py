"""Features that stand for a surface rule, and what becomes of them: one half of the prefixes chooses, the other tells.

A surface rule solves one task and fails on another: agreement with the nearest noun is right in "the boy walks" and
wrong in "the boy near the dogs walks". Effects are followed within a condition, since a mean over opposite conditions
would hide that a feature harms in one and helps in the other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from chronocoder.stores import strings

CHOOSING, TELLING = 0, 1
"""Halves of the prefixes."""
KEPT = 0.5
"""Harm is kept where at least this fraction of it is left."""
MOST, SMALLEST = 6, 0.02
"""Features that are followed at the most, and the smallest effect that makes one of them."""


class SurfaceFeature(NamedTuple):
    """A feature that stands for a surface rule at a checkpoint.

    Attributes:
        feature: its number.
        condition: that of the conflicting task in which it harms.
        other_condition: that in which its effect is largest at the last checkpoint, of the others; the same where there
            is no other.
        strength: the smaller of its help on the surface task and its harm on the conflicting one, in logits.
    """

    feature: int
    condition: str
    other_condition: str
    strength: float


def find_surface_features(
    relie: xr.Dataset, surface: str, conflicting: str, checkpoint: str, most: int = MOST, smallest: float = SMALLEST
) -> list[SurfaceFeature]:
    """Return the features that stand for a surface rule at a checkpoint, the strongest first.

    Such a feature helps the surface task in some condition and harms the conflicting one in some condition: with
    intervals on that side of zero, and more than random directions that write as much. Only the choosing half of the
    prefixes is looked at; random directions are measured on all.

    Args:
        relie: effects on all tasks, as in `relie.zarr`.
        surface: the task that the rule solves.
        conflicting: the task on which it fails.
        checkpoint: revision.
        most: how many features at the most.
        smallest: smallest effect of interest, in logits: of both effects.
    """
    strength, harms = _strength(relie, surface, conflicting, checkpoint)
    order = np.argsort(-strength, kind="stable")[:most]
    found = []
    for place in order[strength[order] >= smallest]:
        feature = int(relie["feature"].values[place])
        condition = str(harms["condition"].values[harms.values[:, place].argmax()])
        other = _other_condition(relie, conflicting, feature, condition)
        found.append(SurfaceFeature(feature, condition, other, float(strength[place])))
    return found


def count_surface_features(
    relie: xr.Dataset, surface: str, conflicting: str, checkpoint: str, smallest: float = SMALLEST
) -> int:
    """Return how many features `find_surface_features` chooses from."""
    return int((_strength(relie, surface, conflicting, checkpoint)[0] >= smallest).sum())


def follow(relie: xr.Dataset, conflicting: str, features: Sequence[SurfaceFeature]) -> xr.Dataset:
    """Return what features do to the conflicting task, in the half of the prefixes that did not choose them.

    Args:
        relie: effects on all tasks, of the crosscoder that they were chosen in, or of another one of the same suite.
        conflicting: the task on which the surface rule fails.
        features: what `find_surface_features` returns; for another crosscoder, with the numbers of matched features.

    Returns:
        `effect`, `effect_low`, `effect_high` (place, where, checkpoint), in logits: `where` is `harmed`, the condition
        in which the feature harms, or `other`; `level` (place, where, checkpoint), that of random directions;
        `confirmed`, `kept` and `helps_newly` (place,); coordinate `feature` (place,).

        `confirmed`: it harms at the first checkpoint, with its interval below zero. `kept`: confirmed, and at the last
        one it still harms, by at least half as much. `helps_newly`: in the other condition it helps at the last
        checkpoint, with its interval above zero and more than random directions, and less than half as much at the
        first.
    """
    of_task = relie.sel(task=conflicting)
    of_half = of_task.sel(half=TELLING)
    names = strings([[of.condition, of.other_condition] for of in features]).reshape(-1, 2)
    at = {
        "feature": xr.DataArray(np.array([of.feature for of in features], dtype=int), dims="place"),
        "condition": xr.DataArray(names, dims=("place", "where")),
    }
    ends = {end: of_half[f"half_indirect_effect{end}"].sel(at) for end in ("", "_low", "_high")}
    level = of_task["condition_random_level"].sel(at).fillna(0.0)
    first, last = ({end: values.isel(checkpoint=place, drop=True) for end, values in ends.items()} for place in (0, -1))
    harmed, other = {"where": 0}, {"where": 1}
    confirmed = first["_high"][harmed] < 0
    kept = confirmed & (last["_high"][harmed] < 0) & (last[""][harmed] <= KEPT * first[""][harmed])
    beyond = (last["_low"] > 0) & (last[""] > level.isel(checkpoint=-1, drop=True))
    newly = beyond[other] & (first[""][other] < KEPT * last[""][other])
    variables = {**{f"effect{end}": values for end, values in ends.items()}, "level": level}
    found = {"confirmed": confirmed, "kept": kept, "helps_newly": newly}
    marks = {name: (values.dims, values.values) for name, values in found.items()}
    return xr.Dataset({**variables, **marks}).assign_coords(where=["harmed", "other"])


def _strength(
    relie: xr.Dataset, surface: str, conflicting: str, checkpoint: str
) -> tuple[Float[np.ndarray, " feature"], xr.DataArray]:
    """Return the smaller of a feature's help and its harm, and the harm, dims (condition, feature)."""
    helps = _beyond_level(relie, surface, checkpoint, 1).max("condition").values
    harms = _beyond_level(relie, conflicting, checkpoint, -1)
    return np.minimum(helps, harms.max("condition").values), harms


def _beyond_level(relie: xr.Dataset, task: str, checkpoint: str, sign: int) -> xr.DataArray:
    """Return effects of one sign in the choosing half where they are certain, else zero; dims (condition, feature)."""
    of_task = relie.sel(task=task, checkpoint=checkpoint)
    effect = sign * of_task["half_indirect_effect"].sel(half=CHOOSING)
    end = of_task[f"half_indirect_effect{'_low' if sign > 0 else '_high'}"].sel(half=CHOOSING)
    certain = (sign * end > 0) & (effect > of_task["condition_random_level"].fillna(0.0))
    return effect.where(certain, 0.0).transpose("condition", "feature")


def _other_condition(relie: xr.Dataset, task: str, feature: int, condition: str) -> str:
    effect = relie["half_indirect_effect"].sel(task=task, feature=feature, half=CHOOSING).isel(checkpoint=-1)
    others = abs(effect.drop_sel(condition=condition)).dropna("condition")
    return str(others["condition"].values[others.values.argmax()]) if others.size else condition
