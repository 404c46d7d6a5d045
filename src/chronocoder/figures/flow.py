"""How features pass from one state to the next: presence over checkpoints, classes over successive comparisons."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.patches import Patch, PathPatch, Rectangle
from matplotlib.path import Path

from chronocoder.attribution.measures import threshold_of
from chronocoder.figures.chart import INK, PALETTE, Chart, plain, styled
from chronocoder.figures.pairs import MARKS, PUBLISHED, Mark, class_by, share_by
from chronocoder.stores import names
from chronocoder.wording import counted, listed, sentence

PRESENCE = {
    "present": Mark(PALETTE[0], "s", ""),
    "uncertain": MARKS["uncertain"],
    "absent": Mark(PALETTE[5], "o", "//"),
}
NO_EFFECT, NO_COUNTERPART = "no effect", "no counterpart"
FATES = {**MARKS, NO_EFFECT: Mark("#D9DEE4", "o", ""), NO_COUNTERPART: Mark("#FFFFFF", "o", "|||")}
BAR, GAP, LEAST_LABELLED = 0.14, 0.03, 0.035
FROM, TO, STATE, NEXT, COUNT = "from", "to", "state", "next_state", "pairs"
_CURVE = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]


@styled
def draw_presence(relie: xr.Dataset, basis: str = PUBLISHED) -> Chart:
    """Draw how many features are present, absent or uncertain at each checkpoint, and how they pass between these.

    Counted are feature–task pairs with a measurable effect at some checkpoint. From absent to present a feature
    emerges, from present to absent it is discontinued.

    Args:
        relie: effects, dims (task, checkpoint, feature), of the tasks that are wanted.
        basis: a key of `chronocoder.figures.pairs.BASES`.
    """
    states = presence_states(relie, basis)
    return _flow_chart(states, PRESENCE, "Presence over training")


@styled
def draw_succession(relies: Mapping[str, xr.Dataset], matches: Sequence[xr.DataArray], basis: str = PUBLISHED) -> Chart:
    """Draw what becomes of features of each class in the next comparison, which starts where the one before ends.

    Args:
        relies: effects by name of the comparison, in order of training; dims (task, checkpoint, feature).
        matches: for each comparison but the last, the feature of the next one that each of its features is matched
            with, dims (feature,); -1 where there is none.
        basis: a key of `chronocoder.figures.pairs.BASES`.
    """
    states = succession_states(relies, matches, basis)
    return _flow_chart(states, FATES, "Classes over successive comparisons")


def presence_states(relie: xr.Dataset, basis: str) -> xr.DataArray:
    """Return the state of each feature–task pair at each checkpoint by its interval, dims (moment, pair).

    Present: measurable, with the whole interval of the share above the threshold; absent: with the whole interval below
    it; else uncertain.
    """
    low, high = (share_by(relie, basis, end) for end in ("_low", "_high"))
    seen, threshold = relie["measurable"], threshold_of(low)
    kept = (seen.any("checkpoint") & low.notnull().all("checkpoint")).transpose("task", "feature").values
    present, absent = (
        values.transpose("checkpoint", "task", "feature").values[:, kept]
        for values in ((low > threshold) & seen, high < threshold)
    )
    states = np.where(present, "present", np.where(absent, "absent", "uncertain"))
    return xr.DataArray(states, dims=("moment", "pair"), coords={"moment": names(relie, "checkpoint")})


def succession_states(relies: Mapping[str, xr.Dataset], matches: Sequence[xr.DataArray], basis: str) -> xr.DataArray:
    """Return the class in each comparison of every chain of matched features on a task, dims (moment, pair).

    Only chains that have a measurable effect in some comparison are returned.
    """
    classes = [class_by(relie, basis).transpose("task", "feature") for relie in relies.values()]
    chains = _chains([of["feature"].values.tolist() for of in classes], matches)
    states = np.stack([_along(of, features) for of, features in zip(classes, chains, strict=True)])
    kept = ~np.isin(states, (NO_EFFECT, NO_COUNTERPART)).all(axis=0)
    return xr.DataArray(states[:, kept], dims=("moment", "pair"), coords={"moment": list(relies)})


def flow_table(states: xr.DataArray, order: Sequence[str]) -> pd.DataFrame:
    """Return how many pairs are of which state at each moment and of which at the next, a row for each that occurs."""
    moments = names(states, "moment")
    rows = []
    for place, (earlier, later) in enumerate(pairwise(moments)):
        found = Counter(zip(states.values[place].tolist(), states.values[place + 1].tolist(), strict=True))
        rows += [
            (earlier, later, state, following, found[state, following])
            for state in order
            for following in order
            if found[state, following]
        ]
    return pd.DataFrame(rows, columns=[FROM, TO, STATE, NEXT, COUNT])


def _chains(features: Sequence[Sequence[int]], matches: Sequence[xr.DataArray]) -> np.ndarray:
    """Return the features that are matched with one another, -1 where there is none; shape (comparison, chain)."""
    chains = [[feature] for feature in features[0]]
    for own, match in zip(features[1:], matches, strict=True):
        partner = dict(zip(match["feature"].values.tolist(), match.values.tolist(), strict=True))
        length = len(chains[0])
        for chain in chains:
            chain.append(partner.get(chain[-1], -1))
        met = {chain[-1] for chain in chains}
        chains += [[*[-1] * length, feature] for feature in own if feature not in met]
    return np.array(chains).T


def _along(classes: xr.DataArray, features: np.ndarray) -> np.ndarray:
    """Return the classes of features on all tasks, one task after the other; no counterpart where a feature is -1."""
    found = classes.reindex(feature=features.clip(0)).values.astype(object)
    found[:, features < 0] = NO_COUNTERPART
    return found.ravel()


def _flow_chart(states: xr.DataArray, marks: Mapping[str, Mark], title: str) -> Chart:
    table, moments = flow_table(states, list(marks)), names(states, "moment")
    chart = Chart(title, table, _alt(states, table), width_in=max(6.4, 1.9 * len(moments) + 1.6), height_in=4.4)
    axes = chart.subplots()
    gap, total = GAP * states.sizes["pair"], states.sizes["pair"]
    tops = [_draw_bar(axes, place, states.values[place], marks, gap, total) for place in range(len(moments))]
    for place, name in enumerate(moments[:-1]):
        _draw_ribbons(axes, place, table[table[FROM] == name], tops[place], tops[place + 1], marks)
    axes.set_xticks(range(len(moments)), [plain(name) for name in moments])
    axes.set(xlim=(-0.2, len(moments) - 0.65), yticks=[], ylabel="feature–task pairs")
    axes.invert_yaxis()
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    used = set(states.values.ravel().tolist())
    handles = [
        Patch(facecolor=mark.colour, edgecolor=INK, hatch=mark.hatch, linewidth=0.6, label=name)
        for name, mark in marks.items()
        if name in used
    ]
    chart.legend(handles=handles, loc="outside right center")
    return chart


def _draw_bar(
    axes: Axes, place: int, states: np.ndarray, marks: Mapping[str, Mark], gap: float, total: int
) -> dict[str, float]:
    """Draw how many pairs are of each state at one moment, and return where each state starts."""
    tops, top = {}, 0.0
    for name, mark in marks.items():
        count = int((states == name).sum())
        if not count:
            continue
        tops[name] = top
        axes.add_patch(
            Rectangle(
                (place - BAR / 2, top),
                BAR,
                count,
                facecolor=mark.colour,
                edgecolor=INK,
                hatch=mark.hatch,
                linewidth=0.6,
                zorder=3,
            )
        )
        if count >= LEAST_LABELLED * total:
            axes.text(place + 0.6 * BAR, top + count / 2, f" {count}", va="center", fontsize=9, zorder=4)
        top += count + gap
    axes.update_datalim([(place, 0), (place, top)])
    axes.autoscale_view()
    return tops


def _draw_ribbons(
    axes: Axes,
    place: int,
    flows: pd.DataFrame,
    tops: Mapping[str, float],
    next_tops: Mapping[str, float],
    marks: Mapping[str, Mark],
) -> None:
    """Draw ribbons between two moments, as high as the number of pairs, in the colour of where they start."""
    left, right = dict(tops), dict(next_tops)
    begin, end = place + BAR / 2, place + 1 - BAR / 2
    middle = (begin + end) / 2
    for _, _, state, following, count in flows.itertuples(index=False):
        start, stop = left[state], right[following]
        corners = [(begin, start), (middle, start), (middle, stop), (end, stop)]
        back = [(x, y + count) for x, y in reversed(corners)]
        colour = marks[state].colour if marks[state].colour != "#FFFFFF" else "#7F7F7F"
        axes.add_patch(PathPatch(Path([*corners, *back], _CURVE), facecolor=colour, alpha=0.35, linewidth=0))
        left[state] += count
        right[following] += count


def _alt(states: xr.DataArray, table: pd.DataFrame) -> str:
    largest = table[table[STATE] != table[NEXT]].nlargest(3, COUNT)
    parts = [
        f"{count} pass from {state} at {earlier} to {following} at {later}"
        for earlier, later, state, following, count in largest.itertuples(index=False)
    ]
    said = f"{sentence(listed(parts))}." if parts else "None passes from one state to another."
    count, moments = counted(states.sizes["pair"], "feature–task pair"), listed(names(states, "moment"))
    return f"Flow of {count} over {moments}. {said}"
