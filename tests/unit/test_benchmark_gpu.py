"""The GPU benchmark: that all of it runs, reduced on a CPU, with few packages; and what becomes of parts that fail."""

import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from benchmark_modules import BENCHMARKS, load_benchmark
from packaging.requirements import Requirement

ROOT = BENCHMARKS.parent
NEED_A_GPU = ["triton kernels", "quantised models"]
PYTHIA = {"hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 8, "intermediate_size": 8192}
HIDE = """import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, *arguments):
        return None if name.partition(".")[0] in {hidden!r} else PathFinder.find_spec(name, *arguments)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
"""


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return load_benchmark("gpu")


@pytest.fixture
def outcome(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that measures a part whose rows come from a function."""

    def measured(measure: Callable[..., Iterator[Any]], left: float = 60.0) -> Any:
        monkeypatch.setitem(sys.modules, "on_gpu.made_up", SimpleNamespace(measure=measure))
        return gpu.measure_part(multiprocessing.get_context("fork"), "made_up", gpu.REDUCED, 30.0, left)

    return measured


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def with_requirements(names: Iterable[str]) -> set[str]:
    """Return installed distributions and, without extras, all that they require."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = canonical(left.pop())
        try:
            required = [Requirement(text) for text in requires(name) or []]
        except PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            left += [one.name for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def test_reduced_run_needs_the_listed_packages_alone(gpu: ModuleType, tmp_path: Path) -> None:
    from on_gpu.wheels import GIVEN, PACKAGES

    present = with_requirements(GIVEN) | set(map(canonical, PACKAGES))
    hidden = {
        name
        for name, owners in packages_distributions().items()
        if not present.intersection(map(canonical, owners)) and name != "chronocoder"
    }
    assert {"snakemake", "submitit", "pytest", "scipy", "datasets", "itables"} <= hidden
    (tmp_path / "sitecustomize.py").write_text(HIDE.format(hidden=hidden))
    paths = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    environment = os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--reduced", "--output", str(tmp_path / "found.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    parts = {part["name"]: part for part in json.loads((tmp_path / "found.json").read_text())["parts"]}
    assert list(parts) == list(gpu.PARTS) and all(part["rows"] for part in parts.values())
    checks = {row["what"]: row["against"] for row in parts["checks"]["rows"]}
    assert [name for name, found in checks.items() if found.startswith("skipped")] == NEED_A_GPU
    assert "| checks | triton kernels |" in done.stdout and "skipped: no GPU to compile kernels for" in done.stdout
    rows = {row["what"]: row for row in parts["effects"]["rows"]}
    for what in ("exact", "exact in tf32", "exact in bfloat16"):
        assert rows[f"{what}, rows"]["against"].startswith("the bare products of the blocks after the site")
        assert "smallest_effect 0.02: accepted" in rows[f"noise floor of {what}"]["against"]
    hides = subprocess.run([sys.executable, "-c", "import scipy"], env=environment, capture_output=True, check=False)
    assert b"ModuleNotFoundError" in hides.stderr


def test_listed_packages_are_pinned_and_whole(gpu: ModuleType) -> None:
    from on_gpu.wheels import GIVEN, PACKAGES, requirements

    for name, line in zip(PACKAGES, requirements(), strict=True):
        assert re.fullmatch(rf"{re.escape(name)}==[0-9a-z.]+", line)
    missing = with_requirements(PACKAGES) - with_requirements(GIVEN) - set(map(canonical, PACKAGES))
    assert not missing


def test_part_that_fails_keeps_its_rows_and_says_why(gpu: ModuleType, outcome: Callable[..., Any]) -> None:
    def fails(*_: object) -> Iterator[Any]:
        yield gpu.Row("first", 1.0, "ms")
        raise ModuleNotFoundError("triton | is\nnot installed")

    part = outcome(fails)
    assert part.rows == [gpu.Row("first", 1.0, "ms")]
    assert part.error == "ModuleNotFoundError: triton | is\nnot installed"
    assert "| made_up | **failed**: ModuleNotFoundError: triton \\| is not installed |" in gpu.table([part])
    assert gpu.write_results([part], gpu.REDUCED, None) == 1


def test_part_whose_process_dies_is_told_from_one_that_is_done(gpu: ModuleType, outcome: Callable[..., Any]) -> None:
    def dies(*_: object) -> Iterator[Any]:
        yield gpu.Row("first", 1.0, "ms")
        os._exit(3)

    part, done = outcome(dies), outcome(lambda *_: iter([gpu.Row("only", None, "")]))
    assert (len(part.rows), part.error) == (1, "its process ended with status 3")
    assert (len(done.rows), done.error) == (1, "")
    assert gpu.write_results([done], gpu.REDUCED, None) == 0


def test_part_that_does_not_end_is_ended(outcome: Callable[..., Any]) -> None:
    def hangs(*_: object) -> Iterator[Any]:
        time.sleep(60)
        yield

    part = outcome(hangs, left=0.3)
    assert part.error.startswith("ended after 0 s: no time was left") and part.seconds < 30


def test_missed_target_is_marked_and_is_no_failure(gpu: ModuleType) -> None:
    rows = [
        gpu.Row("step", 1.0, "ms", "the peak", 0.4, 0.5),
        gpu.Row("memory", 1.0, "GB", "the plan", 1.2, 1.25, at_most=True),
    ]
    lines = gpu.table([gpu.Part("steps", rows)]).splitlines()
    assert lines[2] == "| steps | step | 1 ms | the peak | 0.40 | at least 0.5 (**missed**) |"
    assert lines[3] == "| steps | memory | 1 GB | the plan | 1.20 | at most 1.25 |"


def test_time_is_shared_out_and_what_is_left_is_passed_on(gpu: ModuleType) -> None:
    shares = gpu.Budget.of(100).shares(4)
    assert [round(next(shares).left) for _ in range(4)] == [25, 33, 50, 100]  # none was used
    assert gpu.Budget.of(-1).left == 0


def test_planned_memory_is_that_of_the_projected_experiment(gpu: ModuleType) -> None:
    from on_gpu.effects import experiment_with, planned_bytes

    from chronocoder.attribution.estimators import ESTIMATORS
    from chronocoder.plan.models import parse_shape

    shape = parse_shape(PYTHIA | {"vocab_size": 50_304, "tie_word_embeddings": False}, "test")
    held = 3 * 4 * shape.parameters + 4 * 2 * 3 * 2048 * 16_384
    for name in ESTIMATORS:
        planned = planned_bytes(experiment_with(name, gpu.Setting()), shape)
        assert held < planned < 1.5 * held


def test_precision_whose_noise_floor_is_too_high_is_called_refused(gpu: ModuleType) -> None:
    from on_gpu.effects import floor_row

    from chronocoder.config import AttributionSettings

    low, high = (floor_row("exact", floor, 0.5, AttributionSettings()) for floor in (0.02, 0.03))
    assert (low.ratio, high.ratio) == (1, 1.5)
    assert low.against == "smallest_effect 0.02: accepted; the largest effect here is 0.5"
    assert high.against.startswith("smallest_effect 0.02: refused")


def test_checks_go_on_after_one_that_fails(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_checks
    from on_gpu.checks import measure

    def fails(*_: object) -> None:
        raise ValueError("a value differs")

    monkeypatch.setattr(sys, "path", list(sys.path))  # it finds the checks by itself
    monkeypatch.setattr(gpu_checks, "CHECKS", {"first": fails, "second": lambda *_: None, "third": fails})
    found = []
    with pytest.raises(
        AssertionError, match="^first: ValueError: a value differs; third: ValueError: a value differs$"
    ):
        for row in measure(gpu.REDUCED, gpu.Budget.of(60)):
            found.append(row)
    assert [row.what for row in found] == ["first", "second", "third"]
    assert [row.against == "failed" for row in found] == [True, False, True]


def test_memory_is_held_against_the_plan_where_there_is_a_gpu(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from on_gpu.memory import memory_row

    assert memory_row("step", 3e9, 2e9).value is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    row = memory_row("step", 3e9, 2e9)
    assert (row.value, row.ratio, row.missed) == (3, 1.5, True)
    assert not memory_row("step", 1e9, 2e9).missed
