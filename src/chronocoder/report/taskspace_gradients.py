"""How similar the gradient differentials of tasks are, and what parameters they share: figures and a sentence."""

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
from chronocoder.report.text import percent, sentence


class Measure(NamedTuple):
    """One way to compare the gradients of two tasks.

    Attributes:
        variable: of the store.
        chance: variable of the level expected by chance; empty where that is zero.
        diagonal: what the diagonal holds; empty where it tells nothing and is left out.
        has_interval: whether the store has both ends of an interval.
    """

    variable: str
    chance: str = ""
    diagonal: str = ""
    has_interval: bool = False


HALVES = "between halves of the task’s own pairs"
MEASURES = {
    "cosine of gradients": Measure("cosine", diagonal=HALVES, has_interval=True),
    "cosine, corrected for sampling": Measure("corrected_cosine"),
    "overlap of subspaces": Measure("subspace_overlap", "subspace_chance", HALVES),
    "shared parameters": Measure("shared_parameters", "shared_chance"),
}
WITHIN, BETWEEN, CHANCE = "within groups", "between groups", "chance"


def draw_gradients(gradients: xr.Dataset) -> dict[str, dict[str, list[Json]]]:
    """Return for each measure and checkpoint the matrix of tasks."""
    return {
        label: {
            checkpoint: [_matrix(gradients, place, label, measure)]
            for place, checkpoint in enumerate(names(gradients, "checkpoint"))
        }
        for label, measure in MEASURES.items()
    }


def draw_gradient_courses(gradients: xr.Dataset) -> list[Json]:
    """Return for each measure its means within and between groups over training, beside chance."""
    return [
        draw_course(gradients, _lines(gradients, measure), sentence(label), "mean over pairs of tasks")
        for label, measure in MEASURES.items()
    ]


def sharing_sentence(gradients: xr.Dataset) -> str:
    """Return how many parameters tasks share at the first and the last checkpoint, beside chance."""
    values = group_means(gradients, "shared_parameters", "shared_chance")
    ends = dict.fromkeys((0, gradients.sizes["checkpoint"] - 1))
    parts = [
        f"at {names(gradients, 'checkpoint')[place]} {percent(values[WITHIN][place])} for another task of its group and"
        f" {percent(values[BETWEEN][place])} for one of another group ({percent(values[CHANCE][place])} expected of"
        " parameters chosen at random within each tensor)"
        for place in ends
    ]
    return f"Of the parameters with the largest gradient differential for one task, the same are chosen {', '.join(parts)}."


def group_means(gradients: xr.Dataset, variable: str, chance: str = "") -> dict[str, np.ndarray]:
    """Return the mean of a measure within and between groups at each checkpoint, and that of chance over all pairs."""
    values = _values(gradients, variable)
    means = {
        name: values[:, pairs].mean(axis=1) if pairs.any() else np.full(len(values), np.nan)
        for name, pairs in zip((WITHIN, BETWEEN), same_group(gradients), strict=True)
    }
    if not chance:
        return means
    levels = _values(gradients, chance)
    return {**means, CHANCE: levels[:, ~np.eye(levels.shape[1], dtype=bool)].mean(axis=1)}


def _values(gradients: xr.Dataset, variable: str) -> np.ndarray:
    """Return a variable with both dims of tasks, over which a number of the checkpoint is spread."""
    full = gradients[variable].broadcast_like(gradients["cosine"])
    values: np.ndarray = full.transpose("checkpoint", "task", "other_task").values
    return values


def _lines(gradients: xr.Dataset, measure: Measure) -> list[Line]:
    styles = {WITHIN: (PALETTE[0], "solid"), BETWEEN: (PALETTE[1], "dash"), CHANCE: (PALETTE[8], "dot")}
    means = group_means(gradients, measure.variable, measure.chance)
    lines = [Line(name, values[None], *styles[name]) for name, values in means.items()]
    if not measure.diagonal:
        return lines
    own = np.diagonal(_values(gradients, measure.variable), axis1=1, axis2=2).mean(axis=1)
    return [*lines, Line(measure.diagonal, own[None], PALETTE[2], "dashdot")]


def _matrix(gradients: xr.Dataset, place: int, label: str, measure: Measure) -> Json:
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
    if measure.chance:
        hover, extra = f"{hover}<br>by chance %{{customdata[0]:.3f}}", [measure.chance]
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
