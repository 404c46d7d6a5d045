"""What tuning on one task does to all, as matrices, and what it costs: figures, a table and sentences."""

import html
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from chronocoder.config.taskspace import RIGHT, SWAPPED
from chronocoder.report.inputs import names
from chronocoder.report.style import GRID, PALETTE, Json, finished, short
from chronocoder.report.suite_figures import MARKS
from chronocoder.report.taskspace import (
    DIVERGING,
    Line,
    TaskOrder,
    draw_course,
    draw_matrix,
    largest,
    method_labels,
    same_group,
    task_order,
    unit_words,
)
from chronocoder.report.text import counted, in_words, signed

SCATTER_HEIGHT_PX = 420
QUARTILES = (0.5, 0.25, 0.75)
CELL_NUMBERS = ("mean_transfer_low", "mean_transfer_high", "accuracy_change")
CELL_VARIABLES = ("mean_transfer", *CELL_NUMBERS, "relative_transfer", "beyond_chance")
METHOD_COLUMNS = (
    "Own gain",
    "Accuracy",
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
    """Return the transfer of every task to itself, shape (method, checkpoint, task)."""
    values = transfer["mean_transfer"].transpose("method", "checkpoint", "source", "target").values
    return np.diagonal(values, axis1=2, axis2=3)


def perplexity_ratio(transfer: xr.Dataset) -> np.ndarray:
    """Return by what tuning multiplies the perplexity on validation text, shape (method, checkpoint, source)."""
    return np.exp(transfer["mean_loss_change"].transpose("method", "checkpoint", "source").values)


def draw_transfers(transfer: xr.Dataset) -> dict[str, dict[str, list[Json]]]:
    """Return for each method and checkpoint the matrix of transfer, and that of transfer relative to own gain."""
    rows, columns = task_order(transfer, "source", "source_group"), task_order(transfer, "target")
    return {
        label: {
            checkpoint: _matrices(of_method, place, rows, columns)
            for place, checkpoint in enumerate(names(transfer, "checkpoint"))
        }
        for label, of_method in _by_method(transfer).items()
    }


def draw_damages(transfer: xr.Dataset) -> dict[str, list[Json]]:
    """Return for each checkpoint own gain against the change of perplexity, a point for each method and task."""
    ratio, gain = perplexity_ratio(transfer), own_gain(transfer)
    return {
        checkpoint: [_damage_figure(transfer, ratio[:, place], gain[:, place], checkpoint)]
        for place, checkpoint in enumerate(names(transfer, "checkpoint"))
    }


def draw_damage_courses(transfer: xr.Dataset) -> list[Json]:
    """Return the course of perplexity and of own gain over training, by method."""
    return [
        _quartile_course(transfer, perplexity_ratio(transfer), "Perplexity after tuning over that before", "ratio"),
        _quartile_course(
            transfer, own_gain(transfer), "Own gain: what tuning on a task does to it", unit_words(transfer)
        ),
    ]


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
    where, main = f"At {names(transfer, 'checkpoint')[-1]}", names(transfer, "method")[0]
    within, between = same_group(transfer, "target", "source_group", "group")
    of_main = _beyond(last, 0)
    found = (
        f"{where}, tuning on one task ({in_words(main)}) changes another one beyond chance in {_part(of_main, within)}"
        f" ordered pairs of one group and {_part(of_main, between)} of different groups"
    )
    controls = _of_objective(transfer, SWAPPED)
    if not controls:
        unknown = "what tuning does where there is nothing to learn was not measured, so that none can count"
        return f"{found}; {unknown}."
    of_control = _part(_beyond(last, controls[0]), within | between)
    return f"{found}; with right and wrong swapped at random, in {of_control} of all."


def damage_sentences(transfer: xr.Dataset) -> list[str]:
    """Return whether the main method harms language modelling less than plain tuning at the last checkpoint."""
    plain = _of_objective(transfer, RIGHT)
    return [_damage_sentence(transfer, place) for place in plain] or [_lone_damage(transfer)]


def _damage_sentence(transfer: xr.Dataset, plain: int) -> str:
    last = transfer.isel(checkpoint=-1)
    main, other = (in_words(names(last, "method")[place]) for place in (0, plain))
    ratio, gain = (of(transfer)[:, -1] for of in (perplexity_ratio, own_gain))
    low, high = (last[f"mean_loss_change_{end}"].transpose("method", "source").values for end in ("low", "high"))
    below, above = int((high[0] < low[plain]).sum()), int((low[0] > high[plain]).sum())
    of_tasks = counted(last.sizes["source"], "task")
    ratios, gains = ([float(of[place].mean()) for place in (0, plain)] for of in (ratio, gain))
    verdict = "less than" if ratios[0] < ratios[1] else "no less than"
    return (
        f"At {last['checkpoint'].values}, {main} harms language modelling {verdict} {other} tuning: on average over"
        f" {of_tasks} it multiplies the perplexity on validation text by {ratios[0]:.3f}, {other} by {ratios[1]:.3f}"
        f" (its interval lies below that of {other} on {below} of {of_tasks}, above on {above}), for a gain on the task"
        f" tuned on of {signed(gains[0])} against {signed(gains[1])} {unit_words(last)}."
    )


def _lone_damage(transfer: xr.Dataset) -> str:
    last, main = names(transfer, "checkpoint")[-1], in_words(names(transfer, "method")[0])
    ratio, gain = (float(of(transfer)[0, -1].mean()) for of in (perplexity_ratio, own_gain))
    return (
        f"At {last}, {main} multiplies the perplexity on validation text by {ratio:.3f} on average over tasks, for a gain"
        f" on the task tuned on of {signed(gain)} {unit_words(transfer)}; plain tuning was not run beside it."
    )


def _by_method(transfer: xr.Dataset) -> dict[str, xr.Dataset]:
    labels = method_labels(transfer)
    return {label: transfer.sel({"method": name}) for name, label in labels.items()}


def _of_objective(transfer: xr.Dataset, objective: str) -> list[int]:
    return [place for place, name in enumerate(names(transfer, "objective")) if name == objective]


def _beyond(at: xr.Dataset, method: int) -> np.ndarray:
    beyond: np.ndarray = at["beyond_chance"].isel(method=method).transpose("source", "target").values
    return beyond


def _part(found: np.ndarray, among: np.ndarray) -> str:
    return f"{int(found[among].sum())} of {int(among.sum())}"


def _matrices(of_method: xr.Dataset, place: int, rows: TaskOrder, columns: TaskOrder) -> list[Json]:
    at, unit = of_method.isel(checkpoint=place), unit_words(of_method)
    cell = {name: at[name].transpose("source", "target").values for name in CELL_VARIABLES}
    values, relative = cell["mean_transfer"], cell["relative_transfer"]
    chance = np.broadcast_to(at["chance_level"].values, values.shape)
    known = [chance] if np.isfinite(chance).all() else []
    extra = np.stack([*(cell[name] for name in CELL_NUMBERS), *known], axis=-1)
    level = "<br>chance level ±%{customdata[3]:.3f}" if known else ""
    reach, where = largest(of_method["mean_transfer"].values), str(at["checkpoint"].values)
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
            cell["beyond_chance"],
        ),
        draw_matrix(
            relative,
            rows,
            columns,
            f"Transfer at {where}, relative to what tuning on the task itself gains",
            axes,
            f"{both}%{{z:.2f}} of what tuning on it gains",
            DIVERGING,
            (-1, 1),
            marked=cell["beyond_chance"],
        ),
    ]


