"""The report's section on task spaces: numbers against slow loops, sentences beside controls, a light page."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from report_stores import six_features, toy_inputs
from taskspace_stores import (
    KNOWN,
    Known,
    bridge_store,
    gradients_store,
    space_store,
    transfer_store,
    tuning_store,
    with_task_space,
)
from warm_python import warm_python

from chronocoder.errors import StoreError
from chronocoder.report.inputs import ReportInputs
from chronocoder.report.page import key_numbers, provenance_rows, render_page
from chronocoder.report.summary import summarise
from chronocoder.report.taskspace import TaskOrder, group_style, p_words, rounded, same_group, task_order, unit_words
from chronocoder.report.taskspace_bridge import (
    MOST_POINTS,
    bridge_sentences,
    bridge_tables,
    draw_bridges,
    hidden_pairs,
)
from chronocoder.report.taskspace_gradients import (
    MEASURES,
    draw_gradient_courses,
    draw_gradients,
    group_means,
    level_means,
    sharing_sentence,
)
from chronocoder.report.taskspace_section import space_figures, space_findings
from chronocoder.report.taskspace_spaces import (
    contrast_sentences,
    draw_space_courses,
    draw_spaces,
    group_marks,
    space_tables,
    stability_sentence,
)
from chronocoder.report.taskspace_transfer import (
    damage_sentences,
    draw_damages,
    draw_transfers,
    method_tables,
    transfer_sentence,
)
from chronocoder.stores import strings, write_store

SCRIPT = Path(__file__).parents[2] / "scripts" / "write_report.py"
FTGD = "ftgd (gradient differential, 1.0\u00a0% of the parameters)"
MANY = Known(groups={f"group_{place}": [f"task_{place}_{of}" for of in range(4)] for place in range(5)})
ALONE = Known(groups={f"group_{place}": [f"task_{place}"] for place in range(4)})
ONCE = Known(checkpoints={"step20": 50_000})


@pytest.fixture
def inputs() -> ReportInputs:
    return with_task_space(toy_inputs(six_features()))


@pytest.fixture
def transfer() -> xr.Dataset:
    return transfer_store()


def without_runs(inputs: ReportInputs) -> ReportInputs:
    return replace(inputs, runs=[], seed_matches=[], comparisons={}, contrasts=[], bridges=[])


def embedded(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="document">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def in_words(name: str) -> str:
    return name.replace("_", " ")


def pairs_of(same: bool) -> list[tuple[str, str]]:
    """Ordered pairs of different tasks that are of one group, or of different ones."""
    groups = dict(zip(KNOWN.tasks, KNOWN.group_of_tasks, strict=True))
    return [
        (one, other) for one in groups for other in groups if one != other and (groups[one] == groups[other]) == same
    ]


def test_tasks_are_ordered_by_group_and_stay_in_order_within() -> None:
    order = task_order(space_store())
    assert order == TaskOrder(
        order.places,
        ["near", "far", "across clause", "reflexive", "pronoun", "wh", "adjunct"],
        ["agreement"] * 3 + ["binding"] * 2 + ["islands"] * 2,
        [3, 5],
    )
    assert [KNOWN.tasks[place] for place in order.places][2] == "across_clause"
    within, between = same_group(space_store())
    assert (within.sum(), between.sum()) == (len(pairs_of(True)), len(pairs_of(False)))
    assert not (within & between).any() and not (within | between).diagonal().any()


def test_cells_of_the_matrix_are_of_the_tasks_that_label_them(transfer: xr.Dataset) -> None:
    drawn = draw_transfers(transfer)
    assert list(drawn) == [FTGD, "plain (right sentences only, 100\u00a0% of the parameters)", list(drawn)[2]]
    assert list(drawn[FTGD]) == ["step0", "step10", "step20"]
    absolute, relative = drawn[FTGD]["step20"]
    (cells,), (shares,) = absolute["data"], relative["data"]
    for row, source in enumerate(KNOWN.tasks):
        for column, target in enumerate(KNOWN.tasks):
            at = {"tuning": "ftgd", "checkpoint": "step20", "source": source, "target": target}
            place = cells["y"].index(in_words(source)), cells["x"].index(in_words(target))
            value, low, high, accuracy = (
                float(transfer[name].sel(at))
                for name in ("mean_transfer", "mean_transfer_low", "mean_transfer_high", "accuracy_change")
            )
            level = float(transfer["chance_level"].sel(checkpoint="step20", source=source, target=target))
            assert cells["z"][place[0]][place[1]] == pytest.approx(value, abs=5e-4), (row, column)
            assert cells["customdata"][place[0]][place[1]] == pytest.approx([low, high, accuracy, level], abs=5e-4)
            beyond = bool(transfer["beyond_chance"].sel(at))
            assert cells["text"][place[0]][place[1]].endswith("*") == beyond
            share = float(transfer["relative_transfer"].sel(at))
            assert shares["z"][place[0]][place[1]] == pytest.approx(share, abs=5e-4)
    assert absolute["title"] == "Transfer at step20 (logits)" and "chance level" in cells["hovertemplate"]
    assert [(shape["x0"], shape["x1"]) for shape in absolute["layout"]["shapes"][:2]] == [(2.5, 2.5), (4.5, 4.5)]


def test_colours_mean_the_same_in_all_matrices_and_cells_without_a_value_are_empty(transfer: xr.Dataset) -> None:
    drawn = draw_transfers(transfer)
    ends = {figures[0]["data"][0]["zmax"] for of in drawn.values() for figures in of.values()}
    pairs = [*pairs_of(True), *pairs_of(False)]
    largest = max(float(abs(transfer["mean_transfer"].sel(source=a, target=b)).max()) for a, b in pairs)
    assert list(ends) == pytest.approx([largest])
    at_start = drawn[FTGD]["step0"][1]["data"][0]
    assert all(value is None for row in at_start["z"] for value in row)  # nothing is gained before training


def test_a_level_that_is_not_known_is_not_named(transfer: xr.Dataset) -> None:
    silent = transfer_store(replace(KNOWN, methods={"ftgd": ("differential", 0.01)}))
    cells = draw_transfers(silent)[FTGD]["step20"][0]["data"][0]
    assert "chance" not in cells["hovertemplate"] and len(cells["customdata"][0][0]) == 3
    assert transfer_sentence(silent) == (
        "At step20, no transfer can be called beyond chance: what tuning does where there is nothing to learn was not"
        " measured."
    )
    assert damage_sentences(silent)[0].endswith("Plain tuning was not run beside it.")


def test_many_tasks_make_a_light_page_without_numbers_in_cells() -> None:
    store = transfer_store(MANY)
    drawn = draw_transfers(store)
    assert [label.split(" ")[0] for label in drawn] == ["ftgd", "plain"]
    cells = drawn[FTGD]["step20"][0]["data"][0]
    assert {text for row in cells["text"] for text in row} == {"", "*"}
    figures = space_figures(with_task_space(toy_inputs(six_features()), MANY))
    text = json.dumps([figures["transfer"], figures["gradients"]], separators=(",", ":"))
    assert len(text) < 60 * 20 * 20 * 3 * (2 + 4)  # bytes a cell, of two methods and four comparisons of gradients
    matrix = next(iter(figures["gradients"].values()))["step20"][0]["data"][0]
    assert not re.search(r"\d\.\d{4,}", json.dumps([matrix["z"], matrix["customdata"]]))


def test_transfer_beyond_chance_is_counted_within_and_between_groups(transfer: xr.Dataset) -> None:
    last = transfer.sel(checkpoint="step20")

    def count(method: str, pairs: list[tuple[str, str]]) -> int:
        return sum(bool(last["beyond_chance"].sel({"tuning": method, "source": a, "target": b})) for a, b in pairs)

    within, between = pairs_of(True), pairs_of(False)
    assert count("ftgd", within) == 10 and 0 < count("ftgd", between) < 32
    assert transfer_sentence(transfer) == (
        "At step20, tuning on one task by ftgd changes another one beyond chance in 10 of 10 ordered pairs within"
        f" groups and {count('ftgd', between)} of 32 ordered pairs between groups; with right and wrong swapped at"
        f" random, in {count('swapped', within + between)} of 42 altogether."
    )
    rows = method_tables(transfer)[FTGD]
    assert [row.checkpoint for row in rows] == ["step0", "step10", "step20"]
    of_ftgd = last.sel(tuning="ftgd")
    gain = np.mean([float(of_ftgd["mean_transfer"].sel(source=task, target=task)) for task in KNOWN.tasks])
    ratio = np.exp(of_ftgd["mean_loss_change"].values)
    assert rows[2].numbers[0] == f"+{gain:.2f} logits" and rows[2].numbers[2] == f"{ratio.mean():.3f}"
    assert rows[2].numbers[3] == f"{ratio.max():.3f}"
    assert rows[2].numbers[4:] == ["10 of 10", f"{count('ftgd', between)} of 32"]


def test_transfer_that_harms_is_said(transfer: xr.Dataset) -> None:
    worse = transfer.assign(mean_transfer=transfer["mean_transfer"].copy())
    at = {"tuning": "ftgd", "checkpoint": "step20", "source": "near", "target": "far"}
    worse["mean_transfer"].loc[at] *= -1
    assert "(1 of these for the worse); with right" in transfer_sentence(worse)
    assert "within groups" not in transfer_sentence(transfer_store(ALONE))


def test_damage_is_told_as_measured(transfer: xr.Dataset) -> None:
    def with_damage(ftgd: float, plain: float, width: float = 0.01) -> xr.Dataset:
        loss = transfer["mean_loss_change"] * 0 + xr.DataArray([ftgd, plain, 0.0], dims="tuning")
        ends = {f"mean_loss_change{end}": loss + by for end, by in (("", 0), ("_low", -width), ("_high", width))}
        gain = xr.zeros_like(transfer["mean_transfer"]) + xr.DataArray([1.5, 0.5, 0.0], dims="tuning")
        return transfer.assign(**ends, mean_transfer=gain)

    assert damage_sentences(with_damage(np.log(1.1), np.log(1.5))) == [
        "At step20, tuning by ftgd multiplies the perplexity on validation text by 1.100, the mean over 7 tasks, which"
        " is less than the 1.500 of plain; its interval lies below that of plain for 7 of them, above it for 0. The"
        " task tuned on gains +1.50 by ftgd and +0.50 by plain (logits)."
    ]
    reverse = damage_sentences(with_damage(np.log(1.5), np.log(1.1)))[0]
    assert (
        "no less than the 1.100 of plain; its interval lies below that of plain for 0 of them, above it for 7"
        in reverse
    )
    unclear = damage_sentences(with_damage(np.log(1.1), np.log(1.101), 0.5))[0]
    assert "below that of plain for 0 of them, above it for 0" in unclear


def test_damage_figure_has_a_point_for_each_method_and_task(transfer: xr.Dataset) -> None:
    drawn = draw_damages(transfer)
    points, ratios, gains = drawn["step10"]
    assert [trace["name"] for trace in points["data"]] == ["ftgd", "plain", "swapped"]
    for trace in points["data"]:
        for task, x, y in zip(KNOWN.tasks, trace["x"], trace["y"], strict=True):
            at = {"tuning": trace["name"], "checkpoint": "step10", "source": task}
            assert x == pytest.approx(np.exp(float(transfer["mean_loss_change"].sel(at))), abs=5e-4)
            assert y == pytest.approx(float(transfer["mean_transfer"].sel(at | {"target": task})), abs=5e-4)
    plain = np.exp(transfer["mean_loss_change"].sel(tuning="plain").values)
    assert list(ratios["data"][1]["y"]) == pytest.approx(np.median(plain, axis=1).tolist(), abs=5e-4)
    bars = ratios["data"][1]["error_y"]
    upper = np.quantile(plain, 0.75, axis=1) - np.median(plain, axis=1)
    assert list(bars["array"]) == pytest.approx(upper.tolist(), abs=1e-3) and min(bars["arrayminus"]) >= 0
    assert gains["title"] == "Own gain"


def test_units_that_differ_are_not_named_as_one(transfer: xr.Dataset) -> None:
    assert unit_words(transfer) == "logits"
    assert (
        unit_words(transfer.assign_coords(unit=("target", strings(["logit", *["nat"] * 6])))) == "in each task’s unit"
    )


def test_gradients_within_and_between_groups_are_means_over_pairs_of_different_tasks() -> None:
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
    within, between = (100 * means[name][2] for name in ("within groups", "between groups"))
    assert sharing_sentence(store).endswith(
        f", and {within:.0f}\u00a0% within groups and {between:.1f}\u00a0% between groups at step20"
        f" ({100 * chance[2] + 2:.1f}\u00a0% with right and wrong swapped in half of one’s pairs,"
        f" {100 * chance[2]:.1f}\u00a0%"
        " by chance)."
    )
    assert sharing_sentence(store).count("by chance") == 2
    assert sharing_sentence(gradients_store(ONCE)).count("by chance") == 1
    assert "within groups" not in sharing_sentence(gradients_store(ALONE))


def test_a_comparison_of_gradients_that_is_not_known_of_all_pairs_is_averaged_over_the_others() -> None:
    store = gradients_store()
    store["corrected_cosine"].loc[{"task": "near", "other_task": "far"}] = np.nan
    pairs = [pair for pair in pairs_of(True) if pair != ("near", "far")]
    slow = [float(store["corrected_cosine"].sel(checkpoint="step10", task=a, other_task=b)) for a, b in pairs]
    assert group_means(store, "corrected_cosine")["within groups"][1] == pytest.approx(np.mean(slow))


def test_gradient_matrices_stand_two_by_two_and_leave_out_a_diagonal_that_tells_nothing() -> None:
    drawn = draw_gradients(gradients_store())
    assert list(drawn) == [
        "Cosine of gradients and shared parameters",
        "Cosine, corrected for sampling and overlap of subspaces",
    ]
    cosine, shared = (figure["data"][0] for figure in drawn["Cosine of gradients and shared parameters"]["step20"])
    assert [cosine["z"][place][place] for place in range(7)] == [0.9] * 7
    corrected = drawn["Cosine, corrected for sampling and overlap of subspaces"]["step20"][0]["data"][0]
    assert all(corrected["z"][place][place] is None for place in range(7))  # one by definition
    assert cosine["zmin"] == -cosine["zmax"] and shared["zmin"] == 0
    at = gradients_store().sel(checkpoint="step20", task="near", other_task="far")
    levels = [float(at["shared_swapped"]), float(at["shared_chance"])]
    assert shared["customdata"][0][1] == pytest.approx(levels, abs=5e-4)
    assert re.search(r"swapped: %{customdata\[0].*chance: %{customdata\[1]", shared["hovertemplate"])
    titles = [figure["title"] for figure in draw_gradient_courses(gradients_store())]
    assert titles == [
        "Cosine of gradients",
        "Cosine, corrected for sampling",
        "Overlap of subspaces",
        "Shared parameters",
    ]


def test_spaces_share_a_scale_and_leave_out_tasks_without_a_position() -> None:
    store = space_store()
    store["position"].loc[{"basis": "transfer", "checkpoint": "step20", "task": "far"}] = np.nan
    panels = draw_spaces(store)["from transfer"]
    assert [panel["title"] for panel in panels] == [
        "step0 (7 of 7 tasks left out)",
        "step10",
        "step20 (1 of 7 tasks left out)",
    ]
    assert len({tuple(panel["layout"]["xaxis"]["range"]) for panel in panels}) == 1
    names = [name for trace in panels[2]["data"] for name in trace["hovertext"]]
    assert "far" not in names and len(names) == 6
    agreement = panels[1]["data"][0]
    for name, x, y in zip(agreement["hovertext"], agreement["x"], agreement["y"], strict=True):
        at = store["position"].sel(basis="transfer", checkpoint="step10", task=name.replace(" ", "_"))
        assert [x, y] == pytest.approx(at.values.tolist(), abs=5e-4)
    assert [(mark.name, mark.tasks) for mark in group_marks(store)] == [
        ("agreement", "1\u00a0near, 2\u00a0far, 3\u00a0across clause"),
        ("binding", "4\u00a0reflexive, 5\u00a0pronoun"),
        ("islands", "6\u00a0wh, 7\u00a0adjunct"),
    ]
    assert list(agreement["text"]) == ["1", "2", "3"] and list(panels[2]["data"][0]["text"]) == ["1", "3"]
    assert group_marks(space_store(MANY))[0].tasks == "4 tasks"
    assert draw_spaces(space_store(MANY))["from transfer"][1]["data"][0]["mode"] == "markers"
    assert group_marks(store)[0].colour == agreement["marker"]["color"]
    assert len({group_style(place) for place in range(36)}) == 36


def test_contrast_is_claimed_only_where_the_test_supports_it() -> None:
    of_transfer, of_gradients = contrast_sentences(space_store())
    assert re.fullmatch(
        r"At step20, relative transfer is larger within hypothesised groups than between them: 0\.\d\d against 0\.\d\d,"
        r" difference 0\.\d\d \(0\.\d\d to 0\.\d\d\), p = 0\.002 by relabelling tasks; this holds from step10 on\.",
        of_transfer,
    )
    assert of_gradients.startswith("At step20, gradient similarity is larger within")
    unsure = contrast_sentences(space_store(p_value=0.2))[0]
    assert "relative transfer is not found to be larger within" in unsure and "p = 0.2 by" in unsure
    assert "holds" not in unsure and "smallest" not in unsure
    few = space_store(p_value=0.2)
    few["contrast_smallest_p"][:] = 0.1
    assert contrast_sentences(few)[0].endswith(
        "p = 0.2 by relabelling tasks (the smallest that such groups allow is 0.1)."
    )
    less = space_store()
    less["contrast"][:] = -less["contrast"]
    assert "is not found to be larger" in contrast_sentences(less)[1]
    assert "holds" not in contrast_sentences(space_store(ONCE))[0]
    unknown = space_store().isel(checkpoint=[0])
    assert contrast_sentences(unknown)[0] == (
        "At step0, relative transfer within hypothesised groups cannot be compared with that between them."
    )


def test_a_contrast_holds_since_it_last_failed() -> None:
    store = space_store(Known(checkpoints={f"step{place}": place for place in range(5)}))
    store["contrast"][:], store["contrast_p"][:] = 0.5, 0.01
    assert contrast_sentences(store)[0].endswith("this holds from step0 on.")
    store["contrast_p"][:, 2] = 0.3
    assert contrast_sentences(store)[0].endswith("this holds from step3 on.")


def test_stability_stands_beside_both_controls() -> None:
    assert stability_sentence(space_store()) == (
        "Spaces from transfer at successive checkpoints have a Procrustes similarity of 0.80 on average, 0.30"
        " with tasks relabelled. Between two seeds of tuning it is 0.75 at successive checkpoints and 0.90 at the same"
        " one."
    )
    one_seed = space_store().assign(seed_stability=space_store()["seed_stability"] * np.nan)
    assert stability_sentence(one_seed).endswith("0.30 with tasks relabelled.")
    assert stability_sentence(space_store(ONCE)) == ""
    courses = draw_space_courses(space_store())
    assert [len(figure["data"]) for figure in courses["from transfer"]] == [2, 1, 4, 1]
    assert [len(figure["data"]) for figure in courses["from gradients"]] == [2, 1, 2, 1]
    filled = draw_space_courses(space_store(p_value=0.2))["from transfer"][1]["data"][0]["marker"]["symbol"]
    assert list(filled) == ["circle", "circle-open", "circle-open"]  # the first has no value
    rows = space_tables(space_store())
    assert rows["From transfer"][0] == ("step0", ["–", "–", "–", "–", "–", "–", "–", "–"])
    assert rows["From transfer"][2][1][3:7] == ["0.002", "0.80", "0.30", "0.90"]
    assert rows["From gradients"][2][1][6] == "–"


def test_bridge_is_told_as_measured() -> None:
    assert bridge_sentences(bridge_store())[0] == (
        "at step20, Spearman’s correlation of transfer over ordered pairs of tasks is 0.60 with the overlap of their"
        " top features (p = 0.004) and 0.50 with the cosine of the effects of all features (p = 0.004), p-values by"
        " relabelling tasks."
    )
    unknown = bridge_store()
    unknown["correlation"][:] = unknown["correlation_p"][:] = np.nan
    assert "is – with the overlap of their top features (p –)" in bridge_sentences(unknown)[0]
    nothing = bridge_store().assign_attrs(comparison="pair", variant="l1", seed=0)
    nothing["pairs_compared"][:] = 0
    nothing["removed_by_shared"][:] = np.nan
    assert bridge_sentences(nothing)[1:] == [
        "Whether shared features carry transfer cannot be told: no task transfers to another for certain and shares"
        " features with it beside which there are others of like effect."
    ]
    row = bridge_tables([nothing])["pair · l1 · seed 0"][2]
    assert row.checkpoint == "step20" and row.correlations == ["0.60 (0.004)", "0.50 (0.004)"]
    assert row.removals["within groups"][:2] == ["0", "– (53 to 67)"]


def test_what_goes_without_shared_features_stands_beside_what_goes_without_others() -> None:
    _, within, between = bridge_sentences(bridge_store())
    assert within == (
        "Of the transfer within groups, removing the shared features removes 60\u00a0%, and removing as many others of"
        " like effect 10\u00a0%: a difference of 50\u00a0% (42\u00a0% to 58\u00a0%) over 10 ordered pairs."
    )
    assert between.startswith("Of the transfer between groups, removing the shared") and between.endswith(
        "over 32 ordered pairs."
    )
    less = bridge_sentences(bridge_store(left_without_shared=0.95))[1]
    assert "a difference of −5\u00a0% (−13\u00a0% to 3\u00a0%)" in less
    assert len(bridge_sentences(bridge_store(ALONE))) == 2  # no two tasks are of one group


def test_figures_of_a_bridge_show_all_pairs_or_as_many_as_can_be_told_apart(inputs: ReportInputs) -> None:
    overlap, cosine, removed = draw_bridges(inputs.bridges)["pair · l1 · seed 0"]["step20"]
    assert overlap["title"] == "Overlap of features: ρ = 0.60, p = 0.004" and cosine["title"].startswith("Cosine of")
    store = inputs.bridges[0].sel(checkpoint="step20")
    for trace, same in zip(overlap["data"], (True, False), strict=True):
        assert sorted(trace["text"]) == sorted(f"{in_words(a)} → {in_words(b)}" for a, b in pairs_of(same))
        for text, x, y in zip(trace["text"], trace["x"], trace["y"], strict=True):
            source, target = (name.replace(" ", "_") for name in text.split(" → "))
            at = store.sel(source=source, target=target)
            assert [x, y] == pytest.approx([float(at["feature_overlap"]), float(at["transfer"])], abs=5e-4)
    others, shared, _ = removed["data"]
    assert [others["name"], shared["name"]] == ["without as many others", "without shared features"]
    assert list(others["x"]) == list(shared["x"]) and len(shared["x"]) == int(
        ((store["shared_features"] > 0) & (store["source"] != store["target"])).sum()
    )
    assert hidden_pairs(inputs.bridges) == (42, 42) and hidden_pairs([]) == (0, 0)
    large = bridge_store(Known(groups={"a": [f"a{of}" for of in range(15)], "b": [f"b{of}" for of in range(15)]}))
    large = large.assign_attrs(comparison="pair", variant="l1", seed=0)
    shown = draw_bridges([large])["pair · l1 · seed 0"]["step20"][0]["data"]
    assert sum(len(trace["x"]) for trace in shown) == MOST_POINTS and hidden_pairs([large]) == (MOST_POINTS, 870)


def test_numbers_are_short_and_p_values_honest() -> None:
    values = np.array([[0.12345, np.nan], [-0.00001, np.inf]], dtype=np.float32)
    assert json.dumps(rounded(values)) == "[[0.123, null], [0.0, null]]"
    assert [p_words(value) for value in (0.0301, 0.0001, np.nan)] == ["p = 0.03", "p < 0.001", "p –"]


def test_page_has_a_section_with_a_task_space_and_none_without(inputs: ReportInputs) -> None:
    page = render_page(inputs)
    without = render_page(toy_inputs(six_features()))
    assert '<section id="taskspace">' in page and '<a href="#taskspace">Task space</a>' in page
    assert "<dt>FTGD</dt>" in page and "<dt>Bridge</dt>" in page and "Do shared features carry transfer?" in page
    assert "taskspace" not in re.sub(r"<style>.*?</style>|<script.*?</script>", "", without, flags=re.DOTALL)
    assert (
        "<dt>FTGD</dt>" not in without
        and "arXiv 2406.06441" not in without
        and "transfer" not in embedded(without)["figures"]
    )
    assert page.count("<dt>Metric</dt>") == without.count("<dt>Metric</dt>") == 1
    assert "when features emerge</h1>" in page and "Tuning copies on single tasks tells" in page
    assert list(embedded(page)["figures"]["bridge"]) == ["pair · l1 · seed 0"]
    rows = [row[0] for row in provenance_rows(inputs)]
    assert {"task space: transfer", "task space: gradients", "task space: space"} < set(rows)
    assert "pair · l1 · seed 0: transfer and features" in rows


def test_page_without_crosscoders_is_about_tasks(inputs: ReportInputs) -> None:
    alone = replace(without_runs(inputs), transfer_path="results/toy/taskspace/transfer.zarr")
    page = render_page(alone)
    text = re.sub(r"<style>.*?</style>|<script.*?</script>", "", page, flags=re.DOTALL)
    assert "toy: how tasks are related</h1>" in text and "<title>toy: how tasks are related</title>" in text
    assert "there are no crosscoders here" in text and "Do shared features carry transfer?" not in text
    assert not re.search(r'id="(quality|shares|controls|run)"', text)
    assert "<dt>FTGD</dt>" in text and "<dt>Bridge</dt>" not in text and "<dt>Feature</dt>" not in text
    assert "<dt>Metric</dt>" in text and 'href="#glossary"' in text and "2509.05291" not in text
    assert 'xr.open_zarr("results/toy/taskspace/transfer.zarr")' in text and "indirect_effect" not in text
    assert ("126", "copies tuned") in key_numbers(alone)
    assert "comparisons" not in [number.label for number in key_numbers(alone)]
    assert set(re.findall(r'href="#(\w+)"', text)) <= set(re.findall(r'id="(\w+)"', text))


def test_summary_tells_of_the_task_space_last(inputs: ReportInputs) -> None:
    labels = ["Transfer between tasks", "Damage by tuning", "Task space", "Shared parameters", "Transfer and features"]
    assert list(space_findings(inputs)) == labels
    assert [finding.label for finding in summarise(inputs, {})][-5:] == labels
    assert [finding.label for finding in summarise(without_runs(inputs), {})] == ["Ability", *labels[:4]]
    assert space_findings(inputs)["Transfer and features"].startswith("In pair · l1 · seed 0: at step20, Spearman")
    assert space_findings(toy_inputs(six_features())) == {}


def test_a_task_space_in_parts_or_of_others_is_refused(inputs: ReportInputs) -> None:
    with pytest.raises(
        StoreError, match="of a task space only transfer and space is given; give transfer, gradients and"
    ):
        replace(inputs, gradients=None, bridges=[])
    with pytest.raises(StoreError, match="of a task space only bridges is given"):
        replace(inputs, transfer=None, gradients=None, space=None)
    with pytest.raises(
        StoreError, match="the store of space is of suite 'other', not 'toy'; give that of the report's suite"
    ):
        replace(inputs, space=space_store().assign_attrs(suite="other"))
    odd = inputs.bridges[0].assign_attrs(comparison="other")
    with pytest.raises(
        StoreError, match="transfer is held against features of other · l1 · seed 0, of which no run is given"
    ):
        replace(inputs, bridges=[odd])


def test_script_reads_the_stores_of_a_task_space(inputs: ReportInputs, tmp_path: Path) -> None:
    alone = without_runs(inputs)
    stores = {"behaviour": alone.behaviour, "similarity": alone.similarity, **alone.space_stores}
    flags = ["--suite", "toy", "--contrasts", "{}", "--output", str(tmp_path / "index.html")]
    for name, store in stores.items():
        write_store(store, tmp_path / f"{name}.zarr", store.attrs)
        flags += [f"--{name}", str(tmp_path / f"{name}.zarr")]
    for kind in ("trainings", "evaluations", "relies", "features", "ablations", "bridges"):
        flags += [f"--{kind}"]
    (tmp_path / "comparisons.yaml").write_text("{}")
    subprocess.run([warm_python(), SCRIPT, *flags, "--comparisons", str(tmp_path / "comparisons.yaml")], check=True)
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "toy: how tasks are related</h1>" in page and f'xr.open_zarr("{tmp_path / "transfer.zarr"}")' in page
    assert page.count("At step20, tuning on one task by ftgd") == 2


def test_synthetic_stores_can_be_written(tmp_path: Path) -> None:
    """Every variable has a name and units, so that others may write them, too."""
    stores = {"tuning": tuning_store("near"), "bridge": bridge_store(), "gradients": gradients_store()}
    for name, store in stores.items():
        write_store(store, tmp_path / name, store.attrs)
    assert tuning_store("near").equals(tuning_store("near"))
