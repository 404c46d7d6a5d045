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
from chronocoder.report.text import listed, percent, sentence


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


HALVES = "halves of one task"
MEASURES = {
    "cosine of gradients": Measure("cosine", diagonal=HALVES, has_interval=True),
    "cosine, corrected for sampling": Measure("corrected_cosine"),
    "overlap of subspaces": Measure("subspace_overlap", "subspace_chance", HALVES),
    "shared parameters": Measure("shared_parameters", "shared_chance"),
}
PAIRED = (("cosine of gradients", "shared parameters"), ("cosine, corrected for sampling", "overlap of subspaces"))
"""Measures whose matrices stand side by side."""
WITHIN, BETWEEN, CHANCE = "within groups", "between groups", "chance"


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
    """Return how many parameters tasks share at the first and the last checkpoint, beside chance."""
    means = group_means(gradients, "shared_parameters", "shared_chance")
    known = {kind: means[kind] for kind in (WITHIN, BETWEEN) if np.isfinite(means[kind]).any()}
    checkpoints = names(gradients, "checkpoint")
    parts = [
        f"{listed([f'{percent(of[place])} {kind}' for kind, of in known.items()])} at {checkpoints[place]}"
        f" (by chance {percent(means[CHANCE][place])})"
        for place in dict.fromkeys((0, len(checkpoints) - 1))
    ]
    return (
        "Of the parameters that are chosen for one task, those of largest gradient differential, the fraction that is"
        f" also chosen for another is on average {', and '.join(parts)}."
    )


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
