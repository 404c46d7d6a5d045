"""Turning minimal pairs into token ids, with an account of the pairs that cannot be used."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

import numpy as np
import xarray as xr
from transformers import PreTrainedTokenizerBase

from chronocoder.errors import TaskError
from chronocoder.stores import labelled, strings
from chronocoder.suites.tokenizers import token_texts
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.roles import token_roles

PADDING = -1
MOST_CONDITIONS = 32
"""Conditions that a task may have: effects are reported for each of them."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenisedPair:
    """A usable pair.

    Attributes:
        pair: its text.
        prefix_ids: separator, prefix, and the first tokens that both continuations share.
        right_id: the first token of the grammatical continuation that differs.
        wrong_id: the first token of the ungrammatical one that differs.
        counterfactual_ids: separator, counterfactual prefix and the same shared tokens; empty where it is unusable.
        answer_tokens: tokens of each continuation, the shared ones included.
        shared_tokens: those at its beginning that both share.
    """

    pair: MinimalPair
    prefix_ids: list[int]
    right_id: int
    wrong_id: int
    counterfactual_ids: list[int]
    answer_tokens: int
    shared_tokens: int


class _Tokens(NamedTuple):
    """A prefix and the two continuations after it, in tokens."""

    prefix: list[int]
    right: list[int]
    wrong: list[int]


def tokenise_pairs(
    pairs: Sequence[MinimalPair], tokenizer: PreTrainedTokenizerBase, separator: int, where: str
) -> xr.Dataset:
    """Tokenise the pairs of a task.

    A pair is left out, and counted, where its continuations differ in their number of tokens (`left_out_length`),
    where they have the same tokens, being unknown to the tokenizer (`left_out_identity`), or where the prefix is
    tokenised otherwise once a continuation follows (`left_out_boundary`).

    Where continuations have more than one token (`several_tokens` counts such pairs among the usable), the answers are
    their first tokens that differ. First tokens that both share (`shared_tokens_moved`) move to the end of the prefix.

    A counterfactual prefix is left out (`counterfactual_left_out`), and its pair kept, where it has another number of
    tokens than the prefix, or where it or the continuations are tokenised otherwise once they follow it.

    Args:
        pairs: the pairs.
        tokenizer: the suite's tokenizer.
        separator: the token id put before each prefix.
        where: the task's name, for messages.

    Returns:
        Dims (example, position); `token_id` is padded with -1 to the right, `length` counts the prefix's tokens.
        `counterfactual_id` is as long as `token_id`; it is -1 throughout where `has_counterfactual` is false.
        `role` is what `token_roles` says of each token.

    Raises:
        TaskError: a pair's continuations are the same, its prefix is empty or its own counterfactual, there are more
            than `MOST_CONDITIONS` conditions, or no pair is usable.
    """
    _check_conditions(pairs, where)
    usable: list[TokenisedPair] = []
    left_out: Counter[str] = Counter()
    for number, pair in enumerate(pairs, 1):
        _check_pair(pair, f"task '{where}', pair {number}")
        result = _tokenise(pair, tokenizer, separator)
        if isinstance(result, str):
            left_out[result] += 1
        else:
            usable.append(result)
    _log.info("task %s: %d pairs usable, left out: %s", where, len(usable), dict(left_out) or "none")
    if not usable:
        raise TaskError(
            f"task '{where}': none of {len(pairs)} pairs is usable with this tokenizer ({dict(left_out)});"
            " choose continuations of equal length in tokens that begin with the space before them"
        )
    task = _to_dataset(usable)
    texts = token_texts(task["token_id"].values, tokenizer)
    task["token"] = labelled(("example", "position"), texts, "text of the token, empty where the prefix has ended")
    roles = [token_roles(entry.pair, len(entry.prefix_ids), tokenizer) for entry in usable]
    padded = [[*row, *[""] * (task.sizes["position"] - len(row))] for row in roles]
    description = "role of the token, empty where the prefix has ended"
    task["role"] = labelled(("example", "position"), strings(padded), description)
    return task.assign_attrs(
        pairs_given=len(pairs),
        left_out_length=left_out["length"],
        left_out_identity=left_out["identity"],
        left_out_boundary=left_out["boundary"],
        several_tokens=sum(entry.answer_tokens > 1 for entry in usable),
        shared_tokens_moved=sum(entry.shared_tokens > 0 for entry in usable),
        counterfactual_left_out=sum(
            bool(entry.pair.counterfactual and not entry.counterfactual_ids) for entry in usable
        ),
    )


def prefix_batches(task: xr.Dataset, batch_size: int) -> list[np.ndarray]:
    """Return the example indices in batches of equal prefix length, so that no batch needs padding."""
    lengths = task["length"].values
    batches: list[np.ndarray] = []
    for length in np.unique(lengths):
        examples = np.flatnonzero(lengths == length)
        batches += [examples[start : start + batch_size] for start in range(0, len(examples), batch_size)]
    return batches


