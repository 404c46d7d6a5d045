"""Score every checkpoint of a suite on a task, or on several at once."""

import argparse
from pathlib import Path

from chronocoder.sharing import Tasks, add_task_flags, run_shared


def main(tasks: Tasks) -> None:
    """Read the arguments, score, write."""
    from chronocoder.command_line import add_checkpoints, checkpoints_from, paired
    from chronocoder.config import Settings
    from chronocoder.stores import load_store, provenance, write_store

    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoints(parser)
    add_task_flags(parser)
    arguments = parser.parse_args()
    given, stores = checkpoints_from(arguments), paired(arguments, "outputs", "tasks")

    def score(outputs: list[Path]) -> None:
        loaded = [load_store(stores[output]) for output in outputs]

        from chronocoder.behaviour.scores import score_tasks
        from chronocoder.suites.checkpoints import checkpoint_commit, load_model

        models = ((revision, load_model(path)) for revision, path in given.paths.items())
        commits = [checkpoint_commit(path) for path in given.paths.values()]
        scores = score_tasks(models, given.tokens_seen, loaded)
        for output, task, scored in zip(outputs, loaded, scores, strict=True):
            facts = provenance(Settings(), suite=given.suite, task=task.attrs["task"], commits=commits)
            tasks.put(output, lambda path, scored=scored, facts=facts: write_store(scored, path, facts))

    tasks.together(score)


if __name__ == "__main__":
    run_shared(main)
