"""What becomes of features in the next comparison, the one that begins at the checkpoint where theirs ends.

Each comparison has a dictionary of its own. Features of two are matched one to one by the cosine of their decoder rows
at the checkpoint that both have, as features of seeds are (`chronocoder.attribution.seeds`).
"""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from chronocoder.attribution.controls import mix_rows
from chronocoder.attribution.seeds import decoder_rows, directions, match_features
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import StoreError
from chronocoder.stores import labelled, strings

RANDOM_DIRECTIONS = 256
SAME = ("suite", "variant", "site", "seed", "d_model")

LONG_NAMES = {
    "matched_feature": "feature of the next comparison that the feature is matched with; -1: none",
    "cosine": "cosine of the decoder rows of the two at the checkpoint that both comparisons have",
    "random_cosine": "largest such cosine of a random mix of this dictionary's rows with any row of the next one",
}
"""Name in words of each variable; all of them are dimensionless."""


def match_successors(crosscoder: Crosscoder, successors: Sequence[Crosscoder]) -> xr.Dataset:
    """Match the features of a crosscoder with those of crosscoders whose comparison begins where its own ends.

    Returns:
        `matched_feature` and `cosine`, dims (successor, feature); `random_cosine`, dims (successor, direction): what a
        cosine is by chance. No cosine is too small for a match: a threshold is for the analysis.

    Raises:
        StoreError: a comparison does not begin where the first one ends, or the crosscoders are not trained alike.
    """
    for successor in successors:
        _check(crosscoder, successor)
    own = _rows_at(crosscoder, -1)
    random = _random_rows(crosscoder)
    found = []
    for successor in successors:
        other = _rows_at(successor, 0)
        cosines = directions(random) @ directions(other).T
        found.append(match_features(own, other).assign(random_cosine=("direction", cosines.max(axis=1))))
    names = [successor.config.comparison for successor in successors]
    joined = xr.concat(found, dim="successor").transpose("successor", ...)
    return xr.Dataset(
        {
            name: labelled(tuple(map(str, joined[name].dims)), joined[name].values, words)
            for name, words in LONG_NAMES.items()
        },
        coords={"successor": strings(names), "feature": own["feature"].values},
    )


def _rows_at(crosscoder: Crosscoder, place: int) -> xr.DataArray:
    """Return the decoder rows of all features at one checkpoint, dims (feature, checkpoint, d_model)."""
    everything = np.arange(len(crosscoder.decoder_rows))
    return decoder_rows(crosscoder, everything).isel(checkpoint=[place])


def _random_rows(crosscoder: Crosscoder) -> xr.DataArray:
    """Return random mixes of the rows at the last checkpoint, dims (feature, checkpoint, d_model)."""
    generator = np.random.default_rng([crosscoder.config.seed, 4])
    features = np.arange(min(RANDOM_DIRECTIONS, len(crosscoder.decoder_rows)))
    with torch.no_grad():
        mixed = mix_rows(crosscoder, features[None], generator)[0, :, -1:]
    return xr.DataArray(mixed.cpu().numpy(), dims=("feature", "checkpoint", "d_model"))


def _check(crosscoder: Crosscoder, successor: Crosscoder) -> None:
    first, second = crosscoder.config, successor.config
    pairs = {key: (getattr(first, key), getattr(second, key)) for key in SAME}
    pairs["checkpoint between"] = (first.checkpoints[-1], second.checkpoints[0])
    pairs["commit of the checkpoint between"] = (first.commits[-1], second.commits[0])
    for key, (expected, found) in pairs.items():
        if expected != found:
            raise StoreError(
                f"crosscoder of {second.comparison}: '{key}' is {found}, where {first.comparison} needs {expected};"
                " give crosscoders, trained alike, of comparisons that begin at its last checkpoint"
            )
