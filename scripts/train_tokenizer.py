"""Train the tokenizer of a nursery suite on text of its pretraining split."""

import argparse
from pathlib import Path

from chronocoder.command_line import run_script
from chronocoder.stores import whole_directory


def main() -> None:
    """Read the arguments, train, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--language", required=True, help="the grammar that makes the text")
    parser.add_argument("--seed", type=int, required=True, help="seed of the text")
    parser.add_argument("--vocabulary-size", type=int, required=True, help="entries of the tokenizer")
    parser.add_argument("--output", type=Path, required=True, help="directory to write the tokenizer to")
    arguments = parser.parse_args()

    from chronocoder.suites.nursery.grammar import Grammar
    from chronocoder.suites.nursery.tokenizer import train_tokenizer

    sentences = Grammar.load(arguments.language).sentences("pretraining", arguments.seed)
    tokenizer = train_tokenizer(sentences, arguments.vocabulary_size)
    with whole_directory(arguments.output) as partial:
        tokenizer.save_pretrained(partial)


if __name__ == "__main__":
    run_script(main)
