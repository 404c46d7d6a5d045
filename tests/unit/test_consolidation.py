"""Features that languages share are found, those that they do not share are not, and chance is what it says it is."""

import numpy as np
import pytest
import xarray as xr

from chronocoder.config import ConsolidationSettings
from chronocoder.errors import ConfigError
from chronocoder.features.consolidation import _mean_size, consolidate, families_of
from chronocoder.features.overlap import (
    bootstrapped,
    crossed_overlap,
    exchanged_together,
    fractions,
    largest,
    overlap,
    permuted,
    strata_of,
)

SETTINGS = ConsolidationSettings(top_features=6, permutations=400, samples=200)
FEATURES, DIRECTIONS, LANGUAGES = 60, 40, ("english", "french")
CHECKPOINTS = ["step0", "step9"]


def random_sizes(generator: np.random.Generator, halves: int = 2) -> np.ndarray:
    sizes = generator.lognormal(0, 1.5, (1, FEATURES)) * generator.lognormal(0, 0.2, (halves, FEATURES))
    return sizes * (generator.random(FEATURES) < 0.6)


def test_overlap_is_that_of_a_loop_over_features() -> None:
    first, second = random_sizes(np.random.default_rng(0))
    smaller = sum(min(a, b) for a, b in zip(first, second, strict=True))
    larger = sum(max(a, b) for a, b in zip(first, second, strict=True))
    assert overlap(first, second) == pytest.approx(smaller / larger)
    chosen, other = (set(np.argsort(-sizes)[:7]) for sizes in (first, second))
    assert overlap(largest(first, 7), largest(second, 7)) == pytest.approx(len(chosen & other) / len(chosen | other))
    assert overlap(first, first) == 1 and np.isnan(overlap(0 * first, 0 * first))
    assert fractions(first).sum() == pytest.approx(1) and not fractions(0 * first).any()
    assert largest(np.array([3.0, 0.0, 5.0]), 3).tolist() == [1, 0, 1]  # what has no effect is never chosen
    halves = np.stack([first, second]), np.stack([second, first])
    assert crossed_overlap(*halves) == pytest.approx((2 + 2 * smaller / larger) / 4)


def test_features_are_exchanged_among_those_of_similar_activity() -> None:
    activity = np.array([0, 1.04, 0, 1.0, 1.01, 9, 8, 0, 1.02, 1.03, 7, 100])
    strata = strata_of(activity, 4)
    assert strata.tolist() == [0, 2, 0, 1, 1, 3, 3, 0, 1, 1, 3, 4]
    assert strata_of(np.zeros(3), 4).tolist() == [0, 0, 0]
    only = (activity == 9).astype(float)[None]
    for other in range(12):
        shifted = (np.arange(12) == other).astype(float)[None]
        null = permuted(shifted, only, strata, 4000, 0.95, np.random.default_rng(0))
        expected = 1 / 3 if strata[other] == 3 else 0.0
        assert null.level.estimate == pytest.approx(expected, abs=0.02)
        assert null.p_value == pytest.approx(1 if other != 5 else 1 / 3, abs=0.02)


@pytest.mark.parametrize("spread", [0.0, 1.5, 3.0])
def test_p_values_of_unrelated_features_are_calibrated(spread: float) -> None:
    """Effects grow with activity, which both sides share and which a few features have most of."""
    generator = np.random.default_rng(1)
    found = []
    for _ in range(400):
        activity = generator.lognormal(0, spread, FEATURES) * generator.lognormal(0, 0.2, FEATURES)
        first, second = (random_sizes(generator) * activity for _ in range(2))
        sizes = [np.stack([largest(of, 6), fractions(of)]) for of in (first, second)]
        found.append(permuted(*sizes, strata_of(activity, 10), 99, 0.95, generator).p_value)
    for p_values in np.transpose(found):
        for alpha in (0.05, 0.2):
            assert (p_values <= alpha).mean() < alpha + 2.6 * np.sqrt(alpha * (1 - alpha) / len(found))
    weighted = np.array(found)[:, 1]
    assert spread or ((weighted <= 0.2).mean() > 0.12 and 0.4 < weighted.mean() < 0.6)


