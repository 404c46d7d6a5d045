"""Figures of task spaces: the numbers they show are those of the stores."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from chart_checks import overlapping
from taskspace_stores import KNOWN, Known, bridge_store, gradients_store, pairs_of, space_store, transfer_store

from chronocoder.figures.bridge import draw_removal, draw_transfer_by_features
from chronocoder.figures.chart import Chart
from chronocoder.figures.gradients import (
    MEASURES,
    draw_gradient_course,
    draw_gradient_matrix,
    group_means,
    level_means,
)
from chronocoder.figures.space import (
    BASES,
    draw_agreement_course,
    draw_contrast_course,
    draw_group_course,
    draw_space,
    draw_stability_course,
    group_style,
)
from chronocoder.figures.transfer import (
    draw_damage,
    draw_damage_course,
    draw_gain_course,
    draw_relative_transfer,
    draw_transfer,
    method_labels,
    unit_words,
)
from chronocoder.stores import strings

MANY = Known(groups={f"group_{place}": [f"task_{place}_{of}" for of in range(4)] for place in range(5)})
ONCE = Known(checkpoints={"step20": 50_000})


@pytest.fixture
def transfer() -> xr.Dataset:
    return transfer_store()


def lines_of(chart: Chart) -> dict[str, np.ndarray]:
    """What each named line shows."""
    return {
        str(line.get_label()): np.asarray(line.get_ydata())
        for line in chart.axes[0].get_lines()
        if not str(line.get_label()).startswith("_")
    }


def clim(chart: Chart) -> tuple[float, float]:
    found: tuple[float, float] = chart.axes[0].collections[0].get_clim()
    return found


def test_transfer_is_that_of_the_tasks_that_label_it(transfer: xr.Dataset) -> None:
    chart = draw_transfer(transfer, "ftgd", "step20")
    assert chart.title == "Transfer by ftgd at step20" and len(chart.data) == 49
    columns = {"transfer": "mean_transfer", "low": "mean_transfer_low", "high": "mean_transfer_high"}
    columns |= {"chance_level": "chance_level", "accuracy_change": "accuracy_change"}
    for row in chart.data.to_dict("records"):
        at = {"checkpoint": "step20", "source": row["source"], "target": row["target"]}
        of = transfer.sel(at)
        for name, variable in columns.items():
            values = of[variable].sel(tuning="ftgd") if "tuning" in of[variable].dims else of[variable]
            assert row[name] == float(values), name
    texts = [text.get_text() for text in chart.axes[0].texts]
    beyond = transfer["beyond_chance"].sel(tuning="ftgd", checkpoint="step20")
    assert sum(text.endswith("*") for text in texts) == int(beyond.sum()) and not overlapping(chart)
    relative = draw_relative_transfer(transfer, "ftgd", "step20")
    shares = transfer["relative_transfer"].sel(tuning="ftgd", checkpoint="step20").values
    np.testing.assert_array_equal(relative.data["relative_transfer"], shares.ravel())
    assert clim(relative) == (-1, 1)
    at_start = draw_relative_transfer(transfer, "ftgd", "step0")
    assert at_start.data["relative_transfer"].isna().all() and not at_start.axes[0].texts  # nothing is gained


def test_colours_mean_the_same_in_all_matrices_of_transfer(transfer: xr.Dataset) -> None:
    ends = {clim(draw_transfer(transfer, name, at)) for name in ("ftgd", "plain") for at in ("step0", "step20")}
    pairs = [*pairs_of(True), *pairs_of(False)]
    largest = max(float(abs(transfer["mean_transfer"].sel(source=a, target=b)).max()) for a, b in pairs)
    ((low, high),) = ends
    assert (low, high) == (pytest.approx(-largest), pytest.approx(largest))


def test_a_level_that_is_not_known_marks_nothing() -> None:
    silent = transfer_store(replace(KNOWN, methods={"ftgd": ("differential", 0.01)}))
    chart = draw_transfer(silent, "ftgd", "step20")
    assert chart.data["chance_level"].isna().all()
    assert not any("*" in text.get_text() for text in chart.axes[0].texts)


def test_units_and_methods_in_words(transfer: xr.Dataset) -> None:
    assert method_labels(transfer)["plain"] == "plain (right sentences only, 100\u00a0% of the parameters)"
    assert unit_words(transfer) == "logits"
    odd = transfer.assign_coords(unit=("target", strings(["logit", *["nat"] * 6])))
    assert unit_words(odd) == "in each task’s unit"


def test_damage_has_a_point_for_each_method_and_task(transfer: xr.Dataset) -> None:
    chart = draw_damage(transfer, "step10")
    assert len(chart.data) == 21
    for row in chart.data.to_dict("records"):
        at = transfer.sel(tuning=row["tuning"], checkpoint="step10", source=row["source"])
        assert row["perplexity_ratio"] == pytest.approx(np.exp(float(at["mean_loss_change"])))
        assert row["own_gain"] == pytest.approx(float(at["mean_transfer"].sel(target=row["source"])))
    shown = lines_of(chart)
    np.testing.assert_allclose(shown["plain"], chart.data["own_gain"][chart.data["tuning"] == "plain"])
    assert chart.axes[0].get_xscale() == "linear" and not overlapping(chart)
    grave = transfer.assign(mean_loss_change=10 * transfer["mean_loss_change"])
    assert draw_damage(grave, "step10").axes[0].get_xscale() == "log"


def test_damage_and_gain_over_training_are_medians_and_quartiles_over_tasks(transfer: xr.Dataset) -> None:
    ratio = np.exp(transfer["mean_loss_change"].sel(tuning="plain").values)
    chart = draw_damage_course(transfer)
    of_plain = chart.data[chart.data["line"] == "plain"]
    np.testing.assert_allclose(of_plain["value"], np.median(ratio, axis=1))
    np.testing.assert_allclose(of_plain["high"], np.quantile(ratio, 0.75, axis=1))
    gain = draw_gain_course(transfer)
    own = [
        [
            float(transfer["mean_transfer"].sel(tuning="ftgd", checkpoint=at, source=task, target=task))
            for task in KNOWN.tasks
        ]
        for at in KNOWN.checkpoints
    ]
    np.testing.assert_allclose(lines_of(gain)["ftgd"], np.median(own, axis=1))
    assert not overlapping(chart) and not overlapping(gain)
    assert 1.0 in chart.axes[0].get_lines()[-1].get_ydata()  # the ratio of no damage


def test_means_of_gradients_are_over_pairs_of_different_tasks() -> None:
    store = gradients_store()
    means = group_means(store, "shared_parameters")
    for name, same in (("within groups", True), ("between groups", False)):
        shared = store["shared_parameters"].sel(checkpoint="step20")
        slow = [float(shared.sel(task=one, other_task=other)) for one, other in pairs_of(same)]
        assert means[name][2] == pytest.approx(np.mean(slow))
    chance = level_means(store, MEASURES["shared parameters"])["chance"]
    slow = [store["shared_chance"].sel(task=a, other_task=b) for a, b in [*pairs_of(True), *pairs_of(False)]]
    assert chance[2] == pytest.approx(np.mean([float(values[2]) for values in slow]))
    assert level_means(store, MEASURES["overlap of subspaces"])["chance"] == pytest.approx([0.03] * 3)
    shown = lines_of(draw_gradient_course(store, "shared parameters"))
    assert list(shown) == ["within groups", "between groups", "right and wrong swapped", "chance", "halves of one task"]
    np.testing.assert_allclose(shown["within groups"], means["within groups"])


def test_a_comparison_of_gradients_that_is_not_known_of_all_pairs_is_averaged_over_the_others() -> None:
    store = gradients_store()
    store["corrected_cosine"].loc[{"task": "near", "other_task": "far"}] = np.nan
    pairs = [pair for pair in pairs_of(True) if pair != ("near", "far")]
    slow = [float(store["corrected_cosine"].sel(checkpoint="step10", task=a, other_task=b)) for a, b in pairs]
    assert group_means(store, "corrected_cosine")["within groups"][1] == pytest.approx(np.mean(slow))


@pytest.mark.parametrize("label", MEASURES)
def test_matrices_of_gradients_leave_out_a_diagonal_that_tells_nothing(label: str) -> None:
    store, measure = gradients_store(), MEASURES[label]
    chart = draw_gradient_matrix(store, label, "step20")
    low, high = clim(chart)
    assert low == (-high if "cosine" in measure.variable else 0)
    cells = chart.axes[0].collections[0].get_array()
    assert (np.ma.getmaskarray(cells).sum() == 7) == (label == "cosine, corrected for sampling")
    at = store.sel(checkpoint="step20", task="near", other_task="far")
    (row,) = chart.data[(chart.data["task"] == "near") & (chart.data["other_task"] == "far")].to_dict("records")
    assert row[measure.variable] == float(at[measure.variable])
    assert all(row[variable] == float(at[variable]) for variable in measure.levels.values())
    assert ("low" in row) == measure.has_interval and not overlapping(chart)


def test_spaces_share_a_scale_and_leave_out_tasks_without_a_position() -> None:
    store = space_store()
    store["position"].loc[{"basis": "transfer", "checkpoint": "step20", "task": "far"}] = np.nan
    chart = draw_space(store, "transfer")
    shown = [axes for axes in chart.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in shown] == [
        "step0, 0 tokens (7 of 7 left out)",
        "step10, 1 k tokens",
        "step20, 50 k tokens (1 of 7 left out)",
    ]
    assert len({axes.get_xlim() for axes in shown}) == 1 and len(chart.data) == 21
    for row in chart.data.to_dict("records"):
        position = store["position"].sel(basis="transfer", checkpoint=row["checkpoint"], task=row["task"])
        np.testing.assert_array_equal([row["axis_1"], row["axis_2"]], position)
    numbers = dict(zip(chart.data["task"], chart.data["number"], strict=True))
    assert numbers == {"near": 1, "far": 2, "across_clause": 3, "reflexive": 4, "pronoun": 5, "wh": 6, "adjunct": 7}
    assert [text.get_text() for text in shown[2].texts] == ["1", "3", "4", "5", "6", "7"]
    np.testing.assert_array_equal(
        shown[1].get_lines()[0].get_xydata(),
        store["position"].sel(basis="transfer", checkpoint="step10", task=["near", "far", "across_clause"]),
    )
    assert [text.get_text() for text in chart.legends[0].get_texts()] == [
        "agreement: 1\u00a0near, 2\u00a0far, 3\u00a0across clause",
        "binding: 4\u00a0reflexive, 5\u00a0pronoun",
        "islands: 6\u00a0wh, 7\u00a0adjunct",
    ]
    assert len({group_style(place) for place in range(36)}) == 36 and not overlapping(chart)


def test_points_of_many_tasks_have_no_numbers() -> None:
    chart = draw_space(space_store(MANY), "gradients")
    assert not any(axes.texts for axes in chart.axes)
    assert chart.legends[0].get_texts()[0].get_text() == "group 0: 4 tasks"
    assert len([axes for axes in draw_space(space_store(ONCE), "gradients").axes if axes.get_visible()]) == 1


def test_courses_of_spaces_show_what_is_stored() -> None:
    store = space_store()
    for basis in BASES:
        of_basis = store.sel(basis=basis)
        groups, contrast, stability = (
            draw(store, basis) for draw in (draw_group_course, draw_contrast_course, draw_stability_course)
        )
        assert list(lines_of(groups)) == ["within groups", "between groups"]
        np.testing.assert_array_equal(lines_of(groups)["within groups"], of_basis["within"])
        for column, variable in {"value": "contrast", "low": "contrast_low", "p_value": "contrast_p"}.items():
            np.testing.assert_array_equal(contrast.data[column], of_basis[variable])
        assert len(lines_of(stability)) == (4 if basis == "transfer" else 2)
        np.testing.assert_array_equal(lines_of(stability)["relabelled tasks"], of_basis["stability_chance"])
        assert not any(map(overlapping, (groups, contrast, stability)))
    agreement = draw_agreement_course(store)
    np.testing.assert_array_equal(lines_of(agreement)["transfer and gradients"], store["agreement"])
    unsure = draw_contrast_course(space_store(p_value=0.2), "transfer")
    (hollow,) = (line for line in unsure.axes[0].get_lines() if line.get_markerfacecolor() == "white")
    assert len(hollow.get_xdata()) == 2  # the first has no value


@pytest.mark.parametrize("measure", ["overlap", "cosine"])
def test_transfer_by_features_has_a_point_for_each_pair(measure: str) -> None:
    store = bridge_store()
    chart = draw_transfer_by_features(store, measure, "step20")
    rho = {"overlap": "0.60", "cosine": "0.50"}[measure]
    assert chart.title == f"{measure.capitalize()} of features and transfer at step20: ρ = {rho}, p = 0.004"
    assert len(chart.data) == 42
    shown = {str(line.get_label()): line for line in chart.axes[0].get_lines()}
    for label, same in (("two tasks of one group", True), ("tasks of different groups", False)):
        points = {tuple(point) for point in shown[label].get_xydata().tolist()}
        at = [store.sel(checkpoint="step20", source=a, target=b) for a, b in pairs_of(same)]
        assert points == {(float(of[f"feature_{measure}"]), float(of["transfer"])) for of in at}
    assert ("overlap by chance" in shown) == (measure == "overlap") and not overlapping(chart)


def test_removal_shows_pairs_that_share_features() -> None:
    store = bridge_store()
    chart = draw_removal(store, "step20")
    last = store.sel(checkpoint="step20")
    expected = int(((last["shared_features"] > 0) & (last["source"] != last["target"])).sum())
    assert len(chart.data) == expected and (chart.data["source"] != chart.data["target"]).all()
    shown = {str(line.get_label()): line for line in chart.axes[0].get_lines()}
    for name in ("shared", "others"):
        label = f"without {'shared features' if name == 'shared' else 'as many others'}"
        np.testing.assert_array_equal(shown[label].get_ydata(), chart.data[f"transfer_without_{name}"])
        np.testing.assert_array_equal(shown[label].get_xdata(), chart.data["transfer_intact"])
    assert f"{expected} ordered pairs" in chart.alt and not overlapping(chart)
    apart = store.assign(shared_features=0 * store["shared_features"])
    assert draw_removal(apart, "step20").alt.startswith("No point")


def test_figures_of_many_tasks_are_written(tmp_path: Path) -> None:
    charts = {
        "transfer": draw_transfer(transfer_store(MANY), "ftgd", "step20"),
        "gradients": draw_gradient_matrix(gradients_store(MANY), "shared parameters", "step20"),
        "space": draw_space(space_store(MANY), "transfer"),
    }
    for name, chart in charts.items():
        assert not overlapping(chart), name
        chart.write(tmp_path / name)
    assert len(list(tmp_path.iterdir())) == 9
