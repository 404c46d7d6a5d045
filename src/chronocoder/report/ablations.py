"""What the page shows of exact ablations: single features, and the words at which they act."""

from typing import Any

import numpy as np
import xarray as xr

from chronocoder.report.compact import Vocabulary, nested
from chronocoder.report.inputs import names

PREFIXES = 3
OUTCOMES = ("accuracy", "logit_difference", "log_probability_change")


def ablation_data(ablation: xr.Dataset, effect: xr.DataArray, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return exact effects on one task, of those of the shown features that were ablated.

    Where a feature acts is shown at the checkpoint of its largest |IE|, on the prefixes on which it acts most.

    Args:
        ablation: the store of the task.
        effect: IE of the features the page shows, dims (checkpoint, feature).
        vocabulary: takes up the tokens of the prefixes.
    """
    shown = np.intersect1d(effect["feature"].values, ablation["feature"].values)
    strongest = abs(effect.sel(feature=shown)).transpose("checkpoint", "feature").values.argmax(axis=0)
    exact = ablation.sel(feature=shown, estimator="exact").transpose(..., "checkpoint", "feature")
    position_effect, traced = ablation["position_effect"], ablation["top_feature"].values
    acts = {
        feature: _strongest_prefixes(position_effect.sel(top_feature=feature).isel(checkpoint=place))
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
        "prefixes": _prefixes(ablation, {place for lines in acts.values() for place, _ in lines}, vocabulary),
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


def _strongest_prefixes(effects: xr.DataArray) -> list[list[Any]]:
    """Return [place of the example, effect at each token] where one feature acts most, dims (example, position)."""
    values = effects.transpose("example", "position").values
    size = abs(np.nansum(values, axis=1))
    order = np.argsort(-size, kind="stable")[:PREFIXES]
    return [[int(place), nested(values[place][np.isfinite(values[place])])] for place in order if size[place] > 0]


def _prefixes(ablation: xr.Dataset, wanted: set[int], vocabulary: Vocabulary) -> dict[int, list[Any]]:
    """Return [places of the tokens, right answer, wrong answer] of some examples."""
    has_effect = ablation["position_effect"].notnull().any(["checkpoint", "top_feature"])
    tokens, inside = (values.transpose("example", "position").values for values in (ablation["token"], has_effect))
    right, wrong = ablation["right"].values, ablation["wrong"].values
    return {
        place: [
            [vocabulary.place(str(token)) for token in tokens[place][inside[place]]],
            str(right[place]),
            str(wrong[place]),
        ]
        for place in sorted(wanted)
    }
