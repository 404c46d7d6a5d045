"""Exact interventions on the features that matter most: the check on every estimate."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from chronocoder.attribution.agreement import pearson, spearman
from chronocoder.attribution.effects import (
    GRADIENTS,
    Prompts,
    changed_alone,
    difference,
    effects_along,
    effects_by_position,
    logits,
    metric,
)
from chronocoder.attribution.measures import mean_interval, resample_means, share
from chronocoder.attribution.prompts import PromptBatch, joined, read_prompts
from chronocoder.config import AblationSettings, AttributionSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.stores import labelled, strings
from chronocoder.suites.sites import Site

EXACT = "exact"
ESTIMATORS = [*GRADIENTS, EXACT]
MEASURES = ("relative_indirect_effect", "relative_decoder_norm")
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
    active, size = _active(attribution), _size(attribution)
    places = [place for place, count in enumerate(settings.set_sizes) if count <= len(active)]
    random = {
        (place, draw): generator.choice(active, settings.set_sizes[place], replace=False)
        for place in places
        for draw in range(1, settings.random_sets + 1)
    }
    orders = [active[np.argsort(-of_checkpoint[active], kind="stable")] for of_checkpoint in size]
    return [{**{(place, 0): order[: settings.set_sizes[place]] for place in places}, **random} for order in orders]


def positions_by(settings: AttributionSettings) -> str:
    """Return the estimator of effects by position: that of the attribution, unless it has none for positions."""
    return settings.estimator if settings.estimator in GRADIENTS else "attribution_patching"


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
        `effects` (estimator, checkpoint, example, feature), `clean_metric` (checkpoint, example),
        `log_probability_changes` (checkpoint, example, feature), `set_effects` (checkpoint, set_size, draw, example)
        with the top features as draw 0, `position_effects` (checkpoint, top_feature, example, position).
    """
    chosen = choose_features(attribution, ablation, settings.seed)
    sets = choose_sets(attribution, ablation, settings.seed)
    found = _empty(crosscoder, task, chosen, ablation)
    for batch in read_prompts(crosscoder, sites, task, settings.intervention, settings.batch_size):
        for number, (site, prompts) in enumerate(zip(sites, batch.prompts, strict=True)):
            place = _Place(site, prompts, batch, number, settings)
            clean = _outcome(site, prompts, prompts.state.activation[None])
            found["clean_metric"].values[number, batch.examples] = clean.metric[0].cpu().numpy()
            _measure_alone(place, chosen, clean, found)
            _measure_sets(place, sets[number], clean, found)
    return found.map(lambda values: values.copy(data=joined(values.values)))


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
        batch: the batch at all checkpoints.
        number: of the checkpoint.
        settings: of the attribution.
    """

    site: Site
    prompts: Prompts
    batch: PromptBatch
    number: int
    settings: AttributionSettings


@torch.no_grad()
def _measure_alone(place: _Place, chosen: Chosen, clean: Outcome, found: xr.Dataset) -> None:
    """Measure what each feature that is active in the batch does alone, by every estimator."""
    site, everything, batch, number, settings = place
    columns = _changed(everything, chosen.features)
    prompts = everything.restricted(_index(chosen.features[columns], everything))
    effects = found["effects"].values
    for name, gradient_of in GRADIENTS.items():
        with torch.enable_grad():
            gradient = gradient_of(site, prompts, settings.steps, settings.batch_size)
        estimate = effects_along(gradient, prompts).features
        effects[ESTIMATORS.index(name), number][np.ix_(batch.examples, columns)] = estimate.cpu().numpy()
        if name == positions_by(settings):
            top = np.isin(chosen.features[columns], chosen.top)
            by_position = effects_by_position(gradient, prompts)[..., torch.from_numpy(top)].permute(2, 0, 1)
            rows = np.searchsorted(chosen.top, chosen.features[columns][top])
            places = np.ix_(rows, batch.examples, np.arange(by_position.shape[2]))
            found["position_effects"].values[number][places] = by_position.cpu().numpy()
    for part, changed in changed_alone(prompts, settings.batch_size):
        outcome = _outcome(site, prompts, changed)
        own = columns[part.cpu().numpy()]
        at = np.ix_(batch.examples, own)
        effects[ESTIMATORS.index(EXACT), number][at] = (outcome.metric - clean.metric).T.cpu().numpy()
        found["log_probability_changes"].values[number][at] = (
            (outcome.log_probability - clean.log_probability).T.cpu().numpy()
        )


@torch.no_grad()
def _measure_sets(place: _Place, sets: FeatureSets, clean: Outcome, found: xr.Dataset) -> None:
    """Measure what the features of each set do together."""
    site, prompts, batch, number, settings = place
    x, keys = prompts.state.activation, list(sets)
    copies = max(1, settings.batch_size // len(x))
    for first in range(0, len(keys), copies):
        own = keys[first : first + copies]
        indices = [_index(sets[key], prompts) for key in own]
        changed = torch.stack([x + (prompts.change[..., of] @ prompts.weight[of]).to(x.dtype) for of in indices])
        effects = (metric(site, prompts, changed) - clean.metric).cpu().numpy()
        for key, of_set in zip(own, effects, strict=True):
            found["set_effects"].values[number, *key, batch.examples] = of_set


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
        "log_probability_changes": ("checkpoint", "example", "feature"),
        "set_effects": ("checkpoint", "set_size", "draw", "example"),
        "position_effects": ("checkpoint", "top_feature", "example", "position"),
    }
    shapes = {name: tuple(len(sizes[dim]) for dim in of) for name, of in dims.items()}
    arrays = {name: (of, np.zeros(shapes[name], dtype=np.float32)) for name, of in dims.items()}
    return xr.Dataset(arrays, coords=sizes)


def _agreement(effect: xr.DataArray, attribution: xr.Dataset, top: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return how estimates correlate with exact effects, and measures of the top features with the exact share."""
    exact = effect.sel(estimator=EXACT, drop=True)
    measures = xr.concat([attribution[name] for name in MEASURES], dim="measure", join="exact")
    measures = measures.assign_coords(measure=strings(MEASURES)).where(top)
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
    ranked = attribution["indirect_effect"].transpose("checkpoint", "feature")
    order = np.argsort(-_size(attribution), axis=1, kind="stable")
    summed = np.take_along_axis(ranked.values, order, axis=1).cumsum(axis=1)
    counts = np.minimum(measured["set_size"].values, summed.shape[1]) - 1
    estimate = xr.DataArray(summed[:, counts], dims=("checkpoint", "set_size")).where(enough.drop_vars("set_size"))
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
    "spearman": ("rank correlation with the exact effects, over all features here", "1"),
    "pearson": ("correlation with the exact effects, over all features here", "1"),
    "share_spearman": ("rank correlation with the share of the exact effects, over top features", "1"),
    "share_pearson": ("correlation with the share of the exact effects, over top features", "1"),
    "top_set_effect": ("effect of changing the features of largest |IE| there together", "logit"),
    "top_set_estimate": ("sum of the indirect effects of the same features", "logit"),
    "top_set_accuracy": ("accuracy with the same features changed together", "1"),
    "random_set_effect": ("effect of changing random active features together", "logit"),
    "random_set_accuracy": ("accuracy with the same random features changed together", "1"),
    "position_effect": ("effect of the feature at each position, by {estimator}", "logit"),
}


def _described(values: xr.DataArray, name: str, settings: AttributionSettings) -> xr.Variable:
    long_name, units = LONG_NAMES[name]
    words = long_name.format(percent=f"{settings.confidence:.0%}", estimator=positions_by(settings).replace("_", " "))
    return labelled(tuple(map(str, values.dims)), values.values, words, units)


def _changed(prompts: Prompts, features: np.ndarray) -> np.ndarray:
    """Return the places of those features that the intervention changes in some example."""
    changed = prompts.change[..., _index(features, prompts)].any(dim=1).any(dim=0)
    return np.flatnonzero(changed.cpu().numpy())


def _index(features: np.ndarray, prompts: Prompts) -> Tensor:
    return torch.from_numpy(features).to(prompts.change.device)


def _active(attribution: xr.Dataset) -> np.ndarray:
    return np.flatnonzero(attribution["activation_frequency"].values > 0)


def _size(attribution: xr.Dataset) -> np.ndarray:
    size: np.ndarray = abs(attribution["indirect_effect"]).transpose("checkpoint", "feature").values
    return size
