"""Match the features of a crosscoder with those of the comparisons that begin where its own ends."""

import argparse
from pathlib import Path

from chronocoder.command_line import run_script
from chronocoder.stores import provenance, write_store


def main() -> None:
    """Read the arguments, match, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crosscoder", type=Path, required=True, help="directory of the crosscoder")
    parser.add_argument(
        "--successors", type=Path, nargs="+", required=True, help="crosscoders that begin at its last checkpoint"
    )
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    arguments = parser.parse_args()

    from chronocoder.attribution.successors import match_successors
    from chronocoder.crosscoder.model import load_crosscoder

    crosscoder = load_crosscoder(arguments.crosscoder)
    matches = match_successors(crosscoder, [load_crosscoder(path) for path in arguments.successors])
    write_store(matches, arguments.output, provenance(crosscoder.config.settings, **crosscoder.facts))


if __name__ == "__main__":
    run_script(main)
