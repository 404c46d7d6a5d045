"""What the data say, in sentences, each beside its control."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.attribution.surface import SurfaceFeature
from chronocoder.report.codes import code_sentences
from chronocoder.report.consolidation import language_sentences
from chronocoder.report.contrasts import ContrastFeatures, Found
from chronocoder.report.controls import (
    BASES,
    MORE,
    NO_MORE,
    PUBLISHED,
    TOTAL,
    Frequency,
    class_frequencies,
    control_rows,
    has_random,
    upper_limit,
)
from chronocoder.report.data import feature_words
from chronocoder.report.inputs import Contrast, ReportInputs, Run, key_of, names
from chronocoder.report.phases import CHANCE, SurfacePhase, find_surface_phase
from chronocoder.report.tasks import MARK, caution, groups_of_kind, warnings_of
from chronocoder.report.taskspace_page import space_findings
from chronocoder.report.text import listed, percent, plural, quoted, short_count, signed
from chronocoder.report.trust import trust_finding, trust_line
from chronocoder.report.writing import writing_sentence
from chronocoder.tasks.groups import KINDS, Group

IDENTITY = "identity"
ROLES_NAMED = 3
WARNED_NAMED = 3


class Finding(NamedTuple):
    """One entry of the summary.

    Attributes:
        label: what it is about.
        text: one or more sentences.
    """

    label: str
    text: str


def summarise(inputs: ReportInputs, found: Found) -> list[Finding]:
    """Return the summary.

    Args:
        inputs: what the report shows.
        found: what each contrast brings out in the crosscoder configured first; nothing without one.
    """
    findings = [Finding("Ability", ability_sentence(inputs.behaviour))]
    if inputs.choice is not None:
        findings.append(Finding("Choice of checkpoints", str(inputs.choice.attrs["summary"])))
    of_space = [Finding(label, text) for label, text in space_findings(inputs).items()]
    if not inputs.runs:
        return [*findings, *of_space]
    first = inputs.runs[0]
    for contrast, features in found.items():
        phase = find_surface_phase(inputs.behaviour, contrast)
        if phase is not None:
            findings.append(Finding("Surface phase", phase_sentence(inputs.behaviour, contrast, phase)))
        findings.append(
            Finding(
                "Surface features",
                f"{surface_sentences(first, contrast, features)}{caution(inputs.behaviour, contrast)}",
            )
        )
    for store in inputs.consolidations[:1]:
        findings.append(Finding("Languages", f"In {key_of(store).label}: {' '.join(language_sentences(store))}"))
    return [
        *findings,
        Finding("Classes", class_sentence(first)),
        Finding("False classes", identity_sentence(inputs.controls)),
        Finding("Writer or reader", writing_sentence(first, inputs.contrasts)),
        Finding("Codes", code_sentences(inputs.runs)),
        Finding("Trust", trust_line(first)),
        Finding("Exact ablation", trust_finding(inputs.runs)),
        *of_space,
    ]


def ability_sentence(behaviour: xr.Dataset) -> str:
    """Return the accuracies at the last checkpoint in a sentence."""
    last, warned = behaviour["accuracy"].isel(checkpoint=-1), list(warnings_of(behaviour))
    where = f"At the last checkpoint, {_moment(behaviour, str(last['checkpoint'].values))}"
    judged = last.isel(task=~last["task"].isin(warned).values)
    if not judged.sizes["task"]:
        return f"{where}, accuracy says little: a warning goes with every task ({MARK} in the table of tasks)."
    lowest, highest = float(judged.min()), float(judged.max())
    task = quoted(str(judged["task"].values[int(judged.values.argmin())]))
    found = f"lies between {lowest:.2f} ({task}) and {highest:.2f}"
    if f"{lowest:.2f}" == f"{highest:.2f}":
        found = f"is {lowest:.2f}"
    return (
        f"{where}, accuracy {found}; chance is {CHANCE}.{_warned_words(last.sel(task=warned))}{_group_words(behaviour)}"
    )


def phase_sentence(behaviour: xr.Dataset, contrast: Contrast, phase: SurfacePhase) -> str:
    """Return a surface phase in one or two sentences."""
    far = quoted(contrast.conflicting)
    text = (
        f"At {_moment(behaviour, phase.clearest)} accuracy is {phase.surface_accuracy:.2f} on"
        f" {quoted(contrast.surface)} but {phase.conflicting_accuracy:.2f} on {far}, below chance, as if the model"
        f" followed the surface rule; this holds at {listed(list(phase.gaps))}."
    )
    if phase.end is None:
        return f"{text} No later checkpoint leaves it for good."
    final = float(behaviour["accuracy"].sel(task=contrast.conflicting).values[-1])
    return f"{text} From {phase.end} on it is above chance on both, and ends at {final:.2f} on {far}."


def surface_sentences(run: Run, contrast: Contrast, found: ContrastFeatures) -> str:
    """Return which features of a run stand for the surface rule, and what becomes of them, in sentences."""
    near, far = map(quoted, contrast)
    where = f"In the crosscoder configured first, {run.key.label},"
    told, last = found.followed, run.checkpoints[-1]
    if told is None:
        return (
            f"{where} no feature helps {near} and harms {far} at {found.checkpoint} by more than random directions do."
        )
    count = len(found.features)
    harming = int(told["confirmed"].sum())
    text = (
        f"{where} {count} feature{'s' * (count > 1)} {_verb('help', count)} {near} and {_verb('harm', count)} {far} at"
        f" {found.checkpoint}, as judged on one half of the prefixes. On the other half, {harming} of {count}"
        f" {_verb('harm', harming)} there in the same condition"
    )
    if found.checkpoint == last:
        return f"{text}. What becomes of them is not seen: {last} is its last checkpoint."
    fate, strongest = _fate_sentence(run, contrast, told, last), found.features[0]
    return f"{text}, and {fate} {_strongest_sentence(run, contrast, strongest, told)}"


def class_sentence(run: Run) -> str:
    """Return how frequent classes are beside random directions, and which are more frequent on some task."""
    if not has_random(run.relie):
        return "Not compared with random directions, which were not measured."
    divided, published = (_chance_words(run, basis) for basis in (TOTAL, PUBLISHED))
    return (
        f"In {run.key.label}, over all tasks, with IE divided by the checkpoint’s total |IE|: {divided}."
        f" By published RelIE: {'the same' if published == divided else published}."
    )


def identity_sentence(controls: Sequence[xr.Dataset]) -> str:
    """Return how many decided classes of a checkpoint compared with itself are changes, none of which can be true."""
    rows = [row for control in controls if control.attrs["control"] == IDENTITY for row in control_rows(control)]
    divided = [row for row in rows if row.basis == BASES[TOTAL]]
    if not divided:
        return "The comparison of a checkpoint with itself was not run."
    changed, decided, tested = (sum(getattr(row, name) for row in divided) for name in ("changed", "decided", "tested"))
    return (
        f"Of a checkpoint compared with itself, {changed} of {decided} decided classes are changes (95\u00a0% upper"
        f" limit {percent(upper_limit(changed, decided))}); {tested} feature–task pairs were tested. Classes are by"
        f" {BASES[TOTAL]}."
    )


def _warned_words(accuracy: xr.DataArray) -> str:
    """Return which tasks are left out of a range since a warning goes with them, dims (task,); empty if none is."""
    count = accuracy.sizes["task"]
    if not count:
        return ""
    named = [f"{quoted(str(of['task'].values))} ({float(of):.2f})" for of in accuracy[:WARNED_NAMED]]
    more = [f"{count - WARNED_NAMED} more"] if count > WARNED_NAMED else []
    return (
        f" Not counted {'is' if count == 1 else 'are'} {listed([*named, *more])}: a warning says why"
        f" {'its' if count == 1 else 'their'} accuracy may mislead ({MARK} in the table of tasks)."
    )


def _group_words(behaviour: xr.Dataset) -> str:
    """Return the range of the mean accuracies by language and by phenomenon at the last checkpoint."""
    parts = []
    for kind in KINDS:
        groups = groups_of_kind(behaviour, kind)
        if groups:
            last = behaviour["group_accuracy"].isel(group=behaviour["group_kind"].values == kind, checkpoint=-1).values
            low, high = (
                f"{last[place]:.2f} ({_group_name(behaviour, groups[place])})"
                for place in (last.argmin(), last.argmax())
            )
            parts.append(f" By {kind}, the mean over tasks lies between {low} and {high}.")
    return "".join(parts)


def _group_name(behaviour: xr.Dataset, group: Group) -> str:
    """Return the name of a group, marked where a warning goes with one of its tasks."""
    tasks, warned = names(behaviour, "task"), warnings_of(behaviour)
    return f"{quoted(group.name)}{f' {MARK}' if any(tasks[place] in warned for place in group.tasks) else ''}"


def _chance_words(run: Run, basis: str) -> str:
    """Return how frequent each class is among features and random directions, and whether it is more so, in words."""
    found = class_frequencies(run.relie, basis)
    if not found:
        return "no feature has a decided class"
    (name, of_first), *others = found.items()
    frequencies = [f"{name} {of_first.features} against {of_first.random} of random directions"]
    frequencies += [f"{name} {of.features} against {of.random}" for name, of in others]
    return f"{', '.join(frequencies)}; {_verdict_words(found, len(run.tasks))}"


def _verdict_words(found: Mapping[str, Frequency], tasks: int) -> str:
    """Return which classes are more frequent than among random directions, in words."""
    more = {name: f"on {of.tasks_beyond} of {tasks}" for name, of in found.items() if of.tasks_beyond}
    no_more = [name for name in found if name not in more]
    if not more:
        return f"no class is more frequent than among random directions ({NO_MORE})"
    (name, where), *others = more.items()
    parts = [f"{name} is more frequent than among random directions {where} tasks", *map(" ".join, others)]
    text = f"{listed(parts)} ({MORE})"
    return f"{text}; {listed(no_more)} {'are' if len(no_more) > 1 else 'is'} not ({NO_MORE})" if no_more else text


def _fate_sentence(run: Run, contrast: Contrast, told: xr.Dataset, last: str) -> str:
    """Return how many features still harm, and how many come to help, by the half that did not choose them."""
    kept, helping = int(told["kept"].sum()), told["helps_newly"].values
    harm, unit = _course(told["effect"].sel(where="harmed")), run.units[contrast.conflicting]
    text = f"{kept} of these still at {last}, mean IE of all {harm} {plural(unit)}"
    if helping.any():
        helped = _course(told["effect"].sel(where="other").isel(place=helping))
        text = f"{text}; {helping.sum()} {_verb('come', int(helping.sum()))} to help in another condition, {helped}"
    else:
        text = f"{text}; none comes to help in another condition"
    return f"{text}{_level(run, told)}."


def _verb(verb: str, count: int) -> str:
    return f"{verb}s" if count == 1 else verb


def _level(run: Run, told: xr.Dataset) -> str:
    level = float(told["level"].isel(checkpoint=-1).max())
    if not level > 0:
        return ""
    return f" ({run.random_level} of random directions that write as much stay within ±{level:.2f})"


def _strongest_sentence(run: Run, contrast: Contrast, strongest: SurfaceFeature, told: xr.Dataset) -> str:
    effect = told["effect"].isel(place=0)
    effects = [f"{_course(effect.sel(where='harmed'))} in {quoted(strongest.condition)}"]
    if strongest.other_condition != strongest.condition:
        effects.append(f"{_course(effect.sel(where='other'))} in {quoted(strongest.other_condition)}")
    return (
        f"The strongest, feature {strongest.feature}{_words_of(run, strongest.feature)}, has IE"
        f" {listed(effects)}{_roles_of(run, contrast, strongest)}."
    )


def _roles_of(run: Run, contrast: Contrast, strongest: SurfaceFeature) -> str:
    """Return what a feature's effect at the last checkpoint is made of, by the role of the token."""
    ablation, condition = run.ablations[contrast.conflicting], strongest.other_condition
    if strongest.feature not in ablation["top_feature"].values:
        return ""
    effects = ablation["role_effect"].sel(top_feature=strongest.feature, condition=condition).isel(checkpoint=-1)
    order = np.argsort(-abs(effects.values))[:ROLES_NAMED]
    parts = [(str(effects["position_role"].values[place]), signed(float(effects[place]))) for place in order]
    named = [f"{role} {effect}" for role, effect in parts if float(effect.replace("−", "-"))]
    which = "this" if condition == strongest.condition else "the latter"
    return f"; of {which} at {run.checkpoints[-1]}, by token (all prefixes): {', '.join(named)}" if named else ""


def _course(effects: xr.DataArray) -> str:
    """Return effects at the first and last checkpoint, their mean over features."""
    means = effects.mean("place") if "place" in effects.dims else effects
    return f"{signed(float(means[0]))}\u00a0→\u00a0{signed(float(means[-1]))}"


def _words_of(run: Run, feature: int) -> str:
    if feature not in run.features["feature"].values:
        return ""
    words = feature_words(run.features.sel(feature=[feature]))[feature]
    return f" (most active on: {', '.join(words)})" if words else ""


def _moment(behaviour: xr.Dataset, checkpoint: str) -> str:
    tokens = int(behaviour["tokens_seen"].sel(checkpoint=checkpoint))
    return f"{checkpoint} ({short_count(tokens)} tokens)"
