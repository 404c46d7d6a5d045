"""Estimators of the indirect effect of features: gradients of the metric, and what they stand in for."""

from collections.abc import Callable

import torch

from chronocoder.attribution.effects import Effects, Prompts, effects_along, effects_by_position
from chronocoder.attribution.exact import exact
from chronocoder.attribution.gradients import clean_gradient, left_ends, midpoints, path_gradient
from chronocoder.attribution.grouped import grouped_gradients
from chronocoder.config import AttributionSettings
from chronocoder.suites.sites import Site

Estimator = Callable[[Site, Prompts, AttributionSettings], Effects]
PATHS = {"from_clean": left_ends, "midpoints": midpoints}


def attribution_patching(site: Site, prompts: Prompts, settings: AttributionSettings) -> Effects:
    """Estimate effects by one gradient at the clean point: IE_i = sum over positions of delta_i (W_i . gradient)."""
    return effects_along(clean_gradient(site, prompts), prompts)


def published(site: Site, prompts: Prompts, settings: AttributionSettings) -> Effects:
    """Estimate effects by the mean gradient along the joint path (Sundararajan et al. 1703.01365; Marks et al.).

    All features and the error term change together. With midpoints, no threshold and sums over tokens this is complete:
    with steps enough, all effects and that of the error term add up to the metric's change along the path. The single
    effect is therefore a share of that change: what the feature contributes while all others change with it. Where
    features act together after the site, by attention or a non-linearity, this differs from changing the feature alone,
    which `exact` does: two features of which one suffices share an effect here and have none there.

    The defaults of the settings are the choices of arXiv 2509.05291: points 0, 1 / steps, ..., the effects of single
    tokens of at most `token_threshold` dropped, and the mean over all tokens of the task, which is a mean over examples
    if an example's sum is divided by the mean length of the prefixes.
    """
    path = PATHS[settings.path_points](settings.steps)
    change = prompts.end - prompts.state.activation
    gradient = path_gradient(site, prompts, change, path, settings.batch_size)
    tokens = effects_by_position(gradient, prompts)
    error = torch.einsum("bpd,bpd->bp", change.float(), gradient) - tokens[..., prompts.own].sum(dim=2)
    length = prompts.mean_length if settings.over_tokens == "mean" else 1.0
    if settings.token_threshold:
        for values in (tokens, error):
            values.masked_fill_(values.abs() <= settings.token_threshold, 0.0)
    return Effects(tokens.sum(dim=1) / length, error.sum(dim=1) / length)


ESTIMATORS: dict[str, Estimator] = {
    "attribution_patching": attribution_patching,
    "grouped_gradients": grouped_gradients,
    "published": published,
    "exact": exact,
}
