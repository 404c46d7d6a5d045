"""Shared features and the transfer without them, against models that are run whole with a plain hook."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from sentence_pairs import task_of
from slow_attribution import folded_crosscoder, tiny_sites
from tiny import WIDTH, tiny_crosscoder
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from chronocoder.config import TaskSpaceSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import NonFiniteError, StoreError
from chronocoder.stores import load_store, provenance, write_store
from chronocoder.suites.sites import Site, resolve_site
from chronocoder.taskspace.bridge import Tunable, build_bridge, compare, relate
from chronocoder.taskspace.mantel import mantel
from chronocoder.taskspace.removal import KINDS, Reading, measure_changes
from chronocoder.taskspace.removal_summary import RELATIONS, summarise_changes
from chronocoder.taskspace.shared_features import Removed, compare_effects, features_to_remove, top_features

SETTINGS = TaskSpaceSettings(top_features=3, bootstrap_samples=100, permutations=200)
NUMBER = 1


def slow_differences(
    crosscoder: Crosscoder, models: Sequence[PreTrainedModel], task: xr.Dataset, features: Sequence[int]
) -> list[float]:
    """Return right minus wrong with features removed at `NUMBER`, by hooks on the whole model, one text at a time."""

    def logits_of(ids: list[int]) -> torch.Tensor:
        token_ids = torch.tensor([ids])
        x = torch.stack([model(token_ids, output_hidden_states=True).hidden_states[2][0] for model in models], dim=1)
        codes = crosscoder.encode(x)
        codes[0] = 0
        taken = codes[:, list(features)] @ crosscoder.W_dec[NUMBER, list(features)]

        def hook(_module: Any, _arguments: Any, output: Any) -> Any:
            return (output[0] - taken, *output[1:]) if isinstance(output, tuple) else output - taken

        blocks = models[NUMBER].get_decoder()
        handle = (blocks.layers if hasattr(blocks, "layers") else blocks.h)[1].register_forward_hook(hook)
        try:
            found: torch.Tensor = models[NUMBER](token_ids).logits[0]
        finally:
            handle.remove()
        return found

    def score(of: xr.Dataset) -> float:
        ids = of["token_id"].values[: int(of["length"])].tolist()
        log_probabilities = logits_of(ids).log_softmax(dim=1)
        return sum(float(log_probabilities[place - 1, ids[place]]) for place in range(int(of["scored_from"]), len(ids)))

    found = []
    for example in range(task.sizes["example"]):
        of = task.isel(example=example)
        if "member" in task.dims:
            found.append(score(of.isel(member=0)) - score(of.isel(member=1)))
        else:
            last = logits_of(of["token_id"].values[: int(of["length"])].tolist())[-1]
            found.append(float(last[int(of["right_id"])] - last[int(of["wrong_id"])]))
    return found


@contextmanager
def shifted(model: PreTrainedModel, seed: int) -> Iterator[None]:
    """Change all weights of a model for a while, at random."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    try:
        yield
    finally:
        model.load_state_dict(before)


def reading_of(architecture: str = "gpt_neox", tokens_at_once: int = 64) -> Reading:
    return Reading(folded_crosscoder(2.0), tiny_sites(architecture), NUMBER, tokens_at_once)


