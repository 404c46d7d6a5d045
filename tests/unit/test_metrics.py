"""Metrics of a task: which one is chosen, what is read, and how it is scored."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from sentence_pairs import PAIRS, TWO_SENTENCES, slow_differences, task_of
from tiny import tiny_model
from tokenizers.normalizers import Lowercase
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from chronocoder.attribution.interventions import draw_partners, prepare_task
from chronocoder.behaviour.pool import Pool
from chronocoder.config import UNITS, AttributionSettings
from chronocoder.suites.nursery.tokenizer import SEPARATOR
from chronocoder.tasks.metrics import choose_metric, contradictions, encode_pair
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.readout import LOGITS_AT_ONCE, sequences_at_once
from chronocoder.tasks.rows import row_batches, rows_of
from chronocoder.tasks.tokenise import tokenise_pairs


def chosen(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[MinimalPair], wanted: str = "auto") -> str:
    return choose_metric([encode_pair(pair, tokenizer) for pair in pairs], wanted).metric


# What is chosen.


def agreement(subjects_differ: bool) -> list[MinimalPair]:
    """Return pairs that part in the verb after different subjects, or in the subject before a verb that decides."""
    numbers = [(" cat", " sees"), (" cats", " see"), (" boy", " walks"), (" boys", " walk")]
    other = {" cat": " cats", " cats": " cat", " boy": " boys", " boys": " boy"}
    wrong = {" sees": " see", " see": " sees", " walks": " walk", " walk": " walks"}
    if subjects_differ:
        return [MinimalPair("the", f"{noun}{verb} the dogs", f"{other[noun]}{verb} the dogs") for noun, verb in numbers]
    return [MinimalPair(f"the{noun}", f"{verb} the dogs", f"{wrong[verb]} the dogs") for noun, verb in numbers]


def test_pairs_that_part_at_the_answer_are_asked_for_the_next_token(tokenizer: PreTrainedTokenizerFast) -> None:
    assert chosen(tokenizer, agreement(False)) == "next_token"


def test_pairs_whose_subjects_differ_are_asked_for_what_follows(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    """The case of BLiMP's regular_plural_subject_verb_agreement_2: after "the" either noun is right in some pair."""
    pairs = agreement(True)
    assert contradictions([encode_pair(pair, tokenizer) for pair in pairs]) == 1.0
    with caplog.at_level(logging.INFO):
        task = task_of(tokenizer, "auto", pairs)
    reason = "after the same prefix 100 % of the pairs have the opposite answer of another pair"
    assert (task.attrs["metric"], task.attrs["unit"], task.attrs["metric_reason"]) == ("continuation", "nat", reason)
    assert f"task made: metric continuation: {reason}" in caplog.text and not task.attrs["warnings"]


