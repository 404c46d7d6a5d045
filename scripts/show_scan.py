"""Show the scan of a suite's checkpoints: a directory of pages that work without a network."""

import argparse
import json
from pathlib import Path

from pydantic import TypeAdapter

from chronocoder.command_line import run_script
from chronocoder.config import Comparison
from chronocoder.report.inputs import ReportInputs, read_contrasts
from chronocoder.report.pages import write_report
from chronocoder.stores import load_store, names


def main() -> None:
    """Read the arguments, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", required=True, help="name of the suite")
    parser.add_argument("--scan", type=Path, required=True, help="store of the scan")
    parser.add_argument("--comparisons", required=True, help="comparisons that are given, as JSON")
    parser.add_argument("--contrasts", required=True, help="tasks that a surface rule tells apart, as JSON")
    parser.add_argument("--output", type=Path, required=True, help="first page to write, in a directory of its own")
    arguments = parser.parse_args()
    scan = load_store(arguments.scan)
    comparisons = TypeAdapter(dict[str, Comparison]).validate_json(arguments.comparisons)
    inputs = ReportInputs(
        suite=arguments.suite,
        behaviour=scan,
        similarity=scan,
        comparisons={name: one.checkpoints for name, one in comparisons.items() if one.examined},
        runs=[],
        contrasts=read_contrasts(json.loads(arguments.contrasts), names(scan, "task")),
        seed_matches=[],
        example_path="",
    )
    write_report(inputs, arguments.output.parent)


if __name__ == "__main__":
    run_script(main)
