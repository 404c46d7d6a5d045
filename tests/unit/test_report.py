import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from chronocoder.attribution import measures
from chronocoder.config import AttributionSettings
from chronocoder.errors import ConfigError, StoreError
from chronocoder.report.ablation_figures import draw_faithfulness
from chronocoder.report.ablations import ablation_data
from chronocoder.report.compact import Vocabulary
from chronocoder.report.contrasts import ContrastFeatures, Ranked, clearest_run, find_contrast_features
from chronocoder.report.courses import course_counts, draw_courses
from chronocoder.report.data import CLASSES, class_counts, feature_words, measurable, shown_features
from chronocoder.report.feature_figures import effect_scale, share_spread, thresholds
from chronocoder.report.inputs import (
    Contrast,
    ReportInputs,
    Run,
    RunKey,
    examined_comparisons,
    match_runs,
    match_seeds,
    read_contrasts,
)
from chronocoder.report.page import key_numbers, render_page, write_page
from chronocoder.report.stability import seed_table
from chronocoder.report.suite_figures import log_axis, place_on_log
from chronocoder.report.summary import find_surface_phase, summarise
from chronocoder.report.text import listed, peak_words, short_count, signed
from chronocoder.report.trust import trust_finding, trust_rows, trust_sentences
from chronocoder.stores import labelled, provenance, strings, write_store

SCRIPT = Path(__file__).parents[2] / "scripts" / "write_report.py"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CONTRAST = Contrast("near", "far")
REVISIONS = ["step0", "step10", "step20"]
TOKENS_SEEN = [0, 1_000, 50_000]
HOSTILE = " </script><b>&amp;"
FEATURES = 6


def behaviour_store(near: list[float], far: list[float], tokens_seen: list[int] = TOKENS_SEEN) -> xr.Dataset:
    accuracy = np.array([near, far])
    dims = ("task", "checkpoint")
    return xr.Dataset(
        {
            "accuracy": labelled(dims, accuracy, "accuracy"),
            "accuracy_low": labelled(dims, np.clip(accuracy - 0.05, 0, 1), "low"),
            "accuracy_high": labelled(dims, np.clip(accuracy + 0.05, 0, 1), "high"),
        },
        coords={
            "task": strings(CONTRAST),
            "checkpoint": strings(REVISIONS),
            "tokens_seen": ("checkpoint", tokens_seen),
        },
    )


def relie_store(near: list[list[float]], far: list[list[float]], classes: list[str], margin: float = 0.1) -> xr.Dataset:
    """Effects by task, dims (checkpoint, feature), of the last checkpoints; the same classes for both tasks."""
    effect = np.array([near, far])
    dims = ("task", "checkpoint", "feature")
    with np.errstate(invalid="ignore"):
        share = abs(effect) / abs(effect).sum(axis=1, keepdims=True)
    revisions = REVISIONS[-effect.shape[1] :]
    return xr.Dataset(
        {
            "indirect_effect": labelled(dims, effect, "IE", "logit"),
            "indirect_effect_low": labelled(dims, effect - margin, "low", "logit"),
            "indirect_effect_high": labelled(dims, effect + margin, "high", "logit"),
            "null_band": labelled(dims, np.full(effect.shape, margin / 2), "band", "logit"),
            "measurable": labelled(dims, abs(effect) > margin, "measurable"),
            "reverses": labelled(
                ("task", "feature"), (effect > margin).any(axis=1) & (effect < -margin).any(axis=1), "reverses"
            ),
            "relative_indirect_effect": labelled(dims, share, "RelIE"),
            "relative_indirect_effect_low": labelled(dims, share, "low"),
            "relative_indirect_effect_high": labelled(dims, share, "high"),
            "relative_decoder_norm": labelled(dims[1:], np.full(effect.shape[1:], 0.5), "RelDec"),
            "activation_frequency": labelled(("task", "feature"), np.full((2, effect.shape[2]), 0.25), "frequency"),
            "feature_class": labelled(("task", "feature"), strings([classes, classes]), "class"),
            "class_support": labelled(("task", "feature"), np.full((2, effect.shape[2]), 0.97), "support"),
            "kept": labelled(("task", "feature"), np.array([[name == "emerged" for name in classes]] * 2), "kept"),
            **{
                name: labelled(("task", "feature"), strings([[revisions[-1]] * len(classes)] * 2), name)
                for name in ("onset", "peak")
            },
            **{
                name: labelled(dims[:2], np.full(effect.shape[:2], value), name)
                for name, value in {"error_effect": 0.1, "total_effect": -2.0, "completeness_gap": 0.03}.items()
            },
        },
        coords={
            "task": strings(CONTRAST),
            "checkpoint": strings(revisions),
            "tokens_seen": ("checkpoint", TOKENS_SEEN[-len(revisions) :]),
            "feature": np.arange(effect.shape[2]),
        },
    )


