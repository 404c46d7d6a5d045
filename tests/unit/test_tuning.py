"""Tuning copies: what is updated, by how much, and that nothing of it stays."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from sentence_pairs import slow_differences
from test_tuning_losses import prefixes
from tiny import VOCABULARY, tiny_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from warm_python import warm_python

from chronocoder.config import MethodSettings, TuningSettings, parse_experiment
from chronocoder.errors import ConfigError, NonFiniteError
from chronocoder.stores import load_store, write_store
from chronocoder.taskspace.losses import Loss, accumulate_gradient
from chronocoder.taskspace.probing import Probe, sequence_losses
from chronocoder.taskspace.subset import Entries
from chronocoder.taskspace.tuning import Source, Tuning, tuned, updatable
from experiments import NURSERY, ROOT

SIZES = [(3, 4), (7,), (2, 3, 5), (1,)]
TEXT = np.random.default_rng(5).integers(1, VOCABULARY, (6, 9))


def of(objective: str = "differential", fraction: float = 0.01, rate: float = 1e-3) -> MethodSettings:
    return MethodSettings(objective=objective, fraction=fraction, learning_rate=rate)


def some_tensors(seed: int = 0, decimals: int = 1) -> list[torch.Tensor]:
    """Return tensors with many equal entries."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*size, generator=generator).round(decimals=decimals) for size in SIZES]


def pairs(count: int, seed: int, name: str) -> xr.Dataset:
    """Return a task of prefixes that end in one of two tokens, by which another two are right."""
    generator = np.random.default_rng(seed)
    last = generator.integers(0, 2, count)
    ids = [[0, *generator.integers(20, VOCABULARY, 2 + number % 2), 3 + last[number]] for number in range(count)]
    return prefixes(ids, (5 + last).tolist(), (6 - last).tolist()).assign_attrs(task=name, unit="logit")


@pytest.fixture
def source() -> Source:
    return Source(pairs(40, 0, "a"), np.arange(0, 40, 2), 0)


def weights(model: PreTrainedModel) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def changes(
    model: PreTrainedModel, source: Source, method: MethodSettings, **settings: object
) -> tuple[Tuning, list[torch.Tensor]]:
    """Return how a model was tuned, and the change of each of its parameters."""
    before = weights(model)
    with tuned(model, source, "m", method, TuningSettings(**{"steps": 3, "batch_pairs": 4, **settings})) as tuning:
        return tuning, [new - old for new, old in zip(weights(model), before, strict=True)]


@pytest.mark.parametrize("count", [1, 2, 13, 25, 49, 50])
@pytest.mark.parametrize("decimals", [0, 1, 6])
def test_the_largest_entries_are_those_of_a_sorted_list(count: int, decimals: int) -> None:
    tensors = some_tensors(decimals=decimals)
    flat = torch.cat([tensor.flatten() for tensor in tensors]).abs()
    expected = np.zeros(len(flat), dtype=bool)
    expected[np.argsort(-flat.numpy(), kind="stable")[:count]] = True
    chosen = Entries.largest(tensors, count)
    found = [torch.zeros(tensor.numel(), dtype=torch.bool) for tensor in tensors]
    for mask, places in zip(found, chosen.places, strict=True):
        mask[slice(None) if places is None else places] = True
    assert chosen.number == count
    np.testing.assert_array_equal(torch.cat(found).numpy(), expected)


def test_of_zeros_the_first_are_taken() -> None:
    chosen = Entries.largest([torch.tensor([0.0, -0.0, 1e-45, 0.0]), torch.zeros(3)], 3)
    assert [places.tolist() for places in chosen.places if places is not None] == [[0, 1, 2], []]


@pytest.mark.parametrize("embeddings", [True, False])
@pytest.mark.parametrize("fraction", [1e-9, 0.01, 0.3, 1.0])
def test_as_many_parameters_change_as_were_asked(
    fraction: float, embeddings: bool, any_model: PreTrainedModel, source: Source
) -> None:
    total = updatable(any_model, embeddings)
    tuning, changed = changes(any_model, source, of(fraction=fraction), embeddings=embeddings)
    asked = max(1, round(fraction * total))
    assert tuning.updated == asked
    moved = sum(int((change != 0).sum()) for change in changed)
    assert moved <= asked
    if fraction in (1e-9, 0.01):  # all of these have a gradient in some step
        assert moved >= 0.95 * asked
    assert tuning.norm == pytest.approx(float(torch.cat([one.flatten() for one in changed]).norm()), rel=1e-4)
    kept = {id(any_model.get_input_embeddings().weight), id(any_model.get_output_embeddings().weight)}
    of_embeddings = [
        bool(change.any())
        for parameter, change in zip(any_model.parameters(), changed, strict=True)
        if id(parameter) in kept
    ]
    assert embeddings or not any(of_embeddings)


