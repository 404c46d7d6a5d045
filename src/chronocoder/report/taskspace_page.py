"""The section on task spaces: what the template, the page's script and the summary take from its parts."""

from typing import Any, NamedTuple

from chronocoder.report.inputs import ReportInputs, key_of, names
from chronocoder.report.taskspace import task_order, unit_words
from chronocoder.report.taskspace_bridge import (
    CORRELATION_COLUMNS,
    REMOVAL_COLUMNS,
    BridgeRow,
    bridge_sentences,
    bridge_tables,
    draw_bridges,
    hidden_pairs,
)
from chronocoder.report.taskspace_gradients import draw_gradient_courses, draw_gradients, sharing_sentence
from chronocoder.report.taskspace_spaces import (
    SPACE_COLUMNS,
    GroupMark,
    contrast_sentences,
    draw_space_courses,
    draw_spaces,
    group_marks,
    space_tables,
    stability_sentence,
)
from chronocoder.report.taskspace_transfer import (
    METHOD_COLUMNS,
    MethodRow,
    damage_sentences,
    draw_damages,
    draw_transfers,
    method_tables,
    transfer_sentence,
)
from chronocoder.report.text import in_words


class SpaceParts(NamedTuple):
    """What the template shows of a task space beside figures.

    Attributes:
        many: whether there are so many tasks that each matrix needs the whole width.
        main: the method that makes the space, in words.
        unit: of transfer.
        sentences: what is found, by part of the section.
        marks: the legend of groups.
        method_columns: heads of the numbers of methods.
        methods: rows of each method.
        space_columns: heads of the numbers of spaces.
        spaces: rows of each basis.
        bridge_columns: heads of the numbers of bridges: of correlations, and of removals.
        bridges: rows of each run.
        shown_pairs: how many pairs of tasks the figures of bridges show, and of how many.
        source: a task, for the note on how to read the stores.
        method: name of the main method, for the same.
    """

    many: bool
    main: str
    unit: str
    sentences: dict[str, list[str]]
    marks: list[GroupMark]
    method_columns: tuple[str, ...]
    methods: dict[str, list[MethodRow]]
    space_columns: tuple[str, ...]
    spaces: dict[str, list[tuple[str, list[str]]]]
    bridge_columns: tuple[tuple[str, ...], tuple[str, ...]]
    bridges: dict[str, list[BridgeRow]]
    shown_pairs: tuple[int, int]
    source: str
    method: str


def space_parts(inputs: ReportInputs) -> SpaceParts | None:
    """Return what the template shows of the task space; None without one."""
    if inputs.transfer is None or inputs.gradients is None or inputs.space is None:
        return None
    main = names(inputs.transfer, "tuning")[0]
    return SpaceParts(
        many=task_order(inputs.space).many,
        main=in_words(main),
        unit=unit_words(inputs.transfer),
        sentences={
            "transfer": [transfer_sentence(inputs.transfer)],
            "damage": damage_sentences(inputs.transfer),
            "gradients": [sharing_sentence(inputs.gradients)],
            "space": [*contrast_sentences(inputs.space), *filter(None, [stability_sentence(inputs.space)])],
            "bridge": [f"In {key_of(bridge).label}: {' '.join(bridge_sentences(bridge))}" for bridge in inputs.bridges],
        },
        marks=group_marks(inputs.space),
        method_columns=METHOD_COLUMNS,
        methods=method_tables(inputs.transfer),
        space_columns=SPACE_COLUMNS,
        spaces=space_tables(inputs.space),
        bridge_columns=(CORRELATION_COLUMNS, REMOVAL_COLUMNS),
        bridges=bridge_tables(inputs.bridges),
        shown_pairs=hidden_pairs(inputs.bridges),
        source=names(inputs.transfer, "source")[0],
        method=main,
    )


def space_figures(inputs: ReportInputs) -> dict[str, Any]:
    """Return the figures of the section by name, each a selection; none without a task space."""
    if inputs.transfer is None or inputs.gradients is None or inputs.space is None:
        return {}
    bridges = {"bridge": draw_bridges(inputs.bridges)} if inputs.bridges else {}
    return {
        "transfer": draw_transfers(inputs.transfer),
        "damage": draw_damages(inputs.transfer),
        "gradients": draw_gradients(inputs.gradients),
        "gradientCourse": draw_gradient_courses(inputs.gradients),
        "spaces": draw_spaces(inputs.space),
        "spaceCourse": draw_space_courses(inputs.space),
        **bridges,
    }


def space_findings(inputs: ReportInputs) -> dict[str, str]:
    """Return the entries of the summary on the task space by label; none without one."""
    if inputs.transfer is None or inputs.gradients is None or inputs.space is None:
        return {}
    findings = {
        "Transfer between tasks": transfer_sentence(inputs.transfer),
        "Damage by tuning": damage_sentences(inputs.transfer)[0],
        "Task space": " ".join(contrast_sentences(inputs.space)),
        "Shared parameters": sharing_sentence(inputs.gradients),
    }
    for bridge in inputs.bridges[:1]:
        findings["Transfer and features"] = f"In {key_of(bridge).label}: {' '.join(bridge_sentences(bridge))}"
    return findings
