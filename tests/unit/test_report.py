import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
from report_stores import (
    CONTRAST,
    DRAWS,
    FEATURES,
    HOSTILE,
    REVISIONS,
    ablation_store,
    behaviour_store,
    example_store,
    longer,
    make_run,
    of_sentences,
    relie_store,
    seed_store,
    six_features,
    toy_inputs,
    with_classes,
    with_facts,
    with_languages,
)

from chronocoder.attribution import measures
from chronocoder.attribution.surface import SurfaceFeature
from chronocoder.errors import ConfigError, StoreError
from chronocoder.report.ablation_figures import draw_faithfulness
from chronocoder.report.choice import choice_rows
from chronocoder.report.contrast_figures import contrast_panels, draw_contrast, effect_scale, random_level
from chronocoder.report.contrasts import ContrastFeatures, contrast_data, find_all_features, find_contrast_features
from chronocoder.report.controls import SHUFFLED
from chronocoder.report.data import CLASSES, feature_words
from chronocoder.report.inputs import ReportInputs, examined_comparisons, match_runs, match_seeds, read_contrasts
from chronocoder.report.page import key_numbers, render_page
from chronocoder.report.phases import clearest_checkpoint, find_surface_phase
from chronocoder.report.stability import seed_table
from chronocoder.report.suite_figures import log_axis, place_on_log
from chronocoder.report.summary import summarise
from chronocoder.report.text import listed, peak_words, short_count, signed
from chronocoder.report.trust import measurable_note, trust_finding, trust_line, trust_rows, trust_sentences
from chronocoder.report.writing import draw_written_shares, writing_data, writing_sentence
from chronocoder.stores import strings, write_store

SCRIPT = Path(__file__).parents[2] / "scripts" / "write_report.py"


@pytest.fixture
def relie() -> xr.Dataset:
    return six_features()


@pytest.fixture
def inputs(relie: xr.Dataset) -> ReportInputs:
    return toy_inputs(relie)


def without_contrasts(inputs: ReportInputs) -> ReportInputs:
    return replace(inputs, contrasts=[])


def embedded(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="document">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_surface_phase_is_found_where_one_task_is_above_and_the_other_below_chance() -> None:
    phase = find_surface_phase(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.1, 0.9]), CONTRAST)
    assert phase is not None
    assert phase.gaps == {"step10": pytest.approx(0.8)}
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


@pytest.mark.parametrize(
    ("checkpoints", "chosen"),
    [(REVISIONS[:1], "step0"), (REVISIONS[:2], "step10"), (REVISIONS[1:], "step20"), (["step0", "step30"], "step0")],
)
def test_features_are_looked_for_where_the_phase_is_clearest(checkpoints: list[str], chosen: str) -> None:
    phase = find_surface_phase(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.4, 0.1]), CONTRAST)
    assert clearest_checkpoint(phase, checkpoints) == chosen
    assert clearest_checkpoint(None, checkpoints) == checkpoints[0]


def texts_of(inputs: ReportInputs) -> dict[str, str]:
    return dict(summarise(inputs, find_all_features(inputs, inputs.runs[0])))


def with_run(inputs: ReportInputs, relie: xr.Dataset) -> ReportInputs:
    return replace(inputs, runs=[make_run(relie)])


def test_summary_tells_what_becomes_of_surface_features(inputs: ReportInputs) -> None:
    texts = texts_of(inputs)
    labels = ["Ability", "Surface phase", "Surface features", "Classes", "False classes"]
    labels += ["Writer or reader", "Codes", "Trust", "Exact ablation"]
    assert list(texts) == labels
    assert "0.90 on “near” but 0.10 on “far”" in texts["Surface phase"]
    assert texts["Surface features"] == (
        "In the crosscoder configured first, pair · l1 · seed 0, 2 features help “near” and harm “far” at step10, as"
        " judged on one half of the prefixes. On the other half, 2 of 2 harm there in the same condition, and 1 of"
        " these still at step20, mean IE of all −0.55\u00a0→\u00a0−0.10 logits; 1 comes to help in another condition,"
        " +0.000\u00a0→\u00a0+0.90 (95\u00a0% of random directions that write as much stay within ±0.05). The"
        " strongest, feature 0 (most active on: children,"
        " oxen), has IE −0.80\u00a0→\u00a0+0.000 in “far one” and +0.000\u00a0→\u00a0+0.000 in “far two”."
    )


