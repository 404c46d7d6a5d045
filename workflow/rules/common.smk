"""Validate the configuration and give the rules what they share. Imports nothing heavy: a dry run takes seconds."""

import functools
import itertools
import json
import os
import re
import shlex
import sys
from contextlib import suppress
from pathlib import Path

from snakemake.exceptions import IncompleteCheckpointException, WorkflowError

SOURCE_DIRECTORY = Path(workflow.basedir) / "src"
sys.path.insert(0, str(SOURCE_DIRECTORY))
shell.prefix(f"export PYTHONPATH={shlex.quote(str(SOURCE_DIRECTORY))}:${{{{PYTHONPATH:-}}}}; ")

from chronocoder.behaviour.comparisons import chosen_comparisons
from chronocoder.command_line import to_flags
from chronocoder.config import parse_experiment
from chronocoder.errors import ConfigError
from chronocoder.labels import distinct_labels, is_foreign, place_of
from chronocoder.layout import Layout
from chronocoder.plan.downloads import downloads_of
from chronocoder.plan.report import REPORT_PROCESSES, report_mb, report_minutes, shown_crosscoders
from chronocoder.plan.sizes import examples_of
from chronocoder.sharing import waiting_in_allocation
from chronocoder.sharing import SPOOL
from chronocoder.site_names import SITE_PATTERN
from chronocoder.suites.agreement import has_to_be_checked, tokenizer_digest
from chronocoder.suites.corpora.files import local_files
from chronocoder.suites.inputs import checked_experiment, task_files, weight_files

# Relative, since a changed parameter reruns a job: moving a clone must not.
SCRIPTS = Path(os.path.relpath(Path(workflow.basedir) / "scripts"))
ENVIRONMENT = "../../envs/environment.yaml"
SPLITS = ["validation", "train"]  # in this order: what is done is lost if the other then fails, so the small one first

try:
    # A job on a cluster need not find what other jobs read.
    read_experiment = checked_experiment if workflow.is_main_process else parse_experiment
    EXPERIMENT = read_experiment(config, ", ".join(str(path) for path in workflow.configfiles))
except ConfigError as error:
    raise SystemExit(str(error)) from None

LAYOUT = Layout(EXPERIMENT.results)
STREAMING = EXPERIMENT.training.activations == "streaming"
HARVESTED = ["validation"] if STREAMING else SPLITS
MOST_COMPANIONS = 100  # of a job, lest its command grow too long
BEFORE_TASKS = 2  # priority of all rules but those whose jobs, of one task each, share models


def one_of(names):
    """Return a pattern that matches these names and nothing else."""
    return "|".join(re.escape(str(name)) for name in names) or "(?!)"


def suite_of(wildcards):
    return EXPERIMENT.suites[wildcards.suite]


@functools.cache
def _suite_with(name, path, state):
    suite = EXPERIMENT.suites[name]
    return suite.with_comparisons(chosen_comparisons(suite.auto, Path(path)))


def settled(name):
    """Return a suite with the comparisons that are chosen for it; the DAG waits until they are, where it has a choice.

    Only what depends on the choice may call this: the choice itself depends on the scores.
    """
    if EXPERIMENT.suites[name].auto is None:
        return EXPERIMENT.suites[name]
    path = checkpoints.choose_comparisons.get(suite=name).output[0]
    return _suite_with(name, path, os.stat(path).st_mtime_ns)


def comparison_of(wildcards):
    """Return the comparison that the wildcards name, given or chosen."""
    given = suite_of(wildcards).comparisons
    known = given if wildcards.comparison in given else settled(wildcards.suite).comparisons
    if wildcards.comparison not in known:
        raise WorkflowError(
            f"suites.{wildcards.suite}: no comparison '{wildcards.comparison}' was chosen; of those named in"
            f" {LAYOUT.comparisons.format(**wildcards)} there is {', '.join(known) or 'none'}"
        )
    return known[wildcards.comparison]


