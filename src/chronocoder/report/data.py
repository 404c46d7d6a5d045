"""What the page shows of each run, as plain lists and dicts that become JSON."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from chronocoder.report.ablations import ablation_data
from chronocoder.report.compact import Vocabulary, nested, rounded
from chronocoder.report.contrasts import ContrastFeatures
from chronocoder.report.inputs import Contrast, Run
from chronocoder.report.text import peak_words

CLASSES = ("emerged", "maintained", "discontinued", "transient", "intermittent", "uncertain", "no effect")
SHOWN_PER_TASK = 24
LISTED = 8
WORDS = 4
ACTIVATION_LEVELS = 9
NUMBERS = {
    "effect": "indirect_effect",
    "low": "indirect_effect_low",
    "high": "indirect_effect_high",
    "share": "relative_indirect_effect",
    "band": "null_band",
}

Found = Mapping[Contrast, ContrastFeatures]


def measurable(relie: xr.Dataset) -> xr.DataArray:
    """Return which features have a measurable effect at one checkpoint at least, dims (task, feature)."""
    return relie["measurable"].any("checkpoint").transpose("task", "feature")


def shown_features(run: Run, found: Found) -> list[int]:
    """Return the features the page has numbers of, in ascending order.

    They are those of largest |IE| for each task, those with examples, and those that a contrast lists.
    """
    size = abs(run.relie["indirect_effect"]).max("checkpoint").transpose("task", "feature").values
    largest = np.argsort(-size, axis=1)[:, :SHOWN_PER_TASK]
    kept = set(run.relie["feature"].values[largest[np.take_along_axis(size, largest, axis=1) > 0]].tolist())
    kept |= set(run.features["feature"].values.tolist())
    for features in found.values():
        for ranked in (*features.surface.values(), features.took_over):
            kept |= set(ranked.features[:LISTED])
    return sorted(kept)


def class_counts(relie: xr.Dataset) -> list[list[list[float | None]]]:
    """Return, for each task and each of `CLASSES`, the number of features and their part of the summed |IE|."""
    size = abs(relie["indirect_effect"]).sum("checkpoint").transpose("task", "feature").values
    classes = relie["feature_class"].transpose("task", "feature").values
    total = np.maximum(size.sum(axis=1), np.finfo(np.float32).tiny)
    counts = np.stack([(classes == name).sum(axis=1) for name in CLASSES], axis=1)
    parts = np.stack([(size * (classes == name)).sum(axis=1) / total for name in CLASSES], axis=1)
    return [
        [[int(count), rounded(part)] for count, part in zip(*row, strict=True)]
        for row in zip(counts, parts.tolist(), strict=True)
    ]


def run_data(run: Run, found: Found, vocabulary: Vocabulary) -> dict[str, Any]:
    """Return everything the page shows of a run.

    Args:
        run: its stores.
        found: what each contrast brings out.
        vocabulary: takes up the tokens of the examples.
    """
    features = shown_features(run, found)
    relie = run.relie.sel(feature=features).transpose(..., "task", "checkpoint", "feature")
    checkpoints = run.checkpoints
    return {
        **run.key._asdict(),
        "label": run.key.label,
        "site": run.relie.attrs["site"],
        "checkpoints": checkpoints,
        "tasks": run.tasks,
        "features": features,
        **{name: nested(relie[variable].values) for name, variable in NUMBERS.items()},
        "measurable": relie["measurable"].values.astype(int).tolist(),
        "norm": nested(relie["relative_decoder_norm"].values),
        "frequency": nested(relie["activation_frequency"].values),
        "class": [[CLASSES.index(str(name)) for name in row] for row in relie["feature_class"].values],
        "support": nested(relie["class_support"].values),
        "reverses": relie["reverses"].values.tolist(),
        "kept": relie["kept"].values.astype(int).tolist(),
        **{name: [[str(revision) for revision in row] for row in relie[name].values] for name in ("onset", "peak")},
        "counts": class_counts(run.relie),
        "examples": _examples_by_feature(run.features, vocabulary),
        "words": feature_words(run.features),
        "contrasts": [_contrast_data(features) for features in found.values()],
        "ablations": [
            ablation_data(run.ablations[task], relie["indirect_effect"].sel(task=task), vocabulary)
            for task in run.tasks
        ],
    }


def feature_words(features: xr.Dataset) -> dict[int, list[str]]:
    """Return for each feature the words in which it peaks, over the examples in which it is active."""
    ordered = features.transpose("feature", "example", "position")
    numbers, tokens, activation = (ordered[name].values for name in ("feature", "token", "activation"))
    return {
        int(feature): peak_words(_peaks(tokens[row], activation[row]), WORDS) for row, feature in enumerate(numbers)
    }


def _peaks(tokens: np.ndarray, activation: np.ndarray) -> list[tuple[list[str], int]]:
    """Return the tokens and the place of the peak of each example in which a feature is active."""
    active = np.flatnonzero(activation.max(axis=1) > 0)
    return [([str(token) for token in tokens[number]], int(activation[number].argmax())) for number in active]


def _examples_by_feature(features: xr.Dataset, vocabulary: Vocabulary) -> dict[int, dict[str, Any]]:
    examples = {}
    for feature in features["feature"].values.tolist():
        of_feature = features.sel(feature=feature).transpose("example", "position")
        examples[feature] = {
            "frequency": rounded(float(of_feature["activation_frequency"])),
            "rows": _example_rows(
                of_feature["token"].values, of_feature["token_id"].values, of_feature["activation"].values, vocabulary
            ),
        }
    return examples


def _example_rows(
    tokens: np.ndarray, token_id: np.ndarray, activation: np.ndarray, vocabulary: Vocabulary
) -> list[list[list[int]]]:
    """Return [places of the tokens, levels of activation, [peak]] of each example in which the feature is active."""
    levels = np.ceil(ACTIVATION_LEVELS * activation / max(float(activation.max()), 1e-30)).astype(int)
    rows = []
    for number in np.flatnonzero(activation.max(axis=1) > 0):
        inside = token_id[number] >= 0
        places = [vocabulary.place(str(token)) for token in tokens[number][inside]]
        rows.append([places, levels[number][inside].tolist(), [int(activation[number][inside].argmax())]])
    return rows


def _contrast_data(found: ContrastFeatures) -> dict[str, Any]:
    return {
        "surface": [[ranked.features[:LISTED], len(ranked.features)] for ranked in found.surface.values()],
        "tookOver": [found.took_over.features[:LISTED], len(found.took_over.features)],
        "changedSides": sorted(found.changed_sides),
    }
