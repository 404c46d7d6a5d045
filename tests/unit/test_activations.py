"""Harvesting, storing and loading activations."""

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import VOCABULARY, WIDTH, tiny_model

from chronocoder.activations import writer as writer_module
from chronocoder.activations.harvest import harvest, read_activations, sample_activations
from chronocoder.activations.loader import ActivationStores, shuffled_batches
from chronocoder.config import HarvestSettings
from chronocoder.errors import NonFiniteError, StoreError
from chronocoder.stores import load_store
from chronocoder.suites.sites import Site, resolve_site

ATTRIBUTES = {"suite": "tiny", "revision": "step0", "site": "residual.1", "created": "now"}


@pytest.fixture
def corpus() -> xr.Dataset:
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (40, 11)).astype(np.int32)
    return xr.Dataset({"token_ids": (("sequence", "position"), ids)})


@pytest.fixture
def site() -> Site:
    return resolve_site(tiny_model("gpt_neox"), "residual.1")


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "ROWS_PER_SHARD", 64)
    monkeypatch.setattr(writer_module, "ROWS_PER_CHUNK", 16)


def test_store_holds_all_tokens_but_each_sequences_first(
    tmp_path: Path, corpus: xr.Dataset, site: Site, small_shards: None
) -> None:
    harvest(site, corpus, HarvestSettings(batch_size=7), tmp_path / "a.zarr", ATTRIBUTES)
    store = load_store(tmp_path / "a.zarr")
    ids = corpus["token_ids"].values
    expected = site.read(torch.from_numpy(ids.astype(np.int64))).activation[:, 1:].reshape(-1, WIDTH)
    np.testing.assert_allclose(store["activations"], expected, rtol=2e-3, atol=1e-3)
    assert store["activations"].dtype == np.float16 and store["activations"].dims == ("token", "d_model")
    np.testing.assert_array_equal(store["token_id"], ids[:, 1:].ravel())
    np.testing.assert_array_equal(store["sequence"], np.repeat(np.arange(40), 10))
    np.testing.assert_array_equal(store["position"], np.tile(np.arange(1, 11), 40))
    assert store.attrs["site"] == "residual.1"


