"""What the data say, in sentences, each beside its control."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.figures.ability import CHANCE
from chronocoder.report.consolidation import is_many, language_sentences, pair_sentences, pairs_of
from chronocoder.report.contrasts import Found, found_words
from chronocoder.report.controls import (
    BASES,
    PUBLISHED,
    TOTAL,
    chance_words,
    control_rows,
    has_random,
    upper_limit,
)
from chronocoder.report.inputs import Contrast, ReportInputs, Run, key_of
from chronocoder.report.phases import SurfacePhase, find_surface_phase
from chronocoder.report.surface_story import course, level_words, moment, verb
from chronocoder.report.tasks import caution
from chronocoder.report.taskspace_page import space_findings
from chronocoder.report.trust import trust_line
from chronocoder.report.writing import writing_sentence
from chronocoder.stores import names
from chronocoder.tasks.groups import KINDS, Group, groups_of_kind, warnings_of
from chronocoder.wording import MARK, counted, decimal, listed, percent, plural, quoted, sentence

IDENTITY = "identity"
WARNED_NAMED = 3
QUALITY = ("explained_variance", "cross_entropy_recovered")


class Finding(NamedTuple):
    """One line of the summary.

    Attributes:
        label: what it is about.
        text: what was found.
        page: address of what tells more.
        features: those that it names, to be linked, as numbers in the dictionary of the crosscoder configured first.
    """

    label: str
    text: str
    page: str
    features: Sequence[int] = ()


def summarise(inputs: ReportInputs, found: Found) -> list[Finding]:
    """Return the summary, a finding a line, none repeated for a second contrast.

    Args:
        inputs: what the report shows.
        found: what each contrast brings out in the crosscoder configured first; nothing without one.
    """
    behaviour = inputs.behaviour
    findings = [
        Finding("Ability", ability_sentence(behaviour), "ability.html"),
        Finding("Learnt", learnt_sentence(behaviour), "index.html#learnt"),
    ]
    if inputs.choice is not None:
        findings.append(Finding("Choice of checkpoints", str(inputs.choice.attrs["summary"]), "ability.html#choice"))
    phases = surface_phases(behaviour, inputs.contrasts)
    if phases:
        findings.append(Finding("Surface rule", phases_line(behaviour, phases), "ability.html"))
    of_space = [Finding(label, text, "taskspace.html") for label, text in space_findings(inputs).items()]
    return [*findings, *(_run_findings(inputs, found) if inputs.runs else []), *of_space]


def _run_findings(inputs: ReportInputs, found: Found) -> list[Finding]:
    """Return the findings on features, but for the controls of the crosscoder configured first."""
    first = inputs.runs[0]
    page = f"run-{first.key.slug}.html"
    findings = []
    if found:
        contrast, features = next(iter(found.items()))
        warning = caution(inputs.behaviour, contrast)
        text = f"{surface_line(first, found)}{warning}"
        findings.append(Finding("Features of the surface rule", text, "index.html#surface", features.numbers))
    for store in inputs.consolidations[:1]:
        findings.append(Finding("Languages", f"In {key_of(store).label}: {languages_line(store)}", "tasks.html"))
    return [
        *findings,
        Finding("Classes", class_line(first), page),
        Finding("False classes", identity_sentence(inputs.controls), page),
        Finding("Writer or reader", writing_sentence(first, inputs.contrasts[:1]), page),
        Finding("Crosscoders", quality_line(inputs.runs), "crosscoders.html"),
        Finding("Trust", trust_line(first), page),
    ]


def learnt_since(behaviour: xr.Dataset) -> dict[str, str | None]:
    """Return for each task the checkpoint from which on accuracy stays above chance by its interval, if any."""
    revisions, found = names(behaviour, "checkpoint"), {}
    for task in names(behaviour, "task"):
        above = (behaviour["accuracy_low"].sel(task=task) > CHANCE).values
        first = int(np.flatnonzero(~above)[-1]) + 1 if not above.all() else 0
        found[task] = revisions[first] if first < len(revisions) else None
    return found


def learnt_sentence(behaviour: xr.Dataset) -> str:
    """Return since when accuracy is above chance, on the first task and on the last one to get there."""
    since = learnt_since(behaviour)
    learnt = {task: checkpoint for task, checkpoint in since.items() if checkpoint is not None}
    count = f"{len(learnt)} of {counted(len(since), 'task')}"
    if not learnt:
        return f"Accuracy is above chance at the last checkpoint, by its interval, on {count}."
    order = names(behaviour, "checkpoint")
    first, last = (end(learnt, key=lambda task: order.index(learnt[task])) for end in (min, max))
    moments = f"from {moment(behaviour, learnt[first])} on"
    if learnt[first] != learnt[last]:
        moments = (
            f"the earliest ({quoted(first)}) from {moment(behaviour, learnt[first])} on, the latest ({quoted(last)})"
            f" from {moment(behaviour, learnt[last])} on"
        )
    return f"Accuracy rises above chance, by its interval, and stays there on {count}: {moments}."


def surface_phases(behaviour: xr.Dataset, contrasts: Sequence[Contrast]) -> dict[Contrast, SurfacePhase]:
    """Return the surface phase of each contrast that has one."""
    found = {contrast: find_surface_phase(behaviour, contrast) for contrast in contrasts}
    return {contrast: phase for contrast, phase in found.items() if phase is not None}


def phases_line(behaviour: xr.Dataset, phases: Mapping[Contrast, SurfacePhase]) -> str:
    """Return the first surface phase, and on which other tasks the same is seen."""
    (first, phase), *others = phases.items()
    text = (
        f"At {moment(behaviour, phase.clearest)} accuracy is {phase.surface_accuracy:.2f} on {quoted(first.surface)}"
        f" but {phase.conflicting_accuracy:.2f} on {quoted(first.conflicting)}, below chance, as if the model followed"
        f" the surface rule; {_end_words(phase)}."
    )
    same = [f"{quoted(other.conflicting)} ({of.conflicting_accuracy:.2f}; {_end_words(of)})" for other, of in others]
    return f"{text} The same is seen on {listed(same)}." if same else text


def _end_words(phase: SurfacePhase) -> str:
    return f"above chance on both from {phase.end} on" if phase.end else "no later checkpoint leaves it for good"


def surface_line(run: Run, found: Found) -> str:
    """Return what becomes of the features that the first contrast brings out, and how many others bring out, too."""
    (contrast, features), *others = found.items()
    text = sentence(found_words(contrast, features))
    told, last = features.followed, run.checkpoints[-1]
    if told is None:
        return f"{text}."
    confirmed = int(told["confirmed"].sum())
    text = f"{text} ({confirmed} of {len(features.features)} also on prefixes that did not choose them)"
    text = f"{text}{'' if features.checkpoint == last else _fate_words(run, contrast, told, last)}."
    same = {other: len(set(of.numbers) & set(features.numbers)) for other, of in others if of.numbers}
    shared = [
        f"{shared or 'none'} of the {len(found[other].numbers)} found on {quoted(other.conflicting)}"
        for other, shared in same.items()
    ]
    return f"{text} They include {listed(shared)}." if shared else text


def _fate_words(run: Run, contrast: Contrast, told: xr.Dataset, last: str) -> str:
    kept, helping = int(told["kept"].sum()), told["helps_newly"].values
    text = f"; at {last}, {kept} still {verb('harm', kept)}"
    if not helping.any():
        return f"{text}, and none has come to help in another condition"
    count, unit = int(helping.sum()), plural(run.units[contrast.conflicting])
    effect = course(told["effect"].sel(where="other").isel(place=helping))
    return (
        f"{text}, and {count} {'has' if count == 1 else 'have'} come to help in another condition, IE {effect} {unit}"
        f"{level_words(run, told)}"
    )


def languages_line(store: xr.Dataset) -> str:
    """Return which languages share features, on which families, and since when."""
    if is_many(store):
        return " ".join(language_sentences(store))
    return " ".join(pair_sentences(of_pair)[0] for of_pair in pairs_of(store))


def class_line(run: Run) -> str:
    """Return how frequent classes are beside random directions, with IE divided by the checkpoint's total."""
    if not has_random(run.relie):
        return "Not compared with random directions, which were not measured."
    return f"With IE divided by the checkpoint’s total |IE|: {chance_words(run.relie, TOTAL)}."


