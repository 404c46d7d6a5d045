"""The text on which features are most active."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from chronocoder.activations.loader import ActivationStores
from chronocoder.activations.origin import text_digest
from chronocoder.config import FeatureSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import StoreError
from chronocoder.stores import labelled, strings
from chronocoder.suites.tokenizers import token_texts

TOKENS_AFTER = 6
NO_TOKEN = -1
ROWS_AT_ONCE = 4096


def top_features(relie: xr.Dataset, count: int) -> np.ndarray:
    """Return the features that are among the `count` of largest |IE| for any task at any checkpoint, ascending."""
    size = abs(relie["indirect_effect"]).transpose("task", "checkpoint", "feature").values
    order = np.argsort(-size, axis=-1)[..., :count]
    kept = np.take_along_axis(size, order, axis=-1) > 0
    return np.unique(relie["feature"].values[order[kept]])


class Peaks(NamedTuple):
    """What one pass over a split says of some features.

    Attributes:
        largest: largest activation in each sequence, shape (sequence, feature).
        frequency: part of the tokens each is active on, shape (feature,).
        mean: mean activation on the tokens of each language, shape (feature, language).
    """

    largest: Float[np.ndarray, "sequence feature"]
    frequency: Float[np.ndarray, " feature"]
    mean: Float[np.ndarray, "feature language"]


class Window(NamedTuple):
    """Tokens around the most active one of a sequence, or of several.

    Attributes:
        token_id: shape (..., position), padded with -1.
        activation: shape (..., position).
    """

    token_id: np.ndarray
    activation: np.ndarray


class SequenceLabels(NamedTuple):
    """Where the sequences of a split come from.

    Attributes:
        language: of each, empty where the text names none; shape (sequence,).
        source: likewise.
    """

    language: np.ndarray
    source: np.ndarray


def sequence_labels(stores: ActivationStores, corpus: xr.Dataset) -> SequenceLabels:
    """Return language and source of each sequence whose activations are stored.

    Args:
        stores: the activations.
        corpus: the text that they were harvested on.

    Raises:
        StoreError: they are of another text.
    """
    if stores.attributes[0]["tokens_digest"] != text_digest(corpus):
        raise StoreError(f"{stores.name}: not harvested on the given corpus; give the corpus of the validation split")
    numbers = np.unique(stores.text_columns()["sequence"].values)
    return SequenceLabels(*(corpus[name].values[numbers] for name in SequenceLabels._fields))


def top_examples(
    crosscoder: Crosscoder,
    stores: ActivationStores,
    tokenizer: PreTrainedTokenizerBase,
    features: np.ndarray,
    settings: FeatureSettings,
    labels: SequenceLabels,
) -> xr.Dataset:
    """Return the sequences in which each feature reaches its largest activations, one window of each.

    Memory holds one number for each sequence and feature, and the codes of one block of tokens.

    Args:
        crosscoder: folded.
        stores: validation activations of its checkpoints.
        tokenizer: the suite's.
        features: those to show.
        settings: how many examples, and their context.
        labels: of the split's sequences.

    Returns:
        Dims (feature, example, position); the most active token is at position 0. `example_language` and
        `example_source` are those of each example, and `language_share` (feature, language) how much of a feature's
        activation is in each language.
    """
    text = stores.text_columns()
    encode = partial(_encode, crosscoder, torch.from_numpy(features).to(crosscoder.W_enc.device))
    starts = np.append(np.flatnonzero(np.diff(text["sequence"].values, prepend=-1)), stores.rows)
    names, language = np.unique(labels.language, return_inverse=True)
    peaks, frequency, mean = _peaks(stores, encode, starts, len(features), language)
    chosen = np.argsort(-peaks, axis=0, kind="stable")[: settings.examples].T
    token_id, activation = _cut_windows(
        stores, encode, text["token_id"].values, starts, chosen, settings.context_tokens
    )
    dims = ("feature", "example", "position")
    return xr.Dataset(
        {
            "token_id": labelled(dims, token_id, "token, -1 outside the sequence"),
            "token": labelled(dims, token_texts(token_id, tokenizer), "text of the token"),
            "activation": labelled(dims, activation, "activation of the feature on the token"),
            "activation_frequency": labelled(
                ("feature",), frequency, "part of validation tokens with the feature active"
            ),
            "example_language": labelled(dims[:2], strings(labels.language[chosen]), "language of the example"),
            "example_source": labelled(dims[:2], strings(labels.source[chosen]), "source of the example"),
            "language_share": labelled(
                ("feature", "language"),
                mean / np.where(mean.any(axis=1), mean.sum(axis=1), np.nan)[:, None],
                "mean activation on tokens of the language, as a fraction of the sum over languages",
            ),
        },
        coords={
            "feature": features,
            "language": strings(names),
            "example": np.arange(token_id.shape[1]),
            "position": np.arange(token_id.shape[2]) - settings.context_tokens,
        },
    )


@torch.no_grad()
def _encode(crosscoder: Crosscoder, features: Tensor, x: Tensor) -> Float[np.ndarray, "token feature"]:
    return crosscoder.encode(x.to(features.device))[:, features].cpu().numpy()


def _peaks(
    stores: ActivationStores,
    encode: Callable[[Tensor], np.ndarray],
    starts: np.ndarray,
    count: int,
    language: Int[np.ndarray, " sequence"],
) -> Peaks:
    sequence_of_row = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    of_language = np.eye(language.max() + 1)[language[sequence_of_row]]
    largest = np.zeros((len(starts) - 1, count), dtype=np.float32)
    active, first = np.zeros(count), 0
    mass = np.zeros((count, of_language.shape[1]))
    for block in stores.blocks():
        codes = encode(block)
        np.maximum.at(largest, sequence_of_row[first : first + len(codes)], codes)
        active += (codes > 0).sum(axis=0)
        mass += codes.T @ of_language[first : first + len(codes)]
        first += len(codes)
    return Peaks(largest, active / stores.rows, mass / of_language.sum(axis=0))


def _cut_windows(
    stores: ActivationStores,
    encode: Callable[[Tensor], np.ndarray],
    token_ids: np.ndarray,
    starts: np.ndarray,
    chosen: Int[np.ndarray, "feature example"],
    context: int,
) -> Window:
    """Return the windows of the chosen sequences, shape (feature, example, position), some read at once."""
    size = (*chosen.shape, context + 1 + TOKENS_AFTER)
    token_id, activation = np.full(size, NO_TOKEN, dtype=np.int32), np.zeros(size, dtype=np.float32)
    count = len(starts) - 1
    step = max(1, ROWS_AT_ONCE * count // stores.rows)
    for first in range(0, count, step):
        last = min(first + step, count)
        wanted = np.argwhere((chosen >= first) & (chosen < last))
        if not len(wanted):
            continue
        codes = encode(torch.from_numpy(stores.read(starts[first], starts[last])))
        for feature, example in wanted:
            rows = slice(*starts[chosen[feature, example] :][:2])
            own = codes[rows.start - starts[first] : rows.stop - starts[first], feature]
            window = _window(own, token_ids[rows], context)
            token_id[feature, example], activation[feature, example] = window
    return Window(token_id, activation)


def _window(codes: np.ndarray, ids: np.ndarray, context: int) -> Window:
    rows = np.arange(-context, TOKENS_AFTER + 1) + int(np.argmax(codes))
    inside = (rows >= 0) & (rows < len(codes))
    safe = np.clip(rows, 0, len(codes) - 1)
    return Window(np.where(inside, ids[safe], NO_TOKEN), np.where(inside, codes[safe], 0.0))
