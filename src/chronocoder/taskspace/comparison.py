"""What is stored of how similar the gradients of tasks are. Imports no torch, so that collecting takes no time."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from chronocoder.errors import StoreError
from chronocoder.stores import labelled, strings
from chronocoder.taskspace.similarity import (
    Estimate,
    Gram,
    Overlap,
    Selected,
    Weights,
    corrected_cosines,
    cosines,
    gram_matrix,
    jackknife,
    mean_norms,
    reliability,
    selection_overlaps,
    subspace_overlaps,
    unbiased_products,
)

TASK, OTHER = "task", "other_task"
CHECKPOINT = "checkpoint"


def compare_groups(
    names: Sequence[str],
    gradients: Float[np.ndarray, "labels task group entry"],
    pairs: Int[np.ndarray, "task group"],
    selected: Selected,
    confidence: float,
) -> xr.Dataset:
    """Compare every two tasks.

    Args:
        names: of the tasks.
        gradients: the mean gradient of each group of pairs, or its projection, with labels as `LABELS` says.
        pairs: in each group.
        selected: the parameters that the main method would update.
        confidence: coverage of the intervals.

    Returns:
        Dims (task, other_task).
    """
    rows = gradients.reshape(-1, *gradients.shape[2:])
    whole, weights = gram_matrix(rows), pairs.astype(np.float64)
    gram = whole[: len(names), :, : len(names)]
    variables = _with_controls(
        "subspace_overlap",
        "subspace",
        subspace_overlaps(rows, whole),
        "overlap of the subspaces that gradients of groups of pairs span, half of each task's; mean squared cosine",
        "overlap expected if each entry of the gradients had its size and a random sign",
    )
    variables |= _with_controls(
        "shared_parameters",
        "shared",
        selection_overlaps(selected),
        "fraction of the parameters selected by half of the task's pairs that half of the other's select, too",
        "fraction expected if as many were selected at random in each parameter tensor",
    )
    plain = jackknife(cosines, gram, weights, confidence)
    plain = Estimate(plain.value, np.clip(plain.low, -1, 1), np.clip(plain.high, -1, 1))
    corrected = _known(jackknife(corrected_cosines, gram, weights, confidence), gram, weights, confidence)
    variables |= _with_interval("cosine", plain, "cosine of mean gradient differentials")
    variables |= _with_interval("corrected_cosine", corrected, "the cosine without the noise of sampling")
    norm = labelled((TASK,), mean_norms(gram, weights), "norm of the mean gradient differential", "unit of the task")
    reliable = labelled((TASK,), reliability(gram, weights), "part of its square that is no noise of sampling")
    count = labelled((TASK,), pairs.sum(axis=1), "minimal pairs", "pairs")
    variables |= {"norm": norm, "reliability": reliable, "pairs": count}
    return xr.Dataset(variables, coords={TASK: strings(names), OTHER: strings(names)})


def _known(corrected: Estimate, gram: Gram, weights: Weights, confidence: float) -> Estimate:
    """Leave out the tasks whose mean gradient cannot be told from noise: their unbiased norm may be zero."""
    norms = jackknife(lambda *given: np.diag(unbiased_products(*given)), gram, weights, confidence)
    certain = np.where(norms.low > 0, 1.0, np.nan)
    return Estimate(*(values * certain * certain[:, None] for values in corrected))


def _with_controls(name: str, short: str, overlap: Overlap, text: str, chance: str) -> dict[str, xr.Variable]:
    swapped = f"{name} where right and wrong are swapped in half of the pairs of one of the tasks, at random"
    return {
        name: labelled((TASK, OTHER), overlap.value, text),
        f"{short}_swapped": labelled((TASK, OTHER), overlap.swapped, swapped),
        f"{short}_chance": labelled((TASK, OTHER), overlap.chance, chance),
    }


def _with_interval(name: str, estimate: Estimate, text: str) -> dict[str, xr.Variable]:
    texts = {"": text, "_low": f"lower end of the interval of the {name}", "_high": "upper end of that interval"}
    return {
        f"{name}{end}": labelled((TASK, OTHER), values, texts[end]) for end, values in zip(texts, estimate, strict=True)
    }


def collect_gradients(
    stores: Mapping[str, xr.Dataset], tokens_seen: Mapping[str, int], groups: Mapping[str, str]
) -> xr.Dataset:
    """Join the comparisons of all checkpoints.

    Args:
        stores: what `compare_groups` returns, by revision, in order of training.
        tokens_seen: by revision.
        groups: the hypothesised group of each task.

    Returns:
        Dims (checkpoint, task, other_task).

    Raises:
        StoreError: the stores are not of the tasks whose groups are given.
    """
    for revision, store in stores.items():
        if (found := [str(name) for name in store[TASK].values]) != list(groups):
            raise StoreError(
                f"the gradients of {revision} are of the tasks {', '.join(found)}, not {', '.join(groups)}; make them"
                " anew, or give the groups of these tasks"
            )
    joined = xr.concat(stores.values(), dim=CHECKPOINT, join="exact", combine_attrs="drop_conflicts")
    return joined.assign_coords(
        {
            CHECKPOINT: strings(list(stores)),
            "tokens_seen": (CHECKPOINT, [tokens_seen[revision] for revision in stores]),
            "group": (TASK, strings(list(groups.values()))),
        }
    )
