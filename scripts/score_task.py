"""Score every checkpoint of a suite on a task, or on several at once."""

import argparse
from pathlib import Path

from chronocoder.sharing import Tasks, add_task_flags, run_shared


def main(tasks: Tasks) -> None:
    """Read the arguments, score, write."""
    from chronocoder.command_line import add_checkpoints, add_loading, checkpoints_from, loading_from, paired
    from chronocoder.config import Settings
    from chronocoder.stores import load_store, provenance, write_store

    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoints(parser)
    add_loading(parser)
    add_task_flags(parser)
    arguments = parser.parse_args()
    given, loading = checkpoints_from(arguments), loading_from(arguments)
    stores = paired(arguments, "outputs", "tasks")

    def score(outputs: list[Path]) -> None:
        loaded = [load_store(stores[output]) for output in outputs]

        from chronocoder.behaviour.scores import score_tasks
        from chronocoder.suites.checkpoints import ModelsInTurn, checkpoint_commit

        models = ModelsInTurn(given.paths, loading, loaded)
        commits = [checkpoint_commit(path) for path in given.paths.values()]
        scores = score_tasks(models, given.tokens_seen, loaded)
        for output, task, scored in zip(outputs, loaded, scores, strict=True):
            facts = provenance(Settings(), suite=given.suite, task=task.attrs["task"], commits=commits, **models.facts)
            tasks.put(output, lambda path, scored=scored, facts=facts: write_store(scored, path, facts))

    tasks.together(score)


if __name__ == "__main__":
    run_shared(main)
