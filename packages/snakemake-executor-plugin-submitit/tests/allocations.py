"""Allocations that tests run."""

from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit.allocation import Allocation, Step
from snakemake_executor_plugin_submitit.outcome import Outcomes


def allocation_of(directory: Path, *commands: str, state: str = "", **differences: Any) -> Allocation:
    """Return an allocation whose limit is far away unless told otherwise."""
    steps = [
        Step(f"job-{number}", command, str(directory / f"job-{number}.log"), state, (f"{number}.out",))
        for number, command in enumerate(commands)
    ]
    defaults: dict[str, Any] = {"limit_s": 3600, "signal_delay_s": 2, "requeues": 5}
    return Allocation(steps, Outcomes(directory / "outcomes"), str(directory), **{**defaults, **differences})


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
