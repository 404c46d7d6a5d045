"""Exact interventions on the features that matter most: the check on every estimate."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from chronocoder.attribution.agreement import pearson, spearman
from chronocoder.attribution.choices import (
    Chosen,
    FeatureSets,
    active_features,
    choose_features,
    choose_sets,
    ranked_features,
)
from chronocoder.attribution.effects import Prompts, logits, metric
from chronocoder.attribution.estimators import ESTIMATORS
from chronocoder.attribution.exact import (
    at_once_on,
    changed_alone,
    changed_at_positions,
    changed_logits,
    effect_of,
    past_for,
)
from chronocoder.attribution.measures import CONTROL, TOP, mean_interval, share
from chronocoder.attribution.prompts import Place, PromptBatch, add_to_examples, bounded, joined, read_prompts
from chronocoder.attribution.sampling import Units, average, bootstrap_draws, resampled_means, unit_sums, units_of
from chronocoder.attribution.writing import WRITING_NAMES, Writers, measure_writing, summarise_writing
from chronocoder.config import EXACT, AblationSettings, AttributionSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.crosscoder.own_codes import OwnCodes
from chronocoder.errors import NonFiniteError
from chronocoder.stores import labelled, strings
from chronocoder.suites.sites import Site
from chronocoder.tasks.readout import Outcome
from chronocoder.tasks.rows import by_member, reads_prefixes, unit_of

ESTIMATED = [name for name in ESTIMATORS if name != EXACT]
RELDEC = "relative_decoder_norm"
WORDS = ["token", "role", "right", "wrong", "condition"]


def measure_ablations(
    crosscoder: Crosscoder,
    sites: Sequence[Site],
    task: xr.Dataset,
    attribution: xr.Dataset,
    settings: AttributionSettings,
    ablation: AblationSettings,
    own_codes: OwnCodes | None = None,
) -> xr.Dataset:
    """Change the features that matter exactly, alone and in sets, beside what the estimators say of them.

    Alone also along what other checkpoints write with them (see `chronocoder.attribution.writing`).

    Under `accelerate launch` the examples are shared out, and every process returns all of them.

    Args:
        crosscoder: folded.
        sites: the site in each checkpoint's model, in the crosscoder's order.
        task: as for `measure_effects`.
        attribution: the effects on this task, by which the features are chosen.
        settings: those that the attribution was made with.
        ablation: which features, and which sets.
        own_codes: what makes own codes, for checkpoints that do not support the code of a feature; without it, all
            codes count as supported.

    Returns:
        `effects` (estimator, checkpoint, example, feature); `clean_metric` (checkpoint, example);
        `log_probability_changes` (checkpoint, example, feature), `set_effects` (checkpoint, set_size, draw, example)
        with the top features as draw 0, `position_effects` (checkpoint, top_feature, example, position) and
        `position_activations` (top_feature, example, position), with dimension `member` before `position` where the
        metric compares sentences;
        `swapped_effects` (writer, reader, example, row), of which the first rows are of the features and the others of
        random directions in place of the top features, one draw after the other; NaN between checkpoints of different
        widths;
        `own_code` (checkpoint, feature), whether the own code has been written.

    Raises:
        NonFiniteError: one of them is NaN or infinite.
    """
    settings = bounded(settings, task, sites)
    sites = [replace(site, precision=settings.precision) for site in sites]
    chosen = choose_features(attribution, ablation, settings.seed)
    sets = choose_sets(attribution, ablation, settings.seed)
    writers = Writers.of(crosscoder, chosen, own_codes, settings)
    found = _empty(crosscoder, task, chosen, ablation, len(writers.features))
    exact_effects = found["effects"].sel(estimator=EXACT).values
    for batch in read_prompts(crosscoder, sites, task, settings.intervention, settings.batch_size):
        _keep_activations(batch, found["position_activations"].values, chosen)
        for number, (site, prompts) in enumerate(zip(sites, batch.prompts, strict=True)):
            place = Place(site, prompts, batch.rows, number, settings, past_for(site))
            clean = _clean_outcome(place)
            add_to_examples(found["clean_metric"].values[number], batch.rows, clean.terms.sum(dim=1))
            _measure_alone(place, chosen, clean, found)
            _measure_sets(place, sets[number], clean, found)
        measure_writing(writers, sites, batch, settings, exact_effects, found["swapped_effects"].values)
    whole = found.map(lambda values: values.copy(data=joined(values.values)))
    for name, values in whole.data_vars.items():
        measured = values.values[writers.comparable] if name == "swapped_effects" else values.values
        if not np.isfinite(measured).all():
            raise NonFiniteError(f"{name} of the ablations are not finite; a checkpoint is damaged, or it overflows")
    return whole.assign(own_code=(("checkpoint", "feature"), writers.own[:, : len(chosen.features)]))


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
        "difference": -after.mean("example"),
        "log_probability_change": measured["log_probability_changes"].mean("example"),
        "clean_accuracy": (measured["clean_metric"] < 0).mean("example"),
        "clean_difference": -measured["clean_metric"].mean("example"),
        **_agreement(effect, of_chosen, top),
        **_curves(measured, attribution, units),
        "position_effect": measured["position_effects"].where(task["token_id"] >= 0),
        "position_activation": measured["position_activations"].where(_read_positions(task)),
        "own_code": measured["own_code"],
        **summarise_writing(measured["swapped_effects"], top, units, draws, settings),
    }
    described = {name: _described(values, name, settings, unit_of(task)) for name, values in variables.items()}
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
    names = [name for name in dict.fromkeys(by_member(task, "role")[..., 1:].ravel().tolist()) if name]
    within = [name for name in task["role"].dims if name != "example"]
    effects = [measured["position_effects"].where(task["role"] == name, 0.0).sum(within) for name in names]
    return xr.concat(effects, "position_role").assign_coords(position_role=strings(names))


def _read_positions(task: xr.Dataset) -> xr.DataArray:
    """Return which tokens a model reads; the last one of a sentence is only predicted."""
    return task["position"] < task["length"] - (not reads_prefixes(task))


def _keep_activations(batch: PromptBatch, activations: np.ndarray, chosen: Chosen) -> None:
    """Keep how active each top feature is on the clean text."""
    of_members = activations if activations.ndim == 4 else activations[:, :, None]
    own = batch.codes[..., torch.from_numpy(chosen.top).to(batch.codes.device)]
    examples, members, _ = batch.rows
    of_members[:, examples, members, : own.shape[1]] = own.permute(2, 0, 1).cpu().numpy()


def _measure_alone(place: Place, chosen: Chosen, clean: Outcome, found: xr.Dataset) -> None:
    """Measure what each of the chosen features does alone, by every estimator."""
    _estimate_alone(place, chosen, found)
    _ablate_alone(place, chosen, clean, found)
    _measure_positions(place, chosen, clean, found)


def _estimate_alone(place: Place, chosen: Chosen, found: xr.Dataset) -> None:
    """Estimate what each of the chosen features does; estimators are told of all features that change."""
    site, everything, rows, number, settings, _ = place
    changed = np.union1d(everything.change.any(dim=(0, 1)).nonzero()[:, 0].cpu().numpy(), chosen.features)
    prompts = everything.restricted(_index(changed, everything))
    of_chosen = _index(np.searchsorted(changed, chosen.features), everything)
    for place_of, name in enumerate(ESTIMATED):
        estimate = ESTIMATORS[name](site, prompts, settings)
        add_to_examples(found["effects"].values[place_of, number], rows, estimate.features[:, of_chosen])


@torch.no_grad()
def _ablate_alone(place: Place, chosen: Chosen, clean: Outcome, found: xr.Dataset) -> None:
    """Change each of the chosen features alone."""
    site, everything, sequences, number, settings, past = place
    prompts = everything.restricted(_index(chosen.features, everything))
    effects = found["effects"].sel(estimator=EXACT).values[number], found["log_probability_changes"].values[number]
    at_once = at_once_on(site, prompts, settings.batch_size, whole=True)
    for rows in changed_alone(prompts, at_once, from_start=past is None):
        outcome = prompts.readout.of(rows.examples).outcome(changed_logits(site, prompts, rows, past))
        at = sequences.examples[rows.examples.cpu().numpy()], rows.features.cpu().numpy()
        for values, before, after in zip(effects, clean, outcome, strict=True):
            change = (after - before[rows.examples, -after.shape[1] :]).sum(dim=1)
            np.add.at(values, at, change.cpu().numpy())


@torch.no_grad()
def _measure_positions(place: Place, chosen: Chosen, clean: Outcome, found: xr.Dataset) -> None:
    """Measure what each top feature does at each position alone."""
    site, everything, sequences, number, settings, past = place
    prompts = everything.restricted(_index(chosen.top, everything))
    effects = found["position_effects"].values[number]
    of_members = effects if effects.ndim == 4 else effects[:, :, None]
    at_once = at_once_on(site, prompts, settings.batch_size, whole=prompts.readout.answer_ids is None)
    for rows in changed_at_positions(prompts, at_once, from_start=past is None):
        effect = effect_of(site, prompts, rows, past, clean.terms)
        own = sequences.some(rows.examples.cpu().numpy())
        at = rows.features.cpu().numpy(), own.examples, own.members, rows.positions.cpu().numpy()
        of_members[at] = effect.cpu().numpy()


@torch.no_grad()
def _measure_sets(place: Place, sets: FeatureSets, clean: Outcome, found: xr.Dataset) -> None:
    """Measure what the features of each set do together."""
    site, prompts, rows, number, settings, _ = place
    x, keys = prompts.state.activation, list(sets)
    copies = max(1, settings.batch_size // len(x))
    for first in range(0, len(keys), copies):
        own = keys[first : first + copies]
        indices = [_index(sets[key], prompts) for key in own]
        changed = torch.stack([x + (prompts.change[..., of] @ prompts.weight[of]).to(x.dtype) for of in indices])
        effects = metric(site, prompts, changed) - clean.terms.sum(dim=1)
        for key, of_set in zip(own, effects, strict=True):
            add_to_examples(found["set_effects"].values[number, *key], rows, of_set)


@torch.no_grad()
def _clean_outcome(place: Place) -> Outcome:
    site, prompts = place.site, place.prompts
    return prompts.readout.outcome(logits(site, prompts, prompts.state.activation[None], past=place.past))


def _empty(
    crosscoder: Crosscoder, task: xr.Dataset, chosen: Chosen, ablation: AblationSettings, rows: int
) -> xr.Dataset:
    """Return arrays of zeros for what is measured of each example, and of so many rows that checkpoints write."""
    sizes = {
        "estimator": strings([*ESTIMATED, EXACT]),
        "checkpoint": strings(crosscoder.config.checkpoints),
        "example": task["example"].values,
        "feature": chosen.features,
        "top_feature": chosen.top,
        **{name: task[name].values for name in task["token_id"].dims if name != "example"},
        "set_size": np.array(ablation.set_sizes),
        "draw": np.arange(ablation.random_sets + 1),
        "writer": strings(crosscoder.config.checkpoints),
        "reader": strings(crosscoder.config.checkpoints),
        "row": np.arange(rows),
    }
    dims = {
        "effects": ("estimator", "checkpoint", "example", "feature"),
        "clean_metric": ("checkpoint", "example"),
        "log_probability_changes": ("checkpoint", "example", "feature"),
        "set_effects": ("checkpoint", "set_size", "draw", "example"),
        "position_effects": ("checkpoint", "top_feature", *map(str, task["token_id"].dims)),
        "position_activations": ("top_feature", *map(str, task["token_id"].dims)),
        "swapped_effects": ("writer", "reader", "example", "row"),
    }
    shapes = {name: tuple(len(sizes[dim]) for dim in of) for name, of in dims.items()}
    arrays = {name: (of, np.zeros(shapes[name], dtype=np.float32)) for name, of in dims.items()}
    return xr.Dataset(arrays, coords=sizes)


def _agreement(effect: xr.DataArray, attribution: xr.Dataset, top: xr.DataArray) -> dict[str, xr.DataArray]:
    """Return how estimates correlate with exact effects, and RelIE by them and RelDec with the exact share."""
    exact = effect.sel(estimator=EXACT, drop=True)
    shares = [share(effect.sel(estimator=name, drop=True)) for name in ESTIMATED]
    measures = xr.concat(
        [*shares, attribution[RELDEC]], dim="measure", join="exact", coords="minimal", compat="override"
    )
    measures = measures.assign_coords(measure=strings([*ESTIMATED, RELDEC])).where(top)
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
    "difference": ("mean of right minus wrong with the feature changed", "logit"),
    "log_probability_change": ("mean change of the right answer's log-probability", "nat"),
    "clean_accuracy": ("accuracy of the unchanged model", "1"),
    "clean_difference": ("mean of right minus wrong in the unchanged model", "logit"),
    "spearman": ("rank correlation with the exact effects, over all features here", "1"),
    "pearson": ("correlation with the exact effects, over all features here", "1"),
    "share_spearman": ("rank correlation with the share of the exact effects, over top features", "1"),
    "share_pearson": ("correlation with the share of the exact effects, over top features", "1"),
    "top_set_effect": ("effect of changing the features of largest |IE| there together", "logit"),
    "top_set_estimate": ("sum of the indirect effects of the same features", "logit"),
    "top_set_accuracy": ("accuracy with the same features changed together", "1"),
    "random_set_effect": ("effect of changing random active features, top ones among them, together", "logit"),
    "random_set_accuracy": ("accuracy with the same random features changed together", "1"),
    "position_effect": ("effect of changing the feature at one position alone", "logit"),
    "position_activation": ("activation of the feature on the token; at every checkpoint the same", "1"),
    "condition_indirect_effect": ("indirect effect of changing the feature, by condition", "logit"),
    "condition_indirect_effect_low": ("lower end of its {percent} interval", "logit"),
    "condition_indirect_effect_high": ("upper end of its {percent} interval", "logit"),
    "role_effect": ("effects of changing the feature at one position alone, summed over a role", "logit"),
    "role_effect_low": ("lower end of its {percent} interval", "logit"),
    "role_effect_high": ("upper end of its {percent} interval", "logit"),
    **WRITING_NAMES,
}


"""What the variables are called, and their units; `logit` stands for the unit of the task's metric."""


def _described(values: xr.DataArray, name: str, settings: AttributionSettings, unit: str) -> xr.Variable:
    long_name, units = LONG_NAMES[name]
    words = long_name.format(percent=f"{settings.confidence:.0%}")
    return labelled(tuple(map(str, values.dims)), values.values, words, unit if units == "logit" else units)


def _index(features: np.ndarray, prompts: Prompts) -> Tensor:
    return torch.from_numpy(features).to(prompts.change.device)
