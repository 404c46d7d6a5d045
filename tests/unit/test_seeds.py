"""Matching against permuted copies and brute force, and stability against what scipy makes of each case alone."""

import itertools
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import pearsonr, spearmanr
from tiny import tiny_config, tiny_crosscoder
from warm_python import warm_python

from chronocoder.attribution.seeds import (
    COSINES_AT_LEAST,
    compare_seeds,
    decoder_rows,
    match_features,
    match_seeds,
    read_run,
    seed_stability,
)
from chronocoder.config import AttributionSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import ConfigError, StoreError
from chronocoder.stores import labelled, load_store, provenance, strings, write_store

pytestmark = pytest.mark.filterwarnings("error")

FEATURES = 24
TASKS = ("agreement", "reflexive")
DECIDED = ["emerged", "maintained", "discontinued"]
SCRIPT = Path(__file__).parents[2] / "scripts/match_seeds.py"


def permuted(crosscoder: Crosscoder, order: np.ndarray, seed: int = 1, noise: float = 0.0) -> Crosscoder:
    """Return a copy whose feature number n is the crosscoder's feature order[n], with noise on its decoder rows."""
    copy = Crosscoder(replace(crosscoder.config, seed=seed)).requires_grad_(False)
    copy.load_state_dict(crosscoder.state_dict())
    rows = crosscoder.decoder_rows[torch.from_numpy(order)]
    random = torch.randn(rows.shape, generator=torch.Generator().manual_seed(seed))
    copy.decoder_rows.copy_(rows + noise * rows.norm(dim=-1, keepdim=True) * random / random.norm(dim=-1, keepdim=True))
    return copy


def random_effects(
    crosscoder: Crosscoder, draw: int = 0, tasks: tuple[str, ...] = TASKS, features: int = FEATURES
) -> xr.Dataset:
    """Return effects as they are collected, of features that are all active, measurable and of decided class."""
    generator = np.random.default_rng(draw)
    size = (len(tasks), 2, features)
    effect = generator.normal(size=size).astype(np.float32)
    share = abs(effect) / abs(effect).sum(axis=1, keepdims=True)
    every, feature = ("task", "checkpoint", "feature"), ("task", "feature")
    variables = {
        "indirect_effect": labelled(every, effect, "effect", "logit"),
        "relative_indirect_effect": labelled(every, share, "share"),
        "measurable": labelled(every, np.ones(size, dtype=bool), "flag"),
        "activation_frequency": labelled(feature, np.ones(size[::2]), "frequency"),
        "feature_class": labelled(feature, strings(generator.choice(DECIDED, size=size[::2])), "class"),
    }
    coordinates = {
        "task": strings(tasks),
        "checkpoint": strings(crosscoder.config.checkpoints),
        "tokens_seen": ("checkpoint", [0, 10]),
        "feature": np.arange(features),
    }
    facts = {key: value for key, value in crosscoder.facts.items() if key != "first_token"}
    return xr.Dataset(variables, coordinates).assign_attrs(provenance(AttributionSettings(), **facts))


def reordered(relie: xr.Dataset, order: np.ndarray) -> xr.Dataset:
    """Return the effects of `permuted`."""
    return relie.isel(feature=order).assign_coords(feature=np.arange(len(order))).assign_attrs(seed=1)


def all_rows(crosscoder: Crosscoder) -> xr.DataArray:
    return decoder_rows(crosscoder, np.arange(len(crosscoder.b_enc)))


def rows_of(values: np.ndarray, features: np.ndarray | None = None) -> xr.DataArray:
    """Return vectors, shape (feature, d_model), as decoder rows of one checkpoint."""
    numbers = np.arange(len(values)) if features is None else features
    return xr.DataArray(values[:, None], dims=("feature", "checkpoint", "d_model"), coords={"feature": numbers})


def identity_matches(cosines: np.ndarray) -> xr.Dataset:
    """Return matches of every feature with its own number."""
    values = {
        "matched_feature": (("seed", "feature"), np.arange(len(cosines))[None]),
        "cosine": (("seed", "feature"), cosines[None]),
    }
    return xr.Dataset(values, coords={"seed": [1], "feature": np.arange(len(cosines))})


