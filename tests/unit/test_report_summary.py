"""The summary of a report: a finding a line, each beside its control."""

from dataclasses import replace

import numpy as np
import xarray as xr
from report_stores import (
    CONTRAST,
    FACTS,
    REVISIONS,
    SENTENCES,
    behaviour_store,
    make_run,
    of_sentences,
    relie_store,
    six_features,
    suite_behaviour,
    with_classes,
    with_control,
    with_facts,
    with_languages,
)
from taskspace_stores import with_task_space

from chronocoder.report.contrasts import find_all_features
from chronocoder.report.data import CLASSES
from chronocoder.report.inputs import Contrast, ReportInputs
from chronocoder.report.summary import (
    Finding,
    class_sentence,
    learnt_sentence,
    phases_line,
    quality_line,
    summarise,
    surface_phases,
)
from chronocoder.report.surface_story import surface_sentences

OTHER = Contrast("near", "other")


def findings_of(inputs: ReportInputs) -> dict[str, Finding]:
    found = find_all_features(inputs, inputs.runs[0]) if inputs.runs else {}
    return {finding.label: finding for finding in summarise(inputs, found)}


def texts_of(inputs: ReportInputs) -> dict[str, str]:
    return {label: finding.text for label, finding in findings_of(inputs).items()}


def with_run(inputs: ReportInputs, relie: xr.Dataset) -> ReportInputs:
    return replace(inputs, runs=[make_run(relie)])


def story_of(inputs: ReportInputs) -> str:
    found = find_all_features(inputs, inputs.runs[0])
    return surface_sentences(inputs.runs[0], CONTRAST, found[CONTRAST])


def test_each_finding_is_one_line_and_leads_further(inputs: ReportInputs) -> None:
    found = findings_of(with_languages(with_control(inputs), {"agreement": [True, True]}))
    labels = ["Ability", "Learnt", "Surface rule", "Features of the surface rule", "Languages", "Classes"]
    assert list(found) == [*labels, "False classes", "Writer or reader", "Crosscoders", "Trust"]
    assert found["Classes"].page == "run-pair-l1-seed0.html" and found["Languages"].page == "tasks.html"
    assert found["Features of the surface rule"].features == [0, 2]
    assert all("\n" not in finding.text for finding in found.values())


def test_tasks_are_learnt_from_where_accuracy_stays_above_chance(inputs: ReportInputs) -> None:
    def learnt(near: list[float], far: list[float]) -> str:
        return learnt_sentence(with_facts(behaviour_store(near, far)))

    start = "Accuracy rises above chance, by its interval, and stays there on"
    assert texts_of(inputs)["Learnt"] == (
        f"{start} 2 of 2 tasks: the earliest (“near”) from step10 (1 k tokens) on, the latest (“far”) from step20 (50 k"
        " tokens) on."
    )
    assert learnt([0.9, 0.9, 0.9], [0.9, 0.9, 0.5]) == f"{start} 1 of 2 tasks: from step0 (0 tokens) on."
    assert learnt([0.9, 0.5, 0.9], [0.5, 0.5, 0.9]) == f"{start} 2 of 2 tasks: from step20 (50 k tokens) on."
    assert learnt([0.5] * 3, [0.5] * 3) == (
        "Accuracy is above chance at the last checkpoint, by its interval, on 0 of 2 tasks."
    )


def test_surface_rule_and_its_features_are_told_in_a_line_each(inputs: ReportInputs) -> None:
    texts = texts_of(inputs)
    assert texts["Surface rule"] == (
        "At step10 (1 k tokens) accuracy is 0.90 on “near” but 0.10 on “far”, below chance, as if the model followed"
        " the surface rule; above chance on both from step20 on."
    )
    assert texts["Features of the surface rule"] == (
        "2 features help “near” and harm “far” at step10 (2 of 2 also on prefixes that did not choose them); at step20,"
        " 1 still harms, and 1 has come to help in another condition, IE +0.000\u00a0→\u00a0+0.90 logits (95\u00a0% of"
        " random directions that write as much stay within ±0.05)."
    )


