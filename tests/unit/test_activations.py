"""Harvesting, storing and loading activations."""

import gc
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from tiny import VOCABULARY, WIDTH, tiny_model

from chronocoder.activations import loader
from chronocoder.activations import pieces as pieces_module
from chronocoder.activations import writer as writer_module
from chronocoder.activations.checksums import checksum
from chronocoder.activations.formats import Stored, empty_stored, narrow, normalised, widen
from chronocoder.activations.harvest import harvest, read_activations, sample_activations
from chronocoder.activations.loader import ActivationStores, ShuffledBatches, sampled_blocks, shuffled_batches
from chronocoder.activations.order import RowOrder
from chronocoder.activations.pieces import sequences_per_piece
from chronocoder.activations.prefetch import Prefetched
from chronocoder.activations.shards import LibraryChunks, PlainShards, open_chunks
from chronocoder.activations.sources import ActivationSource
from chronocoder.activations.streaming import StreamedActivations
from chronocoder.activations.writer import ActivationWriter, Rows
from chronocoder.config import HarvestSettings
from chronocoder.errors import NonFiniteError, StoreError
from chronocoder.stores import load_store, seal_store
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
    """Pieces of two sequences, shards of four pieces."""
    monkeypatch.setattr(pieces_module, "PIECE_TOKENS", 16)
    monkeypatch.setattr(writer_module, "PIECES_PER_SHARD", 4)


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


def test_labels_of_the_text_are_kept(tmp_path: Path, corpus: xr.Dataset, site: Site) -> None:
    labels = {"language": [f"language {row % 3}" for row in range(40)], "source": ["web", ""] * 20}
    labelled = corpus.assign({name: ("sequence", values) for name, values in labels.items()})
    harvest(site, labelled, HarvestSettings(), tmp_path / "a.zarr", ATTRIBUTES)
    store = load_store(tmp_path / "a.zarr")
    for name, values in labels.items():
        assert store[name].isel(text_sequence=store["sequence"]).values.tolist() == np.repeat(values, 10).tolist()
    stores = ActivationStores([tmp_path / "a.zarr"])
    assert stores.rows == 400 and stores.text_columns().sizes["token"] == 400


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


class RandomSource(ActivationSource):
    """Rows that hold their own number, so that a batch says which rows it is of; notes the pieces that are read."""

    def __init__(self, rows: int, piece_rows: int = 10, failing_piece: int | None = None) -> None:
        self.name, self.rows, self.piece_rows, self.width, self.checkpoints = "numbers", rows, piece_rows, 1, 2
        self.stored_format = "float32"
        self.pieces_read: list[int] = []
        self._failing = failing_piece

    def read_piece(self, number: int, into: Stored) -> None:
        if number == self._failing:
            raise StoreError(f"piece {number} is damaged")
        self.pieces_read.append(number)
        first = number * self.piece_rows
        into.values[:] = torch.arange(first, first + len(into.values))[:, None, None]


def taken(batches: ShuffledBatches, count: int) -> list[list[int]]:
    """Return the rows that some batches hold, after checking that the checkpoints agree."""
    found = list(map(widen, islice(batches, count)))
    batches.close()
    assert all(torch.equal(batch[:, 0], batch[:, 1]) for batch in found)
    return [batch[:, 0, 0].int().tolist() for batch in found]


@pytest.mark.parametrize("rows, processes", [(60, 1), (203, 1), (203, 5)])
def test_threads_read_and_cut_the_same_batches(rows: int, processes: int) -> None:
    """With five processes, some have no row of what a batch takes of a group."""
    source, order = RandomSource(rows), RowOrder(rows, 10, 3, 60, 0, processes)
    source.in_threads = True
    expected = taken(shuffled_batches(RandomSource(rows), 29, 3, buffer_tokens=60, processes=processes), 28)
    with ThreadPoolExecutor(3) as pool:
        groups = loader._filled_groups(source, order, 0, threading.Event(), pool)
        batches = islice(loader._batches(source, groups, order, 29, 0, pool, pinned=False), 28)
        found = [batch.values[:, 0, 0].int().tolist() for batch, _ in batches]
        source._failing = 2
        with pytest.raises(StoreError, match="piece 2 is damaged"):
            source.read_pieces(range(6), empty_stored(60, 2, 1, "float32"), pool=pool)
    assert found == expected


