"""How well estimates agree with exact ablation, in a table and in sentences."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.report.inputs import Run, names
from chronocoder.report.text import decimal, in_words, listed, percent, sentence

GOOD_SPEARMAN = 0.9
MEASURES = {
    "attribution_patching": "RelIE by attribution patching",
    "integrated_gradients": "RelIE by integrated gradients",
    "relative_decoder_norm": "RelDec",
}
EXACT = "exact"
EXACT_ABLATION = "exact ablation"
COEFFICIENTS = ("spearman", "pearson")

Cell = tuple[str, str]
"""A number, and a note on it."""


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        label: what is measured.
        cells: one for each checkpoint.
    """

    label: str
    cells: list[Cell]


def agreement(run: Run) -> xr.Dataset:
    """Return the correlations with exact ablation on all tasks, dims (task, estimator or measure, checkpoint)."""
    wanted = [*COEFFICIENTS, *(f"share_{name}" for name in COEFFICIENTS), "completeness_gap"]
    of_tasks = [run.ablations[task][wanted] for task in run.tasks]
    return xr.concat(of_tasks, dim="task", join="exact", combine_attrs="drop").assign_coords(task=run.relie["task"])


def estimator_of(run: Run) -> str:
    """Return what the effects of a run come from, in words."""
    name = json.loads(run.relie.attrs["settings"])["estimator"]
    return EXACT_ABLATION if name == EXACT else in_words(name)


def estimators(found: xr.Dataset | xr.DataArray) -> dict[str, str]:
    """Return the estimators that are compared with exact ablation, and what they are called."""
    return {name: in_words(name) for name in names(found, "estimator") if name != EXACT}


def trust_rows(run: Run) -> list[Row]:
    """Return how far the effects of a run can be trusted at each checkpoint."""
    found, relie = agreement(run), run.relie
    active = relie["activation_frequency"] > 0
    beyond = ((abs(relie["indirect_effect"]) > relie["null_band"]) & active).sum("feature") / active.sum("feature")
    error = abs(relie["error_effect"]).sum("task") / abs(relie["total_effect"]).sum("task")
    return [
        *_correlation_rows(found, "", "estimator", estimators(found), "exact effect"),
        *_correlation_rows(found, "share_", "measure", MEASURES, "share of exact effect"),
        Row("Completeness gap of integrated gradients", _cells(found["completeness_gap"], percent, "highest")),
        Row("Error term’s part of all effects", [(percent(value), "") for value in error.values.tolist()]),
        Row("Active features beyond the null band", _cells(beyond, percent, "lowest")),
    ]


def trust_sentences(run: Run) -> list[str]:
    """Return what the table says in words."""
    found = agreement(run)
    shortfalls = [shortfall_sentence(found["spearman"].sel(estimator=name)) for name in estimators(found)]
    return [*comparison_sentences([run]), *shortfalls]


def trust_finding(runs: Sequence[Run]) -> str:
    """Return what exact ablation says of all runs together."""
    found = [agreement(run)["spearman"] for run in runs]
    reached = []
    for name, label in estimators(found[0]).items():
        cases = np.concatenate([of_run.sel(estimator=name).values.ravel() for of_run in found])
        reached.append(f"{int((cases >= GOOD_SPEARMAN).sum())} of {int(np.isfinite(cases).sum())} with {label}")
    return " ".join(
        [
            "Over all crosscoders, tasks and checkpoints:",
            *comparison_sentences(runs),
            f"Spearman is {GOOD_SPEARMAN} or more in {listed(reached)}.",
        ]
    )


def comparison_sentences(runs: Sequence[Run]) -> list[str]:
    """Return which estimator, and which measure of the share, comes closer to exact ablation.

    Of a pair of checkpoints only one is counted for the share: the other's share is the rest.
    """
    found = [agreement(run) for run in runs]
    shares = [
        of_run["share_spearman"].isel(checkpoint=slice(1 if of_run.sizes["checkpoint"] == 2 else 0, None))
        for of_run in found
    ]
    effects = [of_run["spearman"] for of_run in found]
    return [
        _comparison(shares, "measure", MEASURES, "predicts the share of the exact effect better than"),
        _comparison(effects, "estimator", estimators(found[0]), "ranks single features more like exact ablation than"),
    ]


def shortfall_sentence(spearman: xr.DataArray) -> str:
    """Return where an estimator disagrees with exact ablation, dims (task, checkpoint)."""
    label, parts = in_words(str(spearman["estimator"].values)), []
    for checkpoint in spearman["checkpoint"].values:
        there = spearman.sel(checkpoint=checkpoint).dropna("task")
        short, count = int((there < GOOD_SPEARMAN).sum()), there.sizes["task"]
        if short:
            parts.append(f"at {checkpoint} on {short} of {count} tasks ({_extreme(there, decimal, 'lowest')})")
    if not parts:
        return f"With {label}, Spearman is nowhere below {GOOD_SPEARMAN}."
    return f"With {label}, Spearman is below {GOOD_SPEARMAN} {listed(parts)}."


def _comparison(values: Sequence[xr.DataArray], dim: str, labels: Mapping[str, str], better: str) -> str:
    """Return a sentence that compares rank correlations with exact ablation by their mean, the best first."""
    cases = np.stack([np.concatenate([of.sel({dim: name}).values.ravel() for of in values]) for name in labels])
    cases = cases[:, np.isfinite(cases).all(axis=0)]
    if not cases.size:
        return f"{sentence(listed(list(labels.values())))} cannot be compared: no rank correlation is defined."
    order = np.argsort(-cases.mean(axis=1))
    best, *others = (list(labels.values())[place] for place in order)
    mean, *means = (decimal(of_label.mean()) for of_label in cases[order])
    ahead = int((cases[order[0]] > cases[order[1:]].max(axis=0)).sum())
    return (
        f"{sentence(best)} {better} {listed(others)}: mean Spearman {mean} against {listed(means)},"
        f" and ahead in {ahead} of {cases.shape[1]} cases."
    )


def _correlation_rows(found: xr.Dataset, prefix: str, dim: str, labels: Mapping[str, str], reference: str) -> list[Row]:
    return [
        Row(
            f"{sentence(label)} and {reference}: {name.capitalize()}",
            _cells(found[f"{prefix}{name}"].sel({dim: key}), decimal, "lowest"),
        )
        for key, label in labels.items()
        for name in COEFFICIENTS
    ]


def _cells(values: xr.DataArray, shown: Callable[[float], str], extreme: str) -> list[Cell]:
    """Return the mean over tasks with the lowest or highest value, dims (task, checkpoint)."""
    columns = [values.sel(checkpoint=checkpoint).dropna("task") for checkpoint in values["checkpoint"].values]
    return [(shown(float(of.mean())), _extreme(of, shown, extreme)) if of.size else ("–", "") for of in columns]


def _extreme(values: xr.DataArray, shown: Callable[[float], str], extreme: str) -> str:
    place = int(values.values.argmin() if extreme == "lowest" else values.values.argmax())
    return f"{extreme} {shown(float(values[place]))}: {in_words(str(values['task'].values[place]))}"
