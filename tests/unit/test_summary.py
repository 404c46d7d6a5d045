"""What the store of an attribution says of effects whose truth is known."""

import numpy as np
import pytest
import xarray as xr
from slow_attribution import exactly

from chronocoder.attribution.collect import collect_attributions
from chronocoder.attribution.summary import summarise_effects
from chronocoder.config import AttributionSettings, TrajectorySettings
from chronocoder.stores import strings

PAIRS = 80
SETTINGS = AttributionSettings(bootstrap_samples=300, swaps=2000)
TOKENS = {"early": 1, "late": 2}
OPPOSITE, EMERGED, KEPT, NOISE, UNUSED = range(5)


def known_task(conditions: tuple[str, ...] = ("singular", "plural")) -> xr.Dataset:
    names = [conditions[number % len(conditions)] for number in range(PAIRS)]
    ids = np.arange(PAIRS)[:, None] * np.ones((1, 2), dtype=int)
    return xr.Dataset({"condition": ("example", strings(names)), "token_id": (("example", "position"), ids)})


def known_effects(controls: float = 0.0, seed: int = 0) -> xr.Dataset:
    """Return effects of five features, and of three draws of four controls of some size.

    The first feature has opposite effects in the two conditions, and swaps them; the second comes late; the third
    stays; the fourth acts at random; the fifth does not.
    """
    generator = np.random.default_rng(seed)
    effects = np.zeros((2, PAIRS, 5))
    sign = np.where(np.arange(PAIRS) % 2 == 0, 1, -1)
    effects[:, :, OPPOSITE] = np.array([1.0, -2.0])[:, None] * sign
    effects[1, :, EMERGED] = 1.0
    effects[:, :, KEPT] = 0.5
    effects[:, :, NOISE] = 0.0
    effects[:, :, :NOISE] += generator.normal(0, 0.1, size=(2, PAIRS, 3))
    effects[:, :, NOISE] = generator.normal(0, 0.1, size=(2, PAIRS))
    of_controls = generator.normal(controls, 0.01, size=(3, 2, PAIRS, 4))
    both = ("checkpoint", "example")
    known = xr.Dataset(
        {
            "effects": ((*both, "feature"), effects.astype(np.float32)),
            "control_effects": (("control", *both, "control_feature"), of_controls.astype(np.float32)),
            "control_features": (("control", "control_feature"), [[0, 1, 2, 3], [1, 2, 3, 4], [0, 2, 3, 4]]),
            "changes": (("example", "feature"), np.where(np.arange(5) == UNUSED, 0.0, 1.0) * np.ones((PAIRS, 1))),
            "clean_metric": (both, np.array([[1.0], [-4.0]]) * np.ones((2, PAIRS))),
            "error_effects": (both, np.zeros((2, PAIRS))),
            "total_effects": (both, np.ones((2, PAIRS))),
            "activation_frequency": ("feature", [1.0, 1, 1, 1, 0]),
            "mean_activation": ("feature", [1.0, 1, 1, 1, 0]),
        },
        coords={
            "checkpoint": strings(["early", "late"]),
            "feature": np.arange(5),
            "control": strings(["random directions 0", "random directions 1", "random directions 2"]),
        },
    )
    return exactly(known)


def summary(effects: xr.Dataset, **settings: float) -> xr.Dataset:
    chosen = SETTINGS.model_copy(update=settings)
    return summarise_effects(effects, known_task(), np.ones((2, 5)), TOKENS, chosen)


def test_classes_of_known_effects() -> None:
    found = summary(known_effects())
    assert [str(found["feature_class"][feature].values) for feature in (EMERGED, KEPT, NOISE, UNUSED)] == [
        "emerged",
        "maintained",
        "no effect",
        "no effect",
    ]
    assert found["measurable"].values[:, [EMERGED, KEPT, NOISE]].tolist() == [[False, True, False], [True, True, False]]
    assert (found["p_value"][:, UNUSED] == 1).all() and float(found["q_value"][1, EMERGED]) < 0.01


def test_opposite_conditions_are_told_apart_and_reverse_within_each() -> None:
    """The mean over conditions is nothing: the two conditions say what happens."""
    found = summary(known_effects()).isel(feature=OPPOSITE)
    assert abs(found["indirect_effect"]).max() < 0.1 and not found["measurable"].any()
    np.testing.assert_allclose(found["condition_indirect_effect"], [[1, -2], [-1, 2]], atol=0.1)
    assert found["condition_measurable"].all() and found["conditions_disagree"].all()
    assert found["condition_reverses"].all() and found["reverses"]
    of_conditions = found["condition_normalised_class"].sel(normalisation="metric_size")  # four times as sure, late
    assert of_conditions.values.tolist() == ["maintained", "maintained"]
    assert found["condition_feature_class"].values.tolist() == ["maintained", "maintained"]


def test_reversal_is_decided_within_a_condition() -> None:
    """Early it acts in one condition with one sign, late in the other with the other: nothing reverses."""
    effects = known_effects()
    even = np.arange(PAIRS) % 2 == 0
    effects["effects"].values[0, :, EMERGED] = np.where(even, -1.0, 0.0)
    effects["effects"].values[1, :, EMERGED] = np.where(even, 0.0, 1.0)
    found = summary(effects).isel(feature=EMERGED)
    assert found["indirect_effect"].values.tolist() == pytest.approx([-0.5, 0.5])
    assert not found["reverses"] and not found["condition_reverses"].any()


