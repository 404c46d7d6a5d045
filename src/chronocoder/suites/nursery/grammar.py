"""Sentences and minimal pairs from a grammar given as data; nothing here knows a particular language."""

from bisect import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import blake2b
from itertools import accumulate, chain, cycle, islice, pairwise, product
from math import prod
from random import Random
from typing import Literal

from chronocoder.errors import ConfigError, TaskError
from chronocoder.suites.nursery.language import (
    Language,
    Symbol,
    TaskTemplate,
    WordClass,
    bind,
    parse_features,
    parse_symbols,
    read_language,
)
from chronocoder.tasks.pairs import MinimalPair, Role

Split = Literal["pretraining", "train", "validation"]

_SPLITS: tuple[Split, ...] = ("pretraining", "train", "validation")
_SPLIT_BOUNDS = (0.7, 0.9)
_RESERVED_SHARE = 0.1
_ZIPF_SHIFT = 3
_DRAWS_PER_PAIR = 2000


@dataclass(frozen=True)
class Word:
    """A form in the lexicon.

    Attributes:
        text: the form.
        lemma: the first form of its row.
        features: all its features.
        weight: its frequency relative to the other words of its class.
    """

    text: str
    lemma: str
    features: Mapping[str, str]
    weight: float

    def fits(self, features: Mapping[str, str]) -> bool:
        """Say whether none of the features contradicts the word's own."""
        return all(self.features.get(feature, value) == value for feature, value in features.items())


@dataclass(frozen=True)
class _Choice:
    """Weighted options: words, or choices to be made in turn (stored last first)."""

    bounds: list[float] = field(default_factory=list)
    options: "list[str | tuple[_Choice, ...]]" = field(default_factory=list)

    def fill(self, weighted: "Sequence[tuple[str | tuple[_Choice, ...], float]]") -> None:
        total = sum(weight for _, weight in weighted)
        self.options.extend(option for option, _ in weighted)
        self.bounds.extend(bound / total for bound in accumulate(weight for _, weight in weighted[:-1]))


@dataclass(frozen=True)
class _Condition:
    """A task's template with its variables bound to values.

    Attributes:
        description: of the condition.
        prefix: the choices that make a prefix, the last one first.
        roles: of the nouns that each of them leads to, from left to right; empty where they have none.
        counterfactual: the choices that make the counterfactual prefix; none where there is no such prefix.
        answers: the weight of each right continuation with its wrong twin.
    """

    description: str
    prefix: tuple[_Choice, ...]
    roles: tuple[str, ...]
    counterfactual: tuple[_Choice, ...]
    answers: dict[tuple[str, str], float]


