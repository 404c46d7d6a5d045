"""What tuning on one task does to all, and what it costs: a table and sentences."""

from typing import NamedTuple

import numpy as np
import xarray as xr

from chronocoder.config.taskspace import RIGHT, SWAPPED
from chronocoder.figures.order import same_group
from chronocoder.figures.transfer import cells_beyond, method_labels, own_gain, perplexity_ratio, unit_words
from chronocoder.stores import names
from chronocoder.wording import counted, in_words, listed, signed

METHOD_COLUMNS = (
    "Own gain",
    "Change of accuracy",
    "Perplexity ×",
    "Largest ×",
    "Beyond chance within groups",
    "Beyond chance between groups",
)


class MethodRow(NamedTuple):
    """What one way of tuning does at one checkpoint.

    Attributes:
        checkpoint: its name.
        numbers: one a column of `METHOD_COLUMNS`, as text.
    """

    checkpoint: str
    numbers: list[str]


def method_tables(transfer: xr.Dataset) -> dict[str, list[MethodRow]]:
    """Return for each method a row of numbers at each checkpoint."""
    within, between = same_group(transfer, "target", "source_group", "group")
    return {
        label: [
            MethodRow(checkpoint, _method_numbers(transfer.sel(tuning=name, checkpoint=checkpoint), within, between))
            for checkpoint in names(transfer, "checkpoint")
        ]
        for name, label in method_labels(transfer).items()
    }


def transfer_sentence(transfer: xr.Dataset) -> str:
    """Return how much transfer there is between different tasks at the last checkpoint, beside the control."""
    last = transfer.isel(checkpoint=-1)
    where, main = f"At {names(transfer, 'checkpoint')[-1]}", in_words(names(transfer, "tuning")[0])
    controls = _of_objective(transfer, SWAPPED)
    if not controls:
        return (
            f"{where}, no transfer can be called beyond chance: what tuning does where there is nothing to learn was"
            " not measured."
        )
    within, between = same_group(transfer, "target", "source_group", "group")
    found, of_control = (cells_beyond(last.isel(tuning=method)) for method in (0, controls[0]))
    harmed = int((found & (within | between) & (_mean_transfer(last, 0) < 0)).sum())
    harm = f" ({harmed} of these for the worse)" if harmed else ""
    return (
        f"{where}, tuning on one task by {main} changes another one beyond chance in {_parts(found, within, between)}"
        f"{harm}; with right and wrong swapped at random, in {_part(of_control, within | between)} altogether."
    )


def damage_sentences(transfer: xr.Dataset) -> list[str]:
    """Return what the main method does to language modelling at the last checkpoint, beside plain tuning."""
    plain = _of_objective(transfer, RIGHT)
    return [_damage_sentence(transfer, place) for place in plain] or [_lone_damage(transfer)]


def _damage_sentence(transfer: xr.Dataset, plain: int) -> str:
    last = transfer.isel(checkpoint=-1)
    main, other = (in_words(names(last, "tuning")[place]) for place in (0, plain))
    ratios, gains = ([float(of(transfer)[at, -1].mean()) for at in (0, plain)] for of in (perplexity_ratio, own_gain))
    low, high = (last[f"mean_loss_change_{end}"].transpose("tuning", "source").values for end in ("low", "high"))
    below, above = int((high[0] < low[plain]).sum()), int((low[0] > high[plain]).sum())
    verdict = "less" if ratios[0] < ratios[1] else "no less"
    return (
        f"At {last['checkpoint'].values}, tuning by {main} multiplies the perplexity on validation text by"
        f" {ratios[0]:.3f}, the mean over {counted(last.sizes['source'], 'task')}, which is {verdict} than the"
        f" {ratios[1]:.3f} of {other}; its interval lies below that of {other} for {below} of them, above it for"
        f" {above}. The task tuned on gains {signed(gains[0])} by {main} and {signed(gains[1])} by {other}"
        f" ({unit_words(last)})."
    )


def _lone_damage(transfer: xr.Dataset) -> str:
    last, main = names(transfer, "checkpoint")[-1], in_words(names(transfer, "tuning")[0])
    ratio, gain = (float(of(transfer)[0, -1].mean()) for of in (perplexity_ratio, own_gain))
    return (
        f"At {last}, tuning by {main} multiplies the perplexity on validation text by {ratio:.3f}, the mean over"
        f" {counted(transfer.sizes['source'], 'task')}; the task tuned on gains {signed(gain)}"
        f" ({unit_words(transfer)}). Plain tuning was not run beside it."
    )


def _of_objective(transfer: xr.Dataset, objective: str) -> list[int]:
    return [place for place, name in enumerate(names(transfer, "objective")) if name == objective]


def _mean_transfer(at: xr.Dataset, method: int) -> np.ndarray:
    values: np.ndarray = at["mean_transfer"].isel(tuning=method).transpose("source", "target").values
    return values


def _part(found: np.ndarray, among: np.ndarray) -> str:
    return f"{int(found[among].sum())} of {int(among.sum())}"


def _parts(found: np.ndarray, within: np.ndarray, between: np.ndarray) -> str:
    """Return how many ordered pairs are among the found ones within and between groups, of the kinds there are."""
    kinds = [(within, "ordered pairs within groups"), (between, "ordered pairs between groups")]
    return listed([f"{_part(found, among)} {what}" for among, what in kinds if among.any()])


def _method_numbers(at: xr.Dataset, within: np.ndarray, between: np.ndarray) -> list[str]:
    gain, accuracy = (
        float(np.diagonal(at[name].transpose("source", "target").values).mean())
        for name in ("mean_transfer", "accuracy_change")
    )
    ratio, beyond = np.exp(at["mean_loss_change"].values), cells_beyond(at)
    return [
        f"{signed(gain)} {unit_words(at)}",
        signed(accuracy),
        f"{ratio.mean():.3f}",
        f"{ratio.max():.3f}",
        _part(beyond, within),
        _part(beyond, between),
    ]
