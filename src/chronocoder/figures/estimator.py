"""Estimates of effects beside exact ablation."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from chronocoder.attribution.measures import TOP
from chronocoder.figures.chart import MANY_MARKS, MARKERS, PALETTE, QUIET, Chart, plain, styled
from chronocoder.figures.rows import ROWS_WIDTH_IN, offsets, row_labels, rows_height_in, set_rows
from chronocoder.figures.scale import effect_scale
from chronocoder.wording import counted, decimal, in_words, plural

EXACT = "exact"
WIDTH_IN, HEIGHT_IN = 4.6, 4.7
LEAST_ROOM = 0.05


@styled
def draw_estimates(ablations: Mapping[str, xr.Dataset], estimator: str, title: str) -> Chart:
    """Draw estimates of the effects of single features against exact ablation, over tasks and checkpoints.

    Features of largest |IE| are filled, random active ones hollow. All estimators of the same stores have one scale.

    Args:
        ablations: the stores of exact ablation by task, of tasks whose effects have one unit.
        estimator: its name in the stores.
        title: what it is called.
    """
    effects = [store["indirect_effect"] for store in ablations.values()]
    scale = effect_scale(np.concatenate([values.values.ravel() for values in effects]))
    data = pd.concat([_estimate_rows(store, task, estimator) for task, store in ablations.items()], ignore_index=True)
    chart = Chart(title, data, _estimate_alt(data, title, len(ablations)), WIDTH_IN, HEIGHT_IN)
    axes = chart.subplots()
    scale.apply(axes)
    axes.plot([-scale.limit, scale.limit], [-scale.limit, scale.limit], ":", marker="", color=QUIET, linewidth=1)
    for place, (checkpoint, own) in enumerate(data.groupby("checkpoint", sort=False)):
        look: dict[str, Any] = {"marker": MARKERS[place % len(MARKERS)], "s": 16, "rasterized": len(data) > MANY_MARKS}
        colour = PALETTE[place % len(PALETTE)]
        top, control = (own[is_role] for is_role in (own["role"] == TOP, own["role"] != TOP))
        axes.scatter(
            top["exact"], top["estimate"], color=colour, linewidths=0, alpha=0.7, label=plain(checkpoint), **look
        )
        axes.scatter(control["exact"], control["estimate"], edgecolor=colour, facecolor="none", linewidths=0.7, **look)
    units = plural(str(effects[0].attrs["units"]))
    axes.set(xlabel=f"exact effect ({units})", ylabel=f"estimate ({units})")
    chart.legend(loc="outside lower center", ncols=3)
    return chart


@styled
def draw_agreement(correlation: xr.DataArray, checkpoint: str, labels: Mapping[str, str], good: float = 0.9) -> Chart:
    """Draw rank correlations with exact ablation at a checkpoint, a row a task.

    All checkpoints have the same scale.

    Args:
        correlation: dims (task, checkpoint) and one of what is compared, a mark each.
        checkpoint: revision.
        labels: what those that are shown are called, by their names.
        good: above it a correlation counts as good; marked by a line.
    """
    (dim,) = set(correlation.dims) - {"task", "checkpoint"}
    chosen = correlation.sel({dim: list(labels)}).transpose("task", dim, "checkpoint")
    here = chosen.sel(checkpoint=checkpoint)
    data = here.to_dataframe("spearman").reset_index()[["checkpoint", "task", dim, "spearman"]]
    rows = row_labels([in_words(str(task)) for task in here["task"].values])
    chart = Chart(f"At {checkpoint}", data, _agreement_alt(here, labels), ROWS_WIDTH_IN, rows_height_in(rows))
    axes = chart.subplots()
    set_rows(axes, rows)
    for place, (name, offset) in enumerate(zip(labels, offsets(len(labels)), strict=True)):
        axes.plot(
            here.sel({dim: name}).values,
            np.arange(len(rows)) + offset,
            linestyle="",
            marker=MARKERS[place],
            color=PALETTE[place],
            markersize=5,
            label=labels[name],
        )
    axes.axvline(good, color=QUIET, linewidth=1, linestyle=":", marker="")
    lowest = min(float(np.nanmin(chosen.values, initial=good)), good)
    axes.set_xlim(lowest - LEAST_ROOM * (1 - lowest) - 0.01, 1 + LEAST_ROOM * (1 - lowest))
    axes.set_xlabel("Spearman’s rank correlation with exact ablation")
    chart.legend(loc="outside lower center", ncols=1)
    return chart


def _estimate_rows(ablation: xr.Dataset, task: str, estimator: str) -> pd.DataFrame:
    effect = ablation["indirect_effect"].transpose("estimator", "checkpoint", "feature")
    both = xr.Dataset(
        {"exact": effect.sel(estimator=EXACT, drop=True), "estimate": effect.sel(estimator=estimator, drop=True)}
    )
    table = both.assign(role=ablation["role"]).to_dataframe().reset_index().assign(task=task, estimator=estimator)
    return table[["task", "checkpoint", "feature", "role", "estimator", "exact", "estimate"]]


def _estimate_alt(data: pd.DataFrame, title: str, tasks: int) -> str:
    miss = (data["estimate"] - data["exact"]).abs()
    return (
        f"{title} against exact ablation: {counted(len(data), 'point')}, one for each feature on each of"
        f" {counted(tasks, 'task')} at each checkpoint; the line is where they are equal. The median distance from it"
        f" is {miss.median():.2g}, the largest {miss.max():.2g}."
    )


def _agreement_alt(here: xr.DataArray, labels: Mapping[str, str]) -> str:
    (dim,) = set(here.dims) - {"task"}
    parts = [
        f"{label} {decimal(float(own.min()))} to {decimal(float(own.max()))}"
        for label, own in ((label, here.sel({dim: name})) for name, label in labels.items())
    ]
    return f"Rank correlation with exact ablation over {counted(here.sizes['task'], 'task')}: {'; '.join(parts)}."
