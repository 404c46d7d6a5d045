"""What all figures share: colours, type, and numbers short enough for a page."""

import html
from typing import Any

import numpy as np
import plotly.graph_objects as go

Json = dict[str, Any]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#B58900", "#222222", "#8C6BB1", "#7F7F7F")
"""Okabe and Ito's colours, told apart with any colour vision; the yellow is darkened for white paper."""
PAPER = "#FFFFFF"
INK = "#1F2933"
GRID = "#E4E7EB"
WRAP_AT = 22
MARGINS = {"l": 56, "r": 12, "t": 30, "b": 52}
LEGEND_BELOW_PX = 62
LEGEND_HEIGHT_PX = 40


def finished(figure: go.Figure, title: str, height_px: int) -> Json:
    """Return a figure as plain JSON (title, data, layout), in the report's type and with its legend below."""
    legend_y = -LEGEND_BELOW_PX / (height_px - MARGINS["t"] - LEGEND_BELOW_PX - LEGEND_HEIGHT_PX)
    figure.update_layout(
        template=go.layout.Template(),
        height=height_px,
        font={"family": "system-ui, sans-serif", "size": 12, "color": INK},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        margin=MARGINS,
        legend={"orientation": "h", "y": legend_y, "yanchor": "top", "x": 0},
        hoverlabel={"align": "left"},
    )
    figure.update_xaxes(gridcolor=GRID, automargin=True)
    figure.update_yaxes(gridcolor=GRID, automargin=True)
    document: Json = figure.to_dict()
    del document["layout"]["template"]
    return {"title": title, **document}


def wrapped(text: str, width: int = WRAP_AT) -> str:
    """Return text in lines of about `width` characters, as plotly's markup."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(html.escape(line) for line in lines)


def short(values: np.ndarray) -> list[Any]:
    """Return numbers in four digits as nested lists, with None for what is not finite."""
    flat = [float(f"{value:.4g}") if np.isfinite(value) else None for value in values.ravel().tolist()]
    nested: list[Any] = np.array(flat, dtype=object).reshape(values.shape).tolist()
    return nested