@pytest.mark.parametrize("metric", ["next_token", "sentence"])
@pytest.mark.parametrize("architecture", ["gpt_neox", "llama", "bloom"])
@torch.no_grad()
def test_differences_are_those_of_a_whole_model_with_a_hook(
    architecture: str, metric: str, task: xr.Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    given = task if metric == "next_token" else task_of(tokenizer, metric).assign_attrs(task="test")
    reading = reading_of(architecture)
    models = [site.model for site in reading.sites]
    tasks = {"first": given, "second": given.isel(example=[2, 0])}
    sets = [{"first": np.array([3]), "second": np.arange(24)}, {"first": np.arange(24), "second": np.array([3])}]
    for seed in (None, 7):
        with shifted(models[NUMBER], seed) if seed else torch.no_grad():
            found = reading.differences(tasks, sets)
            expected = [slow_differences(reading.crosscoder, models, given, of) for of in ([], [3], range(24))]
        none, one, every = np.array(expected)
        wanted = [[*none, *none[[2, 0]]], [*one, *every[[2, 0]]], [*every, *one[[2, 0]]]]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
        assert np.abs(found[1:] - found[0]).max() > 5e-3


def test_tasks_of_several_metrics_and_lengths_are_read_together(
    task: xr.Dataset, tokenizer: PreTrainedTokenizerFast
) -> None:
    reading = reading_of()
    tasks = {
        "pairs": task_of(tokenizer, "sentence"),
        "prefixes": task,
        "short": task.isel(example=[0, 4], position=slice(3)),
    }
    tasks["continued"] = task_of(tokenizer, "continuation")
    features = {name: np.array([place, 20]) for place, name in enumerate(tasks)}
    alone = [reading.differences({name: of}, [{name: features[name]}]) for name, of in tasks.items()]
    np.testing.assert_allclose(reading.differences(tasks, [features]), np.concatenate(alone, axis=1), atol=1e-5)


def test_changes_are_after_less_before_of_every_source_and_target(task: xr.Dataset) -> None:
    reading = reading_of()
    tasks = {"first": task, "second": task.isel(example=slice(2, 5))}
    removed = {pair: Removed(np.array([place]), np.array([9 - place])) for place, pair in enumerate(pairs_of(tasks))}
    model = reading.sites[NUMBER].model
    changes = measure_changes(reading, tasks, removed, lambda source: shifted(model, len(source)))
    assert changes["target"].values.tolist() == ["first"] * 6 + ["second"] * 3
    for source, target in removed:
        own = changes.sel(source=source).isel(entry=changes["target"].values == target)
        given = {target: tasks[target]}, [{target: features} for features in removed[source, target]]
        np.testing.assert_allclose(own["before"], reading.differences(*given), atol=1e-5)
        with shifted(model, len(source)):
            np.testing.assert_allclose(own["after"], reading.differences(*given), atol=1e-5)


@pytest.mark.parametrize("tokens_at_once", [1, 17, 4096])
def test_tokens_at_once_do_not_matter(tokens_at_once: int, task: xr.Dataset) -> None:
    tasks = {"first": task, "second": task.isel(example=[2, 1])}
    sets = [{"first": np.array([3]), "second": np.array([1, 5, 20])}, {"first": np.array([], dtype=int)}]
    expected = reading_of().differences(tasks, sets)
    found = reading_of(tokens_at_once=tokens_at_once).differences(tasks, sets)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found[2, :6], found[0, :6])


def test_without_shared_features_nothing_is_removed(task: xr.Dataset) -> None:
    reading, none = reading_of(), np.array([], dtype=int)
    removed = {("one", "one"): Removed(none, none)}
    changes = measure_changes(reading, {"one": task}, removed, lambda _: shifted(reading.sites[NUMBER].model, 1))
    found = summarise_changes(changes, {"one": task}, {"one": "group"}, SETTINGS)
    for kind in KINDS[1:]:
        np.testing.assert_array_equal(found[f"transfer_{kind}"], found["transfer_intact"])
        np.testing.assert_array_equal(found[f"transfer_{kind}_high"], found["transfer_intact_high"])


def test_sets_that_cannot_be_chosen_are_not_measured(task: xr.Dataset) -> None:
    found = reading_of().differences({"one": task}, [{"one": None}, {"one": np.array([2])}])
    assert np.isnan(found[1]).all() and np.isfinite(found[[0, 2]]).all()


def test_differences_that_are_not_finite_are_refused(task: xr.Dataset) -> None:
    reading = reading_of()
    reading.sites[NUMBER].model.get_output_embeddings().weight.data[:] = np.nan
    with pytest.raises(NonFiniteError, match="differences of right and wrong with features removed are not finite"):
        reading.differences({"one": task}, [])


def pairs_of(names: Any) -> list[tuple[str, str]]:
    return list(itertools.product(names, names))


