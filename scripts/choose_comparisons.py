"""Choose what a suite's crosscoders are trained on from accuracy curves, within a budget, and write down why."""

import argparse
from pathlib import Path

from pydantic import TypeAdapter

from chronocoder.behaviour.choice import choose, curves_of, tasks_of_scan
from chronocoder.behaviour.choice_words import choice_store, comparisons_text
from chronocoder.command_line import add_flags, from_flags, require, run_script
from chronocoder.config import ChoiceSettings, Comparison
from chronocoder.stores import load_store, provenance, write_store, write_text


def main() -> None:
    """Read the arguments, choose, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--comparisons", required=True, help="the comparisons that are given, as JSON")
    parser.add_argument("--suite-site", required=True, help="the suite's site")
    parser.add_argument("--scan", type=Path, help="store of a scan of all checkpoints, in place of the following two")
    parser.add_argument("--scores", type=Path, nargs="+", help="stores of the tasks' scores")
    parser.add_argument("--similarity", type=Path, help="store of the checkpoints' similarities")
    parser.add_argument("--output", type=Path, required=True, help="YAML file to write")
    parser.add_argument("--choice", type=Path, required=True, help="store of the curves and their changes to write")
    add_flags(parser, ChoiceSettings)
    arguments = parser.parse_args()
    settings = from_flags(arguments, ChoiceSettings)
    given = TypeAdapter(dict[str, Comparison]).validate_json(arguments.comparisons)
    if arguments.scan:
        similarity = load_store(arguments.scan)
        tasks = tasks_of_scan(similarity)
    else:
        require(arguments, "scores", "similarity")
        similarity, tasks = load_store(arguments.similarity), [load_store(path) for path in arguments.scores]
    curves = curves_of(tasks, similarity, settings.site or arguments.suite_site)
    choice = choose(curves, settings, given, arguments.suite_site)
    suite = str(similarity.attrs["suite"])
    write_store(choice_store(choice, curves, settings), arguments.choice, provenance(settings, suite=suite))
    write_text(arguments.output, comparisons_text(given, choice, curves, settings, arguments.suite_site))


if __name__ == "__main__":
    run_script(main)
