"""Compare the effects of every estimator with exact ones, over all active features of each task of a suite.

A line of the table is an estimator: what it costs an example, in gradients (two forward passes each), and for each
checkpoint Spearman's and Pearson's coefficient, mean over tasks and lowest task. `--trials` adds what else was tried.
`--stages` tells instead how well two stages work: whether the features of largest exact effect are among those chosen
to be changed exactly, and how often what is known of the error covers that of the other features.

    make run && python benchmarks/estimators.py results/nursery abstraction/batchtopk --trials
    python benchmarks/estimators.py results/nursery abstraction/batchtopk --stages
    python benchmarks/english.py results/english && python benchmarks/estimators.py results/english growth/batchtopk
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr

from chronocoder.attribution.agreement import pearson, spearman
from chronocoder.attribution.attribute import measure_effects
from chronocoder.attribution.choices import Exactly, choose_exact
from chronocoder.attribution.effects import Effects, Prompts
from chronocoder.attribution.estimators import Estimator, attribution_patching, published
from chronocoder.attribution.exact import exact
from chronocoder.attribution.grouped import Deal, Group, grouped_gradients, measure_dealt
from chronocoder.attribution.measures import mean_interval
from chronocoder.attribution.prompts import read_prompts
from chronocoder.attribution.sampling import Units, average, unit_sums, units_of
from chronocoder.attribution.statistics import errors_of
from chronocoder.config import EXACT, SCREEN, TWO_STAGES, AttributionSettings
from chronocoder.crosscoder.model import Crosscoder, load_crosscoder
from chronocoder.devices import default_device
from chronocoder.stores import load_store, strings
from chronocoder.suites.checkpoints import load_model
from chronocoder.suites.sites import Site, resolve_site

SEQUENCES = 256
LARGEST = 20
"""Features of largest exact |IE| that two stages should find, and estimated ones whose errors count for themselves."""
COUNTS = (10, 20, 40)
"""Values of `exact_features`."""
SCREENS = (SCREEN, "attribution_patching")
SAMPLES = 2000
"""Draws of the error that a band is taken from."""
SUMS = {"path_points": "midpoints", "over_tokens": "sum", "token_threshold": 0.0}
Split = Callable[[np.ndarray, np.ndarray, int, np.random.Generator], list[np.ndarray]]
"""Splits features, the largest first, into groups: (features, sizes of all, number of groups, random numbers)."""


class Trial(NamedTuple):
    """A way to estimate effects.

    Attributes:
        estimator: the function.
        settings: of the attribution.
        gradients: what it costs an example, a forward pass counting half.
    """

    estimator: Estimator
    settings: AttributionSettings
    gradients: float


def main() -> None:
    """Measure, and write a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="directory of the suite's results")
    parser.add_argument("run", help="comparison and variant, for instance abstraction/l1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", action="store_true", help="also what else was tried")
    parser.add_argument("--stages", action="store_true", help="how well two stages work instead")
    arguments = parser.parse_args()
    run = arguments.suite / arguments.run / f"seed{arguments.seed}"
    crosscoder = load_crosscoder(run / "crosscoder", default_device())
    models = [load_model(arguments.suite / "checkpoints" / name) for name in crosscoder.config.checkpoints]
    sites = [resolve_site(model, crosscoder.config.site) for model in models]
    stores = sorted((arguments.suite / "tasks").glob("*.zarr"))
    if arguments.stages:
        stages = [measure_stages(crosscoder, sites, load_store(path)) for path in stores]
        lines = stage_rows(xr.concat(stages, dim="task", join="exact"))
    else:
        trials = ESTIMATED | (TRIALS if arguments.trials else {})
        tasks = [measure(crosscoder, sites, load_store(path), trials) for path in stores]
        lines = rows(xr.concat(tasks, dim="task", join="exact"), trials)
    for line in lines:
        sys.stdout.write(line + "\n")


