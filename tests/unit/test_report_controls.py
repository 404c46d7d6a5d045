"""What the report says of classes and codes beside their controls, each both ways."""

import math
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from report_stores import (
    CONTRAST,
    DRAWS,
    evaluation_store,
    make_run,
    toy_inputs,
    with_classes,
    with_control,
    with_facts,
)

from chronocoder.attribution.measures import SHUFFLED
from chronocoder.attribution.summary import BASES as STORED_BASES
from chronocoder.report.baselines import baseline_table
from chronocoder.report.codes import code_sentences, unsupported_counts
from chronocoder.report.conditions import conditions_of
from chronocoder.report.controls import (
    BASES,
    TOTAL,
    basis_sentence,
    basis_table,
    chance_words,
    condition_table,
    control_rows,
    control_tables,
    count_sentence,
    reversal_sentence,
    upper_limit,
    verdict,
)
from chronocoder.report.summary import class_sentence, identity_sentence

CLASSES = ["emerged"] * 3 + ["maintained", "uncertain", "no effect"]


def same_by_all(classes: list[str]) -> dict[str, list[str]]:
    return dict.fromkeys(BASES, classes)


def test_names_are_those_of_the_stores() -> None:
    assert tuple(BASES) == STORED_BASES


@pytest.mark.parametrize(
    ("p_value", "said"), [(0.049, "more than chance"), (0.05, "no more than chance"), (np.nan, "–")]
)
def test_verdict(p_value: float, said: str) -> None:
    assert verdict(p_value) == said


def test_classes_stand_beside_random_directions(relie: xr.Dataset) -> None:
    table = basis_table(relie.sel(task="near"))
    assert table.heads == ["RelIE of", "Features", "Random directions (range)", "p", "Verdict"]
    assert [name for name, _ in table.classes] == ["emerged", "maintained", "discontinued", "no effect"]
    published, divided, _ = table.classes[0][1]
    assert published == (
        ["published", "3 (50\u00a0%)", "15\u00a0% (10\u00a0% – 20\u00a0%)", "0.01", "more than chance"],
        True,
    )
    assert divided == (
        ["IE over total |IE|", "2 (33\u00a0%)", "15\u00a0% (10\u00a0% – 20\u00a0%)", "0.5", "no more than chance"],
        False,
    )
    assert table.classes[-1][1][0].cells[-2:] == ["0.5", "–"]


def test_classes_stand_beside_random_directions_by_condition(relie: xr.Dataset) -> None:
    table = condition_table(relie.sel(task="far"))
    assert table.heads[:3] == ["Condition", "RelIE of", "Features"]
    published, divided, *others = table.classes[0][1]
    random = "15\u00a0% (10\u00a0% – 20\u00a0%)"
    assert published.cells == ["far one", "published", "3 (50\u00a0%)", random, "0.01", "more than chance"]
    assert divided.cells == ["far one", "IE over total |IE|", "2 (33\u00a0%)", random, "0.5", "no more than chance"]
    assert [line.cells[:2] for line in others] == [["far two", "published"], ["far two", "IE over total |IE|"]]
    assert [name for name, _ in table.classes] == ["emerged", "maintained", "discontinued", "no effect"]


@pytest.mark.parametrize(("controls", "said"), [(DRAWS, ", random directions 5.0\u00a0%."), ((), ".")])
def test_reversals_stand_beside_random_directions(relie: xr.Dataset, controls: tuple[str, ...], said: str) -> None:
    relie["reverses"].loc[{"task": "near", "feature": 3}] = True
    of_task = with_classes(relie, same_by_all(CLASSES), controls=controls).sel(task="near")
    assert reversal_sentence(of_task) == f"Reversals within a condition: 1 feature (17\u00a0%){said}"


def test_reversals_leave_out_shuffled_tokens(relie: xr.Dataset) -> None:
    shuffled = with_classes(relie, same_by_all(CLASSES), controls=(*DRAWS, SHUFFLED)).sel(task="near")
    assert reversal_sentence(shuffled).endswith("0 features (0.0\u00a0%), random directions 5.0\u00a0%.")


