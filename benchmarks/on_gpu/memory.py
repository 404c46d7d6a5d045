"""What the allocator of the GPU held at most, against the plan."""

import math

import torch

from on_gpu.measured import Row

TOLERANCE = 1.25
"""Of the planned memory."""


def memory_row(what: str, used: float, planned: float) -> Row:
    """Return measured bytes against planned ones; without a GPU the plan alone."""
    if not torch.cuda.is_available():
        return Row(what, None, "GB", f"planned: {planned / 1e9:.3g} GB; no GPU to measure it on")
    return Row(what, used / 1e9, "GB", f"planned: {planned / 1e9:.3g} GB", used / planned, TOLERANCE, at_most=True)


def begin_peak() -> float:
    """Begin to measure the peak; return the bytes held now, NaN without a GPU."""
    if not torch.cuda.is_available():
        return math.nan
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return float(torch.cuda.memory_allocated())


def peak_bytes() -> float:
    """Return the bytes held at most since `begin_peak`; NaN without a GPU."""
    return float(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else math.nan
