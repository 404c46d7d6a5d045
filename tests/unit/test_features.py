"""What is said of features, against a search through everything."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import poisson
from tiny import WIDTH, tiny_crosscoder, tiny_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from chronocoder.activations.loader import ActivationStores
from chronocoder.activations.origin import text_digest
from chronocoder.attribution.controls import mix_rows
from chronocoder.config import FeatureSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import NonFiniteError, StoreError
from chronocoder.features.activity import Activity, activation_counts, coactive_features
from chronocoder.features.examples import SequenceLabels, read_features, sequence_labels, top_features
from chronocoder.features.nearest import RANDOM_DIRECTIONS, nearest_features
from chronocoder.features.outputs import direct_logits, output_tokens
from chronocoder.suites.sites import Site, resolve_site


def test_features_of_largest_effect_on_any_task_at_any_checkpoint() -> None:
    effect = np.zeros((2, 2, 6))
    effect[0, 0, 3], effect[0, 1, 1], effect[1, 1, 5], effect[1, 0, 4] = -4, 2, 1, -0.5
    relie = xr.Dataset({"indirect_effect": (("task", "checkpoint", "feature"), effect)}, coords={"feature": range(6)})
    assert top_features(relie, 1).tolist() == [1, 3, 4, 5]
    effect[0, 1, 0] = 3  # the second checkpoint of the first task has a new leader
    assert top_features(relie, 1).tolist() == [0, 3, 4, 5]
    assert top_features(relie, 5).tolist() == [0, 1, 3, 4, 5]  # features without any effect are never taken


def test_windows_centre_on_the_largest_activations(
    activation_store: Callable[..., Path], tokenizer: PreTrainedTokenizerFast
) -> None:
    stores = ActivationStores([activation_store("step0", rows=500), activation_store("step1", rows=500)])
    crosscoder = tiny_crosscoder("l1").fold_scale(torch.ones(2))
    settings = FeatureSettings(examples=5, context_tokens=4)
    languages = np.array(["french", "english"])[np.arange(50) % 3 % 2]
    labels = SequenceLabels(languages, np.array([f"page{number}" for number in range(50)]))
    examples = read_features(crosscoder, stores, tokenizer, np.array([2, 7]), settings, labels)
    codes = crosscoder.encode(torch.from_numpy(stores.read(0, 500)))[:, [2, 7]].numpy()
    text = stores.text_columns()
    for number in range(2):
        peaks = codes[:, number].reshape(50, 10).max(axis=1)
        found = examples["activation"].sel(position=0).values[number]
        np.testing.assert_allclose(found, np.sort(peaks)[::-1][:5], rtol=1e-5)
        row = int(np.argmax(codes[:, number]))
        before = [p for p in range(-4, 1) if row + p >= row - row % 10]
        shown = examples["token_id"].sel(position=before).values[number, 0]
        np.testing.assert_array_equal(shown, text["token_id"].values[[row + p for p in before]])
        outside = examples["token_id"].values[number] == -1
        assert (examples["activation"].values[number][outside] == 0).all()
        assert (examples["token"].values[number][outside] == "").all()
        best = np.argsort(-peaks, kind="stable")[:5]
        assert examples["example_language"].values[number].tolist() == languages[best].tolist()
        assert examples["example_source"].values[number].tolist() == [f"page{row}" for row in best]
        of_rows = np.repeat(languages, 10)
        means = [codes[of_rows == name, number].mean() for name in ("english", "french")]
        expected = means / np.sum(means)
        np.testing.assert_allclose(examples["language_share"].values[number], expected, rtol=1e-5)
        assert float(examples["activation_frequency"][number]) == pytest.approx((codes[:, number] > 0).mean())
        assert int(examples["activation_count"][number].sum()) == (codes[:, number] > 0).sum()
    assert examples.sizes["neighbour"] == 8 and examples["checkpoint"].values.tolist() == ["step0", "step1"]
    assert examples["language"].values.tolist() == ["english", "french"]


def test_labels_are_those_of_the_harvested_text(activation_store: Callable[..., Path]) -> None:
    stores = ActivationStores([activation_store("step0", rows=100)])
    corpus = xr.Dataset(
        {"token_ids": (("sequence", "position"), np.zeros((10, 11), dtype=np.int32))},
        coords={"language": ("sequence", [*"abcdefghij"]), "source": ("sequence", [*"ABCDEFGHIJ"])},
    )
    stores.attributes[0]["tokens_digest"] = text_digest(corpus)
    found = sequence_labels(stores, corpus)
    assert found.language.tolist() == [*"abcdefghij"] and found.source.tolist() == [*"ABCDEFGHIJ"]
    with pytest.raises(StoreError, match=r"train\.zarr: not harvested on the given corpus; give the corpus of the val"):
        sequence_labels(stores, corpus + 1)


def test_no_features_are_no_error(activation_store: Callable[..., Path], tokenizer: PreTrainedTokenizerFast) -> None:
    """A crosscoder that does nothing for the tasks has none that matter."""
    stores = ActivationStores([activation_store("step0", rows=100), activation_store("step1", rows=100)])
    labels, none = SequenceLabels(np.full(10, ""), np.full(10, "")), np.array([], dtype=np.int64)
    crosscoder = tiny_crosscoder("l1").fold_scale(torch.ones(2))
    found = read_features(crosscoder, stores, tokenizer, none, FeatureSettings(), labels)
    assert found.sizes["feature"] == found.sizes["bin"] == 0
    found = found.assign(output_tokens(crosscoder, unused_models(), some_text(), none, tokenizer, 3))
    assert found["promoted_token"].shape == found["suppressed_logit"].shape == (0, 2, 3)


def some_codes(tokens: int = 300) -> torch.Tensor:
    """Codes of twelve latents: 1 is active wherever 0 is, 2 where 0 is not, 3 never, 4 always."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.relu(torch.randn(tokens, 12, generator=generator)) * torch.logspace(-3, 3, 12)
    codes[:, 1], codes[:, 2] = 0.5 * codes[:, 0], (codes[:, 0] == 0).float()
    codes[:, 3], codes[:, 4] = 0, 1
    return codes


