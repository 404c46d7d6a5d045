"""Grouped gradients: the largest features changed alone, the others in small groups with a gradient each."""

import math
from collections.abc import Iterator
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from chronocoder.attribution.effects import Effects, Prompts, effects_along
from chronocoder.attribution.exact import exact
from chronocoder.attribution.gradients import clean_gradient, gauss_legendre, path_gradient
from chronocoder.config import AttributionSettings
from chronocoder.suites.sites import Site

GROUPING = 10
"""Tells the random numbers of groups from those that other modules draw with the same seed."""

MEMBERS_AT_ONCE = 32
"""Decoder rows that are gathered for each group at a time."""


class Group(NamedTuple):
    """Features that change together on one example.

    Attributes:
        row: of the batch.
        features: their places.
    """

    row: int
    features: np.ndarray


class Deal(NamedTuple):
    """How the features that change are measured.

    Attributes:
        alone: features that are changed alone, shape (batch, feature).
        groups: the others.
    """

    alone: Bool[Tensor, "batch feature"]
    groups: list[Group]


def grouped_gradients(site: Site, prompts: Prompts, settings: AttributionSettings) -> Effects:
    """Estimate effects by the gradient halfway along the change of a small group of features.

    On each example the `settings.alone` features of largest effect to first order are changed exactly, and so is the
    error term. The others that change are dealt out at random into `settings.groups` groups. Each group goes its own
    way from the clean activation, to which all else keeps, and its mean gradient is projected on its own features: the
    effect of a feature together with half of each of the few others in its group, which are other ones on the next
    example. With a group for each feature, and points enough on the way, effects are exact.

    Controls are measured as features are, in proportion to their number, and apart from them: they change no feature's
    effect.
    """
    first_order = effects_along(clean_gradient(site, prompts), prompts).features
    return measure_dealt(site, prompts, deal(prompts, first_order.abs().cpu().numpy(), settings), settings)


def measure_dealt(site: Site, prompts: Prompts, dealt: Deal, settings: AttributionSettings) -> Effects:
    """Measure features alone exactly, and groups by the mean gradient at `settings.points` points on their way."""
    effects = exact(site, _only(prompts, dealt.alone), settings)
    path, device = gauss_legendre(settings.points), dealt.alone.device
    for rows, members in _padded(dealt.groups, max(1, settings.batch_size // settings.points), device):
        parts = members.split(MEMBERS_AT_ONCE, dim=1)
        change = reduce(torch.add, (_written(prompts, rows, part) for part in parts))
        gradient = path_gradient(site, prompts.of(rows), change, path, settings.batch_size)
        for part in parts:
            found = _along(gradient, prompts, rows, part)
            effects.features.index_put_((rows[:, None], part.clamp(min=0)), found, accumulate=True)
    return effects


def deal(prompts: Prompts, sizes: Float[np.ndarray, "batch feature"], settings: AttributionSettings) -> Deal:
    """Choose the largest features of each example, and deal out the others.

    What is drawn depends on the seed, on the example, and on which features change on it. Of controls so many go alone,
    and so many groups are formed, that each has about as many members as a group of features.

    Args:
        prompts: the examples.
        sizes: by which the largest are chosen.
        settings: how many, how many groups, and the seed.
    """
    changed = prompts.change.any(dim=1).cpu().numpy()
    alone, groups = np.zeros_like(changed), []
    for row, example in enumerate(prompts.examples.tolist()):
        generator = np.random.default_rng([settings.seed, GROUPING, example + 1])
        own, controls = np.split(changed[row], [len(prompts.weight) - prompts.controls])
        share = controls.sum() / max(own.sum(), 1)
        for places, part in ((np.flatnonzero(own), 1.0), (len(own) + np.flatnonzero(controls), share)):
            shuffled = generator.permutation(places)
            largest = places[np.argsort(-sizes[row, places], kind="stable")][: math.ceil(settings.alone * part)]
            alone[row, largest] = True
            count = math.ceil(settings.groups * part)
            dealt = [shuffled[place::count] for place in range(count)]
            groups += [Group(row, members[~alone[row, members]]) for members in dealt]
    filled = [group for group in groups if len(group.features)]
    return Deal(torch.from_numpy(alone).to(prompts.change.device), filled)


def _only(prompts: Prompts, features: Bool[Tensor, "batch feature"]) -> Prompts:
    """Return what changes only some features of each example, and the error term as before."""
    change = torch.where(features[:, None], prompts.change, 0.0)
    others = (prompts.change - change)[..., prompts.own] @ prompts.weight[prompts.own]
    return prompts._replace(change=change, end=prompts.end - others.to(prompts.end.dtype))


def _padded(
    groups: list[Group], size: int, device: torch.device
) -> Iterator[tuple[Int[Tensor, " group"], Int[Tensor, "group member"]]]:
    """Yield rows and members of so many groups at a time; -1 where a group has fewer members than others."""
    for first in range(0, len(groups), size):
        part = groups[first : first + size]
        members = np.full((len(part), max(len(group.features) for group in part)), -1)
        for place, group in enumerate(part):
            members[place, : len(group.features)] = group.features
        yield torch.tensor([group.row for group in part], device=device), torch.from_numpy(members).to(device)


def _written(
    prompts: Prompts, rows: Int[Tensor, " group"], members: Int[Tensor, "group member"]
) -> Float[Tensor, "group position d_model"]:
    """Return what members of groups add to the site's activation when they change."""
    return torch.einsum("gmp,gmd->gpd", *_gathered(prompts, rows, members)).to(prompts.state.activation.dtype)


def _along(
    gradient: Float[Tensor, "group position d_model"],
    prompts: Prompts,
    rows: Int[Tensor, " group"],
    members: Int[Tensor, "group member"],
) -> Float[Tensor, "group member"]:
    """Return the effects of members of groups to first order in their group's gradient."""
    change, weight = _gathered(prompts, rows, members)
    return (torch.einsum("gmp,gpd->gmd", change, gradient) * weight).sum(dim=-1)


def _gathered(
    prompts: Prompts, rows: Int[Tensor, " group"], members: Int[Tensor, "group member"]
) -> tuple[Float[Tensor, "group member position"], Float[Tensor, "group member d_model"]]:
    """Return the change of each member, zero where there is none, and how it writes to the site."""
    index = members.clamp(min=0)
    change = prompts.change[rows[:, None], :, index] * (members >= 0)[..., None]
    return change, prompts.weight[index]