def measure(crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset, trials: Mapping[str, Trial]) -> xr.Dataset:
    """Return how the effects on a task by each trial, summed over examples, correlate with the exact ones.

    Returns:
        `spearman` and `pearson` (trial, checkpoint), over the features of any exact effect; and `active`, the mean
        number of features active in an example.
    """
    features = crosscoder.config.settings.dictionary_size
    effects = np.zeros((len(trials), len(sites), features))
    reference, active = np.zeros((len(sites), features)), 0
    for batch in read_prompts(crosscoder, sites, task, "zero", 64):
        changed = batch.prompts[0].change.any(dim=1)
        active += int(changed.sum())
        columns = changed.any(dim=0).nonzero()[:, 0]
        for number, (site, everything) in enumerate(zip(sites, batch.prompts, strict=True)):
            prompts, at = everything.restricted(columns), columns.cpu().numpy()
            found = exact(site, prompts, AttributionSettings(batch_size=SEQUENCES))
            reference[number, at] += found.features.sum(dim=0).cpu().numpy()
            for row, trial in enumerate(trials.values()):
                found = trial.estimator(site, prompts, trial.settings)
                effects[row, number, at] += found.features.sum(dim=0).cpu().numpy()
    checkpoint = list(crosscoder.config.checkpoints)
    true = xr.DataArray(reference, dims=("checkpoint", "feature"), coords={"checkpoint": checkpoint})
    coordinates = {"trial": list(trials), "checkpoint": checkpoint}
    estimated = xr.DataArray(effects, dims=("trial", "checkpoint", "feature"), coords=coordinates).where(true != 0)
    agreement = {name: of(estimated, true, "feature") for name, of in (("spearman", spearman), ("pearson", pearson))}
    return xr.Dataset({**agreement, "active": active / task.sizes["example"]})


def rows(tasks: xr.Dataset, trials: Mapping[str, Trial]) -> Iterator[str]:
    """Yield the lines of the table, of `measure`'s results along a dimension task."""
    checkpoints = tasks["checkpoint"].values.tolist()
    yield "| estimator | gradients | " + " | ".join(f"{name}: Spearman | Pearson" for name in checkpoints) + " |"
    yield "| --- | --- |" + " --- | --- |" * len(checkpoints)
    for name, trial in trials.items():
        cells = [name, f"{trial.gradients:g}"]
        for checkpoint in checkpoints:
            here = tasks.sel(trial=name, checkpoint=checkpoint)
            cells += [f"{_short(of.mean())} {_short(of.min())}" for of in (here["spearman"], here["pearson"])]
        yield "| " + " | ".join(cells) + " |"
    yield f"| exact | {float(tasks['active'].mean()) / 2:.0f} |" + " 1 1 | 1 1 |" * len(checkpoints)


def measure_stages(
    crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset, counts: Sequence[int] = COUNTS, **values: Any
) -> xr.Dataset:
    """Return how well two stages work on a task, by what screens the features and how many of them are changed exactly.

    Args:
        crosscoder: folded.
        sites: the site in each checkpoint's model.
        task: pairs.
        counts: values of `exact_features`.
        values: other settings of the attribution.

    Returns:
        `score_stages`, along the dimensions screen and count.
    """
    names = (EXACT, *SCREENS)
    settings = [settings_with(estimator=name, random_directions=0, **values) for name in names]
    exactly, *screened = (measure_effects(crosscoder, sites, task, of_one) for of_one in settings)
    chosen = [settings_with(estimator=TWO_STAGES, exact_features=count, **values) for count in counts]
    by_screen = [xr.concat([score_stages(found, exactly, task, of) for of in chosen], "count") for found in screened]
    return xr.concat(by_screen, "screen").assign_coords(screen=list(SCREENS), count=list(counts))