class Planted:
    """A model whose stream is the embedding of a token, of positive numbers, read by a dictionary of its dimensions.

    Tuning adds one dimension of the stream to the logits of right answers: what it does runs through one feature alone.
    """

    FEATURE = 5

    def __init__(self) -> None:
        torch.manual_seed(0)
        sizes = {"vocab_size": 300, "hidden_size": WIDTH, "intermediate_size": 8, "num_hidden_layers": 3}
        self.sites: list[Site] = []
        for _ in range(2):
            model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2)).eval().requires_grad_(False)
            for name, parameter in model.named_parameters():
                if "layers" in name:
                    parameter.zero_()
            model.get_input_embeddings().weight.uniform_(0.5, 1.5)
            model.config.use_cache = False
            self.sites.append(resolve_site(model, "residual.1"))
        self.crosscoder = tiny_crosscoder("l1").fold_scale(torch.ones(2))
        self.crosscoder.config = replace(self.crosscoder.config, site="residual.1")
        for values in (self.crosscoder.encoder_rows, self.crosscoder.decoder_rows, self.crosscoder.b_enc):
            values.zero_()
        for rows in (self.crosscoder.encoder_rows, self.crosscoder.decoder_rows):
            rows[:WIDTH, NUMBER] = torch.eye(WIDTH)
        self.reading = Reading(self.crosscoder, self.sites, NUMBER, 64)

    @contextmanager
    def tuned(self, task: xr.Dataset) -> Iterator[None]:
        weight = self.sites[NUMBER].model.get_output_embeddings().weight
        before = weight.clone()
        weight[task["right_id"].values, self.FEATURE] += 2
        weight[task["wrong_id"].values, self.FEATURE] -= 2
        try:
            yield
        finally:
            weight.copy_(before)


def test_transfer_through_one_feature_goes_with_it_and_stays_without_another(task: xr.Dataset) -> None:
    planted, some = Planted(), task.isel(example=[0, 2])  # "sees" is right in both
    tasks = {"source": some, "target": some.isel(example=[1, 0])}
    removed = {pair: Removed(np.array([planted.FEATURE]), np.array([8])) for pair in pairs_of(tasks)}
    changes = measure_changes(planted.reading, tasks, removed, lambda source: planted.tuned(tasks[source]))
    found = summarise_changes(changes, tasks, dict.fromkeys(tasks, "group"), SETTINGS)
    assert (found["transfer_intact"] > 1).all()
    np.testing.assert_allclose(found["transfer_without_shared"], 0, atol=1e-5)
    np.testing.assert_allclose(found["transfer_without_others"], found["transfer_intact"], rtol=0.1)
    own = found.sel(relation=["own", "within"])
    np.testing.assert_allclose(own["removed_by_shared"], 1, atol=1e-5)
    assert (abs(own["removed_by_others"]) < 0.1).all() and (own["removed_beyond_others_low"] > 0.9).all()
    assert own["pairs_compared"].values.tolist() == [2, 2]
    between = found.sel(relation="between")
    assert between["pairs_compared"] == 0 and np.isnan(between["removed_by_shared"])


def test_shared_features_are_among_the_largest_of_both() -> None:
    effects = np.array([[5.0, -4, 3, 0, 0.1], [1.0, -9, 0, 2, 0.5]])
    assert np.flatnonzero(top_features(effects, 3)[0]).tolist() == [0, 1, 2]
    assert features_to_remove(effects, 3).shared.tolist() == [0, 1]
    assert features_to_remove(effects, 4).shared.tolist() == [
        0,
        1,
        4,
    ]  # 3 has no effect on the first, 2 none on the other


def test_others_are_of_nearest_rank_on_the_target() -> None:
    source = np.array([9.0, 0, 0, 8, 0, 0, 7, 0, 0, 0])
    target = -np.arange(10.0, 0, -1)  # rank is place
    shared, others = features_to_remove(np.stack([source, target]), 7)
    assert shared.tolist() == [0, 3, 6] and others is not None and others.tolist() == [1, 2, 5]


