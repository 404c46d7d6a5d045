"""Join the scans of a suite's checkpoints: accuracy of each, and similarity of every two."""

import argparse
from pathlib import Path

from chronocoder.behaviour.scan import collect_scans
from chronocoder.command_line import run_script
from chronocoder.stores import common_provenance, load_store, write_store


def main() -> None:
    """Read the arguments, join, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scans", type=Path, nargs="+", required=True, help="stores of the scans, in order of training"
    )
    parser.add_argument("--tokens-seen", type=int, nargs="+", required=True, help="tokens each has seen, same order")
    parser.add_argument("--task-stores", type=Path, nargs="+", required=True, help="stores of the tasks, as scanned")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    arguments = parser.parse_args()
    scans = {scan.attrs["revision"]: scan for scan in map(load_store, arguments.scans)}
    tokens_seen = dict(zip(scans, arguments.tokens_seen, strict=True))
    joined = collect_scans(scans, tokens_seen, [load_store(path) for path in arguments.task_stores])
    facts = common_provenance(list(scans.values()), "suite")
    commits = [str(scan.attrs["commit"]) for scan in scans.values()]
    write_store(joined, arguments.output, {**facts, "commits": commits})


if __name__ == "__main__":
    run_script(main)
