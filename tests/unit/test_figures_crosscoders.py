"""Figures of crosscoders hold the numbers of the stores."""

import numpy as np
import pandas as pd
import pytest
from report_stores import make_run, seed_store, six_features, with_classes, with_facts

from chronocoder.attribution.measures import CLASSES, SHUFFLED
from chronocoder.figures.classes import class_counts, draw_class_counts
from chronocoder.figures.seeds import draw_seeds
from chronocoder.figures.training import METRICS, draw_training


@pytest.mark.parametrize("metric", METRICS)
def test_training_curves_are_means_over_checkpoints(metric: str) -> None:
    runs = [make_run(six_features(), name) for name in ("pair", "other")]
    runs[1].training["explained_variance"][:] = [[0.25, 0.75], [0.5, 0.75], [0.5, 1.0]]
    chart = draw_training([run.training for run in runs], metric)
    (axes,) = chart.axes
    assert axes.get_yscale() == ("log" if metric in ("l0", "loss") else "linear")
    assert list(chart.data) == ["comparison", "variant", "seed", "step", metric]
    for run, line in zip(runs, axes.get_lines(), strict=True):
        values = run.training[metric]
        expected = values.mean("checkpoint") if "checkpoint" in values.dims else values
        np.testing.assert_allclose(line.get_ydata(), expected)
        own = chart.data[chart.data["comparison"] == run.key.comparison]
        np.testing.assert_allclose(own[metric], expected)
    first, second = axes.get_lines()
    assert first.get_color() != second.get_color() and first.get_label() == "pair · l1 · seed 0"
    assert "2 lines" in chart.alt


def test_seeds_are_drawn_as_means_over_seeds_and_checkpoints() -> None:
    matches = with_facts(seed_store(), comparison="pair", variant="l1", seeds=[0, 1, 2])
    chart = draw_seeds(matches)
    data = chart.data.set_index(["cosine_at_least", "task"])
    for least in (0.0, 0.7):
        for task in ("near", "far"):
            here = matches.sel(cosine_at_least=least, task=task)
            row = data.loc[(least, task)]
            assert row["indirect_effect_spearman"] == pytest.approx(float(here["indirect_effect_spearman"].mean()))
            assert row["class_agreement"] == pytest.approx(float(here["class_agreement"].mean()))
    spearman, *_ = chart.axes
    assert [line.get_xdata().tolist() for line in spearman.get_lines()] == [[0.5, 0.5], [0.8, 0.8]]
    assert "between 0.50 and 0.80" in chart.alt


def test_classes_are_counted_beside_what_random_directions_would_give() -> None:
    """The first draw of ten has one that emerged, the second two: of six features, 6 × 3 / 20 by chance."""
    relie = six_features()
    table = class_counts(relie).set_index(["task", "class"])
    emerged = table.loc[("near", "emerged")]
    assert (emerged["features"], emerged["features_tested"]) == (2, 6)
    assert emerged["expected"] == pytest.approx(6 * 3 / 20) and emerged["p_value"] == 0.5
    assert table.loc[("far", "maintained"), "features"] == 1 and table.loc[("far", "maintained"), "expected"] == 0
    published = class_counts(relie, "published").set_index(["task", "class"])
    assert published.loc[("near", "emerged"), "features"] == 3 and published.loc[("near", "emerged"), "p_value"] == 0.01
    assert "no effect" not in set(table.index.get_level_values("class"))


def test_shuffled_tokens_are_no_random_directions() -> None:
    bases = dict.fromkeys(("published", "total_effect", "metric_size"), CLASSES[:6])
    random = class_counts(with_classes(six_features(), bases, controls=("random directions 0", SHUFFLED)))
    assert random[random["class"] == "emerged"]["expected"].tolist() == pytest.approx([6 * 1 / 10] * 2)
    alone = class_counts(with_classes(six_features(), bases, controls=()))
    assert alone["expected"].isna().all() and alone["p_value"].isna().all()


def test_bars_are_as_long_as_the_counts() -> None:
    relie = six_features()
    chart = draw_class_counts(relie)
    pd.testing.assert_frame_equal(chart.data, class_counts(relie))
    (axes,) = chart.axes
    widths = {bars.get_label(): [bar.get_width() for bar in bars] for bars in axes.containers}
    assert widths["emerged"] == [2, 2] and widths["discontinued"] == [2, 2] and "uncertain" not in widths
    assert chart.alt == (
        "Feature–task pairs by class over 2 tasks: 4 emerged (2 expected by chance), 2 maintained (0 expected by"
        " chance), 4 discontinued (0 expected by chance)."
    )


def test_bars_without_controls_and_without_classes() -> None:
    bases = dict.fromkeys(("published", "total_effect", "metric_size"), ["no effect"] * 6)
    chart = draw_class_counts(with_classes(six_features(), bases, controls=()))
    assert chart.alt == "Feature–task pairs by class over 2 tasks: none."