def prefix_ids(task: xr.Dataset, examples: np.ndarray, variable: str = "token_id") -> np.ndarray:
    """Return the ids of a variable, shape (batch, position), of examples with prefixes of one length."""
    length = int(task["length"].values[examples[0]])
    ids: np.ndarray = task[variable].values[examples, :length].astype(np.int64)
    return ids


def _check_conditions(pairs: Sequence[MinimalPair], where: str) -> None:
    count = len({pair.condition for pair in pairs})
    if count > MOST_CONDITIONS:
        raise TaskError(
            f"task '{where}': its pairs name {count} conditions, and effects are reported for each;"
            f" name at most {MOST_CONDITIONS}, each with many pairs"
        )


def _check_pair(pair: MinimalPair, where: str) -> None:
    if pair.right == pair.wrong:
        raise TaskError(f"{where}: right and wrong continuation are the same: '{pair.right}'; correct the pair")
    if not pair.prefix.strip():
        raise TaskError(
            f"{where}: '{pair.right}' and '{pair.wrong}' share no prefix; a pair needs text that both continue"
        )
    if pair.counterfactual == pair.prefix:
        raise TaskError(
            f"{where}: the counterfactual is the prefix itself: '{pair.prefix}'; correct it or leave it out"
        )


def _tokenise(pair: MinimalPair, tokenizer: PreTrainedTokenizerBase, separator: int) -> TokenisedPair | str:
    tokens = _encode(pair.prefix, pair, tokenizer)
    if tokens is None:
        return "boundary"
    prefix, right, wrong = tokens
    if len(right) != len(wrong):
        return "length"
    if right == wrong:
        return "identity"
    shared = len(list(takewhile(lambda ids: ids[0] == ids[1], zip(right, wrong, strict=True))))
    other = _encode(pair.counterfactual, pair, tokenizer) if pair.counterfactual else None
    if other is not None and (len(other.prefix) != len(prefix) or other[1:] != tokens[1:]):
        other = None
    return TokenisedPair(
        pair,
        prefix_ids=[separator, *prefix, *right[:shared]],
        right_id=right[shared],
        wrong_id=wrong[shared],
        counterfactual_ids=[separator, *other.prefix, *right[:shared]] if other else [],
        answer_tokens=len(right),
        shared_tokens=shared,
    )


def _encode(prefix: str, pair: MinimalPair, tokenizer: PreTrainedTokenizerBase) -> _Tokens | None:
    """Tokenise a prefix and the pair's continuations of it; None where a continuation changes its tokens."""
    ids, *whole = (
        tokenizer.encode(prefix + continuation, add_special_tokens=False)
        for continuation in ("", pair.right, pair.wrong)
    )
    if any(tokens[: len(ids)] != ids for tokens in whole):
        return None
    right, wrong = (tokens[len(ids) :] for tokens in whole)
    return _Tokens(ids, right, wrong)


def _to_dataset(usable: list[TokenisedPair]) -> xr.Dataset:
    lengths = np.array([len(entry.prefix_ids) for entry in usable], dtype=np.int32)
    token_ids = _padded([entry.prefix_ids for entry in usable], lengths.max())
    counterfactual_ids = _padded([entry.counterfactual_ids for entry in usable], lengths.max())

    def column(name: str, values: object, units: str = "1") -> xr.Variable:
        return labelled(("example",), values, name, units)

    texts = [entry.pair for entry in usable]
    return xr.Dataset(
        {
            "token_id": labelled(("example", "position"), token_ids, "token of the prefix, -1 where it has ended"),
            "counterfactual_id": labelled(
                ("example", "position"),
                counterfactual_ids,
                "token of the counterfactual prefix, -1 where there is none",
            ),
            "has_counterfactual": column("has a counterfactual prefix", [bool(e.counterfactual_ids) for e in usable]),
            "length": column("tokens in the prefix, the separator included", lengths, "token"),
            "right_id": column("token of the grammatical continuation", [entry.right_id for entry in usable]),
            "wrong_id": column("token of the ungrammatical continuation", [entry.wrong_id for entry in usable]),
            "prefix": column("text of the prefix", strings([pair.prefix for pair in texts])),
            "right": column("grammatical continuation", strings([pair.right for pair in texts])),
            "wrong": column("ungrammatical continuation", strings([pair.wrong for pair in texts])),
            "counterfactual": column(
                "text of the counterfactual prefix", strings([pair.counterfactual for pair in texts])
            ),
            "condition": column("condition within the task", strings([pair.condition for pair in texts])),
        },
        coords={"example": np.arange(len(usable)), "position": np.arange(token_ids.shape[1])},
    )


def _padded(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    """Return rows of token ids, shape (row, width), filled with `PADDING` to the right."""
    padded = np.full((len(rows), width), PADDING, dtype=np.int32)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row
    return padded
