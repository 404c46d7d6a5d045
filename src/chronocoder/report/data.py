"""What several pages say of features: classes in order, words, and which effects are measurable."""

import numpy as np
import xarray as xr

from chronocoder.wording import peak_words

CLASSES = ("emerged", "maintained", "discontinued", "transient", "intermittent", "uncertain", "no effect")
WORDS = 4


def measurable(relie: xr.Dataset) -> xr.DataArray:
    """Return which features have a measurable effect at one checkpoint at least, dims (task, feature)."""
    return relie["measurable"].any("checkpoint").transpose("task", "feature")


def class_places(relie: xr.Dataset) -> np.ndarray:
    """Return the class of each feature by each basis as a place in `CLASSES`, shape (basis, task, feature)."""
    normalised = relie["normalised_class"].transpose("normalisation", "task", "feature")
    published = relie["feature_class"].transpose("task", "feature").values[None]
    classes = np.concatenate([published, normalised.values]).astype(object)
    places: np.ndarray = np.vectorize(CLASSES.index, otypes=[int])(classes)
    return places


def feature_words(features: xr.Dataset) -> dict[int, list[str]]:
    """Return for each feature the words in which it peaks, over the examples in which it is active."""
    ordered = features.transpose("feature", "example", "position", ...)
    numbers, tokens, activation = (ordered[name].values for name in ("feature", "token", "activation"))
    return {
        int(feature): peak_words(_peaks(tokens[row], activation[row]), WORDS) for row, feature in enumerate(numbers)
    }


def _peaks(tokens: np.ndarray, activation: np.ndarray) -> list[tuple[list[str], int]]:
    """Return the tokens and the place of the peak of each example in which a feature is active."""
    active = np.flatnonzero(activation.max(axis=1) > 0)
    return [([str(token) for token in tokens[number]], int(activation[number].argmax())) for number in active]
