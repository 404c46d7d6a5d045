from collections import Counter
from functools import cache
from importlib.resources import files
from itertools import islice, pairwise

import pytest
import yaml

from chronocoder.errors import ConfigError, TaskError
from chronocoder.suites.nursery.grammar import Grammar, split_of
from chronocoder.suites.nursery.language import Language, parse_symbols, read_language
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
        assert len(set(pairs)) == 80
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


def tiny_language(**changes: object) -> Language:
    verb = {"columns": ["number=singular", "number=plural"], "rows": ["eats eat"]}
    content = {
        "language": "tiny",
        "sentence": "sentence",
        "stop": ".",
        "nouns": ["noun"],
        "features": {"number": {"singular": 1, "plural": 1}},
        "lexicon": {
            "noun": {"columns": ["number=singular", "number=plural"], "rows": ["ox oxen"]},
            "verb": verb,
        },
        "rules": {"sentence": {"noun[number] verb[number]": 1}},
        "tasks": {
            "number": {
                "prefix": "noun[number]",
                "agrees": "number",
                "answers": {"verb": 1},
                "condition": "head {number}",
            }
        },
    }
    return Language.model_validate(content | changes)
