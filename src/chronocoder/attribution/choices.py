"""Which features are changed exactly: those of largest effect, random ones, and sets of both."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.config import AblationSettings

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


def choose_features(attribution: xr.Dataset, settings: AblationSettings, seed: int) -> Chosen:
    """Return the features of largest |IE| at any checkpoint, in any condition, and as many random active ones.

    Args:
        attribution: the effects on a task, dims (checkpoint, feature).
        settings: how many.
        seed: of the controls.
    """
    of_conditions = abs(attribution["condition_indirect_effect"]).max("condition").transpose("checkpoint", "feature")
    size = np.maximum(_size(attribution), of_conditions.values)
    largest = np.argsort(-size, axis=1, kind="stable")[:, : settings.top_features]
    top = np.unique(largest[np.take_along_axis(size, largest, axis=1) > 0])
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
    """Return the features that are active on the task, or that a counterfactual changes."""
    used = (attribution["activation_frequency"].values > 0) | (_size(attribution) > 0).any(axis=0)
    return np.flatnonzero(used)


def ranked_features(attribution: xr.Dataset) -> list[np.ndarray]:
    """Return the active features of each checkpoint, those of largest |IE| first."""
    active = active_features(attribution)
    return [active[np.argsort(-size[active], kind="stable")] for size in _size(attribution)]


def _size(attribution: xr.Dataset) -> np.ndarray:
    size: np.ndarray = abs(attribution["indirect_effect"]).transpose("checkpoint", "feature").values
    return size