def test_summary_tells_the_effects_of_the_strongest_feature_by_token(inputs: ReportInputs) -> None:
    helping = relie_store([[1.0], [1.0]], [[-0.8], [-0.9]], ["maintained"], other=[[0.0], [0.7]])
    text = texts_of(with_run(inputs, helping))["Surface features"]
    assert "1 feature helps “near” and harms “far”" in text
    assert "1 of 1 harms there in the same condition, and 1 of these still at step20" in text
    assert text.endswith(
        "+0.000\u00a0→\u00a0+0.70 in “far two”; of the latter at step20, by token (all prefixes): subject +0.70, last"
        " token +0.070."
    )


def test_summary_tells_the_effects_by_token_where_there_is_one_condition(inputs: ReportInputs) -> None:
    nothing = [[float("nan")]] * 2
    helping = relie_store([[1.0], [1.0]], [[-0.8], [-0.9]], ["maintained"], other=nothing)
    helping["prefixes"].loc[{"task": "far", "condition": "far two"}] = 0
    assert texts_of(with_run(inputs, helping))["Surface features"].endswith(
        "has IE −0.80\u00a0→\u00a0−0.90 in “far one”; of this at step20, by token (all prefixes): subject −0.90, last"
        " token −0.090."
    )


def test_summary_believes_the_other_half(inputs: ReportInputs, relie: xr.Dataset) -> None:
    for end in ("", "_low", "_high"):
        relie[f"half_indirect_effect{end}"][:, 1] = 0.0
    text = texts_of(with_run(inputs, relie))["Surface features"]
    assert "0 of 2 harm there in the same condition, and 0 of these still at step20" in text
    assert "none comes to help in another condition" in text


def test_summary_tells_no_fate_where_the_phase_is_last(inputs: ReportInputs, relie: xr.Dataset) -> None:
    late = replace(
        with_run(inputs, relie.isel(checkpoint=[1, 0]).assign_coords(relie.coords)),
        behaviour=with_facts(behaviour_store([0.5, 0.5, 1.0], [0.5, 0.5, 0.1])),
    )
    assert texts_of(late)["Surface features"].endswith(
        "On the other half, 2 of 2 harm there in the same condition. What becomes of them is not seen: step20 is its"
        " last checkpoint."
    )


def test_summary_says_where_nothing_is_found(inputs: ReportInputs) -> None:
    quiet = replace(
        with_run(inputs, relie_store([[1.0]] * 2, [[1.0]] * 2, ["maintained"])),
        behaviour=with_facts(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.8, 0.9])),
    )
    texts = texts_of(quiet)
    assert "Surface phase" not in texts
    assert texts["Surface features"] == (
        "In the crosscoder configured first, pair · l1 · seed 0, no feature helps “near” and harms “far” at step10 by"
        " more than random directions do."
    )


def test_contrast_features_are_those_of_the_checkpoint(relie: xr.Dataset) -> None:
    found = find_contrast_features(relie, CONTRAST, "step10")
    assert found.features == [
        SurfaceFeature(0, "far one", "far two", 0.8),
        SurfaceFeature(2, "far one", "far two", 0.3),
    ]
    assert [found.role(feature) for feature in range(3)] == ["surface rule", "other", "surface rule"]
    rows = contrast_data(found)["rows"]
    assert [(row["feature"], row["condition"], row["note"]) for row in rows] == [
        (0, "far one", "less than half of the harm is left at step20"),
        (0, "far two", ""),
        (2, "far one", "harms at step20"),
        (2, "far two", "comes to help at step20"),
    ]
    assert contrast_data(found)["checkpoints"] == ["step10", "step20"]
    assert rows[3]["effect"] == [0.0, 0.9] and rows[3]["low"] == [-0.1, 0.8] and rows[3]["level"] == [0.05, 0.05]


@pytest.mark.parametrize(
    ("harm", "note"),
    [
        (-0.5, "harms at step20"),
        (-0.39, "less than half of the harm is left at step20"),
        (0.2, "less than half of the harm is left at step20"),
    ],
)
def test_contrast_table_tells_how_much_harm_is_left(harm: float, note: str) -> None:
    relie = relie_store([[1.0]] * 2, [[-0.8], [harm]], ["maintained"])
    assert contrast_data(find_contrast_features(relie, CONTRAST, "step10"))["rows"][0]["note"] == note


