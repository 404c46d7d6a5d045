"""The jobs of an experiment, as the DAG makes them.

They are listed here rather than asked of a dry run, because their costs have to be added up job by job in any case, and
so that a plan needs no input file to exist yet. A test compares the list with Snakemake's own.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from chronocoder.config import Experiment, HubSource, NurserySource
from chronocoder.labels import place_of
from chronocoder.suites.agreement import has_to_be_checked

TOKENIZER_RULES = {"nursery": "train_tokenizer", "local": "copy_tokenizer", "hub": "download_tokenizer"}


class Job(NamedTuple):
    """A job of the DAG: its rule, and its wildcards where it has them.

    Attributes:
        rule: name of the rule; that of a nursery's pretraining holds the suite.
        suite: the suite; empty for `all`.
        comparison: the comparison.
        variant: the variant.
        seed: the seed, of a crosscoder or of a tuning.
        task: the task.
        tasks: where models are run on tasks, those that it works on: its own and some that wait, or none where another
            job works on its own.
        revision: the checkpoint, as the suite's comparisons name it.
        site: the site.
    """

    rule: str
    suite: str = ""
    comparison: str = ""
    variant: str = ""
    seed: int = 0
    task: str = ""
    tasks: tuple[str, ...] = ()
    revision: str = ""
    site: str = ""


def jobs_of(experiment: Experiment) -> list[Job]:
    """Return every job of a run from nothing to the reports, each once; of a choice, of the most it may choose."""
    experiment = experiment.with_dearest_choice()
    jobs = [job for suite in experiment.suites for job in _jobs_of_suite(experiment, suite)]
    return list(dict.fromkeys([*jobs, Job("all")]))


def count_by_rule(jobs: list[Job]) -> dict[str, int]:
    """Return the number of jobs of each rule, in the order in which rules first appear."""
    return dict(Counter(job.rule for job in jobs))


def _jobs_of_suite(experiment: Experiment, suite: str) -> Iterator[Job]:
    """Yield the jobs of a suite, and those that make what it takes from others; none if it only supplies to others."""
    settings = experiment.suites[suite]
    if has_to_be_checked(experiment, suite):
        yield from (Job("check_checkpoint", suite, revision=revision) for revision in settings.readers)
    if settings.scan:
        yield from _jobs_of_scan(experiment, suite)
    if not (settings.comparisons or settings.taskspace):
        return
    yield from _jobs_of_text(experiment, suite)
    for revision in settings.studied if settings.reported else []:
        yield from _jobs_of_checkpoint(experiment, suite, revision)
    yield from _harvests(experiment, suite)
    yield from _jobs_of_runs(experiment, suite)
    if settings.taskspace:
        yield from _jobs_of_taskspace(experiment, suite)
    if settings.reported:
        yield from _jobs_of_report(experiment, suite)


def _jobs_of_text(experiment: Experiment, suite: str) -> Iterator[Job]:
    """Yield what makes a suite's tokenizer, text and tasks."""
    settings = experiment.suites[suite]
    yield Job(TOKENIZER_RULES[settings.source.kind], suite)
    yield Job("build_corpus", suite)
    for task in settings.tasks:
        yield Job("build_task", suite, task=task)


def _jobs_of_checkpoint(experiment: Experiment, suite: str, checkpoint: str) -> Iterator[Job]:
    """Yield what makes a checkpoint that a suite's comparison names."""
    place = place_of(checkpoint, suite)
    source = experiment.suites[place.suite].source
    if isinstance(source, NurserySource):
        yield Job("train_tokenizer", place.suite)
        yield Job(f"pretrain_{place.suite}", place.suite)
    if isinstance(source, HubSource):
        yield Job("download_checkpoint", place.suite, revision=place.revision)


def _jobs_of_scan(experiment: Experiment, suite: str) -> Iterator[Job]:
    """Yield the scan of every checkpoint, what it reads, and a page on the scan alone where there is no other."""
    settings = experiment.suites[suite]
    yield from _jobs_of_text(experiment, suite)
    for revision in settings.tokens_seen:
        yield from _jobs_of_checkpoint(experiment, suite, revision)
        yield Job("scan_checkpoint", suite, revision=revision)
    yield Job("collect_scan", suite)
    if not settings.reported:
        yield Job("show_scan", suite)