def test_nothing_is_told_again_of_a_second_contrast(inputs: ReportInputs, relie: xr.Dataset) -> None:
    behaviour = inputs.behaviour
    both = xr.concat([behaviour, behaviour.sel(task=["far"]).assign_coords(task=["other"])], "task", data_vars="all")
    phases = surface_phases(both, [CONTRAST, OTHER])
    assert phases_line(both, phases).endswith(
        "from step20 on. The same is seen on “other” (0.10; above chance on both from step20 on)."
    )
    found = find_all_features(inputs, inputs.runs[0])
    twice = {CONTRAST: found[CONTRAST], OTHER: found[CONTRAST]}
    findings = summarise(inputs, twice)
    assert len({finding.label for finding in findings}) == len(findings)
    (told,) = (finding.text for finding in findings if finding.label == "Features of the surface rule")
    assert told.endswith(" They include 2 of the 2 found on “other”.")


def test_a_phase_without_an_end_is_told(inputs: ReportInputs) -> None:
    late = with_facts(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.4, 0.1]))
    assert texts_of(replace(inputs, behaviour=late))["Surface rule"].endswith(
        "as if the model followed the surface rule; no later checkpoint leaves it for good."
    )


def test_summary_says_where_nothing_is_found(inputs: ReportInputs) -> None:
    quiet = replace(
        with_run(inputs, relie_store([[1.0]] * 2, [[1.0]] * 2, ["maintained"])),
        behaviour=with_facts(behaviour_store([0.5, 0.9, 1.0], [0.5, 0.8, 0.9])),
    )
    texts = texts_of(quiet)
    assert "Surface rule" not in texts
    assert texts["Features of the surface rule"] == (
        "No feature helps “near” and harms “far” at step10 by at least 0.02 and by more than random directions do."
    )
    assert story_of(quiet) == (
        "In pair · l1 · seed 0, no feature helps “near” and harms “far” at step10 by at least 0.02 and by more than"
        " random directions do."
    )


def test_story_tells_what_becomes_of_surface_features(inputs: ReportInputs) -> None:
    assert story_of(inputs) == (
        "In pair · l1 · seed 0, 2 features help “near” and harm “far” at step10, as"
        " judged on one half of the prefixes. On the other half, 2 of 2 harm there in the same condition, and 1 of"
        " these still at step20, mean IE of all −0.55\u00a0→\u00a0−0.10 logits; 1 comes to help in another condition,"
        " +0.000\u00a0→\u00a0+0.90 (95\u00a0% of random directions that write as much stay within ±0.05). The"
        " strongest, feature 0 (most active on: children,"
        " oxen), has IE −0.80\u00a0→\u00a0+0.000 in “far one” and +0.000\u00a0→\u00a0+0.000 in “far two”."
    )


def test_story_tells_the_effects_of_the_strongest_feature_by_token(inputs: ReportInputs) -> None:
    helping = relie_store([[1.0], [1.0]], [[-0.8], [-0.9]], ["maintained"], other=[[0.0], [0.7]])
    text = story_of(with_run(inputs, helping))
    assert "1 feature helps “near” and harms “far”" in text
    assert "1 of 1 harms there in the same condition, and 1 of these still at step20" in text
    assert text.endswith(
        "+0.000\u00a0→\u00a0+0.70 in “far two”; of the latter at step20, by token (all prefixes): subject +0.70, last"
        " token +0.070."
    )


def test_story_tells_the_effects_by_token_where_there_is_one_condition(inputs: ReportInputs) -> None:
    nothing = [[float("nan")]] * 2
    helping = relie_store([[1.0], [1.0]], [[-0.8], [-0.9]], ["maintained"], other=nothing)
    helping["prefixes"].loc[{"task": "far", "condition": "far two"}] = 0
    assert story_of(with_run(inputs, helping)).endswith(
        "has IE −0.80\u00a0→\u00a0−0.90 in “far one”; of this at step20, by token (all prefixes): subject −0.90, last"
        " token −0.090."
    )


def test_the_other_half_is_believed(inputs: ReportInputs, relie: xr.Dataset) -> None:
    for end in ("", "_low", "_high"):
        relie[f"half_indirect_effect{end}"][:, 1] = 0.0
    unconfirmed = with_run(inputs, relie)
    text = story_of(unconfirmed)
    assert "0 of 2 harm there in the same condition, and 0 of these still at step20" in text
    assert "none comes to help in another condition" in text
    assert texts_of(unconfirmed)["Features of the surface rule"] == (
        "2 features help “near” and harm “far” at step10 (0 of 2 also on prefixes that did not choose them); at step20,"
        " 0 still harm, and none has come to help in another condition."
    )


