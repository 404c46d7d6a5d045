"""The tokens whose logits a feature raises and lowers most directly: through the final norm and the unembedding."""

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd import forward_ad
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import NonFiniteError
from chronocoder.site_names import parse_site
from chronocoder.stores import labelled
from chronocoder.suites.places import first_input
from chronocoder.suites.precision import logits_in_float32, overflow_remedy
from chronocoder.suites.sites import Site, resolve_site
from chronocoder.suites.tokenizers import token_texts

SEQUENCES, TOKENS = 8, 65
"""Validation text whose activations the norm is linearised at: so many sequences, and first tokens of each."""
NUMBERS_AT_ONCE = 1 << 22
"""Entries of the activations that are taken through the norm together."""
FEATURES_AT_ONCE = 128
"""Features whose logits of the whole vocabulary are held together."""
NO_TOKEN = -1
KINDS = {"promoted": "raises", "suppressed": "lowers"}


class _Entered(Exception):  # noqa: N818
    """Ends a forward pass once the unembedding has been reached."""


def output_tokens(
    crosscoder: Crosscoder,
    models: Iterable[PreTrainedModel],
    token_ids: Int[np.ndarray, "sequence position"],
    features: Int[np.ndarray, " feature"],
    tokenizer: PreTrainedTokenizerBase,
    count: int,
) -> dict[str, xr.Variable]:
    """Return the tokens whose logits each feature changes most directly at each checkpoint.

    Only the direct path counts: the decoder row as it is added to the residual stream, the final norm, linearised as
    the mean derivative over some validation tokens, and the unembedding. What the blocks between do with the feature is
    left out, and so is what a model does to its logits later. Changes are relative to their mean over the vocabulary,
    since what is common to all tokens changes no prediction.

    Args:
        crosscoder: folded.
        models: of its checkpoints, in its order; one at a time is held.
        token_ids: validation text.
        features: numbers of the features.
        tokenizer: the suite's; rows of the unembedding behind its vocabulary stand for nothing.
        count: tokens of each kind; at most the whole vocabulary.

    Returns:
        `promoted_token`, `promoted_logit`, `suppressed_token` and `suppressed_logit`, dims (feature, checkpoint, rank),
        logits for each unit of activation. Empty and NaN where the site adds nothing to the stream by itself.

    Raises:
        NonFiniteError: a change is NaN or infinite.
    """
    count = min(count, len(tokenizer))
    shape = (len(KINDS), len(features), len(crosscoder.config.checkpoints), count)
    numbers, logits = np.full(shape, NO_TOKEN), np.full(shape, np.nan, dtype=np.float32)
    if parse_site(crosscoder.config.site).adds_to_stream and len(features):
        text, chosen = _some_text(token_ids), torch.from_numpy(features).to(crosscoder.b_dec.device)
        for place, model in enumerate(models):
            rows = crosscoder.W_dec[place, chosen, : crosscoder.config.widths[place]]
            numbers[:, :, place], logits[:, :, place] = _strongest(model, text, rows, len(tokenizer), count)
            if not np.isfinite(logits[:, :, place]).all():
                revision = crosscoder.config.checkpoints[place]
                raise NonFiniteError(f"logits at checkpoint {revision} are not finite; {overflow_remedy(model)}")
    dims, variables = ("feature", "checkpoint", "rank"), {}
    for place, (kind, verb) in enumerate(KINDS.items()):
        texts = token_texts(numbers[place], tokenizer)
        variables[f"{kind}_token"] = labelled(dims, texts, f"output token whose logit the feature {verb} most directly")
        variables[f"{kind}_logit"] = labelled(
            dims, logits[place], "its change for a unit of activation, beyond the mean over the vocabulary", "logit"
        )
    return variables


def _some_text(token_ids: Int[np.ndarray, "sequence position"]) -> Int[Tensor, "sequence position"]:
    """Return the first tokens of sequences from all over a split."""
    chosen = np.unique(np.linspace(0, len(token_ids) - 1, SEQUENCES).astype(int))
    return torch.from_numpy(token_ids[chosen, :TOKENS].astype(np.int64))


@torch.no_grad()
def _strongest(
    model: PreTrainedModel,
    token_ids: Int[Tensor, "sequence position"],
    directions: Float[Tensor, "feature d_model"],
    vocabulary: int,
    count: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return ids and changes of the logits that rise, and of those that fall, most: both (kind, feature, rank)."""
    final = resolve_site(model, "final")
    stream = final.read(token_ids.to(model.device)).activation[:, 1:]
    numbers, values = [], []
    for some in directions.split(FEATURES_AT_ONCE):
        changes = direct_logits(final, stream, some)[:, :vocabulary]
        changes -= changes.mean(dim=1, keepdim=True)
        strongest = [changes.topk(count, dim=1, largest=largest) for largest in (True, False)]
        numbers.append(torch.stack([of.indices for of in strongest]))
        values.append(torch.stack([of.values for of in strongest]))
    return torch.cat(numbers, dim=1).cpu().numpy(), torch.cat(values, dim=1).cpu().numpy()


@torch.no_grad()
def direct_logits(
    final: Site,
    stream: Float[Tensor, "sequence position d_model"],
    directions: Float[Tensor, "feature d_model"],
) -> Float[Tensor, "feature vocabulary"]:
    """Return how logits change with what is added to the last residual stream: mean derivatives over tokens.

    Args:
        final: the site `final` of a model.
        stream: its activations at which the derivatives are taken.
        directions: what is added.
    """
    step = max(1, NUMBERS_AT_ONCE // stream.numel())
    unit = torch.nn.functional.normalize(directions, dim=-1)  # half precision has no digits for short rows
    normed = torch.cat([_through_norm(final, stream, some.to(stream)) for some in unit.split(step)])
    unembedding = final.model.get_output_embeddings()
    with logits_in_float32(unembedding):
        logits: Tensor = unembedding(torch.cat([normed, torch.zeros_like(normed[:1])]))
    changes: Tensor = (logits[:-1] - logits[-1]) * directions.norm(dim=-1, keepdim=True).to(logits)  # without a bias
    return changes


def _through_norm(
    final: Site, stream: Float[Tensor, "sequence position d_model"], directions: Float[Tensor, "feature d_model"]
) -> Float[Tensor, "feature n"]:
    """Return the mean derivatives of what enters the unembedding along each direction."""
    at = stream.repeat(len(directions), 1, 1)
    along = directions.repeat_interleave(len(stream), dim=0)[:, None].expand_as(at).contiguous()
    with forward_ad.dual_level():
        entering = _entering_unembedding(final, forward_ad.make_dual(at, along))
        derivative = forward_ad.unpack_dual(entering).tangent
    means: Tensor = derivative.float().unflatten(0, (len(directions), len(stream))).mean(dim=(1, 2))
    return means


def _entering_unembedding(final: Site, stream: Float[Tensor, "row position d_model"]) -> Tensor:
    seen: list[Tensor] = []

    def keep(_module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        seen.append(first_input(arguments, keywords))
        raise _Entered

    token_ids = torch.zeros(stream.shape[:2], dtype=torch.long, device=stream.device)
    handle = final.model.get_output_embeddings().register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with suppress(_Entered):
            final.resume(token_ids, stream, last=None)
    finally:
        handle.remove()
    return seen[0]
