"""Models in half precision: logits in float32, the same weights in float32 for comparison, and what overflows."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from chronocoder.devices import FLOAT32, computing
from chronocoder.suites.patching import replaced_attribute

ROWS_AT_ONCE = 8192
"""Rows of an output embedding in half precision that are widened together."""


@contextmanager
def logits_in_float32(output_embedding: nn.Module) -> Iterator[None]:
    """Make an output embedding compute in float32, or in more if its weight has more: differences of logits are small.

    A weight in half precision is widened a few rows at a time.
    """
    original, weight = output_embedding.forward, output_embedding.get_parameter("weight")
    bias: Tensor | None = getattr(output_embedding, "bias", None)

    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            if weight.dtype not in (torch.bfloat16, torch.float16):
                own: Tensor = original(hidden.to(weight.dtype))
                return own
            logits: Tensor = _WideProduct.apply(hidden.to(weight.device), weight)  # type: ignore[no-untyped-call]
            return logits if bias is None else logits + bias

    with replaced_attribute(output_embedding, "forward", forward):
        yield


class _WideProduct(torch.autograd.Function):
    """hidden @ weight.T in float32, of a weight in half precision that has no gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.dtype, wide = hidden.dtype, hidden.float()
        product = wide.new_empty(*hidden.shape[:-1], len(weight))
        with computing(_fine_enough(hidden), hidden.device):
            for first in range(0, len(weight), ROWS_AT_ONCE):
                rows = slice(first, first + ROWS_AT_ONCE)
                product[..., rows] = wide @ weight[rows].float().T
        return product

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        total = gradient.new_zeros(*gradient.shape[:-1], weight.shape[1])
        with computing(_fine_enough(total), total.device):
            for first in range(0, len(weight), ROWS_AT_ONCE):
                rows = slice(first, first + ROWS_AT_ONCE)
                total += gradient[..., rows] @ weight[rows].float()
        return total.to(ctx.dtype), None


def _fine_enough(tensor: Tensor) -> str:
    """Return a precision of products that loses nothing of numbers in half precision: TF32 has the digits of both."""
    return "tf32" if tensor.is_cuda else FLOAT32


def is_full_precision(model: nn.Module) -> bool:
    """Say whether all weights of a model are in float32 at least."""
    return all(parameter.dtype in (torch.float32, torch.float64) for parameter in model.parameters())


@contextmanager
def in_float32(model: PreTrainedModel, left_out: Iterable[nn.Module] = ()) -> Iterator[None]:
    """Give a model float32 weights for a while, of the same values; of quantised matrices what they stand for.

    Args:
        model: meanwhile it takes the memory of float32 weights; quantised matrices are widened one by one.
        left_out: modules that stay as they are, since they will not be run.
    """
    kept = {id(module) for part in left_out for module in part.modules()}
    modules = [module for module in model.modules() if id(module) not in kept]
    tensors = {id(tensor): tensor for module in modules for tensor in _own_tensors(module) if _is_half(tensor)}
    before = [(tensor, tensor.dtype) for tensor in tensors.values()]
    with ExitStack() as patches:
        for module in modules:
            if hasattr(module, "weight") and type(module.weight).__name__ in ("Params4bit", "Int8Params"):
                patches.enter_context(_widened(module))
        try:
            for tensor, _ in before:
                tensor.data = tensor.data.float()
            yield
        finally:
            for tensor, dtype in before:
                tensor.data = tensor.data.to(dtype)


def _own_tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters(recurse=False)
    yield from module.buffers(recurse=False)


def _is_half(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype.itemsize < torch.float32.itemsize


@contextmanager
def _widened(module: nn.Module) -> Iterator[None]:
    """Make a matrix that bitsandbytes has quantised multiply in float32."""
    from transformers.integrations.bitsandbytes import dequantize_bnb_weight

    bias: Tensor | None = getattr(module, "bias", None)

    def forward(hidden: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_out"]:
        weight = dequantize_bnb_weight(module.weight, getattr(module, "state", None))
        return nn.functional.linear(hidden.to(weight.device).float(), weight.float(), bias)

    with replaced_attribute(module, "forward", forward):
        yield


def overflow_remedy(model: PreTrainedModel) -> str:
    """Return why numbers in a model may not be finite, and what helps."""
    if model.dtype == torch.float16:
        return (
            "float16 overflows above 65504, or the checkpoint is damaged; set loading.dtype to float32 or bfloat16, and"
            " if that does not help save or download it again"
        )
    return "the checkpoint is damaged or overflows"
