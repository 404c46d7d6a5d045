"""Estimators against the exact intervention, and what must not change an effect."""

import copy
import logging
import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from benchmark_modules import load_benchmark
from slow_attribution import FEATURES, corpus_means, exactly, folded_crosscoder, slow_effects, slow_metric, tiny_sites
from tiny import ARCHITECTURES, tiny_crosscoder, tiny_model
from transformers import PreTrainedTokenizerFast

from chronocoder.attribution.attribute import completeness_gap, measure_effects
from chronocoder.attribution.collect import collect_attributions
from chronocoder.attribution.effects import Prompts
from chronocoder.attribution.estimators import attribution_patching
from chronocoder.attribution.exact import exact
from chronocoder.attribution.grouped import deal, grouped_gradients
from chronocoder.attribution.interventions import prepare_task, usable_examples
from chronocoder.attribution.prompts import check_checkpoints, check_suite, read_prompts
from chronocoder.attribution.summary import summarise_effects
from chronocoder.config import UNITS, AttributionSettings, TrajectorySettings
from chronocoder.errors import NonFiniteError, StoreError, TaskError
from chronocoder.suites.sites import Site, resolve_site
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.tokenise import tokenise_pairs

ESTIMATORS = ["published", "attribution_patching", "grouped_gradients", "exact"]
COMPLETE = {"path_points": "midpoints", "over_tokens": "sum", "token_threshold": 0.0}
INTERVENTIONS = ["zero", "mean", "counterfactual", "resample"]


def measured(task: xr.Dataset, where: list[Site], size: float = 0.02, **settings: Any) -> xr.Dataset:
    chosen = AttributionSettings(**{"estimator": "published", **COMPLETE, "alone": 2, "groups": 4, **settings})
    return measure_effects(folded_crosscoder(size, where[0].name), where, task, chosen)


def effects(estimator: str, task: xr.Dataset, where: list[Site], **settings: Any) -> np.ndarray:
    return measured(task, where, estimator=estimator, **settings)["effects"].values


@pytest.fixture(params=list(UNITS))
def paired(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast) -> xr.Dataset:
    """Pairs that can be patched, for each metric, prepared for every intervention."""
    task = prefixes_of(tokenizer) if request.param == "next_token" else sentences_of(tokenizer, request.param)
    usable = usable_examples(task, "counterfactual")
    assert 2 <= usable.sizes["example"] < task.sizes["example"] and usable["has_counterfactual"].all()
    resampled = prepare_task(usable, AttributionSettings(intervention="resample"))
    assert resampled.sizes == usable.sizes
    return prepare_task(resampled, AttributionSettings(intervention="mean"), corpus_means())


def prefixes_of(tokenizer: PreTrainedTokenizerFast) -> xr.Dataset:
    pairs = [
        MinimalPair("the cat", " sees", " see", counterfactual="the dogs"),
        MinimalPair("the dogs near the cat", " see", " sees", counterfactual="the cat near the cat"),
        MinimalPair("a boy near the dogs", " walks", " walk", counterfactual="the boys near the dogs"),
        MinimalPair("a boy", " walks", " walk", counterfactual="the boys"),
        MinimalPair("the boy", " walks", " walk"),
    ]
    return tokenise_pairs(pairs, tokenizer, 0, "paired").assign_attrs(task="paired")


def sentences_of(tokenizer: PreTrainedTokenizerFast, metric: str) -> xr.Dataset:
    """Return pairs of several lengths, of which one has sentences of unequal lengths; endings have several tokens."""
    pairs = [
        MinimalPair("the", " cat sees the xyz", " dogs sees the xyz"),
        MinimalPair("the", " boys see the xyz", " boy see the xyz"),
        MinimalPair("a boy near the", " dogs walks", " cat walks"),
        MinimalPair("a boy near the", " cats see", " cat see"),
        MinimalPair("the", " cat walks", " xyz walks"),
    ]
    return tokenise_pairs(pairs, tokenizer, 0, "paired", metric).assign_attrs(task="paired")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_exact_equals_ablating_one_feature_at_a_time(architecture: str, task: xr.Dataset) -> None:
    where = tiny_sites(architecture)
    expected = slow_effects(folded_crosscoder(), where, task)
    np.testing.assert_allclose(effects("exact", task, where), expected, rtol=1e-3, atol=1e-5)
    assert np.abs(expected).max() > 1e-4


