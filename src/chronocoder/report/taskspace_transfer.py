"""What tuning on one task does to all, as matrices, and what it costs: figures, a table and sentences."""

import html
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from chronocoder.config.taskspace import RIGHT, SWAPPED
from chronocoder.report.inputs import names
from chronocoder.report.style import GRID, PALETTE, Json, finished
from chronocoder.report.suite_figures import MARKS
from chronocoder.report.taskspace import (
    DIVERGING,
    SMALL_HEIGHT_PX,
    Line,
    TaskOrder,
    draw_course,
    draw_matrix,
    largest,
    method_labels,
    off_diagonal,
    rounded,
    same_group,
    task_order,
    unit_words,
)
from chronocoder.report.text import counted, in_words, listed, signed

QUARTILES = (0.5, 0.25, 0.75)
CELL_NUMBERS = ("mean_transfer_low", "mean_transfer_high", "accuracy_change")
CELL_VARIABLES = ("mean_transfer", *CELL_NUMBERS, "relative_transfer")
METHOD_COLUMNS = (
    "Own gain",
    "Change of accuracy",
    "Perplexity ×",
    "Largest ×",
    "Beyond chance within groups",
    "Beyond chance between groups",
)


class MethodRow(NamedTuple):
    """What one way of tuning does at one checkpoint.

    Attributes:
        checkpoint: its name.
        numbers: one a column of `METHOD_COLUMNS`, as text.
    """

    checkpoint: str
    numbers: list[str]


def own_gain(transfer: xr.Dataset) -> np.ndarray:
    """Return the transfer of every task to itself, shape (tuning, checkpoint, task)."""
    values = transfer["mean_transfer"].transpose("tuning", "checkpoint", "source", "target").values
    return np.diagonal(values, axis1=2, axis2=3)


def perplexity_ratio(transfer: xr.Dataset) -> np.ndarray:
    """Return by what tuning multiplies the perplexity on validation text, shape (tuning, checkpoint, source)."""
    ratio: np.ndarray = np.exp(transfer["mean_loss_change"].transpose("tuning", "checkpoint", "source").values)
    return ratio


def draw_transfers(transfer: xr.Dataset) -> dict[str, dict[str, list[Json]]]:
    """Return for each method and checkpoint the matrix of transfer, and that of transfer relative to own gain.

    All have one scale of colours. Of many tasks the matrices of swapped pairs are left out, to keep the page light.
    """
    rows, columns = task_order(transfer, "source", "source_group"), task_order(transfer, "target")
    reach = largest(off_diagonal(transfer["mean_transfer"].transpose(..., "source", "target").values))
    shown = _by_method(transfer)
    if rows.many:
        shown = {label: of for label, of in shown.items() if of["objective"] != SWAPPED}
    return {
        label: {
            checkpoint: _matrices(of_method.isel(checkpoint=place), rows, columns, reach)
            for place, checkpoint in enumerate(names(transfer, "checkpoint"))
        }
        for label, of_method in shown.items()
    }


def draw_damages(transfer: xr.Dataset) -> dict[str, list[Json]]:
    """Return for each checkpoint own gain against the change of perplexity, and for all alike both over training."""
    ratio, gain = perplexity_ratio(transfer), own_gain(transfer)
    courses = [
        _quartile_course(transfer, ratio, "Damage: perplexity after tuning over that before", "perplexity ratio"),
        _quartile_course(transfer, gain, "Own gain", unit_words(transfer)),
    ]
    return {
        checkpoint: [_damage_figure(transfer, ratio[:, place], gain[:, place], checkpoint), *courses]
        for place, checkpoint in enumerate(names(transfer, "checkpoint"))
    }


def method_tables(transfer: xr.Dataset) -> dict[str, list[MethodRow]]:
    """Return for each method a row of numbers at each checkpoint."""
    within, between = same_group(transfer, "target", "source_group", "group")
    return {
        label: [
            MethodRow(checkpoint, _method_numbers(of_method.isel(checkpoint=place), within, between))
            for place, checkpoint in enumerate(names(transfer, "checkpoint"))
        ]
        for label, of_method in _by_method(transfer).items()
    }


