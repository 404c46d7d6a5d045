"""Gradient similarity of tasks at one checkpoint: the gradient differentials of groups of pairs, and their comparison.

Weber et al. 2024 (arXiv 2406.06441) compare the gradients by which a model would be tuned on tasks, and the parameters
that tuning would update. Groups of pairs, and what is done about the noise of sampling, are our own choice.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from transformers import PreTrainedModel

from chronocoder.config import TaskSpaceSettings
from chronocoder.errors import NonFiniteError
from chronocoder.suites.precision import overflow_remedy
from chronocoder.taskspace.comparison import compare_groups
from chronocoder.taskspace.dealing import common_pairs, deal_pairs
from chronocoder.taskspace.losses import Loss, accumulate_gradient
from chronocoder.taskspace.similarity import Selected, half_of
from chronocoder.taskspace.sketch import count_sketch
from chronocoder.taskspace.subset import Entries, trainable


class HalfSelected(NamedTuple):
    """The parameters of largest mean gradient in half of a task's groups.

    Attributes:
        bits: one for each parameter, eight a byte.
        counts: how many are selected of each tensor.
    """

    bits: UInt8[np.ndarray, " byte"]
    counts: Int[np.ndarray, " tensor"]


def compare_gradients(model: PreTrainedModel, tasks: Sequence[xr.Dataset], settings: TaskSpaceSettings) -> xr.Dataset:
    """Compare the gradient differentials of every two tasks.

    Args:
        model: in float32, without gradients.
        tasks: as `tokenise_pairs` returns them.
        settings: the groups, what the main method updates, and when gradients are projected.

    Returns:
        The store of one checkpoint, dims (task, other_task). Its attribute `sketch` says to how many dimensions
        gradients were projected; 0 where they are compared as they are.

    Raises:
        TaskError: a task has too few pairs for the groups.
        NonFiniteError: a gradient is not finite.
    """
    dealt = deal_pairs(tasks, settings.gradient_groups, settings.seed)
    pairs = np.array([np.bincount(groups, minlength=settings.gradient_groups) for groups in dealt])
    with trainable(model, settings.embeddings) as parameters:
        sizes = np.array([parameter.numel() for parameter in parameters])
        sketch = settings.sketched(int(sizes.sum()), len(tasks))
        gradients = np.empty((*pairs.shape, sketch or sizes.sum()), dtype=np.float32)
        halves = [
            half
            for task, groups, own in zip(tasks, dealt, gradients, strict=True)
            for half in _measure(model, parameters, task, groups, settings, own, sketch)
        ]
    bits, counts = (np.stack(values).reshape(len(tasks), 2, -1) for values in zip(*halves, strict=True))
    selected = Selected(bits, counts, sizes)
    names = [str(task.attrs["task"]) for task in tasks]
    return compare_groups(names, gradients, pairs, selected, common_pairs(tasks), settings.confidence).assign_attrs(
        parameters=int(model.num_parameters()),
        compared_parameters=int(sizes.sum()),
        fraction=settings.methods[settings.main].fraction,
        sketch=sketch,
    )


def _measure(
    model: PreTrainedModel,
    parameters: Sequence[Tensor],
    task: xr.Dataset,
    groups: Int[np.ndarray, " example"],
    settings: TaskSpaceSettings,
    gradients: Float[np.ndarray, "group entry"],
    sketch: int,
) -> Iterator[HalfSelected]:
    """Fill in the mean gradient of each group of a task, or its sketch; yield what each half of the groups selects."""
    method = settings.methods[settings.main]
    for half in (0, 1):
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        for group in np.flatnonzero(half_of(len(gradients)) == half):
            examples = np.flatnonzero(groups == group)
            accumulate_gradient(model, Loss.of(task, examples, method.objective), settings.tokens_at_once)
            found = [parameter.grad for parameter in parameters if parameter.grad is not None]
            gradients[group] = count_sketch(found, sketch, settings.seed) if sketch else _joined(found)
            if not np.isfinite(gradients[group]).all():
                raise NonFiniteError(
                    f"{model.name_or_path}: a gradient of task '{task.attrs['task']}' is not finite:"
                    f" {overflow_remedy(model)}"
                )
            for total, own in zip(sums, found, strict=True):
                total.add_(own, alpha=len(examples))
        yield _select(sums, method.fraction)


def _select(gradients: Sequence[Tensor], fraction: float) -> HalfSelected:
    """Return the parameters that tuning by these gradients would update."""
    chosen = Entries.largest(gradients, max(1, round(fraction * sum(gradient.numel() for gradient in gradients))))
    marks = [torch.zeros(gradient.numel(), dtype=torch.bool) for gradient in gradients]
    for mark, places in zip(marks, chosen.places, strict=True):
        mark[slice(None) if places is None else places.cpu()] = True
    return HalfSelected(np.packbits(torch.cat(marks).numpy()), np.array([int(mark.sum()) for mark in marks]))


def _joined(tensors: Sequence[Tensor]) -> Float[Tensor, " entry"]:
    return torch.cat([tensor.flatten().cpu() for tensor in tensors])
