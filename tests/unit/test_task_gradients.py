"""Gradient similarity of tasks agrees with dense gradients of single pairs, and finds planted relations of tasks."""

from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
import xarray as xr
from sentence_pairs import task_of
from tiny import tiny_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import chronocoder.config.taskspace as taskspace_settings
import chronocoder.taskspace.gradients as gradients_module
from chronocoder.attribution.sampling import units_of
from chronocoder.config import LoadingSettings, MethodSettings, TaskSpaceSettings
from chronocoder.errors import NonFiniteError, StoreError, TaskError
from chronocoder.stores import provenance, write_store
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.tokenise import tokenise_pairs
from chronocoder.taskspace.comparison import collect_gradients
from chronocoder.taskspace.dealing import common_pairs, deal_pairs
from chronocoder.taskspace.gradients import compare_gradients
from chronocoder.taskspace.similarity import (
    Selected,
    corrected_cosines,
    cosines,
    gram_matrix,
    jackknife,
    reliability,
    selection_overlaps,
    subspace_overlaps,
)
from chronocoder.taskspace.sketch import count_sketch

WORDS = ["cat", "dogs", "boy", "boys", "cats", "near", "the"]
GROUPS = 4
T = TypeVar("T")


@pytest.fixture
def random_task(tokenizer: PreTrainedTokenizerFast) -> Callable[..., xr.Dataset]:
    """Return a function that makes a task of random prefixes, all different."""

    def make(name: str, pairs: int, seed: int) -> xr.Dataset:
        generator = np.random.default_rng(seed)
        prefixes: dict[str, None] = {}
        while len(prefixes) < pairs:
            prefixes[" ".join(generator.choice(WORDS, size=generator.integers(2, 6)))] = None
        found = [
            MinimalPair(prefix, " sees", " see", condition=str(number % 2)) for number, prefix in enumerate(prefixes)
        ]
        return tokenise_pairs(found, tokenizer, 0, name).assign_attrs(task=name)

    return make


def swapped(task: xr.Dataset, places: np.ndarray | slice = slice(None)) -> xr.Dataset:
    """Return a task with right and wrong answer swapped in some pairs."""
    right, wrong = task["right_id"].values.copy(), task["wrong_id"].values.copy()
    right[places], wrong[places] = wrong[places], right[places].copy()
    return task.assign(right_id=("example", right), wrong_id=("example", wrong))


def swapped_members(task: xr.Dataset) -> xr.Dataset:
    """Return a task of sentences with right and wrong ones swapped."""
    return task.isel(member=[1, 0]).assign_attrs(task="swapped")


def settings(**given: object) -> TaskSpaceSettings:
    return TaskSpaceSettings(gradient_groups=GROUPS, **given)


def pair_gradient(model: PreTrainedModel, pair: xr.Dataset) -> np.ndarray:
    """Return the gradient of wrong minus right of one pair with respect to all parameters, by one backward pass."""
    ids = torch.tensor([pair["token_id"].values[: int(pair["length"])].tolist()])
    parameters = [parameter.requires_grad_(True) for parameter in model.parameters()]
    logits = model(input_ids=ids).logits[0, -1]
    found = torch.autograd.grad(logits[int(pair["wrong_id"])] - logits[int(pair["right_id"])], parameters)
    model.requires_grad_(False)
    return torch.cat([gradient.flatten() for gradient in found]).double().numpy()


