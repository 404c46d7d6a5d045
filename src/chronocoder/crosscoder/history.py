"""Losses and metrics of training batches, over all processes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from chronocoder.crosscoder.batch import TrainingBatch
from chronocoder.crosscoder.codes import Codes
from chronocoder.crosscoder.state import Record
from chronocoder.stores import labelled, strings

LONG_NAMES = {
    "loss": "training loss",
    "squared_error": "squared error summed over the width, in normalised units",
    "explained_variance": "explained variance of the batch",
    "penalty": "sparsity term of the loss",
    "auxiliary_loss": "squared error of the dead latents' guess of the residual",
    "l0": "mean number of active latents a token",
    "dead_fraction": "part of the latents that have been silent for dead_after_tokens",
    "threshold": "mean inference threshold",
    "learning_rate": "learning rate of the step",
}


@dataclass(frozen=True)
class Losses:
    """The parts of a batch's loss, of the latents that this process holds.

    Attributes:
        error: x - x_hat, shape (token, n).
        penalty: the variant's term, summed over tokens as `OwnTokens.sum` does.
        auxiliary: the auxiliary loss, before its coefficient, summed alike.
    """

    error: Float[Tensor, "token n"]
    penalty: Float[Tensor, ""]
    auxiliary: Float[Tensor, ""]

    def total(self, batch: TrainingBatch) -> Float[Tensor, ""]:
        """Return what has the gradients of the mean loss that this process is to compute."""
        weight = batch.crosscoder.config.settings.auxiliary_coefficient
        return (self.error.pow(2).sum() + self.penalty + weight * self.auxiliary) / batch.tokens

    @torch.no_grad()
    def metrics(self, batch: TrainingBatch, codes: Codes, dead: Bool[Tensor, " feature"]) -> Record:
        """Return the metrics of the whole batch: explained variance is a ratio of sums over all processes."""
        crosscoder, team, tokens = batch.crosscoder, batch.team, batch.tokens
        shape = crosscoder.b_dec.shape
        dealt = batch.dealt
        sums = torch.stack([dealt.total(of) for of in (self.error.pow(2), batch.x, batch.x.pow(2))])
        squares, total, squared = dealt.complete(sums).view(3, *shape)
        squares, variance = squares.sum(dim=1), (squared - total.pow(2) / tokens).sum(dim=1)
        penalty = float(team.add_shards(dealt.complete(self.penalty))) / tokens
        auxiliary, count = float(dealt.complete(self.auxiliary)) / tokens, int(team.add_all(codes.count())) / tokens
        settings = crosscoder.config.settings
        dead_count, threshold = team.add_shards(torch.stack([dead.sum(), crosscoder.current_threshold.sum()])).tolist()
        return {
            "loss": float(squares.sum()) / tokens + penalty + settings.auxiliary_coefficient * auxiliary,
            "squared_error": (squares / tokens).tolist(),
            "explained_variance": (1 - squares / variance).tolist(),
            "penalty": penalty,
            "auxiliary_loss": auxiliary,
            "l0": count,
            "dead_fraction": dead_count / settings.dictionary_size,
            "threshold": threshold / settings.dictionary_size,
        }


def history_dataset(records: Sequence[Record], checkpoints: Sequence[str]) -> xr.Dataset:
    """Return the metrics of the logged steps, dims (step,) and (step, checkpoint)."""
    variables = {}
    for name, long_name in LONG_NAMES.items():
        values = np.array([record[name] for record in records], dtype=np.float64)
        variables[name] = labelled(("step", "checkpoint")[: values.ndim], values, long_name)
    steps = np.array([record["step"] for record in records], dtype=np.int64)
    return xr.Dataset(variables, coords={"step": steps, "checkpoint": strings(checkpoints)})
