"""What activations are of: read from their stores, or from the models that compute them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import xarray as xr

from chronocoder.activations.loader import ActivationStores
from chronocoder.activations.sources import StreamedActivations
from chronocoder.config import HarvestSettings, LoadingSettings
from chronocoder.errors import StoreError
from chronocoder.labels import distinct_labels, is_identity
from chronocoder.suites.checkpoints import AS_TRAINED, LOADED, checkpoint_commit, load_model, loading_facts
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
        loaded: how each checkpoint's model was loaded: number format, attention, quantization.
    """

    suite: str
    site: str
    revisions: tuple[str, ...]
    commits: tuple[str, ...]
    tokens_digest: str
    stored_format: str
    loaded: tuple[tuple[str, ...], ...] = ()


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
    loaded = tuple(tuple(attributes.get(key, "") for key in LOADED) for attributes in stores.attributes)
    return Origin(first["suite"], first["site"], labels, commits, first["tokens_digest"], stores.stored_format, loaded)


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


def text_digest(corpus: xr.Dataset) -> str:
    """Return a digest of a corpus' token ids."""
    return hashlib.sha256(corpus["token_ids"].values.tobytes()).hexdigest()
