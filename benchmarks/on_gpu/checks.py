"""The checks of `tests/unit/gpu_checks.py`, whether there is pytest or not."""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from chronocoder.devices import default_device
from on_gpu.measured import Budget, Row, Setting

TESTS = Path(__file__).parents[2] / "tests"


def measure(setting: Setting, budget: Budget) -> Iterator[Row]:
    """Yield how long each check took; those after the first failure run too.

    Raises:
        AssertionError: checks have failed; the message has what each said.
    """
    sys.path[:0] = [str(TESTS), str(TESTS / "unit")]
    from gpu_checks import CHECKS, NotHereError

    failures = []
    for name, check in CHECKS.items():
        begin, outcome = time.monotonic(), "as on the CPU" if torch.cuda.is_available() else "runs; no GPU to check"
        with tempfile.TemporaryDirectory() as directory:
            try:
                if not budget.left:
                    raise NotHereError("no time left")
                check(default_device(), Path(directory))
            except NotHereError as reason:
                outcome = f"skipped: {reason}"
            except Exception as error:
                outcome = "failed"
                failures.append(f"{name}: {type(error).__name__}: {error}")
        yield Row(name, time.monotonic() - begin, "s", outcome)
    if failures:
        raise AssertionError("; ".join(failures))
