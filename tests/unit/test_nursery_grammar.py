from collections import Counter
from collections.abc import Mapping
from functools import cache
from hashlib import blake2b
from importlib.resources import files
from itertools import islice, pairwise, product

import pytest
import yaml

from chronocoder.errors import ConfigError, TaskError
from chronocoder.suites.nursery.grammar import Grammar, Word, split_of, words_of
from chronocoder.suites.nursery.language import Language, Symbol, bind, parse_features, parse_symbols, read_language
from chronocoder.tasks.pairs import MinimalPair

ENGLISH_TASKS = {
    "agreement_simple",
    "agreement_across_prepositional_phrase",
    "agreement_across_subject_relative",
    "agreement_across_object_relative",
    "agreement_within_object_relative",
    "agreement_in_coordination",
    "agreement_irregular_plural",
    "determiner_noun",
    "reflexive_number",
}
ENGLISH_VERBS = ("copula", "perfect", "support", "frequent_transitive", "frequent_intransitive")
NOUNS = ("frequent_noun", "common_noun", "irregular_noun", "thing")
VOWELS = "aeiouâàéèêîôû"
FRENCH_VERBS = ("copula", "modal", "frequent_transitive", "frequent_intransitive")
TASKS = [(language, task) for language in ("english", "french") for task in Grammar.load(language).task_names]


@pytest.fixture(scope="module", params=["english", "french"])
def grammar(request: pytest.FixtureRequest) -> Grammar:
    return Grammar.load(request.param)


@pytest.fixture(scope="module")
def english() -> Grammar:
    return Grammar.load("english")


@pytest.fixture(scope="module")
def french() -> Grammar:
    return Grammar.load("french")


@cache
def rows_of(language: str, *classes: str) -> list[list[str]]:
    """Read word forms from the data file, without the engine under test."""
    text = (files("chronocoder.suites.nursery") / "languages" / f"{language}.yaml").read_text(encoding="utf-8")
    entries = [yaml.safe_load(text)["lexicon"][name]["rows"] for name in classes]
    groups = [group for rows in entries for group in (rows.values() if isinstance(rows, dict) else [rows])]
    return [row.split() for rows in groups for row in rows]


@cache
def numbers_of(language: str, *classes: str) -> dict[str, str]:
    """Map each form of classes with a singular and a plural column to its number."""
    rows = rows_of(language, *classes)
    return {row[0]: "singular" for row in rows} | {row[1]: "plural" for row in rows}


def noun_numbers(words: list[str], language: str) -> list[str]:
    numbers = numbers_of(language, *NOUNS)
    return [numbers[word] for word in words if word in numbers]


def test_english_has_the_promised_tasks_and_breadth(english: Grammar) -> None:
    assert set(english.task_names) == ENGLISH_TASKS
    assert len({word.text for words in english.lexicon.values() for word in words}) >= 400


def test_word_frequencies_fall_with_rank(english: Grammar) -> None:
    counts = Counter(word for text in islice(english.sentences("pretraining", 0), 20_000) for word in text[:-1].split())
    assert counts["boy"] > counts["son"] > counts["baron"] > 0
    assert counts["sees"] > counts["meets"] > counts["warns"] > 0


