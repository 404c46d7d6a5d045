"""Batches that are dealt to parts: exact sums and gradients, and trainings that no number of processes changes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from thread_processes import ThreadedDistributed
from tiny import tiny_config
from torch import Tensor

from chronocoder.activations.loader import ActivationStores, shuffled_batches
from chronocoder.crosscoder import team as team_module
from chronocoder.crosscoder.model import CrosscoderConfig
from chronocoder.crosscoder.parts import DealtTokens, OwnTokens, even_sizes
from chronocoder.crosscoder.sparse import active_where
from chronocoder.crosscoder.state import TrainingState, identity_of
from chronocoder.crosscoder.team import Team
from chronocoder.crosscoder.training import Trainer, _one_thread
from chronocoder.variants import VARIANTS

SIZES = [5, 0, 1, 7, 300, 2, 2, 6]
TOKENS, LATENTS, WIDTH = sum(SIZES), 13, 6
NURSERY = {"steps": 300, "learning_rate": 2e-3, "auxiliary_coefficient": 4.0, "auxiliary_k": 8, "batch_tokens": 256}
NURSERY |= {"dictionary_size": 100, "dead_after_tokens": 256, "shuffle_tokens": 2100}
SPARSE = {
    "l1": {"l1_coefficient": 9.0},
    "topk": {"k": 1},
    "batchtopk": {"k": 1},
    "jumprelu": {"initial_threshold": 4.0},
}


def random_leaves(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def results(dealt: OwnTokens, halved: bool) -> list[Tensor]:
    """Return values and gradients of everything that sums over tokens, or has a row for each."""
    codes, rows, bias = random_leaves((TOKENS, LATENTS), (LATENTS, WIDTH), (WIDTH,))
    decoded = dealt.multiply(codes, rows, halved) + dealt.spread(bias)
    encoded = dealt.multiply(decoded.detach(), rows.T, halved)
    of_latents = dealt.sum(codes.relu())
    loss = decoded.pow(2).sum() + encoded.pow(3).sum() + of_latents.pow(2).sum()
    loss.backward()
    active = active_where(codes.detach() > 1)
    weights = codes.detach()[active.tokens, active.features]
    sums = [dealt.sum_by_feature(table, weights, active, LATENTS, torch.float32) for table in (decoded.detach(), None)]
    return [decoded, encoded, of_latents, dealt.total(codes), *sums, codes.grad, rows.grad, bias.grad]


@pytest.mark.parametrize("halved", [False, True])
def test_sums_and_gradients_are_those_of_the_plain_operations(halved: bool) -> None:
    for found, expected in zip(
        results(DealtTokens(SIZES, Team(parts=8)), halved), results(OwnTokens(Team()), halved), strict=True
    ):
        assert found.shape == expected.shape and found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)


def test_rows_of_a_part_do_not_depend_on_what_lies_before_them() -> None:
    """In memory, too: a part begins at another address in a process that does not hold those before it."""
    left, right = (leaf.detach() for leaf in random_leaves((TOKENS, 37), (37, 11)))
    whole = DealtTokens(SIZES, Team(parts=8)).rows_of_product(left, right)
    start = 0
    for size in SIZES:
        block = left[start : start + size].clone()
        assert torch.equal(
            DealtTokens([size], Team(parts=1)).rows_of_product(block, right), whole[start : start + size]
        )
        start += size


def trained(
    monkeypatch: pytest.MonkeyPatch,
    config: CrosscoderConfig,
    stores: ActivationStores,
    processes: int,
    parts: int = 8,
    shards: int = 1,
    states: list[TrainingState] | None = None,
    steps: int = 300,
) -> list[TrainingState]:
    """Return the state of each process after some steps, from the beginning or from the states of each shard."""
    distributed, accelerator = ThreadedDistributed(processes), Accelerator(cpu=True)
    monkeypatch.setattr(team_module, "dist", distributed)

    def work(rank: int) -> TrainingState:
        team = Team(rank, processes, shards, "cpu", parts)
        trainer = Trainer(config, stores, team, accelerator)
        if states:
            state = states[team.shard]
            trainer.restore(replace(state, records=list(state.records)))
        else:
            trainer.begin()
        sizes = config.settings.batch_tokens, config.seed
        order = {"first_batch": trainer.step, "buffer_tokens": config.settings.shuffle_tokens}
        batches = shuffled_batches(stores, *sizes, **order, rank=rank, processes=processes, parts=parts)
        for _ in range(steps):
            trainer.train_step(next(batches), Path(), batches.part_sizes)
        batches.close()
        copies = {name: tensor.detach().clone() for name, tensor in trainer._tensors().items()}
        return TrainingState(trainer.step, copies, list(trainer.records))

    return distributed.run(work)


def differences(found: list[TrainingState], expected: list[TrainingState]) -> set[str]:
    """Return the names of what differs in any bit: weights, moments, thresholds, the dead-latent clock, metrics."""
    names = set()
    for number, state in enumerate(found):
        other = expected[number % len(expected)]
        names |= {name for name, tensor in state.tensors.items() if not torch.equal(tensor, other.tensors[name])}
        names |= {"records"} if state.records != other.records else set()
    return names


@pytest.fixture
def stores(activation_store: Callable[..., Path]) -> ActivationStores:
    return ActivationStores([activation_store(f"step{number}", rows=5000) for number in (0, 1)])


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_any_number_of_processes_trains_the_same_dictionary(
    stores: ActivationStores, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    """Over as many steps as the default experiment's: one process, and two whose training four go on with halfway."""
    config = tiny_config(variant, **{**NURSERY, **SPARSE[variant]})
    one = trained(monkeypatch, config, stores, 1)
    assert any(record["auxiliary_loss"] for record in one[0].records), "no latent was dead"
    half = trained(monkeypatch, config, stores, 2, steps=150)
    assert not differences(trained(monkeypatch, config, stores, 4, states=half, steps=150), one)


