"""Which checkpoints to compare: those between which the fitted accuracies of all tasks move farthest.

Seen over all tasks that change, a checkpoint is a point whose coordinates are accuracies, and training is a path. The
checkpoints that are chosen are the corners of the longest polygon along that path: what falls before it rises counts
twice, and a change of some tasks apart from an earlier one of others. docs/choosing.md has the formulas and sources.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from chronocoder.config import ChoiceSettings

PAIRWISE = Float[np.ndarray, "checkpoint other"]


class Chosen(NamedTuple):
    """Places of the chosen checkpoints.

    Attributes:
        pairs: before and after each change, the largest first.
        triplets: before, at and after a turn, or before, amid and after a change.
    """

    pairs: list[tuple[int, ...]]
    triplets: list[tuple[int, ...]]


def distances(levels: Float[np.ndarray, "task checkpoint"], smallest: float) -> PAIRWISE:
    """Return how far accuracies move between every two checkpoints: the root of the summed squares over tasks.

    Args:
        levels: fitted accuracies.
        smallest: change of a task below which it counts as none.
    """
    squares = np.zeros((levels.shape[1],) * 2)
    for of_task in levels:
        difference = abs(of_task[:, None] - of_task)
        squares += np.where(difference >= smallest, difference, 0) ** 2
    return np.sqrt(squares)


def length(moved: PAIRWISE, corners: Sequence[int]) -> float:
    """Return the length of a polygon with these corners."""
    return float(sum(moved[a, b] for a, b in pairwise(corners)))


def longest(moved: PAIRWISE, steps: int) -> list[int]:
    """Return the corners of the longest polygon of so many steps, in order of training, by dynamic programming."""
    points = len(moved)
    forward = np.where(np.arange(points)[:, None] < np.arange(points), moved, -np.inf)
    best, previous = np.zeros(points), []
    for _ in range(steps):
        lengths = best[:, None] + forward
        previous.append(lengths.argmax(axis=0))
        best = lengths.max(axis=0)
    corners = [int(best.argmax())]
    for places in reversed(previous):
        corners.append(int(places[corners[-1]]))
    return corners[::-1]


def rate_of_change(similarity: PAIRWISE | None, tokens_seen: Sequence[int]) -> PAIRWISE:
    """Return how fast activations change between every two checkpoints: 1 - similarity, per doubling of the tokens.

    Zero tokens count as half of the first checkpoint's above zero. Without similarities, every two checkpoints count as
    equally dissimilar.
    """
    seen = np.array(tokens_seen, dtype=float)
    logarithm = np.log2(np.where(seen > 0, seen, min(seen[seen > 0], default=1.0) / 2))
    doublings = abs(logarithm[:, None] - logarithm)
    np.fill_diagonal(doublings, np.inf)
    unlike = np.ones_like(doublings) if similarity is None else 1 - similarity
    rate: np.ndarray = unlike / doublings
    return rate


def choose_places(
    moved: PAIRWISE,
    rate: PAIRWISE,
    settings: ChoiceSettings,
    error_of: Callable[[Sequence[int]], float],
) -> Chosen:
    """Return the pairs and triplets that bracket the largest changes within the budget; none where nothing changes.

    The polygon gets as many steps as the budget has room for and as add `smallest_change` or more to its length. Its
    steps are the pairs, and two that follow each other a triplet; where there are too few, a triplet halves a step. Of
    polygons whose lengths differ by less than a standard error (the rule of Breiman et al. 1984), that one is taken,
    corner by corner, to whose corners activations change fastest.

    Args:
        moved: what `distances` returns.
        rate: what `rate_of_change` returns.
        settings: budget and smallest change.
        error_of: returns the standard error of the length of a polygon with given corners.
    """
    most = min(
        max(settings.pairs, settings.triplets and settings.triplets + 1), settings.checkpoints - 1, len(moved) - 1
    )
    polygons = [longest(moved, steps) for steps in range(most + 1)]
    corners = polygons[0]
    for longer in polygons[1:]:
        if length(moved, longer) - length(moved, corners) < settings.smallest_change:
            break
        corners = longer
    if len(corners) == 1:
        return Chosen([], [])
    corners = _where_activations_change(moved, rate, corners, error_of(corners))
    steps = _largest_first(moved, pairwise(corners))
    triplets = _largest_first(moved, zip(corners, corners[1:], corners[2:], strict=False))[: settings.triplets]
    used = {place for one in (*steps[: settings.pairs], *triplets) for place in one}
    for step in steps:
        amid = _halfway(moved, rate, step, settings.smallest_change, error_of)
        if amid is not None and len(triplets) < settings.triplets and len(used | {*step, amid}) <= settings.checkpoints:
            triplets.append((step[0], amid, step[1]))
            used |= {*step, amid}
    return Chosen(steps[: settings.pairs], triplets)


def _largest_first(moved: PAIRWISE, paths: Iterable[tuple[int, ...]]) -> list[tuple[int, ...]]:
    return sorted(paths, key=lambda path: -length(moved, path))


def _where_activations_change(moved: PAIRWISE, rate: PAIRWISE, corners: Sequence[int], error: float) -> list[int]:
    """Move one corner after the other to where activations change fastest, as long as no more is lost and no step."""
    corners, least = list(corners), length(moved, corners) - error
    for number in range(len(corners)):
        before, after = corners[:number], corners[number + 1 :]
        start, stop = before[-1] + 1 if before else 0, after[0] if after else len(moved)
        neighbours = [*before[-1:], *after[:1]]
        places = [place for place in range(start, stop) if moved[place, neighbours].all()]
        tied = [place for place in places if length(moved, [*before, place, *after]) >= least]
        corners[number] = max(tied, key=lambda place: rate[place, neighbours].sum())
    return corners


def _halfway(
    moved: PAIRWISE, rate: PAIRWISE, step: Sequence[int], smallest: float, error_of: Callable[[Sequence[int]], float]
) -> int | None:
    """Return the checkpoint amid a step that is farthest from both ends, if it is far enough from each."""
    before, after = step
    inside = range(before + 1, after)
    nearest = {place: min(moved[before, place], moved[place, after]) for place in inside}
    if max(nearest.values(), default=0.0) < smallest:
        return None
    farthest = max(inside, key=nearest.__getitem__)
    least = nearest[farthest] - error_of([before, farthest, after])
    tied = [place for place in inside if nearest[place] >= max(least, smallest)]
    return max(tied, key=lambda place: rate[place, [before, after]].sum())
