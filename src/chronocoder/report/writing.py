"""Writer or reader: how much of the changes of effects is due to what is written, in sentences, rows and a figure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from chronocoder.attribution.measures import CONTROL, TOP
from chronocoder.report.compact import nested
from chronocoder.report.inputs import Contrast, Run, names
from chronocoder.report.style import INK, PALETTE, Json, finished, short, wrapped
from chronocoder.report.text import in_words, percent, plural, quoted, sentence

ROWS = 10
MOST_NAMED = 4  # tasks that a sentence of the summary names one by one
TASK_PX = 34
TOP_WORDS, RANDOM_WORDS = "top features", "random directions in place of the top features"


def writing_data(ablation: xr.Dataset) -> list[dict[str, Any]]:
    """Return for each pair of checkpoints a sentence, and a row for each of the features whose effect changes most.

    Args:
        ablation: of one task.
    """
    return [_pair_data(ablation.isel(pair=pair)) for pair in range(ablation.sizes["pair"])]


def draw_written_shares(run: Run) -> list[Json]:
    """Return the share of what is written in the changes on each task, one figure for each pair of checkpoints."""
    stores = [run.ablations[task] for task in run.tasks]
    return [
        _share_figure(run.tasks, [store.isel(pair=pair) for store in stores]) for pair in range(stores[0].sizes["pair"])
    ]


def writing_sentence(run: Run, contrasts: Sequence[Contrast]) -> str:
    """Return on which the changes from first to last checkpoint rest where a surface rule fails; else on all tasks."""
    tasks = list(dict.fromkeys(contrast.conflicting for contrast in contrasts)) or run.tasks
    ends = run.checkpoints[0], run.checkpoints[-1]
    shares = [_between(run.ablations[task], *ends) for task in tasks]
    if len(tasks) > MOST_NAMED:
        return _many_sentence(run, ends, shares)
    parts = [
        f"{_with_ends(share.sel(group=TOP))} on {quoted(task)}{_against(_draws_of(share))}"
        for task, share in zip(tasks, shares, strict=True)
    ]
    return (
        f"In {run.key.label}, from {ends[0]} to {ends[1]}, what is written accounts for this share of the changes of IE"
        f" of the top features: {'; '.join(parts)}. The rest is due to how it is read."
    )


def _many_sentence(run: Run, ends: tuple[str, str], shares: Sequence[xr.Dataset]) -> str:
    """Return the median over many tasks, and on how many of them no draw of random directions is as low or as high."""
    top = np.array([float(share.sel(group=TOP)["written_share"]) for share in shares])
    median = _signed_percent(float(np.nanmedian(top)))
    text = (
        f"In {run.key.label}, from {ends[0]} to {ends[1]}, what is written accounts for {median} of the changes of IE"
        f" of the top features (the median of {len(shares)} tasks); the rest is due to how it is read."
    )
    draws = np.array([_draws_of(share)["written_share"].values for share in shares])
    if not draws.shape[1]:
        return f"{text} Random directions were not measured."
    below, above = (top < draws.min(axis=1)).sum(), (top > draws.max(axis=1)).sum()
    return (
        f"{text} The share is below every draw of random directions ({draws.shape[1]}) on {below} of them, and above"
        f" every draw on {above}."
    )


def _against(draws: xr.Dataset) -> str:
    count = draws.sizes["group"]
    if not count:
        return " (random directions were not measured)"
    return f", against {_range_of_shares(draws)} for random directions ({count} draws)"


def _between(ablation: xr.Dataset, earlier: str, later: str) -> xr.Dataset:
    """Return what a store holds of one pair of checkpoints."""
    pairs = list(zip(names(ablation, "earlier"), names(ablation, "later"), strict=True))
    return ablation.isel(pair=pairs.index((earlier, later)))


def _pair_data(of_pair: xr.Dataset) -> dict[str, Any]:
    ends = [str(of_pair[name].values) for name in ("earlier", "later")]
    effect = of_pair["own_effect"].sel(checkpoint=ends).transpose("checkpoint", "feature")
    is_top = of_pair["role"].values == TOP
    size = np.where(is_top, abs(effect[1] - effect[0]), -1.0)
    order = np.argsort(-size, kind="stable")[: min(ROWS, is_top.sum())]
    chosen, own = of_pair.isel(feature=order), of_pair["own_code"].sel(checkpoint=ends).isel(feature=order)
    parts = [[chosen[f"{part}_change{end}"].values for end in ("", "_low", "_high")] for part in ("written", "read")]
    return {
        "checkpoints": ends,
        "sentence": _pair_sentence(of_pair),
        "features": chosen["feature"].values.tolist(),
        "effect": nested(effect.isel(feature=order).values),
        "changes": nested(np.array(parts)),
        "ownCode": own.transpose("checkpoint", "feature").values.astype(int).tolist(),
    }


def _pair_sentence(of_pair: xr.Dataset) -> str:
    top, control = (of_pair.sel(group=group) for group in (TOP, CONTROL))
    text = (
        f"What is written accounts for {_with_ends(top)} of the changes of IE of {TOP_WORDS} ({_amount(top)}), for"
        f" {_with_ends(control)} of those of random active features ({_amount(control)})"
    )
    draws = _draws_of(of_pair)
    if not draws.sizes["group"]:
        return f"{text}."
    random = f"{_range_of_shares(draws)} ({draws.sizes['group']} draws)"
    return f"{text}, and for {random} of those of {RANDOM_WORDS} ({_amount(draws)})."


def _draws_of(ablation: xr.Dataset) -> xr.Dataset:
    """Return what a store holds of the groups of random directions, one a draw."""
    return ablation.isel(group=~ablation["group"].isin([TOP, CONTROL]).values)


def _range_of_shares(draws: xr.Dataset) -> str:
    """Return the lowest and the highest share of the groups in words."""
    share = draws["written_share"]
    return f"{_signed_percent(float(share.min()))} to {_signed_percent(float(share.max()))}"


def _with_ends(of_group: xr.Dataset) -> str:
    """Return a share with its interval in words."""
    share, low, high = (_signed_percent(float(of_group[f"written_share{end}"])) for end in ("", "_low", "_high"))
    return f"{share} ({low} to {high})"


def _amount(of_groups: xr.Dataset) -> str:
    """Return the sum of the changes in words, of several groups the range."""
    sums, units = of_groups["written_sum"] + of_groups["read_sum"], plural(str(of_groups["written_sum"].attrs["units"]))
    ends = dict.fromkeys([f"{float(sums.min()):.2f}", f"{float(sums.max()):.2f}"])
    return f"{' to '.join(ends)} {units} in all"


def _signed_percent(part: float) -> str:
    return f"−{percent(-part)}" if part < 0 else percent(part)


def _share_figure(tasks: Sequence[str], of_pair: Sequence[xr.Dataset]) -> Json:
    """Draw top features over all draws; changes of random active features are too small for shares of use."""
    places = [wrapped(in_words(task)) for task in tasks]
    draws = [name for name in names(of_pair[0], "group") if name not in (TOP, CONTROL)]
    figure = go.Figure([_share_trace(group, places, of_pair) for group in [*draws, TOP]])
    for trace in figure.data[1:-1]:
        trace.showlegend = False
    for bound in (0, 1):
        figure.add_vline(bound, line={"color": INK, "width": 1, "dash": "dot"})
    figure.update_xaxes(title_text="share due to what is written", tickformat=".0%", zeroline=False)
    figure.update_yaxes(autorange="reversed")
    earlier, later = (str(of_pair[0][name].values) for name in ("earlier", "later"))
    return finished(figure, f"From {earlier} to {later}", 160 + TASK_PX * len(tasks))


def _share_trace(group: str, places: Sequence[str], of_pair: Sequence[xr.Dataset]) -> go.Scatter:
    shares = np.array(
        [[float(store[f"written_share{end}"].sel(group=group)) for end in ("", "_low", "_high")] for store in of_pair]
    )
    share, low, high = shares.T
    is_top = group == TOP
    return go.Scatter(
        x=short(share),
        y=list(places),
        error_x={"array": short(high - share), "arrayminus": short(share - low), "thickness": 1.2, "width": 0},
        name=sentence(TOP_WORDS if is_top else RANDOM_WORDS),
        legendgroup=TOP_WORDS if is_top else RANDOM_WORDS,
        mode="markers",
        marker={"color": PALETTE[0] if is_top else PALETTE[8], "size": 8},
        hovertemplate=f"%{{y}}: %{{x:.0%}}<extra>{'' if is_top else group}</extra>",
    )
