"""Compare the gradients by which one checkpoint would be tuned on every two tasks."""

import argparse
from pathlib import Path

from chronocoder.command_line import add_flags, add_loading, from_flags, loading_from, run_script
from chronocoder.config import TaskSpaceSettings
from chronocoder.stores import load_store, provenance, write_store


def main() -> None:
    """Read the arguments, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", required=True, help="name of the suite")
    parser.add_argument("--revision", required=True, help="name of the checkpoint")
    parser.add_argument("--checkpoint", type=Path, required=True, help="its directory")
    parser.add_argument("--tasks", type=Path, nargs="+", required=True, help="stores of the tokenised tasks")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    add_loading(parser)
    add_flags(parser, TaskSpaceSettings)
    arguments = parser.parse_args()
    settings, loading = from_flags(arguments, TaskSpaceSettings), loading_from(arguments)
    tasks = [load_store(path) for path in arguments.tasks]

    from chronocoder.suites.checkpoints import checkpoint_commit, load_model, loading_facts
    from chronocoder.taskspace.gradients import compare_gradients

    model = load_model(arguments.checkpoint, loading.differentiable, tasks)
    facts = {
        "suite": arguments.suite,
        "revision": arguments.revision,
        "commit": checkpoint_commit(arguments.checkpoint),
        **loading_facts(model),
    }
    write_store(compare_gradients(model, tasks, settings), arguments.output, provenance(settings, **facts))


if __name__ == "__main__":
    run_script(main)
