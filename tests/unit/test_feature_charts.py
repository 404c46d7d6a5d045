"""What the figures of a run's features show, against the numbers in the store, and against slow counts of them."""

import itertools
from collections import Counter

import numpy as np
import pytest
import xarray as xr
from matplotlib.patches import PathPatch, Rectangle
from report_stores import REVISIONS, example_store, longer, relie_store, with_clusters
from scipy.stats import spearmanr

from chronocoder.attribution.measures import CLASSES
from chronocoder.errors import StoreError
from chronocoder.figures.activations import draw_activations
from chronocoder.figures.chart import MANY_MARKS, Chart
from chronocoder.figures.decoder_share import draw_decoder_share, rank_correlation
from chronocoder.figures.flow import (
    COUNT,
    FATES,
    NEXT,
    NO_COUNTERPART,
    NO_EFFECT,
    PRESENCE,
    STATE,
    draw_presence,
    draw_succession,
    flow_table,
    presence_states,
    succession_states,
)
from chronocoder.figures.pairs import BASES, MARKS, PUBLISHED, TOTAL, pair_table, thresholds
from chronocoder.figures.shares import BINS, COUNTED, WEIGHTED, draw_shares
from chronocoder.figures.ternary import draw_ternary
from chronocoder.figures.trajectories import draw_clusters, draw_largest, largest_features
from chronocoder.tasks.groups import finest_groups
from chronocoder.wording import percent

CLASSES_DRAWN = ["emerged", "maintained", "discontinued"]


def random_store(checkpoints: int = 2, features: int = 40, seed: int = 0) -> xr.Dataset:
    """Effects of any size, with shares that have intervals, and classes without regard to them."""
    generator = np.random.default_rng(seed)
    effects = generator.normal(size=(2, checkpoints, features))
    store = relie_store(*effects.tolist(), generator.choice(CLASSES_DRAWN, size=features).tolist())
    for name in ("relative_indirect_effect", "normalised_relative_indirect_effect"):
        store[f"{name}_low"], store[f"{name}_high"] = 0.7 * store[name], (1.2 * store[name]).clip(max=1)
    norms = generator.uniform(size=(checkpoints, features))
    return store.assign(relative_decoder_norm=(("checkpoint", "feature"), norms / norms.sum(axis=0)))


def pairs_of(relie: xr.Dataset) -> list[xr.Dataset]:
    """The feature–task pairs with a measurable effect, one by one."""
    places = itertools.product(relie["task"].values, relie["feature"].values)
    found = (relie.sel(task=task, feature=feature) for task, feature in places)
    return [pair for pair in found if pair["measurable"].any()]


def drawn(chart: Chart) -> Chart:
    """Lay the chart out, which fails where that cannot be done."""
    chart.draw_without_rendering()
    return chart


def test_classes_that_can_be_drawn_are_those_of_the_measures() -> None:
    assert {*MARKS, "no effect"} == set(CLASSES) and set(FATES) == {*CLASSES, NO_COUNTERPART}
    looks = list(MARKS.values())
    assert all(len({getattr(mark, part) for mark in looks}) >= 5 for part in ("colour", "marker", "hatch"))


def test_thresholds_of_a_pair_are_those_of_the_paper() -> None:
    assert thresholds(2) == pytest.approx([0.3, 0.7])
    assert thresholds(3) == pytest.approx([0.2])


@pytest.mark.parametrize("basis", [PUBLISHED, TOTAL])
def test_pairs_are_those_with_a_measurable_effect(basis: str) -> None:
    relie = random_store(3)
    table, expected = pair_table(relie, basis), pairs_of(relie)
    assert table["feature"].tolist() == [int(pair["feature"]) for pair in expected]
    assert table["task"].tolist() == [str(pair["task"].values) for pair in expected]
    assert table.groupby("task")["weight"].sum().tolist() == pytest.approx([1, 1])
    for (_, row), pair in zip(table.iterrows(), expected, strict=True):
        own = pair if basis == PUBLISHED else pair.sel(normalisation=basis)
        share = own[f"{'' if basis == PUBLISHED else 'normalised_'}relative_indirect_effect"]
        assert [row[f"relie_{name}"] for name in relie["checkpoint"].values] == pytest.approx(share.values.tolist())


