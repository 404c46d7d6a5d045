"""How strongly features are active, and together with which latents: counts of tokens, added up block by block."""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from scipy.special import gammainc
from torch import Tensor

from chronocoder.features.overlap import ratio
from chronocoder.stores import labelled

BIN_EDGES = np.exp2(np.arange(-128, 129) / 4).astype(np.float32)
"""Edges of the bins of activations, four an octave; the outermost ones take what is beyond them."""
NO_FEATURE = -1
SIGNIFICANT = 0.05
"""Probability that chance alone brings any latent beside a feature, were tokens independent of each other."""


class Activity:
    """Tokens on which features are active.

    Memory: one number for each feature and latent, and two matrices (token, latent) of the block that is added.

    Attributes:
        features: numbers of the features in the dictionary, shape (feature,).
        tokens: how many have been seen.
        active: how many of them each latent is active on, shape (latent,).
        together: how many of them both are active on, shape (feature, latent).
        by_size: how many of them a feature is active on, by the size of its activation, shape (feature, bin).
    """

    def __init__(self, features: Int[Tensor, " feature"], latents: int) -> None:
        """Begin with no tokens, on the device of `features`."""
        self.features, self.tokens = features, 0
        self.active = torch.zeros(latents, dtype=torch.int64, device=features.device)
        self.together = torch.zeros(len(features), latents, dtype=torch.int32, device=features.device)
        self.by_size = torch.zeros(len(features), len(BIN_EDGES) - 1, dtype=torch.int64, device=features.device)

    def add(self, codes: Float[Tensor, "token latent"]) -> None:
        """Count the tokens of a block."""
        active = (codes > 0).to(codes.dtype)
        self.tokens += len(codes)
        self.active += active.sum(dim=0).long()
        self.together += (active[:, self.features].T @ active).int()
        self.by_size += self._by_size(codes[:, self.features])

    def _by_size(self, own: Float[Tensor, "token feature"]) -> Int[Tensor, "feature bin"]:
        count, bins = self.by_size.shape
        rows, places = (own > 0).nonzero(as_tuple=True)
        edges = torch.from_numpy(BIN_EDGES[1:-1]).to(own.device)
        cells = places * bins + torch.bucketize(own[rows, places], edges, right=True)
        return torch.bincount(cells, minlength=count * bins).view(count, bins)


def activation_counts(activity: Activity) -> dict[str, xr.Variable]:
    """Return how often and how strongly each feature is active.

    Returns:
        `activation_frequency` (feature); `activation_count` (feature, bin), with the edges `bin_low` and `bin_high`, of
        the bins that any feature has tokens in and those between.
    """
    by_size, active = activity.by_size.cpu().numpy(), activity.active[activity.features].cpu().numpy()
    used = np.flatnonzero(by_size.any(axis=0))
    kept = slice(used[0], used[-1] + 1) if len(used) else slice(0)
    edges = BIN_EDGES.astype(np.float64)
    return {
        "activation_frequency": labelled(
            ("feature",), active / activity.tokens, "fraction of validation tokens with the feature active"
        ),
        "activation_count": labelled(
            ("feature", "bin"), by_size[:, kept], "validation tokens by activation, where above zero", "token"
        ),
        "bin_low": labelled(("bin",), edges[:-1][kept], "smallest activation of the bin"),
        "bin_high": labelled(("bin",), edges[1:][kept], "activation at which the next bin begins"),
    }


def coactive_features(activity: Activity, count: int) -> dict[str, xr.Variable]:
    """Return which latents are active on the same tokens as each feature, most beyond what chance would give first.

    That is by the Jaccard index, the tokens with both active as a fraction of those with either, less what it would be
    if the two were independent. Left out are latents that chance may have brought there: as many tokens with both or
    more have a probability above `SIGNIFICANT`, divided by the number of latents. It is bounded by that of a Poisson
    distribution, which has a longer tail than the hypergeometric one that holds if tokens are independent.

    Returns:
        Dims (feature, neighbour), filled up with -1 and NaN.
    """
    together, active = activity.together.cpu().numpy(), activity.active.cpu().numpy()
    features = activity.features.cpu().numpy()
    neighbours = np.full((len(features), count), NO_FEATURE)
    values = np.full((3, len(features), count), np.nan)
    for place, feature in enumerate(features):
        by_chance = active[feature] * active / activity.tokens
        either = active[feature] + active
        jaccard, expected = (ratio(both, either - both) for both in (together[place], by_chance))
        by_chance_alone = gammainc(together[place], by_chance)  # P(count or more)
        beyond = np.where(by_chance_alone * len(active) <= SIGNIFICANT, np.nan_to_num(jaccard - expected), 0)
        beyond[feature] = 0
        order = np.argsort(-beyond, kind="stable")[:count]
        order = order[beyond[order] > 0]
        neighbours[place, : len(order)] = order
        measured = jaccard, expected, ratio(together[place], by_chance)
        values[:, place, : len(order)] = [of_latents[order] for of_latents in measured]
    dims = ("feature", "neighbour")
    names = {
        "coactive_jaccard": "tokens with both active, as a fraction of those with either",
        "coactive_jaccard_expected": "the same, were the two independent",
        "coactive_lift": "tokens with both active, as a multiple of what independence would give",
    }
    return {
        "coactive_feature": labelled(dims, neighbours, "latent that is active on the same tokens; -1: no further one"),
        **{name: labelled(dims, of, text) for (name, text), of in zip(names.items(), values, strict=True)},
    }
