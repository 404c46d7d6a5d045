"""What the page of a run says of its effects: a surface rule, what changes are due to, and how far to trust them."""

import re
from dataclasses import replace
from pathlib import Path

import jinja2
import numpy as np
import pytest
import xarray as xr
from browser import needs_browser, opened
from report_stores import (
    CONTRAST,
    FEATURES,
    HOSTILE,
    REVISIONS,
    ablation_store,
    behaviour_store,
    longer,
    make_run,
    of_sentences,
    relie_store,
    suite_behaviour,
    task_facts,
    toy_inputs,
    with_classes,
    with_facts,
)

from chronocoder.attribution.measures import CLASSES
from chronocoder.attribution.surface import SurfaceFeature
from chronocoder.report.annotations import Annotation
from chronocoder.report.contrasts import (
    ContrastFeatures,
    FollowedEffect,
    find_all_features,
    find_contrast_features,
    followed_lines,
    found_words,
)
from chronocoder.report.inputs import ReportInputs
from chronocoder.report.phases import clearest_checkpoint, find_surface_phase
from chronocoder.report.run_effects import Effects, annotated, run_effects
from chronocoder.report.site import Site
from chronocoder.report.trust import (
    PARTLY_EXACT,
    comparison_sentences,
    measurable_note,
    trust_finding,
    trust_line,
    trust_rows,
    trust_sentences,
)
from chronocoder.report.writing import writing_sentence, written_pairs

SAME_BY_ALL = {basis: list(CLASSES[:6]) for basis in ("published", "total_effect", "metric_size")}
WHOLE = """{% extends "base.html.jinja" %}{% block title %}A run{% endblock %}
{% block content %}{% include "run_effects.html.jinja" %}{% endblock %}"""


def built(inputs: ReportInputs, directory: Path) -> Effects:
    run = inputs.runs[0]
    context = run_effects(inputs, run, find_all_features(inputs, run), Site(directory))
    effects: Effects = context["effects"]
    return effects


def page_of(inputs: ReportInputs, directory: Path) -> Path:
    """Write the part of the run's page as a page of its own."""
    site = Site(directory)
    site.add_static()
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("chronocoder.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    context = {"suite": "toy", "page": "run", "pages": [], "runs": [], "effects": built(inputs, directory)}
    path = directory / "run.html"
    path.write_text(environment.from_string(WHOLE).render(context), encoding="utf-8")
    return path


def section(page: Path, name: str) -> str:
    """Return the text of a section, without tags and with single spaces."""
    (found,) = re.findall(rf'<section id="{name}">(.*?)</section>', page.read_text(encoding="utf-8"), re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", found).replace("\u00a0", " "))


def test_surface_phase_is_found_where_one_task_is_above_and_the_other_below_chance() -> None:
    phase = find_surface_phase(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.1, 0.9]), CONTRAST)
    assert phase is not None
    assert phase.gaps == {"step10": pytest.approx(0.8)}
    assert phase.clearest == "step10"
    assert (phase.surface_accuracy, phase.conflicting_accuracy) == pytest.approx((0.9, 0.1))
    assert phase.end == "step20"


def test_surface_phase_without_an_end() -> None:
    phase = find_surface_phase(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.4, 0.1]), CONTRAST)
    assert phase is not None
    assert phase.clearest == "step20"
    assert phase.end is None


@pytest.mark.parametrize("far", [[0.5, 0.6, 0.9], [0.5, 0.47, 0.9]])
def test_no_surface_phase_where_intervals_hold_chance(far: list[float]) -> None:
    assert find_surface_phase(behaviour_store([0.5, 0.9, 1.0], far), CONTRAST) is None


@pytest.mark.parametrize(
    ("checkpoints", "chosen"),
    [(REVISIONS[:1], "step0"), (REVISIONS[:2], "step10"), (REVISIONS[1:], "step20"), (["step0", "step30"], "step0")],
)
def test_features_are_looked_for_where_the_phase_is_clearest(checkpoints: list[str], chosen: str) -> None:
    phase = find_surface_phase(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.4, 0.1]), CONTRAST)
    assert clearest_checkpoint(phase, checkpoints) == chosen
    assert clearest_checkpoint(None, checkpoints) == checkpoints[0]


