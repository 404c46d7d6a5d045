"""What a report is made of: the stores of a suite, with those of one run brought together."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import xarray as xr

from chronocoder.errors import ConfigError, StoreError
from chronocoder.labels import is_examined
from chronocoder.report.annotations import Annotation, FeaturePlace
from chronocoder.report.site import slug
from chronocoder.report.timings import Timing
from chronocoder.stores import names
from chronocoder.wording import in_words, listed, percent

SPACE_STORES = 3
UNREAD = (
    "control_class",
    "condition_control_class",
    "condition_normalised_class",
    "condition_normalised_relative_indirect_effect",
    "condition_normalised_relative_indirect_effect_low",
    "condition_normalised_relative_indirect_effect_high",
)
"""What a report shows nothing of in stores of effects: two fifths of their memory."""
EXACT, EXACT_ABLATION = "exact", "exact ablation"
INTERVENTIONS = {
    "zero": "set to zero",
    "mean": "set to its mean over the validation text",
    "counterfactual": "set to what it is on a counterfactual prefix",
    "resample": "set to what it is on another example of the task",
}


def estimator_words(name: str) -> str:
    """Return what an estimator is called."""
    words = {
        EXACT: EXACT_ABLATION,
        "published": "the published estimator",
        "grouped_gradients": "the grouped estimator",
    }
    return words.get(name, in_words(name))


class RunKey(NamedTuple):
    """What tells one trained crosscoder of a suite from another.

    Attributes:
        comparison: name of the comparison.
        variant: name of the crosscoder variant.
        seed: seed of the initialisation and the data order.
    """

    comparison: str
    variant: str
    seed: int

    @property
    def label(self) -> str:
        """The run in words."""
        return f"{self.comparison} · {self.variant} · seed {self.seed}"

    @property
    def slug(self) -> str:
        """The run in the names of files and in addresses."""
        return slug(self.comparison, self.variant, f"seed{self.seed}")


@dataclass(frozen=True)
class Run:
    """The stores of one trained crosscoder.

    Attributes:
        key: comparison, variant and seed.
        training: losses and metrics, dims (step, checkpoint).
        evaluation: quality, dims (checkpoint,).
        relie: effects, dims (task, checkpoint, feature); with language, phenomenon, metric and unit of each task.
        features: top-activating examples, dims (feature, example, position).
        ablations: exact effects of the features that matter, by task.
    """

    key: RunKey
    training: xr.Dataset
    evaluation: xr.Dataset
    relie: xr.Dataset
    features: xr.Dataset
    ablations: Mapping[str, xr.Dataset]

    @property
    def stores(self) -> dict[str, xr.Dataset]:
        """The stores by the name of their file."""
        return {
            "training": self.training,
            "evaluation": self.evaluation,
            "relie": self.relie,
            "features": self.features,
            **{f"ablation, {in_words(task)}": dataset for task, dataset in self.ablations.items()},
        }

    @property
    def checkpoints(self) -> list[str]:
        """Revisions in order of training."""
        return names(self.relie, "checkpoint")

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return names(self.relie, "task")

    @property
    def units(self) -> dict[str, str]:
        """The unit of the effects on each task."""
        return dict(zip(self.tasks, names(self.relie, "unit"), strict=True))

    @property
    def estimator(self) -> str:
        """What the effects come from, in words."""
        used = dict.fromkeys(self.relie["estimator"].values.ravel().tolist())
        return listed([estimator_words(name) for name in sorted(used, key=EXACT.__ne__)])

    @property
    def intervention(self) -> str:
        """What is done to a feature, in words."""
        return INTERVENTIONS[str(self._settings["intervention"])]

    @property
    def confidence(self) -> float:
        """Coverage of the intervals."""
        return float(self._settings["confidence"])

    @property
    def random_fraction(self) -> float:
        """Which fraction of random directions stays below their level."""
        return float(self._settings["random_level"])

    @property
    def random_level(self) -> str:
        """The same as a percentage."""
        return percent(self.random_fraction)

    @property
    def _settings(self) -> Any:
        return json.loads(self.relie.attrs["settings"])


class Contrast(NamedTuple):
    """Two tasks that a surface rule tells apart.

    Attributes:
        surface: task in which the surface rule gives the right answer.
        conflicting: task in which the same rule gives the wrong answer.
    """

    surface: str
    conflicting: str


@dataclass(frozen=True)
class ReportInputs:
    """Everything a report shows.

    Attributes:
        suite: name of the suite.
        behaviour: accuracy, dims (task, checkpoint), and what tasks ask; with means of groups, if there are any.
        similarity: dims (site, checkpoint, other_checkpoint).
        comparisons: checkpoints by name of the comparison; without controls and single checkpoints.
        runs: trained crosscoders of these comparisons; none where nothing was chosen, or on a scan.
        contrasts: pairs of tasks; may be empty.
        seed_matches: how stable effects are between seeds, for each comparison and variant; may be empty.
        example_path: path of one run's effects, for the note on how to read the stores.
        controls: effects of the crosscoders of control comparisons, dims (task, checkpoint, feature), each with an
            attribute `control` that says which; may be empty.
        control_evaluations: their quality, in the same order.
        baselines: what joint dictionaries are worth beside those of single checkpoints; may be empty.
        consolidations: overlap of effects between languages, one of each run; empty where no family has several.
        successors: features matched with those of the comparisons that begin where theirs ends; may be empty.
        choice: the curves that comparisons were chosen from, and the changes in them; None where all were given.
        reasons: why each comparison was made, those of the choice in sentences.
        scan: accuracy and similarity of every checkpoint, where only some are studied; None without one.
        transfer: what tuning on each task does to every task; None, as `gradients` and `space`, without a task space.
        gradients: how similar the gradient differentials of every two tasks are.
        space: the tasks as points, and what is hypothesised of them.
        bridges: transfer beside the features that tasks share, of some of the runs; may be empty.
        transfer_path: path of `transfer`, for the note on how to read the stores.
        configs: text of the files of the configuration by their name.
        timings: what the jobs behind the stores took, by rule; empty where it was not measured.
        annotations: what readers say of features, of this suite and of others.
    """

    suite: str
    behaviour: xr.Dataset
    similarity: xr.Dataset
    comparisons: Mapping[str, Sequence[str]]
    runs: Sequence[Run]
    contrasts: Sequence[Contrast]
    seed_matches: Sequence[xr.Dataset]
    example_path: str
    controls: Sequence[xr.Dataset] = ()
    control_evaluations: Sequence[xr.Dataset] = ()
    baselines: Sequence[xr.Dataset] = ()
    consolidations: Sequence[xr.Dataset] = ()
    successors: Sequence[xr.Dataset] = ()
    choice: xr.Dataset | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    scan: xr.Dataset | None = None
    transfer: xr.Dataset | None = None
    gradients: xr.Dataset | None = None
    space: xr.Dataset | None = None
    bridges: Sequence[xr.Dataset] = ()
    transfer_path: str = ""
    configs: Mapping[str, str] = field(default_factory=dict)
    timings: Sequence[Timing] = ()
    annotations: Sequence[Annotation] = ()

    def annotation(self, key: RunKey, feature: int) -> Annotation | None:
        """Return what a reader says of a feature of a run; None if nothing."""
        return self._annotated.get((self.suite, *key, feature))

    @cached_property
    def _annotated(self) -> dict[FeaturePlace, Annotation]:
        return {one.place: one for one in self.annotations}

    @property
    def space_stores(self) -> dict[str, xr.Dataset]:
        """The stores of the task space by name; none without one."""
        stores = {"transfer": self.transfer, "gradients": self.gradients, "space": self.space}
        return {name: store for name, store in stores.items() if store is not None}

    def __post_init__(self) -> None:
        """Check that controls and baselines are of the suite, and controls and the task space whole.

        Raises:
            StoreError: a store is of another suite, is no control's, lacks its counterpart, or is of no run; or the
                pages of two runs would have one name.
        """
        _check_slugs([run.key for run in self.runs])
        for store in (*self.controls, *self.control_evaluations, *self.baselines):
            if _attribute(store, "suite") != self.suite:
                raise StoreError(
                    f"a store of {key_of(store).label} is of suite '{store.attrs['suite']}', not '{self.suite}';"
                    " give controls and baselines of the report's suite"
                )
        effects, quality = ([_control_key(store) for store in of] for of in (self.controls, self.control_evaluations))
        _check_runs_given(self.runs, self.consolidations, "languages are compared")
        _check_runs_given(self.runs, self.successors, "features are matched with those that follow")
        self._check_successors()
        _check_runs_given(self.runs, self.bridges, "transfer is held against features")
        self._check_space()
        if effects != quality:
            odd = ", ".join(sorted({key.label for key in (*effects, *quality)}))
            raise StoreError(f"effects and evaluations of controls do not match: {odd}; give both in the same order")

    def _check_successors(self) -> None:
        given = {run.key for run in self.runs}
        for store in self.successors:
            following = [key_of(store)._replace(comparison=name) for name in names(store, "successor")]
            if unknown := [key.label for key in following if key not in given]:
                raise StoreError(
                    f"features of {key_of(store).label} are matched with those of {listed(unknown)}, which is not"
                    " given; give its run as well"
                )

    def _check_space(self) -> None:
        stores = self.space_stores
        if len(stores) not in (0, SPACE_STORES) or (self.bridges and not stores):
            raise StoreError(
                f"of a task space only {listed([*stores, *(['bridges'] if self.bridges else [])])} is given; give"
                " transfer, gradients and space together"
            )
        for name, store in stores.items():
            if _attribute(store, "suite") != self.suite:
                raise StoreError(
                    f"the store of {name} is of suite '{store.attrs['suite']}', not '{self.suite}'; give that of the"
                    " report's suite"
                )


def key_of(dataset: xr.Dataset) -> RunKey:
    """Return which run a store is of.

    Raises:
        StoreError: it does not say.
    """
    comparison, variant, seed = (_attribute(dataset, name) for name in RunKey._fields)
    return RunKey(str(comparison), str(variant), int(seed))


def examined_comparisons(document: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the checkpoints of the comparisons in a `comparisons.yaml`, without controls and single checkpoints."""
    found = {name: list(comparison["checkpoints"]) for name, comparison in document.items()}
    return {name: checkpoints for name, checkpoints in found.items() if is_examined(checkpoints)}


