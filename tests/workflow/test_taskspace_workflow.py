"""A task space in the DAG: what it makes, and what a change of its settings repeats."""

import re
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

from chronocoder.config import parse_experiment
from chronocoder.plan.disk import disk_of
from chronocoder.plan.models import shape_of
from experiments import ROOT, SUBMITIT, Workflow

SPACE = {"checkpoints": ["step8"], "hypothesis": {"verbs": ["agreement_simple"]}, "bridge": ["triplet"]}
SETTINGS = {
    "seeds": [0],
    "methods": {
        "ftgd": {"objective": "differential", "fraction": 0.05, "learning_rate": 1e-3},
        "plain": {"objective": "right", "fraction": 1.0},
    },
    "steps": 3,
    "sequences": 8,
    "gradient_groups": 2,
    "top_features": 4,
    "permutations": 50,
    "bootstrap_samples": 50,
}
STORES = {
    "tunings/step8/seed0/agreement_simple.zarr",
    "tunings/step8/seed0/agreement_across_prepositional_phrase.zarr",
    "transfer.zarr",
    "gradients/step8.zarr",
    "gradients.zarr",
    "space.zarr",
}
BRIDGE = "triplet/batchtopk/seed0/bridge.zarr"
AFTER_TUNING = {"collect_transfer": 1, "map_tasks": 1, "bridge_tasks": 1, "write_report": 1}


