"""The indirect effect (IE) of features (Marks et al. 2403.19647, with error terms).

The site's activation at a checkpoint is x = b + sum_i f_i W_i + epsilon: the error term epsilon is kept, so that the
unchanged model is reproduced exactly. The metric mu is "wrong minus right" (see `chronocoder.tasks.readout`).
An intervention changes feature i by delta_i at every position: to zero (delta_i = -f_i), to its mean over the corpus,
or to what the feature is on another text. IE_i = mu(feature i changed) - mu(clean): with an ablation, positive where
the feature helps the right answer. The error term has an effect of its own, by the change of epsilon.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache

from chronocoder.suites.sites import Site, SiteState
from chronocoder.tasks.readout import Readout


class Prompts(NamedTuple):
    """Sequences of one length, at one checkpoint, and what an intervention does to them.

    An effect is on mu of a sequence: that on an example is the sum over its sequences, which are one prefix or two
    sentences.

    Attributes:
        examples: places of their examples in the task, shape (batch,); what an estimator draws at random depends on
            them alone.
        token_ids: shape (batch, position).
        readout: what the metric makes of their logits.
        state: the clean pass up to the site.
        end: the site's activation when all features and the error term are changed, shape (batch, position, d_model).
        change: what the intervention adds to each of some features, shape (batch, position, feature); zero at the first
            position, whose whole activation stays as it is, since crosscoders are not trained on it.
        weight: how these features write to the site, shape (feature, d_model).
        controls: the last so many of the features are controls: they are changed as the others are, and are no part of
            the site's activation.
        mean_length: tokens of an example, mean over the task.
    """

    examples: Int[Tensor, " batch"]
    token_ids: Int[Tensor, "batch position"]
    readout: Readout
    state: SiteState
    end: Float[Tensor, "batch position d_model"]
    change: Float[Tensor, "batch position feature"]
    weight: Float[Tensor, "feature d_model"]
    controls: int = 0
    mean_length: float = 1.0

    @property
    def own(self) -> slice:
        """The features that are no controls."""
        return slice(len(self.weight) - self.controls)

    def restricted(self, features: Int[Tensor, " feature"]) -> "Prompts":
        """Return the same with some features only."""
        return self._replace(change=self.change[..., features], weight=self.weight[features])

    def in_float32(self) -> "Prompts":
        """Return the same with activations in float32."""
        state = SiteState(self.state.activation.float(), self.state.entry.float())
        return self._replace(state=state, end=self.end.float())

    def of(self, examples: Int[Tensor, " row"]) -> "Prompts":
        """Return prompts for rows of one example each, which may repeat; without what an intervention does."""
        state = SiteState(self.state.activation[examples], self.state.entry[examples])
        return self._replace(
            examples=self.examples[examples],
            token_ids=self.token_ids[examples],
            readout=self.readout.of(examples),
            state=state,
        )


class Effects(NamedTuple):
    """Effects on each sequence, in the unit of the metric.

    Attributes:
        features: of each feature, shape (batch, feature).
        error: of the error term, shape (batch,).
    """

    features: Float[Tensor, "batch feature"]
    error: Float[Tensor, " batch"]


def effects_by_position(
    gradient: Float[Tensor, "batch position d_model"], prompts: Prompts
) -> Float[Tensor, "batch position feature"]:
    """Return the effect of changing each feature at each position, to first order in the gradient."""
    return prompts.change * (gradient @ prompts.weight.T)


def effects_along(gradient: Float[Tensor, "batch position d_model"], prompts: Prompts) -> Effects:
    """Return the effects to first order in the gradient, summed over positions."""
    features = effects_by_position(gradient, prompts).sum(dim=1)
    whole = torch.einsum("bpd,bpd->b", (prompts.end - prompts.state.activation).float(), gradient)
    return Effects(features, whole - features[:, prompts.own].sum(dim=1))


@torch.no_grad()
def clean_and_changed(site: Site, prompts: Prompts) -> Float[Tensor, "2 batch"]:
    """Return the metric as it is, and with all features and the error term changed."""
    return torch.cat([metric(site, prompts, version[None]) for version in (prompts.state.activation, prompts.end)])


def metric(
    site: Site, prompts: Prompts, activations: Float[Tensor, "copy batch position d_model"]
) -> Float[Tensor, "copy batch"]:
    """Return mu for several versions of the site's activation in one pass."""
    return terms(site, prompts, activations).sum(dim=-1)


def terms(
    site: Site, prompts: Prompts, activations: Float[Tensor, "copy batch position d_model"], past: Cache | None = None
) -> Float[Tensor, "copy batch position"]:
    """Return mu by position, of the last positions that the metric reads; `past` as for `logits`."""
    copies, batch = activations.shape[:2]
    rows = torch.arange(batch, device=activations.device).repeat(copies)
    readout = prompts.readout.of(rows)
    found = logits(site, prompts, activations, readout.answer_ids, past)
    return readout.terms(found).view(copies, batch, -1)


def logits(
    site: Site,
    prompts: Prompts,
    activations: Float[Tensor, "copy batch position d_model"],
    token_ids: Int[Tensor, "row token"] | None = None,
    past: Cache | None = None,
) -> Float[Tensor, "row position token"]:
    """Return the logits of the last positions, those that the metric reads, for several versions of the activation.

    Args:
        site: in the checkpoint's model.
        prompts: the sequences.
        activations: the versions; a row is a copy of a sequence, those of one copy one after another.
        token_ids: those of each row whose logits are wanted; None: those of the vocabulary.
        past: an empty one keeps the keys and values of the pass.
    """
    copies = len(activations)
    found = site.resume(
        prompts.token_ids.repeat(copies, 1),
        activations.flatten(0, 1),
        None if site.is_residual else prompts.state.entry.repeat(copies, 1, 1),
        last=prompts.readout.positions,
        answers=token_ids,
        past=past,
    )
    return found.float()


def error_change(prompts: Prompts) -> Float[Tensor, "batch position d_model"]:
    """Return what the intervention adds to the error term."""
    x = prompts.state.activation
    return prompts.end - x - (prompts.change[..., prompts.own] @ prompts.weight[prompts.own]).to(x.dtype)