@pytest.mark.parametrize("intervention", INTERVENTIONS[1:])
@pytest.mark.parametrize("name", ["residual.0", "mlp_out.1"])
def test_exact_patching_equals_patching_one_feature_at_a_time(name: str, intervention: str, paired: xr.Dataset) -> None:
    where = tiny_sites(name=name)
    expected = slow_effects(folded_crosscoder(), where, paired, intervention)
    found = effects("exact", paired, where, intervention=intervention)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert np.abs(expected).max() > 1e-4


@pytest.mark.parametrize("intervention", INTERVENTIONS)
def test_error_and_total_effects_equal_the_interventions(intervention: str, paired: xr.Dataset) -> None:
    where, crosscoder = tiny_sites(), folded_crosscoder(0.3)
    found = measured(paired, where, 0.3, estimator="exact", intervention=intervention)
    for m in range(2):
        for example in range(paired.sizes["example"]):
            clean = slow_metric(crosscoder, where, paired, example, m)
            error = slow_metric(crosscoder, where, paired, example, m, (), intervention, True)
            total = slow_metric(crosscoder, where, paired, example, m, range(FEATURES), intervention, True)
            assert float(found["error_effects"][m, example]) == pytest.approx(error - clean, abs=1e-4)
            assert float(found["total_effects"][m, example]) == pytest.approx(total - clean, abs=1e-4)
    assert abs(found["error_effects"]).max() > 0.01


@pytest.mark.parametrize("intervention", INTERVENTIONS)
@pytest.mark.parametrize("name", ["residual.0", "residual.1", "mlp_out.1", "attention_out.2"])
def test_attribution_patching_follows_the_exact_effects_of_small_features(
    name: str, intervention: str, paired: xr.Dataset
) -> None:
    where = tiny_sites(name=name)
    exact = effects("exact", paired, where, intervention=intervention).ravel()
    estimated = effects("attribution_patching", paired, where, intervention=intervention).ravel()
    assert np.corrcoef(exact, estimated)[0, 1] > 0.95


@pytest.mark.parametrize("intervention", INTERVENTIONS)
def test_published_are_complete(intervention: str, paired: xr.Dataset) -> None:
    """Effects of all features and of the error term add up to the metric's true change."""
    few, many = (measured(paired, tiny_sites(), 0.3, steps=steps, intervention=intervention) for steps in (3, 400))
    whole = many["effects"].sum("feature") + many["error_effects"]
    np.testing.assert_allclose(whole, many["total_effects"], rtol=0.02, atol=0.02)
    assert abs(many["total_effects"]).max() > 0.1
    assert (completeness_gap(many) < 0.02).all() and (completeness_gap(many) < completeness_gap(few)).all()


@pytest.mark.parametrize("intervention", INTERVENTIONS)
@pytest.mark.parametrize("name", ["residual.1", "mlp_out.1", "mlp_in.1"])
def test_groups_of_one_and_features_alone_are_exact(name: str, intervention: str, paired: xr.Dataset) -> None:
    """The path integral of changing one feature alone is exact, where there are points enough on the path."""
    where, patched = tiny_sites(name=name), {"intervention": intervention}
    reference = measured(paired, where, 4.0, estimator="exact", **patched)
    ways: list[dict[str, int]] = [{"alone": 0, "groups": FEATURES, "points": 12}, {"alone": FEATURES}]
    for way in ways:
        found = measured(paired, where, 4.0, estimator="grouped_gradients", **patched, **way)
        for values in ("effects", "control_effects", "error_effects"):
            np.testing.assert_allclose(found[values], reference[values], rtol=0.02, atol=2e-3)
    assert np.abs(reference["effects"]).max() > 0.05


