"""Tasks as points over training, and whether they lie as hypothesised: figures, a table and sentences."""

import html
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from chronocoder.report.inputs import names
from chronocoder.report.style import GRID, INK, PALETTE, Json, finished
from chronocoder.report.taskspace import (
    P_SHOWN,
    Line,
    draw_course,
    group_style,
    largest,
    p_number,
    p_words,
    rounded,
    task_order,
)
from chronocoder.report.text import counted, decimal, in_words, percent

TRANSFER, GRADIENTS = "transfer", "gradients"
PANEL_HEIGHT_PX = 340
REACH = 1.2
COARSE_P = 0.01
"""Where the smallest p-value that there can be is not below this, it is told."""
COURSE_VARIABLES = (
    "within",
    "between",
    "contrast",
    "contrast_low",
    "contrast_high",
    "contrast_p",
    "stability",
    "stability_chance",
)
SPACE_COLUMNS = (
    "Within groups",
    "Between groups",
    "Difference",
    "p",
    "Stability",
    "Relabelled",
    "Between seeds",
    "Agreement of bases",
)


class GroupMark(NamedTuple):
    """How the tasks of a hypothesised group are drawn.

    Attributes:
        name: of the group, in words.
        colour: of its points.
        symbol: their shape, as a character.
        tasks: their numbers in the panels and their names; of many tasks, how many they are.
    """

    name: str
    colour: str
    symbol: str
    tasks: str


def group_marks(space: xr.Dataset) -> list[GroupMark]:
    """Return the legend of the groups."""
    order, found = task_order(space), []
    for place, group in enumerate(dict.fromkeys(order.groups)):
        colour, _, symbol = group_style(place)
        numbered = [
            f"{number}\u00a0{label}"
            for number, (label, of) in enumerate(zip(order.labels, order.groups, strict=True), start=1)
            if of == group
        ]
        tasks = counted(len(numbered), "task") if order.many else ", ".join(numbered)
        found.append(GroupMark(in_words(group), colour, symbol, tasks))
    return found


def draw_spaces(space: xr.Dataset) -> dict[str, list[Json]]:
    """Return for each basis a panel of each checkpoint; all panels of a basis have the same scale."""
    return {
        f"from {in_words(basis)}": [_panel(space.sel(basis=basis), place) for place in range(space.sizes["checkpoint"])]
        for basis in names(space, "basis")
    }


def draw_space_courses(space: xr.Dataset) -> dict[str, list[Json]]:
    """Return for each basis the courses of similarity within and between groups, their difference, and stability."""
    return {f"from {in_words(basis)}": _courses(space.sel(basis=basis), basis) for basis in names(space, "basis")}


def space_tables(space: xr.Dataset) -> dict[str, list[tuple[str, list[str]]]]:
    """Return for each basis the numbers of every checkpoint."""
    return {
        f"From {in_words(basis)}": [
            (checkpoint, _numbers(space.sel(basis=basis).isel(checkpoint=place), basis))
            for place, checkpoint in enumerate(names(space, "checkpoint"))
        ]
        for basis in names(space, "basis")
    }


def contrast_sentences(space: xr.Dataset) -> list[str]:
    """Return for each basis whether tasks of a group are more similar than others at the end, and since when."""
    return [_contrast_sentence(space.sel(basis=basis), basis) for basis in names(space, "basis")]


def stability_sentence(space: xr.Dataset) -> str:
    """Return how alike the spaces from transfer of successive checkpoints are, beside both controls; empty of one."""
    of_transfer = space.sel(basis=TRANSFER)
    if not of_transfer["stability"].notnull().any():
        return ""
    stable, chance, before, seeds = (
        decimal(float(of_transfer[name].mean()))
        for name in ("stability", "stability_chance", "seed_stability_before", "seed_stability")
    )
    sentence = (
        f"Spaces from transfer at successive checkpoints have a Procrustes similarity of {stable} on average, {chance}"
        " with tasks relabelled."
    )
    if not of_transfer["seed_stability"].notnull().any():
        return sentence
    between = f" Between two seeds of tuning it is {before} at successive checkpoints and {seeds} at the same one."
    return sentence + between


def _contrast_sentence(of_basis: xr.Dataset, basis: str) -> str:
    last, p_values = of_basis.isel(checkpoint=-1), of_basis["contrast_p"].values
    checkpoints = names(of_basis, "checkpoint")
    within, between, contrast, low, high, p_value = (
        float(last[name]) for name in ("within", "between", "contrast", "contrast_low", "contrast_high", "contrast_p")
    )
    where = f"At {checkpoints[-1]}, {'relative transfer' if basis == TRANSFER else 'gradient similarity'}"
    if not np.isfinite(contrast):
        return f"{where} within hypothesised groups cannot be compared with that between them."
    beyond = p_value < P_SHOWN and contrast > 0
    verdict = "is larger within" if beyond else "is not found to be larger within"
    text = (
        f"{where} {verdict} hypothesised groups than between them: {decimal(within)} against {decimal(between)},"
        f" difference {decimal(contrast)} ({decimal(low)} to {decimal(high)}), {p_words(p_value)} by relabelling tasks"
    )
    smallest = float(last["contrast_smallest_p"])
    if smallest >= COARSE_P:
        text = f"{text} (the smallest that such groups allow is {smallest:.2g})"
    if not beyond or len(checkpoints) == 1:
        return f"{text}."
    holds = (p_values < P_SHOWN) & (of_basis["contrast"].values > 0)
    since = checkpoints[len(holds) - int(np.argmin(holds[::-1]))] if not holds.all() else checkpoints[0]
    return f"{text}; this holds from {since} on."


