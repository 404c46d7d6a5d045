"""What the data say, in sentences; each is there only if the data support it."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.report.contrasts import ContrastFeatures, clearest_run
from chronocoder.report.data import feature_words
from chronocoder.report.inputs import Contrast, ReportInputs, Run, names
from chronocoder.report.text import listed, quoted, short_count, signed
from chronocoder.report.trust import EXACT_ABLATION, estimator_of, trust_finding

CHANCE = 0.5


class Finding(NamedTuple):
    """One entry of the summary.

    Attributes:
        label: what it is about.
        text: one or more sentences.
    """

    label: str
    text: str


class SurfacePhase(NamedTuple):
    """The checkpoints at which a model follows a surface rule.

    Attributes:
        checkpoints: those above chance on the surface task and below it on the conflicting one, by their intervals.
        clearest: the one where the two accuracies differ most.
        surface_accuracy: accuracy there on the surface task.
        conflicting_accuracy: accuracy there on the conflicting task.
        end: the checkpoint from which on both tasks are above chance, if there is one.
    """

    checkpoints: list[str]
    clearest: str
    surface_accuracy: float
    conflicting_accuracy: float
    end: str | None


def find_surface_phase(behaviour: xr.Dataset, contrast: Contrast) -> SurfacePhase | None:
    """Return the surface phase of a contrast, or None if no checkpoint shows one."""
    near, far = behaviour.sel(task=contrast.surface), behaviour.sel(task=contrast.conflicting)
    inside = ((near["accuracy_low"] > CHANCE) & (far["accuracy_high"] < CHANCE)).values
    if not inside.any():
        return None
    revisions = names(behaviour, "checkpoint")
    gap = np.where(inside, near["accuracy"].values - far["accuracy"].values, -np.inf)
    clearest = int(gap.argmax())
    settled = ((near["accuracy_low"] > CHANCE) & (far["accuracy_low"] > CHANCE)).values
    unsettled = np.flatnonzero(~settled)
    end = int(unsettled[-1]) + 1
    return SurfacePhase(
        [revision for revision, held in zip(revisions, inside, strict=True) if held],
        revisions[clearest],
        float(near["accuracy"].values[clearest]),
        float(far["accuracy"].values[clearest]),
        revisions[end] if end < len(revisions) else None,
    )


def summarise(inputs: ReportInputs, found: Sequence[Mapping[Contrast, ContrastFeatures]]) -> list[Finding]:
    """Return the summary.

    Args:
        inputs: what the report shows.
        found: for each run, what each contrast brings out.
    """
    findings = [Finding("Ability", ability_sentence(inputs.behaviour))]
    for contrast in inputs.contrasts:
        phase = find_surface_phase(inputs.behaviour, contrast)
        if phase is not None:
            findings.append(Finding("Surface phase", phase_sentence(inputs.behaviour, contrast, phase)))
        of_runs = [of_run[contrast] for of_run in found]
        best = clearest_run(of_runs)
        if best is not None:
            findings.append(Finding("Features", feature_sentence(inputs.runs[best], of_runs[best], contrast)))
    return [*findings, Finding("Exact ablation", trust_finding(inputs.runs))]


def ability_sentence(behaviour: xr.Dataset) -> str:
    """Return the accuracies at the last checkpoint in a sentence."""
    last = behaviour["accuracy"].isel(checkpoint=-1)
    lowest, highest = float(last.min()), float(last.max())
    task = quoted(str(behaviour["task"].values[int(last.values.argmin())]))
    return (
        f"At the last checkpoint, {_moment(behaviour, str(last['checkpoint'].values))}, accuracy lies between"
        f" {lowest:.2f} ({task}) and {highest:.2f}; chance is {CHANCE}."
    )


def phase_sentence(behaviour: xr.Dataset, contrast: Contrast, phase: SurfacePhase) -> str:
    """Return a surface phase in one or two sentences."""
    far = quoted(contrast.conflicting)
    text = (
        f"At {_moment(behaviour, phase.clearest)} accuracy is {phase.surface_accuracy:.2f} on"
        f" {quoted(contrast.surface)} but {phase.conflicting_accuracy:.2f} on {far}, below chance, as if the model"
        f" followed the surface rule; this holds at {listed(phase.checkpoints)}."
    )
    if phase.end is None:
        return f"{text} No later checkpoint leaves it for good."
    final = float(behaviour["accuracy"].sel(task=contrast.conflicting).values[-1])
    return f"{text} From {phase.end} on it is above chance on both, and ends at {final:.2f} on {far}."


def feature_sentence(run: Run, found: ContrastFeatures, contrast: Contrast) -> str:
    """Return which features of a run stand for the surface rule, gave way and took over most strongly, in sentences."""
    gone = found.gave_way.features[:1]
    text = _surface_sentence(run, found, contrast, gone[0] if gone else found.surface[found.clearest].features[0])
    if not gone:
        text = f"{text} No feature of this run that stands for the surface rule gives way or changes sides."
    return f"{text} {_newcomer_sentence(run, found.newcomers[0], contrast)}" if found.newcomers else text


def _surface_sentence(run: Run, found: ContrastFeatures, contrast: Contrast, feature: int) -> str:
    places = [name for name, ranked in found.surface.items() if feature in ranked.features]
    effects = run.relie["indirect_effect"].sel(feature=feature)
    strengths = [float(abs(effects.sel(checkpoint=name, task=list(contrast))).min()) for name in places]
    checkpoint = places[int(np.argmax(strengths))]
    near, far = (_effect(run, feature, checkpoint, task) for task in contrast)
    text = (
        f"In {run.key.label}, feature {feature}{_words_of(run, feature)} stands for the surface rule at {checkpoint}:"
        f" it helps {quoted(contrast.surface)} (IE {near} logits) and harms {quoted(contrast.conflicting)} ({far})."
    )
    if feature not in found.gave_way.features:
        return text
    last = run.checkpoints[-1]
    later = (signed(float(effects.sel(checkpoint=last, task=task))) for task in contrast)
    fate = "changes sides" if feature in found.changed_sides else "gives way"
    return f"{text} It {fate}: at {last} its effects are {' and '.join(later)}."


def _newcomer_sentence(run: Run, feature: int, contrast: Contrast) -> str:
    last = run.checkpoints[-1]
    effect = _effect(run, feature, last, contrast.conflicting)
    return (
        f"Of the features that took over, feature {feature}{_words_of(run, feature)} helps"
        f" {quoted(contrast.conflicting)} most at {last} ({effect})."
    )


def _effect(run: Run, feature: int, checkpoint: str, task: str) -> str:
    """Return an effect with its sign, and beside it the exact one where it was measured."""
    estimate = signed(float(run.relie["indirect_effect"].sel(feature=feature, checkpoint=checkpoint, task=task)))
    ablation = run.ablations[task]
    if feature not in ablation["feature"].values or estimator_of(run) == EXACT_ABLATION:
        return estimate
    exact = ablation["indirect_effect"].sel(estimator="exact", feature=feature, checkpoint=checkpoint)
    return f"{estimate}, exact {signed(float(exact))}"


def _words_of(run: Run, feature: int) -> str:
    if feature not in run.features["feature"].values:
        return ""
    words = feature_words(run.features.sel(feature=[feature]))[feature]
    return f" (most active on: {', '.join(words)})" if words else ""


def _moment(behaviour: xr.Dataset, checkpoint: str) -> str:
    tokens = int(behaviour["tokens_seen"].sel(checkpoint=checkpoint))
    return f"{checkpoint} ({short_count(tokens)} tokens)"
