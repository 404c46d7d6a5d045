"""Effects in two stages, their error, what rounding does, and what decides between exact effects and two stages."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from slow_attribution import FEATURES, folded_crosscoder, tiny_sites

from chronocoder.attribution.attribute import measure_effects
from chronocoder.attribution.choices import choose_exact, decided
from chronocoder.attribution.precision import rounding
from chronocoder.attribution.prompts import read_prompts
from chronocoder.attribution.sampling import bootstrap_draws, sampling_units, units_of
from chronocoder.attribution.statistics import NEAREST, Errors, errors_of
from chronocoder.attribution.summary import summarise_effects
from chronocoder.config import AttributionSettings
from chronocoder.devices import computing
from chronocoder.errors import ConfigError
from chronocoder.plan.compute import Prompts as PlannedPrompts
from chronocoder.suites.sites import Site

SEEN = {"step0": 0, "step1": 10}
FEW = {"exact_features": 4, "exact_controls": 6, "groups": 1, "alone": 1}


def settings(estimator: str = "two_stages", **values: Any) -> AttributionSettings:
    return AttributionSettings.model_validate({"estimator": estimator, "bootstrap_samples": 100, **FEW, **values})


def measured(task: xr.Dataset, estimator: str = "two_stages", size: float = 0.3, **values: Any) -> xr.Dataset:
    return measure_effects(folded_crosscoder(size), tiny_sites(), task, settings(estimator, **values))


def summary_of(found: xr.Dataset, task: xr.Dataset, shuffled: xr.Dataset | None = None, **values: Any) -> xr.Dataset:
    norms = folded_crosscoder(0.3).decoder_norms.numpy()
    return summarise_effects(found, task, norms, SEEN, settings(**values), shuffled)


def test_features_are_chosen_by_the_size_of_their_effects_on_examples() -> None:
    """Effects of both signs cancel in a mean; a feature without any effect is never chosen."""
    estimates = np.zeros((2, 4, 10))
    estimates[0, :, 3] = [5, -5, 5, -5]
    estimates[1, :, 7] = 1
    estimates[:, 0, [0, 1, 2]] = [0.3, 0.2, 0.1]
    estimates[0, :, 8] = 0.5  # of largest mean at the first checkpoint
    found = choose_exact(estimates, settings(exact_features=2, exact_controls=2))
    assert {3, 7, 8} <= set(found.features.tolist()) and len(found.features) == 5
    assert 2 in found.checked and len(set(found.checked.tolist()) & {0, 1}) == 1  # one of either half, by size
    every = choose_exact(estimates, settings(exact_features=20, exact_controls=10))
    assert every.features.tolist() == [0, 1, 2, 3, 7, 8] and not len(every.checked)
    assert not len(choose_exact(estimates, settings("exact")).features)


def test_the_largest_are_exact_and_the_others_as_estimated(task: xr.Dataset) -> None:
    found, exact, screened = (measured(task, name) for name in ("two_stages", "exact", "grouped_gradients"))
    exactly = found["estimator"].values == "exact"
    assert set(found["estimator"].values[~exactly]) == {"grouped_gradients"}
    assert FEW["exact_features"] + FEW["exact_controls"] <= exactly.sum() < FEATURES
    np.testing.assert_allclose(found["effects"][..., exactly], exact["effects"][..., exactly], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        found["effects"][..., ~exactly], screened["effects"][..., ~exactly], rtol=1e-3, atol=1e-5
    )
    assert abs(exact["effects"] - screened["effects"]).max() > 1e-3  # the two can be told apart
    np.testing.assert_allclose(found["control_effects"], exact["control_effects"], rtol=1e-3, atol=1e-5)
    checked = found["checked_feature"].values
    np.testing.assert_allclose(found["estimates"], screened["effects"].sel(feature=checked), rtol=1e-3, atol=1e-5)
    for size in (abs(screened["effects"]).mean("example"), abs(screened["effects"].mean("example"))):
        for checkpoint in range(2):
            assert exactly[np.argsort(-size[checkpoint].values)[: FEW["exact_features"] // 2]].all()


def test_all_are_exact_where_no_more_have_effects_than_are_measured(task: xr.Dataset) -> None:
    """And then there is no estimate whose error could be told, nor one that needs it."""
    found, exact = measured(task, exact_features=2 * FEATURES), measured(task, "exact")
    np.testing.assert_allclose(found["effects"], exact["effects"], rtol=1e-3, atol=1e-5)
    assert found.sizes["checked_feature"] == 0
    used = (exact["effects"] != 0).any(("checkpoint", "example"))
    assert (found["estimator"].values[used.values] == "exact").all()
    assert summary_of(found, task)["estimation_error"].isnull().all()


def test_estimators_and_errors_are_stored(task: xr.Dataset) -> None:
    found = measured(task)
    summary = summary_of(found, task)
    assert (summary["estimator"] == found["estimator"]).all()
    errors = found["estimates"] - found["effects"].sel(feature=found["checked_feature"].values).values
    relative = abs(errors.mean("example")) / abs(found["estimates"]).mean("example")
    expected = relative.fillna(0).quantile(0.95, "checked_feature")
    np.testing.assert_allclose(summary["estimation_error"], expected, rtol=1e-4)
    assert (summary["estimation_error"] > 0).all()
    np.testing.assert_allclose(summary["noise_floor"], found["rounding"].mean("example"), rtol=1e-5)
    assert summary_of(measured(task, "exact"), task)["estimation_error"].isnull().all()


def with_errors(task: xr.Dataset, errors: list[float]) -> xr.Dataset:
    """Return effects of one everywhere, and estimates that exceed the exact ones by a fraction at each checkpoint."""
    found = measured(task)
    found["effects"][:] = 1.0
    for checkpoint, error in enumerate(errors):
        found["effects"][checkpoint].loc[{"feature": found["checked_feature"].values}] = 1.0 - error
        found["estimates"][checkpoint] = 1.0
    return found


def test_intervals_of_estimates_hold_the_error_that_is_known(task: xr.Dataset) -> None:
    """Where all examples agree, what is left of an interval is the estimator's error, and nothing for exact effects."""
    found = with_errors(task, [0.2, 0.4])
    summary, shuffled = summary_of(found, task), summary_of(found, task, shuffled=found)
    estimated = (found["estimator"] != "exact").values
    for prefix in ("", "half_"):
        low, high = (summary[f"{prefix}indirect_effect_{end}"] for end in ("low", "high"))
        np.testing.assert_allclose((high - low).values[..., ~estimated], 0, atol=1e-5)
        for checkpoint, error in enumerate((0.2, 0.4)):  # of either sign
            np.testing.assert_allclose(low.isel(checkpoint=checkpoint).values[..., estimated], 1 - error, atol=1e-5)
            np.testing.assert_allclose(high.isel(checkpoint=checkpoint).values[..., estimated], 1 + error, atol=1e-5)
    np.testing.assert_allclose(summary["indirect_effect"].values[:, estimated], 1, rtol=1e-6)
    ends = [summary[f"relative_indirect_effect_{end}"].values[0] for end in ("low", "high")]
    np.testing.assert_allclose(ends[0][estimated], 1.2 / (1.2 + 1.4), atol=1e-5)
    np.testing.assert_allclose(ends[1][estimated], 0.8 / (0.8 + 0.6), atol=1e-5)
    assert (ends[1] - ends[0])[~estimated].max() < 1e-5
    assert shuffled["control_class"].sel(control="shuffled tokens").shape == (3, FEATURES)


