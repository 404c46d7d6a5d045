"""Own codes against least squares of one checkpoint at a time on the held-out sequences."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import WIDTH, tiny_crosscoder
from torch import Tensor

from chronocoder.activations.loader import ActivationStores
from chronocoder.crosscoder.evaluation import measure_reconstruction
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.crosscoder.own_codes import (
    OwnErrors,
    fit_maps,
    measure_own_codes,
    odd_sequences,
    own_codes_dataset,
    read_own_codes,
    reconstruct_from_own,
)
from chronocoder.crosscoder.statistics import Statistics
from chronocoder.errors import StoreError
from chronocoder.stores import load_store, write_store
from chronocoder.variants import VARIANTS

SCALE = [0.5, 2.0, 1.0]


def related(checkpoints: int = 3, tokens: int = 600) -> Tensor:
    """Return activations that checkpoints share in part, with unequal means and norms."""
    generator = torch.Generator().manual_seed(2)
    common, turn = (torch.randn(*shape, WIDTH, generator=generator) for shape in ((tokens,), (checkpoints, WIDTH)))
    own = torch.randn(tokens, checkpoints, WIDTH, generator=generator)
    mean = torch.randn(checkpoints, WIDTH, generator=generator)
    x = torch.einsum("td,mde->tme", common, turn) / WIDTH**0.5 + 0.5 * own + mean
    return x / torch.tensor(SCALE[:checkpoints])[:, None]


def folds(tokens: int, length: int = 10) -> Tensor:
    return torch.arange(tokens) // length % 2 == 1


def folded(variant: str = "l1", checkpoints: int = 3) -> Crosscoder:
    crosscoder = tiny_crosscoder(variant, checkpoints).fold_scale(torch.tensor(SCALE[:checkpoints]))
    if variant in ("batchtopk", "jumprelu"):
        crosscoder.threshold.fill_(2.0)
    return crosscoder


def measured(crosscoder: Crosscoder, x: Tensor, odd: Tensor, rows: int = 10_000) -> tuple[OwnErrors, Statistics]:
    maps = fit_maps(crosscoder, x.split(rows), odd)
    errors = measure_own_codes(crosscoder, maps, x.split(rows), odd)
    return errors, measure_reconstruction(crosscoder, x.split(rows))


def completed_by_least_squares(x: Tensor, known: int, odd: Tensor) -> Tensor:
    """Predict each checkpoint from the known one by numpy's least squares with an intercept, fold by fold."""
    values, is_odd = x.double().numpy(), odd.numpy()
    design = np.concatenate([values[:, known], np.ones((len(x), 1))], axis=1)
    completed = values.copy()
    for m in range(x.shape[1]):
        for held_out in (is_odd, ~is_odd):
            solution = np.linalg.lstsq(design[~held_out], values[~held_out, m])[0]
            completed[held_out, m] = design[held_out] @ solution
    return torch.from_numpy(completed).float()


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_own_codes_equal_least_squares_on_held_out_sequences(variant: str) -> None:
    crosscoder, x, odd = folded(variant), related(), folds(600)
    errors, statistics = measured(crosscoder, x, odd)
    maps = fit_maps(crosscoder, [x], odd)
    codes = crosscoder.encode(x).double().numpy()
    spread = ((codes - codes.mean(axis=0)) ** 2).sum(axis=0)
    reconstructed = reconstruct_from_own(crosscoder, maps, x, odd)
    for m in range(3):
        completed = completed_by_least_squares(x, m, odd)
        torch.testing.assert_close(maps.complete(x, m, odd), completed, rtol=1e-3, atol=1e-3)
        own = crosscoder.encode(completed)
        with np.errstate(invalid="ignore"):  # of latents never active
            r2 = 1 - ((codes - own.double().numpy()) ** 2).sum(axis=0) / spread
        np.testing.assert_allclose(errors.code_r2(statistics)[m], r2, rtol=5e-3, atol=5e-3)
        missed = (x[:, m] - crosscoder.decode(own)[:, m]).double().pow(2).sum()
        explained = 1 - missed / (x[:, m] - x[:, m].mean(dim=0)).double().pow(2).sum()
        assert errors.explained_variance(statistics)[m].item() == pytest.approx(explained.item(), rel=1e-3, abs=1e-3)
        near = (reconstructed[:, m] - crosscoder.decode(own)[:, m]).norm(dim=1) < 1e-2
        assert near.float().mean() > 0.99  # a code at its threshold may differ
    torch.testing.assert_close(maps.mean, x.mean(dim=0), rtol=1e-5, atol=1e-5)


def test_nothing_is_predicted_by_what_it_was_fitted_on() -> None:
    x, odd = related(), folds(600)
    changed = x.clone()
    changed[odd] = torch.randn(changed[odd].shape, generator=torch.Generator().manual_seed(0))
    before, after = (fit_maps(folded(), [values], odd) for values in (x, changed))
    torch.testing.assert_close(after.weights[1], before.weights[1])  # for odd sequences
    assert not torch.allclose(after.weights[0], before.weights[0], atol=0.1)


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_the_own_code_of_a_single_checkpoint_is_the_code(variant: str) -> None:
    crosscoder, x = folded(variant, 1), related(1)
    errors, statistics = measured(crosscoder, x, folds(600))
    assert not errors.code.any()
    torch.testing.assert_close(errors.explained_variance(statistics), statistics.explained_variance)
    maps = fit_maps(crosscoder, [x], folds(600))
    torch.testing.assert_close(
        reconstruct_from_own(crosscoder, maps, x, folds(600)), crosscoder.decode(crosscoder.encode(x))
    )


