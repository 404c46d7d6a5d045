"""The part of a run's page on its features over time."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from report_stores import (
    HOSTILE,
    longer,
    make_run,
    relie_store,
    six_features,
    toy_inputs,
    with_classes,
    with_clusters,
    with_control,
    with_facts,
)

from chronocoder.errors import StoreError
from chronocoder.figures.pairs import BASES, PUBLISHED, TOTAL
from chronocoder.report.controls import chance_sentence
from chronocoder.report.courses import course_counts
from chronocoder.report.inputs import ReportInputs, Run
from chronocoder.report.run_features import (
    feature_rows,
    measured_sentence,
    parts_of,
    run_features,
    unmeasured_sentence,
)
from chronocoder.report.site import FigureGroup, Site
from chronocoder.report.successions import succession_sentences, successions_of
from chronocoder.stores import labelled, strings

LABELS = {"near": "near", "far": "▲ far"}


def page_of(inputs: ReportInputs, run: Run, directory: Path) -> str:
    site = Site(directory)
    site.page_from("run_features", "run", inputs=inputs, run=run, **run_features(inputs, run, site))
    return (directory / "run.html").read_text(encoding="utf-8")


def successor_store(earlier: str, later: str, cosines: list[float]) -> xr.Dataset:
    """Feature n is matched with feature n + 1, the last one with none; random directions reach 0 to 0.75."""
    matched = [*range(1, len(cosines)), -1]
    dims = ("successor", "feature")
    store = xr.Dataset(
        {
            "matched_feature": labelled(dims, np.array([matched]), "matched"),
            "cosine": labelled(dims, np.array([[*cosines[:-1], np.nan]]), "cosine"),
            "random_cosine": labelled(("successor", "direction"), np.linspace(0.0, 0.75, 11)[None], "random"),
        },
        coords={"successor": strings([later]), "feature": np.arange(len(cosines))},
    )
    return with_facts(store, comparison=earlier, variant="l1", seed=0)


def in_succession(relie: xr.Dataset, *matches: tuple[str, str]) -> ReportInputs:
    runs = [make_run(relie, name) for name in dict.fromkeys(name for pair in matches for name in pair)]
    stores = [successor_store(*pair, [0.9, 0.8, 0.6, 0.9, 0.9, 0.9]) for pair in matches]
    return replace(toy_inputs(relie), runs=runs, successors=stores)


def test_figures_are_written_beside_their_numbers(inputs: ReportInputs, tmp_path: Path) -> None:
    features = run_features(inputs, inputs.runs[0], Site(tmp_path))["features"]
    groups = [value for value in features if isinstance(value, FigureGroup)]
    assert [group.name for group in groups] == [
        f"{name}-figures" for name in ("shares", "largest", "presence", "decoder-shares", "class")
    ]
    for group in groups:
        assert group.figures and all(len(figure.choices) == len(group.levels) for figure in group.figures)
        for figure in group.figures:
            assert figure.stem.startswith("figures/pair-l1-seed0/")
            assert all((tmp_path / f"{figure.stem}.{ending}").exists() for ending in ("svg", "pdf", "csv"))
    assert features.clusters is features.triangles is features.successions is None


def test_every_combination_of_choices_has_a_figure(inputs: ReportInputs, tmp_path: Path) -> None:
    three = replace(inputs, runs=[make_run(with_clusters(longer(six_features())))])
    features = run_features(three, three.runs[0], Site(tmp_path))["features"]
    groups = [value for value in features if isinstance(value, FigureGroup)]
    assert features.clusters and features.triangles
    for group in groups:
        options = [len(options) for options in group.options]
        assert len({figure.choices for figure in group.figures}) == len(group.figures) == np.prod(options, dtype=int)


def test_page_holds_what_the_store_holds(inputs: ReportInputs, tmp_path: Path) -> None:
    page = page_of(with_control(inputs), inputs.runs[0], tmp_path)
    assert (
        "5 of 6 features have a measurable effect on some task at some checkpoint, 7 feature–task pairs in all." in page
    )
    assert '<a class="feature" href="feature.html#pair-l1-seed0/1">1</a>' in page
    assert "+2.00 (+1.90 to +2.10)*" in page
    assert "emerged is more frequent than among random directions on 2 of 2 tasks" in page
    assert "Comparisons without development" in page and "8 of 10 (96\u00a0%)" in page
    assert HOSTILE not in page and "<b>" not in page


def test_page_of_a_triplet(tmp_path: Path) -> None:
    three = toy_inputs(with_clusters(longer(six_features())))
    page = page_of(three, three.runs[0], tmp_path)
    assert 'id="triangles"' in page and "Trajectories in clusters" in page
    assert len(re.findall(r"<option value=\"[^\"]*\"(?: selected)?>step", page)) == 3


def test_page_where_nothing_is_measurable_says_so(relie: xr.Dataset, tmp_path: Path) -> None:
    relie["measurable"] = xr.zeros_like(relie["measurable"])
    inputs = toy_inputs(relie)
    page = page_of(inputs, inputs.runs[0], tmp_path)
    assert "effects are no larger than chance would give" in page
    assert 'id="trajectories"' not in page and 'id="controls"' in page
    assert "On “near” and “far” no feature has one." in page


def test_tasks_without_measurable_features_are_named(relie: xr.Dataset) -> None:
    assert unmeasured_sentence(relie) == ""
    relie["measurable"] = relie["measurable"].where(relie["task"] != "near", False)
    assert unmeasured_sentence(relie) == "On “near” no feature has one."
    assert measured_sentence(relie).startswith("5 of 6 features have a measurable effect on some task")
    assert list(parts_of(relie, LABELS)) == ["all tasks", "▲ far"]


def test_many_tasks_are_shown_by_group(relie: xr.Dataset) -> None:
    many = relie.isel(task=[0, 1] * 7).assign_coords(task=strings([f"task_{place}" for place in range(14)]))
    assert {name: many["task"][places].size for name, places in parts_of(many, {}).items()} == {
        "all tasks": 14,
        "english": 7,
        "french": 7,
    }
    assert list(parts_of(many.drop_vars(("group", "group_kind")), {})) == ["all tasks"]


def test_rows_are_of_the_largest_effects(inputs: ReportInputs) -> None:
    first, second = feature_rows(inputs.runs[0].relie.sel(task="near"), {2: "a rule"}, {0: ["children", "oxen"]})
    assert (first.feature, first.words) == (0, "children, oxen")
    assert first.classes == ("discontinued", "discontinued")
    assert first.effects == [("+1.00 (+0.90 to +1.10)", True), ("+0.000 (−0.10 to +0.10)", False)]
    assert (second.feature, second.annotation, second.support) == (2, "a rule", "97\u00a0%")


def test_classes_are_said_to_be_more_than_chance_or_not(relie: xr.Dataset) -> None:
    assert chance_sentence(relie, PUBLISHED) == (
        "By published RelIE: emerged 50\u00a0% against 15\u00a0% of random directions, discontinued 33\u00a0% against"
        " 0.0\u00a0%; emerged is more frequent than among random directions on 2 of 2 tasks (more than chance);"
        " discontinued is not (no more than chance)."
    )
    total = "With IE divided by the checkpoint’s total |IE|"
    assert chance_sentence(relie, TOTAL).startswith(
        f"{total}: emerged 33\u00a0% against 15\u00a0% of random directions,"
    )
    assert chance_sentence(relie, TOTAL).endswith(
        "; no class is more frequent than among random directions (no more than chance)."
    )
    undecided = with_classes(relie, dict.fromkeys((*BASES, "metric_size"), ["uncertain"] * 6))
    assert chance_sentence(undecided, TOTAL) == f"{total}: no feature has a decided class."
    alone = with_classes(relie, dict.fromkeys((*BASES, "metric_size"), ["emerged"] * 6), controls=())
    assert chance_sentence(alone, TOTAL).endswith("which were not measured.")


def test_courses_count_classes_by_cluster(relie: xr.Dataset) -> None:
    assert course_counts(relie) == []
    assert course_counts(with_clusters(longer(relie))) == [[10, *(6, 0, 4, 0, 0)]]


def test_successions_are_followed_to_their_end(relie: xr.Dataset) -> None:
    inputs = in_succession(relie, ("one", "two"), ("two", "three"), ("one", "three"))
    inputs = replace(
        inputs,
        successors=[
            xr.concat([inputs.successors[0], inputs.successors[2]], "successor", combine_attrs="override"),
            inputs.successors[1],
        ],
    )
    first, second, last = inputs.runs
    assert [found.label for found in successions_of(inputs, first)] == ["one → two → three", "one → three"]
    assert [found.label for found in successions_of(inputs, second)] == ["two → three"]
    assert successions_of(inputs, last) == [] and succession_sentences(inputs, last) == []
    assert successions_of(inputs, second)[0].matches[0].values.tolist() == [1, 2, -1, 4, 5, -1]


def test_features_that_are_found_again_stand_beside_chance(relie: xr.Dataset) -> None:
    inputs = in_succession(relie, ("one", "two"))
    assert succession_sentences(inputs, inputs.runs[0]) == [
        "Of 5 features with a measurable effect, 4 (80\u00a0%) have a counterpart in two: a feature whose decoder"
        " vector at step20 has a cosine of at least 0.70 with theirs. Of random directions, 9.1\u00a0% have one."
    ]


def test_page_shows_what_follows(relie: xr.Dataset, tmp_path: Path) -> None:
    inputs = in_succession(relie, ("one", "two"))
    assert 'id="succession"' in page_of(inputs, inputs.runs[0], tmp_path)
    assert 'id="succession"' not in page_of(inputs, inputs.runs[1], tmp_path)


def test_matches_with_a_run_that_is_not_given_are_refused(relie: xr.Dataset) -> None:
    inputs = in_succession(relie, ("one", "two"))
    with pytest.raises(StoreError, match="features of one · l1 · seed 0 are matched with those of two · l1 · seed 0"):
        replace(inputs, runs=inputs.runs[:1])


def test_runs_of_any_store_have_distinct_names(relie: xr.Dataset) -> None:
    one = relie_store([[1.0], [1.0]], [[1.0], [1.0]], ["maintained"])
    assert make_run(one, "pair").key.slug == "pair-l1-seed0" != make_run(relie, "other").key.slug
