"""How many features have each class on each task, beside how many would by chance."""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.ticker import MaxNLocator

from chronocoder.attribution.measures import SHUFFLED
from chronocoder.figures.chart import INK, Chart, plain, styled
from chronocoder.figures.pairs import MARKS, TOTAL
from chronocoder.wording import in_words

ROW_IN, MARGIN_IN, WIDTH_IN = 0.42, 1.3, 8.0
THICK, THIN = 0.46, 0.22


def class_counts(relie: xr.Dataset, basis: str = TOTAL) -> pd.DataFrame:
    """Return how many features have each class but “no effect” on each task, and how many random directions would.

    Args:
        relie: what `relie.zarr` holds; with the counts of random directions where they were measured.
        basis: what effects are divided by: `published`, `total_effect` or `metric_size`.

    Returns:
        Columns task, class, features, expected (random directions with that class, scaled to as many as there are
        features; NaN without any), features_tested and p_value (Fisher's exact test, one-sided).
    """
    of_basis = relie.sel(basis=basis)
    counts = of_basis["class_count"].transpose("task", "class")
    nothing = xr.full_like(counts, np.nan, dtype=float)
    expected, p_value = nothing, nothing
    if "control_class_count" in relie:
        random = of_basis.isel(control=relie["control"].values != SHUFFLED)
        tested = random["controls_tested"].sum("control")
        fraction = random["control_class_count"].sum("control") / tested.where(tested > 0)
        expected, p_value = fraction * relie["features_tested"], of_basis["class_p_value"]
    columns = {
        "features": counts,
        "expected": expected,
        "features_tested": relie["features_tested"].broadcast_like(counts),
        "p_value": p_value,
    }
    table = xr.Dataset({name: values.transpose("task", "class") for name, values in columns.items()})
    shown = table.reset_coords(drop=True).sel({"class": list(MARKS)}).transpose("task", "class")
    return shown.to_dataframe(dim_order=["task", "class"]).reset_index().astype({"task": str, "class": str})


@styled
def draw_class_counts(relie: xr.Dataset, basis: str = TOTAL) -> Chart:
    """Draw how many features have each class on each task, and beneath how many random directions would.

    Args:
        relie: as for `class_counts`.
        basis: as for `class_counts`.
    """
    data = class_counts(relie, basis)
    tasks = list(dict.fromkeys(data["task"]))
    chart = Chart("Features by class and task", data, _alt(data), WIDTH_IN, MARGIN_IN + ROW_IN * len(tasks))
    axes = chart.subplots()
    places = np.arange(len(tasks))
    left, left_expected = np.zeros(len(tasks)), np.zeros(len(tasks))
    for name, mark in MARKS.items():
        of_class = data[data["class"] == name].set_index("task").loc[tasks]
        features, expected = of_class["features"].to_numpy(), np.nan_to_num(of_class["expected"].to_numpy())
        if features.any() or expected.any():
            like: Any = {"color": mark.colour, "hatch": mark.hatch, "edgecolor": "white", "linewidth": 0.4}
            axes.barh(places - 0.14, features, THICK, left, label=name, **like)
            axes.barh(places + 0.26, expected, THIN, left_expected, alpha=0.45, **like)
        left, left_expected = left + features, left_expected + expected
    for place, total in zip(places, left, strict=True):
        axes.annotate(f"{total:.0f}", (total, place - 0.14), (4, 0), textcoords="offset points", va="center", color=INK)
    axes.set_yticks(places, [plain(in_words(task)) for task in tasks])
    axes.set(xlabel="features (thick), and expected\nof random directions (thin, pale)", ylim=(len(tasks) - 0.4, -0.6))
    axes.grid(axis="y", visible=False)
    axes.margins(x=0.08)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.containers:
        chart.legend(loc="outside upper center", ncols=len(MARKS))
    return chart


def _alt(data: pd.DataFrame) -> str:
    totals = data.groupby("class", sort=False)[["features", "expected"]].sum(min_count=1)
    parts = [
        f"{of.features:.0f} {name}{'' if np.isnan(of.expected) else f' ({of.expected:.0f} expected by chance)'}"
        for name, of in totals.iterrows()
        if of.features
    ]
    return f"Feature–task pairs by class over {data['task'].nunique()} tasks: {', '.join(parts) or 'none'}."
