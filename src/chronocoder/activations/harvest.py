"""Reading a checkpoint's activations at a site and storing them, resumably."""

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from tqdm import tqdm
from transformers import PreTrainedModel

from chronocoder.activations.formats import largest_size
from chronocoder.activations.pieces import sequences_per_piece
from chronocoder.activations.writer import ActivationWriter, Rows
from chronocoder.config import HarvestSettings
from chronocoder.errors import NonFiniteError
from chronocoder.suites.checkpoints import check_vocabulary
from chronocoder.suites.precision import overflow_remedy
from chronocoder.suites.sites import Site, resolve_site

SAMPLE_BATCH = 64
LABELS = ("language", "source")
_log = logging.getLogger(__name__)


def read_activations(site: Site, token_ids: np.ndarray, batch_size: int, first_sequence: int = 0) -> Iterator[Rows]:
    """Yield the activations of all tokens but the first of each sequence, batch by batch, in order.

    The first token is left out since its activation is an outlier in norm and says nothing about the text.

    Args:
        site: where to read.
        token_ids: shape (sequence, position).
        batch_size: sequences in a forward pass.
        first_sequence: the sequence to begin with.

    Raises:
        NonFiniteError: an activation is NaN or infinite; the message names its sequence.
    """
    for start in range(first_sequence, len(token_ids), batch_size):
        yield read_sequences(site, token_ids, np.arange(start, min(start + batch_size, len(token_ids)), dtype=np.int32))


def read_sequences(site: Site, token_ids: np.ndarray, numbers: Int[np.ndarray, " sequence"]) -> Rows:
    """Return the activations of some sequences, in one forward pass; arguments and errors as `read_activations`."""
    batch, length = token_ids[numbers], token_ids.shape[1]
    ids = torch.from_numpy(batch.astype(np.int64)).to(site.model.device)
    activation = site.read(ids).activation[:, 1:].float().flatten(0, 1)
    if not math.isfinite(largest_size(activation)):
        bad = numbers[int(torch.isfinite(activation).all(dim=1).int().argmin()) // (length - 1)]
        raise NonFiniteError(
            f"{site.model.name_or_path}, site {site.name}: non-finite activation in sequence {bad};"
            f" {overflow_remedy(site.model)}"
        )
    positions = np.tile(np.arange(1, length, dtype=np.int32), len(numbers))
    return Rows(activation, batch[:, 1:].reshape(-1), np.repeat(numbers, length - 1), positions)


def sample_activations(
    models: Iterable[tuple[str, PreTrainedModel]], sites: Sequence[str], token_ids: np.ndarray, tokens: int
) -> dict[str, dict[str, Float[np.ndarray, "token d_model"]]]:
    """Return the activations of the first tokens of a corpus, by site, then revision, in memory.

    Args:
        models: (revision, model); taken one at a time.
        sites: where to read.
        token_ids: shape (sequence, position).
        tokens: how many tokens, rounded up to whole sequences; fewer where the corpus is shorter.
    """
    used = token_ids[: -(-tokens // (token_ids.shape[1] - 1))]
    sampled: dict[str, dict[str, np.ndarray]] = {name: {} for name in sites}
    for revision, model in models:
        for name in sites:
            rows = read_activations(resolve_site(model, name), used, SAMPLE_BATCH)
            sampled[name][revision] = torch.cat([batch.activations.cpu() for batch in rows]).numpy()
    return sampled


def harvest(site: Site, corpus: xr.Dataset, settings: HarvestSettings, path: Path, attributes: dict[str, Any]) -> None:
    """Store a checkpoint's activations on a corpus; an interrupted harvest goes on where it stopped.

    Args:
        site: where to read.
        corpus: `token_ids` (sequence, position), and labels of the sequences, which are kept.
        settings: number format and batch size.
        path: the store to make.
        attributes: its provenance.

    Raises:
        ConfigError: the text has tokens that the model does not know.
        NonFiniteError: an activation is not finite, or does not fit the number format.
    """
    token_ids = corpus["token_ids"].values
    check_vocabulary(site.model, corpus)
    tokens_a_sequence = token_ids.shape[1] - 1
    rows, width = len(token_ids) * tokens_a_sequence, site.width
    piece_rows = sequences_per_piece(token_ids.shape[1]) * tokens_a_sequence
    labels = {name: corpus[name].values for name in LABELS if name in corpus}
    with ActivationWriter(path, rows, width, settings.dtype, piece_rows, attributes, labels) as writer:
        if writer.rows_written:
            _log.info("going on after %d of %d tokens", writer.rows_written, rows)
        progress = tqdm(total=rows, initial=writer.rows_written, unit="token", desc=path.stem, mininterval=2)
        done = writer.rows_written // tokens_a_sequence  # shards hold whole sequences
        for batch in read_activations(site, token_ids, settings.batch_size, done):
            writer.append(batch)
            progress.update(len(batch.token_id))
        progress.close()
