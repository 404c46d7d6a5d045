"""Reading a checkpoint's activations at a site and storing them, resumably."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from tqdm import tqdm
from transformers import PreTrainedModel

from chronocoder.activations.writer import ActivationWriter, Rows
from chronocoder.config import HarvestSettings
from chronocoder.errors import NonFiniteError
from chronocoder.suites.sites import Site, resolve_site

SAMPLE_BATCH = 64
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
    length = token_ids.shape[1]
    for start in range(first_sequence, len(token_ids), batch_size):
        batch = token_ids[start : start + batch_size]
        ids = torch.from_numpy(batch.astype(np.int64)).to(site.model.device)
        activation = site.read(ids).activation[:, 1:].float()
        finite = torch.isfinite(activation).all(dim=(1, 2))
        if not finite.all():
            bad = start + int(torch.argmin(finite.int()))
            raise NonFiniteError(
                f"{site.model.name_or_path}, site {site.name}: non-finite activation in sequence {bad};"
                " the checkpoint is damaged or overflows"
            )
        count = len(batch)
        yield Rows(
            activation.reshape(count * (length - 1), -1).cpu().numpy(),
            batch[:, 1:].reshape(-1),
            np.repeat(np.arange(start, start + count, dtype=np.int32), length - 1),
            np.tile(np.arange(1, length, dtype=np.int32), count),
        )


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
            sampled[name][revision] = np.concatenate([batch.activations for batch in rows])
    return sampled


def harvest(site: Site, corpus: xr.Dataset, settings: HarvestSettings, path: Path, attributes: dict[str, Any]) -> None:
    """Store a checkpoint's activations on a corpus; an interrupted harvest goes on where it stopped.

    Args:
        site: where to read.
        corpus: `token_ids` (sequence, position).
        settings: number format and batch size.
        path: the store to make.
        attributes: its provenance.

    Raises:
        NonFiniteError: an activation is not finite, or does not fit the number format.
    """
    token_ids = corpus["token_ids"].values
    tokens_a_sequence = token_ids.shape[1] - 1
    rows = len(token_ids) * tokens_a_sequence
    with ActivationWriter(path, rows, site.model.config.hidden_size, settings.dtype, attributes) as writer:
        first, skip = divmod(writer.rows_written, tokens_a_sequence)
        if writer.rows_written:
            _log.info("going on after %d of %d tokens", writer.rows_written, rows)
        progress = tqdm(total=rows, initial=writer.rows_written, unit="token", desc=path.stem, mininterval=2)
        for batch in read_activations(site, token_ids, settings.batch_size, first):
            writer.append(Rows(*(part[skip:] for part in batch)))
            progress.update(len(batch.token_id) - skip)
            skip = 0
        progress.close()