def test_contrast_table_tells_where_harm_is_no_longer_certain() -> None:
    relie = relie_store([[1.0]] * 2, [[-0.8], [-0.6]], ["maintained"])
    relie["half_indirect_effect_high"].loc[{"checkpoint": "step20"}] = 0.0
    row = contrast_data(find_contrast_features(relie, CONTRAST, "step10"))["rows"][0]
    assert row["note"] == "no longer harms for certain at step20"


def test_contrast_table_tells_no_fate_at_the_last_checkpoint(relie: xr.Dataset) -> None:
    found = find_contrast_features(relie, CONTRAST, "step20")
    data = contrast_data(found)
    assert found.numbers == [2] and data["checkpoints"] == ["step20"]
    assert [(row["effect"], row["note"]) for row in data["rows"]] == [([-0.2], ""), ([0.9], "")]


def test_features_are_followed_from_the_checkpoint_on(relie: xr.Dataset) -> None:
    found = find_contrast_features(longer(relie), CONTRAST, "step10")
    assert contrast_data(found) == contrast_data(find_contrast_features(relie, CONTRAST, "step10"))


def test_wide_intervals_leave_no_contrast_features(relie: xr.Dataset) -> None:
    near, far = (relie["indirect_effect"].sel(task=task).values.tolist() for task in CONTRAST)
    wide = relie_store(near, far, ["emerged"] * FEATURES, margin=3.0)
    found = find_contrast_features(wide, CONTRAST, "step10")
    assert found == ContrastFeatures("step10", [], None)
    assert contrast_data(found) == {"checkpoints": ["step10"], "rows": []}


def test_contrast_figures_are_within_a_condition(relie: xr.Dataset) -> None:
    (first, second), (_, other) = contrast_panels(make_run(relie), [0, 2], CONTRAST)
    assert (first.condition, second.checkpoint, other.condition) == ("far one", "step20", "far two")
    np.testing.assert_allclose(first.effects, [[1.0, 0.5], [-0.8, -0.3]])
    np.testing.assert_allclose(other.effects, [[0.0, 0.6], [0.0, 0.9]])
    np.testing.assert_allclose(first.levels, [0.05, 0.05])


def test_level_of_random_directions_is_over_all_of_them(relie: xr.Dataset) -> None:
    classes = dict.fromkeys(("published", "total_effect", "metric_size"), CLASSES[:6])
    of_task = with_classes(relie, classes, controls=(*DRAWS, SHUFFLED)).sel(task="far")
    effects = np.linspace(-1, 0.5, 12).reshape(2, 6)
    of_task["control_indirect_effect"].loc[{"control": list(DRAWS), "condition": "far two", "checkpoint": "step20"}] = (
        effects
    )
    of_task["control_indirect_effect"].loc[{"control": DRAWS[0], "feature": 3}] = np.nan
    level = random_level(of_task, 0.95)
    assert level.dims == ("condition", "checkpoint") and list(level["condition"]) == ["far one", "far two"]
    left = abs(np.delete(effects.ravel(), 3))
    np.testing.assert_allclose(level.values, [[0.05, 0.05], [0.05, np.quantile(left, 0.95)]])
    of_task["control_indirect_effect"][:] = np.nan
    assert random_level(of_task, 0.95).isnull().all()


@pytest.mark.parametrize("random", [True, False])
def test_contrast_figures_shade_the_level_of_random_directions(relie: xr.Dataset, random: bool) -> None:
    if not random:
        relie = with_classes(
            relie, dict.fromkeys(("published", "total_effect", "metric_size"), CLASSES[:6]), controls=()
        )
    found = find_contrast_features(relie, CONTRAST, "step10")
    rows = draw_contrast(make_run(relie), [0, 1, 2], CONTRAST, found, {})
    assert [row["condition"] for row in rows] == ["far one", "far two"]
    figure = rows[0]["figures"][0]
    assert [trace["name"] for trace in figure["data"]] == ["other", "surface rule"]
    assert len(figure["layout"]["shapes"]) == (2 if random else 1)


def test_classes_are_those_of_the_measures() -> None:
    assert set(CLASSES) == set(measures.CLASSES)



