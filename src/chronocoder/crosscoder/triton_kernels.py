"""The sparse products as Triton kernels.

Every output number is added up by one program in a fixed order, so that results do not change from run to run.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from chronocoder.crosscoder.sparse import ActiveLatents

PIECE = 128  # entries that one program adds up: a feature of every token must not hold up all others
ENTRIES = 4  # entries that a program reads at once; with 8 of 512 numbers the sums take five times as long (H200)
WIDTH = 1024  # numbers of a row that a program reads at once, at most


class _Pieces(NamedTuple):
    """How long segments are split: the partial sums of a segment of several pieces stand side by side.

    Attributes:
        owners: the segment of each piece; the number of segments from the last piece on, shape (piece,).
        firsts: the first piece of each segment, shape (segment,).
        counts: the pieces of each segment, shape (segment,).
        slots: where a segment's partial sums begin, for segments of several pieces, shape (segment,).
        partials: an upper bound of the number of partial sums.
    """

    owners: Int[Tensor, " piece"]
    firsts: Int[Tensor, " segment"]
    counts: Int[Tensor, " segment"]
    slots: Int[Tensor, " segment"]
    partials: int


def sum_rows(
    table: Float[Tensor, "row n"],
    indices: Int[Tensor, " active"],
    weights: Float[Tensor, " active"],
    offsets: Int[Tensor, " segment_plus_one"],
    dtype: torch.dtype,
) -> Float[Tensor, "segment n"]:
    """Return the weighted sums of the table's rows over each segment, added up in at least single precision."""
    segments, n = len(offsets) - 1, table.shape[1]
    sums = torch.empty(segments, n, dtype=dtype, device=table.device)
    pieces, width = _split(offsets, len(indices)), _width(n)
    wide = torch.promote_types(table.dtype, torch.float32)
    partial = torch.empty(pieces.partials, n, dtype=wide, device=table.device)
    parts = (pieces.firsts, pieces.counts, pieces.slots)
    columns = triton.cdiv(n, width)
    with torch.cuda.device_of(table):
        if len(indices):
            _sum_pieces[(len(pieces.owners), columns)](
                table.contiguous(), indices, weights, offsets, pieces.owners, *parts, sums, partial, segments, n,
                ACCUMULATOR=_triton_type(wide), PIECE=PIECE, ENTRIES=ENTRIES, WIDTH=width,
            )  # fmt: skip
        if segments:
            _sum_partials[(segments, columns)](
                partial, pieces.counts, pieces.slots, sums, n, ACCUMULATOR=_triton_type(wide), WIDTH=width
            )
    return sums


def dot_rows(
    left: Float[Tensor, "token n"], right: Float[Tensor, "feature n"], active: ActiveLatents
) -> Float[Tensor, " active"]:
    """Return the dot products of left's row of the token with right's row of the feature, for each active entry."""
    entries, n = len(active.features), left.shape[1]
    wide = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    dots = torch.empty(entries, dtype=wide, device=left.device)
    if entries:
        with torch.cuda.device_of(left):
            _dot_entries[(triton.cdiv(entries, ENTRIES),)](
                left.contiguous(), right.contiguous(), active.tokens, active.features, dots, entries, n,
                ACCUMULATOR=_triton_type(wide), ENTRIES=ENTRIES, WIDTH=_width(n),
            )  # fmt: skip
    return dots


