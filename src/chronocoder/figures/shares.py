"""How effects are spread over RelIE: how many features, and how much of the summed |IE|, lie where."""

from collections.abc import Sequence
from textwrap import fill

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from chronocoder.figures.chart import INK, Chart, plain, styled
from chronocoder.figures.pairs import BASES, PUBLISHED, pair_table, share_column, thresholds
from chronocoder.stores import names
from chronocoder.tasks.groups import Group
from chronocoder.wording import counted, in_words, percent

BINS = 20
WRAP_AT = 26
COUNTED, WEIGHTED = "fraction_of_features", "fraction_of_effect"
PANELS = {COUNTED: "Fraction of features", WEIGHTED: "Fraction of |IE|"}
ROW_IN, ROUND_IN = 0.36, 1.3


@styled
def draw_shares(relie: xr.Dataset, checkpoint: str, basis: str = PUBLISHED, groups: Sequence[Group] = ()) -> Chart:
    """Draw how the features of each task are distributed over RelIE, counted once, and weighted by |IE|.

    Only features count that have a measurable effect on the task at some checkpoint. White: none.

    Args:
        relie: effects, dims (task, checkpoint, feature).
        checkpoint: whose RelIE it is.
        basis: a key of `BASES`.
        groups: of tasks, to draw the means over their tasks instead.
    """
    table = share_table(relie, checkpoint, basis, groups)
    rows = list(dict.fromkeys(table["row"]))
    chart = Chart("Distribution over RelIE", table, _alt(table, checkpoint, basis), height_in=_height(rows))
    counted_once, weighted = chart.subplots(1, 2, sharey=True)
    edges, limit = np.linspace(0, 1, BINS + 1), float(table[[COUNTED, WEIGHTED]].max(axis=None))
    for axes, (column, title) in zip((counted_once, weighted), PANELS.items(), strict=True):
        values = table[column].to_numpy().reshape(len(rows), BINS)
        image = axes.pcolormesh(edges, np.arange(len(rows) + 1), np.ma.masked_equal(100 * values, 0))
        image.set_clim(0, 100 * limit if limit > 0 else 1)
        axes.set(title=title, xlabel="RelIE", xlim=(0, 1), xticks=(0, 0.5, 1), xticklabels=("0", "0.5", "1"))
        axes.grid(visible=False)
        _mark_thresholds(axes, relie.sizes["checkpoint"])
    counted_once.set_yticks(np.arange(len(rows)) + 0.5, [fill(plain(row), WRAP_AT) for row in rows])
    counted_once.invert_yaxis()
    chart.colorbar(image, ax=[counted_once, weighted], label="% of the row", pad=0.02, fraction=0.05)
    return chart


def share_table(relie: xr.Dataset, checkpoint: str, basis: str, groups: Sequence[Group] = ()) -> pd.DataFrame:
    """Return the fractions of features and of |IE| by bin of RelIE.

    Returns:
        Columns `row` (task or group), `relie_low`, `relie_high`, `fraction_of_features`, and `fraction_of_effect`, of
        |IE|; both fractions are zero throughout a task without a measurable feature.
    """
    pairs = pair_table(relie, basis)
    tasks = names(relie, "task")
    by_task = {
        column: np.stack([_spread(pairs, task, checkpoint, column) for task in tasks]) for column in (COUNTED, WEIGHTED)
    }
    rows = [in_words(task) for task in tasks]
    if groups:
        rows = [f"{in_words(group.name)} ({counted(len(group.tasks), 'task')})" for group in groups]
        by_task = {
            column: _fractions(np.stack([of_tasks[group.tasks].sum(axis=0) for group in groups]))
            for column, of_tasks in by_task.items()
        }
    edges = np.linspace(0, 1, BINS + 1).round(4)
    return pd.DataFrame(
        {
            "row": np.repeat(rows, BINS),
            "relie_low": np.tile(edges[:-1], len(rows)),
            "relie_high": np.tile(edges[1:], len(rows)),
            **{column: values.ravel() for column, values in by_task.items()},
        }
    )


def _spread(pairs: pd.DataFrame, task: str, checkpoint: str, column: str) -> np.ndarray:
    own = pairs[pairs["task"] == task].dropna(subset=[share_column(checkpoint)])
    weights = own["weight"] if column == WEIGHTED else None
    amounts = np.histogram(own[share_column(checkpoint)], BINS, (0, 1), weights=weights)[0]
    return _fractions(amounts[None]).ravel()


def _fractions(amounts: np.ndarray) -> np.ndarray:
    """Return each row as fractions of its sum; zeros where that is zero."""
    fractions: np.ndarray = amounts / np.maximum(amounts.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return fractions


def _mark_thresholds(axes: Axes, checkpoints: int) -> None:
    for place in thresholds(checkpoints):
        axes.axvline(place, color="white", linestyle="-", marker="", linewidth=2.6)
        axes.axvline(place, color=INK, linestyle="--", marker="", linewidth=1.2)


def _alt(table: pd.DataFrame, checkpoint: str, basis: str) -> str:
    known = table[table.groupby("row")[COUNTED].transform("sum") > 0]
    upper = known[known["relie_low"] >= 0.5].groupby("row", sort=False)[[COUNTED, WEIGHTED]].sum()
    lows, highs = upper.min(), upper.max()
    return (
        f"Two heat maps, a row for each task or group, over {BASES[basis]} at {checkpoint} from 0 to 1. Of the features"
        f" with a measurable effect, {_range(lows[COUNTED], highs[COUNTED])} lie above one half; of their |IE|,"
        f" {_range(lows[WEIGHTED], highs[WEIGHTED])}. Dashed lines are the thresholds of the classes."
    )


def _range(low: float, high: float) -> str:
    return percent(low) if percent(low) == percent(high) else f"between {percent(low)} and {percent(high)}"


def _height(rows: Sequence[str]) -> float:
    lines = sum(1 + 0.5 * fill(row, WRAP_AT).count("\n") for row in rows)
    return ROUND_IN + ROW_IN * max(lines, 2)
