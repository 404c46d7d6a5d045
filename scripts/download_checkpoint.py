"""Download one revision of a model from the Hugging Face hub."""

import argparse
from pathlib import Path

from chronocoder.command_line import run_script


def main() -> None:
    """Read the arguments, download."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", required=True, help="for instance EleutherAI/pythia-1b")
    parser.add_argument("--revision", required=True, help="branch, tag or commit")
    parser.add_argument("--output", type=Path, required=True, help="directory to write the checkpoint to")
    parser.add_argument(
        "--pickled-weights", action="store_true", help="take pickled weights where there is nothing else"
    )
    arguments = parser.parse_args()

    from chronocoder.suites.checkpoints import download_checkpoint

    download_checkpoint(arguments.repository, arguments.revision, arguments.output, arguments.pickled_weights)


if __name__ == "__main__":
    run_script(main)
