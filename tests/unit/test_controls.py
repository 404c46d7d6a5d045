"""Controls of effects and classes: random directions, shuffled tokens, and what counts say beside them."""

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from slow_attribution import folded_crosscoder, slow_effects, tiny_sites

from chronocoder.attribution.attribute import measure_effects, measure_shuffled
from chronocoder.attribution.controls import (
    NEIGHBOURS,
    SHUFFLED,
    chance_of_counts,
    class_counts,
    draw_directions,
    random_level,
    shuffle_tokens,
)
from chronocoder.attribution.measures import CLASSES
from chronocoder.config import AttributionSettings

SETTINGS = AttributionSettings(random_directions=2, random_features=5)


def test_random_directions_have_the_norms_of_their_features_and_lie_among_the_rows() -> None:
    crosscoder = folded_crosscoder()
    crosscoder.decoder_rows[:, :, 6:] = 0  # all rows lie in six dimensions
    found = draw_directions(crosscoder, SETTINGS)
    assert found.rows.shape == (2, 5, 2, 16)
    expected = crosscoder.decoder_rows[torch.from_numpy(found.features)].norm(dim=-1)
    torch.testing.assert_close(found.rows.norm(dim=-1), expected)
    assert (found.rows[..., 6:] == 0).all()
    assert all(len(set(draw.tolist())) == 5 for draw in found.features)
    own = crosscoder.decoder_rows[torch.from_numpy(found.features)]
    cosine = torch.cosine_similarity(found.rows, own, dim=-1)
    assert abs(cosine).max() < 0.999 and not torch.allclose(found.rows[0], found.rows[1])


def test_a_direction_belongs_to_all_checkpoints_as_rows_do() -> None:
    """Where all checkpoints have the same rows, so they have the same random directions; folding changes nothing."""
    crosscoder = folded_crosscoder()
    crosscoder.decoder_rows[:, 1] = crosscoder.decoder_rows[:, 0] * crosscoder.scale[0] / crosscoder.scale[1]
    rows = draw_directions(crosscoder, SETTINGS).rows * crosscoder.scale[:, None]
    torch.testing.assert_close(rows[:, :, 0], rows[:, :, 1])


def test_draws_depend_on_the_seed_alone_and_hold_no_more_than_the_dictionary() -> None:
    crosscoder = folded_crosscoder()
    first, again = (draw_directions(crosscoder, SETTINGS) for _ in range(2))
    torch.testing.assert_close(first.rows, again.rows)
    other = draw_directions(crosscoder, SETTINGS.model_copy(update={"seed": 1}))
    assert not torch.allclose(first.rows, other.rows)
    many = draw_directions(crosscoder, AttributionSettings(random_features=1000))
    assert many.features.shape == (3, 24)
    none = draw_directions(crosscoder, AttributionSettings(random_directions=0))
    assert none.names == [] and none.rows.shape[0] == 0


@pytest.mark.parametrize("estimator", ["exact", "attribution_patching", "grouped_gradients", "published"])
def test_effects_of_random_directions_are_those_of_a_crosscoder_with_such_rows(
    estimator: str, task: xr.Dataset
) -> None:
    crosscoder, where = folded_crosscoder(), tiny_sites()
    settings = SETTINGS.model_copy(update={"estimator": estimator, "token_threshold": 0.0, "alone": 2, "groups": 3})
    directions = draw_directions(crosscoder, settings)
    found = measure_effects(crosscoder, where, task, settings)
    alone = measure_effects(crosscoder, where, task, settings.model_copy(update={"random_directions": 0}))
    for name in ("effects", "error_effects", "total_effects", "clean_metric"):
        np.testing.assert_allclose(found[name], alone[name], rtol=1e-3, atol=1e-6)  # controls change nothing
    assert alone.sizes["control"] == 0
    if estimator == "exact":
        crosscoder.decoder_rows[torch.from_numpy(directions.features[1])] = directions.rows[1]
        # The error term changes so that the activation stays, as it does for any crosscoder.
        expected = slow_effects(crosscoder, where, task)[:, :, directions.features[1]]
        np.testing.assert_allclose(found["control_effects"][1], expected, rtol=1e-3, atol=1e-6)
        assert np.abs(expected).max() > 1e-5


def test_shuffled_prefixes_keep_their_tokens_and_their_first_one(task: xr.Dataset) -> None:
    shuffled = shuffle_tokens(task, seed=0)
    for example, length in enumerate(task["length"].values):
        before, after = (of["token_id"].values[example] for of in (task, shuffled))
        assert after[0] == before[0] and (after[length:] == before[length:]).all()
        assert sorted(after[:length]) == sorted(before[:length])
        assert (after != before).any() == (len(set(before[1:length].tolist())) > 1)
    assert (shuffle_tokens(task, seed=0)["token_id"] == shuffled["token_id"]).all()


