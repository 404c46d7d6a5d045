"""Metrics of a task: which one is chosen, what it reads, and that effects on it are those of the plainest way."""

import copy
import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from slow_attribution import (
    folded_crosscoder,
    slow_effects,
    slow_log_probability,
    slow_metric,
    tiny_sites,
)
from tiny import ARCHITECTURES, tiny_model
from tokenizers.normalizers import Lowercase
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from chronocoder.attribution.ablation import measure_ablations, summarise_ablations
from chronocoder.attribution.attribute import measure_effects
from chronocoder.attribution.controls import shuffle_tokens
from chronocoder.attribution.effects import metric
from chronocoder.attribution.interventions import draw_partners, prepare_task
from chronocoder.attribution.prompts import read_prompts
from chronocoder.attribution.sampling import units_of
from chronocoder.attribution.summary import summarise_effects
from chronocoder.behaviour.pool import Pool
from chronocoder.config import UNITS, AblationSettings, AttributionSettings
from chronocoder.suites.nursery.tokenizer import SEPARATOR
from chronocoder.suites.sites import Site
from chronocoder.tasks import readout
from chronocoder.tasks.metrics import choose_metric, contradictions, encode_pair
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.readout import LOGITS_AT_ONCE, LogProbability, sequences_at_once
from chronocoder.tasks.rows import row_batches, rows_of
from chronocoder.tasks.tokenise import tokenise_pairs

TWO_SENTENCES = ["continuation", "sentence"]
PAIRS = [
    MinimalPair("the", " cat sees the xyz", " dogs sees the xyz"),
    MinimalPair("the", " boys see", " boy see", condition="plural"),
    MinimalPair("the", " xyz walks", " cats walks"),
    MinimalPair("a boy near the", " cats see the cat", " cat see the cat", condition="plural"),
    MinimalPair("the", " cat sees the xyz", " xyz sees the xyz"),
]
"""Sentences of several lengths, and pairs of unequal ones; answers of several tokens; a right sentence that recurs."""


def task_of(tokenizer: PreTrainedTokenizerFast, metric_name: str, pairs: Sequence[MinimalPair] = PAIRS) -> xr.Dataset:
    return tokenise_pairs(pairs, tokenizer, 0, "made", metric_name).assign_attrs(task="made", suite="tiny")


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
    reason = "after the same prefix 100% of the pairs have the opposite answer of another pair"
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
        "after the same prefix 100% of the pairs have the opposite answer of another pair, so that the prefix does not"
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
        "the source of the pairs names it, and 100% of them can be used (only 57% with next_token, which it names too)"
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


@torch.no_grad()
def slow_differences(model: PreTrainedModel, task: xr.Dataset) -> list[float]:
    """Return right minus wrong of each example, one forward pass a text."""

    def logits_of(of_text: xr.Dataset) -> tuple[torch.Tensor, list[int]]:
        ids = of_text["token_id"].values[: int(of_text["length"])].tolist()
        return model(input_ids=torch.tensor([ids])).logits[0].double(), ids

    def score(of_text: xr.Dataset) -> float:
        logits, ids = logits_of(of_text)
        places = range(int(of_text["scored_from"]), len(ids))
        return sum(float(logits.log_softmax(1)[place - 1, ids[place]]) for place in places)

    found = []
    for number in range(task.sizes["example"]):
        own = task.isel(example=number)
        if "member" in task.dims:
            found.append(score(own.isel(member=0)) - score(own.isel(member=1)))
        else:
            last = logits_of(own)[0][-1]
            found.append(float(last[int(own["right_id"])] - last[int(own["wrong_id"])]))
    return found


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


