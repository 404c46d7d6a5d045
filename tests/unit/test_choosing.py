"""Comparisons chosen from made-up curves: what changes is bracketed, what does not change is left alone."""

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
import xarray as xr
import yaml

from chronocoder.behaviour.changes import (
    accuracy,
    crossings,
    fitted,
    halve,
    p_value,
    percentiles,
    resampled,
    strongest_change,
    without_change,
)
from chronocoder.behaviour.choice import Choice, Curves, choose, curves_of
from chronocoder.behaviour.choice_words import choice_store, comparisons_text, summary_of
from chronocoder.behaviour.choosing import choose_places, distances, length, longest, rate_of_change
from chronocoder.behaviour.comparisons import CHOSEN, chosen_comparisons
from chronocoder.config import ChoiceSettings, Comparison
from chronocoder.errors import ConfigError
from chronocoder.stores import labelled, strings

STEPS = [0, 1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 320]
NURSERY = {
    "agreement_simple": [0.5] * 6 + [0.52, 0.94, 0.94, 0.98] + [1.0] * 7,
    "agreement_across_prepositional_phrase": [0.5] * 6
    + [0.38, 0.16, 0.18, 0.14, 0.52, 0.68, 0.84, 0.9, 0.94, 1.0, 1.0],
    "agreement_across_subject_relative": [0.5] * 6 + [0.42, 0.29, 0.22, 0.13, 0.35, 0.56, 0.76, 0.8, 0.8, 0.98, 0.98],
    "agreement_in_coordination": [0.5] * 9 + [0.59, 0.78, 0.94, 0.98, 1.0, 1.0, 1.0, 1.0],
    "determiner_noun": [0.5] * 6 + [0.88] + [0.98] * 10,
    "reflexive_number": [0.5] * 12 + [0.77, 0.86, 0.96, 1.0, 1.0],
}
"""Accuracies of the shape that the default experiment's have."""


