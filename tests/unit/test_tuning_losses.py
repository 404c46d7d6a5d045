"""The losses that copies are tuned by are those of the plainest way, text by text."""

import math
from collections.abc import Sequence

import architectures
import numpy as np
import pytest
import torch
import xarray as xr
from sentence_pairs import PAIRS, TWO_SENTENCES, task_of
from tiny import tiny_model
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from chronocoder.tasks.pairs import MinimalPair
from chronocoder.taskspace import losses
from chronocoder.taskspace.losses import Loss, accumulate_gradient

OBJECTIVES = ["differential", "right"]


class OneLayer(nn.Module):
    """Logits of the next token are those in the row of the last one: a bigram model."""

    name_or_path = "one layer"

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding.from_pretrained(torch.eye(len(table)))
        self.head = nn.Linear(*table.shape, bias=False)
        self.head.weight = nn.Parameter(table.T.clone())
        self.device = table.device
        self.config = type("Config", (), {"get_text_config": lambda self: self, "vocab_size": len(table)})()

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: Tensor) -> object:
        return type("Output", (), {"logits": self.head(self.embedding(input_ids))})()


def prefixes(ids: Sequence[Sequence[int]], right: Sequence[int], wrong: Sequence[int]) -> xr.Dataset:
    """Return a task of prefixes given by their tokens."""
    width = max(map(len, ids))
    padded = [[*text, *[-1] * (width - len(text))] for text in ids]
    return xr.Dataset(
        {
            "token_id": (("example", "position"), np.array(padded, dtype=np.int32)),
            "length": ("example", np.array([len(text) for text in ids], dtype=np.int32)),
            "right_id": ("example", np.array(right)),
            "wrong_id": ("example", np.array(wrong)),
        },
        coords={"example": np.arange(len(ids))},
    )


def gradients(model: PreTrainedModel, loss: Loss, tokens_at_once: int = 10_000) -> tuple[float, list[Tensor]]:
    model.requires_grad_(True)
    value = accumulate_gradient(model, loss, tokens_at_once)
    found = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.requires_grad_(False)
    return value, found


def texts_of(pair: xr.Dataset) -> list[tuple[list[int], int]]:
    """Return the right and the wrong member of a pair with the first token that counts: of prefixes the answer."""
    if "member" in pair.dims:
        members = [pair.isel(member=place) for place in (0, 1)]
        return [(one["token_id"].values[: int(one["length"])].tolist(), int(one["scored_from"])) for one in members]
    ids = pair["token_id"].values[: int(pair["length"])].tolist()
    return [([*ids, int(pair[name])], len(ids)) for name in ("right_id", "wrong_id")]


def slow_loss(
    model: PreTrainedModel, task: xr.Dataset, examples: Sequence[int], objective: str, signs: Sequence[float]
) -> Tensor:
    """Return the loss, each member read by itself."""

    def log_probability(ids: list[int], first: int) -> Tensor:
        scores = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(1)
        return torch.stack([scores[place - 1, ids[place]] for place in range(first, len(ids))]).sum()

    total, tokens = torch.zeros((), dtype=torch.float64), 0
    for example, sign in zip(examples, signs, strict=True):
        (right, first), (wrong, first_of_wrong) = texts_of(task.isel(example=example))
        if objective == "right":
            total = total - log_probability(right, 1)
            tokens += len(right) - 1
        else:
            total = total + sign * (log_probability(wrong, first_of_wrong) - log_probability(right, first))
    return total / (tokens if objective == "right" else len(examples))


def assert_like_slow(
    model: PreTrainedModel, task: xr.Dataset, examples: Sequence[int], objective: str, signs: Sequence[float]
) -> None:
    model.requires_grad_(True)
    expected = slow_loss(model, task, examples, objective, signs)
    wanted = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    loss = Loss.of(task, examples, objective, None if set(signs) == {1.0} else np.array(signs))
    value, found = gradients(model, loss)
    assert value == pytest.approx(expected.item(), rel=1e-4, abs=1e-5)
    assert len(found) == len(wanted)
    largest = max(float(one.abs().max()) for one in found)
    assert largest > 1e-3
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(
            ours, torch.zeros_like(ours) if theirs is None else theirs, rtol=1e-3, atol=1e-4 * largest
        )


def test_one_layer_by_hand() -> None:
    """After token 1, logits (0, 0, ln 2, ln 5): probabilities (1, 1, 2, 5) / 9; after 0, all alike."""
    table = torch.zeros(4, 4)
    table[1] = torch.tensor([0, 0, math.log(2), math.log(5)])
    model = OneLayer(table)
    task = prefixes([[0, 1]], right=[3], wrong=[2])

    value, (*_, differential) = gradients(model, Loss.of(task, [0], "differential"))
    assert value == pytest.approx(math.log(2) - math.log(5))
    expected = torch.zeros(4, 4)
    expected[1] = torch.tensor([0.0, 0.0, 1.0, -1.0])
    torch.testing.assert_close(differential.T, expected)

    value, (*_, right) = gradients(model, Loss.of(task, [0], "right"))
    assert value == pytest.approx((math.log(4) - math.log(5 / 9)) / 2)
    expected[0] = torch.tensor([1, 1 - 4, 1, 1]) / 4 / 2
    expected[1] = torch.tensor([1, 1, 2, 5 - 9]) / 9 / 2
    torch.testing.assert_close(right.T, expected)