def site_of(wildcards):
    """Return the site of the comparison that the wildcards name."""
    return comparison_of(wildcards).site or suite_of(wildcards).site


def names_in(attribute):
    return {name for suite in EXPERIMENT.suites.values() for name in getattr(suite, attribute)}


def checkpoint_names():
    """Return what activations may be of: the revisions of all suites, and those that comparisons take from others."""
    comparisons = [one for suite in EXPERIMENT.suites.values() for one in suite.comparisons.values()]
    return names_in("tokens_seen") | {checkpoint for one in comparisons for checkpoint in one.checkpoints}


def suites_from(*kinds):
    return [name for name, suite in EXPERIMENT.suites.items() if suite.source.kind in kinds]


def suites_with(key):
    """Return the suites that choose (`auto`) or scan (`scan`)."""
    return [name for name, suite in EXPERIMENT.suites.items() if getattr(suite, key)]


wildcard_constraints:
    suite=one_of(EXPERIMENT.suites),
    revision=one_of(checkpoint_names()),
    task=one_of(names_in("tasks")),
    comparison=one_of(names_in("comparison_names")),
    variant=one_of(EXPERIMENT.variants),
    seed=one_of(EXPERIMENT.seeds),
    tuning_seed=one_of(EXPERIMENT.taskspace.seeds),
    split=one_of(SPLITS),
    site=SITE_PATTERN,


def as_json(settings):
    """Return a part of the configuration as one command-line argument."""
    return settings.model_dump_json()


def checkpoint_path(suite, checkpoint):
    """Return the directory of a checkpoint that a suite's comparison names: made here, or given."""
    suite, revision = place_of(checkpoint, suite)
    source = EXPERIMENT.suites[suite].source
    if source.kind == "local":
        return source.saved[revision].path
    return LAYOUT.checkpoint.format(suite=suite, revision=revision)


def pretraining_flags(suite):
    """Return the settings of a pretraining: without the tokenizer's seed, since the tokenizer is an input."""
    return to_flags(EXPERIMENT.suites[suite].source.model_copy(update={"tokenizer_seed": None}))


def tokenizer_path(wildcards):
    """Return the directory of a suite's tokenizer."""
    return LAYOUT.tokenizer.format(suite=wildcards.suite)


def tokenizer_source(wildcards, input):
    """Return the directory to copy a tokenizer from; with the input, since another place reruns nothing."""
    return suite_of(wildcards).source.tokenizer


def first_place(wildcards, input):
    """Return the flags of the first checkpoint; with the input, since an earlier one has the same tokenizer."""
    source = suite_of(wildcards).source
    place = source.located(list(source.tokens_seen)[0])
    return ["--repository", place.repository, "--revision", place.revision]


def other_downloads(wildcards, input):
    """Return where the suite's other checkpoints are downloaded to; with the input, since one more reruns nothing."""
    if is_foreign(wildcards.revision) or suite_of(wildcards).source.kind != "hub":
        return []
    names = [name for name in suite_of(wildcards).readers if not is_foreign(name) and name != wildcards.revision]
    return [checkpoint_path(wildcards.suite, name) for name in names]


def loading(wildcards):
    """Return the part of a suite's loading that changes results."""
    return suite_of(wildcards).loading.deciding


def device_map(wildcards):
    """Return a resource, which reruns nothing: how each model is spread over the GPUs of its job."""
    return suite_of(wildcards).loading.device_map


def gpus(processes=1, models=True):
    """Return a resource function: GPUs of a job of so many processes, which may load models."""
    return lambda wildcards: processes * (suite_of(wildcards).loading.gpus if models else 1)


def tokenizer_flag(wildcards):
    """Return the flag of a tokenizer from another repository."""
    source = suite_of(wildcards).source
    return ["--tokenizer", source.tokenizer_repository] if source.tokenizer_repository else []


