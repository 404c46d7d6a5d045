"""Activations that the models themselves compute while a crosscoder is trained on them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from chronocoder.activations.formats import Stored, StoredFormat, narrow
from chronocoder.activations.harvest import read_sequences
from chronocoder.activations.origin import Origin, text_digest
from chronocoder.activations.pieces import sequences_per_piece
from chronocoder.activations.sources import ActivationSource
from chronocoder.config import HarvestSettings, LoadingSettings
from chronocoder.suites.checkpoints import AS_TRAINED, checkpoint_commit, load_model, loading_facts
from chronocoder.suites.sites import Site, resolve_site


class StreamedActivations(ActivationSource):
    """Activations that models compute when they are asked for: nothing is stored.

    The values are rounded as in a store, so that training is the same with either. Where a matrix product depends on
    the sequences computed together, a value can fall on the other side of a rounding step.

    Attributes:
        name: site and checkpoints.
        rows: tokens, without the first of each sequence.
        width: width of an activation, d_model: the largest one.
        checkpoints: how many.
        piece_rows: rows of each piece but the last.
        stored_format: number format that values are rounded to.
    """

    def __init__(
        self, sites: Sequence[Site], token_ids: np.ndarray, stored_format: StoredFormat, batch_size: int = 1
    ) -> None:
        """Keep the models.

        Args:
            sites: the site in each checkpoint's model.
            token_ids: the split, shape (sequence, position).
            stored_format: as `harvest.dtype`.
            batch_size: sequences in a forward pass, rounded to whole pieces.
        """
        self._sites, self._token_ids = list(sites), token_ids
        self._tokens_a_sequence = token_ids.shape[1] - 1
        self._sequences = sequences_per_piece(token_ids.shape[1])
        self.name = f"{sites[0].name} of {', '.join(site.model.name_or_path for site in sites)}"
        self.rows = len(token_ids) * self._tokens_a_sequence
        self.width = max(site.width for site in sites)
        self.checkpoints = len(self._sites)
        self.piece_rows = self._sequences * self._tokens_a_sequence
        self.stored_format: StoredFormat = stored_format
        self.pieces_at_once = max(1, batch_size // self._sequences)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of each checkpoint's activations; behind it what is read has zeros."""
        return tuple(site.width for site in self._sites)

    def read_piece(self, number: int, into: Stored) -> None:
        """Run every model on a piece's sequences; errors as `read_together`."""
        self.read_together([number], into)

    def read_together(self, numbers: Sequence[int], into: Stored) -> None:
        """Run every model on the sequences of some pieces, up to the site, in one forward pass.

        Raises:
            NonFiniteError: an activation is not finite, or does not fit the number format.
        """
        starts = np.array(numbers, dtype=np.int32) * self._sequences
        sequences = (starts[:, None] + np.arange(self._sequences, dtype=np.int32)).flatten()
        sequences = sequences[sequences < len(self._token_ids)]
        for checkpoint, site in enumerate(self._sites):
            rows = read_sequences(site, self._token_ids, sequences)
            stored = narrow(rows.activations, self.stored_format, f"{site.model.name_or_path}, site {site.name}")
            into.values[:, checkpoint, : site.width] = stored.values
            into.values[:, checkpoint, site.width :] = 0
            if into.scale is not None and stored.scale is not None:
                into.scale[:, checkpoint] = stored.scale


def stream_checkpoints(
    suite: str,
    checkpoints: Mapping[str, Path],
    site: str,
    corpus: xr.Dataset,
    settings: HarvestSettings,
    loading: LoadingSettings = AS_TRAINED,
) -> tuple[StreamedActivations, Origin]:
    """Load checkpoints to compute their activations while training.

    Args:
        suite: name of the suite.
        checkpoints: directories by label, in order of training.
        site: where to read.
        corpus: `token_ids` (sequence, position).
        settings: number format that activations are rounded to, as a store would, and sequences in a forward pass.
        loading: how to load the models.

    Raises:
        ConfigError: a model cannot be loaded so, or the text has tokens that it does not know.
        StoreError: a checkpoint cannot be read.
        SiteError: a model has no such site.
    """
    token_ids = corpus["token_ids"].values
    sites = [resolve_site(load_model(path, loading, [corpus]), site) for path in checkpoints.values()]
    commits = tuple(checkpoint_commit(path) for path in checkpoints.values())
    loaded = tuple(tuple(loading_facts(one.model).values()) for one in sites)
    origin = Origin(suite, site, tuple(checkpoints), commits, text_digest(corpus), settings.dtype, loaded)
    return StreamedActivations(sites, token_ids, settings.dtype, settings.batch_size), origin
