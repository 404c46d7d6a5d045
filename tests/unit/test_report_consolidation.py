"""The page on tasks says what tasks and languages share, and since when; nothing on languages where there is one."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from report_stores import consolidation_store, make_run, six_features, toy_inputs, with_facts, with_languages

from chronocoder.errors import StoreError
from chronocoder.features.task_overlap import compare_tasks
from chronocoder.figures.overlap import KINDS
from chronocoder.report.annotations import Annotation
from chronocoder.report.consolidation import language_sentences, language_tables, pair_sentences, serving_sentence
from chronocoder.report.contrasts import find_all_features
from chronocoder.report.data import feature_words
from chronocoder.report.inputs import ReportInputs
from chronocoder.report.site import Site
from chronocoder.report.summary import summarise
from chronocoder.report.task_overlap import common_features, overlap_rows, overlap_sentence, pairs_beyond
from chronocoder.report.tasks_page import tasks_page

COURSES = {"agreement": [True, True], "gender": [False, True], "number": [True, False], "silent": [False, True]}
REVISIONS = ["step0", "step10", "step20"]


@pytest.fixture
def inputs() -> ReportInputs:
    return with_languages(toy_inputs(six_features()), COURSES)


def sentences_of(shared: dict[str, list[bool]]) -> list[str]:
    return pair_sentences(consolidation_store(shared).isel(language_pair=0))


def test_sentences_tell_which_families_are_shared_and_since_when() -> None:
    first, levels = sentences_of(COURSES)
    assert first == (
        "English and French share features at step20 on 3 of 4 families: from step10 on, “agreement”; from step20 on,"
        " “gender” and “silent”; not found on “number”. Before, they shared features on “number” at step10."
    )
    assert levels == (
        "At step20, overlap of helping effects between the languages is 0.41 on average over families (0.12 to 0.50),"
        " against 0.90 between halves of the prefixes of one language, 0.70 between families in one language, 0.20 of"
        " random directions and 0.10 with features exchanged at random: beyond exchanges, it is 50\u00a0% of the"
        " ceiling."
    )


def test_sentences_where_nothing_or_everything_is_shared() -> None:
    assert sentences_of({"a": [True, False], "b": [False, False]})[0] == (
        "English and French are not found to share features at step20: overlap clearly exceeds both null levels on none"
        " of 2 families. Before, they shared features on “a” at step10."
    )
    assert sentences_of({"a": [True, True]})[0] == (
        "English and French share features at step20 on 1 of 1 family: from step10 on, “a”."
    )
    store = consolidation_store({"a": [False, False]})
    (never, _) = pair_sentences(store.isel(language_pair=0))
    assert never.startswith("English and French are not found to share features at any checkpoint: overlap clearly")
    nothing = store.assign(overlap=store["overlap"] * float("nan")).isel(language_pair=0)
    assert pair_sentences(nothing) == [
        "English and French: no family has a measurable helping effect in both languages at any checkpoint."
    ]


def test_summary_counts_many_pairs_of_languages() -> None:
    stores = [consolidation_store({"a": [True, last], "b": [False, False]}) for last in (True, False, True, False)]
    assert language_sentences(xr.concat(stores, "language_pair", data_vars="all")) == [
        "At step20, 2 of 4 pairs of languages share features on at least one family."
    ]
    three = language_sentences(xr.concat(stores[:3], "language_pair", data_vars="all"))
    assert three == [text for store in stores[:3] for text in pair_sentences(store.isel(language_pair=0))]


def test_how_many_features_serve_several_languages_stands_beside_chance() -> None:
    store = consolidation_store({"a": [True, True], "b": [False, True], "c": [True, False]})
    assert serving_sentence(store) == (
        "at step20, 11 features (summed over 3 families) measurably help in two languages or more, against 6.00"
        " with the features of each language exchanged at random. There are more than by chance on “a” (from step10 on)"
        " and “b” (from step20 on)."
    )
    none = serving_sentence(consolidation_store({"a": [False, False]}))
    assert none.startswith("at step20, 1 feature measurably helps in")
    assert none.endswith("exchanged at random. On no family are there more.")
    unknown = store.assign(several_by_chance=store["several_by_chance"] * np.nan)
    assert serving_sentence(unknown) == (
        "at step20, no family has features that measurably help in one language beside such in another."
    )


def test_table_has_the_numbers_of_each_checkpoint_and_the_features_of_both_languages(inputs: ReportInputs) -> None:
    run, store = inputs.runs[0], inputs.consolidations[0]
    words = feature_words(run.features)
    (table,) = language_tables(store, run, words)
    assert table.run == run.key and table.languages == ["english", "french"]
    assert table.families["gender"][1] == (
        "step20",
        ["0.50 (0.40 to 0.60)", "0.90", "0.70", "0.20", "0.10", "0.010", "25\u00a0%"],
    )
    assert table.families["silent"][0][1][0] == "– (– to –)"
    assert table.features == {}  # none helps both tasks at the last checkpoint
    run.relie["indirect_effect"][1, 1, [0, 2]] = [0.4, 0.3]
    run.relie["indirect_effect"][0, 1, [0, 2]] = [0.2, 0.6]
    run.relie["measurable"][:, 1, [0, 2]] = True
    (table,) = language_tables(store, run, words)
    rows = [(2, ["+0.60", "+0.30"], "–"), (0, ["+0.20", "+0.40"], "children, oxen")]
    assert table.features == {"agreement": rows}
    many = xr.concat([store] * 4, "language_pair", data_vars="all")
    assert language_tables(many, run, words) == []


def test_overlap_of_tasks_is_told_beside_chance(inputs: ReportInputs) -> None:
    overlaps = compare_tasks(inputs.runs[0].relie)
    assert pairs_beyond(overlaps) == [(0, 1), (0, 1)]
    first = overlaps.isel(checkpoint=0)
    # near: features 0 and 2; far: 0, 2 and 3, of which the largest two are compared
    assert float(first["jaccard"][0, 1]) == 1 / 3 and int(first["features_compared"][0, 1]) == 2
    sentence = overlap_sentence(overlaps)
    assert sentence.startswith(
        "at step20, the mean Jaccard index of top features is 0.00 between tasks of the same phenomenon, in different"
        " languages, against 1.00 between halves of one task, "
    )
    assert sentence.endswith(
        " with features exchanged at random; it is beyond chance on none of 1 pairs: no more than chance."
    )
    rows = overlap_rows(overlaps)
    assert [row[0] for row in rows] == ["step10", "step20"] and rows[0][1][0] == "0.33" and rows[0][1][-1] == "0 of 1"
    found = overlaps.assign(beyond_chance=overlaps["jaccard"] >= 0)
    assert overlap_sentence(found).endswith("it is beyond chance on 1 of 1 pairs.")
    nothing = compare_tasks(inputs.runs[0].relie.assign(measurable=inputs.runs[0].relie["measurable"] & False))
    for languages in (["french"] * 2, ["french", ""]):
        other = overlap_sentence(overlaps.assign_coords(language=("task", languages)))
        assert " between tasks of the same phenomenon, against " in other
    assert overlap_sentence(nothing) == "at step20, no two tasks have features with a measurable effect on both."


def test_features_of_most_tasks_come_first(inputs: ReportInputs) -> None:
    run = inputs.runs[0]
    run.relie["indirect_effect"][:, -1] = [[0.0, 1.0, 0.9, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0, 0.0, 0.0]]
    run.relie["measurable"][:, -1] = abs(run.relie["indirect_effect"][:, -1]) > 0.1
    assert common_features(run, {2: ["children"]}) == [(2, "2 of 2", "near, far", "children")]
    assert common_features(run, {}, count=1) == []


def written(inputs: ReportInputs, directory: Path) -> str:
    """The page as it is written."""
    site = Site(directory)
    site.page("tasks", suite="toy", inputs=inputs, pages=[], runs=[], **tasks_page(inputs, site))
    return (directory / "tasks.html").read_text(encoding="utf-8")


def test_page_tells_of_languages_where_they_are_compared_and_not_elsewhere(
    inputs: ReportInputs, tmp_path: Path
) -> None:
    page, without = written(inputs, tmp_path / "a"), written(replace(inputs, consolidations=[]), tmp_path / "b")
    assert "<h1>Tasks and languages</h1>" in page and "Consolidation across languages</h2>" in page
    assert "<h1>Tasks</h1>" in without and "Consolidation" not in without
    assert "In pair · l1 · seed 0: English and French share features at step20 on 3 of 4" in page
    shown = re.findall(r"<figure data-choices='(.*?)'", page)
    assert sum("english and french" in choices for choices in shown) == len(KINDS)
    for stem in re.findall(r'src="(figures/.*?)\.svg"', page):
        assert all((tmp_path / "a" / f"{stem}.{ending}").exists() for ending in ("svg", "pdf", "csv")), stem
    texts = {finding.label: finding.text for finding in summarise(inputs, find_all_features(inputs, inputs.runs[0]))}
    assert texts["Languages"].startswith("In pair · l1 · seed 0: English and French share features at step20 on 3 of 4")
    assert "Languages" not in {finding.label for finding in summarise(replace(inputs, consolidations=[]), {})}


def test_many_languages_have_a_matrix_instead(inputs: ReportInputs, tmp_path: Path) -> None:
    store = inputs.consolidations[0]
    pairs = [("english", "french"), ("english", "dutch"), ("french", "dutch"), ("dutch", "german")]
    many = xr.concat([store] * 4, "language_pair", data_vars="minimal").assign_coords(
        language_pair=[", ".join(pair) for pair in pairs],
        first_language=("language_pair", [first for first, _ in pairs]),
        second_language=("language_pair", [second for _, second in pairs]),
    )
    page = written(replace(inputs, consolidations=[many.assign_attrs(store.attrs)]), tmp_path)
    assert "Overlap between languages at step20" in page and "english and french" not in page
    assert "4 of 4 pairs of languages share features" in page


def test_links_lead_to_features_and_show_what_is_said_of_them(inputs: ReportInputs, tmp_path: Path) -> None:
    run = inputs.runs[0]
    run.relie["indirect_effect"][:, -1] = [[0.0, 1.0, 0.9, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0, 0.0, 0.0]]
    run.relie["measurable"][:, -1] = abs(run.relie["indirect_effect"][:, -1]) > 0.1
    said = Annotation("toy", *run.key, 2, "<plural>", "", "", 2)
    page = written(replace(inputs, annotations=[said]), tmp_path)
    assert 'href="feature.html#pair-l1-seed0/2"' in page
    assert '<span class="annotation">&lt;plural&gt;</span>' in page


def test_a_comparison_of_languages_without_its_run_is_named(inputs: ReportInputs) -> None:
    other = with_facts(consolidation_store(COURSES), comparison="other", variant="l1", seed=0)
    with pytest.raises(StoreError, match="compared of other · l1 · seed 0, of which no run is given; give its runs"):
        replace(inputs, consolidations=[other])
    assert make_run(six_features()).key == inputs.runs[0].key
