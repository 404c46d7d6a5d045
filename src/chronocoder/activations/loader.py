"""Reading activations of several checkpoints: in order, or as shuffled batches."""

import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from chronocoder.activations.formats import Stored, StoredFormat, empty_stored, pick, widen
from chronocoder.activations.order import Group, RowOrder
from chronocoder.activations.prefetch import Prefetched
from chronocoder.activations.shards import LibraryChunks, PlainShards, open_chunks
from chronocoder.activations.sources import ActivationSource
from chronocoder.activations.writer import COLUMNS
from chronocoder.errors import StoreError
from chronocoder.stores import damage_named, open_store

BLOCK_ROWS = 4096
BATCHES_AHEAD = 2
CPU = torch.device("cpu")
MOST_THREADS = 4
"""Threads that read, and as many that cut batches, for a process that trains on a GPU: more are no faster, and make it
wait for the interpreter's lock."""


class ActivationStores(ActivationSource):
    """The stores of a comparison's checkpoints: the same tokens in the same order. An `ActivationSource`.

    Attributes:
        paths: one store a checkpoint.
        attributes: the provenance of each.
        name: the first path.
        rows: tokens in each.
        width: width of an activation, d_model: the largest one.
        checkpoints: how many stores.
        piece_rows: rows of a chunk, which is what is read at once.
        stored_format: number format of the stores.
        in_threads: true.
    """

    in_threads = True

    def __init__(self, paths: Sequence[Path]) -> None:
        """Open the stores and check that they fit each other.

        Raises:
            StoreError: a store is damaged, or differs from the first in its tokens, its site or its number format.
        """
        self.paths = list(paths)
        self.name = str(self.paths[0])
        self._datasets = [open_store(path) for path in self.paths]
        self.attributes = [dataset.attrs for dataset in self._datasets]
        self._chunks = [_chunks(path) for path in self.paths]
        self._check_agreement()
        values = self._datasets[0]["activations"]
        self.rows, self.width = len(values), max(self.widths)
        self.checkpoints = len(self.paths)
        self.piece_rows = self._chunks[0]["activations"].chunk_rows
        self.stored_format = cast(StoredFormat, values.dtype.name)

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Width of each checkpoint's activations; behind it what is read has zeros."""
        return tuple(int(dataset["activations"].shape[1]) for dataset in self._datasets)

    def read_piece(self, number: int, into: Stored) -> None:
        """Read a piece as it is stored into memory of its size, shape (token, checkpoint, d_model).

        Raises:
            StoreError: a chunk is damaged.
        """
        for checkpoint, (path, chunks, width) in enumerate(zip(self.paths, self._chunks, self.widths, strict=True)):
            into.values[:, checkpoint, width:] = 0
            with damage_named(path):
                chunks["activations"].read(number, into.values[:, checkpoint, :width].numpy())
                if into.scale is not None:
                    chunks["scale"].read(number, into.scale[:, checkpoint].numpy())

    def read(self, start: int, stop: int) -> Float[np.ndarray, "token checkpoint d_model"]:
        """Return consecutive rows as float32.

        Raises:
            StoreError: a chunk is damaged.
        """
        first, last = start // self.piece_rows, -(-min(stop, self.rows) // self.piece_rows)
        before = first * self.piece_rows
        rows: np.ndarray = widen(self._pieces(first, last).tokens(start - before, stop - before)).numpy()
        return rows

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[Float[Tensor, "token checkpoint d_model"]]:
        """Yield all rows in order, about so many at a time: whole pieces, at least one.

        Raises:
            StoreError: a chunk is damaged.
        """
        pieces, step = -(-self.rows // self.piece_rows), max(1, rows // self.piece_rows)
        for first in range(0, pieces, step):
            yield widen(self._pieces(first, min(first + step, pieces)))

    def text_columns(self, number: int = 0) -> xr.Dataset:
        """Return the coordinates token_id, sequence and position of every row of a store, in memory.

        Raises:
            StoreError: a chunk is damaged.
        """
        with damage_named(self.paths[number]):
            return self._datasets[number].drop_vars(["activations", "scale"], errors="ignore").load()

    def _pieces(self, first: int, last: int) -> Stored:
        room = empty_stored((last - first) * self.piece_rows, self.checkpoints, self.width, self.stored_format)
        return self.read_pieces(range(first, last), room)

    def _check_agreement(self) -> None:
        arrays = [dataset["activations"] for dataset in self._datasets]
        self._check_same("site", "site", [attributes["site"] for attributes in self.attributes])
        self._check_same("number format", "harvest.dtype", [array.dtype.name for array in arrays])
        self._check_same(
            "number of rows a chunk", "length of sequence", [c["activations"].chunk_rows for c in self._chunks]
        )
        for number in range(1, len(self.paths)):
            self._check_text(number)

    def _check_same(self, what: str, key: str, found: Sequence[Any]) -> None:
        for path, value in zip(self.paths, found, strict=True):
            if value != found[0]:
                raise StoreError(
                    f"{path}: {what} {value} differs from {found[0]} of {self.paths[0]}; give stores of one {key}"
                )

    def _check_text(self, number: int) -> None:
        """Compare the digests of the text; where they differ, or are missing, the text itself."""
        digests = [self.attributes[i].get("text_digest") for i in (0, number)]
        if digests[0] is not None and digests[0] == digests[1]:
            return
        first, columns = self.text_columns(), self.text_columns(number)
        for name in COLUMNS:
            if not np.array_equal(columns[name].values, first[name].values):
                raise StoreError(
                    f"{self.paths[number]}: its {name} differs from that of {self.paths[0]};"
                    " harvest both from one corpus"
                )


class _Sent(NamedTuple):
    """A batch that is on its way.

    Attributes:
        batch: where it is wanted.
        part_sizes: rows of each part of all processes.
        arrived: what tells the GPU when it is there; None where it is.
    """

    batch: Stored
    part_sizes: list[int]
    arrived: torch.cuda.Event | None


class ShuffledBatches(Iterator[Stored]):
    """Endless batches in the stored format, shape (token, checkpoint, d_model); made by `shuffled_batches`.

    The rows of each of this process's parts are together, in the order of the stream.

    They are made float32 by `normalised`, on the device that trains: until then they are half as large, or less.

    Memory: twice this process's part of a buffer, and a few batches, in the stored format; those batches on the GPU too
    where there is one.

    Attributes:
        waited_s: seconds that the consumer has waited for batches.
        part_sizes: of the batch that came last, the rows of each part of all processes.
    """

    def __init__(
        self, source: ActivationSource, order: RowOrder, batch_tokens: int, first_batch: int, device: torch.device
    ) -> None:
        """Begin to read.

        Args:
            source: the activations.
            order: the stream of rows that batches are cut from.
            batch_tokens: tokens in a global batch.
            first_batch: number of the first batch.
            device: where batches are wanted.
        """
        self.waited_s, self._device = 0.0, device
        self.part_sizes: list[int] = []
        closed = threading.Event()
        batches = _sent_batches(source, order, batch_tokens, first_batch, closed, device)
        self._batches = Prefetched(batches, BATCHES_AHEAD, closed)

    def __next__(self) -> Stored:
        begin = time.perf_counter()
        batch, self.part_sizes, arrived = next(self._batches)
        self.waited_s += time.perf_counter() - begin
        if arrived is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(arrived)
            for tensor in batch:
                if tensor is not None:
                    tensor.record_stream(stream)  # else its memory could be filled again before it has been used
        return batch

    def close(self) -> None:
        """End the reading threads; no batch comes after it."""
        self._batches.close()


def shuffled_batches(
    source: ActivationSource,
    batch_tokens: int,
    seed: int,
    *,
    first_batch: int = 0,
    buffer_tokens: int = 65_536,
    rank: int = 0,
    processes: int = 1,
    parts: int = 0,
    device: torch.device = CPU,
) -> ShuffledBatches:
    """Return batches endlessly, epoch after epoch, in an order that the seed alone decides.

    A process gets those rows of a global batch that are of its own pieces: the parts of the processes differ in
    length, may be empty, and make up the batch that one process alone would get. They are read ahead in threads, and
    sent to a GPU while it computes. Where a batch is dealt to more parts than there are processes, a process has the
    rows of its parts one part after the other.

    Args:
        source: the activations.
        batch_tokens: tokens in a global batch, over all processes.
        seed: decides the order.
        first_batch: number of the first batch; that of a training that goes on after n steps is n.
        buffer_tokens: rows, over all processes, that are shuffled with each other.
        rank: this process.
        processes: processes that share the global batch.
        parts: as `RowOrder`.
        device: where batches are wanted.

    Raises:
        StoreError: the source holds fewer rows than one batch.
    """
    if source.rows < batch_tokens:
        raise StoreError(
            f"{source.name}: holds {source.rows} tokens, less than batch_tokens {batch_tokens};"
            " raise the corpus' train_tokens or lower batch_tokens"
        )
    order = RowOrder(source.rows, source.piece_rows, seed, buffer_tokens, rank, processes, parts)
    return ShuffledBatches(source, order, batch_tokens, first_batch, device)


def sampled_blocks(
    source: ActivationSource, tokens: int, seed: int, *, part: int = 0, parts: int = 1
) -> Iterator[Float[Tensor, "token checkpoint d_model"]]:
    """Yield a part of a random sample of pieces, float32; that of all parts depends on the seed alone.

    Args:
        source: the activations.
        tokens: rows of the sample over all parts, rounded up to whole pieces; all rows where there are fewer.
        seed: decides the sample: the first pieces that `shuffled_batches` takes.
        part: the part.
        parts: into which the sample is dealt.
    """
    order = RowOrder(source.rows, source.piece_rows, seed, source.rows)
    pieces = order.epoch_pieces(0)
    before = np.cumsum(order.sizes(pieces)) - order.sizes(pieces)
    for piece in pieces[before < tokens][part::parts].tolist():
        room = empty_stored(source.piece_rows, source.checkpoints, source.width, source.stored_format)
        yield widen(source.read_pieces([piece], room))


def _chunks(path: Path) -> dict[str, PlainShards | LibraryChunks]:
    with damage_named(path):
        return {name: open_chunks(path / name) for name in ("activations", "scale") if (path / name).is_dir()}


def _sent_batches(
    source: ActivationSource,
    order: RowOrder,
    batch_tokens: int,
    first_batch: int,
    closed: threading.Event,
    device: torch.device,
) -> Generator[_Sent, None, None]:
    """Yield this process's parts of the batches on a device, on their way there by a stream of their own."""
    on_gpu = device.type == "cuda"
    threads = _threads() if on_gpu else 1
    with ThreadPoolExecutor(threads) as readers, ThreadPoolExecutor(threads) as cutters:
        groups = _filled_groups(source, order, first_batch * batch_tokens, closed, readers if threads > 1 else None)
        stream = torch.cuda.Stream(device) if on_gpu else None
        with closing(Prefetched(groups, 1, closed)) as filled:
            pool = cutters if threads > 1 else None
            batches = _batches(source, filled, order, batch_tokens, first_batch, pool, on_gpu)
            for batch, sizes in batches:
                if stream is None:
                    yield _Sent(batch, sizes, None)
                else:
                    with torch.cuda.stream(stream):
                        sent = batch.on(device)
                    yield _Sent(sent, sizes, stream.record_event())


def _batches(
    source: ActivationSource,
    groups: Iterator[tuple[Group, Stored]],
    order: RowOrder,
    batch_tokens: int,
    first_batch: int,
    pool: Executor | None,
    pinned: bool,
) -> Iterator[tuple[Stored, list[int]]]:
    """Yield this process's rows of the batches, and how many rows each part of all processes has.

    The next group is read in a thread while batches are cut from one.
    """
    start, stop = first_batch * batch_tokens, (first_batch + 1) * batch_tokens
    sizes, room, ends = order.part_sizes(first_batch, batch_tokens), None, list[int]()
    for group, buffer in groups:
        while start < group.stop:
            if room is None:
                of_parts = next(sizes)
                own = of_parts[order.own_parts]
                room = empty_stored(int(own.sum()), source.checkpoints, source.width, source.stored_format, pinned)
                ends = (np.cumsum(own) - own).tolist()  # of what each part has got
            end = min(stop, group.stop)
            for part, rows in enumerate(_rows_between(group, start, end)):
                _copy(buffer, rows, room.tokens(ends[part], ends[part] + len(rows)), pool)
                ends[part] += len(rows)
            start = end
            if start == stop:
                yield room, of_parts.tolist()
                room, stop = None, stop + batch_tokens


def _rows_between(group: Group, start: int, stop: int) -> list[Int[np.ndarray, " row"]]:
    """Return the rows of each of this process's parts that are at the places `start` to `stop` of the stream."""
    between = slice(*np.searchsorted(group.places, (start, stop)))
    rows, parts = group.rows[between], group.parts[between]
    return [rows[parts == part] for part in range(len(group.runs))]


def _copy(buffer: Stored, rows: Int[np.ndarray, " row"], into: Stored, pool: Executor | None) -> None:
    """Copy rows of a buffer, the threads of a pool as many each."""
    if pool is None:
        pick(buffer, rows, into)
        return
    bounds = np.linspace(0, len(rows), MOST_THREADS + 1, dtype=int).tolist()
    list(pool.map(lambda part: pick(buffer, rows[slice(*part)], into.tokens(*part)), pairwise(bounds)))


def _filled_groups(
    source: ActivationSource, order: RowOrder, start: int, closed: threading.Event, pool: Executor | None
) -> Generator[tuple[Group, Stored], None, None]:
    """Yield groups and their rows, which stay there until the next but one is asked for."""
    rooms = [empty_stored(order.largest_part, source.checkpoints, source.width, source.stored_format) for _ in range(2)]
    for number, group in enumerate(order.groups(start)):
        pieces, runs = group.pieces.tolist(), group.runs.tolist()
        yield group, source.read_pieces(pieces, rooms[number % 2], closed, pool, runs)


def _threads() -> int:
    """Return how many threads may read: half of this process's share of the processors that its job has."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # which `accelerate launch` sets
    return max(1, min(MOST_THREADS, len(os.sched_getaffinity(0)) // (2 * here)))
