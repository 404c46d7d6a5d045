"""Made-up stores of tunings, as similarity probing leaves them, and of the tasks that they are on."""

import numpy as np
import xarray as xr

from chronocoder.config import TaskSpaceSettings
from chronocoder.stores import labelled, provenance, strings
from chronocoder.tasks.rows import by_member

METHODS = {"ftgd": "differential", "plain": "right", "swapped": "swapped"}
SEQUENCES = 12


def made_up_task(name: str, pairs: int, prefixes: int, sentences: bool = False) -> xr.Dataset:
    """Return a task whose pairs have one of so many prefixes, or right sentences, every one of them."""
    prefix = np.arange(pairs) % prefixes
    ids, dims = np.stack([prefix, prefix + 7], axis=1), ("example", "position")
    if sentences:
        ids, dims = np.stack([ids, ids + np.arange(pairs)[:, None]], axis=1), ("example", "member", "position")
    coordinates = {"example": np.arange(pairs)}
    variables = {
        "token_id": labelled(dims, ids, "tokens"),
        "condition": labelled(("example",), strings(["singular", "plural"] * (pairs // 2)), "condition"),
    }
    return xr.Dataset(variables, coordinates).assign_attrs(provenance(TaskSpaceSettings(), suite="made-up", task=name))


def made_up_tunings(
    tasks: dict[str, xr.Dataset],
    revisions: list[str],
    seeds: list[int],
    gains: dict[str, np.ndarray],
    noise: float = 0.2,
    between: float = 0.05,
) -> list[xr.Dataset]:
    """Return the tunings of every checkpoint and seed on every task.

    Args:
        tasks: task stores by name.
        revisions: names of the checkpoints.
        seeds: of the tunings.
        gains: expected transfer by method, shape (checkpoint, source, target).
        noise: standard deviation of a pair's change, in half of its square common to the pairs of a prefix.
        between: standard deviation of the change that all pairs have in common, between seeds.
    """
    generator = np.random.default_rng(0)
    noises = {
        name: np.sqrt(0.5) * noise * generator.normal(size=(2, task.sizes["example"])) for name, task in tasks.items()
    }
    prefixes = {name: by_member(task, "token_id")[:, 0, 0] for name, task in tasks.items()}
    own = {name: noises[name][0] + noises[name][1][prefixes[name]] for name in tasks}
    found = []
    for seed in seeds:
        halves = {
            name: np.flatnonzero(generator.permutation(prefixes[name].max() + 1)[prefixes[name]] % 2) for name in tasks
        }
        target = np.concatenate([[name] * len(halves[name]) for name in tasks])
        example = np.concatenate(list(halves.values()))
        for place, revision in enumerate(revisions):
            before = np.concatenate([np.sin(np.arange(len(own[name]))[halves[name]] + place) for name in tasks])
            for source, name in enumerate(tasks):
                after = [
                    before
                    + np.concatenate(
                        [
                            gains[method][place, source, column]
                            + between * generator.normal()
                            + own[other][halves[other]]
                            for column, other in enumerate(tasks)
                        ]
                    )
                    for method in gains
                ]
                facts = {"suite": "made-up", "task": name, "revision": revision, "seed": seed, "parameters": 1000}
                counts = {"pairs_tuned": len(own[name]) - len(halves[name]), "pairs_held_out": len(halves[name])}
                found.append(_store(list(gains), np.array(after), before, target, example, {**facts, **counts}))
    return found


def _store(
    methods: list[str],
    after: np.ndarray,
    before: np.ndarray,
    target: np.ndarray,
    example: np.ndarray,
    facts: dict[str, str | int],
) -> xr.Dataset:
    sequence = np.linspace(2.0, 4.0, SEQUENCES)
    damage = np.arange(1, len(methods) + 1)[:, None] * np.linspace(0.0, 0.2, SEQUENCES)
    variables = {
        "difference": labelled(("tuning", "entry"), after.astype(np.float32), "right minus wrong", "see unit"),
        "difference_before": labelled(("entry",), before.astype(np.float32), "right minus wrong", "see unit"),
        "loss": labelled(("tuning", "sequence"), sequence + damage, "loss", "nat/token"),
        "loss_before": labelled(("sequence",), sequence, "loss", "nat/token"),
        "updated_parameters": labelled(("tuning",), 10 * np.arange(1, len(methods) + 1), "parameters"),
    }
    coordinates = {
        "tuning": strings(methods),
        "objective": ("tuning", strings([METHODS[method] for method in methods])),
        "fraction": ("tuning", np.full(len(methods), 0.01)),
        "target": ("entry", strings(target)),
        "example": ("entry", example),
    }
    return xr.Dataset(variables, coordinates).assign_attrs(provenance(TaskSpaceSettings(), **facts))