def test_trust_rows_hold_means_and_the_lowest_task(relie: xr.Dataset) -> None:
    run = make_run(relie)
    run.ablations["far"]["spearman"][1, 0] = 0.4
    run.ablations["near"]["spearman"][1, 0] = np.nan
    rows = {row.label: row.cells for row in trust_rows(run)}
    assert rows["Attribution patching and exact effect: Spearman"] == 2 * [("0.95", "lowest 0.95: near")]
    assert rows["The published estimator and exact effect: Spearman"] == [
        ("0.40", "lowest 0.40: far"),
        ("0.80", "lowest 0.80: near"),
    ]
    assert rows["RelDec and share of exact effect: Pearson"] == 2 * [("0.20", "lowest 0.20: near")]
    assert rows["Rounding, in logits"] == 2 * [("2e-07", "highest 2e-07: near")]
    assert rows["Error term’s fraction of all effects"] == 2 * [("5.0\u00a0%", "")]
    assert rows["Feature–task pairs with a measurable effect"] == [
        ("42\u00a0%", "random directions 20\u00a0%"),
        ("33\u00a0%", "random directions 10\u00a0%"),
    ]
    assert measurable_note(run) == "By construction, about 5 % of random directions exceed the level."


def test_measurable_features_without_random_directions(relie: xr.Dataset) -> None:
    alone = with_classes(relie, dict.fromkeys(("published", "total_effect", "metric_size"), CLASSES[:6]), controls=())
    assert trust_rows(make_run(alone))[-1].cells == [("42\u00a0%", ""), ("33\u00a0%", "")]
    assert measurable_note(make_run(alone)) == ""


def test_trust_is_undefined_where_nothing_correlates(relie: xr.Dataset) -> None:
    run = make_run(relie)
    for ablation in run.ablations.values():
        ablation["share_spearman"][:] = np.nan
        ablation["spearman"][:] = np.nan
    assert trust_rows(run)[0].cells == 2 * [("–", "")]
    _, shares, estimators, *_ = trust_sentences(run)
    assert shares == (
        "RelIE by attribution patching, RelIE by the published estimator and RelDec cannot be compared: no rank"
        " correlation is defined."
    )
    assert estimators.startswith("Attribution patching and the published estimator cannot")


@pytest.mark.parametrize(
    ("decoder", "better"), [(0.2, "RelIE by attribution patching predicts"), (0.75, "RelDec predicts")]
)
def test_trust_says_which_share_predicts_better(relie: xr.Dataset, decoder: float, better: str) -> None:
    run = make_run(relie)
    for ablation in run.ablations.values():
        ablation["share_spearman"][2] = decoder
    _, shares, estimators, nowhere, shortfall = trust_sentences(run)
    assert shares.startswith(better) and shares.endswith("and ahead in 2 of 2 cases.")
    assert "mean Spearman 0.95 against 0.88, and ahead in 2 of 4 cases" in estimators
    assert nowhere == "With attribution patching, Spearman is nowhere below 0.9."
    assert shortfall == (
        "With the published estimator, Spearman is below 0.9 at step20 on 2 of 2 tasks (lowest 0.80: near)."
    )
    reached = "Spearman is 0.9 or more in 8 of 8 with attribution patching and 4 of 8 with the published estimator."
    assert trust_finding([run, run]).endswith(reached)


def test_trust_line_says_how_far_effects_can_be_trusted_and_why(relie: xr.Dataset) -> None:
    estimated = trust_line(make_run(relie))
    assert estimated.startswith("Effects are estimates by the published estimator, and intervals do not hold")
    assert "Spearman is 0.88 on average over tasks and checkpoints, 0.80 at the lowest." in estimated
    exact = trust_line(make_run(relie.assign(estimator=xr.full_like(relie["estimator"], "exact"))))
    assert exact.startswith("Every effect was measured") and "rounding only, 2e-07 logits or less" in exact
    names = xr.full_like(relie["estimator"], "exact").astype(object)
    names[:, 1:] = "grouped_gradients"
    stages = relie.assign(estimator=names, estimation_error=xr.full_like(relie["noise_floor"], 0.012))
    line = trust_line(make_run(stages))
    effective = (relie["indirect_effect"] != 0).any("checkpoint")
    assert line.startswith(f"{int(effective[:, 0].sum())} of {int(effective.sum())} feature–task pairs with an effect")
    assert "The others are estimates by the grouped estimator." in line and "95 % err by less than 1.2 % of" in line
    unknown = trust_line(make_run(stages.assign(estimation_error=xr.full_like(relie["noise_floor"], np.nan))))
    assert unknown.endswith("The others are estimates by the grouped estimator.")


