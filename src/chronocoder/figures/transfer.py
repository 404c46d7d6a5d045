"""What tuning on each task does to every task, and what it costs."""

import numpy as np
import xarray as xr

from chronocoder.config.taskspace import DIFFERENTIAL, RIGHT, SWAPPED
from chronocoder.figures.chart import INK, MARKERS, PALETTE, Chart, plain, styled
from chronocoder.figures.lines import Line, add_legend, draw_course
from chronocoder.figures.matrix import Matrix, draw_matrix
from chronocoder.figures.order import largest_size, off_diagonal, task_order
from chronocoder.figures.tidy import tidy
from chronocoder.stores import names
from chronocoder.wording import decimal, in_words, percent

QUARTILES = (0.5, 0.25, 0.75)
OBJECTIVES = {
    DIFFERENTIAL: "gradient differential",
    RIGHT: "right sentences only",
    SWAPPED: "right and wrong swapped at random",
}
CELL_COLUMNS = {
    "mean_transfer": "transfer",
    "mean_transfer_low": "low",
    "mean_transfer_high": "high",
    "chance_level": "chance_level",
    "beyond_chance": "beyond_chance",
    "accuracy_change": "accuracy_change",
}
RELATIVE_COLUMNS = {"relative_transfer": "relative_transfer"}
CELL_AXES = ("evaluated on", "tuned on")
WIDE_SCALE = 5
"""Factor between perplexity ratios from which on they are on a log axis."""


def method_labels(transfer: xr.Dataset) -> dict[str, str]:
    """Return each way of tuning in words, by its name."""
    facts = zip(names(transfer, "tuning"), names(transfer, "objective"), transfer["fraction"].values, strict=True)
    return {
        name: f"{in_words(name)} ({OBJECTIVES[objective]}, {percent(float(fraction))} of the parameters)"
        for name, objective, fraction in facts
    }


def unit_words(store: xr.Dataset) -> str:
    """Return the unit of transfer in the plural: that of all targets, or that of each task where they differ."""
    units = set(names(store, "unit"))
    return f"{units.pop()}s" if len(units) == 1 else "in each task’s unit"


def own_gain(transfer: xr.Dataset) -> np.ndarray:
    """Return the transfer of every task to itself, shape (tuning, checkpoint, task)."""
    values = transfer["mean_transfer"].transpose("tuning", "checkpoint", "source", "target").values
    return np.diagonal(values, axis1=2, axis2=3)


def perplexity_ratio(transfer: xr.Dataset) -> np.ndarray:
    """Return by what tuning multiplies the perplexity on validation text, shape (tuning, checkpoint, source)."""
    ratio: np.ndarray = np.exp(transfer["mean_loss_change"].transpose("tuning", "checkpoint", "source").values)
    return ratio


def cells_beyond(at: xr.Dataset) -> np.ndarray:
    """Return which cells are beyond chance, of those whose level of chance is known: shape (source, target)."""
    known = np.isfinite(at["chance_level"].transpose("source", "target").values)
    beyond: np.ndarray = at["beyond_chance"].transpose("source", "target").values & known
    return beyond


@styled
def draw_transfer(transfer: xr.Dataset, tuning: str, checkpoint: str) -> Chart:
    """Draw the transfer from every task to every task, with asterisks where it is beyond chance.

    Colours mean the same for all methods and checkpoints: the scale ends at the largest transfer between different
    tasks.
    """
    at = transfer.sel(tuning=tuning, checkpoint=checkpoint)
    reach = largest_size(off_diagonal(transfer["mean_transfer"].transpose(..., "source", "target").values))
    matrix = _matrix(at, "mean_transfer", (-reach, reach), f"transfer ({unit_words(at)})")
    title = f"Transfer by {in_words(tuning)} at {checkpoint}"
    return draw_matrix(title, tidy(at, CELL_COLUMNS, ("source", "target")), matrix._replace(marked=cells_beyond(at)))


