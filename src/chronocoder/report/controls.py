"""Classes beside their controls: how often random directions, and comparisons without development, have them too."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Int
from scipy.stats import beta, false_discovery_control

from chronocoder.attribution.measures import SHUFFLED, UNDECIDED
from chronocoder.report.conditions import conditions_of
from chronocoder.report.courses import DECIDED
from chronocoder.report.data import CLASSES
from chronocoder.report.inputs import ReportInputs, key_of
from chronocoder.stores import names
from chronocoder.wording import counted, decimal, in_words, listed, p_number, percent

CHANGED = tuple(name for name in DECIDED if name != "maintained")
COLUMNS = (("emerged",), ("maintained",), ("discontinued",), ("transient", "intermittent"))
"""Classes that are counted together."""
SIGNIFICANT = 0.05
CONFIDENCE = 0.95
PUBLISHED, TOTAL = "published", "total_effect"
BASES = {
    PUBLISHED: "published",
    TOTAL: "IE over total |IE|",
    "metric_size": "IE over |right − wrong|",
}
BY_BASIS = {PUBLISHED: "By published RelIE", TOTAL: "With IE divided by the checkpoint’s total |IE|"}
MORE, NO_MORE, UNKNOWN = "more than chance", "no more than chance", "–"


class ControlTable(NamedTuple):
    """How often features and controls have each class, several ways under each other.

    Attributes:
        heads: of the columns, but for that of the class.
        classes: for each class that occurs, its name, and for each way its line.
    """

    heads: list[str]
    classes: list[tuple[str, list["Line"]]]


class Line(NamedTuple):
    """How often features and controls have one class.

    Attributes:
        cells: the way in words, in one column or two, features, random directions with the range over draws, shuffled
            tokens if they are there, p-value and verdict.
        beyond: whether features have it more often than chance.
    """

    cells: list[str]
    beyond: bool


class TaskControls(NamedTuple):
    """The classes of one task beside their controls.

    Attributes:
        task: its name, in words.
        tested: how many features and controls the percentages are of.
        bases: the classes by each basis.
        conditions: the classes by condition.
        reversals: how many features and random directions reverse.
    """

    task: str
    tested: str
    bases: ControlTable
    conditions: ControlTable
    reversals: str


class Frequency(NamedTuple):
    """How frequent a class is over all tasks.

    Attributes:
        features: the percentage of feature–task pairs that have it.
        random: the percentage of random directions that have it.
        tasks_beyond: on how many tasks it is more frequent than among random directions, at a false discovery rate over
            tasks and classes.
    """

    features: str
    random: str
    tasks_beyond: int


class ControlRow(NamedTuple):
    """What the classes of a comparison without development are, by one basis.

    Attributes:
        basis: what effects are divided by, in words.
        counts: feature–task pairs of the classes in each of `COLUMNS`.
        changed: how many have a class in `CHANGED`.
        decided: how many have a class in `DECIDED`.
        tested: how many could have had one.
    """

    basis: str
    counts: list[int]
    changed: int
    decided: int
    tested: int

    @property
    def limit(self) -> str:
        """The upper confidence limit of the fraction of decided classes that are changes."""
        return percent(upper_limit(self.changed, self.decided))


def controls_of(relie: xr.Dataset) -> list[str]:
    """Return the names of the controls that were measured."""
    return names(relie, "control") if "control_class_count" in relie else []


def has_random(relie: xr.Dataset) -> bool:
    """Say whether effects of random directions were measured."""
    return any(name != SHUFFLED for name in controls_of(relie))


def share_of(count: int, tested: int) -> str:
    """Return a count as a percentage of those tested."""
    return percent(_fraction(count, tested))


def upper_limit(count: int, tested: int) -> float:
    """Return the upper confidence limit of a fraction, one-sided (Clopper and Pearson 1934); NaN of none tested."""
    if not tested:
        return math.nan
    return float(beta.ppf(CONFIDENCE, count + 1, tested - count)) if count < tested else 1.0


def verdict(p_value: float) -> str:
    """Return whether a class is more frequent than among random directions, in words."""
    if not math.isfinite(p_value):
        return UNKNOWN
    return MORE if p_value < SIGNIFICANT else NO_MORE


def task_controls(relie: xr.Dataset) -> list[TaskControls]:
    """Return a run's classes beside their controls, for each task."""
    counts = relie.drop_dims(("feature", "checkpoint"))  # each selection from all effects would take longer
    return [
        TaskControls(
            in_words(task),
            count_sentence(of_task),
            basis_table(of_task),
            condition_table(of_task),
            reversal_sentence(of_task),
        )
        for task, of_task in ((task, counts.sel(task=task)) for task in names(counts, "task"))
    ]