def score_stages(
    screened: xr.Dataset, exactly: xr.Dataset, task: xr.Dataset, settings: AttributionSettings
) -> xr.Dataset:
    """Return how well two stages work, of effects in the mean of conditions.

    Args:
        screened: what `measure_effects` returns by the estimator that screens.
        exactly: the same of exact effects.
        task: the task.
        settings: how many features are changed exactly.

    Returns:
        `measured`, the fraction of the features of any effect that is changed exactly; and by checkpoint `recall`, the
        fraction of the `LARGEST` by exact |IE| that are among them, and `recall_by_size`, among as many for each
        checkpoint by the mean size of the estimates alone; `covered`,
        the fraction of the other features whose error lies within the interval of errors that are added to a mean of
        zero, and `covered_largest`, that of the `LARGEST` by exact |IE| among these.
    """
    chosen, units = choose_exact(screened["effects"].values, settings), units_of(task)
    found = in_two_stages(screened, exactly, chosen)
    true, estimated = (_means(of, units) for of in (exactly, found))
    size = abs(_overall(true))
    active = np.flatnonzero(size.any("checkpoint"))
    others = np.setdiff1d(active, chosen.features)
    zeros = xr.zeros_like(true.sel(feature=others)).expand_dims(sample=SAMPLES)
    errors = errors_of(found, units).added_to(zeros, np.random.default_rng(settings.seed))
    band = mean_interval(_overall(errors), settings.confidence)
    missed = _overall(estimated - true).sel(feature=others)
    covered = ((missed >= band.low) & (missed <= band.high)).astype(float)
    mean_size = abs(screened["effects"]).mean("example").transpose("feature", "checkpoint")
    by_size = (_places(mean_size) < settings.exact_features).any("checkpoint")
    scores = {
        "recall": _of_largest(size["feature"].isin(chosen.features), size),
        "recall_by_size": _of_largest(by_size, size),
        "covered": covered.mean("feature"),
        "covered_largest": _of_largest(covered, size.sel(feature=others)),
    }
    return xr.Dataset({"measured": np.isin(active, chosen.features).mean(), **scores})


def _of_largest(holds: xr.DataArray, size: xr.DataArray) -> xr.DataArray:
    """Return of which fraction of the `LARGEST` features something holds, dims (checkpoint,); NaN without any."""
    return holds.astype(float).where((size > 0) & (_places(size) < LARGEST)).mean("feature")


def _places(size: xr.DataArray) -> xr.DataArray:
    """Return the place of each feature, the largest first, dims (feature, checkpoint)."""
    return size.copy(data=np.argsort(np.argsort(-size.values, axis=0, kind="stable"), axis=0))


def _means(measured: xr.Dataset, units: Units) -> xr.DataArray:
    return average(unit_sums(measured["effects"], units), units)


def _overall(means: xr.DataArray) -> xr.DataArray:
    """Return the mean of conditions, dims (..., feature, checkpoint)."""
    return means.isel(condition=0, drop=True).transpose(..., "feature", "checkpoint")


def in_two_stages(screened: xr.Dataset, exactly: xr.Dataset, chosen: Exactly) -> xr.Dataset:
    """Return what `measure_effects` would in two stages, from effects that were all both estimated and measured."""
    replaced = screened["feature"].isin(chosen.features)
    return screened.drop_dims("checked_feature").assign(
        effects=screened["effects"].where(~replaced, exactly["effects"]),
        estimates=screened["effects"].sel(feature=chosen.checked).rename(feature="checked_feature"),
        estimator=("feature", strings(np.where(replaced, EXACT, SCREEN))),
    )


def stage_rows(tasks: xr.Dataset) -> Iterator[str]:
    """Yield the lines of the table, of `measure_stages`' results along a dimension task."""
    checkpoints = tasks["checkpoint"].values.tolist()
    heads = (f"{name}: recall | by size | covered | of {LARGEST} largest" for name in checkpoints)
    yield "| screened by | exact_features | measured | " + " | ".join(heads) + " |"
    yield "| --- | --- | --- |" + " --- | --- | --- | --- |" * len(checkpoints)
    for screen, count in itertools.product(tasks["screen"].values, tasks["count"].values):
        here = tasks.sel(screen=screen, count=count)
        cells = [screen, f"{count}", _short(here["measured"].mean())]
        for checkpoint in checkpoints:
            scores = here.drop_vars("measured").sel(checkpoint=checkpoint)
            cells += [f"{_short(of.mean())} {_short(of.min())}" for of in scores.data_vars.values()]
        yield "| " + " | ".join(cells) + " |"


def _short(value: xr.DataArray) -> str:
    return f"{float(value):.3f}".replace("0.", ".", 1)


