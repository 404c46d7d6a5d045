"""Training through `accelerate launch` on two processes equals training on one."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import xarray as xr
from conftest import tiny_crosscoder

from chronocoder.command_line import to_flags
from chronocoder.crosscoder.model import Crosscoder, load_crosscoder

ROOT = Path(__file__).parents[2]


def train(processes: int, stores: list[Path], output: Path, variant: str) -> Crosscoder:
    settings = tiny_crosscoder(variant, steps=25, batch_tokens=128, dead_after_tokens=500, learning_rate=0.01)
    flags = ["--comparison", "pair", "--variant", variant, "--seed", "0", "--activations", *map(str, stores)]
    flags += ["--crosscoder", str(output), "--history", f"{output}.zarr", *to_flags(settings.config.settings)]
    command = [sys.executable, str(ROOT / "scripts/train_crosscoder.py"), "--processes", str(processes), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return load_crosscoder(output)


@pytest.mark.parametrize("variant", ["l1", "batchtopk"])
def test_two_processes_give_the_crosscoder_of_one(
    activation_store: Callable[..., Path], tmp_path: Path, variant: str
) -> None:
    stores = [activation_store("step0"), activation_store("step1")]
    one = train(1, stores, tmp_path / "one", variant)
    two = train(2, stores, tmp_path / "two", variant)
    assert xr.open_zarr(tmp_path / "two.zarr").attrs["processes"] == 2
    for name, weight in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[name], weight, rtol=1e-3, atol=1e-4, msg=name)


def test_last_good_crosscoder_is_saved_before_the_processes_end(
    activation_store: Callable[..., Path], tmp_path: Path
) -> None:
    """The process that saves takes its time; the others must not end it."""
    stores = [activation_store("step0"), activation_store("step1")]
    slow = tmp_path / "sitecustomize.py"
    slow.write_text(
        "import time\n"
        "from chronocoder.crosscoder import model\n"
        "save = model.Crosscoder.save\n"
        "model.Crosscoder.save = lambda self, path: (time.sleep(4), save(self, path))\n"
    )
    settings = tiny_crosscoder("l1", steps=25, batch_tokens=128, learning_rate=1e30).config.settings
    flags = ["--comparison", "pair", "--variant", "l1", "--seed", "0", "--activations", *map(str, stores)]
    flags += ["--crosscoder", str(tmp_path / "run" / "crosscoder"), "--history", str(tmp_path / "run" / "h.zarr")]
    command = [sys.executable, str(ROOT / "scripts/train_crosscoder.py"), "--processes", "2", *flags]
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
    result = subprocess.run([*command, *to_flags(settings)], env=environment, capture_output=True, text=True)
    assert result.returncode != 0 and "loss or gradient is not finite" in result.stderr
    rescued = load_crosscoder(tmp_path / "run" / "last_good_crosscoder")
    assert all(torch.isfinite(weight).all() for weight in rescued.state_dict().values())