@pytest.fixture
def relie() -> xr.Dataset:
    """Feature 0: surface rule; 1: took over; 2: changed sides; 3: surface, undecided; 4: emerged and harms; 5: none."""
    near = [[1.0, 0.0, 0.5, 0.05, 0.0, 0.0], [0.0, 0.0, 0.6, 0.0, 0.0, 0.0]]
    far = [[-0.8, 0.0, -0.3, -1.0, 0.0, 0.0], [0.0, 2.0, 0.7, 0.0, -1.0, 0.0]]
    return relie_store(near, far, ["discontinued", "emerged", "emerged", "discontinued", "emerged", "no effect"])


def longer(relie: xr.Dataset) -> xr.Dataset:
    """The same effects with a checkpoint before them at which there are none."""
    three = relie.reindex(checkpoint=strings(REVISIONS), fill_value=0)
    return three.assign(measurable=three["measurable"].astype(bool))


def with_clusters(relie: xr.Dataset) -> xr.Dataset:
    """All decided features in one cluster, dims as `cluster_trajectories` gives them."""
    decided = ~relie["feature_class"].isin(["no effect", "uncertain"])
    clusters = xr.where(decided, 0, -1).transpose("task", "feature").values
    return relie.assign(
        trajectory_cluster=labelled(("task", "feature"), clusters, "cluster"),
        cluster_trajectory=labelled(("cluster", "checkpoint"), np.array([[0.0, 0.2, 0.8]]), "mean share"),
        cluster_size=labelled(("cluster",), np.array([int(decided.sum())]), "features"),
    )


def ablation_store(relie: xr.Dataset, task: str) -> xr.Dataset:
    """Features 0, 1 and 2 at the top, 4 as control; the exact effect is half the estimate."""
    chosen = [feature for feature in (0, 1, 2, 4) if feature < relie.sizes["feature"]]
    effect = relie["indirect_effect"].sel(task=task, feature=chosen).values
    count = len(effect)
    effects = np.stack([0.6 * effect, effect, 0.5 * effect])
    spearman = np.full((3, count), 0.95)
    spearman[1, -1] = 0.8
    shares = np.tile([[0.7], [0.5], [0.2]], count)
    position = np.zeros((count, len(chosen[:3]), 2, 4))
    position[:, 0] = [[0.0, 0.5, -0.25, np.nan], [0.0, 0.0, 0.75, 0.25]]
    position[:, 1:, 0, 3] = np.nan
    draws, sets, alone = ("checkpoint", "set_size", "draw"), ("checkpoint", "set_size"), ("checkpoint", "feature")
    ends = ("", "_low", "_high")
    values = {
        **{f"indirect_effect{end}": (("estimator", *alone), effects) for end in ends},
        "accuracy": (alone, np.full(effect.shape, 0.6)),
        "logit_difference": (alone, 1.5 - effects[2]),
        "log_probability_change": (alone, np.full(effect.shape, -0.3)),
        "clean_accuracy": (alone[:1], np.full(count, 0.9)),
        "clean_logit_difference": (alone[:1], np.full(count, 1.5)),
        "spearman": (("estimator", "checkpoint"), spearman),
        "pearson": (("estimator", "checkpoint"), spearman.copy()),
        "completeness_gap": (alone[:1], np.full(count, 0.03)),
        "share_spearman": (("measure", "checkpoint"), shares),
        "share_pearson": (("measure", "checkpoint"), shares.copy()),
        "top_set_effect": (sets, np.tile([0.5, 1.0, np.nan], (count, 1))),
        "top_set_estimate": (sets, np.tile([1.0, 1.25, np.nan], (count, 1))),
        "top_set_accuracy": (sets, np.tile([0.8, 0.6, np.nan], (count, 1))),
        "random_set_effect": (draws, np.tile([[0.0, 0.1], [0.1, 0.3], [np.nan, np.nan]], (count, 1, 1))),
        "random_set_accuracy": (draws, np.tile([[0.9, 0.9], [0.9, 0.8], [np.nan, np.nan]], (count, 1, 1))),
        "position_effect": (("checkpoint", "top_feature", "example", "position"), position),
        "role": (("feature",), strings(["top", "top", "top", "control"][: len(chosen)])),
        "token": (
            ("example", "position"),
            strings([["<|eos|>", " the", HOSTILE, ""], ["<|eos|>", "two", " ox", "en"]]),
        ),
        "right": (("example",), strings([" is", " are"])),
        "wrong": (("example",), strings([" are", " is"])),
    }
    return xr.Dataset(
        {name: labelled(dims, of, name) for name, (dims, of) in values.items()},
        coords={
            "checkpoint": relie["checkpoint"],
            "feature": chosen,
            "top_feature": chosen[:3],
            "estimator": strings(["attribution_patching", "integrated_gradients", "exact"]),
            "measure": strings(["attribution_patching", "integrated_gradients", "relative_decoder_norm"]),
            "set_size": [1, 2, 5],
            "draw": [1, 2],
        },
    )


