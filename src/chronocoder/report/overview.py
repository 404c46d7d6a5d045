"""The first page: what the report is about, and what was found, in short."""

from typing import Any, NamedTuple

from chronocoder.report.contrasts import find_all_features
from chronocoder.report.inputs import ReportInputs
from chronocoder.report.site import Site
from chronocoder.report.summary import summarise
from chronocoder.report.text import short_count


class KeyNumber(NamedTuple):
    """A number at the head of the page.

    Attributes:
        value: as text.
        label: what it counts.
    """

    value: str
    label: str


def overview(inputs: ReportInputs, site: Site) -> dict[str, Any]:
    """Return what the first page shows."""
    found = find_all_features(inputs, inputs.runs[0]) if inputs.runs else {}
    return {
        "headline": headline(inputs),
        "key_numbers": key_numbers(inputs),
        "summary": summarise(inputs, found),
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
