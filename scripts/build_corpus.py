"""Tokenise and pack the text of one split."""

import argparse
from pathlib import Path

from pydantic import TypeAdapter

from chronocoder.command_line import run_script
from chronocoder.config import Corpus, CorpusSettings
from chronocoder.stores import provenance, write_store


def main() -> None:
    """Read the arguments, build, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", required=True, help="name of the suite")
    parser.add_argument("--language", nargs="+", default=[], help="the nursery's languages, for generated text")
    parser.add_argument("--corpus", required=True, help="the suite's corpus, as JSON")
    parser.add_argument("--split", required=True, choices=["train", "validation"])
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory of the tokenizer")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    arguments = parser.parse_args()

    from chronocoder.suites.corpus import build_corpus, read_documents
    from chronocoder.suites.tokenizers import load_tokenizer, separator_id

    settings: CorpusSettings = TypeAdapter(Corpus).validate_json(arguments.corpus)
    tokenizer = load_tokenizer(arguments.tokenizer)
    documents = read_documents(settings, arguments.language, arguments.split)
    corpus = build_corpus(documents, tokenizer, separator_id(tokenizer), settings, arguments.split)
    write_store(corpus, arguments.output, provenance(settings, suite=arguments.suite, split=arguments.split))


if __name__ == "__main__":
    run_script(main)
