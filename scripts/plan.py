"""Say what an experiment will cost before it is run: jobs, FLOPs, hours, memory, bytes on disk."""

import argparse
import json
import sys
from pathlib import Path

from chronocoder.command_line import run_script
from chronocoder.config import load_experiment
from chronocoder.errors import ConfigError
from chronocoder.plan.hardware import ACCELERATORS, CPU, UTILISATION, hardware_named
from chronocoder.plan.measured import measured_of
from chronocoder.plan.models import shape_of
from chronocoder.plan.plan import make_plan
from chronocoder.plan.text import plan_document, plan_text
from chronocoder.stores import write_text
from chronocoder.suites.agreement import check_local_checkpoints


def main() -> None:
    """Read the configuration, add up, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path, help="the configuration")
    parser.add_argument(
        "--accelerator", default="h100", help=f"what it runs on: {', '.join([*ACCELERATORS, CPU])} (default: h100)"
    )
    parser.add_argument("--flops", type=float, help="its peak in FLOP/s, where the table's does not hold")
    parser.add_argument(
        "--utilisation", type=float, default=UTILISATION, help="part of the peak reached (default: 0.4)"
    )
    parser.add_argument(
        "--read-gb-per-s", type=float, default=1.0, help="what storage delivers to a job, in GB/s (default: 1)"
    )
    parser.add_argument(
        "--model-config",
        nargs="+",
        default=[],
        metavar="SUITE=FILE",
        help="config.json of a suite's models, for a suite whose checkpoints cannot be reached from here",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the plan there too, as JSON")
    arguments = parser.parse_args()
    experiment = load_experiment(arguments.config)
    check_local_checkpoints(experiment)
    known = ", ".join(experiment.suites)
    given: dict[str, Path] = {}
    for entry in arguments.model_config:
        name, _, path = entry.partition("=")
        if name not in experiment.suites or not path:
            raise ConfigError(f"--model-config '{entry}' names no suite's file; write SUITE=FILE with one of {known}")
        given[name] = Path(path)
    shapes = {name: shape_of(name, suite, given.get(name)) for name, suite in experiment.suites.items()}
    hardware = hardware_named(
        arguments.accelerator, arguments.utilisation, arguments.read_gb_per_s, flops=arguments.flops
    )
    plan = make_plan(experiment, shapes, hardware, measured_of(experiment))
    sys.stdout.write(plan_text(plan))
    if arguments.json is not None:
        write_text(arguments.json, json.dumps(plan_document(plan), indent=2) + "\n")


if __name__ == "__main__":
    run_script(main)