def seed_store(tasks: tuple[str, ...] = CONTRAST) -> xr.Dataset:
    dims = ("seed", "cosine_at_least", "task", "checkpoint")
    shape = (2, 2, len(tasks), 2)
    spearman = np.full(shape, 0.5)
    spearman[:, 1] = [[0.7, 0.9]] * 2
    return xr.Dataset(
        {
            "indirect_effect_spearman": labelled(dims, spearman, "spearman"),
            "relative_indirect_effect_difference": labelled(dims, np.full(shape, 0.125), "difference"),
            "class_agreement": labelled(dims[:3], np.full(shape[:3], 0.75), "agreement"),
            "class_kappa": labelled(dims[:3], np.full(shape[:3], np.nan), "kappa"),
            "classes_compared": labelled(dims[:3], np.full(shape[:3], 40), "compared"),
            "features_matched": labelled(dims[:2], np.full(shape[:2], 60), "matched"),
        },
        coords={"seed": [1, 2], "cosine_at_least": [0.0, 0.7], "task": strings(tasks)},
    )


def example_store() -> xr.Dataset:
    tokens = [["<|eos|>", " the", " ch", "ild", "ren", HOSTILE], ["", "", "", " two", " ox", "en"]]
    token_id = [[0, 1, 2, 3, 4, 5], [-1, -1, -1, 6, 7, 8]]
    activation = [[0.0, 0.1, 0.5, 2.0, 0.0, 1.5], [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]
    dims = ("feature", "example", "position")
    return xr.Dataset(
        {
            "token_id": labelled(dims, np.array([token_id]), "token"),
            "token": labelled(dims, strings([tokens]), "text"),
            "activation": labelled(dims, np.array([activation], dtype=np.float32), "activation"),
            "activation_frequency": labelled(("feature",), np.array([0.1]), "frequency"),
        },
        coords={"feature": [0], "example": [0, 1], "position": np.arange(6) - 3},
    )


def training_store(revisions: list[str]) -> xr.Dataset:
    steps, falling = [0, 10, 20], np.array([3.0, 2.0, 1.0])
    return xr.Dataset(
        {
            "explained_variance": labelled(("step", "checkpoint"), np.ones((3, len(revisions))), "explained"),
            **{name: labelled(("step",), falling, name) for name in ("l0", "dead_fraction", "loss")},
        },
        coords={"step": steps, "checkpoint": strings(revisions)},
    )


def evaluation_store(revisions: list[str]) -> xr.Dataset:
    return xr.Dataset(
        {
            "explained_variance": labelled(("checkpoint",), np.full(len(revisions), 0.9), "explained"),
            "cross_entropy_recovered": labelled(("checkpoint",), np.full(len(revisions), 0.95), "recovered"),
            "l0": labelled((), 12.0, "l0"),
            "dead_fraction": labelled((), 0.25, "dead"),
        },
        coords={"checkpoint": strings(revisions)},
    )


def similarity_store() -> xr.Dataset:
    values = np.eye(len(REVISIONS))[None]
    dims = ("site", "checkpoint", "other_checkpoint")
    return xr.Dataset(
        {name: labelled(dims, values, name) for name in ("cosine", "pearson", "linear_cka")},
        coords={
            "site": strings(["residual.2"]),
            "checkpoint": strings(REVISIONS),
            "other_checkpoint": strings(REVISIONS),
        },
    )


def with_facts(dataset: xr.Dataset, **facts: str | int | list[int]) -> xr.Dataset:
    return dataset.assign_attrs(provenance(AttributionSettings(), suite="toy", **facts))


def make_run(relie: xr.Dataset, comparison: str = "pair") -> Run:
    revisions = [str(name) for name in relie["checkpoint"].values]
    stores = (training_store(revisions), evaluation_store(revisions), relie, example_store())
    facts = {"comparison": comparison, "variant": "l1", "seed": 0, "site": "residual.2"}
    ablations = {task: with_facts(ablation_store(relie, task), task=task, **facts) for task in CONTRAST}
    return Run(RunKey(comparison, "l1", 0), *(with_facts(store, **facts) for store in stores), ablations)


@pytest.fixture
def inputs(relie: xr.Dataset) -> ReportInputs:
    return ReportInputs(
        suite="toy",
        behaviour=with_facts(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.1, 0.9])),
        similarity=with_facts(similarity_store()),
        comparisons={"pair": REVISIONS[1:]},
        runs=[make_run(relie)],
        contrasts=[CONTRAST],
        seed_matches=[with_facts(seed_store(), comparison="pair", variant="l1", seeds=[0, 1, 2])],
        example_path="results/toy/pair/l1/seed0/relie.zarr",
    )


def without_contrasts(inputs: ReportInputs) -> ReportInputs:
    return ReportInputs(**{**vars(inputs), "contrasts": []})


