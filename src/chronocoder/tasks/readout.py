"""Metrics of a task, read off a model's logits: the one place where they are computed.

mu is "wrong minus right". It is a sum over sequences and positions, so that what is found of each can be added up: with
`next_token` the last position of one prefix, else all scored tokens of two sentences, those of the right one with a
minus.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from chronocoder.plan.sizes import LOGITS_AT_ONCE
from chronocoder.tasks.rows import Rows, by_member, reads_prefixes

RIGHT = 0


class Terms(NamedTuple):
    """What mu is the sum of: weighted logits of tokens after positions, or log-probabilities where sentences are read.

    Attributes:
        row: place of the sequence among the rows, shape (term,).
        position: after which the token comes, shape (term,).
        token: which it is, shape (term,).
        weight: 1 of what is wrong, -1 of what is right, shape (term,).
    """

    row: np.ndarray
    position: np.ndarray
    token: np.ndarray
    weight: np.ndarray


class Outcome(NamedTuple):
    """What logits say of some sequences, by position; what matters is the sum over positions.

    Attributes:
        terms: mu, in the unit of the metric.
        log_probability: of the right answer, in nats; 0 in a wrong sentence.
    """

    terms: Float[Tensor, "row position"]
    log_probability: Float[Tensor, "row position"]


class Readout(ABC):
    """What a metric makes of the logits of some sequences of one length."""

    @property
    @abstractmethod
    def positions(self) -> int:
        """How many of the last positions it takes logits of."""

    @property
    @abstractmethod
    def answer_ids(self) -> Int[Tensor, "row answer"] | None:
        """The tokens whose logits `terms` is given; None if it is given those of the vocabulary."""

    @abstractmethod
    def of(self, rows: Int[Tensor, " place"]) -> "Readout":
        """Return the readout of some of the sequences, which may repeat."""

    @abstractmethod
    def terms(self, logits: Float[Tensor, "row position token"]) -> Float[Tensor, "row position"]:
        """Return mu of the last positions, `positions` of them or fewer."""

    @abstractmethod
    def outcome(self, logits: Float[Tensor, "row position vocabulary"]) -> Outcome:
        """Return mu and the log-probability of the right answer from logits of the vocabulary."""


@dataclass(frozen=True)
class NextToken(Readout):
    """logit(wrong) - logit(right) after a prefix.

    Attributes:
        answers: wrong and right token.
    """

    answers: Int[Tensor, "row 2"]

    @property
    def positions(self) -> int:
        """The last one alone."""
        return 1

    @property
    def answer_ids(self) -> Int[Tensor, "row 2"]:
        """Both answers."""
        return self.answers

    def of(self, rows: Int[Tensor, " place"]) -> "NextToken":
        """Return the readout of some of the prefixes."""
        return NextToken(self.answers[rows])

    def terms(self, logits: Float[Tensor, "row 1 2"]) -> Float[Tensor, "row 1"]:
        """Return the difference of the answers' logits."""
        return logits[..., 0] - logits[..., 1]

    def outcome(self, logits: Float[Tensor, "row 1 vocabulary"]) -> Outcome:
        """Return the difference of the answers' logits, and the log-probability of the right one."""
        answers = logits.gather(2, self.answers[:, None])
        return Outcome(self.terms(answers), answers[..., 1] - logits.logsumexp(dim=2))


@dataclass(frozen=True)
class LogProbability(Readout):
    """The log-probability of scored tokens of a sentence, those of a right one with a minus.

    Attributes:
        targets: the token after each of the last positions, -1 where it is not scored.
        signs: -1 of a right sentence, 1 of a wrong one.
    """

    targets: Int[Tensor, "row position"]
    signs: Float[Tensor, " row"]

    @property
    def positions(self) -> int:
        """All from the first after which a token is scored."""
        return self.targets.shape[1]

    @property
    def answer_ids(self) -> None:
        """All tokens: a log-probability is relative to them."""
        return None

    def of(self, rows: Int[Tensor, " place"]) -> "LogProbability":
        """Return the readout of some of the sentences."""
        return LogProbability(self.targets[rows], self.signs[rows])

    def terms(self, logits: Float[Tensor, "row position vocabulary"]) -> Float[Tensor, "row position"]:
        """Return the signed log-probability of each scored token."""
        return self.signs[:, None] * self._scored(logits)

    def outcome(self, logits: Float[Tensor, "row position vocabulary"]) -> Outcome:
        """Return the signed log-probabilities, and those of right sentences."""
        scored = self._scored(logits)
        return Outcome(self.signs[:, None] * scored, scored * (self.signs < 0)[:, None])

    def _scored(self, logits: Float[Tensor, "row position vocabulary"]) -> Float[Tensor, "row position"]:
        targets = self.targets[:, -logits.shape[1] :]
        chosen = logits.gather(2, targets.clamp(min=0)[..., None])[..., 0] - logits.logsumexp(dim=2)
        return chosen.masked_fill(targets < 0, 0.0)


def terms_of(task: xr.Dataset, rows: Rows) -> Terms:
    """Return what a task's metric is the sum of, row by row; after a prefix the wrong token before the right one."""
    if reads_prefixes(task):
        answers = np.stack([task[name].values[rows.examples] for name in ("wrong_id", "right_id")], axis=1)
        row, position = (np.repeat(values, 2) for values in (np.arange(len(answers)), rows.lengths - 1))
        return Terms(row, position, answers.ravel().astype(np.int64), np.tile([1.0, -1.0], len(answers)))
    scored_from = by_member(task, "scored_from")[rows.examples, rows.members]
    counts = rows.lengths + 1 - scored_from  # the last token is scored, but not read
    row = np.repeat(np.arange(len(counts)), counts)
    scored = np.arange(len(row)) + np.repeat(scored_from - (counts.cumsum() - counts), counts)
    token = by_member(task, "token_id")[rows.examples[row], rows.members[row], scored]
    weight = np.where(rows.members[row] == RIGHT, -1.0, 1.0)
    return Terms(row, scored - 1, token.astype(np.int64), weight)


def readout_of(task: xr.Dataset, rows: Rows, device: torch.device) -> Readout:
    """Return what a task's metric makes of the logits of rows of one length."""
    terms = terms_of(task, rows)
    if reads_prefixes(task):
        return NextToken(torch.from_numpy(terms.token.reshape(-1, 2)).to(device))
    first = terms.position.min()
    targets = np.full((len(rows.lengths), rows.lengths[0] - first), -1)
    targets[terms.row, terms.position - first] = terms.token
    signs = np.zeros(len(targets), dtype=np.float32)
    signs[terms.row] = terms.weight
    return LogProbability(torch.from_numpy(targets).to(device), torch.from_numpy(signs).to(device))


def sequences_at_once(task: xr.Dataset, vocabulary: int, wanted: int) -> int:
    """Return how many sequences may go through a model together, so that their logits fit into `LOGITS_AT_ONCE`."""
    if reads_prefixes(task):
        return wanted
    return max(1, min(wanted, LOGITS_AT_ONCE // (int(task["length"].max()) * vocabulary)))
