"""Measure how fast activations reach training, beside how fast NumPy reads the same bytes from a memory map.

Both are measured in the same run and in turn, with the files in the page cache. The memory map is read in sequence,
block by block into memory that is used again: no checksum, no shuffling. The loader's figure has all of it: reading,
verifying, shuffling, ready for the device. Then a training step is simulated by normalisation and the matrix products
of a crosscoder, and the part of its time that it waits for batches is measured.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch

from chronocoder.activations.formats import StoredFormat, normalised
from chronocoder.activations.loader import ActivationStores, shuffled_batches
from chronocoder.activations.pieces import PIECE_TOKENS, PIECES_PER_SHARD
from chronocoder.activations.writer import ActivationWriter, Rows

_log = logging.getLogger("loader")


class Rates(NamedTuple):
    """Gigabytes a second, of the stored format.

    Attributes:
        memory_map: NumPy's, in sequence.
        loader: shuffled batches, all costs included.
    """

    memory_map: float
    loader: float


def main() -> None:
    """Read the arguments, make the data, measure, report."""
    arguments = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    _log.info("%d torch threads, beside two threads that read and shuffle; warm page cache", arguments.threads)
    with tempfile.TemporaryDirectory(dir=arguments.directory) as folder:
        for stored_format in arguments.formats:
            stores = make_stores(Path(folder), stored_format, arguments)
            _report(stored_format, *_best_rates(stores, Path(folder), arguments))
            if stored_format == "float16":
                wait = _waiting_share(stores, arguments)
                _log.info("%s: a training step waits for data %.1f %% of its time", stored_format, 100 * wait)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    formats = get_args(StoredFormat)
    parser.add_argument("--formats", nargs="+", choices=formats, default=formats, help="number formats to measure")
    parser.add_argument("--rows", type=int, default=16 * 8192, help="tokens in each store")
    parser.add_argument("--width", type=int, default=512, help="d_model")
    parser.add_argument("--checkpoints", type=int, default=3, help="stores read together")
    parser.add_argument("--batch-tokens", type=int, default=2048, help="tokens in a batch")
    parser.add_argument("--dictionary-size", type=int, default=4096, help="latents of the simulated crosscoder")
    parser.add_argument("--steps", type=int, default=20, help="simulated training steps")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each rate, of which the best counts")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--directory", type=Path, help="where temporary data is made")
    return parser


def make_stores(folder: Path, stored_format: StoredFormat, arguments: argparse.Namespace) -> ActivationStores:
    """Write stores of random activations, one a checkpoint, and open them."""
    paths = [folder / stored_format / f"{number}.zarr" for number in range(arguments.checkpoints)]
    shard = PIECE_TOKENS * PIECES_PER_SHARD
    number = np.arange(shard, dtype=np.int32)
    for seed, path in enumerate(paths):
        values = torch.randn(shard, arguments.width, generator=torch.Generator().manual_seed(seed))
        attributes = {"site": "residual.0", "revision": path.stem}
        rows = arguments.rows // shard * shard
        with ActivationWriter(path, rows, arguments.width, stored_format, PIECE_TOKENS, attributes) as writer:
            for _ in range(rows // shard):
                writer.append(Rows(values, number, number, number))
    return ActivationStores(paths)


def _best_rates(stores: ActivationStores, folder: Path, arguments: argparse.Namespace) -> Rates:
    """Measure both in turn, so that what else the machine does meets both."""
    flat = folder / f"{stores.stored_format}.npy"
    shape = (stores.rows * stores.checkpoints, stores.width)
    array = np.lib.format.open_memmap(flat, mode="w+", dtype=stores.stored_format, shape=shape)
    array[:] = 1
    batches = shuffled_batches(stores, arguments.batch_tokens, seed=0)
    count = stores.rows // arguments.batch_tokens

    def epoch() -> None:
        for _ in range(count):
            next(batches)

    epoch()  # the first one fills the page cache and the buffers
    used = array.nbytes * count * arguments.batch_tokens / stores.rows
    maps, loads = [], []
    for _ in range(arguments.repeats):
        maps.append(array.nbytes / _seconds(lambda: _read_in_sequence(flat)) / 1e9)
        loads.append(used / _seconds(epoch) / 1e9)
    batches.close()
    return Rates(max(maps), max(loads))


def _read_in_sequence(path: Path) -> None:
    array = np.load(path, mmap_mode="r")
    block = np.empty((PIECE_TOKENS, array.shape[1]), array.dtype)
    for start in range(0, len(array), PIECE_TOKENS):
        np.copyto(block, array[start : start + PIECE_TOKENS])


def _waiting_share(stores: ActivationStores, arguments: argparse.Namespace) -> float:
    """Return the part of a simulated training's time that it waits for batches."""
    width = stores.checkpoints * stores.width
    encoder = torch.randn(width, arguments.dictionary_size).div_(width).requires_grad_()
    decoder = torch.randn(arguments.dictionary_size, width).div_(width).requires_grad_()
    batches = shuffled_batches(stores, arguments.batch_tokens, seed=0)
    next(batches)  # the first group can only be waited for
    before, begin = batches.waited_s, time.perf_counter()
    for _ in range(arguments.steps):
        x = normalised(next(batches), torch.ones(stores.checkpoints)).flatten(1)
        loss = (torch.relu(x @ encoder) @ decoder - x).pow(2).mean()
        loss.backward()
    share = (batches.waited_s - before) / (time.perf_counter() - begin)
    batches.close()
    return share


def _seconds(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _report(stored_format: StoredFormat, memory_map: float, loader: float) -> None:
    _log.info(
        "%s: memory map in sequence %.2f GB/s, shuffled batches %.2f GB/s, ratio %.2f",
        stored_format,
        memory_map,
        loader,
        loader / memory_map,
    )


if __name__ == "__main__":
    main()