def test_others_are_as_many_and_matter_alike_or_there_are_none() -> None:
    generator, missing = np.random.default_rng(0), 0
    for _ in range(200):
        effects = generator.normal(size=(2, 40)) ** 3 * (generator.random((2, 40)) < 0.8)
        shared, others = features_to_remove(effects, 10)
        if others is None:
            missing += 1
            continue
        assert len(set(others)) == len(others) == len(shared) and not set(others) & set(shared)
        sums = sorted(abs(effects[1, of]).sum() for of in (shared, others))
        assert (effects[1, others] != 0).all() and sums[1] <= 2 * sums[0]
    assert 5 < missing < 195


def test_others_are_missing_where_no_features_are_left_that_matter() -> None:
    few = features_to_remove(np.array([[3.0, 2, 1, 0], [3.0, 2, 0, 1]]), 2)
    assert few.shared.tolist() == [0, 1] and few.others is None
    small = features_to_remove(np.array([[3.0, 2, 1, 1], [3.0, 2, 1.2, 1.2]]), 2)
    assert small.shared.tolist() == [0, 1] and small.others is None
    none = features_to_remove(np.array([[3.0, 2, 1, 1], [1.0, 1, 2, 3]]), 2)
    assert not len(none.shared) and none.others is None
    alike = features_to_remove(np.array([[3.0, 2, 1, 1], [3.0, 2, 1.3, 1.2]]), 2)
    assert alike.others is not None and alike.others.tolist() == [2, 3]


def test_similarity_of_effects_against_sets() -> None:
    generator = np.random.default_rng(1)
    effects = generator.normal(size=(4, 30)) * (generator.random((4, 30)) < 0.6)
    found = compare_effects(effects, 6)
    sets = [set(np.argsort(-abs(of))[:6].tolist()) for of in effects]
    active = [set(np.flatnonzero(of).tolist()) for of in effects]
    for one, other in itertools.product(range(4), range(4)):
        assert found.overlap[one, other] == pytest.approx(len(sets[one] & sets[other]) / 6)
        cosine = effects[one] @ effects[other] / np.linalg.norm(effects[one]) / np.linalg.norm(effects[other])
        assert found.cosine[one, other] == pytest.approx(cosine)
        drawn = [
            len(
                set(generator.permutation(sorted(active[one]))[:6])
                & set(generator.permutation(sorted(active[other]))[:6])
            )
            for _ in range(3000)
        ]
        assert found.chance[one, other] == pytest.approx(np.mean(drawn) / 6, abs=0.02)


def test_similarity_is_undefined_without_effects() -> None:
    found = compare_effects(np.array([[1.0, 2], [0, 0]]), 2)
    assert np.isnan(found.cosine[0, 1]) and found.overlap[0, 1] == 0 and np.isnan(found.overlap[1, 1])


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("related", [True, False])
def test_mantel_against_all_relabellings(related: bool, symmetric: bool) -> None:
    generator = np.random.default_rng(3)
    first = generator.normal(size=(5, 5))
    second = first + generator.normal(size=(5, 5)) * (0.3 if related else 30)
    if symmetric:
        first, second = first + first.T, second + second.T
    apart = ~np.eye(5, dtype=bool)
    values = [
        stats.spearmanr(first[apart], second[np.ix_(order, order)][apart]).statistic
        for order in itertools.permutations(range(5))
    ]
    found = mantel(first, second, 120, generator)
    assert found.observed == pytest.approx(values[0])
    assert found.p_value == pytest.approx(np.mean(np.array(values) >= values[0] - 1e-9))
    drawn = mantel(first, second, 119, generator)
    assert drawn.p_value == pytest.approx(found.p_value, abs=0.1) and drawn.p_value >= 1 / 120


def test_mantel_is_undefined_of_constant_relations_and_ignores_the_diagonal() -> None:
    generator = np.random.default_rng(0)
    first, constant = generator.normal(size=(4, 4)), np.eye(4)
    assert np.isnan(mantel(first, constant, 100, generator)).all()
    assert np.isnan(mantel(first[:2, :2], first[:2, :2], 100, generator)).all()
    other = first + np.diag(generator.normal(size=4))
    assert mantel(first, other, 100, generator).observed == pytest.approx(1)


