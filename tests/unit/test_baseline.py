"""Joint dictionaries beside those of single checkpoints: planted ones, and brute force on random ones."""

import itertools
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import spearmanr
from tiny import tiny_config
from warm_python import warm_python

from chronocoder.attribution.baseline import BASELINE, JOINT, MEASURES, RELDEC, compare_baseline
from chronocoder.config import AttributionSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import StoreError
from chronocoder.stores import labelled, load_store, provenance, strings, write_store

pytestmark = pytest.mark.filterwarnings("error")

TASKS = ("agreement", "reflexive")
SCRIPT = Path(__file__).parents[2] / "scripts/compare_baseline.py"


@dataclass
class Given:
    """What `compare_baseline` takes, in its order."""

    joint: Crosscoder
    relie: xr.Dataset
    ablations: Mapping[str, xr.Dataset]
    singles: Sequence[Crosscoder]
    single_relies: Sequence[xr.Dataset]

    def compare(self) -> xr.Dataset:
        return compare_baseline(**vars(self))


def crosscoder_of(rows: np.ndarray, comparison: str, checkpoints: Sequence[str]) -> Crosscoder:
    """Return a crosscoder with these decoder rows, shape (feature, checkpoint, d_model)."""
    config = replace(
        tiny_config("l1", dictionary_size=len(rows)),
        comparison=comparison,
        checkpoints=tuple(checkpoints),
        commits=tuple(f"commit of {name}" for name in checkpoints),
        d_model=rows.shape[2],
    )
    crosscoder = Crosscoder(config, torch.Generator().manual_seed(0)).requires_grad_(False)
    crosscoder.decoder_rows.copy_(torch.from_numpy(rows))
    return crosscoder


def share_of(values: np.ndarray) -> np.ndarray:
    """Return shares over checkpoints, dims (task, checkpoint, feature)."""
    with np.errstate(invalid="ignore"):
        return abs(values) / abs(values).sum(axis=1, keepdims=True)


def effects_of(crosscoder: Crosscoder, effects: np.ndarray) -> xr.Dataset:
    """Return effects as they are collected, of shape (task, checkpoint, feature)."""
    every = ("task", "checkpoint", "feature")
    norms = crosscoder.decoder_norms.numpy()
    variables = {
        "indirect_effect": labelled(every, effects, "effect", "logit"),
        "relative_indirect_effect": labelled(every, share_of(effects), "share"),
        "relative_decoder_norm": labelled(every[1:], norms / norms.sum(axis=0), "share of norm"),
    }
    checkpoints = crosscoder.config.checkpoints
    coordinates = {
        "task": strings(TASKS),
        "checkpoint": strings(checkpoints),
        "tokens_seen": ("checkpoint", np.arange(len(checkpoints)) * 10),
        "feature": np.arange(effects.shape[2]),
    }
    facts = {key: value for key, value in crosscoder.facts.items() if key != "first_token"}
    return xr.Dataset(variables, coordinates).assign_attrs(provenance(AttributionSettings(), **facts))


def ablation_of(relie: xr.Dataset, task: str, exact: np.ndarray, features: np.ndarray) -> xr.Dataset:
    """Return exact effects of some features, of shape (checkpoint, feature), beside an estimate that is all zero."""
    values = np.stack([np.zeros_like(exact), exact])[..., features]
    dims = ("estimator", "checkpoint", "feature")
    coordinates = {
        "estimator": strings(["attribution_patching", "exact"]),
        "checkpoint": relie["checkpoint"].values,
        "feature": features,
        "tokens_seen": ("checkpoint", relie["tokens_seen"].values),
    }
    dataset = xr.Dataset({"indirect_effect": labelled(dims, values, "effect", "logit")}, coordinates)
    return dataset.assign_attrs({**relie.attrs, "task": task})


def given(
    rows: np.ndarray,
    single_rows: Sequence[np.ndarray],
    effects: np.ndarray,
    single_effects: Sequence[np.ndarray],
    exact: np.ndarray,
    ablated: np.ndarray,
) -> Given:
    """Return a comparison of dictionaries with these decoder rows and effects."""
    names = [f"step{number}" for number in range(rows.shape[1])]
    joint = crosscoder_of(rows, "pair", names)
    singles = [
        crosscoder_of(own[:, None], f"only_{name}", [name]) for own, name in zip(single_rows, names, strict=True)
    ]
    relie = effects_of(joint, effects)
    ablations = {task: ablation_of(relie, task, exact[number], ablated) for number, task in enumerate(TASKS)}
    of_singles = [effects_of(one, own[:, None]) for one, own in zip(singles, single_effects, strict=True)]
    return Given(joint, relie, ablations, singles, of_singles)


