"""The first page: what the report is about, and what was found, in short."""

from typing import Any, NamedTuple

import pandas as pd

from chronocoder.figures.classes import class_counts, draw_class_counts
from chronocoder.report.contrasts import Found
from chronocoder.report.controls import SIGNIFICANT
from chronocoder.report.inputs import ReportInputs, Run
from chronocoder.report.phases import find_surface_phase
from chronocoder.report.site import FigureGroup, Site
from chronocoder.report.summary import QUALITY, class_sentence, summarise
from chronocoder.report.surface_story import phase_sentence, surface_sentences
from chronocoder.report.telling import telling_tasks
from chronocoder.wording import decimal, in_words, percent, short_count


class KeyNumber(NamedTuple):
    """A number at the head of the page.

    Attributes:
        value: as text.
        label: what it counts.
    """

    value: str
    label: str


class Glance(NamedTuple):
    """A crosscoder at a glance.

    Attributes:
        run: the crosscoder.
        cells: lowest explained variance and cross-entropy recovered of its checkpoints, L0, fraction of dead latents.
    """

    run: Run
    cells: list[str]


class Count(NamedTuple):
    """How many features have a class on a task.

    Attributes:
        features: the number.
        expected: how many random directions would; empty where they were not measured.
        beyond: whether it is more than chance.
    """

    features: int
    expected: str
    beyond: bool


def overview(inputs: ReportInputs, found: Found, site: Site) -> dict[str, Any]:
    """Return what the first page shows.

    Args:
        inputs: what the report shows.
        found: what each contrast brings out in the crosscoder configured first; nothing without one.
        site: takes the figures.
    """
    first = inputs.runs[0] if inputs.runs else None
    counts = [
        site.place(f"overview/classes-{run.key.slug}", draw_class_counts(run.relie), run.key.label)
        for run in inputs.runs
    ]
    table = class_counts(first.relie) if first else pd.DataFrame()
    return {
        "headline": headline(inputs),
        "key_numbers": key_numbers(inputs),
        "summary": summarise(inputs, found),
        "first": first,
        "telling": telling_tasks(inputs, first),
        "stories": surface_stories(inputs, found),
        "counts": FigureGroup("classes", counts, ("Crosscoder",)),
        "classes": classes_shown(table) if first else [],
        "count_rows": count_rows(table) if first else {},
        "class_sentence": class_sentence(first) if first else "",
        "glances": [glance(run) for run in inputs.runs],
    }


def headline(inputs: ReportInputs) -> str:
    """Return what the report is about, in a clause."""
    if inputs.runs:
        return "when features emerge"
    return "when ability changes" if inputs.transfer is None else "how tasks are related"


def key_numbers(inputs: ReportInputs) -> list[KeyNumber]:
    """Return the numbers at the head of the page."""
    tokens = inputs.behaviour["tokens_seen"].values
    latents = sorted({run.relie.sizes["feature"] for run in inputs.runs})
    of_runs = [
        KeyNumber(str(len(inputs.runs)), "crosscoders"),
        KeyNumber(", ".join(short_count(count) for count in latents), "latents in each"),
    ]
    of_comparisons = [KeyNumber(str(len(inputs.comparisons)), "comparisons"), *(of_runs if inputs.runs else [])]
    return [
        KeyNumber(str(inputs.behaviour.sizes["checkpoint"]), "checkpoints"),
        KeyNumber(f"{short_count(tokens.min())} – {short_count(tokens.max())}", "tokens seen"),
        KeyNumber(str(inputs.behaviour.sizes["task"]), "tasks"),
        *(of_comparisons if inputs.comparisons or inputs.transfer is None else []),
        *([KeyNumber(str(inputs.transfer["loss_change"].size), "copies tuned")] if inputs.transfer is not None else []),
    ]


def surface_stories(inputs: ReportInputs, found: Found) -> list[list[str]]:
    """Return for each contrast what accuracy says of the surface rule, and what becomes of the features of it."""
    stories = []
    for contrast, features in found.items():
        phase = find_surface_phase(inputs.behaviour, contrast)
        sentences = [phase_sentence(inputs.behaviour, contrast, phase)] if phase else []
        stories.append([*sentences, surface_sentences(inputs.runs[0], contrast, features)])
    return stories


def glance(run: Run) -> Glance:
    """Return a crosscoder at a glance."""
    lowest = [decimal(float(run.evaluation[name].min())) for name in QUALITY]
    return Glance(run, [*lowest, f"{float(run.evaluation['l0']):.1f}", percent(float(run.evaluation["dead_fraction"]))])


def classes_shown(table: pd.DataFrame) -> list[str]:
    """Return the classes that some feature has on some task, in order."""
    totals = table.groupby("class", sort=False)["features"].sum()
    return [str(name) for name, total in totals.items() if total]


def count_rows(table: pd.DataFrame) -> dict[str, list[Count]]:
    """Return by task the counts of the classes of `classes_shown`, from what `class_counts` returns."""
    shown = table[table["class"].isin(classes_shown(table))]
    rows: dict[str, list[Count]] = {}
    columns = ["task", "class", "features", "expected", "p_value"]
    for task, *numbers in shown[columns].itertuples(index=False, name=None):
        rows.setdefault(in_words(task), []).append(_count(*numbers))
    return rows


def _count(name: str, features: int, expected: float, p_value: float) -> Count:
    beyond = name != "uncertain" and p_value < SIGNIFICANT
    return Count(int(features), "" if pd.isna(expected) else f"{expected:.1f}", bool(beyond))
