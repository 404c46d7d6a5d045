"""Comparisons that follow one another: which features of one are those of the next."""

from typing import NamedTuple

import xarray as xr

from chronocoder.report.inputs import ReportInputs, Run, key_of
from chronocoder.stores import names
from chronocoder.wording import counted, decimal, percent

SAME_FEATURE = 0.7
"""Cosine of decoder rows from which on two features count as the same."""


class Succession(NamedTuple):
    """Runs of which each begins at the checkpoint where the one before ends.

    Attributes:
        runs: in order of training.
        matches: for each but the last, the feature of the next one that each feature is the same as, dims (feature,);
            -1 where there is none.
    """

    runs: list[Run]
    matches: list[xr.DataArray]

    @property
    def label(self) -> str:
        """The comparisons in order."""
        return " → ".join(run.key.comparison for run in self.runs)


def successions_of(inputs: ReportInputs, run: Run) -> list[Succession]:
    """Return the successions that begin with a run, each as long as it can be; none where nothing follows."""
    return [found for found in _from(inputs, run) if found.matches]


def succession_sentences(inputs: ReportInputs, run: Run) -> list[str]:
    """Return how many features are found again in each comparison that follows, and what chance gives."""
    store = _store_of(inputs, run)
    if store is None:
        return []
    seen = run.relie["measurable"].any(("task", "checkpoint"))
    return [_sentence(store.sel(successor=name), seen, run.checkpoints[-1]) for name in names(store, "successor")]


def _from(inputs: ReportInputs, run: Run) -> list[Succession]:
    store = _store_of(inputs, run)
    if store is None:
        return [Succession([run], [])]
    by_key = {other.key: other for other in inputs.runs}
    return [
        Succession([run, *rest.runs], [_same_features(store.sel(successor=name)), *rest.matches])
        for name in names(store, "successor")
        for rest in _from(inputs, by_key[run.key._replace(comparison=name)])
    ]


def _store_of(inputs: ReportInputs, run: Run) -> xr.Dataset | None:
    return next((store for store in inputs.successors if key_of(store) == run.key), None)


def _same_features(of_successor: xr.Dataset) -> xr.DataArray:
    return of_successor["matched_feature"].where(of_successor["cosine"] >= SAME_FEATURE, -1)


def _sentence(of_successor: xr.Dataset, seen: xr.DataArray, checkpoint: str) -> str:
    found = (_same_features(of_successor) >= 0).sel(feature=seen["feature"][seen.values])
    random = percent(float((of_successor["random_cosine"] >= SAME_FEATURE).mean()))
    return (
        f"Of {counted(found.size, 'feature')} with a measurable effect, {int(found.sum())}"
        f" ({percent(float(found.mean()))}) have a counterpart in {of_successor['successor'].values}: a feature whose"
        f" decoder vector at {checkpoint} has a cosine of at least {decimal(SAME_FEATURE)} with theirs. Of random"
        f" directions, {random} have one."
    )
