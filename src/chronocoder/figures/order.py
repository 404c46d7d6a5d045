"""Tasks in the order of their groups, and which pairs of them are of one group."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.stores import names
from chronocoder.wording import in_words

MOST_NUMBERED = 16
"""Tasks whose matrix has room for a number in each cell."""


class TaskOrder(NamedTuple):
    """Tasks in the order of their groups.

    Attributes:
        places: of the tasks in the store.
        labels: names in words.
        groups: the group of each.
        ends: how many tasks come up to the end of each group, without the last.
    """

    places: np.ndarray
    labels: list[str]
    groups: list[str]
    ends: list[int]

    @property
    def many(self) -> bool:
        """Whether there are more tasks than cells can have their numbers written in."""
        return len(self.labels) > MOST_NUMBERED


def task_order(store: xr.Dataset, dim: str = "task", group: str = "group") -> TaskOrder:
    """Return the tasks along a dimension by group, groups in the order in which they first come."""
    of_tasks = names(store, group)
    groups = list(dict.fromkeys(of_tasks))
    places = np.array(sorted(range(len(of_tasks)), key=lambda place: groups.index(of_tasks[place])))
    ordered = [of_tasks[place] for place in places]
    ends = [place for place in range(1, len(ordered)) if ordered[place] != ordered[place - 1]]
    return TaskOrder(places, [in_words(names(store, dim)[place]) for place in places], ordered, ends)


def same_group(store: xr.Dataset, dim: str = "task", group: str = "group", other_group: str = "group") -> np.ndarray:
    """Return which ordered pairs of different tasks are within a group and which between, shape (2, task, task).

    What names no group is of none.
    """
    one, other = (np.array(names(store, name)) for name in (group, other_group))
    same, different = (one[:, None] == other) & (other != ""), ~np.eye(store.sizes[dim], dtype=bool)
    return np.stack([same & different, ~same & different])


def off_diagonal(values: np.ndarray) -> np.ndarray:
    """Return the values of pairs of different tasks, the last two dims of which are tasks in one order: 1-d."""
    return values[..., ~np.eye(values.shape[-1], dtype=bool)].ravel()


def largest_size(values: np.ndarray, least: float = 1e-3) -> float:
    """Return the largest size among finite values, as the end of a scale of colours."""
    finite = abs(values[np.isfinite(values)])
    return max(float(finite.max(initial=0)), least)
