"""The table of all features and the page of each: what they hold, and what a browser makes of it."""

import csv
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from browser import needs_browser, opened
from report_stores import (
    HOSTILE,
    evaluation_store,
    longer,
    make_run,
    of_sentences,
    six_features,
    with_clusters,
    with_facts,
)

from chronocoder.errors import ChronocoderError
from chronocoder.report.ablations import ablation_part
from chronocoder.report.annotations import Annotation, read_annotations
from chronocoder.report.codes import code_part
from chronocoder.report.conditions import condition_part
from chronocoder.report.data import CLASSES
from chronocoder.report.examples import example_part
from chronocoder.report.feature_records import effect_part, group_part, record_part
from chronocoder.report.features_page import feature_page, features_page, write_features
from chronocoder.report.inputs import ReportInputs, Run
from chronocoder.report.run_records import run_record, task_table
from chronocoder.report.site import Site
from chronocoder.report.table_component import as_classic_script

RUN = "pair-l1-seed0"
FORMULA = '=HYPERLINK("http://127.0.0.1")'


@pytest.fixture
def run(inputs: ReportInputs) -> Run:
    return inputs.runs[0]


def write_pages(inputs: ReportInputs, directory: Path) -> Path:
    site = Site(directory)
    site.add_static()
    common: dict[str, Any] = {
        "suite": inputs.suite,
        "pages": [("features", "Features")],
        "runs": [],
        "inputs": inputs,
    }
    site.page("features", **common, **features_page(inputs, site))
    site.page("feature", **common, **feature_page(inputs, site))
    for run in inputs.runs:
        write_features(run, site)
    return directory


def loaded(directory: Path, name: str) -> Any:
    text = (directory / "data" / f"{name}.js").read_text(encoding="ascii")
    assert text.startswith(f'chronocoder.put("{name}",') and text.endswith(");\n")
    return json.loads(text[len(f'chronocoder.put("{name}",') : -3])


# What is written


def test_effects_are_those_of_the_store_on_the_tasks_where_there_are_any(run: Run) -> None:
    relie = run.relie
    for place, feature in enumerate(relie["feature"].values):
        record = effect_part(run)(place)
        size = abs(relie["indirect_effect"].sel(feature=feature)).max("checkpoint").values
        assert record["tasks"] == sorted(np.flatnonzero(size).tolist(), key=lambda task: -size[task])
        for row, task in enumerate(record["tasks"]):
            own = relie.isel(task=task).sel(feature=feature)
            np.testing.assert_allclose(record["effect"][row], own["indirect_effect"])
            np.testing.assert_allclose(record["shareHigh"][row], own["relative_indirect_effect_high"], rtol=0.005)
            assert record["measurable"][row] == own["measurable"].values.tolist()
            assert CLASSES[record["class"][row][0]] == own["feature_class"].item()
            assert CLASSES[record["class"][row][1]] == own["normalised_class"].values[0]


def test_undefined_shares_are_null(run: Run) -> None:
    record = effect_part(run)(1)
    assert record["tasks"] == [1] and record["share"] == [[0.0, 1.0]]
    assert effect_part(run)(5) == {name: [] for name in record}


def test_conditions_are_those_of_tasks_with_several(run: Run) -> None:
    part = condition_part(run)
    assert part(5) == {"conditions": {}}
    ((task, own),) = part(2)["conditions"].items()
    assert task == 1
    assert own["effect"] == [[-0.3, -0.2], [0.0, 0.9]] and own["measurable"] == [[1, 1], [0, 1]]
    assert own["class"] == ["emerged", "emerged"] and own["reverses"] == [0, 0]


def test_groups_are_listed_where_the_feature_acts(run: Run) -> None:
    (languages,) = group_part(run)(1)["groups"]
    assert languages == {"kind": "language", "names": ["french"], "share": [[0.0, 1.0]]}
    assert group_part(run)(5)["groups"][0]["names"] == []


