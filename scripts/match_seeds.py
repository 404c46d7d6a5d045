"""Match the features of crosscoders that differ in their seed, and say how stable effects and classes are."""

import argparse
from pathlib import Path

from chronocoder.command_line import paired, run_script
from chronocoder.stores import common_provenance, load_store, write_store


def main() -> None:
    """Read the arguments, match, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--crosscoders", type=Path, nargs="+", required=True, help="directories; the first is referred to"
    )
    parser.add_argument("--relies", type=Path, nargs="+", required=True, help="stores of their effects, same order")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    arguments = parser.parse_args()
    given = paired(arguments, "crosscoders", "relies")

    from chronocoder.attribution.seeds import compare_seeds, read_run
    from chronocoder.crosscoder.model import load_crosscoder

    runs = [read_run(load_crosscoder(path), load_store(relie)) for path, relie in given.items()]
    compared = compare_seeds(runs)
    facts = common_provenance([run.relie for run in runs], "suite", "comparison", "variant", "site", "commits")
    seeds = [run.config.seed for run in runs]
    write_store(compared, arguments.output, {**facts, "seeds": seeds, "reference_seed": seeds[0]})


if __name__ == "__main__":
    run_script(main)