def test_contrast_features_are_those_of_the_checkpoint(relie: xr.Dataset) -> None:
    found = find_contrast_features(relie, CONTRAST, "step10")
    assert found.features == [
        SurfaceFeature(0, "far one", "far two", 0.8),
        SurfaceFeature(2, "far one", "far two", 0.3),
    ]
    lines = followed_lines(found)
    assert [(line.feature, line.condition, line.fate) for line in lines] == [
        (0, "far one", "less than half of the harm is left at step20"),
        (0, "far two", ""),
        (2, "far one", "harms at step20"),
        (2, "far two", "comes to help at step20"),
    ]
    assert found.checkpoints == ["step10", "step20"]
    assert lines[3].effects == [
        FollowedEffect("+0.000", "−0.10 to +0.10", "0.050", False),
        FollowedEffect("+0.90", "+0.80 to +1.00", "0.050", True),
    ]


@pytest.mark.parametrize(
    ("harm", "fate"),
    [
        (-0.5, "harms at step20"),
        (-0.39, "less than half of the harm is left at step20"),
        (0.2, "less than half of the harm is left at step20"),
    ],
)
def test_lines_tell_how_much_harm_is_left(harm: float, fate: str) -> None:
    relie = relie_store([[1.0]] * 2, [[-0.8], [harm]], ["maintained"])
    assert followed_lines(find_contrast_features(relie, CONTRAST, "step10"))[0].fate == fate


def test_lines_tell_where_the_harm_that_is_left_is_no_more_than_chance() -> None:
    relie = relie_store([[1.0]] * 2, [[-0.8], [-0.5]], ["maintained"])
    relie["condition_random_level"].loc[{"checkpoint": "step20"}] = 0.6
    line = followed_lines(find_contrast_features(relie, CONTRAST, "step10"))[0]
    assert line.fate == "harms at step20, but no more than chance" and not line.effects[-1].beyond


def test_lines_tell_where_harm_is_no_longer_certain() -> None:
    relie = relie_store([[1.0]] * 2, [[-0.8], [-0.6]], ["maintained"])
    relie["half_indirect_effect_high"].loc[{"checkpoint": "step20"}] = 0.0
    line = followed_lines(find_contrast_features(relie, CONTRAST, "step10"))[0]
    assert line.fate == "the interval at step20 holds zero"


def test_lines_tell_no_fate_at_the_last_checkpoint(relie: xr.Dataset) -> None:
    found = find_contrast_features(relie, CONTRAST, "step20")
    assert found.numbers == [2] and found.checkpoints == ["step20"]
    assert [([of.effect for of in line.effects], line.fate) for line in followed_lines(found)] == [
        (["−0.20"], ""),
        (["+0.90"], ""),
    ]


def test_features_are_followed_from_the_checkpoint_on(relie: xr.Dataset) -> None:
    found = find_contrast_features(longer(relie), CONTRAST, "step10")
    assert followed_lines(found) == followed_lines(find_contrast_features(relie, CONTRAST, "step10"))


def test_level_is_not_named_without_random_directions(relie: xr.Dataset) -> None:
    relie["condition_random_level"][:] = np.nan
    assert {
        of.level for line in followed_lines(find_contrast_features(relie, CONTRAST, "step10")) for of in line.effects
    } == {""}


def test_wide_intervals_leave_no_contrast_features(relie: xr.Dataset) -> None:
    near, far = (relie["indirect_effect"].sel(task=task).values.tolist() for task in CONTRAST)
    wide = relie_store(near, far, ["emerged"] * FEATURES, margin=3.0)
    found = find_contrast_features(wide, CONTRAST, "step10")
    assert found == ContrastFeatures("step10", 0, [], None)
    assert followed_lines(found) == [] and found.checkpoints == ["step10"]
    assert found_words(CONTRAST, found) == (
        "no feature helps “near” and harms “far” at step10 by at least 0.02 and by more than random directions do"
    )