@pytest.mark.parametrize("intervention", INTERVENTIONS)
def test_groups_are_measured_by_the_gradient_halfway(intervention: str, paired: xr.Dataset) -> None:
    """Group by group and one example at a time, the whole model and a hook."""
    where, settings = tiny_sites(), AttributionSettings(alone=2, groups=3, seed=5, random_directions=0)
    crosscoder = folded_crosscoder(0.3)
    batches = list(read_prompts(crosscoder, where, paired, intervention, 8))
    for batch, (m, site) in product(batches, enumerate(where)):
        prompts = batch.prompts[m]
        found = grouped_gradients(site, prompts, settings).features
        first_order = attribution_patching(site, prompts, settings).features.abs()
        alone, groups = deal(prompts, first_order.numpy(), settings)
        exactly = exact(site, prompts, settings).features
        expected = torch.where(alone, exactly, 0.0)
        for row, members in groups:
            change = prompts.change[row][:, members] @ prompts.weight[members]
            x = (prompts.state.activation[row] + change / 2).requires_grad_()
            gradient = torch.autograd.grad(_metric_with(site, x, prompts, row), x)[0]
            expected[row, members] = (prompts.change[row][:, members] * (gradient @ prompts.weight[members].T)).sum(0)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
        assert (alone.sum(1) == prompts.change.any(1).sum(1).clamp(max=2)).all() and max(
            len(group.features) for group in groups
        ) > 2
        for row in range(len(alone)):
            of_row = np.concatenate([np.empty(0, int), *(group.features for group in groups if group.row == row)])
            changed = prompts.change[row].any(0) & ~alone[row]
            assert sorted(of_row) == changed.nonzero()[:, 0].tolist()


def _metric_with(site: Site, x: torch.Tensor, prompts: Prompts, row: int) -> torch.Tensor:
    def put(_module: object, _input: object, output: Any) -> Any:
        return (x[None], *output[1:]) if isinstance(output, tuple) else x[None]

    handle = site.place.module.register_forward_hook(put)
    logits = site.model(input_ids=prompts.token_ids[[row]]).logits[:, -prompts.readout.positions :]
    handle.remove()
    return prompts.readout.of(torch.tensor([row])).outcome(logits).terms.sum()


def test_groups_depend_on_seed_and_example_alone(task: xr.Dataset) -> None:
    where, settings = tiny_sites(), AttributionSettings(alone=1, groups=3)
    crosscoder = folded_crosscoder()

    def groups_of(batch_size: int, **changes: int) -> dict[int, list[list[int]]]:
        found: dict[int, list[list[int]]] = {}
        for batch in read_prompts(crosscoder, where, task, "zero", batch_size):
            prompts = batch.prompts[0]
            sizes = prompts.change.abs().sum(1).numpy()
            for row, members in deal(prompts, sizes, settings.model_copy(update=changes)).groups:
                found.setdefault(int(batch.rows.examples[row]), []).append(members.tolist())
        return found

    assert groups_of(8) == groups_of(1) != groups_of(8, seed=1)
    assert all(len(groups) == 3 for groups in groups_of(8).values())


