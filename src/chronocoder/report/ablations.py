"""What the page shows of exact ablations: single features, and the words at which they act."""

from typing import Any

import numpy as np
import xarray as xr

from chronocoder.report.compact import Vocabulary, nested
from chronocoder.report.inputs import names

MEMBER = "member"
PAIRS = 3
OUTCOMES = ("accuracy", "difference", "log_probability_change")


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
    return of_texts.transpose("example", MEMBER, "position")
