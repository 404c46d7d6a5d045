"""The bridge between task spaces and crosscoders: whether features that tasks share carry the transfer between them.

Two kinds of evidence. Over all ordered pairs of tasks, transfer is held against how alike the effects of features on
both are. And for each pair the features that matter to both are removed, before and after the tuning alike: what is
left of the transfer does not need them. The control is what is left without as many other features that matter about as
much to the target. Neither Weber et al. (arXiv 2406.06441) nor Bayazit et al. (arXiv 2509.05291) have this: the sets,
the control and the statistics are our own choice.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from chronocoder.config import TaskSpaceSettings
from chronocoder.errors import StoreError
from chronocoder.stores import labelled, strings
from chronocoder.tasks.rows import unit_of
from chronocoder.taskspace.mantel import mantel
from chronocoder.taskspace.removal import Reading, Tuning, measure_changes
from chronocoder.taskspace.removal_summary import RELATIONS, summarise_changes
from chronocoder.taskspace.shared_features import compare_effects, features_to_remove

OVERLAP, COSINE = "overlap", "cosine"
TASKS = ("source", "target")


class Relations(NamedTuple):
    """What is known of tasks at the checkpoints that a crosscoder and a task space have in common.

    Attributes:
        effects: IE of every feature, dims (checkpoint, task, feature).
        transfer: mean transfer by the main method, dims (checkpoint, source, target).
        of_seed: the same of the first tuning seed alone.
        groups: the hypothesised group of each task.
    """

    effects: xr.DataArray
    transfer: xr.DataArray
    of_seed: xr.DataArray
    groups: Mapping[str, str]

    @property
    def revisions(self) -> list[str]:
        """Names of the checkpoints, in order."""
        return list(map(str, self.transfer["checkpoint"].values))


class Tunable(NamedTuple):
    """A checkpoint's model, to be tuned and read.

    Attributes:
        revision: the checkpoint's name.
        reading: of the model.
        tuning: tunes it.
    """

    revision: str
    reading: Reading
    tuning: Tuning


def relate(relie: xr.Dataset, transfer: xr.Dataset, tasks: Sequence[str], settings: TaskSpaceSettings) -> Relations:
    """Return what two stores know of tasks at the same checkpoints.

    Args:
        relie: effects of a crosscoder's features.
        transfer: between tasks of the same suite.
        tasks: names of those of the task space.
        settings: name the main method and the first seed.

    Raises:
        StoreError: the stores are of different suites, one of them lacks a task, the transfer lacks the method or the
            seed, or they have no checkpoint in common.
    """
    if relie.attrs["suite"] != transfer.attrs["suite"]:
        raise StoreError(
            f"the effects given are of suite '{relie.attrs['suite']}', the transfer of '{transfer.attrs['suite']}';"
            " give stores of the same suite"
        )
    wanted: dict[str, Sequence[object]] = {
        "tuning": [settings.main],
        "seed": settings.seeds[:1],
        "source": tasks,
        "target": tasks,
    }
    _check_known("effects", relie, {"task": tasks})
    _check_known("transfer", transfer, wanted)
    common = [name for name in transfer["checkpoint"].values if name in relie["checkpoint"].values]
    if not common:
        raise StoreError(
            f"the effects given are at {_listed(relie['checkpoint'])}, the transfer at"
            f" {_listed(transfer['checkpoint'])}; give a comparison with a checkpoint of the task space"
        )
    effects = relie["indirect_effect"].sel(task=list(tasks), checkpoint=common)
    between = transfer.sel({"checkpoint": common, "source": list(tasks), "target": list(tasks)})
    of_main = between.sel({"tuning": settings.main, "seed": settings.seeds[0]}, drop=True)
    mean, of_seed = (of_main[name].transpose("checkpoint", *TASKS) for name in ("mean_transfer", "transfer"))
    groups = dict(zip(tasks, map(str, of_main["group"].values), strict=True))
    return Relations(effects.transpose("checkpoint", "task", "feature"), mean, of_seed, groups)


def build_bridge(
    relations: Relations, models: Iterable[Tunable], tasks: Mapping[str, xr.Dataset], settings: TaskSpaceSettings
) -> xr.Dataset:
    """Hold transfer against the effects of features, and remove the features that tasks share.

    Args:
        relations: what is known of the tasks.
        models: of the checkpoints there, in their order; taken one at a time.
        tasks: the pairs that no copy is tuned on, by name, in the order of the transfer's targets.
        settings: of the task space.

    Returns:
        The store `bridge.zarr`.
    """
    found = []
    for place, (revision, reading, tuning) in enumerate(models):
        effects = relations.effects.isel(checkpoint=place).values.astype(np.float64)
        compared = compare(effects, relations.transfer.isel(checkpoint=place).values, settings)
        found.append(compared.merge(remove(reading, tasks, effects, tuning, relations.groups, settings)))
        found[-1] = found[-1].assign_coords(checkpoint=revision)
    bridge = xr.concat(found, "checkpoint")
    deviation = abs(bridge["transfer_intact"].values - relations.of_seed.values).max(axis=(1, 2))
    bridge = bridge.assign(transfer=relations.transfer, tuning_deviation=("checkpoint", deviation))
    return _described(bridge, tasks, relations, settings)


def compare(
    effects: Float[np.ndarray, "task feature"],
    transfer: Float[np.ndarray, "source target"],
    settings: TaskSpaceSettings,
) -> xr.Dataset:
    """Compare the effects of features on every two tasks at one checkpoint, and correlate that with transfer."""
    similarity = compare_effects(effects, settings.top_features)
    generator = np.random.default_rng([settings.seed, 12])
    measures = {OVERLAP: similarity.overlap, COSINE: similarity.cosine}
    found = [mantel(transfer, values, settings.permutations, generator) for values in measures.values()]
    return xr.Dataset(
        {
            "feature_overlap": (TASKS, similarity.overlap),
            "overlap_chance": (TASKS, similarity.chance),
            "feature_cosine": (TASKS, similarity.cosine),
            "correlation": ("measure", [one.observed for one in found]),
            "correlation_p": ("measure", [one.p_value for one in found]),
            "correlation_smallest_p": ("measure", [one.smallest_p for one in found]),
        },
        coords={"measure": strings(list(measures))},
    )


def remove(
    reading: Reading,
    tasks: Mapping[str, xr.Dataset],
    effects: Float[np.ndarray, "task feature"],
    tuning: Tuning,
    groups: Mapping[str, str],
    settings: TaskSpaceSettings,
) -> xr.Dataset:
    """Measure transfer at one checkpoint as it is, without the features that tasks share, and without others."""
    sizes = dict(zip(tasks, np.abs(effects), strict=True))
    removed = {
        (source, target): features_to_remove(np.stack([sizes[source], sizes[target]]), settings.top_features)
        for source in tasks
        for target in tasks
    }
    counts = np.zeros((3, len(tasks), len(tasks)))
    for number, ((_, target), (shared, others)) in enumerate(removed.items()):
        effect_of_others = np.nan if others is None else sizes[target][others].sum()
        counts.reshape(3, -1)[:, number] = len(shared), sizes[target][shared].sum(), effect_of_others
    changes = measure_changes(reading, tasks, removed, tuning)
    shared_features, *effect = counts
    return summarise_changes(changes, tasks, groups, settings).assign(
        shared_features=(TASKS, shared_features.astype(np.int64)),
        effect_of_shared=(TASKS, effect[0]),
        effect_of_others=(TASKS, effect[1]),
    )


LONG_NAMES = {
    "feature_overlap": "fraction of the {top} features of largest |IE| that source and target have in common",
    "overlap_chance": "overlap expected of features drawn at random among those with an effect on each",
    "feature_cosine": "cosine of the IE of all features on source and target",
    "transfer": "mean change of right minus wrong of the target by tuning on the source with {method}",
    "correlation": "Spearman correlation of transfer and likeness of effects, over ordered pairs of different tasks",
    "correlation_p": "fraction of relabellings of the tasks with at least this correlation (Mantel test)",
    "correlation_smallest_p": "smallest p-value that could be had",
    "shared_features": "features among the {top} of largest |IE| of both source and target",
    "effect_of_shared": "sum of |IE| on the target over the shared features",
    "effect_of_others": "sum of |IE| on the target over the other features",
    "difference_intact": "right minus wrong of the target before the tuning, with all features",
    "difference_without_shared": "right minus wrong of the target before the tuning, without the shared features",
    "difference_without_others": "right minus wrong of the target before the tuning, without other features",
    "transfer_intact": "transfer with all features, of one tuning",
    "transfer_without_shared": "transfer without the shared features, of one tuning",
    "transfer_without_others": "transfer without as many others that matter alike to the target, of one tuning",
    "removed_by_shared": "fraction of the transfer that goes without the shared features",
    "removed_by_others": "fraction of the transfer that goes without as many others, matched in |IE| on the target",
    "removed_beyond_others": "fraction that goes without the shared features less that without others",
    "tuning_deviation": "largest difference between transfer with all features and that found for the task space",
    "pairs_compared": "ordered pairs of tasks behind the fractions",
}
"""What the variables are called, but for ends of intervals."""
OF_METRIC = ("transfer", "difference", "effect", "tuning")
"""What variables begin with that are in the unit of the target's metric."""
ENDS = {"_low": "lower end of the {percent} interval over prefixes: ", "_high": "upper end of the same: "}


