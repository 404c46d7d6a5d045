"""What tuning on each task does to every task: all tunings of a suite joined (similarity probing, Weber et al. 2024).

Transfer is the metric of a task's held-out pairs after tuning less before (arXiv 2406.06441). Relative transfer, the
intervals and the level of chance are this project's own. Imports no torch: collecting takes no longer than reading.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from chronocoder.attribution.sampling import units_of
from chronocoder.config import SWAPPED, TaskSpaceSettings
from chronocoder.errors import StoreError
from chronocoder.stores import labelled, strings
from chronocoder.tasks.rows import unit_of
from chronocoder.taskspace.intervals import (
    Interval,
    Spread,
    means_by_unit,
    pooled_over_sources,
    seed_interval,
    spread_of,
)
from chronocoder.taskspace.relative import beyond_chance, chance_level, relative_transfer
from chronocoder.taskspace.tuned import TunedWithSeed, arranged, with_seed

CELL = ("tuning", "checkpoint", "source", "target")
OF_SEED = ("tuning", "seed", *CELL[1:])
Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Estimates(NamedTuple):
    """A change by tuning.

    Attributes:
        by_seed: of each seed.
        mean: over seeds.
        interval: of the mean.
    """

    by_seed: Float[np.ndarray, "tuning seed checkpoint source target"]
    mean: Float[np.ndarray, "tuning checkpoint source target"]
    interval: Interval


def collect_transfer(
    tunings: Sequence[xr.Dataset],
    tasks: Mapping[str, xr.Dataset],
    tokens_seen: Mapping[str, int],
    groups: Mapping[str, str],
    settings: TaskSpaceSettings,
) -> xr.Dataset:
    """Join all tunings of a suite: those of every checkpoint and seed on every task.

    Args:
        tunings: stores of the tunings, in any order.
        tasks: task stores by name, in the order of sources and targets.
        tokens_seen: tokens seen by revision, in order of training.
        groups: the group that each task is hypothesised to belong to.
        settings: seeds, confidence and the smallest gain that transfer may be relative to.

    Raises:
        ConfigError: a tuning is missing or given twice.
        StoreError: tunings do not fit together, or not the tasks.
    """
    stores = arranged(tunings, list(tokens_seen), settings.seeds, list(tasks))
    seeds = [with_seed(stores[:, place]) for place in range(len(settings.seeds))]
    kinds = [unit_of(task) for task in tasks.values()]
    transfer, accuracy = (_estimates(seeds, tasks, kinds, change, settings) for change in (_gain, _more_right))
    loss = _loss_change(seeds, settings.confidence)
    objectives = [str(one) for one in tunings[0]["objective"].values]
    coordinates = {
        "tuning": strings(tunings[0]["tuning"].values),
        "objective": labelled(("tuning",), strings(objectives), "loss that the copies were tuned by"),
        "fraction": labelled(("tuning",), tunings[0]["fraction"].values, "fraction of the parameters to update"),
        "seed": settings.seeds,
        "checkpoint": strings(list(tokens_seen)),
        "tokens_seen": labelled(("checkpoint",), list(tokens_seen.values()), "tokens seen in pretraining", "token"),
        "source": strings(list(tasks)),
        "target": strings(list(tasks)),
        "unit": labelled(("target",), strings(kinds), "unit of the metric"),
        **{
            name: labelled((dim,), strings([groups[task] for task in tasks]), f"hypothesised group of the {dim}")
            for name, dim in (("group", "target"), ("source_group", "source"))
        },
    }
    return xr.Dataset(
        {
            **_described("transfer", transfer, "right minus wrong after tuning less before", "see unit", settings),
            **_described("accuracy_change", accuracy, "accuracy after tuning less before", "1", settings),
            **_before(seeds, list(tasks)),
            **_related(transfer, objectives, settings),
            **_described_loss(loss, settings),
            "loss_before": labelled(("checkpoint",), seeds[0].loss_before.mean(axis=-1), "loss before", "nat/token"),
            "updated_fraction": labelled(
                CELL[:3], np.mean([seed.updated for seed in seeds], axis=0), "fraction of the parameters updated"
            ),
            **_counts(seeds, list(tasks)),
        },
        coordinates,
    )


def _gain(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    gain: np.ndarray = after - before
    return gain


def _more_right(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    change: np.ndarray = (after > 0).astype(np.float64) - (before > 0)
    return change


def _estimates(
    seeds: Sequence[TunedWithSeed],
    tasks: Mapping[str, xr.Dataset],
    kinds: list[str],
    change: Change,
    settings: TaskSpaceSettings,
) -> Estimates:
    """Return a change on all targets."""
    of_targets = [_of_target(seeds, name, task, change) for name, task in tasks.items()]
    by_seed = np.stack([means for means, _ in of_targets], axis=-1)
    spread = Spread(*(np.stack(parts, axis=-1) for parts in zip(*(found for _, found in of_targets), strict=True)))
    pooled, cells = pooled_over_sources(spread.between, kinds)
    interval = seed_interval(spread, pooled, cells, len(seeds), settings.confidence)
    return Estimates(np.moveaxis(by_seed, 0, 1), spread.mean, interval)


def _of_target(
    seeds: Sequence[TunedWithSeed], name: str, task: xr.Dataset, change: Change
) -> tuple[Float[np.ndarray, "seed tuning checkpoint source"], Spread]:
    """Return a change on one target, of each seed, and what tells the variance of its mean."""
    units = units_of(task)
    prefix = units.prefix[units.unit]
    means, counts = [], []
    for seed in seeds:
        own = np.flatnonzero(seed.target == name)
        places = task.indexes["example"].get_indexer(seed.example[own])
        if not len(own) or (places < 0).any():
            raise StoreError(f"{name}: the pairs held out are none of this task's; make its tunings anew")
        values = change(seed.before[:, None, own], seed.after[..., own])
        means.append(means_by_unit(values, prefix[places], int(prefix.max()) + 1))
        counts.append(len(np.unique(prefix[places])))
    return np.stack([of_seed.mean for of_seed in means]), spread_of(means, counts)


def _loss_change(seeds: Sequence[TunedWithSeed], confidence: float) -> Estimates:
    """Return the change of the loss, with a last dimension of length 1; sampling units are the sequences."""
    sequences = seeds[0].loss_before.shape[-1]
    values = (seed.loss - seed.loss_before[:, None] for seed in seeds)
    means = [means_by_unit(of_seed, np.arange(sequences), sequences) for of_seed in values]
    spread = spread_of(means, [sequences] * len(seeds))
    pooled = np.broadcast_to(spread.between.mean(axis=-1, keepdims=True), spread.between.shape)
    cells = np.full(pooled.shape, pooled.shape[-1])
    interval = seed_interval(spread, pooled, cells, len(seeds), confidence)
    return Estimates(np.stack([of_seed.mean for of_seed in means], axis=1), spread.mean, interval)


def _related(transfer: Estimates, objectives: list[str], settings: TaskSpaceSettings) -> dict[str, xr.Variable]:
    """Return transfer relative to what tuning on the target itself gives, and beside what chance gives."""
    swapped = np.array([objective == SWAPPED for objective in objectives])
    level = chance_level(transfer.by_seed[swapped], settings.confidence)
    percent = f"{settings.confidence:.0%}"
    return {
        "relative_transfer": labelled(
            CELL,
            relative_transfer(transfer.mean, transfer.interval.low, settings.smallest_gain),
            "mean transfer as a fraction of the target's gain by tuning on itself",
        ),
        "chance_level": labelled(
            CELL[1:],
            level,
            f"|transfer| that {percent} of tunings on other sources with right and wrong swapped at random stay below",
            "see unit",
        ),
        "beyond_chance": labelled(
            CELL,
            beyond_chance(transfer.mean, transfer.interval, level),
            f"whether the {percent} interval of mean transfer excludes 0 and its size exceeds the level of chance,"
            " where there is one; each cell judged for itself",
        ),
    }


def _described(
    name: str, estimates: Estimates, words: str, units: str, settings: TaskSpaceSettings
) -> dict[str, xr.Variable]:
    """Return the variables of a change; the mean of transfer is `mean_transfer`, of others the change itself."""
    of_seeds = {"transfer": labelled(OF_SEED, estimates.by_seed, words, units)} if name == "transfer" else {}
    mean = f"mean_{name}" if of_seeds else name
    return {**of_seeds, **_with_ends(mean, CELL, estimates, f"{words}, mean over seeds", units, settings)}


def _described_loss(loss: Estimates, settings: TaskSpaceSettings) -> dict[str, xr.Variable]:
    words, units = "loss on validation text after tuning less before", "nat/token"
    return {
        "loss_change": labelled(OF_SEED[:-1], loss.by_seed, words, units),
        **_with_ends("mean_loss_change", CELL[:-1], loss, f"{words}, mean over seeds", units, settings),
    }


def _with_ends(
    name: str, dims: tuple[str, ...], estimates: Estimates, words: str, units: str, settings: TaskSpaceSettings
) -> dict[str, xr.Variable]:
    """Return a mean and the ends of its interval, which say what they hold."""
    several = estimates.by_seed.shape[1] > 1
    holds = "sampling and seeds" if several else "sampling alone, since there is one seed"
    ends = {
        f"{name}{end}": labelled(dims, values, f"{which} end of its {settings.confidence:.0%} interval", units)
        for end, which, values in zip(("_low", "_high"), ("lower", "upper"), estimates.interval, strict=True)
    }
    for variable in ends.values():
        variable.attrs["holds"] = holds
    return {name: labelled(dims, estimates.mean, words, units), **ends}


def _before(seeds: Sequence[TunedWithSeed], names: list[str]) -> dict[str, xr.Variable]:
    """Return how well the untuned checkpoints do on the held-out pairs, mean over seeds."""
    dims = ("checkpoint", "target")

    def of_targets(read: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        by_seed = [[read(seed.before[:, seed.target == name]).mean(axis=-1) for name in names] for seed in seeds]
        means: np.ndarray = np.mean(by_seed, axis=0)
        return means.T

    return {
        "accuracy_before": labelled(
            dims, of_targets(lambda values: values > 0), "fraction of the pairs judged rightly before tuning"
        ),
        "difference_before": labelled(
            dims, of_targets(lambda values: values), "mean of right minus wrong before tuning", "see unit"
        ),
    }


def _counts(seeds: Sequence[TunedWithSeed], names: list[str]) -> dict[str, xr.Variable]:
    held_out = [[int((seed.target == name).sum()) for name in names] for seed in seeds]
    return {
        "pairs_tuned": labelled(("seed", "source"), [seed.pairs_tuned for seed in seeds], "pairs tuned on"),
        "pairs_held_out": labelled(("seed", "target"), held_out, "pairs held out, that transfer is measured on"),
    }
