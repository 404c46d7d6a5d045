"""No text that copies are tuned on is in a held-out pair, whichever task they belong to."""

import numpy as np
import pytest
import xarray as xr
from test_tuning_losses import prefixes

from chronocoder.errors import TaskError
from chronocoder.tasks.rows import by_member
from chronocoder.taskspace.split import held_out_pairs


def chained(count: int, first: int) -> xr.Dataset:
    """Return pairs of sentences, each second one sharing a sentence with the one before."""
    right = np.arange(count) + first
    wrong = np.where(np.arange(count) % 2, right - 1, right + 1000)
    ids = np.stack([np.stack([np.full(count, 1), text, np.full(count, 2)], axis=1) for text in (right, wrong)], axis=1)
    return xr.Dataset(
        {
            "token_id": (("example", "member", "position"), ids.astype(np.int32)),
            "length": (("example", "member"), np.full((count, 2), 3)),
        }
    )


def texts(task: xr.Dataset, which: np.ndarray) -> set[tuple[int, ...]]:
    ids = by_member(task, "token_id")[which]
    return {tuple(text[text >= 0].tolist()) for pair in ids for text in pair}


def some_tasks() -> dict[str, xr.Dataset]:
    generator = np.random.default_rng(0)
    of_prefixes = {
        name: prefixes([[1, *generator.integers(0, 12, 2)] for _ in range(100)], [5] * 100, [6] * 100) for name in "ab"
    }
    return {**of_prefixes, "c": chained(100, 50)}


@pytest.mark.parametrize("seed", [0, 1, -3])
def test_no_text_is_on_both_sides(seed: int) -> None:
    tasks = some_tasks()
    held = held_out_pairs(tasks, 0.5, seed)
    out = set.union(*(texts(task, held[name]) for name, task in tasks.items()))
    tuned = set.union(*(texts(task, ~held[name]) for name, task in tasks.items()))
    assert out and tuned and not out & tuned


def test_pairs_joined_over_several_others_stay_together() -> None:
    chain = chained(40, 50)
    ids = by_member(chain, "token_id")
    ids[1:, 1] = ids[:-1, 0]
    rest = prefixes([[1, 900 + number] for number in range(100)], [5] * 100, [6] * 100)
    with pytest.raises(TaskError, match="task 'chain': of 40 pairs (0|40) are held out"):
        held_out_pairs({"chain": chain, "rest": rest}, 0.5, 0)


def test_the_fraction_is_what_was_asked_on_average_and_seeds_differ() -> None:
    task = prefixes([[1, number, number] for number in range(4000)], [5] * 4000, [6] * 4000)
    for fraction in (0.1, 0.5, 0.8):
        assert held_out_pairs({"a": task}, fraction, 0)["a"].mean() == pytest.approx(fraction, abs=0.03)
    first, second = (held_out_pairs({"a": task}, 0.5, seed)["a"] for seed in (0, 1))
    assert (first == second).mean() == pytest.approx(0.5, abs=0.03)
    smaller = held_out_pairs({"a": task}, 0.3, 0)["a"]
    assert not (smaller & ~first).any()


@pytest.mark.parametrize("joined", [1, 4])
def test_the_fraction_is_of_components_of_however_many_texts(joined: int) -> None:
    ids = np.arange(8000 * 3).reshape(8000 // joined // 2, joined * 2, 3) % 20_011
    pairs = np.stack([ids[:, :1].repeat(joined * 2 - 1, axis=1), ids[:, 1:]], axis=2).reshape(-1, 2, 3)
    lengths = np.full(pairs.shape[:2], 3)
    task = xr.Dataset(
        {"token_id": (("example", "member", "position"), pairs), "length": (("example", "member"), lengths)}
    )
    for fraction in (0.2, 0.5):
        assert held_out_pairs({"a": task}, fraction, 0)["a"].mean() == pytest.approx(fraction, abs=0.05)


def test_order_of_pairs_and_another_task_move_none() -> None:
    tasks = some_tasks()
    held = held_out_pairs(tasks, 0.5, 0)
    order = np.random.default_rng(1).permutation(100)
    turned = held_out_pairs({"c": tasks["c"], "b": tasks["b"], "a": tasks["a"].isel(example=order)}, 0.5, 0)
    np.testing.assert_array_equal(turned["a"], held["a"][order])
    for name in "bc":
        np.testing.assert_array_equal(turned[name], held[name])
    np.testing.assert_array_equal(held_out_pairs({"c": tasks["c"]}, 0.5, 0)["c"], held["c"])


def test_too_few_pairs_are_an_error_that_says_what_helps() -> None:
    task = prefixes([[1, number] for number in range(20)], [5] * 20, [6] * 20)
    with pytest.raises(TaskError) as error:
        held_out_pairs({"small": task}, 0.01, 3)
    for part in ("task 'small'", "of 20 pairs", "seed 3", "taskspace.held_out 0.01", "at least 8", "taskspace.tasks"):
        assert part in str(error.value)
