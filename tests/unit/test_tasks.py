"""Minimal pairs: reading, tokenising, and what is said of those that cannot be used."""

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from transformers import PreTrainedTokenizerFast

from chronocoder.errors import TaskError
from chronocoder.tasks.blimp import read_blimp
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.tokenise import prefix_batches, prefix_ids, tokenise_pairs


def blimp_file(path: Path, *pairs: tuple[str, str]) -> Path:
    lines = [json.dumps({"sentence_good": good, "sentence_bad": bad}) for good, bad in pairs]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_blimp_pair_is_split_at_the_first_word_that_differs(tmp_path: Path) -> None:
    path = blimp_file(tmp_path / "a.jsonl", ("The cats annoy Tim.", "The cats annoys Tim."))
    assert read_blimp(path) == [MinimalPair("The cats", " annoy", " annoys")]


def test_blimp_limit_takes_the_first_lines(tmp_path: Path) -> None:
    path = blimp_file(tmp_path / "a.jsonl", ("a b", "a c"), ("d e", "d f"))
    assert len(read_blimp(path, limit=1)) == 1


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [
        ("the cat sees", "the cat sees", r"a\.jsonl, line 2: right and wrong sentence are the same: 'the cat sees'"),
        ("cats see", "the cats", r"a\.jsonl, line 2: 'cats see' and 'the cats' share no first word"),
        ("the cat", "the cat sees", r"a\.jsonl, line 2: .* one begins with the whole other"),
    ],
)
def test_unusable_blimp_pair_names_file_and_line(tmp_path: Path, good: str, bad: str, message: str) -> None:
    path = blimp_file(tmp_path / "a.jsonl", ("a b", "a c"), (good, bad))
    with pytest.raises(TaskError, match=message):
        read_blimp(path)


def test_blimp_line_without_sentences_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"sentence_good": "a b"}\n')
    with pytest.raises(TaskError, match=r"a\.jsonl, line 1: needs a JSON object with sentence_good and sentence_bad"):
        read_blimp(path)


def test_prefix_begins_with_the_separator_and_answers_follow_it(
    task: xr.Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    for number in range(task.sizes["example"]):
        ids = prefix_ids(task, np.array([number]))[0]
        assert ids[0] == 0
        prefix, right = str(task["prefix"].values[number]), str(task["right"].values[number])
        whole = tokenizer.encode(prefix + right, add_special_tokens=False)
        assert [*ids[1:], task["right_id"].values[number]] == whole[: len(ids)]
        assert task["right_id"].values[number] != task["wrong_id"].values[number]


def test_shared_first_tokens_move_to_the_prefix(tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = [MinimalPair("the", " xa", " xb")]
    shared = tokenizer.encode(" xa", add_special_tokens=False)[:-1]
    assert shared, "the test needs a word that is split"
    dataset = tokenise_pairs(pairs, tokenizer, 0, "t")
    assert list(prefix_ids(dataset, np.array([0]))[0][-len(shared) :]) == shared


def test_pairs_of_unequal_length_are_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    usable, unequal = MinimalPair("the", " cat", " dogs"), MinimalPair("the", " cat", " qqqqq")
    dataset = tokenise_pairs([usable, unequal, unequal], tokenizer, 0, "t")
    assert dataset.sizes["example"] == 1
    assert dataset.attrs["pairs_given"] == 3 and dataset.attrs["left_out_length"] == 2


def test_no_usable_pair_is_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TaskError, match=r"task 't': none of 1 pairs is usable .*'length': 1"):
        tokenise_pairs([MinimalPair("the", " cat", " qqqqq")], tokenizer, 0, "t")


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (MinimalPair("the", " cat", " cat"), "task 't', pair 1: right and wrong continuation are the same: ' cat'"),
        (MinimalPair(" ", "cat", "dog"), "task 't', pair 1: 'cat' and 'dog' share no prefix"),
    ],
)
def test_unusable_pair_is_named(tokenizer: PreTrainedTokenizerFast, pair: MinimalPair, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        tokenise_pairs([pair], tokenizer, 0, "t")


def test_batches_hold_every_example_once_and_one_length_each(task: xr.Dataset) -> None:
    batches = prefix_batches(task, 2)
    assert sorted(np.concatenate(batches)) == list(range(task.sizes["example"]))
    for batch in batches:
        assert len(batch) <= 2
        assert len(set(task["length"].values[batch])) == 1
