"""Which of the checkpoints that there are a suite takes."""

from collections.abc import Mapping
from difflib import get_close_matches
from math import log
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, NonNegativeInt, PositiveInt, Tag, model_validator

from chronocoder.nearest import nearest_names
from chronocoder.settings import Name, Settings

ALL: Literal["all"] = "all"


class Selection(Settings):
    """A pattern that picks checkpoints of those that there are, the first and the last always among them."""

    model_config = ConfigDict(serialize_by_alias=True)

    every: PositiveInt | None = Field(None, description="Take each so many-th checkpoint.")
    log: int | None = Field(None, ge=2, description="Take so many, spread as evenly as can be in log tokens.")
    first: Name | int | None = Field(
        None, alias="from", description="Only from this checkpoint on, or from so many tokens on."
    )
    last: Name | int | None = Field(
        None, alias="to", description="Only up to this checkpoint, or up to so many tokens."
    )
    include: list[Name] = Field(default_factory=list, description="Checkpoints to take besides.")

    @model_validator(mode="after")
    def _one_pattern(self) -> "Selection":
        if self.every is not None and self.log is not None:
            raise ValueError(f"has both every {self.every} and log {self.log}; keep one of them")
        return self

    @property
    def names(self) -> list[str]:
        """The checkpoints that it names."""
        return [name for name in (self.first, self.last, *self.include) if isinstance(name, str)]

    def choose(self, known: Mapping[str, int]) -> list[str]:
        """Return the names of the checkpoints that the pattern picks.

        Args:
            known: tokens seen by name, ascending.

        Raises:
            ValueError: a checkpoint is not known, or none lies between `from` and `to`.
        """
        if unknown := [name for name in self.names if name not in known]:
            nearest = ", ".join(nearest_names(unknown[0], known))
            raise ValueError(f"checkpoint '{unknown[0]}' is not known; the nearest are {nearest}")
        start, end = (known[bound] if isinstance(bound, str) else bound for bound in (self.first, self.last))
        between = {
            name: tokens for name, tokens in known.items() if tokens >= (start or 0) and (end is None or tokens <= end)
        }
        if not between:
            raise ValueError(f"from {self.first} to {self.last}: no checkpoint lies there; widen it")
        chosen = {*self._spread(between), *self.include}
        return [name for name in known if name in chosen]

    def _spread(self, known: Mapping[str, int]) -> list[str]:
        names = list(known)
        if self.log is not None:
            return [names[place] for place in spread_in_log(list(known.values()), self.log)]
        return list(dict.fromkeys([*names[:: self.every or 1], names[-1]]))


def spread_in_log(tokens: list[int], count: int) -> list[int]:
    """Return the places of `count` numbers that lie as evenly as can be in their logarithm; all, if there are fewer.

    The first and the last are among them; a zero comes first, and the others are spread from the next number on.
    Targets are met in order: each takes the nearest number that leaves enough for those after it.

    Args:
        tokens: ascending, from zero or more.
        count: how many.
    """
    if count >= len(tokens):
        return list(range(len(tokens)))
    zero = [0] if tokens[0] == 0 else []
    places, begin, number = [*zero], len(zero), count - len(zero)
    low, high = log(tokens[begin]), log(tokens[-1])
    for step in range(number):
        target = low + (high - low) * step / (number - 1) if number > 1 else high
        behind = places[-1] + 1 if places else 0
        candidates = range(behind, len(tokens) - (number - 1 - step))
        places.append(min(candidates, key=lambda place: abs(log(tokens[place]) - target)))
    return places


def kind_of_choice(value: Any) -> str:
    """Return which form of a choice of checkpoints a value has."""
    if isinstance(value, Selection):
        return "pattern"
    if isinstance(value, Mapping):
        close = [key for key in value if get_close_matches(str(key), _PATTERN_KEYS, cutoff=_SAME_WORD)]
        return "pattern" if close else "given"
    return "names" if isinstance(value, list) else ALL


_PATTERN_KEYS = [field.alias or name for name, field in Selection.model_fields.items()]
_SAME_WORD = 0.8
"""Similarity from which on a key is one of them, mistyped or not, and no checkpoint's name."""

Choice = (
    Annotated[Literal["all"], Tag(ALL)] | Annotated[list[Name], Tag("names")] | Annotated[Selection, Tag("pattern")]
)
"""All checkpoints that there are, a list of them, or a pattern."""

ChoiceOrTokens = Annotated[
    Choice | Annotated[dict[Name, NonNegativeInt], Tag("given"), Field(min_length=1)], Discriminator(kind_of_choice)
]
"""A choice of the checkpoints of a known family, or checkpoints given with their tokens."""


def chosen_of(choice: str | list[str] | Selection, known: Mapping[str, int]) -> list[str]:
    """Return the names of the chosen of the checkpoints that are known, tokens seen by name; a list as it is."""
    if isinstance(choice, Selection):
        return choice.choose(known)
    return list(known) if isinstance(choice, str) else choice