def test_intervals_tell_whether_an_overlap_hangs_on_few_features() -> None:
    generator = np.random.default_rng(2)
    many = np.ones((1, 50)), np.repeat([[1.0, 0.0]], [25, 25], axis=1)
    few = np.eye(50)[:2].sum(axis=0)[None], np.eye(50)[:1]
    wide, narrow = (bootstrapped(*sizes, 2000, 0.95, generator) for sizes in (few, many))
    for interval in (wide, narrow):
        assert interval.estimate == pytest.approx(0.5) and interval.low <= 0.5 <= interval.high
    assert narrow.low == pytest.approx(0.36, abs=0.03) and narrow.high == pytest.approx(0.64, abs=0.03)
    assert wide.low == 0 and wide.high == 1
    together = bootstrapped(*(np.stack([of_few, 0 * of_few]) for of_few in few), 500, 0.95, generator)
    assert together.estimate[0] == 0.5 and (together.low[0], together.high[0]) == (0, 1)
    assert np.isnan([together.estimate[1], together.low[1], together.high[1]]).all()
    halves = np.ones((2, 30)), np.stack([np.ones(30), np.zeros(30)])
    assert bootstrapped(*halves, 500, 0.95, generator).estimate == crossed_overlap(*halves) == 0.5


def test_features_in_several_sets_by_chance_are_those_of_independent_draws_within_strata() -> None:
    generator = np.random.default_rng(4)
    strata = np.stack([generator.integers(0, 4, 50), generator.integers(0, 3, 50), np.zeros(50, dtype=int)])
    flags = generator.random((3, 50)) < 0.25
    null = exchanged_together(flags, strata, 4000, 0.95, generator)
    rates = np.array(
        [[flags[one, of == of[place]].mean() for place in range(50)] for one, of in enumerate(strata)]
    )  # of each feature to be in each set
    expected = 0.0
    for a, b, c in rates.T:
        expected += (
            1 - (1 - a) * (1 - b) * (1 - c) - a * (1 - b) * (1 - c) - (1 - a) * b * (1 - c) - (1 - a) * (1 - b) * c
        )
    assert null.level.estimate == pytest.approx(expected, rel=0.02)
    assert null.level.low < expected < null.level.high and 0.02 < null.p_value <= 1
    alone = exchanged_together(flags, np.tile(np.arange(50), (3, 1)), 20, 0.95, generator)  # nothing can be exchanged
    assert alone.level.low == alone.level.high == (flags.sum(axis=0) > 1).sum() and alone.p_value == 1
    same = np.tile(flags[0], (2, 1))
    assert exchanged_together(same, np.zeros((2, 50), dtype=int), 400, 0.95, generator).p_value == pytest.approx(
        1 / 401
    )


def planted(effects: dict[tuple[str, str], np.ndarray], random: np.ndarray | None = None) -> xr.Dataset:
    """Effects at the last checkpoint by (phenomenon, language); nothing at the first one.

    The mean of two conditions, of which the second has no effect; a third condition is of no task. Random directions
    have the effects `random`, shape (language, direction).
    """
    generator = np.random.default_rng(3)
    last = np.array([*effects.values()]) + generator.normal(0, 1e-3, (len(effects), FEATURES))
    effect = np.stack([np.zeros_like(last), last], axis=1)
    of_conditions = np.stack([2 * effect, 0 * effect, np.full_like(effect, np.nan)], axis=1)
    noise = generator.normal(0, 0.01, (len(effects), 2, *of_conditions.shape[1:]))
    halves = of_conditions[:, None] * (1 + noise)
    control = np.full((len(effects), 3, 3, 2, FEATURES), np.nan)
    for place, (_, language) in enumerate(effects):
        if random is not None:
            control[place, :2, :2, 1, :DIRECTIONS] = random[LANGUAGES.index(language)]
    control[:, 2] = 9.0  # shuffled tokens are no random direction
    return xr.Dataset(
        {
            "indirect_effect": (("task", "checkpoint", "feature"), effect),
            "measurable": (("task", "checkpoint", "feature"), abs(effect) > 0.1),
            "half_indirect_effect": (("task", "half", "condition", "checkpoint", "feature"), halves),
            "control_indirect_effect": (("task", "control", "condition", "checkpoint", "feature"), control),
            "mean_activation": (("task", "feature"), generator.random((len(effects), FEATURES))),
            "relative_decoder_norm": (("checkpoint", "feature"), np.full((2, FEATURES), 0.5)),
        },
        coords={
            "phenomenon": ("task", [phenomenon for phenomenon, _ in effects]),
            "language": ("task", [language for _, language in effects]),
            "checkpoint": CHECKPOINTS,
            "tokens_seen": ("checkpoint", [0, 90]),
            "control": ["random directions 0", "random directions 1", "shuffled tokens"],
            "feature": np.arange(FEATURES),
        },
    )


