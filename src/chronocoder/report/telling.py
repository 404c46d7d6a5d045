"""When each task is learnt, and by which features."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.report.data import feature_words
from chronocoder.report.inputs import ReportInputs, Run
from chronocoder.report.summary import learnt_since
from chronocoder.stores import names
from chronocoder.tasks.groups import warnings_of
from chronocoder.wording import decimal, in_words, plural, signed

FEATURES_A_TASK = 3
BASIS = "total_effect"


class TellingFeature(NamedTuple):
    """A feature that helps a task.

    Attributes:
        feature: its number.
        about: the label that a reader gave it, or the words that it is most active on; may be empty.
        effect: IE at the last checkpoint of the crosscoder, with its interval.
        feature_class: by RelIE with IE divided by the checkpoint's total |IE|.
    """

    feature: int
    about: str
    effect: str
    feature_class: str


class TellingTask(NamedTuple):
    """A task, since when it is learnt, and the features that help it most.

    Attributes:
        name: in words.
        warned: whether a warning goes with it.
        since: the checkpoint from which on accuracy stays above chance; a dash if there is none.
        accuracy: at the last checkpoint, with its interval.
        unit: of the effects, in the plural.
        features: the most helpful first; none where none helps measurably.
    """

    name: str
    warned: bool
    since: str
    accuracy: str
    unit: str
    features: Sequence[TellingFeature]


def telling_tasks(inputs: ReportInputs, run: Run | None) -> list[TellingTask]:
    """Return what tells most of each task.

    Args:
        inputs: what the report shows.
        run: the crosscoder whose features are named; None without one.
    """
    behaviour = inputs.behaviour
    since, warned, about = learnt_since(behaviour), warnings_of(behaviour), _about(inputs, run) if run else {}
    found = []
    for task in names(behaviour, "task"):
        last = behaviour.sel(task=task).isel(checkpoint=-1)
        accuracy, low, high = (decimal(float(last[f"accuracy{end}"])) for end in ("", "_low", "_high"))
        found.append(
            TellingTask(
                name=in_words(task),
                warned=task in warned,
                since=since[task] or "–",
                accuracy=f"{accuracy} ({low} to {high})",
                unit=plural(str(last["unit"].values)),
                features=_features(run, task, about) if run else [],
            )
        )
    return found


def _about(inputs: ReportInputs, run: Run) -> dict[int, str]:
    """Return what features are about: the label that a reader gave, else the words that they are most active on."""
    words = {feature: ", ".join(of) for feature, of in feature_words(run.features).items()}
    annotated = {one.feature: one.label for one in inputs.annotations if one.place[:4] == (inputs.suite, *run.key)}
    return words | {feature: f"“{label}”" for feature, label in annotated.items() if label}


def _features(run: Run, task: str, about: Mapping[int, str]) -> list[TellingFeature]:
    """Return the features of largest measurable IE that helps at the last checkpoint of a crosscoder."""
    of_task = run.relie.sel(task=task)
    last = of_task.isel(checkpoint=-1)
    helps = np.where(last["measurable"].values, last["indirect_effect"].values, -np.inf)
    best = [place for place in np.argsort(-helps, kind="stable")[:FEATURES_A_TASK] if helps[place] > 0]
    classes = of_task["normalised_class"].sel(normalisation=BASIS).values
    return [_feature(last.isel(feature=place), str(classes[place]), about) for place in best]


def _feature(here: xr.Dataset, feature_class: str, about: Mapping[int, str]) -> TellingFeature:
    effect, low, high = (signed(float(here[f"indirect_effect{end}"])) for end in ("", "_low", "_high"))
    number = int(here["feature"])
    return TellingFeature(number, about.get(number, ""), f"{effect} ({low} to {high})", feature_class)
