"""Latents that write in a similar direction."""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int

from chronocoder.attribution.controls import mix_rows
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.stores import labelled

RANDOM_DIRECTIONS = 256


@torch.no_grad()
def nearest_features(
    crosscoder: Crosscoder, features: Int[np.ndarray, " feature"], count: int
) -> dict[str, xr.Variable]:
    """Return the latents whose decoder rows have the largest cosine with that of each feature, at each checkpoint.

    Beside them what the largest cosine is by chance: that of random mixes of rows with any row.

    Memory: two numbers for each feature, or random mix, and latent.

    Args:
        crosscoder: any.
        features: numbers of the features.
        count: how many latents; at most all others.

    Returns:
        Dims (feature, checkpoint, neighbour), the largest cosine first, and (direction, checkpoint). A row of zeros has
        cosine 0 with every other.
    """
    own = torch.from_numpy(features).to(crosscoder.b_dec.device)
    generator = np.random.default_rng([crosscoder.config.seed, 5])
    mixes = mix_rows(crosscoder, generator.integers(len(crosscoder.b_enc), size=(1, RANDOM_DIRECTIONS)), generator)[0]
    found, random = [], []
    for place, rows in enumerate(crosscoder.W_dec):
        unit = torch.nn.functional.normalize(rows, dim=-1)
        cosine = unit[own] @ unit.T
        cosine[torch.arange(len(own)), own] = -torch.inf
        found.append(cosine.topk(count, dim=1))
        random.append((torch.nn.functional.normalize(mixes[:, place], dim=-1) @ unit.T).amax(dim=1))
    dims = ("feature", "checkpoint", "neighbour")
    cosines, numbers = (torch.stack(values, dim=1).cpu().numpy() for values in zip(*found, strict=True))
    return {
        "nearest_feature": labelled(dims, numbers, "latent whose decoder row points in the most similar direction"),
        "nearest_cosine": labelled(dims, cosines, "cosine of the two decoder rows"),
        "nearest_random_cosine": labelled(
            ("direction", "checkpoint"),
            torch.stack(random, dim=1).cpu().numpy(),
            "largest cosine of a random mix of decoder rows with any row",
        ),
    }