def test_shuffled_tokens_are_a_column_of_their_own(relie: xr.Dataset) -> None:
    shuffled = with_classes(relie, same_by_all(CLASSES), controls=(*DRAWS, SHUFFLED)).sel(task="near")
    table = basis_table(shuffled)
    assert table.heads[2:4] == ["Random directions (range)", "Shuffled tokens"]
    assert table.classes[0][1][0].cells[2:4] == ["15\u00a0% (10\u00a0% – 20\u00a0%)", "30\u00a0%"]
    assert count_sentence(shuffled) == (
        "Percentages are of the 6 features, the 20 random directions (2 draws) and the 10 features with shuffled tokens"
        " that have an effect on some example."
    )


def test_no_verdict_without_random_directions(relie: xr.Dataset) -> None:
    shuffled = with_classes(relie, same_by_all(CLASSES), controls=(SHUFFLED,))
    line = basis_table(shuffled.sel(task="near")).classes[0][1][0]
    assert line == (["published", "3 (50\u00a0%)", "–", "10\u00a0%", "–", "–"], False)
    alone = with_classes(relie, same_by_all(CLASSES), controls=())
    line = basis_table(alone.sel(task="near")).classes[0][1][0]
    assert line == (["published", "3 (50\u00a0%)", "–", "–", "–"], False)
    assert count_sentence(alone.sel(task="near")).endswith("; no controls were run.")
    for relie in (shuffled, alone):
        assert class_sentence(make_run(relie)) == "Not compared with random directions, which were not measured."


def test_class_sentence_names_what_is_more_than_chance(relie: xr.Dataset) -> None:
    assert class_sentence(make_run(relie)) == (
        "In pair · l1 · seed 0, over all tasks, with IE divided by the checkpoint’s total |IE|: emerged 33\u00a0%"
        " against 15\u00a0% of random directions, maintained 17\u00a0% against 0.0\u00a0%, discontinued 33\u00a0%"
        " against 0.0\u00a0%; no class is more frequent than among random directions (no more than chance)."
        " By published RelIE: emerged 50\u00a0% against 15\u00a0% of random directions, discontinued 33\u00a0%"
        " against 0.0\u00a0%; emerged is more frequent than among random directions on 2 of 2 tasks (more than"
        " chance); discontinued is not (no more than chance)."
    )


def test_one_small_p_value_of_many_is_no_more_than_chance(relie: xr.Dataset) -> None:
    many = xr.concat([relie] * 20, "task", data_vars="minimal", coords="minimal")
    p_values = xr.full_like(many["class_p_value"], 0.5)
    p_values[{"task": 0}] = 0.02
    assert chance_words(many.assign(class_p_value=p_values), TOTAL).endswith("(no more than chance)")
    p_values[{"task": 0}] = 1e-4
    assert "on 1 of 40 tasks" in chance_words(many.assign(class_p_value=p_values), TOTAL)


def test_class_sentence_where_all_or_no_class_is_more_than_chance(relie: xr.Dataset) -> None:
    more = {basis: ["emerged", "maintained"] for basis in BASES}
    assert class_sentence(make_run(with_classes(relie, same_by_all(CLASSES), more))).endswith(
        "; emerged is more frequent than among random directions on 2 of 2 tasks and maintained on 2 of 2 (more than"
        " chance). By published RelIE: the same."
    )
    assert class_sentence(make_run(with_classes(relie, same_by_all(CLASSES)))).endswith(
        "; no class is more frequent than among random directions (no more than chance). By published RelIE: the same."
    )
    undecided = class_sentence(make_run(with_classes(relie, same_by_all(["uncertain"] * 6))))
    assert "no feature has a decided class" in undecided


def test_basis_sentence_counts_features_whose_class_differs(relie: xr.Dataset) -> None:
    assert basis_sentence(relie).startswith(
        "Over all tasks, 2 of 10 feature–task pairs of decided class have another class"
    )