def pickled_flag(wildcards, input):
    """Return the leave to take pickled weights; with the input, since what was had without it need not come again."""
    return ["--pickled-weights"] if suite_of(wildcards).source.pickled_weights else []


def names_of(wildcards):
    """Return the checkpoints of a comparison, or those that are studied where the wildcards name no comparison."""
    if "comparison" in wildcards.keys():
        return comparison_of(wildcards).checkpoints
    return (settled(wildcards.suite) if suite_of(wildcards).scan else suite_of(wildcards)).studied


def revisions(wildcards):
    """Return what tells the checkpoints of `names_of` apart in stores."""
    return list(distinct_labels(names_of(wildcards)))


def checkpoint_paths(wildcards):
    return [checkpoint_path(wildcards.suite, name) for name in names_of(wildcards)]


def checkpoints_named(wildcards):
    """Return the checkpoint that is named, or all of `names_of`."""
    return [wildcards.revision] if "revision" in wildcards.keys() else names_of(wildcards)


def local_weights(wildcards):
    """Return the weights of local checkpoints: a directory is no newer for a file that is written anew in it."""
    places = [place_of(name, wildcards.suite) for name in checkpoints_named(wildcards)]
    local = [place for place in places if EXPERIMENT.suites[place.suite].source.kind == "local"]
    return [str(path) for suite, name in local for path in weight_files(Path(checkpoint_path(suite, name)))]


def checks_of(wildcards):
    """Return what says that checkpoints are those that the suite may read, and still are."""
    if not has_to_be_checked(EXPERIMENT, wildcards.suite):
        return local_weights(wildcards)
    names = checkpoints_named(wildcards)
    return [LAYOUT.checked.format(suite=wildcards.suite, revision=name) for name in names] + local_weights(wildcards)


def tokens_seen(wildcards):
    return [EXPERIMENT.tokens_seen_of(wildcards.suite, name) for name in names_of(wildcards)]


def tokenizer_to_agree_with(wildcards):
    """Return the directory of the tokenizer that made the text which another suite's checkpoint is to read."""
    return tokenizer_path(wildcards) if is_foreign(wildcards.revision) else []


def harvest_flags(wildcards, input):
    """Return the settings of a harvest, and the tokenizer that another suite's checkpoint has to agree with."""
    tokenizer = ["--tokenizer", input.tokenizer] if is_foreign(wildcards.revision) else []
    return [*to_flags(EXPERIMENT.harvest), *tokenizer]


def activations(split):
    """Return an input function: the activation stores of a comparison's checkpoints on one split."""

    def of_comparison(wildcards):
        site = site_of(wildcards)
        return [
            LAYOUT.activations.format(suite=wildcards.suite, site=site, revision=name, split=split)
            for name in names_of(wildcards)
        ]

    return of_comparison


def training_data(wildcards):
    """Return what a crosscoder is trained on: stored activations, or the models and the text they come from."""
    if not STREAMING:
        return {"activations": activations("train")(wildcards)}
    corpus = LAYOUT.corpus.format(suite=wildcards.suite, split="train")
    return {"checkpoints": checkpoint_paths(wildcards), "checked": checks_of(wildcards), "corpus": corpus}


@functools.cache
def suite_pairs(suite):
    """Return the pairs of all tasks of a suite, those of files that are not there yet left out."""
    count = 0
    for task in EXPERIMENT.suites[suite].tasks:
        with suppress(ConfigError):
            count += examples_of(suite, EXPERIMENT.suites[suite], task)
    return max(count, 1)


def training_flags(wildcards, input):
    """Return the flags that name what a crosscoder is trained on."""
    site = site_of(wildcards)  # first, since there is no input before the comparison is chosen
    if not STREAMING:
        return ["--activations", *input.activations]
    flags = ["--suite", wildcards.suite, "--site", site, "--corpus", input.corpus, *to_flags(EXPERIMENT.harvest)]
    flags += ["--loading", loading(wildcards)]
    return [*flags, "--revisions", *revisions(wildcards), "--checkpoints", *input.checkpoints]