def random_groups(tasks: int, groups: int, entries: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    common = generator.normal(size=entries)
    gradients = generator.normal(size=(tasks, groups, entries)) + common + generator.normal(size=(tasks, 1, entries))
    return gradients.astype(np.float32), generator.integers(1, 9, size=(tasks, groups)).astype(float)


def test_pairs_are_dealt_evenly_and_those_of_one_prefix_together(random_task: Callable[..., xr.Dataset]) -> None:
    whole = random_task("a", 60, 0)
    other = random_task("b", 40, 1).isel(example=np.repeat(np.arange(40), 2))
    tasks = [whole, other, whole.isel(example=np.random.default_rng(0).permutation(60)[:30])]
    dealt = deal_pairs(tasks, GROUPS, seed=3)
    of_prefix: dict[str, set[int]] = {}
    for task, parts in zip(tasks, dealt, strict=True):
        for prefix, part in zip(task["prefix"].values, parts, strict=True):
            of_prefix.setdefault(str(prefix), set()).add(int(part))
        units = units_of(task)
        assert all(len(set(parts[units.prefix[units.unit] == number])) == 1 for number in range(units.prefix.max() + 1))
        for condition in set(map(str, task["condition"].values)):
            counts = np.bincount(parts[task["condition"].values == condition], minlength=2 * GROUPS)
            assert counts.max() - counts.min() <= 4
    assert all(len(found) == 1 for found in of_prefix.values())
    for again, parts in zip(deal_pairs(tasks, GROUPS, seed=3), dealt, strict=True):
        np.testing.assert_array_equal(again, parts)
    assert any((a != b).any() for a, b in zip(deal_pairs(tasks, GROUPS, seed=4), dealt, strict=True))


def test_common_pairs_are_those_of_the_same_prefix(random_task: Callable[..., xr.Dataset]) -> None:
    whole = random_task("a", 20, 0)
    part = whole.isel(example=slice(5))
    np.testing.assert_allclose(common_pairs([whole, part]), [[1, 0.25], [1, 1]])


def test_sentences_are_dealt_by_the_right_one(tokenizer: PreTrainedTokenizerFast) -> None:
    task = task_of(tokenizer, "sentence")
    (dealt,) = deal_pairs([task], 2, seed=0)
    assert dealt[0] == dealt[4] and len(set(dealt.tolist())) == 4
    np.testing.assert_array_equal(common_pairs([task, task]), np.ones((2, 2)))


def test_too_few_pairs_are_refused(task: xr.Dataset) -> None:
    with pytest.raises(
        TaskError,
        match="task 'test': its pairs have 6 different prefixes, which do not fill 4 groups of two parts; add pairs, or"
        " lower taskspace.gradient_groups",
    ):
        deal_pairs([task], 4, seed=0)


def test_sketch_is_a_count_sketch() -> None:
    shapes, dimensions = [(3, 5), (7,), (1, 1)], 6
    entries = sum(int(np.prod(shape)) for shape in shapes)

    def sketch_of(vector: np.ndarray) -> np.ndarray:
        parts = torch.from_numpy(vector.astype(np.float32)).split([int(np.prod(shape)) for shape in shapes])
        tensors = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        return count_sketch(tensors, dimensions, seed=5).numpy()

    matrix = np.stack([sketch_of(row) for row in np.eye(entries)], axis=1)
    assert (abs(matrix).sum(axis=0) == 1).all() and set(np.unique(matrix)) == {-1, 0, 1}
    vector = np.random.default_rng(0).normal(size=entries)
    np.testing.assert_allclose(sketch_of(vector), matrix @ vector, rtol=1e-5, atol=1e-6)


def test_sketched_inner_products_are_right_on_average_and_as_exact_as_stated() -> None:
    generator = np.random.default_rng(0)
    dimensions, seeds = 64, 2000
    a, b = generator.normal(size=(2, 500)) * generator.exponential(size=500) ** 2
    b += a
    found = []
    for seed in range(seeds):
        sketches = [
            count_sketch(torch.from_numpy(vector).float().split([300, 10, 190]), dimensions, seed) for vector in (a, b)
        ]
        found.append(float(sketches[0] @ sketches[1]))
    bound = ((a @ a) * (b @ b) + (a @ b) ** 2) / dimensions
    assert abs(np.mean(found) - a @ b) < 4 * np.sqrt(bound / seeds)
    assert 0.3 * bound < np.var(found) < 1.15 * bound


def test_statistics_agree_with_slow_ones() -> None:
    gradients, weights = random_groups(3, 5, 40)
    gram, wide = gram_matrix(gradients), gradients.astype(np.float64)

    def mean(task: int, groups: list[int]) -> np.ndarray:
        return np.average(wide[task][groups], axis=0, weights=weights[task][groups])

    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))

    def product_of(a: int, b: int, groups: list[int]) -> float:
        different = [(i, j) for i, j in product(groups, groups) if i != j]
        total = sum(weights[a, i] * weights[b, j] * (wide[a, i] @ wide[b, j]) for i, j in different)
        return float(total / sum(weights[a, i] * weights[b, j] for i, j in different))

    def slow_cosine(a: int, b: int, groups: list[int]) -> float:
        if a == b:
            return cosine(mean(a, [g for g in groups if not g % 2]), mean(a, [g for g in groups if g % 2]))
        return cosine(mean(a, groups), mean(b, groups))

    def slow_corrected(a: int, b: int, groups: list[int]) -> float:
        return product_of(a, b, groups) / np.sqrt(product_of(a, a, groups) * product_of(b, b, groups))

    everything = list(range(5))
    for fast, slow in ((cosines, slow_cosine), (corrected_cosines, slow_corrected)):
        estimate = jackknife(fast, gram, weights, 0.95)
        for a, b in product(range(3), range(3)):
            others = [slow(a, b, [g for g in everything if g != left_out]) for left_out in everything]
            error = np.sqrt(4 / 5 * np.sum((np.array(others) - np.mean(others)) ** 2))
            value = slow(a, b, everything)
            reach = 2.7764451 * error  # of Student's t with 4 degrees of freedom
            expected = (value, value - reach, value + reach)
            assert [of[a, b] for of in estimate] == pytest.approx(expected, rel=1e-6, abs=1e-6)
    expected = [product_of(a, a, everything) / np.sum(mean(a, everything) ** 2) for a in range(3)]
    np.testing.assert_allclose(reliability(gram, weights), expected, rtol=1e-6)


