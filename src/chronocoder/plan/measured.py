"""What results that are there already tell a plan: how sparse crosscoders are, and how long prefixes are."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from chronocoder.config import Experiment
from chronocoder.layout import Layout
from chronocoder.stores import open_store


class Measured(NamedTuple):
    """Numbers that take the place of expected ones.

    Attributes:
        l0: active latents a token of a crosscoder, by suite, comparison and variant.
        lengths: mean tokens of a prefix, by suite and task.
    """

    l0: Mapping[tuple[str, str, str], float]
    lengths: Mapping[tuple[str, str], float]


NOTHING = Measured({}, {})


def measured_of(experiment: Experiment) -> Measured:
    """Return what the experiment's finished results tell; nothing of those that are not there.

    Raises:
        StoreError: a store is damaged.
    """
    layout = Layout(experiment.results)
    l0, lengths = dict[tuple[str, str, str], float](), dict[tuple[str, str], float]()
    for suite, settings in experiment.suites.items():
        for comparison in settings.comparisons:
            for variant in experiment.variants_of(suite, comparison):
                run = {"suite": suite, "comparison": comparison, "variant": variant, "seed": experiment.seeds[0]}
                found = _mean(Path(layout.evaluation.format(**run)), "l0")
                if found is not None:
                    l0[suite, comparison, variant] = found
        for task in settings.tasks:
            found = _mean(Path(layout.task.format(suite=suite, task=task)), "length")
            if found is not None:
                lengths[suite, task] = found
    return Measured(l0, lengths)


def _mean(path: Path, variable: str) -> float | None:
    """Return the mean of a store's variable; None without a store."""
    if not path.exists():
        return None
    with open_store(path) as store:
        return float(store[variable].mean())
