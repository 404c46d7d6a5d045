"""Putting the page together."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import xarray as xr
from plotly.offline import get_plotlyjs

from chronocoder.report.ability_figures import draw_abilities
from chronocoder.report.baselines import baseline_table
from chronocoder.report.choice import choice_rows
from chronocoder.report.compact import Vocabulary
from chronocoder.report.consolidation import COLUMNS as LANGUAGE_COLUMNS
from chronocoder.report.consolidation import draw_consolidations, language_tables
from chronocoder.report.contrasts import Found, find_all_features
from chronocoder.report.controls import BASES, COLUMNS, control_data, control_tables
from chronocoder.report.courses import DECIDED, course_counts, draw_courses
from chronocoder.report.data import CLASSES, feature_words, run_data
from chronocoder.report.feature_figures import draw_shares
from chronocoder.report.inputs import EXACT_ABLATION, ReportInputs, key_of
from chronocoder.report.stability import seed_table
from chronocoder.report.suite_figures import draw_similarities, draw_trainings
from chronocoder.report.summary import summarise
from chronocoder.report.tasks import kinds_named, reasons_named, task_rows, warnings_of
from chronocoder.report.taskspace_section import space_figures, space_parts
from chronocoder.report.text import short_count
from chronocoder.stores import write_text


class KeyNumber(NamedTuple):
    """A number at the head of the page.

    Attributes:
        value: as text.
        label: what it counts.
    """

    value: str
    label: str


def write_page(inputs: ReportInputs, path: Path) -> None:
    """Write the report; the file appears at `path` when whole."""
    write_text(path, render_page(inputs))


def render_page(inputs: ReportInputs) -> str:
    """Return the report as HTML."""
    found = [find_all_features(inputs, run) for run in inputs.runs]
    return _template().render(
        inputs=inputs,
        headline=headline(inputs),
        key_numbers=key_numbers(inputs),
        summary=summarise(inputs, found[0] if found else {}),
        choice_rows=choice_rows(inputs.choice) if inputs.choice is not None else [],
        task_kinds=kinds_named(inputs.behaviour),
        task_reasons=list(reasons_named(inputs.behaviour).values()),
        task_rows=task_rows(inputs.behaviour),
        provenance=provenance_rows(inputs),
        packages=package_versions(inputs),
        long_comparisons=any(run.relie.sizes["checkpoint"] > 2 for run in inputs.runs),
        any_above_one=any(run.evaluation["recovered_above_one"].any() for run in inputs.runs),
        is_exact=all(run.estimator == EXACT_ABLATION for run in inputs.runs),
        intervention=inputs.runs[0].intervention if inputs.runs else "",
        random_level=inputs.runs[0].random_level if inputs.runs else "",
        control_columns=[" or ".join(classes) for classes in COLUMNS],
        control_tables=control_tables(inputs),
        baseline_tables=[baseline_table(baseline) for baseline in inputs.baselines],
        language_columns=LANGUAGE_COLUMNS,
        language_tables=language_tables(
            inputs.consolidations, inputs.runs, [feature_words(run.features) for run in inputs.runs]
        ),
        seed_tables=[seed_table(matches) for matches in inputs.seed_matches],
        space=space_parts(inputs),
        document=page_data(inputs, found),
        style=_resource("report.css"),
        script=_resource("report.js"),
        plotly=get_plotlyjs(),
    )


def headline(inputs: ReportInputs) -> str:
    """Return what the page is about, in a clause."""
    if inputs.runs:
        return "when features emerge"
    return "when ability changes" if inputs.transfer is None else "how tasks are related"


def page_data(inputs: ReportInputs, found: Sequence[Found]) -> dict[str, Any]:
    """Return what the page's script reads: runs, token texts and figures."""
    vocabulary = Vocabulary()
    runs = [run_data(run, of_run, vocabulary) for run, of_run in zip(inputs.runs, found, strict=True)]
    emphasised = [task for contrast in inputs.contrasts for task in contrast]
    return {
        "classes": CLASSES,
        "bases": list(BASES.values()),
        "contrasts": [contrast._asdict() for contrast in inputs.contrasts],
        "runs": runs,
        "warnings": warnings_of(inputs.behaviour),
        "vocabulary": vocabulary.texts,
        "figures": {
            "ability": draw_abilities(inputs.behaviour, inputs.comparisons, emphasised),
            "similarity": draw_similarities(inputs.similarity, inputs.comparisons),
            "training": draw_trainings(inputs.runs),
            "consolidation": draw_consolidations(inputs.consolidations),
            **_scan_figures(inputs, emphasised),
            **space_figures(inputs),
        },
        "shares": [draw_shares(run) for run in inputs.runs],
        "controls": [control_data(run.relie) for run in inputs.runs],
        "decided": DECIDED,
        "courses": [{"figures": draw_courses(run.relie), "counts": course_counts(run.relie)} for run in inputs.runs],
    }


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


def provenance_rows(inputs: ReportInputs) -> list[list[str]]:
    """Return a row of what, settings digest and time of writing for each store."""
    return [
        [name, str(store.attrs["config_digest"]), str(store.attrs["created"]), str(store.attrs["settings"])]
        for name, store in _all_stores(inputs).items()
    ]


def package_versions(inputs: ReportInputs) -> list[str]:
    """Return the distinct sets of package versions that the stores were written with."""
    texts = (
        ", ".join(f"{name} {version}" for name, version in store.attrs["package_versions"].items())
        for store in _all_stores(inputs).values()
    )
    return list(dict.fromkeys(texts))


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "ensure_ascii": False, "separators": (",", ":")}
    return environment.from_string(_resource("report.html.jinja"))


def _resource(name: str) -> str:
    return files("chronocoder.report").joinpath(name).read_text(encoding="utf-8")


def _all_stores(inputs: ReportInputs) -> dict[str, xr.Dataset]:
    """Return every store that the report is made of, by a name in words."""
    stores = {"behaviour": inputs.behaviour, "similarity": inputs.similarity}
    stores |= {name: of for name, of in (("choice", inputs.choice), ("scan", inputs.scan)) if of is not None}
    stores |= {f"task space: {name}": store for name, store in inputs.space_stores.items()}
    for run in inputs.runs:
        stores |= {f"{run.key.label}: {name}": dataset for name, dataset in run.stores.items()}
    of_others = {
        "control": inputs.controls,
        "evaluation": inputs.control_evaluations,
        "baseline": inputs.baselines,
        "languages": inputs.consolidations,
        "transfer and features": inputs.bridges,
    }
    for kind, others in of_others.items():
        stores |= {f"{key_of(dataset).label}: {kind}": dataset for dataset in others}
    return stores | {
        f"{matches.attrs['comparison']} · {matches.attrs['variant']}: seeds": matches for matches in inputs.seed_matches
    }


def _scan_figures(inputs: ReportInputs, emphasised: Sequence[str]) -> dict[str, Any]:
    if inputs.scan is None:
        return {}
    return {
        "scan": draw_abilities(inputs.scan, inputs.comparisons, emphasised),
        "scanSimilarity": draw_similarities(inputs.scan, inputs.comparisons),
    }
