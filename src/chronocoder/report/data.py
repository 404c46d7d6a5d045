"""What the page shows of each run, as plain lists and dicts that become JSON."""

from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from chronocoder.report.ablations import ablation_data
from chronocoder.report.compact import Vocabulary, nested, rounded
from chronocoder.report.conditions import condition_data
from chronocoder.report.contrasts import Found
from chronocoder.report.inputs import EXACT_ABLATION, Run, names
from chronocoder.report.tasks import groups_of_kind
from chronocoder.report.text import peak_words, plural
from chronocoder.tasks.groups import KINDS

CLASSES = ("emerged", "maintained", "discontinued", "transient", "intermittent", "uncertain", "no effect")
SHOWN_PER_TASK = 24
WORDS = 4
ACTIVATION_LEVELS = 9
NUMBERS = {
    "effect": "indirect_effect",
    "low": "indirect_effect_low",
    "high": "indirect_effect_high",
    "share": "relative_indirect_effect",
    "q": "q_value",
    "level": "random_level",
}


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
    for of_contrast in found.values():
        kept |= set(of_contrast.numbers)
    return sorted(kept)


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
        "units": [plural(unit) for unit in run.units.values()],
        "metrics": names(run.relie, "metric"),
        "isExact": run.estimator == EXACT_ABLATION,
        "features": features,
        **{name: nested(relie[variable].values) for name, variable in NUMBERS.items()},
        "measurable": relie["measurable"].values.astype(int).tolist(),
        "norm": nested(relie["relative_decoder_norm"].values),
        "frequency": nested(relie["activation_frequency"].values),
        "class": class_places(relie).tolist(),
        "support": nested(relie["class_support"].values),
        "reverses": relie["reverses"].values.astype(int).tolist(),
        "disagree": relie["conditions_disagree"].values.astype(int).tolist(),
        "kept": relie["kept"].values.astype(int).tolist(),
        **{name: [[str(revision) for revision in row] for row in relie[name].values] for name in ("onset", "peak")},
        "conditions": [condition_data(relie.sel(task=task)) for task in run.tasks],
        "groups": group_data(relie),
        "codes": code_data(run.evaluation, features),
        "examples": _examples_by_feature(run.features, vocabulary),
        "words": feature_words(run.features),
        "ablations": [
            ablation_data(run.ablations[task], relie["indirect_effect"].sel(task=task), vocabulary)
            for task in run.tasks
        ],
    }


def group_data(relie: xr.Dataset) -> list[dict[str, Any]]:
    """Return RelIE of features by language and by phenomenon, and where their IE on a group is not zero for certain.

    Args:
        relie: effects of the features the page shows.
    """
    found = []
    for kind in filter(partial(groups_of_kind, relie), KINDS):
        own = relie.isel(group=relie["group_kind"].values == kind).transpose(..., "group", "checkpoint", "feature")
        acts = (own["group_indirect_effect_low"] > 0) | (own["group_indirect_effect_high"] < 0)
        share = nested(own["group_relative_indirect_effect"].values)
        found.append(
            {"kind": kind, "names": names(own, "group"), "acts": acts.values.astype(int).tolist(), "share": share}
        )
    return found


def class_places(relie: xr.Dataset) -> np.ndarray:
    """Return the class of each feature by each basis as a place in `CLASSES`, shape (basis, task, feature)."""
    normalised = relie["normalised_class"].transpose("normalisation", "task", "feature")
    published = relie["feature_class"].transpose("task", "feature").values[None]
    classes = np.concatenate([published, normalised.values]).astype(object)
    places: np.ndarray = np.vectorize(CLASSES.index, otypes=[int])(classes)
    return places


def code_data(evaluation: xr.Dataset, features: list[int]) -> dict[str, Any]:
    """Return how far each checkpoint supports the codes of features."""
    codes = evaluation.sel(feature=features).transpose(..., "checkpoint", "feature")
    return {
        "supported": codes["code_supported"].values.astype(int).tolist(),
        "r2": nested(codes["own_code_r2"].values),
        "preactivation": nested(codes["preactivation_share"].values),
    }


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


def _examples_by_feature(features: xr.Dataset, vocabulary: Vocabulary) -> dict[int, dict[str, Any]]:
    examples = {}
    for feature in features["feature"].values.tolist():
        of_feature = features.sel(feature=feature).transpose("example", "position", ...)
        examples[feature] = {
            "frequency": rounded(float(of_feature["activation_frequency"])),
            "rows": _example_rows(of_feature, vocabulary),
            "languages": _language_shares(of_feature["language_share"]),
        }
    return examples


def _language_shares(shares: xr.DataArray) -> list[tuple[str, float | None]]:
    """Return the languages with the fraction of a feature's activation in each; none where the text names none."""
    by_language = zip(shares["language"].values.tolist(), shares.values.tolist(), strict=True)
    return [(name, rounded(share)) for name, share in by_language if name]


def _example_rows(of_feature: xr.Dataset, vocabulary: Vocabulary) -> list[list[Any]]:
    """Return [places of tokens, levels of activation, [peak], language and source] of each example that is active."""
    names = ("token", "token_id", "activation", "example_language", "example_source")
    tokens, token_id, activation, languages, sources = (of_feature[name].values for name in names)
    levels = np.ceil(ACTIVATION_LEVELS * activation / max(float(activation.max()), 1e-30)).astype(int)
    rows = []
    for number in np.flatnonzero(activation.max(axis=1) > 0):
        inside = token_id[number] >= 0
        places = [vocabulary.place(str(token)) for token in tokens[number][inside]]
        peak = int(activation[number][inside].argmax())
        origin = ", ".join(filter(None, (str(languages[number]), str(sources[number]))))
        rows.append([places, levels[number][inside].tolist(), [peak], origin])
    return rows
