"""What a report is made of: stores matched by their attributes, and refused where they do not belong together."""

import pytest
import xarray as xr
from report_stores import CONTRAST, make_run, seed_store, with_facts

from chronocoder.errors import ConfigError, StoreError
from chronocoder.report.inputs import (
    ReportInputs,
    RunKey,
    examined_comparisons,
    match_runs,
    match_seeds,
    read_contrasts,
)


def test_a_run_has_a_name_for_files() -> None:
    assert RunKey("a b", "l1", 2).slug == "a-b-l1-seed2"


def test_runs_are_matched_by_attributes_whatever_the_order(relie: xr.Dataset) -> None:
    first, second = make_run(relie, "first"), make_run(relie, "second")
    matched = match_runs(
        [second.training, first.training],
        [first.evaluation, second.evaluation],
        [first.relie, second.relie],
        [second.features, first.features],
        [run.ablations[task] for task in ("far", "near") for run in (second, first)],
    )
    assert [run.key.comparison for run in matched] == ["first", "second"]
    assert all(store.attrs["comparison"] == run.key.comparison for run in matched for store in run.stores.values())


def test_a_run_without_a_store_is_named(relie: xr.Dataset) -> None:
    run = make_run(relie)
    with pytest.raises(StoreError, match="pair · l1 · seed 0"):
        match_runs([], [run.evaluation], [run.relie], [run.features], run.ablations.values())


def test_a_task_without_an_ablation_is_named(relie: xr.Dataset) -> None:
    run = make_run(relie)
    with pytest.raises(
        StoreError, match="pair · l1 · seed 0 are not of the same tasks: far; give the ablation of every"
    ):
        match_runs([run.training], [run.evaluation], [run.relie], [run.features], [run.ablations["near"]])


def test_seeds_are_matched_with_runs_in_their_order(relie: xr.Dataset) -> None:
    runs = [make_run(relie, "first"), make_run(relie, "second")]
    stores = [with_facts(seed_store(), comparison=name, variant="l1") for name in ("second", "first")]
    assert [store.attrs["comparison"] for store in match_seeds(stores, runs)] == ["first", "second"]
    with pytest.raises(StoreError, match="seeds are compared of second · l1, of which no run is given; give its runs"):
        match_seeds(stores, runs[:1])


def test_a_store_that_does_not_say_its_run_is_an_error(relie: xr.Dataset) -> None:
    run = make_run(relie)
    nameless = run.training.copy()
    del nameless.attrs["variant"]
    with pytest.raises(StoreError, match="lacks the attribute variant; delete it"):
        match_runs([nameless], [run.evaluation], [run.relie], [run.features], run.ablations.values())


def test_contrasts_of_unknown_tasks_are_an_error() -> None:
    assert read_contrasts({"near": ["far"]}, ["near", "far"]) == [CONTRAST]
    with pytest.raises(ConfigError, match="not scored: nowhere"):
        read_contrasts({"near": ["nowhere"]}, ["near", "far"])


def control_stores(suite: str = "toy", **facts: str) -> dict[str, list[xr.Dataset]]:
    """Return effects, evaluation and baseline as a suite's controls leave them; only their attributes are looked at."""
    of_control = {"suite": suite, "comparison": "same", "variant": "l1", "seed": 0, "control": "identity", **facts}
    names = ("controls", "control_evaluations", "baselines")
    return {name: [xr.Dataset(attrs=of_control)] for name in names}


def test_controls_and_baselines_are_held(inputs: ReportInputs) -> None:
    given = ReportInputs(**{**vars(inputs), **control_stores()})
    assert given.controls[0].attrs["control"] == "identity" and len(given.baselines) == 1
    assert (inputs.controls, inputs.control_evaluations, inputs.baselines) == ((), (), ())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            control_stores(suite="other"),
            "store of same · l1 · seed 0 is of suite 'other', not 'toy'; give controls and",
        ),
        (control_stores(control=""), "a store of same · l1 · seed 0 is no control's; give it among the runs"),
        (
            control_stores() | {"control_evaluations": control_stores(comparison="twins")["controls"]},
            "controls do not match: same · l1 · seed 0, twins · l1 · seed 0; give both in the same order",
        ),
        (control_stores() | {"control_evaluations": []}, "controls do not match: same · l1 · seed 0; give both"),
    ],
)
def test_controls_of_another_suite_or_without_counterpart_are_refused(
    changed: dict[str, list[xr.Dataset]], message: str, inputs: ReportInputs
) -> None:
    with pytest.raises(StoreError, match=message):
        ReportInputs(**{**vars(inputs), **changed})


def test_controls_and_single_checkpoints_are_not_marked() -> None:
    document = {
        "pair": {"checkpoints": ["step0", "step1"]},
        "same": {"checkpoints": ["step1", "step1"]},
        "twins": {"checkpoints": ["step1", "step1@twin"]},
        "only": {"checkpoints": ["step1"]},
    }
    assert examined_comparisons(document) == {"pair": ["step0", "step1"]}


def test_two_runs_of_one_name_for_files_are_refused(inputs: ReportInputs, relie: xr.Dataset) -> None:
    runs = [make_run(relie, "a b"), make_run(relie, "a-b")]
    with pytest.raises(
        StoreError, match="a b · l1 · seed 0, a-b · l1 · seed 0: both would be written to run-a-b-l1-seed0"
    ):
        ReportInputs(**{**vars(inputs), "runs": runs})
