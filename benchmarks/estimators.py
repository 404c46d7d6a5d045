"""Show why an estimator agrees with exact ablation, or does not, on the default experiment's results.

Integrated gradients are the mean of gradients along a path from the clean activation to that in which all features and
the error term are zero. For points on the path this prints the mean metric, and how the effects by the gradient at that
one point correlate with the exact effects, over all active features: mean over tasks of Spearman's coefficient.

    make run && python benchmarks/estimators.py results/nursery abstraction/l1
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from chronocoder.attribution.agreement import spearman
from chronocoder.attribution.effects import (
    Prompts,
    attribution_patching,
    clean_gradient,
    effects_along,
    exact,
    integrated_gradients,
    metric,
)
from chronocoder.attribution.prompts import read_prompts
from chronocoder.crosscoder.model import Crosscoder, load_crosscoder
from chronocoder.devices import default_device
from chronocoder.stores import load_store
from chronocoder.suites.checkpoints import load_model
from chronocoder.suites.sites import Site, resolve_site

POINTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
ESTIMATORS = {"attribution_patching": attribution_patching, "integrated_gradients": integrated_gradients}
SEQUENCES = 256


class Task(NamedTuple):
    """What is measured of one task.

    Attributes:
        effects: estimated, dims (name, checkpoint, feature); a name is a point on the path or an estimator.
        exact: dims (checkpoint, feature).
        metric: at the points of the path, dims (name, checkpoint).
    """

    effects: xr.DataArray
    exact: xr.DataArray
    metric: xr.DataArray


def main() -> None:
    """Measure, and write a table for each checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", type=Path, help="directory of the suite's results")
    parser.add_argument("run", help="comparison and variant, for instance abstraction/l1")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    crosscoder = load_crosscoder(
        arguments.suite / arguments.run / f"seed{arguments.seed}" / "crosscoder", default_device()
    )
    models = [load_model(arguments.suite / "checkpoints" / name) for name in crosscoder.config.checkpoints]
    sites = [resolve_site(model, crosscoder.config.site) for model in models]
    tasks = [
        measure(crosscoder, sites, load_store(path)) for path in sorted((arguments.suite / "tasks").glob("*.zarr"))
    ]
    agreement = xr.concat(
        [spearman(task.effects.where(task.exact != 0), task.exact, "feature") for task in tasks], dim="task"
    )
    size = xr.concat([abs(task.metric) for task in tasks], dim="task").mean("task")
    size = size / size.sel(name=str(POINTS[0]))
    for checkpoint in crosscoder.config.checkpoints:
        sys.stdout.write(f"{checkpoint}\n{'':22}Spearman: mean, lowest task   |metric| / clean\n")
        for name in agreement["name"].values:
            here = agreement.sel(name=name, checkpoint=checkpoint)
            along = f"{float(size.sel(name=name, checkpoint=checkpoint)):12.2f}" if name in size["name"] else ""
            sys.stdout.write(f"{name!s:22}{float(here.mean()):8.3f} {float(here.min()):8.3f} {along}\n")


def measure(crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset) -> Task:
    """Return the effects of all features on one task by the gradient at each point, by estimators, and exactly."""
    names = [*map(str, POINTS), *ESTIMATORS]
    features = crosscoder.config.settings.dictionary_size
    effects = np.zeros((len(names), len(sites), features))
    exactly, along = np.zeros((len(sites), features)), np.zeros((len(POINTS), len(sites)))
    for batch in read_prompts(crosscoder, sites, task, "zero", SEQUENCES):
        changed = batch.prompts[0].change.any(dim=1).any(dim=0).nonzero()[:, 0]
        for number, (site, everything) in enumerate(zip(sites, batch.prompts, strict=True)):
            prompts, columns = everything.restricted(changed), changed.cpu().numpy()
            exactly[number, columns] += exact(site, prompts, 1, SEQUENCES).features.sum(dim=0).cpu().numpy()
            for row, estimate in enumerate(ESTIMATORS.values(), len(POINTS)):
                found = estimate(site, prompts, 10, SEQUENCES)
                effects[row, number, columns] += found.features.sum(dim=0).cpu().numpy()
            for row, point in enumerate(POINTS):
                moved = at_point(prompts, point)
                found = effects_along(clean_gradient(site, moved), prompts)
                effects[row, number, columns] += found.features.sum(dim=0).cpu().numpy()
                with torch.no_grad():
                    along[row, number] += float(metric(site, moved, moved.state.activation[None]).sum())
    coordinates = {"name": names, "checkpoint": list(crosscoder.config.checkpoints)}
    estimated = xr.DataArray(effects, dims=("name", "checkpoint", "feature"), coords=coordinates)
    of_points = {**coordinates, "name": names[: len(POINTS)]}
    return Task(
        estimated,
        xr.DataArray(exactly, dims=("checkpoint", "feature"), coords={"checkpoint": coordinates["checkpoint"]}),
        xr.DataArray(along, dims=("name", "checkpoint"), coords=of_points),
    )


def at_point(prompts: Prompts, point: float) -> Prompts:
    """Return prompts whose activation lies on the path from clean (0) to the end (1)."""
    x = prompts.state.activation
    return prompts._replace(state=prompts.state._replace(activation=x + point * (prompts.end - x)))


if __name__ == "__main__":
    main()
