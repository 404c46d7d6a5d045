"""Time a training step against the matrix products that a dense step cannot do without.

The limit: five products of (tokens, n) with (n, latents), n = checkpoints times d_model: encode, decode, the gradient
of the codes and those of both weights. A step of batches that are dealt to parts stands beside the same step without.
All is measured in turn, round after round; ratios are of medians.

    python benchmarks/training.py
    python benchmarks/training.py --d-model 128 --checkpoints 2 --dictionary-size 512 --batch-tokens 1024
    python benchmarks/training.py --precision bfloat16      # on a GPU: products and steps in bfloat16
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import Accelerator

from chronocoder.activations.formats import Stored
from chronocoder.crosscoder.model import CrosscoderConfig
from chronocoder.crosscoder.team import Team
from chronocoder.crosscoder.training import Trainer
from chronocoder.variants import VARIANTS
from chronocoder.variants.base import CrosscoderSettings

OWN_SETTINGS = {
    "l1": {"l1_coefficient": 2.0},
    "topk": {"k": 32},
    "batchtopk": {"k": 32},
    "jumprelu": {"l0_coefficient": 1.0},
}
RESCUE = Path(tempfile.gettempdir()) / "benchmark_rescue"


class Shape:
    """What a source of activations has to say, without any: the benchmark brings its own batches."""

    def __init__(self, checkpoints: int, width: int) -> None:
        self.checkpoints, self.width = checkpoints, width


def main() -> None:
    """Measure and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d-model", type=int, default=512)
    parser.add_argument("--checkpoints", type=int, default=3)
    parser.add_argument("--dictionary-size", type=int, default=4096)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--parts", type=int, default=8, help="that a batch is dealt to")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--variants", nargs="+", choices=list(OWN_SETTINGS), default=list(OWN_SETTINGS))
    arguments = parser.parse_args()
    device = Accelerator().device
    works = {"five products": five_products(arguments, device)}
    parts = {variant: f"{variant}, {arguments.parts} parts" for variant in arguments.variants}
    for variant, name in parts.items():
        works[variant] = training_step(variant, arguments, device)
        works[name] = training_step(variant, arguments, device, arguments.parts)
    medians = median_seconds(works, device, arguments.rounds)
    limit = medians["five products"]
    sys.stdout.write(f"{device}, {torch.get_num_threads()} threads, {vars(arguments)}\n")
    for name, median in medians.items():
        sys.stdout.write(f"{name:20} {median * 1e3:9.2f} ms   five products / this = {limit / median:.2f}\n")
    for variant, name in parts.items():
        sys.stdout.write(f"{name} / none = {medians[name] / medians[variant]:.2f}\n")


def median_seconds(
    works: dict[str, Callable[[], object]], device: torch.device, rounds: int, until: float = math.inf
) -> dict[str, float]:
    """Return how long each piece of work takes: they take turns, in rounds of which the first ones are not counted.

    Args:
        works: what to time.
        device: where it is done.
        rounds: how many count, at most.
        until: time of `time.monotonic` after which no round begins; one counts in any case.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        for _ in range(3):  # warm up: allocation, and a first threshold
            work()
    for number in range(rounds):
        if number and time.monotonic() > until:
            break
        for name, work in works.items():
            times[name].append(seconds(work, device))
    return {name: statistics.median(values) for name, values in times.items()}


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return how long a piece of work takes, until the device is idle."""
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def five_products(arguments: argparse.Namespace, device: torch.device) -> Callable[[], None]:
    """Return the five products, in memory of their own."""
    n, dtype = arguments.checkpoints * arguments.d_model, getattr(torch, arguments.precision)
    x, error = (torch.randn(arguments.batch_tokens, n, device=device, dtype=dtype) for _ in range(2))
    encoder, decoder, of_weights = (
        torch.randn(arguments.dictionary_size, n, device=device, dtype=dtype) for _ in range(3)
    )
    codes = x @ encoder.T
    decoded = codes @ decoder

    def work() -> None:
        torch.mm(x, encoder.T, out=codes)
        torch.mm(codes, decoder, out=decoded)
        torch.mm(error, decoder.T, out=codes)
        torch.mm(codes.T, error, out=of_weights)
        torch.mm(codes.T, x, out=of_weights)

    return work


def training_step(
    variant: str, arguments: argparse.Namespace, device: torch.device, parts: int = 0
) -> Callable[[], None]:
    """Return a whole step of the real trainer: losses, gradients, clipping, Adam; on activations of rank 256."""
    trainer = make_trainer(variant, arguments, parts)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(arguments.batch_tokens, 256, generator=generator)
    mixing = torch.randn(256, arguments.checkpoints * arguments.d_model, generator=generator) / 16
    x = (hidden @ mixing).unflatten(1, (arguments.checkpoints, arguments.d_model)).to(device)
    return lambda: trainer.train_step(Stored(x, None), RESCUE)


def make_trainer(variant: str, arguments: argparse.Namespace, parts: int = 0) -> Trainer:
    """Return the real trainer, on the GPU where there is one, of batches dealt to so many parts."""
    settings, width = settings_of(variant, arguments), arguments.d_model
    revisions = tuple(str(number) for number in range(arguments.checkpoints))
    config = CrosscoderConfig("bench", "all", variant, revisions, "none", width, settings, 0, (), False)
    return Trainer(config, Shape(arguments.checkpoints, width), Team(parts=parts), Accelerator())


def settings_of(variant: str, arguments: argparse.Namespace) -> CrosscoderSettings:
    """Return a variant's settings; no latent counts as dead."""
    common = {
        "sparsity": variant,
        "dictionary_size": arguments.dictionary_size,
        "batch_tokens": arguments.batch_tokens,
        "precision": arguments.precision,
        "steps": 1_000_000,
        "dead_after_tokens": 10**12,
    }
    return VARIANTS[variant].model_validate({**common, **OWN_SETTINGS[variant]})


if __name__ == "__main__":
    main()
