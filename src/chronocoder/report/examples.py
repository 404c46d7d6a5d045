"""What is known of a feature apart from tasks: the text it is active on, the tokens it promotes, and its neighbours."""

from collections.abc import Callable
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

    examples = _example_maker(store)

    def part(place: int) -> dict[str, Any]:
        if (own := places.get(numbers[place])) is None:
            return {}
        return {
            "examples": examples(own),
            "tokens": at(tokens, own),
            **at(counts, own),
            "nearest": at(near, own),
            "together": at(together, own),
        }

    return part


def _example_maker(store: xr.Dataset) -> Callable[[int], dict[str, Any]]:
    """Return what gives the text on which a feature is most active, by its place in the store.

    It gives the largest activation; a row of tokens, levels of activation, place of the peak and origin for each
    example in which the feature is active; and where there are several languages, each with its fraction of the
    activation.
    """
    names = ("token", "token_id", "activation")
    texts = arrays(store, {name: name for name in names}, "feature", "example", "position")
    several = store.sizes["language"] > 1
    kinds = ["example_language", "example_source"] if several else ["example_source"]
    origins = list(arrays(store, {kind: kind for kind in kinds}, "feature", "example").values())
    languages = store["language"].values.tolist()
    shares = store["language_share"].transpose("feature", "language").values

    def examples(place: int) -> dict[str, Any]:
        tokens, token_id, activation = (texts[name][place] for name in names)
        largest = float(activation.max())
        rows = []
        for number in np.flatnonzero(activation.max(axis=1) > 0):
            inside = token_id[number] >= 0
            within = activation[number][inside]
            origin = ", ".join(filter(None, (str(of_kind[place, number]) for of_kind in origins)))
            rows.append([nested(tokens[number][inside]), levels(within, largest), int(within.argmax()), origin])
        named = [(name, rounded(share)) for name, share in zip(languages, shares[place].tolist(), strict=True) if name]
        return {"largest": rounded(largest), "rows": rows, "languages": named if several else []}

    return examples


def levels(activation: np.ndarray, largest: float) -> list[int]:
    """Return activations as whole numbers from zero, for none, to `LEVELS`, for the largest."""
    return np.ceil(LEVELS * activation / max(largest, 1e-30)).astype(int).tolist()  # type: ignore[no-any-return]
