"""The shares of three checkpoints in a triangle: what a feature of a triplet does when."""

import pandas as pd
import xarray as xr
from mpltern.ternary import TernaryAxes

from chronocoder.errors import StoreError
from chronocoder.figures.chart import QUIET, Chart, plain, styled
from chronocoder.figures.pairs import (
    BASES,
    class_handles,
    draw_pairs,
    pair_table,
    share_column,
    thresholds,
)
from chronocoder.stores import names
from chronocoder.wording import counted, listed, sentence

CORNERS = 3
TICKS = (0.2, 0.4, 0.6, 0.8)


@styled
def draw_ternary(relie: xr.Dataset) -> Chart:
    """Draw the RelIE of the features of a comparison of three checkpoints, by both bases beside each other.

    A point is a feature with a measurable effect on a task at some checkpoint. In a corner, all of its |IE| is at that
    checkpoint; on the opposite side, none of it.

    Args:
        relie: effects, dims (task, checkpoint, feature), of the tasks that are wanted.

    Raises:
        StoreError: there are not three checkpoints.
    """
    checkpoints = names(relie, "checkpoint")
    if len(checkpoints) != CORNERS:
        raise StoreError(f"a triangle has three corners, but there are {counted(len(checkpoints), 'checkpoint')}")
    tables = {basis: pair_table(relie, basis) for basis in BASES}
    table = pd.concat([own.assign(basis=BASES[basis]) for basis, own in tables.items()], ignore_index=True)
    chart = Chart(f"RelIE at {listed(checkpoints)}", table, _alt(tables, checkpoints), width_in=9.0, height_in=5.2)
    chart.set_layout_engine("none")  # it knows nothing of triangles
    for (basis, own), begin in zip(tables.items(), (0.0, 0.5), strict=True):
        axes = TernaryAxes(chart, (begin + 0.07, 0.24, 0.37, 0.62))
        chart.add_axes(axes)
        left, top, right = checkpoints
        draw_pairs(axes, own, [share_column(name) for name in (top, left, right)])
        axes.set(tlabel=plain(top), llabel=plain(left), rlabel=plain(right))
        axes.set_title("", y=1)  # else the place of a title, which it does not have, takes longest of all
        for axis in (axes.taxis, axes.laxis, axes.raxis):
            axis.set_label_position("corner")
            axis.set_ticks(TICKS)
        (present,) = thresholds(CORNERS)
        for line in (axes.axtline, axes.axlline, axes.axrline):
            line(present, color=QUIET, linestyle=":", linewidth=1.2, marker="")
        chart.text(begin + 0.02, 0.95, sentence(BASES[basis]))
        chart.legend(handles=class_handles(own), loc="lower center", bbox_to_anchor=(begin + 0.25, 0.0), ncols=2)
    return chart


def _alt(tables: dict[str, pd.DataFrame], checkpoints: list[str]) -> str:
    parts = []
    for basis, table in tables.items():
        largest = table[[share_column(name) for name in checkpoints]].idxmax(axis="columns")
        counts = [f"{(largest == share_column(name)).sum()} at {name}" for name in checkpoints]
        parts.append(f"by {BASES[basis]}, {listed(counts)}")
    return (
        f"Two triangles whose corners are {listed(checkpoints)}; a point is one of {len(next(iter(tables.values())))}"
        f" feature–task pairs. Pairs whose largest share is there: {'; '.join(parts)}."
    )
