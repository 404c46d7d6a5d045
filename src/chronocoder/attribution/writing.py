"""Writer or reader: whether a feature's effect changes with what is written, or with how it is read.

v(w, r) is the effect, in the model of checkpoint r and on its own activations, of changing a feature as checkpoint w
writes it: the intervention's change of the code times W_dec^w s_w / s_r, the decoder row of w in units of r. v(A, A)
is the indirect effect at A. From A to B it changes by v(B, B) - v(A, A), which the Shapley values of the two switches
share out (Shapley 1953):

    written: ((v(B, A) - v(A, A)) + (v(B, B) - v(A, B))) / 2
    read:    ((v(A, B) - v(A, A)) + (v(B, B) - v(B, A))) / 2

The code is that of the crosscoder, which all checkpoints share. Where a writer's activations do not support it, its own
code is taken in its place, in all effects of this writer.

Nothing is written from one checkpoint to another of another width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from chronocoder.attribution.choices import Chosen
from chronocoder.attribution.controls import draw_names, mix_rows
from chronocoder.attribution.effects import Prompts
from chronocoder.attribution.exact import effects_alone
from chronocoder.attribution.interventions import OTHER_PREFIX
from chronocoder.attribution.measures import CONTROL, TOP, mean_interval
from chronocoder.attribution.prompts import PromptBatch
from chronocoder.attribution.sampling import Units, average, resampled_means, unit_sums
from chronocoder.config import AttributionSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.crosscoder.own_codes import OwnCodes
from chronocoder.stores import strings
from chronocoder.suites.sites import Site

PARTS = ("written", "read")
PURPOSE = 9
"""Of random numbers: directions that stand in for top features."""


@dataclass(frozen=True)
class Writers:
    """What each checkpoint writes with some features, and along random directions with the codes of the top ones.

    Attributes:
        crosscoder: folded.
        own_codes: what makes own codes; None where all codes count as supported.
        features: number of the feature whose code each row is written with, shape (row,): all that were chosen, then
            the top ones again in each draw, which stand for random directions.
        chosen: how many of the rows are those of features.
        rows: what is written, in normalised units, shape (checkpoint, row, d_model).
        own: where the own code of the checkpoint is taken, shape (checkpoint, row).
    """

    crosscoder: Crosscoder
    own_codes: OwnCodes | None
    features: np.ndarray
    chosen: int
    rows: Float[Tensor, "checkpoint row d_model"]
    own: Bool[np.ndarray, "checkpoint row"]

    @classmethod
    def of(
        cls, crosscoder: Crosscoder, chosen: Chosen, own_codes: OwnCodes | None, settings: AttributionSettings
    ) -> "Writers":
        """Return the writers of a crosscoder, with a random direction in each draw in place of each top feature."""
        tops = np.tile(chosen.top, (settings.random_directions, 1))
        features = np.concatenate([chosen.features, tops.ravel()])
        own_rows = crosscoder.decoder_rows[torch.from_numpy(chosen.features).to(crosscoder.b_dec.device)]
        random = mix_rows(crosscoder, tops, np.random.default_rng([settings.seed, PURPOSE]))
        rows = (torch.cat([own_rows, random.flatten(0, 1)]) * crosscoder.scale[:, None]).transpose(0, 1)
        shape = (len(crosscoder.scale), len(features))
        own = np.zeros(shape, dtype=bool) if own_codes is None else ~own_codes.supported[:, features]
        return cls(crosscoder, own_codes, features, len(chosen.features), rows, own)

    @property
    def comparable(self) -> Bool[np.ndarray, "writer reader"]:
        """Which checkpoints are as wide as which others."""
        widths = np.array(self.crosscoder.config.widths)
        same: np.ndarray = widths[:, None] == widths
        return same

    @torch.no_grad()
    def changes(self, batch: PromptBatch, intervention: str) -> Float[Tensor, "checkpoint batch position row"]:
        """Return what the intervention adds to the code by which each checkpoint writes each row."""
        features = torch.from_numpy(self.features).to(batch.codes.device)
        changes = batch.prompts[0].change[..., features].repeat(len(self.own), 1, 1, 1)
        if self.own_codes is not None:
            for writer in np.flatnonzero(self.own.any(axis=1)).tolist():
                of_own = torch.from_numpy(self.own[writer]).to(features.device)
                change = _own_change(self.crosscoder, self.own_codes, batch, writer, intervention)
                changes[writer][..., of_own] = change[..., features[of_own]]
        return changes

    def swapped(self, prompts: Prompts, changes: Tensor, reader: int, writers: Tensor, rows: Tensor) -> Prompts:
        """Return prompts of a reader with what is written elsewhere, in place of features.

        Args:
            prompts: with any features.
            changes: what `changes` returns.
            reader: number of the checkpoint whose prompts they are.
            writers: numbers of the checkpoints that write, shape (swap,).
            rows: places of what they write, shape (swap,).
        """
        weight = self.rows[writers, rows, : prompts.weight.shape[1]] / self.crosscoder.scale[reader]
        return prompts._replace(change=changes[writers, :, :, rows].movedim(0, -1), weight=weight, controls=0)


def measure_writing(
    writers: Writers,
    sites: Sequence[Site],
    batch: PromptBatch,
    settings: AttributionSettings,
    known: Float[np.ndarray, "checkpoint example feature"],
    swapped: Float[np.ndarray, "writer reader example row"],
) -> None:
    """Measure v(w, r) for every two checkpoints on a batch; of a single checkpoint, nothing.

    Args:
        writers: what is written.
        sites: the site in each checkpoint's model.
        batch: the examples.
        settings: intervention and batch size.
        known: exact effects of the chosen features, those of the batch among them: v(r, r) where the code is supported.
        swapped: v, filled in for the batch; NaN where the writer is not as wide as the reader.
    """
    if len(sites) == 1:
        return
    changes = writers.changes(batch, settings.intervention)
    is_known = ~writers.own & (np.arange(len(writers.features)) < writers.chosen)
    for reader, (site, prompts) in enumerate(zip(sites, batch.prompts, strict=True)):
        examples = batch.rows.examples
        of_known = np.ix_(examples, np.flatnonzero(is_known[reader]))
        swapped[reader, reader][of_known] = known[reader][of_known]
        others = ~writers.comparable[:, reader]
        swapped[np.ix_(np.flatnonzero(others), np.array([reader]), examples)] = np.nan
        skipped = np.repeat(others[:, None], is_known.shape[1], axis=1)
        skipped[reader] = is_known[reader]
        of, rows = np.nonzero(~skipped)
        places = (torch.from_numpy(of).to(changes.device), torch.from_numpy(rows).to(changes.device))
        effects = effects_alone(site, writers.swapped(prompts, changes, reader, *places), settings)
        np.add.at(swapped[:, reader], (of[:, None], examples, rows[:, None]), effects.T.cpu().numpy())


def summarise_writing(
    effects: xr.DataArray, top: xr.DataArray, units: Units, draws: np.ndarray, settings: AttributionSettings
) -> dict[str, xr.DataArray]:
    """Split the change of effects from each checkpoint to each later one of its width; nothing where there is none.

    Args:
        effects: v, dims (writer, reader, example, row).
        top: which of the chosen features are top ones, dims (feature,); the rows after them are random directions, one
            draw after the other.
        units: of the examples.
        draws: resamples of the units.
        settings: coverage of the intervals, and the number of draws of random directions.

    Returns:
        `own_effect` is v(r, r), dims (checkpoint, feature). `written_change` and `read_change` (pair, feature); with
        `condition_` in front (pair, condition, feature). `written_sum` and `read_sum` (pair, group): over the features
        of a group, positive in the direction in which the effect of each changes, means over conditions of such sums;
        each draw of random directions is a group. `written_share` (pair, group): of the former in both. All these with
        `_low` and `_high`. With `random_` in front (pair, control, top_feature), of random directions in place of each
        top feature, one draw a control; not without draws.
    """
    known = effects.notnull().all(["example", "row"]).transpose("writer", "reader").values
    pairs = [pair for pair in combinations(range(effects.sizes["reader"]), 2) if known[pair]]
    if not pairs:
        return {}
    sums = unit_sums(_split(effects, pairs), units)
    versions = average(sums, units), resampled_means(draws, sums, units)
    features = slice(len(top))
    signs = np.sign(versions[0].isel(condition=slice(1, None)).sum("part"))
    groups = _groups(top, settings.random_directions)

    def summed(values: xr.DataArray) -> xr.DataArray:
        aligned = values.isel(condition=slice(1, None)) * signs
        of_groups: xr.DataArray = xr.dot(aligned, groups, dim="row").mean("condition")
        return of_groups.transpose(..., "pair", "group")

    views: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
        "{}_change": lambda values: values.isel(condition=0, row=features).rename(row="feature"),
        "condition_{}_change": lambda values: (
            values.isel(condition=slice(1, None), row=features)
            .transpose(..., "pair", "condition", "row")
            .rename(row="feature")
        ),
        "{}_sum": summed,
    }
    found = {"own_effect": _own_effect(effects, units).isel(row=features).rename(row="feature")}
    if settings.random_directions:
        random = _by_draw(versions[0].isel(condition=0, row=slice(len(top), None)), settings.random_directions)
        found |= {f"random_{part}_change": random.sel(part=part, drop=True) for part in PARTS}
    for name, view in views.items():
        for part in PARTS:
            viewed = [view(values.sel(part=part, drop=True)) for values in versions]
            found |= _with_ends(name.format(part), *viewed, confidence=settings.confidence)
    sums_of_parts = [summed(values) for values in versions]
    shares = [values.sel(part=PARTS[0], drop=True) / _nonzero(values.sum("part")) for values in sums_of_parts]
    return found | _with_ends("written_share", *shares, confidence=settings.confidence)


def _split(effects: xr.DataArray, pairs: Sequence[tuple[int, int]]) -> xr.DataArray:
    """Return the Shapley values of writer and reader, dims (part, pair, example, row)."""
    v = effects.transpose("writer", "reader", "example", "row").values
    earlier, later = np.array(pairs).T
    whole = v[later, later] - v[earlier, earlier]
    crossed = v[later, earlier] - v[earlier, later]
    names = effects["reader"].values
    coordinates = {"part": list(PARTS), "earlier": ("pair", names[earlier]), "later": ("pair", names[later])}
    parts = np.stack([whole + crossed, whole - crossed]) / 2
    return xr.DataArray(parts, dims=("part", "pair", "example", "row"), coords=coordinates)


def _own_effect(effects: xr.DataArray, units: Units) -> xr.DataArray:
    """Return the mean of v(r, r), dims (checkpoint, row)."""
    own = np.einsum("rrei->rei", effects.transpose("writer", "reader", "example", "row").values)
    named = xr.DataArray(own, dims=("checkpoint", "example", "row"))
    return average(unit_sums(named, units), units).isel(condition=0, drop=True)


def _by_draw(values: xr.DataArray, draws: int) -> xr.DataArray:
    """Return what is known of the rows of random directions, dims (..., row), with dims (..., control, top_feature)."""
    last = values.transpose(..., "row")
    dims = (*last.dims[:-1], "control", "top_feature")
    shape = (*last.shape[:-1], draws, last.sizes["row"] // draws)
    return xr.DataArray(
        last.values.reshape(shape), dims=dims, coords={**last.coords, "control": strings(draw_names(draws))}
    )


def _groups(top: xr.DataArray, draws: int) -> xr.DataArray:
    """Return which rows are of each group, dims (group, row)."""
    names = [TOP, CONTROL, *draw_names(draws)]
    of_rows = np.where(top, 0, 1), np.repeat(np.arange(2, len(names)), int(top.sum()))
    members = np.arange(len(names))[:, None] == np.concatenate(of_rows)
    return xr.DataArray(members.astype(np.float32), dims=("group", "row"), coords={"group": strings(names)})


def _nonzero(values: xr.DataArray) -> xr.DataArray:
    found: xr.DataArray = values.where(values != 0)
    return found


def _with_ends(
    name: str, estimate: xr.DataArray, resampled: xr.DataArray, *, confidence: float
) -> dict[str, xr.DataArray]:
    interval = mean_interval(resampled, confidence)
    return {name: estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _own_change(
    crosscoder: Crosscoder, own_codes: OwnCodes, batch: PromptBatch, writer: int, intervention: str
) -> Float[Tensor, "batch position feature"]:
    """Return what the intervention adds to the own code of a checkpoint."""

    def encode(activation: Tensor) -> Tensor:
        flat = activation.flatten(0, 1).to(crosscoder.b_dec.dtype)
        codes: Tensor = own_codes.encode(crosscoder, flat, writer).unflatten(0, activation.shape[:2])
        return codes

    prompts = batch.prompts[writer]
    target: Tensor = encode(prompts.end) if intervention in OTHER_PREFIX else batch.codes + prompts.change
    change = target - encode(prompts.state.activation)
    change[:, 0] = 0
    return change


def _named(name: str, long_name: str, units: str = "logit") -> dict[str, tuple[str, str]]:
    ends = {"_low": "lower end of its {percent} interval", "_high": "upper end of its {percent} interval"}
    return {name: (long_name, units), **{f"{name}{end}": (words, units) for end, words in ends.items()}}


WRITING_NAMES = {
    "own_code": ("whether the checkpoint writes its own code, since it does not support that of all", "1"),
    "own_effect": ("effect of what the checkpoint writes itself, with its own code where that is taken", "logit"),
    **_named("written_change", "change of the effect from the earlier to the later, by what is written"),
    **_named("read_change", "change of the effect from the earlier to the later, by how it is read"),
    **_named("condition_written_change", "change of the effect by what is written, by condition"),
    **_named("condition_read_change", "change of the effect by how it is read, by condition"),
    "random_written_change": ("change by what is written, of a random direction in place of the feature", "logit"),
    "random_read_change": ("change by how it is read, of a random direction in place of the feature", "logit"),
    **_named("written_sum", "sum over a group of the changes by what is written, in the change's direction"),
    **_named("read_sum", "sum over a group of the changes by how it is read, in the change's direction"),
    **_named("written_share", "share of what is written in the changes of a group", "1"),
}
"""What the variables are called, and their units."""
