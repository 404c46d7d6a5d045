"""The page on what tasks, and languages, share."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import xarray as xr

from chronocoder.features.task_overlap import TOP_FEATURES, compare_tasks
from chronocoder.figures.languages import draw_languages_served
from chronocoder.figures.order import task_order
from chronocoder.figures.overlap import (
    KINDS,
    draw_language_matrix,
    draw_language_overlap,
    draw_task_overlap,
    draw_task_overlap_course,
    task_overlap_means,
)
from chronocoder.report.consolidation import (
    COLUMNS,
    is_many,
    language_sentences,
    language_tables,
    languages_of,
    pairs_of,
    serving_sentence,
)
from chronocoder.report.data import feature_words
from chronocoder.report.inputs import ReportInputs, Run, RunKey, key_of
from chronocoder.report.site import FigureGroup, Site, slug
from chronocoder.report.task_overlap import CommonFeature, common_features, overlap_rows, overlap_sentence
from chronocoder.stores import names
from chronocoder.wording import sentence

FOLDER = "tasks"
RUN_LEVEL = "Crosscoder"


class TaskTable(NamedTuple):
    """What the tasks of one run share.

    Attributes:
        run: which one.
        sentence: what is found.
        rows: the numbers of each checkpoint.
        features: those that matter to most tasks at the last checkpoint.
    """

    run: RunKey
    sentence: str
    rows: list[tuple[str, list[str]]]
    features: list[CommonFeature]


def tasks_page(inputs: ReportInputs, site: Site) -> dict[str, Any]:
    """Write the figures of what tasks and languages share, and return what the page shows; there has to be a run."""
    overlaps = [compare_tasks(run.relie) for run in inputs.runs]
    words = {run.key: feature_words(run.features) for run in inputs.runs}
    runs = {run.key: run for run in inputs.runs}
    return {
        "many": task_order(overlaps[0], group="phenomenon").many,
        "top_features": TOP_FEATURES,
        "overlap_columns": [*map(sentence, task_overlap_means(overlaps[0])), "Pairs beyond chance"],
        "task_tables": [
            TaskTable(run.key, overlap_sentence(of_run), overlap_rows(of_run), common_features(run, words[run.key]))
            for run, of_run in zip(inputs.runs, overlaps, strict=True)
        ],
        "overlaps": _overlaps(inputs.runs, overlaps, site),
        "overlap_courses": _overlap_courses(inputs.runs, overlaps, site),
        "language_columns": COLUMNS,
        "language_findings": [
            f"In {key_of(store).label}: {text}"
            for store in inputs.consolidations
            for text in (" ".join(language_sentences(store)), serving_sentence(store))
        ],
        "language_tables": [
            table
            for store in inputs.consolidations
            for table in language_tables(store, runs[key_of(store)], words[key_of(store)])
        ],
        "served": _served(inputs, site),
        "language_overlaps": _language_overlaps(inputs, site),
        "language_matrices": _language_matrices(inputs, site),
    }


def _overlaps(runs: Sequence[Run], overlaps: Sequence[xr.Dataset], site: Site) -> FigureGroup:
    figures = [
        site.place(
            f"{FOLDER}/{run.key.slug}/overlap-{slug(checkpoint)}",
            draw_task_overlap(of_run, checkpoint),
            run.key.label,
            checkpoint,
        )
        for run, of_run in zip(runs, overlaps, strict=True)
        for checkpoint in run.checkpoints
    ]
    return FigureGroup("overlap", figures, (RUN_LEVEL, "Checkpoint"), len(runs[0].checkpoints) - 1)


def _overlap_courses(runs: Sequence[Run], overlaps: Sequence[xr.Dataset], site: Site) -> FigureGroup:
    figures = [
        site.place(f"{FOLDER}/{run.key.slug}/overlap-over-training", draw_task_overlap_course(of_run), run.key.label)
        for run, of_run in zip(runs, overlaps, strict=True)
    ]
    return FigureGroup("overlap-over-training", figures, (RUN_LEVEL,))


def _served(inputs: ReportInputs, site: Site) -> FigureGroup:
    figures = [
        site.place(f"{FOLDER}/{key_of(store).slug}/languages-served", draw_languages_served(store), key_of(store).label)
        for store in inputs.consolidations
    ]
    return FigureGroup("languages-served", figures, (RUN_LEVEL,))


def _language_overlaps(inputs: ReportInputs, site: Site) -> FigureGroup:
    """Place a figure for each run, pair of languages and way to compare them, where there are few pairs."""
    figures = [
        site.place(
            f"{FOLDER}/{key_of(store).slug}/{slug(*languages_of(of_pair), kind)}",
            draw_language_overlap(of_pair, kind),
            key_of(store).label,
            " and ".join(languages_of(of_pair)),
            kind,
        )
        for store in inputs.consolidations
        if not is_many(store)
        for of_pair in pairs_of(store)
        for kind in KINDS
    ]
    return FigureGroup("language-overlap", figures, (RUN_LEVEL, "Languages", "Overlap"))


def _language_matrices(inputs: ReportInputs, site: Site) -> FigureGroup:
    """Place a matrix of languages for each run and checkpoint, where there are many pairs."""
    figures = [
        site.place(
            f"{FOLDER}/{key_of(store).slug}/languages-{slug(checkpoint)}",
            draw_language_matrix(store, checkpoint),
            key_of(store).label,
            checkpoint,
        )
        for store in inputs.consolidations
        if is_many(store)
        for checkpoint in names(store, "checkpoint")
    ]
    return FigureGroup("languages", figures, (RUN_LEVEL, "Checkpoint"))
