"""Turning minimal pairs into token ids, with an account of the pairs that cannot be used."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np
import xarray as xr
from transformers import PreTrainedTokenizerBase

from chronocoder.errors import TaskError
from chronocoder.stores import labelled, strings
from chronocoder.tasks.pairs import MinimalPair

PADDING = -1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenisedPair:
    """A usable pair.

    Attributes:
        pair: its text.
        prefix_ids: separator, prefix, and the first tokens that both continuations share.
        right_id: the first token of the grammatical continuation that differs.
        wrong_id: the first token of the ungrammatical one that differs.
    """

    pair: MinimalPair
    prefix_ids: list[int]
    right_id: int
    wrong_id: int


def tokenise_pairs(
    pairs: Sequence[MinimalPair], tokenizer: PreTrainedTokenizerBase, separator: int, where: str
) -> xr.Dataset:
    """Tokenise the pairs of a task.

    A pair is left out, and counted, where its continuations differ in their number of tokens (`left_out_length`),
    where they have the same tokens, being unknown to the tokenizer (`left_out_identity`), or where the prefix is
    tokenised otherwise once a continuation follows (`left_out_boundary`).

    Args:
        pairs: the pairs.
        tokenizer: the suite's tokenizer.
        separator: the token id put before each prefix.
        where: the task's name, for messages.

    Returns:
        Dims (example, position); `token_id` is padded with -1 to the right, `length` counts the prefix's tokens.

    Raises:
        TaskError: a pair's continuations are the same, its prefix is empty, or no pair is usable.
    """
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
            " choose continuations of equal length in tokens"
        )
    return _to_dataset(usable).assign_attrs(
        pairs_given=len(pairs),
        left_out_length=left_out["length"],
        left_out_identity=left_out["identity"],
        left_out_boundary=left_out["boundary"],
    )


def prefix_batches(task: xr.Dataset, batch_size: int) -> list[np.ndarray]:
    """Return the example indices in batches of equal prefix length, so that no batch needs padding."""
    lengths = task["length"].values
    batches: list[np.ndarray] = []
    for length in np.unique(lengths):
        examples = np.flatnonzero(lengths == length)
        batches += [examples[start : start + batch_size] for start in range(0, len(examples), batch_size)]
    return batches


def prefix_ids(task: xr.Dataset, examples: np.ndarray) -> np.ndarray:
    """Return the token ids, shape (batch, position), of examples with prefixes of one length."""
    length = int(task["length"].values[examples[0]])
    ids: np.ndarray = task["token_id"].values[examples, :length].astype(np.int64)
    return ids


def _check_pair(pair: MinimalPair, where: str) -> None:
    if pair.right == pair.wrong:
        raise TaskError(f"{where}: right and wrong continuation are the same: '{pair.right}'; correct the pair")
    if not pair.prefix.strip():
        raise TaskError(
            f"{where}: '{pair.right}' and '{pair.wrong}' share no prefix; a pair needs text that both continue"
        )


def _tokenise(pair: MinimalPair, tokenizer: PreTrainedTokenizerBase, separator: int) -> TokenisedPair | str:
    prefix, with_right, with_wrong = (
        tokenizer.encode(text, add_special_tokens=False)
        for text in (pair.prefix, pair.prefix + pair.right, pair.prefix + pair.wrong)
    )
    size = len(prefix)
    if with_right[:size] != prefix or with_wrong[:size] != prefix:
        return "boundary"
    if len(with_right) != len(with_wrong):
        return "length"
    if with_right == with_wrong:
        return "identity"
    shared = len(list(takewhile(lambda ids: ids[0] == ids[1], zip(with_right, with_wrong, strict=True))))
    return TokenisedPair(pair, [separator, *with_right[:shared]], with_right[shared], with_wrong[shared])


def _to_dataset(usable: list[TokenisedPair]) -> xr.Dataset:
    lengths = np.array([len(entry.prefix_ids) for entry in usable], dtype=np.int32)
    token_ids = np.full((len(usable), lengths.max()), PADDING, dtype=np.int32)
    for row, entry in zip(token_ids, usable, strict=True):
        row[: len(entry.prefix_ids)] = entry.prefix_ids

    def column(name: str, values: object, units: str = "1") -> xr.Variable:
        return labelled(("example",), values, name, units)

    texts = [entry.pair for entry in usable]
    return xr.Dataset(
        {
            "token_id": labelled(("example", "position"), token_ids, "token of the prefix, -1 where it has ended"),
            "length": column("tokens in the prefix, the separator included", lengths, "token"),
            "right_id": column("token of the grammatical continuation", [entry.right_id for entry in usable]),
            "wrong_id": column("token of the ungrammatical continuation", [entry.wrong_id for entry in usable]),
            "prefix": column("text of the prefix", strings([pair.prefix for pair in texts])),
            "right": column("grammatical continuation", strings([pair.right for pair in texts])),
            "wrong": column("ungrammatical continuation", strings([pair.wrong for pair in texts])),
            "condition": column("condition within the task", strings([pair.condition for pair in texts])),
        },
        coords={"example": np.arange(len(usable)), "position": np.arange(token_ids.shape[1])},
    )