@styled
def draw_relative_transfer(transfer: xr.Dataset, tuning: str, checkpoint: str) -> Chart:
    """Draw the transfer from every task to every task as a fraction of what tuning on the target itself gains."""
    at = transfer.sel(tuning=tuning, checkpoint=checkpoint)
    matrix = _matrix(at, "relative_transfer", (-1, 1), "fraction of own gain")
    title = f"Transfer by {in_words(tuning)} at {checkpoint}, relative to own gain"
    return draw_matrix(title, tidy(at, RELATIVE_COLUMNS, ("source", "target")), matrix)


@styled
def draw_damage(transfer: xr.Dataset, checkpoint: str) -> Chart:
    """Draw the own gain of each task by each method against what tuning does to perplexity, at one checkpoint."""
    at = transfer.sel(checkpoint=[checkpoint])
    ratio, gain = perplexity_ratio(at)[:, 0], own_gain(at)[:, 0]
    dims = ("tuning", "source")
    points = xr.Dataset(
        {"perplexity_ratio": (dims, ratio), "own_gain": (dims, gain)},
        coords={name: transfer[name].values for name in dims},
    )
    data = tidy(points, {name: name for name in ("perplexity_ratio", "own_gain")}, dims)
    chart = Chart(f"Own gain against damage at {checkpoint}", data, _damage_words(transfer, ratio, gain))
    axes = chart.subplots()
    for place, method in enumerate(names(transfer, "tuning")):
        colour, marker = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
        axes.plot(
            ratio[place],
            gain[place],
            color=colour,
            marker=marker,
            linestyle="none",
            markersize=6,
            label=plain(in_words(method)),
        )
    axes.axvline(1, color=INK, linestyle="-", marker="", linewidth=0.8, zorder=1)
    axes.axhline(0, color=INK, linestyle="-", marker="", linewidth=0.8, zorder=1)
    wide = ratio.max() > WIDE_SCALE * ratio.min()
    axes.set_xscale("log" if wide else "linear")
    axes.set_xlabel(f"perplexity after tuning over that before{' (log scale)' if wide else ''}")
    axes.set_ylabel(f"own gain ({unit_words(transfer)})")
    add_legend(chart, axes)
    return chart


@styled
def draw_damage_course(transfer: xr.Dataset) -> Chart:
    """Draw what each method does to perplexity over training: the median task with quartiles."""
    title = "Damage: perplexity after tuning over that before"
    return draw_course(
        transfer, _quartile_lines(transfer, perplexity_ratio(transfer)), title, "perplexity ratio", base=1.0
    )


@styled
def draw_gain_course(transfer: xr.Dataset) -> Chart:
    """Draw what each method gains on the task tuned on over training: the median task with quartiles."""
    return draw_course(
        transfer, _quartile_lines(transfer, own_gain(transfer)), "Own gain", f"own gain ({unit_words(transfer)})"
    )


def _matrix(at: xr.Dataset, variable: str, limits: tuple[float, float], label: str) -> Matrix:
    rows, columns = task_order(at, "source", "source_group"), task_order(at, "target")
    return Matrix(at[variable].transpose("source", "target").values, rows, columns, limits, label, CELL_AXES)


def _quartile_lines(transfer: xr.Dataset, values: np.ndarray) -> list[Line]:
    """Return medians over tasks with quartiles, of values of shape (tuning, checkpoint, task)."""
    quartiles = np.quantile(values, QUARTILES, axis=-1)
    return [
        Line(in_words(method), quartiles[0, place], place, quartiles[1, place], quartiles[2, place])
        for place, method in enumerate(names(transfer, "tuning"))
    ]


def _damage_words(transfer: xr.Dataset, ratio: np.ndarray, gain: np.ndarray) -> str:
    parts = [
        f"{in_words(method)} gains {decimal(float(np.median(gain[place])))} and multiplies perplexity by"
        f" {float(np.median(ratio[place])):.3f}"
        for place, method in enumerate(names(transfer, "tuning"))
    ]
    return f"A point for each task and method. For the median task, {'; '.join(parts)}."
