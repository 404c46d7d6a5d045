"""Roles of a prefix's tokens, by which effects at positions of unequal prefixes are aligned."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from chronocoder.tasks.pairs import MinimalPair, Role

SEPARATOR = "separator"
LAST = "last token"
OTHER = "other"
EARLIER = "earlier"
BY_DISTANCE = (LAST, *(f"{LAST} - {distance}" for distance in (1, 2, 3)))
"""Roles by distance from the last token; those before them are `EARLIER`."""


def token_roles(pair: MinimalPair, length: int, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the role of each token of a prefix.

    The first one is the separator. Where the pair has roles, a token has that of the first word that it overlaps, the
    last one is `LAST` whatever it is part of, and all others are `OTHER`. Where the pair has none, or the tokenizer
    does not tell which characters a token stands for (one without a fast implementation), roles are distances from the
    end.

    Args:
        pair: the pair.
        length: tokens of its prefix: the separator, those of the text, and those that both continuations share.
        tokenizer: what the text was tokenised by.
    """
    if not pair.roles or not tokenizer.is_fast:
        return [SEPARATOR, *(_by_distance(distance) for distance in reversed(range(length - 1)))]
    encoded = tokenizer(pair.prefix, add_special_tokens=False, return_offsets_mapping=True)
    words = [_of_words(start, stop, pair.roles) for start, stop in encoded["offset_mapping"]]
    tokens = [*words, *[OTHER] * (length - 1 - len(words))]  # the shared ones are no part of the text
    return [SEPARATOR, *tokens[:-1], LAST]


def _by_distance(distance: int) -> str:
    return BY_DISTANCE[distance] if distance < len(BY_DISTANCE) else EARLIER


def _of_words(start: int, stop: int, roles: Sequence[Role]) -> str:
    """Return the role of the first word that the characters from `start` to before `stop` overlap."""
    return next((role.name for role in roles if role.start < stop and start < role.stop), OTHER)
