"""What a split says of features: the text they are most active on, their activations, and their company."""

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
from chronocoder.features.activity import Activity, activation_counts, coactive_features
from chronocoder.features.nearest import nearest_features
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
        mean: mean activation on the tokens of each language, shape (feature, language).
        activity: how strongly they are active, and together with which latents.
    """

    largest: Float[np.ndarray, "sequence feature"]
    mean: Float[np.ndarray, "feature language"]
    activity: Activity


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


def read_features(
    crosscoder: Crosscoder,
    stores: ActivationStores,
    tokenizer: PreTrainedTokenizerBase,
    features: Int[np.ndarray, " feature"],
    settings: FeatureSettings,
    labels: SequenceLabels,
) -> xr.Dataset:
    """Return what a split says of each feature: the text it is most active on, its activations and its company.

    Memory holds one number for each sequence and feature, one for each feature and latent, and the codes of one block
    of tokens.

    Args:
        crosscoder: folded.
        stores: validation activations of its checkpoints.
        tokenizer: the suite's.
        features: those to show.
        settings: how many examples, and their context; how many latents beside each feature.
        labels: of the split's sequences.

    Returns:
        Dims (feature, example, position): of each sequence in which a feature reaches its largest activations one
        window, with the most active token at position 0. `example_language` and `example_source` are those of each
        example, and `language_share` (feature, language) how much of a feature's activation is in each language.
        `activation_count` (feature, bin) is a histogram. The latents that are active on the same tokens, and those
        that write in a similar direction, have dims (feature, neighbour) and (feature, checkpoint, neighbour).
    """
    text, own = stores.text_columns(), torch.from_numpy(features).to(crosscoder.W_enc.device)
    starts = np.append(np.flatnonzero(np.diff(text["sequence"].values, prepend=-1)), stores.rows)
    names, language = np.unique(labels.language, return_inverse=True)
    peaks = _peaks(crosscoder, stores, own, starts, language)
    chosen = np.argsort(-peaks.largest, axis=0, kind="stable")[: settings.examples].T
    encode, token_ids = partial(_encode, crosscoder, own), text["token_id"].values
    windows = _cut_windows(stores, encode, token_ids, starts, chosen, settings.context_tokens)
    neighbours = min(settings.neighbours, len(crosscoder.b_enc) - 1)
    found = xr.Dataset(
        {
            **_examples(windows, tokenizer, chosen, labels),
            **_language_shares(peaks.mean),
            **activation_counts(peaks.activity),
            **coactive_features(peaks.activity, neighbours),
            **nearest_features(crosscoder, features, neighbours),
        }
    )
    return found.set_coords(["bin_low", "bin_high"]).assign_coords(
        feature=features,
        language=strings(names),
        checkpoint=strings(crosscoder.config.checkpoints),
        example=np.arange(found.sizes["example"]),
        position=np.arange(found.sizes["position"]) - settings.context_tokens,
        neighbour=np.arange(neighbours),
    )


@torch.no_grad()
def _peaks(
    crosscoder: Crosscoder,
    stores: ActivationStores,
    features: Int[Tensor, " feature"],
    starts: Int[np.ndarray, " edge"],
    language: Int[np.ndarray, " sequence"],
) -> Peaks:
    sequence_of_row = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    of_language = np.eye(language.max() + 1)[language[sequence_of_row]]
    largest = np.zeros((len(starts) - 1, len(features)), dtype=np.float32)
    mass, first = np.zeros((len(features), of_language.shape[1])), 0
    activity = Activity(features, len(crosscoder.b_enc))
    for block in stores.blocks():
        codes = crosscoder.encode(block.to(features.device))
        activity.add(codes)
        own = codes[:, features].cpu().numpy()
        np.maximum.at(largest, sequence_of_row[first : first + len(own)], own)
        mass += own.T @ of_language[first : first + len(own)]
        first += len(own)
    return Peaks(largest, mass / of_language.sum(axis=0), activity)


def _examples(
    windows: Window,
    tokenizer: PreTrainedTokenizerBase,
    chosen: Int[np.ndarray, "feature example"],
    labels: SequenceLabels,
) -> dict[str, xr.Variable]:
    dims = ("feature", "example", "position")
    return {
        "token_id": labelled(dims, windows.token_id, "token, -1 outside the sequence"),
        "token": labelled(dims, token_texts(windows.token_id, tokenizer), "text of the token"),
        "activation": labelled(dims, windows.activation, "activation of the feature on the token"),
        "example_language": labelled(dims[:2], strings(labels.language[chosen]), "language of the example"),
        "example_source": labelled(dims[:2], strings(labels.source[chosen]), "source of the example"),
    }


def _language_shares(mean: Float[np.ndarray, "feature language"]) -> dict[str, xr.Variable]:
    share = mean / np.where(mean.any(axis=1), mean.sum(axis=1), np.nan)[:, None]
    text = "mean activation on tokens of the language, as a fraction of the sum over languages"
    return {"language_share": labelled(("feature", "language"), share, text)}


@torch.no_grad()
def _encode(crosscoder: Crosscoder, features: Tensor, x: Tensor) -> Float[np.ndarray, "token feature"]:
    return crosscoder.encode(x.to(features.device))[:, features].cpu().numpy()


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