def stability(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    """Return the stability over all features, each matched with its own number."""
    matches = identity_matches(np.ones(first.sizes["feature"]))
    return seed_stability({0: first, 1: second}, matches).sel(seed=1, cosine_at_least=0.0)


@pytest.mark.parametrize(("noise", "lowest"), [(0.0, 1 - 1e-6), (0.3, 0.9)])
def test_permuted_and_noised_copy_is_matched_back(noise: float, lowest: float) -> None:
    crosscoder, order = tiny_crosscoder(), np.random.default_rng(0).permutation(FEATURES)
    match = match_features(all_rows(crosscoder), all_rows(permuted(crosscoder, order, noise=noise)))
    np.testing.assert_array_equal(match["matched_feature"], np.argsort(order))
    assert (match["cosine"] > lowest).all()


def test_neither_the_scale_of_a_row_nor_folding_changes_a_match() -> None:
    crosscoder, order = tiny_crosscoder(), np.random.default_rng(0).permutation(FEATURES)
    other = permuted(crosscoder, order, noise=0.3)
    match = match_features(all_rows(crosscoder), all_rows(other))
    other.decoder_rows.mul_(torch.rand(FEATURES, 1, 1) * 100 + 0.01)
    folded = other.fold_scale(torch.tensor([0.001, 700.0]))
    xr.testing.assert_allclose(match_features(all_rows(crosscoder), all_rows(folded)), match)
    unweighted = folded.decoder_rows.numpy()
    assert not np.allclose(unweighted, decoder_rows(folded, np.arange(FEATURES)))


def test_opposite_rows_are_no_match() -> None:
    crosscoder = tiny_crosscoder()
    opposite = all_rows(crosscoder) * -1
    match = match_features(all_rows(crosscoder), opposite)
    assert (match["matched_feature"] != match["feature"]).all() and (match["cosine"] < 0.7).all()
    np.testing.assert_allclose(match_features(opposite, opposite)["cosine"], 1, rtol=1e-6)


def test_unrelated_features_are_far_apart() -> None:
    generator = np.random.default_rng(0)
    one, other = (rows_of(generator.normal(size=(40, 512))) for _ in range(2))
    assert match_features(one, other)["cosine"].max() < 0.25


@pytest.mark.parametrize(("own", "others"), [(5, 5), (4, 6), (6, 4), (1, 3)])
def test_total_cosine_is_the_largest_of_all_assignments(own: int, others: int) -> None:
    generator = np.random.default_rng(own)
    one, other = (generator.normal(size=(count, 4)) for count in (own, others))
    units = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (one, other)]
    cosines = units[0] @ units[1].T
    small = cosines if own <= others else cosines.T
    totals = [
        small[np.arange(len(small)), order].sum()
        for order in itertools.permutations(range(max(own, others)), len(small))
    ]
    numbers = np.arange(others) * 10 + 3
    match = match_features(rows_of(one), rows_of(other, numbers))
    found = match["matched_feature"].values
    assert float(match["cosine"].sum()) == pytest.approx(max(totals), rel=1e-5)
    matched = found >= 0
    assert matched.sum() == min(own, others) == len(set(found[matched])) and set(found[matched]) <= set(numbers)
    columns = (found[matched] - 3) // 10
    np.testing.assert_allclose(match["cosine"].values[matched], cosines[np.flatnonzero(matched), columns], rtol=1e-5)
    assert np.isnan(match["cosine"].values[~matched]).all()


def test_rows_of_zeros_have_no_direction() -> None:
    values = np.eye(3, 4)
    values[1] = 0
    match = match_features(rows_of(values), rows_of(values))
    np.testing.assert_array_equal(match["cosine"], [1, 0, 1])


def test_only_used_features_are_matched() -> None:
    crosscoder, order = tiny_crosscoder(), np.random.default_rng(0).permutation(FEATURES)
    other = permuted(crosscoder, order)
    relie = random_effects(crosscoder)
    relie["activation_frequency"][:, 20:] = 0
    relie["activation_frequency"][0, :5] = 0  # still active on the other task
    second = reordered(random_effects(crosscoder), order)
    unused = [3, 4, 21]
    second["activation_frequency"][:, np.argsort(order)[unused]] = 0
    compared = compare_seeds([read_run(crosscoder, relie), read_run(other, second)]).sel(seed=1)
    matched = compared["matched_feature"].values
    used = np.setdiff1d(np.arange(20), unused)
    np.testing.assert_array_equal(matched[used], np.argsort(order)[used])
    assert (matched[20:] == -1).all() and np.isnan(compared["cosine"].values[20:]).all()
    assert not set(matched) & set(np.argsort(order)[unused])
    # 20 features against 21: the two without their own partner take what is left
    assert (matched[:20] >= 0).all() and (compared["cosine"].values[[3, 4]] < 0.9).all()
    assert int(compared["features_matched"].sel(cosine_at_least=0.9)) == len(used)


