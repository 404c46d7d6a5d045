"""Where tensors live, and in which number format they are multiplied."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

FLOAT32 = "float32"
MATMUL = {FLOAT32: "highest", "tf32": "high", "bfloat16": "highest"}


def default_device() -> torch.device:
    """Return the GPU of this process where there is one, else the CPU.

    On a GPU attention is not left to cuDNN: in half precision it plans each new shape anew, for as long as a whole pass
    of a model takes, and prefixes come in many shapes.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cuda.enable_cudnn_sdp(False)
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # which `accelerate launch` sets


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Compute matrix products in `float32`, in `tf32` where a GPU has it, or in `bfloat16`; weights stay float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(MATMUL[precision])
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