def match_runs(
    trainings: Iterable[xr.Dataset],
    evaluations: Iterable[xr.Dataset],
    relies: Iterable[xr.Dataset],
    features: Iterable[xr.Dataset],
    ablations: Iterable[xr.Dataset],
) -> list[Run]:
    """Bring the stores of each run together by their attributes, in the order of `relies`; ablations are one a task.

    Raises:
        StoreError: a store does not say which run it is of, or a run lacks a store.
    """
    by_key = [{key_of(dataset): dataset for dataset in kind} for kind in (trainings, evaluations, relies, features)]
    by_task: dict[RunKey, dict[str, xr.Dataset]] = {}
    for dataset in ablations:
        by_task.setdefault(key_of(dataset), {})[str(_attribute(dataset, "task"))] = dataset
    keys = list(by_key[2])
    odd = {key for given in (*map(set, by_key), set(by_task)) for key in given ^ set(keys)}
    if odd:
        labels = ", ".join(sorted(key.label for key in odd))
        raise StoreError(f"not every store of these runs is given: {labels}; give the same runs to every flag")
    training, evaluation, relie, example = by_key
    return [_checked(Run(key, training[key], evaluation[key], relie[key], example[key], by_task[key])) for key in keys]


def match_seeds(stores: Iterable[xr.Dataset], runs: Sequence[Run]) -> list[xr.Dataset]:
    """Return the comparisons between seeds in the order of the runs.

    Raises:
        StoreError: one is of a comparison and variant that no run is of.
    """
    order = list(dict.fromkeys((run.key.comparison, run.key.variant) for run in runs))
    places = {}
    for store in stores:
        pair = (str(_attribute(store, "comparison")), str(_attribute(store, "variant")))
        if pair not in order:
            raise StoreError(
                f"seeds are compared of {' · '.join(pair)}, of which no run is given; give its runs as well"
            )
        places[order.index(pair)] = store
    return [places[place] for place in sorted(places)]


