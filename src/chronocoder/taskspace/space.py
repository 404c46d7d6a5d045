"""Tasks as points, from transfer and from gradients, over training, beside what is hypothesised of them.

A transfer task space held against a hypothesis space is the idea of Weber et al. 2024 (arXiv 2406.06441); similarity,
scaling and tests are this project's own choices. Imports no torch.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from chronocoder.config import TaskSpaceSettings
from chronocoder.errors import StoreError
from chronocoder.stores import labelled, strings
from chronocoder.taskspace.hypothesis import Contrast, contrast_of
from chronocoder.taskspace.points import CONTRAST, DIMS, Space, by_gradients, by_transfer, space_of, spaces_by_seed
from chronocoder.taskspace.scaling import AXES, rotated_onto
from chronocoder.taskspace.stability import agreement, stability

TRANSFER, GRADIENTS = BASES = ("transfer", "gradients")


def map_tasks(transfer: xr.Dataset, gradients: xr.Dataset, settings: TaskSpaceSettings) -> xr.Dataset:
    """Place the tasks of a suite by transfer and by gradients, at every checkpoint.

    Args:
        transfer: what `collect_transfer` returns; its first method makes the space.
        gradients: similarity of the tasks' gradients at the same checkpoints.
        settings: permutations, confidence and seed.

    Raises:
        StoreError: the two are not of the same checkpoints and tasks.
    """
    _check_fit(transfer, gradients)
    main = transfer.isel(tuning=0)
    similarity = np.stack([by_transfer(main["relative_transfer"]), by_gradients(gradients["cosine"])])
    spaces = [[space_of(values) for values in of_basis] for of_basis in similarity]
    by_seed = spaces_by_seed(main, settings)
    groups = [str(group) for group in transfer["group"].values]
    tokens_seen = transfer["tokens_seen"]
    return xr.Dataset(
        {
            "similarity": labelled(
                (*DIMS, "task", "other_task"),
                similarity,
                "symmetrised relative transfer, from -1 to 1, or cosine of gradient differentials",
            ),
            **_placed(spaces, similarity.shape[2]),
            **_contrasted(spaces, groups, transfer["checkpoint"].values, settings),
            **stability(spaces, by_seed, settings),
            **agreement(spaces, settings),
        },
        {
            "basis": strings(BASES),
            "checkpoint": transfer["checkpoint"].values,
            "tokens_seen": labelled(("checkpoint",), tokens_seen.values, "tokens seen in pretraining", "token"),
            "task": strings(transfer["target"].values),
            "other_task": strings(transfer["target"].values),
            "group": labelled(("task",), strings(groups), "hypothesised group of the task"),
            "axis": np.arange(AXES),
        },
    )


def _check_fit(transfer: xr.Dataset, gradients: xr.Dataset) -> None:
    for name, other in (("checkpoint", "checkpoint"), ("target", "task")):
        found = transfer[name].values.tolist(), gradients[other].values.tolist()
        if found[0] != found[1]:
            raise StoreError(
                f"transfer is of {name}s {', '.join(found[0])} and gradients are of {', '.join(found[1])}; make both of"
                " the same ones"
            )


def _placed(spaces: Sequence[Sequence[Space]], tasks: int) -> dict[str, xr.Variable]:
    """Return positions, each checkpoint's rotated onto the last before it that has any, and what they tell."""
    position = np.full((len(spaces), len(spaces[0]), tasks, AXES), np.nan)
    explained, negative = np.full((*position.shape[:2], AXES), np.nan), np.full(position.shape[:2], np.nan)
    count = np.array([[len(space.tasks) for space in of_basis] for of_basis in spaces])
    for basis, of_basis in enumerate(spaces):
        before = np.full((tasks, AXES), np.nan)
        for checkpoint, (places, _, configuration) in enumerate(of_basis):
            if len(places) < 2:
                continue
            own = position[basis, checkpoint]
            own[places] = configuration.position()
            before = position[basis, checkpoint] = rotated_onto(own, before)
            explained[basis, checkpoint] = configuration.explained()
            negative[basis, checkpoint] = configuration.negative
    return {
        "position": labelled((*DIMS, "task", "axis"), position, "place of the task by multidimensional scaling"),
        "explained": labelled((*DIMS, "axis"), explained, "eigenvalue of the axis over the sum of all by size"),
        "negative": labelled(DIMS, negative, "negative eigenvalues over the sum of all by size: what no points have"),
        "tasks_placed": labelled(DIMS, count, "tasks that something is known of"),
    }


def _contrasted(
    spaces: Sequence[Sequence[Space]], groups: Sequence[str], checkpoints: np.ndarray, settings: TaskSpaceSettings
) -> dict[str, xr.Variable]:
    """Return similarity within and between the hypothesised groups."""
    found = [
        [
            contrast_of(
                space.similarity,
                [groups[task] for task in space.tasks],
                settings,
                np.random.default_rng([settings.seed, CONTRAST]),
            )
            for space in of_basis
        ]
        for of_basis in spaces
    ]
    percent = f"{settings.confidence:.0%}"
    names = {
        "within": ("within", "mean similarity of two tasks of one hypothesised group"),
        "between": ("between", "mean similarity of two tasks of different groups"),
        "contrast": ("contrast", "similarity within groups less that between them"),
        "low": ("contrast_low", f"lower end of its {percent} jackknife interval over tasks"),
        "high": ("contrast_high", f"upper end of its {percent} jackknife interval over tasks"),
        "p_value": ("contrast_p", "fraction of the groupings in groups of the same sizes with at least this contrast"),
        "smallest_p": ("contrast_smallest_p", "smallest p-value that these tasks and groups can have"),
    }
    variables = {
        name: labelled(DIMS, [[getattr(each, field) for each in of_basis] for of_basis in found], words)
        for field, (name, words) in names.items()
    }
    variables["contrast"].attrs["reason"] = _reasons(found, checkpoints)
    return variables


def _reasons(found: Sequence[Sequence[Contrast]], checkpoints: np.ndarray) -> str:
    """Return why contrasts or their intervals are NaN, where they are."""
    each = [
        f"{basis} at {checkpoint}: {contrast.reason}"
        for basis, of_basis in zip(BASES, found, strict=True)
        for checkpoint, contrast in zip(checkpoints, of_basis, strict=True)
        if contrast.reason
    ]
    return "; ".join(each)
