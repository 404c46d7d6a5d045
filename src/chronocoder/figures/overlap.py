"""Whether tasks, and languages, are served by the same features, beside the levels of chance and of noise."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr

from chronocoder.figures.chart import Chart, plain, styled
from chronocoder.figures.lines import (
    PANEL_ROOM,
    Line,
    add_legend,
    course_words,
    draw_checkpoint_axis,
    draw_line,
    line_data,
)
from chronocoder.figures.matrix import Matrix, draw_matrix
from chronocoder.figures.order import same_group, task_order
from chronocoder.figures.panels import draw_panels
from chronocoder.figures.tidy import tidy
from chronocoder.stores import names
from chronocoder.wording import decimal, in_words, listed, sentence

HEADLINE = {"measure": "weighted", "sign": "helping"}
KINDS = {
    "weighted by helping effect": HEADLINE,
    "weighted by |IE|": {"measure": "weighted", "sign": "either"},
    "top features that help": {"measure": "top", "sign": "helping"},
    "top features by |IE|": {"measure": "top", "sign": "either"},
}
"""Ways to compare the effects of features in two languages, by what they are called."""
SAME, DIFFERENT, CEILING = "same phenomenon", "different phenomena", "halves of one task (ceiling)"
RANDOM, EXCHANGED = "random directions", "features exchanged"
LEVELS = {
    "ceiling": ("within a language (ceiling)", 2),
    "other_families": ("other families, same language", 5),
    "random": (RANDOM, 8),
    "permuted": (EXCHANGED, 1),
}
"""What the overlap between languages is seen beside: names, and places of their styles."""
BANDS = ("random", "permuted")
BETWEEN = "between the languages"
TASK_COLUMNS = ("jaccard", "chance", "random", "q_value", "beyond_chance", "features_compared")
TASK_LEVELS = {"random": (RANDOM, 8), "chance": (EXCHANGED, 1)}
OVERLAP_BOUNDS = (-0.02, 1.02)


@styled
def draw_task_overlap(overlaps: xr.Dataset, checkpoint: str) -> Chart:
    """Draw the overlap of the top features of every two tasks at one checkpoint, asterisks where it is beyond chance.

    Args:
        overlaps: `compare_tasks` of a run, dims (checkpoint, task, other_task).
        checkpoint: its name.
    """
    at, order = overlaps.sel(checkpoint=checkpoint), task_order(overlaps, group="phenomenon")
    values, beyond = (at[name].transpose("task", "other_task").values for name in ("jaccard", "beyond_chance"))
    data = tidy(at, {name: name for name in TASK_COLUMNS}, ("task", "other_task"))
    matrix = Matrix(values, order, order, (0, 1), "Jaccard index", marked=beyond)
    return draw_matrix(f"Overlap of top features at {checkpoint}", data, matrix)


@styled
def draw_task_overlap_course(overlaps: xr.Dataset) -> Chart:
    """Draw the mean overlap of top features over pairs of tasks at each checkpoint, beside ceiling and chance.

    Args:
        overlaps: `compare_tasks` of a run, dims (checkpoint, task, other_task).
    """
    lines = [Line(name, values, style) for name, (values, style) in task_overlap_means(overlaps).items()]
    chart = Chart("Overlap of top features between tasks", line_data(overlaps, lines), course_words(overlaps, lines))
    axes = chart.subplots()
    places = draw_checkpoint_axis(axes, overlaps)
    for line in lines:
        draw_line(axes, places, line)
    axes.set(ylim=OVERLAP_BOUNDS, ylabel="Jaccard index, mean over pairs")
    add_legend(chart, axes)
    return chart


def task_overlap_means(overlaps: xr.Dataset) -> dict[str, tuple[np.ndarray, int]]:
    """Return means over pairs of tasks at each checkpoint, with the place of their style, of what there is."""
    within, between = same_group(overlaps, group="phenomenon", other_group="phenomenon")
    own = np.eye(overlaps.sizes["task"], dtype=bool)
    value = {name: overlaps[name].transpose("checkpoint", "task", "other_task") for name in ("jaccard", *TASK_LEVELS)}
    kinds = {SAME: (within, 0), DIFFERENT: (between, 4), CEILING: (own, 2)}
    found = {
        name: (_mean_over(value["jaccard"], pairs), style) for name, (pairs, style) in kinds.items() if pairs.any()
    }
    levels = {label: (_mean_over(value[name], ~own), style) for name, (label, style) in TASK_LEVELS.items()}
    return found | {label: of for label, of in levels.items() if np.isfinite(of[0]).any()}


@styled
def draw_language_overlap(of_pair: xr.Dataset, kind: str) -> Chart:
    """Draw the overlap between two languages at each checkpoint beside its levels, a panel for each family.

    Filled: beyond both null levels; bars and bands: intervals.

    Args:
        of_pair: what `consolidate` gives for one pair of languages, dims (measure, sign, family, checkpoint).
        kind: one of `KINDS`.
    """
    here = of_pair.sel(KINDS[kind])
    families = names(here, "family")
    panels = {family: list(_language_lines(here.sel(family=family))) for family in families}
    data = pd.concat(
        [line_data(here, lines).assign(family=family) for family, lines in panels.items()], ignore_index=True
    )
    chart = Chart(f"Overlap {BETWEEN}, {kind}", data, _language_words(here))
    for axes, (family, lines) in draw_panels(chart, panels.items()):
        places = draw_checkpoint_axis(axes, here, PANEL_ROOM)
        for line in lines:
            draw_line(axes, places, line)
        axes.set(ylim=OVERLAP_BOUNDS, ylabel="overlap")
        axes.set_title(plain(sentence(in_words(family))), fontsize=9)
    add_legend(chart, chart.axes[0])
    return chart


@styled
def draw_language_matrix(consolidation: xr.Dataset, checkpoint: str) -> Chart:
    """Draw the mean overlap of helping effects of every two languages at one checkpoint, over families.

    Asterisks: the languages share features on some family.

    Args:
        consolidation: what `consolidate` gives, dims (measure, sign, family, checkpoint, language_pair).
        checkpoint: its name.
    """
    at = consolidation.sel(HEADLINE).sel(checkpoint=checkpoint)
    languages = list(dict.fromkeys([*names(at, "first_language"), *names(at, "second_language")]))
    ends = [[languages.index(name) for name in names(at, f"{which}_language")] for which in ("first", "second")]
    overlap, shared = np.full((len(languages), len(languages)), np.nan), np.zeros((len(languages),) * 2, dtype=bool)
    for one, other in (ends, ends[::-1]):
        overlap[one, other], shared[one, other] = at["overlap"].mean("family").values, at["shared"].any("family").values
    order = task_order(xr.Dataset(coords={"task": languages, "group": ("task", languages)}))
    columns = {"first_language": "first_language", "second_language": "second_language", "overlap": "overlap"}
    data = tidy(at.reset_coords(), {**columns, "shared": "shared"}, ("family", "language_pair"))
    matrix = Matrix(overlap, order, order, (0, 1), "overlap, mean over families", marked=shared, noun="language")
    return draw_matrix(f"Overlap between languages at {checkpoint}", data, matrix)


def _mean_over(values: xr.DataArray, pairs: np.ndarray) -> np.ndarray:
    mean: np.ndarray = xr.DataArray(values.values[:, pairs], dims=("checkpoint", "pair")).mean("pair").values
    return mean


def _language_lines(here: xr.Dataset) -> Iterator[Line]:
    """Yield the levels of one family, and the overlap last, above all."""
    for name, (label, style) in LEVELS.items():
        low, high = (here[f"{name}{end}"].values if name in BANDS else None for end in ("_low", "_high"))
        yield Line(label, here[name].values, style, low, high, band=True)
    overlap, low, high = (here[f"overlap{end}"].values for end in ("", "_low", "_high"))
    shared = here["shared"].values
    yield Line(BETWEEN, overlap, 0, low, high, shared, {"shared": shared})


def _language_words(here: xr.Dataset) -> str:
    """Return in words the overlap of each family at the last checkpoint."""
    last = here.isel(checkpoint=-1)
    parts = [
        f"{in_words(family)} {decimal(float(last['overlap'].sel(family=family)))}" for family in names(last, "family")
    ]
    exchanged = decimal(float(last["permuted"].mean()))
    return (
        f"A panel for each family. At {last['checkpoint'].values} the overlap is {listed(parts)}; with features"
        f" exchanged it is {exchanged} on average."
    )