def planted(checkpoints: int = 2, features: int = 24, seed: int = 0) -> tuple[Given, list[np.ndarray]]:
    """Return single dictionaries that hold the joint one's rows in other orders, and what feature n is called there."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(features, checkpoints, 16)).astype(np.float32)
    rows[:, 1:] = rows[:, :1] + 0.5 * rows[:, 1:]  # a feature turns a little from one checkpoint to the next
    rows *= generator.uniform(0.5, 2, size=(features, 1, 1))
    effects = generator.normal(size=(2, checkpoints, features)).astype(np.float32)
    orders = [generator.permutation(features) for _ in range(checkpoints)]
    single_rows = [rows[order, number] for number, order in enumerate(orders)]
    single_effects = [effects[:, number, order] for number, order in enumerate(orders)]
    everything = given(rows, single_rows, effects, single_effects, effects, np.arange(features))
    return everything, [np.argsort(order) for order in orders]


@pytest.mark.parametrize("checkpoints", [2, 3])
def test_same_rows_are_found_again_and_have_the_same_shares(checkpoints: int) -> None:
    everything, places = planted(checkpoints)
    found = everything.compare()
    np.testing.assert_array_equal(found["matched_track"], places[-1])
    of_features = found["track_feature"].sel(track=found["matched_track"])
    np.testing.assert_array_equal(of_features.transpose("checkpoint", "feature"), places)
    np.testing.assert_allclose(found["match_cosine"], 1, rtol=1e-5)
    np.testing.assert_array_equal(found["track_cosine"].isel(checkpoint=-1), 1)
    assert (found["track_cosine"] > 0.5).all()
    baseline, joint = (found.sel(measure=name, cosine_at_least=0.0) for name in (BASELINE, JOINT))
    for of_measure in (baseline, joint):
        np.testing.assert_allclose(of_measure["spearman"], 1)
        np.testing.assert_allclose(of_measure["mean_absolute_difference"], 0, atol=1e-6)
        assert (of_measure["class_agreement"] == 1).all() and (of_measure["class_kappa"] == 1).all()
    norms = found.sel(measure=RELDEC, cosine_at_least=0.0)
    assert (norms["spearman"] < 0.9).all() and (norms["class_kappa"] < 0.9).all()
    assert (found["features_compared"].sel(cosine_at_least=0.0) == 24).all()


def test_neither_folding_nor_the_size_of_the_normalisation_changes_anything() -> None:
    everything, _ = planted()
    expected = everything.compare()
    everything.joint = everything.joint.fold_scale(torch.tensor([0.1, 30.0]))
    early, late = everything.singles
    everything.singles = [early.fold_scale(torch.tensor([7.0])), late.fold_scale(torch.tensor([0.2]))]
    xr.testing.assert_allclose(everything.compare(), expected, rtol=1e-4)


def test_unrelated_dictionaries_match_nowhere_above_a_half() -> None:
    generator = np.random.default_rng(0)
    rows, *singles = (generator.normal(size=(24, *shape, 512)).astype(np.float32) for shape in ((2,), (), ()))
    effects, *own = (generator.normal(size=(2, *shape, 24)).astype(np.float32) for shape in ((2,), (), ()))
    found = given(rows, singles, effects, own, effects, np.arange(24)).compare()
    assert found["features_matched"].values.tolist()[1:] == [0, 0, 0]
    assert (found["features_compared"].sel(cosine_at_least=[0.5, 0.7, 0.9]) == 0).all()
    for name in ("spearman", "mean_absolute_difference", "class_agreement", "class_kappa"):
        assert found[name].sel(cosine_at_least=[0.5, 0.7, 0.9]).isnull().all()
    assert sorted(found["matched_track"].values) == list(range(24))


def unit(rows: np.ndarray) -> np.ndarray:
    flat = rows.reshape(len(rows), -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def best(first: np.ndarray, second: np.ndarray) -> tuple[list[int], list[float]]:
    """Return the partner of each row by the best of all assignments, and the cosines."""
    cosines = unit(first) @ unit(second).T
    order = max(itertools.permutations(range(len(first))), key=lambda one: sum(cosines[range(len(first)), one]))
    return list(order), [float(cosines[number, other]) for number, other in enumerate(order)]


def course_of(shares: np.ndarray) -> str:
    present = "".join("x" if value > 0.6 / len(shares) else "." for value in shares)
    changes = sum(one != other for one, other in itertools.pairwise(present))
    names = {("x", 0): "maintained", (".", 1): "emerged", ("x", 1): "discontinued", (".", 2): "transient"}
    return names.get((present[0], changes), "intermittent")


@pytest.mark.parametrize("checkpoints", [2, 3])
def test_everything_equals_brute_force(checkpoints: int) -> None:
    generator = np.random.default_rng(checkpoints)
    features, ablated = 6, np.array([0, 2, 3, 4, 5])
    rows = generator.normal(size=(features, checkpoints, 3)).astype(np.float32)
    noise = generator.normal(size=(checkpoints, features, 3)).astype(np.float32)
    singles = [rows[generator.permutation(features), m] + 0.6 * noise[m] for m in range(checkpoints)]
    effects = generator.normal(size=(2, checkpoints, features)).astype(np.float32)
    own = [generator.normal(size=(2, features)).astype(np.float32) for _ in range(checkpoints)]
    exact = effects + 0.3 * generator.normal(size=effects.shape).astype(np.float32)
    exact[0, :, 3] = 0  # no share
    everything = given(rows, singles, effects, own, exact, ablated)
    found = everything.compare()
    tracks = [best(singles[-1], of) for of in singles[:-1]] + [(list(range(features)), [1.0] * features)]
    joined = np.stack([[singles[m][tracks[m][0][t]] for m in range(checkpoints)] for t in range(features)])
    match, cosines = best(rows, joined)
    np.testing.assert_array_equal(found["track_feature"], np.transpose([order for order, _ in tracks]))
    np.testing.assert_allclose(found["track_cosine"], np.transpose([values for _, values in tracks]), rtol=1e-5)
    np.testing.assert_array_equal(found["matched_track"], match)
    np.testing.assert_allclose(found["match_cosine"], cosines, rtol=1e-5)
    lowest = [min(cosines[i], *(values[match[i]] for _, values in tracks)) for i in range(features)]
    followed = np.stack([own[m][:, [tracks[m][0][track] for track in match]] for m in range(checkpoints)], axis=1)
    norms = np.linalg.norm(rows, axis=2).T
    shares = {
        BASELINE: share_of(followed),
        JOINT: share_of(effects),
        RELDEC: np.stack([norms / norms.sum(axis=0)] * 2),
    }
    reference = share_of(exact)
    assert list(found["measure"].values) == MEASURES
    for least, (number, task) in itertools.product((0.0, 0.5, 0.7, 0.9), enumerate(TASKS)):
        kept = [i for i in ablated if lowest[i] >= least and not np.isnan(reference[number, 0, i])]
        at = found.sel(cosine_at_least=least, task=task)
        assert int(at["features_compared"]) == len(kept)
        assert int(at["features_matched"]) == sum(value >= least for value in lowest)
        for measure, values in shares.items():
            of_measure = at.sel(measure=measure)
            for m in range(checkpoints):
                one, other = values[number, m, kept], reference[number, m, kept]
                expected = spearmanr(one, other).statistic if len(kept) > 2 else np.nan
                assert float(of_measure["spearman"][m]) == pytest.approx(expected, rel=1e-5, nan_ok=True)
                difference = abs(one - other).mean() if kept else np.nan
                assert float(of_measure["mean_absolute_difference"][m]) == pytest.approx(difference, 1e-5, nan_ok=True)
            pairs = [(course_of(values[number, :, i]), course_of(reference[number, :, i])) for i in kept]
            agreed, kappa = kappa_of(pairs)
            assert float(of_measure["class_agreement"]) == pytest.approx(agreed, nan_ok=True)
            assert float(of_measure["class_kappa"]) == pytest.approx(kappa, nan_ok=True)


def kappa_of(pairs: list[tuple[str, str]]) -> tuple[float, float]:
    """Return the fraction of equal pairs, and Cohen's kappa."""
    if not pairs:
        return np.nan, np.nan
    agreed = sum(one == other for one, other in pairs) / len(pairs)
    firsts, seconds = zip(*pairs, strict=True)
    chance = sum(firsts.count(name) * seconds.count(name) for name in set(firsts)) / len(pairs) ** 2
    return agreed, (agreed - chance) / (1 - chance) if chance < 1 else np.nan


