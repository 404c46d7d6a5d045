"""Directions of number against whole passes of the model with its residual stream changed by a hook."""

from types import ModuleType

import numpy as np
import pytest
import torch
import xarray as xr
from benchmark_modules import load_benchmark
from tiny import tiny_model

BLOCK = 1


@pytest.fixture(scope="module")
def directions() -> ModuleType:
    return load_benchmark("number_directions")


@pytest.fixture
def with_number(task: xr.Dataset) -> xr.Dataset:
    return task.assign(condition=("example", [f"head {name}" for name in ["singular", "plural"] * 3]))


def test_effects_are_those_of_a_changed_pass(directions: ModuleType, with_number: xr.Dataset) -> None:
    model = tiny_model("gpt_neox")
    prefixes = directions.read_prefixes(model, f"residual.{BLOCK}", with_number)
    direction, expected = torch.randn(16, generator=torch.Generator().manual_seed(0)), []
    for example in range(6):
        length = int(with_number["length"][example])
        ids = torch.from_numpy(with_number["token_id"].values[[example], :length].astype(np.int64))
        changes = []
        for sign in (1, -1):

            def move(_module: object, _inputs: object, output: torch.Tensor, sign: int = sign) -> torch.Tensor:
                moved = output.clone()
                moved[:, -1] += sign * (0.5 if example % 2 else -0.5) * direction
                return moved

            handle = model.gpt_neox.layers[BLOCK].register_forward_hook(move)
            logits = model(ids).logits[0, -1]
            handle.remove()
            right, wrong = (int(with_number[name][example]) for name in ("right_id", "wrong_id"))
            changes.append(float(logits[right] - logits[wrong]))
        expected.append(changes[0] - changes[1])
    for chosen in (slice(None), slice(2, 5)):
        assert prefixes.effect(direction, chosen) == pytest.approx(np.mean(expected[chosen]), abs=1e-4)
    last = prefixes.last[:4]
    found = prefixes.direction(slice(4))
    torch.testing.assert_close(found, last[1::2].mean(dim=0) - last[::2].mean(dim=0))


def test_a_language_is_moved_by_the_other_as_far_as_they_have_one_direction(
    directions: ModuleType, with_number: xr.Dataset
) -> None:
    prefixes = directions.read_prefixes(tiny_model("gpt_neox"), "residual.1", with_number)
    cosine, *parts = directions.compare(prefixes, prefixes)
    assert cosine == "1.00" and all(part.startswith("1.00 (random ± ") for part in parts)
