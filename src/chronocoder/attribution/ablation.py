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
from chronocoder.attribution.effects import (
    GRADIENTS,
    Prompts,
    changed_alone,
    changed_at_positions,
    difference,
    effects_along,
    effects_by_position,
    logits,
    metric,
    total_change,
)
from chronocoder.attribution.measures import mean_interval, resample_means, share
from chronocoder.attribution.prompts import joined, read_prompts
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
WORDS = ["token", "right", "wrong", "condition"]

FeatureSets = dict[tuple[int, int], np.ndarray]
"""Features to change together, by place of the size and number of the draw; draw 0 is that of the top features."""


class Chosen(NamedTuple):
    """Features to change alone.

    Attributes:
        features: numbers, ascending.
        top: those among them of largest |IE| at some checkpoint; the others are controls.
    """

    features: np.ndarray
    top: np.ndarray


class Outcome(NamedTuple):
    """What a model says after an intervention, for several versions of the activation.

    Attributes:
        metric: logit(wrong) - logit(right), shape (copy, batch).
        log_probability: of the right answer, in nats, shape (copy, batch).
    """

    metric: Float[Tensor, "copy batch"]
    log_probability: Float[Tensor, "copy batch"]


def choose_features(attribution: xr.Dataset, settings: AblationSettings, seed: int) -> Chosen:
    """Return the features of largest |IE| at any checkpoint, and as many random active ones.

    Args:
        attribution: the effects on a task, dims (checkpoint, feature).
        settings: how many.
        seed: of the controls.
    """
    size = _size(attribution)
    largest = np.argsort(-size, axis=1, kind="stable")[:, : settings.top_features]
    top = np.unique(largest[np.take_along_axis(size, largest, axis=1) > 0])
    others = np.setdiff1d(_active(attribution), top)
    control = np.random.default_rng(seed).choice(others, min(len(top), len(others)), replace=False)
    return Chosen(np.sort(np.concatenate([top, control])), top)


def choose_sets(attribution: xr.Dataset, settings: AblationSettings, seed: int) -> list[FeatureSets]:
    """Return for each checkpoint the sets of its top and of random active features, as far as there are enough."""
    generator = np.random.default_rng([seed, 1])
    active = _active(attribution)
    places = [place for place, count in enumerate(settings.set_sizes) if count <= len(active)]
    random = {
        (place, draw): generator.choice(active, settings.set_sizes[place], replace=False)
        for place in places
        for draw in range(1, settings.random_sets + 1)
    }
    return [
        {**{(place, 0): order[: settings.set_sizes[place]] for place in places}, **random}
        for order in _ranked(attribution)
    ]


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
    effect = measured["effects"].mean("example")
    generator = np.random.default_rng(settings.seed)
    interval = mean_interval(
        resample_means(measured["effects"], settings.bootstrap_samples, generator), settings.confidence
    )
    of_chosen = attribution.sel(feature=measured["feature"])
    top = of_chosen["feature"].isin(measured["top_feature"])
    after = measured["clean_metric"] + measured["effects"].sel(estimator=EXACT, drop=True)
    variables = {
        "role": xr.DataArray(np.where(top, TOP, CONTROL), dims="feature"),
        "indirect_effect": effect,
        "indirect_effect_low": interval.low,
        "indirect_effect_high": interval.high,
        "accuracy": (after < 0).mean("example"),
        "logit_difference": -after.mean("example"),
        "log_probability_change": measured["log_probability_changes"].mean("example"),
        "clean_accuracy": (measured["clean_metric"] < 0).mean("example"),
        "clean_logit_difference": -measured["clean_metric"].mean("example"),
        "completeness_gap": gap_of(measured["path_effects"], measured["total_effects"]),
        **_agreement(effect, of_chosen, top),
        **_curves(measured, attribution),
        "position_effect": measured["position_effects"].where(task["position"] < task["length"]),
    }
    described = {name: _described(values, name, settings) for name, values in variables.items()}
    summary = xr.Dataset(variables).drop_attrs().assign(described).merge(task[WORDS], join="exact")
    return summary.assign_coords(tokens_seen=attribution["tokens_seen"])


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
            found["total_effects"].values[number, examples] = total_change(site, prompts).cpu().numpy()
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


def _curves(measured: xr.Dataset, attribution: xr.Dataset) -> Mapping[str, xr.DataArray]:
    """Return what sets of features do together; NaN where fewer features are active than the set has."""
    enough = measured["set_size"] <= len(_active(attribution))
    effects = measured["set_effects"]
    accuracy = (measured["clean_metric"] + effects < 0).mean("example").where(enough)
    effect = effects.mean("example").where(enough)
    effects_of = attribution["indirect_effect"].transpose("checkpoint", "feature").values
    sums = [
        [own[order[:count]].sum() for count in measured["set_size"].values]
        for own, order in zip(effects_of, _ranked(attribution), strict=True)
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
}


def _described(values: xr.DataArray, name: str, settings: AttributionSettings) -> xr.Variable:
    long_name, units = LONG_NAMES[name]
    words = long_name.format(percent=f"{settings.confidence:.0%}", estimator=settings.estimator.replace("_", " "))
    return labelled(tuple(map(str, values.dims)), values.values, words, units)


def _index(features: np.ndarray, prompts: Prompts) -> Tensor:
    return torch.from_numpy(features).to(prompts.change.device)


def _active(attribution: xr.Dataset) -> np.ndarray:
    """Return the features that are active on the task, or that a counterfactual changes."""
    used = (attribution["activation_frequency"].values > 0) | (_size(attribution) > 0).any(axis=0)
    return np.flatnonzero(used)


def _ranked(attribution: xr.Dataset) -> list[np.ndarray]:
    """Return the active features of each checkpoint, those of largest |IE| first."""
    active = _active(attribution)
    return [active[np.argsort(-size[active], kind="stable")] for size in _size(attribution)]


def _size(attribution: xr.Dataset) -> np.ndarray:
    size: np.ndarray = abs(attribution["indirect_effect"]).transpose("checkpoint", "feature").values
    return size
