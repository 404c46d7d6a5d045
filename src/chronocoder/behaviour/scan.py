"""A cheap look at every checkpoint: some pairs of each task, and how similar the activations of some tokens are."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Int
from transformers import PreTrainedModel

from chronocoder.activations.harvest import sample_activations
from chronocoder.behaviour.collect import collect_behaviour
from chronocoder.behaviour.pool import Pool
from chronocoder.behaviour.scores import scores_of_task
from chronocoder.behaviour.similarity import debiased_cka, kernel_entries
from chronocoder.config import ScanSettings
from chronocoder.errors import StoreError
from chronocoder.stores import labelled, strings

NO_EXAMPLE = -1
"""In place of the number of an example, where a task has fewer than others."""


def drawn_examples(task: xr.Dataset, settings: ScanSettings) -> Int[np.ndarray, " example"]:
    """Return the places of the pairs of a task that a scan reads, in order: as many of each condition as it can."""
    conditions = np.array([str(one) for one in task["condition"].values])
    order = np.random.default_rng([settings.seed, zlib.crc32(str(task.attrs["task"]).encode())]).permutation(
        len(conditions)
    )
    turns = np.zeros(len(order), dtype=int)
    for condition in set(conditions.tolist()):
        of_it = conditions[order] == condition
        turns[of_it] = np.arange(of_it.sum())
    chosen: np.ndarray = np.sort(order[np.argsort(turns, kind="stable")][: settings.limit])
    return chosen


def scan_checkpoint(
    model: PreTrainedModel,
    tasks: Sequence[xr.Dataset],
    token_ids: Int[np.ndarray, "sequence position"],
    sites: Sequence[str],
    settings: ScanSettings,
) -> xr.Dataset:
    """Look at one checkpoint.

    Args:
        model: its model.
        tasks: as `tokenise_pairs` returns them.
        token_ids: validation text.
        sites: where activations are read.
        settings: pairs and tokens.

    Returns:
        Differences of the pairs that are read, dims (task, draw), with their places in the task; and the entries of the
        kernel of the activations, dims (site, entry).
    """
    places = [drawn_examples(task, settings) for task in tasks]
    drawn = [task.isel(example=of_task) for task, of_task in zip(tasks, places, strict=True)]
    differences = Pool.of(drawn).differences(model)
    width = max(map(len, places))
    sampled = sample_activations([("", model)], sites, token_ids, settings.tokens)
    entries = np.stack([kernel_entries(sampled[site][""]) for site in sites])
    examples = np.stack([_padded(of_task, width, NO_EXAMPLE) for of_task in places])
    values = np.stack([_padded(of_task, width, np.nan) for of_task in differences])
    return xr.Dataset(
        {
            "example": labelled(("task", "draw"), examples, f"place of the pair in its task; {NO_EXAMPLE}: none"),
            "difference": labelled(("task", "draw"), values, "right minus wrong", "that of the task"),
            "kernel": labelled(("site", "entry"), entries.astype(np.float16), "centred inner products of activations"),
        },
        coords={"task": strings([task.attrs["task"] for task in tasks]), "site": strings(list(sites))},
    )


def collect_scans(
    scans: Mapping[str, xr.Dataset], tokens_seen: Mapping[str, int], tasks: Sequence[xr.Dataset]
) -> xr.Dataset:
    """Join the scans of all checkpoints.

    Args:
        scans: by revision, in order of training.
        tokens_seen: by revision.
        tasks: the tasks, in the order of the scans.

    Returns:
        What `collect_behaviour` returns, dims (task, checkpoint); each pair's difference, dims (task, checkpoint,
        example); and debiased linear CKA, dims (site, checkpoint, other_checkpoint).

    Raises:
        StoreError: the scans are not of the same pairs.
    """
    first, *others = scans.values()
    examples = first["example"].values
    if any(not np.array_equal(other["example"].values, examples) for other in others):
        raise StoreError("the scans read different pairs of a task; delete them and run the target again")
    differences = np.stack([scan["difference"].values for scan in scans.values()], axis=1)
    scores = {
        str(task.attrs["task"]): scores_of_task(
            task.isel(example=places[places >= 0]), tokens_seen, values[:, places >= 0]
        ).assign_attrs(task=task.attrs["task"])
        for task, places, values in zip(tasks, examples, differences, strict=True)
    }
    conditions = [_padded(of_task["condition"].values, examples.shape[1], "") for of_task in scores.values()]
    kernels = (
        np.stack([scan["kernel"].values[site] for scan in scans.values()]) for site in range(first.sizes["site"])
    )
    revisions = strings(list(tokens_seen))
    return (
        collect_behaviour(scores)
        .assign(
            difference=labelled(("task", "checkpoint", "example"), differences, "right minus wrong", "see unit"),
            condition=labelled(
                ("task", "example"), strings(np.array(conditions, dtype=object)), "condition of the pair"
            ),
            linear_cka=labelled(
                ("site", "checkpoint", "other_checkpoint"),
                np.stack([debiased_cka(of_site) for of_site in kernels]),
                "linear centred kernel alignment, debiased",
            ),
        )
        .assign_coords(site=first["site"].values, other_checkpoint=revisions)
    )


def _padded(values: np.ndarray, width: int, filling: object) -> np.ndarray:
    padded = np.full(width, filling, dtype=object if values.dtype.kind == "T" else values.dtype)
    padded[: len(values)] = values
    return padded
