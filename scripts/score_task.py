"""Score every checkpoint of a suite on one task."""

import argparse
from pathlib import Path

from chronocoder.command_line import add_checkpoints, checkpoints_from, run_script
from chronocoder.config import Settings
from chronocoder.stores import load_store, provenance, write_store


def main() -> None:
    """Read the arguments, score, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoints(parser)
    parser.add_argument("--task", type=Path, required=True, help="store of the task")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    arguments = parser.parse_args()
    task = load_store(arguments.task)

    from chronocoder.behaviour.scores import score_task
    from chronocoder.suites.checkpoints import checkpoint_commit, load_model

    given = checkpoints_from(arguments)
    models = ((revision, load_model(path)) for revision, path in given.paths.items())
    scores = score_task(models, given.tokens_seen, task)
    commits = [checkpoint_commit(path) for path in given.paths.values()]
    facts = provenance(Settings(), suite=given.suite, task=task.attrs["task"], commits=commits)
    write_store(scores, arguments.output, facts)


if __name__ == "__main__":
    run_script(main)
