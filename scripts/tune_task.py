"""Tune copies of a checkpoint on a task, or on several in turn, and evaluate each on all tasks."""

import argparse
from pathlib import Path

from chronocoder.sharing import Tasks, add_task_flags, run_shared


def main(tasks: Tasks) -> None:
    """Read the arguments, tune and evaluate, write."""
    from chronocoder.command_line import add_flags, add_loading, from_flags, loading_from, paired
    from chronocoder.config import TuningSettings
    from chronocoder.errors import ChronocoderError
    from chronocoder.stores import load_store, provenance, write_store

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", required=True, help="name of the suite")
    parser.add_argument("--revision", required=True, help="name of the checkpoint")
    parser.add_argument("--checkpoint", type=Path, required=True, help="its directory")
    parser.add_argument("--corpus", type=Path, required=True, help="store of the validation text")
    parser.add_argument("--targets", type=Path, nargs="+", required=True, help="stores of all tasks to evaluate on")
    parser.add_argument("--tuning-seed", type=int, required=True, help="splits the pairs and orders the batches")
    add_task_flags(parser)
    add_loading(parser)
    add_flags(parser, TuningSettings)
    arguments = parser.parse_args()
    settings, loading = from_flags(arguments, TuningSettings), loading_from(arguments)
    stores = paired(arguments, "outputs", "tasks")
    targets = {store.attrs["task"]: store for store in map(load_store, arguments.targets)}
    corpus = load_store(arguments.corpus)

    from chronocoder.suites.checkpoints import checkpoint_commit, load_model, loading_facts
    from chronocoder.taskspace.probing import Probe

    model = load_model(arguments.checkpoint, loading.differentiable, [corpus, *targets.values()])
    probe = Probe(model, targets, corpus["token_ids"].values, settings, arguments.tuning_seed)
    origin = {"suite": arguments.suite, "revision": arguments.revision, "seed": arguments.tuning_seed}
    facts = {**origin, "commit": checkpoint_commit(arguments.checkpoint), **loading_facts(model)}
    for output in tasks.turns():
        try:
            name = load_store(stores[output]).attrs["task"]
            found = probe.of(name)
        except ChronocoderError as error:
            tasks.failed(output, error)
        else:
            attributes = provenance(settings, task=name, **facts, **found.attrs)
            tasks.put(output, lambda path, found=found, attributes=attributes: write_store(found, path, attributes))


if __name__ == "__main__":
    run_shared(main)
