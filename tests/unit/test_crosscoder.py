"""The crosscoder against slow, obvious versions of itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import VOCABULARY, WIDTH, tiny_crosscoder, tiny_model

from chronocoder.activations.loader import ActivationStores
from chronocoder.config import EvaluationSettings
from chronocoder.crosscoder.evaluation import measure_cross_entropy, measure_reconstruction
from chronocoder.crosscoder.model import Crosscoder, load_crosscoder
from chronocoder.crosscoder.sparsity import smallest_of_top
from chronocoder.crosscoder.training import (
    ActivationStatistics,
    auxiliary_loss,
    measure_activations,
    train_crosscoder,
)
from chronocoder.errors import ConfigError, NonFiniteError, StoreError
from chronocoder.suites.sites import resolve_site

VARIANTS = ["l1", "batchtopk"]


def batch(tokens: int = 40, checkpoints: int = 2) -> torch.Tensor:
    return torch.randn(tokens, checkpoints, WIDTH, generator=torch.Generator().manual_seed(1))


def median_weighted(crosscoder: Crosscoder) -> torch.Tensor:
    """Return a threshold that about half of the positive weighted activations reach."""
    weighted = torch.relu(crosscoder.preactivations(batch())) * crosscoder.decoder_norms.sum(dim=0)
    return weighted[weighted > 0].median()


@pytest.mark.parametrize("checkpoints", [2, 3, 5])
def test_encode_and_decode_equal_loops(checkpoints: int) -> None:
    crosscoder = tiny_crosscoder("l1", checkpoints)
    x = batch(7, checkpoints)
    for token in range(7):
        total = crosscoder.b_enc.clone()
        for m in range(checkpoints):
            total += x[token, m] @ crosscoder.W_enc[m]
        codes = torch.relu(total)
        torch.testing.assert_close(crosscoder.encode(x)[token], codes)
        for m in range(checkpoints):
            expected = codes @ crosscoder.W_dec[m] + crosscoder.b_dec[m]
            torch.testing.assert_close(crosscoder.decode(codes[None])[0, m], expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_folding_does_not_change_the_function(variant: str) -> None:
    """Raw activations of very unequal norms: codes are equal, reconstructions differ by the factor alone."""
    crosscoder = tiny_crosscoder(variant)
    crosscoder.threshold.copy_(median_weighted(crosscoder))
    scale = torch.tensor([0.003, 70.0])
    raw = batch() / scale[:, None]
    folded = crosscoder.fold_scale(scale)
    codes = crosscoder.encode(raw * scale[:, None])
    assert 0 < (codes > 0).float().mean() < 1
    torch.testing.assert_close(folded.encode(raw), codes)
    torch.testing.assert_close(folded.decode(codes) * scale[:, None], crosscoder.decode(codes))
    torch.testing.assert_close(folded.decoder_norms, crosscoder.decoder_norms)


def test_batchtopk_keeps_the_largest_weighted_activations_of_the_batch() -> None:
    crosscoder = tiny_crosscoder("batchtopk", k=3)
    x = batch()
    positive = torch.relu(crosscoder.preactivations(x))
    weighted = positive * crosscoder.W_dec.norm(dim=-1).sum(dim=0)
    kept = sorted(weighted.flatten().tolist(), reverse=True)[: 3 * len(x)]
    selection = crosscoder.select(x)
    assert int((selection.codes > 0).sum()) == 3 * len(x)
    assert selection.smallest_kept.item() == pytest.approx(kept[-1])
    torch.testing.assert_close(selection.codes, positive * (weighted >= kept[-1]))


def test_batchtopk_inference_applies_the_threshold_to_each_token_alone() -> None:
    crosscoder = tiny_crosscoder("batchtopk")
    crosscoder.threshold.copy_(median_weighted(crosscoder))
    x = batch()
    codes = crosscoder.encode(x)
    torch.testing.assert_close(codes[3:4], crosscoder.encode(x[3:4]))
    weighted = codes * crosscoder.W_dec.norm(dim=-1).sum(dim=0)
    assert weighted[codes > 0].min() >= crosscoder.threshold
    assert 0 < (codes > 0).float().mean() < (torch.relu(crosscoder.preactivations(x)) > 0).float().mean()


def test_l1_penalty_weights_each_latent_by_its_decoder_norms() -> None:
    crosscoder = tiny_crosscoder("l1", 3)
    x = batch(5, 3)
    codes = torch.relu(crosscoder.preactivations(x))
    norms = [sum(crosscoder.W_dec[m, i].norm() for m in range(3)) for i in range(24)]
    expected = sum(codes[t, i] * norms[i] for t in range(5) for i in range(24)) / 5
    torch.testing.assert_close(crosscoder.select(x).penalty, expected)


def test_smallest_of_top_with_fewer_values_than_asked() -> None:
    assert smallest_of_top(torch.tensor([3.0, 1.0, 2.0]), 5).item() == 1.0


def test_auxiliary_loss_moves_dead_latents_only() -> None:
    crosscoder = tiny_crosscoder("batchtopk").requires_grad_(True)
    x = batch()
    dead = torch.zeros(24, dtype=torch.bool)
    dead[[2, 5, 7]] = True
    selection, reconstruction = crosscoder(x)
    loss = auxiliary_loss(crosscoder, selection, (x - reconstruction).detach(), dead)
    loss.backward()
    moved = crosscoder.W_dec.grad.abs().sum(dim=(0, 2)) > 0
    assert moved[dead].any() and not moved[~dead].any()


def test_saving_and_loading(tmp_path: Path) -> None:
    crosscoder = tiny_crosscoder("batchtopk").fold_scale(torch.tensor([2.0, 3.0]))
    crosscoder.save(tmp_path / "crosscoder")
    loaded = load_crosscoder(tmp_path / "crosscoder")
    assert loaded.config == crosscoder.config
    torch.testing.assert_close(loaded.encode(batch()), crosscoder.encode(batch()))
    (tmp_path / "crosscoder" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(StoreError, match="no readable crosscoder .*; train it again"):
        load_crosscoder(tmp_path / "crosscoder")


def stores(activation_store: Callable[..., Path], **settings: int) -> ActivationStores:
    return ActivationStores([activation_store(f"step{number}", **settings) for number in (0, 1)])


def test_scale_gives_rows_of_mean_norm_sqrt_d(activation_store: Callable[..., Path]) -> None:
    opened = stores(activation_store)
    scale, mean = measure_activations(opened)
    rows = torch.from_numpy(opened.read(0, opened.rows)) * scale[:, None]
    torch.testing.assert_close(rows.mean(dim=0), mean)
    torch.testing.assert_close(rows.norm(dim=-1).mean(dim=0), torch.full((2,), WIDTH**0.5))


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_lowers_the_loss_and_repeats_itself(
    activation_store: Callable[..., Path], tmp_path: Path, variant: str
) -> None:
    opened = stores(activation_store)
    special = {"k": 8, "threshold_decay": 0.8} if variant == "batchtopk" else {}
    config = tiny_crosscoder(variant, steps=60, batch_tokens=256, learning_rate=0.01, **special).config
    first, second = (train_crosscoder(config, opened, tmp_path / "rescue") for _ in range(2))
    errors = first.history["squared_error"].sum("checkpoint")
    assert errors[-1] < 0.8 * errors[0]
    for name, weight in first.crosscoder.state_dict().items():
        assert torch.equal(weight, second.crosscoder.state_dict()[name]), name
    if variant == "batchtopk":
        quality = measure_reconstruction(first.crosscoder, opened)
        assert quality.l0 == pytest.approx(8, rel=0.25)


def test_non_finite_loss_stops_and_keeps_the_last_good_crosscoder(
    activation_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = stores(activation_store)
    read = opened.read

    def damaged(start: int, stop: int) -> np.ndarray:
        rows = read(start, stop)
        if damaged.calls == 4:
            rows[0] = np.inf
        damaged.calls += 1
        return rows

    damaged.calls = -1  # the scale is measured with one call first
    monkeypatch.setattr(opened, "read", damaged)
    statistics = ActivationStatistics(torch.ones(2), torch.zeros(2, WIDTH))
    monkeypatch.setattr("chronocoder.crosscoder.training.measure_activations", lambda _: statistics)
    config = tiny_crosscoder("l1", batch_tokens=64, steps=500).config
    with pytest.raises(NonFiniteError, match=r"step \d+: loss or gradient is not finite; the crosscoder before"):
        train_crosscoder(config, opened, tmp_path / "last_good")
    rescued = load_crosscoder(tmp_path / "last_good")
    assert all(torch.isfinite(weight).all() for weight in rescued.state_dict().values())


def test_non_finite_gradient_of_a_finite_loss_does_not_reach_the_weights(
    activation_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward, calls = Accelerator.backward, []

    def damaging(self: Accelerator, loss: torch.Tensor) -> None:
        backward(self, loss)
        calls.append(loss)
        if len(calls) == 5:
            self._models[0].W_enc.grad[0, 0, 0] = torch.nan

    monkeypatch.setattr(Accelerator, "backward", damaging)
    config = tiny_crosscoder("batchtopk", steps=20).config
    with pytest.raises(NonFiniteError, match="step 4: loss or gradient is not finite"):
        train_crosscoder(config, stores(activation_store), tmp_path / "last_good")
    rescued = load_crosscoder(tmp_path / "last_good")
    assert all(torch.isfinite(weight).all() for weight in rescued.state_dict().values())


def test_uneven_share_of_a_batch_is_refused(
    activation_store: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chronocoder.crosscoder.training.Accelerator.num_processes", 3)
    with pytest.raises(ConfigError, match="batch_tokens 64 is no multiple of 3 processes"):
        train_crosscoder(tiny_crosscoder("l1").config, stores(activation_store), tmp_path)


def test_reconstruction_is_measured_over_the_whole_split(activation_store: Callable[..., Path]) -> None:
    opened = stores(activation_store, rows=5000)
    crosscoder = tiny_crosscoder("l1").fold_scale(torch.tensor([0.5, 2.0]))
    x = torch.from_numpy(opened.read(0, opened.rows)).double()
    codes = crosscoder.encode(x.float())
    error = (x - crosscoder.decode(codes)).pow(2).sum(dim=(0, 2))
    variance = (x - x.mean(dim=0)).pow(2).sum(dim=(0, 2))
    quality = measure_reconstruction(crosscoder, opened)
    np.testing.assert_allclose(quality.explained_variance, 1 - error / variance, rtol=1e-5)
    assert quality.l0 == pytest.approx((codes > 0).sum(dim=1).float().mean().item(), rel=1e-5)


def test_cross_entropy_of_a_perfect_and_of_no_reconstruction(monkeypatch: pytest.MonkeyPatch) -> None:
    sites = [resolve_site(tiny_model("gpt_neox", seed), "residual.1") for seed in (0, 1)]
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (6, 9))
    crosscoder = tiny_crosscoder("l1")
    monkeypatch.setattr(crosscoder, "encode", lambda x: x.flatten(1))
    monkeypatch.setattr(crosscoder, "decode", lambda f: f.unflatten(1, (2, WIDTH)))
    perfect = measure_cross_entropy(crosscoder, sites, ids, EvaluationSettings(sequences=6, batch_size=4))
    np.testing.assert_allclose(perfect.recovered, 1, atol=1e-5)
    logits = sites[0].model(input_ids=torch.from_numpy(ids)).logits[:, 1:-1].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, torch.from_numpy(ids[:, 2:]).flatten())
    assert perfect.clean[0] == pytest.approx(expected.item(), rel=1e-5)
    monkeypatch.setattr(crosscoder, "decode", lambda f: torch.zeros(len(f), 2, WIDTH))
    nothing = measure_cross_entropy(crosscoder, sites, ids, EvaluationSettings(sequences=6, batch_size=4))
    np.testing.assert_allclose(nothing.recovered, 0, atol=1e-5)
