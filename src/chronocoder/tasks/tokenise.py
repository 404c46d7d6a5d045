"""Turning minimal pairs into token ids, with an account of the pairs that cannot be used."""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from transformers import PreTrainedTokenizerBase

from chronocoder.config import UNITS
from chronocoder.errors import TaskError
from chronocoder.stores import labelled, strings
from chronocoder.suites.tokenizers import token_texts
from chronocoder.tasks.metrics import (
    CONTINUATION,
    LEAST_USABLE,
    NEXT_TOKEN,
    SENTENCE,
    Choice,
    PairTokens,
    choose_metric,
    encode_pair,
)
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.reasons import REASONS
from chronocoder.tasks.roles import prefix_roles, sentence_roles

PADDING = -1
MEMBERS = ("right", "wrong")
"""The sentences of a pair, where a metric compares two of them."""
MOST_CONDITIONS = 32
"""Conditions that a task may have: effects are reported for each of them."""
BEFORE_SENTENCE = " "
"""What goes before a sentence that is scored as a whole."""
_log = logging.getLogger(__name__)


class _Sequence(NamedTuple):
    """What a model reads of a pair, or is compared with.

    Attributes:
        ids: separator and tokens.
        roles: of each of them.
        scored_from: the first token whose log-probability counts; 0 where the tokens are a prefix.
        counterfactual: as many tokens, from which features take their values; empty where there are none.
    """

    ids: list[int]
    roles: list[str]
    scored_from: int
    counterfactual: list[int]


def tokenise_pairs(
    pairs: Sequence[MinimalPair],
    tokenizer: PreTrainedTokenizerBase,
    separator: int,
    where: str,
    metric: str = NEXT_TOKEN,
    drawn_from: Sequence[MinimalPair] | None = None,
) -> xr.Dataset:
    """Tokenise the pairs of a task, each sentence once and as a whole, for its metric.

    Pairs that the metric cannot use are left out and counted, by reason (`left_out_length` and so on, see `REASONS`).
    With `sentence` none is. Sentences whose tokens are the same are then a tie, which counts as wrong; `ties` counts
    them.

    `next_token`: the prefix is the tokens that both sentences share, and the answers are the first that differ. The
    words in which they differ need equally many tokens from there on; `several_tokens` counts those with more than one.
    A counterfactual prefix is left out (`counterfactual_left_out`), and its pair kept, where it has another number of
    tokens than the prefix or other ones of the answers.

    `continuation`, `sentence`: the counterfactual of each sentence is the other one of the pair, where both have
    equally many tokens and differ before the last one, which no model reads.

    Args:
        pairs: the pairs.
        tokenizer: the suite's tokenizer.
        separator: the token id put before each prefix or sentence.
        where: the task's name, for messages.
        metric: what is compared, or `auto`: see `choose_metric`.
        drawn_from: all pairs of the task, by which the metric is chosen; by default `pairs`.

    Returns:
        With the metric `next_token` dims (example, position): `token_id` is the prefix, padded with -1 to the right,
        `length` its tokens, `right_id` and `wrong_id` the answers. With the others dims (example, member, position):
        `token_id` holds the right and the wrong sentence, and `scored_from` (example, member) the first token whose
        log-probability counts, up to the last one. `counterfactual_id` is as long as `token_id`; it is -1 throughout
        where `has_counterfactual` is false. `role` is what `chronocoder.tasks.roles` says of each token. The attributes
        `metric`, `unit`, `metric_reason` and `warnings` say what is compared, and why.

    Raises:
        TaskError: the sentences of a pair are the same, a prefix is its own counterfactual, there are more than
            `MOST_CONDITIONS` conditions, or no pair is usable.
    """
    _check_conditions(pairs, where)
    for number, pair in enumerate(pairs, 1):
        _check_pair(pair, f"task '{where}', pair {number}")
    tokens = [encode_pair(pair, tokenizer) for pair in pairs]
    judged = tokens if drawn_from is None else [encode_pair(pair, tokenizer) for pair in drawn_from]
    choice = choose_metric(judged, metric)
    if choice.metric == SENTENCE:
        tokens = [encode_pair(pair, tokenizer, BEFORE_SENTENCE) for pair in pairs]
    reasons = [of.unusable(choice.metric) for of in tokens]
    usable = [of for of, reason in zip(tokens, reasons, strict=True) if not reason]
    left_out = Counter(filter(None, reasons))
    _report(where, choice, len(usable), left_out)
    if not usable:
        raise TaskError(
            f"task '{where}': none of {len(pairs)} pairs is usable with this tokenizer by metric {choice.metric}"
            f" ({dict(left_out)}); set metric to {SENTENCE}, which leaves no pair out"
        )
    task = _to_dataset(usable, _sequences(usable, choice.metric, tokenizer, separator), choice.metric, tokenizer)
    return task.assign_attrs(
        metric=choice.metric,
        unit=UNITS[choice.metric],
        metric_reason=choice.reason,
        warnings="; ".join(choice.warnings),
        pairs_given=len(pairs),
        **{f"left_out_{reason}": left_out[reason] for reason in REASONS},
        several_tokens=sum(of.answer[0] > 1 for of in usable) if choice.metric == NEXT_TOKEN else 0,
        ties=sum(of.good == of.bad for of in usable),
        counterfactual_left_out=_without_counterfactual(task),
    )


