"""Exact interventions on chosen features, against the plainest way of making them."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from slow_attribution import (
    corpus_means,
    folded_crosscoder,
    slow_effects,
    slow_log_probability,
    slow_metric,
    tiny_sites,
)

from chronocoder.attribution.ablation import measure_ablations, summarise_ablations
from chronocoder.attribution.attribute import measure_effects
from chronocoder.attribution.choices import choose_features, choose_sets
from chronocoder.attribution.interventions import prepare_task
from chronocoder.attribution.summary import summarise_effects
from chronocoder.config import AblationSettings, AttributionSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.suites.sites import Site

COMPLETE = {"estimator": "published", "path_points": "midpoints", "over_tokens": "sum", "token_threshold": 0.0}
SETTINGS = AttributionSettings(bootstrap_samples=100, batch_size=7, **COMPLETE)
ABLATION = AblationSettings(top_features=3, set_sizes=[1, 3, 500], random_sets=2)


class Measured(NamedTuple):
    crosscoder: Crosscoder
    sites: list[Site]
    task: xr.Dataset
    attribution: xr.Dataset
    ablation: xr.Dataset


@pytest.fixture
def measured(task: xr.Dataset) -> Measured:
    crosscoder, where = folded_crosscoder(0.1), tiny_sites()
    effects = measure_effects(crosscoder, where, task, SETTINGS)
    norms = crosscoder.decoder_norms.numpy()
    attribution = summarise_effects(effects, task, norms, {"step0": 0, "step1": 10}, SETTINGS)
    found = measure_ablations(crosscoder, where, task, attribution, SETTINGS, ABLATION)
    return Measured(crosscoder, where, task, attribution, summarise_ablations(found, task, attribution, SETTINGS))


def test_exact_effects_are_those_of_one_feature_at_a_time(measured: Measured) -> None:
    expected = slow_effects(*measured[:3]).mean(axis=1)
    found = measured.ablation["indirect_effect"].sel(estimator="exact")
    np.testing.assert_allclose(found, expected[:, found["feature"].values], rtol=1e-3, atol=1e-5)
    low, high = (measured.ablation[f"indirect_effect_{end}"].sel(estimator="exact") for end in ("low", "high"))
    assert (low <= found + 1e-6).all() and (found <= high + 1e-6).all() and (high - low).max() > 0


def test_estimates_are_those_of_the_attribution(measured: Measured) -> None:
    found = measured.ablation["indirect_effect"].drop_sel(estimator="exact")
    for name in found["estimator"].values:
        settings = SETTINGS.model_copy(update={"estimator": name})
        effects = measure_effects(*measured[:3], settings)["effects"].sel(feature=found["feature"]).mean("example")
        np.testing.assert_allclose(found.sel(estimator=name), effects, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("architecture", ["gpt_neox", "bloom"])
@pytest.mark.parametrize("batch_size", [2, 128])
def test_effects_by_position_are_those_of_one_position_at_a_time(
    architecture: str, batch_size: int, measured: Measured
) -> None:
    given = (measured.crosscoder, tiny_sites(architecture), measured.task)
    settings = SETTINGS.model_copy(update={"batch_size": batch_size})
    found = measure_ablations(*given, measured.attribution, settings, ABLATION)["position_effects"]
    features = found["top_feature"].values[:3]
    for example, length in enumerate(measured.task["length"].values):
        for m in range(2):
            clean = slow_metric(*given, example, m)
            changed = [
                [slow_metric(*given, example, m, [feature], "zero", False, position) for position in range(length)]
                for feature in features
            ]
            own = found.isel(checkpoint=m, example=example, position=slice(length)).sel(top_feature=features)
            np.testing.assert_allclose(own, np.subtract(changed, clean), rtol=1e-3, atol=1e-5)
    assert abs(found.sel(top_feature=features)).max() > 1e-3


def test_positions_after_the_prefix_are_undefined(measured: Measured) -> None:
    effect = measured.ablation["position_effect"].isel(checkpoint=0, top_feature=0)
    inside = effect["position"] < measured.task["length"]
    assert (effect.notnull() == inside).all() and (effect.isel(position=0) == 0).all()


@pytest.mark.parametrize("batch_size", [2, 128])
def test_activations_by_position_are_those_of_the_clean_text(batch_size: int, measured: Measured) -> None:
    crosscoder, where, task, attribution, _ = measured
    settings = SETTINGS.model_copy(update={"batch_size": batch_size})
    raw = measure_ablations(crosscoder, where, task, attribution, settings, ABLATION)
    found = summarise_ablations(raw, task, attribution, settings)["position_activation"]
    top = found["top_feature"].values
    for example, length in enumerate(task["length"].values):
        ids = torch.from_numpy(task["token_id"].values[example : example + 1, :length].astype(np.int64))
        x = torch.stack([site.read(ids).activation[0] for site in where], dim=1)
        expected = crosscoder.encode(x)[:, top.tolist()].T.numpy()
        own = found.isel(example=example).transpose("top_feature", "position").values
        np.testing.assert_allclose(own[:, 1:length], expected[:, 1:], rtol=1e-4, atol=1e-6)
        assert (own[:, 0] == 0).all() and np.isnan(own[:, length:]).all()
    assert float(found.max()) > 0


def test_effects_by_role_add_up_over_its_tokens(measured: Measured) -> None:
    """A mean over the pairs, of which each has another number of tokens of a role; the first token has none."""
    found, by_position = measured.ablation["role_effect"], measured.ablation["position_effect"].fillna(0)
    roles = measured.task["role"]
    expected = [
        by_position.where(roles == name, 0).sum("position").mean("example") for name in found["position_role"].values
    ]
    assert found["condition"].values.tolist() == ["all"] and "separator" not in found["position_role"].values
    for place, of_role in enumerate(expected):
        own = found.isel(condition=0, position_role=place).transpose(*of_role.dims)
        np.testing.assert_allclose(own, of_role, rtol=1e-3, atol=1e-7)
    assert (measured.ablation["role_effect_low"] <= found + 1e-6).all()
    assert (found <= measured.ablation["role_effect_high"] + 1e-6).all() and abs(found).max() > 0


def test_effects_are_means_of_conditions(measured: Measured) -> None:
    task = measured.task.assign(condition=("example", ["x", "y", "x", "x", "x", "x"]))
    found = measure_ablations(measured.crosscoder, measured.sites, task, measured.attribution, SETTINGS, ABLATION)
    summary = summarise_ablations(found, task, measured.attribution, SETTINGS)
    exact = found["effects"].sel(estimator="exact")
    of_x, of_y = exact.isel(example=[0, 2, 3, 4, 5]).mean("example"), exact.isel(example=1)
    by_condition = summary["condition_indirect_effect"]
    np.testing.assert_allclose(by_condition.sel(condition="x"), of_x, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(by_condition.sel(condition="y"), of_y, rtol=1e-3, atol=1e-7)
    overall = summary["indirect_effect"].sel(estimator="exact")
    np.testing.assert_allclose(overall, (of_x + of_y) / 2, rtol=1e-3, atol=1e-7)
    assert summary["example_condition"].values.tolist() == task["condition"].values.tolist()


def test_features_that_matter_in_one_condition_only_are_chosen(measured: Measured) -> None:
    """Its effects in two conditions cancel, so that the mean over them says nothing."""
    attribution = measured.attribution.copy(deep=True)
    (feature, *_) = choose_features(attribution, ABLATION.model_copy(update={"top_features": 1}), 0).top
    attribution["indirect_effect"].loc[{"feature": feature}] = 0
    assert feature in choose_features(attribution, ABLATION, 0).top
    attribution["condition_indirect_effect"].loc[{"feature": feature}] = 0
    assert feature not in choose_features(attribution, ABLATION, 0).top


def test_exact_positions_are_changed_one_at_a_time(measured: Measured, task: xr.Dataset) -> None:
    """With one token that can be changed, the effect there is the whole effect; elsewhere positions act together."""
    settings = SETTINGS.model_copy(update={"estimator": "exact"})
    short = task.isel(example=np.flatnonzero(task["length"].values == task["length"].values.min())[:1])
    short = short.assign(length=("example", [2]))  # the separator and one token
    found = measure_ablations(*measured[:2], short, measured.attribution, settings, ABLATION)
    top = found["effects"].sel(estimator="exact", feature=found["top_feature"].values)
    np.testing.assert_allclose(
        found["position_effects"].isel(position=1).transpose("checkpoint", "example", "top_feature"), top, atol=1e-6
    )
    assert abs(top).max() > 1e-4 and (found["position_effects"].isel(position=0) == 0).all()


def test_outcomes_after_a_change_are_those_of_the_changed_model(measured: Measured) -> None:
    place, examples = 3, range(measured.task.sizes["example"])
    feature = int(measured.ablation["feature"][place])
    for m in range(2):
        arguments = (*measured[:3],)
        changed = [slow_metric(*arguments, example, m, [feature]) for example in examples]
        here = measured.ablation.isel(checkpoint=m, feature=place)
        assert float(here["difference"]) == pytest.approx(-np.mean(changed), abs=1e-4)
        assert float(here["accuracy"]) == pytest.approx(np.mean(np.array(changed) < 0))
        changes = [
            slow_log_probability(*arguments, example, m, [feature]) - slow_log_probability(*arguments, example, m)
            for example in examples
        ]
        assert float(here["log_probability_change"]) == pytest.approx(np.mean(changes), abs=1e-4)
        clean = [slow_metric(*arguments, example, m) for example in examples]
        assert float(here["clean_difference"]) == pytest.approx(-np.mean(clean), abs=1e-4)
        assert float(here["clean_accuracy"]) == pytest.approx(np.mean(np.array(clean) < 0))


def test_sets_are_changed_together(measured: Measured) -> None:
    sets, found = choose_sets(measured.attribution, ABLATION, SETTINGS.seed), measured.ablation
    for m in range(2):
        effect = measured.attribution["indirect_effect"].isel(checkpoint=m)
        top = sets[m][1, 0]
        assert np.array_equal(top, np.argsort(-abs(effect.values), kind="stable")[:3])
        assert float(found["top_set_estimate"][m, 1]) == pytest.approx(float(effect.sel(feature=top).sum()), rel=1e-4)
        for features, mean in (
            (top, found["top_set_effect"][m, 1]),
            (sets[m][1, 2], found["random_set_effect"][m, 1, 1]),
        ):
            changes = [
                slow_metric(*measured[:3], example, m, features) - slow_metric(*measured[:3], example, m)
                for example in range(measured.task.sizes["example"])
            ]
            assert float(mean) == pytest.approx(np.mean(changes), abs=1e-4)
        after = [slow_metric(*measured[:3], example, m, top) for example in range(measured.task.sizes["example"])]
        assert float(found["top_set_accuracy"][m, 1]) == pytest.approx(np.mean(np.array(after) < 0))
    assert found["top_set_effect"].sel(set_size=500).isnull().all()
    assert found["random_set_accuracy"].sel(set_size=500).isnull().all() and found.sizes["draw"] == 2


def test_top_features_are_chosen_at_every_checkpoint_and_controls_among_the_active(measured: Measured) -> None:
    chosen = choose_features(measured.attribution, ABLATION, 0)
    effect = abs(measured.attribution["indirect_effect"]).values
    assert set(chosen.top) == {int(feature) for row in effect for feature in np.argsort(-row)[:3]}
    assert len(chosen.features) == 2 * len(chosen.top) and len(set(chosen.features)) == len(chosen.features)
    assert (measured.attribution["activation_frequency"].values[chosen.features] > 0).all()
    other = choose_features(measured.attribution, ABLATION, 1)
    assert np.array_equal(other.top, chosen.top) and not np.array_equal(other.features, chosen.features)
    roles = measured.ablation["role"]
    assert set(roles["feature"].values[roles.values == "top"]) == set(chosen.top)


def test_correlations_are_those_of_the_stored_effects(measured: Measured) -> None:
    found = measured.ablation
    effects = found["indirect_effect"]
    for m in range(2):
        for estimator in found["estimator"].values:
            expected = stats.spearmanr(*(effects.sel(estimator=name)[m] for name in (estimator, "exact")))[0]
            assert float(found["spearman"].sel(estimator=estimator)[m]) == pytest.approx(expected, abs=1e-5)
        assert float(found["pearson"].sel(estimator="exact")[m]) == pytest.approx(1, abs=1e-5)
        top = found["top_feature"].values
        exact = found["indirect_effect"].sel(estimator="exact", feature=top)
        ratio = (abs(exact) / abs(exact).sum("checkpoint")).values[m]
        assert list(found["measure"].values) == [
            "attribution_patching",
            "grouped_gradients",
            "published",
            "relative_decoder_norm",
        ]
        for place, name in enumerate(found["measure"].values):
            if name == "relative_decoder_norm":
                measure = measured.attribution[name].sel(feature=top).values[m]
            else:
                size = abs(found["indirect_effect"].sel(estimator=name, feature=top))
                measure = (size / size.sum("checkpoint")).values[m]
            for key, function in (("share_spearman", stats.spearmanr), ("share_pearson", stats.pearsonr)):
                assert float(found[key][place, m]) == pytest.approx(function(measure, ratio)[0], abs=1e-5)


def test_task_without_active_features_has_empty_results(task: xr.Dataset) -> None:
    crosscoder = folded_crosscoder()
    crosscoder.b_enc.fill_(-1e9)
    effects = measure_effects(crosscoder, tiny_sites(), task, SETTINGS)
    tokens = {"step0": 0, "step1": 10}
    attribution = summarise_effects(effects, task, crosscoder.decoder_norms.numpy(), tokens, SETTINGS)
    found = measure_ablations(crosscoder, tiny_sites(), task, attribution, SETTINGS, ABLATION)
    summary = summarise_ablations(found, task, attribution, SETTINGS)
    assert summary.sizes["feature"] == 0 and summary["spearman"].isnull().all()
    assert summary["top_set_effect"].isnull().all() and summary["clean_accuracy"].notnull().all()


@pytest.mark.parametrize("intervention", ["mean", "resample"])
def test_exact_effects_of_other_interventions(intervention: str, task: xr.Dataset) -> None:
    settings = SETTINGS.model_copy(update={"intervention": intervention})
    crosscoder, where = folded_crosscoder(0.1), tiny_sites()
    prepared = prepare_task(task, settings, corpus_means())
    effects = measure_effects(crosscoder, where, prepared, settings)
    norms = crosscoder.decoder_norms.numpy()
    attribution = summarise_effects(effects, prepared, norms, {"step0": 0, "step1": 10}, settings)
    found = measure_ablations(crosscoder, where, prepared, attribution, settings, ABLATION)
    expected = slow_effects(crosscoder, where, prepared, intervention)
    exact = found["effects"].sel(estimator="exact")
    np.testing.assert_allclose(exact, expected[..., exact["feature"].values], rtol=1e-3, atol=1e-5)
    assert np.abs(expected).max() > 1e-4
    examples = range(prepared.sizes["example"])
    for m, of_checkpoint in enumerate(choose_sets(attribution, ABLATION, settings.seed)):
        arguments = crosscoder, where, prepared
        for key, features in of_checkpoint.items():
            together = [
                slow_metric(*arguments, example, m, features, intervention) - slow_metric(*arguments, example, m)
                for example in examples
            ]
            np.testing.assert_allclose(found["set_effects"].values[m][key], together, rtol=1e-3, atol=1e-4)
    summary = summarise_ablations(found, prepared, attribution, settings)
    assert summary["spearman"].notnull().all() and summary.sizes["example"] == prepared.sizes["example"]


def test_patching_towards_a_counterfactual(task: xr.Dataset) -> None:
    """A prefix that is its own counterfactual changes nothing; another one changes what its exact effects say."""
    settings = SETTINGS.model_copy(update={"intervention": "counterfactual", "estimator": "exact"})
    two = task.isel(example=[0, 1]).assign(
        counterfactual_id=(("example", "position"), task["token_id"].values[[1, 1]]),
        has_counterfactual=("example", [True, True]),
    )
    crosscoder, where = folded_crosscoder(0.1), tiny_sites()
    effects = measure_effects(crosscoder, where, two, settings)
    norms = crosscoder.decoder_norms.numpy()
    attribution = summarise_effects(effects, two, norms, {"step0": 0, "step1": 10}, settings)
    found = measure_ablations(crosscoder, where, two, attribution, settings, ABLATION)
    exact = found["effects"].sel(estimator="exact")
    np.testing.assert_allclose(exact.isel(example=1), 0, atol=1e-5)
    expected = slow_effects(crosscoder, where, two, "counterfactual")[:, 0, exact["feature"].values]
    np.testing.assert_allclose(exact.isel(example=0), expected, rtol=1e-3, atol=1e-5)
    assert np.abs(expected).max() > 1e-4
