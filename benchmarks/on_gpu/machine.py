"""What everything is measured on."""

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

import torch

from on_gpu.measured import Budget, Row, Setting
from on_gpu.wheels import GIVEN


def measure(setting: Setting, budget: Budget) -> Iterator[Row]:
    """Yield the GPU, or that there is none, and the versions of what was there before."""
    gpus = torch.cuda.device_count()
    yield Row("GPUs", gpus, "", torch.cuda.get_device_name() if gpus else "everything runs on the CPU")
    if gpus:
        yield Row("its memory", torch.cuda.get_device_properties(0).total_memory / 1e9, "GB")
    yield Row("threads of torch", torch.get_num_threads(), "", f"Python {platform.python_version()}")
    for name in GIVEN:
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "missing"
        yield Row(name, None, "", found)
