"""The crosscoder and its variants against slow, obvious versions of themselves."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import WIDTH, tiny_config, tiny_crosscoder

import chronocoder
from chronocoder.activations.loader import ActivationStores
from chronocoder.crosscoder.awaited import Awaited
from chronocoder.crosscoder.batch import TrainingBatch
from chronocoder.crosscoder.codes import Codes
from chronocoder.crosscoder.evaluation import measure_reconstruction
from chronocoder.crosscoder.model import Crosscoder, load_crosscoder
from chronocoder.crosscoder.products import half_product
from chronocoder.crosscoder.statistics import FREQUENCY_EDGES, Statistics, latent_scaling, present, refitted_rows
from chronocoder.crosscoder.training import auxiliary_loss
from chronocoder.errors import StoreError
from chronocoder.variants import VARIANTS
from chronocoder.variants.base import CrosscoderSettings, Selection

ALL = sorted(VARIANTS)


def activations(tokens: int = 40, checkpoints: int = 2) -> torch.Tensor:
    return torch.randn(tokens, checkpoints, WIDTH, generator=torch.Generator().manual_seed(1))


def select(crosscoder: Crosscoder, x: torch.Tensor, step: int = 5) -> Selection:
    return crosscoder.config.settings.train(TrainingBatch(crosscoder, x.flatten(1), step, len(x)))


def as_matrix(codes: Codes) -> torch.Tensor:
    """Return codes as a matrix: what they decode to with the identity as the decoder."""
    return codes.decode(torch.eye(24))


def weighted(crosscoder: Crosscoder, x: torch.Tensor) -> torch.Tensor:
    return torch.relu(crosscoder.preactivations(x.flatten(1))) * crosscoder.W_dec.norm(dim=-1).sum(dim=0)


def median_threshold(crosscoder: Crosscoder) -> torch.Tensor:
    """Return a threshold that about half of the positive weighted activations reach."""
    values = weighted(crosscoder, activations())
    return values[values > 0].median()


def test_a_file_in_the_variants_directory_is_all_that_a_variant_needs(tmp_path: Path) -> None:
    shutil.copytree(Path(chronocoder.__file__).parent, tmp_path / "chronocoder")
    (tmp_path / "chronocoder" / "variants" / "top1.py").write_text(
        "from typing import Literal\n"
        "from chronocoder.variants.base import CrosscoderSettings, Selection\n"
        "class Top1(CrosscoderSettings):\n"
        "    sparsity: Literal['top1']\n"
        "    def train(self, batch): return Selection(batch.largest_of_token(1))\n"
    )
    code = (
        "from chronocoder.config import parse_experiment; import sys, yaml; config = yaml.safe_load(sys.stdin);"
        "config['variants']['mine'] = {'sparsity': 'top1', 'dictionary_size': 8, 'steps': 2};"
        "assert parse_experiment(config, 'x').variants['mine'].steps == 2 and 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    text = (Path(__file__).parents[2] / "config.yaml").read_text()
    subprocess.run([sys.executable, "-c", code], input=text, text=True, env=environment, check=True)


def test_a_variant_has_to_say_how_it_trains() -> None:
    class Untrained(CrosscoderSettings):
        pass

    with pytest.raises(TypeError, match="abstract class Untrained .*train"):
        Untrained.model_validate({"sparsity": "untrained", "dictionary_size": 8, "steps": 1})


@pytest.mark.parametrize("checkpoints", [2, 3, 5])
def test_encode_and_decode_equal_loops(checkpoints: int) -> None:
    crosscoder = tiny_crosscoder("l1", checkpoints)
    x = activations(7, checkpoints)
    for token in range(7):
        total = crosscoder.b_enc.clone()
        for m in range(checkpoints):
            total += x[token, m] @ crosscoder.W_enc[m]
        codes = torch.relu(total)
        torch.testing.assert_close(crosscoder.encode(x)[token], codes)
        for m in range(checkpoints):
            expected = codes @ crosscoder.W_dec[m] + crosscoder.b_dec[m]
            torch.testing.assert_close(crosscoder.decode(codes[None])[0, m], expected)


@pytest.mark.parametrize("variant", ALL)
def test_folding_does_not_change_the_function(variant: str) -> None:
    """Raw activations of very unequal norms: codes are equal, reconstructions differ by the factor alone."""
    crosscoder = tiny_crosscoder(variant)
    if variant == "batchtopk":
        crosscoder.threshold.copy_(median_threshold(crosscoder))
    if variant == "jumprelu":
        spread = torch.linspace(0.5, 2, 24)
        crosscoder.log_threshold.copy_((median_threshold(crosscoder) * spread).log())
        crosscoder.threshold.copy_(crosscoder.current_threshold)
    scale = torch.tensor([0.003, 70.0])
    raw = activations() / scale[:, None]
    folded = crosscoder.fold_scale(scale)
    codes = crosscoder.encode(raw * scale[:, None])
    assert 0 < (codes > 0).float().mean() < 1
    torch.testing.assert_close(folded.encode(raw), codes)
    torch.testing.assert_close(folded.decode(codes) * scale[:, None], crosscoder.decode(codes))
    torch.testing.assert_close(folded.decoder_norms, crosscoder.decoder_norms)


def test_topk_keeps_the_largest_weighted_activations_of_each_token() -> None:
    crosscoder, x = tiny_crosscoder("topk", k=3), activations()
    values = weighted(crosscoder, x)
    kept = torch.zeros_like(values).scatter(1, values.topk(3, dim=1).indices, 1.0)
    expected = torch.relu(crosscoder.preactivations(x.flatten(1))) * kept
    torch.testing.assert_close(as_matrix(select(crosscoder, x).codes), expected)
    torch.testing.assert_close(crosscoder.encode(x), expected)


def test_batchtopk_keeps_the_largest_weighted_activations_of_the_batch() -> None:
    crosscoder, x = tiny_crosscoder("batchtopk", k=3, steps=500), activations()
    values = weighted(crosscoder, x)
    smallest = values.flatten().sort(descending=True).values[3 * len(x) - 1]
    selection = select(crosscoder, x, step=0)
    assert int(selection.codes.count()) == 3 * len(x)
    assert selection.threshold is not None and selection.threshold.item() == pytest.approx(smallest.item())
    positive = torch.relu(crosscoder.preactivations(x.flatten(1)))
    torch.testing.assert_close(as_matrix(selection.codes), positive * (values >= smallest))
    crosscoder.threshold.fill_(0.5)
    later = select(crosscoder, x, step=1)
    assert later.threshold is not None
    assert later.threshold.item() == pytest.approx(0.9 * 0.5 + 0.1 * smallest.item())


@pytest.mark.parametrize("variant", ["batchtopk", "jumprelu"])
def test_threshold_applies_to_each_token_alone_at_inference(variant: str) -> None:
    crosscoder, x = tiny_crosscoder(variant), activations()
    crosscoder.threshold.copy_(median_threshold(crosscoder) * torch.linspace(0.5, 2, 24))
    codes = crosscoder.encode(x)
    torch.testing.assert_close(codes[3:4], crosscoder.encode(x[3:4]))
    values = weighted(crosscoder, x)
    torch.testing.assert_close(codes > 0, (values >= crosscoder.threshold) & (values > 0))


def test_l1_penalty_weights_each_latent_by_its_decoder_norms() -> None:
    crosscoder, x = tiny_crosscoder("l1", 3, l1_coefficient=0.7), activations(5, 3)
    codes = torch.relu(crosscoder.preactivations(x.flatten(1)))
    norms = [sum(crosscoder.W_dec[m, i].norm() for m in range(3)) for i in range(24)]
    expected = sum(codes[t, i] * norms[i] for t in range(5) for i in range(24)) * 0.7
    torch.testing.assert_close(select(crosscoder, x).penalty, expected)
    rising = select(tiny_crosscoder("l1", 3, l1_coefficient=0.7, steps=200), x, step=5)
    torch.testing.assert_close(rising.penalty, expected / 2)


def test_jumprelu_thresholds_have_the_papers_pseudo_derivatives() -> None:
    """Equations 11 and 12 of arXiv 2407.14435, a rectangle of width epsilon, in units of the weighted activation."""
    epsilon, coefficient = 4.0, 0.5
    crosscoder = tiny_crosscoder("jumprelu", bandwidth=epsilon, l0_coefficient=coefficient).requires_grad_(True)
    theta = median_threshold(crosscoder).detach() * torch.linspace(0.5, 2, 24)
    crosscoder.log_threshold.data.copy_(theta.log())
    x = activations()
    selection = select(crosscoder, x)
    pull = torch.randn(40, 24, generator=torch.Generator().manual_seed(5))
    ((as_matrix(selection.codes) * pull).sum() + selection.penalty).backward()
    norms = crosscoder.W_dec.norm(dim=-1).sum(dim=0).detach()
    values = crosscoder.preactivations(x.flatten(1)).detach() * norms
    window = ((values - theta).abs() / epsilon < 0.5).float() / epsilon
    by_threshold = (pull * -theta * window / norms).sum(dim=0) - coefficient * window.sum(dim=0)
    torch.testing.assert_close(crosscoder.log_threshold.grad, by_threshold * theta)
    torch.testing.assert_close(crosscoder.b_enc.grad, (pull * (values >= theta)).sum(dim=0))
    assert selection.penalty.item() == pytest.approx(coefficient * int((values >= theta).sum()))


@pytest.mark.parametrize("variant", ["topk", "batchtopk"])
def test_k_is_annealed_linearly(variant: str) -> None:
    settings = tiny_config(variant, k=4, k_initial=20, k_anneal_fraction=0.5, steps=16).settings
    assert [settings.k_at(step) for step in (0, 2, 4, 8, 15)] == [20, 16, 12, 4, 4]
    crosscoder = tiny_crosscoder(variant, k=4, k_initial=6, k_anneal_fraction=0.5, steps=16)
    x = activations()
    assert int(select(crosscoder, x, step=4).codes.count()) == 5 * len(x)


@pytest.mark.parametrize("variant", ALL)
def test_auxiliary_loss_moves_dead_latents_towards_the_residual(variant: str) -> None:
    crosscoder = tiny_crosscoder(variant, auxiliary_coefficient=1.0, auxiliary_k=2).requires_grad_(True)
    x = activations().flatten(1)
    dead = torch.zeros(24, dtype=torch.bool)
    dead[[2, 5, 7]] = True
    batch = TrainingBatch(crosscoder, x, 5, len(x))
    codes = crosscoder.config.settings.train(batch).codes
    decoder = crosscoder.decoder_rows.flatten(1)
    residual = (x - codes.decode(decoder) - crosscoder.b_dec.flatten()).detach()
    loss = auxiliary_loss(batch, residual, dead, Awaited(dead.sum()))
    of_dead = crosscoder.preactivations(x).masked_fill(~dead, -torch.inf)
    top = of_dead.topk(2, dim=1)
    leaking = torch.where(top.values > 0, top.values, 0.01 * top.values)
    guess = torch.zeros_like(of_dead).scatter(1, top.indices, leaking) @ decoder
    torch.testing.assert_close(loss, (residual - guess).pow(2).sum())
    loss.backward()
    for rows in (crosscoder.decoder_rows, crosscoder.encoder_rows):
        moved = rows.grad.abs().sum(dim=(1, 2)) > 0
        assert moved[dead].any() and not moved[~dead].any()


@pytest.mark.parametrize("variant", ALL)
def test_a_latent_that_is_negative_on_every_token_still_learns(variant: str) -> None:
    crosscoder = tiny_crosscoder(variant, auxiliary_coefficient=1.0, auxiliary_k=2).requires_grad_(True)
    crosscoder.b_enc.data[[2, 5]] = -1e3
    x = activations().flatten(1)
    batch = TrainingBatch(crosscoder, x, 5, len(x))
    dead = ~crosscoder.config.settings.train(batch).codes.active()
    assert dead[2] and dead[5]
    low = dead & (crosscoder.b_enc < -1)
    auxiliary_loss(batch, x, low, Awaited(low.sum())).backward()
    assert (crosscoder.encoder_rows.grad[[2, 5]].abs().sum(dim=(1, 2)) > 0).any()


@pytest.mark.parametrize("variant", ["l1", "jumprelu"])
def test_penalties_are_of_single_precision_under_autocast(variant: str) -> None:
    crosscoder, x = tiny_crosscoder(variant), activations()
    with torch.autocast("cpu", torch.bfloat16):
        selection = select(crosscoder, x)
    assert selection.penalty is not None and selection.penalty.dtype == torch.float32
    torch.testing.assert_close(selection.penalty, select(crosscoder, x).penalty, rtol=0.02, atol=0.1)


@pytest.mark.parametrize("variant", ALL)
def test_measuring_has_no_side_effects(variant: str, activation_store: Callable[..., Path]) -> None:
    crosscoder = tiny_crosscoder(variant)
    before = {name: value.clone() for name, value in crosscoder.state_dict().items()}
    settings = crosscoder.config.settings.model_dump()
    folded = crosscoder.fold_scale(torch.tensor([0.5, 2.0]))
    as_folded = {name: value.clone() for name, value in folded.state_dict().items()}
    select(crosscoder, activations())
    measure_reconstruction(folded, stores(activation_store).blocks())
    assert crosscoder.config.settings.model_dump() == settings
    for name, value in crosscoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    for name, value in folded.state_dict().items():
        assert torch.equal(value, as_folded[name]), name


@pytest.mark.parametrize("variant", ALL)
def test_saving_and_loading(tmp_path: Path, variant: str) -> None:
    crosscoder = tiny_crosscoder(variant).fold_scale(torch.tensor([2.0, 3.0]))
    crosscoder.save(tmp_path / "crosscoder")
    loaded = load_crosscoder(tmp_path / "crosscoder")
    assert loaded.config == crosscoder.config
    torch.testing.assert_close(loaded.encode(activations()), crosscoder.encode(activations()))
    (tmp_path / "crosscoder" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(StoreError, match="no readable crosscoder .*; train it again"):
        load_crosscoder(tmp_path / "crosscoder")


def test_shards_hold_parts_of_one_dictionary() -> None:
    config = tiny_config("l1")
    whole = Crosscoder(config, torch.Generator().manual_seed(3))
    parts = [Crosscoder(config, torch.Generator().manual_seed(3), range(first, first + 8)) for first in range(0, 24, 8)]
    torch.testing.assert_close(torch.cat([part.encoder_rows for part in parts]), whole.encoder_rows)


def stores(activation_store: Callable[..., Path], **settings: int) -> ActivationStores:
    return ActivationStores([activation_store(f"step{number}", **settings) for number in (0, 1)])


def test_reconstruction_is_measured_over_the_whole_split(activation_store: Callable[..., Path]) -> None:
    opened = stores(activation_store, rows=5000)
    crosscoder = tiny_crosscoder("l1").fold_scale(torch.tensor([0.5, 2.0]))
    x = torch.from_numpy(opened.read(0, opened.rows)).double()
    codes = crosscoder.encode(x.float())
    error = (x - crosscoder.decode(codes)).pow(2).sum(dim=(0, 2))
    variance = (x - x.mean(dim=0)).pow(2).sum(dim=(0, 2))
    statistics = measure_reconstruction(crosscoder, opened.blocks())
    torch.testing.assert_close(statistics.explained_variance, 1 - error / variance, rtol=1e-5, atol=1e-6)
    assert statistics.l0.item() == pytest.approx((codes > 0).sum(dim=1).float().mean().item(), rel=1e-5)
    frequency = (codes > 0).double().mean(dim=0)
    torch.testing.assert_close(statistics.frequency, frequency)
    expected, _ = np.histogram(frequency, FREQUENCY_EDGES)
    np.testing.assert_array_equal(statistics.frequency_histogram, expected)


def test_statistics_of_parts_merge_to_those_of_the_whole() -> None:
    crosscoder = tiny_crosscoder("topk").fold_scale(torch.tensor([0.5, 2.0]))
    x = activations(100)
    whole, parts = Statistics.of(crosscoder, x), [Statistics.of(crosscoder, part) for part in x.split([7, 60, 33])]
    for part in parts[1:]:
        parts[0].merge(part)
    for name, value in vars(whole).items():
        torch.testing.assert_close(getattr(parts[0], name), value, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("variant", ALL)
def test_parts_of_the_preactivation_equal_sums_over_active_tokens(variant: str) -> None:
    crosscoder = tiny_crosscoder(variant, 3).fold_scale(torch.tensor([0.5, 2.0, 1.0]))
    crosscoder.b_enc[5] = -1e3
    x = activations(200, 3)
    statistics, codes = Statistics.of(crosscoder, x), crosscoder.encode(x)
    for latent in range(24):
        seen = x[codes[:, latent] > 0]
        parts = torch.tensor([(seen[:, m] @ crosscoder.W_enc[m, :, latent]).double().mean() for m in range(3)])
        torch.testing.assert_close(
            statistics.preactivation[:, latent], parts, rtol=1e-4, atol=1e-4, equal_nan=True, check_dtype=False
        )
        share = statistics.preactivation_share[:, latent]
        torch.testing.assert_close(share, parts / parts.sum(), rtol=1e-3, atol=1e-3, equal_nan=True, check_dtype=False)
    assert torch.isnan(statistics.preactivation_share[:, 5]).all()


def test_variance_of_codes_is_undefined_where_they_are_constant() -> None:
    crosscoder, x = tiny_crosscoder("l1").fold_scale(torch.ones(2)), activations(3000)
    crosscoder.encoder_rows[[3, 4]] = 0
    crosscoder.b_enc[3], crosscoder.b_enc[4] = 7.3, -1.0
    variance = Statistics.of(crosscoder, x).code_variance
    codes = crosscoder.encode(x).double()
    expected = (codes - codes.mean(dim=0)).pow(2).sum(dim=0)
    assert torch.isnan(variance).nonzero().flatten().tolist() == [3, 4]
    kept = ~torch.isnan(variance)
    torch.testing.assert_close(variance[kept], expected[kept], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("variant", ALL)
def test_latent_scaling_equals_least_squares_per_latent(variant: str) -> None:
    scale = torch.tensor([0.5, 2.0, 1.0])
    crosscoder = tiny_crosscoder(variant, 3).fold_scale(scale)
    raw = activations(200, 3) / scale[:, None]
    codes = crosscoder.encode(raw)
    statistics = Statistics.of(crosscoder, raw)
    scaling, refitted = latent_scaling(crosscoder, statistics), refitted_rows(crosscoder, statistics)
    x, rows, bias = (value * scale[:, None] for value in (raw, crosscoder.decoder_rows, crosscoder.b_dec))
    decoded = torch.einsum("tf,fmd->tmd", codes, rows)
    for latent in range(24):
        direction = rows[latent, rows[latent].norm(dim=-1).argmax()]
        design = (codes[:, latent, None] * direction).flatten()[:, None].double()
        for m in range(3):
            own = codes[:, latent, None] * rows[latent, m]
            whole = (x[:, m] - bias[m] - decoded[:, m] + own).double()
            row = torch.linalg.lstsq(codes[:, latent, None].double(), whole).solution[0]
            torch.testing.assert_close(refitted[latent, m].double(), row, rtol=2e-3, atol=2e-4)
            targets = (x[:, m] - bias[m] - decoded[:, m] + own, decoded[:, m] - own)
            for target, found in zip(targets, (scaling.error, scaling.reconstruction), strict=True):
                beta = torch.linalg.lstsq(design, target.double().flatten()[:, None]).solution.item()
                assert found[m, latent].item() == pytest.approx(beta, rel=2e-3, abs=2e-4)


def test_latent_scaling_sees_through_a_shrunk_decoder_row() -> None:
    """A feature of both checkpoints, whose decoder row one has lost: absent to RelDec, present to latent scaling."""
    crosscoder = tiny_crosscoder("l1").fold_scale(torch.ones(2))
    crosscoder.decoder_rows.zero_()
    crosscoder.b_dec.zero_()
    crosscoder.decoder_rows[3, 0, 0] = 1.0
    codes = torch.rand(500, 1, generator=torch.Generator().manual_seed(0))
    x = torch.zeros(500, 2, WIDTH)
    x[:, :, 0] = codes
    crosscoder.encoder_rows.zero_()
    crosscoder.b_enc.zero_()
    crosscoder.encoder_rows[3, 0, 0] = 1.0
    statistics = Statistics.of(crosscoder, x)
    scaling = latent_scaling(crosscoder, statistics)
    assert present(crosscoder.decoder_norms)[:, 3].tolist() == [True, False]
    assert present(refitted_rows(crosscoder, statistics).norm(dim=-1).T)[:, 3].tolist() == [True, True]
    torch.testing.assert_close(scaling.error[:, 3], torch.ones(2), rtol=1e-4, atol=1e-4)
    assert torch.isnan(scaling.error[:, 4]).all()


@pytest.mark.parametrize("transposed", [False, True])
def test_half_products_are_rounded_once(transposed: bool) -> None:
    left, right = torch.randn(9, 20), torch.randn(20, 11)
    right = right.T.contiguous().T if transposed else right
    leaves, plain = ([value.clone().requires_grad_() for value in (left, right)] for _ in range(2))
    weights = torch.randn(9, 11)
    found = half_product(*leaves)
    expected = plain[0].bfloat16().float() @ plain[1].bfloat16().float()
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
    (found * weights).sum().backward()
    (expected * weights.bfloat16().float()).sum().backward()
    for leaf, other in zip(leaves, plain, strict=True):
        assert leaf.grad is not None and leaf.grad.stride() == leaf.stride()
        torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-2, atol=2e-2)