def of_features(*features: int, size: float = 1.0) -> np.ndarray:
    effect = np.zeros(FEATURES)
    effect[list(features)] = size * np.linspace(1, 2, len(features))
    return effect


EFFECTS = {
    ("shared", "english"): of_features(0, 1, 2, 3, 4, 5),
    ("shared", "french"): of_features(0, 1, 2, 3, 4, 5, size=3.0),
    ("apart", "english"): of_features(10, 11, 12, 13, 14),
    ("apart", "french"): of_features(20, 21, 22, 23, 24),
    ("opposed", "english"): of_features(30, 31, 32, 33),
    ("opposed", "french"): -of_features(30, 31, 32, 33) + of_features(40, 41),
    ("alone", "english"): of_features(0),
    ("", "french"): of_features(0),
}
UNRELATED = np.abs(np.random.default_rng(4).normal(size=(2, DIRECTIONS)))


def test_families_are_phenomena_in_several_languages() -> None:
    assert families_of(planted(EFFECTS)) == {
        "shared": {"english": [0], "french": [1]},
        "apart": {"english": [2], "french": [3]},
        "opposed": {"english": [4], "french": [5]},
    }
    with pytest.raises(ConfigError, match="no phenomenon has tasks in several languages; give tasks of one phenomenon"):
        consolidate(planted({("alone", "english"): of_features(0)}), SETTINGS)


def test_shared_features_are_found_and_unshared_ones_are_not() -> None:
    found = consolidate(planted(EFFECTS, UNRELATED), SETTINGS)
    assert found["overlap"].dims == ("measure", "sign", "family", "checkpoint", "language_pair")
    assert found["language_pair"].values.tolist() == ["english, french"]
    for name in ("overlap", "p_value", "ceiling", "random", "corrected_overlap"):
        assert found[name].sel(checkpoint="step0").isnull().all(), name
    assert not found["shared"].sel(checkpoint="step0").any()
    last = found.isel(checkpoint=-1, language_pair=0)
    shared, apart, opposed = (last.sel(family=name) for name in ("shared", "apart", "opposed"))
    assert shared["shared"].all() and (shared["overlap"] > 0.97).all() and (shared["q_value"] < 0.02).all()
    assert (shared["permuted_high"] < 0.5).all() and (shared["corrected_overlap"] > 0.95).all()
    assert not apart["shared"].any() and (apart["overlap"] < 0.02).all() and (apart["p_value"] > 0.2).all()
    assert (apart["ceiling"] > 0.97).all() and (apart["corrected_overlap"] < 0.02).all()
    assert opposed["overlap"].sel(measure="weighted", sign="either") > 0.5
    assert (opposed["overlap"].sel(sign="helping") < 0.02).all() and not opposed["shared"].sel(sign="helping").any()
    expected = overlap(*(UNRELATED / UNRELATED.sum(axis=1, keepdims=True)))
    assert float(shared["random"].sel(measure="weighted", sign="either")) == pytest.approx(expected, abs=1e-6)
    assert shared["other_families"].max() < 0.03  # no family has a feature of another


def test_overlap_too_small_to_be_of_interest_is_not_called_shared() -> None:
    whole = SETTINGS.model_copy(update={"smallest_overlap": 1.0})
    found = consolidate(planted(EFFECTS, UNRELATED), whole).isel(checkpoint=-1).sel(family="shared")
    assert (found["q_value"] < 0.02).all() and not found["shared"].where(found["corrected_overlap"] < 1, False).any()
    assert consolidate(planted(EFFECTS, UNRELATED), SETTINGS)["shared"].any()


