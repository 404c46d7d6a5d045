"""Write down what the crosscoders of a suite are trained on, and why."""

import argparse
from pathlib import Path

import yaml
from pydantic import TypeAdapter

from chronocoder.behaviour.comparisons import given_comparisons
from chronocoder.command_line import run_script
from chronocoder.config import Comparison
from chronocoder.stores import write_text


def main() -> None:
    """Read the arguments, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparisons", required=True, help="the suite's comparisons, as JSON")
    parser.add_argument("--site", required=True, help="the suite's site")
    parser.add_argument("--output", type=Path, required=True, help="YAML file to write")
    arguments = parser.parse_args()
    comparisons = TypeAdapter(dict[str, Comparison]).validate_json(arguments.comparisons)
    document = given_comparisons(comparisons, arguments.site)
    write_text(arguments.output, yaml.safe_dump(document, sort_keys=False))


if __name__ == "__main__":
    run_script(main)
