"""How strongly a feature is active on validation text."""

import numpy as np
import pandas as pd
import xarray as xr

from chronocoder.figures.chart import Chart, styled


@styled
def draw_activations(features: xr.Dataset, feature: int) -> Chart:
    """Draw a histogram of a feature's activations above zero; the axis is logarithmic, as the bins are.

    Args:
        features: what is said of features, with `activation_count`, dims (feature, bin), and the edges of the bins.
        feature: number in the dictionary.

    Raises:
        KeyError: nothing is said of the feature.
    """
    own = features.sel(feature=feature)
    counts, low, high = (own[name].values for name in ("activation_count", "bin_low", "bin_high"))
    table = pd.DataFrame({"activation_low": low, "activation_high": high, "tokens": counts})
    chart = Chart(f"Activations of feature {feature}", table, "It is active on no validation token.")
    axes = chart.subplots()
    axes.set(xscale="log", xlabel="activation", ylabel="validation tokens")
    if counts.any():
        axes.stairs(counts, np.append(low, high[-1]), fill=True)
        most = int(counts.argmax())
        chart.alt = (
            f"Active on {counts.sum()} of {features.attrs['validation_tokens']} validation tokens, most often from"
            f" {low[most]:.2g} to {high[most]:.2g}."
        )
    return chart
