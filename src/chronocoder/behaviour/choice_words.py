"""Why comparisons were chosen: sentences for a reader, numbers for a program, and the curves as a store."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import xarray as xr
import yaml

from chronocoder.behaviour.changes import accuracy
from chronocoder.behaviour.choice import Choice, Curves, Move, Step, change_points
from chronocoder.behaviour.comparisons import CHOSEN, given_comparisons
from chronocoder.config import ChoiceSettings, Comparison
from chronocoder.stores import labelled, strings

MOST_LISTED = 5
"""Tasks of a step whose numbers are written down, the largest changes first; the store has those of all."""


def summary_of(choice: Choice, settings: ChoiceSettings) -> str:
    """Return in a sentence or two how many tasks change and what follows."""
    count, of_all = int(choice.changing.sum()), len(choice.curves)
    limits = f"false discovery rate {_percent(settings.false_discovery_rate)}"
    if not count:
        return (
            f"None of {of_all} tasks changes by {_points(settings.smallest_change)} or more and by more than curves"
            f" without change do ({limits}). Nothing is chosen."
        )
    tasks = f"{count} of {of_all} tasks {'change' if count > 1 else 'changes'} ({limits})."
    found = ", ".join(f"{name} ({_arrows(one.checkpoints)})" for name, one in choice.comparisons.items())
    known = "".join(f" {name} is given, and is not chosen again." for name in choice.repeated)
    if found:
        return f"{tasks} Chosen: {found}.{known}"
    return f"{tasks}{known}" if known else f"{tasks} No two checkpoints bracket a change within the budget."


def why_of(steps: list[Step], curves: Curves, settings: ChoiceSettings) -> str:
    """Return why a comparison was chosen, in sentences."""
    turn = _turn_words(steps, curves) if len(steps) > 1 else ""
    return " ".join([*([turn] if turn else []), *(_step_words(step, curves, settings) for step in steps)])


def evidence_of(step: Step, curves: Curves) -> dict[str, object]:
    """Return the numbers behind a step as plain values."""
    names = curves.revisions
    return {
        "before": names[step.before],
        "after": names[step.after],
        "linear_cka": _rounded(step.similarity),
        "tasks_that_rise": sum(move.change > 0 for move in step.moves),
        "tasks_that_fall": sum(move.change < 0 for move in step.moves),
        "largest_changes": [
            {
                "task": move.task,
                "accuracy_before": {"choosing": _rounded(move.before[0]), "confirming": _rounded(move.before[1])},
                "accuracy_after": {"choosing": _rounded(move.after[0]), "confirming": _rounded(move.after[1])},
                "confirmed_change": list(map(_rounded, move.confirmed)),
                "change_by_chance": _rounded(move.by_chance),
                "halfway_at": [names[int(place)] for place in move.halfway],
            }
            for move in step.moves[:MOST_LISTED]
        ],
    }


def choice_store(choice: Choice, curves: Curves, settings: ChoiceSettings) -> xr.Dataset:
    """Return the curves of both halves, their fits, and every change in them with its intervals.

    Returns:
        Dims (task, checkpoint) and (change,); attribute `summary`.
    """
    found = [
        (task.task, place, move)
        for task, moves in zip(choice.curves, choice.changing, strict=True)
        if moves
        for place, move in change_points(task, settings)
        if abs(move.change) >= settings.smallest_change
    ]
    halves = {
        half: np.stack(
            [
                accuracy(getattr(task, half)) if len(getattr(task, half)) else task.levels * np.nan
                for task in choice.curves
            ]
        )
        for half in ("choosing", "confirming")
    }
    of_curve, of_task, of_change = ("task", "checkpoint"), ("task",), ("change",)
    names, covers = np.array(curves.revisions), f"{settings.confidence:.0%} interval"
    moves = [move for _, _, move in found]
    size = np.array([[move.change, *move.confirmed, move.by_chance] for move in moves]).reshape(-1, 5)
    places = np.array([[place - 1, place, *map(int, move.halfway[1:])] for _, place, move in found], dtype=int)
    revisions = [strings(list(names[column])) for column in places.reshape(-1, 4).T]
    variables = {
        "accuracy_choosing": labelled(of_curve, halves["choosing"], "accuracy on the half of the pairs that chooses"),
        "accuracy_confirming": labelled(of_curve, halves["confirming"], "accuracy on the other half"),
        "fitted_accuracy": labelled(of_curve, np.stack([task.levels for task in choice.curves]), "fit by steps"),
        "p_value": labelled(of_task, [task.p_value for task in choice.curves], "p-value of a curve without change"),
        "q_value": labelled(of_task, choice.q_values, "least false discovery rate at which the task changes"),
        "changes": labelled(of_task, choice.changing, "whether the task changes"),
        "change_task": labelled(of_change, strings([task for task, _, _ in found]), "task that changes"),
        "last_before": labelled(of_change, revisions[0], "last checkpoint of the level before"),
        "first_after": labelled(of_change, revisions[1], "first checkpoint of the level after"),
        "first_after_low": labelled(of_change, revisions[2], f"lower end of its {covers}"),
        "first_after_high": labelled(of_change, revisions[3], f"upper end of its {covers}"),
        "change_choosing": labelled(of_change, size[:, 0], "change between the levels on the half that chooses"),
        "change_confirming": labelled(of_change, size[:, 1], "change between the levels on the other half"),
        "change_confirming_low": labelled(of_change, size[:, 2], f"lower end of its {covers}"),
        "change_confirming_high": labelled(of_change, size[:, 3], f"upper end of its {covers}"),
        "change_by_chance": labelled(of_change, size[:, 4], "what it exceeds without change in few cases"),
    }
    coordinates = {
        "task": strings([task.task for task in choice.curves]),
        "checkpoint": strings(curves.revisions),
        "tokens_seen": ("checkpoint", list(curves.tokens_seen.values())),
    }
    return xr.Dataset(variables, coordinates, {"summary": summary_of(choice, settings)})


def comparisons_text(
    given: Mapping[str, Comparison], choice: Choice, curves: Curves, settings: ChoiceSettings, site: str
) -> str:
    """Return `comparisons.yaml`: the given comparisons, the chosen ones with the reason, and a summary as a comment.

    Args:
        given: comparisons of the configuration.
        choice: what was chosen.
        curves: what from.
        settings: what by.
        site: the suite's.
    """
    document = given_comparisons(given, site)
    for (name, entry), steps in zip(
        given_comparisons(choice.comparisons, site).items(), choice.steps.values(), strict=True
    ):
        evidence = [evidence_of(step, curves) for step in steps]
        document[name] = entry | {"chosen": CHOSEN, "why": why_of(steps, curves, settings), "evidence": evidence}
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    return f"# {summary_of(choice, settings)}\n{body}"


def _step_words(step: Step, curves: Curves, settings: ChoiceSettings) -> str:
    names, (largest, *_) = curves.revisions, step.moves
    rises = sum(move.change > 0 for move in step.moves)
    falls = len(step.moves) - rises
    counts = [_tasks(rises, "rises"), _tasks(falls, "falls")]
    text = (
        f"From {names[step.before]} to {names[step.after]}, {' and '.join(filter(None, counts))} by"
        f" {_points(settings.smallest_change)} or more. {_move_words(largest, curves, settings)}"
    )
    opposite = next((move for move in step.moves if move.change * largest.change < 0), None)
    against = f" Meanwhile {_in_words(opposite.task)} {_change_words(opposite)}." if opposite else ""
    alike = f" Linear CKA of the activations is {step.similarity:.2f}." if np.isfinite(step.similarity) else ""
    return f"{text}{against}{alike}"


def _move_words(move: Move, curves: Curves, settings: ChoiceSettings) -> str:
    names = curves.revisions
    at, low, high = (names[int(place)] for place in move.halfway)
    change, *ends = (f"{100 * end:+.0f}".replace("-", "−") for end in move.confirmed)
    covers, usual = f"{_percent(settings.confidence)} interval", _percent(1 - settings.false_discovery_rate)
    place = f"at {at}" if low == high else f"at {at} ({covers} {low} to {high})"
    return (
        f"The largest change: {_in_words(move.task)} {_change_words(move)} on the half of the pairs that chose the"
        f" checkpoints, and from {_percent(move.before[1])} to {_percent(move.after[1])} on the other half (by {change}"
        f" points, {covers} {' to '.join(ends)}; without change by no more than {100 * move.by_chance:.0f} in {usual}"
        f" of cases).{_doubt(move)} It is half-way {place}."
    )


def _doubt(move: Move) -> str:
    """Return a warning where the other half does not bear a change out."""
    borne_out = move.confirmed.low > 0 if move.change > 0 else move.confirmed.high < 0
    return "" if borne_out else " The other half does not confirm it."


def _turn_words(steps: list[Step], curves: Curves) -> str:
    """Return which task turns most between two steps, if one does."""
    by_task = [{move.task: move for move in step.moves} for step in steps]
    turns = [
        (one[task], other[task], step)
        for (one, other), step in zip(pairwise(by_task), steps[1:], strict=True)
        for task in one
        if task in other and one[task].change * other[task].change < 0
    ]
    if not turns:
        return ""
    first, second, step = max(turns, key=lambda turn: min(abs(turn[0].change), abs(turn[1].change)))
    place = curves.revisions[step.before]
    return f"A turn at {place}: {_in_words(first.task)} {_change_words(first)}, then {_change_words(second)}."


def _change_words(move: Move) -> str:
    return f"{'rises' if move.change > 0 else 'falls'} from {_percent(move.before[0])} to {_percent(move.after[0])}"


def _tasks(count: int, verb: str) -> str:
    return f"{count} task {verb}" if count == 1 else f"{count} tasks {verb.removesuffix('s')}" if count else ""


def _in_words(task: str) -> str:
    return f"“{task.replace('_', ' ')}”"


def _arrows(checkpoints: list[str]) -> str:
    return " → ".join(checkpoints)


def _percent(part: float) -> str:
    return f"{100 * part:.0f} %"


def _points(part: float) -> str:
    return f"{100 * part:.0f} points"


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