def curves(wildcards):
    """Return what comparisons are chosen from: the scan where there is one, else all scores and similarities."""
    if suite_of(wildcards).scan:
        return {"scan": LAYOUT.scan.format(**wildcards)}
    return {
        "scores": of_every_task(LAYOUT.task_behaviour)(wildcards),
        "similarity": LAYOUT.similarity.format(**wildcards),
    }


def curve_flags(wildcards, input):
    """Return the flags that name what comparisons are chosen from."""
    if suite_of(wildcards).scan:
        return ["--scan", input.scan]
    return ["--scores", *input.scores, "--similarity", input.similarity]


def corpus_means(wildcards):
    """Return the evaluation, where features are changed to their means over the corpus."""
    return LAYOUT.evaluation.format(**wildcards) if EXPERIMENT.attribution.intervention == "mean" else []


def evaluation_flag(wildcards, input):
    """Return the flag of the evaluation; apart from the settings, since only what takes no input reruns a job."""
    return ["--evaluation", input.evaluation] if input.evaluation else []


def of_every_task(pattern):
    """Return an input function: one path for each task of the suite."""

    def paths(wildcards):
        return [pattern.format(task=task, **wildcards) for task in suite_of(wildcards).tasks]

    return paths


def of_every_checkpoint(pattern):
    """Return an input function: one path for each checkpoint of the suite."""
    return lambda wildcards: [pattern.format(revision=name, **wildcards) for name in suite_of(wildcards).tokens_seen]


def of_every_run(suite, pattern, comparisons):
    """Return one path for each crosscoder of some comparisons of a suite, given by name."""
    return [
        pattern.format(suite=suite, comparison=name, variant=variant, seed=seed)
        for name, comparison in comparisons.items()
        for variant in comparison.variants or EXPERIMENT.variants
        for seed in EXPERIMENT.seeds
    ]


def examined(suite):
    """Return the comparisons of a suite that its report is about, given or chosen, by name."""
    return {name: one for name, one in settled(suite).comparisons.items() if one.examined}


def waiting():
    """Return the results that jobs wait to make: in this call, or in the allocation of a cluster that this one is in."""
    if (after_this_one := waiting_in_allocation()) is not None:
        return after_this_one
    if not workflow.local_exec:  # the allocations know better
        return set()
    return {str(path) for job in workflow.dag.ready_jobs for path in job.output}


def companions(output, pattern):
    """Return a parameter function: a path for each task that waits for a job like this one, which may work on it too.

    It takes the input so that it reruns nothing.

    Args:
        output: the result of such a job.
        pattern: the path.
    """

    def paths(wildcards, input):
        if not (others := waiting()):  # as in all of a dry run
            return []
        names = list(suite_of(wildcards).tasks)
        place = names.index(wildcards.task)
        following = (dict(wildcards.items()) | {"task": name} for name in names[place + 1 :] + names[:place])
        companions = (one for one in following if output.format(**one) in others)
        return [pattern.format(**one) for one in itertools.islice(companions, MOST_COMPANIONS)]

    return paths


def in_order_of_tasks(stage):
    """Return a priority function by which a run without a cluster loads models as rarely as it can.

    The first task of every crosscoder comes before the second of any, by then made by the job of the first.

    Args:
        stage: 1, or 2 if its jobs wait for those of stage 1, task by task.
    """

    def priority(wildcards):
        names = list(suite_of(wildcards).tasks)
        return BEFORE_TASKS - stage + 1 - (1 + names.index(wildcards.task)) / (1 + len(names))

    return priority


def directory_of(pattern):
    """Return a resource function: the directory of a result, which those share that are made of the same models."""
    return lambda wildcards: os.path.dirname(pattern.format(**wildcards))


