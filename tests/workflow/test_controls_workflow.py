"""The DAG with an identity, a second pretraining seed, and dictionaries of single checkpoints as a baseline."""

import copy
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from chronocoder.crosscoder.model import load_crosscoder
from experiments import NURSERY, Workflow

CONTROLS = {"same": "identity", "twins": "pretraining seed"}
SINGLES = ["early", "late"]
LABELS = {"same": ["step8", "step8#2"], "twins": ["step8", "step8@twin"], "early": ["step0"], "late": ["step8"]}


def experiment() -> dict[str, Any]:
    """Return the small nursery with a twin of another seed that only supplies checkpoints."""
    config = copy.deepcopy(NURSERY)
    small = config["suites"]["small"]
    small["comparisons"] = {
        "pair": {"checkpoints": ["step0", "step8"], "baseline": SINGLES},
        "early": {"checkpoints": ["step0"]},
        "late": {"checkpoints": ["step8"]},
        "same": {"checkpoints": ["step8", "step8"]},
        "twins": {"checkpoints": ["step8", "step8@twin"]},
    }
    twin = {**copy.deepcopy(small), "comparisons": {}, "contrasts": {}}
    twin["source"] |= {"seed": 1, "tokenizer_seed": 0}
    config["suites"]["twin"] = twin
    config["variants"] = {"batchtopk": config["variants"]["batchtopk"]}
    config["attribution_jobs"] = {"tasks_per_job": 2}
    return config


