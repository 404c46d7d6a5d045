"""Computing only those logits that are wanted: the output embedding is the widest product of a model."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from chronocoder.suites.patching import replaced_attribute
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
        hidden = first_input(arguments, keywords)
        return ((hidden[rows.to(hidden.device), positions.to(hidden.device)][None],), {})

    handle = model.get_output_embeddings().register_forward_pre_hook(choose, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def answers_only(output_embedding: nn.Module, answers: Int[Tensor, "batch answer"]) -> Iterator[None]:
    """Make an output embedding compute the logits of a few tokens; what a model does to logits later still applies.

    They are of float32 at least, whatever the weights are: a difference of two logits in half precision has few digits.
    """
    weight: Tensor = output_embedding.get_parameter("weight")
    bias: Tensor | None = getattr(output_embedding, "bias", None)
    answers = answers.to(weight.device)
    rows = weight[answers].to(torch.promote_types(weight.dtype, torch.float32))

    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            logits = hidden.to(rows) @ rows.transpose(1, 2)
            return logits if bias is None else logits + bias[answers][:, None]

    with replaced_attribute(output_embedding, "forward", forward):
        yield
