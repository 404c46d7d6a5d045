"""The effect of every feature of a crosscoder on one task, at every checkpoint."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr

from chronocoder.attribution.effects import ESTIMATORS, Effects, Prompts, total_change
from chronocoder.attribution.measures import (
    classify,
    course_support,
    mean_interval,
    measurable,
    null_band,
    peak,
    resample_means,
    reverses,
    share,
    share_interval,
)
from chronocoder.attribution.prompts import PromptBatch, joined, read_prompts
from chronocoder.config import AttributionSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import NonFiniteError
from chronocoder.stores import labelled, strings
from chronocoder.suites.sites import Site

IN_LOGITS = "logit"
EFFECTS = ("indirect_effect", "null_band", "error_effect", "total_effect")
_log = logging.getLogger(__name__)


def measure_effects(
    crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset, settings: AttributionSettings
) -> xr.Dataset:
    """Estimate the effect of every feature on every example at every checkpoint.

    Memory holds 4 bytes for each checkpoint, example and feature. Under `accelerate launch` the examples are shared
    out, and every process returns all of them.

    Args:
        crosscoder: folded.
        sites: the site in each checkpoint's model, in the crosscoder's order.
        task: as `tokenise_pairs` returns it; all its examples fit the intervention.
        settings: estimator, intervention, steps and batch size.

    Returns:
        `effects` (checkpoint, example, feature), `error_effects` and `total_effects` (checkpoint, example), in logits;
        `activation_frequency` and `mean_activation` (feature), on the clean prefixes.

    Raises:
        NonFiniteError: an effect is NaN or infinite.
    """
    count, examples = len(sites), task.sizes["example"]
    features = crosscoder.config.settings.dictionary_size
    effects = np.zeros((count, examples, features), dtype=np.float32)
    others = np.zeros((2, count, examples), dtype=np.float32)  # of the error term, and of everything
    active, mass, tokens = np.zeros(features), np.zeros(features), np.zeros(1)
    for batch in read_prompts(crosscoder, sites, task, settings.intervention, settings.batch_size):
        changed = batch.prompts[0].change.any(dim=1).any(dim=0).nonzero()[:, 0]
        for number, (site, prompts) in enumerate(zip(sites, batch.prompts, strict=True)):
            found = _estimate(site, prompts.restricted(changed), settings, crosscoder.config.checkpoints[number])
            effects[number][np.ix_(batch.examples, changed.cpu().numpy())] = found.features.cpu().numpy()
            others[0, number, batch.examples] = found.error.cpu().numpy()
            others[1, number, batch.examples] = total_change(site, prompts).cpu().numpy()
        _count(batch, active, mass, tokens)
    effects, others, active, mass, tokens = (joined(values) for values in (effects, others, active, mass, tokens))
    return xr.Dataset(
        {
            "effects": (("checkpoint", "example", "feature"), effects),
            "error_effects": (("checkpoint", "example"), others[0]),
            "total_effects": (("checkpoint", "example"), others[1]),
            "activation_frequency": ("feature", active / examples),
            "mean_activation": ("feature", mass / tokens),
        },
        coords={"checkpoint": strings(crosscoder.config.checkpoints), "feature": np.arange(features)},
    )


def completeness_gap(measured: xr.Dataset) -> xr.DataArray:
    """Return how far effects miss adding up to the metric's true change.

    Sum over examples of |effects of all features and of the error term - true change|, over the sum of |true change|;
    NaN where nothing changes. For integrated gradients it comes from the finite number of steps; for attribution
    patching from the model's curvature, and for `exact` from features that act together: there it is no error.

    Args:
        measured: what `measure_effects` returns.

    Returns:
        Dims (checkpoint,), dimensionless.
    """
    return gap_of(measured["effects"].sum("feature") + measured["error_effects"], measured["total_effects"])


def gap_of(whole: xr.DataArray, total: xr.DataArray) -> xr.DataArray:
    """Return the sum over examples of |whole - total|, over that of |total|; NaN where that is zero."""
    size = abs(total).sum("example")
    gap: xr.DataArray = abs(whole - total).sum("example") / size.where(size > 0)
    return gap


def summarise_effects(
    measured: xr.Dataset, decoder_norms: np.ndarray, tokens_seen: Mapping[str, int], settings: AttributionSettings
) -> xr.Dataset:
    """Average effects over examples, with shares, intervals, null band and classes.

    Args:
        measured: what `measure_effects` returns.
        decoder_norms: in normalised units, shape (checkpoint, feature).
        tokens_seen: tokens seen by revision.
        settings: number of resamples, confidence and seed.

    Returns:
        Dims (checkpoint, feature); only features that have an effect on some example are resampled.
    """
    effects = measured["effects"]
    gap = completeness_gap(measured)
    _warn_of_gaps(gap, settings)
    norms = xr.DataArray(decoder_norms, dims=("checkpoint", "feature"), coords=effects.isel(example=0).coords)
    used = (effects != 0).any(("checkpoint", "example"))
    uncertainty = _uncertainty(effects.sel(feature=used), settings)
    variables = {
        "indirect_effect": effects.mean("example"),
        "relative_indirect_effect": share(effects.mean("example")),
        "relative_decoder_norm": share(norms),
        "activation_frequency": measured["activation_frequency"],
        "mean_activation": measured["mean_activation"],
        "error_effect": measured["error_effects"].mean("example"),
        "total_effect": measured["total_effects"].mean("example"),
        "completeness_gap": gap,
        **uncertainty.reindex(feature=effects["feature"].values, fill_value=UNUSED),
    }
    revisions = [str(revision) for revision in effects["checkpoint"].values]
    return xr.Dataset(
        {name: _described(values, str(name), settings.confidence) for name, values in variables.items()},
        coords={
            "checkpoint": strings(revisions),
            "tokens_seen": ("checkpoint", [tokens_seen[revision] for revision in revisions]),
            "feature": effects["feature"].values,
        },
    )


LONG_NAMES = {
    "indirect_effect": "indirect effect of changing the feature",
    "indirect_effect_low": "lower end of its {} interval",
    "indirect_effect_high": "upper end of its {} interval",
    "null_band": "size of the indirect effect that {} of random swaps of right and wrong stay below",
    "measurable": "whether the effect lies outside the null band, and its interval on one side of zero",
    "relative_indirect_effect": "share of the absolute indirect effect",
    "relative_indirect_effect_low": "lower end of its {} interval",
    "relative_indirect_effect_high": "upper end of its {} interval",
    "relative_decoder_norm": "share of the decoder norm",
    "activation_frequency": "part of the examples with the feature active",
    "mean_activation": "mean activation over the tokens of the prefixes",
    "feature_class": "course of the feature over training",
    "class_support": "part of the resamples with the most frequent course",
    "onset": "first checkpoint at which it is present",
    "peak": "checkpoint at which its share is largest for certain",
    "kept": "whether it is present at the last checkpoint for certain",
    "reverses": "whether the effect is certainly positive at one checkpoint and certainly negative at another",
    "error_effect": "indirect effect of changing the error term",
    "total_effect": "true effect of changing all features and the error term",
    "completeness_gap": "part of the true change that the effects miss or exceed",
}
UNUSED = {
    "indirect_effect_low": 0.0,
    "indirect_effect_high": 0.0,
    "null_band": 0.0,
    "measurable": False,
    "relative_indirect_effect_low": np.nan,
    "relative_indirect_effect_high": np.nan,
    "feature_class": "no effect",
    "class_support": np.nan,
    "onset": "",
    "peak": "",
    "kept": False,
    "reverses": False,
}
"""What is stored of features without effect on any example."""


def _described(values: xr.DataArray, name: str, confidence: float) -> xr.Variable:
    units = IN_LOGITS if name.removesuffix("_low").removesuffix("_high") in EFFECTS else "1"
    return labelled(tuple(map(str, values.dims)), values.values, LONG_NAMES[name].format(f"{confidence:.0%}"), units)


def _uncertainty(effects: xr.DataArray, settings: AttributionSettings) -> xr.Dataset:
    """Return what random examples and random swaps say of effects (checkpoint, example, feature)."""
    generator = np.random.default_rng(settings.seed)
    effect = effects.mean("example")
    means = resample_means(effects, settings.bootstrap_samples, generator)
    interval, relative = mean_interval(means, settings.confidence), share_interval(means, settings.confidence)
    band = null_band(effects, settings.bootstrap_samples, settings.confidence, generator)
    seen = measurable(effect, interval, band)
    variables = {
        "indirect_effect_low": interval.low,
        "indirect_effect_high": interval.high,
        "null_band": band,
        "measurable": seen,
        "relative_indirect_effect_low": relative.low,
        "relative_indirect_effect_high": relative.high,
        "reverses": reverses(interval),
        **classify(relative, seen),
        "class_support": course_support(share(means)).where(seen.any("checkpoint")),
        "peak": peak(relative).where(seen.any("checkpoint"), ""),
    }
    return xr.Dataset(variables)


def _estimate(site: Site, prompts: Prompts, settings: AttributionSettings, revision: str) -> Effects:
    found = ESTIMATORS[settings.estimator](site, prompts, settings.steps, settings.batch_size)
    if not all(torch.isfinite(values).all() for values in found):
        raise NonFiniteError(
            f"effects at checkpoint {revision} are not finite; the checkpoint is damaged, or gradients overflow"
        )
    return found


def _count(batch: PromptBatch, active: np.ndarray, mass: np.ndarray, tokens: np.ndarray) -> None:
    """Add a batch to the number of examples each feature is active in, its summed activation, and the tokens."""
    active += (batch.codes > 0).any(dim=1).sum(dim=0).cpu().numpy()
    mass += batch.codes.sum(dim=(0, 1), dtype=torch.float64).cpu().numpy()
    tokens += batch.codes[:, 1:, 0].numel()


def _warn_of_gaps(gap: xr.DataArray, settings: AttributionSettings) -> None:
    if settings.estimator != "integrated_gradients":
        return
    for revision in gap["checkpoint"].values[(gap > settings.completeness_tolerance).values]:
        _log.warning(
            "effects at checkpoint %s miss the true change by %.1f %%, more than attribution.completeness_tolerance"
            " %.1f %%; raise attribution.steps above %d",
            revision,
            100 * float(gap.sel(checkpoint=revision)),
            100 * settings.completeness_tolerance,
            settings.steps,
        )
