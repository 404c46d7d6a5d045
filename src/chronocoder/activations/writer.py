"""Writing activation stores shard by shard."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from jaxtyping import Float
from zarr.codecs import BloscCodec, Crc32cCodec

from chronocoder.errors import NonFiniteError
from chronocoder.stores import put_in_place, seal_store

ROWS_PER_SHARD = 8192
ROWS_PER_CHUNK = 1024
_PROGRESS = "progress.json"
_LONG_NAMES = {
    "activations": "activation of the token at the site",
    "token_id": "token of the text",
    "sequence": "sequence of the corpus that the token is of",
    "position": "place of the token in its sequence",
}


class Rows(NamedTuple):
    """Activations of consecutive tokens.

    Attributes:
        activations: shape (token, d_model), float32.
        token_id: shape (token,).
        sequence: the sequence each token is of, shape (token,).
        position: its place there, shape (token,).
    """

    activations: Float[np.ndarray, "token d_model"]
    token_id: np.ndarray
    sequence: np.ndarray
    position: np.ndarray


class ActivationWriter:
    """Appends rows to a store that takes its final path once it holds them all.

    Rows are written one whole shard at a time, by this process alone: two writers of one shard would lose rows. What
    is written stays in `.<name>.partial` when the process dies, and a writer with the same attributes goes on there.
    """

    def __init__(self, path: Path, rows: int, width: int, dtype: str, attributes: dict[str, Any]) -> None:
        """Open a partial store or begin one.

        Args:
            path: the final path.
            rows: tokens that the store will hold.
            width: width of an activation, d_model.
            dtype: `float16` or `float32`.
            attributes: provenance; all but the time of creation must be the same for a partial store to be used.
        """
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._rows, self._dtype = rows, dtype
        self._pending: list[Rows] = []
        same = {key: value for key, value in attributes.items() if key != "created"}
        self._identity = json.loads(json.dumps({**same, "rows": rows, "width": width, "dtype": dtype}))
        self.rows_written = self._resume()
        if not self.rows_written:
            self._create(width, attributes)
        group = zarr.open_group(self._partial, mode="r+", use_consolidated=False)
        self._arrays: dict[str, Any] = {name: group[name] for name in _LONG_NAMES}

    def __enter__(self) -> "ActivationWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()

    def append(self, rows: Rows) -> None:
        """Add rows; each full shard is written at once.

        Raises:
            NonFiniteError: a value does not fit the store's number format.
        """
        self._pending.append(rows)
        if sum(len(part.token_id) for part in self._pending) >= ROWS_PER_SHARD:
            self._write(whole_shards_only=True)

    def _write(self, whole_shards_only: bool) -> None:
        columns = [np.concatenate(parts) for parts in zip(*self._pending, strict=True)]
        available = len(columns[0])
        count = available - available % ROWS_PER_SHARD if whole_shards_only else available
        start, stop = self.rows_written, self.rows_written + count
        for name, column in zip(_LONG_NAMES, columns, strict=True):
            values = self._narrow(column[:count]) if name == "activations" else column[:count]
            self._arrays[name][start:stop] = values
        self._pending = [type(self._pending[0])(*(column[count:] for column in columns))]
        self.rows_written = stop
        self._note_progress()

    def _narrow(self, values: np.ndarray) -> np.ndarray:
        limit = float(np.finfo(self._dtype).max)
        largest = float(np.abs(values).max(initial=0))
        if largest > limit:
            raise NonFiniteError(
                f"{self._path}: activation {largest:.4g} exceeds the largest {self._dtype}, {limit:.4g};"
                " set harvest.dtype to float32"
            )
        return values.astype(self._dtype)

    def _finish(self) -> None:
        if self._pending:
            self._write(whole_shards_only=False)
        if self.rows_written != self._rows:
            raise ValueError(f"{self._path}: {self.rows_written} of {self._rows} rows were appended")
        (self._partial / _PROGRESS).unlink()
        seal_store(self._partial)
        put_in_place(self._partial, self._path)

    def _resume(self) -> int:
        progress = self._partial / _PROGRESS
        if progress.is_file():
            state = json.loads(progress.read_text(encoding="utf-8"))
            if state["identity"] == self._identity:
                return int(state["rows_written"])
        shutil.rmtree(self._partial, ignore_errors=True)
        return 0

    def _note_progress(self) -> None:
        new = self._partial / f"{_PROGRESS}.new"
        new.write_text(json.dumps({"identity": self._identity, "rows_written": self.rows_written}), "utf-8")
        new.replace(self._partial / _PROGRESS)

    def _create(self, width: int, attributes: dict[str, Any]) -> None:
        self._partial.mkdir(parents=True)
        coordinates = {"coordinates": "token_id sequence position"}  # what xarray reads as coordinates
        group = zarr.create_group(self._partial, zarr_format=3, attributes={**attributes, **coordinates})
        shapes = {"activations": (self._rows, width)}
        for name, long_name in _LONG_NAMES.items():
            shape = shapes.get(name, (self._rows,))
            group.create_array(
                name,
                shape=shape,
                dtype=self._dtype if name == "activations" else "int32",
                chunks=(ROWS_PER_CHUNK, *shape[1:]),
                shards=(ROWS_PER_SHARD, *shape[1:]),
                compressors=[BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"), Crc32cCodec()],
                fill_value=0,
                dimension_names=("token", "d_model")[: len(shape)],
                attributes={"long_name": long_name, "units": "1"},
            )
        self._note_progress()
