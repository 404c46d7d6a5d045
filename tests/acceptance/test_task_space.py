"""What is known of the default experiment's tasks shows in its tunings: verbs agree by one mechanism, once it is there.

`.ci/run` runs the experiment before the tests; elsewhere `make run` has to come first.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr

from chronocoder.config import load_experiment
from chronocoder.layout import Layout
from chronocoder.suites.checkpoints import checkpoint_commit

ROOT = Path(__file__).parents[2]
EXPERIMENT = load_experiment(ROOT / "config.yaml")
SUITE = EXPERIMENT.suites["nursery"]
LAYOUT = Layout(str(ROOT / EXPERIMENT.results))
assert SUITE.taskspace is not None
CHECKPOINTS = SUITE.taskspace.checkpoints
AGREEMENT = SUITE.taskspace.hypothesis["subject_verb"]
UNRELATED = "determiner_noun"
TASKS = SUITE.space_tasks
CHANCE = 0.95


def path_of(revision: str, seed: int, task: str) -> Path:
    return Path(LAYOUT.tuning.format(suite="nursery", revision=revision, tuning_seed=seed, task=task))


pytestmark = pytest.mark.skipif(
    not path_of(CHECKPOINTS[-1], EXPERIMENT.taskspace.seeds[-1], TASKS[-1]).exists(),
    reason="the default experiment has not been run: `make run` first",
)


class Space(NamedTuple):
    """What tuning does at a checkpoint.

    Attributes:
        transfer: mean change of right minus wrong on held-out pairs, dims (tuning, seed, source, target).
        damage: change of the loss of text, dims (tuning, seed, source).
    """

    transfer: xr.DataArray
    damage: xr.DataArray

    @property
    def own_gain(self) -> xr.DataArray:
        """Transfer of each task to itself, mean over seeds, dims (tuning, task)."""
        mean = self.transfer.mean("seed")
        return xr.concat([mean.sel(source=task, target=task, drop=True) for task in TASKS], "task")

    def ftgd(self, sources: list[str], targets: list[str]) -> np.ndarray:
        """Return transfer by the main method between different tasks, one row for each seed."""
        between = self.transfer.sel(tuning=EXPERIMENT.taskspace.main).sel(source=sources, target=targets)
        different = [(source, target) for source in sources for target in targets if source != target]
        found = [between.sel(source=source, target=target).values for source, target in different]
        return np.array(found).T

    def chance(self, targets: list[str]) -> np.ndarray:
        """Return what transfer to each task exceeds in size by chance in no more than 5 % of tunings."""
        size = np.abs(self.transfer.sel(tuning="swapped").sel(target=targets))
        return np.asarray(size.quantile(CHANCE, ("seed", "source")))


def read(revision: str) -> Space:
    stores = {
        (seed, task): xr.open_zarr(path_of(revision, seed, task)).load()
        for seed in EXPERIMENT.taskspace.seeds
        for task in TASKS
    }

    def joined(values: dict[tuple[int, str], xr.DataArray]) -> xr.DataArray:
        seeds = EXPERIMENT.taskspace.seeds
        return xr.concat(
            [xr.concat([values[seed, task] for task in TASKS], "source") for seed in seeds], "seed"
        ).assign_coords(source=TASKS, seed=seeds)

    changes = {
        key: (one["difference"] - one["difference_before"]).groupby("target").mean() for key, one in stores.items()
    }
    damage = {key: (one["loss"] - one["loss_before"]).mean("sequence") for key, one in stores.items()}
    return Space(joined(changes), joined(damage))


@pytest.fixture(scope="module")
def spaces() -> dict[str, Space]:
    return {revision: read(revision) for revision in CHECKPOINTS}


def test_tuning_on_a_task_that_is_learnt_raises_its_own_margin(spaces: dict[str, Space]) -> None:
    last = spaces[CHECKPOINTS[-1]]
    assert (last.own_gain.sel(tuning="ftgd") > 1).all()
    assert (np.abs(last.own_gain.sel(tuning="swapped")) < 1).all()


@pytest.mark.parametrize("revision", CHECKPOINTS)
def test_gradient_differentials_gain_more_and_damage_less_than_plain_tuning(
    revision: str, spaces: dict[str, Space]
) -> None:
    gain = spaces[revision].own_gain.mean("task")
    damage = spaces[revision].damage.mean(("seed", "source"))
    assert gain.sel(tuning="ftgd") > 1.5 * gain.sel(tuning="plain") > 0
    assert 0 < damage.sel(tuning="ftgd") < damage.sel(tuning="plain") / 2


def test_tasks_that_share_a_mechanism_transfer_more_than_unrelated_ones(spaces: dict[str, Space]) -> None:
    last = spaces[CHECKPOINTS[-1]]
    within = last.ftgd(AGREEMENT, AGREEMENT)
    unrelated = np.hstack([last.ftgd(AGREEMENT, [UNRELATED]), last.ftgd([UNRELATED], AGREEMENT)])
    assert (within.mean(axis=1) > 0.5).all()
    assert (np.abs(unrelated).max(axis=1) < within.mean(axis=1) / 3).all()
    assert np.abs(unrelated).mean() < within.mean() / 10


def test_they_do_so_beyond_chance(spaces: dict[str, Space]) -> None:
    last = spaces[CHECKPOINTS[-1]]
    level = np.array(
        [one for source in AGREEMENT for one in last.chance([task for task in AGREEMENT if task != source])]
    )
    beyond = last.ftgd(AGREEMENT, AGREEMENT) > level
    assert (beyond.mean(axis=1) > 0.75).all()
    swapped = last.transfer.sel(tuning="swapped").sel(source=AGREEMENT, target=AGREEMENT)
    assert abs(float(swapped.mean())) < 0.1


def test_generalisation_within_agreement_comes_with_training(spaces: dict[str, Space]) -> None:
    within = [float(space.ftgd(AGREEMENT, AGREEMENT).mean()) for space in spaces.values()]
    assert abs(within[0]) < 0.1 and within == sorted(within) and within[-1] > 0.5


def test_nearest_noun_and_subject_oppose_each_other_before_they_are_one(spaces: dict[str, Space]) -> None:
    tasks = ["agreement_simple"], ["agreement_across_prepositional_phrase"]
    for one, other in (tasks, tasks[::-1]):
        course = [space.ftgd(one, other).mean() for space in spaces.values()]
        assert course[0] < -0.2 and course[-1] > 1


@pytest.mark.parametrize("revision", CHECKPOINTS)
def test_as_many_parameters_are_updated_as_were_asked(revision: str) -> None:
    for seed in EXPERIMENT.taskspace.seeds:
        for task in TASKS:
            store = xr.open_zarr(path_of(revision, seed, task))
            asked = np.round(store["fraction"].values * store.attrs["parameters"])
            np.testing.assert_array_equal(store["updated_parameters"], asked)


@pytest.mark.parametrize("revision", CHECKPOINTS)
def test_checkpoints_are_what_they_were(revision: str) -> None:
    path = Path(LAYOUT.checkpoint.format(suite="nursery", revision=revision))
    assert xr.open_zarr(path_of(revision, 0, TASKS[0])).attrs["commit"] == checkpoint_commit(path)
