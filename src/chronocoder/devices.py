"""Where tensors live."""

import torch


def default_device() -> torch.device:
    """Return the GPU of this process where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
