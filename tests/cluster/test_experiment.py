"""The embedded experiment on a real SLURM: to its report, on several nodes, and through preemption."""

import copy
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
from private_slurm import PrivateSlurm
from safetensors.torch import load_file

from experiments import Workflow

CROSSCODER = "results/small/pair/l1/seed0/crosscoder"


@pytest.fixture
def again(embedded: Workflow, tmp_path: Path) -> Workflow:
    """The experiment, run, in a copy."""
    shutil.copytree(embedded.directory, tmp_path / "copy", symlinks=True)
    return replace(embedded, directory=tmp_path / "copy", config=copy.deepcopy(embedded.config))


def weights(workflow: Workflow) -> dict[str, torch.Tensor]:
    return load_file(workflow.directory / CROSSCODER / "model.safetensors")


def accounted(workflow: Workflow, slurm: PrivateSlurm, *fields: str) -> list[list[str]]:
    form = f"--format={','.join(fields)},WorkDir%0"
    out = slurm.run("sacct", "--allocations", "--noheader", "--parsable2", form)
    return [line.split("|")[:-1] for line in out.splitlines() if line.split("|")[-1] == str(workflow.directory)]


def test_runs_to_its_report(embedded: Workflow, slurm: PrivateSlurm) -> None:
    results = embedded.directory / "results" / "small"
    assert (results / "report" / "index.html").exists() and list((results / "report" / "figures").rglob("*.svg"))
    relie = xr.open_zarr(results / "pair" / "l1" / "seed0" / "relie.zarr")
    assert relie.sizes["task"] == 2
    assert bool(relie.indirect_effect.notnull().all())
    jobs = accounted(embedded, slurm, "JobName", "State", "AllocTRES", "JobID")
    assert {state for _, state, _, _ in jobs} == {"COMPLETED"}
    gpus = {name: "gres/gpu=1" in tres for name, _, tres, _ in jobs}
    assert gpus["train_crosscoder"]
    assert not gpus["build_corpus"]
    harvests = {number.split("_")[0] for name, _, _, number in jobs if name == "harvest_activations"}
    assert len(harvests) == 1


def test_nothing_is_left_to_do(embedded: Workflow) -> None:
    assert embedded.planned() == {}


def test_two_nodes_of_two_processes_train_what_one_process_trains(again: Workflow, slurm: PrivateSlurm) -> None:
    one = weights(again)
    config = again.changed("training", {"processes": 4, "nodes": 2})
    result = again.snakemake("--force", CROSSCODER, config=config)
    assert result.returncode == 0, result.stdout
    history = xr.open_zarr(again.directory / CROSSCODER.replace("crosscoder", "training.zarr"))
    assert history.attrs["processes"] == 4
    rows = accounted(again, slurm, "JobName", "NNodes", "AllocTRES")
    ((_, nodes, tres),) = [row for row in rows if row[0] == "train_crosscoder"]
    assert nodes == "2"
    assert "gres/gpu=4" in tres
    for name, value in weights(again).items():
        torch.testing.assert_close(value, one[name], atol=1e-4, rtol=1e-4)


def test_preempted_training_ends_in_the_same_weights(again: Workflow, slurm: PrivateSlurm) -> None:
    config = again.changed("variants.l1.steps", 4000)
    config["training"] = {"save_every": 1_000_000}  # but when it is told to
    undisturbed = replace(again, options=("--cores", "1"))
    result = undisturbed.snakemake("--force", CROSSCODER, config=config)
    assert result.returncode == 0, result.stdout
    expected = weights(again)
    preempt_training(again, slurm, config)
    for name, value in weights(again).items():
        assert torch.equal(value, expected[name]), name


def test_preempted_training_on_two_nodes_goes_on_from_where_it_was_told(again: Workflow, slurm: PrivateSlurm) -> None:
    config = again.changed("variants.l1.steps", 40)
    config["variants"]["l1"]["dictionary_size"] = 30_000  # so that no step, nor saving, is over before a kill
    config["training"] = {"processes": 2, "nodes": 2, "save_every": 1_000_000}
    preempt_training(again, slurm, config)
    assert len(weights(again)) > 0


def preempt_training(workflow: Workflow, slurm: PrivateSlurm, config: dict[str, Any]) -> None:
    """Train, and preempt that in its midst: it is queued again, and goes on from where it was told to stop."""
    log = workflow.directory / "results/small/logs/train_crosscoder/pair-l1-seed0.log"
    log.unlink()
    process = start(workflow, config)
    slurm.wait_until(lambda: log.exists() and "train:" in log.read_text(), "training has begun", 60)
    whole = ("--nodes=2", "--ntasks-per-node=1", f"--cpus-per-task={slurm.cpus}", "--output=/dev/null")
    slurm.run("sbatch", "--partition=urgent", *whole, "--wrap=true")
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 0, said
    number = [row[0] for row in accounted(workflow, slurm, "JobID", "JobName") if row[1] == "train_crosscoder"][-1]
    runs = slurm.run("sacct", "--duplicates", "--allocations", "--noheader", f"--jobs={number}", "--format=State")
    assert runs.split() == ["PREEMPTED", "COMPLETED"]
    (step,) = set(re.findall(r"going on after step (\d+)", log.read_text()))
    assert int(step) > 0


def start(workflow: Workflow, config: dict[str, Any]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        workflow.command("--force", CROSSCODER, config=config),
        cwd=workflow.directory,
        env={**os.environ, **workflow.whole_environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
