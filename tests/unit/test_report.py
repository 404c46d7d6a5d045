import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from chronocoder.report.contrast_figures import effect_scale
from chronocoder.report.page import key_numbers
from report_stores import (
    CONTRAST,
    behaviour_store,
    example_store,
    longer,
    make_run,
    relie_store,
    seed_store,
    six_features,
    toy_inputs,
    with_clusters,
    with_facts,
)

from chronocoder.attribution import measures
from chronocoder.errors import ConfigError, StoreError
from chronocoder.report.contrasts import find_all_features
from chronocoder.report.data import CLASSES, feature_words, measurable
from chronocoder.report.inputs import ReportInputs, examined_comparisons, match_runs, match_seeds, read_contrasts
from chronocoder.report.stability import seed_table
from chronocoder.report.summary import summarise
from chronocoder.report.text import listed, peak_words, short_count, signed

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


def test_classes_are_those_of_the_measures() -> None:
    assert set(CLASSES) == set(measures.CLASSES)


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