@pytest.fixture(scope="module")
def related(nursery: Workflow, tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Return the small experiment, with a task space that has been made."""
    workflow = Workflow(tmp_path_factory.mktemp("related") / "copy", nursery.changed("suites.small.taskspace", SPACE))
    workflow.config["taskspace"] = SETTINGS
    shutil.copytree(nursery.directory, workflow.directory)
    assert workflow.planned() == {
        "tune_task": 2,
        "compare_gradients": 1,
        "collect_gradients": 1,
        **AFTER_TUNING,
    }
    result = workflow.snakemake()
    assert result.returncode == 0, result.stdout
    return workflow


def test_stores_of_a_task_space_open_with_labels_and_provenance(related: Workflow) -> None:
    directory = related.directory / "results/small"
    assert {
        str(path.relative_to(directory / "taskspace")) for path in (directory / "taskspace").rglob("*.zarr")
    } == STORES
    for path in [*(directory / "taskspace" / name for name in STORES), directory / BRIDGE]:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            dataset = xr.open_zarr(path)
        assert dataset.attrs["suite"] == "small" and dataset.attrs["config_digest"], path
        for name, variable in dataset.data_vars.items():
            assert variable.attrs["long_name"] and variable.attrs["units"], (path, name)


def test_bytes_of_a_task_space_are_those_planned(related: Workflow) -> None:
    experiment = parse_experiment(related.config, "test")
    planned = disk_of(experiment, {"small": shape_of("small", experiment.suites["small"])})
    sizes = {stored.kind: (stored.number, stored.size_bytes) for stored in planned}
    directory = related.directory / "results/small"
    tunings, stores = ([name for name in STORES if ("tunings" in name) == of_tunings] for of_tunings in (True, False))
    for kind, paths in (("tunings", tunings), ("task space", [*stores, f"../{BRIDGE}"])):
        files = [file for path in paths for file in (directory / "taskspace" / path).rglob("*") if file.is_file()]
        assert sizes[kind] == (len(paths), pytest.approx(sum(file.stat().st_size for file in files), rel=0.2)), kind


def test_every_tuning_is_evaluated_on_every_task(related: Workflow) -> None:
    transfer = xr.open_zarr(related.directory / "results/small/taskspace/transfer.zarr").load()
    assert transfer["transfer"].dims == ("tuning", "seed", "checkpoint", "source", "target")
    assert transfer["transfer"].notnull().all() and list(transfer["tuning"].values) == list(SETTINGS["methods"])
    assert dict(zip(transfer["target"].values, transfer["group"].values, strict=True)) == {
        "agreement_simple": "verbs",
        "agreement_across_prepositional_phrase": "agreement_across_prepositional_phrase",
    }


def test_nothing_of_a_task_space_is_left_to_do(related: Workflow) -> None:
    assert related.planned() == {}


def test_without_its_task_space_a_suite_has_a_report_without_it(related: Workflow, nursery: Workflow) -> None:
    assert related.planned(nursery.config) == {"write_report": 1}


def with_settings(workflow: Workflow, **values: Any) -> dict[str, Any]:
    return workflow.changed("taskspace", {**workflow.config["taskspace"], **values})


def test_a_changed_learning_rate_tunes_anew_and_takes_no_gradients_again(related: Workflow) -> None:
    methods = SETTINGS["methods"] | {"ftgd": {"objective": "differential", "fraction": 0.05, "learning_rate": 1e-4}}
    assert related.planned(with_settings(related, methods=methods)) == {"tune_task": 2, **AFTER_TUNING}


def test_a_changed_control_takes_no_gradients_again(related: Workflow) -> None:
    methods = SETTINGS["methods"] | {"plain": {"objective": "right", "fraction": 0.5}}
    changed = related.planned(with_settings(related, methods=methods))
    assert changed["tune_task"] == 2 and "compare_gradients" not in changed


def test_changed_statistics_tune_nothing(related: Workflow) -> None:
    planned = related.planned(with_settings(related, permutations=60))
    assert planned["map_tasks"] == 1 and not {"tune_task", "compare_gradients"} & set(planned)


def test_a_new_checkpoint_adds_its_own_jobs(related: Workflow) -> None:
    config = related.changed("suites.small.taskspace.checkpoints", ["step4", "step8"])
    assert related.planned(config) == {
        "tune_task": 2,
        "compare_gradients": 1,
        "collect_gradients": 1,
        **AFTER_TUNING,
    }


def test_a_new_tuning_seed_adds_its_tunings(related: Workflow) -> None:
    assert related.planned(with_settings(related, seeds=[0, 1])) == {"tune_task": 2, **AFTER_TUNING}


def test_all_task_spaces_are_a_target_of_their_own(related: Workflow) -> None:
    planned = related.planned(None, "--forcerun", "compare_gradients", "--", "taskspace")
    assert planned == {"compare_gradients": 1, "collect_gradients": 1, "map_tasks": 1, "taskspace": 1}


def test_short_tunings_of_a_cluster_are_packed_and_load_the_model_once(related: Workflow, tmp_path: Path) -> None:
    packed = replace(related, directory=tmp_path / "packed", options=SUBMITIT)
    shutil.copytree(related.directory, packed.directory)
    results = packed.directory / "results/small"
    target = "results/small/taskspace/transfer.zarr"
    for made in (packed.directory / target, results / "taskspace/tunings", results / "logs/tune_task"):
        shutil.rmtree(made)
    result = packed.snakemake(target)
    assert result.returncode == 0, result.stdout
    logs = [path.read_text() for path in (results / "logs/tune_task").glob("step8-seed0-*.log")]
    assert sorted("made by the job of task" in log for log in logs) == [False, True]
    before, after = (xr.open_zarr(flow.directory / target).load() for flow in (related, packed))
    xr.testing.assert_equal(before, after)
    assert list(packed.directory.rglob(".shared")) == []


def test_documented_reading_of_the_stores_works(related: Workflow, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (
        (ROOT / "docs/taskspace.md")
        .read_text()
        .replace("nursery/course", "small/triplet")
        .replace("/nursery/", "/small/")
    )
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(related.directory)
    shown: list[Any] = []
    for block in blocks:
        exec(compile(block, "taskspace.md", "exec"), {"print": shown.append})
    assert len(blocks) == 2 and len(shown) == 7
    assert list(shown[0].index) == list(shown[0].columns) == list(related.config["suites"]["small"]["tasks"])


def test_one_store_of_a_task_space_is_made_alone(related: Workflow) -> None:
    target = "results/small/taskspace/space.zarr"
    before = xr.open_zarr(related.directory / target).load()
    assert related.planned(None, "--force", target) == {"map_tasks": 1}
    shutil.rmtree(related.directory / target)
    result = related.snakemake(target)
    assert result.returncode == 0, result.stdout
    xr.testing.assert_equal(before, xr.open_zarr(related.directory / target).load())
    assert related.snakemake("--touch").returncode == 0  # the other tests want an up-to-date state


def test_nothing_of_a_task_space_can_be_asked_for_without_one(nursery: Workflow) -> None:
    result = nursery.snakemake("--dry-run", "results/small/taskspace/transfer.zarr")
    assert result.returncode != 0 and "No rule to produce" in result.stdout
