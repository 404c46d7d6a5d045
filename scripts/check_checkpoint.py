"""Check that a checkpoint reads a suite's tokens as the words they were made of, and say what it is."""

import argparse
from pathlib import Path

import yaml

from chronocoder.command_line import run_script
from chronocoder.stores import write_text
from chronocoder.suites.agreement import check_agreement, not_compared


def main() -> None:
    """Read the arguments, check, describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--revision", required=True, help="name of the checkpoint")
    parser.add_argument("--checkpoint", type=Path, required=True, help="its directory")
    parser.add_argument(
        "--others", type=Path, nargs="*", default=[], help="those of the same run, as far as they exist"
    )
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory of the tokenizer that makes the text")
    parser.add_argument("--output", type=Path, required=True, help="YAML file to write")
    arguments = parser.parse_args()
    checkpoint, tokenizer = arguments.checkpoint, arguments.tokenizer
    check_agreement(tokenizer, {arguments.revision: checkpoint})

    from chronocoder.suites.checkpoints import describe_checkpoint
    from chronocoder.suites.download import check_distinct

    check_distinct({**{path.name: path for path in arguments.others}, arguments.revision: checkpoint})
    found = describe_checkpoint(checkpoint)
    if reason := not_compared(checkpoint, tokenizer):
        found["tokenizer"] = f"not compared: {reason}"
    write_text(arguments.output, yaml.safe_dump(found, sort_keys=False))


if __name__ == "__main__":
    run_script(main)