def _panel(of_basis: xr.Dataset, place: int) -> Json:
    position = of_basis["position"].transpose("checkpoint", "task", "axis").values
    reach, at = REACH * largest(position), position[place]
    order = task_order(of_basis)
    placed, of_tasks = at[order.places], np.array(order.groups)
    known = np.isfinite(placed).all(axis=1)
    figure = go.Figure()
    for number, group in enumerate(dict.fromkeys(order.groups)):
        colour, symbol, _ = group_style(number)
        members = np.flatnonzero((of_tasks == group) & known)
        figure.add_trace(
            go.Scatter(
                x=rounded(placed[members, 0]),
                y=rounded(placed[members, 1]),
                text=[str(member + 1) for member in members],
                hovertext=[html.escape(order.labels[member]) for member in members],
                name=html.escape(in_words(group)),
                mode="markers" if order.many else "markers+text",
                textposition="top center",
                textfont={"size": 10},
                marker={
                    "color": colour,
                    "symbol": symbol,
                    "size": 7 if order.many else 9,
                    "line": {"width": 1, "color": INK},
                },
                hovertemplate="%{hovertext}",
                showlegend=False,
            )
        )
    axes = {"range": [-reach, reach], "showticklabels": False, "zerolinecolor": GRID, "zerolinewidth": 1}
    figure.update_xaxes(**axes, title_text=_axis_text(of_basis, place, 0))
    figure.update_yaxes(**axes, scaleanchor="x", title_text=_axis_text(of_basis, place, 1))
    missing = int((~known).sum())
    absent = f" ({missing} of {len(known)} tasks left out)" if missing else ""
    return finished(figure, f"{names(of_basis, 'checkpoint')[place]}{absent}", PANEL_HEIGHT_PX)


def _axis_text(of_basis: xr.Dataset, place: int, axis: int) -> str:
    part = float(of_basis["explained"].isel(checkpoint=place, axis=axis))
    return f"axis {axis + 1}: {percent(part)}" if np.isfinite(part) else f"axis {axis + 1}"


def _courses(of_basis: xr.Dataset, basis: str) -> list[Json]:
    value = {name: of_basis[name].values for name in COURSE_VARIABLES}
    clear = _filled(value["contrast_p"])
    notes = [p_words(p) for p in value["contrast_p"].tolist()]
    contrast = np.stack([value[f"contrast{end}"] for end in ("", "_low", "_high")])
    stability = [
        Line("with the checkpoint before", value["stability"][None], PALETTE[0]),
        Line("relabelled tasks", value["stability_chance"][None], PALETTE[8], "dot"),
    ]
    if basis == TRANSFER:
        of_seeds = {"between seeds, same checkpoint": "", "between seeds, checkpoint before": "_before"}
        stability += [
            Line(label, of_basis[f"seed_stability{end}"].values[None], colour, "dash")
            for (label, end), colour in zip(of_seeds.items(), (PALETTE[2], PALETTE[4]), strict=True)
        ]
    agreement = Line(
        "transfer and gradients",
        of_basis["agreement"].values[None],
        PALETTE[3],
        filled=_filled(of_basis["agreement_p"].values),
        notes=[p_words(p) for p in of_basis["agreement_p"].values.tolist()],
    )
    return [
        draw_course(
            of_basis,
            [
                Line("within groups", value["within"][None], PALETTE[0], filled=clear, notes=notes),
                Line("between groups", value["between"][None], PALETTE[1], "dash"),
            ],
            "Mean similarity within and between groups",
            "similarity",
        ),
        draw_course(
            of_basis,
            [Line("within less between", contrast, PALETTE[0], filled=clear, notes=notes)],
            "Difference, with its interval",
            "similarity",
        ),
        draw_course(of_basis, stability, "Procrustes similarity of spaces", "1 − disparity", [-0.05, 1.05]),
        draw_course(of_basis, [agreement], "Agreement of transfer and gradients", "Mantel correlation", [-1.05, 1.05]),
    ]


def _filled(p_values: np.ndarray) -> list[bool]:
    """Return which markers are filled; also where nothing is known, since the first one stands in the legend."""
    filled: list[bool] = (~(p_values >= P_SHOWN)).tolist()
    return filled


def _numbers(at: xr.Dataset, basis: str) -> list[str]:
    contrast, low, high = (decimal(float(at[f"contrast{end}"])) for end in ("", "_low", "_high"))
    seeds = decimal(float(at["seed_stability"])) if basis == TRANSFER else "–"
    agreement = float(at["agreement"])
    agrees = f"{decimal(agreement)} ({p_words(float(at['agreement_p']))})" if np.isfinite(agreement) else "–"
    return [
        decimal(float(at["within"])),
        decimal(float(at["between"])),
        f"{contrast} ({low} to {high})" if np.isfinite(float(at["contrast_low"])) else contrast,
        p_number(float(at["contrast_p"])),
        decimal(float(at["stability"])),
        decimal(float(at["stability_chance"])),
        seeds,
        agrees,
    ]
