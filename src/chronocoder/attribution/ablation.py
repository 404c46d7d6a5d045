"""Exact interventions on the features that matter most: the check on every estimate."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from chronocoder.attribution.agreement import pearson, spearman
from chronocoder.attribution.attribute import gap_of
from chronocoder.attribution.choices import (
    Chosen,
    FeatureSets,
    active_features,
    choose_features,
    choose_sets,
    ranked_features,
)
from chronocoder.attribution.effects import (
    GRADIENTS,
    Prompts,
    changed_alone,
    changed_at_positions,
    clean_and_changed,
    difference,
    effects_along,
    effects_by_position,
    logits,
    metric,
)
from chronocoder.attribution.measures import mean_interval, share
from chronocoder.attribution.prompts import joined, read_prompts
from chronocoder.attribution.sampling import Units, average, bootstrap_draws, resampled_means, unit_sums, units_of
from chronocoder.config import AblationSettings, AttributionSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import NonFiniteError
from chronocoder.stores import labelled, strings
from chronocoder.suites.sites import Site

EXACT = "exact"
PATH = "integrated_gradients"
ESTIMATORS = [*GRADIENTS, EXACT]
RELDEC = "relative_decoder_norm"
TOP, CONTROL = "top", "control"
WORDS = ["token", "role", "right", "wrong", "condition"]


class Outcome(NamedTuple):
    """What a model says after an intervention, for several versions of the activation.

    Attributes:
        metric: logit(wrong) - logit(right), shape (copy, batch).
        log_probability: of the right answer, in nats, shape (copy, batch).
    """

    metric: Float[Tensor, "copy batch"]
    log_probability: Float[Tensor, "copy batch"]


def measure_ablations(
    crosscoder: Crosscoder,
    sites: Sequence[Site],
    task: xr.Dataset,
    attribution: xr.Dataset,
    settings: AttributionSettings,
    ablation: AblationSettings,
) -> xr.Dataset:
    """Change the features that matter exactly, alone and in sets, beside what the estimators say of them.

    Under `accelerate launch` the examples are shared out, and every process returns all of them.

    Args:
        crosscoder: folded.
        sites: the site in each checkpoint's model, in the crosscoder's order.
        task: as for `measure_effects`.
        attribution: the effects on this task, by which the features are chosen.
        settings: those that the attribution was made with.
        ablation: which features, and which sets.

    Returns:
        `effects` (estimator, checkpoint, example, feature); `clean_metric`, `path_effects` (all effects by integrated
        gradients, added up) and `total_effects` (checkpoint, example);
        `log_probability_changes` (checkpoint, example, feature), `set_effects` (checkpoint, set_size, draw, example)
        with the top features as draw 0, `position_effects` (checkpoint, top_feature, example, position).

    Raises:
        NonFiniteError: one of them is NaN or infinite.
    """
    chosen = choose_features(attribution, ablation, settings.seed)
    sets = choose_sets(attribution, ablation, settings.seed)
    found = _empty(crosscoder, task, chosen, ablation)
    for batch in read_prompts(crosscoder, sites, task, settings.intervention, settings.batch_size):
        for number, (site, prompts) in enumerate(zip(sites, batch.prompts, strict=True)):
            place = _Place(site, prompts, batch.examples, number, settings)
            clean = _outcome(site, prompts, prompts.state.activation[None])
            found["clean_metric"].values[number, batch.examples] = clean.metric[0].cpu().numpy()
            _measure_alone(place, chosen, clean, found)
            _measure_sets(place, sets[number], clean, found)
    whole = found.map(lambda values: values.copy(data=joined(values.values)))
    for name, values in whole.data_vars.items():
        if not np.isfinite(values).all():
            raise NonFiniteError(f"{name} of the ablations are not finite; a checkpoint is damaged, or it overflows")
    return whole


def summarise_ablations(
    measured: xr.Dataset,
    task: xr.Dataset,
    attribution: xr.Dataset,
    settings: AttributionSettings,
) -> xr.Dataset:
    """Average ablations over examples, and compare each estimate with the exact effect.

    Args:
        measured: what `measure_ablations` returns.
        task: the task, for the words at which features act.
        attribution: the effects on this task.
        settings: those that the attribution was made with.

    Returns:
        The store `ablation/<task>.zarr`.
    """
    units = units_of(task)
    draws = bootstrap_draws(units, settings.bootstrap_samples, np.random.default_rng(settings.seed))
    effects = _averaged("indirect_effect", measured["effects"], units, draws, settings)
    exact = {f"condition_{name}": values[1:].sel(estimator=EXACT, drop=True) for name, values in effects.items()}
    of_roles = _averaged("role_effect", _role_effects(measured, task), units, draws, settings)
    effect = effects["indirect_effect"].isel(condition=0, drop=True)
    of_chosen = attribution.sel(feature=measured["feature"])
    top = of_chosen["feature"].isin(measured["top_feature"])
    after = measured["clean_metric"] + measured["effects"].sel(estimator=EXACT, drop=True)
    variables = {
        "role": xr.DataArray(np.where(top, TOP, CONTROL), dims="feature"),
        **{name: values.isel(condition=0, drop=True) for name, values in effects.items()},
        **exact,
        **{name: values[1:] for name, values in of_roles.items()},
        "accuracy": (after < 0).mean("example"),
        "logit_difference": -after.mean("example"),
        "log_probability_change": measured["log_probability_changes"].mean("example"),
        "clean_accuracy": (measured["clean_metric"] < 0).mean("example"),
        "clean_logit_difference": -measured["clean_metric"].mean("example"),
        "completeness_gap": gap_of(measured["path_effects"], measured["total_effects"]),
        **_agreement(effect, of_chosen, top),
        **_curves(measured, attribution, units),
        "position_effect": measured["position_effects"].where(task["position"] < task["length"]),
    }
    described = {name: _described(values, name, settings) for name, values in variables.items()}
    words = task[WORDS].rename(condition="example_condition", role="token_role")
    summary = xr.Dataset(variables).drop_attrs().assign(described).merge(words, join="exact")
    return summary.assign_coords(tokens_seen=attribution["tokens_seen"])


def _averaged(
    name: str, effects: xr.DataArray, units: Units, draws: np.ndarray, settings: AttributionSettings
) -> dict[str, xr.DataArray]:
    """Return mean effects and both ends of their interval; the mean of conditions first, then each condition."""
    sums = unit_sums(effects, units)
    interval = mean_interval(resampled_means(draws, sums, units), settings.confidence)
    return {name: average(sums, units), f"{name}_low": interval.low, f"{name}_high": interval.high}


def _role_effects(measured: xr.Dataset, task: xr.Dataset) -> xr.DataArray:
    """Return the effects of top features by the role of the tokens after the first, in the order in which they occur.

    Returns:
        Dims (position_role, checkpoint, top_feature, example).
    """
    roles = task["role"].transpose("example", "position").values
    names = [name for name in dict.fromkeys(roles[:, 1:].ravel().tolist()) if name]
    effects = [measured["position_effects"].where(task["role"] == name, 0.0).sum("position") for name in names]
    return xr.concat(effects, "position_role").assign_coords(position_role=strings(names))


class _Place(NamedTuple):
    """A batch at one checkpoint.

    Attributes:
        site: in the checkpoint's model.
        prompts: with the change and the decoder rows of all features.
        examples: places of the batch's examples in the task.
        number: of the checkpoint.
        settings: of the attribution.
    """

    site: Site
    prompts: Prompts
    examples: np.ndarray
    number: int
    settings: AttributionSettings


@torch.no_grad()
def _measure_alone(place: _Place, chosen: Chosen, clean: Outcome, found: xr.Dataset) -> None:
    """Measure what each of the chosen features does alone, by every estimator."""
    site, everything, examples, number, settings = place
    prompts = everything.restricted(_index(chosen.features, everything))
    effects = found["effects"].values[:, number]
    for name, gradient_of in GRADIENTS.items():
        with torch.enable_grad():
            gradient = gradient_of(site, prompts, settings.steps, settings.batch_size)
        estimate = effects_along(gradient, prompts)
        effects[ESTIMATORS.index(name), examples] = estimate.features.cpu().numpy()
        if name == PATH:
            found["path_effects"].values[number, examples] = (estimate.features.sum(1) + estimate.error).cpu().numpy()
            total = clean_and_changed(site, prompts).diff(dim=0)[0]
            found["total_effects"].values[number, examples] = total.cpu().numpy()
        if name == settings.estimator:
            top = _index(np.flatnonzero(np.isin(chosen.features, chosen.top)), everything)
            by_position = effects_by_position(gradient, prompts)[..., top].permute(2, 0, 1).cpu().numpy()
            found["position_effects"].values[number][:, examples, : by_position.shape[2]] = by_position
    for rows, features, activation in changed_alone(prompts, settings.batch_size):
        outcome = _outcome(site, prompts.of(rows), activation[None])
        at = examples[rows.cpu().numpy()], features.cpu().numpy()
        effects[ESTIMATORS.index(EXACT)][at] = (outcome.metric[0] - clean.metric[0, rows]).cpu().numpy()
        change = outcome.log_probability[0] - clean.log_probability[0, rows]
        found["log_probability_changes"].values[number][at] = change.cpu().numpy()
    if settings.estimator == EXACT:
        _measure_positions(place, chosen, clean, found)


@torch.no_grad()
def _measure_positions(place: _Place, chosen: Chosen, clean: Outcome, found: xr.Dataset) -> None:
    """Measure what each top feature does at each position alone."""
    prompts = place.prompts.restricted(_index(chosen.top, place.prompts))
    for rows, activation in changed_at_positions(prompts, place.settings.batch_size):
        after = metric(place.site, prompts.of(rows[:, 0]), activation[None])[0]
        batch_rows, positions, features = rows.T.cpu().numpy()
        effect = (after - clean.metric[0, rows[:, 0]]).cpu().numpy()
        found["position_effects"].values[place.number][features, place.examples[batch_rows], positions] = effect


@torch.no_grad()
def _measure_sets(place: _Place, sets: FeatureSets, clean: Outcome, found: xr.Dataset) -> None:
    """Measure what the features of each set do together."""
    site, prompts, examples, number, settings = place
    x, keys = prompts.state.activation, list(sets)
    copies = max(1, settings.batch_size // len(x))
    for first in range(0, len(keys), copies):
        own = keys[first : first + copies]
        indices = [_index(sets[key], prompts) for key in own]
        changed = torch.stack([x + (prompts.change[..., of] @ prompts.weight[of]).to(x.dtype) for of in indices])
        effects = (metric(site, prompts, changed) - clean.metric).cpu().numpy()
        for key, of_set in zip(own, effects, strict=True):
            found["set_effects"].values[number, *key, examples] = of_set


def _outcome(site: Site, prompts: Prompts, activations: Float[Tensor, "copy batch position d_model"]) -> Outcome:
    of_vocabulary = logits(site, prompts, activations)
    answers = of_vocabulary.gather(2, prompts.answer_ids.expand(len(activations), -1, -1))
    return Outcome(difference(answers), answers[..., 1] - of_vocabulary.logsumexp(dim=-1))


def _empty(crosscoder: Crosscoder, task: xr.Dataset, chosen: Chosen, ablation: AblationSettings) -> xr.Dataset:
    """Return arrays of zeros for what is measured of each example."""
    sizes = {
        "estimator": strings(ESTIMATORS),
        "checkpoint": strings(crosscoder.config.checkpoints),
        "example": task["example"].values,
        "feature": chosen.features,
        "top_feature": chosen.top,
        "position": task["position"].values,
        "set_size": np.array(ablation.set_sizes),
        "draw": np.arange(ablation.random_sets + 1),
    }
    dims = {
        "effects": ("estimator", "checkpoint", "example", "feature"),
        "clean_metric": ("checkpoint", "example"),
        "path_effects": ("checkpoint", "example"),
        "total_effects": ("checkpoint", "example"),
        "log_probability_changes": ("checkpoint", "example", "feature"),
        "set_effects": ("checkpoint", "set_size", "draw", "example"),
        "position_effects": ("checkpoint", "top_feature", "example", "position"),
    }
    shapes = {name: tuple(len(sizes[dim]) for dim in of) for name, of in dims.items()}
    arrays = {name: (of, np.zeros(shapes[name], dtype=np.float32)) for name, of in dims.items()}
    return xr.Dataset(arrays, coords=sizes)


def _agreement(effect: xr.DataArray, attribution: xr.Dataset, top: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return how estimates correlate with exact effects, and RelIE by them and RelDec with the exact share."""
    exact = effect.sel(estimator=EXACT, drop=True)
    shares = [share(effect.sel(estimator=name, drop=True)) for name in GRADIENTS]
    measures = xr.concat(
        [*shares, attribution[RELDEC]], dim="measure", join="exact", coords="minimal", compat="override"
    )
    measures = measures.assign_coords(measure=strings([*GRADIENTS, RELDEC])).where(top)
    return {
        "spearman": spearman(effect, exact, "feature"),
        "pearson": pearson(effect, exact, "feature"),
        "share_spearman": spearman(measures, share(exact), "feature"),
        "share_pearson": pearson(measures, share(exact), "feature"),
    }


