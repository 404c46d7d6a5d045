"""The effect of every feature of a crosscoder on every example of a task, at every checkpoint."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from chronocoder.attribution.choices import Exactly, choose_exact, decided
from chronocoder.attribution.controls import RandomDirections, draw_directions, shuffle_tokens
from chronocoder.attribution.effects import clean_and_changed
from chronocoder.attribution.estimators import ESTIMATORS
from chronocoder.attribution.exact import effects_alone
from chronocoder.attribution.precision import coarsest_setting, rounding, with_precision
from chronocoder.attribution.prompts import Place, PromptBatch, add_to_examples, bounded, joined, read_prompts
from chronocoder.config import EXACT, SCREEN, TWO_STAGES, AttributionSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import ConfigError, NonFiniteError
from chronocoder.plan.compute import Prompts as PlannedPrompts
from chronocoder.plan.measured import texts_of
from chronocoder.stores import strings
from chronocoder.suites.precision import overflow_remedy
from chronocoder.suites.sites import Site
from chronocoder.tasks.rows import rows_of


def measure_effects(
    crosscoder: Crosscoder,
    sites: Sequence[Site],
    task: xr.Dataset,
    settings: AttributionSettings,
    suite_pairs: int | None = None,
) -> xr.Dataset:
    """Estimate or measure the effect of every feature, and of random directions, on every example and checkpoint.

    Memory holds 4 bytes for each checkpoint, example and feature. Under `accelerate launch` the examples are shared
    out, and every process returns all of them.

    Args:
        crosscoder: folded.
        sites: the site in each checkpoint's model, in the crosscoder's order.
        task: as `prepare_task` returns it for the settings.
        settings: estimator, intervention, precision, batch size and controls.
        suite_pairs: pairs of all tasks of the suite, by which `auto` chooses; by default the task's.

    Returns:
        `effects` (checkpoint, example, feature), `control_effects` (control, checkpoint, example, control_feature),
        `clean_metric`, `error_effects` and `total_effects` (checkpoint, example), in the unit of the task's metric;
        `rounding` (checkpoint, example), what rounding alone does to mu; `changes` (example, feature), how much the
        intervention changes each feature's activation, added up over positions; `estimator` (feature), by which its
        effects were found; `estimates` (checkpoint, example, checked_feature), those of features chosen at random whose
        effects are exact; `control_features` (control, control_feature); `activation_frequency` and `mean_activation`
        (feature), on the clean prefixes.

    Raises:
        NonFiniteError: an effect is NaN or infinite.
        ConfigError: rounding does more than the smallest effect of interest.
    """
    planned = PlannedPrompts.of(suite_pairs or task.sizes["example"], texts_of(task))
    settings = decided(settings, crosscoder.config, sites[0].model.config, planned)
    settings = bounded(settings, task, sites)
    sites = [with_precision(site, settings.precision) for site in sites]
    directions = draw_directions(crosscoder, settings)
    found = _empty(crosscoder, task, directions)
    for batch in read_prompts(crosscoder, sites, task, settings.intervention, settings.batch_size):
        np.add.at(found["changes"].values, batch.rows.examples, batch.prompts[0].change.abs().sum(dim=1).cpu().numpy())
        for number, (site, everything) in enumerate(zip(sites, batch.prompts, strict=True)):
            _measure_batch(Place(site, everything, batch.rows, number, settings), directions, found)
        _check_rounding(found["rounding"], sites, settings)
        _count(batch, found)
    chosen = choose_exact(joined(found["effects"].values), settings)
    found = _measure_chosen(crosscoder, sites, task, settings, found, chosen)
    whole = found.map(lambda values: values.copy(data=joined(values.values)))
    _check_rounding(whole["rounding"], sites, settings)
    for name, values in whole.data_vars.items():
        for number, revision in enumerate(crosscoder.config.checkpoints if "checkpoint" in values.dims else ()):
            if not np.isfinite(values.isel(checkpoint=number)).all():
                raise NonFiniteError(
                    f"{name} at checkpoint {revision} are not finite; {overflow_remedy(sites[number].model)}"
                )
    return whole.drop_vars(["active", "mass", "tokens"]).assign(
        control_features=(("control", "control_feature"), directions.features),
        estimator=("feature", strings(_estimator_of(whole["feature"].values, settings, chosen))),
        activation_frequency=whole["active"] / len(rows_of(task).lengths),
        mean_activation=whole["mass"] / whole["tokens"],
    )


def measure_shuffled(
    crosscoder: Crosscoder,
    sites: Sequence[Site],
    task: xr.Dataset,
    settings: AttributionSettings,
    suite_pairs: int | None = None,
) -> xr.Dataset | None:
    """Return the same of prefixes whose tokens are shuffled, without random directions; None unless it is wanted."""
    if not settings.shuffled_tokens:
        return None
    alone = settings.model_copy(update={"random_directions": 0})
    return measure_effects(crosscoder, sites, shuffle_tokens(task, settings.seed), alone, suite_pairs)


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
    whole, total = measured["effects"].sum("feature") + measured["error_effects"], measured["total_effects"]
    size = abs(total).sum("example")
    gap: xr.DataArray = abs(whole - total).sum("example") / size.where(size > 0)
    return gap


def _measure_batch(place: Place, directions: RandomDirections, found: xr.Dataset) -> None:
    """Find the effects of features, random directions, error term and everything; random directions exactly, if any."""
    site, everything, rows, number, settings, _ = place
    changed = everything.change.any(dim=(0, 1)).nonzero()[:, 0]
    prompts, screening = everything.restricted(changed), settings.estimator == TWO_STAGES
    if not screening:
        prompts = directions.added_to(prompts, everything, number)
    effects = ESTIMATORS[SCREEN if screening else settings.estimator](site, prompts, settings)
    features, controls = effects.features.split([len(changed), prompts.controls], dim=1)
    if screening:
        controls = effects_alone(site, directions.alone(everything, number), settings)
    add_to_examples(found["effects"].values[number], rows, features, changed)
    of_draws = controls.unflatten(1, directions.features.shape)
    add_to_examples(found["control_effects"].values[:, number].swapaxes(0, 1), rows, of_draws)
    add_to_examples(found["error_effects"].values[number], rows, effects.error)
    clean, changed_all = clean_and_changed(site, everything)
    add_to_examples(found["clean_metric"].values[number], rows, clean)
    add_to_examples(found["total_effects"].values[number], rows, changed_all - clean)
    add_to_examples(found["rounding"].values[number], rows, rounding(site, everything, settings))


def _measure_chosen(
    crosscoder: Crosscoder,
    sites: Sequence[Site],
    task: xr.Dataset,
    settings: AttributionSettings,
    screened: xr.Dataset,
    chosen: Exactly,
) -> xr.Dataset:
    """Return what was found with the effects of chosen features replaced by exact ones, and `estimates` of some."""
    estimates = screened["effects"].sel(feature=chosen.checked).rename(feature="checked_feature")
    found = screened.assign(estimates=estimates.copy(deep=True))
    if not len(chosen.features):
        return found
    found["effects"].values[..., chosen.features] = 0
    for batch in read_prompts(crosscoder, sites, task, settings.intervention, settings.batch_size):
        for number, (site, everything) in enumerate(zip(sites, batch.prompts, strict=True)):
            features = torch.from_numpy(chosen.features).to(everything.change.device)
            effects = effects_alone(site, everything.restricted(features), settings)
            add_to_examples(found["effects"].values[number], batch.rows, effects, features)
    return found


def _estimator_of(features: np.ndarray, settings: AttributionSettings, chosen: Exactly) -> np.ndarray:
    """Return the estimator that the effects of each feature come from."""
    if settings.estimator != TWO_STAGES:
        return np.full(len(features), settings.estimator)
    return np.where(np.isin(features, chosen.features), EXACT, SCREEN)


def _check_rounding(found: xr.DataArray, sites: Sequence[Site], settings: AttributionSettings) -> None:
    """Check that rounding does less than the smallest effect of interest, if there is one, on average over examples.

    Examples that were not measured yet count as zero: what is too large already remains so.
    """
    for floor, site in zip(found.mean("example"), sites, strict=True):
        if float(floor) > settings.smallest_effect > 0:
            setting, remedy = coarsest_setting(site)
            raise ConfigError(
                f"{setting}: at checkpoint {floor['checkpoint'].item()} rounding"
                f" changes an effect by {float(floor):.2g}, more than attribution.smallest_effect"
                f" {settings.smallest_effect:g}; {remedy}, or a larger smallest_effect"
            )


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
        "rounding": (("checkpoint", "example"), narrow),
        "active": (("feature",), wide),
        "mass": (("feature",), wide),
        "tokens": ((), wide),
    }
    return xr.Dataset(
        {name: (of, np.zeros([len(sizes[dim]) for dim in of], dtype=dtype)) for name, (of, dtype) in dims.items()},
        coords=sizes,
    )


def _count(batch: PromptBatch, found: xr.Dataset) -> None:
    """Add a batch to the number of texts each feature is active in, its summed activation, and the tokens."""
    found["active"].values += (batch.codes > 0).any(dim=1).sum(dim=0).cpu().numpy()
    found["mass"].values += batch.codes.sum(dim=(0, 1), dtype=torch.float64).cpu().numpy()
    found["tokens"].values += batch.codes[:, 1:, 0].numel()