def activity_of(codes: torch.Tensor, features: list[int], block: int = 300) -> Activity:
    activity = Activity(torch.tensor(features), codes.shape[1])
    for some in codes.split(block):
        activity.add(some)
    return activity


def test_histogram_counts_every_activation_once() -> None:
    features = [0, 3, 5, 11]
    codes = some_codes()
    found = xr.Dataset(activation_counts(activity_of(codes, features)))
    low, high = found["bin_low"].values, found["bin_high"].values
    assert (low[1:] == high[:-1]).all() and np.allclose(high / low, 2**0.25)
    for place, feature in enumerate(features):
        values = codes[:, feature].numpy()
        expected = [((values >= start) & (values < stop)).sum() for start, stop in zip(low, high, strict=True)]
        assert found["activation_count"].values[place].tolist() == expected
        assert sum(expected) == (values > 0).sum()
    assert found["activation_count"].isel(bin=[0, -1]).any("feature").all()  # no empty bins at either end
    assert found["activation_frequency"].values[1] == 0


def test_activations_beyond_the_bins_are_in_the_outermost() -> None:
    codes = torch.tensor([[1e-30, 1e30], [1e-30, 0.0]])
    found = xr.Dataset(activation_counts(activity_of(codes, [0, 1])))
    assert found["activation_count"].values[:, [0, -1]].tolist() == [[2, 0], [0, 1]]


