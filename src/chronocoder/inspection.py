"""What a store holds, and which features matter for a task, as text for a terminal."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from chronocoder.errors import StoreError
from chronocoder.layout import Layout
from chronocoder.report.annotations import Annotation
from chronocoder.report.data import feature_words
from chronocoder.report.inputs import key_of
from chronocoder.stores import names
from chronocoder.terminal import shortened, table
from chronocoder.wording import counted, decimal, listed, plural, signed

SHOWN_LABELS = 4
EFFECTS = ("indirect_effect", "relative_indirect_effect")
NUMBERS = [*(f"{name}{end}" for name in EFFECTS for end in ("", "_low", "_high")), "random_level"]
NEEDED = [*NUMBERS, "measurable", "feature_class"]
COLUMNS = (
    "feature",
    "checkpoint",
    "IE",
    "interval",
    "random",
    "measurable",
    "RelIE",
    "interval",
    "class",
    "annotation and words",
)


def stores_below(directory: Path) -> str:
    """Return the stores in a directory and below, with their sizes on disk.

    Raises:
        StoreError: there is none.
    """
    rows = []
    for root, directories, _ in os.walk(directory):
        found = sorted(name for name in directories if name.endswith(".zarr"))
        directories[:] = sorted(set(directories) - set(found))
        rows += [(str(Path(root, name).relative_to(directory)), _size(Path(root, name))) for name in found]
    if not rows:
        raise StoreError(f"{directory}: neither a store nor a directory of stores; give one below results/<suite>")
    return table(f"Stores in {directory}", ("path", "on disk"), rows) + "\n"


def store_text(store: xr.Dataset) -> str:
    """Return sizes, coordinates, variables and provenance of a store."""
    size = f"{counted(len(store.data_vars), 'variable')}, {shortened(store.nbytes, 'B')} in memory"
    dimensions = [(str(name), str(length), _labels(store, str(name))) for name, length in store.sizes.items()]
    variables = [
        (str(name), _shape(of), _type(of), str(of.attrs["units"]), str(of.attrs["long_name"]))
        for name, of in store.data_vars.items()
    ]
    parts = [
        size,
        table("Dimensions", ("name", "size", "labels"), dimensions),
        table("Variables", ("name", "dimensions", "type", "units", "what it is"), variables),
        table("Provenance", ("name", "value"), list(_facts(store.attrs))),
    ]
    return "\n\n".join(parts) + "\n"


def own_examples(store: Path) -> Path | None:
    """Return where the top examples of the run are that a store of effects is of; None where there are none."""
    name = Path(Layout("").features).name
    beside = (directory / name for directory in store.resolve().parents[:2])
    return next(filter(Path.exists, beside), None)


def effects_on(store: xr.Dataset, task: str) -> xr.Dataset:
    """Return the effects on one task, in memory, with its name and unit as coordinates.

    Args:
        store: effects of a run on all tasks, or on this one.
        task: name of the task.

    Raises:
        StoreError: the store holds no effects, or none on this task.
    """
    if lacking := set(NEEDED) - set(store.data_vars):
        raise StoreError(
            f"the store holds no effects of features on a task: it lacks {listed(sorted(lacking))}; give relie.zarr of"
            " a run, or a store in its directory attribution"
        )
    effects = store[NEEDED]
    if "task" not in store.dims:
        named = {name: store.attrs[name] for name in ("task", "unit")}
        effects = effects.assign_coords(named).expand_dims("task")
    tasks = names(effects, "task")
    if task not in tasks:
        raise StoreError(f"--task {task} is not in the store; its tasks are {', '.join(tasks)}")
    found: xr.Dataset = effects.sel(task=task).load()
    return found


def features_text(
    effects: xr.Dataset, count: int, examples: xr.Dataset | None = None, annotations: Sequence[Annotation] = ()
) -> str:
    """Return the features of largest |IE| on a task at any checkpoint, with their effects at each.

    Args:
        effects: those of a run on the task, as `effects_on` returns them.
        count: how many features at most; those without any effect are left out.
        examples: top-activating examples of the run, for the words in which features peak.
        annotations: of this run and of others; those of its features stand before the words.

    Raises:
        StoreError: the examples are of another run.
    """
    run = key_of(effects)
    if examples is not None and key_of(examples) != run:
        raise StoreError(f"examples are of {key_of(examples).label}, effects of {run.label}; give those of one run")
    words = {} if examples is None else feature_words(examples)
    size = abs(effects["indirect_effect"]).max("checkpoint").fillna(0).values
    order = np.argsort(-size, kind="stable")[:count]
    features = effects["feature"].values[order[size[order] > 0]].tolist()
    about = {feature: ", ".join(words.get(feature, ())) for feature in features}
    for one in annotations:
        if one.place[:4] == (effects.attrs["suite"], *run) and one.feature in about:
            said = " · ".join(filter(None, (one.label, one.category, one.note)))
            about[one.feature] = ": ".join(filter(None, (said, about[one.feature])))
    rows = [row for feature in features for row in _rows(effects.sel(feature=feature), about[feature])]
    title = (
        f"{run.label}: {effects['task'].item()}\n"
        f"{len(features)} of {counted(effects.sizes['feature'], 'feature')}, by the largest |IE| at any checkpoint"
    )
    return f"{table(title, COLUMNS, rows)}\n\n{_note(effects)}\n"


def _rows(of_feature: xr.Dataset, about: str) -> Iterator[tuple[str, ...]]:
    """Yield a row for each checkpoint; what does not depend on it is in the first one alone."""
    constant = (str(of_feature["feature"].values), str(of_feature["feature_class"].values), about)
    for checkpoint in names(of_feature, "checkpoint"):
        at = of_feature.sel(checkpoint=checkpoint)
        effect, low, high, share, share_low, share_high, level = (float(at[number]) for number in NUMBERS)
        feature, name, told = constant
        yield (
            feature,
            checkpoint,
            signed(effect),
            f"{signed(low)} to {signed(high)}",
            f"±{decimal(level)}",
            "yes" if at["measurable"] else "no",
            decimal(share),
            f"{decimal(share_low)} to {decimal(share_high)}",
            name,
            told,
        )
        constant = ("", "", "")


def _note(effects: xr.Dataset) -> str:
    settings = json.loads(effects.attrs["settings"])
    return (
        f"IE in {plural(str(effects['unit'].item()))}: positive where the feature helps the right answer. Intervals of"
        f" {settings['confidence']:.0%} over prefixes.\n"
        f"Random: {settings['random_level']:.0%} of random directions that write as much stay within it. Measurable:"
        " beyond that, and beyond chance and rounding.\n"
        "The class goes by published RelIE; words are those in which the feature peaks."
    )


def _size(path: Path) -> str:
    return shortened(sum(file.stat().st_size for file in path.rglob("*") if file.is_file()), "B")


def _labels(store: xr.Dataset, dimension: str) -> str:
    """Return the labels of a dimension, those in the middle left out where there are many."""
    if dimension not in store.coords:
        return ""
    values = store[dimension].values
    if len(values) <= SHOWN_LABELS:
        return ", ".join(map(str, values))
    return f"{', '.join(map(str, values[: SHOWN_LABELS - 1]))}, … {values[-1]}"


def _shape(variable: xr.DataArray) -> str:
    return ", ".join(map(str, variable.dims)) or "-"


def _type(variable: xr.DataArray) -> str:
    return "string" if variable.dtype.kind == "T" else str(variable.dtype)


def _facts(attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the attributes, a row for each setting and version."""
    for name, value in attributes.items():
        parts = json.loads(value) if name == "settings" else value
        if isinstance(parts, Mapping):
            for key, of in parts.items():
                yield f"{name}.{key}", _value(of)
        else:
            yield name, _value(parts)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
