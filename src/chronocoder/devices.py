"""Where tensors live."""

import os

import torch


def default_device() -> torch.device:
    """Return the GPU of this process where there is one, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))  # which `accelerate launch` sets
