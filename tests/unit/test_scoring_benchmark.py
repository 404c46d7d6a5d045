"""The benchmark of scoring compares the same texts, and says how they compare."""

from types import ModuleType

import pytest
from benchmark_modules import load_benchmark

from chronocoder.behaviour.pool import Pool


@pytest.fixture(scope="module")
def scoring() -> ModuleType:
    return load_benchmark("scoring")


def test_bare_passes_read_the_texts_that_are_scored(scoring: ModuleType) -> None:
    setting = scoring.Setting(sets=3, pairs=20, words=100, entries=400)
    sets = scoring.random_sets(setting)
    assert [len(pairs) for pairs in sets] == [20] * 3
    for pair in (pair for pairs in sets for pair in pairs):
        right, wrong = (sentence.removesuffix(".").split() for sentence in (pair.good, pair.bad))
        assert 4 <= len(right) == len(wrong) <= 12 and right[0] == wrong[0]
        assert sum(first != second for first, second in zip(right, wrong, strict=True)) == 1
    for metric in scoring.METRICS:
        texts = Pool.of(scoring.tokenised(sets, setting, metric)).texts
        batches = scoring.batches_of(texts, 64, "cpu")
        assert sorted(tuple(row) for ids in batches for row in ids.tolist()) == sorted(texts)
        assert all(ids.numel() <= 64 for ids in batches)


def test_ratio_is_of_both_in_turn(scoring: ModuleType) -> None:
    setting = scoring.Setting(2, 3, words=50, entries=300, width=16, blocks=2, heads=2, vocabulary=300)
    found = scoring.measure(setting, rounds=2)
    assert list(found) == ["sentence", "next_token"]
    assert found["sentence"].texts == 2 * 2 * 3 and found["sentence"].tokens > found["next_token"].tokens
    called: list[str] = []
    times = scoring.seconds((lambda: called.append("scored"), lambda: called.append("bare")), 2)
    assert called == ["scored", "bare"] * 2 and [len(of_round) for of_round in times] == [2, 2]
    lines = list(scoring.rows({"sentence": scoring.Ratio(12, 90, scored=3.0, bare=2.0)}))
    assert lines[2] == "| sentence | 12 | 90 | 3.0 | 2.0 | 1.50 | 1.3 |"