def spool_of(pattern):
    """Return a resource function: where results grow that wait for the jobs of their tasks."""
    return lambda wildcards: os.path.join(os.path.dirname(pattern.format(**wildcards)), SPOOL)


def of_tasks(pattern, tasks):
    """Return the paths of some tasks; the other wildcards stay."""
    return expand(pattern, task=tasks, allow_missing=True)


def task_file(wildcards):
    """Return the files a task is read from, so that a changed file reruns it; none for generated pairs and the hub."""
    return [str(path) for path in task_files(suite_of(wildcards).tasks[wildcards.task])]


def files_of_corpus(wildcards):
    """Return the files that the text is read from, so that a changed file reruns what hangs on it."""
    return [path for part in suite_of(wildcards).corpus.parts for path in local_files(part)]


def language(wildcards):
    """Return the flag that names the nursery's languages; nothing for other suites."""
    source = suite_of(wildcards).source
    return ["--language", *source.languages] if source.kind == "nursery" else []


def of_every_run_of(pattern):
    """Return an input function: one path for each crosscoder of the suite that the report is about."""
    return lambda wildcards: of_every_run(wildcards.suite, pattern, examined(wildcards.suite))


def of_every_control(pattern):
    """Return an input function: one path for each crosscoder of the suite's controls."""

    def paths(wildcards):
        controls = {name: one for name, one in suite_of(wildcards).comparisons.items() if one.control}
        return of_every_run(wildcards.suite, pattern, controls)

    return paths


def ablations_of_suite(wildcards):
    """Return the ablations of every crosscoder of the suite that the report is about, on every task."""
    patterns = of_tasks(LAYOUT.ablation, list(suite_of(wildcards).tasks))
    return [path for pattern in patterns for path in of_every_run_of(pattern)(wildcards)]


def seeds_of_suite(wildcards):
    """Return the comparisons between seeds; none where there is one seed."""
    if len(EXPERIMENT.seeds) == 1:
        return []
    return list(dict.fromkeys(of_every_run_of(LAYOUT.seeds)(wildcards)))


def consolidations_of_suite(wildcards):
    """Return the comparisons of languages of every crosscoder; none where no family of tasks has several languages."""
    return of_every_run_of(LAYOUT.consolidation)(wildcards) if suite_of(wildcards).families else []


def followed(suite):
    """Return the paths of the matches of every crosscoder that the report is about, if a comparison follows its own."""
    found = settled(suite)
    return [
        LAYOUT.successors.format(suite=suite, comparison=name, variant=variant, seed=seed)
        for name in found.examined
        for variant in found.comparisons[name].variants or EXPERIMENT.variants
        for seed in EXPERIMENT.seeds
        if found.successors_of(name, variant)
    ]


def taskspace_without(names):
    """Return the settings of task spaces, with the defaults of those that a step does not depend on."""
    fields = type(EXPERIMENT.taskspace).model_fields
    defaults = {name: fields[name].get_default(call_default_factory=True) for name in names}
    return to_flags(EXPERIMENT.taskspace.model_copy(update=defaults))


def tunings_of_suite(wildcards):
    """Return the tunings of a suite: of every checkpoint and seed on every task of its task space."""
    suite = suite_of(wildcards)
    return expand(
        LAYOUT.tuning,
        suite=wildcards.suite,
        revision=suite.taskspace.checkpoints,
        tuning_seed=EXPERIMENT.taskspace.seeds,
        task=suite.space_tasks,
    )


def with_baseline(suite):
    """Return the comparisons of a suite that have a baseline, by name."""
    return {name: one for name, one in EXPERIMENT.suites[suite].comparisons.items() if one.baseline}


def of_task_space(pattern):
    """Return an input function: the path of a store of the suite's task space; none without one."""
    return lambda wildcards: pattern.format(**wildcards) if suite_of(wildcards).taskspace else []


def bridged(suite):
    """Return the comparisons of a suite whose features are held against transfer, by name; none without a task space."""
    if EXPERIMENT.suites[suite].taskspace is None:
        return {}
    found = settled(suite)
    return {name: found.comparisons[name] for name in found.bridged if name in found.comparisons}


