"""Whose code it is: how far the activation of a single checkpoint tells the code that all of them make together.

A crosscoder encodes all checkpoints at once, so that a code at an early checkpoint may be known from a late one alone.
The own code of a checkpoint is what the encoder makes of its activation when those of all others are replaced by their
best linear predictions from it. Predictions are cross-fitted: sequences of even index use those fitted on the odd ones,
and vice versa, so that nothing is predicted by what it was fitted on.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from chronocoder.activations.loader import ActivationStores
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig
from chronocoder.crosscoder.statistics import Statistics, Sums
from chronocoder.errors import StoreError
from chronocoder.stores import labelled, strings

RIDGE = 1e-6
"""Added to the variances of the predicting checkpoint, in normalised units: weights stay small enough for float32."""
SUPPORTED = "whether the checkpoint's activations tell the code, or it never varies"


def odd_sequences(stores: ActivationStores) -> Bool[Tensor, " token"]:
    """Return which rows are of a sequence of odd index: the two folds.

    Raises:
        StoreError: all sequences are of one fold.
    """
    sequence = stores.text_columns()["sequence"].values
    odd: np.ndarray = sequence % 2 == 1
    if odd.all() or not odd.any():
        raise StoreError(
            f"{stores.name}: holds {len(np.unique(sequence))} sequence(s), and none to fit predictions on beside those"
            " that are predicted; raise the corpus' validation_tokens to two sequences or more"
        )
    return torch.from_numpy(odd)


@dataclass(frozen=True)
class OwnMaps:
    """Linear predictions of the activations of all checkpoints from that of one, in raw units.

    Index `fold` is the parity of the sequences that a prediction is for; it was fitted on those of the other parity.

    Attributes:
        weights: B of each predicting checkpoint, shape (fold, checkpoint, d_model, checkpoint * d_model).
        fitted_mean: mean activation of the sequences that were fitted on, shape (fold, checkpoint, d_model).
        mean: mean activation of all tokens, shape (checkpoint, d_model).
    """

    weights: Float[Tensor, "fold checkpoint d_model n"]
    fitted_mean: Float[Tensor, "fold checkpoint d_model"]
    mean: Float[Tensor, "checkpoint d_model"]

    def complete(
        self, x: Float[Tensor, "token checkpoint d_model"], known: int, odd: Bool[Tensor, " token"]
    ) -> Float[Tensor, "token checkpoint d_model"]:
        """Return the activations with those of all checkpoints but `known` predicted from its own."""
        completed = torch.empty_like(x)
        for fold, mean in enumerate(self.fitted_mean):
            rows = odd == bool(fold)
            predicted = torch.addmm(mean.flatten(), x[rows, known] - mean[known], self.weights[fold, known])
            completed[rows] = predicted.view(-1, *mean.shape)
        completed[:, known] = x[:, known]
        return completed

    def for_other_text(self, supported: Bool[np.ndarray, "checkpoint feature"]) -> "OwnCodes":
        """Return what makes own codes of text that is of neither fold, by the mean of both predictions.

        Args:
            supported: where the own code is near enough to the code.
        """
        of_mean = torch.einsum("kmd,kmdn->kmn", self.fitted_mean, self.weights)
        offset = (self.fitted_mean.flatten(1)[:, None] - of_mean).mean(dim=0)
        return OwnCodes(self.weights.mean(dim=0), offset, supported)


@dataclass(frozen=True)
class OwnCodes:
    """What makes the own codes of any text but that of the evaluation: linear predictions, in raw units.

    Attributes:
        weights: of the activations of all checkpoints on that of the first dimension, shape (checkpoint, d_model,
            checkpoint * d_model).
        offset: what is added to the predictions, shape (checkpoint, checkpoint * d_model).
        supported: where the own code is near enough to the code, shape (checkpoint, feature).
    """

    weights: Float[Tensor, "checkpoint d_model n"]
    offset: Float[Tensor, "checkpoint n"]
    supported: Bool[np.ndarray, "checkpoint feature"]

    def encode(
        self, crosscoder: Crosscoder, activation: Float[Tensor, "token d_model"], known: int
    ) -> Float[Tensor, "token feature"]:
        """Return the own code of a checkpoint's activations."""
        width = activation.shape[1]
        predicted = torch.addmm(self.offset[known], activation, self.weights[known, :width])
        completed = predicted.unflatten(1, crosscoder.b_dec.shape)
        completed[:, known, :width] = activation
        return crosscoder.encode(completed)