def test_identity_comparison_gives_a_false_rate(relie: xr.Dataset) -> None:
    assert identity_sentence([]) == "The comparison of a checkpoint with itself was not run."
    identity = with_control(toy_inputs(relie))
    assert identity_sentence(identity.controls) == (
        "Of a checkpoint compared with itself, 8 of 10 decided classes are changes (95\u00a0% upper limit 96\u00a0%);"
        " 12 feature–task pairs were tested. Classes are by IE over total |IE|."
    )
    twins = with_control(toy_inputs(relie), "pretraining seed")
    assert identity_sentence(twins.controls) == identity_sentence([])


@pytest.mark.parametrize(("count", "tested"), [(0, 132), (1, 1), (8, 10), (3, 40), (10, 10)])
def test_upper_limit_is_where_so_few_are_as_rare_as_one_in_twenty(count: int, tested: int) -> None:
    limit = upper_limit(count, tested)
    if count == tested:
        assert limit == 1
    else:
        chances = (math.comb(tested, k) * limit**k * (1 - limit) ** (tested - k) for k in range(count + 1))
        assert sum(chances) == pytest.approx(0.05)


def test_no_upper_limit_where_no_class_is_decided(relie: xr.Dataset) -> None:
    undecided = with_control(toy_inputs(with_classes(relie, same_by_all(["uncertain"] * 6))))
    assert "0 of 0 decided classes are changes (95\u00a0% upper limit –)" in identity_sentence(undecided.controls)


def test_control_rows_count_classes_by_basis(relie: xr.Dataset) -> None:
    published, divided, _ = control_rows(relie)
    assert (published.basis, published.counts, published.changed) == ("published", [6, 0, 4, 0], 10)
    assert (divided.counts, divided.changed, divided.decided, divided.tested) == ([4, 2, 4, 0], 8, 10, 12)
    assert divided.limit == "96\u00a0%"
    ((label, kind, explained, rows),) = control_tables(with_control(toy_inputs(relie), "pretraining seed"))
    assert (label, kind, explained, len(rows)) == ("same · l1 · seed 0", "pretraining seed", "0.90", 3)


def test_baseline_table_sets_measures_beside_each_other(relie: xr.Dataset) -> None:
    table = baseline_table(with_control(toy_inputs(relie)).baselines[0])
    assert table.label == "pair · l1 · seed 0"
    assert [row[:2] for row in table.rows] == [("0.00", "6 (5)"), ("0.70", "4 (3)")]
    measures = table.rows[0][2]
    assert measures["RelIE of single dictionaries, matched"] == ["0.50", "0.05", "0.60", "–"]
    assert measures["RelIE of the joint dictionary"] == ["0.90", "0.09", "0.80", "–"]


def test_codes_are_counted_where_a_checkpoint_does_not_support_them(relie: xr.Dataset) -> None:
    run = make_run(relie)
    assert unsupported_counts(run) == {"step10": (1, 3), "step20": (0, 3)}
    assert code_sentences([run]) == (
        "Cross-entropy recovered is nowhere above one. In pair · l1 · seed 0, of the features with a measurable effect"
        " at a checkpoint, 1 of 3 at step10 and 0 of 3 at step20 have a code that cannot be predicted from that"
        " checkpoint’s activations alone."
    )
    above = replace(run, evaluation=with_facts(evaluation_store(run.checkpoints, recovered=1.01)))
    assert code_sentences([run, above]).startswith(
        "Cross-entropy recovered is above one in 2 of the 4 checkpoint reconstructions, with own codes in 0: a"
        " reconstruction loses information, so the gain comes from other checkpoints or is sampling noise."
    )


def test_conditions_are_those_of_the_task(relie: xr.Dataset) -> None:
    assert [conditions_of(relie.sel(task=task)) for task in CONTRAST] == [["near one"], ["far one", "far two"]]
