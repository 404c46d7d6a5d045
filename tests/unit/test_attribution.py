"""Estimators against the exact intervention, invariances, and what is made of effects."""

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import ARCHITECTURES, WIDTH, tiny_crosscoder, tiny_model
from transformers import PreTrainedTokenizerFast

from chronocoder.attribution.attribute import TaskEffects, measure_effects, summarise_effects
from chronocoder.attribution.collect import collect_attributions
from chronocoder.attribution.effects import Decoder, Prompts, _metric, integrated_gradients
from chronocoder.attribution.measures import Interval, classify, mean_interval, resample_means, share, share_interval
from chronocoder.config import AttributionSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import StoreError
from chronocoder.suites.sites import Site, resolve_site
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.tokenise import prefix_ids, tokenise_pairs


def folded_crosscoder() -> Crosscoder:
    crosscoder = tiny_crosscoder("l1").fold_scale(torch.tensor([0.8, 1.3]))
    crosscoder.decoder_rows.mul_(0.02)
    return crosscoder


def sites(architecture: str = "gpt_neox", name: str = "residual.1") -> list[Site]:
    return [resolve_site(tiny_model(architecture, seed), name) for seed in (0, 1)]


def effects(estimator: str, task: xr.Dataset, where: list[Site], **settings: int) -> xr.DataArray:
    chosen = AttributionSettings(estimator=estimator, **settings)
    return measure_effects(folded_crosscoder(), where, task, chosen).effects


@torch.no_grad()
def slow_effects(task: xr.Dataset, where: list[Site]) -> np.ndarray:
    """Ablate one feature in one example at a time, with a hook in a full forward pass."""
    crosscoder = folded_crosscoder()
    result = np.zeros((2, task.sizes["example"], 24))
    for example in range(task.sizes["example"]):
        ids = torch.from_numpy(prefix_ids(task, np.array([example])))
        wrong, right = int(task["wrong_id"][example]), int(task["right_id"][example])
        x = torch.stack([site.read(ids).activation[0] for site in where], dim=1)
        codes = crosscoder.encode(x)
        codes[0] = 0
        for m, site in enumerate(where):
            error = x[:, m] - crosscoder.decode(codes)[:, m]

            def metric(f: torch.Tensor) -> float:
                changed = (crosscoder.decode(f)[:, m] + error)[None]

                def replace(_module: object, _input: object, output: object) -> object:
                    return (changed, *output[1:]) if isinstance(output, tuple) else changed

                handle = site.module.register_forward_hook(replace)
                logits = site.model(input_ids=ids).logits[0, -1]
                handle.remove()
                return float(logits[wrong] - logits[right])

            clean = metric(codes)
            for feature in range(24):
                without = codes.clone()
                without[:, feature] = 0
                result[m, example, feature] = metric(without) - clean
    return result


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_exact_equals_ablating_one_feature_at_a_time(architecture: str, task: xr.Dataset) -> None:
    where = sites(architecture)
    expected = slow_effects(task, where)
    np.testing.assert_allclose(effects("exact", task, where).values, expected, rtol=1e-3, atol=1e-5)
    assert np.abs(expected).max() > 1e-4


@pytest.mark.parametrize("name", ["residual.0", "residual.1", "mlp_out.1", "attention_out.2"])
def test_attribution_patching_follows_the_exact_effects_of_small_features(name: str, task: xr.Dataset) -> None:
    where = sites(name=name)
    exact = effects("exact", task, where).values.ravel()
    estimated = effects("attribution_patching", task, where).values.ravel()
    assert np.corrcoef(exact, estimated)[0, 1] > 0.95


def test_integrated_gradients_are_complete(task: xr.Dataset) -> None:
    """With a feature for every direction, all effects add up to the effect of setting all of them to zero."""
    site = sites()[0]
    ids = torch.from_numpy(prefix_ids(task, np.array([2, 3])))
    answers = [torch.from_numpy(task[key].values[[2, 3]].astype(np.int64)) for key in ("wrong_id", "right_id")]
    state = site.read(ids)
    decoder = Decoder(torch.eye(WIDTH), torch.randn(WIDTH, generator=torch.Generator().manual_seed(0)))
    codes = state.activation - decoder.bias
    codes[:, 0] = 0
    zero = state.activation - codes
    total = _metric(site, Prompts(ids, *answers, state, codes), torch.stack([state.activation, zero])).diff(dim=0)[0]
    summed = integrated_gradients(site, Prompts(ids, *answers, state, codes), decoder, 400).sum(dim=1)
    torch.testing.assert_close(summed, total, rtol=0.01, atol=0.01)
    assert total.abs().max() > 0.1


