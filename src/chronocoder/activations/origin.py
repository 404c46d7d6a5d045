"""What activations are of: read from their stores, or from the models that compute them."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import xarray as xr

from chronocoder.activations.harvest import check_vocabulary
from chronocoder.activations.loader import ActivationStores
from chronocoder.activations.sources import StreamedActivations
from chronocoder.config import HarvestSettings
from chronocoder.errors import StoreError
from chronocoder.labels import distinct_labels, is_identity
from chronocoder.suites.checkpoints import checkpoint_commit, load_model
from chronocoder.suites.sites import resolve_site


class Origin(NamedTuple):
    """What a training's activations are of.

    Attributes:
        suite: the pretraining run.
        site: where they are read.
        revisions: labels of the checkpoints, in order of training.
        commits: what identifies each checkpoint's weights.
        tokens_digest: digest of the text.
        stored_format: number format they are rounded to.
    """

    suite: str
    site: str
    revisions: tuple[str, ...]
    commits: tuple[str, ...]
    tokens_digest: str
    stored_format: str


def origin_of(stores: ActivationStores) -> Origin:
    """Return what stored activations are of, as the harvest noted it.

    Raises:
        StoreError: two stores are of one checkpoint, and others are not.
    """
    first = stores.attributes[0]
    revisions, commits = (tuple(attributes[key] for attributes in stores.attributes) for key in ("revision", "commit"))
    if len(set(revisions)) < len(revisions) and not is_identity(revisions):
        raise StoreError(
            f"stores of {', '.join(revisions)}: one checkpoint is there twice, but not throughout; give each once, or"
            " the same one throughout"
        )
    labels = distinct_labels(revisions)
    return Origin(first["suite"], first["site"], labels, commits, first["tokens_digest"], stores.stored_format)


def stream_checkpoints(
    suite: str, checkpoints: Mapping[str, Path], site: str, corpus: xr.Dataset, settings: HarvestSettings
) -> tuple[StreamedActivations, Origin]:
    """Load checkpoints to compute their activations while training.

    Args:
        suite: name of the suite.
        checkpoints: directories by label, in order of training.
        site: where to read.
        corpus: `token_ids` (sequence, position).
        settings: number format that activations are rounded to, as a store would, and sequences in a forward pass.

    Raises:
        ConfigError: the text has tokens that a model does not know.
        StoreError: a checkpoint cannot be read, or models are of several widths.
        SiteError: a model has no such site.
    """
    token_ids = corpus["token_ids"].values
    sites = [resolve_site(load_model(path), site) for path in checkpoints.values()]
    for one in sites:
        check_vocabulary(one, token_ids)
    _check_widths(checkpoints, [one.width for one in sites])
    commits = tuple(checkpoint_commit(path) for path in checkpoints.values())
    origin = Origin(suite, site, tuple(checkpoints), commits, text_digest(corpus), settings.dtype)
    return StreamedActivations(sites, token_ids, settings.dtype, settings.batch_size), origin


def _check_widths(checkpoints: Mapping[str, Path], widths: Sequence[int]) -> None:
    for path, width in zip(checkpoints.values(), widths, strict=True):
        if width != widths[0]:
            raise StoreError(
                f"{path}: width {width} differs from {widths[0]} of {next(iter(checkpoints.values()))}; give models of"
                " one width"
            )


def text_digest(corpus: xr.Dataset) -> str:
    """Return a digest of a corpus' token ids."""
    return hashlib.sha256(corpus["token_ids"].values.tobytes()).hexdigest()