def test_tied_weights_count_once() -> None:
    model = tiny_model("gpt2")
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    every = sum(parameter.numel() for parameter in model.parameters())
    assert updatable(model, True) == every
    assert updatable(model, False) == every - model.get_input_embeddings().weight.numel()


@pytest.mark.parametrize("fraction", [0.02, 1.0])
def test_updates_are_those_of_torchs_adam_on_the_entries_of_largest_gradient(fraction: float, source: Source) -> None:
    settings, method = TuningSettings(steps=4, batch_pairs=6), of(fraction=fraction)
    slow = tiny_model("gpt_neox").requires_grad_(True)
    parameters = list(slow.parameters())
    every = Loss.of(source.task, source.pairs, "differential")
    accumulate_gradient(slow, every, 10_000)
    flat = torch.cat([parameter.grad.flatten() for parameter in parameters if parameter.grad is not None])
    mask = torch.zeros(len(flat), dtype=torch.bool)
    mask[flat.abs().argsort(descending=True, stable=True)[: round(fraction * len(flat))]] = True
    masks = mask.split([parameter.numel() for parameter in parameters])
    adam = torch.optim.Adam(parameters, lr=method.learning_rate)
    losses = []
    for numbers in source.batches(4, 6):
        losses.append(accumulate_gradient(slow, Loss.of(source.task, source.pairs[numbers], "differential"), 10_000))
        for parameter, chosen in zip(parameters, masks, strict=True):
            assert parameter.grad is not None
            parameter.grad[~chosen.view_as(parameter)] = 0
        adam.step()
    fast = tiny_model("gpt_neox")
    with tuned(fast, source, "m", method, settings) as tuning:
        np.testing.assert_allclose(tuning.losses, losses, rtol=1e-4)
        larger = (flat.abs() > 1e-5 * flat.abs().max()).split([parameter.numel() for parameter in parameters])
        for ours, theirs, certain in zip(fast.parameters(), parameters, larger, strict=True):  # Adam scales rounding up
            both = (one.detach().flatten()[certain] for one in (ours, theirs))
            torch.testing.assert_close(*both, rtol=1e-4, atol=1e-6)


def test_choosing_in_each_step_updates_that_many_in_each(source: Source) -> None:
    model = tiny_model("gpt_neox")
    count = round(0.05 * updatable(model, True))
    tuning, changed = changes(model, source, of(fraction=0.05), selection="step", steps=1)
    assert tuning.updated == count
    assert 0.95 * count <= sum(int((change != 0).sum()) for change in changed) <= count
    tuning, changed = changes(model, source, of(fraction=0.05), selection="step", steps=5)
    assert count < tuning.updated <= 5 * count
    assert sum(int((change != 0).sum()) for change in changed) <= tuning.updated


