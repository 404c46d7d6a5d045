"""The losses that copies are tuned by, and their gradients: what distinguishes the members of pairs, or one member.

Fine-tuning via gradient differentials (FTGD; Weber et al. 2024, arXiv 2406.06441) updates a model by the gradient of
the right member's loss less that of the wrong member's. Gradients are linear: this is the gradient of the difference of
the losses, which is the metric mu of `chronocoder.tasks.readout`. Terms of one token after the same tokens are added up
beforehand, so that what both members share, up to where they differ, cancels exactly and not only up to rounding.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from chronocoder.config import RIGHT as RIGHT_MEMBER
from chronocoder.plan.sizes import LOGITS_AT_ONCE
from chronocoder.suites.logits import chosen_positions_only
from chronocoder.tasks.readout import RIGHT, terms_of
from chronocoder.tasks.rows import by_member, reads_prefixes, rows_of

Context = tuple[int, ...]
"""The tokens that a prediction is made after."""


class Loss(NamedTuple):
    """A loss of some pairs: a weighted sum of logits, or of log-probabilities, of tokens after positions of texts.

    Attributes:
        ids: tokens of the texts, padded to the right with 0, shape (text, position).
        lengths: tokens of each text, shape (text,).
        text: number of the text, ascending, shape (term,).
        position: after which the token comes, shape (term,).
        token: whose logit it is, shape (term,).
        weight: with which it is added up, shape (term,).
        normalised: whether log-probabilities are meant, not logits.
    """

    ids: np.ndarray
    lengths: np.ndarray
    text: np.ndarray
    position: np.ndarray
    token: np.ndarray
    weight: np.ndarray
    normalised: bool

    @classmethod
    def of(
        cls, task: xr.Dataset, examples: Sequence[int] | np.ndarray, objective: str, signs: np.ndarray | None = None
    ) -> "Loss":
        """Return the loss of some pairs.

        Args:
            task: as `tokenise_pairs` returns it.
            examples: places of the pairs, which may repeat.
            objective: `right`: the mean loss of the right members over all their tokens but the first, in nats a
                token. Else the mean over pairs of mu, wrong minus right, in the unit of the metric.
            signs: of each pair, -1 where its members are swapped, else 1; none is swapped where not given.
        """
        chosen = task.isel(example=np.asarray(examples))
        if objective == RIGHT_MEMBER:
            return _of_right_members(chosen)
        rows = rows_of(chosen)
        terms = terms_of(chosen, rows)
        weight = terms.weight / chosen.sizes["example"]
        if signs is not None:
            weight = weight * signs[rows.examples[terms.row]]
        ids = by_member(chosen, "token_id")[rows.examples, rows.members]
        return cls.added_up(ids, terms.row, terms.position, terms.token, weight, not reads_prefixes(chosen))

    @classmethod
    def added_up(
        cls,
        ids: np.ndarray,
        row: np.ndarray,
        position: np.ndarray,
        token: np.ndarray,
        weight: np.ndarray,
        normalised: bool,
    ) -> "Loss":
        """Return the loss of some terms: those of one token after the same tokens are one term, or none if they cancel.

        Args:
            ids: tokens, shape (row, position).
            row: of each term, shape (term,); the others are as in `Loss`.
            position: see `Loss`.
            token: see `Loss`.
            weight: see `Loss`.
            normalised: see `Loss`.
        """
        texts = [tuple(line) for line in ids.tolist()]
        weights: dict[tuple[Context, int], float] = defaultdict(float)
        columns = (column.tolist() for column in (row, position, token, weight))
        for of_row, place, answer, share in zip(*columns, strict=True):
            weights[texts[of_row][: place + 1], answer] += share
        return _of_contexts({key: total for key, total in weights.items() if total}, normalised)

    def parts(self, tokens_at_once: int) -> Iterator["Loss"]:
        """Yield losses of some texts each, similar in length, that add up to this one."""
        order = np.argsort(self.lengths, kind="stable")
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end + 1 - start) * self.lengths[order[end]] <= tokens_at_once:
                end += 1
            yield self._of_texts(np.sort(order[start:end]))
            start = end

    def _of_texts(self, texts: np.ndarray) -> "Loss":
        inside = np.isin(self.text, texts)
        position, token, weight = (values[inside] for values in (self.position, self.token, self.weight))
        number = np.searchsorted(texts, self.text[inside])
        lengths = self.lengths[texts]
        return Loss(self.ids[texts, : lengths.max()], lengths, number, position, token, weight, self.normalised)

    def measure(self, model: PreTrainedModel) -> Float[Tensor, ""]:
        """Return the loss of a model, read in one pass, as a scalar with a gradient."""
        text, position, token = (
            torch.from_numpy(values.astype(np.int64)) for values in (self.text, self.position, self.token)
        )
        with chosen_positions_only(model, text, position):
            logits = model(input_ids=torch.from_numpy(self.ids).to(model.device)).logits[0].float()
        found = logits.gather(1, token[:, None].to(logits.device))[:, 0]
        if self.normalised:
            found = found - logits.logsumexp(dim=1)
        loss: Tensor = (torch.from_numpy(self.weight).to(found) * found).sum()
        return loss


def accumulate_gradient(model: PreTrainedModel, loss: Loss, tokens_at_once: int) -> float:
    """Set the gradients of a model's trainable parameters to those of a loss, and return the loss.

    The texts are read in passes of so many tokens, or of fewer where the logits would not fit, whose gradients are
    added up: how many has no influence but by rounding. Parameters that the loss does not depend on get a gradient of
    0.
    """
    model.zero_grad(set_to_none=True)
    total = 0.0
    for part in loss.parts(tokens_in_pass(model, tokens_at_once)):
        value = part.measure(model)
        value.backward()
        total += value.item()
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return total


def tokens_in_pass(model: PreTrainedModel, tokens_at_once: int) -> int:
    """Return how many tokens may go through a model together, so that their logits fit into memory."""
    vocabulary: int = model.config.get_text_config().vocab_size
    return max(1, min(tokens_at_once, LOGITS_AT_ONCE // vocabulary))


def _of_right_members(task: xr.Dataset) -> Loss:
    """Return the mean loss of the right members: whole sentences, or prefixes with the right answer."""
    ids, lengths = (by_member(task, name)[:, RIGHT] for name in ("token_id", "length"))
    if reads_prefixes(task):
        ids = np.pad(ids, ((0, 0), (0, 1)))
        ids[np.arange(len(ids)), lengths] = task["right_id"].values
        lengths = lengths + 1
    row, position = np.nonzero(np.arange(ids.shape[1] - 1) < lengths[:, None] - 1)
    weight = np.full(len(row), -1 / len(row))
    return Loss.added_up(ids, row, position, ids[row, position + 1], weight, normalised=True)


def _of_contexts(weights: Mapping[tuple[Context, int], float], normalised: bool) -> Loss:
    """Return a loss from the weight of each token after each context, with as few texts as contain these."""
    terms = sorted(weights)
    contexts = [context for context, _ in terms]
    numbers = np.cumsum([0, *(later[: len(earlier)] != earlier for earlier, later in pairwise(contexts))])[: len(terms)]
    texts = list(dict(zip(numbers.tolist(), contexts, strict=True)).values())  # the last, longest one of each number
    return Loss(
        _padded(texts),
        np.array([len(text) for text in texts], dtype=np.int64),
        numbers,
        np.array([len(context) - 1 for context in contexts], dtype=np.int64),
        np.array([token for _, token in terms], dtype=np.int64),
        np.array([weights[term] for term in terms]),
        normalised,
    )


def _padded(texts: Sequence[Context]) -> np.ndarray:
    ids = np.zeros((len(texts), max(map(len, texts), default=0)), dtype=np.int64)
    for line, text in zip(ids, texts, strict=True):
        line[: len(text)] = text
    return ids
