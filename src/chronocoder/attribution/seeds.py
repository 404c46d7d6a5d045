"""How far what is found depends on the seed: features matched between crosscoders, and their effects compared.

Two crosscoders that differ only in their seed learn dictionaries in another order, and in part other dictionaries.
Features are matched one to one by the cosine of their decoder rows, as Paulo and Belrose do (arXiv 2501.16615).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from scipy.optimize import linear_sum_assignment

from chronocoder.attribution.agreement import class_agreement, pearson, spearman
from chronocoder.attribution.measures import UNDECIDED
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig
from chronocoder.errors import ConfigError, StoreError

COSINES_AT_LEAST = (0.0, 0.5, 0.7, 0.9)
COMPARED = ["indirect_effect", "relative_indirect_effect", "measurable", "activation_frequency", "feature_class"]

LONG_NAMES = {
    "matched_feature": "feature of this seed that the reference's feature is matched with; -1: none",
    "cosine": "cosine of the decoder rows of the two, all checkpoints side by side in normalised units",
    "features_matched": "matched features of at least this cosine",
    "features_active": "those of them that are active on the task in either seed",
    "features_measurable": "those of them that have a measurable effect in both seeds",
    "classes_compared": "those of them whose class is decided in both seeds",
    "indirect_effect_spearman": "rank correlation of the active features' indirect effects in the two seeds",
    "indirect_effect_pearson": "correlation of the active features' indirect effects in the two seeds",
    "relative_indirect_effect_difference": "mean absolute difference of the measurable features' RelIE",
    "classes_in_either": "those of them whose class is decided in one of the seeds at least",
    "class_agreement": "part of the features of decided class whose class is the same in both seeds",
    "class_kappa": "Cohen's kappa of the decided classes: agreement beyond chance",
}
"""Name in words of each variable; all of them are dimensionless."""


class SeedRun(NamedTuple):
    """What is compared of a crosscoder of one seed.

    Attributes:
        config: of the crosscoder.
        rows: its features' decoder rows, as `decoder_rows` returns them.
        relie: its effects, dims (task, checkpoint, feature).
    """

    config: CrosscoderConfig
    rows: xr.DataArray
    relie: xr.Dataset


def read_run(crosscoder: Crosscoder, relie: xr.Dataset) -> SeedRun:
    """Keep of a crosscoder what is compared: the decoder rows of the features that are active on some task.

    Raises:
        StoreError: the effects are not this crosscoder's.
    """
    check_effects(crosscoder, relie)
    active = (relie["activation_frequency"] > 0).any("task").values
    return SeedRun(crosscoder.config, decoder_rows(crosscoder, np.flatnonzero(active)), relie)


def check_effects(crosscoder: Crosscoder, relie: xr.Dataset) -> None:
    """Check that effects are those of a crosscoder's features.

    Raises:
        StoreError: they are not; the message names what differs.
    """
    config = crosscoder.config
    expected = {
        **{key: crosscoder.facts[key] for key in ("suite", "comparison", "variant", "site", "seed", "commits")},
        "checkpoints": list(config.checkpoints),
        "features": config.settings.dictionary_size,
    }
    dimensions = {"checkpoints": [str(name) for name in relie["checkpoint"].values], "features": relie.sizes["feature"]}
    found = {**relie.attrs, **dimensions}
    for key, value in expected.items():
        if found.get(key) != value:
            raise StoreError(
                f"the effects given for the crosscoder of seed {config.seed} are not its own: '{key}' is {value} in the"
                f" crosscoder and {found.get(key)} in the effects; give the relie.zarr beside each crosscoder, in the"
                " same order"
            )


@torch.no_grad()
def decoder_rows(crosscoder: Crosscoder, features: np.ndarray) -> xr.DataArray:
    """Return decoder rows in normalised units, in which no checkpoint outweighs another; folding changes nothing.

    Args:
        crosscoder: folded or not.
        features: the features whose rows are wanted.

    Returns:
        Dims (feature, checkpoint, d_model).
    """
    rows = crosscoder.decoder_rows[torch.from_numpy(features).to(crosscoder.decoder_rows.device)]
    if crosscoder.config.folded:
        rows = rows * crosscoder.scale[:, None]
    coordinates = {"feature": features, "checkpoint": list(crosscoder.config.checkpoints)}
    return xr.DataArray(rows.cpu().numpy(), dims=("feature", "checkpoint", "d_model"), coords=coordinates)


def compare_seeds(runs: Sequence[SeedRun]) -> xr.Dataset:
    """Match the features of each seed with those of the first, and say how stable effects and classes are.

    Returns:
        The variables of `match_seeds` and of `seed_stability`.

    Raises:
        ConfigError: there are fewer than two seeds.
        StoreError: the crosscoders differ in more than their seed, or were not measured on the same tasks.
    """
    _check_seeds([run.config for run in runs])
    by_seed = {run.config.seed: run for run in runs}
    features = runs[0].config.settings.dictionary_size
    matches = match_seeds({seed: run.rows for seed, run in by_seed.items()}, features)
    return matches.merge(seed_stability({seed: run.relie for seed, run in by_seed.items()}, matches))


def match_seeds(rows: Mapping[int, xr.DataArray], features: int) -> xr.Dataset:
    """Match the features of each seed with those of the first, the reference.

    Args:
        rows: decoder rows by seed, as `decoder_rows` returns them.
        features: size of the reference's dictionary.

    Returns:
        The variables of `match_features` for all the reference's features, dims (seed, feature): seed is each but the
        reference's.
    """
    (_, reference), *others = rows.items()
    matches = xr.concat([match_features(reference, other) for _, other in others], dim="seed")
    everything = matches.reindex(feature=np.arange(features), fill_value={"matched_feature": -1, "cosine": np.nan})
    return _described(everything.assign_coords(seed=[seed for seed, _ in others]))


def match_features(reference: xr.DataArray, other: xr.DataArray) -> xr.Dataset:
    """Match features one to one, so that the sum of the cosines of their decoder rows is as large as it can be.

    While it is solved the assignment takes 12 bytes for each pair of features, 3 GiB for 16 384 of either: a cosine as
    float32, and as float64 for scipy. No cosine is too small for a match: a threshold is for the analysis.

    Args:
        reference: decoder rows, dims (feature, checkpoint, d_model).
        other: the same of the other crosscoder; its number of features may differ.

    Returns:
        `matched_feature`, -1 where the other has too few, and `cosine`, NaN there; dims (feature,), the reference's.
    """
    opposite = -directions(reference) @ directions(other).T  # the assignment minimises; to let it maximise is a copy
    own, matched = linear_sum_assignment(opposite)
    partner = np.full(reference.sizes["feature"], -1)
    cosine = np.full(reference.sizes["feature"], np.nan, dtype=np.float32)
    partner[own], cosine[own] = other["feature"].values[matched], -opposite[own, matched]
    return xr.Dataset(
        {"matched_feature": ("feature", partner), "cosine": ("feature", cosine)},
        coords={"feature": reference["feature"].values},
    )


def directions(rows: xr.DataArray) -> np.ndarray:
    """Return unit vectors, shape (feature, checkpoint times d_model), zero where a row is."""
    flat = rows.values.reshape(rows.sizes["feature"], rows.sizes["checkpoint"] * rows.sizes["d_model"])
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    unit: np.ndarray = flat / np.where(norms > 0, norms, 1)
    return unit


def seed_stability(relies: Mapping[int, xr.Dataset], matches: xr.Dataset) -> xr.Dataset:
    """Say how stable indirect effects, their shares and the classes are over matched features.

    Effects are correlated over the features that are active on the task in either seed: those active in neither have no
    effect in both, and would speak for a stability that nothing has tested. RelIE is compared where the effect is
    measurable, at whatever checkpoint, in both seeds; classes where they are decided in both.

    Args:
        relies: effects by seed, dims (task, checkpoint, feature); the first is the reference's.
        matches: as `match_seeds` returns it.

    Returns:
        Dims (seed, cosine_at_least, task, checkpoint), the last one for effects and RelIE only: the features are those
        matched with a cosine of at least `cosine_at_least`. NaN where too few features are left, or all are equal.

    Raises:
        StoreError: the effects were not measured on the same tasks.
    """
    _check_tasks(relies)
    (_, reference), *others = ((seed, relie[COMPARED]) for seed, relie in relies.items())
    stable = [_over_cosines(reference, other, matches.sel(seed=seed, drop=True)) for seed, other in others]
    joined = xr.concat(stable, dim="seed").assign_coords(seed=[seed for seed, _ in others])
    return _described(joined.transpose("seed", "cosine_at_least", "task", "checkpoint"))


def _over_cosines(reference: xr.Dataset, other: xr.Dataset, match: xr.Dataset) -> xr.Dataset:
    compared = []
    for least in COSINES_AT_LEAST:
        kept = match.isel(feature=(match["cosine"] >= least).values)
        own = reference.sel(feature=kept["feature"].values)
        partners = other.sel(feature=kept["matched_feature"].values).assign_coords(feature=own["feature"].values)
        compared.append(_compare(own, partners))
    return xr.concat(compared, dim="cosine_at_least").assign_coords(cosine_at_least=list(COSINES_AT_LEAST))


def _compare(first: xr.Dataset, second: xr.Dataset) -> xr.Dataset:
    """Compare the effects of features that are matched one by one."""
    active = (first["activation_frequency"] > 0) | (second["activation_frequency"] > 0)
    measurable = first["measurable"].any("checkpoint") & second["measurable"].any("checkpoint")
    change = abs(first["relative_indirect_effect"] - second["relative_indirect_effect"])
    effect, other_effect = (dataset["indirect_effect"].where(active) for dataset in (first, second))
    return _compare_classes(first["feature_class"], second["feature_class"]).assign(
        features_matched=first.sizes["feature"],
        features_active=active.sum("feature"),
        features_measurable=measurable.sum("feature"),
        indirect_effect_spearman=spearman(effect, other_effect, "feature"),
        indirect_effect_pearson=pearson(effect, other_effect, "feature"),
        relative_indirect_effect_difference=change.where(measurable).mean("feature"),
    )


def _compare_classes(first: xr.DataArray, second: xr.DataArray) -> xr.Dataset:
    decided = ~(first.isin(UNDECIDED) | second.isin(UNDECIDED))
    count = decided.sum("feature")
    either = (~first.isin(UNDECIDED) | ~second.isin(UNDECIDED)).sum("feature")
    agreement, kappa = class_agreement(first, second, decided, "feature")
    return xr.Dataset(
        {
            "classes_compared": count,
            "classes_in_either": either,
            "class_agreement": agreement,
            "class_kappa": kappa,
        }
    )


def _check_seeds(configs: Sequence[CrosscoderConfig]) -> None:
    seeds = [config.seed for config in configs]
    if len(set(seeds)) < 2 or len(set(seeds)) < len(seeds):
        found = ", ".join(str(seed) for seed in seeds)
        raise ConfigError(f"seeds: found {found}; two or more different ones are needed, add them to the configuration")
    first, *others = [{**asdict(config), **config.settings.model_dump()} for config in configs]
    for seed, other in zip(seeds[1:], others, strict=True):
        for key in first:
            if key not in ("seed", "settings") and other.get(key) != first[key]:
                raise StoreError(
                    f"crosscoders of seeds {seeds[0]} and {seed} differ in '{key}': {first[key]} and {other.get(key)};"
                    " give crosscoders that differ in nothing but their seed"
                )


def _check_tasks(relies: Mapping[int, xr.Dataset]) -> None:
    (first, own), *others = ((seed, [str(task) for task in relie["task"].values]) for seed, relie in relies.items())
    for seed, tasks in others:
        if tasks != own:
            raise StoreError(
                f"effects of seeds {first} and {seed} are on the tasks {', '.join(own)} and {', '.join(tasks)}; collect"
                " the same tasks, in the same order, for every seed"
            )


def _described(dataset: xr.Dataset) -> xr.Dataset:
    """Return the dataset with the name of each variable in words."""
    bare = dataset.drop_attrs()
    named = {name: bare[name].assign_attrs(long_name=LONG_NAMES[str(name)], units="1") for name in bare.data_vars}
    return bare.assign(named)
