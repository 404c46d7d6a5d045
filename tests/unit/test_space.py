"""Planted spaces are found back, and what is not known is left out and said."""

import itertools
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.spatial import procrustes
from warm_python import warm_python

from chronocoder.command_line import to_flags
from chronocoder.config import TaskSpaceSettings
from chronocoder.errors import StoreError
from chronocoder.stores import labelled, load_store, provenance, strings, write_store
from chronocoder.taskspace.points import space_of, transfer_similarity
from chronocoder.taskspace.scaling import classical_scaling
from chronocoder.taskspace.space import map_tasks

pytestmark = pytest.mark.filterwarnings("error")

TASKS = ["near", "far", "across", "reflexive", "pronoun", "filler"]
GROUPS = ["agreement", "agreement", "agreement", "binding", "binding", "islands"]
CHECKPOINTS = ["step0", "step8", "step16"]
SETTINGS = TaskSpaceSettings(permutations=1000)
SCRIPT = Path(__file__).parents[2] / "scripts/map_tasks.py"


def planted() -> np.ndarray:
    """Cosines of directions that lie closer within groups."""
    centres = np.array([[1.0, 0.0, 0.2], [0.0, 1.0, 0.2], [0.3, 0.3, -1.0]])[[0, 0, 0, 1, 1, 2]]
    points = centres + np.random.default_rng(0).normal(0, 0.3, centres.shape)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points @ points.T


def transfer_store(relative: np.ndarray, gain: float = 2.0, noise: float = 0.02, seeds: int = 2) -> xr.Dataset:
    """A transfer store of a first method of this relative transfer (checkpoint, source, target), and of a second."""
    generator = np.random.default_rng(1)
    by_seed = gain * np.nan_to_num(relative) + noise * generator.normal(size=(2, seeds, *relative.shape))
    cell = ("tuning", "checkpoint", "source", "target")
    variables = {
        "transfer": labelled(("tuning", "seed", *cell[1:]), by_seed, "transfer", "logit"),
        "relative_transfer": labelled(cell, np.stack([relative, 0 * relative]), "relative transfer"),
    }
    coordinates = {
        "tuning": strings(["ftgd", "plain"]),
        "checkpoint": strings(CHECKPOINTS[: len(relative)]),
        "tokens_seen": ("checkpoint", 100 * np.arange(len(relative))),
        "source": strings(TASKS),
        "target": strings(TASKS),
        "group": ("target", strings(GROUPS)),
    }
    return xr.Dataset(variables, coordinates).assign_attrs(provenance(SETTINGS, suite="made-up"))


def gradients_store(cosine: np.ndarray) -> xr.Dataset:
    halves = np.where(np.eye(len(TASKS), dtype=bool), 0.5 * np.sign(cosine), cosine)
    return xr.Dataset(
        {"cosine": labelled(("checkpoint", "task", "other_task"), halves, "cosine")},
        {"checkpoint": strings(CHECKPOINTS[: len(cosine)]), "task": strings(TASKS), "other_task": strings(TASKS)},
    )


COSINE = planted()
UNRELATED = np.stack([np.full((6, 6), np.nan), COSINE, COSINE])
MAPPED = map_tasks(transfer_store(UNRELATED), gradients_store(np.stack([COSINE] * 3)), SETTINGS)


def test_planted_spaces_are_found_back() -> None:
    later = MAPPED.sel(checkpoint="step8")
    np.testing.assert_allclose(later["similarity"], np.stack([COSINE] * 2))
    same = np.equal.outer(GROUPS, GROUPS)[np.triu_indices(6, 1)]
    pairs = COSINE[np.triu_indices(6, 1)]
    np.testing.assert_allclose(later["within"], pairs[same].mean())
    np.testing.assert_allclose(later["contrast"], pairs[same].mean() - pairs[~same].mean())
    np.testing.assert_allclose(later["contrast_p"], 1 / 60)
    np.testing.assert_allclose(later["contrast_smallest_p"], 1 / 60)
    assert (later["contrast_low"] < later["contrast"]).all() and (later["contrast"] < later["contrast_high"]).all()
    assert float(later["agreement"]) == pytest.approx(1) and float(later["agreement_p"]) == pytest.approx(1 / 720)
    configuration = classical_scaling(COSINE)
    for basis in ("transfer", "gradients"):
        position = later["position"].sel(basis=basis).values
        assert procrustes(configuration.points[:, :2], position)[2] == pytest.approx(0, abs=1e-9)
        np.testing.assert_allclose(later["explained"].sel(basis=basis), configuration.explained())
    assert MAPPED["group"].values.tolist() == GROUPS and MAPPED["tokens_seen"].values.tolist() == [0, 100, 200]


