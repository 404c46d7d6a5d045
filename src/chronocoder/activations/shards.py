"""Reading the chunks of an uncompressed, sharded Zarr array straight into memory.

The library makes several copies of a chunk and takes half a millisecond besides, which is more than reading a chunk of
a mebibyte and verifying its checksum takes. Format: Zarr v3 specification, codecs `sharding_indexed`, `bytes` and
`crc32c`.
"""

import json
import os
import threading
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from jaxtyping import Int

from chronocoder.activations.checksums import checksum

_CHECKSUM_BYTES = 4
_LITTLE_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}
_CHECKSUM = {"name": "crc32c"}
_ROOM = threading.local()
_PLAIN_CHUNKS = [[_LITTLE_ENDIAN, _CHECKSUM], [{"name": "bytes"}, _CHECKSUM]]


class PlainShards:
    """Chunks along the first axis of an array whose chunks are checksummed and neither compressed nor left out.

    Attributes:
        chunk_rows: rows of a chunk.
    """

    def __init__(self, path: Path) -> None:
        """Read the metadata in the array's directory.

        Raises:
            ValueError: the array is stored in another way.
        """
        metadata = json.loads((path / "zarr.json").read_text(encoding="utf-8"))
        shard = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        chunk = _plain_chunk(metadata["codecs"])
        if chunk is None:
            raise ValueError(f"{path}: chunks are not plain; read them with LibraryChunks")
        self.chunk_rows = int(chunk[0])
        self._chunks_per_shard = int(shard[0]) // self.chunk_rows
        self._path = path
        self._name_after_shard = "/0" * (len(shard) - 1)
        self._places: dict[int, np.ndarray] = {}

    def read(self, number: int, into: np.ndarray) -> None:
        """Read a chunk, or its first rows, into memory and verify its checksum.

        Args:
            number: of the chunk along the first axis.
            into: of the array's number format; as many rows as there is room for are read.

        Raises:
            ValueError: the chunk or its shard's index is missing or damaged.
        """
        shard, slot = divmod(number, self._chunks_per_shard)
        path = self._path / f"c/{shard}{self._name_after_shard}"
        file = _open(path)
        try:
            if shard not in self._places:
                self._places[shard] = self._read_places(file, path)
            offset, size = self._places[shard][slot].tolist()
            content = _room(size)
            complete = os.preadv(file, [content.data], offset) == size
        finally:
            os.close(file)
        values, expected = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:].tobytes()
        if not complete or expected != _as_bytes(checksum(values)):
            raise ValueError(f"{path}: the checksum of chunk {slot} does not match")
        into[:] = values.view(into.dtype).reshape(-1, *into.shape[1:])[: len(into)]

    def _read_places(self, file: int, path: Path) -> Int[np.ndarray, "chunk 2"]:
        """Return offsets and sizes in bytes of a shard's chunks, from the index at its end."""
        size = 16 * self._chunks_per_shard
        start = max(0, os.fstat(file).st_size - size - _CHECKSUM_BYTES)
        index = os.pread(file, size + _CHECKSUM_BYTES, start)
        if _as_bytes(google_crc32c.value(index[:size])) != index[size:]:
            raise ValueError(f"{path}: the checksum of the index does not match")
        return np.frombuffer(index[:size], dtype="<u8").reshape(-1, 2)


class LibraryChunks:
    """Chunks along the first axis of any array, read by the library.

    Attributes:
        chunk_rows: rows of a chunk.
    """

    def __init__(self, path: Path) -> None:
        """Open the array in that directory."""
        self._array: Any = zarr.open_array(path, mode="r")
        self.chunk_rows = int(self._array.chunks[0])

    def read(self, number: int, into: np.ndarray) -> None:
        """Read a chunk, or its first rows, into memory.

        Raises:
            ValueError: the chunk is damaged.
        """
        start = number * self.chunk_rows
        into[:] = self._array[start : start + len(into)]


def open_chunks(path: Path) -> PlainShards | LibraryChunks:
    """Return the fastest reader of an array's chunks."""
    codecs = json.loads((path / "zarr.json").read_text(encoding="utf-8"))["codecs"]
    return PlainShards(path) if _plain_chunk(codecs) else LibraryChunks(path)


def _room(size: int) -> np.ndarray:
    """Return the thread's memory for a chunk, used again and again: the pages of new memory cost more than the read."""
    if getattr(_ROOM, "bytes", None) is None or len(_ROOM.bytes) < size:
        _ROOM.bytes = np.empty(size, np.uint8)
    room: np.ndarray = _ROOM.bytes[:size]
    return room


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None


def _plain_chunk(codecs: list[dict[str, Any]]) -> list[int] | None:
    """Return the shape of an array's chunks if they are stored as `PlainShards` reads them."""
    shards = codecs[0].get("configuration", {})
    plain = (
        len(codecs) == 1
        and codecs[0]["name"] == "sharding_indexed"
        and shards["codecs"] in _PLAIN_CHUNKS
        and shards["index_codecs"] == _PLAIN_CHUNKS[0]
        and shards["index_location"] == "end"
    )
    return shards["chunk_shape"] if plain else None


def _as_bytes(number: int) -> bytes:
    return number.to_bytes(_CHECKSUM_BYTES, "little")
