"""Models that are tuned while they are read beside those of the other checkpoints."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from slow_attribution import folded_crosscoder
from tiny import tiny_model

from chronocoder.config import LoadingSettings, MethodSettings, TaskSpaceSettings
from chronocoder.suites.checkpoints import load_model
from chronocoder.taskspace.tunable import Checkpoints, tunable_models
from chronocoder.taskspace.tuning import Source, tuned

SETTINGS = TaskSpaceSettings(
    seeds=[3, 4],
    methods={
        "main": MethodSettings(objective="differential", fraction=0.1, learning_rate=0.01),
        "other": MethodSettings(objective="right", fraction=1.0),
    },
    steps=2,
    batch_pairs=2,
)
HELD = np.array([True, False, True, False, True, False])


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    """Two checkpoints, of which the second was saved in half precision."""
    found = {f"step{number}": tmp_path / f"step{number}" for number in (0, 1)}
    for number, (path, dtype) in enumerate(zip(found.values(), (torch.float32, torch.bfloat16), strict=True)):
        tiny_model("gpt_neox", number).to(dtype).save_pretrained(path)
    return found


def test_each_model_is_tuned_by_the_main_method_with_the_first_seed(paths: dict[str, Path], task: xr.Dataset) -> None:
    checkpoints = Checkpoints(folded_crosscoder(), paths, LoadingSettings())
    models = tunable_models(checkpoints, list(paths), {"test": task}, {"test": HELD}, SETTINGS)
    for number, (revision, reading, tuning) in enumerate(models):
        expected = load_model(paths[revision], LoadingSettings(dtype="float32"))
        model = reading.sites[reading.number].model
        assert (reading.number, revision) == (number, f"step{number}")
        assert model.dtype == torch.float32
        assert reading.sites[1 - number].model.dtype == (torch.bfloat16, torch.float32)[number]
        before = {name: value.clone() for name, value in model.state_dict().items()}
        source = Source(task, np.flatnonzero(~HELD), 3)
        with tuning("test"), tuned(expected, source, "main", SETTINGS.methods["main"], SETTINGS):
            for name, value in model.state_dict().items():
                assert torch.equal(value, expected.state_dict()[name])
            assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_model_in_float32_is_not_loaded_twice(paths: dict[str, Path], task: xr.Dataset) -> None:
    checkpoints = Checkpoints(folded_crosscoder(), paths, LoadingSettings(dtype="float32"))
    readings = [
        one.reading for one in tunable_models(checkpoints, list(paths), {"test": task}, {"test": HELD}, SETTINGS)
    ]
    assert readings[0].sites == readings[1].sites


def test_the_bridge_depends_on_the_main_method_and_the_first_seed_alone() -> None:
    found = SETTINGS.model_copy(update={"sketch": 7, "permutations": 8}).bridging
    assert found.seeds == [3] and list(found.methods) == ["main"] and found.permutations == 8
    assert found.sketch == TaskSpaceSettings().sketch and found.steps == SETTINGS.steps
