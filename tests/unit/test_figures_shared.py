"""What figures of tasks and checkpoints have in common: axes, lines, matrices, panels, tables."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from chart_checks import overlapping
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from chronocoder.figures.chart import MARKERS, Chart, styled
from chronocoder.figures.lines import Line, draw_checkpoint_axis, draw_course, draw_line
from chronocoder.figures.matrix import Matrix, draw_matrix
from chronocoder.figures.order import TaskOrder, largest_size, off_diagonal, same_group, task_order
from chronocoder.figures.panels import draw_panels
from chronocoder.figures.tidy import tidy
from chronocoder.figures.tokens import draw_token_axis, token_places

STORE = xr.Dataset(
    coords={"checkpoint": ["step0", "step10", "step20"], "tokens_seen": ("checkpoint", [0, 1_000, 50_000])}
)
TASKS = xr.Dataset(
    coords={
        "task": ["near", "reflexive_pronoun", "far", "wh"],
        "group": ("task", ["agreement", "binding", "agreement", ""]),
    }
)


def labels_of(chart: Figure, axis: str = "x") -> list[str]:
    return [label.get_text() for label in getattr(chart.axes[0], f"get_{axis}ticklabels")()]


def test_zero_tokens_have_a_place_and_a_label() -> None:
    assert token_places(np.array([0, 1_000, 50_000])).tolist() == [250, 1_000, 50_000]
    assert token_places(np.array([0])).tolist() == [1]
    figure = Figure()
    axes = figure.subplots()
    draw_token_axis(axes, np.array([0, 1_000, 50_000]))
    assert labels_of(figure) == ["1 k", "3 k", "10 k", "30 k", "0"] and axes.get_xscale() == "log"
    wide = Figure()
    draw_token_axis(wide.subplots(), np.array([10, 10**9]))
    assert labels_of(wide)[:2] == ["10", "100"]
    one = Figure()
    draw_token_axis(one.subplots(), np.array([2_000]))
    assert len(one.axes[0].get_xticks()) <= 1


def test_tasks_are_ordered_by_group_and_stay_in_order_within() -> None:
    order = task_order(TASKS)
    assert order == TaskOrder(
        order.places, ["near", "far", "reflexive pronoun", "wh"], ["agreement", "agreement", "binding", ""], [2, 3]
    )
    assert order.places.tolist() == [0, 2, 1, 3] and not order.many
    within, between = same_group(TASKS)
    assert np.argwhere(within).tolist() == [[0, 2], [2, 0]]
    assert between.sum() == 10 and not (within | between).diagonal().any()
    nameless = same_group(TASKS.assign_coords(group=("task", [""] * 4)))
    assert not nameless[0].any() and nameless[1].sum() == 12  # what names no group is of none
    assert off_diagonal(np.arange(8).reshape(2, 2, 2)).tolist() == [1, 2, 5, 6]
    assert largest_size(np.array([0.5, -2.0, np.nan, np.inf])) == 2 and largest_size(np.array([np.nan])) == 1e-3


def test_a_table_has_a_row_for_each_place() -> None:
    store = xr.Dataset(
        {"a": (("x", "y"), [[1, 2], [3, 4]]), "b": ("x", [5, 6])}, coords={"x": ["p", "q"], "y": [7, 8], "z": 9}
    )
    expected = pd.DataFrame({"y": [7, 7, 8, 8], "x": ["p", "q"] * 2, "value": [1, 3, 2, 4], "b": [5, 6] * 2})
    pd.testing.assert_frame_equal(tidy(store, {"a": "value", "b": "b"}, ("y", "x")), expected, check_dtype=False)


def test_lines_show_their_numbers_intervals_and_open_markers() -> None:
    values, filled = np.array([np.nan, 0.25, 0.5]), np.array([True, False, True])
    first = Line("one", values, 1, values - 0.1, values + 0.1, filled, {"p_value": np.array([np.nan, 0.2, 0.01])})
    chart = styled(draw_course)(STORE, [first, Line("other", -values, 2)], "Title", "value")
    drawn = {line.get_label(): line for line in chart.axes[0].get_lines()}
    np.testing.assert_array_equal(drawn["one"].get_ydata(), values)
    np.testing.assert_array_equal(drawn["one"].get_xdata(), [250, 1_000, 50_000])
    assert drawn["one"].get_marker() == MARKERS[1] != drawn["other"].get_marker()
    assert drawn["one"].get_linestyle() != drawn["other"].get_linestyle()
    open_ones = [line for line in chart.axes[0].get_lines() if line.get_markerfacecolor() == "white"]
    assert [line.get_ydata().tolist() for line in open_ones] == [[0.25]]
    (bars,) = chart.axes[0].collections
    np.testing.assert_allclose(bars.get_segments()[2], [[50_000, 0.4], [50_000, 0.6]])
    assert chart.data["line"].tolist() == ["one"] * 3 + ["other"] * 3
    np.testing.assert_array_equal(chart.data["p_value"][:3], first.facts["p_value"])
    assert chart.data.columns.tolist() == ["line", "checkpoint", "tokens_seen", "value", "low", "high", "p_value"]
    assert chart.alt == "From step0 to step20: one 0.25 to 0.50; other −0.25 to −0.50."
    assert [text.get_text() for text in chart.legends[0].get_texts()] == ["one", "other"] and not overlapping(chart)


def test_a_line_that_is_not_known_is_said_so_and_one_alone_needs_no_legend() -> None:
    chart = styled(draw_course)(STORE, [Line("one", np.full(3, np.nan), 0)], "Title", "value", (0, 1))
    assert chart.alt == "From step0 to step20: one is not known." and not chart.legends
    assert chart.axes[0].get_ylim() == (0, 1)
    once = styled(draw_course)(STORE.isel(checkpoint=[0]), [Line("one", np.ones(1), 0)], "Title", "value")
    assert once.alt == "From step0 to step0: one 1.00."


def test_a_band_is_an_area() -> None:
    figure = Figure()
    axes = figure.subplots()
    draw_line(axes, np.arange(3), Line("band", np.ones(3), 0, np.zeros(3), np.full(3, 2.0), band=True))
    (area,) = axes.collections
    vertices = area.get_paths()[0].vertices[:, 1]
    assert vertices.min() == 0 and vertices.max() == 2


def test_names_of_checkpoints_are_turned_where_there_is_no_room() -> None:
    for room, rotation in ((60, 0), (20, 90)):
        figure = Figure()
        assert draw_checkpoint_axis(figure.subplots(), STORE, room).tolist() == [0, 1, 2]
        labels = figure.axes[0].get_xticklabels()
        assert [label.get_text() for label in labels] == ["step0\n0", "step10\n1 k", "step20\n50 k"]
        assert {label.get_rotation() for label in labels} == {rotation}


def matrix(values: np.ndarray, limits: tuple[float, float] = (-1, 1), marked: np.ndarray | None = None) -> Chart:
    order = task_order(TASKS)
    drawn = Matrix(values, order, order, limits, "value", ("to", "from"), marked)
    return styled(draw_matrix)("Title", pd.DataFrame(), drawn)


def test_cells_of_a_matrix_are_of_the_tasks_that_label_them() -> None:
    values = np.arange(16).reshape(4, 4) / 16 - 0.5
    values[1, 3] = np.nan
    marked = np.zeros((4, 4), dtype=bool)
    marked[0, 2] = marked[1, 3] = True
    chart = matrix(values, marked=marked)
    rows, columns = labels_of(chart, "y"), labels_of(chart)
    (mesh,) = (found for found in chart.axes[0].collections if isinstance(found, QuadMesh))
    shown = mesh.get_array()
    names = ["near", "reflexive pronoun", "far", "wh"]
    for row, one in enumerate(names):
        for column, other in enumerate(names):
            cell = shown[rows.index(one), columns.index(other)]
            assert (cell is np.ma.masked) == np.isnan(values[row, column])
            assert cell is np.ma.masked or cell == values[row, column]
    texts = {text.get_position(): text.get_text() for text in chart.axes[0].texts}
    assert len(texts) == 15  # nothing is written where nothing is known
    assert texts[columns.index("far") + 0.5, rows.index("near") + 0.5] == "−0.38*"
    assert chart.alt == (
        "A matrix of 4 tasks; between different ones the largest is 0.38 (wh, far), the smallest is −0.44 (near,"
        " reflexive pronoun)."
    )
    assert mesh.get_clim() == (-1, 1) and chart.axes[0].get_ylim() == (4, 0) and not overlapping(chart)
    assert [line.get_xdata()[0] for line in chart.axes[0].get_lines()[2:]] == [2, 3]


@pytest.mark.parametrize(
    ("limits", "extend"), [((-1, 1), "neither"), ((-0.1, 1), "min"), ((-1, 0.1), "max"), ((-0.1, 0.1), "both")]
)
def test_a_scale_says_where_values_go_beyond_it(limits: tuple[float, float], extend: str) -> None:
    chart = matrix(np.linspace(-0.5, 0.5, 16).reshape(4, 4), limits)
    assert chart.axes[0].collections[0].colorbar.extend == extend


def test_a_matrix_of_many_tasks_has_asterisks_alone_and_is_pixels() -> None:
    names = [f"task_number_{place}" for place in range(50)]
    tasks = xr.Dataset(coords={"task": names, "group": ("task", names)})
    order = task_order(tasks)
    values, marked = np.eye(50), np.eye(50, k=1, dtype=bool)
    chart = styled(draw_matrix)("Title", pd.DataFrame(), Matrix(values, order, order, (0, 1), "value", marked=marked))
    assert {text.get_text() for text in chart.axes[0].texts} == {"*"} and len(chart.axes[0].texts) == 49
    assert chart.axes[0].collections[0].get_rasterized()
    assert not chart.axes[0].get_lines()  # no lines between groups of one
    assert not overlapping(chart)
    nothing = styled(draw_matrix)("T", pd.DataFrame(), Matrix(np.full((50, 50), np.nan), order, order, (0, 1), "v"))
    assert nothing.alt == "A matrix of 50 tasks without a known value between different ones."


@pytest.mark.parametrize("count", [4, 15, 40])
def test_a_matrix_has_room_for_long_names(count: int) -> None:
    names = [f"agreement_of_adjectives_across_a_prepositional_phrase_{place}" for place in range(count)]
    order = task_order(xr.Dataset(coords={"task": names, "group": ("task", names)}))
    values = np.eye(count)
    chart = styled(draw_matrix)("Title", pd.DataFrame(), Matrix(values, order, order, (0, 1), "value"))
    assert not overlapping(chart)
    labels = [*chart.axes[0].get_xticklabels(), *chart.axes[0].get_yticklabels()]
    corners = np.concatenate([text.get_window_extent().get_points() for text in labels])
    assert (corners > -1).all() and (corners < chart.bbox.max + 1).all()


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (3, (2, 2))])
def test_panels_are_side_by_side(count: int, shape: tuple[int, int]) -> None:
    chart = Chart("Title", pd.DataFrame(), "alt")
    shown = dict(draw_panels(chart, list(range(count))))
    assert len(shown) == count and len(chart.axes) == shape[0] * shape[1]
    assert sum(axes.get_visible() for axes in chart.axes) == count
    assert chart.get_size_inches()[1] == pytest.approx(0.6 + 2.4 * shape[0])