def test_writing_data_hold_the_largest_changes_of_top_features(relie: xr.Dataset) -> None:
    store = ablation_store(relie, "far")
    store["written_sum"][:, -1] += 1
    (found,) = writing_data(store)
    effect = store["own_effect"].values
    whole = effect[1] - effect[0]
    order = np.argsort(-abs(whole[:3]), kind="stable")
    assert found["checkpoints"] == ["step10", "step20"] and found["features"] == order.tolist()
    np.testing.assert_allclose(found["effect"], effect[:, order], rtol=1e-2)
    np.testing.assert_allclose(np.sum(found["changes"], axis=0)[0], whole[order], atol=0.01)
    np.testing.assert_allclose(np.array(found["changes"])[:, 2] - np.array(found["changes"])[:, 0], 0.01, atol=2e-3)
    assert found["ownCode"] == [[int(feature == 0) for feature in order], [0, 0, 0]]
    assert found["sentence"] == (
        "What is written accounts for 25\u00a0% (19\u00a0% to 31\u00a0%) of the changes of IE of top features (1.00"
        " logits in all), for 50\u00a0% (44\u00a0% to 56\u00a0%) of those of random active features (1.00 logits in"
        " all), and for 75\u00a0% to 88\u00a0% (2 draws) of those of random directions in place of the top"
        " features (1.00 to 2.00 logits in all)."
    )
    (without,) = writing_data(store.isel(group=[0, 1]))
    assert without["sentence"].endswith("56\u00a0%) of those of random active features (1.00 logits in all).")


def test_written_shares_are_drawn_for_each_pair_of_checkpoints() -> None:
    run = make_run(longer(six_features()))
    figures = draw_written_shares(run)
    titles = ["From step0 to step10", "From step0 to step20", "From step10 to step20"]
    assert [figure["title"] for figure in figures] == titles
    for trace, share in zip(figures[0]["data"], (0.75, 0.875, 0.25), strict=True):
        assert trace["x"] == [share] * 2 and trace["error_x"]["array"] == [0.0625] * 2
    assert [trace.get("showlegend", True) for trace in figures[0]["data"]] == [True, False, True]
    alone = {name: store.isel(group=[0, 1]) for name, store in run.ablations.items()}
    (own,) = draw_written_shares(replace(run, ablations=alone))[0]["data"]
    assert own["x"] == [0.25] * 2


def test_summary_tells_writer_from_reader(inputs: ReportInputs) -> None:
    assert texts_of(inputs)["Writer or reader"] == (
        "In pair · l1 · seed 0, from step10 to step20, what is written accounts for this share of the changes of IE of"
        " the top features: 25\u00a0% (19\u00a0% to 31\u00a0%) on “far”, against 75\u00a0% to 88\u00a0% for"
        " random directions (2 draws). The rest is due to how it is read."
    )
    shares = inputs.runs[0].ablations["far"]["written_share_low"]
    shares[:] = -0.25
    assert "25\u00a0% (−25\u00a0% to 31" in texts_of(inputs)["Writer or reader"]
    assert "on “near”" in texts_of(without_contrasts(inputs))["Writer or reader"]
    ablations = inputs.runs[0].ablations
    ablations["far"] = ablations["far"].isel(group=[0, 1])
    assert "on “far” (random directions were not measured). The rest" in texts_of(inputs)["Writer or reader"]


def test_summary_does_not_list_what_is_written_on_each_of_many_tasks(inputs: ReportInputs) -> None:
    store = inputs.runs[0].ablations["far"]
    unseen = store.copy(deep=True)
    unseen["written_share"][:] = np.nan
    high = store.copy(deep=True)
    high["written_share"][{"group": 0}] = 0.9
    ablations = {"one": store, "two": store, "three": store, "four": high, "five": unseen}
    relie = xr.Dataset(coords={"task": list(ablations), "checkpoint": inputs.runs[0].checkpoints})
    run = replace(inputs.runs[0], ablations=ablations, relie=relie)
    assert writing_sentence(run, []) == (
        "In pair · l1 · seed 0, from step10 to step20, what is written accounts for 25\u00a0% of the changes of IE of"
        " the top features (the median of 5 tasks); the rest is due to how it is read. The share is below every draw of"
        " random directions (2) on 3 of them, and above every draw on 1."
    )
    alone = {task: of_task.isel(group=[0, 1]) for task, of_task in ablations.items()}
    assert writing_sentence(replace(run, ablations=alone), []).endswith("Random directions were not measured.")


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