def test_features_that_are_not_followed_are_counted() -> None:
    many = relie_store([[0.5] * 8, [0.0] * 8], [[-0.5] * 8, [0.0] * 8], ["discontinued"] * 8)
    found = find_contrast_features(many, CONTRAST, "step10")
    assert len(found.features) == 6 and found_words(CONTRAST, found) == (
        "8 features, of which the 6 strongest are followed, help “near” and harm “far” at step10"
    )


def test_trust_rows_hold_means_and_the_lowest_task(relie: xr.Dataset) -> None:
    run = make_run(relie)
    run.ablations["far"]["spearman"][1, 0] = 0.4
    run.ablations["near"]["spearman"][1, 0] = np.nan
    rows = {row.label: row.cells for row in trust_rows(run)}
    assert rows["Attribution patching and exact effect: Spearman"] == 2 * [("0.95", "lowest 0.95: near")]
    assert rows["The published estimator and exact effect: Spearman"] == [
        ("0.40", "lowest 0.40: far"),
        ("0.80", "lowest 0.80: near"),
    ]
    assert rows["RelDec and share of exact effect: Pearson"] == 2 * [("0.20", "lowest 0.20: near")]
    assert rows["Rounding, in logits"] == 2 * [("2e-07", "highest 2e-07: near")]
    assert rows["Error term’s fraction of all effects"] == 2 * [("5.0\u00a0%", "")]
    assert rows["Feature–task pairs with a measurable effect"] == [
        ("42\u00a0%", "random directions 20\u00a0%"),
        ("33\u00a0%", "random directions 10\u00a0%"),
    ]
    assert measurable_note(run) == "By construction, about 5 % of random directions exceed the level."


def test_measurable_features_without_random_directions(relie: xr.Dataset) -> None:
    alone = with_classes(relie, SAME_BY_ALL, controls=())
    assert trust_rows(make_run(alone))[-1].cells == [("42\u00a0%", ""), ("33\u00a0%", "")]
    assert measurable_note(make_run(alone)) == ""


def test_trust_is_undefined_where_nothing_correlates(relie: xr.Dataset) -> None:
    run = make_run(relie)
    for ablation in run.ablations.values():
        ablation["share_spearman"][:] = np.nan
        ablation["spearman"][:] = np.nan
    assert trust_rows(run)[0].cells == 2 * [("–", "")]
    _, shares, estimators, *_ = trust_sentences(run)
    assert shares == (
        "RelIE by attribution patching, RelIE by the published estimator and RelDec cannot be compared: no rank"
        " correlation is defined."
    )
    assert estimators.startswith("Attribution patching and the published estimator cannot")


def test_an_estimator_that_is_exact_in_part_is_called_so(relie: xr.Dataset) -> None:
    run = make_run(relie)
    assert PARTLY_EXACT not in comparison_sentences([run])
    for task, ablation in run.ablations.items():
        called = {name: [*ablation[name].values] for name in ("estimator", "measure")}
        for labels in called.values():
            labels[labels.index("attribution_patching")] = "grouped_gradients"
        run.ablations[task] = ablation.assign_coords(called)
    assert comparison_sentences([run])[2:] == [PARTLY_EXACT]


@pytest.mark.parametrize(
    ("decoder", "better"), [(0.2, "RelIE by attribution patching predicts"), (0.75, "RelDec predicts")]
)
def test_trust_says_which_share_predicts_better(relie: xr.Dataset, decoder: float, better: str) -> None:
    run = make_run(relie)
    for ablation in run.ablations.values():
        ablation["share_spearman"][2] = decoder
    _, shares, estimators, nowhere, shortfall = trust_sentences(run)
    assert shares.startswith(better) and shares.endswith("and ahead in 2 of 2 cases.")
    assert "mean Spearman 0.95 against 0.88, and ahead in 2 of 4 cases" in estimators
    assert nowhere == "With attribution patching, Spearman is nowhere below 0.9."
    assert shortfall == (
        "With the published estimator, Spearman is below 0.9 at step20 on 2 of 2 tasks (lowest 0.80: near)."
    )
    reached = "Spearman is 0.9 or more in 8 of 8 with attribution patching and 4 of 8 with the published estimator."
    assert trust_finding([run, run]).endswith(reached)


