"""What features do to two tasks that a surface rule tells apart."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from chronocoder.attribution.measures import SHUFFLED
from chronocoder.figures.chart import INK, MANY_MARKS, PALETTE, QUIET, Chart, plain, styled
from chronocoder.figures.scale import EffectScale, effect_scale
from chronocoder.wording import counted, in_words, plural, signed

OTHER, SURFACE = "other", "surface rule"
ENDS = ("", "_low", "_high")
CORNER, LEVEL = "#FBEDE3", "#CFD6DD"
LABEL_GAP = 0.065
LABEL_WIDTHS = (42, 34)
"""Characters in a line of the labels of both axes."""
WIDTH_IN, HEIGHT_IN = 4.6, 4.5


def contrast_effects(relie: xr.Dataset, surface: str, conflicting: str, random_fraction: float = 0.95) -> xr.Dataset:
    """Return what a figure of two tasks shows: effects by condition of the conflicting one.

    A mean over opposite conditions would hide that a feature harms in one and helps in the other. A feature stands for
    the surface rule if it helps the surface task in some condition; so of that task the effect is that in the condition
    in which it is largest.

    Args:
        relie: effects on all tasks, as in `relie.zarr`.
        surface: the task that the surface rule solves.
        conflicting: the task on which it fails.
        random_fraction: which fraction of random directions stays within their level.

    Returns:
        `surface_effect` (checkpoint, feature) and `conflicting_effect` (condition, checkpoint, feature) with their
        intervals (`_low`, `_high`), in the units of the tasks; `surface_level` (checkpoint,) and `conflicting_level`
        (condition, checkpoint), the |IE| that random directions stay within, NaN where there are none.
    """
    near, far = (_in_conditions(relie, task) for task in (surface, conflicting))
    helping = near["condition_indirect_effect"].argmax("condition")
    found = {f"conflicting_effect{end}": far[f"condition_indirect_effect{end}"] for end in ENDS}
    for end in ENDS:
        found[f"surface_effect{end}"] = near[f"condition_indirect_effect{end}"].isel(condition=helping)
    found["surface_level"] = random_level(_most_helpful(near), random_fraction)
    found["conflicting_level"] = random_level(far, random_fraction)
    return xr.Dataset({name: values.reset_coords(drop=True) for name, values in found.items()})


def affecting(relie: xr.Dataset, tasks: Sequence[str]) -> list[int]:
    """Return the features with a measurable effect on one of some tasks, in some condition at some checkpoint."""
    acting = relie["condition_measurable"].sel(task=list(tasks)).any(["task", "condition", "checkpoint"])
    return [int(feature) for feature in relie["feature"].values[acting.values]]


def random_level(of_task: xr.Dataset, fraction: float) -> xr.DataArray:
    """Return the |IE| that a fraction of all random directions stays within.

    Args:
        of_task: the task's effects and those of its controls, dims (condition, checkpoint, feature) or without the
            first.
        fraction: the fraction.

    Returns:
        Dims but for the features'; NaN where there are no random directions.
    """
    nothing = xr.full_like(of_task["condition_indirect_effect"].isel(feature=0, drop=True), np.nan)
    if "control_indirect_effect" not in of_task:
        return nothing
    size = abs(of_task["control_indirect_effect"].sel(control=of_task["control"] != SHUFFLED))
    directions = size.stack(direction=("control", "feature")).dropna("direction")
    return directions.quantile(fraction, "direction") if directions.sizes["direction"] else nothing


@styled
def draw_contrast(
    relie: xr.Dataset,
    surface: str,
    conflicting: str,
    condition: str,
    checkpoint: str,
    marked: Sequence[int] = (),
    random_fraction: float = 0.95,
) -> Chart:
    """Draw IE on a surface task against IE on a conflicting one, in one condition of the latter, at one checkpoint.

    Shown are the features that are marked, and those with a measurable effect on either task. All figures of the same
    effects have the same scale and show the same features, so that these can be followed.

    Args:
        relie: effects on all tasks, as in `relie.zarr`.
        surface: the task that the surface rule solves.
        conflicting: the task on which it fails.
        condition: that of the conflicting task.
        checkpoint: revision.
        marked: features that stand for the surface rule, labelled with their numbers.
        random_fraction: which fraction of random directions stays within the level that is shown.
    """
    shown = sorted({*affecting(relie, (surface, conflicting)), *marked})
    effects = contrast_effects(relie, surface, conflicting, random_fraction).sel(feature=shown)
    scale = effect_scale(
        np.concatenate([effects[f"{name}_effect"].values.ravel() for name in ("surface", "conflicting")])
    )
    here = effects.sel(condition=condition, checkpoint=checkpoint)
    data = _rows(here, marked)
    chart = Chart(f"At {checkpoint}", data, _alt(data, surface, conflicting), WIDTH_IN, HEIGHT_IN)
    axes = chart.subplots()
    scale.apply(axes)
    xlabel, ylabel = (
        _axis_label(relie, task, width) for task, width in zip((surface, conflicting), LABEL_WIDTHS, strict=True)
    )
    axes.set(xlabel=xlabel, ylabel=ylabel)
    _shade(axes, scale, here, random_fraction)
    _points(axes, data)
    _label(axes, scale, data[data["role"] == SURFACE])
    chart.legend(loc="outside lower center", ncols=2)
    return chart


def _most_helpful(of_task: xr.Dataset) -> xr.Dataset:
    """Return effects and those of controls, each in the condition in which it is largest."""
    effects = [name for name in ("condition_indirect_effect", "control_indirect_effect") if name in of_task]
    return of_task[effects].max("condition", skipna=False)


def _in_conditions(relie: xr.Dataset, task: str) -> xr.Dataset:
    """Return the effects on a task in the conditions that it has, of those of all tasks."""
    of_task = relie.sel(task=task)
    return of_task.isel(condition=of_task["prefixes"].values > 0)


def _rows(here: xr.Dataset, marked: Sequence[int]) -> pd.DataFrame:
    columns = [f"{task}_effect{end}" for task in ("surface", "conflicting") for end in ENDS]
    table = here[columns].to_dataframe().reset_index()
    table["role"] = np.where(table["feature"].isin(list(marked)), SURFACE, OTHER)
    for level in ("surface_level", "conflicting_level"):
        table[level] = float(here[level])
    return table[["feature", "role", *columns, "surface_level", "conflicting_level", "condition", "checkpoint"]]


def _axis_label(relie: xr.Dataset, task: str, width: int) -> str:
    unit = plural(str(relie["unit"].sel(task=task).values))
    return textwrap.fill(f"IE on {plain(in_words(task))} ({unit})", width)


def _alt(data: pd.DataFrame, surface: str, conflicting: str) -> str:
    near, far = in_words(surface), in_words(conflicting)
    inside = int(((data["surface_effect"] > 0) & (data["conflicting_effect"] < 0)).sum())
    told = [
        f"feature {of.feature}: {signed(of.surface_effect)} and {signed(of.conflicting_effect)}"
        for of in data[data["role"] == SURFACE].itertuples()
    ]
    return (
        f"{counted(len(data), 'feature')} by their effects on {near} and on {far}; {inside} in the corner where a"
        f" feature helps the first and harms the second. {'; '.join(told) or 'None is marked'}."
    )


def _shade(axes: Axes, scale: EffectScale, here: xr.Dataset, random_fraction: float) -> None:
    axes.add_patch(Rectangle((0, -scale.limit), scale.limit, scale.limit, color=CORNER, linewidth=0, zorder=0))
    axes.annotate(
        SURFACE, (1, 0), (-4, 4), xycoords="axes fraction", textcoords="offset points", ha="right", color="#8A3E08"
    )
    x, y = float(here["surface_level"]), float(here["conflicting_level"])
    if np.isfinite([x, y]).all():
        label = f"{100 * random_fraction:g} % of random directions"
        axes.add_patch(Rectangle((-x, -y), 2 * x, 2 * y, color=LEVEL, linewidth=0, zorder=0.5, label=label))


def _points(axes: Axes, data: pd.DataFrame) -> None:
    others, own = (data[data["role"] == role] for role in (OTHER, SURFACE))
    axes.scatter(
        others["surface_effect"],
        others["conflicting_effect"],
        s=14,
        marker="o",
        color=QUIET,
        alpha=0.5,
        linewidths=0,
        label="other features",
        rasterized=len(others) > MANY_MARKS,
    )
    if len(own):
        (x, *x_ends), (y, *y_ends) = (
            [own[f"{task}_effect{end}"] for end in ENDS] for task in ("surface", "conflicting")
        )
        axes.hlines(y, *x_ends, color=PALETTE[1], linewidth=0.8)
        axes.vlines(x, *y_ends, color=PALETTE[1], linewidth=0.8)
        look: dict[str, Any] = {"color": PALETTE[1], "marker": "v", "markersize": 7, "markeredgecolor": "white"}
        axes.plot(x, y, linestyle="", label="features of the surface rule", **look)


def _label(axes: Axes, scale: EffectScale, own: pd.DataFrame) -> None:
    """Write the numbers of features beside the axes, joined to their points, so that none covers another."""
    x, y = own["surface_effect"].to_numpy(), own["conflicting_effect"].to_numpy()
    for feature, point, height in zip(own["feature"], zip(x, y, strict=True), spread(scale.place(y)), strict=True):
        axes.annotate(
            str(feature),
            point,
            (1.03, height),
            textcoords="axes fraction",
            va="center",
            color=INK,
            arrowprops={"arrowstyle": "-", "color": PALETTE[1], "linewidth": 0.5, "shrinkB": 3},
        )


def spread(places: np.ndarray, gap: float = LABEL_GAP) -> np.ndarray:
    """Return places from 0 to 1 that are at least a gap apart, in the order of those given and close to them."""
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    apart = np.minimum(np.maximum.accumulate(places[order] - steps) + steps, 1.0)
    moved = np.empty(len(places))
    moved[order] = np.minimum.accumulate((apart - steps)[::-1])[::-1] + steps
    return moved
