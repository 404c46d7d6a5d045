"""The largest activations of a whole batch."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from chronocoder.variants.base import Batch, Selection, StepCost
from chronocoder.variants.topk import GivenK


class BatchTopK(GivenK):
    """The k B largest weighted activations of B tokens (Bussmann et al. 2412.06410; Minder et al. 2504.02922).

    At inference a latent is active where its weighted activation reaches a threshold learnt in training: the moving
    average of the smallest value that was kept.
    """

    # The first batch has no threshold to go by, so that every positive entry is a candidate, with its place.
    cost: ClassVar[StepCost] = StepCost(sparse=True, matrices=3, rows=2)

    sparsity: Literal["batchtopk"] = Field(description="The k B largest weighted activations of a batch of B tokens.")
    k: PositiveInt = Field(description="Mean number of active latents a token.")
    threshold_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of the moving average of the inference threshold; where not given, it averages over 2 % of"
        " the steps, at most 100.",
    )

    @property
    def _decay(self) -> float:
        return self.threshold_decay or 1 - 1 / min(100, max(2, 0.02 * self.steps))

    def train(self, batch: Batch) -> Selection:
        """Keep the largest weighted activations of the batch, over all processes."""
        codes, smallest = batch.largest_of_batch(self.k_at(batch.step) * batch.tokens)
        threshold = batch.threshold.lerp(smallest, 1 - self._decay) if batch.step else smallest
        return Selection(codes, threshold=threshold)
