"""Exact effects: each feature changed alone, and nothing recomputed that the change does not reach.

A causal model keeps what is before the first position that a feature changes, s, as it is. The clean pass keeps the
keys and values of the blocks after the site, and a row (example, feature) is run from s on. Rows are sorted by s and
run in batches of about as many tokens, of more on a GPU. A batch begins at its first row's s: rows that could begin
later recompute a few clean positions, which is what padding would cost. Where a model keeps no past, every row begins
at the first position.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache

from chronocoder.attribution.effects import Effects, Prompts, error_change, metric, terms
from chronocoder.config import AttributionSettings
from chronocoder.plan.sizes import EXACT_ROWS, exact_sequences
from chronocoder.suites.sites import Site
from chronocoder.suites.suffix import empty_past, past_of

RECOMPUTED = 1 / 32
"""Fraction of a batch's tokens that may be clean positions recomputed, so that suffixes of several lengths share it."""


class Rows(NamedTuple):
    """Changes of one feature in one example each, run together.

    Attributes:
        examples: places in the batch of prompts, shape (row,).
        positions: the first that changes, shape (row,).
        features: places among the prompts' features, shape (row,).
        start: the first position that is run.
        activation: of the site from there on, with the feature changed; shape (row, position - start, d_model).
    """

    examples: Int[Tensor, " row"]
    positions: Int[Tensor, " row"]
    features: Int[Tensor, " row"]
    start: int
    activation: Float[Tensor, "row position d_model"]


@torch.no_grad()
def exact(site: Site, prompts: Prompts, settings: AttributionSettings) -> Effects:
    """Measure effects by changing each feature alone, where the intervention changes it; the estimators' reference."""
    without_error = metric(site, prompts, (prompts.state.activation + error_change(prompts))[None])[0]
    features, clean = _alone(site, prompts, settings)
    return Effects(features, without_error - clean)


def effects_alone(site: Site, prompts: Prompts, settings: AttributionSettings) -> Float[Tensor, "batch feature"]:
    """Return the exact effects of features, without that of the error term."""
    return _alone(site, prompts, settings)[0]


@torch.no_grad()
def _alone(
    site: Site, prompts: Prompts, settings: AttributionSettings
) -> tuple[Float[Tensor, "batch feature"], Float[Tensor, " batch"]]:
    """Return the effects of features, and the clean metric."""
    x, past = prompts.state.activation, past_for(site)
    clean = terms(site, prompts, x[None], past)[0]
    features = x.new_zeros(len(x), len(prompts.weight), dtype=torch.float32)
    at_once = at_once_on(site, prompts, settings.batch_size, whole=prompts.readout.answer_ids is None)
    for rows in changed_alone(prompts, at_once, from_start=past is None):
        features[rows.examples, rows.features] = effect_of(site, prompts, rows, past, clean)
    return features, clean.sum(dim=-1)


def effect_of(
    site: Site, prompts: Prompts, rows: Rows, past: Cache | None, clean: Float[Tensor, "batch position"]
) -> Float[Tensor, " row"]:
    """Return what changes do to mu; where a pass begins, what it reads before is as it was.

    Args:
        site: in the checkpoint's model.
        prompts: the sequences.
        rows: the changes.
        past: of `past_for`, filled by the clean pass.
        clean: mu by position.
    """
    readout = prompts.readout.of(rows.examples)
    changed = readout.terms(changed_logits(site, prompts, rows, past, readout.answer_ids))
    return (changed - clean[rows.examples, -changed.shape[1] :]).sum(dim=-1)


def at_once_on(site: Site, prompts: Prompts, batch_size: int, whole: bool) -> int:
    """Return the sequences whose tokens a pass has: on a GPU as many as keep it busy.

    Args:
        site: in the checkpoint's model.
        prompts: the sequences.
        batch_size: sequences of a batch.
        whole: whether the logits of the whole vocabulary are wanted.
    """
    if prompts.change.device.type == "cpu":
        return batch_size
    positions = prompts.readout.positions if whole else 0
    return exact_sequences(batch_size, prompts.token_ids.shape[1], positions, site.model.config.vocab_size)


def past_for(site: Site) -> Cache | None:
    """Return a cache for the clean pass to fill; None where the model has no use for it."""
    return empty_past() if site.keeps_past else None


def changed_logits(
    site: Site, prompts: Prompts, rows: Rows, past: Cache | None, token_ids: Int[Tensor, "row token"] | None = None
) -> Float[Tensor, "row position token"]:
    """Return the logits of the last positions, those that the metric reads and the change reaches.

    Args:
        site: in the checkpoint's model.
        prompts: the sequences.
        rows: the changes.
        past: of `past_for`, filled by the clean pass.
        token_ids: those of each row whose logits are wanted; None: those of the vocabulary.
    """
    own, start = rows.examples, rows.start
    found = site.resume(
        prompts.token_ids[own, start:],
        rows.activation,
        None if site.is_residual else prompts.state.entry[own, start:],
        last=prompts.readout.positions,
        answers=token_ids,
        past=None if past is None else past_of(past, own, start),
    )
    return found.float()


def changed_alone(prompts: Prompts, sequences: int, from_start: bool = False) -> Iterator[Rows]:
    """Yield each feature changed alone in each example, wherever the intervention changes it.

    Args:
        prompts: the examples, and how features change.
        sequences: a batch has as many tokens as so many of the prompts, at most.
        from_start: run all positions.
    """
    anywhere, first = (prompts.change != 0).to(torch.uint8).max(dim=1)
    examples, features = anywhere.nonzero().T
    places = torch.stack([examples, first[examples, features], features], dim=1)
    for own, start in _batches(places, prompts, sequences, from_start):
        examples, positions, features = own.T
        change = prompts.change[examples, start:, features][..., None] * prompts.weight[features][:, None]
        x = prompts.state.activation[examples, start:]
        yield Rows(examples, positions, features, start, x + change.to(x.dtype))


def changed_at_positions(prompts: Prompts, sequences: int, from_start: bool = False) -> Iterator[Rows]:
    """Yield each feature changed at each position alone, with the arguments of `changed_alone`."""
    for own, start in _batches(prompts.change.nonzero(), prompts, sequences, from_start):
        examples, positions, features = own.T
        change = prompts.change[examples, positions, features][:, None] * prompts.weight[features]
        x = prompts.state.activation[examples, start:]
        x[torch.arange(len(x), device=x.device), positions - start] += change.to(x.dtype)
        yield Rows(examples, positions, features, start, x)


def _batches(
    places: Int[Tensor, "row 3"], prompts: Prompts, sequences: int, from_start: bool
) -> Iterator[tuple[Int[Tensor, "part 3"], int]]:
    """Yield (example, position, feature) of the rows of each batch, and where it begins; those of long suffixes first.

    A batch ends where rows that could begin later would recompute more than `RECOMPUTED` of the tokens it may have.
    """
    length = prompts.token_ids.shape[1]
    places = places[places[:, 1].sort(stable=True).indices]
    starts = torch.zeros_like(places[:, 1]).cpu() if from_start else places[:, 1].cpu()
    while len(places):
        start, tokens = int(starts[0]), sequences * length
        most = min(tokens // (length - start), EXACT_ROWS * sequences)
        recomputed = (starts[:most] - start).cumsum(0)
        count = int((recomputed <= RECOMPUTED * tokens).sum())
        yield places[:count], start
        places, starts = places[count:], starts[count:]
