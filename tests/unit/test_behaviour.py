"""Scores and similarities against slow or known answers."""

import numpy as np
import pytest
import torch
import xarray as xr
from tiny import tiny_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from chronocoder.behaviour.collect import collect_behaviour
from chronocoder.behaviour.pool import Pool
from chronocoder.behaviour.scores import score_tasks, wilson_interval
from chronocoder.behaviour.similarity import compare_activations, cosine, linear_cka, pearson
from chronocoder.errors import NonFiniteError
from chronocoder.tasks.groups import Group, group_means
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.tokenise import tokenise_pairs


def differences(model: PreTrainedModel, task: xr.Dataset) -> np.ndarray:
    [found] = Pool.of([task]).differences(model)
    return found


@torch.no_grad()
def test_scores_equal_one_unbatched_forward_pass_each(any_model: PreTrainedModel, task: xr.Dataset) -> None:
    expected = []
    for number in range(task.sizes["example"]):
        ids = task["token_id"].values[[number], : int(task["length"][number])].astype(np.int64)
        logits = any_model(input_ids=torch.from_numpy(ids)).logits[0, -1]
        expected.append(logits[task["right_id"].values[number]] - logits[task["wrong_id"].values[number]])
    for tokens in (1, 20, 1000):
        [found] = Pool.of([task]).differences(any_model, tokens)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_order_of_examples_does_not_matter(task: xr.Dataset) -> None:
    model = tiny_model("llama")
    order = np.array([3, 1, 5, 0, 4, 2])
    np.testing.assert_allclose(
        differences(model, task.isel(example=order)), differences(model, task)[order], rtol=1e-5, atol=1e-6
    )


def test_damaged_checkpoint_is_named(task: xr.Dataset) -> None:
    model = tiny_model("gpt_neox")
    model.get_output_embeddings().weight.data[:] = torch.nan
    model.name_or_path = "checkpoints/step9"
    with pytest.raises(NonFiniteError, match="checkpoints/step9: 6 differences of right and wrong are not finite"):
        differences(model, task)


def test_summary_of_known_differences(task: xr.Dataset) -> None:
    models = [("step0", tiny_model("gpt2", 0)), ("step1", tiny_model("gpt2", 1))]
    [scores] = score_tasks(models, {"step0": 0, "step1": 100}, [task])
    right = (scores["difference"] > 0).mean("example")
    np.testing.assert_allclose(scores["accuracy"], right)
    assert (scores["accuracy_low"] <= scores["accuracy"]).all() and (
        scores["accuracy"] <= scores["accuracy_high"]
    ).all()
    joined = collect_behaviour({"a": scores, "b": scores})
    assert "group" not in joined.dims and joined["metric"].values.tolist() == ["next_token"] * 2
    assert joined["accuracy"].dims == ("task", "checkpoint") and joined["accuracy"].attrs["units"] == "1"
    np.testing.assert_array_equal(joined["tokens_seen"], [0, 100])


def test_several_tasks_are_scored_like_each_alone_with_each_model_loaded_once(task: xr.Dataset) -> None:
    tasks, tokens_seen = [task, task.isel(example=[4, 1]), task.isel(example=[2])], {"step0": 0, "step1": 100}
    given = [(f"step{seed}", tiny_model("gpt2", seed)) for seed in (0, 1)]
    together = score_tasks(iter(given), tokens_seen, tasks)
    for scores, of_task in zip(together, tasks, strict=True):
        [alone] = score_tasks(given, tokens_seen, [of_task])
        xr.testing.assert_allclose(scores, alone, rtol=1e-5)
        assert scores.attrs == alone.attrs
        assert scores.sizes == {"checkpoint": 2, "example": of_task.sizes["example"]}


def test_wilson_interval_against_published_values() -> None:
    """Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263 and 0 of 20."""
    low, high = wilson_interval(np.array([81]), 263)
    np.testing.assert_allclose([low[0], high[0]], [0.2553, 0.3662], atol=5e-5)
    low, high = wilson_interval(np.array([0]), 20)
    np.testing.assert_allclose([low[0], high[0]], [0.0, 0.1611], atol=5e-5)


def test_similarities_of_known_relations() -> None:
    generator = np.random.default_rng(0)
    a = generator.normal(size=(500, 8))
    rotation = np.linalg.qr(generator.normal(size=(8, 8)))[0]
    assert cosine(a, 3 * a) == pytest.approx(1) and cosine(a, -a) == pytest.approx(-1)
    assert pearson(a, 2 * a + 5) == pytest.approx(1)
    assert linear_cka(a, 4 * a @ rotation + 1) == pytest.approx(1)
    assert linear_cka(a, generator.normal(size=(500, 8))) < 0.1
    assert pearson(a, a @ rotation) < 0.9