def _curves(measured: xr.Dataset, attribution: xr.Dataset, units: Units) -> Mapping[str, xr.DataArray]:
    """Return what sets of features do together; NaN where fewer features are active than the set has."""
    enough = measured["set_size"] <= len(active_features(attribution))
    effects = measured["set_effects"]
    accuracy = (measured["clean_metric"] + effects < 0).mean("example").where(enough)
    effect = average(unit_sums(effects, units), units).isel(condition=0, drop=True).where(enough)
    effects_of = attribution["indirect_effect"].transpose("checkpoint", "feature").values
    sums = [
        [own[order[:count]].sum() for count in measured["set_size"].values]
        for own, order in zip(effects_of, ranked_features(attribution), strict=True)
    ]
    estimate = xr.DataArray(sums, dims=("checkpoint", "set_size")).where(enough.drop_vars("set_size"))
    random = slice(1, None)
    return {
        "top_set_effect": effect.isel(draw=0, drop=True),
        "top_set_estimate": estimate,
        "top_set_accuracy": accuracy.isel(draw=0, drop=True),
        "random_set_effect": effect.isel(draw=random),
        "random_set_accuracy": accuracy.isel(draw=random),
    }


LONG_NAMES = {
    "role": ("top: of largest |IE| at some checkpoint; control: a random active feature", "1"),
    "indirect_effect": ("indirect effect of changing the feature", "logit"),
    "indirect_effect_low": ("lower end of its {percent} interval", "logit"),
    "indirect_effect_high": ("upper end of its {percent} interval", "logit"),
    "accuracy": ("accuracy with the feature changed", "1"),
    "logit_difference": ("mean logit(right) - logit(wrong) with the feature changed", "logit"),
    "log_probability_change": ("mean change of the right answer's log-probability", "nat"),
    "clean_accuracy": ("accuracy of the unchanged model", "1"),
    "clean_logit_difference": ("mean logit(right) - logit(wrong) of the unchanged model", "logit"),
    "completeness_gap": ("part of the true change that integrated gradients miss or exceed", "1"),
    "spearman": ("rank correlation with the exact effects, over all features here", "1"),
    "pearson": ("correlation with the exact effects, over all features here", "1"),
    "share_spearman": ("rank correlation with the share of the exact effects, over top features", "1"),
    "share_pearson": ("correlation with the share of the exact effects, over top features", "1"),
    "top_set_effect": ("effect of changing the features of largest |IE| there together", "logit"),
    "top_set_estimate": ("sum of the indirect effects of the same features", "logit"),
    "top_set_accuracy": ("accuracy with the same features changed together", "1"),
    "random_set_effect": ("effect of changing random active features, top ones among them, together", "logit"),
    "random_set_accuracy": ("accuracy with the same random features changed together", "1"),
    "position_effect": ("effect of changing the feature at one position alone, by {estimator}", "logit"),
    "condition_indirect_effect": ("indirect effect of changing the feature, by condition", "logit"),
    "condition_indirect_effect_low": ("lower end of its {percent} interval", "logit"),
    "condition_indirect_effect_high": ("upper end of its {percent} interval", "logit"),
    "role_effect": ("effects of changing the feature at one position alone, summed over a role", "logit"),
    "role_effect_low": ("lower end of its {percent} interval", "logit"),
    "role_effect_high": ("upper end of its {percent} interval", "logit"),
}


def _described(values: xr.DataArray, name: str, settings: AttributionSettings) -> xr.Variable:
    long_name, units = LONG_NAMES[name]
    estimator = "exact ablation" if settings.estimator == EXACT else settings.estimator.replace("_", " ")
    words = long_name.format(percent=f"{settings.confidence:.0%}", estimator=estimator)
    return labelled(tuple(map(str, values.dims)), values.values, words, units)


def _index(features: np.ndarray, prompts: Prompts) -> Tensor:
    return torch.from_numpy(features).to(prompts.change.device)