def test_no_fate_is_told_where_the_phase_is_last(inputs: ReportInputs, relie: xr.Dataset) -> None:
    late = replace(
        with_run(inputs, relie.isel(checkpoint=[1, 0]).assign_coords(relie.coords)),
        behaviour=with_facts(behaviour_store([0.5, 0.5, 1.0], [0.5, 0.5, 0.1])),
    )
    assert story_of(late).endswith(
        "On the other half, 2 of 2 harm there in the same condition. What becomes of them is not seen: step20 is its"
        " last checkpoint."
    )
    assert texts_of(late)["Features of the surface rule"].endswith(
        "(2 of 2 also on prefixes that did not choose them)."
    )


def test_classes_stand_beside_chance(inputs: ReportInputs, relie: xr.Dataset) -> None:
    assert texts_of(inputs)["Classes"] == (
        "With IE divided by the checkpoint’s total |IE|: emerged 33\u00a0% against 15\u00a0% of random directions,"
        " maintained 17\u00a0% against 0.0\u00a0%, discontinued 33\u00a0% against 0.0\u00a0%; no class is more frequent"
        " than among random directions (no more than chance)."
    )
    assert "emerged is more frequent than among random directions on 2 of 2 tasks" in class_sentence(inputs.runs[0])
    bases = dict.fromkeys(("published", "total_effect", "metric_size"), CLASSES[:6])
    alone = with_run(inputs, with_classes(relie, bases, controls=()))
    assert texts_of(alone)["Classes"] == "Not compared with random directions, which were not measured."


def test_quality_is_told_of_all_crosscoders(inputs: ReportInputs) -> None:
    run = inputs.runs[0]
    assert quality_line([run]) == "They explain 0.90 of the variance of activations, and recover 0.95 of cross-entropy."
    above = run.evaluation.assign(
        cross_entropy_recovered=run.evaluation["cross_entropy_recovered"] + [0, 0.06],
        recovered_above_one=("checkpoint", [False, True]),
    )
    assert quality_line([run, replace(run, evaluation=above)]).endswith(
        "recover 0.95 to 1.01 of cross-entropy (above one in 1 of 4 reconstructions, which is no achievement)."
    )


def test_summary_without_crosscoders_is_of_ability_and_task_space(inputs: ReportInputs) -> None:
    alone = replace(inputs, runs=[], seed_matches=[], comparisons={})
    assert list(findings_of(alone)) == ["Ability", "Learnt", "Surface rule"]
    space = findings_of(with_task_space(replace(alone, contrasts=[])))
    assert {finding.page for label, finding in space.items() if label not in ("Ability", "Learnt")} == {
        "taskspace.html"
    }
    assert REVISIONS[-1] in space["Ability"].text


def test_summary_tells_writer_from_reader(inputs: ReportInputs) -> None:
    assert texts_of(inputs)["Writer or reader"] == (
        "In pair · l1 · seed 0, from step10 to step20, what is written accounts for this share of the changes of IE of"
        " the top features: 25\u00a0% (19\u00a0% to 31\u00a0%) on “far”, against 75\u00a0% to 88\u00a0% for"
        " random directions (2 draws). The rest is due to how it is read."
    )
    shares = inputs.runs[0].ablations["far"]["written_share_low"]
    shares[:] = -0.25
    assert "25\u00a0% (−25\u00a0% to 31" in texts_of(inputs)["Writer or reader"]
    assert "on “near”" in texts_of(replace(inputs, contrasts=[]))["Writer or reader"]
    ablations = inputs.runs[0].ablations
    ablations["far"] = ablations["far"].isel(group=[0, 1])
    assert "on “far” (random directions were not measured). The rest" in texts_of(inputs)["Writer or reader"]


def test_a_warning_goes_with_a_contrast(inputs: ReportInputs) -> None:
    facts = FACTS | {"far": FACTS["far"].assign_attrs(SENTENCES)}
    behaviour = with_facts(suite_behaviour(np.array([[0.5, 0.9, 1.0], [0.5, 0.1, 0.9]]), facts))
    texts = texts_of(replace(inputs, runs=[make_run(of_sentences(six_features()))], behaviour=behaviour))
    assert texts["Features of the surface rule"].endswith(
        " Read this with caution: a warning goes with “far” (▲ in the table of tasks)."
    )
    assert "+0.90 nats" in texts["Features of the surface rule"]