@pytest.fixture(scope="module")
def controls(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    workflow = Workflow(tmp_path_factory.mktemp("controls"), experiment())
    result = workflow.snakemake("--printshellcmds")
    assert result.returncode == 0, result.stdout
    harvests = [line for line in result.stdout.splitlines() if "harvest_activations.py" in line and "--site" in line]
    (foreign,) = [line for line in harvests if "--tokenizer results/small/tokenizer" in line]
    assert "--revision step8@twin --checkpoint results/twin/checkpoints/step8" in foreign and len(harvests) == 3
    return workflow


def run_of(workflow: Workflow, comparison: str) -> Path:
    return workflow.directory / "results/small" / comparison / "batchtopk/seed0"


def test_only_what_is_compared_is_ablated_and_shown(controls: Workflow) -> None:
    measured = {"attribution", "crosscoder", "evaluation.zarr", "own_codes.zarr", "relie.zarr", "training.zarr"}
    for comparison in LABELS:
        assert {path.name for path in run_of(controls, comparison).iterdir()} == measured
    found = {path.name for path in run_of(controls, "pair").iterdir()}
    assert found == {*measured, "ablation", "baseline.zarr", "features.zarr"}
    assert {path.name for path in (controls.directory / "results/twin").iterdir()} == {
        "tokenizer",
        "checkpoints",
        "logs",
        "benchmarks",
    }
    assert controls.planned() == {}


def test_one_store_serves_both_places_of_an_identity(controls: Workflow) -> None:
    stores = controls.directory / "results/small/activations/residual.0"
    assert {path.name for path in stores.iterdir()} == {"step0", "step8", "step8@twin"}
    attributes = xr.open_zarr(stores / "step8@twin/train.zarr").attrs
    assert (attributes["suite"], attributes["revision"]) == ("small", "step8@twin")
    own, other = (
        controls.directory / f"results/{suite}/checkpoints/step8/model.safetensors" for suite in ("small", "twin")
    )
    assert own.read_bytes() != other.read_bytes()


@pytest.mark.parametrize("comparison", LABELS)
def test_labels_and_controls_are_in_the_stores(controls: Workflow, comparison: str) -> None:
    run = run_of(controls, comparison)
    labels = LABELS[comparison]
    assert load_crosscoder(run / "crosscoder").config.checkpoints == tuple(labels)
    for name in ("relie", "evaluation"):
        store = xr.open_zarr(run / f"{name}.zarr").load()
        assert list(store["checkpoint"].values) == labels
        assert store.attrs["control"] == CONTROLS.get(comparison, "")
        seen = {"early": [0], "late": [8 * 24 * 64]}.get(comparison, [8 * 24 * 64] * 2)
        assert store["tokens_seen"].values.tolist() == seen
    relie = xr.open_zarr(run / "relie.zarr").load()
    shares = relie["relative_indirect_effect"]
    assert (abs(relie["indirect_effect"]) > 0).any()
    np.testing.assert_allclose(shares.sum("checkpoint").where(shares.notnull().all("checkpoint"), 1), 1, rtol=1e-5)
    if len(labels) == 1:
        assert set(np.unique(shares.values[~np.isnan(shares.values)])) == {1.0}


def test_models_of_an_identity_are_the_same_and_of_twins_are_not(controls: Workflow) -> None:
    clean = {
        name: xr.open_zarr(run_of(controls, name) / "evaluation.zarr")["cross_entropy_clean"].values
        for name in CONTROLS
    }
    assert clean["same"][0] == clean["same"][1] == clean["twins"][0] != clean["twins"][1]


def test_baseline_describes_itself(controls: Workflow) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        baseline = xr.open_zarr(run_of(controls, "pair") / "baseline.zarr").load()
    for name, variable in baseline.variables.items():
        if name in baseline.data_vars:
            assert variable.attrs["long_name"] and variable.attrs["units"] == "1", name
    assert baseline["spearman"].dims == ("measure", "cosine_at_least", "task", "checkpoint")
    assert baseline["track_feature"].dims == ("track", "checkpoint")
    assert baseline.sizes["feature"] == baseline.sizes["track"] == 48
    assert list(baseline["task"].values) == list(controls.config["suites"]["small"]["tasks"])
    assert baseline.attrs["comparison"] == "pair" and baseline.attrs["baseline"] == SINGLES
    assert (baseline["features_compared"].sel(cosine_at_least=0) > 0).all()
    assert (baseline["features_compared"] <= baseline["features_matched"]).all()


def test_comparisons_are_all_written_down_and_the_report_shows_one(controls: Workflow) -> None:
    results = controls.directory / "results/small"
    written = yaml.safe_load((results / "comparisons.yaml").read_text())
    assert {name: entry["control"] for name, entry in written.items() if entry["control"]} == CONTROLS
    assert set(written) == {"pair", *LABELS}
    report = results / "report"
    assert [page.name for page in report.glob("run-*")] == ["run-pair-batchtopk-seed0.html"]
    for page in ("run-pair-batchtopk-seed0", "method"):
        assert "twins · batchtopk · seed 0" in (report / f"{page}.html").read_text(encoding="utf-8")


def test_a_control_trains_on_streamed_activations_too(controls: Workflow, tmp_path: Path) -> None:
    streaming = Workflow(tmp_path / "streaming", controls.changed("training", {"activations": "streaming"}))
    shutil.copytree(controls.directory, streaming.directory)
    names = list(CONTROLS)
    targets = [f"results/small/{name}/batchtopk/seed0/evaluation.zarr" for name in names]
    result = streaming.snakemake(*targets)
    assert result.returncode == 0, result.stdout
    for name in names:
        cached, streamed = (load_crosscoder(run_of(flow, name) / "crosscoder") for flow in (controls, streaming))
        assert streamed.config == cached.config
        np.testing.assert_allclose(streamed.decoder_rows, cached.decoder_rows, rtol=1e-2, atol=1e-2)


def test_another_order_of_comparisons_rewrites_the_report(controls: Workflow) -> None:
    comparisons = controls.config["suites"]["small"]["comparisons"]
    order = [name for name in comparisons if name != "same"]
    planned = controls.planned(
        controls.changed("suites.small.comparisons", {name: comparisons[name] for name in (*order, "same")})
    )
    assert planned == {"list_comparisons": 1, "write_report": 1}


def test_a_tokenizer_seed_that_is_the_sources_own_repeats_nothing(controls: Workflow) -> None:
    assert controls.planned(controls.changed("suites.small.source.tokenizer_seed", 0)) == {}


def test_several_seeds_match_no_controls(controls: Workflow) -> None:
    planned = controls.planned(controls.changed("seeds", [0, 1]))
    assert planned == {
        "train_crosscoder": 5,
        "evaluate_crosscoder": 5,
        "attribute_task": 10,
        "ablate_task": 2,
        "collect_attributions": 5,
        "find_examples": 1,
        "compare_baseline": 1,
        "match_seeds": 1,
        "write_report": 1,
    }


def test_a_suite_of_controls_alone_has_no_report(controls: Workflow) -> None:
    config = controls.changed("suites.small.comparisons", {"twins": {"checkpoints": ["step8", "step8@twin"]}})
    config |= {"results": "elsewhere"}
    assert controls.planned(config) == {
        "train_tokenizer": 2,
        "pretrain_small": 1,
        "pretrain_twin": 1,
        "build_corpus": 1,
        "build_task": 2,
        "harvest_activations": 2,
        "train_crosscoder": 1,
        "evaluate_crosscoder": 1,
        "attribute_task": 2,
        "collect_attributions": 1,
    }
