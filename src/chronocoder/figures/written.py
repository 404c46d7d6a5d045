"""How much of the changes of effects is due to what is written to the site."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from chronocoder.attribution.measures import CONTROL, TOP
from chronocoder.figures.chart import PALETTE, QUIET, Chart, styled
from chronocoder.figures.rows import ROWS_WIDTH_IN, offsets, row_labels, rows_height_in, set_rows
from chronocoder.wording import counted, in_words

ENDS = ("", "_low", "_high")
MARGIN = 0.05
TOP_LOOK: dict[str, Any] = {"color": PALETTE[0], "marker": "o", "markersize": 6}
RANDOM_LOOK: dict[str, Any] = {"color": QUIET, "marker": "D", "markersize": 4, "markerfacecolor": "white"}
TOP_WORDS, RANDOM_WORDS = "top features", "random directions in their place"


@styled
def draw_written_shares(ablations: Mapping[str, xr.Dataset], pair: int = 0) -> Chart:
    """Draw the share of what is written in the changes of effects between two checkpoints, a row a task.

    Top features stand beside random directions with their codes and norms, a mark for each draw. Random active features
    are left out: their changes are too small for their share to be of use.

    Args:
        ablations: the stores of exact ablation by task.
        pair: place of the pair of checkpoints in them.
    """
    of_pair = {task: store.isel(pair=pair) for task, store in ablations.items()}
    data = pd.concat([_rows(store, task) for task, store in of_pair.items()], ignore_index=True)
    labels = row_labels([in_words(task) for task in of_pair])
    earlier, later = (str(next(iter(of_pair.values()))[name].values) for name in ("earlier", "later"))
    chart = Chart(f"From {earlier} to {later}", data, _alt(data, earlier, later), ROWS_WIDTH_IN, rows_height_in(labels))
    axes = chart.subplots()
    set_rows(axes, labels)
    groups = list(dict.fromkeys(data["group"]))
    for group, offset in zip(groups, offsets(len(groups)), strict=True):
        own = data[data["group"] == group]
        look = TOP_LOOK if group == TOP else RANDOM_LOOK
        rows = np.arange(len(own)) + offset
        axes.hlines(rows, own["low"], own["high"], color=look["color"], linewidth=1)
        axes.plot(own["share"], rows, linestyle="", label=_label(group, groups), **look)
    for bound in (0, 1):
        axes.axvline(bound, color=QUIET, linewidth=1, linestyle=":", marker="")
    axes.set_xlim(*_limits(data["share"].to_numpy()))
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %".replace("-", "−"))
    axes.set_xlabel("share due to what is written")
    chart.legend(loc="outside lower center", ncols=2)
    return chart


def _rows(of_pair: xr.Dataset, task: str) -> pd.DataFrame:
    """Return the shares of the groups, top features first."""
    groups = sorted((str(name) for name in of_pair["group"].values if name != CONTROL), key=TOP.__ne__)
    chosen = of_pair.sel(group=groups)
    columns = {
        name: chosen[f"written_share{end}"].values for name, end in zip(("share", "low", "high"), ENDS, strict=True)
    }
    return pd.DataFrame({"task": task, "group": groups, **columns})


def _alt(data: pd.DataFrame, earlier: str, later: str) -> str:
    top, random = (data[is_group] for is_group in (data["group"] == TOP, data["group"] != TOP))
    text = (
        f"Share of what is written in the changes of effects from {earlier} to {later} on"
        f" {counted(len(top), 'task')}: {_range(top['share'])} for the top features"
    )
    return f"{text}, {_range(random['share'])} for random directions." if len(random) else f"{text}."


def _range(shares: pd.Series) -> str:
    if shares.isna().all():
        return "undefined"
    return f"{100 * shares.min():.0f} to {100 * shares.max():.0f} %".replace("-", "−")


def _label(group: str, groups: list[str]) -> str:
    """Return the group's entry in the legend: draws share that of the first one."""
    if group == TOP:
        return TOP_WORDS
    return RANDOM_WORDS if group == groups[1] else "_"


def _limits(shares: np.ndarray) -> tuple[float, float]:
    """Return limits that hold all shares, zero and one; intervals may run out of them."""
    known = np.concatenate([shares[np.isfinite(shares)], [0.0, 1.0]])
    margin = MARGIN * (known.max() - known.min())
    return float(known.min() - margin), float(known.max() + margin)
