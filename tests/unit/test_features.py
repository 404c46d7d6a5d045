"""Top-activating examples against a search through everything."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from tiny import tiny_crosscoder
from transformers import PreTrainedTokenizerFast

from chronocoder.activations.loader import ActivationStores
from chronocoder.activations.origin import text_digest
from chronocoder.config import FeatureSettings
from chronocoder.errors import StoreError
from chronocoder.features.examples import SequenceLabels, sequence_labels, top_examples, top_features


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
    examples = top_examples(crosscoder, stores, tokenizer, np.array([2, 7]), settings, labels)
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
