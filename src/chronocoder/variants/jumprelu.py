"""Codes above a threshold that each latent learns."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat

from chronocoder.variants.base import Batch, CrosscoderSettings, Selection, StepCost, linear_warmup


class JumpReLU(CrosscoderSettings):
    """Codes above a learnt threshold, with a penalty on their number (Rajamanoharan et al. 2407.14435).

    With w_i = f_i sum_m ||W_dec,i^m||: latent i is active where w_i >= theta_i; the penalty is lambda times the number
    of active latents. The thresholds learn by the paper's pseudo-derivatives (its equations 11 and 12), a rectangle of
    width `bandwidth` around theta_i, in the units of w. The paper holds decoder rows at norm one; here they are free,
    as a crosscoder's have to be, and begin so long that latents are active at first.
    """

    learns_threshold: ClassVar[bool] = True
    cost: ClassVar[StepCost] = StepCost(sparse=False, matrices=5.1, rows=12)

    sparsity: Literal["jumprelu"] = Field(description="Codes above a threshold that each latent learns.")
    decoder_norm: PositiveFloat = Field(0.5, description="Initial norm of each decoder row.")
    l0_coefficient: PositiveFloat = Field(description="Weight of the number of active latents, lambda.")
    l0_warmup_fraction: float = Field(0.05, ge=0, le=1, description="Part of the steps over which lambda rises from 0.")
    initial_threshold: PositiveFloat = Field(
        0.5, description="Weighted activation above which latents are active at first."
    )
    bandwidth: PositiveFloat = Field(1.0, description="Width of the rectangle in which thresholds get a gradient.")

    def train(self, batch: Batch) -> Selection:
        """Keep what reaches the thresholds."""
        codes, number = batch.above(batch.log_threshold.exp(), self.bandwidth)
        coefficient = self.l0_coefficient * linear_warmup(batch.step, self.l0_warmup_fraction, self.steps)
        return Selection(codes, coefficient * number)
