"""Join the effects of a crosscoder's features on all tasks."""

import argparse
from pathlib import Path

from chronocoder.attribution.collect import collect_attributions
from chronocoder.command_line import add_flags, from_flags, run_script
from chronocoder.config import TrajectorySettings
from chronocoder.errors import ConfigError
from chronocoder.labels import control_of
from chronocoder.stores import common_provenance, load_store, write_store


def main() -> None:
    """Read the arguments, join, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--attributions", type=Path, nargs="+", required=True, help="stores of the tasks")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    add_flags(parser, TrajectorySettings)
    arguments = parser.parse_args()
    settings = from_flags(arguments, TrajectorySettings)
    attributions = [load_store(path) for path in arguments.attributions]
    facts = common_provenance(attributions, "suite", "comparison", "variant", "site", "seed", "commits")
    by_task = {dataset.attrs["task"]: dataset for dataset in attributions}
    if len(by_task) < len(attributions):
        raise ConfigError(f"--attributions has a task more than once, of {', '.join(by_task)}; give each of them once")
    joined = collect_attributions(by_task, settings)
    control = control_of([str(label) for label in joined["checkpoint"].values])
    write_store(joined, arguments.output, {**facts, "control": control})


if __name__ == "__main__":
    run_script(main)