def test_codes_and_decoder_norms(run: Run) -> None:
    codes = code_part(run)(0)["codes"]
    assert codes["supported"] == [0, 1] and codes["r2"] == [0.125, 0.9] and codes["norm"] == [0.5, 0.5]
    assert codes["refitted"] == [1.5, 1.5] and codes["present"] == [0, 1]
    assert (codes["left"], codes["supplied"]) == ([0.75, 0.75], [0.125, 0.125])


def test_examples_tokens_and_neighbours_are_those_of_the_store(run: Run) -> None:
    part = example_part(run)
    assert part(1) == {}
    record = part(0)
    first, second = record["examples"]["rows"]
    assert first == [["<|eos|>", " the", " ch", "ild", "ren", HOSTILE], [0, 1, 3, 9, 0, 7], 3, "english"]
    assert second == [[" two", " ox", "en"], [0, 0, 5], 2, "french, web"]
    assert record["examples"]["largest"] == 2.0
    assert record["examples"]["languages"] == [("english", 0.75), ("french", 0.25)]
    assert record["tokens"]["promoted"] == [[HOSTILE, " are", " were"]] * 2
    assert record["tokens"]["suppressedBy"] == [[-0.5, -0.375, -0.125]] * 2
    assert record["counts"] == [40, 50, 0, 10]
    assert record["nearest"] == {"features": [[2, 1]] * 2, "cosine": [[0.875, 0.25]] * 2}
    assert record["together"] == {
        "features": [1, -1],
        "jaccard": [0.5, None],
        "expected": [0.0625, None],
        "lift": [6.0, None],
    }


