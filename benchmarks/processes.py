"""Train on one process and on two, with parts and without: how far dictionaries differ, and what parts cost.

On the default experiment's activations and at its sizes; each process has one thread. CPU time is that of all processes
of a training, less that of a training of one step.

    python benchmarks/processes.py results/nursery
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
STORES = ("step64", "step320")
PARTS = 8
SETTINGS = [
    "--dictionary-size=512",
    "--batch-tokens=1024",
    "--learning-rate=2e-3",
    "--auxiliary-coefficient=4",
    "--auxiliary-k=32",
    "--dead-after-tokens=3000",
]
OWN_SETTINGS = {
    "l1": "--l1-coefficient=2",
    "topk": "--k=12",
    "batchtopk": "--k=12",
    "jumprelu": "--l0-coefficient=1",
}


class Trained(NamedTuple):
    """A training.

    Attributes:
        weights: of its crosscoder, by name.
        cpu_s: CPU time of all its processes.
    """

    weights: dict[str, torch.Tensor]
    cpu_s: float


def main() -> None:
    """Measure each variant and write its rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="results of the default experiment")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--variants", nargs="+", choices=list(OWN_SETTINGS), default=list(OWN_SETTINGS))
    arguments = parser.parse_args()
    ways = list(product((1, 2), (0, PARTS)))
    starts = {way: train(arguments.suite, arguments.variants[0], 1, *way).cpu_s for way in ways}
    for variant in arguments.variants:
        found = {way: train(arguments.suite, variant, arguments.steps, *way) for way in ways}
        seconds = {way: found[way].cpu_s - starts[way] for way in ways}
        for processes in (1, 2):
            ratio = seconds[processes, PARTS] / seconds[processes, 0]
            sys.stdout.write(f"{variant}, processes {processes}: CPU time of {PARTS} parts / none = {ratio:.2f}\n")
        for parts in (0, PARTS):
            one, two = (found[processes, parts].weights for processes in (1, 2))
            largest = max(float((one[name] - two[name]).abs().max()) for name in one)
            sys.stdout.write(
                f"{variant}, parts {parts}: largest difference between one process and two = {largest:.2g}\n"
            )
        sys.stdout.flush()


def train(suite: Path, variant: str, steps: int, processes: int, parts: int) -> Trained:
    """Train a crosscoder."""
    stores = [str(suite / "activations/residual.2" / name / "train.zarr") for name in STORES]
    begin = cpu_seconds()
    with tempfile.TemporaryDirectory() as folder:
        crosscoder, history = Path(folder) / "crosscoder", Path(folder) / "history.zarr"
        command = [sys.executable, str(ROOT / "scripts/train_crosscoder.py"), "--activations", *stores, *SETTINGS]
        command += ["--comparison=bench", f"--variant={variant}", "--seed=0", f"--sparsity={variant}"]
        command += [OWN_SETTINGS[variant], f"--steps={steps}", f"--processes={processes}", f"--parts={parts}"]
        command += [f"--crosscoder={crosscoder}", f"--history={history}"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=True)
        return Trained(load_file(crosscoder / "model.safetensors"), cpu_seconds() - begin)


def cpu_seconds() -> float:
    """Return the CPU time of all processes that have been started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
