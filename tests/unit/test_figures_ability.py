"""Figures of ability, of similarity and of the choice of comparisons show the numbers of the stores."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.axis import Axis
from matplotlib.collections import FillBetweenPolyCollection, QuadMesh
from matplotlib.text import Text
from report_stores import (
    FACTS,
    REVISIONS,
    SENTENCES,
    TOKENS_SEEN,
    choice_store,
    many_tasks,
    similarity_store,
    suite_behaviour,
)

from chronocoder.figures.ability import draw_ability, draw_group_ability
from chronocoder.figures.chart import LINES, MANY_MARKS, MARKERS, PALETTE, Chart
from chronocoder.figures.choice import draw_changes, draw_fitted_steps
from chronocoder.figures.similarity import draw_similarity, draw_similarity_to_last
from chronocoder.figures.tokens import token_places
from chronocoder.stores import labelled, strings

NEAR, FAR = [0.5, 0.9, 1.0], [0.5, 0.1, 0.9]


@pytest.fixture
def warned() -> xr.Dataset:
    return suite_behaviour(np.array([NEAR, FAR]), FACTS | {"far": FACTS["far"].assign_attrs(SENTENCES)})


def labels_of(chart: Chart) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in chart.legends[0].get_texts()]


def curves_of(chart: Chart) -> list:
    return [line for line in chart.axes[0].get_lines() if len(line.get_xdata()) == len(REVISIONS)]


def tick_labels(axis: Axis) -> list[Text]:
    """Those of ticks that are in view."""
    low, high = sorted(axis.get_view_interval())
    return [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


def overlapping(chart: Chart) -> list[tuple[str, str]]:
    """Texts that lie on one another, as drawn."""
    chart.draw_without_rendering()
    texts = [text for legend in chart.legends for text in legend.get_texts()]
    for axes in chart.axes:
        texts += [
            *axes.texts,
            *(text for axis in (axes.xaxis, axes.yaxis) for text in [*tick_labels(axis), axis.label]),
        ]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text() and text.get_visible()]
    return [
        (one, other)
        for place, (one, box) in enumerate(boxes)
        for other, other_box in boxes[place + 1 :]
        if box.padded(-1).overlaps(other_box.padded(-1))
    ]


def test_accuracy_is_drawn_with_its_interval_by_task(warned: xr.Dataset) -> None:
    chart = draw_ability(warned, comparisons={"pair": ["step0", "step20"]})
    assert list(chart.data.columns) == [
        *("task", "warning", "checkpoint", "tokens_seen"),
        *("accuracy", "accuracy_low", "accuracy_high", "pairs"),
    ]
    row = chart.data.set_index(["task", "checkpoint"]).loc["far", "step10"]
    assert (row["tokens_seen"], row["pairs"], row["warning"]) == (1_000, 9, "made for <other> metrics")
    np.testing.assert_allclose([row["accuracy"], row["accuracy_low"], row["accuracy_high"]], [0.1, 0.05, 0.15])
    for line, values in zip(curves_of(chart), (NEAR, FAR), strict=True):
        np.testing.assert_allclose(line.get_xdata(), token_places(np.array(TOKENS_SEEN)))
        np.testing.assert_allclose(line.get_ydata(), values)
    bands = [found for found in chart.axes[0].collections if isinstance(found, FillBetweenPolyCollection)]
    np.testing.assert_allclose(
        bands[1].get_paths()[0].get_extents().intervaly,
        [warned["accuracy_low"][1].min(), warned["accuracy_high"][1].max()],
    )
    (span,) = chart.axes[1].get_lines()
    np.testing.assert_allclose(span.get_xdata(), [250, 50_000])
    assert [label.get_text() for label in chart.axes[1].get_yticklabels()] == ["pair"]
    assert chart.alt == (
        "Accuracy over tokens seen, a line for each task: it ends between 0.90 (far) and 1.00 (near); chance is 0.5."
        " Below, the checkpoints of 1 comparison."
    )


def test_a_task_with_a_warning_does_not_look_like_a_finding(warned: xr.Dataset) -> None:
    chart = draw_ability(warned, emphasised=["near", "far"])
    near, far = curves_of(chart)
    assert labels_of(chart) == ["near", "▲ far"]
    assert (near.get_linestyle(), far.get_linestyle()) == ("-", ":")
    assert far.get_markerfacecolor() == "none" and far.get_linewidth() < near.get_linewidth()
    assert curves_of(draw_ability(warned, emphasised=["far"]))[0].get_linewidth() == far.get_linewidth()


def test_groups_are_means_of_their_tasks() -> None:
    store = many_tasks(14)
    chart = draw_group_ability(store, "phenomenon")
    assert chart.title == "Mean accuracy by phenomenon"
    assert labels_of(chart) == ["agreement (5\u00a0tasks)", "binding (5\u00a0tasks,\u00a01\u00a0▲)"]
    binding = chart.data[chart.data["phenomenon"] == "binding"]
    np.testing.assert_allclose(binding["accuracy"], store["accuracy"].values[1::3].mean(axis=0))
    assert set(binding["tasks"]) == {5} and set(binding["tasks_with_a_warning"]) == {1}
    assert {line.get_linestyle() for line in curves_of(chart)} == {"-"}


def test_a_group_of_nothing_but_warnings_has_a_thin_line(warned: xr.Dataset) -> None:
    english, french = curves_of(draw_group_ability(warned, "language"))
    assert (english.get_linestyle(), french.get_linestyle()) == ("-", ":")


def test_many_curves_are_told_apart_without_colour() -> None:
    lines = curves_of(draw_ability(many_tasks(27)))
    looks = {(line.get_marker(), str(line.get_linestyle())) for line in lines[:-1]}  # the last one has a warning
    assert len(looks) == 26
    assert len({(line.get_marker(), line.get_color()) for line in lines}) == len(MARKERS) == len(PALETTE)
    assert len(LINES) > 3


@pytest.mark.parametrize("tasks", [1, 12, 27])
def test_texts_do_not_overlap(tasks: int) -> None:
    store = many_tasks(tasks)
    spans = {f"comparison{number}": ["step0", "step20"] for number in range(6)}
    assert not overlapping(draw_ability(store, comparisons=spans))
    assert not overlapping(draw_similarity(similarity_store()["cosine"].isel(site=0), spans))
    assert not overlapping(draw_similarity_to_last(similarity_store().isel(site=0)))


def many_checkpoints(count: int) -> xr.DataArray:
    """Similarities that fall with distance, a checkpoint for each thousand tokens."""
    values = 1 - abs(np.subtract.outer(np.arange(count), np.arange(count))) / count
    revisions = strings([f"step{place}" for place in range(count)])
    return xr.DataArray(
        values,
        {
            "checkpoint": revisions,
            "other_checkpoint": revisions,
            "tokens_seen": ("checkpoint", 1000 * np.arange(count)),
        },
        ("checkpoint", "other_checkpoint"),
        "linear_cka",
    )


def test_similarity_is_a_heat_map_with_the_steps_of_comparisons() -> None:
    values = (
        similarity_store()["pearson"].isel(site=0).copy(data=np.array([[1, 0.5, 0.1], [0.5, 1, 0.9], [0.1, 0.9, 1]]))
    )
    chart = draw_similarity(values, {"course": REVISIONS})
    assert chart.title == "Pearson correlation of activations at residual.2"
    (mesh,) = [found for found in chart.axes[0].collections if isinstance(found, QuadMesh)]
    np.testing.assert_allclose(mesh.get_array(), values.values)
    assert (mesh.get_cmap().name, mesh.get_clim(), mesh.get_rasterized()) == ("cividis", (0.1, 1), False)
    np.testing.assert_allclose(chart.data["pearson"], values.values.ravel())
    assert chart.data.iloc[1].tolist() == ["step0", "step10", 0.5]
    (marks,) = chart.axes[0].get_lines()
    np.testing.assert_allclose(marks.get_xydata(), [[1.5, 0.5], [2.5, 1.5]])
    assert labels_of(chart) == ["course"]
    assert chart.alt == (
        "Heat map of 3 by 3 checkpoints. Pearson correlation: the lowest of any two is 0.10; of neighbours, step0 and"
        " step10 differ most (0.50)."
    )


def test_similarities_with_a_sign_have_limits_of_equal_size() -> None:
    values = (
        similarity_store()["cosine"].isel(site=0).copy(data=np.array([[1, -0.2, np.nan], [-0.2, 1, 0], [np.nan, 0, 1]]))
    )
    (mesh,) = [found for found in draw_similarity(values).axes[0].collections if isinstance(found, QuadMesh)]
    assert mesh.get_clim() == (-1, 1)
    assert np.ma.getmaskarray(mesh.get_array()).sum() == 2


def test_of_many_checkpoints_some_are_named() -> None:
    chart = draw_similarity(many_checkpoints(60))
    labels = [label.get_text() for label in chart.axes[0].get_xticklabels()]
    assert len(labels) == 20 and (labels[0], labels[-1]) == ("step0", "step59")
    (mesh,) = [found for found in chart.axes[0].collections if isinstance(found, QuadMesh)]
    assert mesh.get_rasterized() and MANY_MARKS < 60**2
    assert not overlapping(chart)


def test_similarity_to_the_last_checkpoint_is_its_column() -> None:
    store = many_checkpoints(5).to_dataset()
    chart = draw_similarity_to_last(store)
    assert list(chart.data.columns) == ["checkpoint", "tokens_seen", "linear_cka"]
    np.testing.assert_allclose(chart.data["linear_cka"], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert chart.alt.endswith("at the first checkpoint: Linear CKA 0.20.")
    three = draw_similarity_to_last(similarity_store().isel(site=0))
    assert labels_of(three) == ["Cosine", "Pearson correlation", "Linear CKA"]
    assert three.title == "Similarity to the last checkpoint at residual.2"


def test_changes_stand_beside_the_level_of_chance() -> None:
    chart = draw_changes(choice_store())
    assert chart.data.to_dict("records") == [
        {
            "task": "near",
            "q_value": 0.004,
            "last_before": "step0",
            "first_after": "step10",
            "first_after_low": "step10",
            "first_after_high": "step20",
            "half_that_chose": 0.31,
            "other_half": 0.25,
            "other_half_low": 0.1,
            "other_half_high": 0.4,
            "level_of_chance": 0.12,
        },
        {
            "task": "near",
            "q_value": 0.004,
            "last_before": "step10",
            "first_after": "step20",
            "first_after_low": "step20",
            "first_after_high": "step20",
            "half_that_chose": 0.11,
            "other_half": 0.05,
            "other_half_low": -0.05,
            "other_half_high": 0.15,
            "level_of_chance": 0.12,
        },
    ]
    bars = chart.axes[0].patches
    assert [(bar.get_x(), bar.get_width()) for bar in bars] == [(-0.12, 0.24)] * 2
    labels = [label.get_text() for label in chart.axes[0].get_yticklabels()]
    assert labels == ["near: step0 → step10", "near: step10 → step20"]
    assert "1 of 2 lie beyond the level of chance. The largest there is +0.25." in chart.alt
    assert not overlapping(chart)


def test_steps_are_fitted_to_one_half_and_changes_marked() -> None:
    store = choice_store()
    chart = draw_fitted_steps(store, "near")
    for name in ("accuracy_choosing", "accuracy_confirming", "fitted_accuracy"):
        np.testing.assert_allclose(chart.data[name], store[name].sel(task="near"))
    assert chart.data["first_after_a_change"].tolist() == [False, True, True]
    assert chart.alt.endswith("first checkpoints of them: step10, step20.")
    assert draw_fitted_steps(store, "far").data["first_after_a_change"].tolist() == [False] * 3
    assert labels_of(chart)[-1] == "first checkpoint after, with its interval"
    assert not overlapping(chart)


def test_similarity_store_may_lack_measures() -> None:
    values = labelled(("checkpoint", "other_checkpoint"), np.eye(1), "alike")
    one = xr.Dataset({"linear_cka": values}, {"checkpoint": strings(["only"]), "other_checkpoint": strings(["only"])})
    assert draw_similarity(one["linear_cka"]).alt == "Heat map of 1 by 1 checkpoints."


def test_names_are_drawn_as_they_are() -> None:
    facts = {"costs_$1_or_$2": FACTS["near"], "far": FACTS["far"]}
    chart = draw_ability(suite_behaviour(np.array([NEAR, FAR]), facts), comparisons={"$x$": ["step0", "step20"]})
    chart.draw_without_rendering()
    assert labels_of(chart) == [r"costs \$1 or \$2", "far"]
