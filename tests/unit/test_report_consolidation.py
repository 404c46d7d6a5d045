"""The report says whether languages share features, and since when; nothing where there is one language."""

import json
import re
from dataclasses import replace

import pytest
import xarray as xr
from report_stores import consolidation_store, make_run, six_features, toy_inputs, with_facts, with_languages

from chronocoder.errors import StoreError
from chronocoder.report.consolidation import (
    KINDS,
    draw_consolidations,
    language_sentences,
    language_tables,
    pair_sentences,
)
from chronocoder.report.contrasts import find_all_features
from chronocoder.report.data import feature_words
from chronocoder.report.inputs import ReportInputs
from chronocoder.report.page import render_page
from chronocoder.report.summary import summarise

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


def test_table_has_the_numbers_of_each_checkpoint_and_the_features_of_both_languages(inputs: ReportInputs) -> None:
    words = [feature_words(run.features) for run in inputs.runs]
    (table,) = language_tables(inputs.consolidations, inputs.runs, words)
    assert table.label == "pair · l1 · seed 0, english and french" and table.languages == ["english", "french"]
    assert table.families["gender"][1] == (
        "step20",
        ["0.50 (0.40 to 0.60)", "0.90", "0.70", "0.20", "0.10", "0.010", "25\u00a0%"],
    )
    assert table.families["silent"][0][1][0] == "– (– to –)"
    assert table.features == {}  # none helps both tasks at the last checkpoint
    relie = inputs.runs[0].relie
    relie["indirect_effect"][1, 1, [0, 2]] = [0.4, 0.3]
    relie["indirect_effect"][0, 1, [0, 2]] = [0.2, 0.6]
    relie["measurable"][:, 1, [0, 2]] = True
    (table,) = language_tables(inputs.consolidations, inputs.runs, words)
    rows = [("2", ["+0.60", "+0.30"], "–"), ("0", ["+0.20", "+0.40"], "children, oxen")]
    assert table.features == {"agreement": rows}


def test_figures_show_every_family_by_every_measure(inputs: ReportInputs) -> None:
    drawn = draw_consolidations(inputs.consolidations)
    assert list(drawn) == [f"pair · l1 · seed 0, english and french, {kind}" for kind in KINDS]
    figures = next(iter(drawn.values()))
    assert [figure["title"] for figure in figures] == ["Agreement", "Gender", "Number", "Silent"]
    lines = {trace["name"]: trace for trace in figures[1]["data"] if trace.get("name")}
    between = lines["between the languages"]
    assert list(between["y"]) == [0.125, 0.5] and list(between["marker"]["symbol"]) == ["circle-open", "circle"]
    assert list(lines["within a language (ceiling)"]["y"]) == [0.9, 0.9]
    assert list(figures[3]["data"][0]["x"]) == ["step20", "step20"]  # no band where nothing is known


def test_page_has_a_section_where_languages_are_compared_and_none_elsewhere(inputs: ReportInputs) -> None:
    page, without = render_page(inputs), render_page(replace(inputs, consolidations=[]))
    assert "<h2>Consolidation across languages</h2>" in page and "pair · l1 · seed 0, english and french</h3>" in page
    assert 'id="consolidation"' not in without and 'href="#consolidation"' not in without
    document = json.loads(re.findall(r'id="document">(.*?)</script>', page, re.DOTALL)[0])
    assert len(document["figures"]["consolidation"]) == 4
    texts = dict(summarise(inputs, find_all_features(inputs, inputs.runs[0])))
    assert texts["Languages"].startswith("In pair · l1 · seed 0: English and French share features at step20 on 3 of 4")
    assert "Languages" not in dict(summarise(replace(inputs, consolidations=[]), {}))


def test_examples_tell_their_language_and_source(inputs: ReportInputs) -> None:
    document = json.loads(re.findall(r'id="document">(.*?)</script>', render_page(inputs), re.DOTALL)[0])
    examples = document["runs"][0]["examples"]["0"]
    assert examples["languages"] == [["english", 0.75], ["french", 0.25]]
    assert [row[3] for row in examples["rows"]] == ["english", "french, web"]


def test_a_comparison_of_languages_without_its_run_is_named(inputs: ReportInputs) -> None:
    other = with_facts(consolidation_store(COURSES), comparison="other", variant="l1", seed=0)
    with pytest.raises(StoreError, match="compared of other · l1 · seed 0, of which no run is given; give its runs"):
        replace(inputs, consolidations=[other])
    assert make_run(six_features()).key == inputs.runs[0].key