def basis_table(of_task: xr.Dataset) -> ControlTable:
    """Return the classes of one task by each basis."""
    return _table(of_task, "", ["RelIE of"], {(label,): {"basis": basis} for basis, label in BASES.items()})


def condition_table(of_task: xr.Dataset) -> ControlTable:
    """Return the classes of one task by condition, from the published share and by IE over total |IE|."""
    ways: dict[tuple[str, ...], dict[str, str]] = {
        (name, BASES[basis]): {"condition": name, "basis": basis}
        for name in conditions_of(of_task)
        for basis in (PUBLISHED, TOTAL)
    }
    return _table(of_task, "condition_", ["Condition", "RelIE of"], ways)


def count_sentence(of_task: xr.Dataset) -> str:
    """Return how many features and controls the percentages are of."""
    features = f"Percentages are of the {int(of_task['features_tested'])} features"
    if not controls_of(of_task):
        return f"{features} that have an effect on some example; no controls were run."
    tested = of_task["controls_tested"]
    random = tested[(tested["control"] != SHUFFLED).values]
    shuffled = tested[(tested["control"] == SHUFFLED).values]
    counts = [f"the {int(random.sum())} random directions ({random.size} draws)"] if random.size else []
    counts += [f"the {int(count)} features with shuffled tokens" for count in shuffled]
    return f"{listed([features, *counts])} that have an effect on some example."


def reversal_sentence(of_task: xr.Dataset) -> str:
    """Return how many features, and which fraction of random directions, reverse within a condition."""
    count, tested = int(of_task["reverses_count"]), int(of_task["features_tested"])
    text = f"Reversals within a condition: {counted(count, 'feature')} ({share_of(count, tested)})"
    if not has_random(of_task):
        return f"{text}."
    random = of_task.sel(control=of_task["control"] != SHUFFLED)
    counts = (int(random[name].sum()) for name in ("control_reverses_count", "controls_tested"))
    return f"{text}, random directions {share_of(*counts)}."


def basis_sentence(relie: xr.Dataset) -> str:
    """Return how many feature–task pairs have another class once effects are divided by the checkpoint's total."""
    published = relie["feature_class"]
    divided = relie["normalised_class"].sel(normalisation=TOTAL, drop=True)
    decided = ~published.isin(UNDECIDED)
    other = int(((published != divided) & decided).sum())
    return (
        f"Over all tasks, {other} of {int(decided.sum())} feature–task pairs of decided class have another class once"
        " effects are divided by the checkpoint’s total |IE|."
    )


def class_frequencies(relie: xr.Dataset, basis: str) -> dict[str, Frequency]:
    """Return how frequent each decided class that occurs is, beside random directions."""
    of_basis = relie.sel(basis=basis, control=relie["control"] != SHUFFLED)
    counts, random = of_basis["class_count"].sum("task"), of_basis["control_class_count"].sum(("task", "control"))
    tested, random_tested = (int(of_basis[name].sum()) for name in ("features_tested", "controls_tested"))
    found = [name for name in DECIDED if int(counts.sel({"class": name}))]
    rates = of_basis["class_p_value"].sel({"class": found}).copy()
    known = np.isfinite(rates.values)
    rates.values[known] = false_discovery_control(rates.values[known])
    beyond = (rates < SIGNIFICANT).sum("task")
    return {
        name: Frequency(
            share_of(int(counts.sel({"class": name})), tested),
            share_of(int(random.sel({"class": name})), random_tested),
            int(beyond.sel({"class": name})),
        )
        for name in found
    }


def chance_sentence(relie: xr.Dataset, basis: str) -> str:
    """Return how frequent classes are by a basis, and which are more frequent than among random directions."""
    if not has_random(relie):
        return f"{BY_BASIS[basis]}: not compared with random directions, which were not measured."
    return f"{BY_BASIS[basis]}: {chance_words(relie, basis)}."


def chance_words(relie: xr.Dataset, basis: str) -> str:
    """Return how frequent each class is among features and random directions, and whether it is more so, in words."""
    found = class_frequencies(relie, basis)
    if not found:
        return "no feature has a decided class"
    (name, of_first), *others = found.items()
    frequencies = [f"{name} {of_first.features} against {of_first.random} of random directions"]
    frequencies += [f"{name} {of.features} against {of.random}" for name, of in others]
    return f"{', '.join(frequencies)}; {_verdict_words(found, relie.sizes['task'])}"


