"""The share of the effect beside the share of the decoder norm, which is said to stand for it."""

import math

import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from chronocoder.attribution.agreement import spearman
from chronocoder.figures.chart import QUIET, Chart, plain, styled
from chronocoder.figures.pairs import PUBLISHED, class_handles, draw_pairs, pair_table, share_column, thresholds
from chronocoder.stores import names
from chronocoder.wording import counted, decimal, listed

PANELS_A_ROW = 3
PANEL_IN = 2.9
NORM = "reldec_"


@styled
def draw_decoder_share(relie: xr.Dataset) -> Chart:
    """Draw published RelIE over RelDec, a panel for each checkpoint, but of a pair only the later one.

    A point is a feature with a measurable effect on a task at some checkpoint.

    Args:
        relie: effects, dims (task, checkpoint, feature), of the tasks that are wanted.
    """
    checkpoints = shown_checkpoints(relie)
    table = decoder_share_table(relie)
    correlations = {name: rank_correlation(table, name) for name in checkpoints}
    columns = min(PANELS_A_ROW, len(checkpoints))
    rows = math.ceil(len(checkpoints) / columns)
    chart = Chart(
        "RelIE over RelDec",
        table,
        _alt(table, correlations),
        width_in=columns * PANEL_IN + 1.9,
        height_in=rows * PANEL_IN + 0.3,
    )
    chart.set_layout_engine("compressed")  # square panels, the labels of which would else leave the figure
    panels = chart.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for name, axes in zip(checkpoints, panels.ravel(), strict=False):
        draw_pairs(axes, table, (f"{NORM}{name}", share_column(name)))
        _frame(axes, relie.sizes["checkpoint"])
        axes.set_title(f"{plain(name)}: ρ = {decimal(correlations[name])}")
    for axes in panels.ravel()[len(checkpoints) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("published RelIE")
    for axes in panels.ravel()[len(checkpoints) - columns : len(checkpoints)]:  # the lowest one of each column
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("RelDec")
    chart.legend(handles=class_handles(table), title="class (pairs)", loc="outside right center")
    return chart


def decoder_share_table(relie: xr.Dataset) -> pd.DataFrame:
    """Return what `pair_table` does, with a column `reldec_<checkpoint>` for each checkpoint."""
    table = pair_table(relie, PUBLISHED)
    norms = relie["relative_decoder_norm"].sel(feature=table["feature"].to_numpy())
    shares = {f"{NORM}{name}": norms.sel(checkpoint=name).values for name in relie["checkpoint"].values}
    return table.assign(**shares)


def shown_checkpoints(relie: xr.Dataset) -> list[str]:
    """Return the checkpoints whose shares are drawn: all, but of a pair the later one."""
    checkpoints = names(relie, "checkpoint")
    return checkpoints if len(checkpoints) > 2 else checkpoints[-1:]


def rank_correlation(table: pd.DataFrame, checkpoint: str) -> float:
    """Return Spearman's correlation of RelDec and RelIE over pairs; NaN of fewer than three."""
    norm, share = (
        xr.DataArray(table[column].to_numpy(dtype=float), dims="pair")
        for column in (f"{NORM}{checkpoint}", share_column(checkpoint))
    )
    return float(spearman(norm, share, "pair"))


def _frame(axes: Axes, checkpoints: int) -> None:
    axes.axline((0, 0), (1, 1), color=QUIET, linestyle="--", marker="", linewidth=1)
    for place in thresholds(checkpoints):
        axes.axhline(place, color=QUIET, linestyle=":", marker="", linewidth=1.2)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")


def _alt(table: pd.DataFrame, correlations: dict[str, float]) -> str:
    of_each = [f"{decimal(value)} at {name}" for name, value in correlations.items()]
    return (
        f"RelIE over RelDec of {counted(len(table), 'feature–task pair')}, beside the diagonal on which both are equal."
        f" Rank correlation: {listed(of_each)}."
    )
