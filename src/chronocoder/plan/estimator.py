"""Whether exact effects are affordable: what `estimator: auto` decides by."""

from chronocoder.config import AUTO, EXACT, TWO_STAGES, AttributionSettings
from chronocoder.plan.changes import expected_l0
from chronocoder.plan.compute import Measuring, Prompts, exact_flops
from chronocoder.plan.hardware import ACCELERATORS, UTILISATION
from chronocoder.plan.models import CrosscoderShape, ModelShape
from chronocoder.variants.base import CrosscoderSettings


def exact_hours(
    settings: AttributionSettings,
    variant: CrosscoderSettings,
    shape: ModelShape,
    crosscoder: CrosscoderShape,
    prompts: Prompts,
    site: str,
) -> float:
    """Return the hours that exact effects on a suite's tasks take on an accelerator, by expected active latents.

    Args:
        settings: intervention, controls, precision and accelerator.
        variant: of the crosscoder, which tells how many latents are active.
        shape: of the models.
        crosscoder: its sizes.
        prompts: what is read of the suite's pairs, of a mean length.
        site: where the activations are read.
    """
    flops = exact_flops(Measuring(settings, shape, crosscoder, prompts, site, expected_l0(variant)))
    return flops / (
        ACCELERATORS[settings.accelerator].rate(shape.loaded.products(settings.precision)) * UTILISATION * 3600
    )


def chosen_estimator(settings: AttributionSettings, hours: float) -> str:
    """Return the estimator: what the settings ask for, or with `auto` what the hours of exact effects allow."""
    if settings.estimator != AUTO:
        return settings.estimator
    return EXACT if hours <= settings.exact_hours else TWO_STAGES
