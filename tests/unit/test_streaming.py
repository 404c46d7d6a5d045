"""Training on activations that models compute meanwhile equals training on stored ones."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from tiny import VOCABULARY, tiny_config, tiny_model

from chronocoder.activations.harvest import harvest
from chronocoder.activations.loader import ActivationStores
from chronocoder.activations.origin import origin_of, text_digest
from chronocoder.activations.streaming import stream_checkpoints
from chronocoder.config import HarvestSettings
from chronocoder.crosscoder.state import StateDirectory
from chronocoder.crosscoder.training import train_crosscoder
from chronocoder.suites.checkpoints import checkpoint_commit, load_model, loading_facts
from chronocoder.suites.sites import resolve_site
from chronocoder.variants import VARIANTS


def test_training_on_stored_activations_imports_no_models() -> None:
    """Which takes longer than a short training."""
    code = "import sys, chronocoder.activations.origin, chronocoder.crosscoder.training; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "torch" in said.stdout.split() and "transformers" not in said.stdout.split()


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_both_modes_train_the_same_crosscoder(tmp_path: Path, variant: str, dtype: str) -> None:
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (300, 17)).astype(np.int32)
    corpus = xr.Dataset({"token_ids": (("sequence", "position"), ids)})
    checkpoints = {f"step{seed}": tmp_path / f"model{seed}" for seed in (0, 1)}
    stores, settings = [], HarvestSettings(dtype=dtype, batch_size=150)
    for seed, (revision, path) in enumerate(checkpoints.items()):
        tiny_model("gpt_neox", seed).save_pretrained(path)
        facts = {"suite": "tiny", "revision": revision, "site": "residual.1", "commit": checkpoint_commit(path)}
        stores.append(tmp_path / f"{revision}.zarr")
        site = resolve_site(load_model(path), "residual.1")
        attributes = {**facts, **loading_facts(site.model), "tokens_digest": text_digest(corpus)}
        harvest(site, corpus, settings, stores[-1], attributes)
    cached = ActivationStores(stores)
    streamed, origin = stream_checkpoints("tiny", checkpoints, "residual.1", corpus, settings)
    assert origin == origin_of(cached)
    config = tiny_config(variant, steps=30, batch_tokens=256, learning_rate=0.01, shuffle_tokens=2500)
    results = []
    for name, source in (("cached", cached), ("streamed", streamed)):
        states = StateDirectory(tmp_path / name, {})
        results.append(train_crosscoder(config, source, states, tmp_path / "rescue", 1000).crosscoder.state_dict())
    for name, weight in results[0].items():
        torch.testing.assert_close(results[1][name], weight, rtol=1e-3, atol=1e-3, msg=name)
