"""Arithmetic on the active latents alone: a sparse code costs its active entries, not its dictionary.

Only the encoder's product with the whole dictionary is dense. Decoding and every weight gradient are weighted sums of
rows, out[s] = sum_{j in segment s} w_j table[i_j] (segments are tokens to decode, features for the gradients), and the
gradient of the code is the dot product of two rows for each active entry (kernels of Gao et al. 2406.04093, D.2).
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from chronocoder.crosscoder.awaited import Awaited

GATHERED = 1 << 22  # numbers that the plain kernels copy at a time
TOKENS_AT_A_TIME = 256  # keeps the scores of a block of tokens in the processor's cache
TOKENS_ON_GPU = 4096
GROUP = 32  # columns of which a GPU looks for the largest number first
GUESS_SLACK = 0.8  # by how much the answer may fall below its guess and still be found among the candidates
_log = logging.getLogger(__name__)


class ByFeature(NamedTuple):
    """The active entries sorted by feature: where each feature's begin, the token of each, and its former place."""

    offsets: Int[Tensor, " feature_plus_one"]
    tokens: Int[Tensor, " active"]
    order: Int[Tensor, " active"]


@dataclass(frozen=True, eq=False)
class ActiveLatents:
    """Where a batch's codes are not zero, sorted by token.

    Attributes:
        offsets: int64; the entries of token t are offsets[t]:offsets[t + 1], shape (token + 1,).
        features: int64; the latent of each entry, shape (active,).
    """

    offsets: Int[Tensor, " token_plus_one"]
    features: Int[Tensor, " active"]

    @cached_property
    def tokens(self) -> Int[Tensor, " active"]:
        """The token of each entry."""
        return _owners(self.offsets, len(self.features))

    @cached_property
    def _sorted(self) -> tuple[Int[Tensor, " active"], Int[Tensor, " active"], Int[Tensor, " active"]]:
        features, order = self.features.int().sort(stable=True)  # half the bits take half the time to sort
        return features, self.tokens[order], order

    def by_feature(self, dictionary_size: int) -> ByFeature:
        """Return the entries sorted by feature; they are sorted once, for the gradients of all weights."""
        features, tokens, order = self._sorted
        starts = torch.arange(dictionary_size + 1, device=features.device, dtype=torch.int32)
        return ByFeature(torch.searchsorted(features, starts), tokens, order)


class Kept(NamedTuple):
    """The largest entries of a batch.

    Attributes:
        active: where they are.
        smallest: the smallest that was kept over all processes, scalar; 0 if every positive one was.
    """

    active: ActiveLatents
    smallest: Float[Tensor, ""]


class Largest(NamedTuple):
    """The largest numbers of each row.

    Attributes:
        values: shape (row, k).
        indices: their columns, int64, shape (row, k).
    """

    values: Float[Tensor, "row k"]
    indices: Int[Tensor, "row k"]


class Backend(NamedTuple):
    """The kernels for one kind of device; none of them is differentiable.

    Attributes:
        linear: (x (token, n), weight (feature, n), bias (feature,), blocks of tokens to compute by themselves, or None)
            to x weight^T + bias, shape (token, feature).
        sum_rows: (table (row, n), indices (active,), weights (active,), offsets (segment + 1,), dtype) to the weighted
            sums of the table's rows over each segment, shape (segment, n), of that dtype.
        dot_rows: (left (token, n), right (feature, n), active) to the dot products of left's row of the token with
            right's row of the feature, shape (active,), of at least single precision.
        nonzero: (mask, any shape) to the positions in the flattened mask that are true, ascending, shape (true,).
        at_least: (digits (value,), base) to how many of those below `base` are at least 0, 1, ..., shape (base,).
        largest: (preactivations (token, feature), norms (feature,), k) to the k largest products of each token, in no
            order, shapes (token, k).
    """

    linear: Callable[[Tensor, Tensor, Tensor, Sequence[int] | None], Tensor]
    sum_rows: Callable[[Tensor, Tensor, Tensor, Tensor, torch.dtype], Tensor]
    dot_rows: Callable[[Tensor, Tensor, ActiveLatents], Tensor]
    nonzero: Callable[[Tensor], Tensor]
    at_least: Callable[[Tensor, int], Tensor]
    largest: Callable[[Tensor, Tensor, int], Largest]


SumByFeature = Callable[[Tensor | None, Tensor, ActiveLatents, int, torch.dtype], Tensor]
AddUp = Callable[[Int[Tensor, "..."]], Int[Tensor, "..."]]


