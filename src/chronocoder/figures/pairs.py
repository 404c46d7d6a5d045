"""Feature–task pairs: which are shown, their classes and shares, and how each class looks in every figure."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from chronocoder.attribution.measures import PRESENT_SHARE
from chronocoder.figures.chart import MANY_MARKS, PALETTE, plain

PUBLISHED, TOTAL = "published", "total_effect"
BASES = {PUBLISHED: "published RelIE", TOTAL: "RelIE of IE over total |IE|"}
"""What effects are divided by before they are shared out over checkpoints, and what the share is called."""
SMALLEST_MARK, LARGEST_MARK = 12, 160
MANY_LABELS = 12


class Mark(NamedTuple):
    """How a class looks.

    Attributes:
        colour: of marks and areas.
        marker: of points.
        hatch: of areas.
    """

    colour: str
    marker: str
    hatch: str


MARKS = {
    "emerged": Mark(PALETTE[0], "^", ""),
    "maintained": Mark(PALETTE[2], "s", "//"),
    "discontinued": Mark(PALETTE[1], "v", "\\\\"),
    "transient": Mark(PALETTE[4], "D", "xx"),
    "intermittent": Mark(PALETTE[3], "P", ".."),
    "uncertain": Mark("#9AA5B1", "o", ""),
}


def thresholds(checkpoints: int) -> list[float]:
    """Return the shares at which classes change: for a pair both ends, else the one that means present."""
    present = PRESENT_SHARE / checkpoints
    return [present, 1 - present] if checkpoints == 2 else [present]


def share_by(relie: xr.Dataset, basis: str, end: str = "") -> xr.DataArray:
    """Return RelIE by a basis, dims (task, checkpoint, feature).

    Args:
        relie: effects, dims (task, checkpoint, feature).
        basis: a key of `BASES`.
        end: `_low` or `_high` for an end of its interval.
    """
    if basis == PUBLISHED:
        return relie[f"relative_indirect_effect{end}"]
    return relie[f"normalised_relative_indirect_effect{end}"].sel(normalisation=basis, drop=True)


def class_by(relie: xr.Dataset, basis: str) -> xr.DataArray:
    """Return the class by a basis, dims (task, feature)."""
    if basis == PUBLISHED:
        return relie["feature_class"]
    return relie["normalised_class"].sel(normalisation=basis, drop=True)


def pair_table(relie: xr.Dataset, basis: str = PUBLISHED) -> pd.DataFrame:
    """Return the pairs of a task and a feature that has a measurable effect on it at some checkpoint, a row each.

    Args:
        relie: effects, dims (task, checkpoint, feature).
        basis: what classes and shares are by.

    Returns:
        Columns `task`, `feature`, `class`, `weight` (the feature's |IE|, summed over checkpoints, as a fraction of that
        of all features shown of the task), and `relie_<checkpoint>`.
    """
    seen = relie["measurable"].any("checkpoint")
    size = abs(relie["indirect_effect"]).sum("checkpoint").where(seen, 0.0)
    total = size.sum("feature")
    share = share_by(relie, basis)
    columns = {"class": class_by(relie, basis), "weight": size / total.where(total > 0)}
    columns |= {share_column(name): share.sel(checkpoint=name) for name in relie["checkpoint"].values}
    where = seen.transpose("task", "feature").values
    task, feature = np.nonzero(where)
    return pd.DataFrame(
        {
            "task": relie["task"].values[task].tolist(),
            "feature": relie["feature"].values[feature],
            **{name: values.transpose("task", "feature").values[where].tolist() for name, values in columns.items()},
        }
    )


def share_column(checkpoint: str) -> str:
    """Return what the column of RelIE at a checkpoint is called."""
    return f"relie_{checkpoint}"


def draw_pairs(axes: Axes, table: pd.DataFrame, places: Sequence[str]) -> None:
    """Draw pairs as points of their classes, the larger the more of the task's |IE| they carry.

    Args:
        axes: where.
        table: as `pair_table` returns it.
        places: the columns that say where: two, or three in a triangle.
    """
    scatter: Callable[..., object] = axes.scatter  # a triangle's takes three places
    for name, mark in MARKS.items():
        own = table[table["class"] == name]
        if len(own):
            scatter(
                *(own[place] for place in places),
                s=np.maximum(LARGEST_MARK * own["weight"].fillna(0), SMALLEST_MARK),
                marker=mark.marker,
                color=mark.colour,
                alpha=0.6,
                linewidths=0,
                rasterized=len(table) > MANY_MARKS,
            )


def class_handles(table: pd.DataFrame) -> list[Line2D]:
    """Return the entries of a legend: the classes that occur, with how many pairs each has."""
    counts = table["class"].value_counts()
    return [
        Line2D([], [], color=mark.colour, marker=mark.marker, linestyle="none", label=f"{name} ({counts[name]})")
        for name, mark in MARKS.items()
        if name in counts
    ]


def set_checkpoints(axes: Axes, checkpoints: Sequence[str], room: int = 4 * MANY_LABELS) -> None:
    """Label the places 0, 1, 2, … of a horizontal axis with checkpoints: of many, some, and always the last.

    Args:
        axes: where.
        checkpoints: their names.
        room: characters that fit side by side; where there are more, labels are slanted.
    """
    step = -(-len(checkpoints) // MANY_LABELS)
    places = list(range(len(checkpoints) - 1, -1, -step))[::-1]
    slanted = sum(len(checkpoints[place]) for place in places) > room
    axes.set_xticks(
        places,
        [plain(checkpoints[place]) for place in places],
        rotation=35 if slanted else 0,
        ha="right" if slanted else "center",
        rotation_mode="anchor" if slanted else "default",
    )
