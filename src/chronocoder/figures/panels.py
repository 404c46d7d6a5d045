"""Small panels side by side that share a legend."""

from collections.abc import Collection, Iterator
from typing import TypeVar

from matplotlib.axes import Axes

from chronocoder.figures.chart import WIDTH_IN, Chart

PANELS_A_ROW = 2
PANEL_HEIGHT_IN, LEGEND_IN = 2.4, 0.6
Shown = TypeVar("Shown")


def draw_panels(chart: Chart, shown: Collection[Shown]) -> Iterator[tuple[Axes, Shown]]:
    """Make the chart as high as its panels need, and yield axes for each thing shown; one has the whole width."""
    columns = min(PANELS_A_ROW, len(shown))
    rows = -(-len(shown) // columns)
    chart.set_size_inches(WIDTH_IN, LEGEND_IN + PANEL_HEIGHT_IN * rows)
    panels = chart.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    yield from zip(panels, shown, strict=False)
