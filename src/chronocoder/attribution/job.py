"""What the jobs of attribution and of ablation share: flags, checks, and models that are loaded once for all tasks."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import xarray as xr

from chronocoder.command_line import add_checkpoints, add_flags, checkpoints_from, from_flags, paired
from chronocoder.config import AttributionSettings
from chronocoder.errors import ConfigError, StoreError
from chronocoder.stores import load_store
from chronocoder.tasks.groups import facts_of

if TYPE_CHECKING:  # torch is imported once the arguments have been found to be in order
    from chronocoder.crosscoder.model import Crosscoder
    from chronocoder.suites.sites import Site


class Job(NamedTuple):
    """Tasks to work on, and what is needed for them.

    Attributes:
        crosscoder: folded.
        sites: the crosscoder's site in each checkpoint's model.
        tokens_seen: by revision.
        tasks: by the path that the result goes to.
        settings: of the attribution.
        suite_pairs: pairs of all tasks of the suite.
    """

    crosscoder: "Crosscoder"
    sites: "list[Site]"
    tokens_seen: Mapping[str, int]
    tasks: Mapping[Path, xr.Dataset]
    settings: AttributionSettings
    suite_pairs: int

    def facts(self, task: xr.Dataset) -> dict[str, Any]:
        """Return what a store about one of the tasks says of its origin."""
        of_task = {name: task.attrs[name] for name in ("task", "examples_left_out")}
        return {**self.crosscoder.facts, **facts_of(task), **of_task, "examples": task.sizes["example"]}

    def check_attribution(self, attribution: xr.Dataset, task: xr.Dataset) -> None:
        """Check that an attribution was made of this crosscoder on a task, with these settings.

        Raises:
            StoreError: it was not; the message names what differs.
        """
        expected = {**self.settings.model_dump(mode="json"), **self.facts(task)}
        found = {**json.loads(attribution.attrs["settings"]), **attribution.attrs}
        for key, value in expected.items():
            if key != "batch_size" and found.get(key) != value:
                raise StoreError(
                    f"the attribution given for task '{task.attrs['task']}' has {key} {found.get(key)}, not {value};"
                    " give the attributions of this crosscoder with their settings, in the order of the tasks"
                )


def add_job_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `start_job` reads."""
    add_checkpoints(parser)
    parser.add_argument("--crosscoder", type=Path, required=True, help="directory of the crosscoder")
    parser.add_argument("--tasks", type=Path, nargs="+", required=True, help="stores of the tasks")
    parser.add_argument("--outputs", type=Path, nargs="+", required=True, help="stores to write, in the same order")
    parser.add_argument(
        "--suite-pairs",
        type=int,
        help="pairs of all tasks of the suite, by which `auto` chooses; by default those of the given tasks",
    )
    parser.add_argument("--processes", type=int, default=1, help="processes that share out the examples; one a GPU")
    parser.add_argument("--evaluation", type=Path, help="the crosscoder's evaluation; intervention `mean` needs it")
    add_flags(parser, AttributionSettings)


def start_job(arguments: argparse.Namespace) -> Job:
    """Start the processes, check that everything fits together, and load it.

    Raises:
        ConfigError: the flags do not fit each other, one that the intervention needs lacks, or a model cannot be read.
        StoreError: a store cannot be read, or the models or the evaluation are not those of the crosscoder.
        TaskError: a task has no example for the intervention.
    """
    given, settings = checkpoints_from(arguments), from_flags(arguments, AttributionSettings)
    evaluation = _evaluation(arguments, settings)
    tasks = {output: load_store(path) for output, path in paired(arguments, "outputs", "tasks").items()}

    from chronocoder.attribution.interventions import check_evaluation, prepare_task
    from chronocoder.attribution.prompts import check_checkpoints, check_suite
    from chronocoder.crosscoder.launch import Machines, run_on_processes
    from chronocoder.crosscoder.model import load_crosscoder
    from chronocoder.devices import default_device
    from chronocoder.suites.checkpoints import checkpoint_commit, load_model
    from chronocoder.suites.sites import resolve_site

    prepared = {output: prepare_task(task, settings, evaluation) for output, task in tasks.items()}
    run_on_processes(arguments.processes, Machines())
    crosscoder = load_crosscoder(arguments.crosscoder, default_device())
    if evaluation is not None:
        check_evaluation(evaluation, crosscoder.facts)
    for task in prepared.values():
        check_suite(crosscoder.config, task)
    commits = [checkpoint_commit(path) for path in given.paths.values()]
    check_checkpoints(crosscoder.config, given.suite, list(given.paths), commits)
    sites = [resolve_site(load_model(path), crosscoder.config.site) for path in given.paths.values()]
    pairs = arguments.suite_pairs or sum(task.sizes["example"] for task in tasks.values())
    return Job(crosscoder, sites, given.tokens_seen, prepared, settings, pairs)


def _evaluation(arguments: argparse.Namespace, settings: AttributionSettings) -> xr.Dataset | None:
    """Return the evaluation that holds the corpus means, where the intervention needs them."""
    if settings.intervention != "mean":
        return None
    if arguments.evaluation is None:
        raise ConfigError(
            "--evaluation: not given; intervention 'mean' takes the means over the corpus from it; give the evaluation"
            " of the crosscoder"
        )
    return load_store(arguments.evaluation)
