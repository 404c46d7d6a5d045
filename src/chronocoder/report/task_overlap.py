"""Which tasks are served by the same features: sentences and tables beside ceiling and chance."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.features.task_overlap import TOP_FEATURES
from chronocoder.figures.order import same_group
from chronocoder.figures.overlap import CEILING, DIFFERENT, EXCHANGED, RANDOM, SAME, task_overlap_means
from chronocoder.report.inputs import Run
from chronocoder.stores import names
from chronocoder.wording import decimal, in_words, listed

PAIRS = {
    SAME: "between tasks of the same phenomenon",
    DIFFERENT: "between tasks of different phenomena",
}
LEVELS = {
    CEILING: "between halves of one task",
    RANDOM: "of random directions",
    EXCHANGED: "with features exchanged at random",
}
MOST_ROWS = 12
TASKS_NAMED = 4


class CommonFeature(NamedTuple):
    """A feature that is among the top features of several tasks at the last checkpoint.

    Attributes:
        feature: its number.
        among: of how many tasks, of all.
        tasks: some of them, in words.
        words: those that it is most active on.
    """

    feature: int
    among: str
    tasks: str
    words: str


def overlap_sentence(overlaps: xr.Dataset) -> str:
    """Return how far tasks share their top features at the last checkpoint beside chance, to follow a colon."""
    last = names(overlaps, "checkpoint")[-1]
    beyond, pairs = pairs_beyond(overlaps)[-1]
    if not pairs:
        return f"at {last}, no two tasks have features with a measurable effect on both."
    means = {name: decimal(float(values[-1])) for name, (values, _) in task_overlap_means(overlaps).items()}
    kinds = {**PAIRS, SAME: f"{PAIRS[SAME]}, in different languages"} if _is_of_languages(overlaps) else PAIRS
    found, levels = (
        listed([f"{value} {words[name]}" for name, value in means.items() if name in words])
        for words in (kinds, LEVELS)
    )
    verdict = f"on {beyond} of {pairs} pairs" if beyond else f"on none of {pairs} pairs: no more than chance"
    text = f"at {last}, the mean Jaccard index of top features is {found}, against {levels}"
    return f"{text}; it is beyond chance {verdict}."


def overlap_rows(overlaps: xr.Dataset) -> list[tuple[str, list[str]]]:
    """Return for each checkpoint the mean overlap of each kind, and the number of pairs beyond chance."""
    means = task_overlap_means(overlaps)
    return [
        (checkpoint, [*(decimal(float(values[place])) for values, _ in means.values()), f"{beyond} of {pairs}"])
        for place, (checkpoint, (beyond, pairs)) in enumerate(
            zip(names(overlaps, "checkpoint"), pairs_beyond(overlaps), strict=True)
        )
    ]


def pairs_beyond(overlaps: xr.Dataset) -> list[tuple[int, int]]:
    """Return for each checkpoint how many pairs of tasks overlap beyond chance, and of how many that were compared."""
    one, other = np.triu_indices(overlaps.sizes["task"], 1)
    dims = ("checkpoint", "task", "other_task")
    beyond, compared = (overlaps[name].transpose(*dims).values for name in ("beyond_chance", "features_compared"))
    return [
        (int(found[one, other].sum()), int((count[one, other] > 0).sum()))
        for found, count in zip(beyond, compared, strict=True)
    ]


def common_features(run: Run, words: Mapping[int, Sequence[str]], count: int = TOP_FEATURES) -> list[CommonFeature]:
    """Return the features that are among the top ones of most tasks at the last checkpoint, and of two at least."""
    last = run.relie.isel(checkpoint=-1).transpose("task", ..., "feature")
    size = np.nan_to_num(abs(last["indirect_effect"]).where(last["measurable"], 0).values)
    tasks_of: dict[int, list[str]] = defaultdict(list)
    for task, sizes in zip(run.tasks, size, strict=True):
        for place in np.argsort(-sizes, kind="stable")[:count]:
            if sizes[place] > 0:
                tasks_of[int(last["feature"].values[place])].append(task)
    several = sorted(((of, feature) for feature, of in tasks_of.items() if len(of) > 1), key=lambda pair: -len(pair[0]))
    return [
        CommonFeature(feature, f"{len(of)} of {len(run.tasks)}", _named(of), ", ".join(words.get(feature, [])) or "–")
        for of, feature in several[:MOST_ROWS]
    ]


def _is_of_languages(overlaps: xr.Dataset) -> bool:
    """Return whether tasks of the same phenomenon are all of different languages."""
    (alike, _), (_, apart) = (same_group(overlaps, group=kind, other_group=kind) for kind in ("phenomenon", "language"))
    return "" not in names(overlaps, "language") and bool(apart[alike].all())


def _named(tasks: Sequence[str]) -> str:
    shown = [in_words(task) for task in tasks[:TASKS_NAMED]]
    return ", ".join([*shown, *([f"{len(tasks) - TASKS_NAMED} more"] if len(tasks) > TASKS_NAMED else [])])