def test_more_seeds_and_more_features_than_partners() -> None:
    crosscoder = tiny_crosscoder()
    rows = all_rows(crosscoder)
    matches = match_seeds({7: rows[2:12], 3: rows[:6], 5: rows[11:]}, FEATURES)
    assert matches["seed"].values.tolist() == [3, 5] and matches["cosine"].dims == ("seed", "feature")
    assert matches["matched_feature"].dtype.kind == "i"
    found = matches["matched_feature"].sel(seed=3).values
    assert found[2:6].tolist() == [2, 3, 4, 5] and (found[2:12] >= 0).sum() == 6 and (found[12:] == -1).all()
    assert (matches["matched_feature"].sel(seed=5).values[2:12] >= 11).all()


def test_permuted_copy_is_wholly_stable() -> None:
    crosscoder, order = tiny_crosscoder(), np.random.default_rng(0).permutation(FEATURES)
    relie = random_effects(crosscoder)
    runs = [read_run(crosscoder, relie), read_run(permuted(crosscoder, order, noise=0.2), reordered(relie, order))]
    compared = compare_seeds(runs)
    by_checkpoint = ("seed", "cosine_at_least", "task", "checkpoint")
    for name in ("indirect_effect_spearman", "indirect_effect_pearson", "class_agreement", "class_kappa"):
        np.testing.assert_allclose(compared[name], 1, rtol=1e-6, err_msg=name)
        assert compared[name].dims == (by_checkpoint if "effect" in name else by_checkpoint[:3])
    assert (compared["relative_indirect_effect_difference"] == 0).all()
    for name in ("features_matched", "features_active", "features_measurable", "classes_compared"):
        assert (compared[name] == FEATURES).all(), name
    assert compared["features_matched"].dims == ("seed", "cosine_at_least")
    assert compared["tokens_seen"].values.tolist() == [0, 10]


def test_unrelated_effects_are_not_stable() -> None:
    crosscoder = tiny_crosscoder()
    compared = stability(*(random_effects(crosscoder, draw, features=4000) for draw in (0, 1)))
    for name in ("indirect_effect_spearman", "indirect_effect_pearson", "class_kappa"):
        assert (abs(compared[name]) < 0.06).all(), name
    np.testing.assert_allclose(compared["class_agreement"], 1 / 3, atol=0.04)
    assert (compared["relative_indirect_effect_difference"] > 0.2).all()


def test_stability_is_what_each_task_and_checkpoint_gives_alone() -> None:
    crosscoder, generator = tiny_crosscoder(), np.random.default_rng(5)
    first, second = (random_effects(crosscoder, draw) for draw in (0, 1))
    second["indirect_effect"] += 2 * first["indirect_effect"]
    for relie in (first, second):
        relie["activation_frequency"][:] = generator.random((2, FEATURES)) > 0.4
        relie["indirect_effect"] = relie["indirect_effect"].where(relie["activation_frequency"] > 0, 0)
        relie["measurable"][:] = generator.random((2, 2, FEATURES)) > 0.5
        undecided = generator.random((2, FEATURES)) > 0.7
        relie["feature_class"].values[undecided] = generator.choice(["no effect", "uncertain"], undecided.sum())
    compared = stability(first, second)
    for task, checkpoint in itertools.product(TASKS, crosscoder.config.checkpoints):
        one, other, found = (dataset.sel(task=task) for dataset in (first, second, compared))
        active = ((one["activation_frequency"] > 0) | (other["activation_frequency"] > 0)).values
        assert 5 < active.sum() < FEATURES and int(found["features_active"]) == active.sum()
        effects = [dataset["indirect_effect"].sel(checkpoint=checkpoint).values[active] for dataset in (one, other)]
        at = found.sel(checkpoint=checkpoint)
        assert float(at["indirect_effect_spearman"]) == pytest.approx(spearmanr(*effects).statistic, rel=1e-6)
        assert float(at["indirect_effect_pearson"]) == pytest.approx(pearsonr(*effects).statistic, rel=1e-5)
        measurable = (one["measurable"].any("checkpoint") & other["measurable"].any("checkpoint")).values
        shares = [dataset["relative_indirect_effect"].sel(checkpoint=checkpoint).values for dataset in (one, other)]
        change = np.abs(shares[0] - shares[1])[measurable]
        assert int(at["features_measurable"]) == len(change) < FEATURES
        assert float(at["relative_indirect_effect_difference"]) == pytest.approx(change.mean(), rel=1e-5)