def quality_line(runs: Sequence[Run]) -> str:
    """Return how much of activations and of cross-entropy the crosscoders recover, over all checkpoints."""
    explained, recovered = quality_ranges(runs)
    above = sum(int(run.evaluation["recovered_above_one"].sum()) for run in runs)
    count = sum(run.evaluation.sizes["checkpoint"] for run in runs)
    more = f" (above one in {above} of {count} reconstructions, which is no achievement)" if above else ""
    return f"They explain {explained} of the variance of activations, and recover {recovered} of cross-entropy{more}."


def quality_ranges(runs: Sequence[Run]) -> list[str]:
    """Return the range of each measure of `QUALITY` over runs and checkpoints."""
    found = []
    for name in QUALITY:
        values = np.concatenate([run.evaluation[name].values for run in runs])
        low, high = decimal(float(values.min())), decimal(float(values.max()))
        found.append(low if low == high else f"{low} to {high}")
    return found


def ability_sentence(behaviour: xr.Dataset) -> str:
    """Return the accuracies at the last checkpoint in a sentence."""
    last, warned = behaviour["accuracy"].isel(checkpoint=-1), list(warnings_of(behaviour))
    where = f"At the last checkpoint, {moment(behaviour, str(last['checkpoint'].values))}"
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


def class_sentence(run: Run) -> str:
    """Return how frequent classes are beside random directions, and which are more frequent on some task."""
    if not has_random(run.relie):
        return "Not compared with random directions, which were not measured."
    divided, published = (chance_words(run.relie, basis) for basis in (TOTAL, PUBLISHED))
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
