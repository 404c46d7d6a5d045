"""What effects are averaged over, resampled by and tested against, beside the plainest way of doing it."""

from itertools import product

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from chronocoder.attribution.sampling import (
    WHOLE,
    average,
    bootstrap_draws,
    false_discovery_rates,
    resampled_means,
    sampling_units,
    swap_p_values,
    unit_sums,
)

CONDITIONS = ["b", "a", "b", "a", "b", "b"]
PREFIXES = ["the dog", "the dog", "the cats", "the cat", "the dog", "the cats"]


def effects_of(values: np.ndarray) -> xr.DataArray:
    """Return effects (checkpoint, example, feature)."""
    coordinates = {"checkpoint": [f"step{m}" for m in range(values.shape[0])], "feature": np.arange(values.shape[2])}
    return xr.DataArray(values.astype(np.float32), dims=("checkpoint", "example", "feature"), coords=coordinates)


def random_effects(examples: int, seed: int = 0) -> xr.DataArray:
    return effects_of(np.random.default_rng(seed).normal(size=(2, examples, 3)))


def test_units_are_prefixes_within_conditions() -> None:
    units = sampling_units(CONDITIONS, PREFIXES)
    assert units.conditions == ["b", "a"] and units.condition.tolist() == [0, 0, 1, 1]
    assert units.unit.tolist() == [0, 2, 1, 3, 0, 1] and units.size.tolist() == [2, 2, 1, 1]
    assert units.prefix.tolist() == [0, 1, 0, 2]  # "the dog" occurs in both conditions
    assert sampling_units(["", ""], ["x", "y"]).conditions == [WHOLE]


def test_sums_and_means_equal_those_of_a_loop() -> None:
    effects, units = random_effects(6), sampling_units(CONDITIONS, PREFIXES)
    sums = unit_sums(effects, units)
    for unit in range(4):
        own = [example for example in range(6) if units.unit[example] == unit]
        np.testing.assert_allclose(sums.isel(unit=unit), effects.isel(example=own).sum("example"), rtol=1e-5)
    means = average(sums, units)
    of_b, of_a = (effects.isel(example=places).mean("example") for places in ([0, 2, 4, 5], [1, 3]))
    np.testing.assert_allclose(means.values, [(of_a + of_b) / 2, of_b, of_a], rtol=1e-5, atol=1e-7)


def test_overall_is_the_mean_of_conditions_however_many_pairs_each_has() -> None:
    effects = effects_of(np.array([1.0, 1, 1, 1, 1, -1]).reshape(1, 6, 1))
    units = sampling_units(["x"] * 5 + ["y"], range(6))
    assert average(unit_sums(effects, units), units).values.ravel().tolist() == [0, 1, -1]


def test_a_half_without_pairs_of_a_condition_has_no_mean() -> None:
    effects, units = random_effects(3), sampling_units(["x", "x", "y"], range(3))
    places = units.half(1)
    assert places.tolist() == [1]
    means = average(unit_sums(effects, units).isel(unit=places), units.some(places))
    assert means.isel(condition=[0, 2]).isnull().all() and means.isel(condition=1).notnull().all()


@pytest.mark.parametrize("conditions", [["x", "y", "y", "y"], ["y", "y", "y", "x"]])
def test_a_condition_of_one_prefix_can_be_halved_and_resampled(conditions: list[str]) -> None:
    effects, units = random_effects(4), sampling_units(conditions, range(4))
    for number in (0, 1):
        places = units.half(number)
        own, sums = units.some(places), unit_sums(effects, units).isel(unit=places)
        means = resampled_means(bootstrap_draws(own, 20, np.random.default_rng(0)), sums, own)
        assert means.sel(condition="y").notnull().all()
        assert bool(means.sel(condition="x").isnull().all()) == (number == 1)