def test_exact_effects_are_at_hand_where_a_feature_was_ablated(run: Run) -> None:
    part = ablation_part(run)
    assert part(3) == {"ablations": {}}
    assert set(part(4)["ablations"][1]) == {"exact", "accuracy", "difference", "log_probability_change", "conditions"}
    near, far = part(0)["ablations"].values()
    assert near["exact"] == [0.5, 0.0] and far["conditions"] == [[-0.4, 0.0], [0.0, 0.0]]
    assert far["roles"]["names"] == ["subject", "last token"]
    assert far["roles"]["effect"] == [[[-0.8, 0.0], [-0.08, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
    assert far["roles"]["low"][0][0] == [-0.85, -0.05]


def test_conditions_of_ablations_are_in_the_order_of_those_of_all_effects(run: Run) -> None:
    expected = ablation_part(run)(0)
    run.ablations["far"] = run.ablations["far"].isel(condition=[1, 0])
    assert ablation_part(run)(0) == expected


def test_contexts_are_those_of_largest_effect_and_then_of_largest_activation(run: Run) -> None:
    (first, second) = (record := part_of(run, 0))["contexts"]
    assert record["largest"] == 2.0
    assert first == [
        [["<|eos|>", "two", " ox", "en"]],
        [[0, 0, 9, 2]],
        [[[0.0, 0.0, 0.75, 0.25]]] * 2,
        " are",
        " is",
        "near one",
    ]
    assert second[:2] == [[["<|eos|>", " the", HOSTILE]], [[0, 5, 3]]]
    run.ablations["near"]["position_effect"][:] *= run.ablations["near"]["position_effect"].notnull()
    run.ablations["near"]["position_effect"][:] = run.ablations["near"]["position_effect"] * 0
    assert [row[3] for row in part_of(run, 0)["contexts"]] == [" are", " is"]
    run.ablations["near"]["position_activation"][:] = run.ablations["near"]["position_activation"] * 0
    assert part_of(run, 0)["contexts"] == []


def part_of(run: Run, place: int) -> dict[str, Any]:
    record: dict[str, Any] = ablation_part(run)(place)["ablations"][0]
    return record


def test_contexts_of_sentences_have_both() -> None:
    run = make_run(of_sentences(six_features()))
    (texts, levels, effects, *_), *_ = ablation_part(run)(0)["ablations"][1]["contexts"]
    assert len(texts) == len(levels) == len(effects[0]) == 2
    assert effects[0] == [[0.0, 0.0, 0.75, 0.25], [0.0, 0.0, -0.375, -0.125]]


def test_a_record_has_all_parts(run: Run) -> None:
    record = record_part(run)(0)
    assert {"tasks", "conditions", "groups", "codes", "examples", "tokens", "counts", "nearest", "ablations"} <= set(
        record
    )


def test_the_record_of_a_run_tells_what_its_features_share(run: Run) -> None:
    record = run_record(run, "toy", {"far": "made for <other> metrics"})
    assert (record["slug"], record["label"], record["suite"]) == (RUN, "pair · l1 · seed 0", "toy")
    assert record["features"] == 6 and record["isExact"] is False and record["nearestByChance"] == [0.375] * 2
    assert record["words"] == {0: ["children", "oxen"]} and record["norm"] == [[0.5] * 6] * 2
    near, far = record["tasks"]
    assert near["conditions"] == ["near one"] and far["conditions"] == ["far one", "far two"]
    assert near["units"] == "logits" and far["warning"] == "made for <other> metrics"
    assert near["clean"] == {"accuracy": [0.9, 0.9], "difference": [1.5, 1.5]}


def test_the_table_of_a_task_has_the_features_that_act_on_it(run: Run) -> None:
    table = task_table(run, 0)
    assert table["features"] == [0, 2, 3]
    assert table["effect"] == [[1.0, 0.5, 0.05], [0.0, 0.6, 0.0]]
    assert table["measurable"] == [[1, 1, 0], [0, 1, 0]] and table["frequency"] == [0.25] * 3
    assert [CLASSES[kind] for kind in table["class"][0]] == ["discontinued", "emerged", "discontinued"]
    assert [len(of) for of in table["class"]] == [3, 3, 3]


def test_all_features_are_written_in_shards(inputs: ReportInputs, tmp_path: Path) -> None:
    big = evaluation_store(["step10", "step20"], 130)
    relie = inputs.runs[0].relie
    padded = relie.reindex(
        feature=np.arange(130), fill_value={name: np.zeros((), of.dtype) for name, of in relie.items()}
    )
    classes = {
        name: padded[name].where(padded["feature"] < 6, "no effect") for name in ("feature_class", "normalised_class")
    }
    run = replace(inputs.runs[0], relie=padded.assign(classes), evaluation=big)
    directory = write_pages(replace(inputs, runs=[run]), tmp_path)
    assert [len(loaded(directory, f"{RUN}/features-{shard}")) for shard in range(3)] == [50, 50, 30]
    assert loaded(directory, f"{RUN}/features-2")[29]["tasks"] == []
    assert loaded(directory, f"{RUN}/run")["features"] == 130
    report = loaded(directory, "report")
    assert report["shard"] == 50 and report["bases"][report["basis"]] == "IE over total |IE|"
    facts = {"comparison": "pair", "variant": "l1", "seed": 0, "features": 130}
    assert report["runs"] == [{"slug": RUN, "label": "pair · l1 · seed 0", **facts}]


def test_annotations_of_all_suites_are_written(inputs: ReportInputs, tmp_path: Path) -> None:
    annotations = [Annotation(suite, "pair", "l1", 0, 3, "a", "b", "</script>", 2) for suite in ("toy", "other")]
    directory = write_pages(replace(inputs, annotations=annotations), tmp_path)
    rows = loaded(directory, "annotations")
    assert [row["suite"] for row in rows] == ["toy", "other"] and "line" not in rows[0]


@pytest.mark.parametrize("ending", ["", ";\n", ";\n/*! licences: export{x} */\n"])
def test_a_module_becomes_a_classic_script(ending: str) -> None:
    script = as_classic_script(f"var t=1,vh=t;export{{t as DateTime,vh as default}}{ending}")
    assert "window.DataTable = vh;" in script and "export{t" not in script
    assert ("licences" in script) == ("licences" in ending)


@pytest.mark.parametrize(
    "module",
    [
        "var t=1;",
        "var t=1;export{t as DateTime};",
        "import x from 'y';var t=1;export{t as default};",
        "var t=import.meta.url;export{t as default};",
        "var t=1;export{t as default};t=2;",
        "export const a=1;var t=1;export{t as default};",
    ],
)
def test_another_kind_of_module_is_an_error(module: str) -> None:
    with pytest.raises(
        ChronocoderError, match="itables .*: dt_bundle.js is no module .*; install a version of itables"
    ):
        as_classic_script(module)


# What a browser makes of it


@contextmanager
def shown_feature(directory: Path, fragment: str) -> Iterator[Any]:
    with opened(directory / "feature.html", fragment=f"#{fragment}") as page:
        page.wait_for_function(
            "() => !document.getElementById('parts').hidden || document.getElementById('missing').textContent"
        )
        yield page


@contextmanager
def shown_table(directory: Path, fragment: str = "") -> Iterator[Any]:
    with opened(directory / "features.html", fragment=fragment and f"#{fragment}") as page:
        page.wait_for_selector("#features tbody tr")
        yield page


def numbers_of(page: Any) -> list[str]:
    texts: list[str] = page.locator("#features tbody th a").all_inner_texts()
    return texts


@needs_browser
def test_the_table_sorts_filters_and_searches(inputs: ReportInputs, tmp_path: Path) -> None:
    write_pages(inputs, tmp_path)
    with shown_table(tmp_path, f"{RUN}/far") as page:
        assert page.locator("#features caption").inner_text() == "Features of pair · l1 · seed 0 on far"
        assert numbers_of(page)[:5] == ["1", "3", "4", "0", "2"]
        assert page.locator("#features tbody tr").first.locator("td").nth(2).inner_text() == "2.000"
        assert page.locator("#features tbody tr").first.locator("td").nth(3).inner_text() == "(0.000)"
        page.get_by_role("columnheader", name="IE at step10").get_by_role("button").click()
        page.wait_for_function("() => document.querySelector('#features tbody th a').textContent === '3'")
        page.select_option("#class", label="emerged")
        assert sorted(numbers_of(page)) == ["2", "4"]
        page.select_option("#basis", label="published")
        page.wait_for_function("() => document.querySelectorAll('#features tbody tr').length === 3")
        assert sorted(numbers_of(page)) == ["1", "2", "4"]
        page.select_option("#class", label="any")
        page.get_by_label("only those with a measurable effect on the task").check()
        assert sorted(numbers_of(page)) == ["0", "1", "2", "3", "4"]
        page.get_by_role("searchbox").fill("oxen")
        assert numbers_of(page) == ["0"]
        page.select_option("#task", label="near")
        page.wait_for_function("() => document.querySelector('#features caption').textContent.endsWith('near')")
        assert numbers_of(page) == ["0"]
        page.get_by_role("link", name="0", exact=True).click()
        page.wait_for_url(re.compile(rf"feature\.html#{RUN}/0/near$"))


@needs_browser
def test_ten_thousand_features_are_searched_and_sorted_without_lag(inputs: ReportInputs, tmp_path: Path) -> None:
    count = 10_000
    run = inputs.runs[0]
    random = np.random.default_rng(0)
    relie = six_features().isel(feature=np.arange(count) % 5).assign_coords(feature=np.arange(count))
    relie["indirect_effect"] = relie["indirect_effect"] * random.uniform(0.5, 1.5, count)
    large = replace(
        run,
        relie=with_facts(relie, **run.key._asdict(), site="residual.2"),
        evaluation=evaluation_store(run.checkpoints, count),
    )
    site = Site(tmp_path)
    site.add_static()
    of_all = replace(inputs, runs=[large])
    site.page("features", suite="toy", pages=[], runs=[], inputs=of_all, **features_page(of_all, site))
    timed = """(action) => { const start = performance.now(); action(); return performance.now() - start; }"""
    with shown_table(tmp_path, f"{RUN}/far") as page:
        assert "10,000" in page.locator(".dt-info").inner_text()
        search = page.get_by_role("searchbox")
        elapsed = page.evaluate(f"({timed})(() => new DataTable('#features').search('9999').draw())")
        assert numbers_of(page) == ["9999"] and elapsed < 1000
        search.fill("")
        elapsed = page.evaluate(f"({timed})(() => new DataTable('#features').order([2, 'asc']).draw())")
        assert elapsed < 1000 and len(numbers_of(page)) == 25


@needs_browser
def test_the_page_of_a_feature_shows_its_numbers(inputs: ReportInputs, tmp_path: Path) -> None:
    write_pages(inputs, tmp_path)
    with shown_feature(tmp_path, f"{RUN}/0/far") as page:
        assert page.locator("h1").inner_text() == "Feature 0"
        text = page.locator("main").inner_text()
        assert "most active on: children, oxen" in text and "75 %\u00a0of activation" not in text
        assert page.locator("#task-table tbody tr").count() == 2
        assert page.locator("#task").input_value() == "1"
        assert "discontinued by every basis (97\u00a0% of resamples)" in text
        assert "Mean of conditions" in text and "far two · discontinued" in text
        assert "0.90 → 0.60" in text and "−0.800 (−0.900 to −0.700)" in text
        assert page.locator("#task-parts .bar .exact").count() > 0
        assert "−0.80 (−0.85 to −0.75)" in text  # by role of the token
        assert page.locator("#decoder-table tbody tr").first.inner_text().split("\t")[-1] == "no"
        assert "RelIE by language" in text and "0.06" in page.locator("#together").inner_text()
        assert page.locator("#nearest a").first.get_attribute("href") == f"feature.html#{RUN}/2"
        page.select_option("#shading", label="effect at step20")
        assert page.locator('#contexts mark[title="0.750 logits"]').count() == 1
        assert page.locator('#contexts mark.harms[title="−0.250 logits"]').count() == 1
        page.select_option("#shading", label="activation")
        assert page.locator("#contexts mark[title]").count() == 0 and page.locator("#contexts mark").count() == 4
        assert page.locator("#histogram rect").count() == 4
        assert "100 of 1000 validation tokens" in text
        page.locator("#next").click()
        page.wait_for_function("() => document.querySelector('h1').textContent === 'Feature 1'")
        assert "None are stored" in page.locator("#example-lines").inner_text()


@needs_browser
def test_addresses_that_lead_nowhere_say_so(inputs: ReportInputs, tmp_path: Path) -> None:
    write_pages(inputs, tmp_path)
    with shown_feature(tmp_path, f"{RUN}/6") as page:
        assert "has the features 0 to 5; “6” is none of them" in page.locator("#missing").inner_text()
    with shown_feature(tmp_path, "nothing-l1-seed0/1") as page:
        assert "no crosscoder “nothing-l1-seed0”" in page.locator("#missing").inner_text()


@needs_browser
def test_features_of_longer_comparisons_have_a_course(inputs: ReportInputs, tmp_path: Path) -> None:
    run = make_run(with_clusters(longer(inputs.runs[0].relie)), "course")
    write_pages(replace(inputs, runs=[run], seed_matches=[]), tmp_path)
    with shown_feature(tmp_path, "course-l1-seed0/1/far") as page:
        text = page.locator("#task-parts").inner_text()
        assert "onset step20 · peak step20" in text and "kept to the end" in text
    with shown_table(tmp_path) as page:
        heads = page.locator("#features thead th").all_inner_texts()
        assert sum(head.startswith("RelIE at") for head in heads) == 3


@needs_browser
def test_both_sentences_of_a_pair_and_warnings_are_shown(inputs: ReportInputs, tmp_path: Path) -> None:
    run = make_run(of_sentences(six_features()))
    behaviour = inputs.behaviour.assign(warnings=xr.DataArray(["", "made for <other> metrics"], dims="task"))
    write_pages(replace(inputs, runs=[run], behaviour=behaviour), tmp_path)
    with shown_feature(tmp_path, f"{RUN}/0/far") as page:
        text = page.locator("main").inner_text()
        assert "▲ made for <other> metrics." in text and "IE (nats)" in text
        assert "Log-probability of the right sentence, change in nats" in text
        assert page.locator("#contexts li div").all_inner_texts()[0].startswith("✓ ")
        assert page.locator("#task option").nth(1).inner_text() == "▲ far"


@needs_browser
def test_exact_effects_are_shown_once(inputs: ReportInputs, tmp_path: Path) -> None:
    run = inputs.runs[0]
    relie = run.relie.assign(estimator=xr.full_like(run.relie["estimator"], "exact"))
    write_pages(replace(inputs, runs=[replace(run, relie=relie)]), tmp_path)
    with shown_feature(tmp_path, f"{RUN}/0") as page:
        assert page.locator(".bar .exact").count() == 0 and "Diamond" not in page.locator("main").inner_text()


@needs_browser
def test_hostile_text_stays_text(inputs: ReportInputs, tmp_path: Path) -> None:
    hostile = '<img src=x onerror="document.title=1">&lt;b&gt;'
    annotation = Annotation("toy", "pair", "l1", 0, 0, hostile, hostile, hostile)
    run = inputs.runs[0]
    run.features["token"][0, 0, 3:5] = ["<img/src=x/onerror=alert(1)>", "\u202e\n\x1b"]
    write_pages(replace(inputs, annotations=[annotation]), tmp_path)
    with shown_feature(tmp_path, f"{RUN}/0") as page:
        assert HOSTILE.strip() in page.locator("#example-lines").inner_text()
        assert "\\u202e↵\\u001b" in page.locator("#example-lines").inner_text()
        assert HOSTILE.strip() in page.locator("#token-tables").inner_text()
        assert page.locator("#annotation-label").input_value() == hostile
        assert page.locator("main img").count() == page.locator("main b").count() == 0
    with shown_table(tmp_path) as page:
        page.get_by_role("searchbox").fill("onerror=")
        assert numbers_of(page) == ["0"]
        assert hostile in page.locator("#features tbody tr").first.inner_text()
        page.get_by_role("searchbox").fill("lt;b")
        assert numbers_of(page) == ["0"]
        assert page.locator("main img").count() == page.locator("main b").count() == 0


SAYS = "text => document.getElementById('annotation-state').textContent.includes(text)"


@needs_browser
def test_annotations_make_the_round_trip_through_a_file(inputs: ReportInputs, tmp_path: Path) -> None:
    given = [
        Annotation("toy", "pair", "l1", 0, 2, "kept", "old", ""),
        Annotation("other", "x", "l1", 1, 7, "", "", "n"),
    ]
    write_pages(replace(inputs, annotations=given), tmp_path / "report")
    exported = tmp_path / "annotations.csv"
    note = 'first line\nsecond, with "quotes"; and é'
    with shown_feature(tmp_path / "report", f"{RUN}/0") as page:
        page.fill("#annotation-label", FORMULA)
        page.fill("#annotation-category", "new")
        page.fill("#annotation-note", note)
        assert page.locator("#called").inner_text() == f"{FORMULA} · new"
        assert "1 annotation differs from the file" in page.locator("#annotation-state").inner_text()
        page.reload()
        page.wait_for_selector("#parts:not([hidden])")
        assert page.locator("#annotation-note").input_value() == note
        with page.expect_download() as download:
            page.click("#annotation-export")
        download.value.save_as(exported)
    assert exported.read_bytes().startswith(b"\xef\xbb\xbf")
    with exported.open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.reader(file))[3][5] == f"'{FORMULA}"
    expected = [*given, Annotation("toy", "pair", "l1", 0, 0, FORMULA, "new", note)]
    assert [one._replace(line=0) for one in read_annotations(exported)] == expected

    write_pages(inputs, tmp_path / "other")
    with shown_table(tmp_path / "other") as page:
        page.set_input_files("#annotation-import", exported)
        page.wait_for_function(SAYS, arg="new or changed: 3")
        page.select_option("#annotated", label="category: new")
        assert numbers_of(page) == ["0"] and FORMULA in page.locator("#features").inner_text()
        head, row, *_ = exported.read_text(encoding="utf-8-sig").splitlines()
        unknown = [row.replace("pair,l1,0,2", place) for place in ("pair,l1,0,6", "none,l1,0,2", "pair,l1,0,5")]
        exported.write_text("\n".join([head, *unknown]))
        page.set_input_files("#annotation-import", exported)
        page.wait_for_function(SAYS, arg="Of no feature of this report: lines 2, 3.")
        exported.write_text(f"{head}\n{row.replace('pair,l1,0,2', 'pair,l1,0,' + '9' * 400)}\n")
        page.set_input_files("#annotation-import", exported)
        page.wait_for_function(SAYS, arg="is no whole number")
        exported.write_text("suite,label\n")
        page.set_input_files("#annotation-import", exported)
        page.wait_for_function(SAYS, arg="Nothing was imported")
        assert (
            "the columns are suite, label; they have to be suite, comp"
            in page.locator("#annotation-state").inner_text()
        )
        exported.write_bytes(b"\xff\xfe")
        page.set_input_files("#annotation-import", exported)
        page.wait_for_function(SAYS, arg="not in UTF-8")


@needs_browser
def test_annotations_made_in_several_tabs_are_all_kept(inputs: ReportInputs, tmp_path: Path) -> None:
    write_pages(inputs, tmp_path)
    with shown_feature(tmp_path, f"{RUN}/0") as page:
        with page.expect_popup() as other:
            page.evaluate("address => { window.open(address); }", page.url.replace(f"{RUN}/0", f"{RUN}/1"))
        other.value.wait_for_selector("#parts:not([hidden])")
        for tab, label in ((other.value, "one"), (page, "zero"), (other.value, "first")):
            tab.fill("#annotation-label", label)
        with page.expect_download() as download:
            page.click("#annotation-export")
        download.value.save_as(tmp_path / "annotations.csv")
    found = {one.feature: one.label for one in read_annotations(tmp_path / "annotations.csv")}
    assert found == {0: "zero", 1: "first"}


def saved(page: Any, part: str, name: str) -> bytes:
    """What a button below a part of the page saves."""
    with page.expect_download() as download:
        page.locator(part).get_by_role("button", name=name).click()
    content: bytes = Path(download.value.path()).read_bytes()
    return content


@needs_browser
def test_effects_tokens_and_histogram_can_be_saved(inputs: ReportInputs, tmp_path: Path) -> None:
    write_pages(inputs, tmp_path)
    with shown_feature(tmp_path, f"{RUN}/0/near") as page:
        tables = {
            part: list(csv.DictReader(saved(page, part, "data (CSV)").decode("utf-8-sig").splitlines()))
            for part in ("#task-table", "#contexts", "#histogram")
        }
        pdf = saved(page, "#histogram", "PDF").decode("ascii")
        assert saved(page, "#histogram", "SVG").startswith(b"<svg")
        page.select_option("#task", label="far")
        assert page.url.endswith(f"#{RUN}/0/far")
    effects = {(row["task"], row["checkpoint"]): row["indirect_effect"] for row in tables["#task-table"]}
    expected = inputs.runs[0].relie["indirect_effect"].sel(feature=0)
    for (task, checkpoint), effect in effects.items():
        assert float(effect) == pytest.approx(expected.sel(task=task, checkpoint=checkpoint).item())
    tokens = [(row["pair"], row["token"], row["effect_at_step20"]) for row in tables["#contexts"]]
    assert tokens[2:4] == [("0", " ox", "0.75"), ("0", "en", "0.25")] and tokens[-1][1] == HOSTILE
    assert [row["tokens"] for row in tables["#histogram"]] == ["40", "50", "0", "10"]
    assert pdf.startswith("%PDF") and pdf.count(" re f") == 4
    places = [int(line.split()[0]) for line in pdf.partition("xref")[2].splitlines() if line.endswith(" n ")]
    assert [pdf[place:].partition(" ")[0] for place in places] == ["1", "2", "3", "4", "5"]


@needs_browser
def test_what_is_missing_from_a_copy_is_named(inputs: ReportInputs, tmp_path: Path) -> None:
    (write_pages(inputs, tmp_path) / "data" / RUN / "features-0.js").unlink()
    told = []
    with pytest.raises(AssertionError), opened(tmp_path / "feature.html", fragment=f"#{RUN}/0") as page:  # it complains
        told.append(page.locator("[role=alert]").inner_text())
    assert told == [f"data/{RUN}/features-0.js is missing: copy the whole directory of the report."]