def test_shares_count_features_once_and_by_their_effect(relie: xr.Dataset) -> None:
    data = drawn(draw_shares(relie, "step20")).data
    near = data[data["row"] == "near"]
    assert len(data) == 2 * BINS
    assert near[COUNTED].tolist() == pytest.approx([0.5, *[0] * 9, 0.5, *[0] * 9])
    assert near[WEIGHTED].iloc[[0, 10]].tolist() == pytest.approx([1.0 / 2.1, 1.1 / 2.1])
    relie["measurable"] = relie["measurable"].where(relie["feature"] != 2, False)
    alone = draw_shares(relie, "step20").data
    assert alone[alone["row"] == "near"][COUNTED].tolist() == [1.0, *[0.0] * 19]


def test_shares_are_those_of_a_histogram() -> None:
    relie = random_store(3)
    data = draw_shares(relie, "step10", TOTAL).data
    for task in ("near", "far"):
        pairs = pairs_of(relie.sel(task=[task]))
        shares = [float(pair["normalised_relative_indirect_effect"].sel(normalisation=TOTAL)[1]) for pair in pairs]
        weights = [float(abs(pair["indirect_effect"]).sum()) for pair in pairs]
        counts = [sum(int(share * BINS) == place for share in shares) / len(shares) for place in range(BINS)]
        sums = [
            sum(weight for share, weight in zip(shares, weights, strict=True) if int(share * BINS) == place)
            for place in range(BINS)
        ]
        own = data[data["row"] == task]
        assert own[COUNTED].tolist() == pytest.approx(counts)
        assert own[WEIGHTED].tolist() == pytest.approx([amount / sum(weights) for amount in sums])


def test_groups_are_means_over_their_tasks() -> None:
    relie = random_store()
    groups = finest_groups(relie)
    by_task = draw_shares(relie, "step20").data
    by_group = drawn(draw_shares(relie, "step20", groups=groups)).data
    assert by_group["row"].unique().tolist() == ["english (1 task)", "french (1 task)"]
    np.testing.assert_allclose(by_group[WEIGHTED], by_task[WEIGHTED])
    many = xr.concat([relie] * 7, "task", data_vars="minimal", coords="minimal")
    silent = many.assign(measurable=many["measurable"] & (np.arange(14) < 2)[:, None, None])
    for store in (many, silent):  # a task without measurable features is no part of the mean
        data = draw_shares(store, "step20", groups=finest_groups(store)).data
        assert data["row"].unique().tolist() == ["english (7 tasks)", "french (7 tasks)"]
        np.testing.assert_allclose(data[WEIGHTED], by_task[WEIGHTED])


def test_a_task_without_measurable_features_has_an_empty_row(relie: xr.Dataset) -> None:
    relie["measurable"] = relie["measurable"].where(relie["task"] != "near", False)
    data = drawn(draw_shares(relie, "step20")).data
    assert (data[data["row"] == "near"][[COUNTED, WEIGHTED]] == 0).all(axis=None)
    upper = data[(data["row"] == "far") & (data["relie_low"] >= 0.5)][COUNTED].sum()
    assert f"{percent(upper)} lie above one half" in draw_shares(relie, "step20").alt


def test_a_triangle_shows_shares_by_both_bases() -> None:
    relie = random_store(3)
    chart = drawn(draw_ternary(relie))
    assert len(chart.data) == 2 * len(pairs_of(relie))
    assert chart.data["basis"].unique().tolist() == list(BASES.values())
    np.testing.assert_allclose(chart.data[[f"relie_{name}" for name in REVISIONS]].sum(axis=1), 1)
    points = sum(len(collection.get_offsets()) for axes in chart.axes for collection in axes.collections)
    assert points == len(chart.data)


def test_a_triangle_needs_three_checkpoints(relie: xr.Dataset) -> None:
    with pytest.raises(StoreError, match="a triangle has three corners, but there are 2 checkpoints"):
        draw_ternary(relie)