def test_halves_share_no_prefix_and_hold_all() -> None:
    """Prefixes recur, in the other condition too."""
    units = sampling_units(["x", "x", "x", "y", "y", "y", "y"] * 4, ["a", "b", "c", "b", "c", "d", "e"] * 4)
    halves = [units.half(number) for number in (0, 1)]
    assert sorted(np.concatenate(halves).tolist()) == list(range(len(units.size)))
    assert not set(units.prefix[halves[0]]) & set(units.prefix[halves[1]])
    for half in halves:
        assert set(units.condition[half]) == {0, 1}
    of_one = sampling_units(["x", "y"] * 20, [number // 4 for number in range(40)])
    assert len(of_one.half(0)) == len(of_one.half(1)) == len(of_one.size) / 2


def test_resampling_draws_prefixes_and_not_pairs() -> None:
    """Twenty copies of each of ten prefixes hold no more information than the ten."""
    generator = np.random.default_rng(0)
    ten = generator.normal(size=(1, 10, 40))
    many = sampling_units([""] * 200, np.repeat(np.arange(10), 20).tolist())
    alone = sampling_units([""] * 10, range(10))
    spreads = []
    for values, units in ((np.repeat(ten, 20, axis=1), many), (ten, alone)):
        draws = bootstrap_draws(units, 2000, np.random.default_rng(1))
        spreads.append(resampled_means(draws, unit_sums(effects_of(values), units), units).std("sample").values)
    np.testing.assert_allclose(spreads[0], spreads[1], rtol=1e-4)
    np.testing.assert_allclose(spreads[1][0, 0], ten[0].std(axis=0) / np.sqrt(10), rtol=0.1)


def test_resampled_means_of_prefixes_of_unequal_size_divide_by_the_pairs_drawn() -> None:
    effects = effects_of(np.array([1.0, 2, 3, 10]).reshape(1, 4, 1))
    units = sampling_units([""] * 4, ["x", "x", "x", "y"])
    draws = np.array([[2, 0], [0, 2], [1, 1]])
    means = resampled_means(draws, unit_sums(effects, units), units)
    np.testing.assert_allclose(means.isel(condition=0).values.ravel(), [2, 10, 4])


def test_p_values_approach_those_of_all_swaps() -> None:
    effects, units = random_effects(7, seed=3), sampling_units(["x"] * 4 + ["y"] * 3, range(7))
    found = swap_p_values(unit_sums(effects, units), units, 20_000, np.random.default_rng(0))
    weights = np.array([1 / 8] * 4 + [1 / 6] * 3)
    signs = np.array(list(product([-1, 1], repeat=7)))
    means = np.einsum("se,e,mef->smf", signs, weights, effects.values)
    observed = np.einsum("e,mef->mf", weights, effects.values)
    exact = (abs(means) >= abs(observed) - 1e-6).mean(axis=0)
    np.testing.assert_allclose(found.isel(condition=0), exact, atol=0.015)
    of_x = stats.permutation_test(
        (effects.values[0, :4, 0],), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=False
    )
    assert float(found[1, 0, 0]) == pytest.approx(of_x.pvalue, abs=0.015)


def test_four_examples_of_one_sign_have_the_p_value_of_their_ties() -> None:
    """Of 16 swaps two give an effect of this size: rounding must not decide whether they count."""
    values = np.zeros((1, 100, 50))
    values[0, :4] = np.random.default_rng(0).uniform(0.1, 1, size=(4, 50))
    units = sampling_units([""] * 100, range(100))
    found = swap_p_values(unit_sums(effects_of(values), units), units, 20_000, np.random.default_rng(1))
    np.testing.assert_allclose(found.isel(condition=0), 0.125, atol=0.01)


def test_p_values_are_uniform_without_an_effect_and_smallest_with_one() -> None:
    generator = np.random.default_rng(4)
    units = sampling_units([""] * 60, range(60))
    noise = effects_of(generator.normal(size=(1, 60, 2000)))
    found = swap_p_values(unit_sums(noise, units), units, 999, generator).isel(condition=0)
    assert float((found <= 0.05).mean()) == pytest.approx(0.05, abs=0.015)
    strong = swap_p_values(unit_sums(abs(noise), units), units, 999, generator).isel(condition=0)
    assert (strong == 0.001).all()
    nothing = swap_p_values(unit_sums(noise * 0, units), units, 99, generator)
    assert (nothing == 1).all()


def test_repeated_prefixes_are_swapped_together() -> None:
    """Two prefixes, each thirty times: any two have the same sign in half of all swaps."""
    units = sampling_units([""] * 60, [number % 2 for number in range(60)])
    found = swap_p_values(unit_sums(effects_of(np.ones((1, 60, 1))), units), units, 10_000, np.random.default_rng(0))
    assert float(found[0, 0, 0]) == pytest.approx(0.5, abs=0.02)


def test_many_tests_do_not_hide_a_certain_effect() -> None:
    """At 12,000 tests no p-value of 1 in 2,001 could pass: those that no swap reached are swapped more often."""
    generator = np.random.default_rng(6)
    values = generator.normal(size=(2, 60, 6000))
    values[:, :, :5] += 3
    units = sampling_units([""] * 60, range(60))
    sums = unit_sums(effects_of(values), units)
    coarse = swap_p_values(sums, units, 2000, generator).isel(condition=0)
    assert (coarse[:, :5] == 1 / 2001).all()
    fine = swap_p_values(sums, units, 2000, generator, rate=0.05).isel(condition=0)
    assert (fine[:, :5] < 1e-5).all() and float((fine <= 0.05).mean()) == pytest.approx(0.05, abs=0.01)
    tested = xr.ones_like(fine, dtype=bool)
    assert (false_discovery_rates(fine, tested)[:, :5] <= 0.05).all()
    assert (false_discovery_rates(coarse, tested)[:, :5] > 0.05).all()


def test_false_discovery_rates_are_those_of_benjamini_and_hochberg() -> None:
    p_values = xr.DataArray([[0.01, 0.04, 0.5], [0.03, 0.001, 0.02]], dims=("checkpoint", "feature"))
    tested = xr.DataArray([[True, True, False], [True, True, True]], dims=("checkpoint", "feature"))
    found = false_discovery_rates(p_values, tested)
    ordered = np.array([0.001, 0.01, 0.02, 0.03, 0.04]) * 5 / np.arange(1, 6)
    lowest = np.minimum.accumulate(ordered[::-1])[::-1]
    np.testing.assert_allclose(found.values, [[lowest[1], lowest[4], 1], [lowest[3], lowest[0], lowest[2]]])
    assert (false_discovery_rates(p_values, tested & False) == 1).all()


def test_few_of_many_features_without_effect_pass_the_rate() -> None:
    generator = np.random.default_rng(5)
    units = sampling_units([""] * 100, range(100))
    noise = effects_of(generator.normal(size=(2, 100, 500)))
    p_values = swap_p_values(unit_sums(noise, units), units, 4000, generator).isel(condition=0)
    assert (p_values <= 0.05).sum() > 20
    assert (false_discovery_rates(p_values, xr.ones_like(p_values, dtype=bool)) <= 0.05).sum() <= 2
