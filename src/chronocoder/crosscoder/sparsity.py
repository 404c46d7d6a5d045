"""The sparsity terms, behind one interface.

A latent's weight in the selection and in the penalty is f_i sum_m ||W_dec,i^m||, with the decoder norms in
normalised units, so that it is the same before and after the normalisation is folded into the weights.
"""

from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch import distributed as dist

from chronocoder.config import CrosscoderSettings


class Selection(NamedTuple):
    """Codes of a training batch.

    Attributes:
        codes: shape (token, feature), zero where not active.
        preactivations: shape (token, feature).
        penalty: mean over tokens of the weighted activations, before its coefficient; zero where the variant has none.
        smallest_kept: the smallest weighted activation that was kept, for the inference threshold; NaN where the
            variant has none.
    """

    codes: Float[Tensor, "token feature"]
    preactivations: Float[Tensor, "token feature"]
    penalty: Float[Tensor, ""]
    smallest_kept: Float[Tensor, ""]


class Sparsity(Protocol):
    """What a variant defines."""

    def train(
        self, preactivations: Tensor, norms: Float[Tensor, " feature"], settings: CrosscoderSettings
    ) -> Selection:
        """Return the codes of a training batch."""

    def infer(self, preactivations: Tensor, norms: Float[Tensor, " feature"], threshold: Tensor) -> Tensor:
        """Return the codes of tokens that do not depend on each other."""


class L1:
    """ReLU codes with an L1 penalty weighted by the decoder norms (Lindsey et al. 2024)."""

    def train(
        self, preactivations: Tensor, norms: Float[Tensor, " feature"], settings: CrosscoderSettings
    ) -> Selection:
        """Return all positive preactivations, and their weighted sum as the penalty."""
        codes = torch.relu(preactivations)
        penalty = (codes @ norms).mean()
        return Selection(codes, preactivations, penalty, torch.full_like(penalty.detach(), torch.nan))

    def infer(self, preactivations: Tensor, norms: Float[Tensor, " feature"], threshold: Tensor) -> Tensor:
        """Return all positive preactivations."""
        return torch.relu(preactivations)


class BatchTopK:
    """The k B largest weighted activations of B tokens (Bussmann et al. 2412.06410; Minder et al. 2504.02922).

    At inference a latent is active where its weighted activation exceeds the threshold learnt in training.
    """

    def train(
        self, preactivations: Tensor, norms: Float[Tensor, " feature"], settings: CrosscoderSettings
    ) -> Selection:
        """Keep the largest weighted activations of the batch, over all processes."""
        positive = torch.relu(preactivations)
        weighted = (positive * norms).detach()
        smallest = smallest_of_top(weighted.flatten(), settings.k * len(preactivations))
        kept: Bool[Tensor, "token feature"] = (weighted >= smallest) & (weighted > 0)
        return Selection(positive * kept, preactivations, positive.new_zeros(()), smallest)

    def infer(self, preactivations: Tensor, norms: Float[Tensor, " feature"], threshold: Tensor) -> Tensor:
        """Return the positive preactivations whose weighted value reaches the threshold."""
        positive = torch.relu(preactivations)
        return positive * (positive * norms >= threshold)


def smallest_of_top(values: Float[Tensor, " n"], count: int) -> Float[Tensor, ""]:
    """Return the smallest of the `count` x processes largest values over all processes, exactly.

    Every process sends its own largest candidates: as many as all kept values together, so that none can be missed.
    """
    processes = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    candidates = values.topk(min(count * processes, len(values))).values
    if processes > 1:
        gathered = [torch.empty_like(candidates) for _ in range(processes)]
        dist.all_gather(gathered, candidates)
        candidates = torch.cat(gathered).topk(min(count * processes, len(candidates) * processes)).values
    return candidates[-1]


SPARSITIES: dict[str, Sparsity] = {"l1": L1(), "batchtopk": BatchTopK()}
