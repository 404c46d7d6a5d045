"""Computing only those logits that are wanted: the output embedding is the widest product of a model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from chronocoder.suites.places import first_input, with_first_input


@contextmanager
def last_positions_only(model: PreTrainedModel, count: int, modules: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Make a model compute logits of the last positions only.

    Args:
        model: the model.
        count: how many positions.
        modules: further ones that are to see the last positions only.
    """

    def trim(_module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        last = first_input(arguments, keywords)[:, -count:].contiguous()  # or each sequence is a product of its own
        return with_first_input(arguments, keywords, last)

    with ExitStack() as hooks:
        for module in (model.get_output_embeddings(), *modules):
            hooks.callback(module.register_forward_pre_hook(trim, with_kwargs=True).remove)
        yield


@contextmanager
def chosen_positions_only(
    model: PreTrainedModel, rows: Int[Tensor, " place"], positions: Int[Tensor, " place"]
) -> Iterator[None]:
    """Make a model compute logits of some positions of some rows only, as those of one sequence: (1, place, token)."""

    def choose(_module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, ...]:
        return ((first_input(arguments, keywords)[rows, positions][None],), {})

    handle = model.get_output_embeddings().register_forward_pre_hook(choose, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def answers_only(output_embedding: nn.Module, answers: Int[Tensor, "batch answer"]) -> Iterator[None]:
    """Make an output embedding compute the logits of a few tokens; what a model does to logits later still applies."""
    weight: Tensor = output_embedding.get_parameter("weight")
    bias: Tensor | None = getattr(output_embedding, "bias", None)
    rows = weight[answers]

    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            logits = hidden.to(rows.dtype) @ rows.transpose(1, 2)
            return logits if bias is None else logits + bias[answers][:, None]

    with attribute(output_embedding, "forward", forward):
        yield


@contextmanager
def in_own_precision(output_embedding: nn.Module) -> Iterator[None]:
    """Make an output embedding compute in the precision of its weight: differences of logits are small."""
    original, dtype = output_embedding.forward, output_embedding.get_parameter("weight").dtype

    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            logits: Tensor = original(hidden.to(dtype))
            return logits

    with attribute(output_embedding, "forward", forward):
        yield


@contextmanager
def attribute(module: nn.Module, name: str, value: Callable[..., Any]) -> Iterator[None]:
    """Give a module an attribute of its own for a while, in place of one of its own that it may have."""
    before = module.__dict__.get(name)
    setattr(module, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(module, name)
        else:
            setattr(module, name, before)