def test_overlap_that_random_directions_reach_is_not_called_shared() -> None:
    alike = np.stack([UNRELATED[0]] * 2)
    found = consolidate(planted(EFFECTS, alike), SETTINGS).isel(checkpoint=-1, language_pair=0)
    assert (found["random"] > 0.99).all() and not found["shared"].any()
    without = planted(EFFECTS).drop_vars("control_indirect_effect")
    found = consolidate(without, SETTINGS).isel(checkpoint=-1, language_pair=0)
    assert found["random"].isnull().all() and not found["shared"].any()


def test_how_many_languages_a_feature_serves() -> None:
    found = consolidate(planted(EFFECTS, UNRELATED), SETTINGS).isel(checkpoint=-1)
    served = found["languages_served"]
    assert served.sel(family="shared").values.tolist() == [2] * 6 + [0] * (FEATURES - 6)
    assert np.flatnonzero(served.sel(family="apart") == 1).tolist() == [*range(10, 15), *range(20, 25)]
    assert np.flatnonzero(served.sel(family="opposed")).tolist() == [30, 31, 32, 33, 40, 41]  # harm is no service
    by_number = found["effect_by_languages_served"]
    np.testing.assert_allclose(by_number.sel(family="shared"), [0, 1], atol=1e-6)
    np.testing.assert_allclose(by_number.sel(family="apart"), [1, 0], atol=1e-6)
    seen = found["measurable_features"].sel(family="opposed")
    assert seen.sel(sign="either").values.tolist() == [4, 6] and seen.sel(sign="helping").values.tolist() == [4, 2]
    assert int(found["features_compared"].sel(family="opposed", sign="helping")[0]) == 2


def test_what_helps_in_one_condition_and_harms_in_another_does_not_help() -> None:
    relie = planted({("f", name): of_features(0, 1, 2, 3) for name in LANGUAGES})
    relie["half_indirect_effect"][:, :, 1, :, :2] = -relie["half_indirect_effect"][:, :, 0, :, :2]
    bias, rest = (relie.sel(feature=of) for of in (slice(0, 1), slice(2, 3)))
    for sign, of_bias in (("either", 8 / 3), ("helping", 0.0)):
        size = _mean_size(bias["half_indirect_effect"].transpose("task", "condition", ...).values, sign)
        assert size[:, :, 1].max() == pytest.approx(of_bias, rel=0.05)
        assert _mean_size(rest["half_indirect_effect"].transpose("task", "condition", ...).values, sign).max() > 1.5


def test_three_languages_make_three_pairs_where_a_family_has_them() -> None:
    effects = {
        **{("shared", name): of_features(0, 1, 2) for name in ("english", "french")},
        **{("more", name): of_features(5, 6, 7) for name in ("english", "french", "dutch")},
    }
    found = consolidate(planted(effects), SETTINGS).isel(checkpoint=-1).sel(measure="weighted", sign="helping")
    assert found["language_pair"].values.tolist() == ["english, french", "english, dutch", "french, dutch"]
    assert found["overlap"].notnull().values.tolist() == [[True, False, False], [True] * 3]
    assert found["languages_served"].max("feature").values.tolist() == [2, 3]


def test_languages_without_a_common_family_are_not_compared() -> None:
    names = [("one", "english"), ("one", "french"), ("two", "french"), ("two", "dutch")]
    found = consolidate(planted({name: of_features(0, 1, 2) for name in names}), SETTINGS)
    assert found["language_pair"].values.tolist() == ["english, french", "french, dutch"]
    assert found["overlap"].sel(measure="weighted", sign="helping").isel(checkpoint=-1).notnull().values.tolist() == [
        [True, False],
        [False, True],
    ]


def test_tasks_of_a_family_in_one_language_count_as_one() -> None:
    alone = {("f", "english"): of_features(0, 1), ("f", "french"): of_features(0, 1, 2)}
    first, second = 2 * alone["f", "english"], 2 * alone["f", "english"]
    first[1], second[0] = 0, 0
    split = planted({("f", "english"): first, ("g", "english"): second, ("f", "french"): alone["f", "french"]})
    split = split.assign_coords(phenomenon=("task", ["f"] * 3))
    found, expected = (consolidate(relie, SETTINGS).isel(checkpoint=-1) for relie in (split, planted(alone)))
    np.testing.assert_allclose(found["overlap"], expected["overlap"], atol=0.02)
    for name in ("languages_served", "features_compared", "measurable_features"):
        assert found[name].values.tolist() == expected[name].values.tolist(), name
