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
    """A grammatical and an ungrammatical sentence, and what they begin with.

    Attributes:
        prefix: the text both sentences begin with, up to the word in which they part; may be empty.
        right: the rest of the grammatical sentence, with the space that comes before it, if any.
        wrong: the rest of the ungrammatical sentence, likewise.
        condition: what sets this pair apart within its task, for instance "head singular, attractor plural".
        counterfactual: a prefix that differs as little as can be and that the other continuation is right for, or
            empty. Activation patching moves activations towards those on it.
        roles: the words of the prefix whose role is known; none where nothing is known of its words.
        language: of the pair, where its source names one.
        phenomenon: that the pair is about, where its source names one.
        asks: metrics that ask what the pair is about, where its source names them.
    """

    prefix: str
    right: str
    wrong: str
    condition: str = ""
    counterfactual: str = ""
    roles: tuple[Role, ...] = ()
    language: str = ""
    phenomenon: str = ""
    asks: tuple[str, ...] = ()

    @property
    def good(self) -> str:
        """The grammatical sentence."""
        return self.prefix + self.right

    @property
    def bad(self) -> str:
        """The ungrammatical sentence."""
        return self.prefix + self.wrong
