"""A run's features over time: where their effects lie, what becomes of them, and how much of it chance would give."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from chronocoder.figures.chart import Chart
from chronocoder.figures.classes import draw_class_counts
from chronocoder.figures.decoder_share import draw_decoder_share, shown_checkpoints
from chronocoder.figures.flow import draw_presence, draw_succession
from chronocoder.figures.pairs import BASES, PUBLISHED, TOTAL, class_by
from chronocoder.figures.shares import draw_shares
from chronocoder.figures.ternary import CORNERS, draw_ternary
from chronocoder.figures.trajectories import draw_clusters, draw_largest, largest_features
from chronocoder.report.controls import (
    COLUMNS,
    ControlRow,
    TaskControls,
    basis_sentence,
    chance_sentence,
    control_tables,
    task_controls,
)
from chronocoder.report.courses import DECIDED, course_counts
from chronocoder.report.data import feature_words
from chronocoder.report.inputs import ReportInputs, Run
from chronocoder.report.run_effects import annotated, task_labels
from chronocoder.report.site import FigureGroup, Placed, Site, slug
from chronocoder.report.successions import Succession, succession_sentences, successions_of
from chronocoder.report.tasks import MANY_TASKS
from chronocoder.tasks.groups import Group, finest_groups
from chronocoder.wording import counted, in_words, listed, percent, quoted, signed

Places = slice | np.ndarray
"""Which tasks."""
EVERYTHING = "all tasks"
TASK, RELIE, CHECKPOINT = "Task", "RelIE", "Checkpoint"


class FeatureRow(NamedTuple):
    """A feature of large effect on a task.

    Attributes:
        feature: its number.
        annotation: what a reader calls it; may be empty.
        words: those it is most active on.
        classes: by the published share, and with IE divided by the checkpoint's total.
        support: the fraction of resamples that agree on the course.
        effects: IE at each checkpoint with its interval, and whether it is measurable.
    """

    feature: int
    annotation: str
    words: str
    classes: tuple[str, str]
    support: str
    effects: list[tuple[str, bool]]


class Features(NamedTuple):
    """What the page of a run shows of its features over time.

    Attributes:
        slug: the run in anchors of features.
        measured: how many features have a measurable effect.
        unmeasured: on which tasks none has; may be empty.
        grouped: whether groups stand in for their tasks.
        shares: where effects lie.
        largest: effects of the largest features on each task.
        largest_rows: the same in numbers, by task.
        clusters: of trajectories; None of a pair.
        cluster_rows: for each cluster its size, and how many pairs of each of `cluster_heads` it has.
        cluster_heads: classes.
        triangles: shares of a triplet; None of other comparisons.
        presence: flow between presence and absence.
        successions: flow between classes over comparisons that follow; None where none does.
        succession_sentences: how many features are found again in each.
        decoder_shares: RelIE over RelDec.
        classes: classes beside random directions.
        class_sentences: whether they are more frequent, and how many differ by basis.
        controls: classes beside their controls, by task.
        control_columns: classes that are counted together in `control_tables`.
        control_tables: comparisons without development.
    """

    slug: str
    measured: str
    unmeasured: str
    grouped: bool
    shares: FigureGroup
    largest: FigureGroup
    largest_rows: Mapping[str, list[FeatureRow]]
    clusters: FigureGroup | None
    cluster_rows: list[list[int]]
    cluster_heads: Sequence[str]
    triangles: FigureGroup | None
    presence: FigureGroup
    successions: FigureGroup | None
    succession_sentences: list[str]
    decoder_shares: FigureGroup
    classes: FigureGroup
    class_sentences: list[str]
    controls: list[TaskControls]
    control_columns: list[str]
    control_tables: list[tuple[str, str, str, list[ControlRow]]]


def run_features(inputs: ReportInputs, run: Run, site: Site) -> dict[str, Any]:
    """Draw the figures of a run's features over time, and return what its page says of them.

    Args:
        inputs: what the report shows.
        run: its stores.
        site: takes up the figures.
    """
    labels, annotations, words = task_labels(inputs, run.tasks), annotated(inputs, run), feature_words(run.features)
    parts = parts_of(run.relie, labels)
    features = Features(
        slug=run.key.slug,
        measured=measured_sentence(run.relie),
        unmeasured=unmeasured_sentence(run.relie),
        grouped=bool(_groups(run.relie)),
        shares=_shares(run, site),
        largest=_largest(run, site, labels),
        largest_rows={
            labels[task]: feature_rows(run.relie.sel(task=task), annotations, words)
            for task in measured_tasks(run.relie)
        },
        clusters=_clusters(run, site),
        cluster_rows=course_counts(run.relie),
        cluster_heads=DECIDED,
        triangles=_by_part(run, site, parts, "triangles", draw_ternary) if len(run.checkpoints) == CORNERS else None,
        presence=_presence(run, site, parts),
        successions=_successions(inputs, run, site),
        succession_sentences=succession_sentences(inputs, run),
        decoder_shares=_by_part(run, site, parts, "decoder-shares", draw_decoder_share),
        classes=_classes(run, site),
        class_sentences=[
            *(chance_sentence(run.relie, basis) for basis in (TOTAL, PUBLISHED)),
            basis_sentence(run.relie),
        ],
        controls=task_controls(run.relie),
        control_columns=[" or ".join(classes) for classes in COLUMNS],
        control_tables=control_tables(inputs),
    )
    return {"features": features}


def measured_sentence(relie: xr.Dataset) -> str:
    """Return how many features have a measurable effect on some task at some checkpoint."""
    seen = relie["measurable"].any("checkpoint")
    count, pairs = int(seen.any("task").sum()), int(seen.sum())
    return (
        f"{count} of {counted(relie.sizes['feature'], 'feature')} have a measurable effect on some task at some"
        f" checkpoint, {counted(pairs, 'feature–task pair')} in all."
    )


def unmeasured_sentence(relie: xr.Dataset) -> str:
    """Return on which tasks no feature has a measurable effect; empty if there is none."""
    seen = relie["measurable"].any(("checkpoint", "feature"))
    tasks = [quoted(str(task)) for task in relie["task"].values[~seen.values]]
    if not tasks:
        return ""
    return f"On {listed(tasks)} no feature has one."


def feature_rows(
    of_task: xr.Dataset, annotations: Mapping[int, str], words: Mapping[int, list[str]]
) -> list[FeatureRow]:
    """Return the features of largest effect on a task, those that the figure shows.

    Args:
        of_task: effects on the task, dims (checkpoint, feature).
        annotations: by feature, what a reader calls it.
        words: by feature, those it is most active on.
    """
    return [
        _row(of_task.sel(feature=feature), annotations.get(feature, ""), words.get(feature, []))
        for feature in largest_features(of_task)
    ]


def parts_of(relie: xr.Dataset, labels: Mapping[str, str]) -> dict[str, Places]:
    """Return all tasks, and each, or each group where there are many tasks, by what it is called.

    Parts without a measurable effect are left out.

    Args:
        relie: effects, dims (task, checkpoint, feature).
        labels: what each task is called.

    Returns:
        The places of the tasks of each part: the effects of all parts together are as large as `relie`.
    """
    parts: dict[str, Places] = {EVERYTHING: slice(None)}
    if groups := _groups(relie):
        parts |= {in_words(group.name): group.tasks for group in groups}
    elif relie.sizes["task"] <= MANY_TASKS:
        parts |= {label: np.array([place]) for place, label in enumerate(labels.values())}
    seen = relie["measurable"].any(("checkpoint", "feature")).values
    return {name: places for name, places in parts.items() if seen[places].any()}


def measured_tasks(relie: xr.Dataset) -> list[str]:
    """Return the tasks on which some feature has a measurable effect."""
    seen = relie["measurable"].any(("checkpoint", "feature")).values
    return [str(task) for task in relie["task"].values[seen]]


def _shares(run: Run, site: Site) -> FigureGroup:
    checkpoints = shown_checkpoints(run.relie) if measured_tasks(run.relie) else []
    several = len(run.checkpoints) > 2
    placed = [
        _place(run, site, "shares", draw_shares(run.relie, name, basis, _groups(run.relie)), words, *[name] * several)
        for basis, words in BASES.items()
        for name in checkpoints
    ]
    levels = (RELIE, CHECKPOINT) if several else (RELIE,)
    return FigureGroup("shares-figures", placed, levels, shown=len(checkpoints) - 1)


def _largest(run: Run, site: Site, labels: Mapping[str, str]) -> FigureGroup:
    placed = [
        _place(run, site, "largest", draw_largest(run.relie, task), labels[task]) for task in measured_tasks(run.relie)
    ]
    return FigureGroup("largest-figures", placed, (TASK,))


def _clusters(run: Run, site: Site) -> FigureGroup | None:
    if not run.relie.sizes.get("cluster"):
        return None
    return FigureGroup("cluster-figures", [_place(run, site, "clusters", draw_clusters(run.relie))])


def _presence(run: Run, site: Site, parts: Mapping[str, Places]) -> FigureGroup:
    """Draw flows; of a pair only that of all tasks together, since its classes say as much of each task."""
    several = len(run.checkpoints) > 2
    placed = [
        _place(run, site, "presence", draw_presence(run.relie.isel(task=places), basis), *[label] * several, words)
        for label, places in parts.items()
        if several or label == EVERYTHING
        for basis, words in BASES.items()
    ]
    return FigureGroup("presence-figures", placed, (TASK, RELIE) if several else (RELIE,))


def _successions(inputs: ReportInputs, run: Run, site: Site) -> FigureGroup | None:
    placed = [
        _place(run, site, "succession", _succession_chart(succession, basis), succession.label, words)
        for succession in successions_of(inputs, run)
        for basis, words in BASES.items()
    ]
    return FigureGroup("succession-figures", placed, ("Comparisons", RELIE)) if placed else None


def _succession_chart(succession: Succession, basis: str) -> Chart:
    relies = {run.key.comparison: run.relie for run in succession.runs}
    return draw_succession(relies, succession.matches, basis)


def _by_part(
    run: Run, site: Site, parts: Mapping[str, Places], name: str, draw: Callable[[xr.Dataset], Chart]
) -> FigureGroup:
    placed = [_place(run, site, name, draw(run.relie.isel(task=places)), label) for label, places in parts.items()]
    return FigureGroup(f"{name}-figures", placed, (TASK,))


def _classes(run: Run, site: Site) -> FigureGroup:
    placed = [
        _place(run, site, "classes", draw_class_counts(run.relie, basis), words)
        for basis, words in reversed(BASES.items())
    ]
    return FigureGroup("class-figures", placed, (RELIE,))


def _place(run: Run, site: Site, name: str, chart: Chart, *choices: str) -> Placed:
    return site.place(f"{run.key.slug}/{slug(name, *choices)}", chart, *choices)


def _groups(relie: xr.Dataset) -> list[Group]:
    """Return the groups that stand in for their tasks where there are many; else none."""
    return finest_groups(relie) if relie.sizes["task"] > MANY_TASKS else []


def _row(own: xr.Dataset, annotation: str, words: list[str]) -> FeatureRow:
    ends = ([float(value) for value in own[f"indirect_effect{end}"].values] for end in ("", "_low", "_high"))
    effects = [f"{signed(effect)} ({signed(low)} to {signed(high)})" for effect, low, high in zip(*ends, strict=True)]
    return FeatureRow(
        feature=int(own["feature"]),
        annotation=annotation,
        words=", ".join(words),
        classes=(str(own["feature_class"].values), str(class_by(own, TOTAL).values)),
        support=percent(float(own["class_support"])),
        effects=list(zip(effects, own["measurable"].values.tolist(), strict=True)),
    )
