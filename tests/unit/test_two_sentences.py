"""Effects on tasks of two sentences are those of the plainest way, sentence by sentence."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from sentence_pairs import PAIRS, TWO_SENTENCES, slow_differences, task_of
from slow_attribution import (
    folded_crosscoder,
    slow_effects,
    slow_log_probability,
    slow_metric,
    tiny_sites,
)
from tiny import ARCHITECTURES
from transformers import PreTrainedTokenizerFast

from chronocoder.attribution.ablation import measure_ablations, summarise_ablations
from chronocoder.attribution.attribute import measure_effects
from chronocoder.attribution.controls import shuffle_tokens
from chronocoder.attribution.effects import metric
from chronocoder.attribution.prompts import read_prompts
from chronocoder.attribution.sampling import units_of
from chronocoder.attribution.summary import summarise_effects
from chronocoder.config import AblationSettings, AttributionSettings
from chronocoder.suites.sites import Site
from chronocoder.tasks import readout
from chronocoder.tasks.readout import LogProbability


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", TWO_SENTENCES)
def test_exact_effects_are_those_of_one_feature_and_sentence_at_a_time(
    name: str, architecture: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    task, where, crosscoder = task_of(tokenizer, name), tiny_sites(architecture), folded_crosscoder(0.1)
    expected = slow_effects(crosscoder, where, task)
    for batch_size in (2, 64):
        settings = AttributionSettings(estimator="exact", batch_size=batch_size, random_directions=0)
        found = measure_effects(crosscoder, where, task, settings)
        np.testing.assert_allclose(found["effects"], expected, rtol=1e-3, atol=5e-5)
        clean = [slow_metric(crosscoder, where, task, example, 1) for example in range(len(PAIRS))]
        np.testing.assert_allclose(found["clean_metric"][1], clean, rtol=1e-4, atol=1e-4)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("estimator", ["grouped_gradients", "exact"])
def test_passes_of_effects_have_few_enough_logits(
    estimator: str, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than may be, or twice as many where everything is changed beside the clean copy; effects are the same."""
    task, where, crosscoder = task_of(tokenizer, "sentence"), tiny_sites(), folded_crosscoder(0.1)
    settings = AttributionSettings(estimator=estimator, random_directions=0)
    expected = measure_effects(crosscoder, where, task, settings)["effects"]
    most = 2 * int(task["length"].max()) * where[0].model.config.vocab_size
    monkeypatch.setattr("chronocoder.tasks.readout.LOGITS_AT_ONCE", most)
    sizes, terms = list[int](), LogProbability.terms

    def count(readout: LogProbability, logits: torch.Tensor) -> torch.Tensor:
        sizes.append(logits.numel())
        return terms(readout, logits)

    monkeypatch.setattr(LogProbability, "terms", count)
    found = measure_effects(crosscoder, where, task, settings)["effects"]
    assert most / 2 < max(sizes) <= 2 * most
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=5e-5)


