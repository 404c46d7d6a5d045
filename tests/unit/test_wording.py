"""Names and numbers as a reader wants them."""

from report_stores import example_store

from chronocoder.attribution import measures
from chronocoder.report.data import CLASSES, feature_words
from chronocoder.wording import listed, peak_words, short_count, signed


def test_classes_are_those_of_the_measures() -> None:
    assert set(CLASSES) == set(measures.CLASSES)


def test_words_are_joined_from_the_tokens_around_the_peak() -> None:
    assert peak_words([([" the", " ch", "ild", "ren", "."], 2), ([" ox", "en"], 1), ([" ox", "en"], 0)], 5) == [
        "oxen",
        "children",
    ]
    assert peak_words([(["a", " ."], 1)], 5) == ["."]
    assert feature_words(example_store()) == {0: ["children", "oxen"]}


def test_numbers_in_words() -> None:
    assert [short_count(count) for count in (0, 512, 786_432, 2_097_152, 3e11)] == [
        "0",
        "512",
        "786 k",
        "2.1 M",
        "300 B",
    ]
    assert (signed(-0.25), signed(0.004), signed(-0.0001)) == ("−0.25", "+0.004", "+0.000")
    assert [listed(items) for items in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a and b", "a, b and c"]