def _report(where: str, choice: Choice, usable: int, left_out: Counter[str]) -> None:
    _log.info("task %s: metric %s: %s", where, choice.metric, choice.reason)
    for warning in choice.warnings:
        _log.warning("task %s: %s", where, warning)
    given = usable + left_out.total()
    level = logging.INFO if usable >= LEAST_USABLE * given else logging.WARNING
    _log.log(level, "task %s: %d of %d pairs usable, left out: %s", where, usable, given, dict(left_out) or "none")


def _check_conditions(pairs: Sequence[MinimalPair], where: str) -> None:
    count = len({pair.condition for pair in pairs})
    if count > MOST_CONDITIONS:
        raise TaskError(
            f"task '{where}': its pairs name {count} conditions, and effects are reported for each;"
            f" name at most {MOST_CONDITIONS}, each with many pairs"
        )


def _check_pair(pair: MinimalPair, where: str) -> None:
    if pair.right == pair.wrong:
        raise TaskError(f"{where}: right and wrong sentence are the same: '{pair.good}'; remove or correct the pair")
    if pair.counterfactual and pair.counterfactual == pair.prefix:
        raise TaskError(
            f"{where}: the counterfactual is the prefix itself: '{pair.prefix}'; correct it or leave it out"
        )


def _sequences(
    usable: Sequence[PairTokens], metric: str, tokenizer: PreTrainedTokenizerBase, separator: int
) -> list[tuple[_Sequence, ...]]:
    """Return the prefix of each pair, or its two sentences."""
    if metric == NEXT_TOKEN:
        return [(_prefix(tokens, tokenizer, separator),) for tokens in usable]
    return [_sentences(tokens, metric, separator) for tokens in usable]


def _prefix(tokens: PairTokens, tokenizer: PreTrainedTokenizerBase, separator: int) -> _Sequence:
    other = _counterfactual(tokens, tokenizer)
    return _Sequence([separator, *tokens.prefix], prefix_roles(tokens), 0, [separator, *other] if other else [])