def transfer_sentence(transfer: xr.Dataset) -> str:
    """Return how much transfer there is between different tasks at the last checkpoint, beside the control."""
    last = transfer.isel(checkpoint=-1)
    where, main = f"At {names(transfer, 'checkpoint')[-1]}", in_words(names(transfer, "tuning")[0])
    controls = _of_objective(transfer, SWAPPED)
    if not controls:
        return (
            f"{where}, no transfer can be called beyond chance: what tuning does where there is nothing to learn was"
            " not measured."
        )
    within, between = same_group(transfer, "target", "source_group", "group")
    found, of_control = (_beyond(last.isel(tuning=method)) for method in (0, controls[0]))
    harmed = int((found & (within | between) & (_mean_transfer(last, 0) < 0)).sum())
    harm = f" ({harmed} of these for the worse)" if harmed else ""
    return (
        f"{where}, tuning on one task by {main} changes another one beyond chance in {_parts(found, within, between)}"
        f"{harm}; with right and wrong swapped at random, in {_part(of_control, within | between)} altogether."
    )


def damage_sentences(transfer: xr.Dataset) -> list[str]:
    """Return what the main method does to language modelling at the last checkpoint, beside plain tuning."""
    plain = _of_objective(transfer, RIGHT)
    return [_damage_sentence(transfer, place) for place in plain] or [_lone_damage(transfer)]


def _damage_sentence(transfer: xr.Dataset, plain: int) -> str:
    last = transfer.isel(checkpoint=-1)
    main, other = (in_words(names(last, "tuning")[place]) for place in (0, plain))
    ratios, gains = ([float(of(transfer)[at, -1].mean()) for at in (0, plain)] for of in (perplexity_ratio, own_gain))
    low, high = (last[f"mean_loss_change_{end}"].transpose("tuning", "source").values for end in ("low", "high"))
    below, above = int((high[0] < low[plain]).sum()), int((low[0] > high[plain]).sum())
    verdict = "less" if ratios[0] < ratios[1] else "no less"
    return (
        f"At {last['checkpoint'].values}, tuning by {main} multiplies the perplexity on validation text by"
        f" {ratios[0]:.3f}, the mean over {counted(last.sizes['source'], 'task')}, which is {verdict} than the"
        f" {ratios[1]:.3f} of {other}; its interval lies below that of {other} for {below} of them, above it for"
        f" {above}. The task tuned on gains {signed(gains[0])} by {main} and {signed(gains[1])} by {other}"
        f" ({unit_words(last)})."
    )


def _lone_damage(transfer: xr.Dataset) -> str:
    last, main = names(transfer, "checkpoint")[-1], in_words(names(transfer, "tuning")[0])
    ratio, gain = (float(of(transfer)[0, -1].mean()) for of in (perplexity_ratio, own_gain))
    return (
        f"At {last}, tuning by {main} multiplies the perplexity on validation text by {ratio:.3f}, the mean over"
        f" {counted(transfer.sizes['source'], 'task')}; the task tuned on gains {signed(gain)}"
        f" ({unit_words(transfer)}). Plain tuning was not run beside it."
    )


def _by_method(transfer: xr.Dataset) -> dict[str, xr.Dataset]:
    labels = method_labels(transfer)
    return {label: transfer.sel(tuning=name) for name, label in labels.items()}


def _of_objective(transfer: xr.Dataset, objective: str) -> list[int]:
    return [place for place, name in enumerate(names(transfer, "objective")) if name == objective]


def _beyond(at: xr.Dataset) -> np.ndarray:
    """Return which cells are beyond chance, of those whose level of chance is known: shape (source, target)."""
    known = np.isfinite(at["chance_level"].transpose("source", "target").values)
    beyond: np.ndarray = at["beyond_chance"].transpose("source", "target").values & known
    return beyond


def _mean_transfer(at: xr.Dataset, method: int) -> np.ndarray:
    values: np.ndarray = at["mean_transfer"].isel(tuning=method).transpose("source", "target").values
    return values


def _part(found: np.ndarray, among: np.ndarray) -> str:
    return f"{int(found[among].sum())} of {int(among.sum())}"


