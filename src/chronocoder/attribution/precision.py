"""What rounding does to an effect."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from chronocoder.attribution.effects import Prompts
from chronocoder.attribution.exact import effects_alone
from chronocoder.config import NONE, AttributionSettings
from chronocoder.devices import FLOAT32
from chronocoder.suites.checkpoints import loading_facts, quantization_of
from chronocoder.suites.precision import in_float32, is_full_precision
from chronocoder.suites.sites import Site

SAMPLED = 2
"""Features of each example whose effects are measured in both precisions."""


def with_precision(site: Site, precision: str) -> Site:
    """Return a site whose products are in a precision; those of weights below float32 stay in theirs."""
    return replace(site, precision=precision if is_full_precision(site.model) else FLOAT32)


def coarsest_setting(site: Site) -> tuple[str, str]:
    """Return the setting that makes effects at a site coarse, with its value, and what to do about it."""
    if (kind := quantization_of(site.model)) != NONE:
        return f"loading.quantization {kind}", f"set loading.quantization to {NONE} and loading.dtype to float32"
    if not is_full_precision(site.model):
        return f"loading.dtype {loading_facts(site.model)['model_dtype']}", "set loading.dtype to float32"
    return f"attribution.precision {site.precision}", "take a higher precision"


@torch.no_grad()
def rounding(site: Site, prompts: Prompts, settings: AttributionSettings) -> Float[Tensor, " batch"]:
    """Return what rounding alone does to an effect on each sequence.

    A null change is measured as any feature is: the same activation, run again from some position on. It shows what the
    order of sums does. In a lower precision, of products or of weights, the effects of the features that write most on
    the example are compared with those in float32 too, since the same error in the products of the same numbers does
    not show in a null change. Where weights are in half precision or quantised, those are the effects in a model whose
    float32 weights have the same values: what became of the weights when they were rounded is no part of it.

    Args:
        site: in the checkpoint's model, with the precision that effects are measured in.
        prompts: with some features.
        settings: batch size.
    """
    batch, length = prompts.token_ids.shape
    change = torch.zeros(batch, length, 1, device=prompts.change.device)
    change[torch.arange(batch), 1 + torch.arange(batch) % max(1, length - 1) if length > 1 else 0] = 1
    nothing = prompts._replace(change=change, weight=prompts.weight.new_zeros(1, prompts.weight.shape[1]), controls=1)
    found = effects_alone(site, nothing, settings)[:, 0].abs()
    if (site.precision == FLOAT32 and is_full_precision(site.model)) or not len(prompts.weight):
        return found
    strongest = _strongest(prompts)
    some = prompts.restricted(strongest.any(dim=0).nonzero()[:, 0])
    some = some._replace(change=some.change * strongest[:, None, strongest.any(dim=0)])
    low = effects_alone(site, some, settings)
    with in_float32(site.model, site.skipped):
        full = effects_alone(replace(site, precision=FLOAT32), some.in_float32(), settings)
    return torch.maximum(found, (low - full).abs().sum(dim=1) / strongest.sum(dim=1).clamp(min=1))


def _strongest(prompts: Prompts) -> Bool[Tensor, "batch feature"]:
    """Return which features write most on each example, of those that change."""
    written = prompts.change.norm(dim=1) * prompts.weight.norm(dim=1)
    chosen = written.topk(min(SAMPLED, written.shape[1]), dim=1).indices
    found: Tensor = torch.zeros_like(written, dtype=torch.bool).scatter(1, chosen, True) & (written > 0)
    return found
