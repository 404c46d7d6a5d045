"""Estimators of the indirect effect (IE) of features (Marks et al. 2403.19647, with error terms).

The site's activation at a checkpoint is x = b + sum_i f_i W_i + epsilon: the error term epsilon is kept, so that the
unchanged model is reproduced exactly. The metric is mu = logit(wrong) - logit(right) at the last token of the prefix.
An intervention changes feature i by delta_i at every position: to zero (delta_i = -f_i), or to what the feature is on a
counterfactual prefix. IE_i = mu(feature i changed) - mu(clean): with an ablation, positive where the feature helps the
right answer. The error term has an effect of its own, by the change of epsilon.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from chronocoder.suites.sites import Site, SiteState


class Prompts(NamedTuple):
    """Examples with prefixes of one length, at one checkpoint, and what an intervention does to them.

    Attributes:
        token_ids: shape (batch, position).
        answer_ids: wrong and right answer token, shape (batch, 2).
        state: the clean pass up to the site.
        end: the site's activation when all features and the error term are changed, shape (batch, position, d_model).
        change: what the intervention adds to each of some features, shape (batch, position, feature); zero at the first
            position, whose whole activation stays as it is, since crosscoders are not trained on it.
        weight: how these features write to the site, shape (feature, d_model).
        controls: the last so many of the features are controls: they are changed as the others are, and are no part of
            the site's activation.
    """

    token_ids: Int[Tensor, "batch position"]
    answer_ids: Int[Tensor, "batch 2"]
    state: SiteState
    end: Float[Tensor, "batch position d_model"]
    change: Float[Tensor, "batch position feature"]
    weight: Float[Tensor, "feature d_model"]
    controls: int = 0

    @property
    def own(self) -> slice:
        """The features that are no controls."""
        return slice(len(self.weight) - self.controls)

    def restricted(self, features: Int[Tensor, " feature"]) -> "Prompts":
        """Return the same with some features only."""
        return self._replace(change=self.change[..., features], weight=self.weight[features])

    def of(self, examples: Int[Tensor, " row"]) -> "Prompts":
        """Return prompts for rows of one example each, which may repeat; without what an intervention does."""
        state = SiteState(self.state.activation[examples], self.state.entry[examples])
        return self._replace(token_ids=self.token_ids[examples], answer_ids=self.answer_ids[examples], state=state)


class Effects(NamedTuple):
    """Effects on each example, in logits.

    Attributes:
        features: of each feature, shape (batch, feature).
        error: of the error term, shape (batch,).
    """

    features: Float[Tensor, "batch feature"]
    error: Float[Tensor, " batch"]


Gradient = Callable[[Site, Prompts, int, int], Float[Tensor, "batch position d_model"]]
Estimator = Callable[[Site, Prompts, int, int], Effects]


def clean_gradient(
    site: Site, prompts: Prompts, steps: int = 1, sequences: int = 64
) -> Float[Tensor, "batch position d_model"]:
    """Return the gradient of the metric at the clean activation."""
    return _gradient(site, prompts, prompts.state.activation[None])


def path_gradient(
    site: Site, prompts: Prompts, steps: int = 10, sequences: int = 64
) -> Float[Tensor, "batch position d_model"]:
    """Return the mean gradient of the metric on the way from the clean activation to the end of the intervention.

    The way is straight, x + alpha (end - x), so features and error term change together; alpha takes the midpoints of
    `steps` equal intervals. At most `sequences` sequences go through the model at once.
    """
    x = prompts.state.activation
    alphas = (torch.arange(steps, device=x.device, dtype=x.dtype) + 0.5) / steps
    total = torch.zeros_like(x, dtype=torch.float32)
    for part in alphas.split(_copies(prompts, sequences)):
        total += _gradient(site, prompts, x + part[:, None, None, None] * (prompts.end - x))
    return total / steps


def attribution_patching(site: Site, prompts: Prompts, steps: int = 1, sequences: int = 64) -> Effects:
    """Estimate effects by one gradient at the clean point: IE_i = sum over positions of delta_i (W_i . gradient)."""
    return effects_along(clean_gradient(site, prompts), prompts)


def integrated_gradients(site: Site, prompts: Prompts, steps: int = 10, sequences: int = 64) -> Effects:
    """Estimate effects by the mean gradient along the joint path (Sundararajan et al. 1703.01365; Marks et al.).

    Complete: with steps enough, all effects and that of the error term add up to the metric's change along the path.
    The single effect is therefore a share of that change: what the feature contributes while all others change with it.
    Where features act together after the site, by attention or a non-linearity, this differs from changing the
    feature alone, which `exact` does: two features of which one suffices share an effect here and have none there.
    """
    return effects_along(path_gradient(site, prompts, steps, sequences), prompts)


@torch.no_grad()
def exact(site: Site, prompts: Prompts, steps: int = 1, sequences: int = 64) -> Effects:
    """Measure effects by changing each feature alone, where the intervention changes it; the estimators' reference."""
    x = prompts.state.activation
    clean, without_error = metric(site, prompts, torch.stack([x, x + _error_change(prompts)]))
    features = x.new_zeros(len(x), len(prompts.weight), dtype=torch.float32)
    for examples, changed, activation in changed_alone(prompts, sequences):
        effect = metric(site, prompts.of(examples), activation[None])[0] - clean[examples]
        features[examples, changed] = effect
    return Effects(features, without_error - clean)


