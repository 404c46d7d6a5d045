"""What is made of effects: intervals, chance, shares, classes, courses."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from chronocoder.attribution.agreement import pearson, spearman
from chronocoder.attribution.measures import (
    CLASSES,
    Interval,
    changes_sign,
    classify,
    course,
    course_support,
    mean_interval,
    measurable,
    peak,
    share,
    share_interval,
)
from chronocoder.attribution.sampling import bootstrap_draws, resampled_means, sampling_units, unit_sums
from chronocoder.attribution.trajectories import cluster_trajectories
from chronocoder.config import AttributionSettings, TrajectorySettings


def known_effects(values: np.ndarray) -> xr.DataArray:
    checkpoints, _, features = values.shape
    coordinates = {"checkpoint": [f"step{m}" for m in range(checkpoints)], "feature": np.arange(features)}
    return xr.DataArray(values, dims=("checkpoint", "example", "feature"), coords=coordinates)


def shares_of(*courses: list[float]) -> xr.DataArray:
    """Return shares (checkpoint, feature), one feature for each course."""
    return known_effects(np.array(courses).T[:, None, :]).isel(example=0)


def resample_means(effects: xr.DataArray, samples: int, generator: np.random.Generator) -> xr.DataArray:
    units = sampling_units([""] * effects.sizes["example"], range(effects.sizes["example"]))
    draws = bootstrap_draws(units, samples, generator)
    return resampled_means(draws, unit_sums(effects, units), units).isel(condition=0)


def seen(shares: xr.DataArray) -> xr.DataArray:
    return xr.ones_like(shares, dtype=bool)


def test_shares_sum_to_one_and_are_undefined_without_any_effect() -> None:
    values = xr.DataArray([[1.0, 0.0, -3.0], [-3.0, 0.0, 0.0]], dims=("checkpoint", "feature"))
    np.testing.assert_allclose(share(values).values, [[0.25, np.nan, 1], [0.75, np.nan, 0]])


def test_bootstrap_covers_the_mean_of_a_normal_sample() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(0.5, 1, size=(2, 400, 50)).astype(np.float32)
    interval = mean_interval(resample_means(known_effects(values), 500, generator), 0.95)
    covered = ((interval.low < 0.5) & (interval.high > 0.5)).mean()
    assert 0.85 < covered <= 1
    width = (interval.high - interval.low).mean()
    assert width == pytest.approx(2 * 1.96 / 20, rel=0.1)


def test_effect_is_measurable_where_nothing_else_explains_it() -> None:
    """Each of the last five fails one condition: the interval, the rate, the smallest effect, the level."""
    effect = xr.DataArray([0.5, -0.5, 0.5, 0.5, 0.01, 0.5, 0.5], dims="feature")
    low = xr.DataArray([0.1, -0.9, -0.1, 0.1, 0.005, 0.1, 0.1], dims="feature")
    high = xr.DataArray([0.9, -0.1, 0.9, 0.9, 0.02, 0.9, 0.9], dims="feature")
    rates = xr.DataArray([0.05, 0.01, 0.01, 0.06, 0.01, 0.01, 0.01], dims="feature")
    level = xr.DataArray([0.4, 0.4, 0.4, 0.4, 0.0, 0.5, np.nan], dims="feature")
    found = measurable(effect, Interval(low, high), rates, level, AttributionSettings())
    assert found.values.tolist() == [True, True, False, False, False, False, True]


@pytest.mark.parametrize("samples", [1, 2, 100, 1000])
def test_interval_is_that_of_numpys_quantiles(samples: int) -> None:
    values = np.random.default_rng(0).normal(size=(samples, 2, 5)).astype(np.float32)
    values[0, 1, 3] = np.nan
    means = xr.DataArray(values, dims=("sample", "checkpoint", "feature"), coords={"checkpoint": ["a", "b"]})
    found = mean_interval(means, 0.9)
    for end, level in zip(found, (0.05, 0.95), strict=True):
        assert end.dims == ("checkpoint", "feature") and end["checkpoint"].values.tolist() == ["a", "b"]
        np.testing.assert_allclose(end, np.quantile(values, level, axis=0), rtol=1e-5, atol=1e-6)
    assert found.low.isnull().sum() == found.high.isnull().sum() == 1


def test_feature_that_acts_in_one_example_gets_the_widest_share_interval() -> None:
    values = np.zeros((2, 100, 2), dtype=np.float32)
    values[1, 7, 0] = 5.0
    values[1, :, 1] = 1.0
    means = resample_means(known_effects(values), 300, np.random.default_rng(0))
    relative = share_interval(means, 0.95)
    assert relative.low.values[1].tolist() == [0.0, 1.0] and relative.high.values[1].tolist() == [1.0, 1.0]
    assert relative.high.values[0].tolist() == [1.0, 0.0]  # it might as well be the other checkpoint's


@pytest.mark.parametrize(
    ("shares", "name", "onset", "kept", "highest"),
    [
        ([0.1, 0.9], "emerged", "step1", True, "step1"),
        ([0.5, 0.5], "maintained", "step0", True, ""),
        ([0.9, 0.1], "discontinued", "step0", False, "step0"),
        ([0.02, 0.49, 0.49], "emerged", "step1", True, ""),
        ([0.1, 0.1, 0.8], "emerged", "step2", True, "step2"),
        ([0.05, 0.9, 0.05], "transient", "step1", False, "step1"),
        ([0.45, 0.05, 0.5], "intermittent", "step0", True, "step2"),
    ],
)
def test_course_of_a_certain_feature(shares: list[float], name: str, onset: str, kept: bool, highest: str) -> None:
    middle = shares_of(shares)
    relative = Interval(middle - 0.01, middle + 0.01)
    classes = classify(relative, seen(middle))
    found = [classes[key].values[0] for key in ("feature_class", "onset", "kept")]
    assert found == [name, onset, kept]
    assert str(peak(relative).values[0]) == highest
    assert CLASSES[int(course(middle > 0.6 / len(shares)).values[0])] == name


def test_uncertain_and_unmeasurable_features_get_no_class() -> None:
    middle = shares_of([0.1, 0.9], [0.1, 0.9], [np.nan, np.nan])
    wide = Interval(middle * 0, middle * 0 + 1)
    measured = xr.DataArray([[False, False, True], [True, False, True]], dims=("checkpoint", "feature"))
    classes = classify(wide, measured)
    assert classes["feature_class"].values.tolist() == ["uncertain", "no effect", "no effect"]
    assert classes["onset"].values.tolist() == ["", "", ""] and not classes["kept"].any()
    assert peak(wide).values.tolist() == ["", "", ""]


def test_feature_is_not_present_where_its_effect_is_not_measurable() -> None:
    """It is measurable at the first checkpoint only, where its share is small."""
    value = shares_of([0.1, 0.9])
    measured = xr.DataArray([[True], [False]], dims=("checkpoint", "feature"))
    classes = classify(Interval(value, value), measured)
    assert [classes[key].values[0] for key in ("feature_class", "onset", "kept")] == ["uncertain", "", False]


def test_effect_changes_sign_where_both_signs_are_measurable() -> None:
    effect = shares_of([0.2, -0.3], [-0.2, -0.3], [0.2, -0.3])
    measured = xr.DataArray([[True, True, True], [True, True, False]], dims=("checkpoint", "feature"))
    assert changes_sign(effect, measured, "checkpoint").values.tolist() == [True, False, False]


def test_last_checkpoint_may_be_certain_though_the_course_is_not() -> None:
    relative = Interval(shares_of([0.1, 0.1, 0.5]), shares_of([0.5, 0.3, 0.8]))
    classes = classify(relative, seen(relative.low))
    assert str(classes["feature_class"].values[0]) == "uncertain" and bool(classes["kept"].values[0])


def test_class_of_a_pair_uses_the_papers_thresholds() -> None:
    for later, name in ((0.69, "maintained"), (0.71, "emerged"), (0.31, "maintained"), (0.29, "discontinued")):
        value = shares_of([1 - later, later])
        assert str(classify(Interval(value, value), seen(value))["feature_class"].values[0]) == name


def test_support_is_the_part_of_the_resamples_with_the_most_frequent_course() -> None:
    emerged, kept, undefined = [0.1, 0.9], [0.5, 0.5], [np.nan, np.nan]
    samples = [[emerged, emerged], [emerged, undefined], [emerged, undefined], [kept, emerged]]
    shares = xr.concat([shares_of(*of_sample) for of_sample in samples], dim="sample")
    np.testing.assert_allclose(course_support(shares), [0.75, 0.5])
    borderline = xr.concat([shares_of([0.31, 0.69]), shares_of([0.29, 0.71]), shares_of([0.29, 0.71])], dim="sample")
    np.testing.assert_allclose(course_support(borderline), [2 / 3])


def test_correlations_equal_those_of_scipy_and_leave_out_the_undefined() -> None:
    generator = np.random.default_rng(2)
    first, second = generator.normal(size=(2, 3, 20)).round(1)  # rounded: ties
    second[0, 4], first[1, 7] = np.nan, np.nan
    arrays = [xr.DataArray(values, dims=("checkpoint", "feature")) for values in (first, second)]
    for function, reference in ((pearson, stats.pearsonr), (spearman, stats.spearmanr)):
        found = function(*arrays, "feature")
        for row, value in enumerate(found.values):
            both = ~np.isnan(first[row]) & ~np.isnan(second[row])
            assert value == pytest.approx(reference(first[row][both], second[row][both])[0])
    assert np.isnan(spearman(arrays[0] * 0, arrays[1], "feature")).all()


def relie_of(courses: list[list[float]], classes: list[str]) -> xr.Dataset:
    shares = shares_of(*courses).expand_dims(task=["a", "b"])
    names = xr.DataArray([classes, classes[::-1]], dims=("task", "feature"))
    return xr.Dataset({"relative_indirect_effect": shares, "feature_class": names})


def test_features_of_one_course_fall_into_one_cluster() -> None:
    early, late = [0.8, 0.1, 0.1], [0.0, 0.1, 0.9]
    noise = np.random.default_rng(3).normal(0, 0.02, size=(6, 3))
    courses = (np.array([late, early, late, early, early, late]) + noise).tolist()
    classes = ["emerged", "discontinued", "emerged", "discontinued", "discontinued", "uncertain"]
    found = cluster_trajectories(relie_of(courses, classes), TrajectorySettings(clusters=2))
    assert found["trajectory_cluster"].values.tolist() == [[1, 0, 1, 0, 0, -1], [-1, 0, 1, 0, 0, 1]]
    assert found["cluster_size"].values.tolist() == [6, 4]
    np.testing.assert_allclose(found["cluster_trajectory"], [early, late], atol=0.05)


def test_more_clusters_than_courses_and_none_at_all() -> None:
    one = cluster_trajectories(relie_of([[0.1, 0.1, 0.8]] * 3, ["emerged"] * 3), TrajectorySettings())
    assert one.sizes["cluster"] == 1 and one["cluster_size"].values.tolist() == [6]
    none = cluster_trajectories(relie_of([[0.1, 0.1, 0.8]] * 3, ["uncertain"] * 3), TrajectorySettings())
    assert none.sizes["cluster"] == 0 and (none["trajectory_cluster"] == -1).all()


def test_documented_measures_work_in_a_notebook() -> None:
    page = (Path(__file__).parents[2] / "docs/attribution.md").read_text()
    *_of_stores, code = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    shown: list[Any] = []
    exec(compile(code, "attribution.md", "exec"), {"print": shown.append})
    assert list(shown[1]["feature_class"]) == ["emerged", "maintained", "no effect"]
