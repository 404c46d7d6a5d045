"""Reading activation stores of several checkpoints as shuffled batches."""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from chronocoder.activations.writer import ROWS_PER_CHUNK
from chronocoder.errors import StoreError
from chronocoder.stores import damage_named, open_store


class ActivationStores:
    """The stores of a comparison's checkpoints: the same tokens in the same order.

    Attributes:
        paths: one store a checkpoint.
        attributes: the provenance of each.
        rows: tokens in each.
        width: width of an activation, d_model.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        """Open the stores and check that they fit each other.

        Raises:
            StoreError: a store is damaged, or differs from the first in its tokens or its site.
        """
        self.paths = list(paths)
        self._datasets = [open_store(path) for path in self.paths]
        self.attributes = [dataset.attrs for dataset in self._datasets]
        self._check_agreement()
        self._arrays = [dataset["activations"] for dataset in self._datasets]
        self.rows, self.width = self._arrays[0].shape

    def read(self, start: int, stop: int) -> Float[np.ndarray, "token checkpoint d_model"]:
        """Return consecutive rows as float32.

        Raises:
            StoreError: a chunk is damaged.
        """
        parts = []
        for path, array in zip(self.paths, self._arrays, strict=True):
            with damage_named(path):
                parts.append(array[start:stop].values.astype(np.float32))
        return np.stack(parts, axis=1)

    def blocks(self, rows: int = ROWS_PER_CHUNK * 4) -> Iterator[Float[Tensor, "token checkpoint d_model"]]:
        """Yield all rows in order, some at a time."""
        for start in range(0, self.rows, rows):
            yield torch.from_numpy(self.read(start, min(start + rows, self.rows)))

    def text_columns(self, number: int = 0) -> xr.Dataset:
        """Return the coordinates token_id, sequence and position of every row of a store, in memory.

        Raises:
            StoreError: a chunk is damaged.
        """
        with damage_named(self.paths[number]):
            return self._datasets[number].drop_vars("activations").load()

    def _check_agreement(self) -> None:
        first, site = self.text_columns(), self.attributes[0]["site"]
        for number, path in enumerate(self.paths[1:], 1):
            if self.attributes[number]["site"] != site:
                raise StoreError(
                    f"{path}: site {self.attributes[number]['site']} differs from {site} of {self.paths[0]};"
                    " give stores of one site"
                )
            columns = self.text_columns(number)
            for name in ("token_id", "sequence", "position"):
                if not np.array_equal(columns[name].values, first[name].values):
                    raise StoreError(
                        f"{path}: its {name} differs from that of {self.paths[0]}; harvest both from one corpus"
                    )


def shuffled_batches(
    stores: ActivationStores,
    batch_tokens: int,
    seed: int,
    buffer_chunks: int = 64,
    rank: int = 0,
    processes: int = 1,
) -> Iterator[Float[Tensor, "token checkpoint d_model"]]:
    """Yield batches endlessly, epoch after epoch, in an order that the seed alone decides.

    Chunks are read in random order into a buffer whose rows are then permuted: memory is bounded by
    `buffer_chunks` chunks. Rows that do not fill a batch stay for the next buffer.

    Args:
        stores: the activations.
        batch_tokens: tokens in a global batch.
        seed: decides the order.
        buffer_chunks: chunks in the buffer.
        rank: this process; it gets every `processes`-th row of each global batch.
        processes: processes that share the global batch.

    Raises:
        StoreError: the stores hold fewer rows than one batch.
    """
    if stores.rows < batch_tokens:
        raise StoreError(
            f"{stores.paths[0]}: holds {stores.rows} tokens, less than batch_tokens {batch_tokens};"
            " raise the corpus' train_tokens or lower batch_tokens"
        )
    left = np.empty((0, len(stores.paths), stores.width), dtype=np.float32)
    for epoch in count():
        generator = np.random.default_rng([seed, epoch])
        starts = generator.permutation(np.arange(0, stores.rows, ROWS_PER_CHUNK))
        for first in range(0, len(starts), buffer_chunks):
            chunks = [
                stores.read(start, min(start + ROWS_PER_CHUNK, stores.rows))
                for start in starts[first : first + buffer_chunks]
            ]
            buffer = np.concatenate([left, *chunks])
            order = generator.permutation(len(buffer))
            whole = len(buffer) - len(buffer) % batch_tokens
            for start in range(0, whole, batch_tokens):
                yield torch.from_numpy(buffer[order[start + rank : start + batch_tokens : processes]])
            left = buffer[order[whole:]]