GRADIENTS: dict[str, Gradient] = {
    "attribution_patching": clean_gradient,
    "integrated_gradients": path_gradient,
}
ESTIMATORS: dict[str, Estimator] = {
    "attribution_patching": attribution_patching,
    "integrated_gradients": integrated_gradients,
    "exact": exact,
}


def changed_alone(
    prompts: Prompts, sequences: int
) -> Iterator[tuple[Int[Tensor, " row"], Int[Tensor, " row"], Float[Tensor, "row position d_model"]]]:
    """Yield examples, features, and the example's activation with that feature changed alone, wherever it changes."""
    x = prompts.state.activation
    for rows in prompts.change.any(dim=1).nonzero().split(sequences):
        examples, features = rows.T
        if len(rows):
            change = prompts.change[examples, :, features][..., None] * prompts.weight[features][:, None, :]
            yield examples, features, x[examples] + change.to(x.dtype)


def changed_at_positions(
    prompts: Prompts, sequences: int
) -> Iterator[tuple[Int[Tensor, "row 3"], Float[Tensor, "row position d_model"]]]:
    """Yield (example, position, feature), and the activation with that feature changed at that position alone."""
    x = prompts.state.activation
    for rows in prompts.change.nonzero().split(sequences):
        examples, positions, features = rows.T
        if len(rows):
            activation = x[examples]
            change = prompts.change[examples, positions, features][:, None] * prompts.weight[features]
            activation[torch.arange(len(rows), device=x.device), positions] += change.to(x.dtype)
            yield rows, activation


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
    return metric(site, prompts, torch.stack([prompts.state.activation, prompts.end]))


def metric(
    site: Site, prompts: Prompts, activations: Float[Tensor, "copy batch position d_model"]
) -> Float[Tensor, "copy batch"]:
    """Return mu, in logits, for several versions of the site's activation in one pass."""
    return difference(logits(site, prompts, activations, prompts.answer_ids))


def difference(answer_logits: Float[Tensor, "copy batch 2"]) -> Float[Tensor, "copy batch"]:
    """Return logit(wrong) - logit(right)."""
    return answer_logits[..., 0] - answer_logits[..., 1]


def logits(
    site: Site,
    prompts: Prompts,
    activations: Float[Tensor, "copy batch position d_model"],
    token_ids: Int[Tensor, "batch token"] | None = None,
) -> Float[Tensor, "copy batch token"]:
    """Return the last token's logits of some tokens, or of the vocabulary, for several versions of the activation."""
    copies, batch = activations.shape[:2]
    found = site.resume(
        prompts.token_ids.repeat(copies, 1),
        activations.flatten(0, 1),
        None if site.is_residual else prompts.state.entry.repeat(copies, 1, 1),
        answers=None if token_ids is None else token_ids.repeat(copies, 1),
    )
    return found[:, -1].float().view(copies, batch, -1)


def _gradient(
    site: Site, prompts: Prompts, activations: Float[Tensor, "copy batch position d_model"]
) -> Float[Tensor, "batch position d_model"]:
    """Return the gradient of the metric at several versions of the activation, summed over them."""
    leaf = activations.detach().requires_grad_()
    gradient: Tensor = torch.autograd.grad(metric(site, prompts, leaf).sum(), leaf)[0]
    return gradient.float().sum(dim=0)


def _error_change(prompts: Prompts) -> Float[Tensor, "batch position d_model"]:
    x = prompts.state.activation
    return prompts.end - x - (prompts.change[..., prompts.own] @ prompts.weight[prompts.own]).to(x.dtype)


def _copies(prompts: Prompts, sequences: int) -> int:
    return max(1, sequences // len(prompts.token_ids))
