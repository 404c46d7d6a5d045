"""What activations are of."""

import hashlib
from typing import NamedTuple

import xarray as xr

from chronocoder.activations.loader import ActivationStores
from chronocoder.config.loading import LOADED
from chronocoder.errors import StoreError
from chronocoder.labels import distinct_labels, is_identity


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


def text_digest(corpus: xr.Dataset) -> str:
    """Return a digest of a corpus' token ids."""
    return hashlib.sha256(corpus["token_ids"].values.tobytes()).hexdigest()
