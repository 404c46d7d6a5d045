"""What the table of features and the pages of features need to know of a run and of its tasks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from chronocoder.report.ablations import OUTCOMES
from chronocoder.report.compact import arrays, nested
from chronocoder.report.conditions import conditions_of
from chronocoder.report.data import class_places, feature_words
from chronocoder.report.inputs import EXACT_ABLATION, Run
from chronocoder.wording import plural

SCORED = {
    "next_token": "the right answer",
    "continuation": "the continuation after the right beginning",
    "sentence": "the right sentence",
}
IN_TABLE = {"effect": "indirect_effect", "measurable": "measurable", "share": "relative_indirect_effect"}


def run_record(run: Run, suite: str, warnings: Mapping[str, str]) -> dict[str, Any]:
    """Return what is the same for all features of a run, and the few numbers of each that no task has a part in.

    Args:
        run: its stores.
        suite: name of the suite.
        warnings: by task, of the tasks that have any.
    """
    of_feature = arrays(run.relie, {"norm": "relative_decoder_norm"}, "checkpoint", "feature")
    random = run.features["nearest_random_cosine"]
    return {
        **run.key._asdict(),
        "suite": suite,
        "slug": run.key.slug,
        "label": run.key.label,
        "site": run.relie.attrs["site"],
        "checkpoints": run.checkpoints,
        "features": run.relie.sizes["feature"],
        "tasks": [task_record(run, task, warnings.get(task, "")) for task in run.tasks],
        "isExact": run.estimator == EXACT_ABLATION,
        "norm": nested(of_feature["norm"]),
        "frequency": nested(run.evaluation["activation_frequency"].values),
        "words": feature_words(run.features),
        "nearestByChance": nested(random.quantile(run.random_fraction, "direction").values),
        "bins": [run.features[name].values.tolist() for name in ("bin_low", "bin_high")],
        "validationTokens": int(run.features.attrs["validation_tokens"]),
    }


def task_record(run: Run, task: str, warning: str) -> dict[str, Any]:
    """Return what a page has to know of a task to show effects on it."""
    of_task, ablation = run.relie.sel(task=task), run.ablations[task]
    conditions = conditions_of(of_task)
    return {
        "name": task,
        "units": plural(str(of_task["unit"].values)),
        "scored": SCORED[str(of_task["metric"].values)],
        "warning": warning,
        "conditions": conditions,
        "clean": {name: nested(ablation[f"clean_{name}"].values) for name in OUTCOMES[:2]},
        "actsBy": ablation["position_effect"].attrs["long_name"],
    }


def task_table(run: Run, place: int) -> dict[str, Any]:
    """Return a row of the table of features for each that has an effect on a task; of all others it is zero.

    Returns:
        Columns, of which those by checkpoint or by basis of the class are lists of columns.
    """
    of_task = run.relie.isel(task=place)
    values = arrays(of_task, IN_TABLE, "checkpoint", "feature")
    acting = np.flatnonzero((np.nan_to_num(values["effect"]) != 0).any(axis=0))
    return {
        "features": of_task["feature"].values[acting].tolist(),
        **{name: nested(of[:, acting]) for name, of in values.items()},
        "class": class_places(run.relie.isel(task=[place]))[:, 0, acting].tolist(),
        "frequency": nested(of_task["activation_frequency"].values[acting]),
    }
