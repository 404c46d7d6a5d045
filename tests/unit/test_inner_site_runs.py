"""From activations to exact effects at sites that are not the stream after a block, in one small run each."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from architectures import TABLE, build
from slow_attribution import slow_effects
from tiny import tiny_config

from chronocoder.activations.harvest import harvest, sample_activations
from chronocoder.activations.loader import ActivationStores
from chronocoder.activations.origin import origin_of, text_digest
from chronocoder.activations.streaming import stream_checkpoints
from chronocoder.attribution.attribute import measure_effects
from chronocoder.behaviour.similarity import compare_activations
from chronocoder.config import AttributionSettings, EvaluationSettings, HarvestSettings
from chronocoder.crosscoder.evaluation import measure_cross_entropy
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.crosscoder.own_codes import fit_maps, odd_sequences
from chronocoder.crosscoder.state import StateDirectory
from chronocoder.crosscoder.training import train_crosscoder
from chronocoder.suites.checkpoints import checkpoint_commit, load_model
from chronocoder.suites.sites import Site, resolve_site

CASES = [("qwen3", "head_out.1.2"), ("opt", "embedding"), ("gemma2", "mlp_in.0"), ("granite", "final")]


def random_corpus() -> xr.Dataset:
    """Return text without the padding token, whose embedding is zero in some models."""
    ids = np.random.default_rng(0).integers(3, 300, (300, 9)).astype(np.int32)
    return xr.Dataset({"token_ids": (("sequence", "position"), ids)})


def saved_models(architecture: str, directory: Path) -> dict[str, Path]:
    paths = {f"step{seed}": directory / f"model{seed}" for seed in (0, 1)}
    for seed, path in enumerate(paths.values()):
        build(architecture, seed, vocab_size=300).save_pretrained(path)
    return paths


def harvested(paths: Mapping[str, Path], sites: list[Site], corpus: xr.Dataset, directory: Path) -> list[Path]:
    stores = []
    for (revision, path), site in zip(paths.items(), sites, strict=True):
        facts = {"suite": "tiny", "revision": revision, "site": site.name, "commit": checkpoint_commit(path)}
        stores.append(directory / f"{revision}.zarr")
        attributes = {**facts, "tokens_digest": text_digest(corpus)}
        harvest(site, corpus, HarvestSettings(dtype="float32", batch_size=150), stores[-1], attributes)
    return stores


def trained(stores: ActivationStores, site: str, directory: Path) -> Crosscoder:
    config = tiny_config("topk", steps=30, batch_tokens=256, learning_rate=0.01, shuffle_tokens=2500)
    config = replace(config, site=site, d_model=stores.width)
    states = StateDirectory(directory / "state", {})
    return train_crosscoder(config, stores, states, directory / "rescue", 1000).crosscoder


@pytest.mark.parametrize(("architecture", "name"), CASES)
def test_run_at_a_site_of_any_kind(architecture: str, name: str, task: xr.Dataset, tmp_path: Path) -> None:
    corpus, paths = random_corpus(), saved_models(architecture, tmp_path)
    sites = [resolve_site(load_model(path), name) for path in paths.values()]
    cached = ActivationStores(harvested(paths, sites, corpus, tmp_path))
    width = TABLE[architecture].head_width if name.startswith("head_out") else 16
    assert cached.width == width
    streamed, origin = stream_checkpoints("tiny", paths, name, corpus, HarvestSettings(dtype="float32"))
    assert streamed.width == width and origin._replace(loaded=()) == origin_of(cached)._replace(loaded=())
    crosscoder = trained(cached, name, tmp_path)
    assert crosscoder.decoder_rows.shape == (24, 2, width)
    check_splice(crosscoder, sites, corpus, cached)
    settings = AttributionSettings(estimator="exact", random_directions=0)
    effects = measure_effects(crosscoder, sites, task, settings)["effects"].transpose("checkpoint", "example", ...)
    expected = slow_effects(crosscoder, sites, task)
    np.testing.assert_allclose(effects.values, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert np.abs(expected).max() > 1e-5
    crosscoder.decoder_rows.mul_(0.01)
    ways = {"exact": settings, "patching": settings.model_copy(update={"estimator": "attribution_patching"})}
    small = [measure_effects(crosscoder, sites, task, way)["effects"].values.ravel() for way in ways.values()]
    assert np.corrcoef(*small)[0, 1] > 0.99


def check_splice(crosscoder: Crosscoder, sites: list[Site], corpus: xr.Dataset, stores: ActivationStores) -> None:
    """Check the cross-entropy with the site at zero and at its reconstruction."""
    ids = corpus["token_ids"].values[:4]
    odd = odd_sequences(stores)
    maps = fit_maps(crosscoder, stores.blocks(), odd)
    settings = EvaluationSettings(sequences=4, batch_size=2)
    found = measure_cross_entropy(crosscoder, maps, sites, ids, settings)
    tokens = torch.from_numpy(ids.astype(np.int64))
    x = torch.stack([site.read(tokens).activation for site in sites], dim=2)
    spliced = crosscoder.decode(crosscoder.encode(x.flatten(0, 1))).view_as(x)
    for m, site in enumerate(sites):
        for values, entropies in ((torch.zeros_like(x), found.zero), (spliced, found.spliced)):
            activation = torch.cat([x[:, :1, m], values[:, 1:, m]], dim=1)
            with site.place.replaced(activation):
                logits = site.model(input_ids=tokens).logits[:, 1:-1]
            expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 2:].flatten())
            assert entropies[m] == pytest.approx(expected.item(), rel=1e-4)


def test_similarity_of_heads() -> None:
    names = ["head_out.0.1", "embedding"]
    models = [(f"step{seed}", build("qwen3", seed, vocab_size=300)) for seed in (0, 1)]
    sampled = sample_activations(models, names, random_corpus()["token_ids"].values, 40)
    assert sampled["head_out.0.1"]["step0"].shape == (40, 8) and sampled["embedding"]["step1"].shape == (40, 16)
    found = compare_activations(sampled, {"step0": 1, "step1": 2})
    assert found.sizes["site"] == 2 and np.isfinite(found.to_array()).all()