def test_equal_seeds_give_equal_streams(grammar: Grammar) -> None:
    first, again, other = (list(islice(grammar.sentences("train", seed), 50)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_splits_are_disjoint(grammar: Grammar) -> None:
    splits = ("pretraining", "train", "validation")
    texts = {split: set(islice(grammar.sentences(split, 0), 3000)) for split in splits}
    assert all(split_of(text) == split for split in splits for text in texts[split])
    assert not texts["pretraining"] & texts["train"]
    assert not texts["pretraining"] & texts["validation"]
    assert not texts["train"] & texts["validation"]


def test_no_sentence_contains_a_reserved_pair_and_attractor_tasks_only_those(grammar: Grammar) -> None:
    for text in islice(grammar.sentences("pretraining", 0), 5000):
        assert not grammar.is_reserved(text[:-1].split())
    attractor_tasks = [name for name in grammar.task_names if "across" in name or "within" in name]
    for task in attractor_tasks:
        assert all(grammar.is_reserved(pair.prefix.split()) for pair in grammar.minimal_pairs(task, 40, 0))


def test_prefixes_with_an_attractor_never_begin_a_sentence(english: Grammar) -> None:
    prefixes = {pair.prefix for pair in english.minimal_pairs("agreement_across_prepositional_phrase", 300, 0)}
    beginnings = {" ".join(text.split()[:5]) for text in islice(english.sentences("pretraining", 0), 20_000)}
    assert not prefixes & beginnings


def test_nouns_are_not_also_other_words(grammar: Grammar) -> None:
    forms = {name: {word.text for word in words} for name, words in grammar.lexicon.items()}
    others = set().union(*(texts for name, texts in forms.items() if name not in NOUNS))
    assert not set().union(*(forms[name] for name in NOUNS)) & others


@pytest.mark.parametrize("task", sorted(ENGLISH_TASKS - {"determiner_noun", "reflexive_number"}))
def test_english_verbs_agree_with_their_head(english: Grammar, task: str) -> None:
    verbs = numbers_of("english", *ENGLISH_VERBS)
    for pair in english.minimal_pairs(task, 100, 0):
        nouns = noun_numbers(pair.prefix.split(), "english")
        head = nouns[-1 if task == "agreement_within_object_relative" else 0]
        assert verbs[pair.right.strip()] == head != verbs[pair.wrong.strip()]
        assert f"head {head}" in pair.condition
        assert len(nouns) == 1 or nouns[0] != nouns[1]


def test_english_nouns_agree_with_their_determiner(english: Grammar) -> None:
    determiners, nouns = numbers_of("english", "telling_determiner"), numbers_of("english", "frequent_noun")
    for pair in english.minimal_pairs("determiner_noun", 100, 0):
        number = determiners[pair.prefix.split()[-1]]
        assert nouns[pair.right.strip()] == number != nouns[pair.wrong.strip()]


def test_english_reflexives_agree_with_their_subject(english: Grammar) -> None:
    for pair in english.minimal_pairs("reflexive_number", 100, 0):
        [number] = noun_numbers(pair.prefix.split(), "english")
        plural, singular = (pair.right, pair.wrong) if number == "plural" else (pair.wrong, pair.right)
        assert plural == " themselves"
        assert singular in {" himself", " herself", " itself"}


@pytest.mark.parametrize(
    "task",
    [
        "agreement_simple",
        "agreement_across_prepositional_phrase",
        "agreement_across_subject_relative",
        "agreement_across_object_relative",
        "agreement_irregular_plural",
    ],
)
def test_french_verbs_agree_with_their_head(french: Grammar, task: str) -> None:
    verbs = numbers_of("french", *FRENCH_VERBS)
    for pair in french.minimal_pairs(task, 100, 0):
        head = noun_numbers(pair.prefix.split(), "french")[0]
        assert verbs[pair.right.strip()] == head != verbs[pair.wrong.strip()]


@pytest.mark.parametrize("task", ["adjective_gender", "adjective_gender_across_prepositional_phrase"])
def test_french_adjectives_agree_in_gender_and_number(french: Grammar, task: str) -> None:
    genders = {word.text: word.features["gender"] for name in NOUNS for word in french.lexicon[name]}
    masculine_forms = {form for row in rows_of("french", "frequent_adjective") for form in (row[0], row[2])}
    plural_forms = {form for row in rows_of("french", "frequent_adjective") for form in (row[2], row[3])}
    for pair in french.minimal_pairs(task, 100, 0):
        words = pair.prefix.split()
        head = next(word for word in words if word in genders)
        right, wrong = pair.right.strip(), pair.wrong.strip()
        assert (right in masculine_forms) == (genders[head] == "masculine") != (wrong in masculine_forms)
        plural = noun_numbers(words, "french")[0] == "plural"
        assert plural == (right in plural_forms) == (wrong in plural_forms)


def test_french_articles_agree_in_gender(french: Grammar) -> None:
    genders = {word.text: word.features["gender"] for name in NOUNS for word in french.lexicon[name]}
    articles = {"le": "masculine", "un": "masculine", "la": "feminine", "une": "feminine"}
    seen = Counter()
    for text in islice(french.sentences("pretraining", 0), 3000):
        words = text[:-1].split()
        for article, noun in pairwise(words):
            if article in articles:
                assert genders[noun] == articles[article]
                seen[article] += 1
    assert min(seen[article] for article in articles) > 100


def test_words_that_would_change_before_a_vowel_never_stand_there() -> None:
    for language, changing in (("english", {"a"}), ("french", {"le", "la", "que", "ce", "ma", "ta", "sa"})):
        for text in islice(Grammar.load(language).sentences("pretraining", 0), 10_000):
            words = text[:-1].split()
            assert not [pair for pair in pairwise(words) if pair[0] in changing and pair[1][0] in VOWELS]


def test_pairs_are_distinct_balanced_and_reproducible(grammar: Grammar) -> None:
    for task in grammar.task_names:
        pairs = grammar.minimal_pairs(task, 80, 5)
        assert len({(pair.prefix, pair.right, pair.wrong, pair.condition) for pair in pairs}) == 80
        assert pairs == grammar.minimal_pairs(task, 80, 5)
        assert pairs != grammar.minimal_pairs(task, 80, 6)
        counts = Counter(pair.condition for pair in pairs)
        assert len(counts) >= 2
        assert max(counts.values()) - min(counts.values()) <= 4


def test_continuations_differ_and_begin_with_a_space(grammar: Grammar) -> None:
    for task in grammar.task_names:
        for pair in grammar.minimal_pairs(task, 40, 0):
            assert isinstance(pair, MinimalPair)
            assert pair.right != pair.wrong
            assert pair.right.startswith(" ") and pair.wrong.startswith(" ")
            assert not pair.prefix.startswith(" ")


@pytest.mark.parametrize(("language", "digest"), [("english", "bd6c5f9ab810e5e6"), ("french", "44ab09c4a8b19ba8")])
def test_pairs_are_those_that_published_results_rest_on(language: str, digest: str) -> None:
    grammar = Grammar.load(language)
    pairs = [pair for task in grammar.task_names for pair in grammar.minimal_pairs(task, 200, 2)]
    texts = ["|".join((pair.prefix, pair.right, pair.wrong, pair.condition, pair.counterfactual)) for pair in pairs]
    assert blake2b("\n".join(texts).encode(), digest_size=8).hexdigest() == digest


@pytest.mark.parametrize(("language", "task"), TASKS)
def test_roles_are_of_the_noun_that_the_answer_agrees_with_and_of_the_other(language: str, task: str) -> None:
    for pair in Grammar.load(language).minimal_pairs(task, 60, 0):
        nouns = [word for word in pair.prefix.split() if word in numbers_of(language, *NOUNS)]
        names = ["attractor", "subject"] if "within" in task else ["subject", "attractor"][: len(nouns)]
        expected = [] if task == "determiner_noun" else list(zip(names, nouns, strict=True))
        assert [(role.name, pair.prefix[role.start : role.stop]) for role in pair.roles] == expected


def test_roles_are_where_their_nouns_are(english: Grammar) -> None:
    for pair in english.minimal_pairs("agreement_across_prepositional_phrase", 300, 0):
        subject, attractor = pair.roles
        assert pair.prefix[: subject.start].count(" ") == 1
        assert attractor.stop == len(pair.prefix) and attractor.start > subject.stop


def test_roles_make_no_pair_distinct() -> None:
    """Of the three words `ox ox ox` the first may be the subject, or the first two."""
    prefix = {"prefix": "nouns[number=?head] nouns[number=singular]", "agrees": "number=?head"}
    language = tiny_language(
        rules={"nouns[number]": {"noun[number]": 1, "noun[number] noun[number]": 1}},
        tasks={"number": {**tiny_task(), **prefix, "condition": "{head}", "roles": {"head": "subject"}}},
    )
    grammar = Grammar(language)
    singular = {pair.prefix for pair in grammar.minimal_pairs("number", 6, 0) if pair.condition == "singular"}
    assert singular == {"ox ox", "ox ox ox", "ox ox ox ox"}
    with pytest.raises(TaskError, match=r"only 6 distinct ones were found \(no more with singular\)"):
        grammar.minimal_pairs("number", 7, 0)


def test_role_of_a_variable_that_the_prefix_does_not_have_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"roles: the prefix 'noun\[number\]' has no variable 'haed'; choose from number, or leave"
    ):
        tiny_language(tasks={"number": {**tiny_task(), "roles": {"haed": "subject"}}})


@cache
def content(language: str) -> Language:
    return read_language(language)


@cache
def forms(language: str, name: str) -> list[Word]:
    return words_of(content(language).lexicon[name])


def ends(language: str, symbol: Symbol, words: list[str], start: int) -> set[int]:
    """Return where a phrase that begins at `start` may end: a recogniser to check the generator by."""
    if symbol.name in content(language).lexicon:
        fits = any(word.text == words[start] and word.fits(symbol.features) for word in forms(language, symbol.name))
        return {start + 1} if fits else set()
    heads = ((parse_symbols(head)[0], body) for head, body in content(language).rules.items())
    head, body = next((head, body) for head, body in heads if head.name == symbol.name)
    given = {name: symbol.features[feature] for name, feature in head.variables.items() if feature in symbol.features}
    parts = [parse_symbols(expansion) for expansion in body]
    return set().union(*(sequence_ends(language, part, given, words, start) for part in parts))


def sequence_ends(
    language: str, symbols: list[Symbol], given: Mapping[str, str], words: list[str], start: int
) -> set[int]:
    found: set[int] = set()
    for values in bindings(language, symbols, given):
        places = {start}
        for symbol in symbols:
            ground = Symbol(symbol.name, bind(symbol.features, values))
            places = set().union(*(ends(language, ground, words, place) for place in places if place < len(words)))
        found |= places
    return found


def bindings(language: str, symbols: list[Symbol], given: Mapping[str, str]) -> list[dict[str, str]]:
    free = {name: feature for symbol in symbols for name, feature in symbol.variables.items() if name not in given}
    choices = product(*(content(language).features[feature] for feature in free.values()))
    return [{**given, **dict(zip(free, values, strict=True))} for values in choices]


def conditions_of(language: str, task: str, pair: MinimalPair) -> set[str]:
    """Return the conditions under which a pair is one of the task, those that `differ` excludes included."""
    template = content(language).tasks[task]
    symbols, words = parse_symbols(template.prefix), pair.prefix.split()
    found = set()
    for values in bindings(language, symbols, {}):
        agreement = bind(parse_features(template.agrees), values)
        rest = {feature: value for feature, value in agreement.items() if feature != template.contrast}
        answers = [
            (right.text, wrong.text)
            for name in template.answers
            for right, wrong in product(forms(language, name), repeat=2)
            if right.lemma == wrong.lemma and right.fits(agreement) and wrong.fits(rest) and not wrong.fits(agreement)
        ]
        answered = (pair.right.strip(), pair.wrong.strip()) in answers
        if answered and len(words) in sequence_ends(language, symbols, values, words, 0):
            found.add(template.condition.format(**values))
    return found


@pytest.mark.parametrize(("language", "task"), TASKS)
def test_wrong_answer_is_right_for_the_counterfactual_and_under_another_condition(language: str, task: str) -> None:
    pairs = Grammar.load(language).minimal_pairs(task, 40, 2)
    with_counterfactual = [pair for pair in pairs if pair.counterfactual]
    assert with_counterfactual
    for pair in with_counterfactual:
        assert conditions_of(language, task, pair) == {pair.condition}
        assert not conditions_of(language, task, MinimalPair(pair.prefix, pair.wrong, pair.right))
        others = conditions_of(language, task, MinimalPair(pair.counterfactual, pair.wrong, pair.right))
        assert len(others) == 1 and pair.condition not in others
        assert not conditions_of(language, task, MinimalPair(pair.counterfactual, pair.right, pair.wrong))


@pytest.mark.parametrize(("language", "task"), [entry for entry in TASKS if "gender" not in entry[1]])
def test_counterfactual_has_other_forms_of_the_same_words_and_changes_one_number(language: str, task: str) -> None:
    lemmas = {frozenset(row) for name in content(language).lexicon for row in rows_of(language, name)}
    for pair in Grammar.load(language).minimal_pairs(task, 100, 2):
        words, others = pair.prefix.split(), pair.counterfactual.split()
        changed = [(word, other) for word, other in zip(words, others, strict=True) if word != other]
        assert changed
        assert all(any({word, other} <= lemma for lemma in lemmas) for word, other in changed)
        numbers = zip(noun_numbers(words, language), noun_numbers(others, language), strict=True)
        assert sum(number != other for number, other in numbers) == (task != "determiner_noun")


def test_gender_counterfactuals_have_a_noun_of_the_other_gender_and_unseen_pairs_stay_unseen(french: Grammar) -> None:
    genders = {word.text: word.features["gender"] for name in NOUNS for word in french.lexicon[name]}
    pairs = french.minimal_pairs("adjective_gender", 100, 2)
    assert all(pair.counterfactual for pair in pairs)
    across = french.minimal_pairs("adjective_gender_across_prepositional_phrase", 300, 2)
    with_counterfactual = [pair for pair in across if pair.counterfactual]
    assert 10 < len(with_counterfactual) < 100
    assert all(french.is_reserved(pair.counterfactual.split()) for pair in with_counterfactual)
    for pair in (*pairs, *with_counterfactual):
        nouns, others = (
            [word for word in text.split() if word in genders] for text in (pair.prefix, pair.counterfactual)
        )
        assert genders[nouns[0]] != genders[others[0]] and nouns[1:] == others[1:]
        assert noun_numbers(nouns, "french") == noun_numbers(others, "french")


def test_counterfactuals_of_reserved_pairs_are_reserved_too(grammar: Grammar) -> None:
    for task in ("agreement_across_prepositional_phrase", "agreement_across_object_relative"):
        assert all(grammar.is_reserved(pair.counterfactual.split()) for pair in grammar.minimal_pairs(task, 40, 0))


def test_counterfactual_is_empty_where_the_other_number_has_another_phrase() -> None:
    numeral = {"columns": ["number=plural"], "rows": ["two"]}
    phrase = {"noun[number]": 1, "numeral[number] noun[number]": 1}
    language = tiny_language(
        lexicon={**tiny_lexicon(), "numeral": numeral},
        rules={"phrase[number]": phrase},
        tasks={"number": {**tiny_task(), "prefix": "phrase[number]"}},
    )
    pairs = [pair for seed in range(20) for pair in Grammar(language).minimal_pairs("number", 2, seed)]
    counterfactuals = {(pair.prefix, pair.counterfactual) for pair in pairs}
    assert counterfactuals == {("ox", "oxen"), ("ox", ""), ("oxen", "ox"), ("two oxen", "")}


def test_feature_with_three_values_has_no_counterfactual() -> None:
    noun = {"columns": ["number=singular", "number=dual", "number=plural"], "rows": ["ox oxa oxen"]}
    verb = {"columns": noun["columns"], "rows": ["eats eata eat"]}
    language = tiny_language(
        features={"number": {"singular": 1, "dual": 1, "plural": 1}}, lexicon={"noun": noun, "verb": verb}
    )
    assert {pair.counterfactual for pair in Grammar(language).minimal_pairs("number", 3, 0)} == {""}


def test_an_unknown_language_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'klingon' does not exist; choose from english, french"):
        Grammar.load("klingon")


def test_an_unknown_task_is_refused_with_the_known_ones(english: Grammar) -> None:
    with pytest.raises(TaskError, match="'island' does not exist in the language 'english'; choose from agreement_s"):
        english.minimal_pairs("island", 1, 0)


def test_more_pairs_than_exist_are_refused() -> None:
    with pytest.raises(TaskError, match=r"'number': 5 pairs were asked for, but only 2 .*; ask for fewer"):
        Grammar(tiny_language()).minimal_pairs("number", 5, 0)


def test_mistakes_in_a_language_file_are_named() -> None:
    with pytest.raises(ConfigError, match="'noum' is neither a word class nor a phrase"):
        next(Grammar(tiny_language(rules={"sentence": {"noum": 1}})).sentences("train", 0))
    with pytest.raises(ConfigError, match="the feature 'nomber' has no values; choose from number"):
        next(Grammar(tiny_language(rules={"sentence": {"noun[nomber]": 1}})).sentences("train", 0))
    with pytest.raises(ConfigError, match="row 'ox' must have 2 forms"):
        Grammar(tiny_language(lexicon={"noun": {"columns": ["number=singular", "number=plural"], "rows": ["ox"]}}))
    with pytest.raises(ConfigError, match="'noun\\[' is not a sequence of symbols"):
        parse_symbols("noun[")


def test_every_language_is_named_as_its_file() -> None:
    assert [read_language(name).language for name in ("english", "french")] == ["english", "french"]


def tiny_lexicon() -> dict[str, object]:
    columns = ["number=singular", "number=plural"]
    return {"noun": {"columns": columns, "rows": ["ox oxen"]}, "verb": {"columns": columns, "rows": ["eats eat"]}}


def tiny_task() -> dict[str, object]:
    return {"prefix": "noun[number]", "agrees": "number", "answers": {"verb": 1}, "condition": "head {number}"}


def tiny_language(**changes: object) -> Language:
    content = {
        "language": "tiny",
        "sentence": "sentence",
        "stop": ".",
        "nouns": ["noun"],
        "features": {"number": {"singular": 1, "plural": 1}},
        "lexicon": tiny_lexicon(),
        "rules": {"sentence": {"noun[number] verb[number]": 1}},
        "tasks": {"number": tiny_task()},
    }
    return Language.model_validate(content | changes)
