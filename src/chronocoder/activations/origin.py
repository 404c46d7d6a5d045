"""What activations are of: read from their stores, or from the models that compute them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import xarray as xr

from chronocoder.activations.loader import ActivationStores
from chronocoder.activations.sources import StreamedActivations
from chronocoder.config import HarvestSettings
from chronocoder.errors import StoreError
from chronocoder.suites.checkpoints import checkpoint_commit, load_model
from chronocoder.suites.sites import resolve_site


class Origin(NamedTuple):
    """What a training's activations are of.

    Attributes:
        suite: the pretraining run.
        site: where they are read.
        revisions: the checkpoints, in order of training.
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
        StoreError: two stores are of one checkpoint.
    """
    first = stores.attributes[0]
    revisions, commits = (tuple(attributes[key] for attributes in stores.attributes) for key in ("revision", "commit"))
    if len(set(revisions)) < len(revisions):
        raise StoreError(f"stores of {', '.join(revisions)}: one checkpoint is there twice; give each once")
    return Origin(first["suite"], first["site"], revisions, commits, first["tokens_digest"], stores.stored_format)


def stream_checkpoints(
    suite: str, checkpoints: Mapping[str, Path], site: str, corpus: xr.Dataset, settings: HarvestSettings
) -> tuple[StreamedActivations, Origin]:
    """Load checkpoints to compute their activations while training.

    Args:
        suite: name of the suite.
        checkpoints: directories by revision, in order of training.
        site: where to read.
        corpus: `token_ids` (sequence, position).
        settings: number format that activations are rounded to, as a store would, and sequences in a forward pass.

    Raises:
        StoreError: a checkpoint cannot be read.
        SiteError: a model has no such site.
    """
    token_ids = corpus["token_ids"].values
    sites = [resolve_site(load_model(path), site) for path in checkpoints.values()]
    commits = tuple(checkpoint_commit(path) for path in checkpoints.values())
    origin = Origin(suite, site, tuple(checkpoints), commits, text_digest(corpus), settings.dtype)
    return StreamedActivations(sites, token_ids, settings.dtype, settings.batch_size), origin


def text_digest(corpus: xr.Dataset) -> str:
    """Return a digest of a corpus' token ids."""
    return hashlib.sha256(corpus["token_ids"].values.tobytes()).hexdigest()
