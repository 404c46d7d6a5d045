"""Tokenise and pack the text of both splits; goes on where it was interrupted."""

import argparse
import os
from pathlib import Path

from pydantic import TypeAdapter

from chronocoder.command_line import run_script
from chronocoder.config import Corpus, CorpusSettings


def main() -> None:
    """Read the arguments, build."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", required=True, help="name of the suite")
    parser.add_argument("--language", nargs="+", default=[], help="the nursery's languages, for generated text")
    parser.add_argument("--corpus", required=True, help="the suite's corpus, as JSON")
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory of the tokenizer")
    parser.add_argument("--processes", type=int, default=1, help="processes that tokenise (default: %(default)s)")
    parser.add_argument("--lock", type=Path, help="the suite's lock file, for datasets on the hub")
    parser.add_argument("--train", type=Path, required=True, help="store to write of the split to train on")
    parser.add_argument("--validation", type=Path, required=True, help="store to write of the split to judge on")
    parser.add_argument("--state", type=Path, required=True, help="directory of what is unfinished; removed at the end")
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as many processes as are allowed, not a thread on each core
    settings: CorpusSettings = TypeAdapter(Corpus).validate_json(arguments.corpus)

    from chronocoder.suites.corpora.build import build_corpus

    build_corpus(
        settings,
        arguments.tokenizer,
        {"validation": arguments.validation, "train": arguments.train},
        arguments.state,
        arguments.language,
        arguments.processes,
        arguments.lock,
        arguments.suite,
    )


if __name__ == "__main__":
    run_script(main)
