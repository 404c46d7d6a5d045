"""The sparse products against their dense, slow, obvious versions."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import sparse_problems
import torch
from sparse_problems import NAMES, SIZES, dense, on_active, random_problem, results
from torch import Tensor

from chronocoder.crosscoder import sparse
from chronocoder.crosscoder.sparse import (
    ActiveLatents,
    Backend,
    active_topk,
    active_where,
    dense_preactivations,
    keep_largest,
    kth_largest,
    sparse_decode,
    sparse_encode,
)

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed: kernels not tested")

KERNELS = {"cpu": sparse._cpu_backend, "plain": sparse._plain_backend}


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """Every kind of kernels that runs here, in place of the one that would be chosen."""
    monkeypatch.setattr(sparse, "GATHERED", 100)  # several chunks in small tests too
    monkeypatch.setitem(sparse.BACKENDS, "cpu", KERNELS[request.param])
    return KERNELS[request.param]()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_values_and_gradients_equal_dense_ones(
    kernels: Backend, size: tuple[int, int, int, float], dtype: torch.dtype, tolerance: float
) -> None:
    problem = random_problem(size, dtype)
    expected, found = results(problem, dense), results(problem, on_active)
    for name in NAMES:
        assert found[name].dtype == dtype
        scale = expected[name].abs().max().item() + 1
        torch.testing.assert_close(found[name], expected[name], atol=tolerance * scale, rtol=0, msg=name)


def test_gradcheck(kernels: Backend) -> None:
    problem = random_problem((5, 4, 6, 0.5))
    active = active_where(problem["mask"])
    values = torch.randn(len(active.features), dtype=torch.float64, requires_grad=True)
    W_dec = problem["W_dec"].requires_grad_()
    assert torch.autograd.gradcheck(lambda v, W: sparse_decode(v, active, W), (values, W_dec))

    def encode(W_enc: Tensor, b_enc: Tensor) -> Tensor:
        return sparse_encode(problem["x"], W_enc, b_enc, active, dense_preactivations(problem["x"], W_enc, b_enc))

    assert torch.autograd.gradcheck(encode, (problem["W_enc"].requires_grad_(), problem["b_enc"].requires_grad_()))


def test_frozen_decoder_still_gives_gradient_of_code(kernels: Backend) -> None:
    problem = random_problem(SIZES[0])
    active = active_where(problem["mask"])
    values = torch.ones(len(active.features), dtype=torch.float64, requires_grad=True)
    sparse_decode(values, active, problem["W_dec"]).sum().backward()
    torch.testing.assert_close(values.grad, problem["W_dec"].sum(dim=1)[active.features])


def test_gradient_that_is_a_view_is_read_right(kernels: Backend) -> None:
    """The gradient of a sum is expanded, that of a transposed result is strided."""
    problem = random_problem(SIZES[0])
    active = active_where(problem["mask"])
    weights = torch.randn(13, 7, dtype=torch.float64)
    W_dec = problem["W_dec"].requires_grad_()
    values = torch.randn(len(active.features), dtype=torch.float64)
    codes = torch.zeros(7, 31, dtype=torch.float64)
    codes[active.tokens, active.features] = values
    found = torch.autograd.grad((sparse_decode(values, active, W_dec).T * weights).sum(), W_dec)
    expected = torch.autograd.grad(((codes @ W_dec).T * weights).sum(), W_dec)
    torch.testing.assert_close(found, expected)


def test_order_within_a_token_changes_nothing(kernels: Backend) -> None:
    problem = random_problem((6, 5, 12, 0.8))
    active = active_where(problem["mask"])
    order = (active.tokens - torch.rand(len(active.features)).double()).argsort()
    assert not torch.equal(order, order.sort().values)
    shuffled = ActiveLatents(active.offsets, active.features[order])
    values = torch.randn(len(order), dtype=torch.float64)
    found = []
    for entries, ordered in ((active, values), (shuffled, values[order])):
        leaves = ordered.clone().requires_grad_(), problem["W_dec"].clone().requires_grad_()
        decoded = sparse_decode(leaves[0], entries, leaves[1])
        found.append((decoded, *torch.autograd.grad(decoded.pow(2).sum(), leaves)))
    torch.testing.assert_close(found[1][0], found[0][0])
    torch.testing.assert_close(found[1][1], found[0][1][order])
    torch.testing.assert_close(found[1][2], found[0][2])


def test_x_that_needs_gradient_is_refused() -> None:
    problem = random_problem(SIZES[0])
    active = active_where(problem["mask"])
    with pytest.raises(ValueError, match=r"x requires a gradient.*pass x\.detach\(\)"):
        sparse_encode(problem["x"].requires_grad_(), problem["W_enc"], problem["b_enc"], active, torch.zeros(7, 31))


def test_order_of_examples_changes_nothing_but_the_order(kernels: Backend) -> None:
    problem = random_problem((40, 6, 10, 0.4))
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    shuffled = problem | {name: problem[name][order] for name in ("x", "mask", "to")}
    first, second = results(problem, on_active), results(shuffled, on_active)
    torch.testing.assert_close(second["decoded"], first["decoded"][order])
    for name in NAMES[1:]:
        torch.testing.assert_close(second[name], first[name])


@pytest.mark.parametrize("size", SIZES)
def test_autocast_computes_in_bfloat16_and_returns_single_precision_gradients(
    kernels: Backend, size: tuple[int, int, int, float]
) -> None:
    problem = random_problem(size, torch.float32)
    expected = results(problem, dense)
    with torch.autocast("cpu", torch.bfloat16):
        found = results(problem, on_active)
    assert found["decoded"].dtype == torch.bfloat16
    for name in NAMES:
        if name != "decoded":
            assert found[name].dtype == torch.float32
        error = (found[name].float() - expected[name]).norm() / expected[name].norm().clamp(min=1e-9)
        assert error < 0.02, name


def test_backward_is_the_same_outside_of_autocast() -> None:
    problem = random_problem(SIZES[3], torch.float32)
    weights = [problem[name].clone().requires_grad_() for name in NAMES[1:]]
    with torch.autocast("cpu", torch.bfloat16):
        loss = (on_active(problem["x"], *weights, problem["mask"]) - problem["to"]).pow(2).sum()
        inside = torch.autograd.grad(loss, weights, retain_graph=True)
    for a, b in zip(inside, torch.autograd.grad(loss, weights), strict=True):
        assert torch.equal(a, b)


def test_active_where_lists_entries_by_token_then_feature(kernels: Backend) -> None:
    mask = torch.tensor([[False, True, True], [False, False, False], [True, False, False]])
    active = active_where(mask)
    assert active.offsets.tolist() == [0, 2, 2, 3]
    assert active.features.tolist() == [1, 2, 0]
    assert active.tokens.tolist() == [0, 0, 2]
    assert {active.offsets.dtype, active.features.dtype} == {torch.int64}


def codes_at(active: ActiveLatents, features: int) -> Tensor:
    mask = torch.zeros(len(active.offsets) - 1, features, dtype=torch.bool)
    mask[active.tokens, active.features] = True
    return mask


def test_active_topk_keeps_the_positive_ones_of_the_k_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "TOKENS_AT_A_TIME", 7)
    preactivations, norms = torch.randn(20, 30) - 1, torch.rand(30) + 0.1
    preactivations[3] = -1.0
    scores = preactivations * norms
    expected = (scores >= scores.topk(6, dim=1).values[:, -1:]) & (scores > 0)
    assert torch.equal(codes_at(active_topk(preactivations, norms, 6), 30), expected)


@pytest.mark.parametrize(("features", "k"), [(640, 6), (640, 40), (650, 6), (64, 1)])
def test_largest_by_groups_are_the_largest(features: int, k: int) -> None:
    preactivations, norms = torch.randint(-9, 10, (20, features)).float(), torch.rand(features)
    preactivations[1] = -torch.rand(features)
    preactivations[2, : features // 2] = 3  # nearly all tie
    scores = preactivations * norms
    found = sparse._largest_by_groups(preactivations, norms, k)
    assert torch.equal(found.values, scores.gather(1, found.indices))
    assert all(row == sorted(set(row)) and len(row) == k for row in found.indices.tolist())
    assert torch.equal(found.values.sort(descending=True).values, scores.topk(k, dim=1).values)


@pytest.mark.parametrize("digits", [torch.empty(0), torch.randint(0, 12, (300,)), torch.full((7,), 11)])
def test_digits_counted_by_sorting_are_those_counted_one_by_one(digits: Tensor) -> None:
    expected = [int((digits[digits < 10] >= least).sum()) for least in range(10)]
    for count in (sparse._plain_at_least, sparse._at_least_by_sorting):
        assert count(digits.int(), 10).tolist() == expected


def obvious_kth_largest(values: Tensor, count: int) -> float:
    positive = values[values > 0].sort(descending=True).values
    return positive[count - 1].item() if len(positive) >= count else 0.0


SMALLEST = torch.finfo(torch.float32).smallest_normal
HARD_VALUES = {
    "normal": torch.randn(500, generator=torch.Generator().manual_seed(2)),
    "matrix": torch.randn(20, 30, generator=torch.Generator().manual_seed(3)),
    "ties": torch.randint(-2, 4, (300,), generator=torch.Generator().manual_seed(4)).float(),
    "subnormal": torch.arange(-50, 200) * 2.0**-149,
    "around smallest normal": SMALLEST * torch.linspace(0.5, 1.5, 201),
    "one high half": 1 + torch.arange(300) * 2.0**-23,
    "extremes": torch.tensor([0.0, -0.0, torch.inf, torch.nan, -torch.inf, 3e38, 1e-45, 1.0, -1.0, 65504.0]),
    "none positive": -torch.rand(10),
    "empty": torch.empty(0),
    "half": torch.randn(200, generator=torch.Generator().manual_seed(5)).bfloat16(),
}


@pytest.mark.parametrize("name", HARD_VALUES)
@pytest.mark.parametrize("count", [1, 2, 7, 60, 100_000])
def test_kth_largest_equals_sorting(kernels: Backend, name: str, count: int) -> None:
    values = HARD_VALUES[name]
    expected = obvious_kth_largest(values.flatten(), count)
    near = torch.tensor(expected)
    guesses = [None, near, near * 1.1, near * 1e6, near * 1e-6, -near, *map(torch.tensor, (0.0, torch.nan, torch.inf))]
    for guess in guesses:
        assert kth_largest(values, count, guess=guess).item() == expected, guess


def test_kth_largest_refuses_double_precision() -> None:
    with pytest.raises(ValueError, match=r"torch\.float64.*pass values\.float\(\)"):
        kth_largest(torch.ones(3, dtype=torch.float64), 1)


class Processes:
    """Threads that take the part of processes: every call waits until all have brought their tensor."""

    def __init__(self, count: int) -> None:
        self.barrier = threading.Barrier(count, timeout=20)
        self.brought: list[Tensor] = [torch.empty(0)] * count
        self.calls = [0] * count

    def add_up(self, rank: int) -> Callable[[Tensor], Tensor]:
        def add(counts: Tensor) -> Tensor:
            self.calls[rank] += 1
            self.brought[rank] = counts.clone()
            self.barrier.wait()
            total = torch.stack(self.brought).sum(dim=0)
            self.barrier.wait()
            return total

        return add


def on_processes(works: list[Callable[[Callable[[Tensor], Tensor]], object]]) -> tuple[list[object], list[int]]:
    """Run one function for each process, and return what they return and how often each added up."""
    processes = Processes(len(works))
    found: list[object] = [None] * len(works)

    def run(rank: int) -> None:
        found[rank] = works[rank](processes.add_up(rank))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found, processes.calls


@pytest.mark.parametrize("name", HARD_VALUES)
@pytest.mark.parametrize("guess_factor", [None, 1.0, 3.0, 0.01])
def test_kth_largest_over_processes_equals_one_process(name: str, guess_factor: float | None) -> None:
    values = HARD_VALUES[name].flatten()
    parts = values.split([len(values) // 5, 0, len(values) - len(values) // 5])
    for count in (1, 40, 100_000):
        expected = obvious_kth_largest(values, count)
        guess = None if guess_factor is None else torch.tensor(expected) * guess_factor
        works = [lambda add_up, part=part: kth_largest(part, count, add_up, guess).item() for part in parts]
        assert on_processes(works) == ([expected] * 3, [3] * 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 50, 300, 100_000])
def test_keep_largest_equals_dense_selection(kernels: Backend, dtype: torch.dtype, count: int) -> None:
    preactivations, norms = torch.randn(40, 30).to(dtype), torch.rand(30) * 4
    norms[3] = 0
    preactivations[5] = -1
    preactivations[:2] = 0.5  # ties within a feature
    products = preactivations.float() * norms
    smallest = obvious_kth_largest(products.flatten(), count)
    for guess in (None, *(torch.tensor(smallest * factor) for factor in (1, 0.5, 1.2, 100, 0))):
        kept = keep_largest(preactivations, norms, count, guess=guess)
        assert kept.smallest.item() == smallest
        assert torch.equal(codes_at(kept.active, 30), (products >= smallest) & (products > 0))


@pytest.mark.parametrize("guess_factor", [None, 1.0, 3.0, 0.01])
def test_keep_largest_over_processes_equals_one_process(guess_factor: float | None) -> None:
    preactivations, norms = torch.randn(60, 20), torch.rand(20)
    whole = keep_largest(preactivations, norms, 100)
    guess = None if guess_factor is None else whole.smallest * guess_factor
    parts = preactivations.split([10, 1, 49])
    works = [lambda add_up, part=part: keep_largest(part, norms, 100, add_up, guess) for part in parts]
    found, calls = on_processes(works)
    assert calls == [5 if guess_factor == 3 else 3] * 3  # all of them search again where the guess was too high
    masks = [codes_at(kept.active, 20) for kept in found]
    assert torch.equal(torch.cat(masks), codes_at(whole.active, 20))


def test_dense_preactivations_equal_the_product(kernels: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "TOKENS_AT_A_TIME", 4)
    for tokens in (1, 4, 11):
        x, W_enc, b_enc = torch.randn(tokens, 9), torch.randn(6, 9, requires_grad=True), torch.randn(6)
        found = dense_preactivations(x, W_enc, b_enc)
        assert not found.requires_grad
        torch.testing.assert_close(found, x @ W_enc.detach().T + b_enc)


@needs_triton
def test_triton_kernels_equal_plain_ones_in_the_interpreter() -> None:
    """In a process of its own: Triton decides when it is imported whether it compiles or interprets."""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, sparse_problems.__file__], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@needs_triton
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_triton_kernels_compile_for_a_gpu(dtype: str) -> None:
    """The compiler takes less than the interpreter does, and needs no GPU."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from chronocoder.crosscoder import triton_kernels

    pointers = dict.fromkeys(("table", "weights", "left", "right"), f"*{dtype}")
    pointers |= dict.fromkeys(("sums", "partial", "dots"), "*fp32")
    constants = {"ACCUMULATOR": triton.language.float32, "PIECE": 128, "ENTRIES": 8, "WIDTH": 512}
    for kernel in (triton_kernels._sum_pieces, triton_kernels._sum_partials, triton_kernels._dot_entries):
        numbers = dict.fromkeys(("n", "segments", "count"), "i32")
        signature = {
            name: "constexpr" if name in constants else (pointers | numbers).get(name, "*i64")
            for name in kernel.arg_names
        }
        used = {name: value for name, value in constants.items() if name in kernel.arg_names}
        compiled = triton.compile(ASTSource(kernel, signature, used), target=GPUTarget("cuda", 80, 32))
        assert compiled.asm["ptx"]
