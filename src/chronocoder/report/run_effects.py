"""The effects of a run: what they tell of a surface rule, what their changes are due to, and how far to trust them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import xarray as xr

from chronocoder.figures.contrast import affecting, draw_contrast
from chronocoder.figures.estimator import draw_agreement, draw_estimates
from chronocoder.figures.faithfulness import draw_faithfulness
from chronocoder.figures.written import draw_written_shares
from chronocoder.report.conditions import conditions_of
from chronocoder.report.contrasts import ContrastFeatures, FollowedLine, Found, followed_lines, found_words
from chronocoder.report.data import feature_words
from chronocoder.report.inputs import EXACT_ABLATION, Contrast, ReportInputs, Run
from chronocoder.report.site import FigureGroup, Placed, Site, slug
from chronocoder.report.tasks import caution
from chronocoder.report.trust import (
    GOOD_SPEARMAN,
    Row,
    agreement,
    estimators,
    measurable_note,
    measures,
    trust_rows,
    trust_sentences,
)
from chronocoder.report.writing import WrittenPair, written_pairs
from chronocoder.tasks.groups import warnings_of
from chronocoder.wording import MARK, in_words, listed, plural, sentence


class ContrastPart(NamedTuple):
    """What a run tells of one contrast.

    Attributes:
        title: the two tasks.
        lead: how many features stand for the surface rule, and at which checkpoint.
        caution: which of the tasks has a warning; may be empty.
        figures: effects on both tasks by condition, one figure a checkpoint; None where no effect is measurable.
        checkpoints: where the features are followed.
        lines: what becomes of them.
        words: by feature, those it is most active on.
        unsupported: by feature, the checkpoints that do not support its code; may be empty.
    """

    title: str
    lead: str
    caution: str
    figures: FigureGroup | None
    checkpoints: list[str]
    lines: list[FollowedLine]
    words: Mapping[int, str]
    unsupported: Mapping[int, str]


class WritingPart(NamedTuple):
    """What the changes of effects are due to.

    Attributes:
        figures: the share of what is written on each task, one figure for each pair of checkpoints.
        tasks: for each task, what its changes are due to between every two checkpoints.
    """

    figures: FigureGroup
    tasks: Mapping[str, Sequence[WrittenPair]]


class TrustPart(NamedTuple):
    """How far the effects can be trusted.

    Attributes:
        is_exact: whether they all come from exact ablation.
        sentences: what the table says.
        rows: its lines.
        note: what has to be expected of random directions; may be empty.
        agreement: rank correlations on each task, one figure a checkpoint.
        estimates: estimates against exact effects, one figure an estimator.
        curves: features ablated together, one figure a checkpoint.
    """

    is_exact: bool
    sentences: list[str]
    rows: list[Row]
    note: str
    agreement: FigureGroup
    estimates: FigureGroup
    curves: FigureGroup


class Effects(NamedTuple):
    """What the page of a run shows of its effects.

    Attributes:
        slug: the run in anchors of features.
        checkpoints: those of the run.
        random_level: which percentage of random directions stays within their level.
        annotations: by feature, what a reader calls it; of those that are called something.
        contrasts: one part for each contrast; may be empty.
        writing: writer or reader.
        trust: reliability.
    """

    slug: str
    checkpoints: list[str]
    random_level: str
    annotations: Mapping[int, str]
    contrasts: list[ContrastPart]
    writing: WritingPart
    trust: TrustPart


def run_effects(inputs: ReportInputs, run: Run, found: Found, site: Site) -> dict[str, Any]:
    """Draw the figures of a run's effects, and return what its page says of them.

    Args:
        inputs: what the report shows.
        run: its stores.
        found: what each contrast brings out in it.
        site: takes up the figures.
    """
    labels = task_labels(inputs, run.tasks)
    effects = Effects(
        slug=run.key.slug,
        checkpoints=run.checkpoints,
        random_level=run.random_level,
        annotations=annotated(inputs, run),
        contrasts=[_contrast_part(inputs, run, contrast, of, site) for contrast, of in found.items()],
        writing=_writing_part(run, labels, site),
        trust=_trust_part(run, labels, site),
    )
    return {"effects": effects}


def task_labels(inputs: ReportInputs, tasks: Sequence[str]) -> dict[str, str]:
    """Return what tasks are called, marked where a warning goes with them."""
    warned = warnings_of(inputs.behaviour)
    return {task: f"{MARK} {in_words(task)}" if task in warned else in_words(task) for task in tasks}


def annotated(inputs: ReportInputs, run: Run) -> dict[int, str]:
    """Return what a reader calls features of a run: label and category, or the note where neither is given."""
    own = [one for one in inputs.annotations if one.place[:4] == (inputs.suite, *run.key)]
    return {one.feature: " · ".join(filter(None, (one.label, one.category))) or one.note for one in own}


def _contrast_part(
    inputs: ReportInputs, run: Run, contrast: Contrast, found: ContrastFeatures, site: Site
) -> ContrastPart:
    near, far = map(in_words, contrast)
    return ContrastPart(
        title=f"{sentence(near)} against {far}",
        lead=f"{sentence(found_words(contrast, found))}.",
        caution=caution(inputs.behaviour, contrast).strip(),
        figures=_contrast_figures(run, contrast, found, site),
        checkpoints=found.checkpoints,
        lines=followed_lines(found),
        words={feature: _words(run, feature) for feature in found.numbers},
        unsupported={feature: _unsupported(run, feature) for feature in found.numbers},
    )


def _contrast_figures(run: Run, contrast: Contrast, found: ContrastFeatures, site: Site) -> FigureGroup | None:
    if not (found.numbers or affecting(run.relie, contrast)):
        return None
    conditions = conditions_of(run.relie.sel(task=contrast.conflicting))
    name = f"contrast-{slug(*contrast)}"
    figures = [
        site.place(
            f"{run.key.slug}/{name}/{place}-{slug(checkpoint)}",
            draw_contrast(run.relie, *contrast, condition, checkpoint, found.numbers, run.random_fraction),
            condition,
        )
        for place, condition in enumerate(conditions)
        for checkpoint in run.checkpoints
    ]
    return FigureGroup(name, figures, (f"Condition of {in_words(contrast.conflicting)}",))


def _words(run: Run, feature: int) -> str:
    if feature not in run.features["feature"].values:
        return "no examples stored"
    return ", ".join(feature_words(run.features.sel(feature=[feature]))[feature]) or "–"


def _unsupported(run: Run, feature: int) -> str:
    supported = run.evaluation["code_supported"].sel(feature=feature)
    return listed([name for name in run.checkpoints if not supported.sel(checkpoint=name)])


def _writing_part(run: Run, labels: Mapping[str, str], site: Site) -> WritingPart:
    stores = {task: run.ablations[task] for task in run.tasks}
    tasks = {labels[task]: written_pairs(store) for task, store in stores.items()}
    pairs = next(iter(tasks.values()))
    figures = [
        site.place(f"{run.key.slug}/written/{slug(*pair.checkpoints)}", draw_written_shares(stores, place))
        for place, pair in enumerate(pairs)
    ]
    return WritingPart(FigureGroup("written", figures), tasks)


def _trust_part(run: Run, labels: Mapping[str, str], site: Site) -> TrustPart:
    return TrustPart(
        is_exact=run.estimator == EXACT_ABLATION,
        sentences=trust_sentences(run),
        rows=trust_rows(run),
        note=measurable_note(run),
        agreement=FigureGroup("agreement", _agreement_figures(run, site), ("Correlation of",)),
        estimates=_estimate_figures(run, site),
        curves=FigureGroup("faithfulness", _curve_figures(run, labels, site), ("Task",)),
    )


def _agreement_figures(run: Run, site: Site) -> list[Placed]:
    found = agreement(run)
    kinds = {
        "single effects": (found["spearman"], estimators(found)),
        "shares of checkpoints": (found["share_spearman"], measures(found)),
    }
    return [
        site.place(
            f"{run.key.slug}/agreement/{slug(kind, checkpoint)}",
            draw_agreement(correlation, checkpoint, labels, GOOD_SPEARMAN),
            kind,
        )
        for kind, (correlation, labels) in kinds.items()
        for checkpoint in run.checkpoints
    ]


def _estimate_figures(run: Run, site: Site) -> FigureGroup:
    """Return a figure for each estimator; where effects have several units, of the tasks of one unit at a time."""
    labels = estimators(agreement(run))
    by_unit: dict[str, dict[str, xr.Dataset]] = {}
    for task, unit in run.units.items():
        by_unit.setdefault(unit, {})[task] = run.ablations[task]
    figures = [
        site.place(
            f"{run.key.slug}/estimates/{slug(unit, name)}",
            draw_estimates(stores, name, sentence(label)),
            *([plural(unit)] if len(by_unit) > 1 else []),
        )
        for unit, stores in by_unit.items()
        for name, label in labels.items()
    ]
    return FigureGroup("estimates", figures, ("Effects in",) if len(by_unit) > 1 else ())


def _curve_figures(run: Run, labels: Mapping[str, str], site: Site) -> list[Placed]:
    return [
        site.place(
            f"{run.key.slug}/faithfulness/{slug(task, checkpoint)}",
            draw_faithfulness(run.ablations[task], checkpoint),
            labels[task],
        )
        for task in run.tasks
        for checkpoint in run.checkpoints
    ]