def test_class_agreement_and_kappa_of_a_known_table() -> None:
    """Of 10 features both seeds decide 8, of which 6 agree; shares 4/8 and 4/8 against 4/8 and 4/8: chance is 1/2."""
    crosscoder = tiny_crosscoder()
    first, second = (random_effects(crosscoder, features=10) for _ in range(2))
    first["feature_class"][:] = strings(["emerged"] * 4 + ["maintained"] * 4 + ["uncertain", "emerged"])
    second["feature_class"][:] = strings(["emerged"] * 3 + ["maintained"] * 4 + ["emerged", "uncertain", "no effect"])
    compared = stability(first, second)
    assert (compared["classes_compared"] == 8).all() and (compared["class_agreement"] == 0.75).all()
    np.testing.assert_allclose(compared["class_kappa"], (0.75 - 0.5) / (1 - 0.5))


def test_what_is_undefined_is_nan() -> None:
    crosscoder = tiny_crosscoder()
    first, second = (random_effects(crosscoder, draw) for draw in (0, 1))
    first["indirect_effect"].loc[{"checkpoint": "step0"}] = 0.1  # as float32 no sum of it is exact
    for relie in (first, second):
        relie["activation_frequency"].loc[{"task": "reflexive"}] = np.arange(FEATURES) < 2
        relie["measurable"].loc[{"task": "reflexive"}] = False
        relie["feature_class"].loc[{"task": "reflexive"}] = "uncertain"
        relie["feature_class"].loc[{"task": "agreement"}] = "emerged"
    compared = stability(first, second)
    correlations = compared[["indirect_effect_spearman", "indirect_effect_pearson"]]
    assert correlations.sel(checkpoint="step0").isnull().all().to_array().all()
    assert correlations.sel(task="reflexive").isnull().all().to_array().all()
    assert correlations.sel(task="agreement", checkpoint="step1").notnull().to_array().all()
    assert compared["relative_indirect_effect_difference"].sel(task="reflexive").isnull().all()
    assert np.isnan(compared["class_agreement"].sel(task="reflexive"))
    assert float(compared["class_agreement"].sel(task="agreement")) == 1  # but chance alone gives as much
    assert compared["class_kappa"].isnull().all()


def test_stability_over_features_of_at_least_some_cosine() -> None:
    crosscoder = tiny_crosscoder()
    cosines = np.repeat([-0.2, 0.3, 0.6, 0.8], 6).astype(np.float32)
    first, second = (random_effects(crosscoder, draw) for draw in (0, 1))
    second["indirect_effect"].loc[{"feature": cosines > 0.7}] = first["indirect_effect"].sel(feature=cosines > 0.7)
    compared = seed_stability({0: first, 1: second}, identity_matches(cosines)).sel(seed=1)
    assert tuple(compared["cosine_at_least"].values) == COSINES_AT_LEAST == (0.0, 0.5, 0.7, 0.9)
    assert compared["features_matched"].values.tolist() == [18, 12, 6, 0]
    assert compared["classes_compared"].sel(task="agreement").values.tolist() == [18, 12, 6, 0]
    correlation = compared["indirect_effect_spearman"].sel(task="agreement", checkpoint="step0")
    assert correlation[0] < correlation[2] and float(correlation[2]) == pytest.approx(1) and np.isnan(correlation[3])
    kept = {0: first.isel(feature=cosines > 0.5), 1: second.isel(feature=cosines > 0.5)}
    alone = seed_stability(kept, identity_matches(cosines).isel(feature=cosines > 0.5)).sel(seed=1)
    xr.testing.assert_allclose(alone.sel(cosine_at_least=0.0, drop=True), compared.sel(cosine_at_least=0.5, drop=True))


def test_crosscoders_without_any_used_feature() -> None:
    crosscoder = tiny_crosscoder()
    relie = random_effects(crosscoder)
    relie["activation_frequency"][:] = 0
    second = relie.assign_attrs(seed=1)
    runs = [read_run(crosscoder, relie), read_run(permuted(crosscoder, np.arange(FEATURES)), second)]
    compared = compare_seeds(runs)
    assert (compared["matched_feature"] == -1).all() and (compared["features_matched"] == 0).all()
    assert compared["indirect_effect_spearman"].isnull().all() and compared["class_kappa"].isnull().all()


