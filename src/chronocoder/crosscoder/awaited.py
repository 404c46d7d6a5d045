"""Numbers on their way from a GPU."""

import torch
from torch import Tensor


class Awaited:
    """A number that a device has been told to compute and send; what it is told after that nobody waits for."""

    def __init__(self, number: Tensor) -> None:
        """Send a tensor of one number."""
        self._sent = number.detach().to("cpu", non_blocking=True)
        self._arrived = torch.cuda.current_stream(number.device).record_event() if number.is_cuda else None

    def value(self) -> float:
        """Wait for the number."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._sent)