def test_p_values_of_unrelated_tasks_are_as_uniform_as_they_claim() -> None:
    generator = np.random.default_rng(5)
    effects = generator.normal(size=(100, 6, 8))
    transfer = generator.normal(size=(100, 6, 6)) + generator.normal(size=(100, 6, 1)) * 2
    found = [compare(*given, SETTINGS)["correlation_p"].values for given in zip(effects, transfer, strict=True)]
    assert (np.array(found) <= 0.1).mean() < 0.17


def changes_from(values: np.ndarray, targets: Sequence[str], names: Sequence[str]) -> xr.Dataset:
    """Return changes of (source, kind, entry), with nothing before."""
    dims = ("source", "kind", "entry")
    coordinates = {"source": list(names), "kind": list(KINDS), "target": ("entry", np.array(targets))}
    return xr.Dataset({"before": (dims, 0 * values), "after": (dims, values)}, coords=coordinates)


def test_transfers_are_means_with_intervals_over_prefixes(task: xr.Dataset) -> None:
    generator = np.random.default_rng(2)
    tasks = {"a": task, "b": task.isel(example=[0, 0, 1])}
    targets = ["a"] * 6 + ["b"] * 3
    values = generator.normal(size=(2, 3, 9)).astype(np.float32) + 5
    found = summarise_changes(changes_from(values, targets, "ab"), tasks, {"a": "x", "b": "y"}, SETTINGS)
    for kind, name in enumerate(KINDS):
        transfer = found[f"transfer_{name}"]
        assert transfer.dims == ("source", "target")
        np.testing.assert_allclose(transfer.sel(target="a"), values[:, kind, :6].mean(axis=-1), rtol=1e-5)
        np.testing.assert_allclose(transfer.sel(target="b"), values[:, kind, 6:].mean(axis=-1), rtol=1e-5)
        low, high = found[f"transfer_{name}_low"], found[f"transfer_{name}_high"]
        assert (low <= transfer).all() and (transfer <= high).all() and (low < high).all()
    summed = [found[f"transfer_{name}"].values[[0, 1], [1, 0]].sum() for name in KINDS]
    between = found.sel(relation="between")
    assert between["removed_by_shared"] == pytest.approx(1 - summed[1] / summed[0], rel=1e-4)
    assert between["removed_by_others"] == pytest.approx(1 - summed[2] / summed[0], rel=1e-4)
    assert between["removed_beyond_others"] == pytest.approx((summed[2] - summed[1]) / summed[0], rel=1e-4)


