"""ReLU codes with an L1 penalty."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat

from chronocoder.variants.base import Batch, CrosscoderSettings, Selection, linear_warmup


class L1(CrosscoderSettings):
    """ReLU codes; their sum weighted by the decoder norms is the penalty (Lindsey et al. 2024, "Crosscoders").

    lambda sum_i f_i sum_m ||W_dec,i^m||, lambda rising linearly.
    """

    sparsity: Literal["l1"] = Field(description="ReLU codes with a penalty on their weighted sum.")
    l1_coefficient: PositiveFloat = Field(description="Weight of the sparsity term, lambda.")
    l1_warmup_fraction: float = Field(0.05, ge=0, le=1, description="Part of the steps over which lambda rises from 0.")

    def train(self, batch: Batch) -> Selection:
        """Keep all positive preactivations."""
        codes = batch.preactivations().relu()
        coefficient = self.l1_coefficient * linear_warmup(batch.step, self.l1_warmup_fraction, self.steps)
        return Selection(batch.dense(codes), coefficient * (batch.sum_tokens(codes) * batch.norms).sum())
