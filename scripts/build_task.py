"""Make or read the minimal pairs of a task and tokenise them."""

import argparse
import tempfile
from pathlib import Path

from pydantic import TypeAdapter

from chronocoder.command_line import run_script
from chronocoder.config import Task
from chronocoder.stores import provenance, write_store


def main() -> None:
    """Read the arguments, build, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", required=True, help="name of the suite")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument("--settings", required=True, help="the task, as JSON")
    parser.add_argument("--tokenizer", type=Path, required=True, help="directory of the tokenizer")
    parser.add_argument("--lock", type=Path, required=True, help="lock file of the suite, where pairs are fetched")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    arguments = parser.parse_args()

    from chronocoder.suites.tokenizers import load_tokenizer, separator_id
    from chronocoder.tasks.fetching import fetch_pairs
    from chronocoder.tasks.sources import read_pairs
    from chronocoder.tasks.tokenise import tokenise_pairs

    settings = TypeAdapter(Task).validate_json(arguments.settings)
    tokenizer = load_tokenizer(arguments.tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        fetched = fetch_pairs(settings, arguments.lock, Path(folder))
        found = read_pairs(arguments.task, fetched.task)
    task = tokenise_pairs(
        found.pairs, tokenizer, separator_id(tokenizer), arguments.task, settings.metric, found.drawn_from
    )
    facts = provenance(
        settings,
        suite=arguments.suite,
        task=arguments.task,
        language=found.language,
        phenomenon=found.phenomenon,
        source_revision=fetched.revision,
        duplicates=found.duplicates,
        not_drawn=found.not_drawn,
    )
    write_store(task, arguments.output, facts)


if __name__ == "__main__":
    run_script(main)