class Grammar:
    """A probabilistic phrase grammar with agreement.

    Two rules keep what the tasks test out of all generated text:

    - A sentence belongs to one split, by a hash of its text, so the splits have no sentence in common.
    - A tenth of all ordered pairs of nouns, chosen by a hash of the two lemmas, is reserved. No sentence of
      any split has the nouns of a reserved pair in succession (with any words between but no noun), and the
      tasks with an attractor use only such pairs for head and attractor: no model ever sees their prefixes,
      counterfactual ones included.

    The counterfactual of a pair is expanded by the same draws as its prefix, with the other value of the feature
    that the answers contrast in. For number it has other forms of the same lemmas; gender is inherent in nouns, so
    there it has another noun, with what agrees with it.
    """

    def __init__(self, language: Language) -> None:
        self._language = language
        self._words = {name: words_of(entry) for name, entry in language.lexicon.items()}
        heads = (parse_symbols(head)[0] for head in language.rules)
        self._rules = {head.name: (head, body) for head, body in zip(heads, language.rules.values(), strict=True)}
        self._choices: dict[tuple[str, frozenset[tuple[str, str]]], _Choice] = {}
        self._lemmas = {word.text: word.lemma for name in language.nouns for word in self._words[name]}
        self.task_names: tuple[str, ...] = tuple(language.tasks)

    @classmethod
    def load(cls, language: str) -> "Grammar":
        """Load a language that comes with the package.

        Raises:
            ConfigError: if there is no such language.
        """
        return cls(read_language(language))

    @property
    def lexicon(self) -> Mapping[str, Sequence[Word]]:
        """The words of each class."""
        return self._words

    def sentences(self, split: Split, seed: int) -> Iterator[str]:
        """Generate the sentences of a split, without end; equal seeds give equal streams."""
        draw = Random(f"{self._language.language} {split} {seed}").random
        start = (self._choice(self._language.sentence, {}),)
        while True:
            words = _expand(start, draw)
            text = " ".join(words) + self._language.stop
            if split_of(text) == split and not self.is_reserved(words):
                yield text

    def is_reserved(self, words: Sequence[str]) -> bool:
        """Say whether two successive nouns among the words are a reserved pair."""
        nouns = [self._lemmas[word] for word in words if word in self._lemmas]
        return any(_reserved(first, second) for first, second in pairwise(nouns))

    def minimal_pairs(self, task: str, count: int, seed: int) -> list[MinimalPair]:
        """Generate distinct minimal pairs of a task, balanced over its conditions.

        The counterfactual is empty where the draws lead to a phrase of another form under the other value, and in
        tasks with reserved nouns where those of the counterfactual are not reserved.

        Raises:
            TaskError: if the language has no such task, or the task has fewer distinct pairs.
        """
        template = self._template(task)
        random = Random(f"{self._language.language} {task} {seed}")
        pairs: dict[MinimalPair, MinimalPair] = {}  # by what has to be distinct
        for condition in islice(cycle(self._conditions(template)), count):
            draws = islice(self._draw_pairs(condition, template.reserved, random), _DRAWS_PER_PAIR)
            pair = next((pair for pair in draws if _distinct_part(pair) not in pairs), None)
            if pair is None:
                raise TaskError(
                    f"task '{task}': {count} pairs were asked for, but only {len(pairs)} distinct ones were"
                    f" found (no more with {condition.description}); ask for fewer"
                )
            pairs[_distinct_part(pair)] = pair
        return list(pairs.values())

    def _template(self, task: str) -> TaskTemplate:
        if task not in self._language.tasks:
            raise TaskError(
                f"task '{task}' does not exist in the language '{self._language.language}';"
                f" choose from {', '.join(self.task_names)}"
            )
        return self._language.tasks[task]

    def _conditions(self, template: TaskTemplate) -> list[_Condition]:
        symbols = parse_symbols(template.prefix)
        roles = tuple(_role_of(symbol, template.roles) for symbol in symbols)
        return [
            _Condition(
                template.condition.format(**values),
                self._ground(symbols, values),
                roles,
                self._counterfactual(template, symbols, values),
                self._answers(template, bind(parse_features(template.agrees), values)),
            )
            for values, _ in self._bindings(symbols, {})
            if len({values[variable] for variable in template.differ}) == len(template.differ)
        ]

    def _counterfactual(
        self, template: TaskTemplate, symbols: Sequence[Symbol], values: Mapping[str, str]
    ) -> tuple[_Choice, ...]:
        """Return the prefix with the other value of the feature that the answers contrast in, if it has just two."""
        variable = parse_features(template.agrees)[template.contrast].removeprefix("?")
        others = [value for value in self._values(template.contrast) if value != values.get(variable)]
        return self._ground(symbols, {**values, variable: others[0]}) if len(others) == 1 else ()

    def _answers(self, template: TaskTemplate, agreement: Mapping[str, str]) -> dict[tuple[str, str], float]:
        """Return the weight of each right continuation with its wrong twin."""
        answers = {}
        for name, share in template.answers.items():
            words = [word for word in self._words[name] if word.fits(agreement)]
            total = sum(word.weight for word in words)
            for word in words:
                for wrong in _contrasting(word, self._words[name], agreement, template.contrast):
                    answers[f" {word.text}", f" {wrong.text}"] = share * word.weight / total
        return answers

    def _draw_pairs(self, condition: _Condition, reserved: bool, random: Random) -> Iterator[MinimalPair]:
        answers, weights = list(condition.answers), list(condition.answers.values())
        draws: list[float] = []

        def draw() -> float:
            draws.append(random.random())
            return draws[-1]

        while True:
            draws.clear()
            parts = [_expand((choice,), draw) for choice in reversed(condition.prefix)]
            words = list(chain.from_iterable(parts))
            if not reserved or self.is_reserved(words):
                right, wrong = random.choices(answers, weights)[0]
                others = _expand_again(condition.counterfactual, condition.prefix, draws)
                counterfactual = " ".join(others) if not reserved or self.is_reserved(others) else ""
                roles = self._noun_roles(parts, condition.roles)
                yield MinimalPair(" ".join(words), right, wrong, condition.description, counterfactual, roles)

    def _noun_roles(self, parts: Sequence[Sequence[str]], names: Sequence[str]) -> tuple[Role, ...]:
        """Return where in the prefix the nouns with a role are, given the words of its parts and the role of each."""
        found, start = [], 0
        for words, name in zip(parts, names, strict=True):
            for word in words:
                if name and word in self._lemmas:
                    found.append(Role(name, start, start + len(word)))
                start += len(word) + 1
        return tuple(found)

    def _bindings(self, symbols: Sequence[Symbol], bound: Mapping[str, str]) -> Iterator[tuple[dict[str, str], float]]:
        """Yield all values of the symbols' variables that are not bound yet, with their probability."""
        free = {
            variable: self._values(feature)
            for symbol in symbols
            for variable, feature in symbol.variables.items()
            if variable not in bound
        }
        for values in product(*free.values()):
            chosen = dict(zip(free, values, strict=True))
            yield dict(bound) | chosen, prod(free[variable][value] for variable, value in chosen.items())

    def _values(self, feature: str) -> dict[str, float]:
        """Return the probability of each value of a feature that nothing else decides."""
        weights = self._language.features.get(feature, {})
        if not weights:
            raise ConfigError(
                f"language '{self._language.language}': the feature '{feature}' has no values;"
                f" choose from {', '.join(self._language.features)}, or add it to features"
            )
        total = sum(weights.values())
        return {value: weight / total for value, weight in weights.items()}

    def _ground(self, symbols: Sequence[Symbol], values: Mapping[str, str]) -> tuple[_Choice, ...]:
        return tuple(self._choice(symbol.name, bind(symbol.features, values)) for symbol in reversed(symbols))

    def _choice(self, name: str, features: Mapping[str, str]) -> _Choice:
        key = (name, frozenset(features.items()))
        if key not in self._choices:
            self._choices[key] = _Choice()  # before it is filled, since phrases contain themselves
            self._choices[key].fill(list(self._options(name, features)))
        return self._choices[key]

    def _options(self, name: str, features: Mapping[str, str]) -> "Iterator[tuple[str | tuple[_Choice, ...], float]]":
        if name in self._words:
            return ((word.text, word.weight) for word in self._words[name] if word.fits(features))
        if name in self._rules:
            return self._expansions(name, features)
        raise ConfigError(
            f"language '{self._language.language}': '{name}' is neither a word class nor a phrase;"
            " add it to lexicon or rules"
        )

    def _expansions(self, name: str, features: Mapping[str, str]) -> Iterator[tuple[tuple[_Choice, ...], float]]:
        """Yield the expansions of a phrase with the given features that the lexicon has words for."""
        head, body = self._rules[name]
        given = {variable: features[feature] for variable, feature in head.variables.items() if feature in features}
        for expansion, weight in body.items():
            symbols = parse_symbols(expansion)
            for values, share in self._bindings(symbols, given):
                if all(self._exists(symbol, values) for symbol in symbols):
                    yield self._ground(symbols, values), weight * share

    def _exists(self, symbol: Symbol, values: Mapping[str, str]) -> bool:
        features = bind(symbol.features, values)
        return symbol.name not in self._words or any(word.fits(features) for word in self._words[symbol.name])