def embedded(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="document">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_surface_phase_is_found_where_one_task_is_above_and_the_other_below_chance() -> None:
    phase = find_surface_phase(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.1, 0.9]), CONTRAST)
    assert phase is not None
    assert phase.checkpoints == ["step10"]
    assert phase.clearest == "step10"
    assert (phase.surface_accuracy, phase.conflicting_accuracy) == pytest.approx((0.9, 0.1))
    assert phase.end == "step20"


def test_surface_phase_without_an_end() -> None:
    phase = find_surface_phase(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.4, 0.1]), CONTRAST)
    assert phase is not None
    assert phase.clearest == "step20"
    assert phase.end is None


@pytest.mark.parametrize("far", [[0.5, 0.6, 0.9], [0.5, 0.47, 0.9]])
def test_no_surface_phase_where_intervals_hold_chance(far: list[float]) -> None:
    assert find_surface_phase(behaviour_store([0.5, 0.9, 1.0], far), CONTRAST) is None


def test_summary_names_phase_and_features(inputs: ReportInputs) -> None:
    found = [{CONTRAST: find_contrast_features(inputs.runs[0].relie, CONTRAST)}]
    labels, texts = zip(*summarise(inputs, found), strict=True)
    assert labels == ("Ability", "Surface phase", "Features", "Exact ablation")
    assert "0.90 on “near” but 0.10 on “far”" in texts[1]
    assert "feature 0 (most active on: children, oxen)" in texts[2]
    assert "(IE +1.00, exact +0.50 logits)" in texts[2] and "(−0.80, exact −0.40)" in texts[2]
    assert "feature 1 helps “far” most at step20 (+2.00, exact +1.00)" in texts[2]


def test_summary_is_silent_without_a_surface_phase(inputs: ReportInputs, relie: xr.Dataset) -> None:
    quiet = ReportInputs(
        **{
            **vars(inputs),
            "behaviour": with_facts(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.8, 0.9])),
            "runs": [make_run(relie_store([[1.0]] * 2, [[1.0]] * 2, ["maintained"]))],
        }
    )
    found = [{CONTRAST: find_contrast_features(quiet.runs[0].relie, CONTRAST)}]
    assert [finding.label for finding in summarise(quiet, found)] == ["Ability", "Exact ablation"]


def test_contrast_features_are_told_apart(relie: xr.Dataset) -> None:
    found = find_contrast_features(relie, CONTRAST)
    assert found.surface == {"step10": Ranked([0, 2], [0.8, 0.3]), "step20": Ranked([], [])}
    assert found.took_over == Ranked([1, 2], [2.0, 0.7])
    assert found.newcomers == [1]
    assert found.changed_sides == {2}
    roles = [found.role(feature) for feature in range(FEATURES)]
    assert roles == ["surface rule", "took over", "changed sides", "other", "other", "other"]


@pytest.mark.parametrize(("later", "gone"), [(0.0, [0]), (0.4, [0]), (-0.4, [])])
def test_feature_gives_way_once_it_harms_no_more(later: float, gone: list[int]) -> None:
    relie = relie_store([[1.0], [0.0]], [[-0.8], [later]], ["discontinued"])
    assert find_contrast_features(relie, CONTRAST).gave_way.features == gone


def test_wide_intervals_leave_no_contrast_features(relie: xr.Dataset) -> None:
    near, far = (relie["indirect_effect"].sel(task=task).values.tolist() for task in CONTRAST)
    wide = relie_store(near, far, ["emerged"] * FEATURES, margin=3.0)
    assert not find_contrast_features(wide, CONTRAST).strength
    assert not find_contrast_features(wide, CONTRAST).took_over.features


def test_clearest_run_prefers_one_that_shows_both() -> None:
    def of_run(strength: float, newcomers: list[int], gone: float = 0.0) -> ContrastFeatures:
        surface = Ranked([9], [strength]) if strength else Ranked([], [])
        gave_way = Ranked([9], [gone]) if gone else Ranked([], [])
        return ContrastFeatures({"a": surface}, gave_way, Ranked(newcomers, [1.0] * len(newcomers)))

    assert clearest_run([of_run(5.0, []), of_run(1.0, [3]), of_run(2.0, [3])]) == 2
    assert clearest_run([of_run(5.0, [3]), of_run(1.0, [3], gone=0.5), of_run(2.0, [], gone=0.3)]) == 1
    assert clearest_run([of_run(5.0, []), of_run(0.0, [3])]) == 0
    assert clearest_run([of_run(0.0, [3])]) is None
    assert clearest_run([]) is None


def test_class_counts_hold_every_feature_and_all_of_the_effect(relie: xr.Dataset) -> None:
    assert set(CLASSES) == set(measures.CLASSES)
    counts = np.array(class_counts(relie))
    assert (counts[:, :, 0].sum(axis=1) == FEATURES).all()
    np.testing.assert_allclose(counts[:, :, 1].sum(axis=1), 1, atol=0.01)


