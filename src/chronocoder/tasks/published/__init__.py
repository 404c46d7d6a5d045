"""Published collections of tasks: the names of their sets, and where these are fetched from. Imports nothing heavy.

Beside this file lies one for each collection, with its source.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

_SHOWN = 8


@dataclass(frozen=True)
class Collection:
    """What is known of a collection before it is fetched.

    Attributes:
        title: its name in messages.
        sets: names of its sets, in the order of the collection's file; none where they are not listed.
        phenomena: what a set is about, by its name; none where the pairs or the names tell.
        languages: of its sets; none where they are not listed.
        dataset: repository of the dataset on the hub; empty where it is files elsewhere.
        address: of the folder of its files, where it is no dataset.
        pairs: in each set; None where sets differ.
    """

    title: str
    sets: tuple[str, ...] = ()
    phenomena: dict[str, str] = field(default_factory=dict)
    languages: tuple[str, ...] = ()
    dataset: str = ""
    address: str = ""
    pairs: int | None = None

    def about(self, phenomenon: str) -> tuple[str, ...]:
        """Return the sets about a phenomenon, or all where none is named.

        Raises:
            ValueError: no set is; names the phenomena there are.
        """
        if not phenomenon:
            return self.sets
        chosen = tuple(name for name in self.sets if self.phenomena.get(name) == phenomenon)
        if not chosen:
            there = ", ".join(dict.fromkeys(self.phenomena.values()))
            raise ValueError(f"phenomenon '{phenomenon}' is that of no set of {self.title}; choose from {there}")
        return chosen

    def check(self, kind: str, given: Sequence[str]) -> None:
        """Check names of `sets` or `languages`, where the collection lists them.

        Raises:
            ValueError: one is not listed; names the nearest.
        """
        listed: tuple[str, ...] = getattr(self, kind)
        for name in given if listed else ():
            if name not in listed:
                near = get_close_matches(name, listed, n=_SHOWN, cutoff=0.5) or listed[:_SHOWN]
                raise ValueError(
                    f"'{name}' is not among the {len(listed)} {kind} of {self.title}; choose for instance from"
                    f" {', '.join(near)}"
                )


@functools.cache
def collection_of(kind: str) -> Collection:
    """Return the collection that tasks of a kind are published as: `blimp`, `clams` or `multiblimp`."""
    values: dict[str, Any] = yaml.safe_load(Path(__file__).with_name(f"{kind}.yaml").read_text(encoding="utf-8"))
    sets = values.get("sets", [])
    by_phenomenon: dict[str, list[str]] = sets if isinstance(sets, dict) else {}
    phenomena = {name: phenomenon for phenomenon, names in by_phenomenon.items() for name in names}
    return Collection(
        title=values["title"],
        sets=tuple(sorted(phenomena, key=str.lower) or sets),
        phenomena=phenomena,
        languages=tuple(values.get("languages", ())),
        dataset=values.get("dataset", ""),
        address=values.get("address", ""),
        pairs=values.get("pairs"),
    )
