"""The k largest activations of each token."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from chronocoder.variants.base import Batch, CrosscoderSettings, Selection, StepCost, linear_warmup

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class GivenK(CrosscoderSettings):
    """What the variants have in common whose number of active latents is given."""

    k: PositiveInt = Field(description="Active latents a token.")
    k_initial: PositiveInt | None = Field(
        None, description="Where given: active latents a token at the first step, changing linearly to k."
    )
    k_anneal_fraction: float = Field(0.2, ge=0, le=1, description="Part of the steps over which k changes.")
    auxiliary_coefficient: NonNegativeFloat = Field(
        1 / 32, description="Weight of the loss by which dead latents learn the residual."
    )

    def k_at(self, step: int) -> int:
        """Return k at a training step: annealed linearly from `k_initial`."""
        if self.k_initial is None:
            return self.k
        done = linear_warmup(step, self.k_anneal_fraction, self.steps)
        return round(self.k_initial + done * (self.k - self.k_initial))

    @property
    def mean_k(self) -> float:
        """Return the mean over the steps of the active latents a token."""
        annealing = self.k_anneal_fraction if self.k_initial else 0.0
        return self.k + annealing * ((self.k_initial or self.k) - self.k) / 2

    @model_validator(mode="after")
    def _k_fits(self) -> GivenK:
        for name in ("k", "k_initial"):
            value = getattr(self, name)
            if value is not None and value > self.dictionary_size:
                raise ValueError(f"{name} {value} exceeds dictionary_size {self.dictionary_size}; lower it")
        return self


class TopK(GivenK):
    """The k largest weighted activations of each token, in training and at inference (Gao et al. 2406.04093)."""

    cost: ClassVar[StepCost] = StepCost(sparse=True, matrices=2.3, rows=2)

    sparsity: Literal["topk"] = Field(description="The k largest weighted activations of each token.")

    def train(self, batch: Batch) -> Selection:
        """Keep the largest weighted activations of each token, over all latents."""
        return Selection(batch.largest_of_token(self.k_at(batch.step)))

    def infer(
        self,
        preactivations: Float[Tensor, "token feature"],
        norms: Float[Tensor, " feature"],
        threshold: Float[Tensor, " feature"],
    ) -> Float[Tensor, "token feature"]:
        """Keep the k largest weighted activations of each token."""
        positive = preactivations.relu()
        weighted = positive * norms
        return positive * (weighted >= weighted.topk(self.k, dim=1).values[:, -1:])