def test_comparison_is_symmetric_with_unit_diagonal() -> None:
    generator = np.random.default_rng(0)
    of_site = {f"step{n}": generator.normal(size=(100, 4)).astype(np.float32) for n in range(3)}
    similarity = compare_activations({"residual.1": of_site}, {f"step{n}": n for n in range(3)})
    assert similarity["linear_cka"].dims == ("site", "checkpoint", "other_checkpoint")
    for name in ("cosine", "pearson", "linear_cka"):
        matrix = similarity[name].values[0]
        np.testing.assert_allclose(matrix, matrix.T)
        np.testing.assert_allclose(np.diag(matrix), 1)


def test_models_of_different_widths_have_a_similarity_that_needs_none() -> None:
    generator = np.random.default_rng(0)
    wide = generator.normal(size=(200, 8)).astype(np.float32)
    narrow = wide @ generator.normal(size=(8, 4)).astype(np.float32)
    found = compare_activations({"residual.0": {"a": wide, "b": narrow}}, {"a": 0, "b": 1})
    assert np.isnan(found["cosine"][0, 0, 1]) and np.isnan(found["pearson"][0, 1, 0])
    np.testing.assert_allclose(np.diagonal(found["cosine"][0]), 1)
    for name in ("cosine", "pearson"):
        assert found[name].attrs["undefined"] == "activations of different widths have no entries in common"
    expected = linear_cka(wide.astype(float), narrow.astype(float))
    assert found["linear_cka"][0, 0, 1] == pytest.approx(expected) and 0 < expected < 1
    assert "undefined" not in found["linear_cka"].attrs


def test_groups_are_means_of_their_tasks_with_intervals(task: xr.Dataset, tokenizer: PreTrainedTokenizerFast) -> None:
    """The English tasks have equal weights, whatever their sizes; a task without a language is in no group."""
    models = [(f"step{seed}", tiny_model("gpt2", seed)) for seed in (0, 1)]
    pairs = [MinimalPair("the", " cat sees", " cats sees"), MinimalPair("the boys", " see", " qqqqq")]
    sentences = tokenise_pairs(pairs, tokenizer, 0, "s", "sentence")
    next_token = tokenise_pairs([*pairs, MinimalPair("the cat", " sees", " see")], tokenizer, 0, "n")
    given = {
        "a": task.assign_attrs(language="eng", phenomenon="agreement"),
        "b": next_token.assign_attrs(language="eng", phenomenon="agreement"),
        "c": sentences.assign_attrs(language="fra", phenomenon="agreement"),
        "d": task.isel(example=slice(3)),
    }
    scores = score_tasks(models, {"step0": 0, "step1": 100}, list(given.values()))
    joined = collect_behaviour(dict(zip(given, scores, strict=True)))
    assert (
        joined["group"].values.tolist() == ["eng", "fra"] and joined["group_kind"].values.tolist() == ["language"] * 2
    )
    assert joined["language"].values.tolist() == ["eng", "eng", "fra", ""]
    assert joined["unit"].values.tolist() == ["logit", "logit", "nat", "logit"]
    assert joined["mean_difference"].attrs["units"] == "see unit" and joined["group_tasks"].values.tolist() == [2, 1]
    accuracy = joined["accuracy"].values
    np.testing.assert_allclose(joined["group_accuracy"], [accuracy[:2].mean(axis=0), accuracy[2]])
    for end, sign in (("low", -1), ("high", 1)):
        own = joined[f"accuracy_{end}"].values
        np.testing.assert_allclose(joined[f"group_accuracy_{end}"][1], own[2])
        half = np.sqrt(((own[:2] - accuracy[:2]) ** 2).sum(axis=0)) / 2
        np.testing.assert_allclose(joined[f"group_accuracy_{end}"][0], accuracy[:2].mean(axis=0) + sign * half)
    left_out = joined["left_out"].sel(reason="length")
    assert left_out.values.tolist() == [0, 1, 0, 0] and joined["pairs_given"].values.tolist() == [6, 3, 2, 6]


def test_intervals_of_group_means_cover_the_mean_of_tasks() -> None:
    """Three tasks of unequal accuracy and 40 pairs each, drawn anew: about 95 % of the intervals have their mean."""
    generator, truth = np.random.default_rng(0), np.array([0.5, 0.8, 0.97])
    group, covered = [Group("language", "eng", np.arange(3))], []
    for _ in range(2000):
        right = generator.binomial(40, truth)
        _, low, high = group_means(right / 40, *wilson_interval(right, 40), group)
        covered.append(low[0] <= truth.mean() <= high[0])
    assert 0.93 < np.mean(covered) < 0.98
