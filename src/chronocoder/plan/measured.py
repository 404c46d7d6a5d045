"""What results that are there already tell a plan: how sparse crosscoders are, and what is read of pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import xarray as xr

from chronocoder.config import Experiment
from chronocoder.layout import Layout
from chronocoder.plan.sizes import TaskTexts
from chronocoder.stores import open_store


class Measured(NamedTuple):
    """Numbers that take the place of expected ones.

    Attributes:
        l0: active latents a token of a crosscoder, by suite, comparison and variant.
        texts: what is read of a pair on average, by suite and task.
    """

    l0: Mapping[tuple[str, str, str], float]
    texts: Mapping[tuple[str, str], TaskTexts]


NOTHING = Measured({}, {})


def measured_of(experiment: Experiment) -> Measured:
    """Return what the experiment's finished results tell; nothing of those that are not there.

    Raises:
        StoreError: a store is damaged.
    """
    layout = Layout(experiment.results)
    l0, texts = dict[tuple[str, str, str], float](), dict[tuple[str, str], TaskTexts]()
    for suite, settings in experiment.suites.items():
        for comparison in settings.comparisons:
            for variant in experiment.variants_of(suite, comparison):
                run = {"suite": suite, "comparison": comparison, "variant": variant, "seed": experiment.seeds[0]}
                evaluation = Path(layout.evaluation.format(**run))
                if evaluation.exists():
                    with open_store(evaluation) as store:
                        l0[suite, comparison, variant] = float(store["l0"].mean())
        for task in settings.tasks:
            tokenised = Path(layout.task.format(suite=suite, task=task))
            if tokenised.exists():
                with open_store(tokenised) as store:
                    texts[suite, task] = texts_of(store)
    return Measured(l0, texts)


def texts_of(task: xr.Dataset) -> TaskTexts:
    """Return what is read of a pair of a tokenised task on average; the last token of a sentence is not."""
    if "member" not in task.dims:
        return TaskTexts(1, float(task["length"].mean()), 0.0)
    scored = task["length"] - task["scored_from"]
    return TaskTexts(task.sizes["member"], float(task["length"].mean()) - 1, float(scored.mean()))