def _described(
    bridge: xr.Dataset, tasks: Mapping[str, xr.Dataset], relations: Relations, settings: TaskSpaceSettings
) -> xr.Dataset:
    of_targets = [unit_of(task) for task in tasks.values()]
    words = {"percent": f"{settings.confidence:.0%}", "top": settings.top_features, "method": settings.main}
    described = {}
    for name, values in bridge.data_vars.items():
        end = next((end for end in ENDS if str(name).endswith(end)), "")
        text = ENDS.get(end, "") + LONG_NAMES[str(name).removesuffix(end)]
        stored = values.values.astype(np.float32) if values.dtype.kind == "f" else values.values
        units = "see unit" if str(name).startswith(OF_METRIC) else "1"
        described[name] = labelled(tuple(map(str, values.dims)), stored, text.format(**words), units)
    groups = strings(list(relations.groups.values()))
    return xr.Dataset(
        described,
        coords={
            "checkpoint": strings(relations.transfer["checkpoint"].values),
            "tokens_seen": ("checkpoint", relations.transfer["tokens_seen"].values),
            **{name: strings(list(tasks)) for name in TASKS},
            "group": ("target", groups),
            "source_group": ("source", groups),
            "unit": ("target", strings(of_targets)),
            "measure": strings([OVERLAP, COSINE]),
            "relation": strings(list(RELATIONS)),
        },
    )


def _check_known(what: str, store: xr.Dataset, wanted: Mapping[str, Sequence[object]]) -> None:
    """Check that a store has some entries of its dimensions."""
    for dim, names in wanted.items():
        if missing := [name for name in names if name not in store[dim].values]:
            raise StoreError(
                f"the {what} given: no {dim} '{missing[0]}', only {_listed(store[dim])}; run its target again"
            )


def _listed(names: xr.DataArray) -> str:
    return ", ".join(map(str, names.values))
