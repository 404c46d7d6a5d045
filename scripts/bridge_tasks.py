"""Hold the transfer between tasks against the features of a crosscoder, and remove those that tasks share."""

import argparse
from pathlib import Path

from chronocoder.command_line import (
    add_checkpoints,
    add_flags,
    add_loading,
    checkpoints_from,
    from_flags,
    loading_from,
    run_script,
)
from chronocoder.config import TaskSpaceSettings
from chronocoder.stores import load_store, provenance, write_store


def main() -> None:
    """Read the arguments, tune and measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_checkpoints(parser)
    add_loading(parser)
    parser.add_argument("--crosscoder", type=Path, required=True, help="directory of the crosscoder")
    parser.add_argument("--relie", type=Path, required=True, help="store of its effects on all tasks")
    parser.add_argument("--transfer", type=Path, required=True, help="store of the transfer between tasks")
    parser.add_argument("--tasks", type=Path, nargs="+", required=True, help="stores of all tasks of the task space")
    parser.add_argument("--output", type=Path, required=True, help="store to write")
    add_flags(parser, TaskSpaceSettings)
    arguments = parser.parse_args()
    settings, loading = from_flags(arguments, TaskSpaceSettings), loading_from(arguments)
    given, relie, transfer = checkpoints_from(arguments), load_store(arguments.relie), load_store(arguments.transfer)
    tasks = {str(task.attrs["task"]): task for task in map(load_store, arguments.tasks)}

    from accelerate import PartialState

    from chronocoder.attribution.prompts import check_checkpoints, check_suite
    from chronocoder.attribution.seeds import check_effects
    from chronocoder.crosscoder.model import load_crosscoder
    from chronocoder.devices import default_device
    from chronocoder.suites.checkpoints import checkpoint_commit
    from chronocoder.taskspace.bridge import build_bridge, relate
    from chronocoder.taskspace.split import held_out_pairs
    from chronocoder.taskspace.tunable import Checkpoints, tunable_models

    device = default_device()
    PartialState(cpu=device.type == "cpu")
    crosscoder = load_crosscoder(arguments.crosscoder, device)
    check_effects(crosscoder, relie)
    for task in tasks.values():
        check_suite(crosscoder.config, task)
    commits = [checkpoint_commit(path) for path in given.paths.values()]
    check_checkpoints(crosscoder.config, given.suite, list(given.paths), commits)
    relations = relate(relie, transfer, list(tasks), settings)
    held = held_out_pairs(tasks, settings.held_out, settings.seeds[0])
    checkpoints = Checkpoints(crosscoder, given.paths, loading)
    models = tunable_models(checkpoints, relations.revisions, tasks, held, settings)
    bridge = build_bridge(
        relations, models, {name: task.isel(example=held[name]) for name, task in tasks.items()}, settings
    )
    facts = {**crosscoder.facts, "tuning_seed": settings.seeds[0], "method": settings.main}
    write_store(bridge, arguments.output, provenance(settings, **facts))


if __name__ == "__main__":
    run_script(main)
