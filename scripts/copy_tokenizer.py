"""Copy a tokenizer from the directory of a checkpoint, so that a suite's text and tasks hang on no checkpoint."""

import argparse
from pathlib import Path

from chronocoder.command_line import run_script
from chronocoder.suites.tokenizer_files import copy_tokenizer


def main() -> None:
    """Read the arguments, copy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="directory that has the tokenizer")
    parser.add_argument("--output", type=Path, required=True, help="directory to write")
    arguments = parser.parse_args()
    copy_tokenizer(arguments.source, arguments.output)


if __name__ == "__main__":
    run_script(main)
