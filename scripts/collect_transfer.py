"""Join the tunings of a suite: what tuning on each task does to every task."""

import argparse
import json
from itertools import product
from pathlib import Path

from chronocoder.command_line import add_flags, from_flags, paired, run_script
from chronocoder.config import TaskSpaceSettings
from chronocoder.stores import common_provenance, load_store, provenance, write_store


def main() -> None:
    """Read the arguments, join, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", required=True, help="name of the suite")
    parser.add_argument("--revisions", nargs="+", required=True, help="names of the checkpoints, in order of training")
    parser.add_argument("--tokens-seen", type=int, nargs="+", required=True, help="tokens each has seen, same order")
    parser.add_argument(
        "--tunings",
        required=True,
        metavar="PATTERN",
        help="paths of the tunings, in which {revision}, {tuning_seed} and {task} stand for what tells them apart",
    )
    parser.add_argument("--tasks", type=Path, nargs="+", required=True, help="stores of the tasks")
    parser.add_argument("--hypothesis", type=json.loads, required=True, metavar="JSON", help="group of each task")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    add_flags(parser, TaskSpaceSettings)
    arguments = parser.parse_args()
    settings = from_flags(arguments, TaskSpaceSettings)
    tokens_seen = paired(arguments, "revisions", "tokens_seen")
    stores = [load_store(path) for path in arguments.tasks]
    tasks = {str(store.attrs["task"]): store for store in stores}
    # A pattern, since the paths of thousands of tunings are too long for one command line.
    keys = product(tokens_seen, settings.seeds, tasks)
    paths = [arguments.tunings.format(revision=one, tuning_seed=seed, task=task) for one, seed, task in keys]
    tunings = [load_store(Path(path)) for path in paths]
    parameters = common_provenance(tunings, "suite", "parameters")["parameters"]

    from chronocoder.taskspace.transfer import collect_transfer

    collected = collect_transfer(tunings, tasks, tokens_seen, arguments.hypothesis, settings)
    write_store(collected, arguments.output, provenance(settings, suite=arguments.suite, parameters=parameters))


if __name__ == "__main__":
    run_script(main)
