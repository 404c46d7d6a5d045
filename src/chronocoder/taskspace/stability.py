"""How similar successive checkpoints, seeds of tuning, and transfer and gradients place the tasks."""

from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise, permutations

import numpy as np
import xarray as xr

from chronocoder.config import TaskSpaceSettings
from chronocoder.stores import labelled
from chronocoder.taskspace.mantel import mantel
from chronocoder.taskspace.points import AGREEMENT, DIMS, STABILITY, Space, common_tasks
from chronocoder.taskspace.relabelling import FEWEST, UNDEFINED, Tested, beside_chance, orders
from chronocoder.taskspace.scaling import procrustes_similarities


def stability(
    spaces: Sequence[Sequence[Space]], by_seed: Sequence[Sequence[Space]], settings: TaskSpaceSettings
) -> dict[str, xr.Variable]:
    """Return how similar each checkpoint's space is to that before, and to that of other seeds of tuning.

    The space of all seeds is less noisy than those of single seeds. So the control, two seeds of one checkpoint, is to
    be held against two seeds of successive checkpoints.
    """
    generator = np.random.default_rng([settings.seed, STABILITY])
    found = [
        [UNDEFINED, *(compare_spaces(*pair, settings, generator) for pair in pairwise(of_basis))] for of_basis in spaces
    ]
    names = {
        "stability": ("observed", "Procrustes similarity with the space of the checkpoint before"),
        "stability_p": ("p_value", "fraction of relabellings of the tasks with at least this similarity"),
        "stability_smallest_p": ("smallest_p", "smallest p-value that so many tasks can have"),
        "stability_chance": ("chance", "mean similarity with tasks relabelled"),
    }
    variables = {
        name: labelled(DIMS, [[getattr(each, field) for each in of_basis] for of_basis in found], words)
        for name, (field, words) in names.items()
    }
    same = [_mean_similarity(combinations(of_checkpoint, 2)) for of_checkpoint in zip(*by_seed, strict=True)]
    successive = [
        np.nan,
        *(
            _mean_similarity((before[one], after[other]) for one, other in permutations(range(len(by_seed)), 2))
            for before, after in pairwise(zip(*by_seed, strict=True))
        ),
    ]
    of_seeds = {
        "seed_stability": (same, "Procrustes similarity of the transfer spaces of two seeds of tuning, mean"),
        "seed_stability_before": (
            successive,
            "Procrustes similarity of one seed's transfer space with that of another at the checkpoint before, mean",
        ),
    }
    return {**variables, **{name: labelled(DIMS[1:], *described) for name, described in of_seeds.items()}}


def _mean_similarity(pairs: Iterable[tuple[Space, Space]]) -> float:
    """Return the mean Procrustes similarity of pairs of spaces, those left out that have too few tasks in common."""
    found = []
    for first, second in pairs:
        one, other = common_tasks(first, second)
        if len(one) >= FEWEST:
            points = first.configuration.points[one], second.configuration.points[other]
            found.append(procrustes_similarities(*points, np.arange(len(one))[None])[0])
    return float(np.mean(found)) if found else np.nan


def agreement(spaces: Sequence[Sequence[Space]], settings: TaskSpaceSettings) -> dict[str, xr.Variable]:
    """Return how far transfer and gradients tell the same, by a Mantel test over the tasks that both tell of."""
    generator, found = np.random.default_rng([settings.seed, AGREEMENT]), []
    for first, second in zip(*spaces, strict=True):
        one, other = common_tasks(first, second)
        matrices = first.similarity[np.ix_(one, one)], second.similarity[np.ix_(other, other)]
        found.append(mantel(*matrices, settings.permutations, generator))
    return {
        "agreement": labelled(
            DIMS[1:],
            [each.observed for each in found],
            "rank correlation of transfer and gradients over pairs of tasks",
        ),
        "agreement_p": labelled(
            DIMS[1:],
            [each.p_value for each in found],
            "fraction of relabellings of the tasks with at least this correlation (Mantel test)",
        ),
        "agreement_smallest_p": labelled(
            DIMS[1:], [each.smallest_p for each in found], "smallest p-value that so many tasks can have"
        ),
    }


def compare_spaces(first: Space, second: Space, settings: TaskSpaceSettings, generator: np.random.Generator) -> Tested:
    """Return the Procrustes similarity of two spaces along all axes, beside that with tasks relabelled.

    It is by the tasks that both have; NaN where these are fewer than three.
    """
    one, other = common_tasks(first, second)
    if len(one) < FEWEST:
        return UNDEFINED
    relabelled = orders(len(one), settings.permutations, generator)
    return beside_chance(
        procrustes_similarities(first.configuration.points[one], second.configuration.points[other], relabelled)
    )
