"""What the report says of tasks and of groups of tasks."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from chronocoder.report.page import render_page
from report_stores import (
    FACTS,
    SENTENCES,
    make_run,
    many_tasks,
    of_sentences,
    six_features,
    suite_behaviour,
    toy_inputs,
    with_facts,
)

from chronocoder.report.contrasts import find_all_features
from chronocoder.report.data import group_data
from chronocoder.report.inputs import ReportInputs
from chronocoder.report.summary import ability_sentence, summarise

NEAR, FAR = [0.5, 0.9, 1.0], [0.5, 0.1, 0.9]


@pytest.fixture
def warned() -> xr.Dataset:
    return suite_behaviour(np.array([NEAR, FAR]), FACTS | {"far": FACTS["far"].assign_attrs(SENTENCES)})


@pytest.fixture
def inputs(warned: xr.Dataset) -> ReportInputs:
    """A report in which the far task compares sentences, and has a warning."""
    return replace(toy_inputs(of_sentences(six_features())), behaviour=with_facts(warned))


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