def _counterfactual(tokens: PairTokens, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the counterfactual prefix, in as many tokens and before the same answers; empty if there is none."""
    pair, shared = tokens.pair, tokens.shared
    if not pair.counterfactual:
        return []
    other = encode_pair(MinimalPair(pair.counterfactual, pair.right, pair.wrong), tokenizer)
    after = slice(shared, shared + tokens.answer[0])
    same = (other.good[after], other.bad[after]) == (tokens.good[after], tokens.bad[after])
    return list(other.prefix) if other.shared == shared and same else []


def _sentences(tokens: PairTokens, metric: str, separator: int) -> tuple[_Sequence, ...]:
    both = [[separator, *ids] for ids in (tokens.good, tokens.bad)]
    aligned = len(both[0]) == len(both[1]) and both[0][:-1] != both[1][:-1]  # the last token is not read
    moved = len(BEFORE_SENTENCE) if metric == SENTENCE else 0
    return tuple(
        _Sequence(
            ids,
            sentence_roles(tokens, len(ids), moved),
            len(ids) - tokens.ending if metric == CONTINUATION else 1,
            other if aligned else [],
        )
        for ids, other in (both, both[::-1])
    )


def _without_counterfactual(task: xr.Dataset) -> int:
    """Return how many examples have a counterfactual that is unusable."""
    given = np.array(True) if "member" in task.dims else task["counterfactual"].values != ""
    return int((given & ~task["has_counterfactual"].values).sum())


def _to_dataset(
    usable: Sequence[PairTokens],
    sequences: Sequence[tuple[_Sequence, ...]],
    metric: str,
    tokenizer: PreTrainedTokenizerBase,
) -> xr.Dataset:
    """Return the arrays of a task; without dimension `member` where a metric reads one prefix."""
    one = metric == NEXT_TOKEN
    dims = ("example", "position") if one else ("example", "member", "position")
    shape = (len(usable), *(() if one else (len(MEMBERS),)))
    flat = [sequence for of_pair in sequences for sequence in of_pair]
    width = max(len(sequence.ids) for sequence in flat)
    ids, others = (
        _padded(rows, width).reshape(*shape, width)
        for rows in ([of.ids for of in flat], [of.counterfactual for of in flat])
    )
    roles = [[*of.roles, *[""] * (width - len(of.ids))] for of in flat]
    texts = [tokens.pair for tokens in usable]
    has_other = np.array([bool(of_pair[0].counterfactual) for of_pair in sequences])

    def column(name: str, values: Sequence[object], units: str = "1") -> xr.Variable:
        return labelled(dims[:1], strings(values) if isinstance(values[0], str) else values, name, units)

    def by_sequence(name: str, values: Sequence[int]) -> xr.Variable:
        return labelled(dims[:-1], np.array(values, dtype=np.int32).reshape(shape), name, "token")

    of_metric = (
        {
            "right_id": column("token of the grammatical continuation", [of.good[of.shared] for of in usable]),
            "wrong_id": column("token of the ungrammatical continuation", [of.bad[of.shared] for of in usable]),
        }
        if one
        else {"scored_from": by_sequence("first token that is scored", [of.scored_from for of in flat])}
    )
    return xr.Dataset(
        {
            "token_id": labelled(dims, ids, "token of the text, -1 where it has ended"),
            "counterfactual_id": labelled(dims, others, "token of the counterfactual text, -1 where there is none"),
            "has_counterfactual": column("has a counterfactual text", has_other.tolist()),
            "length": by_sequence("tokens of the text, the separator included", [len(of.ids) for of in flat]),
            **of_metric,
            "prefix": column("text that both sentences begin with", [pair.prefix for pair in texts]),
            "right": column("rest of the grammatical sentence", [pair.right for pair in texts]),
            "wrong": column("rest of the ungrammatical sentence", [pair.wrong for pair in texts]),
            "counterfactual": column("text of the counterfactual prefix", [pair.counterfactual for pair in texts]),
            "condition": column("condition within the task", [pair.condition for pair in texts]),
            "token": labelled(dims, token_texts(ids, tokenizer), "text of the token, empty where the text has ended"),
            "role": labelled(
                dims, strings(roles).reshape(ids.shape), "role of the token, empty where the text has ended"
            ),
        },
        coords={
            "example": np.arange(len(usable)),
            "position": np.arange(width),
            **({} if one else {"member": strings(list(MEMBERS))}),
        },
    )


def _padded(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """Return rows of token ids, shape (row, width), filled with `PADDING` to the right."""
    padded = np.full((len(rows), width), PADDING, dtype=np.int32)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row
    return padded
