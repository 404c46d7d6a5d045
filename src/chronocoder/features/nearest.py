"""Latents that write in a similar direction."""

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int

from chronocoder.crosscoder.model import Crosscoder
from chronocoder.stores import labelled


@torch.no_grad()
def nearest_features(
    crosscoder: Crosscoder, features: Int[np.ndarray, " feature"], count: int
) -> dict[str, xr.Variable]:
    """Return the latents whose decoder rows have the largest cosine with that of each feature, at each checkpoint.

    Memory: two numbers for each feature and latent.

    Args:
        crosscoder: any.
        features: numbers of the features.
        count: how many latents; at most all others.

    Returns:
        Dims (feature, checkpoint, neighbour), the largest cosine first. A row of zeros has cosine 0 with every other.
    """
    own = torch.from_numpy(features).to(crosscoder.b_dec.device)
    found = []
    for rows in crosscoder.W_dec:
        unit = torch.nn.functional.normalize(rows, dim=-1)
        cosine = unit[own] @ unit.T
        cosine[torch.arange(len(own)), own] = -torch.inf
        found.append(cosine.topk(count, dim=1))
    dims = ("feature", "checkpoint", "neighbour")
    cosines, numbers = (torch.stack(values, dim=1).cpu().numpy() for values in zip(*found, strict=True))
    return {
        "nearest_feature": labelled(dims, numbers, "latent whose decoder row points in the most similar direction"),
        "nearest_cosine": labelled(dims, cosines, "cosine of the two decoder rows"),
    }