def sentences_by_language(languages: Sequence[str], split: Split, seed: int) -> dict[str, Iterator[str]]:
    """Return the sentences of a split in each of some languages, without end.

    Raises:
        ConfigError: if there is no such language.
    """
    return {language: Grammar.load(language).sentences(split, seed) for language in languages}


def words_of(entry: WordClass) -> list[Word]:
    """List all forms of a word class, weighted by Zipf's law over the rows of each group.

    Raises:
        ConfigError: if a row does not have one form for each column.
    """
    groups = entry.rows if isinstance(entry.rows, dict) else {"": entry.rows}
    columns = [parse_features(column) for column in entry.columns]
    words = []
    for group, rows in groups.items():
        for rank, row in enumerate(rows):
            forms = row.split()
            if len(forms) != len(columns):
                raise ConfigError(f"the row '{row}' must have {len(columns)} forms, one for each of its columns")
            for form, features in zip(forms, columns, strict=True):
                words.append(Word(form, forms[0], features | parse_features(group), 1 / (rank + _ZIPF_SHIFT)))
    return words


def split_of(sentence: str) -> Split:
    """Return the split that a sentence belongs to in whatever stream it comes up."""
    return _SPLITS[bisect(_SPLIT_BOUNDS, hash_share(sentence))]


@cache
def _reserved(first: str, second: str) -> bool:
    return hash_share(f"{first} {second}") < _RESERVED_SHARE


