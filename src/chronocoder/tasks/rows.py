"""The sequences of a task that a model reads: one prefix an example, or two sentences."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.config import UNITS
from chronocoder.tasks.metrics import NEXT_TOKEN, SENTENCE


class Rows(NamedTuple):
    """The sequences of some examples, one after another.

    Attributes:
        examples: places of their examples in the task, shape (row,).
        members: places of their sentences in the pair, 0 for the right one and for a prefix; shape (row,).
        lengths: tokens that a model reads, shape (row,). The last token of a sentence is not among them: it is only
            predicted, and no activation at it can have an effect.
    """

    examples: np.ndarray
    members: np.ndarray
    lengths: np.ndarray

    def some(self, places: np.ndarray) -> "Rows":
        """Return some of the rows."""
        return Rows(*(values[places] for values in self))


def rows_of(task: xr.Dataset) -> Rows:
    """Return all sequences of a task, in the order of its examples."""
    lengths = by_member(task, "length")
    examples, members = (places.ravel() for places in np.indices(lengths.shape))
    return Rows(examples, members, lengths.ravel() - (not reads_prefixes(task)))


def row_batches(task: xr.Dataset, batch_size: int) -> list[Rows]:
    """Return the sequences in batches of equal length, so that no batch needs padding."""
    rows = rows_of(task)
    batches: list[Rows] = []
    for length in np.unique(rows.lengths):
        places = np.flatnonzero(rows.lengths == length)
        batches += [rows.some(places[start : start + batch_size]) for start in range(0, len(places), batch_size)]
    return batches


def row_ids(task: xr.Dataset, rows: Rows, variable: str = "token_id") -> np.ndarray:
    """Return the ids of a variable that a model reads of rows of one length, shape (row, position)."""
    ids: np.ndarray = by_member(task, variable)[rows.examples, rows.members, : rows.lengths[0]].astype(np.int64)
    return ids


def by_member(task: xr.Dataset, variable: str) -> np.ndarray:
    """Return a variable with the dimension of members, of length 1 where there is none: (example, member, ...)."""
    values = task[variable]
    values = values if "member" in values.dims else values.expand_dims("member", axis=1)
    found: np.ndarray = values.transpose("example", "member", ...).values
    return found


def reads_prefixes(task: xr.Dataset) -> bool:
    """Say whether a task's metric reads one prefix an example, rather than two sentences."""
    return "member" not in task.dims


def unit_of(task: xr.Dataset) -> str:
    """Return the unit of a task's metric."""
    return UNITS[NEXT_TOKEN] if reads_prefixes(task) else UNITS[SENTENCE]
