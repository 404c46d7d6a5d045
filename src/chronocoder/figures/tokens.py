"""The axis of tokens seen: a log axis on which zero has a place, too."""

import numpy as np
from matplotlib.axes import Axes

from chronocoder.wording import short_count

ZERO_GAP = 4
FEW_DECADES = 3.5


def token_places(tokens_seen: np.ndarray) -> np.ndarray:
    """Return places on a log axis: the counts themselves, with zero a fixed factor left of the smallest one above."""
    positive = tokens_seen[tokens_seen > 0]
    left = float(positive.min()) / ZERO_GAP if len(positive) else 1.0
    return np.where(tokens_seen > 0, tokens_seen, left).astype(float)


def draw_token_axis(axes: Axes, tokens_seen: np.ndarray) -> None:
    """Make the horizontal axis a log axis for the places of `token_places`, with zero labelled as what it is."""
    places = token_places(tokens_seen)
    low, high = np.log10([places.min(), places.max()]).tolist()
    steps = (1, 3) if high - low < FEW_DECADES else (1,)
    decades = range(int(np.floor(low)), int(np.ceil(high)) + 1)
    smallest = float(tokens_seen[tokens_seen > 0].min(initial=10**high))
    marks = [float(step * 10.0**decade) for decade in decades for step in steps]
    ticks = {mark: short_count(mark) for mark in marks if smallest <= mark <= 10**high}
    if (tokens_seen == 0).any():
        ticks[10**low] = "0"
    axes.set_xscale("log")
    axes.set_xticks(list(ticks), labels=list(ticks.values()))
    axes.minorticks_off()
    axes.set_xlim(10 ** (low - 0.1), 10 ** (high + 0.1))
    axes.set_xlabel("tokens seen (log scale)")