def test_controls_have_groups_in_proportion(task: xr.Dataset) -> None:
    settings = AttributionSettings(alone=3, groups=4)
    prompts = next(read_prompts(folded_crosscoder(), tiny_sites(), task, "zero", 1)).prompts[0]
    prompts = prompts._replace(change=torch.ones(1, 3, FEATURES), controls=FEATURES // 4)
    alone, groups = deal(prompts, np.arange(FEATURES)[None].astype(float), settings)
    controls = [group.features for group in groups if (group.features >= FEATURES - 6).all()]
    features = [group.features for group in groups if (group.features < FEATURES - 6).all()]
    assert len(features) == 4 and len(controls) == math.ceil(4 * 6 / 18) and len(groups) == 6
    assert alone[0].nonzero()[:, 0].tolist() == [15, 16, 17, 23]


def test_published_choices(task: xr.Dataset) -> None:
    """Effects of single tokens above a threshold, their mean over all tokens of the task, points 0, 1/4, 2/4, 3/4."""
    where, crosscoder, threshold = tiny_sites(), folded_crosscoder(0.3), 5e-4
    settings = AttributionSettings(
        estimator="published", steps=4, token_threshold=threshold, random_directions=0, batch_size=3
    )
    total, tokens = torch.zeros(FEATURES), 0
    for batch in read_prompts(crosscoder, where, task, "zero", 1):
        prompts, gradient = batch.prompts[1], 0.0
        for alpha in (0, 0.25, 0.5, 0.75):
            x = prompts.state.activation[0]
            x = (x + alpha * (prompts.end[0] - x)).requires_grad_()
            metric = _metric_with(where[1], x, prompts, 0)
            gradient = gradient + torch.autograd.grad(metric, x)[0] / 4
        of_tokens = prompts.change[0] * (gradient @ prompts.weight.T)
        total += torch.where(of_tokens.abs() > threshold, of_tokens, 0.0).sum(dim=0)
        tokens += prompts.token_ids.shape[1]
    found = measure_effects(crosscoder, where, task, settings)["effects"][1].mean("example")
    np.testing.assert_allclose(found, total / tokens, rtol=1e-3, atol=1e-7)
    assert 0 < (total != 0).sum() < FEATURES


def test_completeness_gap_of_known_effects() -> None:
    known = xr.Dataset(
        {
            "effects": (("checkpoint", "example", "feature"), [[[1.0, 2.0], [0.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]]]),
            "error_effects": (("checkpoint", "example"), [[1.0, 1.0], [0.0, 0.0]]),
            "total_effects": (("checkpoint", "example"), [[3.0, 1.0], [0.0, 0.0]]),
        }
    )
    np.testing.assert_allclose(completeness_gap(known), [(1 + 1) / (3 + 1), np.nan])


def test_gap_above_the_tolerance_is_warned_of(task: xr.Dataset, caplog: pytest.LogCaptureFixture) -> None:
    settings = AttributionSettings(
        estimator="published", steps=1, completeness_tolerance=1e-6, bootstrap_samples=10, **COMPLETE
    )
    crosscoder = folded_crosscoder(0.3)
    found = measure_effects(crosscoder, tiny_sites(), task, settings)
    with caplog.at_level(logging.WARNING):
        summarise_effects(found, task, crosscoder.decoder_norms.numpy(), {"step0": 0, "step1": 1}, settings)
    assert "effects at checkpoint step1 miss the true change by" in caplog.text
    assert "raise attribution.steps above 1" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        patient = settings.model_copy(update={"completeness_tolerance": 1e9})
        summarise_effects(found, task, crosscoder.decoder_norms.numpy(), {"step0": 0, "step1": 1}, patient)
        dropping = settings.model_copy(update={"token_threshold": 0.1})
        summarise_effects(found, task, crosscoder.decoder_norms.numpy(), {"step0": 0, "step1": 1}, dropping)
    assert not caplog.text


def test_estimators_are_exact_where_the_rest_of_the_model_is_linear(task: xr.Dataset) -> None:
    """After the last block comes a normalisation: replaced by the identity, all estimators agree."""
    where = tiny_sites("gpt_neox", "residual.2")
    for site in where:
        site.model.gpt_neox.final_layer_norm = torch.nn.Identity()
    exact = effects("exact", task, where)
    for estimator in ("published", "attribution_patching", "grouped_gradients"):
        np.testing.assert_allclose(effects(estimator, task, where), exact, rtol=1e-3, atol=1e-4)
    gap = completeness_gap(measured(task, where, estimator="exact"))
    np.testing.assert_allclose(gap, 0, atol=1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_published_equal_the_straightforward_method(architecture: str, task: xr.Dataset) -> None:
    where = tiny_sites(architecture)
    slow = load_benchmark("attribution").straightforward_effects
    models = [tiny_model(architecture, seed).requires_grad_(True) for seed in (0, 1)]
    expected = slow(folded_crosscoder(0.3), models, "residual.1", task, 7)
    found = measured(task, where, 0.3, steps=7)["effects"].values
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * np.abs(expected).max())
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_batch_size_and_order_do_not_matter(estimator: str, task: xr.Dataset) -> None:
    where = tiny_sites()
    whole = effects(estimator, task, where)
    for batch_size in (1, 7):
        part = effects(estimator, task, where, batch_size=batch_size)
        np.testing.assert_allclose(part, whole, rtol=1e-4, atol=1e-6)
    order = np.array([5, 2, 0, 4, 1, 3])
    each = {"groups": FEATURES}  # groups are drawn anew in another place
    reordered = effects(estimator, task.isel(example=order), where, **each)
    np.testing.assert_allclose(reordered, effects(estimator, task, where, **each)[:, order], rtol=1e-4, atol=1e-6)


def test_stored_padding_does_not_matter(task: xr.Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    long = MinimalPair("the cat near the dogs near the cats near the boy", " sees", " see")
    texts = [MinimalPair(*(str(task[key].values[i]) for key in ("prefix", "right", "wrong"))) for i in range(6)]
    padded = tokenise_pairs([*texts, long], tokenizer, 0, "t")
    where = tiny_sites()
    found = effects("published", padded, where)[:, :6]
    np.testing.assert_allclose(found, effects("published", task, where), rtol=1e-4, atol=1e-6)


def test_padding_token_and_tied_embeddings_of_the_model_do_not_matter(task: xr.Dataset) -> None:
    where = tiny_sites("gpt2")
    expected = effects("published", task, where)
    assert where[0].model.get_output_embeddings().weight is where[0].model.get_input_embeddings().weight
    untied = copy.deepcopy([site.model for site in where])
    for model in untied:
        model.config.tie_word_embeddings, model.config.pad_token_id = False, 5
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone(), requires_grad=False)
    found = effects("published", task, [resolve_site(model, "residual.1") for model in untied])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("estimator", ["published", "grouped_gradients"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.bfloat16, 0.1)])