# Effects.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", TWO_SENTENCES)
def test_exact_effects_are_those_of_one_feature_and_sentence_at_a_time(
    name: str, architecture: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    task, where, crosscoder = task_of(tokenizer, name), tiny_sites(architecture), folded_crosscoder(0.1)
    expected = slow_effects(crosscoder, where, task)
    for batch_size in (2, 64):
        settings = AttributionSettings(estimator="exact", batch_size=batch_size, random_directions=0)
        found = measure_effects(crosscoder, where, task, settings)
        np.testing.assert_allclose(found["effects"], expected, rtol=1e-3, atol=5e-5)
        clean = [slow_metric(crosscoder, where, task, example, 1) for example in range(len(PAIRS))]
        np.testing.assert_allclose(found["clean_metric"][1], clean, rtol=1e-4, atol=1e-4)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("estimator", ["grouped_gradients", "exact"])
def test_passes_of_effects_have_few_enough_logits(
    estimator: str, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more than may be, or twice as many where everything is changed beside the clean copy; effects are the same."""
    task, where, crosscoder = task_of(tokenizer, "sentence"), tiny_sites(), folded_crosscoder(0.1)
    settings = AttributionSettings(estimator=estimator, random_directions=0)
    expected = measure_effects(crosscoder, where, task, settings)["effects"]
    most = 2 * int(task["length"].max()) * where[0].model.config.vocab_size
    monkeypatch.setattr("chronocoder.tasks.readout.LOGITS_AT_ONCE", most)
    sizes, terms = list[int](), LogProbability.terms

    def count(readout: LogProbability, logits: torch.Tensor) -> torch.Tensor:
        sizes.append(logits.numel())
        return terms(readout, logits)

    monkeypatch.setattr(LogProbability, "terms", count)
    found = measure_effects(crosscoder, where, task, settings)["effects"]
    assert most / 2 < max(sizes) <= 2 * most
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=5e-5)


@pytest.mark.parametrize("name", TWO_SENTENCES)
def test_no_pass_has_more_logits_than_fit_into_memory(
    name: str, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, where, crosscoder = task_of(tokenizer, name), tiny_sites(), folded_crosscoder(0.1)
    limit = 3 * int(task["length"].max()) * where[0].model.config.vocab_size
    monkeypatch.setattr(readout, "LOGITS_AT_ONCE", limit)
    largest = []
    for site in where:
        embedding = site.model.get_output_embeddings()
        embedding.register_forward_hook(lambda _module, _inputs, logits: largest.append(logits.numel()))
    chosen_settings = AttributionSettings(estimator="grouped_gradients", groups=3, bootstrap_samples=20)
    effects = measure_effects(crosscoder, where, task, chosen_settings)
    attribution = summarise_effects(
        effects, task, crosscoder.decoder_norms.numpy(), {"step0": 0, "step1": 10}, chosen_settings
    )
    ablation = AblationSettings(top_features=4, set_sizes=[2], random_sets=3)
    measure_ablations(crosscoder, where, task, attribution, chosen_settings, ablation)
    assert limit / 3 < max(largest) <= limit


def gradients_by_sentence(task: xr.Dataset, site: Site, points: Sequence[float], checkpoint: int) -> np.ndarray:
    """Return effects by a mean gradient on the way to zero, shape (example, feature), one sentence at a time."""
    crosscoder, sites = folded_crosscoder(0.1), tiny_sites()
    found = np.zeros((task.sizes["example"], len(crosscoder.b_enc)))
    for example, (member, sign) in product(range(task.sizes["example"]), (("right", -1), ("wrong", 1))):
        own = task.isel(example=example).sel(member=member)
        ids = torch.from_numpy(own["token_id"].values[None, : int(own["length"])].astype(np.int64))
        x = torch.stack([of.read(ids).activation[0] for of in sites], dim=1)
        codes = crosscoder.encode(x)
        codes[0] = 0
        clean = x[:, checkpoint]
        end = crosscoder.b_dec[checkpoint].expand_as(clean).clone()
        end[0] = clean[0]
        for point in points:
            leaf = (clean + point * (end - clean)).requires_grad_()
            with site.module.register_forward_hook(lambda _module, _input, output, put=leaf: replaced(output, put)):
                scores = site.model(input_ids=ids).logits[0].log_softmax(dim=-1)
            first = int(own["scored_from"])
            mu = sign * scores[first - 1 : -1].gather(1, ids[0, first:, None]).sum()
            gradient = torch.autograd.grad(mu, leaf)[0]
            found[example] += (-codes * (gradient @ crosscoder.W_dec[checkpoint].T)).sum(dim=0).numpy() / len(points)
    return found


def replaced(output: Any, put: torch.Tensor) -> Any:
    return (put[None], *output[1:]) if isinstance(output, tuple) else put[None]


@pytest.mark.parametrize("name", TWO_SENTENCES)
@pytest.mark.parametrize(
    ("settings", "points"),
    [
        ({"estimator": "attribution_patching"}, [0.0]),
        (
            {
                "estimator": "published",
                "steps": 3,
                "path_points": "midpoints",
                "over_tokens": "sum",
                "token_threshold": 0.0,
            },
            [1 / 6, 3 / 6, 5 / 6],
        ),
    ],
)
def test_gradients_are_those_of_both_sentences(
    name: str, settings: dict[str, Any], points: list[float], tokenizer: PreTrainedTokenizerFast
) -> None:
    """Also of sentences of unequal lengths, and of several scored tokens."""
    task, where = task_of(tokenizer, name), tiny_sites()
    chosen = AttributionSettings(**settings, random_directions=0, batch_size=3)
    found = measure_effects(folded_crosscoder(0.1), where, task, chosen)["effects"][1]
    expected = gradients_by_sentence(task, where[1], points, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-5)
    assert np.abs(expected).max() > 1e-3


@pytest.mark.parametrize("name", TWO_SENTENCES)
def test_groups_with_every_feature_alone_are_exact(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    task, where, crosscoder = task_of(tokenizer, name), tiny_sites(), folded_crosscoder(0.1)
    alone, grouped = (
        AttributionSettings(estimator="grouped_gradients", random_directions=0, **settings)
        for settings in ({"alone": 24}, {"alone": 0, "groups": 24, "points": 12})
    )
    expected = slow_effects(crosscoder, where, task)
    for settings, tolerance in ((alone, 5e-5), (grouped, 2e-3)):
        found = measure_effects(crosscoder, where, task, settings)["effects"]
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=tolerance)


@pytest.mark.parametrize("name", TWO_SENTENCES)
def test_two_stages_measure_both_sentences_of_the_chosen_features(
    name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    task, where, crosscoder = task_of(tokenizer, name), tiny_sites(), folded_crosscoder(0.1)
    settings = AttributionSettings(estimator="two_stages", exact_features=4, exact_controls=3, random_directions=2)
    found = measure_effects(crosscoder, where, task, settings)
    exactly = np.flatnonzero(found["estimator"].values == "exact")
    assert 0 < len(exactly) < 24
    expected = slow_effects(crosscoder, where, task)[..., exactly]
    np.testing.assert_allclose(found["effects"][..., exactly], expected, rtol=1e-3, atol=5e-5)


@pytest.mark.parametrize("name", TWO_SENTENCES)
def test_ablations_are_those_of_the_changed_model(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    task, where, crosscoder = task_of(tokenizer, name), tiny_sites(), folded_crosscoder(0.1)
    settings = AttributionSettings(estimator="exact", bootstrap_samples=50, random_directions=2)
    ablation = AblationSettings(top_features=2, set_sizes=[2], random_sets=1)
    effects = measure_effects(crosscoder, where, task, settings)
    seen = {"step0": 0, "step1": 10}
    attribution = summarise_effects(effects, task, crosscoder.decoder_norms.numpy(), seen, settings)
    measured = measure_ablations(crosscoder, where, task, attribution, settings, ablation)
    found = summarise_ablations(measured, task, attribution, settings)
    given, feature = (crosscoder, where, task), int(found["top_feature"][0])
    for m in range(2):
        after = [slow_metric(*given, example, m, [feature]) for example in range(len(PAIRS))]
        here = found.isel(checkpoint=m).sel(feature=feature)
        assert float(here["difference"]) == pytest.approx(-np.mean(after), abs=1e-3)
        assert float(here["accuracy"]) == pytest.approx(np.mean(np.array(after) < 0))
        changes = [
            slow_log_probability(*given, example, m, of, member="right")
            for of in ([feature], [])
            for example in range(len(PAIRS))
        ]
        change = np.mean(changes[: len(PAIRS)]) - np.mean(changes[len(PAIRS) :])
        assert float(here["log_probability_change"]) == pytest.approx(change, abs=1e-3)
        check_positions(measured.isel(checkpoint=m), given, m, feature)
    assert found["indirect_effect"].attrs["units"] == attribution["indirect_effect"].attrs["units"] == "nat"
    swapped = measured["swapped_effects"]
    own = measured["effects"].sel(estimator="exact")
    for m in range(2):
        np.testing.assert_allclose(swapped[m, m, :, : own.sizes["feature"]], own[m], atol=1e-4)
    assert set(found["position_role"].values) >= {"difference", "shared ending"}


def check_positions(measured: xr.Dataset, given: tuple, m: int, feature: int) -> None:
    """Check effects at one position of one sentence alone, of an example with sentences of unequal lengths."""
    task = given[2]
    [example, *_] = np.flatnonzero(task["length"].values[:, 0] != task["length"].values[:, 1])
    for member, sign in (("right", -1), ("wrong", 1)):
        own = measured["position_effects"].sel(top_feature=feature, member=member).isel(example=example)
        length = int(task["length"].sel(member=member)[example])
        clean, *changed = (
            slow_log_probability(*given, example, m, of, "zero", False, position, member=member)
            for of, position in [((), 1), *(([feature], place) for place in range(length))]
        )
        np.testing.assert_allclose(own[:length], sign * (np.array(changed) - clean), atol=1e-4)
        assert own[length - 1] == 0 and (own[length:] == 0).all()


def test_effects_by_a_single_prefix_and_by_the_same_task_in_batches_of_both_sentences(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """mu of an example is that of its right sentence and that of its wrong one, added up."""
    task, where = task_of(tokenizer, "sentence"), tiny_sites()
    total = np.zeros(len(PAIRS))
    for batch in read_prompts(folded_crosscoder(), where, task, "zero", 2):
        prompts = batch.prompts[0]
        np.add.at(total, batch.rows.examples, metric(where[0], prompts, prompts.state.activation[None])[0].numpy())
    np.testing.assert_allclose(-total, slow_differences(where[0].model, task), rtol=1e-4, atol=1e-4)


def test_pairs_with_the_same_right_sentence_are_one_unit(tokenizer: PreTrainedTokenizerFast) -> None:
    units = units_of(task_of(tokenizer, "sentence"))
    assert units.unit[0] == units.unit[4] and len(set(units.unit)) == 4


@pytest.mark.parametrize("name", TWO_SENTENCES)
def test_what_is_scored_at_the_end_is_not_shuffled(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    task = task_of(tokenizer, name)
    shuffled = shuffle_tokens(task, 0)
    for place in np.ndindex(len(PAIRS), 2):
        before, after = (of["token_id"].values[place] for of in (task, shuffled))
        first, length = (int(task[of].values[place]) for of in ("scored_from", "length"))
        kept = first if name == "continuation" else length
        assert before[0] == after[0] and (before[kept:] == after[kept:]).all()
        assert sorted(before[:kept]) == sorted(after[:kept])
    assert (task["token_id"].values != shuffled["token_id"].values).any()


def test_both_sentences_of_a_pair_are_shuffled_alike(tokenizer: PreTrainedTokenizerFast) -> None:
    """They go on differing where they did: in another order each, a pair would be of two orders."""
    task = task_of(tokenizer, "sentence")
    shuffled = shuffle_tokens(task, 0)
    differing = [
        (of["token_id"].isel(member=0) != of["token_id"].isel(member=1)).sum("position") for of in (task, shuffled)
    ]
    alike = (task["length"].isel(member=0) == task["length"].isel(member=1)).values
    assert 0 < alike.sum() < len(PAIRS)
    np.testing.assert_array_equal(differing[1].values[alike], differing[0].values[alike])
