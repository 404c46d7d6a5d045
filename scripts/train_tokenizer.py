"""Train the tokenizer of a nursery suite on text of its pretraining split."""

import argparse
from pathlib import Path

from chronocoder.command_line import run_script
from chronocoder.stores import whole_directory


def main() -> None:
    """Read the arguments, train, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--language", nargs="+", required=True, help="the grammars that make the text")
    parser.add_argument("--seed", type=int, required=True, help="seed of the text")
    parser.add_argument("--vocabulary-size", type=int, required=True, help="entries of the tokenizer")
    parser.add_argument("--output", type=Path, required=True, help="directory to write the tokenizer to")
    arguments = parser.parse_args()

    from chronocoder.suites.nursery.grammar import sentences_by_language
    from chronocoder.suites.nursery.tokenizer import train_tokenizer
    from chronocoder.suites.packing import mixed

    sentences = sentences_by_language(arguments.language, "pretraining", arguments.seed)
    texts = (text for _, text in mixed(sentences, f"tokenizer {arguments.seed}"))
    tokenizer = train_tokenizer(texts, arguments.vocabulary_size)
    with whole_directory(arguments.output) as partial:
        tokenizer.save_pretrained(partial)


if __name__ == "__main__":
    run_script(main)
