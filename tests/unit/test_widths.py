"""Checkpoints of unequal widths in one crosscoder: padded with zeros, it is what matrices of each width would be."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from slow_attribution import slow_effects
from tiny import tiny_config
from torch import Tensor, nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from chronocoder.activations.formats import normalised
from chronocoder.activations.harvest import harvest
from chronocoder.activations.loader import ActivationStores, shuffled_batches
from chronocoder.activations.origin import text_digest
from chronocoder.activations.streaming import stream_checkpoints
from chronocoder.attribution.ablation import measure_ablations, summarise_ablations
from chronocoder.attribution.attribute import measure_effects
from chronocoder.attribution.summary import summarise_effects
from chronocoder.config import AblationSettings, AttributionSettings, EvaluationSettings, HarvestSettings
from chronocoder.crosscoder.evaluation import measure_cross_entropy, measure_reconstruction
from chronocoder.crosscoder.model import Crosscoder, load_crosscoder
from chronocoder.crosscoder.own_codes import fit_maps, measure_own_codes, odd_sequences
from chronocoder.crosscoder.state import StateDirectory
from chronocoder.crosscoder.statistics import latent_scaling
from chronocoder.crosscoder.training import train_crosscoder
from chronocoder.suites.checkpoints import load_model
from chronocoder.suites.sites import Site, resolve_site
from chronocoder.variants.base import linear_warmup

WIDTHS = (8, 12)
STEPS = 12


def saved_models(directory: Path) -> dict[str, Path]:
    paths = {f"step{number}": directory / f"model{number}" for number in (0, 1)}
    for width, path in zip(WIDTHS, paths.values(), strict=True):
        torch.manual_seed(width)
        sizes = {"intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=300, hidden_size=width, **sizes))
        for parameter in model.parameters():
            parameter.data.mul_(4 if parameter.dim() > 1 else 1)
        model.save_pretrained(path)
    return paths


class Run:
    """Two models of unequal widths, their stores, and a crosscoder trained on them."""

    def __init__(self, directory: Path) -> None:
        ids = np.random.default_rng(0).integers(3, 300, (300, 9)).astype(np.int32)
        self.corpus = xr.Dataset({"token_ids": (("sequence", "position"), ids)})
        self.paths = saved_models(directory)
        self.sites = [resolve_site(load_model(path), "residual.0") for path in self.paths.values()]
        stores = [
            self._harvest(directory, revision, site) for revision, site in zip(self.paths, self.sites, strict=True)
        ]
        self.stores = ActivationStores(stores)
        settings = {"steps": STEPS, "batch_tokens": 128, "learning_rate": 0.01, "normalisation_tokens": 2400}
        config = tiny_config("l1", precision="float32", **settings)
        self.config = replace(config, site="residual.0", d_model=12, unequal_widths=WIDTHS)
        states = StateDirectory(directory / "state", {})
        self.crosscoder = train_crosscoder(self.config, self.stores, states, directory / "rescue", 1000).crosscoder

    def _harvest(self, directory: Path, revision: str, site: Site) -> Path:
        path = directory / f"{revision}.zarr"
        facts = {"suite": "tiny", "revision": revision, "site": site.name, "commit": "c"}
        settings = HarvestSettings(dtype="float32", batch_size=150)
        harvest(site, self.corpus, settings, path, {**facts, "tokens_digest": text_digest(self.corpus)})
        return path

    @property
    def plain(self) -> list[Tensor]:
        """The activations of each checkpoint, in its own width."""
        blocks = torch.cat(list(self.stores.blocks()))
        return [blocks[:, m, :width] for m, width in enumerate(WIDTHS)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("widths"))


def test_what_is_read_has_zeros_behind_the_narrower(run: Run) -> None:
    ids = torch.from_numpy(run.corpus["token_ids"].values.astype(np.int64))
    blocks = torch.cat(list(run.stores.blocks())).unflatten(0, (300, 8))
    assert run.stores.widths == WIDTHS and run.stores.width == 12
    for m, (site, width) in enumerate(zip(run.sites, WIDTHS, strict=True)):
        torch.testing.assert_close(blocks[:, :, m, :width], site.read(ids).activation[:, 1:])
        assert not blocks[:, :, m, width:].any()


def test_streamed_activations_are_the_stored_ones(run: Run) -> None:
    source, _ = stream_checkpoints("tiny", run.paths, "residual.0", run.corpus, HarvestSettings(dtype="float32"))
    assert source.widths == WIDTHS
    streams = [shuffled_batches(one, 128, 0) for one in (source, run.stores)]
    streamed, stored = (normalised(next(stream), torch.ones(2)) for stream in streams)
    for stream in streams:
        stream.close()
    torch.testing.assert_close(streamed, stored)
    assert not streamed[:, 0, 8:].any()


def batches(run: Run) -> Iterator[Tensor]:
    stream = shuffled_batches(run.stores, 128, run.config.seed, buffer_tokens=run.config.settings.shuffle_tokens)
    for _ in range(STEPS):
        yield normalised(next(stream), torch.ones(2))
    stream.close()


def test_padded_training_equals_separate_matrices(run: Run) -> None:
    """Matrices of each checkpoint's own width, trained by the plain formulas, begin where the padded ones begin."""
    settings = run.config.settings
    initial = Crosscoder(run.config, torch.Generator().manual_seed(run.config.seed))
    scale = [width**0.5 / x.norm(dim=1).mean() for x, width in zip(run.plain, WIDTHS, strict=True)]
    decoders, encoders, biases = (
        [nn.Parameter(rows[:, m, :width].clone()) for m, width in enumerate(WIDTHS)]
        if rows is not None
        else [nn.Parameter(s * x.mean(dim=0)) for s, x in zip(scale, run.plain, strict=True)]
        for rows in (initial.decoder_rows, initial.encoder_rows, None)
    )
    b_enc = nn.Parameter(torch.zeros(24))
    parameters = [*decoders, *encoders, *biases, b_enc]
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate, betas=(0.9, 0.999))
    for step, batch in enumerate(batches(run)):
        x = [s * batch[:, m, :width] for m, (s, width) in enumerate(zip(scale, WIDTHS, strict=True))]
        f = torch.relu(sum(one @ rows.T for one, rows in zip(x, encoders, strict=True)) + b_enc)
        errors = [one - f @ rows - bias for one, rows, bias in zip(x, decoders, biases, strict=True)]
        norms = sum(rows.norm(dim=1) for rows in decoders)
        warm = linear_warmup(step, settings.l1_warmup_fraction, STEPS)
        loss = sum(error.pow(2).sum(dim=1).mean() for error in errors)
        loss = loss + settings.l1_coefficient * warm * (f * norms).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, settings.gradient_norm)
        decay = settings.decay_fraction * STEPS
        optimizer.param_groups[0]["lr"] = settings.learning_rate * min(1.0, (STEPS - step) / decay)
        optimizer.step()
    for m, width in enumerate(WIDTHS):
        found = run.crosscoder.decoder_rows[:, m]
        torch.testing.assert_close(found[:, :width] * scale[m], decoders[m].detach(), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(
            run.crosscoder.encoder_rows[:, m, :width] / scale[m], encoders[m].detach(), rtol=1e-3, atol=1e-4
        )
        torch.testing.assert_close(run.crosscoder.b_dec[m, :width] * scale[m], biases[m].detach(), rtol=1e-3, atol=1e-4)
        for padded in (found, run.crosscoder.encoder_rows[:, m], run.crosscoder.b_dec[m]):
            assert not padded[..., width:].any()


def test_saved_crosscoder_knows_its_widths(run: Run, tmp_path: Path) -> None:
    run.crosscoder.save(tmp_path / "crosscoder")
    loaded = load_crosscoder(tmp_path / "crosscoder")
    assert loaded.config.widths == WIDTHS and loaded.config == run.crosscoder.config


def test_explained_variance_and_norms_are_those_of_the_own_width(run: Run) -> None:
    statistics = measure_reconstruction(run.crosscoder, run.stores.blocks())
    f = run.crosscoder.encode(torch.cat(list(run.stores.blocks())))
    for m, (x, width) in enumerate(zip(run.plain, WIDTHS, strict=True)):
        rows = run.crosscoder.decoder_rows[:, m, :width]
        error = x - f @ rows - run.crosscoder.b_dec[m, :width]
        expected = 1 - error.pow(2).sum() / (x - x.mean(dim=0)).pow(2).sum()
        assert float(statistics.explained_variance[m]) == pytest.approx(float(expected), rel=1e-4)
        torch.testing.assert_close(run.crosscoder.decoder_norms[m], rows.norm(dim=1) * run.crosscoder.scale[m])


def test_latent_scaling_compares_no_spaces_of_other_widths(run: Run) -> None:
    scaling = latent_scaling(run.crosscoder, measure_reconstruction(run.crosscoder, run.stores.blocks()))
    longest = run.crosscoder.decoder_norms.argmax(dim=0)
    assert scaling.error.isnan().gather(0, 1 - longest[None]).all()
    assert scaling.error.gather(0, longest[None]).isfinite().any()


def test_splice_is_of_the_own_width(run: Run) -> None:
    odd = odd_sequences(run.stores)
    maps = fit_maps(run.crosscoder, run.stores.blocks(), odd)
    own = measure_own_codes(run.crosscoder, maps, run.stores.blocks(), odd)
    assert own.activation.isfinite().all()
    ids = run.corpus["token_ids"].values[:4]
    found = measure_cross_entropy(run.crosscoder, maps, run.sites, ids, EvaluationSettings(sequences=4, batch_size=4))
    tokens = torch.from_numpy(ids.astype(np.int64))
    for m, site in enumerate(run.sites):
        zero = site.read(tokens).activation.clone()
        zero[:, 1:] = 0
        with site.place.replaced(zero):
            logits = site.model(input_ids=tokens).logits[:, 1:-1].flatten(0, 1)
        expected = nn.functional.cross_entropy(logits, tokens[:, 2:].flatten())
        assert found.zero[m] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("intervention", ["zero", "mean"])
def test_effects_are_exact_at_both_widths(run: Run, task: xr.Dataset, intervention: str) -> None:
    mean = torch.zeros(2, 12)
    for m, x in enumerate(run.plain):
        mean[m, : x.shape[1]] = x.mean(dim=0)
    known = task.assign(mean_code=("feature", np.full(24, 0.1, np.float32)))
    known = known.assign(mean_site_activation=(("checkpoint", "d_model"), mean.numpy()))
    settings = AttributionSettings(estimator="exact", intervention=intervention, random_directions=2, random_features=3)
    found = measure_effects(run.crosscoder, run.sites, known, settings)["effects"]
    expected = slow_effects(run.crosscoder, run.sites, known, intervention)
    found = found.transpose("checkpoint", "example", ...).values
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4 * np.abs(expected).max())


def test_ablations_write_nothing_across_widths(run: Run, task: xr.Dataset) -> None:
    settings = AttributionSettings(estimator="exact", bootstrap_samples=50, random_directions=2, random_features=3)
    effects = measure_effects(run.crosscoder, run.sites, task, settings)
    norms = run.crosscoder.decoder_norms.numpy()
    attribution = summarise_effects(effects, task, norms, {"step0": 0, "step1": 10}, settings)
    ablation = AblationSettings(top_features=3, set_sizes=[1], random_sets=1)
    found = measure_ablations(run.crosscoder, run.sites, task, attribution, settings, ablation)
    swapped = found["swapped_effects"].transpose("writer", "reader", ...).values
    assert np.isnan(swapped[0, 1]).all() and np.isnan(swapped[1, 0]).all()
    own = effects["effects"].sel(feature=found["feature"]).transpose("checkpoint", "example", ...).values
    rows = found.sizes["feature"]
    np.testing.assert_allclose(np.stack([swapped[0, 0], swapped[1, 1]])[..., :rows], own, rtol=1e-3, atol=1e-6)
    summary = summarise_ablations(found, task, attribution, settings)
    assert "written_change" not in summary and summary["indirect_effect"].notnull().all()
