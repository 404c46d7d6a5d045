"""Minimal pairs as text."""

from dataclasses import dataclass
from typing import NamedTuple


class Role(NamedTuple):
    """What a stretch of a prefix is to the pair.

    Attributes:
        name: the role, for instance "subject".
        start: its first character in the prefix.
        stop: the character after its last.
    """

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class MinimalPair:
    """A prefix with a grammatical and an ungrammatical continuation.

    Attributes:
        prefix: the text both sentences begin with.
        right: the grammatical continuation, with the space that comes before it, if any.
        wrong: the ungrammatical continuation, likewise.
        condition: what sets this pair apart within its task, for instance "head singular, attractor plural".
        counterfactual: a prefix that differs as little as can be and that the other continuation is right for, or
            empty. Activation patching moves activations towards those on it.
        roles: the words of the prefix whose role is known; none where nothing is known of its words.
    """

    prefix: str
    right: str
    wrong: str
    condition: str = ""
    counterfactual: str = ""
    roles: tuple[Role, ...] = ()
