"""The page on task spaces: numbers against slow loops, sentences beside controls."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from report_stores import six_features, toy_inputs
from taskspace_stores import (
    KNOWN,
    Known,
    bridge_store,
    gradients_store,
    pairs_of,
    space_store,
    transfer_store,
    tuning_store,
    with_task_space,
)

from chronocoder.errors import StoreError
from chronocoder.figures.gradients import MEASURES, group_means, level_means
from chronocoder.report.inputs import ReportInputs
from chronocoder.report.site import Site
from chronocoder.report.summary import summarise
from chronocoder.report.taskspace_bridge import bridge_sentences, bridge_tables
from chronocoder.report.taskspace_gradients import sharing_sentence
from chronocoder.report.taskspace_page import space_findings, taskspace_page
from chronocoder.report.taskspace_spaces import contrast_sentences, space_tables, stability_sentence
from chronocoder.report.taskspace_transfer import damage_sentences, method_tables, transfer_sentence
from chronocoder.stores import write_store
from chronocoder.wording import p_words

FTGD = "ftgd (gradient differential, 1.0\u00a0% of the parameters)"
ALONE = Known(groups={f"group_{place}": [f"task_{place}"] for place in range(4)})
ONCE = Known(checkpoints={"step20": 50_000})


@pytest.fixture
def inputs() -> ReportInputs:
    return with_task_space(toy_inputs(six_features()))


@pytest.fixture
def transfer() -> xr.Dataset:
    return transfer_store()


def without_runs(inputs: ReportInputs) -> ReportInputs:
    return replace(inputs, runs=[], seed_matches=[], comparisons={}, contrasts=[], bridges=[])


def test_a_level_that_is_not_known_is_not_named(transfer: xr.Dataset) -> None:
    silent = transfer_store(replace(KNOWN, methods={"ftgd": ("differential", 0.01)}))
    assert transfer_sentence(silent) == (
        "At step20, no transfer can be called beyond chance: what tuning does where there is nothing to learn was not"
        " measured."
    )
    assert damage_sentences(silent)[0].endswith("Plain tuning was not run beside it.")


def test_transfer_beyond_chance_is_counted_within_and_between_groups(transfer: xr.Dataset) -> None:
    last = transfer.sel(checkpoint="step20")

    def count(method: str, pairs: list[tuple[str, str]]) -> int:
        return sum(bool(last["beyond_chance"].sel({"tuning": method, "source": a, "target": b})) for a, b in pairs)

    within, between = pairs_of(True), pairs_of(False)
    assert count("ftgd", within) == 10 and 0 < count("ftgd", between) < 32
    assert transfer_sentence(transfer) == (
        "At step20, tuning on one task by ftgd changes another one beyond chance in 10 of 10 ordered pairs within"
        f" groups and {count('ftgd', between)} of 32 ordered pairs between groups; with right and wrong swapped at"
        f" random, in {count('swapped', within + between)} of 42 altogether."
    )
    rows = method_tables(transfer)[FTGD]
    assert [row.checkpoint for row in rows] == ["step0", "step10", "step20"]
    of_ftgd = last.sel(tuning="ftgd")
    gain = np.mean([float(of_ftgd["mean_transfer"].sel(source=task, target=task)) for task in KNOWN.tasks])
    ratio = np.exp(of_ftgd["mean_loss_change"].values)
    assert rows[2].numbers[0] == f"+{gain:.2f} logits" and rows[2].numbers[2] == f"{ratio.mean():.3f}"
    assert rows[2].numbers[3] == f"{ratio.max():.3f}"
    assert rows[2].numbers[4:] == ["10 of 10", f"{count('ftgd', between)} of 32"]


def test_transfer_that_harms_is_said(transfer: xr.Dataset) -> None:
    worse = transfer.assign(mean_transfer=transfer["mean_transfer"].copy())
    at = {"tuning": "ftgd", "checkpoint": "step20", "source": "near", "target": "far"}
    worse["mean_transfer"].loc[at] *= -1
    assert "(1 of these for the worse); with right" in transfer_sentence(worse)
    assert "within groups" not in transfer_sentence(transfer_store(ALONE))


def test_damage_is_told_as_measured(transfer: xr.Dataset) -> None:
    def with_damage(ftgd: float, plain: float, width: float = 0.01) -> xr.Dataset:
        loss = transfer["mean_loss_change"] * 0 + xr.DataArray([ftgd, plain, 0.0], dims="tuning")
        ends = {f"mean_loss_change{end}": loss + by for end, by in (("", 0), ("_low", -width), ("_high", width))}
        gain = xr.zeros_like(transfer["mean_transfer"]) + xr.DataArray([1.5, 0.5, 0.0], dims="tuning")
        return transfer.assign(**ends, mean_transfer=gain)

    assert damage_sentences(with_damage(np.log(1.1), np.log(1.5))) == [
        "At step20, tuning by ftgd multiplies the perplexity on validation text by 1.100, the mean over 7 tasks, which"
        " is less than the 1.500 of plain; its interval lies below that of plain for 7 of them, above it for 0. The"
        " task tuned on gains +1.50 by ftgd and +0.50 by plain (logits)."
    ]
    reverse = damage_sentences(with_damage(np.log(1.5), np.log(1.1)))[0]
    assert (
        "no less than the 1.100 of plain; its interval lies below that of plain for 0 of them, above it for 7"
        in reverse
    )
    unclear = damage_sentences(with_damage(np.log(1.1), np.log(1.101), 0.5))[0]
    assert "below that of plain for 0 of them, above it for 0" in unclear


def test_shared_parameters_stand_beside_both_levels() -> None:
    store = gradients_store()
    means = group_means(store, "shared_parameters")
    chance = level_means(store, MEASURES["shared parameters"])["chance"]
    within, between = (100 * means[name][2] for name in ("within groups", "between groups"))
    assert sharing_sentence(store).endswith(
        f", and {within:.0f}\u00a0% within groups and {between:.1f}\u00a0% between groups at step20"
        f" ({100 * chance[2] + 2:.1f}\u00a0% with right and wrong swapped in half of one’s pairs,"
        f" {100 * chance[2]:.1f}\u00a0%"
        " by chance)."
    )
    assert sharing_sentence(store).count("by chance") == 2
    assert sharing_sentence(gradients_store(ONCE)).count("by chance") == 1
    assert "within groups" not in sharing_sentence(gradients_store(ALONE))


def test_contrast_is_claimed_only_where_the_test_supports_it() -> None:
    of_transfer, of_gradients = contrast_sentences(space_store())
    assert re.fullmatch(
        r"At step20, relative transfer is larger within hypothesised groups than between them: 0\.\d\d against 0\.\d\d,"
        r" difference 0\.\d\d \(0\.\d\d to 0\.\d\d\), p = 0\.002 by relabelling tasks; this holds from step10 on\.",
        of_transfer,
    )
    assert of_gradients.startswith("At step20, gradient similarity is larger within")
    unsure = contrast_sentences(space_store(p_value=0.2))[0]
    assert "relative transfer is not found to be larger within" in unsure and "p = 0.2 by" in unsure
    assert "holds" not in unsure and "smallest" not in unsure
    few = space_store(p_value=0.2)
    few["contrast_smallest_p"][:] = 0.1
    assert contrast_sentences(few)[0].endswith(
        "p = 0.2 by relabelling tasks (the smallest that such groups allow is 0.1)."
    )
    less = space_store()
    less["contrast"][:] = -less["contrast"]
    assert "is not found to be larger" in contrast_sentences(less)[1]
    assert "holds" not in contrast_sentences(space_store(ONCE))[0]
    unknown = space_store().isel(checkpoint=[0])
    assert contrast_sentences(unknown)[0] == (
        "At step0, relative transfer within hypothesised groups cannot be compared with that between them."
    )


def test_a_contrast_holds_since_it_last_failed() -> None:
    store = space_store(Known(checkpoints={f"step{place}": place for place in range(5)}))
    store["contrast"][:], store["contrast_p"][:] = 0.5, 0.01
    assert contrast_sentences(store)[0].endswith("this holds from step0 on.")
    store["contrast_p"][:, 2] = 0.3
    assert contrast_sentences(store)[0].endswith("this holds from step3 on.")


def test_stability_stands_beside_both_controls() -> None:
    assert stability_sentence(space_store()) == (
        "Spaces from transfer at successive checkpoints have a Procrustes similarity of 0.80 on average, 0.30"
        " with tasks relabelled. Between two seeds of tuning it is 0.75 at successive checkpoints and 0.90 at the same"
        " one."
    )
    one_seed = space_store().assign(seed_stability=space_store()["seed_stability"] * np.nan)
    assert stability_sentence(one_seed).endswith("0.30 with tasks relabelled.")
    assert stability_sentence(space_store(ONCE)) == ""
    rows = space_tables(space_store())
    assert rows["From transfer"][0] == ("step0", ["–", "–", "–", "–", "–", "–", "–", "–"])
    assert rows["From transfer"][2][1][3:7] == ["0.002", "0.80", "0.30", "0.90"]
    assert rows["From gradients"][2][1][6] == "–"


def test_bridge_is_told_as_measured() -> None:
    assert bridge_sentences(bridge_store())[0] == (
        "at step20, Spearman’s correlation of transfer over ordered pairs of tasks is 0.60 with the overlap of their"
        " top features (p = 0.004) and 0.50 with the cosine of the effects of all features (p = 0.004), p-values by"
        " relabelling tasks."
    )
    unknown = bridge_store()
    unknown["correlation"][:] = unknown["correlation_p"][:] = np.nan
    assert "is – with the overlap of their top features (p –)" in bridge_sentences(unknown)[0]
    nothing = bridge_store().assign_attrs(comparison="pair", variant="l1", seed=0)
    nothing["pairs_compared"][:] = 0
    nothing["removed_by_shared"][:] = np.nan
    assert bridge_sentences(nothing)[1:] == [
        "Whether shared features carry transfer cannot be told: no task transfers to another for certain and shares"
        " features with it beside which there are others of like effect."
    ]
    row = bridge_tables([nothing])["pair · l1 · seed 0"][2]
    assert row.checkpoint == "step20" and row.correlations == ["0.60 (0.004)", "0.50 (0.004)"]
    assert row.removals["within groups"][:2] == ["0", "– (53 to 67)"]


def test_what_goes_without_shared_features_stands_beside_what_goes_without_others() -> None:
    _, within, between = bridge_sentences(bridge_store())
    assert within == (
        "Of the transfer within groups, removing the shared features removes 60\u00a0%, and removing as many others of"
        " like effect 10\u00a0%: a difference of 50\u00a0% (42\u00a0% to 58\u00a0%) over 10 ordered pairs."
    )
    assert between.startswith("Of the transfer between groups, removing the shared") and between.endswith(
        "over 32 ordered pairs."
    )
    less = bridge_sentences(bridge_store(left_without_shared=0.95))[1]
    assert "a difference of −5\u00a0% (−13\u00a0% to 3\u00a0%)" in less
    assert len(bridge_sentences(bridge_store(ALONE))) == 2  # no two tasks are of one group


def test_p_values_are_honest() -> None:
    assert [p_words(value) for value in (0.0301, 0.0001, np.nan)] == ["p = 0.03", "p < 0.001", "p –"]


def written(inputs: ReportInputs, directory: Path) -> str:
    """The page as it is written."""
    site = Site(directory)
    site.page("taskspace", suite="toy", inputs=inputs, pages=[], runs=[], **taskspace_page(inputs, site))
    return (directory / "taskspace.html").read_text(encoding="utf-8")


def test_page_shows_every_part_with_its_figures(inputs: ReportInputs, tmp_path: Path) -> None:
    page = written(inputs, tmp_path)
    assert "<h1>Task space</h1>" in page and "Do shared features carry transfer?" in page
    for stem in re.findall(r'src="(figures/.*?)\.svg"', page):
        assert all((tmp_path / f"{stem}.{ending}").exists() for ending in ("svg", "pdf", "csv")), stem
    assert len(set(re.findall(r'src="(.*?)\.svg"', page))) == len(list(tmp_path.rglob("*.svg")))
    shown = re.findall(r"<figure data-choices='(.*?)'>", page)
    assert f'["{FTGD}", "step20"]' in [text.replace("\\u00a0", "\u00a0") for text in shown]
    assert '["Cosine of gradients", "step20"]' in shown and '["from transfer"]' in shown
    assert '["pair \\u00b7 l1 \\u00b7 seed 0", "step20"]' in shown
    for text in (transfer_sentence(inputs.transfer), sharing_sentence(inputs.gradients)):
        assert text in page
    assert page.count('<th scope="rowgroup" rowspan="3">from') == 0 and page.count('rowspan="3">From') == 2


def test_page_without_crosscoders_has_no_bridge(tmp_path: Path) -> None:
    page = written(without_runs(with_task_space(toy_inputs(six_features()), ONCE)), tmp_path)
    assert "Do shared features carry transfer?" not in page and "Task spaces over training" in page


def test_summary_tells_of_the_task_space_last(inputs: ReportInputs) -> None:
    labels = ["Transfer between tasks", "Task space", "Transfer and features"]
    assert list(space_findings(inputs)) == labels
    assert [finding.label for finding in summarise(inputs, {})][-3:] == labels
    assert [finding.label for finding in summarise(without_runs(inputs), {})][-2:] == labels[:2]
    assert space_findings(inputs)["Transfer and features"].startswith("In pair · l1 · seed 0: at step20, Spearman")
    assert space_findings(toy_inputs(six_features())) == {}


def test_a_task_space_in_parts_or_of_others_is_refused(inputs: ReportInputs) -> None:
    with pytest.raises(
        StoreError, match="of a task space only transfer and space is given; give transfer, gradients and"
    ):
        replace(inputs, gradients=None, bridges=[])
    with pytest.raises(StoreError, match="of a task space only bridges is given"):
        replace(inputs, transfer=None, gradients=None, space=None)
    with pytest.raises(
        StoreError, match="the store of space is of suite 'other', not 'toy'; give that of the report's suite"
    ):
        replace(inputs, space=space_store().assign_attrs(suite="other"))
    odd = inputs.bridges[0].assign_attrs(comparison="other")
    with pytest.raises(
        StoreError, match="transfer is held against features of other · l1 · seed 0, of which no run is given"
    ):
        replace(inputs, bridges=[odd])


def test_synthetic_stores_can_be_written(tmp_path: Path) -> None:
    """Every variable has a name and units, so that others may write them, too."""
    stores = {"tuning": tuning_store("near"), "bridge": bridge_store(), "gradients": gradients_store()}
    for name, store in stores.items():
        write_store(store, tmp_path / name, store.attrs)
    assert tuning_store("near").equals(tuning_store("near"))
