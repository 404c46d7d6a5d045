"""Training: that it learns, repeats itself, goes on after every kind of end, and keeps what is good."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny import WIDTH, tiny_config
from training_processes import server, train_alone

from chronocoder.activations.formats import Stored
from chronocoder.activations.loader import ActivationStores, sampled_blocks
from chronocoder.crosscoder.evaluation import measure_reconstruction
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig, load_crosscoder
from chronocoder.crosscoder.state import StateDirectory
from chronocoder.crosscoder.team import Team
from chronocoder.crosscoder.training import Trained, measure_activations, train_crosscoder
from chronocoder.errors import NonFiniteError, StoppedError, StoreError
from chronocoder.variants import VARIANTS

ALL = sorted(VARIANTS)


@pytest.fixture
def stores(activation_store: Callable[..., Path]) -> ActivationStores:
    return ActivationStores([activation_store(f"step{number}") for number in (0, 1)])


def train(config: CrosscoderConfig, stores: ActivationStores, path: Path, save_every: int = 1000) -> Trained:
    states = StateDirectory(path / "state", {"seed": config.seed})
    return train_crosscoder(config, stores, states, path / "last_good", save_every)


def assert_equal(one: Crosscoder, other: Crosscoder) -> None:
    for name, weight in one.state_dict().items():
        assert torch.equal(weight, other.state_dict()[name]), name


def test_scale_gives_rows_of_mean_norm_sqrt_d(stores: ActivationStores) -> None:
    settings = tiny_config("l1").settings
    scale, mean = measure_activations(stores, settings, 0, Team())
    rows = torch.from_numpy(stores.read(0, stores.rows)) * scale[:, None]
    torch.testing.assert_close(rows.mean(dim=0), mean)
    torch.testing.assert_close(rows.norm(dim=-1).mean(dim=0), torch.full((2,), WIDTH**0.5))


def test_scale_is_measured_on_as_many_tokens_as_asked(stores: ActivationStores) -> None:
    settings = tiny_config("l1", normalisation_tokens=1000).settings
    seen = torch.cat(list(sampled_blocks(stores, 1000, 3)))
    assert 1000 <= len(seen) < stores.rows
    expected = WIDTH**0.5 / seen.norm(dim=-1).mean(dim=0)
    torch.testing.assert_close(measure_activations(stores, settings, 3, Team()).scale, expected)


@pytest.mark.parametrize("variant", ALL)
def test_training_lowers_the_loss_and_repeats_itself(stores: ActivationStores, tmp_path: Path, variant: str) -> None:
    own = {"k": 8} if variant in ("batchtopk", "topk") else {}
    config = tiny_config(variant, steps=60, batch_tokens=256, learning_rate=0.01, **own)
    first, second = (train(config, stores, tmp_path) for _ in range(2))
    errors = first.history["squared_error"].sum("checkpoint")
    assert errors[-1] < 0.8 * errors[0]
    assert_equal(first.crosscoder, second.crosscoder)
    statistics = measure_reconstruction(first.crosscoder, stores.blocks())
    if variant in ("batchtopk", "topk"):
        assert statistics.l0.item() == pytest.approx(8, rel=0.1)
    logged = first.history["explained_variance"].isel(step=-1)
    np.testing.assert_allclose(statistics.explained_variance, logged, atol=0.1)


@pytest.mark.parametrize("variant", ALL)
def test_bfloat16_products_keep_float32_weights(stores: ActivationStores, tmp_path: Path, variant: str) -> None:
    config = tiny_config(variant, steps=40, batch_tokens=256, learning_rate=0.01)
    exact = train(config, stores, tmp_path)
    settings = config.settings.model_copy(update={"precision": "bfloat16"})
    rounded = train(CrosscoderConfig(**{**vars(config), "settings": settings}), stores, tmp_path)
    assert {weight.dtype for weight in rounded.crosscoder.state_dict().values()} == {torch.float32}
    assert not torch.equal(rounded.crosscoder.encoder_rows, exact.crosscoder.encoder_rows)
    errors = [trained.history["squared_error"].sum("checkpoint").isel(step=-1) for trained in (exact, rounded)]
    assert float(errors[1]) == pytest.approx(float(errors[0]), rel=0.03)


@pytest.mark.parametrize("variant", ["batchtopk", "jumprelu"])
def test_killed_ten_times_ends_in_the_same_weights(stores: ActivationStores, tmp_path: Path, variant: str) -> None:
    """SIGKILL at random moments, in the midst of saving too; on the CPU the weights are equal to the last bit."""
    config = tiny_config(variant, steps=400, batch_tokens=1024, learning_rate=0.01, dead_after_tokens=2000)
    undisturbed = train(config, stores, tmp_path / "undisturbed")
    context = server()
    moments, kills, begun_at = random.Random(0), 0, [0]
    while kills < 10:
        process = context.Process(target=train_alone, args=(config, stores.paths, tmp_path / "killed", 2))
        process.start()
        target = begun_at[-1] + 3
        while process.is_alive() and _saved_step(tmp_path / "killed") < target:
            time.sleep(0.002)
        time.sleep(moments.random() * 0.02)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it finished before it could be killed"
        kills += 1
        begun_at.append(_saved_step(tmp_path / "killed"))
    assert begun_at == sorted(set(begun_at)), "a restart lost what had been saved"
    process = context.Process(target=train_alone, args=(config, stores.paths, tmp_path / "killed", 50))
    process.start()
    process.join()
    finished = load_crosscoder(tmp_path / "killed" / "crosscoder")
    assert_equal(finished, undisturbed.crosscoder)


def _saved_step(directory: Path) -> int:
    return max((int(path.name.removeprefix("step")) for path in directory.glob("state/step*")), default=0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_signal_saves_the_state_and_history_goes_on(
    stores: ActivationStores, tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config("topk", steps=50)
    undisturbed = train(config, stores, tmp_path / "undisturbed")
    backward, calls = Accelerator.backward, list[int]()

    def interrupting(self: Accelerator, loss: torch.Tensor) -> None:
        backward(self, loss)
        calls.append(1)
        if len(calls) == 23:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Accelerator, "backward", interrupting)
    handler = signal.getsignal(number)
    with pytest.raises(StoppedError, match=r"stopped at step 23; run again: .*state has the state") as raised:
        train(config, stores, tmp_path / "stopped")
    assert raised.value.status == 128 + number and signal.getsignal(number) is handler
    again = train(config, stores, tmp_path / "stopped")
    assert len(calls) == 50, "it began anew"
    assert_equal(again.crosscoder, undisturbed.crosscoder)
    assert again.history.identical(undisturbed.history)


def test_state_of_another_training_is_not_gone_on_with(
    stores: ActivationStores, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = (tiny_config("l1", seed=seed, steps=12) for seed in (0, 1))
    train(one, stores, tmp_path, save_every=5)
    assert _saved_step(tmp_path) == 10
    other = train(two, stores, tmp_path, save_every=5)
    assert "was of another training (other settings or inputs): begun anew, kept as" in caplog.text
    assert_equal(other.crosscoder, train(two, stores, tmp_path / "fresh").crosscoder)


def test_state_of_another_number_of_shards_is_refused(stores: ActivationStores, tmp_path: Path) -> None:
    config = tiny_config("l1", steps=12)
    train(config, stores, tmp_path, save_every=5)
    path = tmp_path / "state" / "step10" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "shards": 2}))
    with pytest.raises(StoreError, match="is of 2 dictionary shards, not 1; set training.dictionary_shards to 2"):
        train(config, stores, tmp_path)


def test_damaged_state_is_named(stores: ActivationStores, tmp_path: Path) -> None:
    config = tiny_config("l1", steps=12)
    train(config, stores, tmp_path, save_every=5)
    (tmp_path / "state" / "step10" / "shard0.safetensors").write_bytes(b"half")
    with pytest.raises(StoreError, match=r"step10: damaged \(.*\); delete .*state to begin anew"):
        train(config, stores, tmp_path)


def test_unfinished_state_directory_is_no_state(stores: ActivationStores, tmp_path: Path) -> None:
    config = tiny_config("l1", steps=12)
    (tmp_path / "state" / ".step7.partial").mkdir(parents=True)
    assert StateDirectory(tmp_path / "state", {"seed": 0}).load(Team()) is None
    train(config, stores, tmp_path)


class Damaged(ActivationStores):
    """Stores with one infinite value in a piece."""

    def read_piece(self, number: int, into: Stored) -> None:
        super().read_piece(number, into)
        if number == 1:
            into.values[0, 0, 0] = np.inf


def test_non_finite_loss_stops_and_keeps_the_last_good_crosscoder(stores: ActivationStores, tmp_path: Path) -> None:
    config = tiny_config("l1", batch_tokens=64, steps=500, normalisation_tokens=1, shuffle_tokens=1)
    seed = next(seed for seed in range(9) if np.random.default_rng([seed, 0]).permutation(3)[0] != 1)
    config = CrosscoderConfig(**{**vars(config), "seed": seed})
    with pytest.raises(NonFiniteError, match=r"step \d+: loss or gradient is not finite; the crosscoder before"):
        train(config, Damaged(stores.paths), tmp_path)
    rescued = load_crosscoder(tmp_path / "last_good")
    assert all(torch.isfinite(weight).all() for weight in rescued.state_dict().values())


def test_non_finite_gradient_of_a_finite_loss_does_not_reach_the_weights(
    stores: ActivationStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward, trained = Accelerator.backward, list[Crosscoder]()
    prepare = Crosscoder.to

    def noting(self: Crosscoder, device: torch.device) -> Crosscoder:
        trained.append(self)
        return prepare(self, device)

    def damaging(self: Accelerator, loss: torch.Tensor) -> None:
        backward(self, loss)
        if len(losses) == 4:
            trained[0].encoder_rows.grad[0, 0, 0] = torch.nan
        losses.append(loss.item())

    losses: list[float] = []
    monkeypatch.setattr(Crosscoder, "to", noting)
    monkeypatch.setattr(Accelerator, "backward", damaging)
    with pytest.raises(NonFiniteError, match="step 4: loss or gradient is not finite"):
        train(tiny_config("batchtopk", steps=20), stores, tmp_path)
    rescued = load_crosscoder(tmp_path / "last_good")
    assert all(torch.isfinite(weight).all() for weight in rescued.state_dict().values())
