"""Accuracy of checkpoints on minimal pairs."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist

import numpy as np
import xarray as xr
from transformers import PreTrainedModel

from chronocoder.behaviour.pool import Pool
from chronocoder.stores import labelled, strings
from chronocoder.tasks.groups import facts_of
from chronocoder.tasks.rows import unit_of


def score_tasks(
    models: Iterable[tuple[str, PreTrainedModel]], tokens_seen: Mapping[str, int], tasks: Sequence[xr.Dataset]
) -> list[xr.Dataset]:
    """Score checkpoints on tasks.

    Args:
        models: (revision, model) in order of training; taken one at a time.
        tokens_seen: tokens seen by revision.
        tasks: as `tokenise_pairs` returns them.

    Returns:
        For each task dims (checkpoint, example); see `summarise_scores` for the summary variables.
    """
    pool = Pool.of(tasks)
    scores = {revision: pool.differences(model) for revision, model in models}
    seen = {revision: tokens_seen[revision] for revision in scores}
    of_tasks = (np.stack(differences) for differences in zip(*scores.values(), strict=True))
    return [scores_of_task(task, seen, differences) for task, differences in zip(tasks, of_tasks, strict=True)]


def scores_of_task(task: xr.Dataset, tokens_seen: Mapping[str, int], differences: np.ndarray) -> xr.Dataset:
    """Return the scores of a task from right minus wrong, shape (checkpoint, example)."""
    unit = unit_of(task)
    dataset = xr.Dataset(
        {
            "difference": labelled(("checkpoint", "example"), differences, "right minus wrong", unit),
            "condition": task["condition"].variable,
        },
        coords={
            "checkpoint": strings(list(tokens_seen)),
            "tokens_seen": ("checkpoint", list(tokens_seen.values())),
            "example": task["example"].values,
        },
    )
    return dataset.assign(summarise_scores(dataset["difference"], unit)).assign_attrs(facts_of(task))


def summarise_scores(difference: xr.DataArray, unit: str, confidence: float = 0.95) -> dict[str, xr.Variable]:
    """Return accuracy with its Wilson interval, and the mean difference with its normal interval.

    An example counts as right where its difference is above zero; a tie is wrong.

    Args:
        difference: right minus wrong, dims (checkpoint, example).
        unit: of the differences.
        confidence: coverage of the intervals.
    """
    count = difference.sizes["example"]
    right = (difference > 0).sum("example").values
    low, high = wilson_interval(right, count, confidence)
    mean = difference.mean("example").values
    margin = _quantile(confidence) * difference.std("example", ddof=1).values / np.sqrt(count)
    dims = ("checkpoint",)
    percent = f"{confidence:.0%}"
    return {
        "accuracy": labelled(dims, right / count, "fraction of the pairs judged rightly"),
        "accuracy_low": labelled(dims, low, f"lower end of the {percent} Wilson interval of accuracy"),
        "accuracy_high": labelled(dims, high, f"upper end of the {percent} Wilson interval of accuracy"),
        "mean_difference": labelled(dims, mean, "mean of right minus wrong", unit),
        "mean_difference_low": labelled(dims, mean - margin, f"lower end of its {percent} interval", unit),
        "mean_difference_high": labelled(dims, mean + margin, f"upper end of its {percent} interval", unit),
        "n": labelled(dims, np.full(len(right), count), "pairs scored"),
    }


def wilson_interval(right: np.ndarray, count: int, confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Return the Wilson score interval (Wilson 1927) of a proportion, elementwise."""
    z = _quantile(confidence)
    share = right / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    margin = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return np.clip(centre - margin, 0, 1), np.clip(centre + margin, 0, 1)


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
