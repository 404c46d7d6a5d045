"""Which pairs copies are tuned on, and which all of them are evaluated on."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from jaxtyping import Bool
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from chronocoder.config.taskspace import FEWEST_PAIRS
from chronocoder.errors import TaskError
from chronocoder.tasks.rows import by_member

_DIGEST_BYTES = 8


def held_out_pairs(
    tasks: Mapping[str, xr.Dataset], fraction: float, seed: int
) -> dict[str, Bool[np.ndarray, " example"]]:
    """Say of each pair whether it is held out, so that no text is on both sides, in any task.

    Pairs that share a text belong together, and so do those that share one with these, across tasks. Such a component
    is held out where the digest of one of its texts, the first in order, with the seed is in the lowest `fraction` of
    all possible ones: another task moves no pair but those that it joins together, and components of many texts are
    held out no more often than those of few.

    Args:
        tasks: by name, as `tokenise_pairs` returns them.
        fraction: expected fraction of the components that are held out.
        seed: of the digests.

    Raises:
        TaskError: a task has fewer than `FEWEST_PAIRS` pairs on a side.
    """
    texts = [pair for task in tasks.values() for pair in _texts_of(task)]
    components = _components(texts).tolist()
    first: dict[int, bytes] = {}
    for component, pair in zip(components, texts, strict=True):
        first[component] = min(first.get(component, pair[0]), *pair)
    bound = fraction * 2 ** (8 * _DIGEST_BYTES)
    out = {component: _digest(text, seed) < bound for component, text in first.items()}
    held = np.array([out[component] for component in components], dtype=bool)
    ends = np.cumsum([task.sizes["example"] for task in tasks.values()])
    found = dict(zip(tasks, np.split(held, ends[:-1]), strict=True))
    for name, of_task in found.items():
        _check_sides(name, of_task, fraction, seed)
    return found


def _texts_of(task: xr.Dataset) -> list[list[bytes]]:
    """Return the texts of each pair that a model reads, as bytes: one prefix, or two sentences."""
    ids, lengths = by_member(task, "token_id").astype("<i4"), by_member(task, "length")
    return [
        [text[:length].tobytes() for text, length in zip(*pair, strict=True)] for pair in zip(ids, lengths, strict=True)
    ]


def _components(texts: Sequence[Sequence[bytes]]) -> np.ndarray:
    """Return a number for each pair, the same of those that are joined by texts."""
    numbers: dict[bytes, int] = {}
    columns = [numbers.setdefault(text, len(numbers)) for pair in texts for text in pair]
    rows = np.repeat(np.arange(len(texts)), [len(pair) for pair in texts])
    size = len(texts) + len(numbers)
    edges = coo_array((np.ones(len(rows), dtype=bool), (rows, len(texts) + np.array(columns))), shape=(size, size))
    labels: np.ndarray = connected_components(edges, directed=False)[1][: len(texts)]
    return labels


def _digest(text: bytes, seed: int) -> int:
    key = seed.to_bytes(16, "little", signed=True)
    return int.from_bytes(hashlib.blake2b(text, digest_size=_DIGEST_BYTES, key=key).digest(), "big")


def _check_sides(name: str, held: np.ndarray, fraction: float, seed: int) -> None:
    out, tuned = int(held.sum()), int((~held).sum())
    if min(out, tuned) < FEWEST_PAIRS:
        raise TaskError(
            f"task '{name}': of {len(held)} pairs {out} are held out and {tuned} are left to tune on, with tuning seed"
            f" {seed} and taskspace.held_out {fraction:g}, since pairs that share a text stay together; at least"
            f" {FEWEST_PAIRS} are needed of each: give the task more pairs of different texts, change"
            " taskspace.held_out or that one of taskspace.seeds, or leave the task out of taskspace.tasks"
        )