def test_trust_line_says_how_far_effects_can_be_trusted_and_why(relie: xr.Dataset) -> None:
    estimated = trust_line(make_run(relie))
    assert estimated.startswith("Effects are estimates by the published estimator, and intervals do not hold")
    assert "Spearman is 0.88 on average over tasks and checkpoints, 0.80 at the lowest." in estimated
    exact = trust_line(make_run(relie.assign(estimator=xr.full_like(relie["estimator"], "exact"))))
    assert exact.startswith("Every effect was measured") and "rounding only, 2e-07 logits or less" in exact
    names = xr.full_like(relie["estimator"], "exact").astype(object)
    names[:, 1:] = "grouped_gradients"
    stages = relie.assign(estimator=names, estimation_error=xr.full_like(relie["noise_floor"], 0.012))
    line = trust_line(make_run(stages))
    effective = (relie["indirect_effect"] != 0).any("checkpoint")
    assert line.startswith(f"{int(effective[:, 0].sum())} of {int(effective.sum())} feature–task pairs with an effect")
    assert "The others are estimates by the grouped estimator." in line
    assert "95\u00a0% err by less than 1.2\u00a0% of" in line
    unknown = trust_line(make_run(stages.assign(estimation_error=xr.full_like(relie["noise_floor"], np.nan))))
    assert unknown.endswith("The others are estimates by the grouped estimator.")


def test_changes_are_the_largest_of_top_features(relie: xr.Dataset) -> None:
    store = ablation_store(relie, "far")
    store["written_sum"][:, -1] += 1
    (found,) = written_pairs(store)
    effect = store["own_effect"].values
    whole = effect[1] - effect[0]
    order = np.argsort(-abs(whole[:3]), kind="stable")
    assert found.checkpoints == ["step10", "step20"]
    assert [change.feature for change in found.changes] == order.tolist()
    first = found.changes[0]  # feature 1: nothing at step10, half of 2.0 at step20
    assert first == (1, ["+0.000", "+1.00"], ("+0.25", "+0.24 to +0.26"), ("+0.75", "+0.74 to +0.76"), [])
    assert {change.feature: change.own_code for change in found.changes} == {0: ["step10"], 1: [], 2: []}
    assert found.top == ("25\u00a0% (19\u00a0% to 31\u00a0%)", "1.00 logits")
    assert found.control == ("50\u00a0% (44\u00a0% to 56\u00a0%)", "1.00 logits")
    assert found.random == ("75\u00a0% to 88\u00a0%", "1.00 to 2.00 logits") and found.draws == 2
    assert found.verdict == "below every draw"


@pytest.mark.parametrize(
    ("share", "verdict"),
    [
        (0.9, "above every draw"),
        (0.8, "within their range: no more than chance"),
        (0.75, "within their range: no more than chance"),
        (np.nan, "not comparable"),
    ],
)
def test_share_is_judged_by_the_range_of_random_directions(relie: xr.Dataset, share: float, verdict: str) -> None:
    store = ablation_store(relie, "far")
    store["written_share"][0, 0] = share
    assert written_pairs(store)[0].verdict == verdict


def test_share_without_random_directions(relie: xr.Dataset) -> None:
    (found,) = written_pairs(ablation_store(relie, "far").isel(group=[0, 1]))
    assert (found.random, found.draws, found.verdict) == (("–", "–"), 0, "not comparable")