def test_number_format_of_the_model_does_not_matter_but_for_rounding(
    dtype: torch.dtype, tolerance: float, estimator: str, task: xr.Dataset
) -> None:
    expected = effects(estimator, task, tiny_sites(), alone=0)
    where = [resolve_site(tiny_model("gpt_neox", seed).to(dtype), "residual.1") for seed in (0, 1)]
    found = effects(estimator, task, where, alone=0)
    assert found.dtype == np.float32
    assert np.linalg.norm(found - expected) < tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_swapping_right_and_wrong_changes_the_sign(estimator: str, task: xr.Dataset) -> None:
    where = tiny_sites()
    swapped = task.assign(right_id=task["wrong_id"], wrong_id=task["right_id"])
    found = effects(estimator, swapped, where)
    np.testing.assert_allclose(found, -effects(estimator, task, where), rtol=1e-4, atol=1e-6)


def test_frequency_and_mean_activation_are_of_the_clean_prefixes(task: xr.Dataset) -> None:
    where, crosscoder = tiny_sites(), folded_crosscoder()
    codes = []
    for example in range(6):
        ids = torch.from_numpy(task["token_id"].values[[example], : int(task["length"][example])].astype(np.int64))
        x = torch.stack([site.read(ids).activation[0] for site in where], dim=1)
        codes.append(crosscoder.encode(x)[1:].numpy())
    found = measured(task, where, batch_size=2)
    expected = np.mean([(of_example > 0).any(axis=0) for of_example in codes], axis=0)
    np.testing.assert_allclose(found["activation_frequency"], expected)
    np.testing.assert_allclose(found["mean_activation"], np.concatenate(codes).mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (lambda: tiny_sites("gpt2")[:1], "widths: the crosscoder is of 16, 16, not of 16; give the models"),
        (
            lambda: tiny_sites(name="residual.0"),
            "sites: the crosscoder is of residual.1, residual.1, not of residual.0",
        ),
    ],
)
def test_other_models_are_refused(where: Any, message: str, task: xr.Dataset) -> None:
    with pytest.raises(StoreError, match=message):
        measure_effects(folded_crosscoder(), where(), task, AttributionSettings())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("other", ["step0", "step1"], ["", ""]), "suite: the crosscoder is of tiny, not of other"),
        (("tiny", ["step1", "step0"], ["", ""]), "checkpoints: the crosscoder is of step0, step1, not of step1, step0"),
        (("tiny", ["step0", "step1"], ["", "x"]), "commits: the crosscoder is of , , not of , x; give the models it"),
    ],
)
def test_other_checkpoints_are_refused(given: tuple[str, list[str], list[str]], message: str) -> None:
    config = folded_crosscoder().config
    check_checkpoints(config, "tiny", ["step0", "step1"], ["", ""])
    with pytest.raises(StoreError, match=message):
        check_checkpoints(config, *given)


