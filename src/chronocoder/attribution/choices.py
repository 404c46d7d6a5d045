"""Which features are changed exactly: those of largest effect, random ones, and sets of both."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from transformers import PretrainedConfig

from chronocoder.config import AUTO, TWO_STAGES, AblationSettings, AttributionSettings
from chronocoder.crosscoder.model import CrosscoderConfig
from chronocoder.plan.compute import Prompts
from chronocoder.plan.estimator import chosen_estimator, exact_hours
from chronocoder.plan.models import CrosscoderShape, parse_shape

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


class Exactly(NamedTuple):
    """Features whose effects are measured exactly after all were estimated.

    Attributes:
        features: numbers, ascending.
        checked: those among them that were chosen at random, one of each part of the others when they are ranked by
            size, to tell how far estimates are from exact effects.
    """

    features: np.ndarray
    checked: np.ndarray


def decided(
    settings: AttributionSettings, crosscoder: CrosscoderConfig, model: PretrainedConfig, prompts: Prompts
) -> AttributionSettings:
    """Return the settings with the estimator chosen, where it is `auto`, by what exact effects would cost.

    Args:
        settings: estimator, and hours that are allowed.
        crosscoder: its sizes, and how many latents are active.
        model: its sizes.
        prompts: of as many pairs as there are in the suite, as long as those of the task.
    """
    if settings.estimator != AUTO:
        return settings
    shape = parse_shape(model.to_dict(), f"configuration of {model.name_or_path}")
    sizes = CrosscoderShape(len(crosscoder.checkpoints), crosscoder.d_model, crosscoder.settings.dictionary_size)
    hours = exact_hours(settings, crosscoder.settings, shape, sizes, prompts, crosscoder.site)
    return settings.model_copy(update={"estimator": chosen_estimator(settings, hours)})


def choose_exact(estimates: np.ndarray, settings: AttributionSettings) -> Exactly:
    """Return the features of largest effect at any checkpoint, by the estimates, and some others.

    Half of them by the mean size of their effects on examples, since effects of both signs cancel in a mean; and half
    by the size of the mean, which is what is told of them. None unless the estimator is `two_stages`, and none without
    any effect.

    Args:
        estimates: in logits, shape (checkpoint, example, feature).
        settings: the estimator, how many features, and the seed of the others.
    """
    if settings.estimator != TWO_STAGES:
        return Exactly(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    size = np.abs(estimates).mean(axis=1)
    half = settings.exact_features // 2
    by_mean = _largest(np.abs(estimates.mean(axis=1)), half)
    top = np.union1d(_largest(size, settings.exact_features - half), by_mean)
    generator = np.random.default_rng([settings.seed, 8])
    others = np.setdiff1d(np.flatnonzero(size.any(axis=0)), top)
    ranked = others[np.argsort(-size[:, others].max(axis=0), kind="stable")]
    parts = np.array_split(ranked, min(settings.exact_controls, max(len(ranked), 1)))
    checked = np.array(sorted(generator.choice(part) for part in parts if len(part)), dtype=np.int64)
    return Exactly(np.union1d(top, checked), checked)


def _largest(size: np.ndarray, count: int) -> np.ndarray:
    """Return the so many features of largest size of each checkpoint, of those above zero, in any order."""
    largest = np.argsort(-size, axis=1, kind="stable")[:, :count]
    found: np.ndarray = largest[np.take_along_axis(size, largest, axis=1) > 0]
    return found


def choose_features(attribution: xr.Dataset, settings: AblationSettings, seed: int) -> Chosen:
    """Return the features of largest |IE| at any checkpoint, in any condition, and as many random active ones.

    Args:
        attribution: the effects on a task, dims (checkpoint, feature).
        settings: how many.
        seed: of the controls.
    """
    of_conditions = abs(attribution["condition_indirect_effect"]).max("condition").transpose("checkpoint", "feature")
    size = np.maximum(_size(attribution), of_conditions.values)
    top = np.unique(_largest(size, settings.top_features))
    others = np.setdiff1d(active_features(attribution), top)
    control = np.random.default_rng(seed).choice(others, min(len(top), len(others)), replace=False)
    return Chosen(np.sort(np.concatenate([top, control])), top)


def choose_sets(attribution: xr.Dataset, settings: AblationSettings, seed: int) -> list[FeatureSets]:
    """Return for each checkpoint the sets of its top and of random active features, as far as there are enough."""
    generator = np.random.default_rng([seed, 1])
    active = active_features(attribution)
    places = [place for place, count in enumerate(settings.set_sizes) if count <= len(active)]
    random = {
        (place, draw): generator.choice(active, settings.set_sizes[place], replace=False)
        for place in places
        for draw in range(1, settings.random_sets + 1)
    }
    return [
        {**{(place, 0): order[: settings.set_sizes[place]] for place in places}, **random}
        for order in ranked_features(attribution)
    ]


def active_features(attribution: xr.Dataset) -> np.ndarray:
    """Return the features that are active on the task, or that the intervention changes."""
    used = (attribution["activation_frequency"].values > 0) | (_size(attribution) > 0).any(axis=0)
    return np.flatnonzero(used)


def ranked_features(attribution: xr.Dataset) -> list[np.ndarray]:
    """Return the active features of each checkpoint, those of largest |IE| first."""
    active = active_features(attribution)
    return [active[np.argsort(-size[active], kind="stable")] for size in _size(attribution)]


def _size(attribution: xr.Dataset) -> np.ndarray:
    size: np.ndarray = abs(attribution["indirect_effect"]).transpose("checkpoint", "feature").values
    return size
