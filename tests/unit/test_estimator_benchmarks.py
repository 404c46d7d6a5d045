"""The comparison of estimators says what they are; the suite of English text can be made and read, at a small size."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr
from benchmark_modules import load_benchmark
from slow_attribution import FEATURES, folded_crosscoder, slow_effects, tiny_sites

from chronocoder.attribution.attribute import measure_effects
from chronocoder.attribution.choices import choose_exact
from chronocoder.config import AttributionSettings, NurserySource, TextCorpus
from chronocoder.crosscoder.model import load_crosscoder
from chronocoder.stores import load_store
from chronocoder.suites.checkpoints import load_model
from chronocoder.suites.sites import resolve_site
from chronocoder.variants import VARIANTS


@pytest.fixture(scope="module")
def estimators() -> ModuleType:
    return load_benchmark("estimators")


@pytest.fixture(scope="module")
def english() -> ModuleType:
    return load_benchmark("english")


def test_agreement_is_with_effects_of_one_feature_at_a_time(estimators: ModuleType, task: xr.Dataset) -> None:
    crosscoder, where = folded_crosscoder(4.0), tiny_sites()
    trials = {"patching": estimators.ESTIMATED["attribution_patching"], "all alone": estimators.grouped(FEATURES, 1)}
    found = estimators.measure(crosscoder, where, task, trials)
    for name in ("spearman", "pearson"):
        np.testing.assert_allclose(found[name].sel(trial="all alone"), 1, atol=1e-6)
        assert (found[name].sel(trial="patching") < 1).all()
    active = (slow_effects(crosscoder, where, task)[0] != 0).sum(axis=1).mean()
    assert float(found["active"]) == pytest.approx(active, rel=0.05)
    lines = list(estimators.rows(xr.concat([found, found * 0.5], dim="task"), trials))
    assert lines[0] == "| estimator | gradients | step0: Spearman | Pearson | step1: Spearman | Pearson |"
    assert lines[3] == f"| all alone | {2 + FEATURES / 2 + 1:g} |" + " .750 .500 | .750 .500 |" * 2
    assert lines[4].startswith("| exact |") and len(lines) == 5


def test_every_trial_estimates(estimators: ModuleType, task: xr.Dataset) -> None:
    crosscoder, where = folded_crosscoder(), tiny_sites()
    trials = {name: trial for name, trial in estimators.TRIALS.items() if "10" in name}
    found = estimators.measure(crosscoder, where, task, trials)
    assert len(trials) == 7 and (found["pearson"] > 0.99).all()


def test_groups_hold_each_feature_once(estimators: ModuleType) -> None:
    sizes = np.random.default_rng(0).random(25)
    ranked = np.argsort(-sizes)
    for split in (estimators.spread, estimators.equal_sums, estimators.largest_together):
        groups = split(ranked, sizes, 4, np.random.default_rng(0))
        assert len(groups) == 4 and sorted(np.concatenate(groups)) == list(range(25))
        largest = [set(ranked[:4]) & set(group) for group in groups]
        assert sorted(map(len, largest)) == ([0, 0, 0, 4] if split is estimators.largest_together else [1, 1, 1, 1])
    sums = [sizes[group].sum() for group in estimators.equal_sums(ranked, sizes, 4, np.random.default_rng(0))]
    assert max(sums) < 1.1 * min(sums)


FEW = {"exact_controls": 6, "groups": 1, "alone": 1}


def in_stages(
    estimators: ModuleType, task: xr.Dataset, count: int
) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset, AttributionSettings]:
    """Return effects by what screens, exact ones, those of two stages, and the settings of these."""
    crosscoder, where = folded_crosscoder(0.3), tiny_sites()
    settings = [
        estimators.settings_with(estimator=name, exact_features=count, random_directions=0, **FEW)
        for name in ("grouped_gradients", "exact", "two_stages")
    ]
    screened, exactly, found = (measure_effects(crosscoder, where, task, of_one) for of_one in settings)
    return screened, exactly, found, settings[-1]


def test_two_stages_are_put_together_as_they_are_measured(estimators: ModuleType, task: xr.Dataset) -> None:
    screened, exactly, found, settings = in_stages(estimators, task, 4)
    together = estimators.in_two_stages(screened, exactly, choose_exact(screened["effects"].values, settings))
    xr.testing.assert_allclose(together, found, rtol=1e-3, atol=1e-5)
    assert (together["estimator"] == found["estimator"]).all() and found.sizes["checked_feature"] == 6


def test_stages_are_scored_feature_by_feature(
    estimators: ModuleType, task: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every checked feature may stand for each: a band is the largest of their errors, relative to their sizes."""
    monkeypatch.setattr(estimators, "LARGEST", 5)
    screened, exactly, found, settings = in_stages(estimators, task, 3)
    scores = estimators.score_stages(screened, exactly, task, settings)
    true, estimated, sizes = (
        values.mean("example").values for values in (exactly["effects"], screened["effects"], abs(screened["effects"]))
    )
    measured, checked = found["estimator"].values == "exact", found["checked_feature"].values
    others = np.flatnonzero(~measured & (true != 0).any(axis=0))
    assert float(scores["measured"]) == pytest.approx(measured.sum() / (measured.sum() + len(others)))
    by_size = {feature for values in sizes for feature in np.argsort(-values)[:3].tolist()}
    for place in range(2):
        ranked = sorted(range(FEATURES), key=lambda feature: -abs(true[place, feature]))
        missed = abs(estimated - true)[place]
        band = max(missed[feature] / sizes[place, feature] for feature in checked if missed[feature]) * sizes[place]
        largest = [feature for feature in ranked if feature in others][:5]
        expected = {
            "recall": measured[ranked[:5]].mean(),
            "recall_by_size": np.mean([feature in by_size for feature in ranked[:5]]),
            "covered": (missed <= band)[others].mean(),
            "covered_largest": (missed <= band)[largest].mean(),
        }
        for name, value in expected.items():
            assert float(scores[name][place]) == pytest.approx(value), name


