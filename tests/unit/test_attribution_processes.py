"""Attribution by real processes, which share out the examples."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from test_plan_effects import REVISIONS, ROOT, crosscoder, model, pairs

from chronocoder.command_line import to_flags
from chronocoder.config import AttributionSettings
from chronocoder.stores import load_store, write_store
from chronocoder.suites.checkpoints import checkpoint_commit


def test_two_processes_choose_and_find_what_one_does(tmp_path: Path) -> None:
    """Which features are changed exactly depends on the examples of both."""
    for seed, revision in enumerate(REVISIONS):
        model(seed).save_pretrained(tmp_path / revision)
    checkpoints = [tmp_path / revision for revision in REVISIONS]
    commits = tuple(checkpoint_commit(path) for path in checkpoints)
    crosscoder("residual.1", commits=commits).save(tmp_path / "crosscoder")
    write_store(pairs(), tmp_path / "task.zarr", {"suite": "s", "task": "pairs"})
    settings = AttributionSettings.model_validate(
        {"estimator": "two_stages", "exact_features": 4, "exact_controls": 4, "alone": 1, "groups": 2, "batch_size": 3}
    )
    flags = ["--suite", "s", "--revisions", *REVISIONS, "--checkpoints", *map(str, checkpoints)]
    flags += ["--tokens-seen", "0", "1", "--crosscoder", str(tmp_path / "crosscoder")]
    flags += ["--tasks", str(tmp_path / "task.zarr"), *to_flags(settings)]
    found = []
    for processes in ("1", "2"):
        output = tmp_path / f"by_{processes}.zarr"
        command = [sys.executable, str(ROOT / "scripts" / "attribute_task.py"), *flags]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        arguments = ["--outputs", str(output), "--processes", processes]
        subprocess.run([*command, *arguments], check=True, env=environment, capture_output=True)
        found.append(load_store(output))
    one, two = found
    assert (one["estimator"] == two["estimator"]).all() and len(set(one["estimator"].values)) == 2
    for name in ("indirect_effect", "control_indirect_effect", "estimation_error", "noise_floor"):
        np.testing.assert_allclose(two[name], one[name], rtol=1e-3, atol=1e-5, err_msg=name)
