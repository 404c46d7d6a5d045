"""What the jobs of attribution and of ablation share: flags, checks, and models that are loaded once for all tasks."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import xarray as xr

from chronocoder.command_line import (
    add_checkpoints,
    add_flags,
    add_loading,
    checkpoints_from,
    from_flags,
    loading_from,
    paired,
)
from chronocoder.config import AttributionSettings
from chronocoder.errors import ChronocoderError, ConfigError, StoreError
from chronocoder.settings import Settings
from chronocoder.sharing import Tasks, add_task_flags
from chronocoder.stores import load_store, open_store, provenance, write_store
from chronocoder.tasks.groups import facts_of

if TYPE_CHECKING:  # torch is imported once the arguments have been found to be in order
    from chronocoder.crosscoder.model import Crosscoder
    from chronocoder.suites.sites import Site


class Result(NamedTuple):
    """What a job finds on a task.

    Attributes:
        dataset: to be stored.
        settings: of the step.
        facts: what else the store says of its origin.
    """

    dataset: xr.Dataset
    settings: Settings
    facts: Mapping[str, Any]


class Job(NamedTuple):
    """Tasks to work on, and what is needed for them.

    Attributes:
        crosscoder: folded.
        sites: the crosscoder's site in each checkpoint's model.
        tokens_seen: by revision.
        stores: of the tasks, by the path that the result goes to.
        settings: of the attribution.
        evaluation: of the crosscoder, where the intervention needs it.
        tasks: which tasks to work on, and when.
    """

    crosscoder: "Crosscoder"
    sites: "list[Site]"
    tokens_seen: Mapping[str, int]
    stores: Mapping[Path, Path]
    settings: AttributionSettings
    evaluation: xr.Dataset | None
    tasks: Tasks

    @property
    def writes(self) -> bool:
        """Whether this is the one of the processes that writes the results."""
        from accelerate import PartialState

        return bool(PartialState().is_main_process)

    def work(self, measure: Callable[[Path, xr.Dataset], Result | None]) -> None:
        """Work on one task after another; a companion that fails is left to its own job.

        Args:
            measure: is given the path that the result goes to, and the task ready for the intervention; its result is
                only asked for where it is written.

        Raises:
            ChronocoderError: the job's own task fails, or any, where processes that share out its examples have parted.
        """
        from accelerate import PartialState
        from accelerate.utils import broadcast_object_list

        turns = self.tasks.turns()
        while (output := broadcast_object_list([next(turns, None) if self.writes else None])[0]) is not None:
            try:
                result = measure(output, self._ready(output))
                if result is not None:
                    self._write(output, result)
            except ChronocoderError as error:
                if PartialState().num_processes > 1:
                    raise
                self.tasks.failed(output, error)

    def _ready(self, output: Path) -> xr.Dataset:
        from chronocoder.attribution.interventions import prepare_task
        from chronocoder.attribution.prompts import check_suite
        from chronocoder.suites.checkpoints import check_vocabulary

        stored = load_store(self.stores[output])
        for site in self.sites:
            check_vocabulary(site.model, stored)
        task = prepare_task(stored, self.settings, self.evaluation)
        check_suite(self.crosscoder.config, task)
        return task

    def _write(self, output: Path, result: Result) -> None:
        attributes = provenance(result.settings, **result.facts)
        self.tasks.put(output, lambda path: write_store(result.dataset, path, attributes))

    def facts(self, task: xr.Dataset) -> dict[str, Any]:
        """Return what a store about one of the tasks says of its origin."""
        from chronocoder.suites.checkpoints import joint_loading_facts

        of_task = {name: task.attrs[name] for name in ("task", "examples_left_out")}
        of_models = joint_loading_facts([site.model for site in self.sites])
        return {**self.crosscoder.facts, **facts_of(task), **of_task, **of_models, "examples": task.sizes["example"]}

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
    add_task_flags(parser)
    parser.add_argument("--processes", type=int, default=1, help="processes that share out the examples; one a GPU")
    parser.add_argument("--evaluation", type=Path, help="the crosscoder's evaluation; intervention `mean` needs it")
    add_loading(parser)
    add_flags(parser, AttributionSettings)


def pairs_of(stores: Sequence[Path]) -> int:
    """Return the number of pairs of some tasks."""
    return sum(open_store(store).sizes["example"] for store in stores)


def start_job(arguments: argparse.Namespace, tasks: Tasks) -> Job:
    """Check that everything but companions fits together, start the processes, and load what all tasks need.

    Args:
        arguments: what the flags of `add_job_flags` state.
        tasks: which of the tasks to work on, and when.

    Raises:
        ConfigError: the flags do not fit each other, one that the intervention needs lacks, or a model cannot be read.
        StoreError: a store cannot be read, or the models or the evaluation are not those of the crosscoder.
        TaskError: the first task has no example for the intervention.
    """
    given, settings = checkpoints_from(arguments), from_flags(arguments, AttributionSettings)
    loading = loading_from(arguments)
    evaluation, stores = _evaluation(arguments, settings), paired(arguments, "outputs", "tasks")
    first = load_store(arguments.tasks[0])

    from chronocoder.attribution.interventions import check_evaluation, prepare_task
    from chronocoder.crosscoder.launch import Machines, run_on_processes

    prepared = prepare_task(first, settings, evaluation)
    run_on_processes(arguments.processes, Machines())

    from accelerate import PartialState

    from chronocoder.attribution.prompts import check_checkpoints, check_suite
    from chronocoder.crosscoder.model import load_crosscoder
    from chronocoder.devices import default_device
    from chronocoder.suites.checkpoints import checkpoint_commit, load_model
    from chronocoder.suites.sites import resolve_site

    device = default_device()
    PartialState(cpu=device.type == "cpu")  # processes without GPUs would not find each other unless told so, once
    crosscoder = load_crosscoder(arguments.crosscoder, device)
    if evaluation is not None:
        check_evaluation(evaluation, crosscoder.facts)
    check_suite(crosscoder.config, prepared)
    commits = [checkpoint_commit(path) for path in given.paths.values()]
    check_checkpoints(crosscoder.config, given.suite, list(given.paths), commits)
    sites = [resolve_site(load_model(path, loading), crosscoder.config.site) for path in given.paths.values()]
    return Job(crosscoder, sites, given.tokens_seen, stores, settings, evaluation, tasks)


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
