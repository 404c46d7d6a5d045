"""Transfer against slow loops over pairs, intervals against simulated tunings, and what does not fit is named."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.stats import t as student
from tuning_stores import SEQUENCES, made_up_task, made_up_tunings
from warm_python import warm_python

from chronocoder.command_line import to_flags
from chronocoder.config import TaskSpaceSettings
from chronocoder.errors import ConfigError, StoreError
from chronocoder.stores import load_store, write_store
from chronocoder.taskspace.intervals import (
    Interval,
    Means,
    Spread,
    means_by_unit,
    pooled_over_sources,
    seed_interval,
    spread_of,
)
from chronocoder.taskspace.relative import beyond_chance, chance_level, relative_transfer
from chronocoder.taskspace.transfer import collect_transfer

pytestmark = pytest.mark.filterwarnings("error")

TASKS = {
    "simple": made_up_task("simple", 40, 16),
    "distant": made_up_task("distant", 60, 60),
    "sentences": made_up_task("sentences", 30, 30, sentences=True),
}
TOKENS_SEEN = {"step8": 800, "step16": 1600}
GROUPS = {"simple": "agreement", "distant": "agreement", "sentences": "filler"}
SETTINGS = TaskSpaceSettings(seeds=[3, 5, 8])
RELATED = np.array([[2.0, 1.0, 0.1], [0.8, 1.6, -0.1], [0.0, 0.1, 1.2]])
GAINS = {
    "ftgd": np.stack([0 * RELATED, RELATED]),
    "plain": np.stack([0 * RELATED, 0.5 * RELATED]),
    "swapped": np.zeros((2, 3, 3)),
}
TUNINGS = made_up_tunings(TASKS, list(TOKENS_SEEN), SETTINGS.seeds, GAINS)
SCRIPT = Path(__file__).parents[2] / "scripts/collect_transfer.py"


def collected(tunings: list[xr.Dataset] = TUNINGS, settings: TaskSpaceSettings = SETTINGS) -> xr.Dataset:
    return collect_transfer(tunings, TASKS, TOKENS_SEEN, GROUPS, settings)


def test_transfer_is_that_of_loops_over_the_pairs() -> None:
    found = collected()
    for tuning in TUNINGS:
        for method in GAINS:
            for target in TASKS:
                before, after, right_before, right_after = [], [], 0, 0
                for place, name in enumerate(tuning["target"].values):
                    if name == target:
                        before.append(float(tuning["difference_before"][place]))
                        after.append(float(tuning["difference"].sel(tuning=method)[place]))
                        right_before += before[-1] > 0
                        right_after += after[-1] > 0
                facts = {"seed": "seed", "checkpoint": "revision", "source": "task"}
                place = {dim: tuning.attrs[name] for dim, name in facts.items()}
                cell = found.sel({"tuning": method, **place, "target": target})
                assert float(cell["transfer"]) == pytest.approx(np.mean(after) - np.mean(before), abs=1e-6)
                assert int(cell["pairs_held_out"]) == len(before)
    for name, of_seed in (("mean_transfer", "transfer"), ("mean_loss_change", "loss_change")):
        np.testing.assert_allclose(found[name], found[of_seed].mean("seed").transpose(*found[name].dims))
        assert (found[f"{name}_low"] <= found[name]).all() and (found[name] <= found[f"{name}_high"]).all()
    assert found["unit"].values.tolist() == ["logit", "logit", "nat"]
    assert found["source_group"].values.tolist() == found["group"].values.tolist() == list(GROUPS.values())
    assert found["mean_transfer_low"].attrs["holds"] == "sampling and seeds"


def test_accuracy_loss_and_counts_are_those_of_the_tunings() -> None:
    found = collected()
    cell = {"checkpoint": "step16", "target": "distant"}
    changes, before = [], []
    for tuning in TUNINGS:
        if (tuning.attrs["revision"], tuning.attrs["task"]) == ("step16", "simple"):
            own = tuning.isel(entry=np.flatnonzero(tuning["target"] == "distant")).sel(tuning="ftgd")
            right = [[float(x) > 0 for x in own[name]] for name in ("difference_before", "difference")]
            before.append(np.mean(right[0]))
            changes.append(np.mean(right[1]) - np.mean(right[0]))
    assert float(found["accuracy_change"].sel({"tuning": "ftgd", "source": "simple", **cell})) == pytest.approx(
        np.mean(changes)
    )
    assert float(found["accuracy_before"].sel(cell)) == pytest.approx(np.mean(before)) != 0
    np.testing.assert_allclose(found["mean_loss_change"].sel(tuning="plain"), 0.2)
    margin = student.ppf(0.975, SEQUENCES - 1) * np.linspace(0, 0.4, SEQUENCES).std(ddof=1) / np.sqrt(SEQUENCES)
    np.testing.assert_allclose(found["mean_loss_change_high"].sel(tuning="plain"), 0.2 + margin)
    np.testing.assert_allclose(found["loss_before"], 3.0)
    np.testing.assert_allclose(found["updated_fraction"].sel(tuning="plain"), 0.02)
    assert (found["pairs_tuned"] + found["pairs_held_out"].rename(target="source") == [40, 60, 30]).all()


def test_the_order_of_stores_is_no_matter() -> None:
    xr.testing.assert_identical(collected(TUNINGS[::-1]), collected())


def test_relative_transfer_is_left_out_where_the_target_gains_nothing_for_certain() -> None:
    mean, low = np.array([[2.0, 0.5], [1.0, 0.2]]), np.array([[1.0, 0.4], [0.5, -0.1]])
    np.testing.assert_allclose(relative_transfer(mean, low, 0.0), [[1.0, np.nan], [0.5, np.nan]])
    assert np.isnan(relative_transfer(mean, low, 1.0)).all()  # not above it, but at it
    np.testing.assert_allclose(relative_transfer(mean, low, -1.0), mean / np.diag(mean))
    found = collected()["relative_transfer"].sel(tuning="ftgd")
    assert found.sel(checkpoint="step8").isnull().all()
    np.testing.assert_allclose(found.sel(checkpoint="step16"), RELATED / np.diag(RELATED), atol=0.25)
    np.testing.assert_allclose(np.diag(found.sel(checkpoint="step16")), 1.0)


def test_chance_is_what_swapped_pairs_give_and_both_criteria_have_to_hold() -> None:
    values = np.random.default_rng(0).normal(size=(1, 2, 3, 4, 4))
    level = chance_level(values, 0.8)
    for checkpoint, source, target in np.ndindex(3, 4, 4):
        others = [other for other in range(4) if other != source]
        sizes = sorted(abs(values[0, :, checkpoint, others, target]).ravel())
        assert level[checkpoint, source, target] == sizes[4]  # of six, the first at or above place 4
    assert np.isnan(chance_level(values[:0], 0.8)).all() and chance_level(values[:0], 0.8).shape == (3, 4, 4)
    mean = np.array([[[[2.0], [2.0], [0.5], [-2.0]]]])
    margin = np.array([[1.0], [2.5], [0.1], [1.0]])
    interval = Interval(mean - margin, mean + margin)
    assert beyond_chance(mean, interval, np.array([[[1.0]]])).ravel().tolist() == [True, False, False, True]
    assert beyond_chance(mean, interval, np.array([[[np.nan]]])).ravel().tolist() == [True, False, True, True]
    found = collected()
    last = found["beyond_chance"].sel({"checkpoint": "step16", "tuning": "ftgd"})
    assert last.values[np.ix_([0, 1], [0, 1])].all() and bool(last[2, 2])
    swapped = abs(found["transfer"].sel(tuning="swapped"))
    for source in found["source"].values:
        most = swapped.drop_sel(source=source).max(("seed", "source"))  # of six
        np.testing.assert_allclose(found["chance_level"].sel(source=source), most.transpose("checkpoint", "target"))
    alone = collected([tuning.drop_sel(tuning="swapped") for tuning in TUNINGS])
    assert alone["chance_level"].isnull().all() and alone["beyond_chance"].sel(checkpoint="step16").any()


def test_contributions_of_units_tell_the_variance_of_a_mean() -> None:
    values, unit = np.array([[1.0, 2.0, 6.0, 7.0]]), np.array([0, 0, 2, 3])
    means = means_by_unit(values, unit, 5)
    assert means.mean.tolist() == [4.0]
    np.testing.assert_allclose(means.contribution, [[(-3 - 2) / 4, 0, 2 / 4, 3 / 4, 0]])
    spread = spread_of([means], [3])
    assert spread.sampling == pytest.approx(3 / 2 * (25 + 4 + 9) / 16) and np.isnan(spread.between)
    each = means_by_unit(values, np.arange(4), 4)  # without repeated prefixes: the usual variance of a mean
    assert spread_of([each], [4]).sampling == pytest.approx(values.var(ddof=1) / 4)
    assert np.isnan(spread_of([means_by_unit(values, np.zeros(4, dtype=int), 1)], [1]).sampling)


def test_units_that_two_seeds_hold_out_correlate_their_means() -> None:
    values = np.random.default_rng(1).normal(size=(1, 50))
    same = means_by_unit(values, np.arange(50), 80)
    twice = spread_of([same, Means(same.mean + 3.0, same.contribution)], [50, 50])
    alone = spread_of([same], [50])
    np.testing.assert_allclose(twice.sampling, alone.sampling)  # no more known by evaluating on the same pairs again
    np.testing.assert_allclose(twice.shared, alone.sampling)
    np.testing.assert_allclose(twice.between, 4.5)
    other = means_by_unit(values[:, :30], 50 + np.arange(30), 80)
    apart = spread_of([same, other], [50, 30])
    np.testing.assert_allclose(apart.shared, 0.0, atol=1e-12)
    expected = 30 / 29 * (np.square(same.contribution).sum() + np.square(other.contribution).sum()) / 4
    np.testing.assert_allclose(apart.sampling, expected)


def test_variance_between_seeds_is_pooled_over_sources_but_the_target() -> None:
    variance = np.random.default_rng(2).random((2, 3, 3))
    pooled, cells = pooled_over_sources(variance, ["logit", "nat", "logit"])
    for place, source, target in np.ndindex(2, 3, 3):
        alike = [(other, target) for other in range(3) if other != target]
        if source == target:
            alike = [(1, 1)] if target == 1 else [(0, 0), (2, 2)]
        assert pooled[place, source, target] == pytest.approx(np.mean([variance[(place, *cell)] for cell in alike]))
        assert cells[place, source, target] == len(alike)


def test_few_cells_and_few_units_widen_intervals() -> None:
    """A part alone has its own degrees of freedom; both together have some in between."""
    mean, units = np.zeros(1), np.array([8])
    cases = ((0.0, 0.5, 3 * 2), (0.5, 0.0, 7), (0.3, 0.2, 0.25 / (0.2**2 / 6 + 0.3**2 / 7)))
    for sampling, between, freedom in cases:
        spread = Spread(mean, np.array([sampling]), np.array([sampling]), mean, units)
        found = seed_interval(spread, np.array([3 * between]), np.array([3]), 3, 0.9)
        assert found.high[0] == -found.low[0] == pytest.approx(student.ppf(0.95, freedom) * np.sqrt(0.5))


def test_pairs_of_one_prefix_are_one_sampling_unit() -> None:
    settings = TaskSpaceSettings(seeds=[3])
    found = collected([tuning for tuning in TUNINGS if tuning.attrs["seed"] == 3], settings)
    held_out = TUNINGS[0].isel(entry=np.flatnonzero(TUNINGS[0]["target"] == "simple")).sel(tuning="ftgd")
    changes = (held_out["difference"] - held_out["difference_before"]).values.astype(float)
    sums: dict[int, float] = {}
    for example, change in zip(held_out["example"].values, changes, strict=True):
        prefix = int(TASKS["simple"]["token_id"][example, 0])
        sums[prefix] = sums.get(prefix, 0.0) + (change - changes.mean()) / len(changes)
    assert len(sums) == 8 < len(changes)
    margin = student.ppf(0.975, 7) * np.sqrt(8 / 7 * sum(each**2 for each in sums.values()))
    cell = found.sel({"tuning": "ftgd", "checkpoint": "step8", "source": "simple", "target": "simple"})
    assert float(cell["mean_transfer_high"]) == pytest.approx(changes.mean() + margin, abs=1e-6)


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("between", [0.0, 0.05, 0.5])
def test_intervals_cover_the_expected_transfer(seeds: int, between: float) -> None:
    """Each seed holds out half of the prefixes, the same for all sources, and draws an effect of its own by source."""
    generator = np.random.default_rng(3)
    sources, prefixes, covered = 5, 40, []
    unit = np.repeat(np.arange(prefixes), 2)
    for _ in range(250):
        pairs = 0.3 * generator.normal(size=(sources, prefixes))[:, unit] + 0.3 * generator.normal(size=2 * prefixes)
        means = []
        for _ in range(seeds):
            held_out = np.flatnonzero(np.isin(unit, generator.permutation(prefixes)[: prefixes // 2]))
            effect = between * generator.normal(size=(sources, 1))
            means.append(means_by_unit(1.0 + effect + pairs[:, held_out], unit[held_out], prefixes))
        spread = spread_of(means, [prefixes // 2] * seeds)
        pooled, cells = np.full(sources, spread.between.mean()), np.full(sources, sources)
        low, high = seed_interval(spread, pooled, cells, seeds, 0.9)
        covered.append((low < 1.0) & (high > 1.0))
    assert 0.86 < np.mean(covered) < 0.95


def test_with_one_seed_intervals_are_of_sampling_alone_and_say_so() -> None:
    settings = TaskSpaceSettings(seeds=[3])
    found = collected([tuning for tuning in TUNINGS if tuning.attrs["seed"] == 3], settings)
    assert found["mean_transfer_low"].attrs["holds"] == "sampling alone, since there is one seed"
    held_out = TUNINGS[0].isel(entry=np.flatnonzero(TUNINGS[0]["target"] == "distant")).sel(tuning="ftgd")
    changes = (held_out["difference"] - held_out["difference_before"]).values
    margin = student.ppf(0.975, len(changes) - 1) * changes.std(ddof=1) / np.sqrt(len(changes))
    cell = found.sel({"tuning": "ftgd", "checkpoint": "step8", "source": "simple", "target": "distant"})
    assert float(cell["mean_transfer_high"]) == pytest.approx(changes.mean() + margin, abs=1e-6)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ConfigError, match="no tuning on simple at step8 with seed 3; give its store"):
        collected(TUNINGS[1:])
    with pytest.raises(ConfigError, match="tuning on simple at step8 with seed 3 is given twice; give it once"):
        collected([*TUNINGS, TUNINGS[0]])
    other = TUNINGS[0].assign_coords(example=("entry", TUNINGS[0]["example"].values[::-1]))
    with pytest.raises(StoreError, match="seed 3 on simple and distant differ in 'example'; make them anew"):
        collected([other, *TUNINGS[1:]])
    fewer = {**TASKS, "distant": TASKS["distant"].isel(example=slice(10))}
    with pytest.raises(StoreError, match="distant: the pairs held out are none of this task's; make its tunings anew"):
        collect_transfer(TUNINGS, fewer, TOKENS_SEEN, GROUPS, SETTINGS)


def test_script_joins_the_stores_that_a_pattern_names(tmp_path: Path) -> None:
    for name, task in TASKS.items():
        write_store(task, tmp_path / f"tasks/{name}.zarr", task.attrs)
    for tuning in TUNINGS:
        place = tmp_path / f"tunings/{tuning.attrs['revision']}/seed{tuning.attrs['seed']}/{tuning.attrs['task']}.zarr"
        write_store(tuning, place, tuning.attrs)
    command = [warm_python(), str(SCRIPT), "--suite", "made-up", "--revisions", *TOKENS_SEEN]
    command += ["--tokens-seen", *map(str, TOKENS_SEEN.values()), "--hypothesis", json.dumps(GROUPS)]
    command += ["--tunings", f"{tmp_path}/tunings/{{revision}}/seed{{tuning_seed}}/{{task}}.zarr"]
    command += ["--tasks", *(f"{tmp_path}/tasks/{name}.zarr" for name in TASKS), *to_flags(SETTINGS)]
    result = subprocess.run([*command, "--output", str(tmp_path / "transfer.zarr")], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = load_store(tmp_path / "transfer.zarr")
    xr.testing.assert_allclose(found.drop_attrs(), collected().drop_attrs())
    assert (found.attrs["suite"], found.attrs["parameters"]) == ("made-up", 1000)
    assert json.loads(found.attrs["settings"])["seeds"] == [3, 5, 8]
