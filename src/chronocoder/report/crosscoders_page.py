"""The page on how good the crosscoders are, and how far they agree."""

from typing import Any

from chronocoder.report.baselines import baseline_table
from chronocoder.report.inputs import ReportInputs
from chronocoder.report.site import Site
from chronocoder.report.stability import seed_table


def crosscoders_page(inputs: ReportInputs, site: Site) -> dict[str, Any]:
    """Return what the page shows."""
    return {
        "any_above_one": any(run.evaluation["recovered_above_one"].any() for run in inputs.runs),
        "seed_tables": [seed_table(matches) for matches in inputs.seed_matches],
        "baseline_tables": [baseline_table(baseline) for baseline in inputs.baselines],
    }