@pytest.mark.parametrize("checkpoints", [2, 3])
def test_largest_features_are_drawn_with_their_intervals(checkpoints: int) -> None:
    relie = random_store(checkpoints)
    of_task = relie.sel(task="far")
    order = sorted(pairs_of(relie.sel(task=["far"])), key=lambda pair: -float(abs(pair["indirect_effect"]).max()))
    assert largest_features(of_task, 5) == [int(pair["feature"]) for pair in order[:5]]
    chart = drawn(draw_largest(relie, "far", 5))
    assert len(chart.data) == 5 * checkpoints and len(chart.axes[0].get_legend().get_texts()) == 5
    for _, row in chart.data.iterrows():
        own = of_task.sel(feature=row["feature"], checkpoint=row["checkpoint"])
        assert (row["indirect_effect"], row["indirect_effect_low"], row["indirect_effect_high"]) == tuple(
            float(own[f"indirect_effect{end}"]) for end in ("", "_low", "_high")
        )
    assert chart.data["unit"].unique().tolist() == ["logits"]


def test_features_that_are_not_measurable_are_not_drawn(relie: xr.Dataset) -> None:
    assert largest_features(relie.sel(task="near")) == [0, 2]
    relie["measurable"] = xr.zeros_like(relie["measurable"])
    chart = drawn(draw_largest(relie, "near"))
    assert largest_features(relie.sel(task="near")) == [] and chart.data.empty
    assert chart.alt == "Near: lines of IE in logits with intervals, step10 to step20: none."


def test_clusters_have_means_and_quartiles(relie: xr.Dataset) -> None:
    three = with_clusters(longer(relie))
    chart = drawn(draw_clusters(three))
    assert chart.data["relie"].tolist() == [0.0, 0.2, 0.8]
    inside = three["relative_indirect_effect"].where(three["trajectory_cluster"] == 0)
    lower = inside.quantile(0.25, ("task", "feature"))
    np.testing.assert_allclose(chart.data["relie_lower_quartile"], lower)
    assert chart.axes[0].get_title(loc="left") == "Cluster 1 (10 pairs)"
    assert chart.alt.endswith("Cluster 1 (10 pairs) is largest at step20.")


def test_relie_is_drawn_over_reldec() -> None:
    relie = random_store(3)
    chart = drawn(draw_decoder_share(relie))
    pairs = pairs_of(relie)
    assert len(chart.data) == len(pairs)
    for name in REVISIONS:
        norms, shares = (
            [float(pair[variable].sel(checkpoint=name)) for pair in pairs]
            for variable in ("relative_decoder_norm", "relative_indirect_effect")
        )
        assert chart.data[f"reldec_{name}"].tolist() == norms and chart.data[f"relie_{name}"].tolist() == shares
        assert rank_correlation(chart.data, name) == pytest.approx(spearmanr(norms, shares).statistic)


def test_the_lowest_panel_of_each_column_has_a_labelled_axis() -> None:
    four = random_store(3).isel(checkpoint=[0, 1, 2, 2]).assign_coords(checkpoint=[*REVISIONS, "step40"])
    chart = drawn(draw_decoder_share(four))
    labelled = [axes.get_visible() and axes.get_xlabel() == "RelDec" for axes in chart.axes]
    assert labelled == [False, True, True, True, False, False]


def test_of_a_pair_the_later_checkpoint_is_drawn(relie: xr.Dataset) -> None:
    chart = drawn(draw_decoder_share(relie))
    assert [axes.get_title(loc="left") for axes in chart.axes] == ["step20: ρ = –"]


def test_many_points_are_drawn_as_pixels() -> None:
    few, many = (draw_decoder_share(random_store(features=count)) for count in (40, MANY_MARKS))
    assert not any(points.get_rasterized() for points in few.axes[0].collections)
    assert all(points.get_rasterized() for points in many.axes[0].collections)


