"""The text on which features are most active."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from transformers import PreTrainedTokenizerBase

from chronocoder.activations.loader import ActivationStores
from chronocoder.config import FeatureSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.stores import labelled, strings

TOKENS_AFTER = 6
NO_TOKEN = -1


def top_features(relie: xr.Dataset, count: int) -> np.ndarray:
    """Return the features that are among the `count` of largest |IE| for any task at any checkpoint, ascending."""
    size = abs(relie["indirect_effect"]).transpose("task", "checkpoint", "feature").values
    order = np.argsort(-size, axis=-1)[..., :count]
    kept = np.take_along_axis(size, order, axis=-1) > 0
    return np.unique(relie["feature"].values[order[kept]])


class Window(NamedTuple):
    """Tokens around the most active one of a sequence.

    Attributes:
        token_id: shape (position,), padded with -1.
        activation: shape (position,).
    """

    token_id: np.ndarray
    activation: np.ndarray


@torch.no_grad()
def top_examples(
    crosscoder: Crosscoder,
    stores: ActivationStores,
    tokenizer: PreTrainedTokenizerBase,
    features: np.ndarray,
    settings: FeatureSettings,
) -> xr.Dataset:
    """Return the sequences in which each feature reaches its largest activations, one window of each.

    Args:
        crosscoder: folded.
        stores: validation activations of its checkpoints.
        tokenizer: the suite's.
        features: those to show.
        settings: how many examples, and their context.

    Returns:
        Dims (feature, example, position); the most active token is at position `context_tokens`.
    """
    text = stores.text_columns()
    chosen = torch.from_numpy(features).to(crosscoder.W_enc.device)
    codes = torch.cat([crosscoder.encode(x.to(chosen.device))[:, chosen].cpu() for x in stores.blocks()]).numpy()
    starts = np.flatnonzero(np.diff(text["sequence"].values, prepend=-1))
    peaks = np.maximum.reduceat(codes, starts, axis=0)
    windows = [
        [
            _window(codes[:, number], text, starts, sequence, settings)
            for sequence in _largest(peaks[:, number], settings)
        ]
        for number in range(len(features))
    ]
    token_id = np.array([[window.token_id for window in row] for row in windows], dtype=np.int32)
    activation = np.array([[window.activation for window in row] for row in windows], dtype=np.float32)
    dims = ("feature", "example", "position")
    return xr.Dataset(
        {
            "token_id": labelled(dims, token_id, "token, -1 outside the sequence"),
            "token": labelled(dims, _texts(token_id, tokenizer), "text of the token"),
            "activation": labelled(dims, activation, "activation of the feature on the token"),
            "activation_frequency": labelled(
                ("feature",), (codes > 0).mean(axis=0), "part of validation tokens with the feature active"
            ),
        },
        coords={
            "feature": features,
            "example": np.arange(token_id.shape[1]),
            "position": np.arange(token_id.shape[2]) - settings.context_tokens,
        },
    )


def _largest(peaks: np.ndarray, settings: FeatureSettings) -> Sequence[int]:
    return [int(place) for place in np.argsort(-peaks, kind="stable")[: settings.examples]]


def _window(
    codes: np.ndarray, text: xr.Dataset, starts: np.ndarray, sequence: int, settings: FeatureSettings
) -> Window:
    start = starts[sequence]
    stop = starts[sequence + 1] if sequence + 1 < len(starts) else len(codes)
    peak = start + int(np.argmax(codes[start:stop]))
    rows = np.arange(peak - settings.context_tokens, peak + TOKENS_AFTER + 1)
    inside = (rows >= start) & (rows < stop)
    safe = np.clip(rows, start, stop - 1)
    return Window(np.where(inside, text["token_id"].values[safe], NO_TOKEN), np.where(inside, codes[safe], 0.0))


def _texts(token_id: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> np.ndarray:
    known = {int(number): tokenizer.decode([int(number)]) for number in np.unique(token_id) if number != NO_TOKEN}
    flat = [known.get(int(number), "") for number in token_id.flat]
    return strings(flat).reshape(token_id.shape)