def errors(relative: list[float], sizes: list[float], own: list[float]) -> Errors:
    """Return the errors of checked features of known sizes, of one unit at one checkpoint, and sizes of estimates."""
    units = sampling_units([""], ["a"])
    dims = ("unit", "checkpoint")
    of_checked = np.array(relative) * sizes
    return Errors(
        xr.DataArray(of_checked[None, None], dims=(*dims, "checked_feature")),
        xr.DataArray(np.array(sizes)[None, None], dims=(*dims, "checked_feature")),
        xr.DataArray(np.array(own)[None, None], dims=(*dims, "feature"), coords={"feature": np.arange(len(own))}),
        units,
    )


def test_errors_are_those_of_features_of_similar_size_and_grow_with_it() -> None:
    """Of the checked features the small half err by a tenth, the large half by a half of their size."""
    known = errors([0.1] * NEAREST + [0.5] * NEAREST, [0.01] * NEAREST + [1.0] * NEAREST, [0.02, 2.0, 0.0])
    means = xr.DataArray(
        np.zeros((40, 2, 1, 4)), dims=("sample", "condition", "checkpoint", "feature"), coords={"feature": np.arange(4)}
    )
    found = known.added_to(means, np.random.default_rng(0))
    for feature, error in enumerate((0.1 * 0.02, 0.5 * 2.0, 0.0, 0.0)):  # the last is no estimate
        values = found.sel(feature=feature).values
        np.testing.assert_allclose(abs(values), error, rtol=1e-5)
        assert (values[:, 0] == values[:, 1]).all()
    assert {-1.0, 1.0} == set(np.sign(found.sel(feature=1).values).ravel().tolist())
    assert (means == 0).all()
    np.testing.assert_allclose(known.size(0.95), 0.5, rtol=1e-5)


