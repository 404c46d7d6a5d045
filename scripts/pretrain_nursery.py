"""Pretrain the miniature language model of a nursery suite and save its checkpoints."""

import argparse
import os
from pathlib import Path

from chronocoder.command_line import add_flags, from_flags, run_script
from chronocoder.config import NurserySource


def main() -> None:
    """Read the arguments, pretrain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory of the tokenizer")
    parser.add_argument("--output", type=Path, required=True, help="directory to write step<n>/ to")
    add_flags(parser, NurserySource)
    arguments = parser.parse_args()
    # Threads that spin while they wait for one that has no core take ten times as long where others use the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from chronocoder.suites.nursery.pretraining import pretrain
    from chronocoder.suites.tokenizers import load_tokenizer

    pretrain(from_flags(arguments, NurserySource), load_tokenizer(arguments.tokenizer), arguments.output)


if __name__ == "__main__":
    run_script(main)