def test_shuffled_effects_are_measured_on_request_and_without_random_directions(task: xr.Dataset) -> None:
    crosscoder, where = folded_crosscoder(), tiny_sites()
    assert measure_shuffled(crosscoder, where, task, SETTINGS) is None
    wanted = AttributionSettings(shuffled_tokens=True, estimator="exact")
    found = measure_shuffled(crosscoder, where, task, wanted)
    assert found is not None and found.sizes["control"] == 0
    expected = slow_effects(crosscoder, where, shuffle_tokens(task, 0))
    np.testing.assert_allclose(found["effects"], expected, rtol=1e-3, atol=1e-6)


def levels(effects: np.ndarray, numbers: list[int], written: np.ndarray, level: float = 0.9) -> np.ndarray:
    """Return the levels of all features at one checkpoint in one condition."""
    dims = ("condition", "checkpoint", "feature")
    of_directions, of_features = (xr.DataArray(values[None, None], dims=dims) for values in (effects, written))
    features = xr.DataArray(np.arange(len(written)), dims="feature")
    coordinates = {"feature": np.arange(len(effects))}
    found = random_level(of_directions.assign_coords(coordinates), np.array(numbers, int), features, of_features, level)
    return found.values[0, 0]


def test_level_is_that_of_directions_that_write_about_as_much() -> None:
    """The effect of a direction is what its feature writes, with either sign; each feature has one direction."""
    generator = np.random.default_rng(0)
    written = generator.permutation(np.linspace(0.01, 2, 200))
    found = levels(written * generator.choice([-1, 1], 200), list(range(200)), written)
    ordered = np.sort(written)
    for value, level in zip(written, found, strict=True):
        first = int(np.clip(np.searchsorted(ordered, value) - NEIGHBOURS // 2, 0, 200 - NEIGHBOURS))
        assert level == pytest.approx(np.quantile(ordered[first : first + NEIGHBOURS], 0.9))


def test_rounding_of_what_is_written_changes_no_level() -> None:
    """A feature has several directions: they stay together whatever the last digit."""
    generator = np.random.default_rng(1)
    written, numbers = generator.uniform(0, 1, 60), generator.integers(0, 60, 180).tolist()
    effects = generator.normal(size=180)
    rounded = written * (1 + generator.uniform(-1e-7, 1e-7, 60))
    np.testing.assert_array_equal(levels(effects, numbers, written), levels(effects, numbers, rounded))


def test_few_directions_are_all_taken_and_those_that_write_nothing_are_not() -> None:
    found = levels(np.array([1.0, -3.0, 0.0]), [0, 1, 2], np.array([1.0, 2.0, 0.0]), level=0.5)
    assert found.tolist() == [2.0, 2.0, 2.0]
    assert np.isnan(levels(np.array([0.0]), [1], np.array([1.0, 0.0]))).all()
    assert np.isnan(levels(np.array([]), [], np.array([1.0]))).all()


def test_classes_are_counted_among_the_tested() -> None:
    classes = xr.DataArray([["emerged", "emerged", "maintained", "no effect"]], dims=("basis", "feature"))
    tested = xr.DataArray([True, False, True, True], dims="feature")
    counts = class_counts(classes, tested)
    found = {name: int(counts.sel({"class": name}).isel(basis=0)) for name in CLASSES}
    assert found == {**dict.fromkeys(CLASSES, 0), "emerged": 1, "maintained": 1, "no effect": 1}


def counted(own: list[int], controls: dict[str, list[int]], tested: list[int]) -> np.ndarray:
    counts = xr.DataArray(own, dims="class")
    names = {"control": list(controls)}
    found = xr.DataArray(list(controls.values()), dims=("control", "class"), coords=names)
    return chance_of_counts(counts, 100, found, xr.DataArray(tested, dims="control", coords=names)).values


def test_chance_of_counts_is_fishers_against_all_random_draws_and_no_other_control() -> None:
    found = counted([30, 10], {"r0": [4, 5], "r1": [6, 5], SHUFFLED: [90, 90]}, [50, 50, 100])
    expected = [stats.fisher_exact([[own, 100 - own], [10, 90]], alternative="greater").pvalue for own in (30, 10)]
    np.testing.assert_allclose(found, expected)
    assert found[0] < 0.01 and found[1] > 0.5
    assert np.isnan(counted([30, 10], {SHUFFLED: [4, 5]}, [50])).all()


def test_a_single_draw_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="random_directions 1: each draw is judged by the level of the others; take 0"):
        AttributionSettings(random_directions=1)