def test_where_nothing_is_learnt_there_is_no_space_and_a_reason() -> None:
    first = MAPPED.sel(checkpoint="step0")
    for name in ("position", "explained", "within", "contrast", "contrast_low", "contrast_p"):
        assert first[name].sel(basis="transfer").isnull().all() and first[name].sel(basis="gradients").notnull().all()
    assert first["tasks_placed"].values.tolist() == [0, 6] and np.isnan(first["agreement"])
    assert MAPPED["contrast"].attrs["reason"] == "transfer at step0: tuning or gradients tell of 0 of the tasks"


def test_unchanged_spaces_are_stable_and_stay_where_they_are() -> None:
    stability = MAPPED["stability"]
    assert stability.sel(checkpoint="step0").isnull().all() and np.isnan(stability.sel(basis="transfer")[1])
    np.testing.assert_allclose(stability.sel(checkpoint="step16"), 1.0)
    np.testing.assert_allclose(MAPPED["stability_p"].sel(checkpoint="step16"), 1 / 720)
    np.testing.assert_allclose(MAPPED["stability_smallest_p"].sel(checkpoint="step16"), 1 / 720)
    points = classical_scaling(COSINE).points
    every = [1 - procrustes(points, points[list(order)])[2] for order in itertools.permutations(range(6))]
    np.testing.assert_allclose(MAPPED["stability_chance"].sel(checkpoint="step16"), np.mean(every))
    position = MAPPED["position"]
    np.testing.assert_allclose(position.sel(checkpoint="step16"), position.sel(checkpoint="step8"), atol=1e-9)


def test_checkpoints_are_rotated_onto_the_one_before() -> None:
    """Of another space, no rotation of which is closer to the one before."""
    other = COSINE + 0.5 * np.random.default_rng(3).normal(size=(6, 6))
    relative = np.stack([COSINE, np.clip((other + other.T) / 2, -1, 1)])
    relative[1, np.arange(6), np.arange(6)] = 1.0
    mapped = map_tasks(transfer_store(relative), gradients_store(relative), SETTINGS)
    before, after = mapped["position"].sel(basis="transfer").values
    own = classical_scaling(relative[1]).position()
    assert abs(after - own).max() > 0.5
    np.testing.assert_allclose(
        np.linalg.norm(after[:, None] - after, axis=-1), np.linalg.norm(own[:, None] - own, axis=-1)
    )
    for angle in np.linspace(0, 2 * np.pi, 60):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for turned in (own @ turn, own @ turn * [1, -1]):
            assert np.square(after - before).sum() <= np.square(turned - before).sum() + 1e-9


def test_seeds_of_tuning_are_compared_at_one_checkpoint_and_across_two() -> None:
    store = transfer_store(UNRELATED, noise=0.6)
    found = map_tasks(store, gradients_store(UNRELATED), SETTINGS)
    spaces = {}
    for seed, checkpoint in itertools.product(range(2), (1, 2)):
        transfer = store["transfer"].values[0, seed, checkpoint]
        spaces[seed, checkpoint] = space_of(transfer_similarity(transfer / np.diag(transfer)))

    def compared(one: tuple[int, int], other: tuple[int, int]) -> float:
        padded = []
        for points in (spaces[key].configuration.points for key in (one, other)):
            padded.append(np.pad(points, ((0, 0), (0, 6 - points.shape[1]))))
        return 1 - float(procrustes(*padded)[2])

    assert np.isnan(found["seed_stability"][0]) and found["seed_stability_before"][:2].isnull().all()
    assert float(found["seed_stability"][2]) == pytest.approx(compared((0, 2), (1, 2)))
    expected = (compared((0, 1), (1, 2)) + compared((1, 1), (0, 2))) / 2
    assert float(found["seed_stability_before"][2]) == pytest.approx(expected) and expected < 0.99
    alone = map_tasks(transfer_store(UNRELATED, seeds=1), gradients_store(UNRELATED), SETTINGS)
    assert alone["seed_stability"].isnull().all() and alone["seed_stability_before"].isnull().all()


