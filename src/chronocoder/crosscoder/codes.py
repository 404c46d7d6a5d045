"""Activations of latents on a batch, as a matrix or as a list of the active ones."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from chronocoder.crosscoder.parts import OwnTokens
from chronocoder.crosscoder.sparse import ActiveLatents, sparse_decode


class Codes(Protocol):
    """What training needs to know of the activations of latents on a batch."""

    def decode(self, rows: Float[Tensor, "feature n"]) -> Float[Tensor, "token n"]:
        """Return the sum of the decoder rows weighted by the activations, with gradients."""

    def active(self) -> Bool[Tensor, " feature"]:
        """Return which latents are active on any token."""

    def count(self) -> Int[Tensor, ""]:
        """Return the number of active latents, summed over tokens."""


@dataclass(frozen=True)
class DenseCodes:
    """Codes held as a matrix.

    Attributes:
        values: shape (token, feature).
        dealt: the tokens.
    """

    values: Float[Tensor, "token feature"]
    dealt: OwnTokens

    def decode(self, rows: Float[Tensor, "feature n"]) -> Float[Tensor, "token n"]:
        """Return the sum of the decoder rows weighted by the activations, with gradients."""
        return self.dealt.multiply(self.values, rows, torch.is_autocast_enabled(rows.device.type))

    def active(self) -> Bool[Tensor, " feature"]:
        """Return which latents are active on any token."""
        if not len(self.values):
            return torch.zeros(self.values.shape[1], dtype=torch.bool, device=self.values.device)
        largest: Tensor = self.values.detach().amax(dim=0)
        return largest > 0

    def count(self) -> Int[Tensor, ""]:
        """Return the number of active latents, summed over tokens."""
        return (self.values > 0).sum()


@dataclass(frozen=True)
class SparseCodes:
    """Codes held as a list.

    Attributes:
        entries: which latents are active on which token.
        values: their activations, with gradient, shape (active,).
        features: latents of the dictionary, or of this process's shard.
        dealt: the tokens.
    """

    entries: ActiveLatents
    values: Float[Tensor, " active"]
    features: int
    dealt: OwnTokens

    def decode(self, rows: Float[Tensor, "feature n"]) -> Float[Tensor, "token n"]:
        """Return the sum of the decoder rows weighted by the activations, with gradients that touch only these."""
        return sparse_decode(self.values, self.entries, rows, self.dealt.sum_by_feature)

    def active(self) -> Bool[Tensor, " feature"]:
        """Return which latents are active on any token."""
        seen = torch.zeros(self.features, dtype=torch.bool, device=self.values.device)
        seen[self.entries.features] = True
        return seen

    def count(self) -> Int[Tensor, ""]:
        """Return the number of active latents, summed over tokens."""
        return torch.tensor(len(self.entries.features), device=self.values.device)
