"""What is shown of exact ablations of single features, and the tokens at which they act."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from chronocoder.report.compact import Part, arrays, at, nested, rounded
from chronocoder.report.conditions import conditions_of
from chronocoder.report.examples import levels
from chronocoder.report.inputs import Run
from chronocoder.stores import names

MEMBER = "member"
PAIRS = 3
OUTCOMES = ("accuracy", "difference", "log_probability_change")
EXACT_EFFECTS = {"exact": "indirect_effect", **{name: name for name in OUTCOMES}}
BY_ROLE = {"effect": "role_effect", "low": "role_effect_low", "high": "role_effect_high"}


def ablation_part(run: Run) -> Part:
    """Return what gives the exact effects of a feature, by place of the tasks on which it was ablated."""
    numbers = run.relie["feature"].values.tolist()
    by_task = [_of_task(run.ablations[task], run.relie.sel(task=task)) for task in run.tasks]

    def part(place: int) -> dict[str, Any]:
        found = ((task, of_task(numbers[place])) for task, of_task in enumerate(by_task))
        return {"ablations": {task: record for task, record in found if record}}

    return part


def _of_task(ablation: xr.Dataset, relie: xr.Dataset) -> Callable[[int], dict[str, Any]]:
    effect = relie["indirect_effect"]
    ablation = ablation.sel(condition=conditions_of(relie))  # in the order in which pages name them
    places = _places(ablation["feature"])
    values = arrays(ablation.sel(estimator="exact"), EXACT_EFFECTS, "feature", "checkpoint")
    by_condition = {"conditions": "condition_indirect_effect"}
    values |= arrays(ablation, by_condition, "feature", "condition", "checkpoint")
    traced = _places(ablation["top_feature"])
    strongest = abs(effect).transpose("feature", "checkpoint").fillna(0).values.argmax(axis=1)
    known = _places(effect["feature"])
    contexts, roles = _context_maker(ablation), _role_maker(ablation)

    def record(number: int) -> dict[str, Any]:
        if number not in places:
            return {}
        of_feature = at(values, places[number])
        if number in traced:
            of_feature |= contexts(traced[number], strongest[known[number]]) | roles(traced[number])
        return of_feature

    return record


def _places(features: xr.DataArray) -> dict[int, int]:
    return {number: place for place, number in enumerate(features.values.tolist())}


def _role_maker(ablation: xr.Dataset) -> Callable[[int], dict[str, Any]]:
    """Return what gives effects by role of the token: dims (condition, role, checkpoint), of roles that have any."""
    values = arrays(ablation, BY_ROLE, "top_feature", "position_role", "condition", "checkpoint")
    role_names = names(ablation, "position_role")

    def roles(place: int) -> dict[str, Any]:
        acting = np.flatnonzero((values["effect"][place] != 0).any(axis=(1, 2)))
        by_condition = {name: of[place][acting].swapaxes(0, 1) for name, of in values.items()}
        return {"roles": {"names": [role_names[role] for role in acting], **at(by_condition, slice(None))}}

    return roles


def _context_maker(ablation: xr.Dataset) -> Callable[[int, int], dict[str, Any]]:
    """Return what gives, for a feature, the pairs on which it acts most at some checkpoint, or is most active."""
    effects = _by_text(ablation["position_effect"]).transpose("top_feature", "checkpoint", "example", ...).values
    activation = _by_text(ablation["position_activation"]).transpose("top_feature", "example", ...).values
    tokens = _by_text(ablation["token"]).values
    answers = [names(ablation, name) for name in ("right", "wrong", "example_condition")]

    def contexts(place: int, strongest: int) -> dict[str, Any]:
        largest = float(np.nan_to_num(activation[place]).max())
        rows = []
        for example in _chosen(effects[place, strongest], activation[place]):
            within = np.isfinite(activation[place, example])
            rows.append(
                [
                    _texts(tokens[example], within),
                    [
                        levels(text[inside], largest)
                        for text, inside in zip(activation[place, example], within, strict=True)
                    ],
                    [_texts(of_checkpoint[example], within) for of_checkpoint in effects[place]],
                    *(answer[example] for answer in answers),
                ]
            )
        return {"contexts": rows, "largest": rounded(largest)}

    return contexts


def _texts(values: np.ndarray, within: np.ndarray) -> list[list[Any]]:
    """Return what belongs to the tokens of each text, dims (member, position)."""
    return [nested(text[inside]) for text, inside in zip(values, within, strict=True)]


def _chosen(effects: np.ndarray, activation: np.ndarray) -> list[int]:
    """Return the examples of largest effect, then those of largest activation; dims (example, member, position)."""
    total, peak = abs(np.nansum(effects, axis=(1, 2))), np.nan_to_num(activation).max(axis=(1, 2))
    found = [
        example
        for size in (total, peak)
        for example in np.argsort(-size, kind="stable")[:PAIRS].tolist()
        if size[example] > 0
    ]
    return list(dict.fromkeys(found))


def _by_text(values: xr.DataArray) -> xr.DataArray:
    """Return values by the texts that a model reads of a pair: its prefix, or the right and the wrong sentence.

    Returns:
        Dims (example, member, position).
    """
    of_texts = values if MEMBER in values.dims else values.expand_dims(MEMBER)
    return of_texts.transpose(..., "example", MEMBER, "position")