def test_checkpoints_of_equal_activations_know_the_whole_code() -> None:
    x = related(1).expand(600, 2, WIDTH)
    errors, statistics = measured(folded(checkpoints=2), x, folds(600))
    r2 = errors.code_r2(statistics)
    assert (statistics.active > 0).any()
    torch.testing.assert_close(
        r2, torch.ones_like(r2).where(~torch.isnan(r2), torch.nan), equal_nan=True, atol=1e-4, rtol=0
    )


def test_a_feature_that_one_checkpoint_has_is_its_own_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 2, WIDTH, generator=generator)
    planted = torch.rand(4000, generator=generator) * (torch.rand(4000, generator=generator) < 0.2)
    x[:, 1, 0] = 5 * planted
    crosscoder = tiny_crosscoder("l1").fold_scale(torch.ones(2))
    crosscoder.encoder_rows[3] = 0
    crosscoder.encoder_rows[3, 1, 0] = 1
    crosscoder.b_enc[3] = 0
    errors, statistics = measured(crosscoder, x, folds(4000))
    early, late = errors.code_r2(statistics)[:, 3].tolist()
    assert abs(early) < 0.05
    assert late == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(statistics.preactivation_share[:, 3].float(), torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("variant", ["l1", "topk", "batchtopk"])
def test_folding_the_normalisation_changes_nothing(variant: str) -> None:
    scale = torch.tensor([0.01, 100.0, 1.0])
    crosscoder = tiny_crosscoder(variant, 3)
    x = related() * torch.tensor(SCALE)[:, None]
    plain = measured(crosscoder, x, folds(600))
    raw = measured(crosscoder.fold_scale(scale), x / scale[:, None], folds(600))
    for measure in (OwnErrors.code_r2, OwnErrors.explained_variance, lambda _, statistics: statistics.preactivation):
        torch.testing.assert_close(measure(*raw), measure(*plain), rtol=1e-3, atol=1e-3, equal_nan=True)


def test_blocks_may_be_of_any_size() -> None:
    crosscoder, x, odd = folded(), related(), folds(600)
    whole, parts = (measured(crosscoder, x, odd, rows)[0] for rows in (600, 7))
    torch.testing.assert_close(parts.code, whole.code, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parts.activation, whole.activation, rtol=1e-4, atol=1e-4)


def test_a_checkpoint_that_never_varies_predicts_the_mean() -> None:
    x, odd = related(2), folds(600)
    x[:, 0] = 3.0
    completed = fit_maps(folded(checkpoints=2), [x], odd).complete(x, 0, odd)
    torch.testing.assert_close(completed[odd, 1], x[~odd, 1].mean(dim=0).expand(300, WIDTH), rtol=1e-3, atol=1e-3)


def test_folds_are_sequences_of_even_and_odd_index(activation_store: Callable[..., Path]) -> None:
    odd = odd_sequences(ActivationStores([activation_store("step0", rows=45)]))
    assert odd.tolist() == [row // 10 % 2 == 1 for row in range(45)]


def test_a_single_sequence_has_nothing_to_fit_on(activation_store: Callable[..., Path]) -> None:
    stores = ActivationStores([activation_store("step0", rows=10)])
    with pytest.raises(
        StoreError, match=r"step0.*: holds 1 sequence\(s\), .*raise the corpus' validation_tokens to two"
    ):
        odd_sequences(stores)


def test_own_codes_of_other_text_come_from_the_mean_of_both_predictions() -> None:
    crosscoder, x, odd = folded(), related(), folds(600)
    maps = fit_maps(crosscoder, [x], odd)
    own_codes = maps.for_other_text(np.ones((3, 24), dtype=bool))
    for m in range(3):
        both = [maps.complete(x, m, torch.full((600,), fold)) for fold in (False, True)]
        expected = crosscoder.encode(torch.stack(both).mean(dim=0))
        torch.testing.assert_close(own_codes.encode(crosscoder, x[:, m], m), expected, rtol=1e-3, atol=1e-3)


def test_own_codes_survive_storing_and_are_those_of_one_crosscoder(tmp_path: Path) -> None:
    crosscoder, x = folded(), related()
    supported = np.arange(72).reshape(3, 24) % 5 > 0
    own_codes = fit_maps(crosscoder, [x], folds(600)).for_other_text(supported)
    write_store(own_codes_dataset(own_codes, crosscoder.config), tmp_path / "own_codes.zarr", crosscoder.facts)
    store = load_store(tmp_path / "own_codes.zarr")
    found = read_own_codes(store, crosscoder)
    torch.testing.assert_close((found.weights, found.offset), (own_codes.weights, own_codes.offset))
    assert np.array_equal(found.supported, supported)
    with pytest.raises(StoreError, match="the own codes given have seed 7, not 0; give those of this crosscoder"):
        read_own_codes(store.assign_attrs(seed=7), crosscoder)