def test_task_without_counterfactuals_cannot_be_patched(task: xr.Dataset) -> None:
    with pytest.raises(TaskError, match="task 'test': no pair has a counterfactual prefix of as many tokens"):
        usable_examples(task, "counterfactual")
    assert usable_examples(task, "zero") is task


def test_damaged_checkpoint_is_named(task: xr.Dataset) -> None:
    where = tiny_sites()
    where[1].blocks[2].mlp.dense_h_to_4h.weight.fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="effects at checkpoint step1 are not finite"):
        measured(task, where)
    where = tiny_sites()
    where[0].blocks[0].mlp.dense_h_to_4h.weight.fill_(float("inf"))
    with pytest.raises(NonFiniteError, match="activations at checkpoint step0 are not finite"):
        measured(task, where)


def test_summary_and_collection(task: xr.Dataset) -> None:
    crosscoder = folded_crosscoder()
    settings = AttributionSettings(bootstrap_samples=200)
    found = measure_effects(crosscoder, tiny_sites(), task, settings)
    summary = summarise_effects(found, task, crosscoder.decoder_norms.numpy(), {"step0": 0, "step1": 10}, settings)
    np.testing.assert_allclose(
        summary["indirect_effect"].values, found["effects"].mean("example"), rtol=1e-4, atol=1e-9
    )
    assert (summary["indirect_effect_low"] <= summary["indirect_effect"] + 1e-6).all()
    assert (summary["indirect_effect"] <= summary["indirect_effect_high"] + 1e-6).all()
    shares = abs(found["effects"].mean("example"))
    np.testing.assert_allclose(summary["relative_indirect_effect"], shares / shares.sum("checkpoint"), rtol=1e-5)
    for name in ("error", "total"):
        np.testing.assert_allclose(summary[f"{name}_effect"], found[f"{name}_effects"].mean("example"), rtol=1e-5)
    defined = summary["relative_indirect_effect"].notnull()
    np.testing.assert_allclose(summary["relative_indirect_effect"].sum("checkpoint").values[defined[0]], 1, rtol=1e-5)
    unused = (found["effects"] == 0).all(("checkpoint", "example"))
    assert (summary["feature_class"].values[unused] == "no effect").all()
    assert (summary["p_value"].values[:, unused] == 1).all() and (summary["p_value"].values[:, ~unused] < 1).any()
    joined = collect_attributions({"a": summary, "b": summary}, TrajectorySettings())
    assert joined["indirect_effect"].dims == ("task", "checkpoint", "feature")
    assert joined["relative_decoder_norm"].dims == ("checkpoint", "feature")
    assert joined["completeness_gap"].dims == ("task", "checkpoint")
    assert "trajectory_cluster" not in joined
    with pytest.raises(StoreError, match="task 'test' is of suite 'other', the crosscoder of 'tiny'; give a task of"):
        check_suite(crosscoder.config, task.assign_attrs(suite="other"))


def test_three_checkpoints_are_clustered_when_collected(task: xr.Dataset) -> None:
    crosscoder = tiny_crosscoder("l1", checkpoints=3).fold_scale(torch.ones(3))
    where = [resolve_site(tiny_model("gpt_neox", seed), "residual.1") for seed in (0, 1, 2)]
    settings = AttributionSettings(bootstrap_samples=50, steps=2)
    found = measure_effects(crosscoder, where, task, settings)
    tokens = {"step0": 0, "step1": 1, "step2": 2}
    summary = summarise_effects(found, task, crosscoder.decoder_norms.numpy(), tokens, settings)
    joined = collect_attributions({"a": summary, "b": summary}, TrajectorySettings())
    assert joined["trajectory_cluster"].dims == ("task", "feature")
    decided = ~joined["feature_class"].isin(["no effect", "uncertain"])
    assert ((joined["trajectory_cluster"] >= 0) == decided).all()


