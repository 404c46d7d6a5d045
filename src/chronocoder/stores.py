"""Reading and writing Zarr stores: whole or not at all, self-describing, verified when opened."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from chronocoder.errors import StoreError
from chronocoder.renaming import put_in_place
from chronocoder.settings import Settings

PACKAGES = ("chronocoder", "torch", "transformers", "zarr", "xarray")
SNAKEMAKE_MARK = ".snakemake_timestamp"  # Snakemake leaves it in directories; it is no part of a store


def provenance(settings: Settings, **facts: str | int | list[str] | list[int]) -> dict[str, Any]:
    """Return the attributes that say where a store comes from.

    Args:
        settings: the settings of the step that writes it; stored as JSON, with their digest.
        facts: suite, revision, commit, site, task, seed: whatever applies.
    """
    document = settings.model_dump_json()
    return {
        **facts,
        "settings": document,
        "config_digest": hashlib.sha256(document.encode()).hexdigest()[:16],
        "package_versions": _package_versions(),
        "created": _now(),
    }


def common_provenance(stores: Sequence[xr.Dataset], *facts: str) -> dict[str, Any]:
    """Return the provenance of a store that joins others: their settings and those facts, which have to agree.

    Raises:
        StoreError: they do not agree.
    """
    keys = ("settings", "config_digest", *facts)
    for key in keys:
        found = {json.dumps(store.attrs[key]) for store in stores}
        if len(found) > 1:
            raise StoreError(f"stores to be joined differ in '{key}': {', '.join(sorted(found))}; make them anew")
    own = {"package_versions": _package_versions(), "created": _now()}
    return {**{key: stores[0].attrs[key] for key in keys}, **own}


@contextmanager
def whole_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that takes its place when the block ends without an error."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        put_in_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_store(dataset: xr.Dataset, path: Path, attributes: Mapping[str, Any]) -> None:
    """Write a dataset as a Zarr v3 store with checksummed chunks; it appears at `path` when whole.

    Raises:
        ValueError: a data variable lacks `long_name` or `units`.
    """
    write_blocks(iter([dataset]), path, attributes)


def write_blocks(blocks: Iterator[xr.Dataset], path: Path, attributes: Mapping[str, Any], dim: str = "") -> None:
    """Write a dataset that comes in blocks along a dimension, as `write_store` would write it whole.

    Only one block is in memory at once.

    Args:
        blocks: all but the last of one length, which is that of the chunks.
        path: the store.
        attributes: its provenance.
        dim: the dimension.

    Raises:
        ValueError: a data variable lacks `long_name` or `units`.
    """
    with whole_directory(path) as partial:
        _write_first(next(blocks), partial, attributes, dim)
        for block in blocks:
            constant = [name for name, variable in block.variables.items() if dim not in variable.dims]
            portable = _with_portable_strings(block).drop_vars(constant).assign_attrs(attributes)
            portable.to_zarr(partial, append_dim=dim, zarr_format=3, consolidated=False)
        seal_store(partial)


def seal_store(path: Path) -> None:
    """Mark a store as complete: record its number of files, and consolidate its metadata."""
    group = zarr.open_group(path, mode="r+", zarr_format=3, use_consolidated=False)
    group.attrs["files"] = _count_files(path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
        zarr.consolidate_metadata(path)


def open_store(path: Path) -> xr.Dataset:
    """Open a store lazily, after checking that none of its files is missing.

    Raises:
        StoreError: it does not exist, is no store, or is incomplete.
    """
    verify_store(path)
    with damage_named(path):
        dataset: xr.Dataset = xr.open_zarr(path, consolidated=True)
    return dataset


def load_store(path: Path, without: Sequence[str] = ()) -> xr.Dataset:
    """Read a store into memory, whole but for the variables named; every chunk's checksum is checked.

    Raises:
        StoreError: as `open_store`, or a chunk is damaged.
    """
    with open_store(path) as dataset, damage_named(path):
        loaded: xr.Dataset = dataset.drop_vars(without, errors="ignore").load()
    return loaded


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn the errors that reading a damaged chunk raises into a `StoreError` that names the store."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: damaged ({error}); delete it and run its target again") from error


def verify_store(path: Path) -> None:
    """Check that a store is complete: Zarr itself reads a missing chunk as fill values, silently."""
    metadata = path / "zarr.json"
    if not metadata.is_file():
        what = "is no Zarr store (no zarr.json)" if path.exists() else "does not exist"
        raise StoreError(f"{path}: {what}; run its target again")
    try:
        expected = json.loads(metadata.read_text(encoding="utf-8"))["attributes"]["files"]
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{path}: zarr.json is damaged or unsealed; delete it and run its target again") from None
    found = _count_files(path)
    if found != expected:
        raise StoreError(f"{path}: holds {found} files of {expected}; delete it and run its target again")


def labelled(dims: tuple[str, ...], values: Any, long_name: str, units: str = "1") -> xr.Variable:
    """Return a variable with its name in words and its units (`1`: dimensionless)."""
    return xr.Variable(dims, values, {"long_name": long_name, "units": units})


def strings(values: Any) -> np.ndarray[Any, Any]:
    """Return an array of variable-length strings, the string type that Zarr v3 specifies."""
    return np.asarray(values, dtype=np.dtypes.StringDType(), order="C")


def names(dataset: xr.Dataset | xr.DataArray, coordinate: str) -> list[str]:
    """Return a coordinate of names as plain strings."""
    return [str(name) for name in dataset[coordinate].values]


def _write_first(dataset: xr.Dataset, path: Path, attributes: Mapping[str, Any], dim: str) -> None:
    for name, variable in dataset.data_vars.items():
        if not {"long_name", "units"} <= set(variable.attrs):
            raise ValueError(f"variable '{name}' needs the attributes long_name and units")
    portable = _with_portable_strings(dataset).assign_attrs(attributes)
    compressed = {"compressors": (ZstdCodec(level=3, checksum=True),)}
    encoding = {
        name: {**compressed, "chunks": array.shape} if dim in array.dims else compressed
        for name, array in portable.variables.items()
    }
    portable.to_zarr(path, mode="w", zarr_format=3, consolidated=False, encoding=encoding)


def _with_portable_strings(dataset: xr.Dataset) -> xr.Dataset:
    """Return a dataset with strings of variable length, in C order: Zarr 3.1.6 mixes up those in Fortran order."""
    fixed = [name for name, variable in dataset.variables.items() if variable.dtype.kind in "UOT"]
    replaced = {name: (dataset[name].dims, strings(dataset[name].values), dataset[name].attrs) for name in fixed}
    coordinates = {name: value for name, value in replaced.items() if name in dataset.coords}
    variables = {name: value for name, value in replaced.items() if name not in dataset.coords}
    return dataset.assign(variables).assign_coords(coordinates)


def _package_versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _count_files(path: Path) -> int:
    return sum(len(names) - (SNAKEMAKE_MARK in names) for _, _, names in os.walk(path))