@pytest.mark.parametrize("seeds", [[0], [0, 0], [0, 1, 1]])
def test_fewer_than_two_seeds_are_refused(seeds: list[int]) -> None:
    crosscoder = tiny_crosscoder()
    copies = [permuted(crosscoder, np.arange(FEATURES), seed) for seed in seeds]
    runs = [read_run(copy, random_effects(copy)) for copy in copies]
    found = ", ".join(str(seed) for seed in seeds)
    with pytest.raises(ConfigError, match=f"seeds: found {found}; two or more different ones are needed, add them to"):
        compare_seeds(runs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"comparison": "late"}, "'comparison': pair and late"),
        ({"site": "residual.2"}, "'site': residual.1 and residual.2"),
        ({"d_model": 8}, "'d_model': 16 and 8"),
        ({"checkpoints": ("step0", "step9")}, r"'checkpoints': \('step0', 'step1'\) and \('step0', 'step9'\)"),
        ({"settings": tiny_config("l1", dictionary_size=48).settings}, "'dictionary_size': 24 and 48"),
        ({"settings": tiny_config("topk").settings}, "'sparsity': l1 and topk"),
    ],
)
def test_crosscoders_that_differ_in_more_than_the_seed_are_refused(change: dict[str, object], message: str) -> None:
    crosscoder = tiny_crosscoder()
    other = Crosscoder(replace(crosscoder.config, seed=1, **change), torch.Generator().manual_seed(0))
    features = other.config.settings.dictionary_size
    runs = [read_run(crosscoder, random_effects(crosscoder)), read_run(other, random_effects(other, features=features))]
    with pytest.raises(StoreError, match=f"seeds 0 and 1 differ in {message}; give crosscoders that differ in nothing"):
        compare_seeds(runs)


def test_effects_of_another_crosscoder_are_refused() -> None:
    crosscoder = tiny_crosscoder()
    relie = random_effects(crosscoder)
    for changed, message in (
        (relie.assign_attrs(seed=1), "'seed' is 0 in the crosscoder and 1 in the effects"),
        (relie.assign_attrs(comparison="late"), "'comparison' is pair in the crosscoder and late in the effects"),
        (relie.isel(feature=slice(20)), "'features' is 24 in the crosscoder and 20 in the effects"),
        (relie.isel(checkpoint=[1, 0]), "'checkpoints' is .'step0', 'step1'. in the crosscoder and .'step1', 'step0'."),
    ):
        with pytest.raises(StoreError, match=f"seed 0 are not its own: {message}.*give the relie.zarr beside each"):
            read_run(crosscoder, changed)


def test_effects_on_different_tasks_are_refused() -> None:
    crosscoder = tiny_crosscoder()
    first, second = random_effects(crosscoder), random_effects(crosscoder, tasks=("agreement", "other"))
    message = (
        "effects of seeds 0 and 1 are on the tasks agreement, reflexive and agreement, other; collect the same tasks"
    )
    with pytest.raises(StoreError, match=message):
        stability(first, second)


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([warm_python(), SCRIPT, *map(str, arguments)], capture_output=True, text=True)


def test_script_writes_a_store_that_says_which_seeds(tmp_path: Path) -> None:
    crosscoder, order = tiny_crosscoder(), np.random.default_rng(0).permutation(FEATURES)
    relie = random_effects(crosscoder)
    for seed, copy, effects in ((0, crosscoder, relie), (1, permuted(crosscoder, order), reordered(relie, order))):
        copy.fold_scale(torch.tensor([0.8, 1.3])).save(tmp_path / f"seed{seed}/crosscoder")
        write_store(effects, tmp_path / f"seed{seed}/relie.zarr", effects.attrs)
    crosscoders, relies = (
        [tmp_path / f"seed{seed}" / name for seed in (0, 1)] for name in ("crosscoder", "relie.zarr")
    )
    output = tmp_path / "seeds.zarr"
    result = run_script("--crosscoders", *crosscoders, "--relies", *relies, "--output", output)
    assert result.returncode == 0, result.stderr
    store = load_store(output)
    np.testing.assert_array_equal(store["matched_feature"].sel(seed=1), np.argsort(order))
    np.testing.assert_allclose(store["indirect_effect_spearman"], 1)
    assert store.attrs["seeds"] == [0, 1] and store.attrs["reference_seed"] == 0 and "seed" not in store.attrs
    assert store.attrs["comparison"] == "pair" and store.attrs["config_digest"] == relie.attrs["config_digest"]
    result = run_script("--crosscoders", *crosscoders, "--relies", *relies[::-1], "--output", output)
    assert result.returncode == 1 and "'seed' is 0 in the crosscoder and 1 in the effects" in result.stderr
    result = run_script("--crosscoders", *crosscoders, "--relies", relies[0], "--output", output)
    assert result.returncode == 1 and "--crosscoders and --relies list 2 and 1 values" in result.stderr
    assert "Traceback" not in result.stderr
