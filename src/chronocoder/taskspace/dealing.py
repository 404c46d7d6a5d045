"""Dealing the pairs of tasks into groups, whose gradients tell the sampling error, and what pairs tasks have in common.

Pairs with the same prefix, or right sentence, are not independent, as in `chronocoder.attribution.sampling`; nor are
they where they belong to different tasks. So they are in groups of the same number in all tasks.

Each group has two parts, which are alike: the pairs of the second one are those whose labels the control swaps.
"""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from chronocoder.errors import TaskError
from chronocoder.tasks.rows import by_member

DEALING = 1
"""Purpose of these random numbers."""


def deal_pairs(tasks: Sequence[xr.Dataset], groups: int, seed: int) -> list[Int[np.ndarray, " example"]]:
    """Return the part that each pair of each task is in: parts 2 g and 2 g + 1 are those of group g.

    Prefixes come in random order, and each goes to the part that has the fewest pairs of its conditions, of several
    such to the one that has the fewest of its tasks: parts are alike in size and in their mixture of conditions.

    Args:
        tasks: as `tokenise_pairs` returns them.
        groups: how many.
        seed: of the order.

    Raises:
        TaskError: a task has too few prefixes; the message names it.
    """
    prefixes = [_prefixes(task) for task in tasks]
    strata: dict[tuple[int, str], int] = {}
    members: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for place, (task, own) in enumerate(zip(tasks, prefixes, strict=True)):
        for condition, prefix in zip(task["condition"].values, own, strict=True):
            stratum = strata.setdefault((place, str(condition)), len(strata))
            members.setdefault(prefix, []).append((place, stratum))
    order, part = sorted(members), {}
    of_tasks, of_strata = (np.zeros((len(rows), 2 * groups), dtype=int) for rows in (tasks, strata))
    for number in np.random.default_rng([seed, DEALING]).permutation(len(order)):
        places, own_strata = (list(of) for of in zip(*members[order[number]], strict=True))
        loads = of_tasks[sorted(set(places))].sum(axis=0), of_strata[sorted(set(own_strata))].sum(axis=0)
        part[order[number]] = chosen = int(np.lexsort(loads)[0])
        np.add.at(of_tasks[:, chosen], places, 1)
        np.add.at(of_strata[:, chosen], own_strata, 1)
    _check_filled(tasks, prefixes, of_tasks)
    return [np.array([part[prefix] for prefix in own]) for own in prefixes]


def _check_filled(
    tasks: Sequence[xr.Dataset], prefixes: Sequence[Sequence[tuple[int, ...]]], pairs: Int[np.ndarray, "task part"]
) -> None:
    for task, own, counts in zip(tasks, prefixes, pairs, strict=True):
        if not counts.all():
            raise TaskError(
                f"task '{task.attrs['task']}': its pairs have {len(set(own))} different prefixes, which do not fill"
                f" {len(counts) // 2} groups of two parts; add pairs, or lower taskspace.gradient_groups"
            )


def common_pairs(tasks: Sequence[xr.Dataset]) -> Float[np.ndarray, "task other_task"]:
    """Return the fraction of each task's pairs whose prefix, or right sentence, is that of a pair of another task."""
    prefixes = [_prefixes(task) for task in tasks]
    known = [set(own) for own in prefixes]
    return np.array([[np.mean([prefix in other for prefix in own]) for other in known] for own in prefixes])


def _prefixes(task: xr.Dataset) -> list[tuple[int, ...]]:
    """Return the tokens of each pair's prefix, or right sentence, without padding."""
    ids, lengths = (by_member(task, name)[:, 0] for name in ("token_id", "length"))
    return [tuple(row[:length].tolist()) for row, length in zip(ids, lengths, strict=True)]
