"""What every figure has to keep to."""

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from chronocoder.figures.chart import Chart

SLACK_PX = 1.0


def overlapping(chart: Chart) -> list[tuple[str, str]]:
    """Return the texts of a figure that cover each other, or run out of it."""
    canvas = FigureCanvasAgg(chart)
    canvas.draw()
    shown = [text for text in chart.findobj(Text) if text.get_visible() and text.get_text().strip() and in_view(text)]
    # of an annotation without its arrow
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in shown]
    whole = chart.bbox
    found = [
        (text, "edge")
        for text, box in boxes
        if box.x0 < whole.x0 - SLACK_PX
        or box.y0 < whole.y0 - SLACK_PX
        or box.x1 > whole.x1 + SLACK_PX
        or box.y1 > whole.y1 + SLACK_PX
    ]
    for (text, box), (other, beside) in combinations(boxes, 2):
        width = min(box.x1, beside.x1) - max(box.x0, beside.x0)
        height = min(box.y1, beside.y1) - max(box.y0, beside.y0)
        if width > SLACK_PX and height > SLACK_PX:
            found.append((text, other))
    return found


def in_view(text: Text) -> bool:
    """Say whether a text is drawn: labels of ticks outside the limits are not."""
    for axes in text.get_figure().axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [label for tick in axis.get_major_ticks() for label in (tick.label1, tick.label2)]
            if text in labels:
                low, high = sorted(axis.get_view_interval())
                place = text.get_position()[0 if axis is axes.xaxis else 1]
                return low <= place <= high
    return True