def test_shares_are_weighed_by_effect_and_leave_out_what_is_not_measurable(relie: xr.Dataset) -> None:
    assert measurable(relie).sel(task="near").values.tolist() == [True, False, True, False, False, False]
    relie["measurable"] = relie["measurable"].where(relie["feature"] != 2, False)
    assert measurable(relie).sel(task="near").values.tolist() == [True, False, False, False, False, False]
    relie["measurable"] = relie["measurable"] | (relie["feature"] == 2)
    spread = share_spread(relie, "step20")
    np.testing.assert_allclose(spread[0].sum(), 1.0 + 0.5 + 0.6)
    np.testing.assert_allclose(spread[0, 0], 1.0)


def test_trust_rows_hold_means_and_the_lowest_task(relie: xr.Dataset) -> None:
    run = make_run(relie)
    run.ablations["far"]["spearman"][1, 0] = 0.4
    run.ablations["near"]["spearman"][1, 0] = np.nan
    rows = {row.label: row.cells for row in trust_rows(run)}
    assert rows["Attribution patching and exact effect: Spearman"] == 2 * [("0.95", "lowest 0.95: near")]
    assert rows["Integrated gradients and exact effect: Spearman"] == [
        ("0.40", "lowest 0.40: far"),
        ("0.80", "lowest 0.80: near"),
    ]
    assert rows["RelDec and share of exact effect: Pearson"] == 2 * [("0.20", "lowest 0.20: near")]
    assert rows["Completeness gap of integrated gradients"] == 2 * [("3.0\u00a0%", "highest 3.0\u00a0%: near")]
    assert rows["Error term’s part of all effects"] == 2 * [("5.0\u00a0%", "")]
    assert rows["Active features beyond the null band"][0] == ("42\u00a0%", "lowest 33\u00a0%: near")


def test_trust_is_undefined_where_nothing_correlates(relie: xr.Dataset) -> None:
    run = make_run(relie)
    for ablation in run.ablations.values():
        ablation["share_spearman"][:] = np.nan
        ablation["spearman"][:] = np.nan
    assert trust_rows(run)[0].cells == 2 * [("–", "")]
    shares, estimators, *_ = trust_sentences(run)
    assert shares == (
        "RelIE by attribution patching, RelIE by integrated gradients and RelDec cannot be compared: no rank"
        " correlation is defined."
    )
    assert estimators.startswith("Attribution patching and integrated gradients cannot")


@pytest.mark.parametrize(
    ("decoder", "better"), [(0.2, "RelIE by attribution patching predicts"), (0.75, "RelDec predicts")]
)
def test_trust_says_which_share_predicts_better(relie: xr.Dataset, decoder: float, better: str) -> None:
    run = make_run(relie)
    for ablation in run.ablations.values():
        ablation["share_spearman"][2] = decoder
    shares, estimators, nowhere, shortfall = trust_sentences(run)
    assert shares.startswith(better) and shares.endswith("and ahead in 2 of 2 cases.")
    assert "mean Spearman 0.95 against 0.88, and ahead in 2 of 4 cases" in estimators
    assert nowhere == "With attribution patching, Spearman is nowhere below 0.9."
    assert shortfall == (
        "With integrated gradients, Spearman is below 0.9 at step20 on 2 of 2 tasks (lowest 0.80: near)."
    )
    reached = "Spearman is 0.9 or more in 8 of 8 with attribution patching and 4 of 8 with integrated gradients."
    assert trust_finding([run, run]).endswith(reached)


def test_ablation_data_hold_what_the_store_holds(relie: xr.Dataset) -> None:
    vocabulary = Vocabulary()
    effect = relie["indirect_effect"].sel(task="near", feature=[0, 2, 4, 5])
    found = ablation_data(ablation_store(relie, "near"), effect, vocabulary)
    assert found["features"] == [0, 2, 4]
    assert found["strongest"] == [0, 1, 0]
    assert found["exact"] == [[0.5, 0.25, 0.0], [0.0, 0.3, 0.0]]
    assert found["acts"] == {0: [[1, [0.0, 0.0, 0.75, 0.25]], [0, [0.0, 0.5, -0.25]]], 2: []}
    assert [vocabulary.texts[place] for place in found["prefixes"][0][0]] == ["<|eos|>", " the", HOSTILE]
    assert found["prefixes"][1][1:] == [" are", " is"]


def test_faithfulness_curves_share_a_scale_and_skip_what_is_undefined(relie: xr.Dataset) -> None:
    first, last = draw_faithfulness(ablation_store(relie, "near"))
    assert first["layout"]["yaxis"]["range"] == last["layout"]["yaxis"]["range"]
    band, mean, top, summed, preference = first["data"]
    assert mean["x"] == [1, 2] and mean["y"] == pytest.approx([0.05, 0.2])
    assert band["y"] == [0.1, 0.3, 0.1, 0.0]
    assert top["y"] == [0.5, 1.0, None] and summed["y"] == [1.0, 1.25, None]
    assert preference["y"] == [1.5, 1.5]
    low, high = first["layout"]["yaxis"]["range"]
    assert low < 0 and high > 1.5


