"""The key that a misspelt one may have meant, by the JSON schema of the configuration."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

Schema = Mapping[str, Any]
_CHOICES = ("anyOf", "oneOf", "allOf")


def meant_key(schema: Schema, location: Sequence[str | int]) -> str:
    """Return the key most like the last one of a location, among those that its place may have; empty if none is.

    Args:
        schema: of the whole configuration.
        location: keys, places in lists, and names of choices, as pydantic's errors have them.
    """
    *above, unknown = location
    places = [schema]
    for part in above:
        places = [below for place in places for below in _below(place, part, schema)]
    known = {key for place in places for one in _objects(place, schema) for key in one.get("properties", {})}
    elsewhere = any(unknown in one.get("properties", {}) for one in schema["$defs"].values())
    cutoff = 0.8 if elsewhere else 0.6  # a key of another place is hardly misspelt
    return "".join(get_close_matches(str(unknown), sorted(known), n=1, cutoff=cutoff))


def _below(place: Schema, part: str | int, schema: Schema) -> Iterator[Schema]:
    """Yield the schemas of what is at a part of a place; that of a choice is the place itself."""
    for one in _objects(place, schema):
        if part in one.get("properties", {}):
            yield one["properties"][part]
        elif named := one.get("patternProperties"):  # of mappings by name
            yield from named.values()
        elif isinstance(part, int) and "items" in one:
            yield one["items"]
        elif any(value.get("const") == part for value in one.get("properties", {}).values()):
            yield one


def _objects(place: Schema, schema: Schema) -> Iterator[Schema]:
    """Yield the schemas that a place may be of, without references and choices."""
    if "$ref" in place:
        yield from _objects(schema["$defs"][place["$ref"].rpartition("/")[2]], schema)
    elif choices := [one for key in _CHOICES for one in place.get(key, [])]:
        for one in choices:
            yield from _objects(one, schema)
    else:
        yield place
