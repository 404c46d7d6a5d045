"""Features of successive comparisons: planted ones are found again, at the checkpoint between and nowhere else."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from tiny import tiny_config
from warm_python import warm_python

from chronocoder.attribution.successors import match_successors
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import StoreError
from chronocoder.stores import load_store

pytestmark = pytest.mark.filterwarnings("error")

SCRIPT = Path(__file__).parents[2] / "scripts/match_successors.py"
FEATURES, WIDTH = 24, 32


def crosscoder_of(rows: np.ndarray, comparison: str, checkpoints: tuple[str, ...]) -> Crosscoder:
    """Return a crosscoder with these decoder rows, shape (feature, checkpoint, d_model)."""
    config = replace(
        tiny_config("l1", dictionary_size=len(rows)),
        comparison=comparison,
        checkpoints=checkpoints,
        commits=tuple(f"commit of {name}" for name in checkpoints),
        d_model=rows.shape[2],
    )
    crosscoder = Crosscoder(config, torch.Generator().manual_seed(0)).requires_grad_(False)
    crosscoder.decoder_rows.copy_(torch.from_numpy(rows))
    return crosscoder


@pytest.fixture
def planted() -> tuple[Crosscoder, Crosscoder, np.ndarray]:
    """Two crosscoders that have the same rows at step1, in another order and of other norms, and nothing else alike."""
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(FEATURES, 3, WIDTH)).astype(np.float32)
    order = generator.permutation(FEATURES)
    norms = generator.uniform(0.5, 2, size=(FEATURES, 1, 1)).astype(np.float32)
    earlier = crosscoder_of(rows[:, :2], "early", ("step0", "step1"))
    later = crosscoder_of((norms * rows[:, 1:])[order], "late", ("step1", "step2"))
    return earlier, later, order


def test_planted_features_are_found_again(planted: tuple[Crosscoder, Crosscoder, np.ndarray]) -> None:
    earlier, later, order = planted
    found = match_successors(earlier, [later])
    assert found["matched_feature"].dims == ("successor", "feature")
    assert found["successor"].values.tolist() == ["late"]
    assert found["matched_feature"].values[0].tolist() == np.argsort(order).tolist()
    np.testing.assert_allclose(found["cosine"], 1, atol=1e-6)


def test_random_directions_are_as_near_as_brute_force_says(planted: tuple[Crosscoder, Crosscoder, np.ndarray]) -> None:
    earlier, later, _ = planted
    found = match_successors(earlier, [later])["random_cosine"].values[0]
    assert found.shape == (FEATURES,) and (found < 0.95).all()
    generator = np.random.default_rng([earlier.config.seed, 4])
    mixes = generator.standard_normal((1, FEATURES, FEATURES), dtype=np.float32)[0] @ earlier.decoder_rows[:, 1].numpy()
    rows = later.decoder_rows[:, 0].numpy()
    for mix, cosine in zip(mixes, found, strict=True):
        best = max(float(mix @ row / np.linalg.norm(mix) / np.linalg.norm(row)) for row in rows)
        assert cosine == pytest.approx(best, abs=1e-5)


def test_each_successor_is_matched_alone(planted: tuple[Crosscoder, Crosscoder, np.ndarray]) -> None:
    earlier, later, _ = planted
    small = crosscoder_of(later.decoder_rows[:8].numpy(), "small", ("step1", "step2"))
    both = match_successors(earlier, [later, small])
    for name, successor in (("late", later), ("small", small)):
        xr.testing.assert_equal(both.sel(successor=[name]), match_successors(earlier, [successor]))
    assert (both["matched_feature"].sel(successor="small") >= 0).sum() == 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"checkpoints": ("step0", "step1")}, "'checkpoint between' is step0, where early needs step1"),
        ({"commits": ("other", "other")}, "'commit of the checkpoint between' is other, where early needs commit of"),
        ({"seed": 5}, "'seed' is 5, where early needs 0"),
        ({"site": "residual.7"}, "'site' is residual.7"),
    ],
)
def test_what_does_not_follow_is_refused(
    planted: tuple[Crosscoder, Crosscoder, np.ndarray], changes: dict[str, object], said: str
) -> None:
    earlier, later, _ = planted
    later.config = replace(later.config, **changes)
    with pytest.raises(StoreError, match=f"crosscoder of late: {said}"):
        match_successors(earlier, [later])


def test_script_writes_the_matches(planted: tuple[Crosscoder, Crosscoder, np.ndarray], tmp_path: Path) -> None:
    earlier, later, _ = planted
    earlier, later = (crosscoder.fold_scale(torch.tensor([0.8, 1.3])) for crosscoder in (earlier, later))
    for crosscoder in (earlier, later):
        crosscoder.save(tmp_path / crosscoder.config.comparison)
    flags = ["--crosscoder", tmp_path / "early", "--successors", tmp_path / "late", "--output", tmp_path / "out.zarr"]
    subprocess.run([warm_python(), SCRIPT, *flags], check=True)
    store = load_store(tmp_path / "out.zarr")
    assert (store.attrs["comparison"], store.attrs["seed"]) == ("early", earlier.config.seed)
    xr.testing.assert_equal(store.drop_attrs(), match_successors(earlier, [later]).drop_attrs())
