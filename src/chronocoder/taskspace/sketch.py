"""Count sketches: gradients of large models in few dimensions, in which their inner products are the same on average.

Each entry gets a random sign and a random place, and what shares a place is added up (Charikar, Chen and Farach-Colton
2002). As here the places of some adjacent entries follow each other from a random one on, gradients are read and
written in order, and nothing depends on which of many parallel sums ends first.
"""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

SKETCHING = 2
"""Purpose of these random numbers."""


def count_sketch(tensors: Iterable[Tensor], dimensions: int, seed: int) -> Float[Tensor, " dimension"]:
    """Return the sketch of a vector that is given in parts.

    The inner product of the sketches of a and b is <a, b> on average over seeds, with a variance of at most
    (|a|^2 |b|^2 + <a, b>^2) / dimensions: signs are independent, and any two entries share a place with a probability
    of at most 1 / dimensions. So a cosine c is off by sqrt((1 + c^2) / dimensions), or less.

    Args:
        tensors: the parts, of any shape, on any device. Signs and places depend on their order and sizes alone.
        dimensions: of the sketch.
        seed: of signs and places.

    Returns:
        The sketch, on the CPU.
    """
    total = torch.zeros(dimensions)
    for number, tensor in enumerate(tensors):
        generator = np.random.default_rng([seed, SKETCHING, number])
        own = torch.zeros(dimensions, device=tensor.device)
        for part in tensor.detach().flatten().split(dimensions):
            first = int(generator.integers(dimensions))
            signed = part * _signs(generator, len(part), part.device)
            before_end = min(len(part), dimensions - first)
            own[first : first + before_end] += signed[:before_end]
            own[: len(part) - before_end] += signed[before_end:]
        total += own.cpu()
    return total


def _signs(generator: np.random.Generator, count: int, device: torch.device) -> Float[Tensor, " count"]:
    drawn = torch.from_numpy(generator.integers(0, 256, -(-count // 8), dtype=np.uint8)).to(device)
    bits = (drawn[:, None] >> torch.arange(8, dtype=torch.uint8, device=device)) & 1
    return 1 - 2 * bits.flatten()[:count].float()