def own_codes_dataset(own_codes: OwnCodes, config: CrosscoderConfig) -> xr.Dataset:
    """Return the store `own_codes.zarr`."""
    dims = ("checkpoint", "d_model", "predicted_checkpoint", "predicted_d_model")
    weights, offset = (
        values.unflatten(-1, (-1, config.d_model)).cpu().numpy() for values in (own_codes.weights, own_codes.offset)
    )
    return xr.Dataset(
        {
            "weights": labelled(dims, weights, "weights of the predicted activations on the checkpoint's, raw units"),
            "offset": labelled((dims[0], *dims[2:]), offset, "what is added to the predictions, raw units"),
            "code_supported": labelled(("checkpoint", "feature"), own_codes.supported, SUPPORTED),
        },
        coords={name: strings(config.checkpoints) for name in (dims[0], dims[2])},
    )


def read_own_codes(store: xr.Dataset, crosscoder: Crosscoder) -> OwnCodes:
    """Return what a store holds.

    Raises:
        StoreError: it is of another crosscoder.
    """
    for key, expected in crosscoder.facts.items():
        if store.attrs.get(key) != expected:
            raise StoreError(
                f"the own codes given have {key} {store.attrs.get(key)}, not {expected}; give those of this crosscoder"
            )
    weights, offset = (torch.from_numpy(store[name].values).to(crosscoder.b_dec) for name in ("weights", "offset"))
    return OwnCodes(weights.flatten(2), offset.flatten(1), store["code_supported"].values)


@dataclass
class _Moments:
    """Sums over the tokens of a fold, in float64.

    Attributes:
        tokens: tokens so far.
        total: sum of a, shape (checkpoint * d_model,).
        product: sum of a a^T, shape (checkpoint * d_model, checkpoint * d_model).
    """

    tokens: int
    total: Float[Tensor, " n"]
    product: Float[Tensor, "n n"]

    @classmethod
    def nothing(cls, width: int, device: torch.device) -> "_Moments":
        total = torch.zeros(width, dtype=torch.float64, device=device)
        return cls(0, total, total.new_zeros(width, width))

    def add(self, x: Float[Tensor, "token n"]) -> None:
        wide = x.double()
        self.tokens += len(x)
        self.total += wide.sum(dim=0)
        self.product.addmm_(wide.T, wide)

    def predictions(self, scale: Float[Tensor, " checkpoint"]) -> Float[Tensor, "checkpoint d_model n"]:
        """Return B of each checkpoint m, (C_mm + ridge)^-1 C_m, in raw units: the ridge is divided by s_m^2."""
        mean = self.total / self.tokens
        covariance = torch.addr(self.product / self.tokens, mean, mean, alpha=-1).unflatten(0, (len(scale), -1))
        width = covariance.shape[1]
        own = torch.stack([rows[:, m * width : (m + 1) * width] for m, rows in enumerate(covariance)])
        own.diagonal(dim1=1, dim2=2).add_(RIDGE / scale.double().pow(2)[:, None])
        return torch.cholesky_solve(covariance, torch.linalg.cholesky(own)).float()


@torch.no_grad()
def fit_maps(
    crosscoder: Crosscoder, blocks: Iterable[Float[Tensor, "token checkpoint d_model"]], odd: Bool[Tensor, " token"]
) -> OwnMaps:
    """Fit the predictions by least squares, from the second moments of a whole split.

    Args:
        crosscoder: folded; its normalisation is the unit of the ridge.
        blocks: raw activations.
        odd: the fold of each row, in the order of the blocks.
    """
    shape, device = crosscoder.b_dec.shape, crosscoder.b_dec.device
    even, uneven = (_Moments.nothing(shape.numel(), device) for _ in range(2))
    for x, is_odd in _with_folds(blocks, odd, device):
        even.add(x[~is_odd].flatten(1))
        uneven.add(x[is_odd].flatten(1))
    fitted = (uneven, even)
    return OwnMaps(
        weights=torch.stack([moments.predictions(crosscoder.scale) for moments in fitted]),
        fitted_mean=torch.stack([(moments.total / moments.tokens).float().view(shape) for moments in fitted]),
        mean=((even.total + uneven.total) / (even.tokens + uneven.tokens)).float().view(shape),
    )


