"""Minimal pairs as text."""

from dataclasses import dataclass


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
    """

    prefix: str
    right: str
    wrong: str
    condition: str = ""
    counterfactual: str = ""
