"""Matrix products of float32 matrices in bfloat16, added up and returned in float32."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

WIDE_RESULTS = torch.version.cuda is not None and tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 8)
"""Whether a product on a GPU can return more digits than its factors have: it saves a pass over the result."""


def half_product(left: Float[Tensor, "row n"], right: Float[Tensor, "n column"]) -> Float[Tensor, "row column"]:
    """Return left @ right, computed in bfloat16 as are its gradients, and all of them float32.

    What autocast does takes a pass over each factor and each result more, and rounds each result.
    """
    transposed = right.stride(0) < right.stride(1)  # its gradient has to lie as it does, or it would be copied
    product: Tensor = _HalfProduct.apply(left, right, transposed)  # type: ignore[no-untyped-call]
    return product


class _HalfProduct(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, left: Tensor, right: Tensor, transposed: bool) -> Tensor:
        factors = left.bfloat16(), right.bfloat16()
        context.save_for_backward(*factors)
        context.transposed = transposed
        return multiply(*factors)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        left, right = context.saved_tensors
        gradient, of_left, of_right = gradients[0].bfloat16(), None, None
        if context.needs_input_grad[0]:
            of_left = multiply(gradient, right.T)
        if context.needs_input_grad[1]:
            of_right = multiply(gradient.T, left).T if context.transposed else multiply(left.T, gradient)
        return of_left, of_right, None


def multiply(left: Tensor, right: Tensor, into: Tensor | None = None) -> Float[Tensor, "row column"]:
    """Return left @ right in float32, computed in the factors' type, in memory given or new."""
    with torch.autocast(left.device.type, enabled=False):
        if left.dtype == torch.float32:
            return torch.mm(left, right, out=into)
        if left.is_cuda and WIDE_RESULTS:
            product = torch.mm(left, right, out_dtype=torch.float32)
        else:
            product = (left @ right).float()
    return product if into is None else into.copy_(product)
