"""Print the stores of a directory, what a store holds, or the features that matter most for a task."""

import argparse
import sys
from pathlib import Path

from chronocoder.command_line import run_script
from chronocoder.errors import ConfigError
from chronocoder.inspection import effects_on, features_text, own_examples, store_text, stores_below
from chronocoder.report.annotations import read_annotations
from chronocoder.stores import damage_named, load_store, open_store


def main() -> None:
    """Read the arguments, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="a store, or a directory that has stores below it")
    parser.add_argument("--task", help="print the features of largest effect on this task, out of relie.zarr of a run")
    parser.add_argument("--top", type=int, default=10, help="how many of them (default: 10)")
    parser.add_argument("--examples", type=Path, help="features.zarr, for their words (default: that of the same run)")
    parser.add_argument("--annotations", type=Path, help="CSV file of annotations, shown beside the features")
    arguments = parser.parse_args()
    if arguments.top < 1:
        raise ConfigError(f"--top {arguments.top} leaves nothing to print; give 1 or more")
    sys.stdout.write(_text(arguments))


def _text(arguments: argparse.Namespace) -> str:
    path, task = arguments.path, arguments.task
    if path.is_dir() and path.suffix != ".zarr":
        if task is not None:
            raise ConfigError(f"--task {task}: {path} is no store; give relie.zarr of a run")
        return stores_below(path)
    with open_store(path) as store, damage_named(path):
        if task is None:
            return store_text(store)
        effects = effects_on(store, task)
    examples = arguments.examples or own_examples(path)
    annotations = [] if arguments.annotations is None else read_annotations(arguments.annotations)
    return features_text(effects, arguments.top, None if examples is None else load_store(examples), annotations)


if __name__ == "__main__":
    run_script(main)