def control_rows(control: xr.Dataset) -> list[ControlRow]:
    """Return the classes of a comparison without development by each basis, over all its tasks."""
    counts, tested = control["class_count"].sum("task"), int(control["features_tested"].sum())
    return [_control_row(counts.sel(basis=basis), label, tested) for basis, label in BASES.items()]


def control_tables(inputs: ReportInputs) -> list[tuple[str, str, str, list[ControlRow]]]:
    """Return for each comparison without development its name, its kind, its lowest explained variance and classes."""
    return [
        (
            key_of(control).label,
            str(control.attrs["control"]),
            decimal(float(evaluation["explained_variance"].min())),
            control_rows(control),
        )
        for control, evaluation in zip(inputs.controls, inputs.control_evaluations, strict=True)
    ]


def _verdict_words(found: Mapping[str, Frequency], tasks: int) -> str:
    """Return which classes are more frequent than among random directions, in words."""
    more = {name: f"on {of.tasks_beyond} of {tasks}" for name, of in found.items() if of.tasks_beyond}
    no_more = [name for name in found if name not in more]
    if not more:
        return f"no class is more frequent than among random directions ({NO_MORE})"
    (name, where), *others = more.items()
    parts = [f"{name} is more frequent than among random directions {where} tasks", *map(" ".join, others)]
    text = f"{listed(parts)} ({MORE})"
    return f"{text}; {listed(no_more)} {'are' if len(no_more) > 1 else 'is'} not ({NO_MORE})" if no_more else text


def _control_row(counts: xr.DataArray, label: str, tested: int) -> ControlRow:
    *of_classes, changed, decided = (
        int(counts.sel({"class": list(classes)}).sum()) for classes in (*COLUMNS, CHANGED, DECIDED)
    )
    return ControlRow(label, of_classes, changed, decided, tested)


def _table(
    of_task: xr.Dataset, part: str, heads: list[str], ways: Mapping[tuple[str, ...], Mapping[str, str]]
) -> ControlTable:
    """Return the table with a line for each of `ways`: what it is called, and where its counts are."""
    classes = []
    for name in CLASSES:
        of_ways = {labels: of_task.sel({"class": name, **place}) for labels, place in ways.items()}
        if any(_occurs(of_way, part) for of_way in of_ways.values()):
            classes.append((name, [_line(of_way, part, labels) for labels, of_way in of_ways.items()]))
    shuffled = [SHUFFLED.capitalize()] if SHUFFLED in controls_of(of_task) else []
    return ControlTable([*heads, "Features", "Random directions (range)", *shuffled, "p", "Verdict"], classes)


def _occurs(of_class: xr.Dataset, part: str) -> bool:
    counts = [f"{part}class_count", *([f"{part}control_class_count"] if controls_of(of_class) else [])]
    return any(int(of_class[name].sum()) for name in counts)


def _line(of_class: xr.Dataset, part: str, labels: tuple[str, ...]) -> Line:
    count, tested = int(of_class[f"{part}class_count"]), int(of_class["features_tested"])
    own = f"{count} ({share_of(count, tested)})"
    if not controls_of(of_class):
        return Line([*labels, own, UNKNOWN, UNKNOWN, UNKNOWN], False)
    controls = np.stack([of_class[f"{part}control_class_count"].values, of_class["controls_tested"].values], axis=1)
    is_random = (of_class["control"] != SHUFFLED).values
    shuffled = [share_of(*counts) for counts in controls[~is_random].tolist()]
    p_value = float(of_class[f"{part}class_p_value"])
    said = UNKNOWN if str(of_class["class"].values) in UNDECIDED else verdict(p_value)
    cells = [*labels, own, _spread(controls[is_random]), *shuffled, p_number(p_value), said]
    return Line(cells, said == MORE)


def _spread(random: Int[np.ndarray, "draw 2"]) -> str:
    """Return the fraction of random directions that has a class, with its range over the draws.

    Args:
        random: of each draw, how many have the class, and how many could have had it.
    """
    if not len(random):
        return UNKNOWN
    draws = [_fraction(*counts) for counts in random.tolist()]
    return f"{share_of(*random.sum(axis=0).tolist())} ({percent(min(draws))} – {percent(max(draws))})"


def _fraction(count: int, tested: int) -> float:
    return count / tested if tested else math.nan
