"""What features do when they are ablated together."""

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from chronocoder.figures.chart import INK, PALETTE, QUIET, Chart, styled
from chronocoder.wording import decimal, plural

MARGIN = 0.08
WIDTH_IN, HEIGHT_IN = 4.6, 3.7
EFFECTS = {
    "top_set_effect": "top_features",
    "top_set_estimate": "sum_of_their_effects",
    "random_mean": "random_features",
    "random_lowest": "random_features_lowest",
    "random_highest": "random_features_highest",
}
"""Columns of the numbers by variable."""


@styled
def draw_faithfulness(ablation: xr.Dataset, checkpoint: str) -> Chart:
    """Draw the effect of ablating the features of largest |IE| together, by their number.

    Beside it are the sum of their single effects, random sets of features (the mean, and the range of the draws), and
    the effect at which nothing is left of the model's preference for the right answer. All checkpoints of a store have
    the same scale.

    Args:
        ablation: the store of exact ablation of one task.
        checkpoint: revision.
    """
    whole = with_range(ablation)
    here = whole.sel(checkpoint=checkpoint)
    data = _rows(here)
    accuracy, units = float(here["clean_accuracy"]), plural(str(here["top_set_effect"].attrs["units"]))
    title = f"At {checkpoint}, where accuracy is {decimal(accuracy)}"
    chart = Chart(title, data, _alt(data, units), WIDTH_IN, HEIGHT_IN)
    axes = chart.subplots()
    _curves(axes, data, here.sizes["draw"])
    sizes = whole["set_size"].values.tolist()
    axes.set_xscale("log")
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set(xlim=(sizes[0] / 1.15, sizes[-1] * 1.15), ylim=_bounds(whole))
    axes.set(xlabel="features ablated together (log scale)", ylabel=f"effect ({units})")
    chart.legend(loc="outside lower center", ncols=2)
    return chart


def with_range(ablation: xr.Dataset) -> xr.Dataset:
    """Return a store with the mean and the range of the effects of its random sets, dims (checkpoint, set_size)."""
    random = ablation["random_set_effect"]
    return ablation.assign(
        random_mean=random.mean("draw"), random_lowest=random.min("draw"), random_highest=random.max("draw")
    )


def _bounds(ablation: xr.Dataset) -> tuple[float, float]:
    """Return limits that hold every curve at every checkpoint."""
    values = np.concatenate([ablation[name].values.ravel() for name in (*EFFECTS, "clean_difference")] + [np.zeros(1)])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    margin = MARGIN * max(high - low, 1e-6)
    return low - margin, high + margin


def _rows(here: xr.Dataset) -> pd.DataFrame:
    effects = {column: here[name].values for name, column in EFFECTS.items()}
    accuracies = {
        "accuracy_without_top_features": here["top_set_accuracy"].values,
        "accuracy_without_random_features": here["random_set_accuracy"].mean("draw").values,
    }
    sizes = {"checkpoint": str(here["checkpoint"].values), "features_ablated": here["set_size"].values}
    preference = {"no_preference_left": float(here["clean_difference"]), "accuracy": float(here["clean_accuracy"])}
    return pd.DataFrame({**sizes, **effects, **preference, **accuracies})


def _alt(data: pd.DataFrame, units: str) -> str:
    known = data.dropna(subset=["top_features"])
    if known.empty:
        return "Too few features are active to ablate any set of them."
    most = known.iloc[-1]
    return (
        f"Ablated together, the {most.features_ablated} features of largest effect change right minus wrong by"
        f" {decimal(most.top_features)} {units}, their single effects add up to {decimal(most.sum_of_their_effects)},"
        f" and as many random features change it by {decimal(most.random_features)}; no preference is left at"
        f" {decimal(most.no_preference_left)}."
    )


def _curves(axes: Axes, data: pd.DataFrame, draws: int) -> None:
    sizes = data["features_ablated"]
    axes.fill_between(
        sizes, data["random_features_lowest"], data["random_features_highest"], color=QUIET, alpha=0.25, linewidth=0
    )
    axes.plot(sizes, data["random_features"], "s-", color=QUIET, label=f"random features, {draws} draws")
    axes.plot(sizes, data["top_features"], "o-", color=PALETTE[0], linewidth=2.2, label="top features")
    axes.plot(sizes, data["sum_of_their_effects"], "x--", color=PALETTE[1], label="sum of their IE")
    axes.plot(sizes, data["no_preference_left"], ":", marker="", color=INK, linewidth=1.2, label="no preference left")
    axes.axhline(0, color=QUIET, linewidth=0.8, linestyle="-", marker="")
