"""What is known of a feature apart from tasks: the text it is active on, the tokens it promotes, and its neighbours."""

from typing import Any

import numpy as np
import xarray as xr

from chronocoder.report.compact import Part, arrays, at, nested, rounded
from chronocoder.report.inputs import Run

LEVELS = 9
"""Steps in which tokens are shaded by activation."""
RANKED = {
    "promoted": "promoted_token",
    "promotedBy": "promoted_logit",
    "suppressed": "suppressed_token",
    "suppressedBy": "suppressed_logit",
}
NEAREST = {"features": "nearest_feature", "cosine": "nearest_cosine"}
TOGETHER = {
    "features": "coactive_feature",
    "jaccard": "coactive_jaccard",
    "expected": "coactive_jaccard_expected",
    "lift": "coactive_lift",
}


def example_part(run: Run) -> Part:
    """Return what gives the examples of a feature, and what goes with them; nothing where none are stored."""
    store = run.features
    places = {number: place for place, number in enumerate(store["feature"].values.tolist())}
    numbers = run.relie["feature"].values.tolist()
    tokens = arrays(store, RANKED, "feature", "checkpoint", "rank")
    near = arrays(store, NEAREST, "feature", "checkpoint", "neighbour")
    together = arrays(store, TOGETHER, "feature", "neighbour")
    counts = arrays(store, {"counts": "activation_count"}, "feature", "bin")

    def part(place: int) -> dict[str, Any]:
        if (own := places.get(numbers[place])) is None:
            return {}
        return {
            "examples": corpus_examples(store.isel(feature=own)),
            "tokens": at(tokens, own),
            **at(counts, own),
            "nearest": at(near, own),
            "together": at(together, own),
        }

    return part


def corpus_examples(of_feature: xr.Dataset) -> dict[str, Any]:
    """Return the text on which a feature is most active.

    Args:
        of_feature: dims (example, position).

    Returns:
        The largest activation; a row of tokens, levels of activation, place of the peak and origin for each example in
        which the feature is active; and where there are several languages, each with its fraction of the activation.
    """
    ordered = of_feature.transpose("example", "position", ...)
    names = ("token", "token_id", "activation")
    tokens, token_id, activation = (ordered[name].values for name in names)
    several = of_feature.sizes["language"] > 1
    kinds = [ordered[f"example_{kind}"].values for kind in ("language", "source") if several or kind == "source"]
    largest = float(activation.max())
    rows = []
    for number in np.flatnonzero(activation.max(axis=1) > 0):
        inside = token_id[number] >= 0
        within = activation[number][inside]
        origin = ", ".join(filter(None, (str(of_kind[number]) for of_kind in kinds)))
        rows.append([nested(tokens[number][inside]), levels(within, largest), int(within.argmax()), origin])
    shares = _language_shares(of_feature["language_share"])
    return {"largest": rounded(largest), "rows": rows, "languages": shares if several else []}


def levels(activation: np.ndarray, largest: float) -> list[int]:
    """Return activations as whole numbers from zero, for none, to `LEVELS`, for the largest."""
    return np.ceil(LEVELS * activation / max(largest, 1e-30)).astype(int).tolist()  # type: ignore[no-any-return]


def _language_shares(shares: xr.DataArray) -> list[tuple[str, float | None]]:
    """Return the languages with the fraction of a feature's activation in each; none where the text names none."""
    by_language = zip(shares["language"].values.tolist(), shares.values.tolist(), strict=True)
    return [(name, rounded(share)) for name, share in by_language if name]
