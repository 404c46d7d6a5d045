"""Stores are whole or absent, describe themselves, and damage is noticed."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from chronocoder.config import SimilaritySettings
from chronocoder.errors import StoreError
from chronocoder.stores import labelled, load_store, open_store, provenance, whole_directory, write_blocks, write_store


def small_dataset() -> xr.Dataset:
    return xr.Dataset(
        {"score": labelled(("checkpoint",), np.arange(3.0), "a score", "logit")},
        coords={"checkpoint": np.array(["step0", "step1", "step10"])},
    )


def chunk_of(path: Path, variable: str) -> Path:
    return next(file for file in (path / variable / "c").rglob("*") if file.is_file())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "a.zarr"
    write_store(small_dataset(), path, provenance(SimilaritySettings(), suite="tiny", seed=3))
    return path


def test_round_trip_keeps_values_units_and_provenance(store: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xr.open_zarr(store)
    np.testing.assert_array_equal(dataset["score"].values, [0, 1, 2])
    assert list(dataset["checkpoint"].values) == ["step0", "step1", "step10"]
    assert dataset["score"].attrs == {"long_name": "a score", "units": "logit"}
    assert dataset.attrs["suite"] == "tiny" and dataset.attrs["seed"] == 3
    assert dataset.attrs["settings"] == SimilaritySettings().model_dump_json()
    assert "torch" in dataset.attrs["package_versions"]


def test_strings_keep_their_places_in_any_order_in_memory(tmp_path: Path) -> None:
    words = np.array([["a", "b", "c"], ["d", "e", "f"]])
    texts = words.astype(np.dtypes.StringDType())[np.arange(2)[:, None], np.asfortranarray(np.tile([0, 1, 2], (2, 1)))]
    assert texts.flags.f_contiguous
    variable = xr.Variable(("row", "column"), texts, {"long_name": "texts", "units": "1"})
    write_store(xr.Dataset({"text": variable}), tmp_path / "strings.zarr", {})
    np.testing.assert_array_equal(load_store(tmp_path / "strings.zarr")["text"].values, words.astype(object))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
def test_blocks_make_the_store_that_the_whole_makes(tmp_path: Path, size: int) -> None:
    whole = xr.Dataset(
        {
            "token_ids": labelled(("sequence", "position"), np.arange(28).reshape(7, 4), "token"),
            "language": labelled(("sequence",), np.array([f"language {row}" for row in range(7)]), "language"),
            "weight": labelled(("position",), np.arange(4.0), "constant along the blocks"),
        },
        coords={"sequence": np.arange(7), "position": np.arange(4)},
    )
    write_store(whole, tmp_path / "whole.zarr", {"suite": "tiny"})
    blocks = (whole.isel(sequence=slice(start, start + size)) for start in range(0, 7, size))
    write_blocks(blocks, tmp_path / "blocks.zarr", {"suite": "tiny"}, "sequence")
    found = load_store(tmp_path / "blocks.zarr")
    xr.testing.assert_equal(found, load_store(tmp_path / "whole.zarr"))
    assert {**found.attrs, "files": 0} == {"suite": "tiny", "files": 0}
    assert found["token_ids"].encoding["chunks"] == (min(size, 7), 4)
    assert all(variable.attrs for variable in found.data_vars.values())


def test_what_is_not_wanted_of_a_store_is_left_out(store: Path) -> None:
    found = load_store(store, without=("score", "nothing of this name"))
    assert not found.data_vars and found.attrs == load_store(store).attrs
    assert found.encoding["source"] == str(store)


def test_snakemakes_mark_does_not_disturb(store: Path) -> None:
    (store / ".snakemake_timestamp").touch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_store(store).sizes == {"checkpoint": 3}


def test_missing_chunk_is_an_error_and_not_fill_values(store: Path) -> None:
    chunk_of(store, "score").unlink()
    with pytest.raises(StoreError, match=r"a\.zarr: holds \d+ files of \d+; delete it and run its target again"):
        open_store(store)


def test_flipped_byte_is_an_error(store: Path) -> None:
    chunk = chunk_of(store, "score")
    content = bytearray(chunk.read_bytes())
    content[-3] ^= 0xFF
    chunk.write_bytes(bytes(content))
    with pytest.raises(StoreError, match=r"a\.zarr: damaged .*; delete it and run its target again"):
        load_store(store)


def test_half_written_store_is_an_error(store: Path) -> None:
    metadata = store / "zarr.json"
    metadata.write_text(metadata.read_text()[:50])
    with pytest.raises(StoreError, match="zarr.json is damaged or unsealed"):
        open_store(store)


def test_missing_store_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist; run its target again"):
        open_store(tmp_path / "nothing.zarr")


def test_variable_without_units_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'score' needs the attributes long_name and units"):
        write_store(xr.Dataset({"score": ("x", [1.0])}), tmp_path / "a.zarr", {})


def test_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with pytest.raises(RuntimeError), whole_directory(path) as partial:
        (partial / "first").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with whole_directory(path) as partial:
        (partial / "first").touch()
    with whole_directory(path) as partial:
        (partial / "second").touch()
    assert [file.name for file in path.iterdir()] == ["second"]
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
