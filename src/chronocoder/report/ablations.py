"""What the page shows of exact ablations: single features, and the words at which they act."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from chronocoder.report.compact import Part, Vocabulary, arrays, at, nested, rounded
from chronocoder.report.examples import levels
from chronocoder.report.inputs import Run, names

MEMBER = "member"
PAIRS = 3
OUTCOMES = ("accuracy", "difference", "log_probability_change")
EXACT_EFFECTS = {"exact": "indirect_effect", **{name: name for name in OUTCOMES}}
BY_ROLE = {"effect": "role_effect", "low": "role_effect_low", "high": "role_effect_high"}


def ablation_part(run: Run) -> Part:
    """Return what gives the exact effects of a feature, by place of the tasks on which it was ablated."""
    numbers = run.relie["feature"].values.tolist()
    by_task = [_of_task(run.ablations[task], run.relie["indirect_effect"].sel(task=task)) for task in run.tasks]

    def part(place: int) -> dict[str, Any]:
        found = ((task, of_task(numbers[place])) for task, of_task in enumerate(by_task))
        return {"ablations": {task: record for task, record in found if record}}

    return part


def _of_task(ablation: xr.Dataset, effect: xr.DataArray) -> Callable[[int], dict[str, Any]]:
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


def ablation_data(ablation: xr.Dataset, effect: xr.DataArray, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return exact effects on one task, of those of the shown features that were ablated.

    Where a feature acts is shown at the checkpoint of its largest |IE|, on the pairs on which it acts most.

    Args:
        ablation: the store of the task.
        effect: IE of the features the page shows, dims (checkpoint, feature).
        vocabulary: takes up the tokens of the pairs.
    """
    shown = np.intersect1d(effect["feature"].values, ablation["feature"].values)
    strongest = abs(effect.sel(feature=shown)).transpose("checkpoint", "feature").values.argmax(axis=0)
    exact = ablation.sel(feature=shown, estimator="exact").transpose(..., "checkpoint", "feature")
    position_effect, traced = ablation["position_effect"], ablation["top_feature"].values
    acts = {
        feature: _strongest_pairs(position_effect.sel(top_feature=feature).isel(checkpoint=place))
        for feature, place in zip(shown.tolist(), strongest.tolist(), strict=True)
        if feature in traced
    }
    return {
        "features": shown.tolist(),
        "strongest": strongest.tolist(),
        "exact": nested(exact["indirect_effect"].values),
        "exactOfConditions": nested(exact["condition_indirect_effect"].transpose("condition", ...).values),
        "outcomes": [nested(exact[name].values) for name in OUTCOMES],
        "clean": [nested(ablation[f"clean_{name}"].values) for name in OUTCOMES[:2]],
        "actsBy": position_effect.attrs["long_name"],
        "acts": acts,
        "roles": _role_data(ablation.sel(top_feature=[feature for feature in shown if feature in traced])),
        "pairs": _pairs(ablation, {place for lines in acts.values() for place, _ in lines}, vocabulary),
    }


def _role_data(ablation: xr.Dataset) -> dict[str, Any]:
    """Return effects by role of the token, dims (condition, role, checkpoint, feature); without roles of no effect."""
    dims = ("condition", "position_role", "checkpoint", "top_feature")
    acting = (ablation["role_effect"] != 0).any([dim for dim in dims if dim != "position_role"]).values
    chosen = ablation.isel(position_role=np.flatnonzero(acting))
    ends = {"effect": "role_effect", "low": "role_effect_low", "high": "role_effect_high"}
    return {
        "features": chosen["top_feature"].values.tolist(),
        "names": names(chosen, "position_role"),
        "conditions": names(chosen, "condition"),
        **{end: nested(chosen[variable].transpose(*dims).values) for end, variable in ends.items()},
    }


def _strongest_pairs(effects: xr.DataArray) -> list[list[Any]]:
    """Return [place of the example, for each text of the pair the effect at each token] where a feature acts most."""
    values = _by_text(effects).values
    size = abs(np.nansum(values, axis=(1, 2)))
    order = np.argsort(-size, kind="stable")[:PAIRS]
    return [
        [int(place), [nested(text[np.isfinite(text)]) for text in values[place]]] for place in order if size[place] > 0
    ]


def _pairs(ablation: xr.Dataset, wanted: set[int], vocabulary: Vocabulary) -> dict[int, list[Any]]:
    """Return [for each text the places of its tokens, right rest, wrong rest] of some examples."""
    has_effect = ablation["position_effect"].notnull().any(["checkpoint", "top_feature"])
    tokens, inside = (_by_text(values).values for values in (ablation["token"], has_effect))
    right, wrong = ablation["right"].values, ablation["wrong"].values
    return {
        place: [
            [
                [vocabulary.place(str(token)) for token in text[within]]
                for text, within in zip(tokens[place], inside[place], strict=True)
            ],
            str(right[place]),
            str(wrong[place]),
        ]
        for place in sorted(wanted)
    }


def _by_text(values: xr.DataArray) -> xr.DataArray:
    """Return values by the texts that a model reads of a pair: its prefix, or the right and the wrong sentence.

    Returns:
        Dims (example, member, position).
    """
    of_texts = values if MEMBER in values.dims else values.expand_dims(MEMBER)
    return of_texts.transpose(..., "example", MEMBER, "position")