@pytest.mark.parametrize(
    ("asks", "expected"),
    [(("sentence",), "sentence"), (("next_token", "sentence"), "sentence"), (("next_token",), "continuation")],
)
def test_of_pairs_with_opposite_answers_the_source_says_what_is_asked(
    asks: tuple[str, ...], expected: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    pairs = [replace(pair, asks=asks) for pair in agreement(True)]
    task = task_of(tokenizer, "auto", pairs)
    assert task.attrs["metric"] == expected and bool(task.attrs["warnings"]) == (expected not in asks)


def test_a_metric_that_asks_something_else_is_warned_of(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    task = task_of(tokenizer, "next_token", agreement(True))
    warning = (
        "after the same prefix 100 % of the pairs have the opposite answer of another pair, so that the prefix does not"
        " decide what is right: this accuracy says nothing of what the pairs are about; set metric to continuation or"
        " sentence"
    )
    assert task.attrs["warnings"] == warning and f"task made: {warning}" in caplog.text
    assert task.attrs["metric_reason"] == "set in the configuration"


def test_one_pair_among_many_with_the_opposite_answer_decides_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    many = [MinimalPair(f"the {'near ' * (number % 3)}boy {number}", " walks", " walk") for number in range(300)]
    assert chosen(tokenizer, [*many, *agreement(True)[:2]]) == "next_token"


def test_the_metric_is_that_of_all_pairs_whichever_are_drawn(tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = agreement(True)
    alone = tokenise_pairs(pairs[:1], tokenizer, 0, "made", "auto")
    drawn = tokenise_pairs(pairs[:1], tokenizer, 0, "made", "auto", pairs)
    assert (alone.attrs["metric"], drawn.attrs["metric"]) == ("next_token", "continuation")
    assert drawn.sizes["example"] == 1 and drawn.attrs["pairs_given"] == 1


def test_sets_that_lose_too_many_pairs_are_asked_for_sentences(
    tokenizer: PreTrainedTokenizerFast, caplog: pytest.LogCaptureFixture
) -> None:
    unequal = [MinimalPair(f"the {name}", " cat", " qqqqq") for name in ("boy", "boys", "dogs")]
    assert chosen(tokenizer, [*agreement(False), *unequal]) == "sentence"
    task = task_of(tokenizer, "next_token", [*agreement(False), *unequal])
    assert task.attrs["left_out_length"] == 3 and not task.attrs["warnings"]
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warning == "task made: 4 of 7 pairs usable, left out: {'length': 3}"


def test_reason_says_why_another_metric_that_the_source_names_was_passed_over(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    unequal = [MinimalPair(f"the {name}", " cat", " qqqqq") for name in ("boy", "boys", "dogs")]
    pairs = [replace(pair, asks=("next_token", "sentence")) for pair in [*agreement(False), *unequal]]
    assert task_of(tokenizer, "auto", pairs).attrs["metric_reason"] == (
        "the source of the pairs names it, and 100 % of them can be used (only 57 % with next_token, which it names"
        " too)"
    )


def test_an_ending_alone_is_no_reason_to_ask_for_it(tokenizer: PreTrainedTokenizerFast) -> None:
    """The answers have unequal lengths, and what follows them says nothing of agreement."""
    pairs = [MinimalPair(f"the {name}", " cat the dogs", " qqqqq the dogs") for name in ("boy", "boys", "cat")]
    assert chosen(tokenizer, pairs) == "sentence"
    named = [MinimalPair(pair.prefix, pair.right, pair.wrong, asks=("continuation",)) for pair in pairs]
    assert chosen(tokenizer, named) == "continuation"


@pytest.mark.parametrize(
    ("asks", "expected"),
    [
        (("sentence", "next_token"), "next_token"),
        (("sentence", "continuation"), "continuation"),
        (("sentence",), "sentence"),
        (("continuation",), "continuation"),
    ],
)
def test_metrics_that_the_source_names_are_taken(
    tokenizer: PreTrainedTokenizerFast, asks: tuple[str, ...], expected: str
) -> None:
    pairs = [MinimalPair(pair.prefix, pair.right, pair.wrong, asks=asks) for pair in agreement(False)]
    assert chosen(tokenizer, pairs) == expected
    other = "continuation" if expected != "continuation" else "next_token"
    warnings = task_of(tokenizer, other, pairs).attrs["warnings"]
    assert ("the source of the pairs says that they are made for" in warnings) == (other not in asks)


# What is read.


@pytest.mark.parametrize(("name", "before"), [("continuation", ""), ("sentence", " ")])
def test_sentences_are_tokenised_whole(tokenizer: PreTrainedTokenizerFast, name: str, before: str) -> None:
    task = task_of(tokenizer, name)
    assert task.sizes["example"] == len(PAIRS) and task["member"].values.tolist() == ["right", "wrong"]
    for number, pair in enumerate(PAIRS):
        whole = [tokenizer.encode(before + text, add_special_tokens=False) for text in (pair.good, pair.bad)]
        ending = 0
        while whole[0][-1 - ending] == whole[1][-1 - ending]:
            ending += 1
        for place, ids in enumerate(whole):
            own = task.isel(example=number, member=place)
            assert own["token_id"].values[: int(own["length"])].tolist() == [0, *ids]
            assert (own["token_id"].values[int(own["length"]) :] == -1).all()
            assert int(own["scored_from"]) == (1 if name == "sentence" else 1 + len(ids) - ending)
            roles = own["role"].values[1 : int(own["length"])].tolist()
            assert roles[-ending:] == ["shared ending"] * ending and roles[-ending - 1] == "difference"
    lengths = task["length"].values
    assert task["has_counterfactual"].values.tolist() == (lengths[:, 0] == lengths[:, 1]).tolist()
    assert 0 < task.attrs["counterfactual_left_out"] < len(PAIRS)
    others = task["counterfactual_id"].values[task["has_counterfactual"].values]
    np.testing.assert_array_equal(others, task["token_id"].values[task["has_counterfactual"].values][:, ::-1])


def test_sentences_that_differ_in_what_is_not_read_are_no_counterfactuals(tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = [MinimalPair("the cat", " sees", " see"), MinimalPair("the", " cat sees", " cats sees")]
    task = task_of(tokenizer, "sentence", pairs)
    assert task["has_counterfactual"].values.tolist() == [False, True]
    assert task.attrs["counterfactual_left_out"] == 1
    assert prepare_task(task, AttributionSettings(intervention="counterfactual")).sizes["example"] == 1


def test_partners_differ_in_what_is_read(tokenizer: PreTrainedTokenizerFast) -> None:
    answers = [(" sees", " see"), (" walks", " walk"), (" see", " sees")]
    pairs = [MinimalPair(prefix, *both) for prefix in ("the cat", "the dogs") for both in answers]
    task = task_of(tokenizer, "sentence", pairs)
    for seed in range(5):
        partners = draw_partners(task, seed)
        assert all(pairs[place].prefix != pairs[partner].prefix for place, partner in enumerate(partners))
    alone = task_of(tokenizer, "sentence", pairs[:3])
    assert (draw_partners(alone, 0) == -1).all()


def test_a_word_that_is_tokenised_otherwise_at_the_end_of_a_prefix_is_used(tokenizer: PreTrainedTokenizerFast) -> None:
    """Nothing is decoded and encoded again: "boy" and "boys" are single tokens, and "boy" is not part of "boys"."""
    task = task_of(tokenizer, "next_token", [MinimalPair("a boy", "s", "")])
    answers = [tokenizer.convert_ids_to_tokens(int(task[name][0])) for name in ("right_id", "wrong_id")]
    assert answers == ["Ġboys", "Ġboy"] and int(task["length"][0]) == 2


def test_pairs_that_a_metric_cannot_use_are_counted_by_reason(tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = [
        MinimalPair("the", " cat", " dogs"),
        MinimalPair("the", " cat", " qqq"),
        MinimalPair("", "the cat", "a cat"),
    ]
    counts = {
        name: {key: value for key, value in task_of(tokenizer, name, pairs).attrs.items() if key[:8] == "left_out"}
        for name in UNITS
    }
    none = {f"left_out_{reason}": 0 for reason in ("length", "identity", "prefix", "continuation")}
    assert counts["next_token"] == {**none, "left_out_length": 1, "left_out_prefix": 1}
    assert counts["continuation"] == {**none, "left_out_continuation": 2}
    assert counts["sentence"] == none


def test_a_sentence_that_goes_on_after_the_end_of_the_other_has_no_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = [MinimalPair("the cat sees", "", " the dogs"), MinimalPair("the cat", " sees", " see")]
    task = task_of(tokenizer, "next_token", pairs)
    assert task.attrs["left_out_length"] == 1 and task.sizes["example"] == 1
    assert task_of(tokenizer, "auto", pairs).attrs["metric"] == "sentence"


def test_a_word_that_the_tokenizer_makes_the_same_is_no_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    blind = copy.deepcopy(tokenizer)
    blind.backend_tokenizer.normalizer = Lowercase()
    pairs = [MinimalPair("", "The cat", "the cat sees"), MinimalPair("the cat", " sees", " see")]
    assert task_of(blind, "next_token", pairs).attrs["left_out_length"] == 1


@pytest.mark.parametrize(
    ("good", "bad", "ending"),
    [
        ("the cats see the dogs", "the cat see the dogs", " see the dogs"),
        ("the xyzs see", "the qqqs see", " see"),  # not with the end of the words that differ
        ("the xyzs", "the qqqs", ""),
        ("cats see", "the cats see", " see"),  # the first word begins the one sentence, and has a space in the other
        ("xyzs", "qqqs", "s"),  # no spaces, no words
    ],
)
def test_an_ending_begins_with_a_word(good: str, bad: str, ending: str, tokenizer: PreTrainedTokenizerFast) -> None:
    for before in ("", " "):
        tokens = encode_pair(MinimalPair("", good, bad), tokenizer, before)
        if before and good[0] != bad[0]:
            continue
        assert tokenizer.decode(tokens.good[len(tokens.good) - tokens.ending :]) == ending


def test_sentences_with_the_same_tokens_are_a_tie(tokenizer: PreTrainedTokenizerFast) -> None:
    same = copy.deepcopy(tokenizer)
    pairs = [MinimalPair("the cat", " sees", " see"), MinimalPair("the cat", " Ω", " Ω ".rstrip() + "\u200b")]
    whole = [same.encode(pair.good) == same.encode(pair.bad) for pair in pairs]
    task = task_of(same, "sentence", pairs)
    assert task.attrs["ties"] == sum(whole) and task.sizes["example"] == 2


def test_a_tokenizer_that_adds_its_separator_itself_changes_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    adding = copy.deepcopy(tokenizer)
    adding.add_bos_token = True
    processor = TemplateProcessing(single=f"{SEPARATOR} $A", special_tokens=[(SEPARATOR, 0)])
    adding.backend_tokenizer.post_processor = processor
    assert adding.encode("the")[0] == 0
    for name in TWO_SENTENCES:
        xr.testing.assert_identical(task_of(adding, name), task_of(tokenizer, name))


def test_the_last_token_of_a_sentence_is_not_read(tokenizer: PreTrainedTokenizerFast) -> None:
    task = task_of(tokenizer, "sentence")
    rows = rows_of(task)
    np.testing.assert_array_equal(rows.lengths.reshape(-1, 2), task["length"].values - 1)
    for batch in row_batches(task, 3):
        assert len(batch.lengths) <= 3 and len(set(batch.lengths)) == 1


def test_logits_of_a_pass_fit_into_memory(tokenizer: PreTrainedTokenizerFast) -> None:
    prefixes, sentences = (task_of(tokenizer, name) for name in ("next_token", "sentence"))
    longest = int(sentences["length"].max())
    assert sequences_at_once(prefixes, 10**9, 64) == 64 and sequences_at_once(sentences, 300, 64) == 64
    assert sequences_at_once(sentences, LOGITS_AT_ONCE // (3 * longest), 64) == 3
    assert sequences_at_once(sentences, 10**12, 64) == 1


# What is scored.


@pytest.mark.parametrize("tokens", [1, 30, 10000])
def test_pooled_scores_are_those_of_one_text_at_a_time(
    any_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, tokens: int
) -> None:
    """Tasks of all metrics together: texts of several lengths share a pass, and some occur in several tasks."""
    tasks = [task_of(tokenizer, name) for name in UNITS]
    tasks += [task_of(tokenizer, name, agreement(False)) for name in UNITS]
    pool = Pool.of(tasks)
    found = pool.differences(any_model, tokens)
    for own, task in zip(found, tasks, strict=True):
        np.testing.assert_allclose(own, slow_differences(any_model, task), rtol=1e-4, atol=1e-4)
    assert max(float(np.abs(own).max()) for own in found) > 0.1


def test_each_text_is_read_once(tokenizer: PreTrainedTokenizerFast) -> None:
    task = task_of(tokenizer, "sentence")
    model, read = tiny_model("gpt2"), 0

    def count(_module: object, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
        nonlocal read
        read += inputs[0].shape[0]

    handle = model.transformer.wte.register_forward_hook(count)
    Pool.of([task, task]).differences(model)
    handle.remove()
    assert read == 2 * len(PAIRS) - 1  # "the cat sees the xyz" is right twice
