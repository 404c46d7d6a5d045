"""Jobs of one task each that share loaded models: what is loaded, repeated and left, here and in a cluster's packs."""

import copy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import xarray as xr

from experiments import NURSERY, SUBMITIT, Workflow

NAMES = ["agreement_simple", "agreement_across_prepositional_phrase", "determiner_noun", "reflexive_number"]
STAGES = {"score_task": "behaviour", "attribute_task": "attribution", "ablate_task": "ablation"}
RUN = "results/small/pair/l1/seed0"
OF_ONE_TASK = {"build_task": 1, "score_task": 1, "attribute_task": 1, "ablate_task": 1}


def small_experiment() -> dict[str, object]:
    config = copy.deepcopy(NURSERY)
    suite = config["suites"]["small"]
    suite["tasks"] = {name: {"kind": "nursery", "pairs": 12} for name in NAMES}
    suite["comparisons"] = {"pair": {"checkpoints": ["step0", "step8"]}}
    suite["contrasts"] = {}
    del config["variants"]["batchtopk"]
    return config | {"attribution_jobs": {"tasks_per_job": 4}}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """The experiment, run one job at a time."""
    workflow = Workflow(tmp_path_factory.mktemp("shared"), small_experiment(), ("--cores", "1", "--show-failed-logs"))
    result = workflow.snakemake()
    assert result.returncode == 0, result.stdout
    return workflow


@pytest.fixture
def again(once: Workflow, tmp_path: Path) -> Iterator[Workflow]:
    """The experiment, run, in a copy whose logs are empty."""
    directory = tmp_path / "again"
    shutil.copytree(once.directory, directory, symlinks=True)
    shutil.rmtree(directory / "results/small/logs")
    yield Workflow(directory, copy.deepcopy(once.config), once.options)


def logs(workflow: Workflow, rule: str) -> dict[str, str]:
    """Return the logs of a rule's jobs by task."""
    found = (workflow.directory / "results/small/logs" / rule).glob("*.log")
    return {path.stem.removeprefix("pair-l1-seed0-"): path.read_text() for path in found}


def loads(workflow: Workflow, rule: str) -> int:
    """Return how many jobs of a rule have loaded models."""
    return sum("Loading weights" in log for log in logs(workflow, rule).values())


def forget(workflow: Workflow, *paths: str) -> None:
    for path in paths:
        shutil.rmtree(workflow.directory / path)


def left(workflow: Workflow) -> list[Path]:
    return list(workflow.directory.rglob(".shared"))


def damage(workflow: Workflow, name: str) -> Callable[[], int]:
    """Take a file from the store of a task, and return what puts it back."""
    task = workflow.directory / f"results/small/tasks/{name}.zarr"
    chunk = next(path for path in (task / "token_id/c").rglob("*") if path.is_file())
    content = chunk.read_bytes()
    chunk.unlink()
    return partial(chunk.write_bytes, content)


def is_made(workflow: Workflow, name: str, kind: str = "attribution") -> bool:
    return (workflow.directory / RUN / kind / f"{name}.zarr").exists()


@pytest.mark.parametrize("rule", STAGES)
def test_models_are_loaded_once_for_all_tasks(once: Workflow, rule: str) -> None:
    assert set(logs(once, rule)) == set(NAMES) and loads(once, rule) == 1
    first = logs(once, rule).pop(NAMES[0])
    assert first.count("waits for its own job") == 3
    for name in NAMES[1:]:
        (line,) = logs(once, rule)[name].splitlines()
        job = NAMES[0] if rule == "score_task" else f"pair-l1-seed0-{NAMES[0]}"
        assert line.endswith(f"made by the job of task {NAMES[0]}; its log: results/small/logs/{rule}/{job}.log")
    assert left(once) == [] and once.planned() == {}


def test_a_task_in_the_middle_is_all_that_runs(once: Workflow) -> None:
    config = copy.deepcopy(once.config)
    tasks = config["suites"]["small"]["tasks"]
    new = {"agreement_irregular_plural": {"kind": "nursery", "pairs": 12}}
    config["suites"]["small"]["tasks"] = {NAMES[0]: tasks[NAMES[0]], **new, **tasks}
    joined = {"collect_behaviour": 1, "collect_attributions": 1, "find_examples": 1, "write_report": 1}
    assert once.planned(config) == OF_ONE_TASK | joined


