"""Figures of effects: the numbers they show are those of the stores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from chart_checks import overlapping
from matplotlib.patches import Rectangle
from report_stores import (
    CONTRAST,
    DRAWS,
    ablation_store,
    longer,
    make_run,
    of_sentences,
    relie_store,
    six_features,
    with_classes,
)

from chronocoder.attribution.measures import CLASSES, SHUFFLED
from chronocoder.figures.chart import Chart
from chronocoder.figures.contrast import affecting, contrast_effects, draw_contrast, random_level, spread
from chronocoder.figures.estimator import draw_agreement, draw_estimates
from chronocoder.figures.faithfulness import draw_faithfulness
from chronocoder.figures.rows import offsets, row_labels
from chronocoder.figures.scale import effect_scale
from chronocoder.figures.written import draw_written_shares
from chronocoder.report.trust import agreement

SAME_BY_ALL = {basis: list(CLASSES[:6]) for basis in ("published", "total_effect", "metric_size")}


@pytest.fixture
def ablations(relie: xr.Dataset) -> dict[str, xr.Dataset]:
    return {task: ablation_store(relie, task) for task in CONTRAST}


def contrast(
    relie: xr.Dataset, condition: str = "far one", checkpoint: str = "step10", marked: Sequence[int] = (0, 2)
) -> Chart:
    return draw_contrast(relie, *CONTRAST, condition, checkpoint, marked)


def test_contrast_effects_are_within_conditions_and_where_a_feature_helps_most(relie: xr.Dataset) -> None:
    swapped = contrast_effects(relie, CONTRAST.conflicting, CONTRAST.surface)
    far = relie.sel(task="far")
    for feature in range(6):
        for checkpoint in relie["checkpoint"].values:
            by_condition = {
                name: far.sel(condition=name, checkpoint=checkpoint, feature=feature) for name in ("far one", "far two")
            }
            helped = max(by_condition.values(), key=lambda of: float(of["condition_indirect_effect"]))
            for end in ("", "_low", "_high"):
                told = swapped[f"surface_effect{end}"].sel(checkpoint=checkpoint, feature=feature)
                assert float(told) == float(helped[f"condition_indirect_effect{end}"])
    effects = contrast_effects(relie, *CONTRAST)
    assert list(effects["condition"].values) == ["far one", "far two"]
    np.testing.assert_allclose(effects["surface_effect"].sel(checkpoint="step10", feature=[0, 2]), [1.0, 0.5])
    second = effects["conflicting_effect"].sel(condition="far two", checkpoint="step20")
    np.testing.assert_allclose(second.sel(feature=[0, 2]), [0.0, 0.9])


def test_contrast_shows_features_with_an_effect_on_either_task(relie: xr.Dataset) -> None:
    assert affecting(relie, CONTRAST) == [0, 1, 2, 3, 4]
    assert affecting(relie, CONTRAST[:1]) == [0, 2]
    relie["condition_measurable"][:] = False
    assert affecting(relie, CONTRAST) == []


def test_level_of_random_directions_is_over_all_of_them(relie: xr.Dataset) -> None:
    of_task = with_classes(relie, SAME_BY_ALL, controls=(*DRAWS, SHUFFLED)).sel(task="far").isel(condition=[1, 2])
    effects = np.linspace(-1, 0.5, 12).reshape(2, 6)
    drawn = of_task["control_indirect_effect"]
    drawn.loc[{"control": list(DRAWS), "condition": "far two", "checkpoint": "step20"}] = effects
    drawn.loc[{"control": DRAWS[0], "feature": 3}] = np.nan
    level = random_level(of_task, 0.95)
    assert level.dims == ("condition", "checkpoint")
    left = abs(np.delete(effects.ravel(), 3))
    np.testing.assert_allclose(level.values, [[0.05, 0.05], [0.05, np.quantile(left, 0.95)]])
    drawn[:] = np.nan
    assert random_level(of_task, 0.95).isnull().all()


def test_contrast_shows_the_numbers_of_the_stores(relie: xr.Dataset) -> None:
    chart = contrast(relie)
    assert chart.title == "At step10" and len(chart.data) == 5
    of_first = chart.data.set_index("feature").loc[0]
    expected = {"surface_effect": 1.0, "surface_effect_low": 0.9, "conflicting_effect": -0.8, "surface_level": 0.05}
    assert of_first[list(expected)].to_dict() == pytest.approx(expected)
    assert list(chart.data["role"]) == ["surface rule", "other", "surface rule", "other", "other"]
    assert "3 in the corner" in chart.alt and "feature 0: +1.00 and −0.80; feature 2: +0.50 and −0.30." in chart.alt
    (axes,) = chart.axes
    (others,) = axes.collections[:1]
    np.testing.assert_allclose(others.get_offsets(), [[0, 0], [0.05, -1], [0, 0]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("IE on near (logits)", "IE on far (logits)")


def test_contrasts_of_the_same_effects_share_a_scale_and_mark_the_same_features(relie: xr.Dataset) -> None:
    charts = [
        contrast(relie, condition, checkpoint)
        for condition in ("far one", "far two")
        for checkpoint in ("step10", "step20")
    ]
    assert len({(chart.axes[0].get_xlim(), chart.axes[0].get_ylim()) for chart in charts}) == 1
    for chart in charts:
        assert {"0", "2"} <= {text.get_text() for text in chart.axes[0].texts}
        assert overlapping(chart) == []


def test_level_of_a_contrast_is_over_the_directions_of_features_that_are_not_shown(relie: xr.Dataset) -> None:
    relie["control_indirect_effect"].loc[{"feature": 5}] = 9.0
    data = contrast(relie).data
    assert 5 not in list(data["feature"])
    np.testing.assert_allclose(data["surface_level"], np.quantile([0.05] * 10 + [9.0] * 2, 0.95))


def test_level_of_a_surface_task_is_that_of_directions_in_the_condition_that_each_helps_most(relie: xr.Dataset) -> None:
    generator = np.random.default_rng(0)
    drawn = relie["control_indirect_effect"]
    relie["control_indirect_effect"] = drawn.copy(data=generator.normal(size=drawn.shape))
    of_far = relie["control_indirect_effect"].sel(task="far", condition=["far one", "far two"])
    level = contrast_effects(relie, "far", "near", 0.8)["surface_level"]
    for checkpoint in relie["checkpoint"].values:
        first, second = (
            of_far.sel(condition=name, checkpoint=checkpoint).values.ravel() for name in ("far one", "far two")
        )
        shown = [abs(max(pair)) for pair in zip(first, second, strict=True)]
        assert float(level.sel(checkpoint=checkpoint)) == pytest.approx(np.quantile(shown, 0.8))


@pytest.mark.parametrize("random", [True, False])
def test_contrast_shades_the_level_of_random_directions(relie: xr.Dataset, random: bool) -> None:
    chart = contrast(relie if random else with_classes(relie, SAME_BY_ALL, controls=()))
    boxes = [patch for patch in chart.axes[0].patches if isinstance(patch, Rectangle)]
    sizes = [(box.get_x(), box.get_y(), box.get_width(), box.get_height()) for box in boxes[1:]]
    assert sizes == ([pytest.approx((-0.05, -0.05, 0.1, 0.1))] if random else [])
    said = [text.get_text() for text in chart.legends[0].get_texts()]
    assert ("95 % of random directions" in said) == random
    assert chart.data["surface_level"].isna().all() != random


def test_contrast_without_marked_features_and_with_units(relie: xr.Dataset) -> None:
    chart = contrast(of_sentences(relie), marked=[])
    assert chart.alt.endswith("None is marked.") and chart.axes[0].get_ylabel() == "IE on far (nats)"
    assert contrast(relie_store([[0.0]] * 2, [[0.0]] * 2, ["no effect"]), marked=[]).data.empty


@pytest.mark.parametrize("places", [[0.5, 0.5, 0.5], [0.99, 0.98, 0.1], [0.0, 1.0], [], [0.2, 0.21, 0.9, 0.22]])
def test_labels_are_apart_in_order_and_close(places: list[float]) -> None:
    moved = spread(np.array(places), 0.1)
    order = np.argsort(places, kind="stable")
    assert (np.diff(moved[order]) >= 0.1 - 1e-12).all() and ((moved >= 0) & (moved <= 1)).all()
    assert (abs(moved - places) <= 0.1 * len(places)).all()
    np.testing.assert_allclose(spread(np.array([0.9, 0.1, 0.5]), 0.1), [0.9, 0.1, 0.5])


def test_effect_scale_is_odd_and_holds_all_effects() -> None:
    effects = np.array([-3.0, -0.01, 0.0, 0.2, np.nan])
    scale = effect_scale(effects)
    np.testing.assert_allclose(scale.place(-effects), 1 - scale.place(effects))
    known = scale.place(effects[:4])
    assert ((known > 0) & (known < 1)).all() and scale.place(np.array([-scale.limit, scale.limit])).tolist() == [0, 1]
    assert {-1.0, 0.0, 1.0} <= set(scale.ticks) and scale.ticks.tolist() == sorted(scale.ticks)


@pytest.mark.parametrize("effects", [np.zeros(3), np.full(3, np.nan), np.empty(0)])
def test_effect_scale_of_no_effect_is_finite(effects: np.ndarray) -> None:
    assert np.isfinite(effect_scale(effects).ticks).all() and effect_scale(effects).limit > 0


def test_written_shares_are_those_of_the_pair(ablations: dict[str, xr.Dataset]) -> None:
    stores = {task: ablation_store(longer(six_features()), task) for task in CONTRAST}
    charts = [draw_written_shares(stores, pair) for pair in range(3)]
    assert [chart.title for chart in charts] == [
        "From step0 to step10",
        "From step0 to step20",
        "From step10 to step20",
    ]
    stores["far"]["written_share"][1, 0] = -0.5
    data = draw_written_shares(stores, 1).data
    assert list(data["group"]) == ["top", *DRAWS] * 2 and list(data["task"]) == ["near"] * 3 + ["far"] * 3
    assert list(data["share"]) == [0.25, 0.75, 0.875, -0.5, 0.75, 0.875]
    np.testing.assert_allclose(data["high"][:3] - data["share"][:3], 0.0625)
    assert charts[0].alt == (
        "Share of what is written in the changes of effects from step0 to step10 on 2 tasks: 25 to 25 % for the top"
        " features, 75 to 88 % for random directions."
    )
    assert [text.get_text() for text in charts[0].legends[0].get_texts()] == [
        "top features",
        "random directions in their place",
    ]
    assert [label.get_text() for label in charts[0].axes[0].get_yticklabels()] == ["near", "far"]
    assert all(overlapping(chart) == [] for chart in charts)


def test_written_shares_without_random_directions_or_undefined(ablations: dict[str, xr.Dataset]) -> None:
    alone = {task: store.isel(group=[0, 1]) for task, store in ablations.items()}
    chart = draw_written_shares(alone)
    assert list(chart.data["group"]) == ["top", "top"] and chart.alt.endswith("25 to 25 % for the top features.")
    for store in alone.values():
        store["written_share"][:] = np.nan
    assert "undefined for the top features" in draw_written_shares(alone).alt


def test_faithfulness_curves_share_a_scale_and_skip_what_is_undefined(ablations: dict[str, xr.Dataset]) -> None:
    first, last = (draw_faithfulness(ablations["near"], checkpoint) for checkpoint in ("step10", "step20"))
    assert first.axes[0].get_ylim() == last.axes[0].get_ylim()
    low, high = first.axes[0].get_ylim()
    assert low < 0 and high > 1.5
    assert first.title == "At step10, where accuracy is 0.90"
    shown = first.data.set_index("features_ablated")
    np.testing.assert_allclose(shown["random_features"], [0.05, 0.2, np.nan])
    np.testing.assert_allclose(shown["random_features_highest"], [0.1, 0.3, np.nan])
    np.testing.assert_allclose(shown["top_features"], [0.5, 1.0, np.nan])
    np.testing.assert_allclose(shown["sum_of_their_effects"], [1.0, 1.25, np.nan])
    np.testing.assert_allclose(shown["accuracy_without_random_features"], [0.9, 0.85, np.nan])
    assert (shown["no_preference_left"] == 1.5).all()
    lines = {line.get_label(): line.get_ydata() for line in first.axes[0].lines}
    np.testing.assert_allclose(lines["top features"], shown["top_features"])
    assert first.alt == (
        "Ablated together, the 2 features of largest effect change right minus wrong by 1.00 logits, their single"
        " effects add up to 1.25, and as many random features change it by 0.20; no preference is left at 1.50."
    )
    assert overlapping(first) == []


def test_faithfulness_where_no_set_is_small_enough(ablations: dict[str, xr.Dataset]) -> None:
    nothing = ablations["near"]
    for name in ("top_set_effect", "top_set_estimate", "random_set_effect"):
        nothing[name][:] = np.nan
    assert draw_faithfulness(nothing, "step10").alt == "Too few features are active to ablate any set of them."
    assert draw_faithfulness(ablations["far"], "step20").axes[0].get_ylabel() == "effect (logits)"


def test_estimates_stand_against_exact_effects(ablations: dict[str, xr.Dataset]) -> None:
    chart = draw_estimates(ablations, "published", "The published estimator")
    assert len(chart.data) == 2 * 2 * 4
    np.testing.assert_allclose(chart.data["estimate"], 2 * chart.data["exact"])
    near = chart.data[(chart.data["task"] == "near") & (chart.data["checkpoint"] == "step20")]
    np.testing.assert_allclose(
        near["exact"], ablations["near"]["indirect_effect"].sel(estimator="exact", checkpoint="step20")
    )
    assert list(near["role"]) == ["top", "top", "top", "control"]
    drawn = np.concatenate([marks.get_offsets() for marks in chart.axes[0].collections])
    assert sorted(drawn[:, 1].tolist()) == sorted(chart.data["estimate"])
    other = draw_estimates(ablations, "attribution_patching", "Attribution patching")
    assert other.axes[0].get_xlim() == chart.axes[0].get_xlim()
    assert "16 points, one for each feature on each of 2 tasks at each checkpoint;" in chart.alt
    assert "The median distance from it is" in chart.alt and overlapping(chart) == []


def test_agreement_has_a_mark_for_each_task(relie: xr.Dataset) -> None:
    run = make_run(relie)
    run.ablations["far"]["spearman"][1, 0] = -0.4
    labels = {"attribution_patching": "attribution patching", "published": "the published estimator"}
    chart = draw_agreement(agreement(run)["spearman"], "step10", labels)
    assert list(chart.data["spearman"]) == [0.95, 0.95, 0.95, -0.4]
    assert list(chart.data["task"]) == ["near", "near", "far", "far"]
    assert chart.axes[0].get_xlim()[0] < -0.4
    lines = {line.get_label(): list(line.get_xdata()) for line in chart.axes[0].lines}
    assert lines["the published estimator"] == [0.95, -0.4]
    assert chart.alt.endswith("attribution patching 0.95 to 0.95; the published estimator −0.40 to 0.95.")
    assert chart.axes[0].get_xlim() == draw_agreement(agreement(run)["spearman"], "step20", labels).axes[0].get_xlim()
    shares = draw_agreement(agreement(run)["share_spearman"], "step20", {"relative_decoder_norm": "RelDec"})
    assert list(shares.data["spearman"]) == [0.2, 0.2] and overlapping(shares) == [] and overlapping(chart) == []
    run.ablations["far"]["spearman"][:] = np.nan
    run.ablations["near"]["spearman"][:] = np.nan
    undefined = draw_agreement(agreement(run)["spearman"], "step10", labels)
    assert np.isfinite(undefined.axes[0].get_xlim()).all() and "– to –" in undefined.alt


def test_rows_are_labelled_in_lines_and_marks_of_a_row_are_apart() -> None:
    assert row_labels(["near", "agreement across a prepositional phrase"])[1].count("\n") == 1
    assert offsets(1).tolist() == [0] and offsets(3).tolist() == [-0.25, 0, 0.25]


def test_figures_of_many_tasks_and_names_with_dollars_can_be_written(relie: xr.Dataset, tmp_path: Path) -> None:
    store = ablation_store(relie, "near")
    tasks = {f"cost_$_{place}_$^": store for place in range(67)}
    chart = draw_written_shares(tasks)
    chart.write(tmp_path / "written")
    assert "cost $ 0 $^" in (tmp_path / "written.svg").read_text(encoding="utf-8")
