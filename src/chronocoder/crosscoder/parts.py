"""The tokens of a batch, dealt to parts so that no rounding depends on the number of processes.

The sum of floating-point numbers depends on their order, and a matrix product on its shape. A batch is therefore dealt
to a fixed number of parts, of which every process holds as many, and nothing is added up over processes but integers:
a product that has a row for each token is computed part by part; a sum over tokens is taken of each part, and all
processes add up those of all parts; a product that sums over tokens is computed from the tokens of all processes, one
block of latents after the other, by the process that the block falls to. All of it is the same for one process, which
holds every part and every block.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from chronocoder.crosscoder.products import half_product, multiply
from chronocoder.crosscoder.sparse import ActiveLatents, sum_by_feature
from chronocoder.crosscoder.team import Team

ALIGNMENT = 64
"""Bytes, of all memory that PyTorch gives."""


class OwnTokens:
    """The tokens of a process that sums over them alone: the gradients of all processes are added up afterwards.

    Attributes:
        row_blocks: numbers of tokens whose rows of a product are computed by themselves; None where that is left open.
    """

    def __init__(self, team: Team) -> None:
        self.row_blocks: list[int] | None = None
        self._team = team

    def multiply(
        self, left: Float[Tensor, "token n"], right: Float[Tensor, "n m"], halved: bool
    ) -> Float[Tensor, "token m"]:
        """Return left @ right with gradients, in bfloat16 if `halved`; `right` is of rows of latents, or transposed."""
        return half_product(left, right) if halved else left @ right

    def spread(self, vector: Float[Tensor, " n"]) -> Float[Tensor, "*token n"]:
        """Return a vector to be added to the row of each token, with gradient."""
        return vector

    def sum(self, values: Float[Tensor, "token n"]) -> Float[Tensor, " n"]:
        """Return the sum over tokens with gradient, for a loss."""
        return values.sum(dim=0)

    def total(self, values: Float[Tensor, "token n"]) -> Float[Tensor, " n"]:
        """Return the same sum without gradient."""
        return values.detach().sum(dim=0)

    def count(self, counted: Tensor) -> Tensor:
        """Return a number of tokens of this process as the number of those that `sum` is over."""
        return counted

    def complete(self, summed: Tensor) -> Tensor:
        """Return what `sum`, `total` or `count` found as that of the tokens of all processes."""
        return self._team.add_parts(summed)

    def sum_by_feature(
        self,
        table: Float[Tensor, "token n"] | None,
        weights: Float[Tensor, " active"],
        active: ActiveLatents,
        features: int,
        dtype: torch.dtype,
    ) -> Float[Tensor, "feature ..."]:
        """Return the sums over the entries of each latent, as `sparse.sum_by_feature`."""
        return sum_by_feature(table, weights, active, features, dtype)


class DealtTokens(OwnTokens):
    """The tokens of a process as parts of a batch: all sums over tokens, and so all gradients, are of the whole batch.

    Attributes:
        row_blocks: tokens of each part of this process.
    """

    def __init__(self, part_sizes: Sequence[int], team: Team) -> None:
        """Keep the sizes.

        Args:
            part_sizes: tokens of each part, of all processes.
            team: the processes.
        """
        super().__init__(team)
        self._parts, self._each = len(part_sizes), len(part_sizes) // team.data_parts
        own = slice(team.part * self._each, (team.part + 1) * self._each)
        self.row_blocks: list[int] = list(part_sizes[own])
        self._tokens = _sums_of(part_sizes, self._each)
        self._entries: dict[ActiveLatents, tuple[ActiveLatents, list[int]]] = {}

    def multiply(
        self, left: Float[Tensor, "token n"], right: Float[Tensor, "n m"], halved: bool
    ) -> Float[Tensor, "token m"]:
        """Return the product part by part; the gradient of `right` is of all tokens."""
        product: Tensor = _Product.apply(left, right, self, halved)  # type: ignore[no-untyped-call]
        return product

    def spread(self, vector: Float[Tensor, " n"]) -> Float[Tensor, "*token n"]:
        """Return the vector for each token; its gradient is of all tokens."""
        rows: Tensor = _Spread.apply(vector, self)  # type: ignore[no-untyped-call]
        return rows

    def sum(self, values: Float[Tensor, "token n"]) -> Float[Tensor, " n"]:
        """Return the sum over the tokens of all processes with gradient."""
        summed: Tensor = _Sum.apply(values, self)  # type: ignore[no-untyped-call]
        return summed

    def total(self, values: Float[Tensor, "token n"]) -> Float[Tensor, " n"]:
        """Return the same sum without gradient: the parts' sums are added up by every process."""
        of_parts = torch.stack([block.sum(dim=0) for block in values.detach().split(self.row_blocks)])
        return self._team.gather_rows(of_parts, [self._each] * self._team.data_parts).sum(dim=0)

    def count(self, counted: Tensor) -> Tensor:
        """Return the number of tokens of all processes: integers add up to the same in any order."""
        return self._team.add_parts(counted)

    def complete(self, summed: Tensor) -> Tensor:
        """Return what is complete already."""
        return summed

    def sum_by_feature(
        self,
        table: Float[Tensor, "token n"] | None,
        weights: Float[Tensor, " active"],
        active: ActiveLatents,
        features: int,
        dtype: torch.dtype,
    ) -> Float[Tensor, "feature ..."]:
        """Return the sums over all processes' entries of each latent, each added up by one process, in their order."""
        if self._team.data_parts == 1:
            return sum_by_feature(table, weights, active, features, dtype)
        whole, counts = self._of_all(active)
        rows = None if table is None else self._team.gather_rows(table, self._tokens)
        sizes = self._features(features)
        first = sum(sizes[: self._team.part])
        own = range(first, first + sizes[self._team.part])
        summed = sum_by_feature(rows, self._team.gather_rows(weights, counts), whole, features, dtype, own)
        return self._team.gather_rows(summed, sizes)

    def rows_of_product(self, left: Tensor, right: Tensor) -> Float[Tensor, "token m"]:
        """Return left @ right in float32, part by part."""
        product = left.new_empty(len(left), right.shape[1], dtype=torch.float32)
        for block, into in zip(left.split(self.row_blocks), product.split(self.row_blocks), strict=True):
            if len(block):
                _multiply_aligned(block, right, into)
        return product

    def product_over_tokens(
        self, of_latents: Float[Tensor, "token feature"], other: Float[Tensor, "token n"]
    ) -> Float[Tensor, "feature n"]:
        """Return the sum over the tokens of all processes of the products of two rows, in float32, block by block."""
        sizes = self._features(of_latents.shape[1])
        columns = self._team.exchange_columns(of_latents, self._tokens, sizes)
        rows = self._team.gather_rows(other, self._tokens)
        product = rows.new_empty(columns.shape[1], rows.shape[1], dtype=torch.float32)
        own = slice(self._team.part * self._each, (self._team.part + 1) * self._each)
        blocks = even_sizes(of_latents.shape[1], self._parts)[own]
        for block, into in zip(columns.split(blocks, dim=1), product.split(blocks), strict=True):
            if len(into):
                _multiply_aligned(block.contiguous(), rows, into, transposed=True)
        return self._team.gather_rows(product, sizes)

    def _features(self, features: int) -> list[int]:
        """Return how many latents' gradients each process computes."""
        return _sums_of(even_sizes(features, self._parts), self._each)

    def _of_all(self, active: ActiveLatents) -> tuple[ActiveLatents, list[int]]:
        """Return the entries of all processes, and how many each of them has."""
        if active not in self._entries:
            of_token = self._team.gather_rows(active.offsets.diff(), self._tokens)
            offsets = torch.nn.functional.pad(of_token.cumsum(dim=0), (1, 0))
            ends = [sum(self._tokens[:number]) for number in range(len(self._tokens) + 1)]
            counts = [stop - start for start, stop in pairwise(offsets[ends].tolist())]
            whole = ActiveLatents(offsets, self._team.gather_rows(active.features, counts))
            self._entries[active] = whole, counts
        return self._entries[active]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, left: Tensor, right: Tensor, dealt: DealtTokens, halved: bool) -> Tensor:
        context.transposed = right.stride(0) < right.stride(1)  # its gradient has to lie as it does
        context.dealt, context.halved = dealt, halved
        factors = (left.bfloat16(), right.bfloat16()) if halved else (left, right)
        context.save_for_backward(*factors)
        return dealt.rows_of_product(*factors)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (left, right), dealt, of_left, of_right = context.saved_tensors, context.dealt, None, None
        gradient = gradients[0].bfloat16() if context.halved else gradients[0]
        if context.needs_input_grad[0]:
            of_left = dealt.rows_of_product(gradient, right.T)
        if context.needs_input_grad[1]:
            factors = (gradient, left) if context.transposed else (left, gradient)
            of_right = dealt.product_over_tokens(*factors)
        return of_left, of_right.T if context.transposed and of_right is not None else of_right, None, None


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, vector: Tensor, dealt: DealtTokens) -> Tensor:
        context.dealt = dealt
        return vector.expand(sum(dealt.row_blocks), -1)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return context.dealt.total(gradients[0]), None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor, dealt: DealtTokens) -> Tensor:
        context.shape = values.shape
        return dealt.total(values)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].expand(context.shape), None


def _multiply_aligned(left: Tensor, right: Tensor, into: Tensor, transposed: bool = False) -> None:
    """Multiply matrices that begin where new memory does: a product of others may be rounded differently."""
    left = left if left.data_ptr() % ALIGNMENT == 0 else left.clone()
    left = left.T if transposed else left
    if into.data_ptr() % ALIGNMENT == 0:
        multiply(left, right, into)
    else:
        into.copy_(multiply(left, right))


def even_sizes(count: int, parts: int) -> list[int]:
    """Return the sizes of parts that are as equal as can be."""
    return [count // parts + (number < count % parts) for number in range(parts)]


def _sums_of(sizes: Sequence[int], each: int) -> list[int]:
    return [sum(sizes[first : first + each]) for first in range(0, len(sizes), each)]