def of_baseline(pattern):
    """Return an input function: one path for each crosscoder of a comparison's baseline."""
    return lambda wildcards: [
        pattern.format(**{**wildcards, "comparison": single})
        for single in suite_of(wildcards).comparisons[wildcards.comparison].baseline
    ]


def annotations(wildcards):
    """Return the file of annotations beside the configuration, where there is one."""
    beside = Path(workflow.configfiles[-1]).parent if workflow.configfiles else Path()
    path = os.path.relpath(beside / EXPERIMENT.annotations)
    return path if os.path.exists(path) else []


SHOWN = {
    "behaviour": LAYOUT.behaviour,
    "similarity": LAYOUT.similarity,
    "comparisons": LAYOUT.comparisons,
    "choice": lambda wildcards: LAYOUT.choice.format(**wildcards) if suite_of(wildcards).auto else [],
    "scan": lambda wildcards: LAYOUT.scan.format(**wildcards) if suite_of(wildcards).scan else [],
    "trainings": of_every_run_of(LAYOUT.training),
    "evaluations": of_every_run_of(LAYOUT.evaluation),
    "relies": of_every_run_of(LAYOUT.relie),
    "features": of_every_run_of(LAYOUT.features),
    "ablations": ablations_of_suite,
    "seed_matches": seeds_of_suite,
    "consolidations": consolidations_of_suite,
    "successors": lambda wildcards: followed(wildcards.suite),
    "controls": of_every_control(LAYOUT.relie),
    "control_evaluations": of_every_control(LAYOUT.evaluation),
    "baselines": lambda wildcards: of_every_run(wildcards.suite, LAYOUT.baseline, with_baseline(wildcards.suite)),
    "transfer": of_task_space(LAYOUT.transfer),
    "gradients": of_task_space(LAYOUT.gradients),
    "space": of_task_space(LAYOUT.space),
    "bridges": lambda wildcards: of_every_run(wildcards.suite, LAYOUT.bridge, bridged(wildcards.suite)),
    "annotations": annotations,
}
"""What a report is made of: paths, or input functions."""


def report_sizes(wildcards):
    """Return the sizes of the crosscoders that a suite's report is about, and how many tasks it has."""
    suite = suite_of(wildcards)
    with suppress(IncompleteCheckpointException):  # resources, other than input and params, cannot wait for a choice
        suite = settled(wildcards.suite)
    return shown_crosscoders(EXPERIMENT, suite), len(suite.tasks)


class Named(dict):
    """Wildcards for input functions that are called here: read by attribute, too."""

    __getattr__ = dict.__getitem__


def stores_of_report(suite):
    """Return an input function: all that the report of a suite is made of, so that what was deleted is made again."""

    def paths(_):
        wildcards = Named(suite=suite)
        found = [shown(wildcards) if callable(shown) else shown.format(suite=suite) for shown in SHOWN.values()]
        return [path for paths in found for path in ([paths] if isinstance(paths, str) else paths)]

    return paths


def results_of_suite(suite):
    """Return what a run makes of a suite without waiting for a choice: its report, and what is measured beside it."""
    settings = EXPERIMENT.suites[suite]
    others = {name: one for name, one in settings.comparisons.items() if not one.examined}
    pages = [LAYOUT.report] if settings.reported else [LAYOUT.scan_report] if settings.scan else []
    reports = [page.format(suite=suite) for page in pages]
    measured = [of_every_run(suite, pattern, others) for pattern in (LAYOUT.evaluation, LAYOUT.relie)]
    return [*reports, *(path for paths in measured for path in paths)]


def memory(base_mb):
    """Return a resource function: more memory at each attempt."""
    return lambda wildcards, attempt: base_mb * attempt


RUN = "{comparison}-{variant}-seed{seed}"
