"""The page on ability."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from browser import needs_browser, opened
from report_stores import (
    FACTS,
    SENTENCES,
    choice_store,
    many_tasks,
    six_features,
    suite_behaviour,
    task_facts,
    toy_inputs,
    with_facts,
)

from chronocoder.report.ability_page import ability_figures, ability_page, similarity_figures, undefined_sentences
from chronocoder.report.choice import choice_rows
from chronocoder.report.inputs import ReportInputs
from chronocoder.report.site import FigureGroup, Site
from chronocoder.report.tasks import task_rows
from chronocoder.stores import strings

NEAR, FAR = [0.5, 0.9, 1.0], [0.5, 0.1, 0.9]


@pytest.fixture
def inputs() -> ReportInputs:
    """A report in which the far task compares sentences, and has a warning."""
    warned = suite_behaviour(np.array([NEAR, FAR]), FACTS | {"far": FACTS["far"].assign_attrs(SENTENCES)})
    return replace(toy_inputs(six_features()), behaviour=with_facts(warned))


def written(inputs: ReportInputs, directory: Path) -> Path:
    site = Site(directory)
    site.add_static()
    site.page(
        "ability", suite="toy", pages=[("ability", "Ability")], runs=[], inputs=inputs, **ability_page(inputs, site)
    )
    return directory / "ability.html"


def text_of(page: Path) -> str:
    return re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))


def choices_of(group: FigureGroup) -> list[tuple[str, ...]]:
    return [figure.choices for figure in group.figures]


def test_table_tells_what_each_task_asks_and_of_which_pairs(inputs: ReportInputs) -> None:
    near, far = task_rows(inputs.behaviour)
    assert near == (
        "near",
        ["english"],  # both are about the same phenomenon
        "next token",
        "1.00 (0.95\u00a0to\u00a01.00)",
        "+2.00 logits",
        "9 of 10",
        [1],
        0,
        ["all pairs can be used"],
        "",
    )
    assert (far.metric, far.difference, far.left_out, far.ties) == ("sentence", "+1.60 nats", [0], 2)
    assert far.warnings == "made for <other> metrics"


def test_table_has_no_columns_for_groups_that_are_single_tasks() -> None:
    facts = {name: task_facts("english", name) for name in ("near", "far")}
    assert [row.groups for row in task_rows(suite_behaviour(np.array([NEAR, NEAR]), facts))] == [[], []]


def test_table_has_no_columns_for_what_no_task_names() -> None:
    (row,) = task_rows(suite_behaviour(np.array([NEAR]), {"near": task_facts(several_tokens=3, left_out_length=0)}))
    assert row.groups == [] and row.left_out == []
    assert row.notes[1] == "in 3 pairs the answers have several tokens, of which the first is compared"


def test_changes_are_rows_with_both_halves_and_the_level_of_chance() -> None:
    rows = choice_rows(choice_store())
    assert rows == [
        ("near", "0.004", "step0 → step10", "step10 to step20", "+0.31", "+0.25 (+0.10 to +0.40)", "0.12"),
        ("near", "0.004", "step10 → step20", "step20", "+0.11", "+0.050 (−0.050 to +0.15)", "0.12"),
    ]


def test_page_shows_warnings_and_escapes_them(inputs: ReportInputs, tmp_path: Path) -> None:
    text = text_of(written(inputs, tmp_path))
    assert "▲ 1 of 2 tasks has a warning" in text
    assert '<tr class="warned"> <th scope="row">▲ far</th>' in text
    assert "<br> <strong>▲ made for &lt;other&gt; metrics.</strong> </td>" in text
    assert text.count('reason">Left out: ') == 1
    assert 'reason">Left out: the answers have different numbers of tokens</th>' in text
    assert re.findall("<option.*?>(.*?)</option>", text) == ["by task", "by language"]
    assert "Which checkpoints are compared" not in text and "A look at every checkpoint" not in text


def test_page_without_warnings_and_groups(inputs: ReportInputs, tmp_path: Path) -> None:
    plain = suite_behaviour(np.array([NEAR, FAR]), {"near": task_facts(), "far": task_facts()})
    text = text_of(written(replace(inputs, behaviour=with_facts(plain)), tmp_path))
    assert "<select" not in text and 'class="warned"' not in text and ">Language</th>" not in text


def test_why_a_metric_was_taken_is_told_once_where_it_is_the_same_for_all_tasks(
    inputs: ReportInputs, tmp_path: Path
) -> None:
    why, once = '<span class="part">all pairs can be used', "Metric, of each task: all pairs can be used."
    text = text_of(written(inputs, tmp_path / "same"))
    assert once in text and why not in text and ">Metric</th>" in text
    facts = {"near": task_facts(), "far": task_facts(several_tokens=3)}
    other = suite_behaviour(np.array([NEAR, FAR]), facts)
    text = text_of(written(replace(inputs, behaviour=with_facts(other)), tmp_path / "different"))
    assert once not in text and text.count(why) == 2 and ">Metric, and why</th>" in text


def test_groups_come_before_many_tasks(inputs: ReportInputs, tmp_path: Path) -> None:
    store, site = many_tasks(45), Site(tmp_path)
    group = ability_figures("ability", store, replace(inputs, contrasts=[]), site)
    assert group.options == [["by phenomenon", "by task"]]
    titles = [figure.title for figure in group.figures]
    assert titles == [
        "Mean accuracy by phenomenon",
        *(f"Accuracy: {name} ({part} of 2)" for name in ("agreement", "binding", "others") for part in (1, 2)),
    ]
    few = ability_figures("ability", store.isel(task=slice(12)), replace(inputs, contrasts=[]), site)
    assert few.options == [["by task", "by phenomenon"]] and len(few.figures) == 2


def test_many_tasks_without_groups_are_parted(inputs: ReportInputs, tmp_path: Path) -> None:
    store = many_tasks(14).drop_dims("group")
    group = ability_figures("ability", store, replace(inputs, contrasts=[]), Site(tmp_path))
    assert [figure.title for figure in group.figures] == [
        "Accuracy: all tasks (1 of 2)",
        "Accuracy: all tasks (2 of 2)",
    ]
    assert group.levels == () and choices_of(group) == [(), ()]


def test_page_says_since_when_ability_lasts(inputs: ReportInputs, tmp_path: Path) -> None:
    store = with_facts(suite_behaviour(np.array([[0.9, 0.4, 0.9], [0.9, 0.9, 0.52]]), FACTS))
    page = written(replace(inputs, behaviour=store), tmp_path).read_text(encoding="utf-8")
    assert '<td class="since">step20 (50\u00a0k\u00a0tokens)</td>' in page and '<td class="since">no</td>' in page
    assert "on 1 of 2 tasks: from step20 (50 k tokens) on." in page


def test_similarity_is_shown_by_three_measures_at_each_site(inputs: ReportInputs, tmp_path: Path) -> None:
    titles = ["Cosine of activations", "Pearson correlation of activations", "Linear CKA of activations"]
    one = similarity_figures("similarity", inputs.similarity, inputs.comparisons, Site(tmp_path))
    assert one.levels == () and [figure.title for figure in one.figures] == [
        *(f"{title} at residual.2" for title in titles),
        "Similarity to the last checkpoint at residual.2",
    ]
    two = xr.concat([inputs.similarity, inputs.similarity.assign_coords(site=strings(["mlp_out.1"]))], "site")
    several = similarity_figures("similarity", two, inputs.comparisons, Site(tmp_path))
    assert several.options == [["residual.2", "mlp_out.1"]] and len(several.figures) == 8


def test_it_is_said_where_a_measure_is_undefined(inputs: ReportInputs) -> None:
    widths = inputs.similarity.copy(deep=True)
    widths["cosine"].attrs["undefined"] = "activations of different widths have no entries in common"
    assert undefined_sentences(inputs.similarity) == []
    assert undefined_sentences(widths) == [
        "Cosine is not defined for every two checkpoints: activations of different widths have no entries in common."
    ]


def test_page_shows_choice_and_scan(inputs: ReportInputs, tmp_path: Path) -> None:
    scan = with_facts(inputs.behaviour.merge(inputs.similarity[["linear_cka"]], compat="identical"))
    given = replace(inputs, choice=choice_store(), reasons={"pair": "It <rises>.", "same": "a control"}, scan=scan)
    text = text_of(written(given, tmp_path))
    assert "1 of 2 tasks changes." in text and "<td>It &lt;rises&gt;.</td>" in text and "a control" not in text
    assert '<td class="number">+0.25 (+0.10 to +0.40)</td>' in text
    assert "A look at every checkpoint" in text
    figures = tmp_path / "figures" / "ability"
    assert (figures / "changes.svg").exists() and (figures / "steps-near.csv").exists()
    assert {path.stem for path in figures.glob("scan-similarity*.svg")} == {
        "scan-similarity-residual.2-1",
        "scan-similarity-residual.2-2",
    }


def test_page_of_a_choice_without_changes(inputs: ReportInputs, tmp_path: Path) -> None:
    nothing = choice_store().isel(change=slice(0)).assign_attrs(summary="Nothing is chosen.")
    text = text_of(written(replace(inputs, choice=nothing, comparisons={}), tmp_path))
    assert "Nothing is chosen." in text and "Changes in the curves" not in text


@needs_browser
def test_browser_switches_figures(inputs: ReportInputs, tmp_path: Path) -> None:
    page = written(inputs, tmp_path)
    with opened(page) as shown:
        visible = "#ability figure:not([hidden]) figcaption"
        assert shown.locator(visible).inner_text() == "Accuracy on minimal pairs by task"
        shown.select_option("#ability select", "by language")
        assert shown.locator(visible).inner_text() == "Mean accuracy by language"
        assert shown.locator("#similarity figure:not([hidden])").count() == 4