@pytest.mark.parametrize("basis", [PUBLISHED, TOTAL])
def test_presence_is_told_by_the_interval(basis: str) -> None:
    relie = random_store(3)
    states = presence_states(relie, basis)
    for number, pair in enumerate(pairs_of(relie)):
        own = pair if basis == PUBLISHED else pair.sel(normalisation=basis)
        stem = "relative_indirect_effect" if basis == PUBLISHED else "normalised_relative_indirect_effect"
        for place in range(3):
            low, high = (float(own[f"{stem}{end}"][place]) for end in ("_low", "_high"))
            expected = "absent" if high < 0.2 else "uncertain"
            if low > 0.2 and bool(pair["measurable"][place]):
                expected = "present"
            assert states.values[place, number] == expected


def test_flows_are_counts_of_pairs() -> None:
    states = presence_states(random_store(3), PUBLISHED)
    table = flow_table(states, list(PRESENCE))
    for place in (0, 1):
        own = table[table["from"] == REVISIONS[place]]
        found = {(row[STATE], row[NEXT]): row[COUNT] for _, row in own.iterrows()}
        assert found == Counter(zip(states.values[place], states.values[place + 1], strict=True))


def test_ribbons_and_bars_are_as_high_as_their_counts() -> None:
    relie = random_store(3)
    chart = drawn(draw_presence(relie))
    patches = chart.axes[0].patches
    bars = [patch for patch in patches if isinstance(patch, Rectangle)]
    ribbons = [patch for patch in patches if isinstance(patch, PathPatch)]
    assert sum(bar.get_height() for bar in bars) == 3 * len(pairs_of(relie))
    assert len(ribbons) == len(chart.data)
    heights = [ribbon.get_path().vertices[-1, 1] - ribbon.get_path().vertices[0, 1] for ribbon in ribbons]
    assert sorted(heights) == pytest.approx(sorted(chart.data[COUNT]))


def test_presence_of_a_pair_passes_from_one_checkpoint_to_the_next(relie: xr.Dataset) -> None:
    chart = drawn(draw_presence(relie))
    assert chart.data[[STATE, NEXT, COUNT]].values.tolist() == [
        ["present", "present", 2],
        ["present", "absent", 3],
        ["absent", "present", 2],
    ]
    assert chart.alt == (
        "Flow of 7 feature–task pairs over step10 and step20. 3 pass from present at step10 to absent at step20 and 2"
        " pass from absent at step10 to present at step20."
    )


def test_classes_follow_matched_features() -> None:
    first = relie_store([[1.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]], ["discontinued", "maintained"])
    second = relie_store([[1.0, 1.0, 0.0]] * 2, [[1.0, 0.0, 0.0]] * 2, ["maintained", "emerged", "no effect"])
    third = relie_store([[1.0]] * 2, [[1.0]] * 2, ["transient"])
    matches = [
        xr.DataArray([1, -1], dims="feature", coords={"feature": [0, 1]}),
        xr.DataArray([-1, 0, -1], dims="feature", coords={"feature": [0, 1, 2]}),
    ]
    states = succession_states({"one": first, "two": second, "three": third}, matches, PUBLISHED)
    chains = [
        ("discontinued", "emerged", "transient"),
        ("maintained", NO_COUNTERPART, NO_COUNTERPART),
        (NO_COUNTERPART, "maintained", NO_COUNTERPART),
    ]
    assert Counter(zip(*states.values, strict=True)) == dict.fromkeys(chains, 2)
    chart = drawn(draw_succession({"one": first, "two": second}, matches[:1]))
    assert chart.data[COUNT].sum() == 6 and NO_EFFECT not in set(chart.data[STATE])


def test_activations_are_counted_in_bins() -> None:
    store = example_store()
    chart = draw_activations(store, 0)
    (axes,) = chart.axes
    ((counts, edges, _),) = [patch.get_data() for patch in axes.patches]
    assert counts.tolist() == [40, 50, 0, 10] and edges.tolist() == [0.25, 0.5, 1, 2, 4]
    assert axes.get_xscale() == "log" and chart.data["tokens"].tolist() == [40, 50, 0, 10]
    assert chart.alt == "Active on 100 of 1000 validation tokens, most often from 0.5 to 1."


def test_a_feature_that_is_never_active_has_no_bars() -> None:
    chart = draw_activations(example_store().isel(bin=slice(0)), 0)
    assert not chart.axes[0].patches and chart.alt == "It is active on no validation token."