def test_a_seed_in_which_a_task_gains_nothing_leaves_it_out() -> None:
    store = transfer_store(UNRELATED, noise=0.05)
    less = store["transfer"].values.copy()
    less[0, 0, 2, 5, 5] = -1.0
    found = map_tasks(store.assign(transfer=store["transfer"].copy(data=less)), gradients_store(UNRELATED), SETTINGS)
    without = map_tasks(store, gradients_store(UNRELATED), SETTINGS)
    assert 0.9 < float(found["seed_stability"][2]) != float(without["seed_stability"][2])
    high = TaskSpaceSettings(permutations=10, smallest_gain=5.0)
    assert map_tasks(store, gradients_store(UNRELATED), high)["seed_stability"].isnull().all()


def test_transfer_is_clipped_in_each_direction_before_it_is_averaged() -> None:
    relative = np.array([[1.0, 9.0, -0.2], [-0.5, 1.0, np.nan], [0.4, 0.3, np.nan]])
    expected = [[1.0, 0.25, np.nan], [0.25, 1.0, np.nan], [np.nan, np.nan, np.nan]]
    relative[:, 2] = np.nan
    np.testing.assert_allclose(transfer_similarity(relative), expected)


def test_tasks_of_unknown_similarity_are_left_out() -> None:
    similarity = COSINE.copy()
    similarity[2] = similarity[:, 2] = np.nan
    assert space_of(similarity).tasks.tolist() == [0, 1, 3, 4, 5]
    similarity[2, 2] = 1.0
    assert space_of(similarity).tasks.tolist() == [0, 1, 3, 4, 5]
    partly = np.stack([UNRELATED[0], np.where(np.isnan(similarity), np.nan, COSINE), COSINE])
    found = map_tasks(transfer_store(partly), gradients_store(UNRELATED), SETTINGS)
    position = found["position"].sel(basis="transfer", checkpoint="step8")
    assert position.isnull().all("axis").values.tolist() == [False, False, True, False, False, False]
    assert found["tasks_placed"].sel(basis="transfer").values.tolist() == [0, 5, 6]
    assert np.isfinite(found["stability"].sel(basis="transfer", checkpoint="step16"))
    np.testing.assert_allclose(found["stability"].sel(basis="transfer", checkpoint="step16"), 1.0, atol=0.2)


@pytest.mark.parametrize("groups", [["one"] * 6, list("abcdef")])
def test_groups_that_make_no_contrast_are_no_error(groups: list[str]) -> None:
    store = transfer_store(UNRELATED).assign_coords(group=("target", strings(groups)))
    found = map_tasks(store, gradients_store(UNRELATED), SETTINGS)
    assert found["contrast"].isnull().all() and found["contrast_p"].isnull().all()
    reason = "all tasks belong to one group" if len(set(groups)) == 1 else "no two tasks belong to one group"
    assert f"transfer at step8: {reason}; transfer at step16: {reason}" in found["contrast"].attrs["reason"]


def test_stores_of_different_tasks_or_checkpoints_are_refused() -> None:
    gradients = gradients_store(UNRELATED)
    with pytest.raises(
        StoreError, match="transfer is of checkpoints step0, step8, step16 and gradients are of step0, st"
    ):
        map_tasks(transfer_store(UNRELATED), gradients.isel(checkpoint=slice(2)), SETTINGS)
    with pytest.raises(
        StoreError, match="transfer is of targets near, .* and gradients are of far, .*; make both of the s"
    ):
        map_tasks(transfer_store(UNRELATED), gradients.isel(task=slice(1, None)), SETTINGS)


def test_script_writes_the_space(tmp_path: Path) -> None:
    store, gradients = transfer_store(UNRELATED), gradients_store(np.stack([COSINE] * 3))
    write_store(store, tmp_path / "transfer.zarr", store.attrs)
    write_store(gradients, tmp_path / "gradients.zarr", {})
    command = [warm_python(), str(SCRIPT), "--transfer", f"{tmp_path}/transfer.zarr"]
    command += ["--gradients", f"{tmp_path}/gradients.zarr", "--output", f"{tmp_path}/space.zarr", *to_flags(SETTINGS)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = load_store(tmp_path / "space.zarr")
    xr.testing.assert_allclose(found.drop_attrs(), MAPPED.drop_attrs())
    assert found["contrast"].attrs["reason"] == MAPPED["contrast"].attrs["reason"]
    assert found.attrs["suite"] == "made-up" and json.loads(found.attrs["settings"])["permutations"] == 1000


def test_collecting_and_mapping_import_no_torch() -> None:
    code = "import sys, chronocoder.taskspace.transfer, chronocoder.taskspace.space; print('torch' in sys.modules)"
    found = subprocess.run([warm_python(), "-c", code], capture_output=True, text=True, check=True).stdout
    assert found == "False\n"
