"""Say what several experiments cost on one kind of accelerator, as a Markdown table for experiments/README.md."""

import argparse
import sys
from pathlib import Path

from chronocoder.command_line import run_script
from chronocoder.config import load_experiment
from chronocoder.plan.hardware import ACCELERATORS, UTILISATION, Hardware, hardware_named
from chronocoder.plan.models import shape_of
from chronocoder.plan.plan import Plan, make_plan
from chronocoder.plan.text import price_table


def plan_of(path: Path, hardware: Hardware) -> Plan:
    """Return the plan of a configuration, as before its first run."""
    experiment = load_experiment(path)
    return make_plan(experiment, {name: shape_of(name, suite) for name, suite in experiment.suites.items()}, hardware)


def main() -> None:
    """Read the configurations, add up, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("configs", type=Path, nargs="+", help="the configurations")
    parser.add_argument("--accelerator", default="h100", choices=ACCELERATORS, help="what they run on (default: h100)")
    arguments = parser.parse_args()
    hardware = hardware_named(arguments.accelerator, UTILISATION, read_gb_per_s=1.0)
    plans = {path.with_suffix("").as_posix(): plan_of(path, hardware) for path in arguments.configs}
    sys.stdout.write(price_table(plans))


if __name__ == "__main__":
    run_script(main)