def _parts(found: np.ndarray, within: np.ndarray, between: np.ndarray) -> str:
    """Return how many ordered pairs are among the found ones within and between groups, of the kinds there are."""
    kinds = [(within, "ordered pairs within groups"), (between, "ordered pairs between groups")]
    return listed([f"{_part(found, among)} {what}" for among, what in kinds if among.any()])


def _matrices(at: xr.Dataset, rows: TaskOrder, columns: TaskOrder, reach: float) -> list[Json]:
    unit, where = unit_words(at), str(at["checkpoint"].values)
    cell = {name: at[name].transpose("source", "target").values for name in CELL_VARIABLES}
    values, relative = cell["mean_transfer"], cell["relative_transfer"]
    chance = at["chance_level"].transpose("source", "target").values
    known = [chance] if np.isfinite(chance).all() else []
    extra = np.stack([*(cell[name] for name in CELL_NUMBERS), *known], axis=-1)
    level = "<br>chance level ±%{customdata[3]:.3f}" if known else ""
    axes, both = ("evaluated on", "tuned on"), "tuned on %{y},<br>evaluated on %{x}:<br>"
    return [
        draw_matrix(
            values,
            rows,
            columns,
            f"Transfer at {where} ({unit})",
            axes,
            f"{both}%{{z:.3f}} (%{{customdata[0]:.3f}} to %{{customdata[1]:.3f}}) {unit}{level}"
            "<br>accuracy changes by %{customdata[2]:.3f}",
            DIVERGING,
            (-reach, reach),
            extra,
            _beyond(at),
        ),
        draw_matrix(
            relative,
            rows,
            columns,
            f"Transfer at {where}, relative to own gain",
            axes,
            f"{both}%{{z:.2f}} of what tuning on it gains",
            DIVERGING,
            (-1, 1),
        ),
    ]


def _damage_figure(transfer: xr.Dataset, ratio: np.ndarray, gain: np.ndarray, checkpoint: str) -> Json:
    tasks = [html.escape(in_words(name)) for name in names(transfer, "source")]
    figure = go.Figure()
    for place, method in enumerate(names(transfer, "tuning")):
        figure.add_trace(
            go.Scatter(
                x=rounded(ratio[place]),
                y=rounded(gain[place]),
                name=html.escape(in_words(method)),
                text=tasks,
                mode="markers",
                marker={"color": PALETTE[place % len(PALETTE)], "symbol": MARKS[place % len(MARKS)], "size": 8},
                hovertemplate="%{text}: perplexity × %{x:.3f}, own gain %{y:.3f}",
            )
        )
    figure.add_vline(1, line={"color": GRID, "width": 2})
    figure.update_xaxes(title_text="perplexity ratio (log scale)", type="log")
    figure.update_yaxes(title_text=f"own gain ({unit_words(transfer)})", zerolinecolor=GRID, zerolinewidth=2)
    return finished(figure, f"Own gain against damage at {checkpoint}", SMALL_HEIGHT_PX)


def _quartile_course(transfer: xr.Dataset, values: np.ndarray, title: str, axis: str) -> Json:
    """Draw medians over tasks with quartiles, of values of shape (tuning, checkpoint, task)."""
    lines = [
        Line(in_words(method), np.quantile(values[place], QUARTILES, axis=-1), PALETTE[place % len(PALETTE)])
        for place, method in enumerate(names(transfer, "tuning"))
    ]
    return draw_course(transfer, lines, title, axis)


def _method_numbers(at: xr.Dataset, within: np.ndarray, between: np.ndarray) -> list[str]:
    gain, accuracy = (
        float(np.diagonal(at[name].transpose("source", "target").values).mean())
        for name in ("mean_transfer", "accuracy_change")
    )
    ratio, beyond = np.exp(at["mean_loss_change"].values), _beyond(at)
    return [
        f"{signed(gain)} {unit_words(at)}",
        signed(accuracy),
        f"{ratio.mean():.3f}",
        f"{ratio.max():.3f}",
        _part(beyond, within),
        _part(beyond, between),
    ]
