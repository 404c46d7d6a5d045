"""A scan agrees with the scores and similarities in full, on the pairs and tokens that it reads."""

import numpy as np
import pytest
import torch
import xarray as xr
from tiny import tiny_model

from chronocoder.behaviour.choice import curves_of, tasks_of_scan
from chronocoder.behaviour.scan import collect_scans, drawn_examples, scan_checkpoint
from chronocoder.behaviour.scores import score_tasks
from chronocoder.behaviour.similarity import debiased_cka, kernel_entries, linear_cka
from chronocoder.config import ScanSettings
from chronocoder.errors import StoreError
from chronocoder.plan.sizes import KERNEL_TOKENS

SEEN = {"step0": 0, "step4": 100, "step8": 200}


def unbiased_hsic(a: np.ndarray, b: np.ndarray) -> float:
    """Return the estimator of Song et al. 2012, equation 4, of linear kernels."""
    K, L = a @ a.T, b @ b.T
    np.fill_diagonal(K, 0)
    np.fill_diagonal(L, 0)
    n, ones = len(K), np.ones(len(K))
    total = (ones @ K @ ones) * (ones @ L @ ones) / ((n - 1) * (n - 2))
    return float((np.trace(K @ L) + total - 2 / (n - 2) * ones @ K @ L @ ones) / (n * (n - 3)))


@pytest.mark.parametrize(("tokens", "block"), [(40, 64), (40, 20), (43, 10)])
def test_similarity_is_made_of_unbiased_estimates_in_blocks(tokens: int, block: int) -> None:
    generator = np.random.default_rng(0)
    given = [generator.normal(size=(tokens, width)) for width in (5, 5, 9)]
    given[1] += given[0]
    found = debiased_cka(np.stack([kernel_entries(values, block) for values in given]))
    blocks = max(1, tokens // block)
    used = blocks * (tokens // blocks)
    for row, a in enumerate(given):
        for column, b in enumerate(given):
            parts = [(a[:used][first::blocks], b[:used][first::blocks]) for first in range(blocks)]
            cross, own, other = (
                sum(unbiased_hsic(*pair) for pair in pairs)
                for pairs in (parts, [(x, x) for x, _ in parts], [(y, y) for _, y in parts])
            )
            assert found[row, column] == pytest.approx(cross / np.sqrt(own * other), abs=1e-5)


def test_similarity_of_unrelated_activations_does_not_grow_as_tokens_get_few() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 64, 256))
    assert linear_cka(a, b) > 0.7
    assert abs(debiased_cka(np.stack([kernel_entries(a), kernel_entries(b)]))[0, 1]) < 0.1
    turned = a @ np.linalg.qr(generator.normal(size=(256, 256)))[0] * 3 + 1
    stored = np.stack([kernel_entries(a), kernel_entries(turned)]).astype(np.float16)
    assert debiased_cka(stored)[0, 1] == pytest.approx(1, abs=1e-2)


def test_draw_is_of_all_conditions_and_the_same_every_time(task: xr.Dataset) -> None:
    task["condition"] = ("example", np.array(["a", "a", "a", "a", "b", "b"]))
    drawn = drawn_examples(task, ScanSettings(limit=4))
    assert len(set(drawn.tolist())) == 4 and (drawn[:-1] < drawn[1:]).all() and {4, 5} <= set(drawn.tolist())
    np.testing.assert_array_equal(drawn, drawn_examples(task, ScanSettings(limit=4)))
    assert drawn_examples(task, ScanSettings(limit=100)).tolist() == list(range(6))
    others = [drawn_examples(task, ScanSettings(limit=3, seed=seed)).tolist() for seed in range(8)]
    assert len(set(map(tuple, others))) > 1


@pytest.fixture
def scanned(task: xr.Dataset) -> tuple[xr.Dataset, list[xr.Dataset], list[tuple[str, torch.nn.Module]]]:
    tasks = [task.assign_attrs(task="all"), task.isel(example=[4, 1]).assign_attrs(task="two")]
    models = [(name, tiny_model("gpt2", seed)) for seed, name in enumerate(SEEN)]
    token_ids = np.random.default_rng(0).integers(0, 300, size=(40, 9))
    settings = ScanSettings(limit=4, tokens=200)
    scans = {
        name: scan_checkpoint(model, tasks, token_ids, ["residual.0", "residual.2"], settings) for name, model in models
    }
    return collect_scans(scans, SEEN, tasks), tasks, models


def test_scores_are_those_of_the_pairs_that_are_drawn(
    scanned: tuple[xr.Dataset, list[xr.Dataset], list[tuple[str, torch.nn.Module]]],
) -> None:
    scan, tasks, models = scanned
    places = [drawn_examples(task, ScanSettings(limit=4)) for task in tasks]
    drawn = [task.isel(example=of_task) for task, of_task in zip(tasks, places, strict=True)]
    for name, scores, found in zip(("all", "two"), score_tasks(models, SEEN, drawn), tasks_of_scan(scan), strict=True):
        np.testing.assert_allclose(found["difference"], scores["difference"], rtol=1e-5)
        assert found.attrs["task"] == name and list(found["condition"].values) == list(scores["condition"].values)
        for variable in ("accuracy", "accuracy_low", "accuracy_high", "mean_difference"):
            np.testing.assert_allclose(scan[variable].sel(task=name), scores[variable], rtol=1e-5)
    assert scan["n"].sel(task="two").values.tolist() == [2, 2, 2]
    curves = curves_of(tasks_of_scan(scan), scan, "residual.2")
    assert {name: right.shape for name, right in curves.right.items()} == {"all": (4, 3), "two": (2, 3)}
    assert curves.tokens_seen == SEEN
    np.testing.assert_allclose(np.diag(curves.similarity), 1, atol=1e-5)
    for variable in scan.data_vars.values():
        assert variable.attrs["long_name"] and variable.attrs["units"]


def test_scans_of_other_pairs_are_refused(task: xr.Dataset) -> None:
    token_ids = np.random.default_rng(0).integers(0, 300, size=(10, 9))
    named = task.assign_attrs(task="all")
    scans = {
        name: scan_checkpoint(
            tiny_model("gpt2"), [named], token_ids, ["residual.0"], ScanSettings(limit=limit, tokens=40)
        )
        for name, limit in (("step0", 2), ("step4", 3))
    }
    with pytest.raises(StoreError, match="read different pairs of a task; delete them and run the target again"):
        collect_scans(scans, SEEN, [named])


def test_what_is_kept_of_the_activations_is_small() -> None:
    entries = kernel_entries(np.random.default_rng(0).normal(size=(8192, 4)))
    assert len(entries) == 32 * KERNEL_TOKENS * (KERNEL_TOKENS - 1) // 2 and np.mean(entries**2) == pytest.approx(1)
    assert abs(entries).max() < np.finfo(np.float16).max
