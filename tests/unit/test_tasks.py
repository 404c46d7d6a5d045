"""Minimal pairs: tokenising, and what is said of those that cannot be used."""

import copy
from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import xarray as xr
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, PythonBackend

from chronocoder.errors import TaskError
from chronocoder.suites.nursery.grammar import Grammar
from chronocoder.suites.nursery.tokenizer import SEPARATOR, train_tokenizer
from chronocoder.tasks.pairs import MinimalPair, Role
from chronocoder.tasks.rows import row_batches, row_ids, rows_of
from chronocoder.tasks.tokenise import tokenise_pairs


def prefix_ids(task: xr.Dataset, number: int, variable: str = "token_id") -> list[int]:
    return row_ids(task, rows_of(task).some(np.array([number])), variable)[0].tolist()


def test_prefix_begins_with_the_separator_and_answers_follow_it(
    task: xr.Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    for number in range(task.sizes["example"]):
        ids = prefix_ids(task, number)
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
    assert list(prefix_ids(dataset, 0)[-len(shared) :]) == shared


def test_counterfactual_is_tokenised_like_the_prefix_and_ends_with_the_same_shared_tokens(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    pairs = [
        MinimalPair("the cat", " xa", " xb", counterfactual="a dogs"),
        MinimalPair("the boy near the cats", " see", " walk"),
    ]
    dataset = tokenise_pairs(pairs, tokenizer, 0, "t")
    shared = tokenizer.encode(" xa", add_special_tokens=False)[:-1]
    expected = [0, *tokenizer.encode("a dogs", add_special_tokens=False), *shared]
    assert list(prefix_ids(dataset, 0, "counterfactual_id")) == expected
    assert dataset["counterfactual_id"].shape == dataset["token_id"].shape
    assert (dataset["counterfactual_id"].values[0, len(expected) :] == -1).all()
    assert (dataset["counterfactual_id"].values[1] == -1).all()
    assert list(dataset["has_counterfactual"].values) == [True, False]
    assert list(dataset["counterfactual"].values) == ["a dogs", ""]
    assert dataset.attrs["counterfactual_left_out"] == 0


@pytest.mark.parametrize(
    ("pair", "tokens"),
    [
        (MinimalPair("the cat", " see", " walk", counterfactual="the cat near"), ["the", "Ġcat", "Ġnear"]),
        (MinimalPair("the near", "s", "a", counterfactual="the boy"), ["the", "Ġboy"]),  # "boys" is one token
    ],
    ids=["length", "boundary"],
)
def test_counterfactual_that_cannot_be_aligned_is_counted_and_its_pair_kept(
    tokenizer: PreTrainedTokenizerFast, pair: MinimalPair, tokens: list[str]
) -> None:
    assert tokenizer.tokenize(pair.counterfactual) == tokens
    dataset = tokenise_pairs([pair], tokenizer, 0, "t")
    assert dataset.sizes["example"] == 1 and dataset.attrs["counterfactual_left_out"] == 1
    assert not dataset["has_counterfactual"].values[0] and (dataset["counterfactual_id"].values == -1).all()
    assert dataset["counterfactual"].values[0] == pair.counterfactual


def test_answers_of_several_tokens_are_the_first_that_differ_and_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    one, moved, kept = (("the", right, wrong) for right, wrong in ((" see", " walk"), (" xa", " xb"), ("xz", "yz")))
    dataset = tokenise_pairs([MinimalPair(*texts) for texts in (one, moved, kept)], tokenizer, 0, "t")
    assert dataset.attrs["several_tokens"] == 1  # those of "xa" and "xb" differ in the last one alone
    answers = [tokenizer.convert_ids_to_tokens(dataset[name].values.tolist()) for name in ("right_id", "wrong_id")]
    assert answers == [["Ġsee", "a", "x"], ["Ġwalk", "b", "y"]]


def test_pairs_that_are_left_out_are_in_no_other_count(tokenizer: PreTrainedTokenizerFast) -> None:
    unequal = MinimalPair("the", " cat", " xyz", counterfactual="the cat near")
    dataset = tokenise_pairs([MinimalPair("the", " cat", " dogs"), unequal], tokenizer, 0, "t")
    counts = ("left_out_length", "several_tokens", "counterfactual_left_out")
    assert [dataset.attrs[name] for name in counts] == [1, 0, 0]


def pad_to_the_left(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.pad_token, tokenizer.padding_side, tokenizer.truncation_side = tokenizer.eos_token, "left", "left"


def pad_with_a_word(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.pad_token, tokenizer.padding_side = "Ġcat", "right"


def add_a_padding_token(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})


def pad_and_truncate_when_encoding(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.backend_tokenizer.enable_padding(length=9)
    tokenizer.backend_tokenizer.enable_truncation(2)


def add_separator_when_encoding(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.add_bos_token = tokenizer.add_eos_token = True
    processor = TemplateProcessing(single=f"{SEPARATOR} $A {SEPARATOR}", special_tokens=[(SEPARATOR, 0)])
    tokenizer.backend_tokenizer.post_processor = processor
    assert tokenizer.encode("the")[0] == tokenizer.encode("the")[-1] == 0


@pytest.mark.parametrize(
    "change",
    [
        pad_to_the_left,
        pad_with_a_word,
        add_a_padding_token,
        pad_and_truncate_when_encoding,
        add_separator_when_encoding,
    ],
)
def test_padding_and_separator_conventions_of_the_tokenizer_change_nothing(
    tokenizer: PreTrainedTokenizerFast, change: Callable[[PreTrainedTokenizerFast], None]
) -> None:
    pairs = [
        MinimalPair("the cat near the boys", " sees", " see", counterfactual="the dogs near the boys"),
        MinimalPair("a boy", " xa", " xb", counterfactual="the boys"),
        MinimalPair("a boy", " walks", " qqqqq"),
        MinimalPair("the near", "s", "a", counterfactual="the boy"),
    ]
    expected = tokenise_pairs(pairs, tokenizer, 0, "t")
    changed = copy.deepcopy(tokenizer)
    change(changed)
    xr.testing.assert_identical(tokenise_pairs(pairs, changed, 0, "t"), expected)


def test_pairs_of_unequal_length_are_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    usable, unequal = MinimalPair("the", " cat", " dogs"), MinimalPair("the", " cat", " qqqqq")
    dataset = tokenise_pairs([usable, unequal, unequal], tokenizer, 0, "t")
    assert dataset.sizes["example"] == 1
    assert dataset.attrs["pairs_given"] == 3 and dataset.attrs["left_out_length"] == 2


def roles_of(dataset: xr.Dataset, number: int) -> list[str]:
    """Return the role of each token of an example's prefix; there are none behind it."""
    length = int(dataset["length"].values[number])
    roles = [str(role) for role in dataset["role"].values[number]]
    assert "" not in roles[:length] and set(roles[length:]) <= {""}
    return roles[:length]


def roles_by_bytes(pair: MinimalPair, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """Return the roles of the text's tokens by counting bytes: each character of a byte-level token is one."""
    names, start = [], 0
    for token in tokenizer.tokenize(pair.prefix):
        stop = start + len(token)
        words = [
            role.name
            for role in pair.roles
            for byte in range(*(len(pair.prefix[:place].encode()) for place in (role.start, role.stop)))
            if start <= byte < stop
        ]
        names.append(words[0] if words else "other")
        start = stop
    return names


def test_tokens_of_a_word_have_its_role_and_the_last_token_its_own(tokenizer: PreTrainedTokenizerFast) -> None:
    across = MinimalPair(
        "the xyz near the zyx near", " see", " walk", roles=(Role("subject", 4, 7), Role("attractor", 17, 20))
    )
    within = MinimalPair("the boy", " see", " walk", roles=(Role("subject", 4, 7),))
    split = MinimalPair("the xyz", " see", " walk", roles=(Role("subject", 4, 7),))
    assert tokenizer.tokenize(" xyz") == ["Ġ", "x", "y", "z"]
    dataset = tokenise_pairs([across, within, split], tokenizer, 0, "t")
    expected = ["other", "other", *["subject"] * 3, "other", "other", "other", *["attractor"] * 3]
    assert roles_of(dataset, 0) == ["separator", *expected, "last token"]
    assert roles_of(dataset, 1) == ["separator", "other", "last token"]
    assert roles_of(dataset, 2) == ["separator", "other", "other", "subject", "subject", "last token"]
    for number, pair in enumerate((across, within, split)):
        assert roles_of(dataset, number)[1:-1] == roles_by_bytes(pair, tokenizer)[:-1]


def test_shared_tokens_that_moved_to_the_prefix_are_other_but_for_the_last(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize(" xya") == ["Ġ", "x", "y", "a"]
    pair = MinimalPair("the boy", " xya", " xyb", roles=(Role("subject", 4, 7),))
    dataset = tokenise_pairs([pair], tokenizer, 0, "t")
    assert roles_of(dataset, 0) == ["separator", "other", "subject", "other", "other", "last token"]


DISTANCES = ["separator", "earlier", "earlier", *[f"last token - {number}" for number in (3, 2, 1)], "last token"]


def test_without_known_words_roles_are_distances_from_the_end(tokenizer: PreTrainedTokenizerFast) -> None:
    pairs = [MinimalPair("the cat near the dogs the", " sees", " see"), MinimalPair("the", " cat", " dogs")]
    dataset = tokenise_pairs(pairs, tokenizer, 0, "t")
    assert roles_of(dataset, 0) == DISTANCES
    assert roles_of(dataset, 1) == ["separator", "last token"]
    moved = tokenise_pairs([MinimalPair("the", " xa", " xb")], tokenizer, 0, "t")
    assert roles_of(moved, 0)[-2:] == ["last token - 1", "last token"]


class SlowTokenizer(PythonBackend):
    """A token for each word."""

    words = ("the", "cat", "near", "a", "boy", "dogs", "sees", "see")

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    def get_vocab(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def _tokenize(self, text: str, **_: object) -> list[str]:
        return text.split()

    def _convert_token_to_id(self, token: str) -> int:
        return self.words.index(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self.words[index]


def test_tokenizer_without_offsets_has_roles_by_distance() -> None:
    pair = MinimalPair("the cat near the boy near", " sees", " see", roles=(Role("subject", 4, 7),))
    dataset = tokenise_pairs([pair], SlowTokenizer(), 0, "t")
    assert roles_of(dataset, 0) == DISTANCES


@pytest.mark.parametrize("language", ["english", "french"])
def test_roles_of_generated_pairs_are_those_of_their_words(language: str) -> None:
    """With a tokenizer that splits nearly every word, and characters of several bytes."""
    grammar = Grammar.load(language)
    small = train_tokenizer(islice(grammar.sentences("pretraining", 0), 50), 280)
    for task in grammar.task_names:
        pairs = grammar.minimal_pairs(task, 40, 0)
        by_text = {(pair.prefix, pair.right, pair.wrong): pair for pair in pairs}
        dataset = tokenise_pairs(pairs, small, 0, task)
        for number in range(dataset.sizes["example"]):
            pair = by_text[tuple(str(dataset[name].values[number]) for name in ("prefix", "right", "wrong"))]
            found = roles_of(dataset, number)
            if task == "determiner_noun":
                assert found == DISTANCES[:1] + ["earlier"] * (len(found) - 5) + DISTANCES[-4:]
            else:
                expected = ["separator", *roles_by_bytes(pair, small)]
                expected += ["other"] * (len(found) - len(expected))
                assert found == [*expected[:-1], "last token"] and "subject" in found


@pytest.mark.parametrize(("count", "usable"), [(32, True), (33, False)])
def test_number_of_conditions_is_limited(tokenizer: PreTrainedTokenizerFast, count: int, usable: bool) -> None:
    pairs = [MinimalPair("the", " cat", " dogs", condition=str(number)) for number in range(count)]
    if usable:
        assert tokenise_pairs(pairs, tokenizer, 0, "t").sizes["example"] == count
    else:
        message = r"task 't': its pairs name 33 conditions, .*; name at most 32, each with many pairs"
        with pytest.raises(TaskError, match=message):
            tokenise_pairs(pairs, tokenizer, 0, "t")


def test_no_usable_pair_is_an_error(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(
        TaskError,
        match=r"task 't': none of 1 pairs is usable .* by metric next_token .*'length': 1.*; set metric to sentence",
    ):
        tokenise_pairs([MinimalPair("the", " cat", " qqqqq")], tokenizer, 0, "t")


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (
            MinimalPair("the", " cat", " cat"),
            "task 't', pair 1: right and wrong sentence are the same: 'the cat'",
        ),
        (
            MinimalPair("the", " cat", " dog", counterfactual="the"),
            "task 't', pair 1: the counterfactual is the prefix itself: 'the'; correct it or leave it out",
        ),
    ],
)
def test_unusable_pair_is_named(tokenizer: PreTrainedTokenizerFast, pair: MinimalPair, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        tokenise_pairs([pair], tokenizer, 0, "t")


def test_batches_hold_every_example_once_and_one_length_each(task: xr.Dataset) -> None:
    batches = row_batches(task, 2)
    assert sorted(np.concatenate([rows.examples for rows in batches])) == list(range(task.sizes["example"]))
    for rows in batches:
        assert len(rows.examples) <= 2 and (rows.members == 0).all()
        assert set(task["length"].values[rows.examples]) == set(rows.lengths) and len(set(rows.lengths)) == 1