def dealing(split: Split) -> Estimator:
    """Return grouped gradients whose groups are formed by the features' written size, |change| times norm."""

    def estimate(site: Site, prompts: Prompts, settings: AttributionSettings) -> Effects:
        written = (prompts.change.square().sum(dim=1).sqrt() * prompts.weight.norm(dim=1)).cpu().numpy()
        groups: list[Group] = []
        for row, (example, sizes) in enumerate(zip(prompts.examples.tolist(), written, strict=True)):
            ranked = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
            generator = np.random.default_rng([settings.seed, example])
            groups += [Group(row, members) for members in split(ranked, sizes, settings.groups, generator)]
        alone = torch.zeros_like(prompts.change[:, 0], dtype=torch.bool)
        return measure_dealt(site, prompts, Deal(alone, [group for group in groups if len(group.features)]), settings)

    return estimate


def spread(ranked: np.ndarray, _: np.ndarray, groups: int, generator: np.random.Generator) -> list[np.ndarray]:
    """Give each group one of the largest features, one of as many next ones, and so on, at random."""
    rounds = np.arange(len(ranked)) // groups
    shuffled = ranked[np.lexsort((generator.random(len(ranked)), rounds))]
    return [shuffled[place::groups] for place in range(groups)]


def equal_sums(ranked: np.ndarray, sizes: np.ndarray, groups: int, _: np.random.Generator) -> list[np.ndarray]:
    """Put each feature, the largest first, into the group whose sizes add up to the least."""
    members: list[list[int]] = [[] for _ in range(groups)]
    sums = np.zeros(groups)
    for feature in ranked:
        least = int(sums.argmin())
        members[least].append(feature)
        sums[least] += sizes[feature]
    return [np.array(group, dtype=int) for group in members]


def largest_together(ranked: np.ndarray, _: np.ndarray, groups: int, __: np.random.Generator) -> list[np.ndarray]:
    """Put features of similar size into one group."""
    return np.array_split(ranked, groups)


def two_draws(site: Site, prompts: Prompts, settings: AttributionSettings) -> Effects:
    """Average grouped gradients over two draws of groups."""
    draws = [grouped_gradients(site, prompts, settings.model_copy(update={"seed": seed})) for seed in (0, 1)]
    return Effects(*(torch.stack(values).mean(dim=0) for values in zip(*draws, strict=True)))


def settings_with(**values: Any) -> AttributionSettings:
    """Return settings of the attribution with large batches."""
    return AttributionSettings(batch_size=SEQUENCES, **values)


def grouped(alone: int, groups: int, points: int = 1) -> Trial:
    """Return grouped gradients; what finds the largest features, and the error term, cost another two gradients."""
    chosen = settings_with(alone=alone, groups=groups, points=points)
    return Trial(grouped_gradients, chosen, 2 + alone / 2 + groups * points)


DEFAULT = settings_with()
ESTIMATED = {
    "attribution_patching": Trial(attribution_patching, DEFAULT, 1),
    "published": Trial(published, DEFAULT, DEFAULT.steps),
    "published, midpoints, sum, no threshold": Trial(published, settings_with(**SUMS), DEFAULT.steps),
    "grouped_gradients": grouped(DEFAULT.alone, DEFAULT.groups),
}
TRIALS = {
    **{f"{groups} random groups": grouped(0, groups) for groups in (5, 10, 20, 32)},
    "10 random groups, 2 points": grouped(0, 10, 2),
    "10 random groups, 3 points": grouped(0, 10, 3),
    "10 random groups, mean of 2 draws": Trial(two_draws, settings_with(alone=0, groups=10), 22),
    "10 groups, large features apart": Trial(dealing(spread), settings_with(groups=10), 11),
    "10 groups of equal sums": Trial(dealing(equal_sums), settings_with(groups=10), 11),
    "10 groups, large features together": Trial(dealing(largest_together), settings_with(groups=10), 11),
    **{
        f"{alone} alone, {groups} random {'groups' if groups > 1 else 'group'}": grouped(alone, groups)
        for alone in (4, 8, 16)
        for groups in (1, 8, 12)
        if (alone, groups) != (DEFAULT.alone, DEFAULT.groups)
    },
}


if __name__ == "__main__":
    main()
