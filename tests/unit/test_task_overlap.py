"""Overlap of the top features of tasks: against sets, and chance against exchanges one by one."""

import numpy as np
import pytest
import xarray as xr
from test_consolidation import planted

from chronocoder.features.overlap import permuted, strata_of
from chronocoder.features.task_overlap import compare_tasks, exchanged_overlap

FEATURES = 60
GENERATOR = np.random.default_rng(5)
UNRELATED = GENERATOR.lognormal(size=(2, 40))


def of_features(*features: int) -> np.ndarray:
    """Effects of some features, each smaller than the one before, with signs by turns."""
    effect = np.zeros(FEATURES)
    effect[list(features)] = [(2 - 0.1 * place) * (-1) ** place for place in range(len(features))]
    return effect


EFFECTS = {
    ("one", "english"): of_features(0, 1, 2, 3, 4, 5),
    ("one", "french"): of_features(0, 1, 2, 3, 8, 9),
    ("two", "english"): of_features(20, 21, 22, 5),
    ("none", "english"): of_features(),
}


def jaccard(first: set[int], second: set[int]) -> float:
    return len(first & second) / len(first | second)


def test_overlap_is_that_of_the_sets_of_largest_measurable_effects() -> None:
    found = compare_tasks(planted(EFFECTS, UNRELATED), count=5)
    assert found["jaccard"].dims == ("checkpoint", "task", "other_task")
    assert found["jaccard"].sel(checkpoint="step0").isnull().all()
    last = found.isel(checkpoint=-1)
    assert float(last["jaccard"][0, 1]) == jaccard({0, 1, 2, 3, 4}, {0, 1, 2, 3, 8})
    assert float(last["jaccard"][0, 2]) == jaccard({0, 1, 2, 3}, {20, 21, 22, 5})  # as many as both have
    assert float(last["jaccard"][1, 2]) == 0
    assert last["features_compared"].values.tolist() == [[5, 5, 4, 0], [5, 5, 4, 0], [4, 4, 4, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(np.diagonal(last["jaccard"])[:3], 1)  # the halves differ by one per cent
    for name in ("jaccard", "chance", "q_value", "random"):
        assert last[name][3].isnull().all(), name
        np.testing.assert_array_equal(last[name], last[name].values.T)
    assert last["beyond_chance"].values.tolist() == [
        [False, True, False, False],
        [True, False, False, False],
        [False] * 4,
        [False] * 4,
    ]


def test_random_directions_are_compared_draw_by_draw() -> None:
    found = compare_tasks(planted(EFFECTS, UNRELATED), count=5).isel(checkpoint=-1)
    top = [set(np.argsort(-of)[:5].tolist()) for of in UNRELATED]
    assert float(found["random"][0, 1]) == pytest.approx(jaccard(*top))  # both draws are alike
    alike = compare_tasks(planted(EFFECTS, UNRELATED[[0, 0]]), count=5).isel(checkpoint=-1)
    assert float(alike["random"][0, 1]) == 1 and not alike["beyond_chance"].any()
    without = compare_tasks(planted(EFFECTS).drop_vars("control_indirect_effect"), count=5).isel(checkpoint=-1)
    assert without["random"].isnull().all() and bool(without["beyond_chance"][0, 1])


def test_chance_is_what_exchanges_one_by_one_give() -> None:
    activity = GENERATOR.lognormal(0, 0.5, FEATURES)
    strata = strata_of(activity, 8)
    first, second = (GENERATOR.choice(FEATURES, 12, replace=False) for _ in range(2))
    second[:4] = first[:4]
    second = np.unique(second)
    exact = exchanged_overlap(first, second, strata)
    flags = [np.isin(np.arange(FEATURES), of).astype(float)[None] for of in (first, second)]
    slow = permuted(*flags, strata, 20_000, 0.95, np.random.default_rng(0))
    assert exact.jaccard == pytest.approx(float(slow.level.estimate), abs=0.005)
    assert exact.p_value == pytest.approx(float(slow.p_value), abs=0.01)
    fixed = exchanged_overlap(first, second, np.arange(FEATURES))  # nothing is like anything else
    assert fixed.jaccard == pytest.approx(jaccard(set(first.tolist()), set(second.tolist()))) and fixed.p_value == 1


def test_p_values_of_unrelated_features_are_calibrated() -> None:
    """Which features matter depends on activity, that is the same on both tasks."""
    found = []
    for _ in range(300):
        activity = GENERATOR.lognormal(0, 1.5, 200)
        tops = [np.argsort(-activity * GENERATOR.lognormal(0, 1, 200))[:15] for _ in range(2)]
        found.append(exchanged_overlap(*tops, strata_of(activity, 10)).p_value)
    for alpha in (0.05, 0.2):
        assert np.mean(np.array(found) <= alpha) < alpha + 2.6 * np.sqrt(alpha * (1 - alpha) / len(found))


def test_order_of_tasks_and_features_does_not_matter() -> None:
    relie = planted(EFFECTS, UNRELATED).assign_coords(task=["a", "b", "c", "d"])
    found = compare_tasks(relie, count=4)
    tasks, features = [2, 0, 3, 1], GENERATOR.permutation(FEATURES)
    moved = compare_tasks(relie.isel(task=tasks, feature=features), count=4)
    xr.testing.assert_allclose(moved, found.isel(task=tasks, other_task=tasks))
