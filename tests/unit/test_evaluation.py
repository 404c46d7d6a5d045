"""Cross-entropy of spliced models, and the dataset that an evaluation writes."""

import logging
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from tiny import VOCABULARY, WIDTH, tiny_crosscoder, tiny_model
from torch import Tensor

from chronocoder.activations.loader import ActivationStores
from chronocoder.config import EvaluationSettings
from chronocoder.crosscoder.evaluation import (
    CrossEntropies,
    evaluation_dataset,
    measure_cross_entropy,
    measure_reconstruction,
)
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.crosscoder.own_codes import OwnMaps, fit_maps, measure_own_codes, odd_sequences
from chronocoder.stores import write_store
from chronocoder.suites.sites import Site, resolve_site

SETTINGS = EvaluationSettings(sequences=6, batch_size=4)
IDS = np.random.default_rng(0).integers(0, VOCABULARY, (6, 9))


@pytest.fixture(scope="module")
def sites() -> list[Site]:
    return [resolve_site(tiny_model("gpt_neox", seed), "residual.1") for seed in (0, 1)]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def read(sites: list[Site]) -> Tensor:
    """Return the activations of all sequences, shape (sequence, position, checkpoint, d_model)."""
    return torch.stack([site.read(torch.from_numpy(IDS)).activation for site in sites], dim=2)


def maps_of(crosscoder: Crosscoder, x: Tensor) -> OwnMaps:
    odd = (torch.arange(len(IDS)) % 2 == 1).repeat_interleave(IDS.shape[1] - 1)
    return fit_maps(crosscoder, [x[:, 1:].flatten(0, 1)], odd)


def entropy(site: Site, activation: Tensor) -> float:
    """Return the cross-entropy of one model with its site set, over all sequences at once."""
    logits = site.resume(torch.from_numpy(IDS), activation, last=None)[:, 1:-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(IDS[:, 2:]).flatten()).item()