def _jobs_of_report(experiment: Experiment, suite: str) -> Iterator[Job]:
    tasks = tuple(experiment.suites[suite].tasks)
    yield from _on_tasks(tasks, Job("score_task", suite), experiment.behaviour.tasks_per_job)
    listing = "choose_comparisons" if experiment.suites[suite].auto else "list_comparisons"
    for rule in ("collect_behaviour", "compare_checkpoints", listing, "write_report"):
        yield Job(rule, suite)


def _harvests(experiment: Experiment, suite: str) -> Iterator[Job]:
    """Yield a harvest for each checkpoint and site of each comparison, and what makes it; comparisons share them."""
    settings = experiment.suites[suite]
    for name, comparison in settings.comparisons.items():
        for revision in comparison.checkpoints:
            yield from _jobs_of_checkpoint(experiment, suite, revision)
            yield Job("harvest_activations", suite, revision=revision, site=settings.site_of(name))


def _jobs_of_runs(experiment: Experiment, suite: str) -> Iterator[Job]:
    for comparison, settings in experiment.suites[suite].comparisons.items():
        for variant in experiment.variants_of(suite, comparison):
            for seed in experiment.seeds:
                yield from _jobs_of_run(experiment, Job("train_crosscoder", suite, comparison, variant, seed))
                if settings.baseline:
                    yield Job("compare_baseline", suite, comparison, variant, seed)
            if settings.examined and len(set(experiment.seeds)) > 1:
                yield Job("match_seeds", suite, comparison, variant)


def _jobs_of_run(experiment: Experiment, training: Job) -> Iterator[Job]:
    """Yield a training and the jobs about its crosscoder; controls and single checkpoints are measured, no more."""
    suite = experiment.suites[training.suite]
    examined, tasks = suite.comparisons[training.comparison].examined, tuple(suite.tasks)
    yield training
    yield training._replace(rule="evaluate_crosscoder")
    for rule in ("attribute_task", "ablate_task") if examined else ("attribute_task",):
        yield from _on_tasks(tasks, training._replace(rule=rule), experiment.attribution_jobs.tasks_per_job)
    for rule in ("collect_attributions", "find_examples") if examined else ("collect_attributions",):
        yield training._replace(rule=rule)
    if examined and suite.successors_of(training.comparison, training.variant):
        yield training._replace(rule="match_successors")
    if examined and suite.families:
        yield training._replace(rule="measure_consolidation")


def _jobs_of_taskspace(experiment: Experiment, suite: str) -> Iterator[Job]:
    """Yield the tunings and gradients of a suite's checkpoints, what they come to, and bridges to its crosscoders."""
    settings = experiment.suites[suite]
    assert settings.taskspace is not None
    tasks = tuple(settings.space_tasks)
    for revision in settings.taskspace.checkpoints:
        yield from _jobs_of_checkpoint(experiment, suite, revision)
        for seed in experiment.taskspace.seeds:
            tuning = Job("tune_task", suite, seed=seed, revision=revision)
            yield from _on_tasks(tasks, tuning, experiment.behaviour.tasks_per_job)
    yield Job("collect_transfer", suite)
    for revision in settings.taskspace.checkpoints:
        yield Job("compare_gradients", suite, tasks=tasks, revision=revision)
    for rule in ("collect_gradients", "map_tasks"):
        yield Job(rule, suite)
    for comparison in filter(settings.comparisons.__contains__, settings.bridged):
        for variant in experiment.variants_of(suite, comparison):
            for seed in experiment.seeds:
                yield Job("bridge_tasks", suite, comparison, variant, seed, tasks=tasks)


def _on_tasks(tasks: tuple[str, ...], job: Job, size: int) -> Iterator[Job]:
    """Yield a job for each task, as if the first one that waits always worked on the next tasks as well."""
    for place, task in enumerate(tasks):
        yield job._replace(task=task, tasks=tasks[place : place + size] if place % size == 0 else ())