def test_coactive_latents_are_those_of_most_tokens_beyond_chance() -> None:
    features, codes = [0, 3, 4, 6], some_codes()
    found = xr.Dataset(coactive_features(activity_of(codes, features), 5))
    active = [{*np.flatnonzero(column)} for column in (codes > 0).numpy().T]
    tokens = len(codes)
    for place, feature in enumerate(features):
        own, expected = active[feature], []
        for latent, other in enumerate(active):
            by_chance = len(own) * len(other) / tokens
            if latent == feature or not own or not other:
                continue
            jaccard, chance = len(own & other) / len(own | other), by_chance / (len(own) + len(other) - by_chance)
            if jaccard > chance and len(active) * poisson.sf(len(own & other) - 1, by_chance) <= 0.05:
                expected.append((latent, jaccard, chance, len(own & other) / by_chance))
        expected.sort(key=lambda of: of[2] - of[1])
        names = ("coactive_feature", "coactive_jaccard", "coactive_jaccard_expected", "coactive_lift")
        for name, values in zip(names, zip(*expected[:5], strict=True), strict=False):
            own_values = found[name].values[place]
            np.testing.assert_allclose(own_values[: len(values)], values)
        rest = found.isel(feature=place, neighbour=slice(len(expected), None))
        assert (rest["coactive_feature"] == -1).all() and rest["coactive_lift"].isnull().all()
    assert found["coactive_feature"].values[0, 0] == 1 and 2 not in found["coactive_feature"].values[0]
    assert (found["coactive_feature"].values[[1, 2]] == -1).all()  # never active, and always: chance explains all


def test_latents_that_chance_may_bring_are_not_coactive() -> None:
    """Of 100 tokens, two latents share one of three, which one in eleven would do by chance, or all three."""
    codes = torch.zeros(100, 3)
    codes[[0, 1, 2], 0], codes[[2, 3, 4], 1], codes[[0, 1, 2], 2] = 1, 1, 1
    found = xr.Dataset(coactive_features(activity_of(codes, [0, 1]), 2))
    assert found["coactive_feature"].values.tolist() == [[2, -1], [-1, -1]]


def test_blocks_change_no_count() -> None:
    whole, in_blocks = (activity_of(some_codes(), [1, 7], block) for block in (300, 7))
    assert whole.tokens == in_blocks.tokens
    for name in ("active", "together", "by_size"):
        assert torch.equal(getattr(whole, name), getattr(in_blocks, name))


def test_nearest_latents_have_the_largest_cosine_at_each_checkpoint() -> None:
    crosscoder = tiny_crosscoder("l1")
    crosscoder.decoder_rows[5, 1] = -3 * crosscoder.decoder_rows[9, 1]
    crosscoder.decoder_rows[8, 0] = 2 * crosscoder.decoder_rows[9, 0]
    crosscoder.decoder_rows[4] = 0
    found = xr.Dataset(nearest_features(crosscoder, np.array([4, 9]), 23))
    rows = crosscoder.decoder_rows.numpy().astype(np.float64)
    for m in range(2):
        unit = rows[:, m] / np.maximum(np.linalg.norm(rows[:, m], axis=1, keepdims=True), 1e-12)
        numbers = found["nearest_feature"].values[1, m]
        assert sorted(numbers) == [latent for latent in range(24) if latent != 9]
        np.testing.assert_allclose(found["nearest_cosine"].values[1, m], unit[numbers] @ unit[9], atol=1e-6)
        assert (np.diff(found["nearest_cosine"].values[1, m]) <= 0).all()
    assert found["nearest_feature"].values[1, 0, 0] == 8 and found["nearest_feature"].values[1, 1, -1] == 5
    assert (found["nearest_cosine"].values[0] == 0).all()


def test_chance_brings_random_mixes_of_rows_as_near_as_their_nearest_row() -> None:
    crosscoder = tiny_crosscoder("l1")
    found = xr.Dataset(nearest_features(crosscoder, np.array([4, 9]), 2))["nearest_random_cosine"]
    generator = np.random.default_rng([crosscoder.config.seed, 5])
    drawn = generator.integers(24, size=(1, RANDOM_DIRECTIONS))
    mixes, rows = mix_rows(crosscoder, drawn, generator)[0].numpy(), crosscoder.decoder_rows.numpy()
    for m in range(2):
        for mix, cosine in zip(mixes[:, m], found.sel(checkpoint=m).values, strict=True):
            cosines = [mix @ row / np.linalg.norm(mix) / np.linalg.norm(row) for row in rows[:, m]]
            assert cosine == pytest.approx(max(cosines), abs=1e-5)


def some_text() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 300, size=(20, 10))


def unused_models() -> Iterator[PreTrainedModel]:
    raise AssertionError("no model is needed")
    yield