def test_a_feature_whose_track_has_no_effect_is_left_out() -> None:
    everything, places = planted()
    for relie, place in zip(everything.single_relies, places, strict=True):
        relie["indirect_effect"][0, :, place[7]] = 0
    found = everything.compare()
    assert found["features_compared"].sel(cosine_at_least=0.0).values.tolist() == [23, 24]


def test_what_does_not_belong_together_is_refused() -> None:
    def refused(message: str, **changed: object) -> None:
        everything = replace(planted()[0], **changed)
        with pytest.raises(StoreError, match=message):
            everything.compare()

    given, _ = planted()
    early, late = given.singles
    relies = given.single_relies
    refused("of 2 checkpoints, but 1 single crosscoders are given; give one for each", singles=[early])
    refused(
        r"crosscoder of only_step1: 'checkpoints' is \('step1',\), where the joint crosscoder of pair needs \('step0'",
        singles=[late, early],
    )
    other = Crosscoder(replace(early.config, seed=1), torch.Generator().manual_seed(0))
    refused("'seed' is 1, where the joint .* needs 0; give single crosscoders in the order of", singles=[other, late])
    wide = replace(early.config, settings=early.config.settings.model_copy(update={"dictionary_size": 32}))
    wider = Crosscoder(wide, torch.Generator().manual_seed(0))
    refused("crosscoder of only_step0: 'settings' is .*dictionary_size=32", singles=[wider, late])
    refused("'comparison' is only_step0 in the crosscoder and only_step1 in the effects", single_relies=relies[::-1])
    fewer = {"agreement": given.ablations["agreement"]}
    refused("on the tasks agreement, reflexive, others on agreement; give the same tasks", ablations=fewer)
    foreign = {task: dataset.assign_attrs(seed=3) for task, dataset in given.ablations.items()}
    refused("ablations of task 'agreement': 'seed' is 3, not 0; give those of the joint crosscoder", ablations=foreign)