def crossed(of_a: Sequence[T], of_b: Sequence[T]) -> list[tuple[T, T]]:
    """Return pairs of what is of different halves of two tasks."""
    return [(of_a[0], of_b[1]), (of_a[1], of_b[0])]


def test_subspace_overlap_is_that_of_principal_angles() -> None:
    gradients, _ = random_groups(6, 5, 40)
    gradients[2, 2] = gradients[2, 0]  # spans a dimension less
    found = subspace_overlaps(gradients, gram_matrix(gradients))  # of three tasks, then the same with swapped labels
    decomposed = [
        [np.linalg.svd(of[half::2].astype(np.float64), full_matrices=False) for half in (0, 1)] for of in gradients
    ]
    bases = [[right[sizes > 1e-6] for _, sizes, right in of] for of in decomposed]
    assert [[len(basis) for basis in of] for of in bases[:4]] == [[3, 2], [3, 2], [2, 2], [3, 2]]
    generator = np.random.default_rng(0)

    def overlap(a: int, b: int) -> float:
        angles = [np.linalg.svd(u @ v.T, compute_uv=False) for u, v in crossed(bases[a], bases[b])]
        return float(np.mean([np.mean(cosines**2) for cosines in angles]))

    for a, b in product(range(3), range(3)):
        assert found.value[a, b] == pytest.approx(overlap(a, b), rel=1e-6)
        assert found.swapped[a, b] == pytest.approx((overlap(a, 3 + b) + overlap(3 + a, b)) / 2, rel=1e-6)
        drawn = [
            np.mean([np.sum((u * signs @ v.T) ** 2) / min(len(u), len(v)) for u, v in crossed(bases[a], bases[b])])
            for signs in generator.choice([-1, 1], size=(2000, 40))
        ]
        assert found.chance[a, b] == pytest.approx(np.mean(drawn), abs=5 * np.std(drawn) / np.sqrt(2000))


