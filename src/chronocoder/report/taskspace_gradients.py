"""How similar the gradient differentials of tasks are, and what parameters they share: figures and a sentence."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.report.inputs import names
from chronocoder.report.style import PALETTE, Json
from chronocoder.report.taskspace import (
    DIVERGING,
    SEQUENTIAL,
    Line,
    draw_course,
    draw_matrix,
    largest,
    off_diagonal,
    same_group,
    task_order,
)
from chronocoder.report.text import listed, percent, sentence


class Measure(NamedTuple):
    """One way to compare the gradients of two tasks.

    Attributes:
        variable: of the store.
        levels: variables of what would be found without a relation, by what they are called; none where it is zero.
        diagonal: what the diagonal holds; empty where it tells nothing and is left out.
        has_interval: whether the store has both ends of an interval.
    """

    variable: str
    levels: Mapping[str, str] = {}
    diagonal: str = ""
    has_interval: bool = False


HALVES = "halves of one task"
CHANCE, SWAPPED = "chance", "right and wrong swapped"
MEASURES = {
    "cosine of gradients": Measure("cosine", diagonal=HALVES, has_interval=True),
    "cosine, corrected for sampling": Measure("corrected_cosine", has_interval=True),
    "overlap of subspaces": Measure(
        "subspace_overlap", {SWAPPED: "subspace_swapped", CHANCE: "subspace_chance"}, HALVES
    ),
    "shared parameters": Measure("shared_parameters", {SWAPPED: "shared_swapped", CHANCE: "shared_chance"}, HALVES),
}
PAIRED = (("cosine of gradients", "shared parameters"), ("cosine, corrected for sampling", "overlap of subspaces"))
"""Measures whose matrices stand side by side."""
WITHIN, BETWEEN = "within groups", "between groups"


STYLES = {
    WITHIN: (PALETTE[0], "solid"),
    BETWEEN: (PALETTE[1], "dash"),
    HALVES: (PALETTE[2], "dashdot"),
    SWAPPED: (PALETTE[5], "dot"),
    CHANCE: (PALETTE[8], "dot"),
}


def draw_gradients(gradients: xr.Dataset) -> dict[str, dict[str, list[Json]]]:
    """Return for measures, two by two, and each checkpoint their matrices of tasks."""
    return {
        sentence(" and ".join(labels)): {
            checkpoint: [_matrix(gradients, place, label) for label in labels]
            for place, checkpoint in enumerate(names(gradients, "checkpoint"))
        }
        for labels in PAIRED
    }


def draw_gradient_courses(gradients: xr.Dataset) -> list[Json]:
    """Return for each measure its means within and between groups over training, beside chance."""
    return [
        draw_course(gradients, _lines(gradients, measure), sentence(label), "mean over pairs of tasks")
        for label, measure in MEASURES.items()
    ]


def sharing_sentence(gradients: xr.Dataset) -> str:
    """Return how many parameters tasks share at the first and the last checkpoint, beside both levels."""
    measure = MEASURES["shared parameters"]
    means, levels = group_means(gradients, measure.variable), level_means(gradients, measure)
    known = {kind: values for kind, values in means.items() if np.isfinite(values).any()}
    checkpoints = names(gradients, "checkpoint")
    parts = [
        f"{listed([f'{percent(of[place])} {kind}' for kind, of in known.items()])} at {checkpoints[place]}"
        f" ({percent(levels[SWAPPED][place])} with right and wrong swapped in half of one’s pairs,"
        f" {percent(levels[CHANCE][place])} by chance)"
        for place in dict.fromkeys((0, len(checkpoints) - 1))
    ]
    return (
        "Of the parameters that are chosen for one task, those of largest gradient differential, the fraction that is"
        f" also chosen for another is on average {', and '.join(parts)}."
    )


def group_means(gradients: xr.Dataset, variable: str) -> dict[str, np.ndarray]:
    """Return the mean of a measure within and between groups at each checkpoint, over the pairs where it is known."""
    kinds = zip((WITHIN, BETWEEN), same_group(gradients), strict=True)
    return {name: _mean(gradients, variable, pairs) for name, pairs in kinds}


def level_means(gradients: xr.Dataset, measure: Measure) -> dict[str, np.ndarray]:
    """Return the mean of each level of a measure at each checkpoint, over all pairs of different tasks."""
    different = ~np.eye(gradients.sizes["task"], dtype=bool)
    return {name: _mean(gradients, variable, different) for name, variable in measure.levels.items()}


def _mean(gradients: xr.Dataset, variable: str, pairs: np.ndarray) -> np.ndarray:
    values = xr.DataArray(_values(gradients, variable)[:, pairs], dims=("checkpoint", "pair"))
    mean: np.ndarray = values.mean("pair").values
    return mean


def _values(gradients: xr.Dataset, variable: str) -> np.ndarray:
    """Return a variable with both dims of tasks, over which a number of the checkpoint is spread."""
    full = gradients[variable].broadcast_like(gradients["cosine"])
    values: np.ndarray = full.transpose("checkpoint", "task", "other_task").values
    return values


def _lines(gradients: xr.Dataset, measure: Measure) -> list[Line]:
    means = {**group_means(gradients, measure.variable), **level_means(gradients, measure)}
    lines = [Line(name, values[None], *STYLES[name]) for name, values in means.items()]
    if not measure.diagonal:
        return lines
    own = np.eye(gradients.sizes["task"], dtype=bool)
    return [*lines, Line(measure.diagonal, _mean(gradients, measure.variable, own)[None], *STYLES[measure.diagonal])]


def _matrix(gradients: xr.Dataset, place: int, label: str) -> Json:
    measure = MEASURES[label]
    order, values = task_order(gradients), _values(gradients, measure.variable)
    reach = largest(off_diagonal(values))
    at = values[place].copy()
    if not measure.diagonal:
        np.fill_diagonal(at, np.nan)
    signed = "cosine" in measure.variable
    hover, extra = "%{y} and %{x}:<br>%{z:.3f}", []
    if measure.has_interval:
        hover += " (%{customdata[0]:.3f} to %{customdata[1]:.3f})"
        extra = [f"{measure.variable}_low", f"{measure.variable}_high"]
    for name, variable in measure.levels.items():
        hover, extra = f"{hover}<br>{name}: %{{customdata[{len(extra)}]:.3f}}", [*extra, variable]
    numbers = np.stack([_values(gradients, name)[place] for name in extra], axis=-1) if extra else None
    return draw_matrix(
        at,
        order,
        order,
        f"{sentence(label)} at {names(gradients, 'checkpoint')[place]}",
        ("", ""),
        hover,
        DIVERGING if signed else SEQUENTIAL,
        (-reach if signed else 0, reach),
        numbers,
    )
