"""Compare a joint dictionary with dictionaries of its checkpoints alone, whose features are matched afterwards."""

import argparse
from pathlib import Path

from chronocoder.command_line import paired, run_script
from chronocoder.stores import common_provenance, load_store, open_store, write_store


def main() -> None:
    """Read the arguments, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--crosscoder", type=Path, required=True, help="directory of the joint crosscoder")
    parser.add_argument("--relie", type=Path, required=True, help="store of its effects")
    parser.add_argument("--ablations", type=Path, nargs="+", required=True, help="stores of its exact effects by task")
    parser.add_argument(
        "--singles", type=Path, nargs="+", required=True, help="crosscoders of its checkpoints alone, in order"
    )
    parser.add_argument("--single-relies", type=Path, nargs="+", required=True, help="stores of their effects")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    arguments = parser.parse_args()
    given = paired(arguments, "singles", "single_relies")

    from chronocoder.attribution.baseline import compare_baseline
    from chronocoder.crosscoder.model import load_crosscoder

    relie, *singles = [load_store(path) for path in (arguments.relie, *given.values())]
    ablations = {}
    for path in arguments.ablations:
        with open_store(path) as store:
            ablations[str(store.attrs["task"])] = store[["indirect_effect"]].load()
    facts = common_provenance([relie, *singles], "suite", "variant", "site", "seed")
    crosscoders = [load_crosscoder(path) for path in given]
    compared = compare_baseline(load_crosscoder(arguments.crosscoder), relie, ablations, crosscoders, singles)
    of_joint = {key: relie.attrs[key] for key in ("comparison", "commits")}
    baseline = [str(single.attrs["comparison"]) for single in singles]
    write_store(compared, arguments.output, {**facts, **of_joint, "baseline": baseline})


if __name__ == "__main__":
    run_script(main)
