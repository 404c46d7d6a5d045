"""How the training of crosscoders went."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import xarray as xr

from chronocoder.figures.chart import HEIGHT_IN, LINES, MARKERS, PALETTE, Chart, plain, styled

METRICS = {
    "explained_variance": "Explained variance of the batch",
    "l0": "Active latents per token (L0)",
    "dead_fraction": "Dead latents (fraction)",
    "loss": "Training loss",
}
LOG_METRICS = ("l0", "loss")
LEGEND_COLUMNS, LEGEND_ROW_IN = 2, 0.18
MARKS = 8
FILLINGS = ("full", "none", "left", "right", "top", "bottom")


@styled
def draw_training(trainings: Sequence[xr.Dataset], metric: str) -> Chart:
    """Draw one metric over the training steps, with a line for each crosscoder.

    Colours and markers tell comparisons apart, line styles variants, and the filling of markers seeds.

    Args:
        trainings: what `training.zarr` holds of each crosscoder, dims (step,) or (step, checkpoint), of which the mean
            is drawn.
        metric: one of `METRICS`.
    """
    data = pd.concat([_curve(training, metric) for training in trainings], ignore_index=True)
    last = data.groupby(["comparison", "variant", "seed"], sort=False)[metric].last()
    alt = f"{METRICS[metric]}, {len(trainings)} lines; at the last step between {last.min():.3g} and {last.max():.3g}."
    rows = -(-len(trainings) // LEGEND_COLUMNS)
    chart = Chart(f"{METRICS[metric]} over training", data, alt, height_in=HEIGHT_IN + LEGEND_ROW_IN * rows)
    axes = chart.subplots()
    for (comparison, variant, seed), curve in data.groupby(["comparison", "variant", "seed"], sort=False):
        axes.plot(
            curve["step"],
            curve[metric],
            label=plain(f"{comparison} · {variant} · seed {seed}"),
            color=_of(PALETTE, data["comparison"], comparison),
            linestyle=_of(LINES, data["variant"], variant),
            marker=_of(MARKERS, data["comparison"], comparison),
            fillstyle=_of(FILLINGS, data["seed"], seed),
            markevery=max(1, len(curve) // MARKS),
        )
    axes.set(xlabel="training step", ylabel=METRICS[metric], yscale="log" if metric in LOG_METRICS else "linear")
    if metric == "explained_variance":
        axes.set_ylim(top=1.02)
    chart.legend(loc="outside lower center", ncols=LEGEND_COLUMNS)
    return chart


def _curve(training: xr.Dataset, metric: str) -> pd.DataFrame:
    values = training[metric]
    means = values.mean([dim for dim in values.dims if dim != "step"])
    names = {name: training.attrs[name] for name in ("comparison", "variant", "seed")}
    return pd.DataFrame({**names, "step": training["step"].values, metric: means.values})


def _of(styles: Sequence[Any], values: pd.Series, value: Any) -> Any:
    """Return the style of one of several values, in the order in which they occur."""
    return styles[values.unique().tolist().index(value) % len(styles)]