@pytest.mark.parametrize("architecture", ["gpt_neox", "gpt2", "bloom", "olmo2", "gemma2", "granite", "mamba"])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_prefixes_are_as_read_one_by_one(architecture: str, objective: str) -> None:
    generator = np.random.default_rng(0)
    ids = [[1, *generator.integers(3, architectures.VOCABULARY, length)] for length in (2, 5, 3)]
    task = prefixes([*ids, ids[0][:2]], right=[5, 6, 7, 8], wrong=[9, 10, 11, 9])
    signs = [1.0, -1.0, 1.0, -1.0, 1.0]
    assert_like_slow(architectures.build(architecture), task, [2, 0, 1, 2, 3], objective, signs)


@pytest.mark.parametrize("metric", TWO_SENTENCES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_sentences_are_as_read_one_by_one(
    metric: str, objective: str, any_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    task = task_of(tokenizer, metric)
    assert_like_slow(any_model, task, range(len(PAIRS)), objective, [1.0] * len(PAIRS))
    assert_like_slow(any_model, task, [3, 1, 3], objective, [1.0, -1.0, 1.0])


@pytest.mark.parametrize("metric", ["next_token", *TWO_SENTENCES])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_passes_and_padding_change_nothing(metric: str, objective: str, task: xr.Dataset, tokenizer) -> None:
    read = task if metric == "next_token" else task_of(tokenizer, metric)
    loss = Loss.of(read, range(read.sizes["example"]), objective)
    wider = loss._replace(ids=np.pad(loss.ids, ((0, 0), (0, 7)), constant_values=5))
    model = tiny_model("gpt_neox")
    value, expected = gradients(model, loss)
    largest = max(float(one.abs().max()) for one in expected)
    for other, tokens in [(loss, 1), (loss, 9), (loss, 23), (wider, 10_000)]:
        assert len(list(other.parts(tokens))) > 1 or other is wider
        again, found = gradients(model, other, tokens)
        assert again == pytest.approx(value, rel=1e-5, abs=1e-5)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * largest)


def test_padding_is_in_no_pass_but_between_texts_of_unequal_length(task: xr.Dataset) -> None:
    loss = Loss.of(task, range(6), "differential")
    parts = list(loss.parts(8))
    assert sum(len(part.lengths) for part in parts) == len(loss.lengths)
    assert all(part.ids.shape[1] == part.lengths.max() for part in parts)
    assert all(part.ids.size <= 8 or len(part.lengths) == 1 for part in parts)


def test_no_pass_has_more_logits_than_fit_into_memory(task: xr.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    model, sizes = tiny_model("gpt_neox"), list[int]()
    monkeypatch.setattr(losses, "LOGITS_AT_ONCE", 12 * model.config.vocab_size)
    measure = Loss.measure

    def count(loss: Loss, of: PreTrainedModel) -> Tensor:
        sizes.append(loss.ids.size)
        return measure(loss, of)

    monkeypatch.setattr(Loss, "measure", count)
    gradients(model, Loss.of(task, range(6), "right"))
    assert len(sizes) > 1 and max(sizes) <= 12


@pytest.mark.parametrize("metric", TWO_SENTENCES)
def test_equal_members_have_a_gradient_of_exactly_zero(
    metric: str, any_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    task = task_of(tokenizer, metric)
    alike = task.copy(deep=True)
    for name in ("token_id", "length", "scored_from"):
        alike[name].values[:, 1] = alike[name].values[:, 0]
    value, found = gradients(any_model, Loss.of(alike, range(len(PAIRS)), "differential"))
    assert value == 0 and all(not one.any() for one in found)
    value, found = gradients(any_model, Loss.of(task, range(len(PAIRS)), "differential"))
    assert value != 0 and any(one.any() for one in found)


def test_prefixes_with_equal_answers_have_a_gradient_of_exactly_zero(any_model: PreTrainedModel) -> None:
    task = prefixes([[1, 4, 5], [1, 6]], right=[7, 8], wrong=[7, 8])
    value, found = gradients(any_model, Loss.of(task, [0, 1], "differential"))
    assert value == 0 and all(not one.any() for one in found)


def test_a_pair_and_the_same_swapped_cancel(any_model: PreTrainedModel, task: xr.Dataset) -> None:
    value, found = gradients(any_model, Loss.of(task, [2, 2], "swapped", np.array([1.0, -1.0])))
    assert value == 0 and all(not one.any() for one in found)


@pytest.mark.parametrize("metric", ["next_token", *TWO_SENTENCES])
def test_signs_swap_the_members_of_their_pairs(metric: str, task: xr.Dataset, tokenizer) -> None:
    read = task if metric == "next_token" else task_of(tokenizer, metric)
    swapped = read.copy(deep=True)
    if metric == "next_token":
        for here, there in [("right_id", "wrong_id"), ("wrong_id", "right_id")]:
            swapped[here].values[1:3] = read[there].values[1:3]
    else:
        for name in ("token_id", "length", "scored_from"):
            swapped[name].values[1:3] = read[name].values[1:3, ::-1]
    signs, model = np.array([1.0, -1.0, -1.0, 1.0, 1.0]), tiny_model("gpt_neox")
    value, found = gradients(model, Loss.of(read, range(5), "swapped", signs))
    expected, wanted = gradients(model, Loss.of(swapped, range(5), "differential"))
    assert value == pytest.approx(expected, rel=1e-5)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_what_sentences_share_before_they_differ_is_not_in_the_loss(tokenizer: PreTrainedTokenizerFast) -> None:
    task = task_of(tokenizer, "sentence", [MinimalPair("a boy near the", " cats see", " cat see")])
    loss = Loss.of(task, [0], "differential")
    first, second = (task["token_id"].values[0, member] for member in (0, 1))
    differing = int(np.flatnonzero(first != second)[0])
    assert loss.position.min() == differing - 1
    assert (np.abs(loss.weight) == 1).all()