def slow_direct_logits(final: Site, token_ids: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Differences of fourth order of all logits of the whole rest of the model, a token at a time.

    Steps are large, since RMS norms are in float32 even in a model of float64.
    """
    stream, step = final.read(token_ids).activation, 1e-2
    found = []
    for row in range(len(token_ids)):
        for position in range(1, token_ids.shape[1]):
            logits = {}
            for steps in (-2, -1, 1, 2):
                changed = stream[row : row + 1].clone()
                changed[0, position] += steps * step * direction
                logits[steps] = final.resume(token_ids[row : row + 1], changed, last=None)[0, position]
            found.append((8 * (logits[1] - logits[-1]) - (logits[2] - logits[-2])) / (12 * step))
    return torch.stack(found).mean(dim=0)


def test_direct_logits_are_derivatives_of_the_logits(any_model: PreTrainedModel) -> None:
    final = resolve_site(any_model.double(), "final")
    ids = torch.from_numpy(some_text()[:2, :4])
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(3, WIDTH, generator=generator) * torch.tensor([[1e-3], [1.0], [100.0]])
    found = direct_logits(final, final.read(ids).activation[:, 1:], directions)
    expected = torch.stack([slow_direct_logits(final, ids, of / of.norm()) * of.norm() for of in directions.double()])
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3 * float(expected[1].abs().max()))


def test_direct_logits_of_a_model_in_half_precision_are_close() -> None:
    ids = torch.from_numpy(some_text()[:2])
    directions = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0))
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        final = resolve_site(tiny_model("llama").to(dtype), "final")
        found.append(direct_logits(final, final.read(ids).activation[:, 1:], directions))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0.03 * float(found[0].abs().max()))


def test_promoted_and_suppressed_tokens_have_the_largest_changes(tokenizer: PreTrainedTokenizerFast) -> None:
    """Of those that the tokenizer has: the unembedding has more rows, and here their changes are largest."""
    assert len(tokenizer) < 300
    crosscoder = tiny_crosscoder("l1").fold_scale(torch.tensor([0.5, 2.0]))
    models = [tiny_model("gpt_neox", seed) for seed in range(2)]
    for model in models:
        model.get_output_embeddings().weight[len(tokenizer) :] *= 1000
    chosen = np.array([3, 17])
    found = xr.Dataset(output_tokens(crosscoder, models, some_text(), chosen, tokenizer, 4))
    assert found["promoted_logit"].dims == ("feature", "checkpoint", "rank")
    for m, model in enumerate(models):
        final = resolve_site(model, "final")
        rows = np.unique(np.linspace(0, 19, 8).astype(int))
        stream = final.read(torch.from_numpy(some_text()[rows])).activation[:, 1:]
        changes = direct_logits(final, stream, crosscoder.W_dec[m][chosen])[:, : len(tokenizer)].numpy()
        for place, own in enumerate(changes - changes.mean(axis=1, keepdims=True)):
            order = np.argsort(own)
            for kind, numbers in (("promoted", order[::-1][:4]), ("suppressed", order[:4])):
                np.testing.assert_allclose(found[f"{kind}_logit"].values[place, m], own[numbers], rtol=1e-4)
                texts = [tokenizer.decode([number]) for number in numbers]
                assert found[f"{kind}_token"].values[place, m].tolist() == texts


@pytest.mark.parametrize("name", ["mlp_in.1", "head_out.1.0"])
def test_sites_that_add_nothing_to_the_stream_promote_nothing(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    crosscoder = tiny_crosscoder("l1")
    crosscoder.config = replace(crosscoder.config, site=name)
    found = xr.Dataset(output_tokens(crosscoder, unused_models(), some_text(), np.array([1]), tokenizer, 4))
    assert found["promoted_logit"].isnull().all() and (found["suppressed_token"] == "").all()


def test_logits_that_are_not_finite_are_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    crosscoder: Crosscoder = tiny_crosscoder("l1")
    models = [tiny_model("llama"), tiny_model("llama")]
    models[1].get_output_embeddings().weight[2, 3] = float("nan")
    with pytest.raises(NonFiniteError, match="logits at checkpoint step1 are not finite; the checkpoint is damaged or"):
        output_tokens(crosscoder, models, some_text(), np.array([1, 2]), tokenizer, 4)
