"""Time a crosscoder's training step on active latents against five dense products of the encoder's size.

The five products are what a dense step needs: encode, decode, and in the backward pass the gradient of the code and of
both weights. Every figure is the least of several runs.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from chronocoder.crosscoder.sparse import (
    ActiveLatents,
    active_topk,
    active_where,
    backend_for,
    dense_preactivations,
    keep_largest,
    kth_largest,
    sparse_decode,
    sparse_encode,
)

Run = Callable[[], object]
Select = Callable[[Float[Tensor, "token feature"]], ActiveLatents]


class Problem(NamedTuple):
    """A batch and the weights of a crosscoder.

    Attributes:
        x: shape (token, n).
        W_enc: shape (feature, n).
        b_enc: shape (feature,).
        W_dec: shape (feature, n).
        norms: decoder norms, shape (feature,).
    """

    x: Float[Tensor, "token n"]
    W_enc: Float[Tensor, "feature n"]
    b_enc: Float[Tensor, " feature"]
    W_dec: Float[Tensor, "feature n"]
    norms: Float[Tensor, " feature"]


def main() -> None:
    """Print the time of each part and of whole steps."""
    arguments = _arguments()
    torch.manual_seed(0)
    problem = make_problem(arguments)
    guess = kth_largest(_scores(problem), arguments.k * len(problem.x))
    products, steps = dense_products(problem), whole_steps(problem, arguments.k, guess)
    runs = products | parts_of_step(problem, arguments.k, guess) | steps
    seconds = least_seconds(runs, torch.device(arguments.device), arguments.repeats)
    dense = sum(seconds[name] for name in products)
    for name, figure in (seconds | {"five dense products": dense}).items():
        sys.stdout.write(f"{name:<40} {figure:10.5f} seconds\n")
    for name in steps:
        sys.stdout.write(f"{'five dense products / ' + name:<40} {dense / seconds[name]:10.2f}\n")


def make_problem(arguments: argparse.Namespace) -> Problem:
    """Return random activations and unit decoder rows, with the encoder as their copy."""
    n = arguments.checkpoints * arguments.d_model
    place = {"device": arguments.device, "dtype": getattr(torch, arguments.precision)}
    x = torch.randn(arguments.batch_tokens, n, **place)
    rows = torch.nn.functional.normalize(torch.randn(arguments.dictionary_size, n, **place))
    b_enc = torch.zeros(arguments.dictionary_size, **place, requires_grad=True)
    return Problem(x, rows.clone().requires_grad_(), b_enc, rows.clone().requires_grad_(), rows.norm(dim=1))


def train_step(problem: Problem, select: Select, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Encode, select, decode, and go backward; with an optimizer also update the weights."""
    preactivations = dense_preactivations(problem.x, problem.W_enc, problem.b_enc)
    active = select(preactivations)
    values = sparse_encode(problem.x, problem.W_enc, problem.b_enc, active, preactivations)
    loss = (sparse_decode(values, active, problem.W_dec) - problem.x).pow(2).sum() / len(problem.x)
    for parameter in (problem.W_enc, problem.b_enc, problem.W_dec):
        parameter.grad = None
    loss.backward()
    if optimizer is not None:
        optimizer.step()


def least_seconds(
    runs: dict[str, Run], device: torch.device, repeats: int, until: float = math.inf
) -> dict[str, float]:
    """Return the least time of each of several runs, after one that is not counted.

    The runs take turns, so that whatever else the machine does slows none of them alone. After `until`, a time of
    `time.monotonic`, no round begins but the first that counts.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(repeats + 1):
        if number > 1 and time.monotonic() > until:
            break
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times[name].append(time.perf_counter() - start)
    return {name: min(of_run[1:]) for name, of_run in times.items()}


def dense_products(problem: Problem) -> dict[str, Run]:
    """Return the five products of a dense step."""
    x, W_enc, W_dec = problem.x, problem.W_enc.detach(), problem.W_dec.detach()
    codes = torch.randn(len(x), len(W_enc), device=x.device, dtype=x.dtype)
    return {
        "dense encode": lambda: x @ W_enc.t(),
        "dense decode": lambda: codes @ W_dec,
        "dense gradient of code": lambda: x @ W_dec.t(),
        "dense gradient of W_enc": lambda: codes.t() @ x,
        "dense gradient of W_dec": lambda: codes.t() @ x,
    }


def parts_of_step(problem: Problem, k: int, guess: Tensor) -> dict[str, Run]:
    """Return the parts of a step on active latents."""
    x, W_dec, kernels = problem.x, problem.W_dec.detach(), backend_for(problem.x)
    preactivations, scores, count = _preactivations(problem), _scores(problem), k * len(problem.x)
    active = keep_largest(preactivations, problem.norms, count, guess=guess).active
    values = preactivations[active.tokens, active.features]
    return {
        "dense_preactivations": lambda: _preactivations(problem),
        "active_topk": lambda: active_topk(preactivations, problem.norms, k),
        "keep_largest": lambda: keep_largest(preactivations, problem.norms, count),
        "keep_largest with guess": lambda: keep_largest(preactivations, problem.norms, count, guess=guess),
        "kth_largest": lambda: kth_largest(scores, count),
        "kth_largest with guess": lambda: kth_largest(scores, count, guess=guess),
        "active_where": lambda: active_where(scores >= guess),
        "sum_rows (decode)": lambda: kernels.sum_rows(W_dec, active.features, values, active.offsets, x.dtype),
        "dot_rows": lambda: kernels.dot_rows(x, W_dec, active),
        "encode, forward and backward": lambda: _encode(problem, active, preactivations).sum().backward(),
        "decode, forward and backward": lambda: sparse_decode(values, active, problem.W_dec).sum().backward(),
    }


def whole_steps(problem: Problem, k: int, guess: Tensor) -> dict[str, Run]:
    """Return training steps with each way to select, without and with the optimizer."""
    count, norms = k * len(problem.x), problem.norms
    selections: dict[str, Select] = {
        "topk": lambda preactivations: active_topk(preactivations, norms, k),
        "batchtopk": lambda preactivations: keep_largest(preactivations, norms, count, guess=guess).active,
    }
    weights = [problem.W_enc, problem.b_enc, problem.W_dec]
    adam = torch.optim.Adam(weights, lr=1e-9, fused=True)  # so slow that all steps do the same
    plain = {f"step, {name}": partial(train_step, problem, select) for name, select in selections.items()}
    updating = {
        f"step, {name}, Adam": partial(train_step, problem, select, adam) for name, select in selections.items()
    }
    return {**plain, **updating}


def _encode(problem: Problem, active: ActiveLatents, preactivations: Tensor) -> Tensor:
    return sparse_encode(problem.x, problem.W_enc, problem.b_enc, active, preactivations)


def _preactivations(problem: Problem) -> Tensor:
    return dense_preactivations(problem.x, problem.W_enc, problem.b_enc)


def _scores(problem: Problem) -> Tensor:
    return _preactivations(problem) * problem.norms


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d-model", type=int, default=512, help="width of an activation")
    parser.add_argument("--checkpoints", type=int, default=3)
    parser.add_argument("--dictionary-size", type=int, default=4096)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--k", type=int, default=32, help="active latents a token")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--precision", choices=["float32", "bfloat16"], default="float32", help="of all that is multiplied"
    )
    parser.add_argument("--repeats", type=int, default=10)
    return parser.parse_args()


if __name__ == "__main__":
    main()