def test_normalised_shares_divide_by_total_and_by_the_metric() -> None:
    found = summary(known_effects())
    effect = abs(found["indirect_effect"])
    for name, size in (
        ("total_effect", effect.sum("feature")),
        ("metric_size", xr.DataArray([1.0, 4.0], dims="checkpoint")),
    ):
        shares = effect / size
        expected = (shares / shares.sum("checkpoint")).isel(feature=slice(UNUSED))
        of_basis = found["normalised_relative_indirect_effect"].sel(normalisation=name).isel(feature=slice(UNUSED))
        np.testing.assert_allclose(of_basis, expected.transpose("checkpoint", "feature"), rtol=1e-4)
    np.testing.assert_allclose(found["metric_size"], [1, 4])
    # .5 at both checkpoints is less of a model that is four times as sure.
    assert str(found["normalised_class"].sel(normalisation="metric_size")[KEPT].values) == "discontinued"
    low, high = (found[f"normalised_relative_indirect_effect_{end}"][:, :, KEPT] for end in ("low", "high"))
    middle = found["normalised_relative_indirect_effect"][:, :, KEPT]
    assert ((low <= middle) & (middle <= high) & (high - low < 0.2)).all()


def test_effects_below_random_directions_are_not_measurable() -> None:
    found = summary(known_effects(controls=0.7))
    np.testing.assert_allclose(found["random_level"][:, :UNUSED], 0.7, atol=0.02)
    assert found["measurable"].values[:, [EMERGED, KEPT]].tolist() == [[False, False], [True, False]]
    without = summary(known_effects(controls=0.7).isel(control=slice(0)))
    assert without["random_level"].isnull().all() and without["measurable"].values[:, KEPT].all()
    assert "control_class_count" not in without and "class_count" in without


def test_effects_below_the_smallest_of_interest_are_not_measurable() -> None:
    assert not summary(known_effects(), smallest_effect=0.6)["measurable"].values[:, KEPT].any()


def test_controls_are_classified_and_counted_as_features_are() -> None:
    found = summary(known_effects())
    assert int(found["features_tested"]) == 4 and found["controls_tested"].values.tolist() == [4, 4, 4]
    counts = found["class_count"].sel(basis="published")
    assert {
        str(name): int(count) for name, count in zip(counts["class"].values, counts.values, strict=True) if count
    } == {
        "no effect": 2,
        "emerged": 1,
        "maintained": 1,
    }
    assert (found["control_class_count"].sum("class") == 4).all()
    assert (found["control_class_count"].sel({"class": "no effect"}) == 4).all()
    assert int((found["control_class"].sel(basis="published") == "").sum()) == 3  # the one each draw has not
    by_condition = found["condition_class_count"].sel({"class": "maintained", "basis": "published"})
    assert (by_condition == 2).all()  # in each condition two
    assert int(found["reverses_count"]) == 1 and (found["control_reverses_count"] == 0).all()
    assert found["class_p_value"].notnull().all() and (found["class_p_value"] > 0).all()


def test_halves_are_of_different_prefixes_and_average_to_the_whole() -> None:
    found = summary(known_effects())
    halves = found["half_indirect_effect"]
    np.testing.assert_allclose(halves.mean("half"), found["condition_indirect_effect"], atol=1e-5)
    assert abs(halves.isel(half=0) - halves.isel(half=1)).max() > 1e-3
    assert (
        (found["half_indirect_effect_low"] <= halves + 1e-6) & (halves <= found["half_indirect_effect_high"] + 1e-6)
    ).all()


def test_shuffled_tokens_are_a_control_of_their_own() -> None:
    effects = known_effects()
    shuffled = exactly(effects[["effects", "changes", "clean_metric"]] * 0.0)
    settings = SETTINGS.model_copy(update={"shuffled_tokens": True})
    found = summarise_effects(effects, known_task(), np.ones((2, 5)), TOKENS, settings, shuffled)
    assert str(found["control"].values[-1]) == "shuffled tokens" and int(found["controls_tested"][-1]) == 0
    own = summary(effects)
    for name in ("random_level", "indirect_effect_low", "p_value", "half_indirect_effect_low"):
        np.testing.assert_allclose(found[name], own[name])  # a control changes nothing else


def test_a_task_without_conditions_has_one_of_all_pairs() -> None:
    found = summarise_effects(known_effects(), known_task(("",)), np.ones((2, 5)), TOKENS, SETTINGS)
    assert found["condition"].values.tolist() == ["all"] and found["pairs"].values.tolist() == [PAIRS]
    np.testing.assert_allclose(found["condition_indirect_effect"][0], found["indirect_effect"])


def test_collected_tasks_keep_their_own_conditions() -> None:
    first = summary(known_effects())
    other = summarise_effects(known_effects(), known_task(("plural", "third")), np.ones((2, 5)), TOKENS, SETTINGS)
    other.attrs |= {"language": "french", "phenomenon": "gender"}
    joined = collect_attributions({"a": first, "b": other}, TrajectorySettings())
    assert joined["language"].values.tolist() == ["", "french"] and joined["language"].dims == ("task",)
    assert joined["phenomenon"].values.tolist() == ["", "gender"]
    assert joined["condition"].values.tolist() == ["singular", "plural", "third"]
    missing = joined.sel(task="b", condition="singular")
    assert missing["condition_indirect_effect"].isnull().all() and not missing["condition_measurable"].any()
    assert (missing["condition_feature_class"] == "").all() and int(missing["pairs"]) == 0
    np.testing.assert_allclose(
        joined["condition_indirect_effect"].sel(task="a", condition="plural"), first["condition_indirect_effect"][1]
    )