def _of_one_process(counts: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    return counts


def active_where(mask: Bool[Tensor, "token feature"]) -> ActiveLatents:
    """Return the entries where a mask is true, by token and then by feature."""
    return _active_at(backend_for(mask).nonzero(mask), len(mask), mask.shape[1])


@torch.no_grad()
def active_topk(
    preactivations: Float[Tensor, "token feature"], norms: Float[Tensor, " feature"], k: int
) -> ActiveLatents:
    """Return the k largest of each token's preactivation times norm, as far as they are positive; in no order."""
    largest = backend_for(preactivations).largest(preactivations, norms, k)
    kept = largest.values > 0
    offsets = functional.pad(kept.sum(dim=1).cumsum(dim=0), (1, 0))
    return ActiveLatents(offsets, largest.indices[kept])


@torch.no_grad()
def keep_largest(
    preactivations: Float[Tensor, "token feature"],
    norms: Float[Tensor, " feature"],
    count: int,
    add_up: AddUp = _of_one_process,
    guess: Float[Tensor, ""] | None = None,
) -> Kept:
    """Return where preactivation times norm is among the `count` largest positive ones over all processes.

    All entries that tie with the smallest are kept. The arguments are those of `kth_largest`; what `kth_largest` finds
    among all products this finds among candidates, without ever writing all products down.
    """
    shape = preactivations.shape
    lower = _lower_bound(guess, preactivations.device)
    places, products = _products_above(preactivations, norms, lower)
    enough = Awaited(add_up((products >= lower).sum()))
    smallest, places = _from_the_largest(places, products, count, add_up)
    if enough.value() < count:
        candidates = _products_above(preactivations, norms, torch.zeros_like(lower))
        smallest, places = _from_the_largest(*candidates, count, add_up)
    return Kept(_active_at(places, *shape), smallest)


@torch.no_grad()
def kth_largest(
    values: Float[Tensor, "..."],
    count: int,
    add_up: AddUp = _of_one_process,
    guess: Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Return the `count`-th largest of the positive values over all processes, exactly.

    Args:
        values: this process's values, of at most single precision; NaN counts as not positive.
        count: the rank over all processes, from 1.
        add_up: sums an int64 tensor over the processes, in place or not; called three times by each, on tensors of the
            same shapes, whatever the values.
        guess: a value near the answer, such as the last step's, and the same on every process. Only the time depends on
            how near it is: the search is fast while the answer is above 0.8 times the guess.

    Returns:
        The value as a float32 scalar; 0 if fewer than `count` values are positive.

    Raises:
        ValueError: the values are of double precision.
    """
    nonzero, flat = backend_for(values).nonzero, values.flatten()
    candidates = flat[nonzero(flat > _lower_bound(guess, values.device))]
    if add_up(torch.tensor(len(candidates), device=values.device)) < count:
        candidates = flat[nonzero(flat > 0)]
    return _radix_search(candidates, count, add_up)


def dense_preactivations(
    x: Float[Tensor, "token n"],
    W_enc: Float[Tensor, "feature n"],
    b_enc: Float[Tensor, " feature"],
    blocks: Sequence[int] | None = None,
) -> Float[Tensor, "token feature"]:
    """Return x W_enc^T + b_enc without gradients, in autocast's type where autocast is on.

    Where blocks of tokens are given, the values of each depend on no other block.
    """
    with torch.no_grad():
        arguments = _computed_in(x.detach()), _computed_in(W_enc.detach()), _computed_in(b_enc.detach())
        return backend_for(x).linear(*arguments, blocks)


def sparse_encode(
    x: Float[Tensor, "token n"],
    W_enc: Float[Tensor, "feature n"],
    b_enc: Float[Tensor, " feature"],
    active: ActiveLatents,
    preactivations: Float[Tensor, "token feature"],
    sums: SumByFeature | None = None,
) -> Float[Tensor, " active"]:
    """Return x W_enc^T + b_enc at the active entries, differentiable in W_enc and b_enc.

    The values are read from `preactivations`, the whole product, which is computed outside and without gradients.
    `sums` takes the gradients' sums over tokens, in place of `sum_by_feature`.

    Raises:
        ValueError: x requires a gradient, which would not come back.
    """
    if x.requires_grad:
        raise ValueError("x requires a gradient, and sparse_encode has none for it; pass x.detach()")
    values: Tensor = _SparseEncode.apply(x, W_enc, b_enc, active, preactivations.detach(), sums)  # type: ignore[no-untyped-call]
    return values


def sparse_decode(
    values: Float[Tensor, " active"],
    active: ActiveLatents,
    W_dec: Float[Tensor, "feature n"],
    sums: SumByFeature | None = None,
) -> Float[Tensor, "token n"]:
    """Return the sum over each token's entries of value times W_dec[feature], differentiable in values and W_dec.

    Under autocast the rows and the result are of autocast's type; sums are of single precision. `sums` takes the
    gradient's sums over tokens, in place of `sum_by_feature`.
    """
    decoded: Tensor = _SparseDecode.apply(values, W_dec, active, sums)  # type: ignore[no-untyped-call]
    return decoded


def sum_by_feature(
    table: Float[Tensor, "token n"] | None,
    weights: Float[Tensor, " active"],
    active: ActiveLatents,
    features: int,
    dtype: torch.dtype,
    own: range | None = None,
) -> Float[Tensor, "feature ..."]:
    """Return the sums over the entries of each latent, in their order, of the weight times the row of its token.

    Args:
        table: a row for each token; where not given, the weights alone are added up.
        weights: one for each entry.
        active: the entries.
        features: latents of the dictionary.
        dtype: of the result; sums are of at least single precision.
        own: the latents whose sums are wanted; all where not given.
    """
    offsets, tokens, order = active.by_feature(features)
    if own is not None:
        offsets = offsets[own.start : own.stop + 1]
        inside = slice(int(offsets[0]), int(offsets[-1]))
        offsets, tokens, order = offsets - offsets[0], tokens[inside], order[inside]
    if table is None:
        return torch.segment_reduce(weights[order].to(dtype), "sum", offsets=offsets)
    return backend_for(table).sum_rows(table, tokens, weights[order], offsets, dtype)


def backend_for(tensor: Tensor) -> Backend:
    """Return the kernels for the device that a tensor is on."""
    return BACKENDS.get(tensor.device.type, _plain_backend)()


class _SparseEncode(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        W_enc: Tensor,
        b_enc: Tensor,
        active: ActiveLatents,
        preactivations: Tensor,
        sums: SumByFeature | None,
    ) -> Tensor:
        ctx.save_for_backward(_computed_in(x))
        ctx.active, ctx.dictionary_size = active, len(W_enc)
        ctx.weight_dtype, ctx.bias_dtype, ctx.sums = W_enc.dtype, b_enc.dtype, sums or sum_by_feature
        return preactivations[active.tokens, active.features]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        of_weight, of_bias = (
            ctx.sums(table, gradient, ctx.active, ctx.dictionary_size, dtype)
            for table, dtype in ((x, ctx.weight_dtype), (None, ctx.bias_dtype))
        )
        return None, of_weight, of_bias, None, None, None


class _SparseDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, W_dec: Tensor, active: ActiveLatents, sums: SumByFeature | None) -> Tensor:
        table = _computed_in(W_dec)
        ctx.save_for_backward(values, table)
        ctx.active, ctx.weight_dtype, ctx.sums = active, W_dec.dtype, sums or sum_by_feature
        return backend_for(table).sum_rows(table, active.features, values, active.offsets, table.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, table = ctx.saved_tensors
        active, of_values, of_weight = ctx.active, None, None
        gradient = gradient.contiguous()  # else the sums take a path many times slower
        if ctx.needs_input_grad[0]:
            of_values = backend_for(table).dot_rows(gradient, table, active).to(values.dtype)
        if ctx.needs_input_grad[1]:
            of_weight = ctx.sums(gradient, values, active, len(table), ctx.weight_dtype)
        return of_values, of_weight, None, None


def _owners(offsets: Int[Tensor, " segment_plus_one"], entries: int) -> Int[Tensor, " entry"]:
    """Return the segment of each entry."""
    segments = torch.arange(len(offsets) - 1, device=offsets.device)
    return segments.repeat_interleave(offsets.diff(), output_size=entries)


def _active_at(places: Int[Tensor, " active"], tokens: int, features: int) -> ActiveLatents:
    """Return the entries at ascending positions of a flattened (token, feature) matrix."""
    starts = torch.arange(tokens + 1, device=places.device) * features
    return ActiveLatents(torch.searchsorted(places, starts), places % features)


def _computed_in(tensor: Tensor) -> Tensor:
    """Return a tensor in the type that autocast, where it is on, has products computed in."""
    kind = tensor.device.type
    if not torch.is_autocast_enabled(kind) or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(torch.get_autocast_dtype(kind))


def _lower_bound(guess: Tensor | None, device: torch.device) -> Float[Tensor, ""]:
    """Return what the answer is expected to exceed; 0 where nothing is known, or where rounding would matter."""
    if guess is None:
        return torch.zeros((), device=device)
    lower = guess.detach().float().to(device) * GUESS_SLACK
    return torch.where(lower > 1e-30, lower, 0.0)


def _products_above(
    preactivations: Tensor, norms: Tensor, lower: Tensor
) -> tuple[Int[Tensor, " candidate"], Float[Tensor, " candidate"]]:
    """Return where preactivation times norm is at least `lower`, perhaps a few more, and the products, from 0."""
    wide = torch.promote_types(preactivations.dtype, torch.float32)
    norms = norms.to(wide)
    mask = preactivations > lower * 0.999 / norms  # less, because the quotient is rounded
    places = backend_for(preactivations).nonzero(mask)
    return places, preactivations.flatten()[places].to(wide) * norms[places % len(norms)]


def _from_the_largest(
    places: Int[Tensor, " candidate"], products: Float[Tensor, " candidate"], count: int, add_up: AddUp
) -> tuple[Float[Tensor, ""], Int[Tensor, " active"]]:
    """Return the `count`-th largest product over all processes, and the places of those that are as large."""
    smallest = _radix_search(products, count, add_up)
    kept = backend_for(products).nonzero((products >= smallest) & (products > 0))
    return smallest, places[kept]


def _radix_search(positive: Float[Tensor, " value"], count: int, add_up: AddUp) -> Float[Tensor, ""]:
    """Return the `count`-th largest of positive values over all processes, or 0 if there are fewer.

    Positive floats order as their bit patterns do: counting the high 16 bits tells those of the answer, and counting
    the low 16 bits of the values that share them tells the rest.

    Raises:
        ValueError: the values are of double precision, whose bits are twice as many.
    """
    if positive.dtype == torch.float64:
        raise ValueError("values of torch.float64 have no exact threshold here; pass values.float()")
    bits = positive.float().view(torch.int32)
    high, rank = _digit_at(bits >> 16, 1 << 15, torch.full((), count, device=bits.device), add_up)
    low, _ = _digit_at(torch.where(bits >> 16 == high, bits & 0xFFFF, 1 << 16), 1 << 16, rank, add_up)
    return torch.where(low < 0, 0, high << 16 | low).int().view(torch.float32)


def _digit_at(
    digits: Int[Tensor, " value"], base: int, rank: Int[Tensor, ""], add_up: AddUp
) -> tuple[Int[Tensor, ""], Int[Tensor, ""]]:
    """Return the rank-th largest digit below `base` over all processes, or -1, and the rank among its equals."""
    at_least = add_up(backend_for(digits).at_least(digits, base))
    digit = (at_least >= rank).sum() - 1
    above = torch.cat([at_least[1:], at_least.new_zeros(1)])
    return digit, rank - above[digit.clamp(min=0)]


def _plain_at_least(digits: Int[Tensor, " value"], base: int) -> Int[Tensor, " digit"]:
    return torch.bincount(digits, minlength=base + 1)[:base].flip(0).cumsum(0).flip(0)


def _at_least_by_sorting(digits: Int[Tensor, " value"], base: int) -> Int[Tensor, " digit"]:
    """Count without waiting for the GPU, as `bincount` does, and without adding up where all threads do."""
    ends = torch.searchsorted(digits.sort().values, torch.arange(base + 1, dtype=digits.dtype, device=digits.device))
    return ends[base] - ends[:base]


def _plain_nonzero(mask: Bool[Tensor, "..."]) -> Int[Tensor, " true"]:
    return mask.flatten().nonzero()[:, 0]


def _plain_largest(preactivations: Tensor, norms: Tensor, k: int) -> Largest:
    blocks = [torch.topk(block * norms, k, dim=1, sorted=False) for block in preactivations.split(TOKENS_AT_A_TIME)]
    return Largest(torch.cat([block.values for block in blocks]), torch.cat([block.indices for block in blocks]))


def _largest_by_groups(preactivations: Tensor, norms: Tensor, k: int) -> Largest:
    """Find the k groups of columns with the largest maxima: the k largest numbers of the row are among theirs.

    They come by column: the order in which `topk` leaves them on a GPU depends on the number of rows, and sums on it.
    """
    blocks = [_of_groups(block * norms, k) for block in preactivations.split(TOKENS_ON_GPU)]
    indices, order = torch.cat([block.indices for block in blocks]).sort(dim=1)
    return Largest(torch.cat([block.values for block in blocks]).gather(1, order), indices)


def _of_groups(scores: Float[Tensor, "token feature"], k: int) -> Largest:
    if scores.shape[1] % GROUP or scores.shape[1] < 2 * GROUP * k:
        return Largest(*scores.topk(k, dim=1, sorted=False))
    groups = scores.unflatten(1, (GROUP, -1))  # columns far apart make a group, so that neighbours are read together
    best = groups.amax(dim=1).topk(k, dim=1, sorted=False).indices
    candidates = groups.gather(2, best[:, None].expand(-1, GROUP, -1)).flatten(1)
    found = candidates.topk(k, dim=1, sorted=False)
    return Largest(found.values, found.indices // k * groups.shape[2] + best.gather(1, found.indices % k))


def _plain_sum_rows(table: Tensor, indices: Tensor, weights: Tensor, offsets: Tensor, dtype: torch.dtype) -> Tensor:
    wide = torch.promote_types(table.dtype, torch.float32)
    sums = torch.zeros(len(offsets) - 1, table.shape[1], dtype=wide, device=table.device)
    parts = [tensor.split(_gathered_rows(table)) for tensor in (_owners(offsets, len(indices)), indices, weights)]
    for owners, rows, factors in zip(*parts, strict=True):
        sums.index_add_(0, owners, table[rows].to(wide) * factors[:, None].to(wide))
    return sums.to(dtype)


def _plain_dot_rows(left: Tensor, right: Tensor, active: ActiveLatents) -> Tensor:
    wide = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    parts = (active.tokens.split(_gathered_rows(left)), active.features.split(_gathered_rows(left)))
    return torch.cat([(left[i].to(wide) * right[j].to(wide)).sum(dim=1) for i, j in zip(*parts, strict=True)])


def _gathered_rows(table: Tensor) -> int:
    return max(1, GATHERED // max(1, table.shape[1]))


def _plain_linear(x: Tensor, weight: Tensor, bias: Tensor, blocks: Sequence[int] | None) -> Tensor:
    if blocks is None:
        return functional.linear(x, weight, bias)
    return torch.cat([functional.linear(block, weight, bias) for block in x.split(list(blocks))])


def _cpu_linear(x: Tensor, weight: Tensor, bias: Tensor, blocks: Sequence[int] | None) -> Tensor:
    """Multiply by oneDNN: on AMD's processors twice as fast in single precision as MKL, the default (Zen 5)."""
    if x.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return _plain_linear(x, weight, bias, blocks)
    product = torch.empty(len(x), len(weight))
    weight, bias = weight.to_mkldnn(), bias.to_mkldnn()
    for rows, results in zip(x.split(list(blocks or [len(x)])), product.split(list(blocks or [len(x)])), strict=True):
        for block, result in zip(rows.split(TOKENS_AT_A_TIME), results.split(TOKENS_AT_A_TIME), strict=True):
            if len(block):
                result.copy_(functional.linear(block.to_mkldnn(), weight, bias).to_dense())
    return product


def _cpu_sum_rows(table: Tensor, indices: Tensor, weights: Tensor, offsets: Tensor, dtype: torch.dtype) -> Tensor:
    sums = functional.embedding_bag(
        indices, table, offsets, mode="sum", per_sample_weights=weights.to(table.dtype), include_last_offset=True
    )
    return sums.to(dtype)


def _cpu_dot_rows(left: Tensor, right: Tensor, active: ActiveLatents) -> Tensor:
    wide = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    zeros = torch.zeros(len(active.features), dtype=wide)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        pattern = torch.sparse_csr_tensor(
            active.offsets, active.features, zeros, (len(left), len(right)), check_invariants=False
        )
    dots: Tensor = torch.sparse.sampled_addmm(pattern, left.to(wide), right.to(wide).t()).values()
    return dots


def _cpu_nonzero(mask: Bool[Tensor, "..."]) -> Int[Tensor, " true"]:
    return torch.from_numpy(np.flatnonzero(mask.numpy()))  # numpy skips runs of false, which are nearly all there is


@cache
def _plain_backend() -> Backend:
    return Backend(_plain_linear, _plain_sum_rows, _plain_dot_rows, _plain_nonzero, _plain_at_least, _plain_largest)


@cache
def _cpu_backend() -> Backend:
    return Backend(_cpu_linear, _cpu_sum_rows, _cpu_dot_rows, _cpu_nonzero, _plain_at_least, _plain_largest)


@cache
def _cuda_backend() -> Backend:
    if find_spec("triton") is None:
        _log.warning("triton is not installed; sparse products on the GPU take PyTorch's slower gathers")
        return _plain_backend()
    from chronocoder.crosscoder import triton_kernels  # not on every machine

    kernels = triton_kernels.sum_rows, triton_kernels.dot_rows
    return Backend(_plain_linear, *kernels, _plain_nonzero, _at_least_by_sorting, _largest_by_groups)


BACKENDS: dict[str, Callable[[], Backend]] = {"cpu": _cpu_backend, "cuda": _cuda_backend}
