"""The table of claims says what the stores say: each claim holds of effects made for it, and fails of others."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import xarray as xr
from benchmark_modules import load_benchmark
from test_surface import BOTH, FAR, NEAR, put, relie_of

from chronocoder.stores import strings


@pytest.fixture(scope="module")
def claims() -> ModuleType:
    return load_benchmark("claims")


def run_of(claims: ModuleType, relie: xr.Dataset, **stores: xr.Dataset) -> Any:
    """Return a run of effects on the two tasks of the claims."""
    run = object.__new__(claims.Run)
    run.suite, run.seed, run.path = Path("suite0"), 0, Path("run")
    run.relie = relie.assign_coords(task=strings([claims.SURFACE, claims.CONFLICTING]))
    run.first, run.last = "early", "late"
    for name, store in stores.items():
        setattr(run, name, store)
    return run


def effects(harm: tuple[float, float], others: tuple[float, float]) -> xr.Dataset:
    """Return effects of two features of the surface rule, early and late: harm in the plural, help in the singular."""
    relie = relie_of()
    for feature in (0, 1):
        put(relie, (NEAR, BOTH, 0, 0, feature), 1.0 - feature / 10)
        for checkpoint in (0, 1):
            put(relie, (FAR, BOTH, 1, checkpoint, feature), harm[checkpoint])
            put(relie, (FAR, BOTH, 0, checkpoint, feature), others[checkpoint])
    return relie


def test_features_that_stay_and_come_to_help(claims: ModuleType) -> None:
    run = run_of(claims, effects((-0.6, -0.5), (0.0, 1.4)))
    assert claims.found(run) == (True, "2 features")
    assert claims.harm_stays(run) == (True, "-1.20 → -1.00")
    assert claims.none_gives_way(run) == (True, "2 of 2")
    assert claims.help_is_new(run) == (True, "+0.00 → +1.40 (random 0.05); 2 of 2")
    assert claims.together_they_help(run) == (True, "+0.00 → +2.80 (random 0.10)")
    assert claims.helper_is_one_of_them(run).holds


def test_features_that_give_way(claims: ModuleType) -> None:
    relie = effects((-0.6, -0.1), (0.0, 0.04))
    put(relie, (FAR, BOTH, 1, 1, 1), -0.6)  # one of them stays
    put(relie, (FAR, BOTH, 0, 1, 2), 3.0)  # another feature helps
    run = run_of(claims, relie)
    assert claims.harm_stays(run) == (True, "-1.20 → -0.70") and claims.none_gives_way(run) == (False, "1 of 2")
    assert not claims.help_is_new(run).holds and not claims.together_they_help(run).holds
    assert claims.helper_is_one_of_them(run) == (False, "feature 2, +3.00")
    put(relie, (FAR, BOTH, 1, 1, 1), -0.1)
    assert not claims.harm_stays(run_of(claims, relie)).holds


def test_harm_that_only_the_choosing_half_shows_counts_for_nothing(claims: ModuleType) -> None:
    relie = effects((-0.6, -0.5), (0.0, 1.4))
    put(relie, (FAR, 1, 1, BOTH, 0), 0.0)
    assert claims.none_gives_way(run_of(claims, relie)) == (True, "1 of 1")
    put(relie, (FAR, 1, 1, BOTH, 1), 0.0)
    assert claims.none_gives_way(run_of(claims, relie)).holds is None


def test_nothing_found_says_nothing_of_its_fate(claims: ModuleType) -> None:
    run = run_of(claims, relie_of())
    assert claims.found(run) == (False, "0 features") and claims.help_is_new(run).holds is None
    assert claims.together_they_help(run).holds is None


@pytest.mark.parametrize(("lowest", "holds"), [(0.06, True), (0.04, False)])
def test_one_task_ahead_of_chance_is_enough(claims: ModuleType, lowest: float, holds: bool) -> None:
    p_values = xr.DataArray([[[0.5]], [[lowest]]], dims=("task", "class", "basis"))
    relie = relie_of().assign(class_p_value=p_values.assign_coords({"class": ["emerged"], "basis": ["total_effect"]}))
    assert claims.emerged_by_chance(run_of(claims, relie)).holds == holds


def test_codes_tell_of_later_only_where_own_ones_do_not(claims: ModuleType) -> None:
    for own, holds in ((0.99, True), (1.01, False)):
        evaluation = xr.Dataset(
            {
                "cross_entropy_recovered": ("checkpoint", [1.005, 0.9]),
                "cross_entropy_recovered_own": ("checkpoint", [own, 0.9]),
            }
        )
        assert claims.codes_tell_of_later(run_of(claims, relie_of(), evaluation=evaluation)).holds == holds


def test_table_has_a_line_a_claim_and_a_column_a_run(claims: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [run_of(claims, effects((-0.6, -0.5), (0.0, 1.4))), run_of(claims, relie_of())]
    monkeypatch.setattr(claims, "CLAIMS", {"found": claims.found, "new": claims.help_is_new})
    assert list(claims.rows(runs)) == [
        "| claim | holds in | 0.0 | 0.0 |",
        "| --- | --- | --- | --- |",
        "| found | 1 of 2 | yes: 2 features | **no**: 0 features |",
        "| new | 1 of 1 | yes: +0.00 → +1.40 (random 0.05); 2 of 2 | none |",
    ]