@dataclass
class OwnErrors(Sums):
    """What own codes miss, summed over tokens in float64.

    Attributes:
        activation: sum of ||x - x_hat||^2 with x_hat^m from the own code of m, normalised units, shape (checkpoint,).
        code: sum of (f - f_own)^2, shape (checkpoint, feature).
    """

    activation: Float[Tensor, " checkpoint"]
    code: Float[Tensor, "checkpoint feature"]

    @classmethod
    def of(
        cls,
        crosscoder: Crosscoder,
        maps: OwnMaps,
        x: Float[Tensor, "token checkpoint d_model"],
        odd: Bool[Tensor, " token"],
    ) -> "OwnErrors":
        """Measure a block of raw activations with a folded crosscoder, one checkpoint after another."""
        codes = crosscoder.encode(x)
        errors = [_errors_at(crosscoder, maps, x, odd, codes, m) for m in range(x.shape[1])]
        activation, code = (torch.stack(values) for values in zip(*errors, strict=True))
        return cls(activation * crosscoder.scale.pow(2), code)

    def explained_variance(self, statistics: Statistics) -> Float[Tensor, " checkpoint"]:
        """Return the explained variance of each checkpoint's reconstruction from its own code."""
        return 1 - self.activation / statistics.variance

    def code_r2(self, statistics: Statistics) -> Float[Tensor, "checkpoint feature"]:
        """Return 1 - sum (f - f_own)^2 / sum (f - f_bar)^2; NaN where f is constant."""
        return 1 - self.code / statistics.code_variance


@torch.no_grad()
def measure_own_codes(
    crosscoder: Crosscoder,
    maps: OwnMaps,
    blocks: Iterable[Float[Tensor, "token checkpoint d_model"]],
    odd: Bool[Tensor, " token"],
) -> OwnErrors:
    """Measure the own codes of all checkpoints against the codes, block by block; arguments as `fit_maps`."""
    halves = _with_folds(blocks, odd, crosscoder.b_dec.device)
    parts = (OwnErrors.of(crosscoder, maps, x, is_odd) for x, is_odd in halves)
    errors = next(parts)
    for part in parts:
        errors.merge(part)
    return errors


def _errors_at(
    crosscoder: Crosscoder,
    maps: OwnMaps,
    x: Float[Tensor, "token checkpoint d_model"],
    odd: Bool[Tensor, " token"],
    codes: Float[Tensor, "token feature"],
    m: int,
) -> tuple[Float[Tensor, ""], Float[Tensor, " feature"]]:
    own = crosscoder.encode(maps.complete(x, m, odd))
    missed = x[:, m] - crosscoder.decode_at(own, m)
    return missed.pow(2).sum(dtype=torch.float64), own.sub_(codes).pow_(2).sum(dim=0).double()


@torch.no_grad()
def reconstruct_from_own(
    crosscoder: Crosscoder,
    maps: OwnMaps,
    x: Float[Tensor, "token checkpoint d_model"],
    odd: Bool[Tensor, " token"],
) -> Float[Tensor, "token checkpoint d_model"]:
    """Return each checkpoint's reconstruction from its own code."""
    own = (crosscoder.decode_at(crosscoder.encode(maps.complete(x, m, odd)), m) for m in range(x.shape[1]))
    return torch.stack(list(own), dim=1)


def _with_folds(
    blocks: Iterable[Float[Tensor, "token checkpoint d_model"]], odd: Bool[Tensor, " token"], device: torch.device
) -> Iterator[tuple[Float[Tensor, "token checkpoint d_model"], Bool[Tensor, " token"]]]:
    start = 0
    for block in blocks:
        yield block.to(device), odd[start : start + len(block)].to(device)
        start += len(block)
