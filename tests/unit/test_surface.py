"""Features that stand for a surface rule: chosen on one half of the prefixes, followed on the other."""

import numpy as np
import pytest
import xarray as xr

from chronocoder.attribution.surface import SurfaceFeature, find_surface_features, follow
from chronocoder.stores import strings

TASKS, CHECKPOINTS, CONDITIONS = ["near", "far"], ["early", "late"], ["singular", "plural"]
NEAR, FAR = 0, 1


def relie_of(features: int = 3) -> xr.Dataset:
    """Return effects of nothing, with a level of random directions of 0.05."""
    dims = ("task", "half", "condition", "checkpoint", "feature")
    zeros = np.zeros((2, 2, 2, 2, features))
    ends = {f"half_indirect_effect{end}": (dims, zeros.copy()) for end in ("", "_low", "_high")}
    level = (("task", "condition", "checkpoint", "feature"), np.full((2, 2, 2, features), 0.05))
    coordinates = {"task": TASKS, "half": [0, 1], "condition": CONDITIONS, "checkpoint": CHECKPOINTS}
    coordinates = {name: strings(values) if name != "half" else values for name, values in coordinates.items()}
    variables = {**ends, "condition_random_level": level}
    return xr.Dataset(variables, coords={**coordinates, "feature": np.arange(features)})


def put(relie: xr.Dataset, place: tuple[int | slice, ...], value: float, margin: float = 0.01) -> None:
    """Set an effect (task, half, condition, checkpoint, feature) with its interval."""
    for end, shift in (("", 0.0), ("_low", -margin), ("_high", margin)):
        relie[f"half_indirect_effect{end}"].values[place] = value + shift


BOTH = slice(None)


@pytest.fixture
def relie() -> xr.Dataset:
    """Feature 1 helps near and harms far's plural at both checkpoints; late it helps far's singular."""
    relie = relie_of()
    put(relie, (NEAR, BOTH, 0, BOTH, 1), 1.0)
    put(relie, (FAR, BOTH, 1, BOTH, 1), -0.6)
    put(relie, (FAR, BOTH, 0, 1, 1), 1.4)
    return relie


def test_feature_is_found_with_the_condition_in_which_it_harms(relie: xr.Dataset) -> None:
    assert find_surface_features(relie, "near", "far", "early") == [SurfaceFeature(1, "plural", "singular", 0.6)]


def test_what_stays_and_what_is_new_is_told_by_the_other_half(relie: xr.Dataset) -> None:
    features = find_surface_features(relie, "near", "far", "early")
    found = follow(relie, "far", features)
    np.testing.assert_allclose(found["effect"].values[0], [[-0.6, -0.6], [0.0, 1.4]])
    assert found["kept"].values.tolist() == [True] and found["helps_newly"].values.tolist() == [True]
    put(relie, (FAR, 1, 1, 1, 1), -0.2)  # the telling half says that most of the harm is gone
    put(relie, (FAR, 1, 0, 1, 1), 0.04)  # and that the help is no more than that of random directions
    assert find_surface_features(relie, "near", "far", "early") == features
    found = follow(relie, "far", features)
    assert found["kept"].values.tolist() == [False] and found["helps_newly"].values.tolist() == [False]


def test_harm_that_the_other_half_does_not_confirm_is_not_kept(relie: xr.Dataset) -> None:
    features = find_surface_features(relie, "near", "far", "early")
    assert follow(relie, "far", features)["confirmed"].values.tolist() == [True]
    put(relie, (FAR, 1, 1, 0, 1), -0.005)
    found = follow(relie, "far", features)
    assert found["confirmed"].values.tolist() == [False] and found["kept"].values.tolist() == [False]


def test_help_that_was_there_before_is_not_new(relie: xr.Dataset) -> None:
    put(relie, (FAR, 1, 0, 0, 1), 0.8)
    features = find_surface_features(relie, "near", "far", "early")
    assert follow(relie, "far", features)["helps_newly"].values.tolist() == [False]


@pytest.mark.parametrize(
    ("place", "value", "margin"),
    [
        ((NEAR, 0, 0, 0, 1), 0.04, 0.01),  # helps no more than random directions
        ((NEAR, 0, 0, 0, 1), 0.5, 0.6),  # may not help at all
        ((FAR, 0, 1, 0, 1), -0.6, 0.7),  # may not harm
        ((FAR, 0, 1, 0, 1), 0.6, 0.1),  # helps
    ],
)
def test_feature_is_chosen_for_certain_effects_beyond_random_directions(
    relie: xr.Dataset, place: tuple[int, ...], value: float, margin: float
) -> None:
    put(relie, place, value, margin)
    assert find_surface_features(relie, "near", "far", "early") == []


def test_the_strongest_come_first_and_small_effects_are_left_out(relie: xr.Dataset) -> None:
    put(relie, (NEAR, BOTH, 1, 0, 0), 0.9)
    put(relie, (FAR, BOTH, 0, 0, 0), -0.8)
    put(relie, (NEAR, BOTH, 1, 0, 2), 0.1, 0.001)
    put(relie, (FAR, BOTH, 0, 0, 2), -0.055, 0.001)
    found = find_surface_features(relie, "near", "far", "early")
    assert [of.feature for of in found] == [0, 1, 2]
    assert [of.feature for of in find_surface_features(relie, "near", "far", "early", smallest=0.06)] == [0, 1]
    assert [of.feature for of in find_surface_features(relie, "near", "far", "early", most=1)] == [0]


def test_a_feature_is_compared_with_its_own_level(relie: xr.Dataset) -> None:
    features = find_surface_features(relie, "near", "far", "early")
    relie["condition_random_level"].loc[{"task": "far", "condition": "singular", "feature": 1}] = 1.5
    assert follow(relie, "far", features)["helps_newly"].values.tolist() == [False]
    relie["condition_random_level"].loc[{"task": "far", "condition": "plural", "feature": 1}] = 0.7
    assert find_surface_features(relie, "near", "far", "early") == []


def test_nothing_found_is_nothing_followed(relie: xr.Dataset) -> None:
    assert follow(relie, "far", []).sizes["place"] == 0
