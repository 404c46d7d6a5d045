"""The page on how good the crosscoders are, and how far they agree with one another."""

from typing import Any, NamedTuple

import xarray as xr

from chronocoder.figures.seeds import draw_seeds
from chronocoder.figures.training import METRICS, draw_training
from chronocoder.report.baselines import baseline_table
from chronocoder.report.codes import code_sentences
from chronocoder.report.inputs import ReportInputs, Run
from chronocoder.report.site import FigureGroup, Site, slug
from chronocoder.report.stability import seed_table
from chronocoder.report.trust import trust_finding
from chronocoder.wording import percent


class Quality(NamedTuple):
    """How well a crosscoder does at one checkpoint.

    Attributes:
        checkpoint: the checkpoint.
        above_one: whether cross-entropy recovered exceeds one.
        numbers: in the order of `COLUMNS`.
    """

    checkpoint: str
    above_one: bool
    numbers: list[str]


COLUMNS = (
    "Explained variance",
    "own code",
    "Cross-entropy recovered",
    "own code",
    "against the mean",
    "Change of cross-entropy, nats (± SE)",
)
_SHARES = (
    "explained_variance",
    "explained_variance_own",
    "cross_entropy_recovered",
    "cross_entropy_recovered_own",
    "cross_entropy_recovered_from_mean",
)


def crosscoders_page(inputs: ReportInputs, site: Site) -> dict[str, Any]:
    """Return what the page shows."""
    trainings = [run.training for run in inputs.runs]
    curves = [
        site.place(f"crosscoders/{slug(metric)}", draw_training(trainings, metric), label)
        for metric, label in METRICS.items()
    ]
    seeds = [
        site.place(
            f"crosscoders/seeds-{slug(matches.attrs['comparison'], matches.attrs['variant'])}", draw_seeds(matches)
        )
        for matches in inputs.seed_matches
    ]
    return {
        "columns": COLUMNS,
        "quality": [(run, size_cells(run), quality_rows(run.evaluation)) for run in inputs.runs],
        "any_above_one": any(run.evaluation["recovered_above_one"].any() for run in inputs.runs),
        "codes": code_sentences(inputs.runs),
        "training": FigureGroup("training", curves, ("Training curve",)),
        "seeds": [(seed_table(matches), figure) for matches, figure in zip(inputs.seed_matches, seeds, strict=True)],
        "baseline_tables": [baseline_table(baseline) for baseline in inputs.baselines],
        "estimators": trust_finding(inputs.runs),
    }


def size_cells(run: Run) -> list[str]:
    """Return the number of latents, how many are active per token, and which fraction is dead."""
    evaluation = run.evaluation
    return [
        str(run.relie.sizes["feature"]),
        f"{float(evaluation['l0']):.1f}",
        percent(float(evaluation["dead_fraction"])),
    ]


def quality_rows(evaluation: xr.Dataset) -> list[Quality]:
    """Return how well a crosscoder does at each of its checkpoints."""
    return [_quality(evaluation.isel(checkpoint=place)) for place in range(evaluation.sizes["checkpoint"])]


def _quality(here: xr.Dataset) -> Quality:
    change, error = float(here["splice_change"]), float(here["splice_change_error"])
    shares = [f"{float(here[name]):.3f}".replace("-", "−") for name in _SHARES]
    return Quality(
        str(here["checkpoint"].values),
        bool(here["recovered_above_one"]),
        [*shares, f"{change:+.4f} ± {error:.4f}".replace("-", "−")],
    )
