"""The page on how the model relates its tasks."""

from typing import Any

import xarray as xr

from chronocoder.figures.bridge import VARIABLES, draw_removal, draw_transfer_by_features
from chronocoder.figures.gradients import MEASURES, draw_gradient_course, draw_gradient_matrix
from chronocoder.figures.order import task_order
from chronocoder.figures.space import (
    BASES,
    draw_agreement_course,
    draw_contrast_course,
    draw_group_course,
    draw_space,
    draw_stability_course,
)
from chronocoder.figures.transfer import (
    draw_damage,
    draw_damage_course,
    draw_gain_course,
    draw_relative_transfer,
    draw_transfer,
    method_labels,
    unit_words,
)
from chronocoder.report.inputs import ReportInputs, key_of
from chronocoder.report.site import FigureGroup, Site, slug
from chronocoder.report.taskspace_bridge import CORRELATION_COLUMNS, REMOVAL_COLUMNS, bridge_sentences, bridge_tables
from chronocoder.report.taskspace_gradients import sharing_sentence
from chronocoder.report.taskspace_spaces import SPACE_COLUMNS, contrast_sentences, space_tables, stability_sentence
from chronocoder.report.taskspace_transfer import METHOD_COLUMNS, damage_sentences, method_tables, transfer_sentence
from chronocoder.stores import names
from chronocoder.wording import in_words, sentence

COURSES = {"groups": draw_group_course, "contrast": draw_contrast_course, "stability": draw_stability_course}
FOLDER = "taskspace"


def taskspace_page(inputs: ReportInputs, site: Site) -> dict[str, Any]:
    """Write the figures of the task space, and return what the page shows; there has to be one."""
    transfer, gradients, space = (inputs.space_stores[name] for name in ("transfer", "gradients", "space"))
    return {
        "many": task_order(space).many,
        "main": in_words(names(transfer, "tuning")[0]),
        "unit": unit_words(transfer),
        "sentences": {
            "transfer": [transfer_sentence(transfer)],
            "damage": damage_sentences(transfer),
            "gradients": [sharing_sentence(gradients)],
            "space": [*contrast_sentences(space), *filter(None, [stability_sentence(space)])],
            "bridge": [f"In {key_of(bridge).label}: {' '.join(bridge_sentences(bridge))}" for bridge in inputs.bridges],
        },
        "method_columns": METHOD_COLUMNS,
        "methods": method_tables(transfer),
        "space_columns": SPACE_COLUMNS,
        "spaces": space_tables(space),
        "correlation_columns": CORRELATION_COLUMNS,
        "removal_columns": REMOVAL_COLUMNS,
        "bridges": bridge_tables(inputs.bridges),
        "transfers": _transfers(transfer, site),
        "damages": _damages(transfer, site),
        "gradients": _gradients(gradients, site),
        "gradient_courses": _gradient_courses(gradients, site),
        "space_panels": _spaces(space, site),
        "space_courses": _space_courses(space, site),
        "agreement": FigureGroup("agreement", [site.place(f"{FOLDER}/agreement", draw_agreement_course(space))]),
        "bridge_figures": _bridges(inputs, site),
    }


def space_findings(inputs: ReportInputs) -> dict[str, str]:
    """Return the entries of the summary on the task space by label; none without one."""
    if inputs.transfer is None or inputs.gradients is None or inputs.space is None:
        return {}
    findings = {
        "Transfer between tasks": transfer_sentence(inputs.transfer),
        "Task space": contrast_sentences(inputs.space)[0],
    }
    for bridge in inputs.bridges[:1]:
        findings["Transfer and features"] = f"In {key_of(bridge).label}: {bridge_sentences(bridge)[0]}"
    return findings


def _transfers(transfer: xr.Dataset, site: Site) -> FigureGroup:
    kinds = {"transfer": draw_transfer, "relative": draw_relative_transfer}
    figures = [
        site.place(f"{FOLDER}/{kind}/{slug(name, checkpoint)}", draw(transfer, name, checkpoint), label, checkpoint)
        for name, label in method_labels(transfer).items()
        for checkpoint in names(transfer, "checkpoint")
        for kind, draw in kinds.items()
    ]
    last = len(kinds) * transfer.sizes["checkpoint"] - 1  # of the main method
    return FigureGroup("transfer", figures, ("Tuned by", "Checkpoint"), last)


def _damages(transfer: xr.Dataset, site: Site) -> list[FigureGroup]:
    at_checkpoints = [
        site.place(f"{FOLDER}/damage/{slug(checkpoint)}", draw_damage(transfer, checkpoint), checkpoint)
        for checkpoint in names(transfer, "checkpoint")
    ]
    over_training = [
        site.place(f"{FOLDER}/damage-over-training", draw_damage_course(transfer)),
        site.place(f"{FOLDER}/gain-over-training", draw_gain_course(transfer)),
    ]
    return [
        FigureGroup("damage", at_checkpoints, ("Checkpoint",), -1),
        FigureGroup("damage-over-training", over_training),
    ]


def _gradients(gradients: xr.Dataset, site: Site) -> FigureGroup:
    figures = [
        site.place(
            f"{FOLDER}/gradients/{slug(label, checkpoint)}",
            draw_gradient_matrix(gradients, label, checkpoint),
            sentence(label),
            checkpoint,
        )
        for label in MEASURES
        for checkpoint in names(gradients, "checkpoint")
    ]
    return FigureGroup("gradients", figures, ("Measure", "Checkpoint"), gradients.sizes["checkpoint"] - 1)


def _gradient_courses(gradients: xr.Dataset, site: Site) -> FigureGroup:
    figures = [
        site.place(f"{FOLDER}/gradients/{slug(label)}-over-training", draw_gradient_course(gradients, label))
        for label in MEASURES
    ]
    return FigureGroup("gradients-over-training", figures)


def _spaces(space: xr.Dataset, site: Site) -> FigureGroup:
    figures = [site.place(f"{FOLDER}/space-{basis}", draw_space(space, basis), f"from {basis}") for basis in BASES]
    return FigureGroup("space", figures, ("Space",))


def _space_courses(space: xr.Dataset, site: Site) -> FigureGroup:
    figures = [
        site.place(f"{FOLDER}/space-{basis}-{name}", draw(space, basis), f"from {basis}")
        for basis in BASES
        for name, draw in COURSES.items()
    ]
    return FigureGroup("space-over-training", figures, ("Space",))


def _bridges(inputs: ReportInputs, site: Site) -> FigureGroup:
    figures = []
    for bridge in inputs.bridges:
        key = key_of(bridge)
        for checkpoint in names(bridge, "checkpoint"):
            drawn = {measure: draw_transfer_by_features(bridge, measure, checkpoint) for measure in VARIABLES}
            drawn["removal"] = draw_removal(bridge, checkpoint)
            figures += [
                site.place(f"{FOLDER}/bridge/{key.slug}/{slug(checkpoint)}-{name}", chart, key.label, checkpoint)
                for name, chart in drawn.items()
            ]
    first = inputs.bridges[0].sizes["checkpoint"] * (1 + len(VARIABLES)) - 1 if inputs.bridges else 0
    return FigureGroup("bridge", figures, ("Crosscoder", "Checkpoint"), first)
