"""The changes in accuracy that comparisons were chosen by."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from chronocoder.figures.ability import draw_chance
from chronocoder.figures.chart import GRID, INK, PALETTE, QUIET, WIDTH_IN, Chart, plain, styled
from chronocoder.figures.tokens import draw_token_axis, token_places
from chronocoder.stores import names
from chronocoder.wording import counted, in_words, signed

ROW_IN, FRAME_IN = 0.3, 1.3
HALVES = {"accuracy_choosing": "half that chose", "accuracy_confirming": "other half"}


@styled
def draw_changes(choice: xr.Dataset) -> Chart:
    """Draw every change on both halves of the pairs, beside the level of chance.

    Args:
        choice: changes with their intervals, dims (change,); at least one.
    """
    data = _table_of_changes(choice)
    beyond = (data["other_half"].abs() > data["level_of_chance"]).sum()
    alt = (
        f"{counted(len(data), 'change')} of accuracy, a row each; on the half of the pairs that had no part in the"
        f" choice, {beyond} of {len(data)} lie beyond the level of chance. The largest there is"
        f" {signed(data['other_half'].loc[data['other_half'].abs().idxmax()])}."
    )
    chart = Chart("Changes of accuracy on both halves of the pairs", data, alt, WIDTH_IN, FRAME_IN + ROW_IN * len(data))
    axes, rows = chart.subplots(), np.arange(len(data))
    axes.barh(
        rows,
        2 * data["level_of_chance"],
        left=-data["level_of_chance"],
        height=0.7,
        color=GRID,
        edgecolor=QUIET,
        hatch="////",
        linewidth=0,
        label="level of chance",
    )
    axes.hlines(rows, data["other_half_low"], data["other_half_high"], color=PALETTE[0], linewidth=1.2)
    axes.plot(data["other_half"], rows, "s", color=PALETTE[0], label="other half, with its interval")
    axes.plot(
        data["half_that_chose"],
        rows,
        "o",
        markerfacecolor="none",
        markersize=7,
        color=PALETTE[1],
        label="half that chose",
    )
    axes.axvline(0, color=INK, linewidth=0.8, linestyle="-")
    labels = [
        plain(f"{in_words(task)}: {before} → {after}")
        for task, before, after in data[["task", "last_before", "first_after"]].itertuples(index=False)
    ]
    axes.set_yticks(rows, labels, fontsize=8)
    axes.set_ylim(len(data) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("change of accuracy")
    chart.legend(loc="outside lower left", ncols=3)
    return chart


@styled
def draw_fitted_steps(choice: xr.Dataset, task: str) -> Chart:
    """Draw the curve of a task on both halves of its pairs, the steps fitted to the first one, and where it changes.

    Args:
        choice: curves, dims (task, checkpoint), and changes, dims (change,).
        task: name of the task.
    """
    of_task = choice.sel(task=task)
    found = choice.isel(change=np.array(names(choice, "change_task"), dtype=object) == task)
    tokens_seen, checkpoints = of_task["tokens_seen"].values, names(of_task, "checkpoint")
    columns = {name: of_task[name].values for name in HALVES}
    data = pd.DataFrame(
        {
            "checkpoint": checkpoints,
            "tokens_seen": tokens_seen,
            **columns,
            "fitted_accuracy": of_task["fitted_accuracy"].values,
            "first_after_a_change": np.isin(checkpoints, names(found, "first_after")),
        }
    )
    places = ", ".join(names(found, "first_after")) or "none"
    alt = (
        f"Accuracy on two halves of the pairs over tokens seen, with fitted steps; first checkpoints of them: {places}."
    )
    chart = Chart(f"Steps fitted to the accuracy on {in_words(task)}", data, alt, WIDTH_IN, 3.6)
    axes, x = chart.subplots(), token_places(tokens_seen)
    for name, label in HALVES.items():
        axes.plot(x, of_task[name].values, label=label)
    axes.plot(
        x,
        of_task["fitted_accuracy"].values,
        color=INK,
        linestyle="-",
        marker="",
        linewidth=1,
        label="steps fitted to it",
    )
    _add_places(axes, dict(zip(checkpoints, x.tolist(), strict=True)), found)
    draw_chance(axes)
    axes.set(ylabel="accuracy (fraction of pairs)", ylim=(-0.02, 1.02))
    draw_token_axis(axes, tokens_seen)
    chart.legend(loc="outside lower left", ncols=3)
    return chart


def _table_of_changes(choice: xr.Dataset) -> pd.DataFrame:
    q_values = dict(zip(names(choice, "task"), choice["q_value"].values.tolist(), strict=True))
    words = {
        name: names(choice, name) for name in ("last_before", "first_after", "first_after_low", "first_after_high")
    }
    sizes = {
        "half_that_chose": "choosing",
        "other_half": "confirming",
        "other_half_low": "confirming_low",
        "other_half_high": "confirming_high",
        "level_of_chance": "by_chance",
    }
    tasks = names(choice, "change_task")
    return pd.DataFrame(
        {
            "task": tasks,
            "q_value": [q_values[task] for task in tasks],
            **words,
            **{column: choice[f"change_{name}"].values for column, name in sizes.items()},
        }
    )


def _add_places(axes: Axes, places: dict[str, float], found: xr.Dataset) -> None:
    """Mark the first checkpoint after each change, shaded over its interval."""
    ends = zip(*(names(found, f"first_after{end}") for end in ("", "_low", "_high")), strict=True)
    for number, (at, low, high) in enumerate(ends):
        label = "" if number else "first checkpoint after, with its interval"
        axes.axvspan(places[low], places[high], color=PALETTE[4], alpha=0.2, linewidth=0)
        axes.axvline(places[at], color=PALETTE[4], linestyle="--", linewidth=1, label=label)