def baseline_flags(everything: Given, directory: Path) -> list[str]:
    """Write everything to a directory, and return the flags by which the script takes it; it writes to the same."""
    flags: dict[str, list[Path]] = {"--output": [directory / "baseline.zarr"]}
    runs = [("--crosscoder", "--relie", everything.joint, everything.relie)]
    for single, relie in zip(everything.singles, everything.single_relies, strict=True):
        runs.append(("--singles", "--single-relies", single, relie))
    for flag, of_effects, crosscoder, relie in runs:
        run = directory / crosscoder.config.comparison
        crosscoder.fold_scale(torch.ones(len(crosscoder.config.checkpoints))).save(run / "crosscoder")
        write_store(relie, run / "relie.zarr", relie.attrs)
        flags.setdefault(flag, []).append(run / "crosscoder")
        flags.setdefault(of_effects, []).append(run / "relie.zarr")
    for task, dataset in everything.ablations.items():
        write_store(dataset, directory / f"{task}.zarr", dataset.attrs)
        flags.setdefault("--ablations", []).append(directory / f"{task}.zarr")
    return [str(one) for flag, paths in flags.items() for one in (flag, *paths)]


def test_script_writes_a_store_that_says_what_it_is_of(tmp_path: Path) -> None:
    everything, places = planted()
    command = [warm_python(), str(SCRIPT), *baseline_flags(everything, tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    store = load_store(tmp_path / "baseline.zarr")
    np.testing.assert_array_equal(store["matched_track"], places[-1])
    assert store.attrs["comparison"] == "pair" and store.attrs["baseline"] == ["only_step0", "only_step1"]
    assert store.attrs["seed"] == 0 and store.attrs["commits"] == everything.relie.attrs["commits"]
    assert store["tokens_seen"].values.tolist() == [0, 10]
