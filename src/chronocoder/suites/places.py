"""A tensor that a module takes or gives in a forward pass, to be read and replaced."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Place:
    """Where an activation passes: the activation is `scale` times some columns of what a module takes or gives.

    Attributes:
        module: the module; it is called once in a forward pass.
        side: whether the tensor is the module's first input, or its output or the first of its outputs.
        scale: what the model multiplies the tensor by before it makes use of it.
        columns: the first of the tensor's last dimension and the one after the last; None: all.
    """

    module: nn.Module
    side: Literal["input", "output"]
    scale: float = 1.0
    columns: tuple[int, int] | None = None

    def activation(self, tensor: Tensor) -> Tensor:
        """Return the activation that a tensor at this place holds."""
        activation = tensor if self.columns is None else tensor[..., slice(*self.columns)]
        return activation if self.scale == 1 else activation * self.scale

    @contextmanager
    def edited(self, edit: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Let the model go on with what a function returns of the tensor."""

        def edit_input(_module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            return with_first_input(arguments, keywords, edit(first_input(arguments, keywords)))

        def edit_output(_module: nn.Module, _arguments: Any, output: Any) -> Any:
            return with_first_output(output, edit(first_output(output)))

        if self.side == "input":
            handle = self.module.register_forward_pre_hook(edit_input, with_kwargs=True)
        else:
            handle = self.module.register_forward_hook(edit_output)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def replaced(self, activation: Float[Tensor, "batch position width"]) -> Iterator[None]:
        """Let the model go on with another activation, of the last positions where it goes on with those only."""

        def replace(tensor: Tensor) -> Tensor:
            given = activation.to(tensor.device)
            given = given if self.scale == 1 else given / self.scale
            given = given.flatten(0, 1) if tensor.dim() == 2 else given[:, -tensor.shape[1] :]
            if self.columns is None:
                return given.clone()  # some models add to it in place
            whole = tensor.clone()
            whole[..., slice(*self.columns)] = given
            return whole

        with self.edited(replace):
            yield


def first_input(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Tensor:
    """Return the hidden state among the arguments of a module."""
    hidden: Tensor = arguments[0] if arguments else keywords["hidden_states"]
    return hidden


def with_first_input(
    arguments: tuple[Any, ...], keywords: dict[str, Any], hidden: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a module with another hidden state."""
    return ((hidden, *arguments[1:]), keywords) if arguments else ((), {**keywords, "hidden_states": hidden})


def first_output(output: Any) -> Tensor:
    """Return the hidden state among what a module gives."""
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


def with_first_output(output: Any, tensor: Tensor) -> Any:
    """Return what a module gives with another hidden state."""
    return (tensor, *output[1:]) if isinstance(output, tuple) else tensor