@pytest.mark.parametrize("name", TWO_SENTENCES)
def test_no_pass_has_more_logits_than_fit_into_memory(
    name: str, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, where, crosscoder = task_of(tokenizer, name), tiny_sites(), folded_crosscoder(0.1)
    limit = 3 * int(task["length"].max()) * where[0].model.config.vocab_size
    monkeypatch.setattr(readout, "LOGITS_AT_ONCE", limit)
    largest = []
    for site in where:
        embedding = site.model.get_output_embeddings()
        embedding.register_forward_hook(lambda _module, _inputs, logits: largest.append(logits.numel()))
    chosen_settings = AttributionSettings(estimator="grouped_gradients", groups=3, bootstrap_samples=20)
    effects = measure_effects(crosscoder, where, task, chosen_settings)
    attribution = summarise_effects(
        effects, task, crosscoder.decoder_norms.numpy(), {"step0": 0, "step1": 10}, chosen_settings
    )
    ablation = AblationSettings(top_features=4, set_sizes=[2], random_sets=3)
    measure_ablations(crosscoder, where, task, attribution, chosen_settings, ablation)
    assert limit / 3 < max(largest) <= limit


def gradients_by_sentence(task: xr.Dataset, site: Site, points: Sequence[float], checkpoint: int) -> np.ndarray:
    """Return effects by a mean gradient on the way to zero, shape (example, feature), one sentence at a time."""
    crosscoder, sites = folded_crosscoder(0.1), tiny_sites()
    found = np.zeros((task.sizes["example"], len(crosscoder.b_enc)))
    for example, (member, sign) in product(range(task.sizes["example"]), (("right", -1), ("wrong", 1))):
        own = task.isel(example=example).sel(member=member)
        ids = torch.from_numpy(own["token_id"].values[None, : int(own["length"])].astype(np.int64))
        x = torch.stack([of.read(ids).activation[0] for of in sites], dim=1)
        codes = crosscoder.encode(x)
        codes[0] = 0
        clean = x[:, checkpoint]
        end = crosscoder.b_dec[checkpoint].expand_as(clean).clone()
        end[0] = clean[0]
        for point in points:
            leaf = (clean + point * (end - clean)).requires_grad_()
            with site.place.module.register_forward_hook(
                lambda _module, _input, output, put=leaf: replaced(output, put)
            ):
                scores = site.model(input_ids=ids).logits[0].log_softmax(dim=-1)
            first = int(own["scored_from"])
            mu = sign * scores[first - 1 : -1].gather(1, ids[0, first:, None]).sum()
            gradient = torch.autograd.grad(mu, leaf)[0]
            found[example] += (-codes * (gradient @ crosscoder.W_dec[checkpoint].T)).sum(dim=0).numpy() / len(points)
    return found


def replaced(output: Any, put: torch.Tensor) -> Any:
    return (put[None], *output[1:]) if isinstance(output, tuple) else put[None]


@pytest.mark.parametrize("name", TWO_SENTENCES)
@pytest.mark.parametrize(
    ("settings", "points"),
    [
        ({"estimator": "attribution_patching"}, [0.0]),
        (
            {
                "estimator": "published",
                "steps": 3,
                "path_points": "midpoints",
                "over_tokens": "sum",
                "token_threshold": 0.0,
            },
            [1 / 6, 3 / 6, 5 / 6],
        ),
    ],
)
def test_gradients_are_those_of_both_sentences(
    name: str, settings: dict[str, Any], points: list[float], tokenizer: PreTrainedTokenizerFast
) -> None:
    """Also of sentences of unequal lengths, and of several scored tokens."""
    task, where = task_of(tokenizer, name), tiny_sites()
    chosen = AttributionSettings(**settings, random_directions=0, batch_size=3)
    found = measure_effects(folded_crosscoder(0.1), where, task, chosen)["effects"][1]
    expected = gradients_by_sentence(task, where[1], points, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("name", TWO_SENTENCES)
def test_groups_with_every_feature_alone_are_exact(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    task, where, crosscoder = task_of(tokenizer, name), tiny_sites(), folded_crosscoder(0.1)
    alone, grouped = (
        AttributionSettings(estimator="grouped_gradients", random_directions=0, **settings)
        for settings in ({"alone": 24}, {"alone": 0, "groups": 24, "points": 12})
    )
    expected = slow_effects(crosscoder, where, task)
    for settings, tolerance in ((alone, 5e-5), (grouped, 2e-3)):
        found = measure_effects(crosscoder, where, task, settings)["effects"]
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=tolerance)


@pytest.mark.parametrize("name", TWO_SENTENCES)
def test_two_stages_measure_both_sentences_of_the_chosen_features(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    task, where, crosscoder = task_of(tokenizer, name), tiny_sites(), folded_crosscoder(0.1)
    settings = AttributionSettings(estimator="two_stages", exact_features=4, exact_controls=3, random_directions=2)
    found = measure_effects(crosscoder, where, task, settings)
    exactly = np.flatnonzero(found["estimator"].values == "exact")
    assert 0 < len(exactly) < 24
    expected = slow_effects(crosscoder, where, task)[..., exactly]
    np.testing.assert_allclose(found["effects"][..., exactly], expected, rtol=1e-3, atol=5e-5)


@pytest.mark.parametrize("name", TWO_SENTENCES)
def test_ablations_are_those_of_the_changed_model(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    task, where, crosscoder = task_of(tokenizer, name), tiny_sites(), folded_crosscoder(0.1)
    settings = AttributionSettings(estimator="exact", bootstrap_samples=50, random_directions=2)
    ablation = AblationSettings(top_features=2, set_sizes=[2], random_sets=1)
    effects = measure_effects(crosscoder, where, task, settings)
    seen = {"step0": 0, "step1": 10}
    attribution = summarise_effects(effects, task, crosscoder.decoder_norms.numpy(), seen, settings)
    measured = measure_ablations(crosscoder, where, task, attribution, settings, ablation)
    found = summarise_ablations(measured, task, attribution, settings)
    given, feature = (crosscoder, where, task), int(found["top_feature"][0])
    for m in range(2):
        after = [slow_metric(*given, example, m, [feature]) for example in range(len(PAIRS))]
        here = found.isel(checkpoint=m).sel(feature=feature)
        assert float(here["difference"]) == pytest.approx(-np.mean(after), abs=1e-3)
        assert float(here["accuracy"]) == pytest.approx(np.mean(np.array(after) < 0))
        changes = [
            slow_log_probability(*given, example, m, of, member="right")
            for of in ([feature], [])
            for example in range(len(PAIRS))
        ]
        change = np.mean(changes[: len(PAIRS)]) - np.mean(changes[len(PAIRS) :])
        assert float(here["log_probability_change"]) == pytest.approx(change, abs=1e-3)
        check_positions(measured.isel(checkpoint=m), given, m, feature)
    assert found["indirect_effect"].attrs["units"] == attribution["indirect_effect"].attrs["units"] == "nat"
    swapped = measured["swapped_effects"]
    own = measured["effects"].sel(estimator="exact")
    for m in range(2):
        np.testing.assert_allclose(swapped[m, m, :, : own.sizes["feature"]], own[m], atol=1e-4)
    assert set(found["position_role"].values) >= {"difference", "shared ending"}
    assert (found["position_activation"].notnull() == (task["position"] < task["length"] - 1)).all()


def check_positions(measured: xr.Dataset, given: tuple, m: int, feature: int) -> None:
    """Check effects at one position of one sentence alone, of an example with sentences of unequal lengths."""
    task = given[2]
    [example, *_] = np.flatnonzero(task["length"].values[:, 0] != task["length"].values[:, 1])
    for member, sign in (("right", -1), ("wrong", 1)):
        own = measured["position_effects"].sel(top_feature=feature, member=member).isel(example=example)
        length = int(task["length"].sel(member=member)[example])
        clean, *changed = (
            slow_log_probability(*given, example, m, of, "zero", False, position, member=member)
            for of, position in [((), 1), *(([feature], place) for place in range(length))]
        )
        np.testing.assert_allclose(own[:length], sign * (np.array(changed) - clean), atol=1e-4)
        assert own[length - 1] == 0 and (own[length:] == 0).all()
        ids = torch.from_numpy(task["token_id"].sel(member=member).values[example : example + 1, : length - 1])
        x = torch.stack([site.read(ids.long()).activation[0] for site in given[1]], dim=1)
        active = measured["position_activations"].sel(top_feature=feature, member=member).isel(example=example)
        np.testing.assert_allclose(active[1 : length - 1], given[0].encode(x)[1:, feature], rtol=1e-4, atol=1e-6)
        assert active[0] == 0 and (active[length - 1 :] == 0).all()


def test_effects_by_a_single_prefix_and_by_the_same_task_in_batches_of_both_sentences(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """mu of an example is that of its right sentence and that of its wrong one, added up."""
    task, where = task_of(tokenizer, "sentence"), tiny_sites()
    total = np.zeros(len(PAIRS))
    for batch in read_prompts(folded_crosscoder(), where, task, "zero", 2):
        prompts = batch.prompts[0]
        np.add.at(total, batch.rows.examples, metric(where[0], prompts, prompts.state.activation[None])[0].numpy())
    np.testing.assert_allclose(-total, slow_differences(where[0].model, task), rtol=1e-4, atol=1e-4)


def test_pairs_with_the_same_right_sentence_are_one_unit(tokenizer: PreTrainedTokenizerFast) -> None:
    units = units_of(task_of(tokenizer, "sentence"))
    assert units.unit[0] == units.unit[4] and len(set(units.unit)) == 4


@pytest.mark.parametrize("name", TWO_SENTENCES)
def test_what_is_scored_at_the_end_is_not_shuffled(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    task = task_of(tokenizer, name)
    shuffled = shuffle_tokens(task, 0)
    for place in np.ndindex(len(PAIRS), 2):
        before, after = (of["token_id"].values[place] for of in (task, shuffled))
        first, length = (int(task[of].values[place]) for of in ("scored_from", "length"))
        kept = first if name == "continuation" else length
        assert before[0] == after[0] and (before[kept:] == after[kept:]).all()
        assert sorted(before[:kept]) == sorted(after[:kept])
    assert (task["token_id"].values != shuffled["token_id"].values).any()


def test_both_sentences_of_a_pair_are_shuffled_alike(tokenizer: PreTrainedTokenizerFast) -> None:
    """They go on differing where they did: in another order each, a pair would be of two orders."""
    task = task_of(tokenizer, "sentence")
    shuffled = shuffle_tokens(task, 0)
    differing = [
        (of["token_id"].isel(member=0) != of["token_id"].isel(member=1)).sum("position") for of in (task, shuffled)
    ]
    alike = (task["length"].isel(member=0) == task["length"].isel(member=1)).values
    assert 0 < alike.sum() < len(PAIRS)
    np.testing.assert_array_equal(differing[1].values[alike], differing[0].values[alike])