def floor(precision: str, task: xr.Dataset, where: list[Site]) -> torch.Tensor:
    """Return what rounding does at the first checkpoint, in the first batch."""
    batch = next(read_prompts(folded_crosscoder(0.3), where, task, "zero", 4))
    return rounding(replace(where[0], precision=precision), batch.prompts[0], settings("exact"))


def test_rounding_is_small_in_float32_and_large_in_bfloat16(task: xr.Dataset) -> None:
    where = tiny_sites()
    narrow, wide = floor("bfloat16", task, where), floor("float32", task, where)
    assert (wide < 1e-5).all()
    assert narrow.mean() > 100 * wide.mean() and narrow.mean() > 1e-5


def test_a_null_change_is_run(task: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a change of nothing does to mu is rounding, whatever the precision."""
    monkeypatch.setattr(
        "chronocoder.attribution.precision.effects_alone", lambda _, prompts, __: prompts.change.sum(dim=1) * -0.25
    )
    assert (floor("float32", task, tiny_sites()) == 0.25).all()


def test_precision_ends_with_its_block() -> None:
    before = torch.get_float32_matmul_precision()
    with computing("tf32", torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == "high"
    with pytest.raises(KeyboardInterrupt), computing("bfloat16", torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.bfloat16
        raise KeyboardInterrupt
    assert torch.get_float32_matmul_precision() == before
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32


def test_bfloat16_is_refused_where_rounding_hides_what_is_of_interest(task: xr.Dataset) -> None:
    with pytest.raises(
        ConfigError,
        match=r"attribution.precision bfloat16: at checkpoint step0 rounding changes an effect by .*, more than"
        r" attribution.smallest_effect 1e-07; take a higher precision, or a larger smallest_effect",
    ):
        measured(task, "exact", precision="bfloat16", smallest_effect=1e-7)
    coarse, fine = (measured(task, "exact", precision=name, smallest_effect=1.0) for name in ("bfloat16", "float32"))
    np.testing.assert_allclose(coarse["effects"], fine["effects"], atol=0.02)
    assert abs(coarse["effects"] - fine["effects"]).max() > 0


def test_effects_within_rounding_are_not_measurable(task: xr.Dataset) -> None:
    found = measured(task, "exact")
    found["effects"][:] = 1.0
    found["control_effects"][:] = 0.0
    places = np.arange(8 * task.sizes["example"])
    many = xr.concat([found] * 8, "example", data_vars="all").assign_coords(example=places)
    examples = xr.concat([task] * 8, "example", data_vars="minimal")
    ids = examples["token_id"].values.copy()
    ids[:, 0] = np.arange(len(ids))  # prefixes that differ
    examples = examples.assign(token_id=(("example", "position"), ids))
    for name in ("estimator", "control_features", "activation_frequency", "mean_activation"):
        many[name] = found[name]
    assert summary_of(many, examples)["measurable"].any()
    many["rounding"][:] = 1.5
    assert not summary_of(many, examples)["measurable"].any()


def test_auto_is_exact_where_that_costs_little_enough() -> None:
    crosscoder, model = folded_crosscoder(), tiny_sites()[0].model.config
    few, many = PlannedPrompts(100, 9), PlannedPrompts(10**14, 9)
    assert decided(settings("auto"), crosscoder.config, model, few).estimator == "exact"
    assert decided(settings("auto"), crosscoder.config, model, many).estimator == "two_stages"
    assert decided(settings("auto", exact_hours=0), crosscoder.config, model, few).estimator == "two_stages"
    between = settings("auto", exact_hours=1e-9)
    short, long = (decided(between, crosscoder.config, model, PlannedPrompts(500, length)) for length in (3, 60))
    assert (short.estimator, long.estimator) == ("exact", "two_stages")
    given = settings("published", exact_hours=0)
    assert decided(given, crosscoder.config, model, many) is given


def test_the_pairs_of_the_suite_decide(task: xr.Dataset) -> None:
    one, all_tasks = (
        measure_effects(folded_crosscoder(), tiny_sites(), task, settings("auto"), pairs) for pairs in (None, 10**14)
    )
    assert (one["estimator"] == "exact").all() and (all_tasks["estimator"] != "exact").any()


def test_resamples_without_known_errors_stay_as_they_are(task: xr.Dataset) -> None:
    found = measured(task, "exact")
    units = units_of(task)
    draws = bootstrap_draws(units, 3, np.random.default_rng(0))
    means = xr.DataArray(draws[:, None, None, :1] * 1.0, dims=("sample", "condition", "checkpoint", "feature"))
    assert (
        errors_of(found, units)
        .added_to(means.assign_coords(feature=[0]), np.random.default_rng(0))
        .equals(means.assign_coords(feature=[0]))
    )
