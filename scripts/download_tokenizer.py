"""Download the tokenizer of a suite from one of its revisions on the Hugging Face hub."""

import argparse
from pathlib import Path

from chronocoder.command_line import run_script


def main() -> None:
    """Read the arguments, download."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", required=True, help="for instance EleutherAI/pythia-1b")
    parser.add_argument("--revision", required=True, help="branch, tag or commit")
    parser.add_argument("--lock", type=Path, required=True, help="file that records the commits of revisions")
    parser.add_argument("--output", type=Path, required=True, help="directory to write the tokenizer to")
    parser.add_argument("--tokenizer", help="repository of the tokenizer, for a revision that has none")
    arguments = parser.parse_args()

    from chronocoder.suites.download import download_checkpoint, tokenizer_parts
    from chronocoder.suites.families import HubPlace

    place = HubPlace(arguments.repository, arguments.revision)
    download_checkpoint(tokenizer_parts(arguments.lock, place, arguments.tokenizer), arguments.output)


if __name__ == "__main__":
    run_script(main)
