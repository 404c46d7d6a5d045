"""Figures of what tasks and languages share: the numbers they show are those of the stores."""

import numpy as np
import pytest
import xarray as xr
from chart_checks import overlapping
from matplotlib.container import BarContainer
from report_stores import consolidation_store, six_features

from chronocoder.features.task_overlap import compare_tasks
from chronocoder.figures.languages import draw_languages_served
from chronocoder.figures.overlap import (
    KINDS,
    LEVELS,
    draw_language_matrix,
    draw_language_overlap,
    draw_task_overlap,
    draw_task_overlap_course,
)

COURSES = {"agreement": [True, True], "gender": [False, True], "number": [True, False], "silent": [False, True]}


@pytest.fixture
def overlaps() -> xr.Dataset:
    return compare_tasks(six_features())


def test_matrix_of_tasks_shows_the_overlap_of_top_features(overlaps: xr.Dataset) -> None:
    chart = draw_task_overlap(overlaps, "step10")
    assert len(chart.data) == 4 and not overlapping(chart)
    for row in chart.data.to_dict("records"):
        at = overlaps.sel(checkpoint="step10", task=row["task"], other_task=row["other_task"])
        np.testing.assert_array_equal(row["jaccard"], at["jaccard"])
        np.testing.assert_array_equal(row["chance"], at["chance"])
    assert chart.axes[0].collections[0].get_clim() == (0, 1)


def test_course_of_overlap_is_the_mean_over_pairs_beside_levels(overlaps: xr.Dataset) -> None:
    chart = draw_task_overlap_course(overlaps)
    values = chart.data.pivot(index="line", columns="checkpoint", values="value")
    assert set(values.index) == {
        "same phenomenon",
        "halves of one task (ceiling)",
        "features exchanged",
        "random directions",
    }
    for checkpoint in ("step10", "step20"):
        at = overlaps.sel(checkpoint=checkpoint)
        assert values.loc["same phenomenon", checkpoint] == float(at["jaccard"][0, 1])
        assert values.loc["halves of one task (ceiling)", checkpoint] == float(np.diagonal(at["jaccard"]).mean())
        assert values.loc["features exchanged", checkpoint] == float(at["chance"][0, 1])
    apart = draw_task_overlap_course(overlaps.assign_coords(phenomenon=("task", ["a", "b"])))
    assert "different phenomena" in set(apart.data["line"]) and "same phenomenon" not in set(apart.data["line"])
    assert not overlapping(chart)


@pytest.mark.parametrize("kind", KINDS)
def test_overlap_of_languages_has_a_panel_for_each_family(kind: str) -> None:
    of_pair = consolidation_store(COURSES).isel(language_pair=0)
    chart = draw_language_overlap(of_pair, kind)
    assert [axes.get_title(loc="left") for axes in chart.axes] == ["Agreement", "Gender", "Number", "Silent"]
    here = of_pair.sel(KINDS[kind])
    between = chart.data[chart.data["line"] == "between the languages"]
    for family in COURSES:
        of_family, stored = between[between["family"] == family], here.sel(family=family)
        for column, variable in {"value": "overlap", "low": "overlap_low", "high": "overlap_high"}.items():
            np.testing.assert_array_equal(of_family[column], stored[variable])
        assert of_family["shared"].tolist() == COURSES[family]
    exchanged = chart.data[(chart.data["line"] == LEVELS["permuted"][0]) & (chart.data["family"] == "gender")]
    assert exchanged[["value", "low", "high"]].values.tolist() == [[0.1, 0.05, 0.15]] * 2
    hollow = [line for line in chart.axes[1].get_lines() if line.get_markerfacecolor() == "white"]
    assert [line.get_ydata().tolist() for line in hollow] == [[0.125]]
    assert "gender 0.50" in chart.alt and len(chart.legends[0].get_texts()) == 5 and not overlapping(chart)


def test_many_languages_are_shown_as_a_matrix() -> None:
    stores = [consolidation_store({"a": [True, last], "b": [False, False]}) for last in (True, False)]
    both = xr.concat(stores, "language_pair", data_vars="all").assign_coords(
        language_pair=["english, french", "french, dutch"],
        first_language=("language_pair", ["english", "french"]),
        second_language=("language_pair", ["french", "dutch"]),
    )
    chart = draw_language_matrix(both, "step20")
    labels = [label.get_text() for label in chart.axes[0].get_xticklabels()]
    assert labels == ["english", "french", "dutch"]
    cells = chart.axes[0].collections[0].get_array()
    assert cells[0, 1] == cells[1, 0] == (0.5 + 0.125) / 2 and cells[1, 2] == 0.125
    assert np.ma.getmaskarray(cells)[0, 2] and np.ma.getmaskarray(cells)[0, 0]
    assert sorted(text.get_text() for text in chart.axes[0].texts) == ["0.12", "0.12", "0.31*", "0.31*"]
    assert chart.alt.startswith("A matrix of 3 languages; between different ones the largest is 0.31")
    assert len(chart.data) == 4 and set(chart.data["first_language"]) == {"english", "french"}


def test_bars_count_features_by_the_languages_they_serve() -> None:
    store = consolidation_store(COURSES)
    chart = draw_languages_served(store)
    for axes, (family, holds) in zip(chart.axes, COURSES.items(), strict=True):
        bars = [found for found in axes.containers if isinstance(found, BarContainer)]
        assert [found.get_label() for found in bars] == ["2 languages", "1 language"]
        several, one = ([bar.get_height() for bar in found] for found in bars)
        assert several == [5 if of else 1 for of in holds] and one == [9, 9]
        assert [bar.get_y() for bar in bars[1]] == several  # those of several languages are at the bottom
        (chance,) = axes.lines
        np.testing.assert_allclose(chance.get_ydata(), 2)
        rows = chart.data[(chart.data["family"] == family) & (chart.data["served"] == 2)]
        assert rows["features"].tolist() == several and rows["several_by_chance_high"].tolist() == [4, 4]
    assert "5 (2.00 by chance) on gender" in chart.alt
    assert not overlapping(chart)
    silent = store.assign(several_by_chance=store["several_by_chance"] * np.nan)
    assert "– by chance" in draw_languages_served(silent).alt


def test_range_of_exchanges_may_leave_their_mean_out() -> None:
    store = consolidation_store(COURSES)
    rare = store["several_by_chance"] * 0
    chart = draw_languages_served(
        store.assign(several_by_chance=rare + 0.01, several_by_chance_low=rare, several_by_chance_high=rare)
    )
    assert all(axes.lines[0].get_ydata().tolist() == [0.01, 0.01] for axes in chart.axes)