def test_shared_parameters_are_counted_by_halves_beside_chance_within_tensors() -> None:
    generator, tensors = np.random.default_rng(0), (slice(30), slice(30, None))
    marks = np.zeros((2, 2, 2, 41), dtype=bool)
    for places in product(range(2), range(2), range(2)):
        marks[places][generator.permutation(41)[:12]] = True
    counts = np.stack([marks[..., of].sum(axis=-1) for of in tensors], axis=-1)
    found = selection_overlaps(Selected(np.packbits(marks, axis=-1), counts, np.array([30, 11])))
    true, swapped = marks

    def shared(of_a: np.ndarray, of_b: np.ndarray) -> float:
        return float(np.mean([(x & y).sum() / 12 for x, y in crossed(of_a, of_b)]))

    for a, b in product(range(2), range(2)):
        assert found.value[a, b] == pytest.approx(shared(true[a], true[b]))
        assert found.swapped[a, b] == pytest.approx((shared(true[a], swapped[b]) + shared(swapped[a], true[b])) / 2)
        chance = [sum(x[of].sum() * y[of].mean() for of in tensors) / 12 for x, y in crossed(true[a], true[b])]
        assert found.chance[a, b] == pytest.approx(np.mean(chance))


def test_noise_lowers_the_cosine_and_is_corrected_and_intervals_cover_the_truth() -> None:
    generator, entries, groups, runs, size = np.random.default_rng(0), 30, 8, 300, 2.0
    means = np.zeros((2, entries))
    means[:, 0], means[0, 1], means[1, 2] = 1.0, 0.75, 0.75  # cosine 0.64
    inside, plain, corrected = 0, [], []
    for _ in range(runs):
        own = generator.normal(size=(2, groups, entries)) * size / np.sqrt(entries)
        same_texts = generator.normal(size=(groups, entries)) * size / np.sqrt(entries)
        gradients = (means[:, None] + own + same_texts).astype(np.float32)
        estimate = jackknife(corrected_cosines, gram_matrix(gradients), np.ones((2, groups)), 0.95)
        plain.append(cosines(gram_matrix(gradients), np.ones((2, groups)))[0, 1])
        corrected.append(estimate.value[0, 1])
        inside += estimate.low[0, 1] <= 0.64 <= estimate.high[0, 1]
    assert np.median(corrected) == pytest.approx(0.64, abs=0.03)
    assert abs(np.median(plain) - 0.64) < 0.08  # noise of its own lowers it, and that of common texts raises it
    assert inside / runs > 0.9


