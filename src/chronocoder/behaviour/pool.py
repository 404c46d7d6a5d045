"""The texts of many tasks, each of them read once by a model.

Prefixes and sentences that several pairs share are read once, whichever task they belong to. Texts of similar length go
through a model together, padded to the right: what comes after a token does not change it in a causal model. The output
embedding, often the widest product, is applied to the positions whose logits are wanted and to no others.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from transformers import PreTrainedModel

from chronocoder.errors import NonFiniteError
from chronocoder.plan.sizes import LOGITS_AT_ONCE, TOKENS_AT_ONCE
from chronocoder.suites.logits import chosen_positions_only
from chronocoder.suites.precision import logits_in_float32, overflow_remedy
from chronocoder.tasks.readout import terms_of
from chronocoder.tasks.rows import by_member, reads_prefixes, rows_of

WASTE = 1 / 16
"""Fraction of a pass's tokens that may be padding."""
POSITIONS_AT_ONCE = 256
"""Positions whose logits are summed over the vocabulary together: small temporaries are much faster on a CPU."""


class Wanted(NamedTuple):
    """Log-probabilities or logits of tokens after positions of texts, one entry each.

    Attributes:
        text: number of the text, shape (entry,).
        position: place of the token whose logits are wanted, shape (entry,).
        token: whose logit it is, shape (entry,).
        normalised: whether the log-probability is wanted, shape (entry,).
        weight: with which it is added up, shape (entry,).
        target: the example that it is added to, counted over all tasks, shape (entry,).
    """

    text: np.ndarray
    position: np.ndarray
    token: np.ndarray
    normalised: np.ndarray
    weight: np.ndarray
    target: np.ndarray

    def of_texts(self, texts: np.ndarray) -> "Wanted":
        """Return the entries of some texts, which are in order, numbered by their places among these."""
        starts, ends = (np.searchsorted(self.text, texts, side) for side in ("left", "right"))
        entries = np.concatenate([np.arange(*ends_of) for ends_of in zip(starts, ends, strict=True)])
        places = np.repeat(np.arange(len(texts)), ends - starts)
        return Wanted(places, *(values[entries] for values in self[1:]))


class Pool(NamedTuple):
    """The texts of some tasks.

    Attributes:
        texts: tokens of each distinct text, those that are read.
        wanted: in the order of texts.
        sizes: examples of each task.
    """

    texts: list[tuple[int, ...]]
    wanted: Wanted
    sizes: list[int]

    @classmethod
    def of(cls, tasks: Sequence[xr.Dataset]) -> "Pool":
        """Collect the texts of tasks, as `tokenise_pairs` returns them."""
        numbers: dict[tuple[int, ...], int] = {}
        sizes = [task.sizes["example"] for task in tasks]
        firsts = np.cumsum([0, *sizes[:-1]])
        parts = [_entries(task, first, numbers) for task, first in zip(tasks, firsts, strict=True)]
        columns = [np.concatenate(values) for values in zip(*parts, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        return cls(list(numbers), Wanted(*(values[order] for values in columns)), sizes)

    @torch.no_grad()
    def differences(self, model: PreTrainedModel, tokens_at_once: int = TOKENS_AT_ONCE) -> list[np.ndarray]:
        """Return right minus wrong of each example, shape (example,), of each task.

        Raises:
            NonFiniteError: one is NaN or infinite.
        """
        found = np.zeros(sum(self.sizes))
        lengths = np.array([len(text) for text in self.texts])
        most = max(1, min(tokens_at_once, LOGITS_AT_ONCE // model.config.vocab_size))
        for texts in _batches(lengths, most):
            ids = _padded([self.texts[text] for text in texts])
            wanted = self.wanted.of_texts(texts)
            np.add.at(found, wanted.target, wanted.weight * _read(model, ids, wanted))
        if not np.isfinite(found).all():
            raise NonFiniteError(
                f"{model.name_or_path}: {int((~np.isfinite(found)).sum())} differences of right and wrong are not"
                f" finite; {overflow_remedy(model)}"
            )
        return np.split(found.astype(np.float32), np.cumsum(self.sizes)[:-1])


def _entries(task: xr.Dataset, first: int, numbers: dict[tuple[int, ...], int]) -> tuple[np.ndarray, ...]:
    """Return what is wanted of a task's texts, columns as in `Wanted`, and number the texts that are new.

    Args:
        task: the task.
        first: number of its first example over all tasks.
        numbers: of the texts so far.
    """
    rows, ids = rows_of(task), by_member(task, "token_id")
    texts = np.array(
        [
            numbers.setdefault(tuple(ids[example, member, :length].tolist()), len(numbers))
            for example, member, length in zip(*rows, strict=True)
        ]
    )
    terms = terms_of(task, rows)
    normalised = np.full(len(terms.row), not reads_prefixes(task))
    return texts[terms.row], terms.position, terms.token, normalised, -terms.weight, first + rows.examples[terms.row]


def _batches(lengths: np.ndarray, tokens: int) -> Iterator[np.ndarray]:
    """Yield the texts of each pass: the longest first, as many as fit, with little padding."""
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        longest = lengths[order[0]]
        most = order[: max(1, tokens // longest)]
        padding = (longest - lengths[most]).cumsum()
        count = int((padding <= WASTE * longest * np.arange(1, len(most) + 1)).sum())
        yield order[:count]
        order = order[count:]


def _padded(texts: Sequence[Sequence[int]]) -> np.ndarray:
    ids = np.zeros((len(texts), len(texts[0])), dtype=np.int64)
    for line, text in zip(ids, texts, strict=True):
        line[: len(text)] = text
    return ids


def _read(model: PreTrainedModel, ids: np.ndarray, wanted: Wanted) -> np.ndarray:
    """Return the logits and log-probabilities that are wanted of a batch, shape (entry,)."""
    places = np.stack([wanted.text, wanted.position])
    distinct, place_of = np.unique(places, axis=1, return_inverse=True)
    rows, positions = torch.from_numpy(distinct).to(model.device)
    with chosen_positions_only(model, rows, positions), logits_in_float32(model.get_output_embeddings()):
        logits = model(input_ids=torch.from_numpy(ids).to(model.device)).logits[0].float()
    chosen = logits[torch.from_numpy(place_of.ravel()), torch.from_numpy(wanted.token)]
    found: np.ndarray = chosen.double().cpu().numpy()
    if wanted.normalised.any():
        parts = [part.logsumexp(dim=1) for part in logits.split(POSITIONS_AT_ONCE)]
        total = torch.cat(parts).double().cpu().numpy()
        found = found - np.where(wanted.normalised, total[place_of.ravel()], 0.0)
    return found