def _damage_figure(transfer: xr.Dataset, ratio: np.ndarray, gain: np.ndarray, checkpoint: str) -> Json:
    tasks = [html.escape(in_words(name)) for name in names(transfer, "source")]
    figure = go.Figure()
    for place, label in enumerate(method_labels(transfer).values()):
        figure.add_trace(
            go.Scatter(
                x=short(ratio[place]),
                y=short(gain[place]),
                name=html.escape(label),
                text=tasks,
                mode="markers",
                marker={"color": PALETTE[place % len(PALETTE)], "symbol": MARKS[place % len(MARKS)], "size": 8},
                hovertemplate="%{text}: perplexity × %{x:.3f}, own gain %{y:.3f}",
            )
        )
    figure.add_vline(1, line={"color": GRID, "width": 2})
    figure.update_xaxes(title_text="perplexity after tuning over that before (log scale)", type="log")
    figure.update_yaxes(title_text=f"own gain ({unit_words(transfer)})", zerolinecolor=GRID, zerolinewidth=2)
    return finished(figure, f"Own gain against damage at {checkpoint}", SCATTER_HEIGHT_PX)


def _quartile_course(transfer: xr.Dataset, values: np.ndarray, title: str, axis: str) -> Json:
    """Draw medians over tasks with quartiles, of values of shape (method, checkpoint, task)."""
    lines = [
        Line(label, np.quantile(values[place], QUARTILES, axis=-1), PALETTE[place % len(PALETTE)])
        for place, label in enumerate(method_labels(transfer).values())
    ]
    return draw_course(transfer, lines, title, axis)


def _method_numbers(at: xr.Dataset, within: np.ndarray, between: np.ndarray) -> list[str]:
    gain, accuracy = (
        float(np.diagonal(at[name].transpose("source", "target").values).mean())
        for name in ("mean_transfer", "accuracy_change")
    )
    ratio, beyond = np.exp(at["mean_loss_change"].values), at["beyond_chance"].transpose("source", "target").values
    return [
        f"{signed(gain)} {unit_words(at)}",
        signed(accuracy),
        f"{ratio.mean():.3f}",
        f"{ratio.max():.3f}",
        _part(beyond, within),
        _part(beyond, between),
    ]
