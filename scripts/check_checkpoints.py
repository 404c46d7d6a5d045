"""Check that checkpoints read a suite's tokens as the words they were made of, and list what they are."""

import argparse
from pathlib import Path

import yaml

from chronocoder.command_line import paired, run_script
from chronocoder.labels import is_foreign
from chronocoder.stores import write_text
from chronocoder.suites.agreement import check_agreement, not_compared


def main() -> None:
    """Read the arguments, check, list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--revisions", nargs="+", required=True, help="names of the checkpoints")
    parser.add_argument("--checkpoints", type=Path, nargs="+", required=True, help="their directories, same order")
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory of the tokenizer that makes the text")
    parser.add_argument("--output", type=Path, required=True, help="YAML file to write")
    arguments = parser.parse_args()
    given = paired(arguments, "revisions", "checkpoints")
    check_agreement(arguments.tokenizer, given)

    from chronocoder.suites.checkpoints import describe_checkpoint
    from chronocoder.suites.download import check_distinct

    check_distinct({name: path for name, path in given.items() if not is_foreign(name)})
    found = {revision: describe_checkpoint(path) for revision, path in given.items()}
    for revision, path in given.items():
        if reason := not_compared(path, arguments.tokenizer):
            found[revision]["tokenizer"] = f"not compared: {reason}"
    write_text(arguments.output, yaml.safe_dump(found, sort_keys=False))


if __name__ == "__main__":
    run_script(main)
