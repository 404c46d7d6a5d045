"""Whether transfer goes with shared features, and without them: a table and sentences of each run."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.report.inputs import key_of
from chronocoder.wording import counted, decimal, listed, p_number, p_words

PERCENT = "\u00a0%"
CORRELATED = {"overlap": "the overlap of their top features", "cosine": "the cosine of the effects of all features"}
CORRELATION_COLUMNS = ("ρ with overlap (p)", "ρ with cosine (p)")
REMOVAL_COLUMNS = ("Ordered pairs", "Removed by shared", "Removed by others", "Difference")
RELATIONS = {"within": "within groups", "between": "between groups"}
REMOVED = ("removed_by_shared", "removed_by_others", "removed_beyond_others")


class BridgeRow(NamedTuple):
    """The numbers of one checkpoint.

    Attributes:
        checkpoint: its name.
        correlations: one a column of `CORRELATION_COLUMNS`, as text.
        removals: by relation of the tasks, in words, one a column of `REMOVAL_COLUMNS`, as text.
    """

    checkpoint: str
    correlations: list[str]
    removals: dict[str, list[str]]


def bridge_tables(bridges: Sequence[xr.Dataset]) -> dict[str, list[BridgeRow]]:
    """Return for each run the numbers of every checkpoint."""
    return {
        key_of(bridge).label: [_row(bridge.isel(checkpoint=place)) for place in range(bridge.sizes["checkpoint"])]
        for bridge in bridges
    }


def bridge_sentences(bridge: xr.Dataset) -> list[str]:
    """Return whether transfer goes with shared features at the last checkpoint of a run, and needs them."""
    last = bridge.isel(checkpoint=-1)
    return [_correlation_sentence(last), *_removal_sentences(last)]


def _correlation_sentence(last: xr.Dataset) -> str:
    parts = []
    for measure, words in CORRELATED.items():
        rho, p_value = (float(last[name].sel(measure=measure)) for name in ("correlation", "correlation_p"))
        parts.append(f"{decimal(rho)} with {words} ({p_words(p_value)})")
    return (
        f"at {last['checkpoint'].values}, Spearman’s correlation of transfer over ordered pairs of tasks is"
        f" {listed(parts)}, p-values by relabelling tasks."
    )


def _removal_sentences(last: xr.Dataset) -> list[str]:
    known = {name: words for name, words in RELATIONS.items() if int(last["pairs_compared"].sel(relation=name))}
    if not known:
        return [
            "Whether shared features carry transfer cannot be told: no task transfers to another for certain and shares"
            " features with it beside which there are others of like effect."
        ]
    return [_removal_sentence(last.sel(relation=name), words) for name, words in known.items()]


def _removal_sentence(of_relation: xr.Dataset, words: str) -> str:
    shared, others, _ = (_part(float(of_relation[name])) for name in REMOVED)
    more, low, high = (float(of_relation[f"{REMOVED[-1]}{end}"]) for end in ("", "_low", "_high"))
    pairs = counted(int(of_relation["pairs_compared"]), "ordered pair")
    return (
        f"Of the transfer {words}, removing the shared features removes {shared}, and removing as many others of like"
        f" effect {others}: a difference of {_part(more)} ({_part(low)} to {_part(high)}) over {pairs}."
    )


def _row(at: xr.Dataset) -> BridgeRow:
    correlations = []
    for measure in CORRELATED:
        rho, p_value = (float(at[name].sel(measure=measure)) for name in ("correlation", "correlation_p"))
        correlations.append(f"{decimal(rho)} ({p_number(p_value)})" if np.isfinite(rho) else "–")
    removals = {words: _removal_numbers(at.sel(relation=name)) for name, words in RELATIONS.items()}
    return BridgeRow(str(at["checkpoint"].values), correlations, removals)


def _removal_numbers(of_relation: xr.Dataset) -> list[str]:
    parts = [[_part(float(of_relation[f"{name}{end}"])) for end in ("", "_low", "_high")] for name in REMOVED]
    texts = [f"{middle} ({low.removesuffix(PERCENT)} to {high.removesuffix(PERCENT)})" for middle, low, high in parts]
    return [str(int(of_relation["pairs_compared"])), *texts]


def _part(part: float) -> str:
    """Return a part, which may be negative, as a percentage without decimals."""
    return f"{round(100 * part)}{PERCENT}".replace("-", "−") if np.isfinite(part) else "–"