def test_many_tasks_are_not_named_one_by_one(inputs: ReportInputs) -> None:
    store = inputs.runs[0].ablations["far"]
    unseen = store.copy(deep=True)
    unseen["written_share"][:] = np.nan
    high = store.copy(deep=True)
    high["written_share"][{"group": 0}] = 0.9
    ablations = {"one": store, "two": store, "three": store, "four": high, "five": unseen}
    relie = xr.Dataset(coords={"task": list(ablations), "checkpoint": inputs.runs[0].checkpoints})
    run = replace(inputs.runs[0], ablations=ablations, relie=relie)
    assert writing_sentence(run, []) == (
        "In pair · l1 · seed 0, from step10 to step20, what is written accounts for 25\u00a0% of the changes of IE of"
        " the top features (the median of 5 tasks); the rest is due to how it is read. The share is below every draw of"
        " random directions (2) on 3 of them, and above every draw on 1."
    )
    alone = {task: of_task.isel(group=[0, 1]) for task, of_task in ablations.items()}
    assert writing_sentence(replace(run, ablations=alone), []).endswith("Random directions were not measured.")


def test_units_are_those_of_each_task(relie: xr.Dataset, tmp_path: Path) -> None:
    run = make_run(of_sentences(relie))
    rows = {row.label: row.cells for row in trust_rows(run)}
    assert rows["Rounding, in logits"] == 2 * [("2e-07", "highest 2e-07: near")]
    assert rows["Rounding, in nats"] == 2 * [("2e-07", "highest 2e-07: far")]
    exact = run.relie.assign(estimator=xr.full_like(run.relie["estimator"], "exact"))
    assert "off by rounding only, 2e-07 logits and 2e-07 nats or less on average" in trust_line(make_run(exact))
    assert written_pairs(run.ablations["far"])[0].top[1] == "1.00 nats"
    effects = built(replace(toy_inputs(relie), runs=[run]), tmp_path)
    assert effects.trust.estimates.options == [["logits", "nats"]] and effects.trust.estimates.levels == ("Effects in",)


def test_a_page_has_every_figure_with_its_files(inputs: ReportInputs, tmp_path: Path) -> None:
    effects = built(inputs, tmp_path)
    (part,) = effects.contrasts
    assert part.figures is not None and part.title == "Near against far"
    assert part.figures.options == [["far one", "far two"]] and len(part.figures.figures) == 4
    assert part.lead == "2 features help “near” and harm “far” at step10."
    assert part.words == {0: "children, oxen", 2: "no examples stored"} and part.unsupported == {0: "step10", 2: ""}
    trust = effects.trust
    assert trust.curves.options == [["near", "far"]] and len(trust.curves.figures) == 4
    assert trust.agreement.options == [["single effects", "shares of checkpoints"]]
    assert [figure.title for figure in trust.estimates.figures] == ["Attribution patching", "The published estimator"]
    groups = [part.figures, effects.writing.figures, trust.curves, trust.agreement, trust.estimates]
    stems = [figure.stem for group in groups for figure in group.figures]
    assert len(stems) == len(set(stems)) == 4 + 1 + 4 + 4 + 2
    assert all((tmp_path / f"{stem}.{ending}").exists() for stem in stems for ending in ("svg", "pdf", "csv"))
    assert len(list(tmp_path.rglob("*.csv"))) == len(stems)


def test_page_says_what_is_chance_and_links_features(inputs: ReportInputs, tmp_path: Path) -> None:
    page = page_of(inputs, tmp_path)
    abstraction, writing, trust = (section(page, name) for name in ("abstraction", "writing", "trust"))
    assert "+0.000 −0.10 to +0.10 chance ±0.050 no more than chance" in abstraction
    assert "−0.80 −0.90 to −0.70 chance ±0.050 +0.000" in abstraction
    assert "less than half of the harm is left at step20 code not supported by step10" in abstraction
    assert "25 % (19 % to 31 %) of 1.00 logits" in writing and "below every draw" in writing
    assert "75 % to 88 % of 1.00 logits (2 draws)" in writing and "own code at step10" in writing
    assert "were also changed one at a time in the model itself" in trust and "If IE were exact and effects" in trust
    assert "RelIE by attribution patching predicts the share of the exact effect better than" in trust
    assert "0.80 (lowest 0.80: near)" in trust and "about 5 % of random directions exceed the level" in trust
    text = page.read_text(encoding="utf-8")
    assert '<a class="feature" href="feature.html#pair-l1-seed0/2">2</a>' in text
    assert 'style="' not in text and "<th>" not in text


