"""Estimators of the indirect effect (IE) of features (Marks et al. 2403.19647, with error terms).

The site's activation at a checkpoint is x = b + sum_i f_i W_i + epsilon: the error term epsilon is kept, so that the
unchanged model is reproduced exactly. The metric is mu = logit(wrong) - logit(right) at the last token of the prefix.
IE_i = mu(f_i set to zero at all positions) - mu(clean): positive where the feature helps the right answer.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chronocoder.suites.sites import Site, SiteState

FEATURES_AT_ONCE = 64


class Prompts(NamedTuple):
    """Examples with prefixes of one length, at one checkpoint.

    Attributes:
        token_ids: shape (batch, position).
        wrong_ids: answer tokens, shape (batch,).
        right_ids: answer tokens, shape (batch,).
        state: the clean pass up to the site.
        codes: feature activations, shape (batch, position, feature); zero at the first position, whose whole
            activation counts as error, since crosscoders are not trained on it.
    """

    token_ids: Int[Tensor, "batch position"]
    wrong_ids: Int[Tensor, " batch"]
    right_ids: Int[Tensor, " batch"]
    state: SiteState
    codes: Float[Tensor, "batch position feature"]


class Decoder(NamedTuple):
    """How features write to the site at one checkpoint.

    Attributes:
        weight: shape (feature, d_model).
        bias: shape (d_model,).
    """

    weight: Float[Tensor, "feature d_model"]
    bias: Float[Tensor, " d_model"]


Estimator = Callable[[Site, Prompts, Decoder, int], Float[Tensor, "batch feature"]]


def attribution_patching(
    site: Site, prompts: Prompts, decoder: Decoder, steps: int = 1
) -> Float[Tensor, "batch feature"]:
    """Estimate effects by one gradient at the clean point: IE_i = sum over positions of -f_i (W_i . grad)."""
    x = prompts.state.activation
    return _project(_metric_gradient(site, prompts, x.unsqueeze(0))[0], prompts, decoder)


def integrated_gradients(
    site: Site, prompts: Prompts, decoder: Decoder, steps: int = 10
) -> Float[Tensor, "batch feature"]:
    """Estimate effects by the mean gradient along the path from clean to zero, features and error together.

    The path is b + alpha (x - b); alpha takes the midpoints of `steps` equal intervals. The first position stays clean.
    """
    x = prompts.state.activation
    alphas = (torch.arange(steps, device=x.device, dtype=x.dtype) + 0.5) / steps
    path = decoder.bias + alphas[:, None, None, None] * (x - decoder.bias)
    path[:, :, 0] = x[:, 0]
    return _project(_metric_gradient(site, prompts, path).mean(dim=0), prompts, decoder)


@torch.no_grad()
def exact(site: Site, prompts: Prompts, decoder: Decoder, steps: int = 1) -> Float[Tensor, "batch feature"]:
    """Measure effects by ablating each active feature in turn; the reference for the estimators."""
    x = prompts.state.activation
    effects = x.new_zeros(len(x), prompts.codes.shape[-1])
    clean = _metric(site, prompts, x.unsqueeze(0))[0]
    active = prompts.codes.any(dim=1).any(dim=0).nonzero()[:, 0]
    for features in active.split(FEATURES_AT_ONCE):
        codes = prompts.codes[..., features].permute(2, 0, 1)
        ablated = x - codes[..., None] * decoder.weight[features][:, None, None, :]
        effects[:, features] = (_metric(site, prompts, ablated) - clean).T
    return effects


ESTIMATORS: dict[str, Estimator] = {
    "attribution_patching": attribution_patching,
    "integrated_gradients": integrated_gradients,
    "exact": exact,
}


def _metric(
    site: Site, prompts: Prompts, activations: Float[Tensor, "copy batch position d_model"]
) -> Float[Tensor, "copy batch"]:
    """Return mu for several versions of the site's activation in one pass."""
    copies = len(activations)
    logits = site.resume(
        prompts.token_ids.repeat(copies, 1), activations.flatten(0, 1), prompts.state.entry.repeat(copies, 1, 1)
    )[:, -1]
    wrong, right = (ids.repeat(copies)[:, None] for ids in (prompts.wrong_ids, prompts.right_ids))
    return (logits.gather(1, wrong) - logits.gather(1, right)).view(copies, -1)


def _metric_gradient(
    site: Site, prompts: Prompts, activations: Float[Tensor, "copy batch position d_model"]
) -> Float[Tensor, "copy batch position d_model"]:
    leaf = activations.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(_metric(site, prompts, leaf).sum(), leaf)
    return gradient


def _project(
    gradient: Float[Tensor, "batch position d_model"], prompts: Prompts, decoder: Decoder
) -> Float[Tensor, "batch feature"]:
    return -torch.einsum("bpf,bpf->bf", prompts.codes, gradient @ decoder.weight.T)