def test_a_changed_task_is_all_that_runs(once: Workflow) -> None:
    config = once.changed(f"suites.small.tasks.{NAMES[2]}", {"kind": "nursery", "pairs": 13})
    planned = once.planned(config)
    assert {rule: planned[rule] for rule in OF_ONE_TASK} == OF_ONE_TASK


def test_a_rule_has_one_name_for_all_its_jobs(once: Workflow) -> None:
    workflow = replace(once, options=SUBMITIT)
    result = workflow.snakemake(f"{RUN}/relie.zarr", "--forceall", "--set-resources", "attribute_task:pack=0")
    assert result.returncode != 0
    assert "rule attribute_task: resource pack=0 is no whole number from 1 on" in " ".join(result.stdout.split())


def test_one_target_is_worked_on_alone(again: Workflow) -> None:
    forget(again, f"{RUN}/attribution", f"{RUN}/relie.zarr")
    result = again.snakemake(f"{RUN}/attribution/{NAMES[2]}.zarr")
    assert result.returncode == 0, result.stdout
    assert [path.name for path in (again.directory / RUN / "attribution").iterdir()] == [f"{NAMES[2]}.zarr"]


def test_forced_tasks_load_models_once_and_find_the_same(again: Workflow, once: Workflow) -> None:
    shutil.rmtree(again.directory / RUN / "attribution" / f"{NAMES[1]}.zarr")
    result = again.snakemake(f"{RUN}/relie.zarr", "--forcerun", "attribute_task")
    assert result.returncode == 0, result.stdout
    assert set(logs(again, "attribute_task")) == set(NAMES) and loads(again, "attribute_task") == 1
    for name in NAMES:
        before, after = (xr.open_zarr(flow.directory / RUN / f"attribution/{name}.zarr") for flow in (once, again))
        xr.testing.assert_equal(before, after)
    assert left(again) == []


def test_a_task_that_fails_costs_no_other_its_result(again: Workflow) -> None:
    forget(again, f"{RUN}/attribution", f"{RUN}/relie.zarr")
    mend = damage(again, NAMES[1])
    result = again.snakemake("--keep-going", f"{RUN}/relie.zarr")
    assert result.returncode != 0 and f"{NAMES[1]}.zarr: holds" in result.stdout
    said = logs(again, "attribute_task")
    assert f"Task {NAMES[1]} is left to its own job, since it failed" in said[NAMES[0]]
    assert [is_made(again, name) for name in NAMES] == [True, False, True, True]
    mend()
    result = again.snakemake(f"{RUN}/relie.zarr")
    assert result.returncode == 0, result.stdout
    assert {name for name, log in logs(again, "attribute_task").items() if log != said[name]} == {NAMES[1]}
    assert left(again) == []


def test_what_was_done_before_a_task_failed_is_not_done_again(again: Workflow) -> None:
    """Without --keep-going no further job begins: what the first one did for them waits for the next call."""
    forget(again, f"{RUN}/attribution", f"{RUN}/relie.zarr")
    mend = damage(again, NAMES[1])
    assert again.snakemake(f"{RUN}/relie.zarr").returncode != 0
    assert [is_made(again, name) for name in NAMES] == [True, False, False, False] and left(again)
    mend()
    result = again.snakemake(f"{RUN}/relie.zarr")
    assert result.returncode == 0, result.stdout
    for name in NAMES[2:]:
        assert f"made by the job of task {NAMES[0]}" in logs(again, "attribute_task")[name]
    assert left(again) == []


def test_a_pack_of_a_cluster_loads_models_once(again: Workflow, once: Workflow) -> None:
    forget(again, f"{RUN}/attribution", f"{RUN}/relie.zarr", "results/small/behaviour", "results/small/behaviour.zarr")
    targets = (f"{RUN}/relie.zarr", "results/small/behaviour.zarr")
    again.options = SUBMITIT
    result = again.snakemake(*targets)
    assert result.returncode == 0, result.stdout
    for rule in ("attribute_task", "score_task"):
        assert set(logs(again, rule)) == set(NAMES) and loads(again, rule) == 1, rule
    for name in NAMES:
        before, after = (xr.open_zarr(flow.directory / RUN / f"attribution/{name}.zarr") for flow in (once, again))
        xr.testing.assert_equal(before, after)
    assert left(again) == []
