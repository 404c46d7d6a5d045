"""What the page of a feature shows of it, put together from its parts."""

from functools import partial
from typing import Any

import numpy as np

from chronocoder.report.ablations import ablation_part
from chronocoder.report.codes import code_part
from chronocoder.report.compact import Part, arrays, at
from chronocoder.report.conditions import condition_part
from chronocoder.report.data import class_places
from chronocoder.report.examples import example_part
from chronocoder.report.inputs import Run
from chronocoder.stores import names
from chronocoder.tasks.groups import KINDS, groups_of_kind

BY_CHECKPOINT = {
    "effect": "indirect_effect",
    "low": "indirect_effect_low",
    "high": "indirect_effect_high",
    "share": "relative_indirect_effect",
    "shareLow": "relative_indirect_effect_low",
    "shareHigh": "relative_indirect_effect_high",
    "q": "q_value",
    "level": "random_level",
    "measurable": "measurable",
    "disagree": "conditions_disagree",
}
BY_TASK = {
    "support": "class_support",
    "frequency": "activation_frequency",
    "reverses": "reverses",
    "kept": "kept",
    "onset": "onset",
    "peak": "peak",
}


def record_part(run: Run) -> Part:
    """Return what gives everything that is shown of a feature."""
    makers = (effect_part, condition_part, group_part, code_part, example_part, ablation_part)
    parts = [maker(run) for maker in makers]

    def part(place: int) -> dict[str, Any]:
        return {name: value for one in parts for name, value in one(place).items()}

    return part


def effect_part(run: Run) -> Part:
    """Return what gives the effects of a feature on those tasks on which it has any, the largest first."""
    by_checkpoint = arrays(run.relie, BY_CHECKPOINT, "feature", "task", "checkpoint")
    by_task = arrays(run.relie, BY_TASK, "feature", "task")
    classes = {"class": np.moveaxis(class_places(run.relie), -1, 0).swapaxes(1, 2)}
    size = np.nan_to_num(abs(by_checkpoint["effect"])).max(axis=2)

    def part(place: int) -> dict[str, Any]:
        order = np.argsort(-size[place], kind="stable")
        where = (place, order[size[place][order] > 0])
        return {"tasks": where[1].tolist(), **at({**by_checkpoint, **by_task, **classes}, where)}

    return part


def group_part(run: Run) -> Part:
    """Return what gives RelIE by language and phenomenon, of the groups on which a feature certainly has an effect."""
    relie = run.relie
    kinds = list(filter(partial(groups_of_kind, relie), KINDS))
    by_kind = {}
    for kind in kinds:
        own = relie.isel(group=relie["group_kind"].values == kind)
        variables = {
            "share": "group_relative_indirect_effect",
            "low": "group_indirect_effect_low",
            "high": "group_indirect_effect_high",
        }
        by_kind[kind] = (names(own, "group"), arrays(own, variables, "feature", "group", "checkpoint"))

    def part(place: int) -> dict[str, Any]:
        return {"groups": [{"kind": kind, **_served(*of_kind, place)} for kind, of_kind in by_kind.items()]}

    return part


def _served(groups: list[str], values: dict[str, np.ndarray], place: int) -> dict[str, Any]:
    acts = ((values["low"][place] > 0) | (values["high"][place] < 0)).any(axis=1)
    served = np.flatnonzero(acts)
    return {"names": [groups[group] for group in served], **at({"share": values["share"]}, (place, served))}