@pytest.mark.parametrize("variant", ["batchtopk", "l1"])
def test_eight_processes_and_bfloat16(stores: ActivationStores, monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    config = tiny_config(variant, **{**NURSERY, **SPARSE[variant], "precision": "bfloat16"})
    one, eight = (trained(monkeypatch, config, stores, processes, steps=25) for processes in (1, 8))
    assert not differences(eight, one)


@pytest.mark.parametrize("variant", ["topk", "jumprelu"])
def test_processes_may_have_no_tokens_and_no_latents(
    stores: ActivationStores, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    sizes = {"batch_tokens": 3, "dictionary_size": 5}
    config = tiny_config(variant, **{**NURSERY, **SPARSE[variant], **sizes})
    one, eight = (trained(monkeypatch, config, stores, processes, steps=10) for processes in (1, 8))
    assert not differences(eight, one)


@pytest.mark.parametrize("variant", ["topk", "jumprelu"])
def test_shards_train_the_same_dictionary_on_any_number_of_processes(
    stores: ActivationStores, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    config = tiny_config(variant, **{**NURSERY, **SPARSE[variant]})
    four, eight = (trained(monkeypatch, config, stores, processes, shards=4, steps=40) for processes in (4, 8))
    assert not differences(eight, four)


def test_without_parts_processes_round_differently(stores: ActivationStores, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("batchtopk", **{**NURSERY, "k": 1})
    one, two, dealt = (trained(monkeypatch, config, stores, *how, steps=25) for how in ((1, 0), (1, 8), (1, 4)))
    assert differences(two, one) and differences(dealt, two), "the number of parts does not change the rounding"
    plain = Trainer(config, stores, Team(), Accelerator(cpu=True))
    plain.begin()
    batches = shuffled_batches(stores, 256, 0, buffer_tokens=2100)
    for _ in range(25):
        plain.train_step(next(batches), Path())
    batches.close()
    assert all(torch.equal(tensor, one[0].tensors[name]) for name, tensor in plain._tensors().items())


def test_state_of_another_number_of_parts_is_another_training() -> None:
    class Origin:
        def _asdict(self) -> dict[str, str]:
            return {}

    config = tiny_config("l1")
    assert identity_of(config, Origin(), 8) != identity_of(config, Origin(), 0)


def test_training_computes_with_one_thread_and_gives_the_others_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with _one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_parts_are_as_even_as_can_be() -> None:
    assert even_sizes(10, 4) == [3, 3, 2, 2] and even_sizes(2, 3) == [1, 1, 0]
