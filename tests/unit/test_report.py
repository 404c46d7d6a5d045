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
    with_clusters,
    with_facts,
    with_languages,
)

from chronocoder.attribution import measures
from chronocoder.errors import ConfigError, StoreError
from chronocoder.report.ablations import ablation_data
from chronocoder.report.choice import choice_rows
from chronocoder.report.compact import Vocabulary
from chronocoder.report.contrasts import find_all_features
from chronocoder.report.courses import course_counts, draw_courses
from chronocoder.report.data import CLASSES, feature_words, measurable, shown_features
from chronocoder.report.feature_figures import share_spread, thresholds
from chronocoder.report.inputs import ReportInputs, examined_comparisons, match_runs, match_seeds, read_contrasts
from chronocoder.report.page import key_numbers, render_page
from chronocoder.report.stability import seed_table
from chronocoder.report.suite_figures import log_axis, place_on_log
from chronocoder.report.summary import summarise
from chronocoder.report.text import listed, peak_words, short_count, signed
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


def test_shares_are_weighed_by_effect_and_leave_out_what_is_not_measurable(relie: xr.Dataset) -> None:
    assert measurable(relie).sel(task="near").values.tolist() == [True, False, True, False, False, False]
    relie["measurable"] = relie["measurable"].where(relie["feature"] != 2, False)
    assert measurable(relie).sel(task="near").values.tolist() == [True, False, False, False, False, False]
    relie["measurable"] = relie["measurable"] | (relie["feature"] == 2)
    spread = share_spread(relie, "step20")
    np.testing.assert_allclose(spread[0].sum(), 1.0 + 0.5 + 0.6)
    np.testing.assert_allclose(spread[0, 0], 1.0)


def test_ablation_data_hold_what_the_store_holds(relie: xr.Dataset) -> None:
    vocabulary = Vocabulary()
    effect = relie["indirect_effect"].sel(task="near", feature=[0, 2, 4, 5])
    found = ablation_data(ablation_store(relie, "near"), effect, vocabulary)
    assert found["features"] == [0, 2, 4]
    assert found["strongest"] == [0, 1, 0]
    assert found["exact"] == [[0.5, 0.25, 0.0], [0.0, 0.3, 0.0]]
    assert found["exactOfConditions"] == [[[0.5, 0.25, 0.0], [0.0, 0.3, 0.0]]]
    roles = found["roles"]
    assert roles["features"] == [0, 2] and roles["conditions"] == ["near one"]
    assert roles["names"] == ["subject", "last token"]
    assert roles["effect"] == [[[[1.0, 0.5], [0.0, 0.6]], [[0.1, 0.05], [0.0, 0.06]]]]
    assert roles["low"][0][0] == [[0.95, 0.45], [-0.05, 0.55]]
    assert found["acts"] == {0: [[1, [[0.0, 0.0, 0.75, 0.25]]], [0, [[0.0, 0.5, -0.25]]]], 2: []}
    assert [vocabulary.texts[place] for place in found["pairs"][0][0][0]] == ["<|eos|>", " the", HOSTILE]
    assert found["pairs"][1][1:] == [" are", " is"]


def test_ablation_data_hold_both_sentences_of_a_pair(relie: xr.Dataset) -> None:
    vocabulary, both = Vocabulary(), of_sentences(relie)
    store = ablation_store(both, "far")
    store["position_effect"][:, :, 1, 1, 2:] = np.nan
    found = ablation_data(store, both["indirect_effect"].sel(task="far", feature=[0]), vocabulary)
    assert found["acts"] == {
        0: [[1, [[0.0, 0.0, 0.75, 0.25], [0.0, 0.0]]], [0, [[0.0, 0.5, -0.25], [0.0, -0.25, 0.125]]]]
    }
    right, wrong = found["pairs"][1][0]
    assert [vocabulary.texts[place] for place in right] == ["<|eos|>", "two", " ox", "en"]
    assert [vocabulary.texts[place] for place in wrong] == ["<|eos|>", "two"]


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


def test_courses_count_classes_by_cluster(relie: xr.Dataset) -> None:
    assert draw_courses(relie) == [] and course_counts(relie) == []
    three = with_clusters(longer(relie))
    assert course_counts(three) == [[10, *(6, 0, 4, 0, 0)]]
    (figure,) = draw_courses(three)
    assert [trace["name"] for trace in figure["data"]] == ["1 (10 feature–task pairs)"]


def test_seed_table_averages_over_seeds_and_checkpoints() -> None:
    table = seed_table(with_facts(seed_store(), comparison="pair", variant="l1", seeds=[0, 1, 2]))
    assert table.label == "pair · l1 · seed 0 against 1, 2"
    assert list(table.tasks) == ["near", "far"]
    assert len(table.tasks["near"]) == 2
    assert table.tasks["near"][1] == ["0.70", "60", "0.80", "0.12", "0.75", "–", "40"]


def test_thresholds_of_a_pair_are_those_of_the_paper() -> None:
    assert thresholds(2) == pytest.approx([0.3, 0.7])
    assert thresholds(3) == pytest.approx([0.2])


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
    assert run["conditions"][0] == {"names": []}
    assert run["conditions"][1]["names"] == ["far one", "far two"]
    assert run["conditions"][1]["effect"][1][1] == [0.0, 0.0, 0.9, 0.0, 0.0]
    assert [CLASSES[places[0][1]] for places in run["class"]] == ["emerged", "maintained", "maintained"]
    assert run["codes"]["supported"] == [[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    assert run["examples"]["0"]["rows"][0][2] == [3]


def test_page_without_contrasts(inputs: ReportInputs) -> None:
    page = render_page(without_contrasts(inputs))
    assert 'id="abstraction"' not in page


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
