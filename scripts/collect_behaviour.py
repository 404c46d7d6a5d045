"""Join the scores of all tasks of a suite."""

import argparse
from pathlib import Path

from chronocoder.behaviour.collect import collect_behaviour
from chronocoder.command_line import run_script
from chronocoder.stores import common_provenance, load_store, write_store


def main() -> None:
    """Read the arguments, join, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, nargs="+", required=True, help="stores of the tasks' scores")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    arguments = parser.parse_args()
    scores = [load_store(path) for path in arguments.scores]
    joined = collect_behaviour({dataset.attrs["task"]: dataset for dataset in scores})
    write_store(joined, arguments.output, common_provenance(scores, "suite", "commits"))


if __name__ == "__main__":
    run_script(main)
