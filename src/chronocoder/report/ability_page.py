"""The page on ability: what the model can do when, how its activations change, and how comparisons were chosen."""

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from chronocoder.figures.ability import draw_ability, draw_group_ability
from chronocoder.figures.chart import Chart
from chronocoder.figures.choice import draw_changes, draw_fitted_steps
from chronocoder.figures.similarity import MEASURES, draw_similarity, draw_similarity_to_last
from chronocoder.report.choice import choice_rows
from chronocoder.report.inputs import ReportInputs
from chronocoder.report.site import FigureGroup, Placed, Site, slug
from chronocoder.report.summary import ability_sentence, learnt_sentence, learnt_since
from chronocoder.report.surface_story import moment
from chronocoder.report.tasks import MANY_TASKS, NO_BREAK, kinds_named, reasons_named, task_rows
from chronocoder.stores import names
from chronocoder.tasks.groups import KINDS, finest_groups, groups_of_kind, warnings_of
from chronocoder.wording import in_words

FOLDER, UNGROUPED = "ability", "others"


def ability_page(inputs: ReportInputs, site: Site) -> dict[str, Any]:
    """Write the figures of the page, and return what its template needs."""
    behaviour, scan = inputs.behaviour, inputs.scan
    return {
        "sentences": [ability_sentence(behaviour), learnt_sentence(behaviour)],
        "ability": ability_figures("ability", behaviour, inputs, site),
        "similarity": similarity_figures("similarity", inputs.similarity, inputs.comparisons, site),
        "undefined": undefined_sentences(inputs.similarity),
        "scan_ability": None if scan is None else ability_figures("scan-ability", scan, inputs, site),
        "scan_similarity": None
        if scan is None
        else similarity_figures("scan-similarity", scan, inputs.comparisons, site),
        "warned": len(warnings_of(behaviour)),
        "task_kinds": kinds_named(behaviour),
        "task_reasons": list(reasons_named(behaviour).values()),
        "task_rows": task_rows(behaviour),
        "since": [_unbroken(moment(behaviour, since)) if since else "" for since in learnt_since(behaviour).values()],
        "choice_rows": choice_rows(inputs.choice) if inputs.choice is not None else [],
        "choice_figures": choice_figures(inputs.choice, site),
    }


def ability_figures(name: str, behaviour: xr.Dataset, inputs: ReportInputs, site: Site) -> FigureGroup:
    """Write accuracy by task, and by language and phenomenon where tasks name several; of many tasks, groups first."""
    by_kind = {
        f"by {kind}": [draw_group_ability(behaviour, kind, inputs.comparisons)]
        for kind in KINDS
        if groups_of_kind(behaviour, kind)
    }
    by_task = {"by task": _task_charts(behaviour, inputs)}
    charts = {**by_kind, **by_task} if behaviour.sizes["task"] > MANY_TASKS else {**by_task, **by_kind}
    levels = ("Accuracy",) if len(charts) > 1 else ()
    return FigureGroup(name, _placed(name, charts, site, chosen=bool(levels)), levels)


def similarity_figures(
    name: str, similarities: xr.Dataset, comparisons: Mapping[str, Sequence[str]], site: Site
) -> FigureGroup:
    """Write heat maps of all measures and similarity to the last checkpoint, at each site."""
    charts = {
        place: _similarity_charts(similarities.sel(site=place), comparisons) for place in names(similarities, "site")
    }
    levels = ("Site",) if len(charts) > 1 else ()
    return FigureGroup(name, _placed(name, charts, site, chosen=bool(levels)), levels)


def undefined_sentences(similarities: xr.Dataset) -> list[str]:
    """Return which measures are undefined for some checkpoints, and why."""
    return [
        f"{title} is not defined for every two checkpoints: {similarities[name].attrs['undefined']}."
        for name, title in MEASURES.items()
        if name in similarities and "undefined" in similarities[name].attrs
    ]


def choice_figures(choice: xr.Dataset | None, site: Site) -> list[FigureGroup]:
    """Write the changes that comparisons were chosen by, and the curves of the tasks that change; none without any."""
    if choice is None or not choice.sizes["change"]:
        return []
    curves = [
        site.place(f"{FOLDER}/{slug('steps', task)}", draw_fitted_steps(choice, task), in_words(task))
        for task in dict.fromkeys(names(choice, "change_task"))
    ]
    return [
        FigureGroup("changes", [site.place(f"{FOLDER}/changes", draw_changes(choice))]),
        FigureGroup("steps", curves, ("Task",)),
    ]


def _unbroken(of_moment: str) -> str:
    """Return a checkpoint with the tokens seen, divided by a line break nowhere but between the two."""
    checkpoint, tokens = of_moment.split(" ", 1)
    return f"{checkpoint} {tokens.replace(' ', NO_BREAK)}"


def _task_charts(behaviour: xr.Dataset, inputs: ReportInputs) -> list[Chart]:
    """Return a chart of all tasks; of many, one of each group, of the kind that has most of them."""
    tasks = names(behaviour, "task")
    emphasised = [task for contrast in inputs.contrasts for task in contrast]
    if len(tasks) <= MANY_TASKS:
        return [draw_ability(behaviour, (), inputs.comparisons, emphasised)]
    groups = {in_words(group.name): [tasks[place] for place in group.tasks] for group in finest_groups(behaviour)}
    grouped = {task for group in groups.values() for task in group}
    groups[UNGROUPED if groups else "all tasks"] = [task for task in tasks if task not in grouped]
    return [
        draw_ability(behaviour, part, emphasised=emphasised, title=f"Accuracy: {title}")
        for group, members in groups.items()
        for title, part in _parts(group, members).items()
    ]


def _parts(group: str, tasks: Sequence[str]) -> dict[str, Sequence[str]]:
    """Return the tasks of a group in as many parts as it takes for a figure to tell them apart."""
    parts = [tasks[start : start + MANY_TASKS] for start in range(0, len(tasks), MANY_TASKS)]
    if len(parts) == 1:
        return {group: tasks}
    return {f"{group} ({number} of {len(parts)})": part for number, part in enumerate(parts, start=1)}


def _similarity_charts(at_site: xr.Dataset, comparisons: Mapping[str, Sequence[str]]) -> list[Chart]:
    maps = [draw_similarity(at_site[name], comparisons) for name in MEASURES if name in at_site]
    return [*maps, draw_similarity_to_last(at_site)]


def _placed(name: str, charts: Mapping[str, Sequence[Chart]], site: Site, chosen: bool) -> list[Placed]:
    """Write charts by what is chosen to see them, numbered where it shows several."""
    return [
        site.place(f"{FOLDER}/{slug(name, choice, str(number))}", chart, *([choice] if chosen else []))
        for choice, of_it in charts.items()
        for number, chart in enumerate(of_it, start=1)
    ]
