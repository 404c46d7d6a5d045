"""Writer or reader: how much of the changes of effects is due to what is written, in sentences and rows."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.attribution.measures import CONTROL, TOP
from chronocoder.report.inputs import Contrast, Run
from chronocoder.stores import names
from chronocoder.wording import percent, plural, quoted, signed

ROWS = 5
MOST_NAMED = 4  # tasks that a sentence of the summary names one by one

Cell = tuple[str, str]
"""A number, and what stands beside it: its interval, or what it is a share of."""


class WrittenChange(NamedTuple):
    """What the change of a feature's effect is due to.

    Attributes:
        feature: its number.
        effects: at the earlier and at the later checkpoint.
        written: how much of the change is due to what is written, and the interval.
        read: how much is due to how it is read, and the interval.
        own_code: checkpoints whose own code takes the place of that of all.
    """

    feature: int
    effects: list[str]
    written: Cell
    read: Cell
    own_code: list[str]


class WrittenPair(NamedTuple):
    """The share of what is written in the changes of effects on one task between two checkpoints.

    Attributes:
        checkpoints: the earlier and the later one.
        top: the share of the top features with its interval, and the sum of their changes, which it is a share of.
        control: the same of random active features.
        random: the range over draws of random directions in place of the top features; dashes without them.
        draws: how many draws.
        verdict: whether the share of the top features lies outside that range.
        changes: the top features whose effect changes most, of neighbouring checkpoints and of the first and the last.
    """

    checkpoints: list[str]
    top: Cell
    control: Cell
    random: Cell
    draws: int
    verdict: str
    changes: list[WrittenChange]


def written_pairs(ablation: xr.Dataset) -> list[WrittenPair]:
    """Return what changes are due to for each pair of checkpoints.

    Args:
        ablation: of one task.
    """
    return [_written_pair(ablation.isel(pair=pair)) for pair in range(ablation.sizes["pair"])]


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


def _written_pair(of_pair: xr.Dataset) -> WrittenPair:
    ends, course = [str(of_pair[name].values) for name in ("earlier", "later")], names(of_pair, "checkpoint")
    told = ends in [[course[0], course[-1]], *map(list, pairwise(course))]
    top, control, draws = of_pair.sel(group=TOP), of_pair.sel(group=CONTROL), _draws_of(of_pair)
    count = draws.sizes["group"]
    random = (_range_of_shares(draws), _amount(draws)) if count else ("–", "–")
    own, beside = ((_with_ends(of), _amount(of)) for of in (top, control))
    verdict = _verdict(float(top["written_share"]), draws["written_share"].values)
    return WrittenPair(ends, own, beside, random, count, verdict, _changes(of_pair, ends) if told else [])


def _verdict(share: float, draws: np.ndarray) -> str:
    known = draws[np.isfinite(draws)]
    if not known.size or np.isnan(share):
        return "not comparable"
    if known.min() <= share <= known.max():
        return "within their range: no more than chance"
    return f"{'below' if share < known.min() else 'above'} every draw"


def _changes(of_pair: xr.Dataset, ends: list[str]) -> list[WrittenChange]:
    """Return the top features whose effect changes most, the largest change first."""
    both = of_pair.sel(checkpoint=ends)
    effect = both["own_effect"].transpose("checkpoint", "feature")
    is_top = of_pair["role"].values == TOP
    size = np.where(is_top, abs(effect[1] - effect[0]), -1.0)
    order = np.argsort(-size, kind="stable")[: min(ROWS, is_top.sum())]
    return [_change(both.isel(feature=place), ends) for place in order]


def _change(of_feature: xr.Dataset, ends: list[str]) -> WrittenChange:
    own = of_feature["own_code"].values.tolist()
    return WrittenChange(
        int(of_feature["feature"]),
        [signed(effect) for effect in of_feature["own_effect"].values.tolist()],
        _part(of_feature, "written"),
        _part(of_feature, "read"),
        [checkpoint for checkpoint, takes in zip(ends, own, strict=True) if takes],
    )


def _part(of_feature: xr.Dataset, name: str) -> Cell:
    change, low, high = (signed(float(of_feature[f"{name}_change{end}"])) for end in ("", "_low", "_high"))
    return change, f"{low} to {high}"


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
    return f"{' to '.join(ends)} {units}"


def _signed_percent(part: float) -> str:
    return f"−{percent(-part)}" if part < 0 else percent(part)