def test_cross_entropy_of_a_perfect_and_of_no_reconstruction(
    sites: list[Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    crosscoder = tiny_crosscoder("l1")
    maps = maps_of(crosscoder, read(sites))
    monkeypatch.setattr(crosscoder, "encode", lambda x: x.flatten(1))
    monkeypatch.setattr(crosscoder, "decode", lambda f: f.unflatten(1, (2, WIDTH)))
    monkeypatch.setattr(crosscoder, "decode_at", lambda f, checkpoint: f.unflatten(1, (2, WIDTH))[:, checkpoint])
    perfect = measure_cross_entropy(crosscoder, maps, sites, IDS, SETTINGS)
    worse = perfect.zero > perfect.clean  # a random model may do better without its site
    assert worse.any()
    for recovered in (perfect.recovered, perfect.recovered_own):
        np.testing.assert_allclose(recovered, np.where(worse, 1, np.nan), atol=1e-5)
    worse_by_mean = perfect.mean > perfect.clean
    np.testing.assert_allclose(perfect.recovered_from_mean, np.where(worse_by_mean, 1, np.nan), atol=1e-5)
    logits = sites[0].model(input_ids=torch.from_numpy(IDS)).logits[:, 1:-1].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(IDS[:, 2:]).flatten())
    assert perfect.clean[0] == pytest.approx(expected.item(), rel=1e-5)
    monkeypatch.setattr(crosscoder, "decode", lambda f: torch.zeros(len(f), 2, WIDTH))
    nothing = measure_cross_entropy(crosscoder, maps, sites, IDS, SETTINGS)
    np.testing.assert_allclose(nothing.recovered, np.where(worse, 0, np.nan), atol=1e-5)
    monkeypatch.setattr(crosscoder, "decode", lambda f: maps.mean.expand(len(f), 2, WIDTH))
    average = measure_cross_entropy(crosscoder, maps, sites, IDS, SETTINGS)
    np.testing.assert_allclose(average.recovered_from_mean, np.where(worse_by_mean, 0, np.nan), atol=1e-5)


def test_cross_entropy_of_own_codes_and_of_means_one_sequence_at_a_time(sites: list[Site]) -> None:
    x = read(sites)
    crosscoder = tiny_crosscoder("l1").fold_scale(torch.tensor([0.5, 2.0]))
    maps = maps_of(crosscoder, x)
    entropies = measure_cross_entropy(crosscoder, maps, sites, IDS, SETTINGS)
    for m, site in enumerate(sites):
        own = x[:, :, m].clone()
        for number, sequence in enumerate(x):
            odd = torch.full((IDS.shape[1] - 1,), number % 2 == 1)
            codes = crosscoder.encode(maps.complete(sequence[1:], m, odd))
            own[number, 1:] = crosscoder.decode(codes)[:, m]
        mean = x[:, :, m].clone()
        mean[:, 1:] = x[:, 1:, m].mean(dim=(0, 1))
        assert entropies.own[m] == pytest.approx(entropy(site, own), rel=1e-5)
        assert entropies.mean[m] == pytest.approx(entropy(site, mean), rel=1e-5)


def test_ratios_by_hand() -> None:
    one = np.ones(1)
    entropies = CrossEntropies(
        clean=2 * one, spliced=3 * one, zero=6 * one, own=4 * one, mean=4 * one, splice_error=one
    )
    assert (entropies.recovered, entropies.recovered_own, entropies.recovered_from_mean) == (0.75, 0.5, 0.5)
    assert not entropies.recovered_above_one
    assert entropies._replace(spliced=1.9 * one).recovered_above_one
    # Where zeroing helps the model, the ratio says nothing, and the flag goes by the change alone.
    helped = entropies._replace(zero=1.8 * one)
    assert np.isnan(helped.recovered) and not helped.recovered_above_one
    assert helped._replace(spliced=1.9 * one).recovered_above_one


def test_a_splice_that_helps_a_model_is_told_of(
    sites: list[Site], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The second model writes a text, and what is spliced in has been told its next tokens; the first is left alone."""
    ids = torch.from_numpy(IDS[:, :1])
    for _ in range(8):
        logits = sites[1].model(input_ids=ids).logits[:, -1]
        ids = torch.cat([ids, torch.multinomial(logits.softmax(dim=-1), 1, generator=seeded())], dim=1)
    x = torch.stack([site.read(ids).activation for site in sites], dim=2)
    told = x[:, :, 1].clone().requires_grad_(True)
    logits = sites[1].resume(ids, told, last=None)[:, 1:-1].flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, ids[:, 2:].flatten())
    known = torch.stack([x[:, :, 0], told - 0.01 * torch.autograd.grad(loss, told)[0]], dim=2).detach()
    crosscoder = tiny_crosscoder("l1")
    maps = maps_of(crosscoder, x)
    monkeypatch.setattr(crosscoder, "decode", lambda f: known[:, 1:].flatten(0, 1))
    settings = EvaluationSettings(sequences=6, batch_size=6)
    with caplog.at_level(logging.WARNING):
        entropies = measure_cross_entropy(crosscoder, maps, sites, ids.numpy(), settings)
    assert entropies.recovered_above_one.tolist() == [False, True]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("step1: splicing lowers the cross-entropy below that of the unchanged model, ")
    assert re.search(r"by 0\.\d{4}, standard error 0\.\d{4}\): the code brings in what other checkpoints know", warning)


def test_standard_error_is_that_of_the_sequences(sites: list[Site]) -> None:
    crosscoder = tiny_crosscoder("l1")
    x = torch.stack([site.read(torch.from_numpy(IDS)).activation for site in sites], dim=2)
    maps = maps_of(crosscoder, x)
    alone = [
        measure_cross_entropy(
            crosscoder, maps, sites, np.repeat(IDS[place : place + 1], 2, axis=0), EvaluationSettings()
        ).splice_change
        for place in range(0, len(IDS), 2)
    ]
    together = measure_cross_entropy(crosscoder, maps, sites, IDS[::2], EvaluationSettings(batch_size=2))
    expected = np.std(alone, axis=0, ddof=1) / np.sqrt(len(alone))
    np.testing.assert_allclose(together.splice_change, np.mean(alone, axis=0), rtol=1e-5)
    np.testing.assert_allclose(together.splice_error, expected, rtol=1e-4)


def evaluate(activation_store: Callable[..., Path], sites: list[Site], settings: EvaluationSettings) -> xr.Dataset:
    crosscoder = tiny_crosscoder("l1").fold_scale(torch.ones(2))
    crosscoder.b_enc[7] = -1e3
    stores = ActivationStores([activation_store(f"step{number}") for number in (0, 1)])
    odd = odd_sequences(stores)
    maps = fit_maps(crosscoder, stores.blocks(), odd)
    return evaluation_dataset(
        crosscoder,
        measure_reconstruction(crosscoder, stores.blocks()),
        measure_own_codes(crosscoder, maps, stores.blocks(), odd),
        measure_cross_entropy(crosscoder, maps, sites, IDS, settings),
        settings,
        {"step0": 0, "step1": 1},
    )


def test_evaluation_is_a_store_of_all_measures(
    activation_store: Callable[..., Path], sites: list[Site], tmp_path: Path
) -> None:
    evaluation = evaluate(activation_store, sites, SETTINGS)
    write_store(evaluation, tmp_path / "evaluation.zarr", {})
    assert tiny_crosscoder("l1").facts["first_token"] == "left_out"
    assert int(evaluation["frequency_histogram"].sum()) == int((evaluation["activation_frequency"] > 0).sum())
    of_features = ("latent_scaling_error", "preactivation", "preactivation_share", "own_code_r2", "code_supported")
    assert {evaluation[name].dims for name in of_features} == {("checkpoint", "feature")}
    assert evaluation["mean_code"].dims == ("feature",)
    assert evaluation["mean_site_activation"].dims == ("checkpoint", "d_model")
    kinds = ("own", "mean", "recovered_own", "recovered_from_mean")
    of_checkpoints = ("explained_variance_own", "recovered_above_one", *(f"cross_entropy_{kind}" for kind in kinds))
    assert {evaluation[name].dims for name in of_checkpoints} == {("checkpoint",)}
    assert evaluation["cross_entropy_mean"].attrs["units"] == "nat"
    share = evaluation["preactivation_share"].sum("checkpoint", skipna=False)
    np.testing.assert_allclose(share.drop_sel(feature=7), 1, rtol=1e-4)
    never = evaluation.sel(feature=7)
    assert never[["preactivation", "preactivation_share", "own_code_r2"]].isnull().all().to_array().all()
    assert not never["code_supported"].any()


def test_means_are_of_all_tokens_in_raw_units(activation_store: Callable[..., Path], sites: list[Site]) -> None:
    stores = ActivationStores([activation_store(f"step{number}") for number in (0, 1)])
    x = torch.cat(list(stores.blocks()))
    crosscoder = tiny_crosscoder("l1").fold_scale(torch.tensor([0.5, 2.0]))
    odd = odd_sequences(stores)
    maps = fit_maps(crosscoder, [x], odd)
    evaluation = evaluation_dataset(
        crosscoder,
        measure_reconstruction(crosscoder, x.split(100)),
        measure_own_codes(crosscoder, maps, [x], odd),
        measure_cross_entropy(crosscoder, maps, sites, IDS, SETTINGS),
        SETTINGS,
        {"step0": 0, "step1": 1},
    )
    np.testing.assert_allclose(evaluation["mean_code"], crosscoder.encode(x).mean(dim=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(evaluation["mean_site_activation"], x.mean(dim=0), rtol=1e-4, atol=1e-5)


def test_setting_decides_from_which_r2_a_code_is_supported(
    activation_store: Callable[..., Path], sites: list[Site]
) -> None:
    evaluation = evaluate(activation_store, sites, SETTINGS.model_copy(update={"supported_r2": 0.2}))
    xr.testing.assert_equal(evaluation["code_supported"].drop_attrs(), evaluation["own_code_r2"].drop_attrs() >= 0.2)
    assert 0 < evaluation["code_supported"].mean() < 1
    assert evaluation["code_supported"].attrs["long_name"] == "R2 of the own code at least 0.2"
