"""Attribution by real processes, which share out the examples."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from test_plan_effects import REVISIONS, ROOT, crosscoder, model, pairs
from warm_python import warm_python

from chronocoder.command_line import to_flags
from chronocoder.config import AttributionSettings
from chronocoder.stores import load_store, write_store
from chronocoder.suites.checkpoints import checkpoint_commit

SETTINGS = AttributionSettings.model_validate(
    {"estimator": "two_stages", "exact_features": 4, "exact_controls": 4, "alone": 1, "groups": 2, "batch_size": 3}
)


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """A crosscoder of two models, and three tasks beside it; the flags name the crosscoder."""
    for seed, revision in enumerate(REVISIONS):
        model(seed).save_pretrained(tmp_path / revision)
    checkpoints = [tmp_path / revision for revision in REVISIONS]
    commits = tuple(checkpoint_commit(path) for path in checkpoints)
    crosscoder("residual.1", commits=commits).save(tmp_path / "crosscoder")
    for name in "abc":
        write_store(pairs(), tmp_path / f"task_{name}.zarr", {"suite": "s", "task": name})
    flags = ["--suite", "s", "--revisions", *REVISIONS, "--checkpoints", *map(str, checkpoints)]
    flags += ["--tokens-seen", "0", "1", "--crosscoder", str(tmp_path / "crosscoder"), "--suite-pairs", "30"]
    return [*flags, *to_flags(SETTINGS)]


def attribute(directory: Path, flags: list[str], tasks: str, *arguments: str) -> str:
    """Attribute tasks and return what is said."""
    command = [warm_python(), str(ROOT / "scripts" / "attribute_task.py"), *flags]
    command += ["--tasks", *(str(directory / f"task_{name}.zarr") for name in tasks)]
    command += ["--outputs", *(str(directory / "found" / f"{name}.zarr") for name in tasks), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_two_processes_choose_and_find_what_one_does(tmp_path: Path, flags: list[str]) -> None:
    """Which features are changed exactly depends on the examples of both."""
    found = []
    for processes in ("1", "2"):
        attribute(tmp_path, flags, "a", "--processes", processes)
        found.append(load_store(tmp_path / "found/a.zarr"))
    one, two = found
    assert (one["estimator"] == two["estimator"]).all() and len(set(one["estimator"].values)) == 2
    for name in ("indirect_effect", "control_indirect_effect", "estimation_error", "noise_floor"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=1e-5, err_msg=name)


def test_two_processes_work_on_the_same_tasks_and_one_that_fails_costs_no_other(
    tmp_path: Path, flags: list[str]
) -> None:
    (tmp_path / "task_c.zarr" / "zarr.json").unlink()
    said = attribute(tmp_path, flags, "abc", "--processes", "2", "--share", "3", "--log", "a.log")
    assert "task_c.zarr: is no Zarr store" in said and "Tasks that failed are left to their own jobs" in said
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [".shared", "a.zarr"]
    said = attribute(tmp_path, flags, "b", "--processes", "2", "--share", "3", "--log", "b.log")
    assert said.endswith("The result was made by the job of task a; its log: a.log\n") and "Loading" not in said
    first, second = (load_store(tmp_path / "found" / f"{name}.zarr") for name in "ab")
    assert second.attrs["task"] == "b"
    xr.testing.assert_equal(first.drop_attrs(), second.drop_attrs())
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == ["a.zarr", "b.zarr"]
