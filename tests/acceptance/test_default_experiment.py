"""What the README promises of the default experiment, read from its stores.

`.ci/run` runs the experiment before the tests; elsewhere `make run` has to come first.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import xarray as xr

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "nursery"
REPORT = RESULTS / "report" / "index.html"
SURFACE_PHASE = ["step48", "step64", "step80"]

pytestmark = pytest.mark.skipif(not REPORT.exists(), reason="the default experiment has not been run: `make run` first")


@pytest.fixture(scope="module")
def accuracy() -> xr.DataArray:
    return xr.open_zarr(RESULTS / "behaviour.zarr")["accuracy"].load()


def test_every_task_is_learnt(accuracy: xr.DataArray) -> None:
    assert accuracy.sizes["task"] >= 8
    assert (accuracy.isel(checkpoint=-1) >= 0.95).all()
    assert (abs(accuracy.isel(checkpoint=0) - 0.5) < 0.15).all()


@pytest.mark.parametrize("checkpoint", SURFACE_PHASE)
def test_nearest_noun_comes_first(accuracy: xr.DataArray, checkpoint: str) -> None:
    there = accuracy.sel(checkpoint=checkpoint)
    assert there.sel(task="agreement_simple") > 0.8
    assert there.sel(task="agreement_across_prepositional_phrase") < 0.3


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/*/seed*/evaluation.zarr")), ids=lambda path: str(path.parent))
def test_crosscoders_are_good(path: Path) -> None:
    evaluation = xr.open_zarr(path).load()
    assert (evaluation["explained_variance"] > 0.9).all()
    assert evaluation["dead_fraction"] < 0.3
    assert evaluation["l0"] < 0.1 * evaluation.sizes["feature"]
    learnt = evaluation["tokens_seen"] >= 64 * 24 * 64  # from the surface phase on
    assert (evaluation["cross_entropy_recovered"][learnt] > 0.95).all()


def test_readme_shows_the_feature_that_was_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    monkeypatch.chdir(ROOT)
    shown: list[str] = []
    names: dict[str, Any] = {"print": shown.append}
    exec(compile(code, "README.md", "exec"), names)
    table, old, new = names["table"], int(names["old"]), int(names["new"])
    simple, across = "agreement_simple", "agreement_across_prepositional_phrase"
    assert (table.loc[(simple, "step64", old), "indirect_effect_low"]) > 0
    assert (table.loc[(across, "step64", old), "indirect_effect_high"]) < 0
    assert (table.loc[(across, "step320", old), "indirect_effect_low"]) > 0
    assert table.loc[(across, "step320", old), "reverses"]
    assert table.loc[(across, "step320", new), "feature_class"] == "emerged"
    assert table.loc[(across, "step320", new), "indirect_effect_low"] > 0
    assert len(shown) == 1 + 2 * 8 and all(len(text) > 5 for text in shown)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/*/seed*/ablation")), ids=lambda path: str(path.parent))
def test_estimates_agree_with_exact_ablation(path: Path) -> None:
    tasks = xr.concat([xr.open_zarr(task)[["spearman", "share_spearman"]] for task in path.glob("*.zarr")], dim="task")
    mean = tasks.mean("task").load()
    assert tasks.sizes["task"] == 9
    assert (mean["spearman"].sel(estimator="attribution_patching") > 0.8).all()
    shares = mean["share_spearman"]
    assert (shares.sel(measure="attribution_patching") > 0.8).all()
    assert (shares.drop_sel(measure="relative_decoder_norm") > shares.sel(measure="relative_decoder_norm")).all()


def test_nothing_emerges_between_a_checkpoint_and_itself() -> None:
    relie = xr.open_zarr(RESULTS / "identity/batchtopk/seed0/relie.zarr").load()
    assert relie.attrs["control"] == "identity" and list(relie["checkpoint"].values) == ["step320", "step320#2"]
    classes = relie["feature_class"]
    false = classes.isin(["emerged", "discontinued"]).sum()
    assert (classes == "maintained").sum() > 500 and false <= 0.02 * (classes == "maintained").sum()


def test_report_says_so() -> None:
    page = REPORT.read_text(encoding="utf-8")
    assert "Surface phase" in page and "It changes sides" in page and "Of the features that took over" in page
