"""Where training takes activations from."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor

from chronocoder.activations.formats import Stored, StoredFormat

PARTS_AT_ONCE = 4
"""Of what is read together, that a thread reads one after another."""


class ActivationSource(ABC):
    """The same tokens' activations at several checkpoints, read piece by piece.

    Attributes:
        name: what errors call it.
        rows: tokens, one row each.
        width: width of an activation, d_model: the largest one, where those of checkpoints differ.
        checkpoints: how many.
        piece_rows: rows of each piece but the last, which holds the rest.
        stored_format: number format of what is read.
        pieces_at_once: how many are best read together.
        in_threads: whether several threads may read at once.
    """

    name: str
    rows: int
    width: int
    checkpoints: int
    piece_rows: int
    stored_format: StoredFormat
    pieces_at_once: int = 1
    in_threads: bool = False

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each checkpoint's activations; behind it what is read has zeros."""
        return (self.width,) * self.checkpoints

    @abstractmethod
    def read_piece(self, number: int, into: Stored) -> None:
        """Read a piece into memory of its size, shape (token, checkpoint, d_model)."""

    def size(self, number: int) -> int:
        """Return the rows of a piece."""
        return min(self.piece_rows, self.rows - number * self.piece_rows)

    def read_together(self, numbers: Sequence[int], into: Stored) -> None:
        """Read pieces into memory of their size, one after the other."""
        filled = 0
        for number in numbers:
            self.read_piece(number, into.tokens(filled, filled + self.size(number)))
            filled += self.size(number)

    def read_pieces(
        self,
        numbers: Sequence[int],
        into: Stored,
        closed: threading.Event | None = None,
        pool: Executor | None = None,
        runs: Sequence[int] = (),
    ) -> Stored:
        """Read any number of pieces, unless `closed` is set meanwhile; return the part of the memory that they fill.

        Args:
            numbers: the pieces.
            into: memory for them.
            closed: says that they are no longer wanted.
            pool: of threads that read, where the source may be read `in_threads`.
            runs: how many pieces there are in each run; none is read together with one of another run.
        """
        filled, parts = 0, []
        for together in self._read_at_once(numbers, runs or [len(numbers)]):
            size = sum(self.size(number) for number in together)
            parts.append((together, into.tokens(filled, filled + size)))
            filled += size

        def read(some: Sequence[tuple[Sequence[int], Stored]]) -> None:
            for together, room in some:
                if closed is None or not closed.is_set():
                    self.read_together(together, room)

        if pool is None or not self.in_threads:
            read(parts)
        else:
            shares = [parts[first : first + PARTS_AT_ONCE] for first in range(0, len(parts), PARTS_AT_ONCE)]
            list(pool.map(read, shares))  # which raises what one of them has raised
        return into.tokens(0, filled)

    def _read_at_once(self, numbers: Sequence[int], runs: Sequence[int]) -> Iterator[Sequence[int]]:
        start = 0
        for length in runs:
            for first in range(start, start + length, self.pieces_at_once):
                yield numbers[first : min(first + self.pieces_at_once, start + length)]
            start += length
