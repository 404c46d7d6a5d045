"""The format of a language file: a lexicon, phrase rules and task templates, all as data.

A symbol names a word class or a phrase, with the features it agrees in: `noun[number gender]`. A bare feature
is short for `number=?number`, a variable shared by all symbols of one rule; `number=?head` names another
variable, and `number=plural` fixes the value. A feature that a rule does not mention is free.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from chronocoder.errors import ConfigError

_SYMBOL = re.compile(r"(\w+)(?:\[([\w=? ]+)\])?(?: +|$)")
_LANGUAGES = files(__package__) / "languages"


@dataclass(frozen=True)
class Symbol:
    """A word class or phrase in a rule.

    Attributes:
        name: of the class or phrase.
        features: the value of each feature it agrees in, or `?` and the name of a variable.
    """

    name: str
    features: Mapping[str, str]

    @property
    def variables(self) -> dict[str, str]:
        """The features that have a variable, by its name."""
        return {value[1:]: feature for feature, value in self.features.items() if value.startswith("?")}


def parse_symbols(text: str) -> list[Symbol]:
    """Parse a sequence of symbols, for instance `determiner[number] noun[number=?head]`.

    Raises:
        ConfigError: if the text is no such sequence.
    """
    matches = list(_SYMBOL.finditer(text))
    if "".join(match[0] for match in matches) != text or not matches:
        raise ConfigError(f"'{text}' is not a sequence of symbols such as 'noun[number] verb[number=plural]'")
    return [Symbol(match[1], parse_features(match[2] or "")) for match in matches]


def parse_features(text: str) -> dict[str, str]:
    """Parse `number=plural gender` to values by feature; a bare feature gets the variable of its own name."""
    pairs = (item.partition("=") for item in text.split())
    return {feature: value or f"?{feature}" for feature, _, value in pairs}


def bind(features: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """Replace the variables of features by their values."""
    return {feature: values[value[1:]] if value.startswith("?") else value for feature, value in features.items()}


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WordClass(_Part):
    """Words of one class, the most frequent first: frequencies follow Zipf's law.

    Attributes:
        columns: the features of each form of a row; words without columns are invariant.
        rows: the forms of each word, separated by spaces; where groups of words have a feature of their own
            (as gender), the rows of each group by that feature.
    """

    columns: list[str] = Field(default=[""], min_length=1)
    rows: list[str] | dict[str, list[str]]


class TaskTemplate(_Part):
    """How the minimal pairs of one task are made.

    Attributes:
        prefix: symbols that the prefix is expanded from.
        agrees: features of the right continuation, in the variables of the prefix.
        contrast: the feature that the wrong continuation has another value of; where it has two values and the prefix
            decides which, the pairs get a counterfactual prefix with the other one.
        answers: the word classes that the continuation comes from, with weights.
        differ: variables whose values must all differ.
        reserved: whether only pairs of nouns are used that no generated text contains in succession.
        condition: describes a pair; `{variable}` stands for its value. The pairs are balanced over it.
        roles: by variable of the prefix, the role of the nouns among the words of the symbols that have it.
    """

    prefix: str
    agrees: str
    contrast: str = "number"
    answers: dict[str, float]
    differ: list[str] = []
    reserved: bool = False
    condition: str
    roles: dict[str, str] = {}

    @model_validator(mode="after")
    def _roles_are_of_the_prefix(self) -> "TaskTemplate":
        known = {variable: None for symbol in parse_symbols(self.prefix) for variable in symbol.variables}
        if unknown := [variable for variable in self.roles if variable not in known]:
            raise ConfigError(
                f"roles: the prefix '{self.prefix}' has no variable '{unknown[0]}';"
                f" choose from {', '.join(known)}, or leave the role out"
            )
        return self


class Language(_Part):
    """A language file.

    Attributes:
        language: its name.
        sentence: the phrase that a sentence is expanded from.
        stop: what ends a sentence.
        nouns: the word classes whose pairs are reserved, see `Grammar`.
        features: the values of each feature, with their weight where a rule leaves it free.
        lexicon: word classes by name.
        rules: weighted expansions by phrase.
        tasks: templates by name.
    """

    language: str
    sentence: str
    stop: str
    nouns: list[str]
    features: dict[str, dict[str, float]]
    lexicon: dict[str, WordClass]
    rules: dict[str, dict[str, float]]
    tasks: dict[str, TaskTemplate]


def read_language(name: str) -> Language:
    """Read a language that comes with the package.

    Raises:
        ConfigError: if there is no such language.
    """
    source = _LANGUAGES / f"{name}.yaml"
    if not source.is_file():
        known = sorted(entry.name.removesuffix(".yaml") for entry in _LANGUAGES.iterdir())
        raise ConfigError(f"language '{name}' does not exist; choose from {', '.join(known)}")
    return Language.model_validate(yaml.safe_load(source.read_text(encoding="utf-8")))


@functools.cache
def tasks_of(language: str) -> tuple[str, ...]:
    """Return the names of the tasks of a language; the errors are those of `read_language`."""
    return tuple(read_language(language).tasks)
