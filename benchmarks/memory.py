"""Measure the peak memory of training, and how it grows with the dictionary, the checkpoints and the width.

Every measurement is a process of its own, less what a process needs that has only imported the same. On the CPU it is
the largest resident set; on a GPU what the allocator held at most.

    python benchmarks/memory.py
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator

from chronocoder.activations.formats import Stored
from chronocoder.activations.loader import shuffled_batches
from chronocoder.activations.sources import ActivationSource
from chronocoder.crosscoder.model import CrosscoderConfig
from chronocoder.crosscoder.state import StateDirectory
from chronocoder.crosscoder.training import train_crosscoder
from chronocoder.variants import VARIANTS

OWN_SETTINGS = {
    "l1": {"l1_coefficient": 2.0},
    "topk": {"k": 32},
    "batchtopk": {"k": 32},
    "jumprelu": {"l0_coefficient": 1.0},
}
BASE = {"dictionary_size": 4096, "checkpoints": 2, "d_model": 256, "batch_tokens": 2048, "shuffle_tokens": 16_384}
DOUBLED = ("dictionary_size", "checkpoints", "d_model", "batch_tokens", "shuffle_tokens")


class RandomActivations(ActivationSource):
    """An `ActivationSource` of float16 noise that takes no memory of its own."""

    name, stored_format, rows, piece_rows = "noise", "float16", 131_072, 1024

    def __init__(self, checkpoints: int, width: int) -> None:
        self.checkpoints, self.width = checkpoints, width

    def read_piece(self, number: int, into: Stored) -> None:
        """Fill a piece with noise that its number decides."""
        into.values.normal_(generator=torch.Generator().manual_seed(number))


def main() -> None:
    """Measure every variant at the base size and with each size doubled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", help="for the processes that this command starts: measure one training")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--variants", nargs="+", choices=list(OWN_SETTINGS), default=list(OWN_SETTINGS))
    parser.add_argument("--loader", action="store_true", help="measure the loader alone, which trains nothing")
    arguments = parser.parse_args()
    if arguments.one is not None:
        train(**json.loads(arguments.one), steps=arguments.steps)
        return
    if arguments.loader:
        for sizes in (BASE, *({**BASE, name: 2 * BASE[name]} for name in ("checkpoints", "d_model", "shuffle_tokens"))):
            sys.stdout.write(f"loader {peak_mb('loader', sizes, arguments.steps):7.0f} MB at {sizes}\n")
        return
    sys.stdout.write(f"MB at {BASE}, and times as much when one of these is doubled\n")
    for variant in arguments.variants:
        base = peak_mb(variant, BASE, arguments.steps)
        growth = {name: peak_mb(variant, {**BASE, name: 2 * BASE[name]}, arguments.steps) / base for name in DOUBLED}
        shown = "  ".join(f"{name} x{ratio:.2f}" for name, ratio in growth.items())
        sys.stdout.write(f"{variant:10} {base:7.0f} MB   {shown}\n")


def peak_mb(variant: str, sizes: dict[str, int], steps: int) -> float:
    """Return the peak memory of a training in a process of its own, beyond that of one that trains nothing."""
    values = []
    for count in (steps, 0):
        own = json.dumps({"variant": variant, **sizes})
        command = [sys.executable, __file__, "--one", own, "--steps", str(count)]
        values.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return values[0] - values[1]


def train(variant: str, steps: int, checkpoints: int, d_model: int, **settings: int) -> None:
    """Train for some steps, or not at all, and write the peak memory of this process in MB."""
    device = Accelerator().device
    if steps and variant == "loader":
        source = RandomActivations(checkpoints, d_model)
        batches = shuffled_batches(source, settings["batch_tokens"], 0, buffer_tokens=settings["shuffle_tokens"])
        for _ in range(steps * 4):
            next(batches)
    elif steps:
        own = {"sparsity": variant, "steps": steps, "normalisation_tokens": 4096, **OWN_SETTINGS[variant], **settings}
        config = CrosscoderConfig(
            suite="noise",
            comparison="all",
            variant=variant,
            checkpoints=tuple(str(number) for number in range(checkpoints)),
            site="none",
            d_model=d_model,
            settings=VARIANTS[variant].model_validate(own),
            seed=0,
            commits=(),
            folded=False,
        )
        source = RandomActivations(checkpoints, d_model)
        with tempfile.TemporaryDirectory() as scratch:
            states = StateDirectory(Path(scratch) / "state", {})
            train_crosscoder(config, source, states, Path(scratch) / "rescue", 10**9)
    on_gpu = device.type == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout.write(f"{peak / 1e6}\n")


if __name__ == "__main__":
    main()
