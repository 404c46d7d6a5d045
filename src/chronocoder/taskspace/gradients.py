"""Gradient similarity of tasks at one checkpoint: the gradient differentials of groups of pairs, and their comparison.

Weber et al. 2024 (arXiv 2406.06441) compare the gradients by which a model would be tuned on tasks, and the parameters
that tuning would update. Groups of pairs, and what is done about the noise of sampling, are our own choice, and so is
the control: the same with right and wrong swapped in half of the pairs. Gradients are linear, so that it costs nothing.
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
from chronocoder.stores import labelled
from chronocoder.suites.precision import overflow_remedy
from chronocoder.taskspace.comparison import OTHER, TASK, compare_groups
from chronocoder.taskspace.dealing import common_pairs, deal_pairs
from chronocoder.taskspace.losses import Loss, accumulate_gradient
from chronocoder.taskspace.similarity import LABELS, Selected, half_of
from chronocoder.taskspace.sketch import count_sketch
from chronocoder.taskspace.subset import Entries, trainable

MOST_MARKED = 1 << 24
"""Parameters of which it is kept whether they are selected: of larger models, of a random sample that is no larger."""
MARKING = 3
"""Purpose of these random numbers."""


class SelectedHalf(NamedTuple):
    """The parameters of largest mean gradient in half of a task's groups.

    Attributes:
        bits: one for each parameter that is marked, eight a byte.
        counts: how many are selected of each tensor, marked or not.
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
        gradients were projected, 0 where they are compared as they are, and `marked_parameters` of how many parameters
        it was kept which are selected.

    Raises:
        TaskError: a task has too few pairs for the groups.
        NonFiniteError: a gradient is not finite.
    """
    groups = settings.gradient_groups
    dealt = deal_pairs(tasks, groups, settings.seed)
    pairs = np.array([np.bincount(parts // 2, minlength=groups) for parts in dealt])
    with trainable(model, settings.embeddings) as parameters:
        sizes = np.array([parameter.numel() for parameter in parameters])
        sketch, marked = settings.sketched(int(sizes.sum()), len(tasks)), _marked(int(sizes.sum()), settings.seed)
        gradients = np.zeros((len(LABELS), *pairs.shape, sketch or sizes.sum()), dtype=np.float32)
        found = [
            selected
            for number, (task, parts) in enumerate(zip(tasks, dealt, strict=True))
            for selected in _measure(model, parameters, task, parts, settings, gradients[:, number], sketch, marked)
        ]
    bits, counts = (  # listed by task, half and labels
        np.moveaxis(np.stack(values).reshape(len(tasks), 2, len(LABELS), -1), 2, 0)
        for values in zip(*found, strict=True)
    )
    names = [str(task.attrs["task"]) for task in tasks]
    compared = compare_groups(names, gradients, pairs, Selected(bits, counts, sizes), settings.confidence)
    text = "fraction of the task's pairs that have a prefix, or right sentence, in common with the other task"
    common = labelled((TASK, OTHER), common_pairs(tasks), text)
    return compared.assign(common_pairs=common).assign_attrs(
        parameters=int(model.num_parameters()),
        compared_parameters=int(sizes.sum()),
        fraction=settings.methods[settings.main].fraction,
        sketch=sketch,
        marked_parameters=len(marked),
    )


def _measure(
    model: PreTrainedModel,
    parameters: Sequence[Tensor],
    task: xr.Dataset,
    parts: Int[np.ndarray, " example"],
    settings: TaskSpaceSettings,
    gradients: Float[np.ndarray, "labels group entry"],
    sketch: int,
    marked: Int[np.ndarray, " place"],
) -> Iterator[SelectedHalf]:
    """Add the mean gradient of each group of a task, or its sketch, to zeros; yield what is selected in each half.

    A group has two parts: with swapped labels, the gradient of the second one has the other sign.
    """
    half_of_part = half_of(settings.gradient_groups).repeat(2)
    for half in (0, 1):
        sums = [[torch.zeros_like(parameter) for parameter in parameters] for _ in LABELS]
        for part in np.flatnonzero(half_of_part == half):
            examples = np.flatnonzero(parts == part)
            found = _mean_gradient(model, parameters, task, examples, settings)
            projected = (count_sketch(found, sketch, settings.seed) if sketch else _joined(found)).numpy()
            share = len(examples) / int(np.sum(parts // 2 == part // 2))
            for labels, sign in enumerate((1, -1 if part % 2 else 1)):
                gradients[labels, part // 2] += sign * share * projected
                for total, own in zip(sums[labels], found, strict=True):
                    total.add_(own, alpha=sign * len(examples))
        for of_labels in sums:
            yield _select(of_labels, settings.methods[settings.main].fraction, marked)


def _mean_gradient(
    model: PreTrainedModel,
    parameters: Sequence[Tensor],
    task: xr.Dataset,
    examples: Int[np.ndarray, " pair"],
    settings: TaskSpaceSettings,
) -> list[Tensor]:
    """Return the mean gradient of some pairs with respect to each parameter tensor."""
    loss = Loss.of(task, examples, settings.methods[settings.main].objective)
    accumulate_gradient(model, loss, settings.tokens_at_once)
    found = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not all(bool(gradient.isfinite().all()) for gradient in found):
        raise NonFiniteError(
            f"{model.name_or_path}: a gradient of task '{task.attrs['task']}' is not finite: {overflow_remedy(model)}"
        )
    return found


def _marked(parameters: int, seed: int) -> Int[np.ndarray, " place"]:
    """Return the places of the parameters that are marked where they are selected: all, or one at random in each row.

    Where n of the marked ones are selected, the standard error of a shared fraction is at most 1 / (2 sqrt(n)).
    """
    row = -(-parameters // MOST_MARKED)
    firsts = np.arange(0, parameters - row + 1, row)
    places: np.ndarray = firsts + np.random.default_rng([seed, MARKING]).integers(row, size=len(firsts))
    return places


def _select(gradients: Sequence[Tensor], fraction: float, marked: Int[np.ndarray, " place"]) -> SelectedHalf:
    """Return the parameters that tuning by these gradients would update."""
    chosen = Entries.largest(gradients, max(1, round(fraction * sum(gradient.numel() for gradient in gradients))))
    marks = [torch.zeros(gradient.numel(), dtype=torch.bool) for gradient in gradients]
    for mark, places in zip(marks, chosen.places, strict=True):
        mark[slice(None) if places is None else places.cpu()] = True
    bits = np.packbits(torch.cat(marks).numpy()[marked])
    return SelectedHalf(bits, np.array([int(mark.sum()) for mark in marks]))


def _joined(tensors: Sequence[Tensor]) -> Float[Tensor, " entry"]:
    return torch.cat([tensor.flatten().cpu() for tensor in tensors])
