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
    """One process's rows of a buffer.

    Attributes:
        stop: place in the stream after the whole group's last row.
        pieces: the pieces that this process reads, part by part, one after the other into its buffer.
        runs: how many pieces each of its parts has.
        places: places in the stream of this process's rows, ascending.
        rows: the row of this process's buffer that is at each of them.
        parts: the part that each of them belongs to, counted from this process's first one.
    """

    stop: int
    pieces: Int[np.ndarray, " piece"]
    runs: Int[np.ndarray, " part"]
    places: Int[np.ndarray, " row"]
    rows: Int[np.ndarray, " row"]
    parts: Int[np.ndarray, " row"]


class _Shuffled(NamedTuple):
    """A group of all processes.

    Attributes:
        start: place in the stream of its first row.
        stop: the place after its last one.
        pieces: its pieces.
        parts: the part that each belongs to.
        rows: the row at each of its places, counted through its pieces, shape (row,).
    """

    start: int
    stop: int
    pieces: Int[np.ndarray, " piece"]
    parts: Int[np.ndarray, " piece"]
    rows: Int[np.ndarray, " row"]


@dataclass(frozen=True)
class RowOrder:
    """The order of a source's rows for one process of several.

    The j-th piece of group g belongs to part (j + g) modulo `parts`, and each process holds as many consecutive parts:
    every piece is read by one process only, and what is left over falls to another part in each group.

    Attributes:
        rows: rows of the source.
        piece_rows: rows of each piece but the last, which holds the rest.
        seed: decides the order.
        buffer_rows: rows of a group, at most, but at least one piece.
        rank: this process.
        processes: how many share the order.
        parts: of each batch, a multiple of `processes`; 0: one for each process.
    """

    rows: int
    piece_rows: int
    seed: int
    buffer_rows: int
    rank: int = 0
    processes: int = 1
    parts: int = 0

    @property
    def own_parts(self) -> range:
        """The parts that this process holds."""
        each = self._parts // self.processes
        return range(self.rank * each, (self.rank + 1) * each)

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
        for shuffled in self._shuffled(place):
            yield self._of_process(shuffled)

    def part_sizes(self, first_batch: int, batch_rows: int) -> Iterator[Int[np.ndarray, " part"]]:
        """Yield how many rows each part, of all processes, has of a batch, endlessly from a batch on."""
        start = first_batch * batch_rows
        stop, sizes = start + batch_rows, np.zeros(self._parts, dtype=np.int64)
        for shuffled in self._shuffled(start):
            part_of_place = shuffled.parts[self._piece_at_place(shuffled)]
            while start < shuffled.stop:
                end = min(stop, shuffled.stop)
                inside = part_of_place[start - shuffled.start : end - shuffled.start]
                sizes += np.bincount(inside, minlength=self._parts)
                start = end
                if start == stop:
                    yield sizes
                    stop, sizes = stop + batch_rows, np.zeros_like(sizes)

    @property
    def largest_part(self) -> int:
        """The most rows that a group has for this process."""
        members = -(-self.pieces // self._groups_per_epoch)
        rounds, rest = divmod(members, self._parts)
        return (rounds * len(self.own_parts) + min(rest, len(self.own_parts))) * self.piece_rows

    @property
    def _parts(self) -> int:
        return self.parts or self.processes

    @property
    def _groups_per_epoch(self) -> int:
        return -(-self.pieces // max(1, self.buffer_rows // self.piece_rows))

    def _shuffled(self, place: int) -> Iterator[_Shuffled]:
        """Yield the groups of all processes endlessly, from the one that holds a place of the stream on."""
        for epoch in count(place // self.rows):
            start = epoch * self.rows
            for number, members in enumerate(np.array_split(self.epoch_pieces(epoch), self._groups_per_epoch)):
                size = int(self.sizes(members).sum())
                if start + size > place:
                    generator = np.random.default_rng([self.seed, epoch, number + 1])
                    parts = (np.arange(len(members)) + number) % self._parts
                    yield _Shuffled(start, start + size, members, parts, generator.permutation(size))
                start += size

    def _of_process(self, shuffled: _Shuffled) -> Group:
        sizes, first = self.sizes(shuffled.pieces), self.own_parts.start
        own = np.isin(shuffled.parts, self.own_parts)
        held = np.argsort(np.where(own, shuffled.parts, self._parts), kind="stable")[: own.sum()]
        shift = np.zeros_like(sizes)  # from a row of the group to one of the buffer
        shift[held] = np.cumsum(sizes[held]) - sizes[held] - (np.cumsum(sizes) - sizes)[held]
        piece_at_place = self._piece_at_place(shuffled)
        places = np.flatnonzero(own[piece_at_place])
        owners = piece_at_place[places]
        runs = np.bincount(shuffled.parts[held] - first, minlength=len(self.own_parts))
        rows, parts = shuffled.rows[places] + shift[owners], shuffled.parts[owners] - first
        return Group(shuffled.stop, shuffled.pieces[held], runs, shuffled.start + places, rows, parts)

    def _piece_at_place(self, shuffled: _Shuffled) -> Int[np.ndarray, " row"]:
        """Return which of a group's pieces the row at each of its places is of."""
        of_row = np.repeat(np.arange(len(shuffled.pieces)), self.sizes(shuffled.pieces))
        found: np.ndarray = of_row[shuffled.rows]
        return found