def test_checksums_are_those_of_the_package() -> None:
    for size in (0, 1, 100_000):
        block = np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8)
        assert checksum(block) == google_crc32c.value(block)


def slow_stream(order: RowOrder, epochs: int) -> list[int]:
    """Return the rows of the stream, by the definition."""
    stream: list[int] = []
    for epoch in range(epochs):
        pieces = np.random.default_rng([order.seed, epoch]).permutation(order.pieces)
        groups = -(-order.pieces // max(1, order.buffer_rows // order.piece_rows))
        for number, members in enumerate(np.array_split(pieces, groups)):
            rows = [
                row
                for piece in members
                for row in range(order.rows)[piece * order.piece_rows : (piece + 1) * order.piece_rows]
            ]
            stream += np.random.default_rng([order.seed, epoch, number + 1]).permutation(rows).tolist()
    return stream


@pytest.mark.parametrize("rows, buffer_tokens", [(203, 45), (203, 1000), (200, 1), (30, 30)])
def test_batches_are_the_stream_cut_to_size_over_groups_and_epochs(rows: int, buffer_tokens: int) -> None:
    batches = shuffled_batches(RandomSource(rows), 29, 3, buffer_tokens=buffer_tokens)
    stream = slow_stream(RowOrder(rows, 10, 3, buffer_tokens), 4)
    count = len(stream) // 29
    assert taken(batches, count) == [stream[29 * number : 29 * (number + 1)] for number in range(count)]


@pytest.mark.parametrize("processes", [2, 3, 5, 40])
def test_processes_share_the_batches_of_one_and_read_their_own_pieces_only(processes: int) -> None:
    whole = taken(shuffled_batches(RandomSource(203), 29, 3, buffer_tokens=60), 28)
    sources = [RandomSource(203) for _ in range(processes)]
    parts = [
        taken(shuffled_batches(source, 29, 3, buffer_tokens=60, rank=rank, processes=processes), 28)
        for rank, source in enumerate(sources)
    ]
    for number, batch in enumerate(whole):
        own = [part[number] for part in parts]
        assert sorted(row for rows in own for row in rows) == sorted(batch)
        assert all(rows == [row for row in batch if row in rows] for rows in own), "a part is out of order"
    order = RowOrder(203, 10, 3, 60)
    first_epoch = Counter()
    for rank in range(processes):
        groups = RowOrder(203, 10, 3, 60, rank, processes).groups(0)
        for group in groups:
            first_epoch.update(group.pieces.tolist())
            if group.stop == 203:
                break
    assert first_epoch == Counter(range(order.pieces)), "a piece is read by no process or by several"


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_parts_of_a_batch_do_not_depend_on_the_number_of_processes(processes: int) -> None:
    """A part is what one of as many processes as parts would have; each process has its parts one after the other."""
    whole = [
        taken(shuffled_batches(RandomSource(203), 29, 3, buffer_tokens=60, rank=part, processes=4), 28)
        for part in range(4)
    ]
    sizes = [[len(part[number]) for part in whole] for number in range(28)]
    shares = np.array_split(range(4), processes)
    for rank, own in enumerate(shares):
        options = {"buffer_tokens": 60, "rank": rank, "processes": processes, "parts": 4}
        found = taken(shuffled_batches(RandomSource(203), 29, 3, **options), 28)
        assert found == [[row for part in own for row in whole[part][number]] for number in range(28)]
        batches = shuffled_batches(RandomSource(203), 29, 3, first_batch=2, **options)
        for number in range(2, 12):
            next(batches)
            assert batches.part_sizes == sizes[number]
        batches.close()


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_pieces_of_different_parts_are_not_read_together(processes: int) -> None:
    """What models compute from may depend on what else they are given."""
    together = set()
    for rank in range(processes):
        source = RandomSource(203)
        source.pieces_at_once = 3
        monitored = source.read_together
        source.read_together = lambda numbers, into, read=monitored: (together.add(tuple(numbers)), read(numbers, into))
        order = RowOrder(203, 10, 3, 1000, rank, processes, 4)
        next(loader._filled_groups(source, order, 0, threading.Event(), None))
    pieces = RowOrder(203, 10, 3, 1000).epoch_pieces(0).tolist()
    parts = [pieces[part::4] for part in range(4)]
    assert together == {tuple(part[first : first + 3]) for part in parts for first in range(0, len(part), 3)}


def test_an_epoch_holds_every_row_once_and_seeds_and_epochs_differ() -> None:
    batches = taken(shuffled_batches(RandomSource(200), 20, 0, buffer_tokens=70), 20)
    first, second = ([row for batch in part for row in batch] for part in (batches[:10], batches[10:]))
    assert sorted(first) == sorted(second) == list(range(200))
    assert first != second and first != list(range(200))
    assert taken(shuffled_batches(RandomSource(200), 20, 1, buffer_tokens=70), 10) != batches[:10]


@pytest.mark.parametrize("first", [0, 1, 6, 7, 100])
def test_starting_at_a_batch_equals_skipping_those_before_it_and_reads_one_group(first: int) -> None:
    whole = taken(shuffled_batches(RandomSource(203), 29, 3, buffer_tokens=50), first + 3)
    source = RandomSource(203)
    batches = shuffled_batches(source, 29, 3, first_batch=first, buffer_tokens=50)
    assert widen(next(batches))[:, 0, 0].int().tolist() == whole[first]
    assert taken(batches, 2) == whole[first + 1 :]
    assert len(source.pieces_read) <= 7 * 5, "more than the groups around the batches were read"


def test_memory_holds_two_groups_at_most() -> None:
    source = RandomSource(400)
    batches = shuffled_batches(source, 5, 0, buffer_tokens=100)
    for number in range(40):
        next(batches)
        assert len(source.pieces_read) <= 10 * (2 + (number + 5) * 5 // 100)
    batches.close()


def test_error_in_the_reading_thread_reaches_the_consumer() -> None:
    batches = shuffled_batches(RandomSource(200, failing_piece=7), 20, 0, buffer_tokens=50)
    with pytest.raises(StoreError, match="piece 7 is damaged"):
        for _ in range(10):
            next(batches)
    assert not reading_threads()


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_threads_end_with_close_and_with_the_last_reference() -> None:
    batches = shuffled_batches(RandomSource(200), 20, 0)
    next(batches)
    assert len(reading_threads()) == 2
    batches.close()
    assert not reading_threads()
    with pytest.raises(StopIteration):
        next(batches)
    forgotten = shuffled_batches(RandomSource(200), 20, 0)
    next(forgotten)
    del forgotten
    gc.collect()
    assert not reading_threads()


def test_closing_does_not_wait_for_a_whole_group() -> None:
    source = RandomSource(100_000)
    going_on = threading.Event()
    read = source.read_piece

    def blocking(number: int, into: Stored) -> None:
        going_on.wait()
        read(number, into)

    source.read_piece = blocking
    batches = shuffled_batches(source, 20, 0)
    threading.Timer(0.05, going_on.set).start()
    batches.close()
    assert len(source.pieces_read) < 100


def test_items_are_made_ahead_and_no_further() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(6):
            made.append(number)
            yield number

    items = Prefetched(numbers(), 2, threading.Event())
    assert next(items) == 0
    assert list(items) == [1, 2, 3, 4, 5] and made == list(range(6))


def test_waiting_is_measured() -> None:
    source = RandomSource(200)
    batches = shuffled_batches(source, 20, 0)
    assert batches.waited_s == 0
    next(batches)
    assert 0 < batches.waited_s < 60
    batches.close()


@pytest.mark.parametrize("processes", [1, 3])
@pytest.mark.parametrize("tokens, expected", [(1, 10), (41, 50), (200, 203), (10_000, 203)])
def test_samples_are_the_same_for_every_number_of_processes(processes: int, tokens: int, expected: int) -> None:
    parts = [
        block[:, 0, 0].int().tolist()
        for rank in range(processes)
        for block in sampled_blocks(RandomSource(203), tokens, 3, part=rank, parts=processes)
    ]
    found = sorted(row for part in parts for row in part)
    pieces = np.random.default_rng([3, 0]).permutation(21)
    wanted: list[int] = []
    for piece in pieces:
        if len(wanted) < tokens:
            wanted += range(203)[piece * 10 : piece * 10 + 10]
    assert found == sorted(wanted) and abs(len(found) - expected) <= 7


@pytest.mark.parametrize("stored_format", ["float32", "float16"])
def test_batches_and_blocks_keep_their_values(activation_store: Callable[..., Path], stored_format: str) -> None:
    stores = ActivationStores([activation_store("step0", stored_format=stored_format)])
    for make in (
        lambda: map(widen, islice(shuffled_batches(stores, 100, 0, buffer_tokens=300), 40)),
        lambda: sampled_blocks(stores, 1000, 0),
        lambda: stores.blocks(200),
    ):
        kept = list(make())
        for batch, again in zip(kept, make(), strict=True):
            assert torch.equal(batch, again)


@pytest.mark.parametrize("stored_format", ["float16", "float32", "int8"])
def test_normalising_equals_widening_and_multiplying(stored_format: str) -> None:
    values = torch.randn(30, WIDTH, generator=torch.Generator().manual_seed(0))
    parts = [narrow(values * size, stored_format, "here") for size in (1.0, 50.0)]
    scales = [part.scale for part in parts if part.scale is not None]
    stored = Stored(torch.stack([part.values for part in parts], dim=1), torch.stack(scales, dim=1) if scales else None)
    scale = torch.tensor([3.0, 0.02])
    found = normalised(stored, scale)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, widen(stored) * scale[:, None])


def test_checkpoints_stay_aligned(activation_store: Callable[..., Path]) -> None:
    paths = [activation_store("step0"), activation_store("step1")]
    stores = ActivationStores(paths)
    rows = [load_store(path)["activations"].values for path in paths]
    place = {tuple(row): number for number, row in enumerate(rows[0])}
    for batch in islice(shuffled_batches(stores, 100, 0, buffer_tokens=500), 12):
        for pair in widen(batch).numpy():
            np.testing.assert_array_equal(rows[1][place[tuple(pair[0])]], pair[1])


@pytest.mark.parametrize("stored_format", ["float16", "float32", "int8"])
def test_stores_read_as_the_library_reads_them(activation_store: Callable[..., Path], stored_format: str) -> None:
    paths = [activation_store(name, rows=1234, stored_format=stored_format) for name in ("step0", "step1")]
    stores = ActivationStores(paths)
    expected = np.stack([true_values(load_store(path)) for path in paths], axis=1)
    np.testing.assert_array_equal(torch.cat(list(stores.blocks(300))), expected)
    for start, stop in ((0, 1234), (95, 105), (1200, 1234), (700, 700), (99, 100)):
        np.testing.assert_array_equal(stores.read(start, stop), expected[start:stop])
    for path in paths:
        plain, library = open_chunks(path / "activations"), LibraryChunks(path / "activations")
        assert isinstance(plain, PlainShards) and plain.chunk_rows == library.chunk_rows == 100
        both = np.zeros((2, 34, WIDTH), stored_format)
        plain.read(12, both[0])
        library.read(12, both[1])
        np.testing.assert_array_equal(*both)


def test_stores_of_other_codecs_are_read_through_the_library(activation_store: Callable[..., Path]) -> None:
    paths = [activation_store("step0", rows=250), activation_store("step1", rows=250)]
    expected = load_store(paths[1])["activations"].values
    group = zarr.open_group(paths[1], mode="r+", use_consolidated=False)
    group.create_array(
        "activations",
        data=expected,
        chunks=(100, WIDTH),
        shards=(300, WIDTH),
        dimension_names=("token", "d_model"),
        overwrite=True,
    )
    seal_store(paths[1])
    assert isinstance(open_chunks(paths[1] / "activations"), LibraryChunks)
    with pytest.raises(ValueError, match="chunks are not plain; read them with LibraryChunks"):
        PlainShards(paths[1] / "activations")
    np.testing.assert_array_equal(ActivationStores(paths).read(0, 250)[:, 1], expected)


def true_values(store: xr.Dataset) -> np.ndarray:
    values = store["activations"].values.astype(np.float32)
    return values * store["scale"].values[:, None] if "scale" in store.coords else values


@pytest.mark.parametrize("stored_format", ["float16", "float32", "int8"])
def test_streaming_gives_the_batches_of_the_stores(
    tmp_path: Path, corpus: xr.Dataset, stored_format: str, small_shards: None
) -> None:
    sites = [resolve_site(tiny_model("gpt_neox", seed), "residual.1") for seed in (0, 1)]
    for number, site in enumerate(sites):
        settings = HarvestSettings(dtype=stored_format, batch_size=7)
        harvest(site, corpus, settings, tmp_path / f"{number}.zarr", ATTRIBUTES)
    stores = ActivationStores([tmp_path / "0.zarr", tmp_path / "1.zarr"])
    streamed = StreamedActivations(sites, corpus["token_ids"].values, stored_format)
    assert (streamed.rows, streamed.width, streamed.checkpoints) == (stores.rows, stores.width, stores.checkpoints)
    assert (streamed.piece_rows, streamed.stored_format) == (stores.piece_rows, stores.stored_format)
    cached, computed = (
        map(widen, islice(shuffled_batches(source, 64, 0, buffer_tokens=100), 15)) for source in (stores, streamed)
    )
    for batch, other in zip(cached, computed, strict=True):
        # products of other batch sizes differ in the last bit, which can carry a value over one rounding step
        step = {"float32": 1e-5, "float16": 2**-10, "int8": 1.01 / 127}[stored_format]
        size = batch.abs().amax(dim=-1, keepdim=True) if stored_format == "int8" else batch.abs()
        assert ((batch - other).abs() <= step * size + 1e-5).all()
    for block, other in zip(sampled_blocks(stores, 50, 0), sampled_blocks(streamed, 50, 0), strict=True):
        torch.testing.assert_close(block, other, rtol=1e-2, atol=5e-2)


def test_streaming_a_piece_runs_each_model_once_on_its_sequences_only(
    corpus: xr.Dataset, site: Site, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, seen = Site.read, []
    monkeypatch.setattr(Site, "read", lambda self, ids: seen.append(ids.clone()) or read(self, ids))
    streamed = StreamedActivations([site], corpus["token_ids"].values, "float32")
    piece = streamed.read_pieces([3], empty_stored(20, 1, WIDTH, "float32"))
    np.testing.assert_array_equal(torch.cat(seen), corpus["token_ids"].values[6:8])
    expected = read(site, seen[0]).activation[:, 1:].flatten(0, 1)
    torch.testing.assert_close(piece.values[:, 0], expected)


def test_streamed_errors_name_model_site_and_remedy(corpus: xr.Dataset, site: Site) -> None:
    streamed = StreamedActivations([site], corpus["token_ids"].values, "float16")
    site.blocks[1].mlp.dense_4h_to_h.bias.data[3] = 1e5
    with pytest.raises(NonFiniteError, match=r"site residual\.1: activation 1e\+05 exceeds the largest float16"):
        next(shuffled_batches(streamed, 64, 0))
    site.blocks[1].mlp.dense_4h_to_h.bias.data[3] = torch.inf
    with pytest.raises(NonFiniteError, match=r"site residual\.1: non-finite activation in sequence"):
        next(shuffled_batches(streamed, 64, 0))


def test_int8_rounds_to_nearest_and_keeps_zeros() -> None:
    values = torch.randn(50, 30, generator=torch.Generator().manual_seed(0)) * torch.logspace(-30, 30, 50)[:, None]
    values[7] = 0
    values[8] = 1e-42
    stored = narrow(values, "int8", "here")
    assert stored.values.dtype == torch.int8 and stored.scale is not None
    back = widen(stored)
    assert ((back - values).abs() <= stored.scale[:, None] * 0.5001).all()
    assert (back[7] == 0).all() and torch.isfinite(stored.scale).all() and (stored.scale > 0).all()


def test_int8_store_says_how_its_values_are_scaled(tmp_path: Path, corpus: xr.Dataset, site: Site) -> None:
    for stored_format in ("int8", "float32"):
        harvest(site, corpus, HarvestSettings(dtype=stored_format), tmp_path / f"{stored_format}.zarr", ATTRIBUTES)
    store, exact = load_store(tmp_path / "int8.zarr"), load_store(tmp_path / "float32.zarr")["activations"].values
    assert store["activations"].dtype == np.int8 and store["scale"].dims == ("token",)
    assert "multiplied" in store["scale"].attrs["long_name"] and store["scale"].attrs["units"] == "1"
    bound = np.abs(exact).max(axis=1, keepdims=True) / 254 * 1.001
    assert (np.abs(true_values(store) - exact) <= bound).all()


@pytest.mark.parametrize("length, sequences", [(2, 1024), (11, 103), (1024, 2), (1025, 1), (4096, 1)])
def test_pieces_hold_whole_sequences(length: int, sequences: int) -> None:
    assert sequences_per_piece(length) == sequences


def test_a_harvest_writes_one_piece_a_chunk(tmp_path: Path, corpus: xr.Dataset, site: Site, small_shards: None) -> None:
    harvest(site, corpus, HarvestSettings(), tmp_path / "a.zarr", ATTRIBUTES)
    assert ActivationStores([tmp_path / "a.zarr"]).piece_rows == 20
    assert len(list((tmp_path / "a.zarr/activations/c").iterdir())) == 5


def test_error_while_writing_stops_the_harvest(
    tmp_path: Path, corpus: xr.Dataset, site: Site, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(ActivationWriter, "_note_progress", full)
    with pytest.raises(OSError, match="no space left"):
        harvest(site, corpus, HarvestSettings(), tmp_path / "a.zarr", ATTRIBUTES)
    assert not (tmp_path / "a.zarr").exists()


def test_fewer_rows_than_announced(tmp_path: Path) -> None:
    number = np.arange(30, dtype=np.int32)
    with (
        pytest.raises(ValueError, match=r"a\.zarr: 30 of 40 rows were appended"),
        ActivationWriter(tmp_path / "a.zarr", 40, WIDTH, "float16", 10, ATTRIBUTES) as writer,
    ):
        writer.append(Rows(torch.zeros(30, WIDTH), number, number, number))


def test_stores_of_other_tokens_or_sites_are_refused(activation_store: Callable[..., Path]) -> None:
    first = activation_store("step0")
    with pytest.raises(StoreError, match=r"step1/train\.zarr: its token_id differs from that of .*step0"):
        ActivationStores([first, activation_store("step1", shift=1)])
    with pytest.raises(StoreError, match=r"site residual\.2 differs from residual\.1 of .*; give stores of one site"):
        ActivationStores([first, activation_store("step1", site="residual.2")])
    with pytest.raises(
        StoreError, match=r"number format int8 differs from float32 .*; give stores of one harvest\.dtype"
    ):
        ActivationStores([first, activation_store("step2", stored_format="int8")])
    with pytest.raises(StoreError, match=r"number of rows a chunk 50 differs from 100"):
        ActivationStores([first, activation_store("step3", piece_rows=50)])


def test_equal_digests_spare_reading_the_text(
    activation_store: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [activation_store("step0"), activation_store("step1")]
    assert len({load_store(path).attrs["text_digest"] for path in paths}) == 1
    monkeypatch.setattr(ActivationStores, "text_columns", None)
    ActivationStores(paths)


def test_too_few_tokens_for_a_batch(activation_store: Callable[..., Path]) -> None:
    stores = ActivationStores([activation_store("step0", rows=50)])
    with pytest.raises(StoreError, match="holds 50 tokens, less than batch_tokens 64; raise the corpus' train_tokens"):
        next(shuffled_batches(stores, 64, 0))


def damage(path: Path, place: int) -> None:
    shard = next(file for file in (path / "c").rglob("*") if file.is_file())
    content = bytearray(shard.read_bytes())
    content[place] ^= 0xFF
    shard.write_bytes(bytes(content))


@pytest.mark.parametrize("stored_format, column", [("float32", "activations"), ("int8", "scale")])
@pytest.mark.parametrize("place", [100, -10])
def test_damaged_chunk_is_named_when_it_is_read(
    activation_store: Callable[..., Path], stored_format: str, column: str, place: int
) -> None:
    paths = [activation_store(name, stored_format=stored_format) for name in ("step0", "step1")]
    damage(paths[1] / column, place)
    stores = ActivationStores(paths)
    with pytest.raises(StoreError, match=r"step1/train\.zarr: damaged .*the checksum of .* does not match"):
        stores.read(0, 3000)
    with pytest.raises(StoreError, match=r"step1/train\.zarr: damaged"):
        list(islice(shuffled_batches(stores, 1000, 0), 3))


def test_damaged_text_is_named_when_it_is_read(activation_store: Callable[..., Path]) -> None:
    path = activation_store("step1")
    damage(path / "token_id", 100)
    with pytest.raises(StoreError, match=r"step1/train\.zarr: damaged"):
        ActivationStores([path]).text_columns()


def test_missing_shard_is_damage(activation_store: Callable[..., Path]) -> None:
    stores = ActivationStores([activation_store("step1")])
    shutil.rmtree(stores.paths[0] / "activations/c/0")
    with pytest.raises(StoreError, match=r"step1/train\.zarr: damaged .*c/0/0 is missing"):
        stores.read(0, 10)
