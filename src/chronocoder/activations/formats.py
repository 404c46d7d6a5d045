"""Number formats that activations are stored in, and the way back to float32."""

from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from chronocoder.errors import NonFiniteError

StoredFormat = Literal["float16", "float32", "int8"]
INT8_LIMIT = 127
DTYPES: dict[StoredFormat, torch.dtype] = {
    "float16": torch.float16,
    "float32": torch.float32,
    "int8": torch.int8,
}


class Stored(NamedTuple):
    """Activations in the format of a store.

    Attributes:
        values: shape (token, ..., d_model), of the stored format.
        scale: what the values of a token are multiplied by, shape (token, ...), float32; `int8` only, else None.
    """

    values: Tensor
    scale: Tensor | None

    def tokens(self, start: int, stop: int) -> "Stored":
        """Return some consecutive tokens; the memory is shared."""
        return Stored(self.values[start:stop], None if self.scale is None else self.scale[start:stop])

    def on(self, device: torch.device) -> "Stored":
        """Return the same on a device; from pinned memory a GPU fetches it while the processor goes on."""
        scale = None if self.scale is None else self.scale.to(device, non_blocking=True)
        return Stored(self.values.to(device, non_blocking=True), scale)


def empty_stored(
    tokens: int, checkpoints: int, width: int, stored_format: StoredFormat, pinned: bool = False
) -> Stored:
    """Return room for activations, shape (token, checkpoint, d_model); pinned for a GPU to fetch them from."""
    values = torch.empty(tokens, checkpoints, width, dtype=DTYPES[stored_format], pin_memory=pinned)
    scaled = stored_format == "int8"
    return Stored(values, torch.empty(tokens, checkpoints, pin_memory=pinned) if scaled else None)


def narrow(values: Float[Tensor, "token d_model"], stored_format: StoredFormat, where: str) -> Stored:
    """Round activations to a stored format, to nearest, on their device.

    `int8` holds one scale a token, its largest absolute value over 127, so that the error of a value is at most half
    the scale.

    Args:
        values: float32.
        stored_format: the format.
        where: the store or model, for the error.

    Raises:
        NonFiniteError: a value is larger than the format's largest.
    """
    if stored_format == "int8":
        return _quantised(values)
    limit = torch.finfo(DTYPES[stored_format]).max
    largest = largest_size(values)
    if largest > limit:
        raise NonFiniteError(
            f"{where}: activation {largest:.4g} exceeds the largest {stored_format}, {limit:.4g};"
            " set harvest.dtype to float32"
        )
    return Stored(values.to(DTYPES[stored_format]), None)


def largest_size(values: Float[Tensor, "token d_model"]) -> float:
    """Return the largest absolute value, NaN if one is: in one pass, which `isfinite` and `abs` take several for."""
    smallest, largest = values.aminmax()
    return float(torch.maximum(-smallest, largest))


def pick(stored: Stored, rows: Int[np.ndarray, " token"], into: Stored) -> None:
    """Copy some tokens, in the order given, into memory of their size.

    NumPy does it in the calling thread alone, so that a thread that reads ahead takes no processor from training.
    """
    np.take(stored.values.numpy(), rows, axis=0, out=into.values.numpy(), mode="clip")  # "raise" would copy twice
    if stored.scale is not None and into.scale is not None:
        np.take(stored.scale.numpy(), rows, axis=0, out=into.scale.numpy(), mode="clip")


def widen(stored: Stored) -> Float[Tensor, "token checkpoint d_model"]:
    """Return stored activations as float32; those of a float32 store are returned as they are."""
    wide = stored.values.to(torch.float32)
    return wide if stored.scale is None else wide.mul_(stored.scale[..., None])


def normalised(stored: Stored, scale: Float[Tensor, " checkpoint"]) -> Float[Tensor, "token checkpoint d_model"]:
    """Return stored activations times a factor for each checkpoint, float32, on the factors' device: in one pass."""
    values, of_tokens = stored.on(scale.device)
    factors = scale[:, None] if of_tokens is None else of_tokens[..., None] * scale[:, None]
    return values * factors


def _quantised(values: Float[Tensor, "token d_model"]) -> Stored:
    largest = values.abs().amax(dim=-1)
    scale = (largest / INT8_LIMIT).clamp(min=torch.finfo(torch.float32).tiny)  # a token of zeros has a scale too
    return Stored((values / scale[:, None]).round_().to(torch.int8), scale)
