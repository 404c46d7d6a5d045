"""A draw of pairs that is balanced over groups and that a larger one contains."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from chronocoder.tasks.pairs import MinimalPair


def draw_pairs(pairs: Sequence[MinimalPair], limit: int | None, seed: int) -> list[MinimalPair]:
    """Return so many pairs, in their order: equally many of each group as far as there are enough, then of the others.

    A group is what has one language, phenomenon and condition. Within it pairs are ranked by a hash of seed and text,
    and all first pairs come before all second ones: a larger limit keeps what was drawn, and pairs that are added to
    the file push out few of those that were there.

    Args:
        pairs: the pairs, each different.
        limit: how many to draw; all where None.
        seed: of the draw.
    """
    if limit is None or limit >= len(pairs):
        return list(pairs)
    groups: defaultdict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        groups[pair.language, pair.phenomenon, pair.condition].append(place)
    ranked = [sorted(places, key=lambda place: _hash(pairs[place], seed)) for _, places in sorted(groups.items())]
    turns = sorted((turn, group, place) for group, places in enumerate(ranked) for turn, place in enumerate(places))
    return [pairs[place] for place in sorted(place for _, _, place in turns[:limit])]


def _hash(pair: MinimalPair, seed: int) -> bytes:
    text = "\0".join((str(seed), pair.prefix, pair.right, pair.wrong, pair.counterfactual))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
