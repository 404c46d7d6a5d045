"""Minimal pairs as text."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MinimalPair:
    """A prefix with a grammatical and an ungrammatical continuation.

    Attributes:
        prefix: the text both sentences begin with.
        right: the grammatical continuation, with its leading space.
        wrong: the ungrammatical continuation, with its leading space.
        condition: what sets this pair apart within its task, for instance "head singular, attractor plural".
    """

    prefix: str
    right: str
    wrong: str
    condition: str = ""