def read_contrasts(document: Mapping[str, Sequence[str]], tasks: Sequence[str]) -> list[Contrast]:
    """Return the pairs of tasks that the configuration contrasts.

    Raises:
        ConfigError: a task is not among `tasks`.
    """
    pairs = [Contrast(surface, other) for surface, others in document.items() for other in others]
    unknown = {task for pair in pairs for task in pair} - set(tasks)
    if unknown:
        raise ConfigError(
            f"contrasts name tasks that were not scored: {', '.join(sorted(unknown))}; the tasks are {', '.join(tasks)}"
        )
    return pairs


def _checked(run: Run) -> Run:
    odd = set(run.tasks) ^ set(run.ablations)
    if odd:
        raise StoreError(
            f"effects and ablations of {run.key.label} are not of the same tasks: {', '.join(sorted(odd))};"
            " give the ablation of every task"
        )
    return run


def _check_runs_given(runs: Sequence[Run], stores: Sequence[xr.Dataset], what: str) -> None:
    unknown = {key_of(store) for store in stores} - {run.key for run in runs}
    if unknown:
        labels = ", ".join(sorted(key.label for key in unknown))
        raise StoreError(f"{what} of {labels}, of which no run is given; give its runs as well")


def _check_slugs(keys: Sequence[RunKey]) -> None:
    by_slug: dict[str, list[RunKey]] = {}
    for key in keys:
        by_slug.setdefault(key.slug, []).append(key)
    for name, of_name in by_slug.items():
        if len(of_name) > 1:
            labels = ", ".join(key.label for key in of_name)
            raise StoreError(f"{labels}: both would be written to run-{name}.html; rename a comparison or a variant")


def _control_key(dataset: xr.Dataset) -> RunKey:
    key = key_of(dataset)
    if not dataset.attrs.get("control"):
        raise StoreError(f"a store of {key.label} is no control's; give it among the runs")
    return key


def _attribute(dataset: xr.Dataset, name: str) -> Any:
    if name not in dataset.attrs:
        raise StoreError(
            f"a store of suite {dataset.attrs.get('suite')} lacks the attribute {name};"
            " delete it and run its target again"
        )
    return dataset.attrs[name]