def _split(offsets: Tensor, entries: int) -> _Pieces:
    """Split segments into pieces by arithmetic on the device: upper bounds stand in for what only it knows."""
    counts = (offsets.diff() + PIECE - 1) // PIECE
    ends = counts.cumsum(dim=0)
    pieces = torch.arange(len(counts) + entries // PIECE, device=offsets.device)
    several = torch.where(counts > 1, counts, 0)
    owners = torch.searchsorted(ends, pieces, right=True)
    return _Pieces(owners, ends - counts, counts, several.cumsum(dim=0) - several, 2 * (entries // PIECE))


def _width(n: int) -> int:
    width: int = min(WIDTH, triton.next_power_of_2(n))
    return width


def _triton_type(dtype: torch.dtype) -> tl.dtype:
    return {torch.float32: tl.float32, torch.float64: tl.float64}[dtype]


@triton.jit  # type: ignore[untyped-decorator]
def _sum_pieces(
    table: tl.tensor,
    indices: tl.tensor,
    weights: tl.tensor,
    offsets: tl.tensor,
    owners: tl.tensor,
    firsts: tl.tensor,
    counts: tl.tensor,
    slots: tl.tensor,
    sums: tl.tensor,
    partial: tl.tensor,
    segments: tl.tensor,
    n: tl.tensor,
    ACCUMULATOR: tl.constexpr,
    PIECE: tl.constexpr,
    ENTRIES: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    piece = tl.program_id(0)
    segment = tl.load(owners + piece)
    if segment < segments:
        columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
        inside = columns < n
        part = piece - tl.load(firsts + segment)
        begin = tl.load(offsets + segment) + part * PIECE
        end = tl.minimum(begin + PIECE, tl.load(offsets + segment + 1))
        total = tl.zeros([WIDTH], dtype=ACCUMULATOR)
        for first in range(begin, end, ENTRIES):
            entries = first + tl.arange(0, ENTRIES)
            there = entries < end
            rows = tl.load(indices + entries, mask=there, other=0).to(tl.int64)
            factors = tl.load(weights + entries, mask=there, other=0).to(ACCUMULATOR)
            places = rows[:, None] * n + columns[None, :]
            block = tl.load(table + places, mask=there[:, None] & inside[None, :], other=0).to(ACCUMULATOR)
            total += tl.sum(factors[:, None] * block, axis=0)
        if tl.load(counts + segment) == 1:
            tl.store(sums + segment * n + columns, total, mask=inside)
        else:
            tl.store(partial + (tl.load(slots + segment) + part) * n + columns, total, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _sum_partials(
    partial: tl.tensor,
    counts: tl.tensor,
    slots: tl.tensor,
    sums: tl.tensor,
    n: tl.tensor,
    ACCUMULATOR: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    segment = tl.program_id(0).to(tl.int64)
    count = tl.load(counts + segment)
    if count != 1:  # one piece is the sum itself; none is zero
        columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
        inside = columns < n
        first = tl.load(slots + segment)
        total = tl.zeros([WIDTH], dtype=ACCUMULATOR)
        for part in range(0, count):
            total += tl.load(partial + (first + part) * n + columns, mask=inside, other=0)
        tl.store(sums + segment * n + columns, total, mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _dot_entries(
    left: tl.tensor,
    right: tl.tensor,
    tokens: tl.tensor,
    features: tl.tensor,
    dots: tl.tensor,
    count: tl.tensor,
    n: tl.tensor,
    ACCUMULATOR: tl.constexpr,
    ENTRIES: tl.constexpr,
    WIDTH: tl.constexpr,
) -> None:
    entries = tl.program_id(0) * ENTRIES + tl.arange(0, ENTRIES)
    there = entries < count
    left_rows = tl.load(tokens + entries, mask=there, other=0).to(tl.int64) * n
    right_rows = tl.load(features + entries, mask=there, other=0).to(tl.int64) * n
    total = tl.zeros([ENTRIES], dtype=ACCUMULATOR)
    for start in range(0, n, WIDTH):
        columns = start + tl.arange(0, WIDTH)
        inside = there[:, None] & (columns < n)[None, :]
        a = tl.load(left + left_rows[:, None] + columns[None, :], mask=inside, other=0).to(ACCUMULATOR)
        b = tl.load(right + right_rows[:, None] + columns[None, :], mask=inside, other=0).to(ACCUMULATOR)
        total += tl.sum(a * b, axis=1)
    tl.store(dots + entries, total, mask=there)