def test_courses_count_classes_by_cluster(relie: xr.Dataset) -> None:
    assert draw_courses(relie) == [] and course_counts(relie) == []
    three = with_clusters(longer(relie))
    assert course_counts(three) == [[10, *(6, 0, 4, 0, 0)]]
    (figure,) = draw_courses(three)
    assert [trace["name"] for trace in figure["data"]] == ["1 (10 features)"]


def test_seed_table_averages_over_seeds_and_checkpoints() -> None:
    table = seed_table(with_facts(seed_store(), comparison="pair", variant="l1", seeds=[0, 1, 2]))
    assert table.label == "pair · l1 · seed 0 against 1, 2"
    assert list(table.tasks) == ["near", "far"]
    assert len(table.tasks["near"]) == 2
    assert table.tasks["near"][1] == ["0.70", "60", "0.80", "0.12", "0.75", "–", "40"]


def test_thresholds_of_a_pair_are_those_of_the_paper() -> None:
    assert thresholds(2) == pytest.approx([0.3, 0.7])
    assert thresholds(3) == pytest.approx([0.2])


def test_effect_scale_is_odd_and_holds_all_effects() -> None:
    effects = np.array([-3.0, -0.01, 0.0, 0.2])
    scale = effect_scale(effects)
    np.testing.assert_allclose(scale.place(-effects), -scale.place(effects))
    assert (np.abs(scale.place(effects)) < scale.axis()["range"][1]).all()
    assert {"−1", "0", "1"} <= set(scale.axis()["ticktext"])


def test_effect_scale_of_no_effect_is_finite() -> None:
    assert np.isfinite(effect_scale(np.zeros(3)).axis()["range"]).all()


@pytest.mark.parametrize("tokens_seen", [[0, 1_000, 50_000], [10, 1_000, 50_000], [0], [0, 5], [7]])
def test_log_axis_shows_every_checkpoint_and_labels_zero_as_zero(tokens_seen: list[int]) -> None:
    seen = np.array(tokens_seen)
    places, axis = place_on_log(seen), log_axis(seen)
    low, high = axis["range"]
    assert ((np.log10(places) >= low) & (np.log10(places) <= high)).all()
    assert (np.diff(places) > 0).all()
    assert ("0" in axis["ticktext"]) == (0 in tokens_seen)
    if 0 in tokens_seen:
        assert axis["tickvals"][axis["ticktext"].index("0")] == pytest.approx(places[0])


def test_words_are_joined_from_the_tokens_around_the_peak() -> None:
    assert peak_words([([" the", " ch", "ild", "ren", "."], 2), ([" ox", "en"], 1), ([" ox", "en"], 0)], 5) == [
        "oxen",
        "children",
    ]
    assert peak_words([(["a", " ."], 1)], 5) == ["."]
    assert feature_words(example_store()) == {0: ["children", "oxen"]}


def test_numbers_in_words() -> None:
    assert [short_count(count) for count in (0, 512, 786_432, 2_097_152, 3e11)] == [
        "0",
        "512",
        "786 k",
        "2.1 M",
        "300 B",
    ]
    assert (signed(-0.25), signed(0.004)) == ("−0.25", "+0.004")
    assert [listed(items) for items in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]


def test_runs_are_matched_by_attributes_whatever_the_order(relie: xr.Dataset) -> None:
    first, second = make_run(relie, "first"), make_run(relie, "second")
    matched = match_runs(
        [second.training, first.training],
        [first.evaluation, second.evaluation],
        [first.relie, second.relie],
        [second.features, first.features],
        [run.ablations[task] for task in ("far", "near") for run in (second, first)],
    )
    assert [run.key.comparison for run in matched] == ["first", "second"]
    assert all(store.attrs["comparison"] == run.key.comparison for run in matched for store in run.stores.values())


def test_a_run_without_a_store_is_named(relie: xr.Dataset) -> None:
    run = make_run(relie)
    with pytest.raises(StoreError, match="pair · l1 · seed 0"):
        match_runs([], [run.evaluation], [run.relie], [run.features], run.ablations.values())


def test_a_task_without_an_ablation_is_named(relie: xr.Dataset) -> None:
    run = make_run(relie)
    with pytest.raises(
        StoreError, match="pair · l1 · seed 0 are not of the same tasks: far; give the ablation of every"
    ):
        match_runs([run.training], [run.evaluation], [run.relie], [run.features], [run.ablations["near"]])


