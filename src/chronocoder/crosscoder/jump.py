"""Codes above learnt thresholds, whose thresholds learn by pseudo-derivatives (Rajamanoharan et al. 2407.14435)."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from chronocoder.crosscoder.parts import OwnTokens


class Jumped(NamedTuple):
    """What thresholds let pass.

    Attributes:
        codes: the preactivations that reach their threshold, else 0; shape (token, feature).
        number: how many do, over the tokens that sums are taken over.
    """

    codes: Float[Tensor, "token feature"]
    number: Float[Tensor, ""]


def jump(
    preactivations: Float[Tensor, "token feature"],
    norms: Float[Tensor, " feature"],
    threshold: Float[Tensor, " feature"],
    bandwidth: float,
    dealt: OwnTokens,
) -> Jumped:
    """Keep preactivations that, times the norm, reach the threshold; the norms have no gradient.

    The thresholds' gradient is the paper's (its equations 11 and 12): that of a rectangle of width `bandwidth` around
    the threshold, in the units of preactivation times norm. `dealt` says what number and gradient are summed over.
    """
    return Jumped(*_Jump.apply(preactivations, norms, threshold, bandwidth, dealt))  # type: ignore[no-untyped-call]


class _Jump(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, preactivations: Tensor, norms: Tensor, threshold: Tensor, bandwidth: float, dealt: OwnTokens
    ) -> tuple[Tensor, Tensor]:
        above = torch.addcmul(-threshold, preactivations, norms)
        active = above >= 0
        near = above.abs_() < bandwidth / 2
        codes = preactivations * active
        counts = near.half().sum(dim=0, dtype=torch.float32) if near.is_cuda else near.sum(dim=0)
        number = torch.linalg.vector_norm(codes, 0) if codes.is_cuda else active.sum()
        # A GPU would convert a mask to int64 before it adds it up; codes are zero where they are not active alone.
        context.save_for_backward(active, near, threshold / norms.clamp(min=1e-12), dealt.count(counts))
        context.bandwidth, context.dealt = bandwidth, dealt
        return codes, dealt.count(number).float()

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        active, near, least, counts = context.saved_tensors
        of_codes, of_number = gradients
        of_jumps = context.dealt.total(of_codes * near) * least + of_number * counts
        return of_codes * active, None, -of_jumps / context.bandwidth, None, None
