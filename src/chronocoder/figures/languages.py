"""How many languages features serve, beside what chance alone would give."""

import numpy as np
import xarray as xr
from matplotlib.ticker import MaxNLocator

from chronocoder.figures.chart import INK, PALETTE, Chart, plain, styled
from chronocoder.figures.lines import PANEL_ROOM, add_legend, draw_checkpoint_axis
from chronocoder.figures.panels import draw_panels
from chronocoder.figures.tidy import tidy
from chronocoder.stores import names
from chronocoder.wording import counted, decimal, in_words, sentence

HATCHES = ("", "///", "...", "xxx", "\\\\\\", "---", "+++", "ooo")
CHANCE_COLUMNS = {f"several_{name}": f"several_{name}" for name in ("by_chance", "by_chance_low", "by_chance_high")}
BAR_WIDTH = 0.6


@styled
def draw_languages_served(consolidation: xr.Dataset) -> Chart:
    """Draw how many features measurably help in how many languages at each checkpoint, a panel for each family.

    Features that serve most languages are at the bottom, so that those that serve several can be held against their
    number with the features of each language exchanged at random.

    Args:
        consolidation: what `consolidate` gives, with `features_serving` (family, checkpoint, served).
    """
    families = names(consolidation, "family")
    columns = {"features_serving": "features", **CHANCE_COLUMNS, "several_beyond": "several_beyond"}
    data = tidy(consolidation, columns, ("family", "checkpoint", "served"))
    chart = Chart("Features by how many languages they serve", data, _words(consolidation))
    for axes, family in draw_panels(chart, families):
        here = consolidation.sel(family=family)
        places = draw_checkpoint_axis(axes, here, PANEL_ROOM)
        bottom = np.zeros(len(places))
        for served in here["served"].values[::-1].tolist():
            features = here["features_serving"].sel(served=served).values
            axes.bar(
                places,
                features,
                BAR_WIDTH,
                bottom,
                color=PALETTE[(served - 1) % len(PALETTE)],
                hatch=HATCHES[(served - 1) % len(HATCHES)],
                edgecolor="white",
                linewidth=0.5,
                label=counted(served, "language"),
            )
            bottom = bottom + features
        chance, low, high = (here[name].values for name in CHANCE_COLUMNS)
        axes.vlines(places, low, high, color=INK, linewidth=1.2)  # a mean of rare counts may lie above most of them
        axes.plot(places, chance, "D", color=INK, markersize=4, label="two or more, by chance")
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        axes.set(ylabel="features", xlim=(-0.6, len(places) - 0.4))
        axes.set_title(plain(sentence(in_words(family))), fontsize=9)
    add_legend(chart, chart.axes[0])
    return chart


def _words(consolidation: xr.Dataset) -> str:
    """Return in words how many features serve several languages at the last checkpoint."""
    last = consolidation.isel(checkpoint=-1)
    several = last["features_serving"].isel(served=slice(1, None)).sum("served")
    parts = [
        f"{int(several.sel(family=family))} ({decimal(float(last['several_by_chance'].sel(family=family)))} by chance)"
        f" on {in_words(family)}"
        for family in names(last, "family")
    ]
    return (
        "A panel for each family, a bar for each checkpoint. Features that serve two or more languages at"
        f" {last['checkpoint'].values}: {'; '.join(parts)}."
    )
