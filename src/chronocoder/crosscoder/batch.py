"""A training batch as the variants see it."""

from collections.abc import Sequence
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from chronocoder.crosscoder.codes import Codes, DenseCodes, SparseCodes
from chronocoder.crosscoder.jump import jump
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.crosscoder.parts import DealtTokens, OwnTokens
from chronocoder.crosscoder.sparse import ActiveLatents, dense_preactivations, sparse_encode
from chronocoder.crosscoder.team import Team


class TrainingBatch:
    """The tokens and latents of a batch that this process holds.

    Attributes:
        crosscoder: the latents that this process holds.
        x: normalised activations, checkpoints side by side, shape (token, checkpoint * d_model).
        step: training step, from 0.
        tokens: tokens of the batch over all processes.
        team: the processes.
        dealt: its tokens, as parts of the whole batch where `part_sizes`, the tokens of each part of all processes, is
            given.
        smallest: the smallest weighted activation that was kept of the last batch, where the variant keeps the largest
            of a batch; its own as soon as that is known. How long the search takes depends on it, and nothing else.
    """

    def __init__(
        self,
        crosscoder: Crosscoder,
        x: Float[Tensor, "token n"],
        step: int,
        tokens: int,
        team: Team | None = None,
        smallest: Tensor | None = None,
        part_sizes: Sequence[int] | None = None,
    ) -> None:
        self.crosscoder, self.x, self.step, self.tokens = crosscoder, x, step, tokens
        self.team = team or Team()
        self.dealt = DealtTokens(part_sizes, self.team) if part_sizes else OwnTokens(self.team)
        self.smallest = self.threshold if smallest is None else smallest
        self._values: Tensor | None = None

    @cached_property
    def norms(self) -> Float[Tensor, " feature"]:
        """The sum over checkpoints of the decoder norms, with gradient."""
        return self.crosscoder.decoder_norms.sum(dim=0)

    @property
    def log_threshold(self) -> Float[Tensor, " feature"]:
        """Logarithm of the learnt thresholds."""
        return self.crosscoder.log_threshold

    @property
    def threshold(self) -> Float[Tensor, ""]:
        """The inference threshold before this batch."""
        return self.crosscoder.threshold[0]

    def preactivations(self) -> Float[Tensor, "token feature"]:
        """Return W_enc x + b_enc, with gradient."""
        dense = self._preactivations()
        self._values = dense.detach()
        return dense

    @torch.no_grad()
    def values(self) -> Float[Tensor, "token feature"]:
        """Return W_enc x + b_enc without gradient, computed once."""
        if self._values is None:
            crosscoder = self.crosscoder
            if torch.is_autocast_enabled(self.x.device.type):
                self._values = self._preactivations()
            else:
                rows = crosscoder.encoder_rows.flatten(1)
                self._values = dense_preactivations(self.x, rows, crosscoder.b_enc, self.dealt.row_blocks)
        return self._values

    def dense(self, codes: Float[Tensor, "token feature"]) -> Codes:
        """Return codes that are held as a matrix."""
        return DenseCodes(codes, self.dealt)

    def sum_tokens(self, values: Float[Tensor, "token n"]) -> Float[Tensor, " n"]:
        """Return the sum over tokens, with gradient, for a penalty."""
        return self.dealt.sum(values)

    def above(self, threshold: Float[Tensor, " feature"], bandwidth: float) -> tuple[Codes, Float[Tensor, ""]]:
        """Return the activations whose weight reaches a threshold as codes, and their number."""
        codes, number = jump(self.preactivations(), self.norms.detach(), threshold, bandwidth, self.dealt)
        return self.dense(codes), number

    def largest_of_batch(self, count: int) -> tuple[Codes, Float[Tensor, ""]]:
        """Return the `count` largest weighted activations of the whole batch as codes, and the smallest of them."""
        entries, self.smallest = self.team.keep_largest(self.values(), self.norms, count, self.smallest)
        return self.at(entries), self.smallest

    def largest_of_token(self, count: int) -> Codes:
        """Return the `count` largest weighted activations of each token, over all latents, as codes."""
        return self.at(self.team.largest_of_token(self.values(), self.norms, count))

    def at(self, entries: ActiveLatents) -> SparseCodes:
        """Return the preactivations at some places as codes."""
        crosscoder = self.crosscoder
        rows = crosscoder.encoder_rows.flatten(1)
        values = sparse_encode(self.x, rows, crosscoder.b_enc, entries, self.values(), self.dealt.sum_by_feature)
        return SparseCodes(entries, values, len(rows), self.dealt)

    def _preactivations(self) -> Float[Tensor, "token feature"]:
        crosscoder = self.crosscoder
        if self.dealt.row_blocks is None:
            return crosscoder.preactivations(self.x)
        halved = torch.is_autocast_enabled(self.x.device.type)
        product = self.dealt.multiply(self.x, crosscoder.encoder_rows.flatten(1).T, halved)
        return product.add_(self.dealt.spread(crosscoder.b_enc))
