"""Score every checkpoint of a suite on some tasks."""

import argparse
from pathlib import Path

from chronocoder.command_line import add_checkpoints, checkpoints_from, paired, run_script
from chronocoder.config import Settings
from chronocoder.stores import load_store, provenance, write_store


def main() -> None:
    """Read the arguments, score, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoints(parser)
    parser.add_argument("--tasks", type=Path, nargs="+", required=True, help="stores of the tasks")
    parser.add_argument("--outputs", type=Path, nargs="+", required=True, help="stores to write, in the same order")
    arguments = parser.parse_args()
    given = checkpoints_from(arguments)
    tasks = {output: load_store(path) for output, path in paired(arguments, "outputs", "tasks").items()}

    from chronocoder.behaviour.scores import score_tasks
    from chronocoder.suites.checkpoints import checkpoint_commit, load_model

    models = ((revision, load_model(path)) for revision, path in given.paths.items())
    scores = score_tasks(models, given.tokens_seen, list(tasks.values()))
    commits = [checkpoint_commit(path) for path in given.paths.values()]
    for (output, task), scored in zip(tasks.items(), scores, strict=True):
        write_store(scored, output, provenance(Settings(), suite=given.suite, task=task.attrs["task"], commits=commits))


if __name__ == "__main__":
    run_script(main)
