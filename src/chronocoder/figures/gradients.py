"""How similar the gradient differentials of tasks are, and what parameters they share."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.figures.chart import Chart, styled
from chronocoder.figures.lines import Line, draw_course
from chronocoder.figures.matrix import Matrix, draw_matrix
from chronocoder.figures.order import largest_size, off_diagonal, same_group, task_order
from chronocoder.figures.tidy import tidy
from chronocoder.wording import sentence


class Measure(NamedTuple):
    """One way to compare the gradients of two tasks.

    Attributes:
        variable: of the store.
        levels: variables of what would be found without a relation, by what they are called; none where it is zero.
        diagonal: what the diagonal holds; empty where it tells nothing and is left out.
        has_interval: whether the store has both ends of an interval.
    """

    variable: str
    levels: Mapping[str, str] = MappingProxyType({})
    diagonal: str = ""
    has_interval: bool = False


HALVES = "halves of one task"
CHANCE, SWAPPED = "chance", "right and wrong swapped"
WITHIN, BETWEEN = "within groups", "between groups"
MEASURES = {
    "cosine of gradients": Measure("cosine", diagonal=HALVES, has_interval=True),
    "cosine, corrected for sampling": Measure("corrected_cosine", has_interval=True),
    "overlap of subspaces": Measure(
        "subspace_overlap", {SWAPPED: "subspace_swapped", CHANCE: "subspace_chance"}, HALVES
    ),
    "shared parameters": Measure("shared_parameters", {SWAPPED: "shared_swapped", CHANCE: "shared_chance"}, HALVES),
}
STYLES = {WITHIN: 0, BETWEEN: 1, HALVES: 2, SWAPPED: 5, CHANCE: 8}


@styled
def draw_gradient_matrix(gradients: xr.Dataset, label: str, checkpoint: str) -> Chart:
    """Draw a comparison of the gradients of every two tasks at one checkpoint.

    Args:
        gradients: the comparisons, dims (checkpoint, task, other_task).
        label: one of `MEASURES`.
        checkpoint: its name.
    """
    measure, order, at = MEASURES[label], task_order(gradients), gradients.sel(checkpoint=checkpoint)
    reach = largest_size(off_diagonal(values_of(gradients, measure.variable)))
    values = values_of(gradients.sel(checkpoint=[checkpoint]), measure.variable)[0].copy()
    if not measure.diagonal:
        np.fill_diagonal(values, np.nan)
    signed = "cosine" in measure.variable
    ends = ("low", "high") if measure.has_interval else ()
    columns = {measure.variable: measure.variable, **{f"{measure.variable}_{end}": end for end in ends}}
    columns |= {variable: variable for variable in measure.levels.values()}
    return draw_matrix(
        f"{sentence(label)} at {checkpoint}",
        tidy(at, columns, ("task", "other_task")),
        Matrix(values, order, order, (-reach if signed else 0, reach), label),
    )


@styled
def draw_gradient_course(gradients: xr.Dataset, label: str) -> Chart:
    """Draw the means of a comparison, one of `MEASURES`, within and between groups over training, beside chance."""
    measure = MEASURES[label]
    means = {**group_means(gradients, measure.variable), **level_means(gradients, measure)}
    if measure.diagonal:
        own = np.eye(gradients.sizes["task"], dtype=bool)
        means[measure.diagonal] = _mean(gradients, measure.variable, own)
    lines = [Line(name, values, STYLES[name]) for name, values in means.items()]
    return draw_course(gradients, lines, sentence(label), f"{label},\nmean over pairs")


def group_means(gradients: xr.Dataset, variable: str) -> dict[str, np.ndarray]:
    """Return the mean of a measure within and between groups at each checkpoint, over the pairs where it is known."""
    kinds = zip((WITHIN, BETWEEN), same_group(gradients), strict=True)
    return {name: _mean(gradients, variable, pairs) for name, pairs in kinds}


def level_means(gradients: xr.Dataset, measure: Measure) -> dict[str, np.ndarray]:
    """Return the mean of each level of a measure at each checkpoint, over all pairs of different tasks."""
    different = ~np.eye(gradients.sizes["task"], dtype=bool)
    return {name: _mean(gradients, variable, different) for name, variable in measure.levels.items()}


def values_of(gradients: xr.Dataset, variable: str) -> np.ndarray:
    """Return a variable with both dims of tasks, over which a number of the checkpoint is spread."""
    full = gradients[variable].broadcast_like(gradients["cosine"])
    values: np.ndarray = full.transpose("checkpoint", "task", "other_task").values
    return values


def _mean(gradients: xr.Dataset, variable: str, pairs: np.ndarray) -> np.ndarray:
    values = xr.DataArray(values_of(gradients, variable)[:, pairs], dims=("checkpoint", "pair"))
    mean: np.ndarray = values.mean("pair").values
    return mean
