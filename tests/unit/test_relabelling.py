"""Relabellings against itertools, statistics against loops and libraries, and p-values that chance makes uniform."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from scipy.spatial import procrustes
from scipy.stats import kstest

from chronocoder.config import TaskSpaceSettings
from chronocoder.taskspace.hypothesis import contrast_of
from chronocoder.taskspace.mantel import mantel
from chronocoder.taskspace.relabelling import (
    distinct_groupings,
    groupings,
    orders,
)
from chronocoder.taskspace.scaling import classical_scaling, procrustes_similarities, rotated_onto

pytestmark = pytest.mark.filterwarnings("error")

MANY = TaskSpaceSettings(permutations=10_000)
GROUPINGS = ["aabb", "aaabbc", "abcd", "aaaa", "aabbcc", "abbbbcc"]


def random_similarity(tasks: int, generator: np.random.Generator) -> np.ndarray:
    values = generator.uniform(-1, 1, (tasks, tasks))
    similarity = (values + values.T) / 2
    np.fill_diagonal(similarity, 1.0)
    return similarity


def partition_of(labels: Sequence[object]) -> frozenset[frozenset[int]]:
    return frozenset(frozenset(np.flatnonzero([other == label for other in labels])) for label in labels)


@pytest.mark.parametrize("groups", GROUPINGS)
def test_groupings_are_those_of_all_permutations_once_each(groups: str) -> None:
    found = groupings(groups, 10_000, np.random.default_rng(0))
    expected = {partition_of(labels) for labels in itertools.permutations(groups)}
    partitions = [partition_of(labels) for labels in found.tolist()]
    assert set(partitions) == expected and len(partitions) == len(expected) == distinct_groupings(groups)
    assert partitions[0] == partition_of(groups)


def test_too_many_groupings_and_orders_are_drawn_and_the_given_one_is_among_them() -> None:
    assert distinct_groupings("aaabbbccc") == 280
    assert len(groupings("aaabbbccc", 280, np.random.default_rng(0))) == 280
    found = groupings("aaabbbccc", 279, np.random.default_rng(0))
    assert len(found) == 280 and found[0].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (np.sort(found, axis=1) == found[0]).all() and len(np.unique(found, axis=0)) > 200
    assert orders(4, 24, np.random.default_rng(0)).tolist() == [list(each) for each in itertools.permutations(range(4))]
    drawn = orders(4, 23, np.random.default_rng(0))
    assert len(drawn) == 24 and drawn[0].tolist() == [0, 1, 2, 3] and (np.sort(drawn, axis=1) == range(4)).all()


@pytest.mark.parametrize("groups", ["aabbb", "aabbc", "abbcc"])
def test_contrast_and_its_p_value_are_those_of_all_permutations(groups: str) -> None:
    """Each distinct grouping comes from equally many of the permutations of the labels."""
    for draw in range(5):
        similarity = random_similarity(len(groups), np.random.default_rng(draw))
        found = []
        for labels in itertools.permutations(groups):
            same, different = [], []
            for one, other in itertools.combinations(range(len(groups)), 2):
                (same if labels[one] == labels[other] else different).append(similarity[one, other])
            found.append((np.mean(same), np.mean(different)))
        within, between = np.transpose(found)
        contrast = contrast_of(similarity, list(groups), MANY, np.random.default_rng(0))
        assert (contrast.within, contrast.between) == pytest.approx((within[0], between[0]))
        observed = within[0] - between[0]
        assert contrast.contrast == pytest.approx(observed)
        assert contrast.p_value == pytest.approx((within - between >= observed - 1e-9).mean())
        assert contrast.smallest_p == 1 / distinct_groupings(groups) and contrast.reason == ""


def test_p_values_of_tasks_without_groups_are_uniform() -> None:
    generator = np.random.default_rng(1)
    exact, drawn = [], []
    for _ in range(300):
        similarity = random_similarity(8, generator)
        exact.append(contrast_of(similarity, list("aaaabbcd"), MANY, generator).p_value)  # one of 420
        few = TaskSpaceSettings(permutations=99)
        drawn.append(contrast_of(similarity, list("aaaabbcd"), few, generator).p_value)
    for found in (exact, drawn):
        assert kstest(found, "uniform").pvalue > 0.01
    assert min(drawn) >= 0.01 and np.isclose(np.array(drawn) * 100, np.round(np.array(drawn) * 100)).all()


def test_planted_groups_are_found() -> None:
    groups = list("aaabbbccc")
    same = np.equal.outer(groups, groups)
    similarity = np.where(same, 0.6, 0.1) + 0.05 * random_similarity(9, np.random.default_rng(2))
    found = contrast_of(similarity, groups, MANY, np.random.default_rng(0))
    assert found.p_value == found.smallest_p == 1 / 280
    assert 0.4 < found.low < found.contrast < found.high < 0.6
    opposite = contrast_of(-similarity, groups, MANY, np.random.default_rng(0))
    assert opposite.p_value == 1.0  # one-sided


@pytest.mark.parametrize(("groups", "spread", "noise"), [("aaabbbccc", 0.3, 0.0), ("aaaaaaabc", 0.3, 0.1)])
def test_jackknife_intervals_cover_the_contrast_of_other_tasks(groups: str, spread: float, noise: float) -> None:
    generator, covered, observed = np.random.default_rng(3), [], []
    centres = (np.eye(3) + 0.2)[np.unique(list(groups), return_inverse=True)[1]]
    few = TaskSpaceSettings(permutations=1, confidence=0.9)
    for _ in range(300):
        points = centres + spread * generator.normal(size=centres.shape)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        similarity = points @ points.T + noise * random_similarity(len(groups), generator)
        found = contrast_of(similarity, list(groups), few, generator)
        observed.append(found.contrast)
        covered.append((found.low, found.high))
    low, high = np.transpose(covered)
    assert 0.85 < ((low < np.mean(observed)) & (np.mean(observed) < high)).mean() < 0.99


@pytest.mark.parametrize(
    ("groups", "known", "reason"),
    [
        ("", "", "tuning or gradients tell of 0 of the tasks"),
        ("a", "", "tuning or gradients tell of 1 of the tasks"),
        ("aaa", "within", "all tasks belong to one group"),
        ("abc", "between", "no two tasks belong to one group"),
    ],
)
def test_without_pairs_of_both_kinds_there_is_no_contrast(groups: str, known: str, reason: str) -> None:
    similarity = np.full((len(groups), len(groups)), 0.3)
    found = contrast_of(similarity, list(groups), MANY, np.random.default_rng(0))
    assert found.reason == reason
    for name, value in found._asdict().items():
        assert value == (0.3 if name == known else reason if name == "reason" else pytest.approx(np.nan, nan_ok=True))


def test_a_group_of_two_alone_has_a_contrast_without_an_interval() -> None:
    found = contrast_of(random_similarity(4, np.random.default_rng(4)), list("aabc"), MANY, np.random.default_rng(0))
    assert np.isfinite(found.contrast) and found.smallest_p == 1 / 6 and np.isnan([found.low, found.high]).all()
    assert found.reason == "without one of the tasks no pair is left within groups, or none between them"


def test_mantel_p_values_of_unrelated_matrices_are_uniform() -> None:
    """Similarities of points: those of one task are not independent, which a test over pairs would take them to be."""
    generator, found = np.random.default_rng(6), []
    for _ in range(300):
        first, second = (points @ points.T for points in generator.normal(size=(2, 6, 2)))
        found.append(mantel(first, second, 720, generator).p_value)
    assert kstest(found, "uniform").pvalue > 0.01


def test_points_have_the_distances_that_similarities_of_points_tell() -> None:
    points = np.random.default_rng(7).normal(size=(6, 2))
    points /= 2 * np.linalg.norm(points, axis=1).max()
    squared = np.square(points[:, None] - points).sum(axis=-1)
    found = classical_scaling(1 - squared / 2)
    assert found.points.shape == (6, 2)
    np.testing.assert_allclose(np.square(found.points[:, None] - found.points).sum(axis=-1), squared, atol=1e-12)
    assert found.explained().sum() == pytest.approx(1) and found.negative == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(found.explained() * found.size, np.square(found.points).sum(axis=0))
    np.testing.assert_array_equal(found.position(), found.points)
    assert (found.points[abs(found.points).argmax(axis=0), [0, 1]] > 0).all()
    assert procrustes(points, found.points)[2] == pytest.approx(0, abs=1e-12)


def test_what_no_points_have_as_distances_shows_in_negative_eigenvalues() -> None:
    """Two tasks that are both like a third and unlike one another: longer than the way by the third."""
    similarity = np.array([[1.0, 1.0, -1.0], [1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
    found = classical_scaling(similarity)
    np.testing.assert_allclose(found.eigenvalues, [2.0, 0.0, -2 / 3], atol=1e-12)
    np.testing.assert_allclose(found.explained(), [0.75, 0.0], atol=1e-12)
    assert found.negative == pytest.approx(0.25) and found.position()[:, 1].tolist() == [0, 0, 0]
    same = classical_scaling(np.ones((3, 3)))
    assert same.points.shape == (3, 0) and np.isnan(same.explained()).all() and np.isnan(same.negative)
    assert classical_scaling(np.empty((0, 0))).points.shape == (0, 0)


def test_rotation_finds_back_and_leaves_distances() -> None:
    generator = np.random.default_rng(8)
    points, angle = generator.normal(size=(5, 2)), 1.0
    turn = np.array([[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]])  # and reflects
    moved = points @ turn + [3.0, -1.0]
    np.testing.assert_allclose(rotated_onto(moved, points), points, atol=1e-12)
    missing, other = moved.copy(), points.copy()
    missing[1], other[3] = np.nan, np.nan
    found = rotated_onto(missing, other)
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[[0, 2, 3, 4]], points[[0, 2, 3, 4]], atol=1e-12)
    noisy = rotated_onto(2 * moved, points)
    np.testing.assert_allclose(np.linalg.norm(noisy[0] - noisy[1]), 2 * np.linalg.norm(points[0] - points[1]))
    np.testing.assert_array_equal(rotated_onto(moved, np.full((5, 2), np.nan)), moved)


@pytest.mark.parametrize("axes", [1, 3])
def test_procrustes_similarity_is_that_of_scipy(axes: int) -> None:
    generator = np.random.default_rng(9)
    first, second = generator.normal(size=(6, 3)), generator.normal(size=(6, axes))
    every = orders(6, 700, generator)
    padded = np.pad(second, ((0, 0), (0, 3 - axes)))
    expected = [1 - procrustes(first, padded[order])[2] for order in every]
    np.testing.assert_allclose(procrustes_similarities(first, second, every), expected)
    identity = np.arange(6)[None]
    assert np.isnan(procrustes_similarities(first, np.ones((6, 1)), identity)).all()
    np.testing.assert_allclose(procrustes_similarities(first, 3 * first[:, ::-1] - 1, identity), 1.0)
