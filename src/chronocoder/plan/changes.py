"""How many features an intervention changes in an example, and how much of a prefix has to be run again for them.

A feature that is active on a token with probability p changes somewhere among n tokens with probability 1 - (1 - p)^n.
It is run again from its first change on, over n - (1 - p) / p (1 - (1 - p)^n) tokens on average, those counted as none
where it does not change. That holds for features that are active independently of each other and of the position.
"""

from typing import NamedTuple

from chronocoder.config import AttributionSettings
from chronocoder.variants.base import CrosscoderSettings

DENSEST, MOST_ACTIVE = 1 / 32, 100.0
"""Active latents a token where neither the variant nor a result tells: a fraction of the dictionary, up to a number."""
TOP_FREQUENCY = 0.6
"""Fraction of the examples in which a feature of large effect changes: 0.4 to 0.8 in the nursery, measured."""


class Changes(NamedTuple):
    """What changes in an example, on average.

    Attributes:
        features: that change at some position.
        tokens: to be run again if each of them is changed alone, from its first change to the end of the prefix.
    """

    features: float
    tokens: float

    def of(self, fraction: float) -> "Changes":
        """Return those of a fraction of the features."""
        return Changes(fraction * self.features, fraction * self.tokens)

    def of_strong(self, number: float, latents: int) -> "Changes":
        """Return those of some features of large effect, which change in `TOP_FREQUENCY` of the examples at least."""
        changing = number * max(TOP_FREQUENCY, self.features / latents)
        return self.of(changing / self.features) if self.features else self

    def at_positions(self, length: float, rate: float) -> "Changes":
        """Return rows of one position each: a feature that changes does so at n p / (1 - (1 - p)^n) of n positions."""
        positions = length - 1
        rows = self.features * positions * rate / (1 - (1 - rate) ** positions) if rate else 0.0
        return Changes(rows, rows * (positions + 1) / 2)


def expected_l0(settings: CrosscoderSettings) -> float:
    """Return the active latents a token before a result tells: what the variant asks for, else an assumption."""
    given = getattr(settings, "k", None)
    return float(given or min(MOST_ACTIVE, DENSEST * settings.dictionary_size))


def changes_of(settings: AttributionSettings, latents: int, l0: float, length: float) -> Changes:
    """Return what an intervention changes in prefixes of some length; their first token never changes.

    With another prefix a feature changes where it is active on either, and with the mean of the corpus everywhere.

    Args:
        settings: the intervention.
        latents: of the dictionary, D.
        l0: active latents a token.
        length: tokens of a prefix.
    """
    silent = 1 - min(1.0, l0 / latents)
    silent = {"zero": silent, "mean": 0.0}.get(settings.intervention, silent**2)
    positions = length - 1
    ever = 1 - silent**positions
    return Changes(latents * ever, latents * (positions - silent / (1 - silent) * ever if silent < 1 else 0.0))