def test_seed_table_averages_over_seeds_and_checkpoints() -> None:
    table = seed_table(with_facts(seed_store(), comparison="pair", variant="l1", seeds=[0, 1, 2]))
    assert table.label == "pair · l1 · seed 0 against 1, 2"
    assert list(table.tasks) == ["near", "far"]
    assert len(table.tasks["near"]) == 2
    assert table.tasks["near"][1] == ["0.70", "60", "0.80", "0.12", "0.75", "–", "40"]



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
    assert run["effect"][1][1] == [0.0, 2.0, -0.2, 0.0, -1.0]
    assert run["share"][0][0][1] is None
    assert run["level"] == [[[0.05] * 5] * 2] * 2
    assert [row["feature"] for row in run["contrasts"][0]["rows"]] == [0, 0, 2, 2]
    assert run["conditions"][0] == {"names": []}
    assert run["conditions"][1]["names"] == ["far one", "far two"]
    assert run["conditions"][1]["effect"][1][1] == [0.0, 0.0, 0.9, 0.0, 0.0]
    assert [CLASSES[places[0][1]] for places in run["class"]] == ["emerged", "maintained", "maintained"]
    assert run["codes"]["supported"] == [[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert run["examples"]["0"]["rows"][0][2] == [3]
    assert [len(row["figures"]) for row in document["contrastFigures"][0][0]] == [2, 2]


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


def test_page_without_crosscoders_says_what_was_looked_at(inputs: ReportInputs) -> None:
    """On a scan alone, or where nothing was chosen: abilities and similarities, and no part that is about features."""
    page = render_page(replace(inputs, runs=[], seed_matches=[], comparisons={}))
    assert embedded(page)["runs"] == [] and 'id="ability"' in page and 'id="similarity"' in page
    assert not re.search(r'id="(quality|shares|controls|glossary)"', page) and "crosscoders</dt>" not in page


def test_choice_and_scan_are_shown(inputs: ReportInputs) -> None:
    words = {name: strings([text]) for name, text in (("change_task", "near"), ("last_before", "s1"))}
    words |= {f"first_after{end}": strings([text]) for end, text in (("", "s2"), ("_low", "s1"), ("_high", "s2"))}
    ends = {"choosing": 0.31, "confirming": -0.25, "confirming_low": -0.4, "confirming_high": 0.01, "by_chance": 0.12}
    variables = {name: ("change", values) for name, values in words.items()}
    variables |= {f"change_{name}": ("change", [value]) for name, value in ends.items()}
    choice = xr.Dataset({**variables, "q_value": ("task", [0.004])}, {"task": strings(["near"])})
    choice.attrs |= {"summary": "1 of 2 tasks changes.", "config_digest": "", "created": "", "settings": ""}
    choice.attrs["package_versions"] = {}
    [row] = choice_rows(choice)
    assert row == ("near", "0.004", "s1 → s2", "s1 to s2", "+0.31", "−0.25 (−0.40 to +0.010)", "0.12")
    scan = inputs.behaviour.merge(inputs.similarity[["linear_cka"]]).assign_attrs(inputs.behaviour.attrs)
    page = render_page(replace(inputs, choice=choice, reasons={"pair": "It <rises>."}, scan=scan))
    assert "1 of 2 tasks changes." in page and "It &lt;rises&gt;." in page and "A look at every checkpoint" in page
    assert list(embedded(page)["figures"]["scanSimilarity"]) == ["Linear CKA"]


def test_script_writes_the_page_whole_and_without_torch(inputs: ReportInputs, tmp_path: Path) -> None:
    run = inputs.runs[0]
    stores = {"behaviour": inputs.behaviour, "similarity": inputs.similarity}
    stores |= {"trainings": run.training, "evaluations": run.evaluation, "relies": run.relie, "features": run.features}
    stores |= {"seed-matches": inputs.seed_matches[0]}
    stores |= {"consolidations": with_languages(inputs, {"agreement": [True, True]}).consolidations[0]}
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
