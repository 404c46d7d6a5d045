"""Join the comparisons of tasks' gradients of a suite's checkpoints."""

import argparse
from pathlib import Path

from chronocoder.command_line import paired, run_script
from chronocoder.stores import common_provenance, load_store, write_store
from chronocoder.taskspace.comparison import collect_gradients


def main() -> None:
    """Read the arguments, join, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--gradients", type=Path, nargs="+", required=True, help="stores of the checkpoints, in order of training"
    )
    parser.add_argument("--tokens-seen", type=int, nargs="+", required=True, help="tokens each has seen, same order")
    parser.add_argument("--tasks", nargs="+", required=True, help="names of the tasks, in the order of the stores")
    parser.add_argument("--groups", nargs="+", required=True, help="hypothesised group of each, same order")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    arguments = parser.parse_args()
    paths, groups = paired(arguments, "gradients", "tokens_seen"), paired(arguments, "tasks", "groups")
    stores = {store.attrs["revision"]: store for store in map(load_store, paths)}
    joined = collect_gradients(stores, dict(zip(stores, paths.values(), strict=True)), groups)
    facts = common_provenance(list(stores.values()), "suite", "parameters", "compared_parameters", "sketch", "fraction")
    commits = [str(store.attrs["commit"]) for store in stores.values()]
    write_store(joined, arguments.output, {**facts, "commits": commits})


if __name__ == "__main__":
    run_script(main)
