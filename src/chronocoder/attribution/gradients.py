"""Gradients of the metric at the site, at one point or along a straight way."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from chronocoder.attribution.effects import Prompts, metric
from chronocoder.devices import computing
from chronocoder.suites.sites import Site


class Path(NamedTuple):
    """Points on a straight way that a mean over it is taken by.

    Attributes:
        alphas: from 0, the beginning, to 1, ascending.
        weights: of the points; they add up to one.
    """

    alphas: np.ndarray
    weights: np.ndarray


def gauss_legendre(points: int) -> Path:
    """Return the points and weights that integrate polynomials up to degree 2 points - 1: the midpoint for one."""
    places, weights = np.polynomial.legendre.leggauss(points)
    return Path((places + 1) / 2, weights / 2)


def left_ends(points: int) -> Path:
    """Return 0, 1 / points, ... with equal weights: the left ends of equal intervals."""
    return Path(np.arange(points) / points, np.full(points, 1 / points))


def midpoints(points: int) -> Path:
    """Return the midpoints of equal intervals."""
    return Path((np.arange(points) + 0.5) / points, np.full(points, 1 / points))


def clean_gradient(site: Site, prompts: Prompts) -> Float[Tensor, "batch position d_model"]:
    """Return the gradient of the metric at the clean activation."""
    return path_gradient(site, prompts, torch.zeros_like(prompts.state.activation), left_ends(1), 1)


def path_gradient(
    site: Site, prompts: Prompts, change: Float[Tensor, "batch position d_model"], path: Path, sequences: int
) -> Float[Tensor, "batch position d_model"]:
    """Return the mean gradient of the metric on the straight way from the clean activation to a changed one.

    Args:
        site: in the checkpoint's model.
        prompts: the examples.
        change: what is added to the activation at the end of the way.
        path: points on it.
        sequences: as many go through the model at once, or one point of the path where there are more examples.
    """
    x = prompts.state.activation
    alphas, weights = (torch.from_numpy(values).to(x.device, torch.float32) for values in path)
    total = torch.zeros_like(x, dtype=torch.float32)
    copies = max(1, sequences // len(x))
    for part, weight in zip(alphas.split(copies), weights.split(copies), strict=True):
        leaf = (x + part.to(x.dtype)[:, None, None, None] * change).detach().requires_grad_()
        mean = (weight @ metric(site, prompts, leaf)).sum()
        with computing(site.precision, x.device):
            total += torch.autograd.grad(mean, leaf)[0].float().sum(dim=0)
    return total