def test_page_of_exact_effects_says_so(inputs: ReportInputs, relie: xr.Dataset, tmp_path: Path) -> None:
    exact = make_run(relie.assign(estimator=xr.full_like(relie["estimator"], "exact")))
    trust = section(page_of(replace(inputs, runs=[exact]), tmp_path), "trust")
    assert "IE here is exact ablation. The table and figures show how well the cheaper estimators" in trust
    assert "If effects simply added up" in trust and "If IE were exact" not in trust


def test_page_without_contrasts(inputs: ReportInputs, tmp_path: Path) -> None:
    text = page_of(replace(inputs, contrasts=[]), tmp_path).read_text(encoding="utf-8")
    assert 'id="abstraction"' not in text and 'id="writing"' in text and "contrast-" not in text


def test_page_says_where_nothing_is_found(inputs: ReportInputs, relie: xr.Dataset, tmp_path: Path) -> None:
    relie["condition_measurable"][:] = False
    for end in ("", "_low", "_high"):
        relie[f"half_indirect_effect{end}"][:] = 0.0
    abstraction = section(page_of(replace(inputs, runs=[make_run(relie)]), tmp_path), "abstraction")
    assert "No feature has a measurable effect on either task, so there is nothing to draw." in abstraction
    assert (
        "No feature helps “near” and harms “far” at step10 by at least 0.02 and by more than random directions do."
        in abstraction
    )
    assert "One half of the prefixes chose" not in abstraction


def test_tasks_with_warnings_are_marked(inputs: ReportInputs, tmp_path: Path) -> None:
    facts = {"near": task_facts(), "far": task_facts(warnings="odd")}
    behaviour = with_facts(suite_behaviour(np.array([[0.5, 0.9, 1.0], [0.5, 0.1, 0.9]]), facts))
    effects = built(replace(inputs, behaviour=behaviour), tmp_path)
    assert effects.trust.curves.options == [["near", "▲ far"]] and list(effects.writing.tasks) == ["near", "▲ far"]
    assert effects.contrasts[0].caution.startswith("Read this with caution: a warning goes with “far”")


def test_annotations_are_shown_and_stay_text(inputs: ReportInputs, tmp_path: Path) -> None:
    place = ("pair", "l1", 0)
    given = [
        Annotation("toy", *place, 0, HOSTILE, "syntax", "of nouns"),
        Annotation("toy", *place, 2, "", "", "only a note"),
        Annotation("other", *place, 1, "of another suite", "", ""),
    ]
    noted = replace(inputs, annotations=given)
    assert annotated(noted, noted.runs[0]) == {0: f"{HOSTILE} · syntax", 2: "only a note"}
    text = page_of(noted, tmp_path).read_text(encoding="utf-8")
    assert "<b>" not in text and "&lt;/script&gt;&lt;b&gt;&amp;amp; · syntax" in text and "only a note" in text


@needs_browser
@pytest.mark.parametrize("dark", [False, True])
def test_page_is_read_at_phone_width_and_figures_are_chosen(inputs: ReportInputs, tmp_path: Path, dark: bool) -> None:
    with opened(page_of(inputs, tmp_path), width=375, dark=dark) as shown:
        assert shown.evaluate("document.documentElement.scrollWidth") == 375
        curves = shown.locator("#faithfulness")
        assert curves.locator("figure:visible").count() == 2
        curves.locator("select").select_option("far")
        assert curves.locator("figure:visible .choice").all_inner_texts() == ["far", "far"]
        shown.locator("summary").first.click()
        assert shown.locator("details table:visible").count() == 1