@pytest.mark.parametrize("selection", ["task", "step"])
@pytest.mark.parametrize("fraction", [0.01, 1.0])
def test_weights_are_restored_bit_for_bit(
    fraction: float, selection: str, any_model: PreTrainedModel, source: Source
) -> None:
    before = weights(any_model)
    tuning, changed = changes(any_model, source, of(fraction=fraction), selection=selection)
    assert any(bool(change.any()) for change in changed) and tuning.norm > 0
    with pytest.raises(RuntimeError, match="interrupted"), tuned(any_model, source, "m", of(), TuningSettings(steps=1)):
        raise RuntimeError("interrupted")
    for parameter, old in zip(any_model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert parameter.grad is None and not parameter.requires_grad
    assert not any_model.training


def test_what_is_saved_is_what_is_updated(source: Source) -> None:
    saved = Entries.largest(some_tensors(), 5).saved(some_tensors())
    assert [one.numel() for one in saved] != [12, 7, 30, 1] and sum(one.numel() for one in saved) == 5


def test_the_distance_from_what_was_saved_is_that_of_all_entries() -> None:
    before, after = some_tensors(0), some_tensors(1)
    for entries in (Entries.every(before), Entries.largest(before, 13)):
        changed = [new - old for new, old in zip(entries.saved(after), entries.saved(before), strict=True)]
        expected = float(torch.cat([one.flatten() for one in changed]).double().norm())
        assert entries.distance(after, entries.saved(before)) == pytest.approx(expected, rel=1e-6)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(source: Source) -> None:
    found = [changes(tiny_model("gpt_neox"), source._replace(seed=seed), of()) for seed in (0, 0, 1)]
    for first, second in zip(found[0][1], found[1][1], strict=True):
        assert torch.equal(first, second)
    np.testing.assert_array_equal(found[0][0].losses, found[1][0].losses)
    assert any(not torch.equal(first, other) for first, other in zip(found[0][1], found[2][1], strict=True))


def test_batches_take_every_pair_before_any_again(source: Source) -> None:
    order = np.concatenate(list(source.batches(10, 6)))
    for first in range(0, 60, 20):
        assert sorted(order[first : first + 20]) == list(range(20))


def test_half_of_the_pairs_are_swapped_the_same_in_every_batch(source: Source) -> None:
    every = source.loss(np.arange(20), "swapped")
    right = every.weight[every.token == 5]
    straight = source.loss(np.arange(20), "differential")
    again = source.loss(np.arange(20), "swapped")
    np.testing.assert_array_equal(every.weight, again.weight)
    swapped = np.sign(every.weight) != np.sign(straight.weight)
    assert swapped.sum() == 20 and len(right)  # two terms each of ten pairs


def test_pairs_of_one_prefix_are_swapped_together() -> None:
    task = prefixes([[1, 10 + number // 4] for number in range(40)], [5, 6, 7, 8] * 10, [15, 16, 17, 18] * 10)
    source = Source(task.assign_attrs(task="a", unit="logit"), np.arange(40), 0)
    swapped = [source.loss(np.array([number]), "swapped").weight[0] > 0 for number in range(40)]
    straight = [source.loss(np.array([number]), "differential").weight[0] > 0 for number in range(40)]
    of_prefixes = (np.array(swapped) != straight).reshape(10, 4)
    assert (of_prefixes.all(axis=1) | ~of_prefixes.any(axis=1)).all()
    assert of_prefixes.all(axis=1).sum() == 5


@pytest.mark.parametrize("fraction", [0.05, 1.0])
def test_tuning_raises_the_margin_of_pairs_it_has_not_seen(fraction: float, source: Source) -> None:
    model, held = tiny_model("gpt_neox"), source.task.isel(example=slice(1, None, 2))
    before = np.mean(slow_differences(model, held))
    with tuned(model, source, "m", of(fraction=fraction, rate=3e-3), TuningSettings(steps=20)) as tuning:
        assert np.mean(slow_differences(model, held)) > before + 0.5
    assert tuning.losses[-1] < tuning.losses[0] - 0.5
    assert np.mean(slow_differences(model, held)) == before


def test_a_loss_that_is_not_finite_names_step_and_remedy(source: Source) -> None:
    model = tiny_model("gpt_neox")
    model.name_or_path = "checkpoint"
    before = weights(model)
    with (
        pytest.raises(NonFiniteError) as error,
        tuned(model, source, "plain", of("right", 1.0, 1e30), TuningSettings(steps=9)),
    ):
        pass
    for part in (
        "checkpoint",
        "task 'a'",
        "at step 1",
        "method 'plain'",
        "lower taskspace.methods.plain.learning_rate",
    ):
        assert part in str(error.value)
    assert all(torch.equal(parameter, old) for parameter, old in zip(model.parameters(), before, strict=True))


def settings_of(**changed: object) -> TuningSettings:
    methods = {"ftgd": of(), "plain": of("right", 1.0), "swapped": of("swapped")}
    return TuningSettings(**{"methods": methods, "steps": 3, "batch_pairs": 4, "sequences": 5, **changed})


def test_a_model_that_breaks_in_the_last_step_names_task_method_and_remedy() -> None:
    tasks = {name: pairs(40, number, name) for number, name in enumerate("ab")}
    methods = {"ftgd": of(), "plain": of("right", 1.0, 1e30)}
    probe = Probe(tiny_model("gpt_neox"), tasks, TEXT, settings_of(methods=methods, steps=1), 0)
    with pytest.raises(
        NonFiniteError, match=r"after tuning on task 'b' by method 'plain': .*; lower taskspace\.methods"
    ):
        probe.of("b")


def test_probing_is_like_tuning_and_scoring_by_hand(tokenizer: PreTrainedTokenizerFast) -> None:
    tasks = {"a": pairs(40, 0, "a"), "b": pairs(60, 1, "b").assign_attrs(unit="logit")}
    model, settings = tiny_model("gpt_neox"), settings_of()
    before = weights(model)
    probe = Probe(model, tasks, TEXT, settings, 3)
    found = probe.of("b")
    assert list(found["target"].values) == [name for name in "ab" for _ in range(int(probe.held[name].sum()))]
    held = {name: tasks[name].isel(example=probe.held[name]) for name in "ab"}
    np.testing.assert_array_equal(found["example"], np.concatenate([np.flatnonzero(probe.held[name]) for name in "ab"]))

    def differences() -> list[float]:
        return [value for name in "ab" for value in slow_differences(model, held[name])]

    def losses() -> list[float]:
        ids = torch.from_numpy(TEXT[:5])
        scores = [model(input_ids=text[None]).logits[0, :-1].double().log_softmax(1) for text in ids]
        return [-float(score.gather(1, text[1:, None]).mean()) for score, text in zip(scores, ids, strict=True)]

    np.testing.assert_allclose(found["difference_before"], differences(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["loss_before"], losses(), rtol=1e-5)
    source = Source(tasks["b"], np.flatnonzero(~probe.held["b"]), 3)
    for number, (name, method) in enumerate(settings.methods.items()):
        with tuned(model, source, name, method, settings) as tuning, torch.no_grad():
            np.testing.assert_allclose(found["difference"][number], differences(), rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(found["loss"][number], losses(), rtol=1e-5)
        np.testing.assert_array_equal(found["training_loss"][number], tuning.losses)
        assert found["updated_parameters"][number] == tuning.updated
        assert found["update_norm"][number] == tuning.norm
    assert list(found["objective"].values) == ["differential", "right", "swapped"]
    facts = {"parameters": updatable(model, True), "pairs_tuned": len(source.pairs), "unit": "logit"}
    assert {name: found.attrs[name] for name in facts} == facts
    assert found.attrs["pairs_held_out"] == held["b"].sizes["example"]
    assert all(torch.equal(parameter, old) for parameter, old in zip(model.parameters(), before, strict=True))


def test_which_tasks_were_tuned_on_before_changes_nothing() -> None:
    tasks = {name: pairs(40, number, name) for number, name in enumerate("ab")}
    probe = Probe(tiny_model("gpt_neox"), tasks, TEXT, settings_of(), 0)
    first = probe.of("a")
    probe.of("b")
    xr.testing.assert_identical(first, probe.of("a"))
    xr.testing.assert_identical(first, Probe(tiny_model("gpt_neox"), tasks, TEXT, settings_of(), 0).of("a"))


def test_losses_of_text_do_not_depend_on_how_many_sequences_pass_together(any_model: PreTrainedModel) -> None:
    expected = sequence_losses(any_model, TEXT, 10_000)
    assert expected.shape == (6,)
    for tokens in (1, 20):
        np.testing.assert_allclose(sequence_losses(any_model, TEXT, tokens), expected, rtol=1e-5)


def test_a_damaged_model_is_named(any_model: PreTrainedModel) -> None:
    next(any_model.parameters()).data.fill_(torch.nan)
    any_model.name_or_path = "damaged"
    with pytest.raises(NonFiniteError, match="damaged: the loss of a sequence of text is not finite"):
        sequence_losses(any_model, TEXT, 100)


def test_quantised_models_are_refused() -> None:
    suite = {**NURSERY["suites"]["small"], "taskspace": {"checkpoints": ["step8"]}}
    values = {**NURSERY, "suites": {"small": {**suite, "loading": {"quantization": "8bit"}}}}
    with pytest.raises(ConfigError, match=r"suites\.small\.taskspace: .*loading\.quantization 8bit.*set it to none"):
        parse_experiment(values, "test")


def test_settings_that_tunings_do_not_depend_on_are_not_theirs() -> None:
    values = {**NURSERY, "taskspace": {"steps": 7, "permutations": 99, "seeds": [3]}}
    tuning = parse_experiment(values, "test").taskspace.tuning
    assert tuning == TuningSettings(steps=7)


def test_the_script_writes_what_probing_finds_of_every_task(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    tasks = {"a": pairs(40, 0, "a"), "b": pairs(40, 1, "b")}
    model = tiny_model("gpt_neox")
    model.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    for name, task in tasks.items():
        labels = {variable: {"long_name": variable, "units": "1"} for variable in task.data_vars}
        for variable, attributes in labels.items():
            task[variable].attrs.update(attributes)
        write_store(task, tmp_path / f"tasks/{name}.zarr", task.attrs)
    text = xr.Dataset({"token_ids": (("sequence", "position"), TEXT, {"long_name": "token", "units": "1"})})
    write_store(text, tmp_path / "text.zarr", {})
    stores, outputs = ([str(tmp_path / place / f"{name}.zarr") for name in "ab"] for place in ("tasks", "out"))
    common = ["--suite", "s", "--revision", "r", "--checkpoint", str(tmp_path / "model"), "--tuning-seed", "1"]
    given = ["--corpus", str(tmp_path / "text.zarr"), "--targets", *stores, "--tasks", *stores, "--outputs", *outputs]
    own = [
        "--steps",
        "2",
        "--batch-pairs",
        "4",
        "--sequences",
        "5",
        "--methods",
        '{"ftgd": {"objective": "differential", "fraction": 0.01}}',
    ]
    command = [warm_python(), str(ROOT / "scripts/tune_task.py"), *common, *given, *own]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for name in "ab":
        stored = load_store(tmp_path / f"out/{name}.zarr")
        assert [stored.attrs[key] for key in ("suite", "revision", "seed", "task")] == ["s", "r", 1, name]
        assert stored.attrs["model_dtype"] == "float32"
        assert (stored["difference"] != stored["difference_before"]).any()