def test_seeds_are_matched_with_runs_in_their_order(relie: xr.Dataset) -> None:
    runs = [make_run(relie, "first"), make_run(relie, "second")]
    stores = [with_facts(seed_store(), comparison=name, variant="l1") for name in ("second", "first")]
    assert [store.attrs["comparison"] for store in match_seeds(stores, runs)] == ["first", "second"]
    with pytest.raises(StoreError, match="seeds are compared of second · l1, of which no run is given; give its runs"):
        match_seeds(stores, runs[:1])


def test_a_store_that_does_not_say_its_run_is_an_error(relie: xr.Dataset) -> None:
    run = make_run(relie)
    nameless = run.training.copy()
    del nameless.attrs["variant"]
    with pytest.raises(StoreError, match="lacks the attribute variant; delete it"):
        match_runs([nameless], [run.evaluation], [run.relie], [run.features], run.ablations.values())


def test_contrasts_of_unknown_tasks_are_an_error() -> None:
    assert read_contrasts({"near": ["far"]}, ["near", "far"]) == [CONTRAST]
    with pytest.raises(ConfigError, match="not scored: nowhere"):
        read_contrasts({"near": ["nowhere"]}, ["near", "far"])


def test_hostile_tokens_stay_data(inputs: ReportInputs) -> None:
    page = render_page(inputs)
    assert "</script><b>" not in page
    assert page.count("</script>") == 3
    assert HOSTILE in embedded(page)["vocabulary"]


def test_page_refers_to_nothing_outside_itself(inputs: ReportInputs) -> None:
    page = re.sub(r"<script>.*?</script>", "", render_page(inputs), flags=re.DOTALL)
    assert not re.search(r"(src|href|action)\s*=\s*[\"']?\s*(https?:)?//|url\(|@import|<link|<iframe", page)
    assert "default-src 'none'" in page


def test_page_holds_the_numbers_of_the_shown_features(inputs: ReportInputs) -> None:
    document = embedded(render_page(inputs))
    (run,) = document["runs"]
    assert run["features"] == shown_features(inputs.runs[0], {}) == [0, 1, 2, 3, 4]
    assert run["effect"][1][1] == [0.0, 2.0, 0.7, 0.0, -1.0]
    assert run["share"][0][0][1] is None
    assert run["contrasts"][0]["tookOver"] == [[1, 2], 2]
    assert run["examples"]["0"]["rows"][0][2] == [3]
    assert len(document["contrastFigures"][0][0]) == 2


def test_page_without_contrasts(inputs: ReportInputs) -> None:
    page = render_page(without_contrasts(inputs))
    assert 'id="abstraction"' not in page
    assert embedded(page)["contrastFigures"] == [[]]


def test_key_numbers(inputs: ReportInputs) -> None:
    numbers = {number.label: number.value for number in key_numbers(inputs)}
    assert numbers["tokens seen"] == "0 – 50 k"
    assert numbers["crosscoders"] == "1"


def control_stores(suite: str = "toy", **facts: str) -> dict[str, list[xr.Dataset]]:
    """Return effects, evaluation and baseline as a suite's controls leave them; only their attributes are looked at."""
    of_control = {"suite": suite, "comparison": "same", "variant": "l1", "seed": 0, "control": "identity", **facts}
    names = ("controls", "control_evaluations", "baselines")
    return {name: [xr.Dataset(attrs=of_control)] for name in names}


def test_controls_and_baselines_are_held(inputs: ReportInputs) -> None:
    given = ReportInputs(**{**vars(inputs), **control_stores()})
    assert given.controls[0].attrs["control"] == "identity" and len(given.baselines) == 1
    assert (inputs.controls, inputs.control_evaluations, inputs.baselines) == ((), (), ())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            control_stores(suite="other"),
            "store of same · l1 · seed 0 is of suite 'other', not 'toy'; give controls and",
        ),
        (control_stores(control=""), "a store of same · l1 · seed 0 is no control's; give it among the runs"),
        (
            control_stores() | {"control_evaluations": control_stores(comparison="twins")["controls"]},
            "controls do not match: same · l1 · seed 0, twins · l1 · seed 0; give both in the same order",
        ),
        (control_stores() | {"control_evaluations": []}, "controls do not match: same · l1 · seed 0; give both"),
    ],
)
def test_controls_of_another_suite_or_without_counterpart_are_refused(
    changed: dict[str, list[xr.Dataset]], message: str, inputs: ReportInputs
) -> None:
    with pytest.raises(StoreError, match=message):
        ReportInputs(**{**vars(inputs), **changed})


def test_controls_and_single_checkpoints_are_not_marked() -> None:
    document = {
        "pair": {"checkpoints": ["step0", "step1"]},
        "same": {"checkpoints": ["step1", "step1"]},
        "twins": {"checkpoints": ["step1", "step1@twin"]},
        "only": {"checkpoints": ["step1"]},
    }
    assert examined_comparisons(document) == {"pair": ["step0", "step1"]}


