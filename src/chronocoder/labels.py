"""Names of the checkpoints of a comparison, and the labels by which its stores tell them apart. Imports nothing heavy.

A checkpoint of the suite is named by its revision, that of another suite `revision@suite`. Where one checkpoint is
there several times, its second place is labelled `revision#2`, its third `revision#3`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Literal, NamedTuple

ELSEWHERE, REPEATED = "@", "#"
Control = Literal["", "identity", "pretraining seed"]


class CheckpointPlace(NamedTuple):
    """Where a checkpoint comes from.

    Attributes:
        suite: the suite that supplies it.
        revision: its name there.
    """

    suite: str
    revision: str


def place_of(name: str, suite: str) -> CheckpointPlace:
    """Return where a checkpoint comes from that a comparison of `suite` names."""
    revision, _, other = name.partition(ELSEWHERE)
    return CheckpointPlace(other or suite, revision)


def is_foreign(name: str) -> bool:
    """Say whether a name is that of another suite's checkpoint."""
    return ELSEWHERE in name


def distinct_labels(names: Sequence[str]) -> tuple[str, ...]:
    """Return labels that tell the places of a comparison apart: the names, numbered from the second time on."""
    seen: Counter[str] = Counter()
    labels = []
    for name in names:
        seen[name] += 1
        labels.append(name if seen[name] == 1 else f"{name}{REPEATED}{seen[name]}")
    return tuple(labels)


def is_identity(labels: Sequence[str]) -> bool:
    """Say whether names or labels are of one checkpoint, twice or more often."""
    return len(labels) > 1 and len({label.partition(REPEATED)[0] for label in labels}) == 1


def control_of(labels: Sequence[str]) -> Control:
    """Return which control a comparison of these checkpoints, given by names or labels, is; empty if it is none.

    `identity`: the same checkpoint throughout. `pretraining seed`: with a checkpoint of another suite.
    """
    if is_identity(labels):
        return "identity"
    return "pretraining seed" if len(labels) > 1 and any(map(is_foreign, labels)) else ""


def is_examined(labels: Sequence[str]) -> bool:
    """Say whether a comparison of these checkpoints is more than a control or a single checkpoint."""
    return len(labels) > 1 and not control_of(labels)