def test_task_on_which_no_feature_is_active(task: xr.Dataset) -> None:
    coordinates = {"checkpoint": ["step0", "step1"], "feature": np.arange(FEATURES)}
    nothing = xr.Dataset(
        {
            "effects": (("checkpoint", "example", "feature"), np.zeros((2, 5, FEATURES), dtype=np.float32)),
            "error_effects": (("checkpoint", "example"), np.zeros((2, 5))),
            "total_effects": (("checkpoint", "example"), np.zeros((2, 5))),
            "changes": (("example", "feature"), np.zeros((5, FEATURES))),
            "clean_metric": (("checkpoint", "example"), np.ones((2, 5))),
            "control_effects": (("control", "checkpoint", "example", "control_feature"), np.zeros((2, 2, 5, 3))),
            "control_features": (("control", "control_feature"), np.arange(6).reshape(2, 3)),
            "activation_frequency": ("feature", np.zeros(FEATURES)),
            "mean_activation": ("feature", np.zeros(FEATURES)),
        },
        coords={**coordinates, "control": ["one", "other"], "control_feature": np.arange(3)},
    )
    norms = folded_crosscoder().decoder_norms.numpy()
    settings = AttributionSettings(bootstrap_samples=20)
    summary = summarise_effects(
        exactly(nothing), task.isel(example=slice(5)), norms, {"step0": 0, "step1": 1}, settings
    )
    assert (summary["feature_class"] == "no effect").all() and (summary["indirect_effect_high"] == 0).all()
    assert summary["relative_indirect_effect"].isnull().all() and not summary["measurable"].any()
    assert summary["measurable"].dtype == bool and summary["completeness_gap"].isnull().all()


def test_effects_of_groups_are_means_of_tasks_of_one_unit(caplog: pytest.LogCaptureFixture) -> None:
    """Two French tasks and a third one in nats; a feature without an effect has no share."""
    generator, tasks = np.random.default_rng(0), {}
    given = [("fra", "logit"), ("fra", "logit"), ("fra", "nat"), ("eng", "logit")]
    for number, (language, unit) in enumerate(given):
        effect = generator.standard_normal((2, 3)).astype(np.float32)
        effect[:, 2] = 0
        variables = {
            "indirect_effect": effect,
            "indirect_effect_low": effect - 0.3,
            "indirect_effect_high": effect + 0.4,
        }
        variables |= {name.replace("ind", "relative_ind"): np.abs(values) for name, values in variables.items()}
        variables["relative_indirect_effect"][:, 2] = np.nan
        variables["relative_decoder_norm"] = np.full((2, 3), 0.5)
        tasks[f"t{number}"] = xr.Dataset(
            {name: (("checkpoint", "feature"), values) for name, values in variables.items()}
            | {"estimator": ("feature", ["exact"] * 3 if number else ["grouped_gradients", "exact", "exact"])},
            coords={"checkpoint": ["step0", "step1"], "feature": np.arange(3), "condition": ["all"]},
            attrs={"language": language, "unit": unit, "phenomenon": "agreement", "metric": "any"},
        )
    joined = collect_attributions(tasks, TrajectorySettings())
    assert joined["group"].values.tolist() == ["fra", "eng"] and joined["group_tasks"].values.tolist() == [2, 1]
    expected = (tasks["t0"]["indirect_effect"] + tasks["t1"]["indirect_effect"]).values / 2
    np.testing.assert_allclose(joined["group_indirect_effect"][0], expected, rtol=1e-6)
    np.testing.assert_allclose(joined["group_indirect_effect_low"][0], expected - 0.3 / 2**0.5, rtol=1e-5)
    np.testing.assert_allclose(joined["group_indirect_effect_high"][0], expected + 0.4 / 2**0.5, rtol=1e-5)
    shares = joined["group_relative_indirect_effect"]
    of_tasks = [tasks[name]["relative_indirect_effect"].values for name in ("t0", "t1")]
    np.testing.assert_allclose(shares[0], np.mean(of_tasks, axis=0), rtol=1e-5)
    assert shares[:, :, 2].isnull().all() and joined["group_unit"].values.tolist() == ["logit", "logit"]
    assert joined["group_relative_indirect_effect_low"][:, :, :2].notnull().all()
    warning = (
        "effects of the tasks come from different estimators (exact; exact and grouped_gradients); to compare them"
    )
    assert warning in caplog.text