def test_script_writes_the_page_whole_and_without_torch(inputs: ReportInputs, tmp_path: Path) -> None:
    run = inputs.runs[0]
    stores = {"behaviour": inputs.behaviour, "similarity": inputs.similarity}
    stores |= {"trainings": run.training, "evaluations": run.evaluation, "relies": run.relie, "features": run.features}
    stores |= {"seed-matches": inputs.seed_matches[0]}
    facts = {"comparison": "same", "variant": "l1", "seed": 0, "control": "identity"}
    stores |= {"controls": with_facts(run.relie.drop_attrs(deep=False), **facts)}
    stores |= {"control-evaluations": with_facts(run.evaluation.drop_attrs(deep=False), **facts)}
    flags = ["--suite", "toy", "--contrasts", json.dumps({"near": ["far"]})]
    for name, dataset in stores.items():
        write_store(dataset, tmp_path / f"{name}.zarr", dataset.attrs)
        flags += [f"--{name}", str(tmp_path / f"{name}.zarr")]
    flags += ["--ablations"]
    for task, dataset in run.ablations.items():
        write_store(dataset, tmp_path / "ablation" / f"{task}.zarr", dataset.attrs)
        flags += [str(tmp_path / "ablation" / f"{task}.zarr")]
    comparisons = tmp_path / "comparisons.yaml"
    comparisons.write_text(yaml.safe_dump({"pair": {"checkpoints": REVISIONS[1:]}}))
    output = tmp_path / "report" / "index.html"
    flags += ["--comparisons", str(comparisons), "--output", str(output)]
    trace = subprocess.run(
        [sys.executable, "-X", "importtime", SCRIPT, *flags], capture_output=True, text=True, check=True
    ).stderr
    assert "plotly" in trace
    assert not re.search(r"\b(torch|transformers)$", trace, re.MULTILINE)
    assert [path.name for path in output.parent.iterdir()] == ["index.html"]
    assert embedded(output.read_text(encoding="utf-8"))["runs"][0]["label"] == "pair · l1 · seed 0"


def body_in_browser(page: Path, profile: Path) -> str:
    """Return what the page's script made of it; fail if it wrote to the console."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=10000"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    browser = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "CONSOLE" not in browser.stderr
    return re.sub(r"<script.*?</script>", "", browser.stdout, flags=re.DOTALL)


def section(body: str, name: str) -> str:
    (found,) = re.findall(rf'<section id="{name}">.*?</section>', body, flags=re.DOTALL)
    return found


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine: the page's script is not run")


@needs_browser
@pytest.mark.parametrize("contrasts", [True, False])
def test_page_draws_itself_in_a_browser(inputs: ReportInputs, tmp_path: Path, contrasts: bool) -> None:
    write_page(inputs if contrasts else without_contrasts(inputs), tmp_path / "index.html")
    body = body_in_browser(tmp_path / "index.html", tmp_path / "profile")
    assert body.count("js-plotly-plot") == (8 if contrasts else 6)
    assert body.count('<article class="card">') == 3
    assert "Feature 0" in body and ("Took over" in body) == contrasts
    assert "&lt;/script&gt;&lt;b&gt;" in body and "<b>" not in body
    assert 'id="courses"' not in body
    assert "seed 0 against 1, 2" in section(body, "seeds")


@needs_browser
def test_browser_shows_how_far_effects_can_be_trusted(inputs: ReportInputs, tmp_path: Path) -> None:
    write_page(inputs, tmp_path / "index.html")
    body = body_in_browser(tmp_path / "index.html", tmp_path / "profile")
    trust, top = section(body, "trust"), section(body, "top")
    assert "RelIE by attribution patching predicts the share of the exact effect better than" in trust
    assert "lowest 0.80: near" in trust
    assert "IE here comes from integrated gradients." in trust
    assert trust.count("js-plotly-plot") == 2 and "At step20, where accuracy is 0.90" in trust
    assert "discontinued (97 % of resamples)" in top and "onset" not in top
    assert "null band ±0.050; exact 0.500" in top and top.count('class="exact"') == 4
    assert "(0.000)" in top
    assert 'title="0.750 logits"' in top and 'title="−0.250 logits"' in top
    assert "<strong>are</strong> / <s>is</s>" in top
    assert "accuracy 0.90 → 0.60" in top


@needs_browser
def test_browser_shows_courses_of_longer_comparisons(inputs: ReportInputs, tmp_path: Path) -> None:
    runs = [make_run(with_clusters(longer(inputs.runs[0].relie)), "course"), *inputs.runs]
    write_page(ReportInputs(**{**vars(inputs), "runs": runs, "seed_matches": []}), tmp_path / "index.html")
    body = body_in_browser(tmp_path / "index.html", tmp_path / "profile")
    courses, top = section(body, "courses"), section(body, "top")
    assert courses.count("js-plotly-plot") == 1 and "Share of |IE| over training" in courses
    assert '<td class="number">10</td>' in courses
    assert "onset step20 · peak step20" in top and "kept to the end" in top
    assert 'id="seeds"' not in body
