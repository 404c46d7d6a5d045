"""The order in which training takes the rows of a source: a function of the seed alone.

A source is read in pieces. Each epoch permutes them, cuts the permuted pieces into groups that fit a buffer, and
permutes the rows of each group. The rows of all groups of all epochs, one after the other, are the *stream*; batch n
is the stream's rows from n times the batch size on. All of it is index arithmetic, so that a place far into the stream
is found without passing through what comes before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np
from jaxtyping import Int


class Group(NamedTuple):
    """One process's part of a buffer.

    Attributes:
        stop: place in the stream after the whole group's last row.
        pieces: the pieces that this process reads, one after the other into its buffer.
        places: places in the stream of this process's rows, ascending.
        rows: the row of this process's buffer that is at each of them.
    """

    stop: int
    pieces: Int[np.ndarray, " piece"]
    places: Int[np.ndarray, " row"]
    rows: Int[np.ndarray, " row"]


@dataclass(frozen=True)
class RowOrder:
    """The order of a source's rows for one process of several.

    The j-th piece of group g belongs to process (j + g) modulo `processes`: every piece is read by one process only,
    and what is left over falls to another one in each group.

    Attributes:
        rows: rows of the source.
        piece_rows: rows of each piece but the last, which holds the rest.
        seed: decides the order.
        buffer_rows: rows of a group, at most, but at least one piece.
        rank: this process.
        processes: how many share the order.
    """

    rows: int
    piece_rows: int
    seed: int
    buffer_rows: int
    rank: int = 0
    processes: int = 1

    @property
    def pieces(self) -> int:
        """How many pieces the source has."""
        return -(-self.rows // self.piece_rows)

    def epoch_pieces(self, epoch: int) -> Int[np.ndarray, " piece"]:
        """Return the pieces of an epoch in its order."""
        return np.random.default_rng([self.seed, epoch]).permutation(self.pieces)

    def sizes(self, pieces: Int[np.ndarray, " piece"]) -> Int[np.ndarray, " piece"]:
        """Return the rows of each piece."""
        sizes: np.ndarray = np.minimum(self.piece_rows, self.rows - pieces * self.piece_rows)
        return sizes

    def groups(self, place: int) -> Iterator[Group]:
        """Yield groups endlessly, from the one that holds a place of the stream on."""
        first_epoch = place // self.rows
        for epoch in count(first_epoch):
            start = epoch * self.rows
            for number, members in enumerate(np.array_split(self.epoch_pieces(epoch), self._groups_per_epoch)):
                size = int(self.sizes(members).sum())
                if start + size > place:
                    yield self._group(members, start, number, np.random.default_rng([self.seed, epoch, number + 1]))
                start += size

    @property
    def largest_part(self) -> int:
        """The most rows that a group has for this process."""
        members = -(-self.pieces // self._groups_per_epoch)
        return -(-members // self.processes) * self.piece_rows

    @property
    def _groups_per_epoch(self) -> int:
        return -(-self.pieces // max(1, self.buffer_rows // self.piece_rows))

    def _group(self, members: np.ndarray, start: int, number: int, generator: np.random.Generator) -> Group:
        sizes = self.sizes(members)
        order = generator.permutation(int(sizes.sum()))
        own = (np.arange(len(members)) + number) % self.processes == self.rank
        buffer_row = np.cumsum(np.repeat(own, sizes)) - 1
        places = np.flatnonzero(np.repeat(own, sizes)[order])
        return Group(start + len(order), members[own], start + places, buffer_row[order[places]])