def test_table_of_stages_names_screen_and_count(estimators: ModuleType, task: xr.Dataset) -> None:
    found = estimators.measure_stages(folded_crosscoder(0.3), tiny_sites(), task, (2, FEATURES), **FEW)
    every = found.sel(count=FEATURES)
    assert (every["measured"] == 1).all() and (every["recall"] == 1).all() and every["covered"].isnull().all()
    lines = list(estimators.stage_rows(xr.concat([xr.ones_like(found), xr.full_like(found, 0.5)], dim="task")))
    head = (
        "| screened by | exact_features | measured | step0: recall | by size | covered | of 20 largest | step1: recall"
    )
    assert lines[0].startswith(head)
    assert lines[2] == "| grouped_gradients | 2 | .750 |" + " .750 .500 | .750 .500 | .750 .500 | .750 .500 |" * 2
    assert lines[5].startswith(f"| attribution_patching | {FEATURES} |") and len(lines) == 6


def test_prose_is_sentences_of_words(english: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(
        'def f():\n    """Return the sum of all the\n    values in a list. Takes x=3. No code is in this one here."""\n'
    )
    (tmp_path / "notes.txt").write_text("The model reads what is written here. See section 2.1 of it for more.")
    (tmp_path / "data.json").write_text('"The model reads none of these words."')
    assert sorted(english.prose([tmp_path])) == [
        "No code is in this one here.",
        "Return the sum of all the values in a list.",
        "The model reads what is written here.",
    ]


def test_suite_of_english_text_is_read_as_an_experiment_is(
    english: ModuleType, estimators: ModuleType, tmp_path: Path
) -> None:
    tasks = english.template_tasks(12)
    sentences = [f"{pair.prefix}{pair.right} read." for pairs in english.template_tasks(60).values() for pair in pairs]
    settings = english.FULL.crosscoder.model_dump() | {"dictionary_size": 32, "k": 4, "steps": 2, "auxiliary_k": 4}
    shape = {"vocabulary_size": 300, "hidden_size": 16, "blocks": 3, "heads": 2, "sequence_length": 16, "batch_size": 4}
    sizes = english.Sizes(
        NurserySource(steps=[0, 2], warmup_steps=1, **shape),
        VARIANTS["batchtopk"].model_validate(settings | {"batch_tokens": 32}),
        TextCorpus(kind="text", path="", train_tokens=320, validation_tokens=16, sequence_length=16),
    )
    english.make_suite(tmp_path, sentences, tasks, sizes)
    crosscoder = load_crosscoder(tmp_path / "growth/batchtopk/seed0/crosscoder")
    assert crosscoder.config.checkpoints == ("step0", "step2")
    sites = [resolve_site(load_model(tmp_path / "checkpoints" / name), "residual.1") for name in ("step0", "step2")]
    for name in tasks:
        task = load_store(tmp_path / "tasks" / f"{name}.zarr")
        found = estimators.measure(crosscoder, sites, task, {"all alone": estimators.grouped(32, 1)})
        assert (found["pearson"] > 0.999).all()