@pytest.mark.parametrize("fraction", [0.01, 1.0])
def test_gradients_are_those_of_single_pairs(
    any_model: PreTrainedModel, random_task: Callable[..., xr.Dataset], fraction: float
) -> None:
    tasks = [random_task("a", 12, 0), random_task("b", 9, 1)]
    before = {name: parameter.clone() for name, parameter in any_model.named_parameters()}
    methods = {"main": MethodSettings(objective="differential", fraction=fraction)}
    found = compare_gradients(any_model, tasks, settings(methods=methods))
    for name, parameter in any_model.named_parameters():
        assert torch.equal(parameter, before[name]) and parameter.grad is None and not parameter.requires_grad
    pairs = [
        np.stack([pair_gradient(any_model, task.isel(example=place)) for place in range(task.sizes["example"])])
        for task in tasks
    ]
    means = [of.mean(axis=0) for of in pairs]
    np.testing.assert_allclose(found["norm"], [np.linalg.norm(mean) for mean in means], rtol=1e-4)
    expected = means[0] @ means[1] / np.linalg.norm(means[0]) / np.linalg.norm(means[1])
    assert float(found["cosine"][0, 1]) == pytest.approx(expected, abs=1e-4)
    count = max(1, round(fraction * len(means[0])))
    true, swapped_labels = (
        [
            [
                set(
                    np.argsort(-abs((of * signs[parts % 2, None])[parts // 2 % 2 == half].mean(axis=0)))[
                        :count
                    ].tolist()
                )
                for half in (0, 1)
            ]
            for of, parts in zip(pairs, deal_pairs(tasks, GROUPS, 0), strict=True)
        ]
        for signs in (np.array([1, 1]), np.array([1, -1]))
    )

    def shared(of_a: list[set[int]], of_b: list[set[int]]) -> float:
        return float(np.mean([len(x & y) / count for x, y in crossed(of_a, of_b)]))

    for a, b in product(range(2), range(2)):
        assert float(found["shared_parameters"][a, b]) == pytest.approx(shared(true[a], true[b]), abs=2 / count)
        both = shared(true[a], swapped_labels[b]) + shared(swapped_labels[a], true[b])
        assert float(found["shared_swapped"][a, b]) == pytest.approx(both / 2, abs=2 / count)
    assert found.attrs["fraction"] == fraction and found.attrs["sketch"] == 0
    assert found.attrs["parameters"] == found.attrs["compared_parameters"] == len(means[0])
    assert found["pairs"].values.tolist() == [12, 9]
    for variable in found.data_vars.values():
        assert variable.attrs["long_name"] and variable.attrs["units"]


@pytest.mark.parametrize("metric", ["sentence", "continuation"])
def test_tokens_at_once_change_nothing(tokenizer: PreTrainedTokenizerFast, metric: str) -> None:
    model = tiny_model("llama")
    tasks = [task_of(tokenizer, metric), swapped_members(task_of(tokenizer, metric))]
    whole, parts = (
        compare_gradients(model, tasks, TaskSpaceSettings(gradient_groups=2, tokens_at_once=tokens))
        for tokens in (1000, 1)
    )
    xr.testing.assert_allclose(whole, parts, rtol=1e-3, atol=1e-4)


def test_leaving_out_embeddings_compares_the_rest(random_task: Callable[..., xr.Dataset]) -> None:
    model = tiny_model("gpt2")
    tasks = [random_task("a", 12, 0), random_task("b", 9, 1)]
    found = compare_gradients(model, tasks, settings(embeddings=False))
    left_out = model.get_input_embeddings().weight.numel()  # tied to the output
    assert found.attrs["compared_parameters"] == found.attrs["parameters"] - left_out
    assert not np.allclose(found["cosine"], compare_gradients(model, tasks, settings())["cosine"], atol=1e-3)


def test_planted_relations_are_found(random_task: Callable[..., xr.Dataset]) -> None:
    generator = np.random.default_rng(0)
    task, half = random_task("same", 80, 0), generator.permutation(80)[:40]
    tasks = [
        task,
        task.isel(example=generator.permutation(80)).assign_attrs(task="other order"),
        swapped(task).assign_attrs(task="swapped"),
        swapped(task, half).assign_attrs(task="random labels"),
        swapped(random_task("", 80, 7), half).assign_attrs(task="random labels of other pairs"),
    ]
    found = compare_gradients(tiny_model("gpt_neox"), tasks, settings())
    for name in ("cosine", "corrected_cosine"):
        assert found[name][0, 1:3].values == pytest.approx([1, -1], abs=1e-4)
    assert found["subspace_overlap"][0, 1] == pytest.approx(float(found["subspace_overlap"][0, 0]), abs=1e-4)
    assert found["shared_parameters"][0, 2] == pytest.approx(float(found["shared_parameters"][0, 0]), abs=1e-4)
    for place in (3, 4):
        assert found["cosine_low"][0, place] < 0 < found["cosine_high"][0, place]
        assert found["reliability"][place] < 0.5 and np.isnan(found["corrected_cosine"][0, place])
    assert found["common_pairs"][0].values.tolist()[:4] == [1, 1, 1, 1]


def test_sketches_compare_as_gradients_do(
    random_task: Callable[..., xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tasks = tiny_model("llama"), [random_task(name, 40, seed) for seed, name in enumerate("abc")]
    exact = compare_gradients(model, tasks, settings())
    monkeypatch.setattr(taskspace_settings, "LARGEST_GRADIENTS", 1)
    found = compare_gradients(model, tasks, settings(sketch=4096))
    assert (exact.attrs["sketch"], found.attrs["sketch"]) == (0, 4096)
    assert abs(found["cosine"] - exact["cosine"]).max() < 4 * np.sqrt(2 / 4096)
    assert abs(found["subspace_overlap"] - exact["subspace_overlap"]).max() < 0.05
    xr.testing.assert_equal(found["shared_parameters"], exact["shared_parameters"])
    xr.testing.assert_equal(found, compare_gradients(model, tasks, settings(sketch=4096)))


def test_shared_parameters_of_a_sample_are_those_of_all(
    random_task: Callable[..., xr.Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tasks = tiny_model("gpt2"), [random_task(name, 40, seed) for seed, name in enumerate("abc")]
    methods = {"main": MethodSettings(objective="differential", fraction=0.2)}
    whole = compare_gradients(model, tasks, settings(methods=methods))
    monkeypatch.setattr(gradients_module, "MOST_MARKED", 4000)
    found = compare_gradients(model, tasks, settings(methods=methods))
    assert whole.attrs["marked_parameters"] == whole.attrs["parameters"]
    assert 3000 < found.attrs["marked_parameters"] <= 4000 < whole.attrs["parameters"]
    for name in ("shared_parameters", "shared_swapped"):
        error = found[name] - whole[name]
        assert 0 < abs(error).max() < 3 / (2 * np.sqrt(0.2 * 3000))
    xr.testing.assert_equal(found["shared_chance"], whole["shared_chance"])


def test_gradients_are_projected_where_they_take_more_than_they_may() -> None:
    chosen = settings(sketch=1000)
    assert (chosen.sketched(2**31 // 8 // GROUPS // 3, 3), chosen.sketched(2**31 // 8 // GROUPS // 3 + 1, 3)) == (
        0,
        1000,
    )


def test_gradients_that_are_not_finite_are_refused(random_task: Callable[..., xr.Dataset]) -> None:
    model = tiny_model("gpt2")
    model.get_input_embeddings().weight.data[5:] = np.nan
    with pytest.raises(NonFiniteError, match="a gradient of task 'a' is not finite: the checkpoint is damaged"):
        compare_gradients(model, [random_task("a", 12, 0)], settings())


def test_what_changes_no_comparison_is_left_out_of_its_settings() -> None:
    methods = {"mine": MethodSettings(objective="differential", fraction=0.2, learning_rate=0.5)}
    given = TaskSpaceSettings(methods=methods, steps=3, seeds=[7], seed=5, sketch=10, embeddings=False, confidence=0.9)
    kept = given.gradients
    assert kept.methods == {"mine": MethodSettings(objective="differential", fraction=0.2)}
    assert (kept.seed, kept.sketch, kept.embeddings, kept.confidence) == (5, 10, False, 0.9)
    assert (kept.steps, kept.seeds) == (TaskSpaceSettings().steps, TaskSpaceSettings().seeds)
    half = LoadingSettings(dtype="bfloat16", attention="flash_attention_2", quantization="8bit", device_map="auto")
    assert half.differentiable == LoadingSettings(dtype="float32", device_map="auto")
    assert LoadingSettings(attention="eager").differentiable.attention == "eager"


def test_checkpoints_are_joined(random_task: Callable[..., xr.Dataset], tmp_path: Path) -> None:
    tasks = [random_task("a", 12, 0), random_task("b", 9, 1)]
    stores = {
        f"step{seed}": compare_gradients(tiny_model("gpt2", seed), tasks, settings()).assign_attrs(suite="tiny")
        for seed in (0, 4)
    }
    joined = collect_gradients(stores, {"step0": 0, "step4": 100}, {"a": "number", "b": "gender"})
    assert joined["cosine"].dims == ("checkpoint", "task", "other_task") and joined["norm"].dims == (
        "checkpoint",
        "task",
    )
    assert joined["checkpoint"].values.tolist() == ["step0", "step4"] and joined["tokens_seen"].values.tolist() == [
        0,
        100,
    ]
    assert joined["group"].values.tolist() == ["number", "gender"] and joined["cosine"].attrs["units"] == "1"
    np.testing.assert_array_equal(joined["cosine"].sel(checkpoint="step4"), stores["step4"]["cosine"])
    write_store(joined, tmp_path / "gradients.zarr", provenance(settings()))
    with pytest.raises(StoreError, match="the gradients of step0 are of the tasks a, b, not a; make them anew"):
        collect_gradients(stores, {"step0": 0, "step4": 100}, {"a": "number"})
