"""The effect of every feature of a crosscoder on every example of a task, at every checkpoint."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from chronocoder.attribution.controls import RandomDirections, draw_directions, shuffle_tokens
from chronocoder.attribution.effects import ESTIMATORS, Effects, Prompts, clean_and_changed
from chronocoder.attribution.prompts import PromptBatch, joined, read_prompts
from chronocoder.config import AttributionSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import NonFiniteError
from chronocoder.stores import strings
from chronocoder.suites.sites import Site


def measure_effects(
    crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset, settings: AttributionSettings
) -> xr.Dataset:
    """Estimate the effect of every feature, and of random directions, on every example at every checkpoint.

    Memory holds 4 bytes for each checkpoint, example and feature. Under `accelerate launch` the examples are shared
    out, and every process returns all of them.

    Args:
        crosscoder: folded.
        sites: the site in each checkpoint's model, in the crosscoder's order.
        task: as `tokenise_pairs` returns it; all its examples fit the intervention.
        settings: estimator, intervention, steps, batch size and controls.

    Returns:
        `effects` (checkpoint, example, feature), `control_effects` (control, checkpoint, example, control_feature),
        `clean_metric`, `error_effects` and `total_effects` (checkpoint, example), in logits; `changes` (example,
        feature), how much the intervention changes each feature's activation, added up over positions;
        `control_features` (control, control_feature); `activation_frequency` and `mean_activation` (feature), on the
        clean prefixes.

    Raises:
        NonFiniteError: an effect is NaN or infinite.
    """
    directions = draw_directions(crosscoder, settings)
    found = _empty(crosscoder, task, directions)
    for batch in read_prompts(crosscoder, sites, task, settings.intervention, settings.batch_size):
        changes = batch.prompts[0].change.abs().sum(dim=1)
        found["changes"].values[batch.examples] = changes.cpu().numpy()
        changed = changes.any(dim=0).nonzero()[:, 0]
        for number, (site, everything) in enumerate(zip(sites, batch.prompts, strict=True)):
            prompts = directions.added_to(everything.restricted(changed), everything, number)
            effects = _estimate(site, prompts, settings, crosscoder.config.checkpoints[number])
            features, controls = effects.features.cpu().split([len(changed), prompts.controls], dim=1)
            found["effects"].values[number][np.ix_(batch.examples, changed.cpu().numpy())] = features.numpy()
            of_draws = controls.unflatten(1, directions.features.shape).transpose(0, 1).numpy()
            found["control_effects"].values[:, number, batch.examples] = of_draws
            found["error_effects"].values[number, batch.examples] = effects.error.cpu().numpy()
            clean, changed_all = clean_and_changed(site, everything).cpu().numpy()
            found["clean_metric"].values[number, batch.examples] = clean
            found["total_effects"].values[number, batch.examples] = changed_all - clean
        _count(batch, found)
    whole = found.map(lambda values: values.copy(data=joined(values.values)))
    return whole.drop_vars(["active", "mass", "tokens"]).assign(
        control_features=(("control", "control_feature"), directions.features),
        activation_frequency=whole["active"] / task.sizes["example"],
        mean_activation=whole["mass"] / whole["tokens"],
    )


def measure_shuffled(
    crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset, settings: AttributionSettings
) -> xr.Dataset | None:
    """Return the same of prefixes whose tokens are shuffled, without random directions; None unless it is wanted."""
    if not settings.shuffled_tokens:
        return None
    alone = settings.model_copy(update={"random_directions": 0})
    return measure_effects(crosscoder, sites, shuffle_tokens(task, settings.seed), alone)


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


def _estimate(site: Site, prompts: Prompts, settings: AttributionSettings, revision: str) -> Effects:
    found = ESTIMATORS[settings.estimator](site, prompts, settings.steps, settings.batch_size)
    if not all(torch.isfinite(values).all() for values in found):
        raise NonFiniteError(
            f"effects at checkpoint {revision} are not finite; the checkpoint is damaged, or gradients overflow"
        )
    return found


def _empty(crosscoder: Crosscoder, task: xr.Dataset, directions: RandomDirections) -> xr.Dataset:
    """Return arrays of zeros for what is measured."""
    sizes = {
        "checkpoint": strings(crosscoder.config.checkpoints),
        "example": task["example"].values,
        "feature": np.arange(crosscoder.config.settings.dictionary_size),
        "control": strings(directions.names),
        "control_feature": np.arange(directions.features.shape[1]),
    }
    narrow, wide = np.float32, np.float64
    dims = {
        "effects": (("checkpoint", "example", "feature"), narrow),
        "control_effects": (("control", "checkpoint", "example", "control_feature"), narrow),
        "changes": (("example", "feature"), narrow),
        "clean_metric": (("checkpoint", "example"), narrow),
        "error_effects": (("checkpoint", "example"), narrow),
        "total_effects": (("checkpoint", "example"), narrow),
        "active": (("feature",), wide),
        "mass": (("feature",), wide),
        "tokens": ((), wide),
    }
    return xr.Dataset(
        {name: (of, np.zeros([len(sizes[dim]) for dim in of], dtype=dtype)) for name, (of, dtype) in dims.items()},
        coords=sizes,
    )


def _count(batch: PromptBatch, found: xr.Dataset) -> None:
    """Add a batch to the number of examples each feature is active in, its summed activation, and the tokens."""
    found["active"].values += (batch.codes > 0).any(dim=1).sum(dim=0).cpu().numpy()
    found["mass"].values += batch.codes.sum(dim=(0, 1), dtype=torch.float64).cpu().numpy()
    found["tokens"].values += batch.codes[:, 1:, 0].numel()
