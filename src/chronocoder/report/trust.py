"""How well estimates agree with exact ablation, in a table and in sentences."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.attribution.measures import SHUFFLED
from chronocoder.config import SCREEN
from chronocoder.report.controls import has_random
from chronocoder.report.inputs import EXACT, Run, estimator_words
from chronocoder.stores import names
from chronocoder.wording import decimal, in_words, listed, percent, plural, rough, sentence

GOOD_SPEARMAN = 0.9
RELDEC = "relative_decoder_norm"
COEFFICIENTS = ("spearman", "pearson")
PARTLY_EXACT = (
    "In part that is by construction: on each example, the grouped estimator measures the features of largest"
    " first-order effect exactly."
)

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
    wanted = [*COEFFICIENTS, *(f"share_{name}" for name in COEFFICIENTS)]
    of_tasks = [run.ablations[task][wanted] for task in run.tasks]
    return xr.concat(of_tasks, dim="task", join="exact", combine_attrs="drop").assign_coords(task=run.relie["task"])


def estimators(found: xr.Dataset | xr.DataArray) -> dict[str, str]:
    """Return the estimators that are compared with exact ablation, and what they are called."""
    return {name: estimator_words(name) for name in names(found, "estimator") if name != EXACT}


def measures(found: xr.Dataset | xr.DataArray) -> dict[str, str]:
    """Return the measures of a feature's share that are compared with the exact share, and what they are called."""
    return {
        name: "RelDec" if name == RELDEC else f"RelIE by {estimator_words(name)}" for name in names(found, "measure")
    }


def trust_rows(run: Run) -> list[Row]:
    """Return how far the effects of a run can be trusted at each checkpoint."""
    found, relie = agreement(run), run.relie
    error = abs(relie["error_effect"]).sum("task") / abs(relie["total_effect"]).sum("task")
    return [
        *_correlation_rows(found, "", "estimator", estimators(found), "exact effect"),
        *_correlation_rows(found, "share_", "measure", measures(found), "share of exact effect"),
        *_rounding_rows(relie),
        Row("Error term’s fraction of all effects", [(percent(value), "") for value in error.values.tolist()]),
        Row("Feature–task pairs with a measurable effect", _measurable_cells(relie)),
    ]


def trust_sentences(run: Run) -> list[str]:
    """Return how far effects can be trusted and why, and what the table says in words."""
    found = agreement(run)
    shortfalls = [shortfall_sentence(found["spearman"].sel(estimator=name)) for name in estimators(found)]
    return [trust_line(run), *comparison_sentences([run]), *shortfalls]


def trust_line(run: Run) -> str:
    """Return how far the effects of a run can be trusted, and why."""
    relie, floor = run.relie, _floor_words(run.relie)
    effective = (relie["indirect_effect"] != 0).any("checkpoint")
    exactly = relie["estimator"] == EXACT
    if (exactly | ~effective).all():
        return (
            "Every effect was measured: the feature was changed alone and the model run on. The number itself is off by"
            f" rounding only, {floor} or less on average; intervals show the choice of prefixes."
        )
    others = estimator_words(str(relie["estimator"].values[~exactly.values][0]))
    if not exactly.any():
        spearman = agreement(run)["spearman"].sel(estimator=str(relie["estimator"].values.flat[0]))
        return (
            f"Effects are estimates by {others}, and intervals do not hold their error: with the exact effects of the"
            f" features checked, Spearman is {decimal(float(spearman.mean()))} on average over tasks and checkpoints,"
            f" {decimal(float(spearman.min()))} at the lowest."
        )
    error = float(relie["estimation_error"].max())
    known = (
        f" Of the estimates of such others, {percent(run.confidence)} err by less than {percent(error)} of the"
        " feature’s mean effect on an example, on every task and at every checkpoint; intervals hold that error."
    )
    return (
        f"{int((exactly & effective).sum())} of {int(effective.sum())} feature–task pairs with an effect, those of"
        f" largest estimate and some at random, were measured: off by rounding only, {floor} or less on average."
        f" The others are estimates by {others}.{known if error == error else ''}"
    )


def measurable_note(run: Run) -> str:
    """Return how many random directions have to be expected beyond their level; empty without them."""
    if not has_random(run.relie):
        return ""
    return f"By construction, about {100 * (1 - run.random_fraction):g} % of random directions exceed the level."


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
    sentences = [
        _comparison(shares, "measure", measures(found[0]), "predicts the share of the exact effect better than"),
        _comparison(effects, "estimator", estimators(found[0]), "ranks single features more like exact ablation than"),
    ]
    partly_exact = sentences[1].startswith(sentence(estimator_words(SCREEN)))
    return [*sentences, PARTLY_EXACT] if partly_exact else sentences


def shortfall_sentence(spearman: xr.DataArray) -> str:
    """Return where an estimator disagrees with exact ablation, dims (task, checkpoint)."""
    label, parts = estimator_words(str(spearman["estimator"].values)), []
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


def _rounding_rows(relie: xr.Dataset) -> list[Row]:
    """Return what rounding does to effects, a row for each unit: tasks of several units have no mean."""
    return [
        Row(f"Rounding, in {plural(unit)}", _cells(floor, rough, "highest"))
        for unit, floor in _floor_by_unit(relie).items()
    ]


def _floor_words(relie: xr.Dataset) -> str:
    """Return the most that rounding does to effects, in each unit."""
    return listed([f"{rough(float(floor.max()))} {plural(unit)}" for unit, floor in _floor_by_unit(relie).items()])


def _floor_by_unit(relie: xr.Dataset) -> dict[str, xr.DataArray]:
    units = names(relie, "unit")
    return {
        unit: relie["noise_floor"].isel(task=[of_task == unit for of_task in units]) for unit in dict.fromkeys(units)
    }


def _measurable_cells(relie: xr.Dataset) -> list[Cell]:
    """Return the fraction of feature–task pairs with a measurable effect, and that of random directions."""
    own = relie["measurable"].sum(("task", "feature")) / relie["features_tested"].sum()
    shown = [percent(value) for value in own.values.tolist()]
    if not has_random(relie):
        return [(value, "") for value in shown]
    random = relie.sel(control=relie["control"] != SHUFFLED)
    beside = random["control_measurable"].sum(("task", "control", "feature")) / random["controls_tested"].sum()
    notes = [f"random directions {percent(value)}" for value in beside.values.tolist()]
    return list(zip(shown, notes, strict=True))


def _cells(values: xr.DataArray, shown: Callable[[float], str], extreme: str) -> list[Cell]:
    """Return the mean over tasks with the lowest or highest value, dims (task, checkpoint)."""
    columns = [values.sel(checkpoint=checkpoint).dropna("task") for checkpoint in values["checkpoint"].values]
    return [(shown(float(of.mean())), _extreme(of, shown, extreme)) if of.size else ("–", "") for of in columns]


def _extreme(values: xr.DataArray, shown: Callable[[float], str], extreme: str) -> str:
    place = int(values.values.argmin() if extreme == "lowest" else values.values.argmax())
    return f"{extreme} {shown(float(values[place]))}: {in_words(str(values['task'].values[place]))}"
