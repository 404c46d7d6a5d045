"""Accuracy of checkpoints on minimal pairs."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import NormalDist

import numpy as np
import torch
import xarray as xr
from transformers import PreTrainedModel

from chronocoder.errors import NonFiniteError
from chronocoder.stores import labelled, strings
from chronocoder.suites.sites import last_position_only
from chronocoder.tasks.tokenise import prefix_batches, prefix_ids


@torch.no_grad()
def logit_differences(model: PreTrainedModel, task: xr.Dataset, batch_size: int = 128) -> np.ndarray:
    """Return logit(right) - logit(wrong) at the last prefix token of each example, shape (example,).

    Raises:
        NonFiniteError: a logit is NaN or infinite.
    """
    differences = np.empty(task.sizes["example"], dtype=np.float32)
    with last_position_only(model):
        for examples in prefix_batches(task, batch_size):
            logits = model(input_ids=torch.from_numpy(prefix_ids(task, examples)).to(model.device)).logits[:, 0]
            differences[examples] = right_minus_wrong(logits, task, examples).float().cpu().numpy()
    if not np.isfinite(differences).all():
        raise NonFiniteError(
            f"{model.name_or_path}: {int((~np.isfinite(differences)).sum())} logit differences are not finite;"
            " the checkpoint is damaged or overflows"
        )
    return differences


def right_minus_wrong(logits: torch.Tensor, task: xr.Dataset, examples: np.ndarray) -> torch.Tensor:
    """Return logit(right) - logit(wrong), shape (batch,), from logits of shape (batch, vocabulary)."""
    right, wrong = (
        torch.from_numpy(task[name].values[examples].astype(np.int64)).to(logits.device)[:, None]
        for name in ("right_id", "wrong_id")
    )
    return (logits.gather(1, right) - logits.gather(1, wrong))[:, 0]


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
    scores = {revision: [logit_differences(model, task) for task in tasks] for revision, model in models}
    seen = {revision: tokens_seen[revision] for revision in scores}
    of_tasks = (np.stack(differences) for differences in zip(*scores.values(), strict=True))
    return [_scores_of_task(task, seen, differences) for task, differences in zip(tasks, of_tasks, strict=True)]


def _scores_of_task(task: xr.Dataset, tokens_seen: Mapping[str, int], differences: np.ndarray) -> xr.Dataset:
    """Return the scores of a task from logit(right) - logit(wrong), shape (checkpoint, example)."""
    dataset = xr.Dataset(
        {
            "logit_difference": labelled(
                ("checkpoint", "example"), differences, "logit(right) - logit(wrong)", "logit"
            ),
            "condition": task["condition"].variable,
        },
        coords={
            "checkpoint": strings(list(tokens_seen)),
            "tokens_seen": ("checkpoint", list(tokens_seen.values())),
            "example": task["example"].values,
        },
    )
    return dataset.assign(summarise_scores(dataset["logit_difference"]))


def summarise_scores(difference: xr.DataArray, confidence: float = 0.95) -> dict[str, xr.Variable]:
    """Return accuracy with its Wilson interval, and the mean logit difference with its normal interval.

    An example counts as right where its difference is above zero; a tie is wrong.

    Args:
        difference: logit(right) - logit(wrong), dims (checkpoint, example).
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
        "accuracy": labelled(dims, right / count, "part of the pairs judged rightly"),
        "accuracy_low": labelled(dims, low, f"lower end of the {percent} Wilson interval of accuracy"),
        "accuracy_high": labelled(dims, high, f"upper end of the {percent} Wilson interval of accuracy"),
        "mean_logit_difference": labelled(dims, mean, "mean of logit(right) - logit(wrong)", "logit"),
        "mean_logit_difference_low": labelled(dims, mean - margin, f"lower end of its {percent} interval", "logit"),
        "mean_logit_difference_high": labelled(dims, mean + margin, f"upper end of its {percent} interval", "logit"),
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
