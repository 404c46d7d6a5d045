"""What writing a report takes: the time of its figures and data, and the memory of all that it shows.

Constants are measured by benchmarks/report.py, on crosscoders of which a quarter of the latents acts on a task.
"""

from collections.abc import Sequence
from math import ceil

from chronocoder.config import Experiment, Suite
from chronocoder.plan.disk import effects_bytes
from chronocoder.plan.models import CrosscoderShape

REPORT_PROCESSES = 4
"""That share out pages and data."""
REPORT_S = 20.0
"""Seconds of one core for what is about no crosscoder: libraries, overview, figures of ability."""
CHECKPOINT_FIGURES_S, TASK_FIGURES_S = 20.0, 2.0
"""For a checkpoint and for a task of a crosscoder: figures, and the tables beside them."""
EFFECT_READ_S, EFFECT_WRITTEN_S = 6e-6, 1.5e-5
"""For a task, checkpoint and latent: reading its effects, which one process does for all, and writing its data."""
DRAWING_PROCESS_BYTES = 300e6
"""Of a process with matplotlib and pandas."""
HELD_PART = 0.6
"""Of the effects, what is read of them: reports show nothing of single controls and of some shares by condition."""
WORKING_PART = 0.2
"""Of the effects of one crosscoder that are read, what a process has copies of."""
FEWEST_MINUTES, MINUTES_MARGIN = 15, 3
FEWEST_MB, MB_MARGIN = 2000, 1.25
"""What a job may take: at least, and in proportion to what is expected."""


def shown_crosscoders(experiment: Experiment, suite: Suite) -> list[CrosscoderShape]:
    """Return the sizes of all crosscoders that a suite's report is about, but for the width, which it shows nothing of.

    Args:
        experiment: variants and seeds.
        suite: the suite, with the comparisons that were chosen for it.
    """
    return [
        CrosscoderShape(len(comparison.checkpoints), 0, experiment.variants[variant].dictionary_size)
        for comparison in suite.comparisons.values()
        if comparison.examined
        for variant in comparison.variants or experiment.variants
        for _ in set(experiment.seeds)
    ]


def report_seconds(crosscoders: Sequence[CrosscoderShape], tasks: int) -> float:
    """Return how long a report about some crosscoders and so many tasks takes.

    One process reads; then the page of a crosscoder is drawn by one process, and pages are shared out.
    """
    entries = [tasks * one.checkpoints * one.latents for one in crosscoders]
    pages = [CHECKPOINT_FIGURES_S * one.checkpoints + TASK_FIGURES_S * tasks for one in crosscoders]
    shared = (REPORT_S + sum(pages) + EFFECT_WRITTEN_S * sum(entries)) / REPORT_PROCESSES
    return EFFECT_READ_S * sum(entries) + max(shared, *pages, REPORT_S)


def report_minutes(crosscoders: Sequence[CrosscoderShape], tasks: int) -> int:
    """Return the minutes that the job may take: more than are expected, since machines differ."""
    return FEWEST_MINUTES + ceil(MINUTES_MARGIN * report_seconds(crosscoders, tasks) / 60)


def report_memory_bytes(crosscoders: Sequence[CrosscoderShape], tasks: int) -> float:
    """Return the memory of all processes: effects of all crosscoders, which they share, and what each copies of one."""
    effects = [HELD_PART * tasks * effects_bytes(one) for one in crosscoders]
    own = DRAWING_PROCESS_BYTES + WORKING_PART * max(effects, default=0.0)
    return sum(effects) + (1 + REPORT_PROCESSES) * own


def report_mb(crosscoders: Sequence[CrosscoderShape], tasks: int) -> int:
    """Return the memory in MB that the job may take."""
    return FEWEST_MB + ceil(MB_MARGIN * report_memory_bytes(crosscoders, tasks) / 1e6)