def test_estimators_are_exact_where_the_rest_of_the_model_is_linear(task: xr.Dataset) -> None:
    """After the last block comes a normalisation: replaced by the identity, all estimators agree."""
    where = sites("gpt_neox", "residual.2")
    for site in where:
        site.model.gpt_neox.final_layer_norm = torch.nn.Identity()
    exact = effects("exact", task, where).values
    for estimator in ("integrated_gradients", "attribution_patching"):
        np.testing.assert_allclose(effects(estimator, task, where).values, exact, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("estimator", ["integrated_gradients", "attribution_patching", "exact"])
def test_batch_size_and_order_do_not_matter(estimator: str, task: xr.Dataset) -> None:
    where = sites()
    whole = effects(estimator, task, where).values
    single = effects(estimator, task, where, batch_size=1).values
    np.testing.assert_allclose(single, whole, rtol=1e-4, atol=1e-6)
    order = np.array([5, 2, 0, 4, 1, 3])
    reordered = effects(estimator, task.isel(example=order), where).values
    np.testing.assert_allclose(reordered, whole[:, order], rtol=1e-4, atol=1e-6)


def test_stored_padding_does_not_matter(task: xr.Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    long = MinimalPair("the cat near the dogs near the cats near the boy", " sees", " see")
    texts = [MinimalPair(*(str(task[key].values[i]) for key in ("prefix", "right", "wrong"))) for i in range(6)]
    padded = tokenise_pairs([*texts, long], tokenizer, 0, "t")
    where = sites()
    np.testing.assert_allclose(
        effects("integrated_gradients", padded, where).values[:, :6],
        effects("integrated_gradients", task, where).values,
        rtol=1e-4,
        atol=1e-6,
    )


def test_swapping_right_and_wrong_changes_the_sign(task: xr.Dataset) -> None:
    where = sites()
    swapped = task.assign(right_id=task["wrong_id"], wrong_id=task["right_id"])
    np.testing.assert_allclose(
        effects("integrated_gradients", swapped, where).values,
        -effects("integrated_gradients", task, where).values,
        rtol=1e-5,
        atol=1e-7,
    )


def test_models_of_another_width_are_refused(task: xr.Dataset) -> None:
    where = [resolve_site(tiny_model("gpt2", 0), "residual.1")]
    with pytest.raises(StoreError, match="crosscoder is of 2 checkpoints of width 16, the models are 1 of width 16"):
        measure_effects(folded_crosscoder(), where, task, AttributionSettings())


def known_effects(values: np.ndarray) -> xr.DataArray:
    checkpoints, _, features = values.shape
    coordinates = {"checkpoint": [f"step{m}" for m in range(checkpoints)], "feature": np.arange(features)}
    return xr.DataArray(values, dims=("checkpoint", "example", "feature"), coords=coordinates)


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


def test_feature_that_acts_in_one_example_gets_the_widest_share_interval() -> None:
    values = np.zeros((2, 100, 2), dtype=np.float32)
    values[1, 7, 0] = 5.0
    values[1, :, 1] = 1.0
    means = resample_means(known_effects(values), 300, np.random.default_rng(0))
    relative = share_interval(means, 0.95)
    assert relative.low.values[1].tolist() == [0.0, 1.0] and relative.high.values[1].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("shares", "name", "onset"),
    [
        ([0.1, 0.9], "emerged", "step1"),
        ([0.5, 0.5], "maintained", "step0"),
        ([0.9, 0.1], "discontinued", ""),
        ([0.02, 0.49, 0.49], "emerged", "step1"),
        ([0.1, 0.1, 0.8], "emerged", "step2"),
        ([0.05, 0.9, 0.05], "transient", ""),
        ([0.45, 0.05, 0.5], "intermittent", "step2"),
    ],
)
def test_class_of_a_certain_course(shares: list[float], name: str, onset: str) -> None:
    middle = xr.DataArray(
        np.array(shares)[:, None],
        dims=("checkpoint", "feature"),
        coords={"checkpoint": [f"step{m}" for m in range(len(shares))], "feature": [0]},
    )
    classes = classify(Interval(middle - 0.01, middle + 0.01))
    assert str(classes["feature_class"].values[0]) == name and str(classes["onset"].values[0]) == onset
    wide = classify(Interval(middle * 0, middle * 0 + 1))
    assert str(wide["feature_class"].values[0]) == "uncertain"


def test_class_of_a_pair_uses_the_papers_thresholds() -> None:
    for later, name in ((0.69, "maintained"), (0.71, "emerged"), (0.31, "maintained"), (0.29, "discontinued")):
        value = xr.DataArray([[1 - later], [later]], dims=("checkpoint", "feature"))
        value = value.assign_coords(checkpoint=["step0", "step1"], feature=[0])
        assert str(classify(Interval(value, value))["feature_class"].values[0]) == name


def test_summary_and_collection(task: xr.Dataset) -> None:
    crosscoder = folded_crosscoder()
    settings = AttributionSettings(bootstrap_samples=200)
    measured = measure_effects(crosscoder, sites(), task, settings)
    tokens = {"step0": 0, "step1": 10}
    summary = summarise_effects(measured, crosscoder.decoder_norms.numpy(), tokens, settings)
    mean = measured.effects.mean("example")
    np.testing.assert_allclose(summary["indirect_effect"].values, mean.values)
    assert (summary["indirect_effect_low"] <= summary["indirect_effect"] + 1e-6).all()
    assert (summary["indirect_effect"] <= summary["indirect_effect_high"] + 1e-6).all()
    defined = summary["relative_indirect_effect"].notnull()
    np.testing.assert_allclose(summary["relative_indirect_effect"].sum("checkpoint").values[defined[0]], 1, rtol=1e-5)
    inactive = summary["activation_frequency"] == 0
    assert (summary["feature_class"].values[inactive] == "no effect").all()
    joined = collect_attributions({"a": summary, "b": summary})
    assert joined["indirect_effect"].dims == ("task", "checkpoint", "feature")
    assert joined["relative_decoder_norm"].dims == ("checkpoint", "feature")


def test_task_on_which_no_feature_is_active() -> None:
    nothing = TaskEffects(
        known_effects(np.zeros((2, 5, 24), dtype=np.float32)),
        xr.DataArray(np.zeros((5, 24), dtype=np.int32), dims=("example", "feature")),
    )
    norms = folded_crosscoder().decoder_norms.numpy()
    summary = summarise_effects(nothing, norms, {"step0": 0, "step1": 1}, AttributionSettings(bootstrap_samples=20))
    assert (summary["feature_class"] == "no effect").all() and (summary["indirect_effect_high"] == 0).all()
    assert summary["relative_indirect_effect"].isnull().all()
