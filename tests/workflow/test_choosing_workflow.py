"""The DAG goes on from comparisons that it chooses itself, after a scan or not, or ends in a report without any."""

import copy
import os
import re
import shutil
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import xarray as xr
import yaml

from experiments import NURSERY, Workflow

REPORT = "results/small/report/index.html"
OF_A_CHOICE = {"choose_comparisons": 1, "write_report": 1}


def experiment() -> dict[str, Any]:
    """Return a small nursery that learns which determiner goes with a noun, and chooses one pair to compare."""
    config = copy.deepcopy(NURSERY)
    small = config["suites"]["small"]
    small["source"] = {"kind": "nursery", "steps": [0, 10, 60], "hidden_size": 64, "blocks": 2, "heads": 2}
    small["tasks"] = {"determiner_noun": {"kind": "nursery", "pairs": 120}}
    small |= {"comparisons": "auto", "contrasts": {}}
    small["auto"] = {"pairs": 1, "triplets": 0, "variants": ["batchtopk"], "resamples": 500}
    config["attribution_jobs"] = {"tasks_per_job": 2}
    return config


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    workflow = Workflow(tmp_path_factory.mktemp("chosen"), experiment())
    result = workflow.snakemake()
    assert result.returncode == 0, result.stdout
    return workflow


def copied(workflow: Workflow, directory: Path, config: dict[str, Any]) -> Workflow:
    """Return the same results under another configuration."""
    shutil.copytree(workflow.directory, directory)
    return Workflow(directory, config)


def comparisons(workflow: Workflow) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((workflow.directory / "results/small/comparisons.yaml").read_text())
    return found


def shown(workflow: Workflow, first: str = REPORT) -> dict[str, str]:
    """Return the pages of a report by their names."""
    pages = (workflow.directory / first).parent.glob("*.html")
    return {page.stem: page.read_text(encoding="utf-8") for page in pages}


def test_what_is_chosen_is_trained_and_explained(chosen: Workflow) -> None:
    found = comparisons(chosen)
    assert list(found) == ["change1"] and found["change1"]["checkpoints"][1] == "step60"
    relie = xr.open_zarr(chosen.directory / "results/small/change1/batchtopk/seed0/relie.zarr")
    assert list(relie["checkpoint"].values) == found["change1"]["checkpoints"]
    pages = shown(chosen)
    assert "“determiner noun” rises from" in pages["index"] and "“determiner noun” rises from" in pages["ability"]
    assert [name for name in pages if name.startswith("run-")] == ["run-change1-batchtopk-seed0"]
    assert not (chosen.directory / "results/small/change1/l1").exists()
    harvested = {path.name for path in (chosen.directory / "results/small/activations/residual.0").iterdir()}
    assert harvested == set(found["change1"]["checkpoints"])
    assert chosen.planned() == {}


def test_figures_are_in_snakemakes_own_report_by_category(chosen: Workflow) -> None:
    result = chosen.snakemake("--report", "figures.zip")
    assert result.returncode == 0, result.stdout
    figures = (chosen.directory / "results/small/report/figures").rglob("*.svg")
    with ZipFile(chosen.directory / "figures.zip") as archive:
        names = [Path(name).name for name in archive.namelist()]
        (page,) = (name for name in archive.namelist() if name.endswith("report.html"))
        text = archive.read(page).decode()
    assert {path.name for path in figures} <= set(names)
    assert all(f'"{category}"' in text for category in ("small", "ability", "crosscoders", "overview"))


def test_the_same_choice_trains_nothing_again(chosen: Workflow, tmp_path: Path) -> None:
    again = copied(chosen, tmp_path / "again", chosen.changed("suites.small.auto.pairs", 2))
    before = comparisons(chosen)
    result = again.snakemake()
    assert result.returncode == 0, result.stdout
    assert comparisons(again) == before
    started = set(re.findall(r"^(?:localrule|rule|checkpoint) (\w+):|\(Rule: (\w+)\)", result.stdout, re.MULTILINE))
    assert {name for pair in started for name in pair if name} == {*OF_A_CHOICE, "all"}
    os.utime(again.directory / "results/small/comparisons.yaml")
    assert again.planned() == {}


def test_one_target_of_a_choice_can_be_asked_for(chosen: Workflow, tmp_path: Path) -> None:
    target = "results/small/change1/batchtopk/seed0/evaluation.zarr"
    assert chosen.planned(None, "--force", target) == {"evaluate_crosscoder": 1}
    fresh = Workflow(tmp_path, chosen.config)
    planned = fresh.planned(None, target)
    assert planned["choose_comparisons"] == planned["train_crosscoder"] == 1 and "harvest_activations" not in planned
    beyond = chosen.changed("suites.small.auto.pairs", 2)
    result = copied(chosen, tmp_path / "copy", beyond).snakemake(
        "results/small/change2/batchtopk/seed0/evaluation.zarr"
    )
    assert result.returncode != 0 and "no comparison 'change2' was chosen" in result.stdout


def test_nothing_chosen_ends_in_a_report_that_says_so(chosen: Workflow, tmp_path: Path) -> None:
    none = copied(chosen, tmp_path / "none", chosen.changed("suites.small.auto.smallest_change", 0.95))
    result = none.snakemake()
    assert result.returncode == 0, result.stdout
    assert comparisons(none) == {}
    pages = shown(none)
    assert "Nothing is chosen." in pages["index"] and set(pages) == {"index", "ability", "method"}
    assert none.planned() == {}


def test_a_scan_comes_first_and_only_what_is_compared_is_scored(chosen: Workflow, tmp_path: Path) -> None:
    """The scan reads all pairs here, so that the choice may be the same and nothing need be trained again."""
    config = chosen.changed("suites.small.scan", {"limit": 120, "tokens": 600})
    scan = copied(chosen, tmp_path / "scan", config)
    assert scan.planned(config, "scan") == {"scan_checkpoint": 3, "collect_scan": 1, "show_scan": 1, "scan": 1}
    result = scan.snakemake(REPORT, "scan")
    assert result.returncode == 0, result.stdout
    found = comparisons(scan)["change1"]["checkpoints"]
    results = scan.directory / "results/small"
    assert list(xr.open_zarr(results / "behaviour.zarr")["checkpoint"].values) == found
    scanned = xr.open_zarr(results / "scan.zarr").load()
    whole = xr.open_zarr(chosen.directory / "results/small/behaviour.zarr").load()
    xr.testing.assert_allclose(scanned["accuracy"], whole["accuracy"])
    assert scanned["linear_cka"].dims == ("site", "checkpoint", "other_checkpoint")
    assert "A look at every checkpoint" in shown(scan)["ability"]
    alone = shown(scan, "results/small/scan_report/index.html")
    assert set(alone) == {"index", "ability", "method"} and "A look at every checkpoint" not in alone["ability"]
    assert scan.planned() == scan.planned(config, "scan") == {}


def test_given_comparisons_are_made_beside_those_chosen(chosen: Workflow) -> None:
    """A control is given: it is measured without waiting for the choice."""
    config = chosen.changed(
        "suites.small.comparisons", {"same": {"checkpoints": ["step60", "step60"], "variants": ["l1"]}}
    )
    planned = chosen.planned(config)
    assert planned["choose_comparisons"] == planned["train_crosscoder"] == planned["evaluate_crosscoder"] == 1
    assert "harvest_activations" not in planned and "score_task" not in planned
