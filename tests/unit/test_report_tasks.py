"""What the report says of tasks and of groups of tasks."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from report_stores import (
    FACTS,
    SENTENCES,
    make_run,
    many_tasks,
    of_sentences,
    six_features,
    suite_behaviour,
    task_facts,
    toy_inputs,
    with_facts,
)

from chronocoder.report.ability_figures import draw_abilities, group_curves, task_curves
from chronocoder.report.contrasts import find_all_features
from chronocoder.report.data import group_data
from chronocoder.report.feature_figures import draw_shares, share_spread, spread_rows
from chronocoder.report.inputs import ReportInputs
from chronocoder.report.page import render_page
from chronocoder.report.summary import ability_sentence, summarise
from chronocoder.report.tasks import task_rows
from chronocoder.tasks.groups import name_tasks

NEAR, FAR = [0.5, 0.9, 1.0], [0.5, 0.1, 0.9]


@pytest.fixture
def warned() -> xr.Dataset:
    return suite_behaviour(np.array([NEAR, FAR]), FACTS | {"far": FACTS["far"].assign_attrs(SENTENCES)})


@pytest.fixture
def inputs(warned: xr.Dataset) -> ReportInputs:
    """A report in which the far task compares sentences, and has a warning."""
    return replace(toy_inputs(of_sentences(six_features())), behaviour=with_facts(warned))


def test_table_tells_what_each_task_asks_and_of_which_pairs(warned: xr.Dataset) -> None:
    near, far = task_rows(warned)
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


def test_page_shows_warnings_and_escapes_them(inputs: ReportInputs) -> None:
    page = re.sub(r"<script.*?</script>", "", render_page(inputs), flags=re.DOTALL)
    ability = page[page.index('id="ability"') : page.index('id="similarity"')]
    assert "▲ 1 of 2 tasks has a warning" in re.sub(r"\s+", " ", ability)
    assert '<tr class="warned">' in ability and "<th>▲ far</th>" in ability
    assert "<strong>▲ made for &lt;other&gt; metrics.</strong> all pairs can be used" in ability
    assert ability.count('reason">Left out: ') == 1
    assert 'reason">Left out: the answers have different numbers of tokens</th>' in ability
    assert 'data-choice="ability"' in ability


def test_page_without_warnings_and_groups() -> None:
    plain = {"near": task_facts(), "far": task_facts()}
    relie = name_tasks(six_features().drop_dims("group"), plain)
    given = replace(toy_inputs(relie), behaviour=with_facts(suite_behaviour(np.array([NEAR, FAR]), plain)))
    page = render_page(given)
    assert 'data-choice="ability"' not in page and 'class="warned"' not in page and "<th>Language</th>" not in page
    assert group_data(relie) == []


def test_a_task_with_a_warning_does_not_look_like_a_finding(warned: xr.Dataset) -> None:
    curves = task_curves(warned, ["near", "far"])
    assert [(curve.name, curve.heavy, curve.warned) for curve in curves.values()] == [
        ("near", True, False),
        ("▲ far", False, True),
    ]
    (figure,) = draw_abilities(warned, {"pair": ["step0", "step20"]}, [])["by task"]
    _, near, _, far = figure["data"][:4]
    assert (near["name"], far["name"]) == ("near", "▲ far")
    assert (near["line"]["dash"], far["line"]["dash"]) == ("solid", "dot")
    assert far["text"][1] == "step10, 1 k tokens: 0.10 (0.05 to 0.15)<br>▲ made for &lt;other&gt; metrics"
    assert near["text"][1] == "step10, 1 k tokens: 0.90 (0.85 to 0.95)"


def test_groups_are_a_choice_beside_few_tasks(warned: xr.Dataset) -> None:
    figures = draw_abilities(warned, {"pair": ["step0", "step20"]}, [])
    assert list(figures) == ["by task", "by language"]
    (figure,) = figures["by language"]
    assert figure["title"] == "Mean accuracy by language with its 95 % interval; below, the checkpoints compared"
    english, french = figure["data"][1], figure["data"][3]
    assert (english["name"], french["name"]) == ("english (1\u00a0task)", "french (1\u00a0task,\u00a01\u00a0▲)")
    assert (english["line"]["dash"], french["line"]["dash"]) == ("solid", "dot")
    assert english["text"][2].endswith("1.00 (0.97 to 1.02)<br>mean of 1 task")


def test_groups_come_before_many_tasks() -> None:
    store = many_tasks(14)
    figures = draw_abilities(store, {"pair": ["step0", "step20"]}, [])
    assert list(figures) == ["by phenomenon", "by task"]
    assert [figure["title"] for figure in figures["by task"]] == ["agreement", "binding", "others"]
    drawn = [trace["name"] for figure in figures["by task"] for trace in figure["data"] if trace.get("name")]
    assert sorted(drawn) == sorted([*(f"task {place}" for place in range(13)), "▲ task 13"])
    agreement, binding = group_curves(store, "phenomenon")
    assert (agreement.name, agreement.warned) == ("agreement (5\u00a0tasks)", False)
    assert (binding.name, binding.warned) == ("binding (5\u00a0tasks,\u00a01\u00a0▲)", False)
    assert binding.note == "mean of 5 tasks, 1 with a warning"
    np.testing.assert_allclose(binding.accuracy[0], store["accuracy"].values[1::3].mean(axis=0))
    assert list(draw_abilities(store.isel(task=slice(12)), {}, [])) == ["by task", "by phenomenon"]


def test_ability_that_is_the_same_on_all_tasks_is_one_number() -> None:
    store = many_tasks(2)
    assert "accuracy is 1.00; chance is 0.5." in ability_sentence(store.assign(accuracy=store["accuracy"] * 0 + 1))


def test_ability_names_no_task_with_a_warning_as_the_worst() -> None:
    text = ability_sentence(many_tasks(14))
    assert "accuracy lies between 0.53 (“task 12”) and 0.95; chance is 0.5." in text
    assert " Not counted is “task 13” (0.50): a warning says why its accuracy may mislead (▲ in the table of" in text
    assert text.endswith("By phenomenon, the mean over tasks lies between 0.71 (“binding” ▲) and 0.74 (“agreement”).")


def test_ability_lists_few_of_many_warnings() -> None:
    store = many_tasks(14)
    store["warnings"][5:] = "odd"
    text = ability_sentence(store)
    assert "between 0.81 (“task 4”) and 0.95" in text
    assert "Not counted are “task 5” (0.78), “task 6” (0.74), “task 7” (0.71) and 6 more: a warning says why" in text
    assert "may mislead" in text
    store["warnings"][:] = "odd"
    assert ability_sentence(store).endswith(
        "accuracy says little: a warning goes with every task (▲ in the table of tasks)."
    )


def test_summary_warns_of_a_contrast_with_a_warning(inputs: ReportInputs) -> None:
    texts = dict(summarise(inputs, find_all_features(inputs, inputs.runs[0])))
    assert texts["Surface features"].endswith(
        " Read this with caution: a warning goes with “far” (▲ in the table of tasks)."
    )
    assert "−0.10 nats; 1 comes to help" in texts["Surface features"]


def test_page_holds_units_metrics_and_warnings(inputs: ReportInputs) -> None:
    (text,) = re.findall(r'id="document">(.*?)</script>', render_page(inputs), re.DOTALL)
    document = json.loads(text)
    assert document["warnings"] == {"far": "made for <other> metrics"}
    (run,) = document["runs"]
    assert (run["units"], run["metrics"]) == (["logits", "nats"], ["next_token", "sentence"])


def test_page_holds_shares_by_group() -> None:
    relie = six_features()
    (found,) = group_data(relie)
    assert (found["kind"], found["names"]) == ("language", ["english", "french"])
    assert found["share"][0] == [[1.0, None, 0.455, 1.0, None, None], [0.0, None, 0.545, 0.0, None, None]]
    assert found["acts"][1] == [[1, 0, 1, 1, 0, 0], [0, 1, 1, 0, 1, 0]]


def test_shares_of_many_tasks_are_drawn_by_group() -> None:
    relie = six_features()
    assert list(spread_rows(relie, "step20")) == ["near", "far"]
    many = xr.concat([relie] * 7, "task", data_vars="minimal", coords="minimal")
    rows = spread_rows(many, "step20")
    assert list(rows) == ["english (7 tasks)", "french (7 tasks)"]
    spread = share_spread(relie, "step20")
    np.testing.assert_allclose(np.stack(list(rows.values())), spread / spread.sum(axis=1, keepdims=True))
    silent = many.assign(measurable=many["measurable"] & (np.arange(14) < 2)[:, None, None])
    np.testing.assert_allclose([row.sum() for row in spread_rows(silent, "step20").values()], 1)
    assert draw_shares(make_run(relie))[0]["data"][0]["y"] == ["near", "far"]
