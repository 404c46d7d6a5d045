"""Place the tasks of a suite by transfer and by gradients, and test what is hypothesised of them."""

import argparse
from pathlib import Path

from chronocoder.command_line import add_flags, from_flags, run_script
from chronocoder.config import TaskSpaceSettings
from chronocoder.stores import load_store, provenance, write_store


def main() -> None:
    """Read the arguments, map, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transfer", type=Path, required=True, help="store of the transfer between all tasks")
    parser.add_argument("--gradients", type=Path, required=True, help="store of the similarity of their gradients")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    add_flags(parser, TaskSpaceSettings)
    arguments = parser.parse_args()
    settings = from_flags(arguments, TaskSpaceSettings)
    transfer, gradients = load_store(arguments.transfer), load_store(arguments.gradients)

    from chronocoder.taskspace.space import map_tasks

    mapped = map_tasks(transfer, gradients, settings)
    write_store(mapped, arguments.output, provenance(settings, suite=transfer.attrs["suite"]))


if __name__ == "__main__":
    run_script(main)
