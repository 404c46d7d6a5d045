"""Train the tokenizer of a nursery suite on text of its pretraining split."""

import argparse
from itertools import islice
from pathlib import Path

from chronocoder.command_line import add_flags, from_flags, run_script
from chronocoder.config import NurserySource
from chronocoder.stores import whole_directory

SENTENCES = 20_000


def main() -> None:
    """Read the arguments, train, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="directory to write the tokenizer to")
    add_flags(parser, NurserySource)
    arguments = parser.parse_args()

    from chronocoder.suites.nursery.grammar import Grammar
    from chronocoder.suites.nursery.tokenizer import train_tokenizer

    source = from_flags(arguments, NurserySource)
    sentences = Grammar.load(source.language).sentences("pretraining", source.seed)
    tokenizer = train_tokenizer(islice(sentences, SENTENCES), source.vocabulary_size)
    with whole_directory(arguments.output) as partial:
        tokenizer.save_pretrained(partial)


if __name__ == "__main__":
    run_script(main)
