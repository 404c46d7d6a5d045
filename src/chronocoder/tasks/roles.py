"""Roles of tokens, by which effects at positions of unequal sentences are aligned."""

from collections.abc import Sequence

from chronocoder.tasks.metrics import PairTokens
from chronocoder.tasks.pairs import Role

SEPARATOR = "separator"
LAST = "last token"
OTHER = "other"
EARLIER = "earlier"
BY_DISTANCE = (LAST, *(f"{LAST} - {distance}" for distance in (1, 2, 3)))
"""Roles by distance from the last token; those before them are `EARLIER`."""
BEGINNING, DIFFERENCE, ENDING = "shared beginning", "difference", "shared ending"


def prefix_roles(tokens: PairTokens) -> list[str]:
    """Return the role of each token of the prefix that both sentences share, with the separator before it.

    Where the pair has roles, a token has that of the first word that it overlaps, the last one is `LAST` whatever it is
    part of, and all others are `OTHER`. Where the pair has none, or the tokenizer does not tell which characters a
    token stands for (one without a fast implementation), roles are distances from the end.
    """
    if not tokens.pair.roles or not tokens.spans:
        return [SEPARATOR, *(_by_distance(distance) for distance in reversed(range(tokens.shared)))]
    return [SEPARATOR, *_of_words(tokens, tokens.shared, 0)[:-1], LAST]


def sentence_roles(tokens: PairTokens, length: int, moved: int) -> list[str]:
    """Return the role of each of the `length` tokens of one of the two sentences, the separator included.

    Tokens are in the beginning or the ending that both sentences share, or in between; those of the shared beginning
    have the roles of the pair's words where it has some.

    Args:
        tokens: the pair.
        length: tokens of the sentence, with the separator.
        moved: characters that were put in front of the sentence when it was tokenised.
    """
    known = tokens.pair.roles and tokens.spans
    beginning = _of_words(tokens, tokens.shared, moved) if known else [BEGINNING] * tokens.shared
    between = length - 1 - tokens.shared - tokens.ending
    return [SEPARATOR, *beginning, *[DIFFERENCE] * between, *[ENDING] * tokens.ending]


def _of_words(tokens: PairTokens, count: int, moved: int) -> list[str]:
    return [_of_word(start - moved, stop - moved, tokens.pair.roles) for start, stop in tokens.spans[:count]]


def _by_distance(distance: int) -> str:
    return BY_DISTANCE[distance] if distance < len(BY_DISTANCE) else EARLIER


def _of_word(start: int, stop: int, roles: Sequence[Role]) -> str:
    """Return the role of the first word that the characters from `start` to before `stop` overlap."""
    return next((role.name for role in roles if role.start < stop and start < role.stop), OTHER)
