"""The table of all features, and the page of each: both load what they show when it is asked for."""

from typing import Any

from chronocoder.report.annotations import COLUMNS
from chronocoder.report.controls import BASES, TOTAL
from chronocoder.report.data import CLASSES
from chronocoder.report.examples import LEVELS
from chronocoder.report.feature_records import record_part
from chronocoder.report.inputs import EXACT_ABLATION, ReportInputs, Run
from chronocoder.report.run_records import run_record, task_table
from chronocoder.report.site import Site
from chronocoder.report.table_component import add_table_component
from chronocoder.tasks.groups import warnings_of

SHARD = 50
"""Features that are loaded at once."""


def features_page(inputs: ReportInputs, site: Site) -> dict[str, Any]:
    """Write the data of the table of features, and return what its template needs.

    Below `data`: `report`, with what all runs share, `annotations`, and for each run `<slug>/run` and
    `<slug>/table-<place of the task>`.
    """
    add_table_component(site.directory)
    site.data(
        "report",
        {
            "classes": CLASSES,
            "bases": list(BASES.values()),
            "basis": list(BASES).index(TOTAL),
            "levels": LEVELS,
            "shard": SHARD,
            "suite": inputs.suite,
            "runs": [
                {
                    **run.key._asdict(),
                    "slug": run.key.slug,
                    "label": run.key.label,
                    "features": run.relie.sizes["feature"],
                }
                for run in inputs.runs
            ],
        },
    )
    site.data("annotations", [{name: getattr(one, name) for name in COLUMNS} for one in inputs.annotations])
    warnings = warnings_of(inputs.behaviour)
    for run in inputs.runs:
        site.data(f"{run.key.slug}/run", run_record(run, inputs.suite, warnings))
        for place in range(len(run.tasks)):
            site.data(f"{run.key.slug}/table-{place}", task_table(run, place))
    return _terms(inputs)


def feature_page(inputs: ReportInputs, _: Site) -> dict[str, Any]:
    """Return what the template of the page of a feature needs; `write_features` writes what it loads."""
    return {**_terms(inputs), "any_estimated": any(run.estimator != EXACT_ABLATION for run in inputs.runs)}


def write_features(run: Run, site: Site) -> None:
    """Write the data of all features of a run, `<slug>/features-<n>` below `data`."""
    record = record_part(run)
    count = run.relie.sizes["feature"]
    for first in range(0, count, SHARD):
        places = range(first, min(first + SHARD, count))
        site.data(f"{run.key.slug}/features-{first // SHARD}", [record(place) for place in places])


def _terms(inputs: ReportInputs) -> dict[str, Any]:
    first = inputs.runs[0]
    return {"intervention": first.intervention, "random_level": first.random_level, "confidence": first.confidence}