def test_interrupted_harvest_goes_on_and_equals_an_undisturbed_one(
    tmp_path: Path, corpus: xr.Dataset, site: Site, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = HarvestSettings(batch_size=7)
    harvest(site, corpus, settings, tmp_path / "whole.zarr", ATTRIBUTES)
    read, calls = Site.read, []

    def interrupted(self: Site, ids: torch.Tensor) -> object:
        calls.append(len(ids))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return read(self, ids)

    monkeypatch.setattr(Site, "read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        harvest(site, corpus, settings, tmp_path / "a.zarr", ATTRIBUTES)
    assert not (tmp_path / "a.zarr").exists()
    harvest(site, corpus, settings, tmp_path / "a.zarr", {**ATTRIBUTES, "created": "later"})
    assert sum(calls[4:]) < 40, "the second run read everything again"
    for name, variable in load_store(tmp_path / "whole.zarr").variables.items():
        np.testing.assert_array_equal(load_store(tmp_path / "a.zarr")[name], variable)


def test_partial_store_of_other_settings_is_not_gone_on_with(
    tmp_path: Path, corpus: xr.Dataset, site: Site, small_shards: None
) -> None:
    half = corpus.isel(sequence=slice(0, 20))
    harvest(site, half, HarvestSettings(), tmp_path / "a.zarr", ATTRIBUTES)
    partial = tmp_path / ".a.zarr.partial"
    shutil.copytree(tmp_path / "a.zarr", partial)
    (partial / "progress.json").write_text('{"identity": {"site": "other"}, "rows_written": 64}')
    harvest(site, corpus, HarvestSettings(), tmp_path / "a.zarr", ATTRIBUTES)
    assert load_store(tmp_path / "a.zarr").sizes["token"] == 400


def test_value_beyond_float16_stops_the_harvest(tmp_path: Path, corpus: xr.Dataset, site: Site) -> None:
    site.blocks[1].mlp.dense_4h_to_h.bias.data[3] = 1e5
    with pytest.raises(NonFiniteError, match=r"exceeds the largest float16, 6\.55e\+04; set harvest\.dtype to float32"):
        harvest(site, corpus, HarvestSettings(), tmp_path / "a.zarr", ATTRIBUTES)
    harvest(site, corpus, HarvestSettings(dtype="float32"), tmp_path / "a.zarr", ATTRIBUTES)


def test_non_finite_activation_names_the_sequence(corpus: xr.Dataset, site: Site) -> None:
    site.model.get_input_embeddings().weight.data[corpus["token_ids"].values[12, 4]] = torch.nan
    first = int(np.argwhere(corpus["token_ids"].values == corpus["token_ids"].values[12, 4])[0, 0])
    with pytest.raises(NonFiniteError, match=f"site residual.1: non-finite activation in sequence {first};"):
        list(read_activations(site, corpus["token_ids"].values, 8))


def test_samples_are_the_first_tokens(corpus: xr.Dataset) -> None:
    models = [("a", tiny_model("gpt_neox", 0)), ("b", tiny_model("gpt_neox", 1))]
    sampled = sample_activations(models, ["residual.0", "mlp_out.1"], corpus["token_ids"].values, 35)
    assert sampled["residual.0"]["a"].shape == sampled["mlp_out.1"]["b"].shape == (40, WIDTH)


def test_batches_are_the_same_for_every_number_of_processes(activation_store: Callable[..., Path]) -> None:
    stores = ActivationStores([activation_store("step0", rows=5000), activation_store("step1", rows=5000)])
    whole = list(islice(shuffled_batches(stores, 96, 3, buffer_chunks=2), 120))
    parts = [
        list(islice(shuffled_batches(stores, 96, 3, buffer_chunks=2, rank=rank, processes=4), 120)) for rank in range(4)
    ]
    for number, batch in enumerate(whole):
        for rank in range(4):
            torch.testing.assert_close(parts[rank][number], batch[rank::4])


def test_an_epoch_holds_every_row_once_and_seeds_differ(activation_store: Callable[..., Path]) -> None:
    stores = ActivationStores([activation_store("step0", rows=4096)])
    epoch = torch.cat(list(islice(shuffled_batches(stores, 128, 0, buffer_chunks=3), 32)))[:, 0, 0]
    expected = torch.from_numpy(stores.read(0, 4096))[:, 0, 0]
    torch.testing.assert_close(epoch.sort().values, expected.sort().values)
    assert not torch.equal(epoch, expected)
    other = torch.cat(list(islice(shuffled_batches(stores, 128, 1, buffer_chunks=3), 32)))[:, 0, 0]
    assert not torch.equal(epoch, other)


def test_checkpoints_stay_aligned(activation_store: Callable[..., Path]) -> None:
    paths = [activation_store("step0"), activation_store("step1")]
    stores = ActivationStores(paths)
    rows = [load_store(path)["activations"].values for path in paths]
    place = {tuple(row): number for number, row in enumerate(rows[0])}
    batch = next(shuffled_batches(stores, 100, 0))
    for pair in batch.numpy():
        np.testing.assert_array_equal(rows[1][place[tuple(pair[0])]], pair[1])


def test_stores_of_other_tokens_or_sites_are_refused(activation_store: Callable[..., Path]) -> None:
    first = activation_store("step0")
    with pytest.raises(StoreError, match=r"step1/train\.zarr: its token_id differs from that of .*step0"):
        ActivationStores([first, activation_store("step1", shift=1)])
    with pytest.raises(StoreError, match=r"site residual\.2 differs from residual\.1"):
        ActivationStores([first, activation_store("step1", site="residual.2")])


def test_too_few_tokens_for_a_batch(activation_store: Callable[..., Path]) -> None:
    stores = ActivationStores([activation_store("step0", rows=50)])
    with pytest.raises(StoreError, match="holds 50 tokens, less than batch_tokens 64; raise the corpus' train_tokens"):
        next(shuffled_batches(stores, 64, 0))


@pytest.mark.parametrize("column", ["activations", "token_id"])
def test_damaged_chunk_is_named_when_it_is_read(activation_store: Callable[..., Path], column: str) -> None:
    paths = [activation_store("step0"), activation_store("step1")]
    shard = next(file for file in (paths[1] / column / "c").rglob("*") if file.is_file())
    content = bytearray(shard.read_bytes())
    content[100] ^= 0xFF
    shard.write_bytes(bytes(content))
    with pytest.raises(StoreError, match=r"step1/train\.zarr: damaged"):
        ActivationStores(paths).read(0, 1000)