def test_fractions_are_of_pairs_that_can_be_compared(task: xr.Dataset) -> None:
    names = "abc"
    certain = np.tile([2.0, 3, 2, 3, 2, 3], 3)  # means 2.5
    values = np.stack([np.stack([certain, 0.5 * certain, certain])] * 3)
    values[0] *= -1  # negative transfers of a
    values[1, :, :6] = [-3, 3, -2, 3, -1, 1]  # from b to a: not certain
    values[2, 1] = 0  # all of c's goes
    values[2, 2] *= 0.8
    tasks, groups = dict.fromkeys(names, task), {"a": "x", "b": "x", "c": "y"}
    for source, target in ((0, 0), (1, 1), (1, 2), (2, 2)):
        values[source, 2, 6 * target : 6 * target + 6] = np.nan  # no control
    changes = changes_from(values.astype(np.float32), list(np.repeat(list(names), 6)), names)
    found = summarise_changes(changes, tasks, groups, SETTINGS)
    assert found["pairs_compared"].values.tolist() == [0, 1, 3]  # a to b; a to c, c to a and b
    np.testing.assert_allclose(found["removed_by_shared"], [np.nan, 0.5, (0.5 + 1 + 1) / 3], rtol=1e-5)
    np.testing.assert_allclose(found["removed_by_others"], [np.nan, 0, 0.4 / 3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["removed_beyond_others"], [np.nan, 0.5, 2.1 / 3], rtol=1e-5)


def stores() -> tuple[xr.Dataset, xr.Dataset]:
    """Return effects at two checkpoints and transfer at two, one of them the same."""
    generator = np.random.default_rng(0)
    relie = xr.Dataset(
        {"indirect_effect": (("task", "checkpoint", "feature"), generator.normal(size=(3, 2, 24)))},
        coords={"task": ["b", "a", "c"], "checkpoint": ["step0", "step1"], "feature": np.arange(24)},
        attrs={"suite": "tiny"},
    )
    transfer = xr.Dataset(
        {
            "mean_transfer": (("tuning", "checkpoint", "source", "target"), generator.normal(size=(2, 2, 2, 2))),
            "transfer": (("tuning", "seed", "checkpoint", "source", "target"), generator.normal(size=(2, 2, 2, 2, 2))),
        },
        coords={
            "tuning": ["ftgd", "plain"],
            "seed": [0, 1],
            "checkpoint": ["step1", "step2"],
            "tokens_seen": ("checkpoint", [10, 20]),
            "source": ["a", "b"],
            "target": ["a", "b"],
            "group": ("target", ["x", "x"]),
        },
        attrs={"suite": "tiny"},
    )
    return relie, transfer


def test_bridge_is_stored_with_what_the_stores_have_in_common(task: xr.Dataset, tmp_path: Path) -> None:
    relie, transfer = stores()
    relations = relate(relie, transfer, ["a", "b"], SETTINGS)
    reading = reading_of()
    model = reading.sites[NUMBER].model
    tunable = Tunable("step1", reading, lambda source: shifted(model, ord(source)))
    bridge = build_bridge(relations, [tunable], {"a": task, "b": task}, SETTINGS)
    write_store(bridge, tmp_path / "bridge.zarr", provenance(SETTINGS))
    loaded = load_store(tmp_path / "bridge.zarr")
    assert loaded["checkpoint"].values.tolist() == ["step1"] and loaded["tokens_seen"].values.tolist() == [10]
    assert loaded["relation"].values.tolist() == list(RELATIONS) and loaded["group"].values.tolist() == ["x", "x"]
    own = {"tuning": "ftgd", "checkpoint": "step1"}
    expected, of_seed = transfer["mean_transfer"].sel(own), transfer["transfer"].sel({**own, "seed": 0})
    deviation = abs(loaded["transfer_intact"].sel(checkpoint="step1") - of_seed).max()
    assert loaded["tuning_deviation"].item() == pytest.approx(deviation.item(), rel=1e-4)
    np.testing.assert_allclose(loaded["transfer"].sel(checkpoint="step1"), expected)
    effects = relie["indirect_effect"].sel(task=["a", "b"], checkpoint="step1").values
    both = np.logical_and(*top_features(effects, 3))
    assert loaded["shared_features"].sel(source="a", target="b").item() == both.sum()
    assert loaded["effect_of_shared"].sel(source="a", target="b").item() == pytest.approx(abs(effects[1, both]).sum())
    low = loaded["transfer_intact_low"]
    assert low.attrs["long_name"].startswith("lower end of the 95% interval over prefixes: transfer with all features")
    assert low.attrs["units"] == "see unit" and loaded["unit"].values.tolist() == ["logit", "logit"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda relie, transfer: (relie.assign_attrs(suite="other"), transfer),
            "of suite 'other', the transfer of 'tiny'",
        ),
        (
            lambda relie, transfer: (relie, transfer.sel(tuning=["plain"])),
            "the transfer given: no tuning 'ftgd', only plain; run its",
        ),
        (
            lambda relie, transfer: (relie, transfer.sel(seed=[1])),
            "the transfer given: no seed '0', only 1; run its target again",
        ),
        (
            lambda relie, transfer: (relie, transfer.sel(source=["b"])),
            "the transfer given: no source 'a', only b; run its target again",
        ),
        (
            lambda relie, transfer: (relie.sel(task=["b", "c"]), transfer),
            "the effects given: no task 'a', only b, c; run its target again",
        ),
        (
            lambda relie, transfer: (relie.sel(checkpoint=["step0"]), transfer),
            "are at step0, the transfer at step1, step2; give a comparison with a checkpoint of the task space",
        ),
    ],
)
def test_stores_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        relate(*change(*stores()), ["a", "b"], SETTINGS)