def hash_share(text: str | bytes) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    content = text.encode() if isinstance(text, str) else text
    return int.from_bytes(blake2b(content, digest_size=8).digest()) / 2**64


def _expand(start: Sequence[_Choice], draw: Callable[[], float]) -> list[str]:
    """Make all choices, from left to right; `start` and the stack hold the next one last."""
    words = []
    stack = list(start)
    while stack:
        choice = stack.pop()
        option = choice.options[bisect(choice.bounds, draw())]
        if isinstance(option, str):
            words.append(option)
        else:
            stack.extend(option)
    return words


def _expand_again(start: Sequence[_Choice], model: Sequence[_Choice], draws: Sequence[float]) -> list[str]:
    """Expand `start` by the draws that expanded `model`; empty where they lead to phrases of another form."""
    if not start:
        return []
    words = []
    stack = list(zip(start, model, strict=True))
    for share in draws:
        option, as_in = (choice.options[bisect(choice.bounds, share)] for choice in stack.pop())
        if isinstance(option, str) and isinstance(as_in, str):
            words.append(option)
        elif isinstance(option, tuple) and isinstance(as_in, tuple) and len(option) == len(as_in):
            stack.extend(zip(option, as_in, strict=True))
        else:
            return []
    return words


def _distinct_part(pair: MinimalPair) -> MinimalPair:
    """Return what no two pairs of a task have in common: all but the counterfactual and the roles."""
    return replace(pair, counterfactual="", roles=())


def _role_of(symbol: Symbol, roles: Mapping[str, str]) -> str:
    """Return the role that belongs to a symbol's variables; empty where none does."""
    return next((roles[variable] for variable in symbol.variables if variable in roles), "")


def _contrasting(word: Word, others: Sequence[Word], agreement: Mapping[str, str], contrast: str) -> list[Word]:
    """Return the forms of the same word that differ in one feature, and in their text."""
    rest = {feature: value for feature, value in agreement.items() if feature != contrast}
    return [
        other
        for other in others
        if other.lemma == word.lemma
        and other.text != word.text
        and other.fits(rest)
        and other.features[contrast] != agreement[contrast]
    ]
