"""The entries of a model's parameters that are updated: those of largest gradient, and Adam on them alone."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Of Adam (Kingma and Ba 2015), as they propose."""
_BITS = 31


class Entries(NamedTuple):
    """Entries of some tensors.

    Attributes:
        places: in each flattened tensor, ascending; None where all of them are meant.
        number: how many there are in all.
    """

    places: list[Int[Tensor, " entry"] | None]
    number: int

    @classmethod
    def every(cls, tensors: Sequence[Tensor]) -> "Entries":
        """Return all entries."""
        return cls([None] * len(tensors), sum(tensor.numel() for tensor in tensors))

    @classmethod
    def largest(cls, tensors: Sequence[Tensor], count: int) -> "Entries":
        """Return the entries largest by size, exactly so many over all tensors; of equal ones the first.

        The bits of floating-point numbers without a sign are in the order of the numbers: the size of the smallest
        entry that is taken is found bit by bit, by counting, without a copy of all tensors.

        Args:
            tensors: float32, without NaN.
            count: how many; no more than there are.
        """
        if count == sum(tensor.numel() for tensor in tensors):
            return cls.every(tensors)
        smallest = 0
        for bit in reversed(range(_BITS)):
            larger = smallest | 1 << bit
            if sum(int((_size_bits(tensor) >= larger).sum()) for tensor in tensors) >= count:
                smallest = larger
        left = count - sum(int((_size_bits(tensor) > smallest).sum()) for tensor in tensors)
        places: list[Tensor | None] = []
        for tensor in tensors:
            bits = _size_bits(tensor)
            equal = (bits == smallest).nonzero()[:left, 0]
            left -= len(equal)
            places.append(torch.cat([(bits > smallest).nonzero()[:, 0], equal]).sort().values)
        return cls(places, count)

    def saved(self, tensors: Sequence[Tensor]) -> list[Float[Tensor, " entry"]]:
        """Return a copy of the entries of each tensor, in the memory of the CPU."""
        flat = zip(tensors, self.places, strict=True)
        return [_entries(tensor.detach(), places).to("cpu", copy=True) for tensor, places in flat]

    def distance(self, tensors: Sequence[Tensor], values: Sequence[Float[Tensor, " entry"]]) -> float:
        """Return the norm of the difference between the entries and some values, computed where the tensors are."""
        every = zip(tensors, self.places, values, strict=True)
        differences = (_entries(tensor.detach(), places) - value.to(tensor.device) for tensor, places, value in every)
        return math.hypot(*(float(torch.linalg.vector_norm(one, dtype=torch.float64)) for one in differences))

    def put(self, tensors: Sequence[Tensor], values: Sequence[Float[Tensor, " entry"]]) -> None:
        """Set the entries of each tensor."""
        for tensor, places, value in zip(tensors, self.places, values, strict=True):
            _flat(tensor)[slice(None) if places is None else places] = value.to(tensor.device)


class Adam:
    """Adam without weight decay, which keeps moments of nothing but the entries that it is for."""

    def __init__(self, parameters: Sequence[nn.Parameter], entries: Entries, learning_rate: float) -> None:
        """Take the parameters, their entries that have moments, and the learning rate, which stays."""
        self._parameters, self._entries, self._learning_rate = parameters, entries, learning_rate
        self._moments: list[tuple[Tensor, Tensor]] = []
        self._steps = 0

    @property
    def gradients(self) -> list[Float[Tensor, " entry"]]:
        """The gradients of the entries."""
        every = zip(self._parameters, self._entries.places, strict=True)
        return [_entries(parameter.grad, places) for parameter, places in every if parameter.grad is not None]

    def step(self, chosen: Entries | None = None) -> None:
        """Take a step by the parameters' gradients.

        Args:
            chosen: the entries that are updated, where these are not all that have moments; then all have.
        """
        gradients = self.gradients
        if not self._moments:
            self._moments = [(torch.zeros_like(one), torch.zeros_like(one)) for one in gradients]
        self._steps += 1
        updated = (chosen or self._entries).places
        for parameter, gradient, moments, places in zip(
            self._parameters, gradients, self._moments, updated, strict=True
        ):
            change = self._change(gradient, *moments)
            of_chosen = change if chosen is None or places is None else change[places]
            _flat(parameter)[slice(None) if places is None else places] += of_chosen

    def _change(self, gradient: Tensor, mean: Tensor, square: Tensor) -> Tensor:
        """Update the moments of a parameter and return what is added to it."""
        first, second = (1 - beta**self._steps for beta in BETAS)
        mean.lerp_(gradient, 1 - BETAS[0])
        square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        return mean / ((square / second).sqrt_().add_(EPSILON)) * (-self._learning_rate / first)


def _flat(tensor: Tensor) -> Float[Tensor, " entry"]:
    return tensor.detach().view(-1)


def _entries(tensor: Tensor, places: Tensor | None) -> Float[Tensor, " entry"]:
    flat = tensor.flatten()
    return flat if places is None else flat[places]


def _size_bits(tensor: Float[Tensor, "..."]) -> Int[Tensor, " entry"]:
    return tensor.detach().abs().flatten().view(torch.int32)


@contextmanager
def trainable(model: PreTrainedModel, embeddings: bool) -> Iterator[list[nn.Parameter]]:
    """Yield the parameters that may be updated, each once, which have gradients meanwhile.

    Args:
        model: without gradients, in evaluation mode.
        embeddings: whether those of the tokens, input and output, are among them.
    """
    left_out = [] if embeddings else [model.get_input_embeddings(), model.get_output_embeddings()]
    kept = {id(parameter) for module in left_out for parameter in module.parameters()}
    parameters = [parameter for parameter in model.parameters() if id(parameter) not in kept]
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield parameters
    finally:
        for parameter in parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
