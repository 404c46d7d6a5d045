"""What a report is made of: the stores of a suite, with those of one run brought together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import xarray as xr

from chronocoder.errors import ConfigError, StoreError


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


@dataclass(frozen=True)
class Run:
    """The stores of one trained crosscoder.

    Attributes:
        key: comparison, variant and seed.
        training: losses and metrics, dims (step, checkpoint).
        evaluation: quality, dims (checkpoint,).
        relie: effects, dims (task, checkpoint, feature).
        features: top-activating examples, dims (feature, example, position).
    """

    key: RunKey
    training: xr.Dataset
    evaluation: xr.Dataset
    relie: xr.Dataset
    features: xr.Dataset

    @property
    def stores(self) -> dict[str, xr.Dataset]:
        """The stores by the name of their file."""
        return {
            "training": self.training,
            "evaluation": self.evaluation,
            "relie": self.relie,
            "features": self.features,
        }

    @property
    def checkpoints(self) -> list[str]:
        """Revisions in order of training."""
        return names(self.relie, "checkpoint")

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks."""
        return names(self.relie, "task")


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
        behaviour: accuracy, dims (task, checkpoint).
        similarity: dims (site, checkpoint, other_checkpoint).
        comparisons: checkpoints by name of the comparison.
        runs: trained crosscoders.
        contrasts: pairs of tasks; may be empty.
        example_path: path of one run's effects, for the note on how to read the stores.
    """

    suite: str
    behaviour: xr.Dataset
    similarity: xr.Dataset
    comparisons: Mapping[str, Sequence[str]]
    runs: Sequence[Run]
    contrasts: Sequence[Contrast]
    example_path: str


def names(dataset: xr.Dataset, coordinate: str) -> list[str]:
    """Return a coordinate of names as plain strings."""
    return [str(name) for name in dataset[coordinate].values]


def match_runs(
    trainings: Iterable[xr.Dataset],
    evaluations: Iterable[xr.Dataset],
    relies: Iterable[xr.Dataset],
    features: Iterable[xr.Dataset],
) -> list[Run]:
    """Bring the stores of each run together by their attributes, in the order of `relies`.

    Raises:
        StoreError: a store does not say which run it is of, or a run lacks a store.
    """
    by_key = [{_key_of(dataset): dataset for dataset in kind} for kind in (trainings, evaluations, relies, features)]
    keys = list(by_key[2])
    for kind in by_key:
        odd = set(kind) ^ set(keys)
        if odd:
            labels = ", ".join(sorted(key.label for key in odd))
            raise StoreError(f"not every store of these runs is given: {labels}; give the same runs to every flag")
    return [Run(key, *(kind[key] for kind in by_key)) for key in keys]


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


def _key_of(dataset: xr.Dataset) -> RunKey:
    attributes: Mapping[str, Any] = dataset.attrs
    missing = [name for name in RunKey._fields if name not in attributes]
    if missing:
        raise StoreError(
            f"a store of suite {attributes.get('suite')} lacks the attributes {', '.join(missing)};"
            " delete it and run its target again"
        )
    return RunKey(str(attributes["comparison"]), str(attributes["variant"]), int(attributes["seed"]))
