"""Writing activation stores shard by shard."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from jaxtyping import Float
from torch import Tensor
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

from chronocoder.activations.formats import StoredFormat, narrow
from chronocoder.activations.pieces import PIECES_PER_SHARD
from chronocoder.renaming import put_in_place
from chronocoder.stores import seal_store, strings

COLUMNS = {
    "token_id": "token of the text",
    "sequence": "sequence of the corpus that the token is of",
    "position": "place of the token in its sequence",
}
_ACTIVATIONS = "activation of the token at the site"
_SCALED_ACTIVATIONS = f"{_ACTIVATIONS}, divided by its scale and rounded"
_SCALE = "what the activations of the token are multiplied by to have their true size"
_PROGRESS = "progress.json"


class Rows(NamedTuple):
    """Activations of consecutive tokens.

    Attributes:
        activations: shape (token, d_model), float32, on any device.
        token_id: shape (token,).
        sequence: the sequence each token is of, shape (token,).
        position: its place there, shape (token,).
    """

    activations: Float[Tensor, "token d_model"]
    token_id: np.ndarray
    sequence: np.ndarray
    position: np.ndarray


class ActivationWriter:
    """Appends rows to a store that takes its final path once it holds them all.

    A chunk holds one piece of rows, and a shard several. Rows are written whole shards at a time, by one thread alone:
    two writers of one shard would lose rows. It writes while further rows are computed. What is written stays in
    `.<name>.partial` when the process dies, and a writer with the same attributes goes on there.

    Attributes:
        rows_written: rows of whole shards that a writer may go on after.
    """

    def __init__(
        self,
        path: Path,
        rows: int,
        width: int,
        stored_format: StoredFormat,
        piece_rows: int,
        attributes: dict[str, Any],
        labels: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Open a partial store or begin one.

        Args:
            path: the final path.
            rows: tokens that the store will hold.
            width: width of an activation, d_model.
            stored_format: number format; `int8` adds the coordinate `scale` (token,).
            piece_rows: rows of a chunk.
            attributes: provenance; all but the time of creation must be the same for a partial store to be used.
            labels: of the text's sequences, by name; in the store they lie along `text_sequence`, whose places are
                the values of `sequence`.
        """
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._rows, self._width, self._piece_rows = rows, width, piece_rows
        self._labels = labels or {}
        self._format: StoredFormat = stored_format
        self._pending: list[dict[str, np.ndarray]] = []
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        self._writing: Future[None] | None = None
        same = {key: value for key, value in attributes.items() if key != "created"}
        shape = {"rows": rows, "width": width, "dtype": stored_format, "piece_rows": piece_rows}
        self._identity = json.loads(json.dumps({**same, **shape}))
        self.rows_written = self._resume()
        if not self.rows_written:
            self._create(attributes)
        group = zarr.open_group(self._partial, mode="r+", use_consolidated=False)
        scale = ("scale",) if stored_format == "int8" else ()
        self._arrays: dict[str, Any] = {name: group[name] for name in ("activations", *scale, *COLUMNS)}

    def __enter__(self) -> "ActivationWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._thread:
            if kind is None:
                self._finish()

    def append(self, rows: Rows) -> None:
        """Add rows; full shards are written.

        Raises:
            NonFiniteError: a value does not fit the store's number format.
        """
        stored = narrow(rows.activations, self._format, str(self._path))
        columns = {**rows._asdict(), "activations": stored.values.cpu().numpy()}
        if stored.scale is not None:
            columns["scale"] = stored.scale.cpu().numpy()
        self._pending.append(columns)
        if sum(len(part["token_id"]) for part in self._pending) >= self._shard_rows:
            self._begin_writing(whole_shards_only=True)

    @property
    def _shard_rows(self) -> int:
        return self._piece_rows * PIECES_PER_SHARD

    def _begin_writing(self, whole_shards_only: bool) -> None:
        """Hand rows to the thread once it has written those before: at most these are in memory besides."""
        columns = {name: np.concatenate([part[name] for part in self._pending]) for name in self._arrays}
        available = len(columns["token_id"])
        count = available - available % self._shard_rows if whole_shards_only else available
        self._pending = [{name: column[count:] for name, column in columns.items()}]
        self._end_writing()
        self._writing = self._thread.submit(self._write, {name: column[:count] for name, column in columns.items()})

    def _end_writing(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _write(self, columns: dict[str, np.ndarray]) -> None:
        stop = self.rows_written + len(columns["token_id"])
        for name, array in self._arrays.items():
            array[self.rows_written : stop] = columns[name]
        self.rows_written = stop
        self._note_progress()

    def _finish(self) -> None:
        if self._pending:
            self._begin_writing(whole_shards_only=False)
        self._end_writing()
        if self.rows_written != self._rows:
            raise ValueError(f"{self._path}: {self.rows_written} of {self._rows} rows were appended")
        (self._partial / _PROGRESS).unlink()
        group = zarr.open_group(self._partial, mode="r+", use_consolidated=False)
        group.attrs["text_digest"] = self._text_digest()
        for name, values in self._labels.items():
            _write_labels(group, name, values)
        seal_store(self._partial)
        put_in_place(self._partial, self._path)

    def _text_digest(self) -> str:
        """Return a digest of the columns, by which stores of the same text are known without reading it."""
        digest = hashlib.sha256()
        for name in COLUMNS:
            for start in range(0, self._rows, self._shard_rows):
                digest.update(self._arrays[name][start : start + self._shard_rows].tobytes())
        return digest.hexdigest()

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

    def _create(self, attributes: dict[str, Any]) -> None:
        self._partial.mkdir(parents=True)
        quantised = self._format == "int8"
        coordinates = [*COLUMNS, "scale"] if quantised else [*COLUMNS]
        coordinates_of_xarray = {"coordinates": " ".join(coordinates)}  # what xarray reads as coordinates
        group = zarr.create_group(self._partial, zarr_format=3, attributes={**attributes, **coordinates_of_xarray})
        self._create_array(group, "activations", self._format, _SCALED_ACTIVATIONS if quantised else _ACTIVATIONS)
        if quantised:
            self._create_array(group, "scale", "float32", _SCALE)
        for name, long_name in COLUMNS.items():
            self._create_array(group, name, "int32", long_name)
        self._note_progress()

    def _create_array(self, group: zarr.Group, name: str, dtype: str, long_name: str) -> None:
        """Make one array; activations are not compressed, which saves little and would slow reading down."""
        widths = (self._width,) if name == "activations" else ()
        compression = [BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")] if name in COLUMNS else []
        group.create_array(
            name,
            shape=(self._rows, *widths),
            dtype=dtype,
            chunks=(self._piece_rows, *widths),
            shards=(self._shard_rows, *widths),
            compressors=[*compression, Crc32cCodec()],
            fill_value=0,
            config={"write_empty_chunks": True},  # so that a missing chunk is always damage
            dimension_names=("token", "d_model")[: 1 + len(widths)],
            attributes={"long_name": long_name, "units": "1"},
        )


def _write_labels(group: zarr.Group, name: str, values: np.ndarray) -> None:
    group.create_array(
        name,
        data=strings(values),
        compressors=[ZstdCodec(level=3, checksum=True)],
        dimension_names=("text_sequence",),
        attributes={"long_name": f"{name} of a sequence of the corpus", "units": "1"},
        overwrite=True,
    )