def drawn(levels: dict[str, list[float]], pairs: int = 200, seed: int = 0, kept: float = 0.8) -> Curves:
    """Return curves drawn about levels: most pairs keep their threshold from one checkpoint to the next."""
    generator = np.random.default_rng(seed)
    right = {}
    for task, of_task in levels.items():
        thresholds = generator.random((pairs, len(of_task)))
        for place in range(1, len(of_task)):
            same = generator.random(pairs) < kept
            thresholds[same, place] = thresholds[same, place - 1]
        right[task] = thresholds < np.array(of_task)
    points = len(next(iter(levels.values())))
    steps = STEPS if points == len(STEPS) else range(points)
    seen = {f"step{step}": 1536 * step for step in steps}
    distance = abs(np.subtract.outer(np.arange(points), np.arange(points)))
    conditions = {task: np.array(["singular", "plural"] * (pairs // 2) + ["singular"] * (pairs % 2)) for task in levels}
    return Curves(right, conditions, seen, np.exp(-distance / points))


def chosen_from(levels: dict[str, list[float]], seed: int = 0, examples: int = 200, **settings: Any) -> Choice:
    budget = ChoiceSettings.model_validate({"resamples": 500, **settings})
    return choose(drawn(levels, examples, seed), budget, {}, "residual.0")


def checkpoints(choice: Choice) -> dict[str, list[str]]:
    return {name: comparison.checkpoints for name, comparison in choice.comparisons.items()}


# Statistics


def partitions(points: int) -> list[tuple[int, ...]]:
    inner = [set for size in range(points) for set in combinations(range(1, points), size)]
    return [(0, *cuts, points) for cuts in inner]


def test_fits_are_the_best_of_all_partitions() -> None:
    curves = np.random.default_rng(0).random((20, 7))
    for penalty in (0.01, 0.05, 0.2):
        for curve, fit in zip(curves, fitted(curves, penalty), strict=True):
            candidates = []
            for cuts in partitions(7):
                levels = np.concatenate([np.full(b - a, curve[a:b].mean()) for a, b in pairwise(cuts)])
                candidates.append((((curve - levels) ** 2).sum() + penalty * (len(cuts) - 2), levels))
            best = min(candidates, key=lambda candidate: candidate[0])[1]
            np.testing.assert_allclose(fit, best)


def test_strongest_change_is_what_one_step_or_stretch_explains() -> None:
    curves = np.random.default_rng(1).random((5, 8))

    def error(curve: np.ndarray, inside: np.ndarray) -> float:
        return sum(((part - part.mean()) ** 2).sum() for part in (curve[inside], curve[~inside]) if len(part))

    for curve, found in zip(curves, strongest_change(curves), strict=True):
        gains = []
        for start, end in combinations(range(9), 2):
            inside = (np.arange(8) >= start) & (np.arange(8) < end)
            ends = (start > 0) + (end < 8)
            if ends:
                gains.append((((curve - curve.mean()) ** 2).sum() - error(curve, inside)) / ends)
        assert found == pytest.approx(max(gains))


def test_halves_share_out_every_condition() -> None:
    conditions = np.array(["a"] * 7 + ["b"] * 4)
    halves = halve(conditions, np.random.default_rng(0))
    assert sorted([*halves.choosing, *halves.confirming]) == list(range(11))
    assert [(conditions[half] == "b").sum() for half in halves] == [2, 2]


def test_resamples_and_curves_without_change_have_the_moments_of_the_pairs() -> None:
    generator = np.random.default_rng(0)
    right = generator.random((60, 5)) < 0.7
    means = resampled(right, 20_000, generator)
    np.testing.assert_allclose(means.mean(axis=0), accuracy(right), atol=2e-3)
    np.testing.assert_allclose(means.var(axis=0), right.var(axis=0) / 60, rtol=0.05)
    courses = right - right.mean(axis=1, keepdims=True)
    for around_curve, expected in ((False, courses), (True, courses - courses.mean(axis=0))):
        chance = without_change(right, 20_000, generator, around_curve)
        np.testing.assert_allclose(chance.mean(axis=0), 0, atol=2e-3)
        np.testing.assert_allclose(chance.T @ chance / 20_000, expected.T @ expected / 60**2, atol=2e-4)


def test_crossing_is_the_first_checkpoint_half_way() -> None:
    curves = np.array([[0.5, 0.5, 0.6, 0.9, 1.0], [0.5, 0.8, 0.5, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5, 0.5]])
    assert crossings(curves, 0, 4, (0.5, 1.0)).tolist() == [3, 1, 4]
    assert crossings(1 - curves, 0, 4, (0.5, 0.0)).tolist() == [3, 1, 4]
    assert percentiles(np.arange(101), 0.9) == (5, 95)
    assert p_value(2.0, np.array([1.0, 2.0, 3.0])) == 0.75


def test_longest_polygon_is_the_longest_of_all() -> None:
    moved = distances(np.random.default_rng(2).random((3, 8)), 0.0)
    for steps in (1, 2, 3):
        every = max(combinations(range(8), steps + 1), key=lambda corners: length(moved, corners))
        assert longest(moved, steps) == list(every)


def test_small_changes_are_no_distance() -> None:
    levels = np.array([[0.5, 0.55, 0.9], [0.5, 0.5, 0.8]])
    moved = distances(levels, 0.1)
    assert moved[0, 1] == 0 and moved[0, 2] == pytest.approx(0.5) and moved[1, 2] == pytest.approx(np.hypot(0.35, 0.3))


# The choice


@pytest.mark.parametrize("seed", range(3))
def test_turn_of_a_nursery_is_bracketed(seed: int) -> None:
    choice = chosen_from(NURSERY, seed)
    assert choice.changing.all()
    turn, onset, course = (checkpoints(choice)[name] for name in ("change1", "change2", "course1"))
    assert turn[0] in ("step48", "step64", "step80") and turn[1] in (
        "step128",
        "step160",
        "step192",
        "step256",
        "step320",
    )
    assert STEPS.index(int(onset[0][4:])) <= STEPS.index(32) and onset[1] == turn[0]
    assert course == [onset[0], *turn]
    [step] = choice.steps["change1"]
    assert step.moves[0].task == "agreement_across_prepositional_phrase" and step.moves[0].confirmed.low > 0.5


@pytest.mark.parametrize("level", [0.5, 0.93, 1.0])
def test_curves_without_change_choose_nothing(level: float) -> None:
    levels = {f"task{number}": [level] * 17 for number in range(6)}
    found = [chosen_from(levels, seed) for seed in range(15)]
    assert sum(bool(choice.comparisons) for choice in found) <= 1
    assert sum(int(choice.changing.sum()) for choice in found) <= 2


def test_neighbouring_noise_of_one_checkpoint_is_no_plateau() -> None:
    """Levels jitter from checkpoint to checkpoint by less than is of interest, beside one lasting step."""
    generator = np.random.default_rng(5)
    levels = {f"task{n}": np.clip([0.5] * 8 + [0.9] * 9 + generator.normal(0, 0.02, 17), 0, 1).tolist() for n in (1, 2)}
    [(before, after)] = [one for name, one in checkpoints(chosen_from(levels)).items() if name.startswith("change")]
    assert STEPS.index(int(before[4:])) <= 7 and STEPS.index(int(after[4:])) >= 8


def test_tasks_that_move_in_opposite_directions_do_not_cancel() -> None:
    levels = {"falls": [0.5] * 6 + [0.2] * 6, "rises": [0.5] * 6 + [0.8] * 6}
    choice = chosen_from(levels)
    [step] = choice.steps["change1"]
    assert {move.task: np.sign(move.change) for move in step.moves} == {"falls": -1, "rises": 1}
    assert set(choice.comparisons) == {"change1"} and (step.before, step.after >= 6) == (5, True)


def test_changes_of_other_tasks_at_another_time_are_told_apart() -> None:
    levels = {"early": [0.5] * 4 + [0.9] * 10, "late": [0.5] * 9 + [0.9] * 5}
    found = checkpoints(chosen_from(levels))
    pairs = sorted(found[name] for name in ("change1", "change2"))
    assert all(
        int(before[4:]) < change <= int(after[4:]) for (before, after), change in zip(pairs, (4, 9), strict=True)
    )


def test_triplet_halves_a_step_where_nothing_turns() -> None:
    choice = chosen_from({"task": [0.5] * 5 + [0.75] * 4 + [1.0] * 5}, examples=400)
    found = checkpoints(choice)
    assert set(found) == {"change1", "course1"}
    before, amid, after = (int(name[4:]) for name in found["course1"])
    assert before <= 4 < amid <= 8 < after and found["change1"] == [f"step{before}", f"step{after}"]


def test_few_pairs_choose_nothing() -> None:
    for examples in (1, 2, 5):
        assert not chosen_from({"task": [0.0] * 6 + [1.0] * 6}, examples=examples).comparisons
    assert chosen_from({"task": [0.0] * 6 + [1.0] * 6}, examples=30).comparisons


@pytest.mark.parametrize(
    ("budget", "names", "most"),
    [
        ({"pairs": 1, "triplets": 0}, {"change1"}, 2),
        ({"pairs": 0, "triplets": 1}, {"course1"}, 3),
        ({"pairs": 3, "triplets": 0, "checkpoints": 3}, {"change1", "change2"}, 3),
        ({"pairs": 3, "triplets": 2, "checkpoints": 5}, {"change1", "change2", "change3", "course1", "course2"}, 5),
    ],
)
def test_budget_is_kept(budget: dict[str, int], names: set[str], most: int) -> None:
    found = checkpoints(chosen_from(NURSERY, **budget))
    assert set(found) == names and len({one for checkpoints in found.values() for one in checkpoints}) <= most


def test_choice_is_stable_and_one_task_does_not_change_the_numbers_of_another() -> None:
    first, second = chosen_from(NURSERY), chosen_from(NURSERY)
    assert first.comparisons == second.comparisons
    settings, curves = ChoiceSettings(resamples=500), drawn(NURSERY)
    fewer = choose(curves, settings.model_copy(update={"tasks": list(NURSERY)[1:3]}), {}, "residual.0")
    assert [task.p_value for task in fewer.curves] == [task.p_value for task in first.curves[1:3]]
    np.testing.assert_array_equal(fewer.curves[0].levels, first.curves[1].levels)


def test_given_comparisons_are_not_chosen_again() -> None:
    found = chosen_from(NURSERY).comparisons
    settings, curves = ChoiceSettings(resamples=500), drawn(NURSERY)
    given = {"mine": Comparison(checkpoints=found["change1"].checkpoints)}
    again = choose(curves, settings, given, "residual.0")
    assert again.repeated == ["mine"] and again.comparisons["change1"] == found["change2"]
    assert "mine is given, and is not chosen again" in summary_of(again, settings)
    elsewhere = {"mine": Comparison(checkpoints=found["change1"].checkpoints, site="residual.1")}
    assert choose(curves, settings, elsewhere, "residual.0").comparisons == found


def test_among_tied_checkpoints_those_count_where_activations_change_fastest() -> None:
    moved = distances(np.array([[0.5] * 5 + [1.0] * 5]), 0.1)
    similarity = np.ones((10, 10))
    similarity[:3, 3:] = similarity[3:, :3] = 0.2  # activations change between 2 and 3
    rate = rate_of_change(similarity, [2**place for place in range(10)])
    chosen = choose_places(moved, rate, ChoiceSettings(), lambda _: 0.01)
    assert chosen.pairs == [(2, 5)] and chosen.triplets == []
    without = rate_of_change(None, [0, *(2**place for place in range(9))])
    assert choose_places(moved, without, ChoiceSettings(), lambda _: 0.01).pairs == [(4, 5)]


def test_no_step_is_lost_to_a_tie() -> None:
    """However uncertain lengths are, something changes between all corners."""
    moved = distances(np.array([[0.5] * 4 + [0.9] * 4 + [0.75] * 4]), 0.1)
    rate = rate_of_change(None, [2**place for place in range(12)])
    for pair in choose_places(moved, rate, ChoiceSettings(), lambda _: 5.0).pairs:
        assert moved[pair] > 0


def test_rate_of_change_is_per_doubling() -> None:
    rate = rate_of_change(np.array([[1, 0.5, 0.2], [0.5, 1, 0.4], [0.2, 0.4, 1]]), [0, 100, 400])
    np.testing.assert_allclose(rate, [[0, 0.5, 0.8 / 3], [0.5, 0, 0.3], [0.8 / 3, 0.3, 0]])


# What is written


def test_reasons_have_numbers_of_both_halves() -> None:
    settings, curves = ChoiceSettings(resamples=500, variants=["l1"]), drawn(NURSERY)
    choice = choose(curves, settings, {}, "residual.0")
    text = comparisons_text(
        {"mine": Comparison(checkpoints=["step0", "step8"])}, choice, curves, settings, "residual.0"
    )
    document = yaml.safe_load(text)
    assert text.startswith("# 6 of 6 tasks change (false discovery rate 5 %). Chosen: change1 (")
    assert list(document) == ["mine", "change1", "change2", "course1"]
    assert [entry["chosen"] for entry in document.values()] == ["given in the configuration", *[CHOSEN] * 3]
    why = document["change1"]["why"]
    assert "on the half of the pairs that chose the checkpoints" in why and "on the other half (by +" in why
    assert "Linear CKA of the activations is 0." in why and "It is half-way at step" in why
    assert document["course1"]["why"].startswith("A turn at step")
    [largest, *_] = document["change1"]["evidence"][0]["largest_changes"]
    move = choice.steps["change1"][0].moves[0]
    assert largest["task"] == move.task and largest["accuracy_before"]["choosing"] == pytest.approx(move.before[0])
    assert largest["confirmed_change"] == pytest.approx(list(move.confirmed), abs=1e-4)
    falls = document["change2"]["evidence"][0]
    assert falls["tasks_that_fall"] == 2 and "falls from" in document["change2"]["why"]


def test_what_is_not_confirmed_is_said() -> None:
    curves = drawn({"task": [0.3] * 5 + [0.8] * 5})
    settings = ChoiceSettings(resamples=200, triplets=0)
    choice = choose(curves, settings, {}, "residual.0")
    [step] = choice.steps["change1"]
    doubtful = step.moves[0]._replace(confirmed=step.moves[0].confirmed._replace(low=-0.01))
    steps = {"change1": [step._replace(moves=[doubtful])]}
    text = comparisons_text({}, choice._replace(steps=steps), curves, settings, "residual.0")
    assert "The other half does not confirm it." in " ".join(text.split())
    sure = comparisons_text({}, choice, curves, settings, "residual.0")
    assert "does not confirm" not in " ".join(sure.split())


def test_nothing_chosen_is_written_down() -> None:
    settings, curves = ChoiceSettings(resamples=200), drawn({"task": [0.5] * 8})
    choice = choose(curves, settings, {}, "residual.0")
    text = comparisons_text({}, choice, curves, settings, "residual.0")
    assert "None of 1 tasks changes by 10 points or more" in text and yaml.safe_load(text) == {}
    store = choice_store(choice, curves, settings)
    assert store.sizes == {"task": 1, "checkpoint": 8, "change": 0} and "Nothing is chosen." in store.attrs["summary"]


def test_store_has_every_change_with_its_intervals() -> None:
    settings, curves = ChoiceSettings(resamples=500), drawn(NURSERY)
    store = choice_store(choose(curves, settings, {}, "residual.0"), curves, settings)
    for variable in store.data_vars.values():
        assert variable.attrs["long_name"] and variable.attrs["units"] == "1"
    of_phrase = store.isel(change=store["change_task"].values == "agreement_across_prepositional_phrase")
    directions = np.sign(of_phrase["change_choosing"].values).tolist()
    assert directions[0] == -1 and set(directions[1:]) == {1}
    assert (store["change_confirming_low"] <= store["change_confirming"]).all()
    assert (store["change_confirming"] <= store["change_confirming_high"]).all()
    order = [str(name) for name in store["checkpoint"].values]
    places = {
        name: [order.index(str(one)) for one in store[name].values]
        for name in ("last_before", "first_after", "first_after_low", "first_after_high")
    }
    assert places["first_after"] == [place + 1 for place in places["last_before"]]
    assert all(low <= high for low, high in zip(places["first_after_low"], places["first_after_high"], strict=True))
    whole = accuracy(curves.right["determiner_noun"])
    mean = store[["accuracy_choosing", "accuracy_confirming"]].sel(task="determiner_noun").to_array().mean("variable")
    np.testing.assert_allclose(mean, whole)


def test_curves_are_read_from_scores() -> None:
    difference = np.array([[0.5, -1.0, 0.0], [1.0, 2.0, -0.5]])
    scores = xr.Dataset(
        {
            "difference": labelled(("checkpoint", "example"), difference, "right minus wrong"),
            "condition": labelled(("example",), strings(["a", "b", "a"]), "condition"),
        },
        {"checkpoint": strings(["step0", "step4"]), "tokens_seen": ("checkpoint", [0, 4])},
        {"task": "agreement"},
    )
    names = {"checkpoint": strings(["step0", "step4"]), "other_checkpoint": strings(["step0", "step4"])}
    cka = labelled(("site", "checkpoint", "other_checkpoint"), [[[1, 0.3], [0.3, 1]]], "cka")
    similarity = xr.Dataset({"linear_cka": cka}, {"site": strings(["residual.0"]), **names})
    curves = curves_of([scores], similarity, "residual.0")
    assert curves.right["agreement"].tolist() == [[True, True], [False, True], [False, False]]
    assert curves.tokens_seen == {"step0": 0, "step4": 4} and curves.conditions["agreement"].tolist() == ["a", "b", "a"]
    assert curves.similarity.tolist() == [[1, 0.3], [0.3, 1]]


def test_chosen_comparisons_are_read_back(tmp_path: Any) -> None:
    settings, curves = ChoiceSettings(resamples=500, site="residual.1", variants=["l1"]), drawn(NURSERY)
    choice = choose(curves, settings, {}, "residual.0")
    path = tmp_path / "comparisons.yaml"
    given = {"mine": Comparison(checkpoints=["step0", "step8"])}
    path.write_text(comparisons_text(given, choice, curves, settings, "residual.0"))
    assert chosen_comparisons(settings, path) == choice.comparisons
    path.write_text("change1: 3")
    with pytest.raises(
        ConfigError, match=r"comparisons\.yaml: no readable comparisons .* delete it and run its target"
    ):
        chosen_comparisons(settings, path)
