"""Controls of effects and classes: what directions without a meaning, and prefixes without order, would have given."""

from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from chronocoder.attribution.effects import Prompts
from chronocoder.attribution.measures import CLASSES, SHUFFLED
from chronocoder.config import AttributionSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.stores import strings
from chronocoder.tasks.readout import RIGHT
from chronocoder.tasks.rows import reads_prefixes

NEIGHBOURS = 50
"""Random directions that the level of a feature comes from."""
SHUFFLED_VARIABLES = ("token_id", "counterfactual_id", "partner_id")


class RandomDirections(NamedTuple):
    """Directions along which features write in place of their own.

    Attributes:
        features: those that are tried in each draw, shape (draw, feature).
        rows: what they write along at each checkpoint, shape (draw, feature, checkpoint, d_model).
    """

    features: np.ndarray
    rows: Float[Tensor, "draw feature checkpoint d_model"]

    @property
    def names(self) -> list[str]:
        """The draws in words."""
        return draw_names(len(self.features))

    def added_to(self, prompts: Prompts, everything: Prompts, checkpoint: int) -> Prompts:
        """Return prompts with the features of all draws behind their own, one draw after the other.

        Args:
            prompts: with some features.
            everything: the same with all features.
            checkpoint: its number.
        """
        alone = self.alone(everything, checkpoint)
        change = torch.cat([prompts.change, alone.change], dim=-1)
        weight = torch.cat([prompts.weight, alone.weight])
        return prompts._replace(change=change, weight=weight, controls=alone.controls)

    def alone(self, everything: Prompts, checkpoint: int) -> Prompts:
        """Return prompts with nothing but the features of all draws.

        Args:
            everything: with all features.
            checkpoint: its number.
        """
        features = torch.from_numpy(self.features.ravel()).to(everything.change.device)
        weight = self.rows[:, :, checkpoint, : everything.weight.shape[1]].flatten(0, 1)
        return everything._replace(change=everything.change[..., features], weight=weight, controls=len(features))


def draw_names(draws: int) -> list[str]:
    """Return what draws of random directions are called."""
    return [f"random directions {number}" for number in range(draws)]


def draw_directions(crosscoder: Crosscoder, settings: AttributionSettings) -> RandomDirections:
    """Return random mixes of decoder rows, each with the norms of the feature that it stands in for.

    A mix has normal weights, the same at all checkpoints, on the rows in normalised units: random directions then lie
    where rows lie, and a direction at one checkpoint belongs to that at another as the rows of a feature do.

    Args:
        crosscoder: folded.
        settings: number of draws and of features, and the seed.
    """
    latents = len(crosscoder.decoder_rows)
    count = min(settings.random_features, latents)
    generator = np.random.default_rng([settings.seed, 2])
    features = np.empty((settings.random_directions, count), dtype=np.int64)
    for draw in features:
        draw[:] = generator.choice(latents, count, replace=False)
    return RandomDirections(features, mix_rows(crosscoder, features, generator))


@torch.no_grad()
def mix_rows(
    crosscoder: Crosscoder, features: np.ndarray, generator: np.random.Generator
) -> Float[Tensor, "draw feature checkpoint d_model"]:
    """Return random mixes in place of the rows of features, shape (draw, feature), as `draw_directions` does."""
    rows = crosscoder.decoder_rows
    drawn = generator.standard_normal((*features.shape, len(rows)), dtype=np.float32)
    weights = torch.from_numpy(drawn).to(rows.device)
    mixed = torch.einsum("kif,fmd->kimd", weights, rows * crosscoder.scale[:, None])
    norms = rows[torch.from_numpy(features).to(rows.device)].norm(dim=-1, keepdim=True)
    found: Tensor = norms * mixed / mixed.norm(dim=-1, keepdim=True)
    return found


def shuffle_tokens(task: xr.Dataset, seed: int) -> xr.Dataset:
    """Return a task with the tokens of each text in another, random order; its first token, the separator, stays.

    Where a metric scores the end of a sentence only, that stays too. A text of which no other order exists stays as it
    is. The text that features take their values from, a counterfactual or that of another example, is shuffled as its
    own is, and so is the other sentence of a pair where it has as many tokens: the two then differ in what they
    differed in before, and not by their orders.
    """
    generator = np.random.default_rng([seed, 3])
    present = [name for name in SHUFFLED_VARIABLES if name in task]
    shuffled = {name: task[name].transpose("example", ..., "position").copy(deep=True) for name in present}
    ids = shuffled["token_id"].values
    order = np.empty(0, dtype=np.int64)
    for place, length in np.ndenumerate(_shuffled_lengths(task)):
        if place[1:] in ((), (RIGHT,)) or len(order) != length - 1:
            order = 1 + _another_order(ids[place][1:length], generator)
        for values in shuffled.values():
            values.values[place][1:length] = values.values[place][order]
    return task.assign(shuffled)


def _shuffled_lengths(task: xr.Dataset) -> np.ndarray:
    """Return how many tokens of each text are shuffled, the separator included: (example,) or (example, member)."""
    lengths: np.ndarray = task["length"].transpose("example", ...).values
    if reads_prefixes(task):
        return lengths
    scored_from = task["scored_from"].transpose("example", ...).values
    return np.where(scored_from > 1, scored_from, lengths)


def _another_order(tokens: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return a random order in which some token is another than before, if there is one."""
    order = generator.permutation(len(tokens))
    while len(set(tokens.tolist())) > 1 and (tokens[order] == tokens).all():
        order = generator.permutation(len(tokens))
    return order


def random_level(
    effects: xr.DataArray, numbers: np.ndarray, features: xr.DataArray, written: xr.DataArray, level: float
) -> xr.DataArray:
    """Return the |IE| that a fraction of the random directions that write about as much as a feature stay below.

    What is written along a direction decides much of its effect, whichever direction it is: a feature is compared with
    the `NEIGHBOURS` random directions that write most nearly as much, or with all where there are fewer. A direction
    writes what the feature that it stands in for writes; it is the order of the features that counts, so that rounding
    cannot part them.

    Args:
        effects: IE of random directions, dims (condition, checkpoint, feature), in logits; one place a direction.
        numbers: the feature that each direction stands in for.
        features: numbers of the features whose levels are wanted, dims (feature,).
        written: what each feature of the dictionary writes; directions of those that write nothing are left out. Dims
            (condition, checkpoint, feature).
        level: the fraction.

    Returns:
        Dims (condition, checkpoint, feature), in logits; NaN where there is no random direction.
    """
    found = np.full((*effects.shape[:2], len(features)), np.nan)
    for place in np.ndindex(found.shape[:2]):
        ranks = np.argsort(np.argsort(written.values[place], kind="stable"))
        kept = np.flatnonzero(written.values[place][numbers] > 0)
        if len(kept):
            order = kept[np.argsort(ranks[numbers[kept]], kind="stable")]
            near = _nearest(ranks[numbers[order]], ranks[features.values])
            windows = np.lib.stride_tricks.sliding_window_view(
                abs(effects.values[place])[order], min(NEIGHBOURS, len(order))
            )
            found[place] = np.quantile(windows, level, axis=1)[near]
    coordinates = {**effects.isel(feature=slice(0)).drop_vars("feature").coords, "feature": features.values}
    return xr.DataArray(found, dims=effects.dims, coords=coordinates)


def _nearest(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the place of the window of `NEIGHBOURS` ascending numbers whose middle is next to each value."""
    places = np.searchsorted(ascending, values) - NEIGHBOURS // 2
    nearest: np.ndarray = places.clip(0, max(0, len(ascending) - NEIGHBOURS))
    return nearest


def class_counts(classes: xr.DataArray, tested: xr.DataArray) -> xr.DataArray:
    """Return how many of the tested features have each class, dims (..., feature_class) for (..., feature)."""
    counts = [((classes == name) & tested).sum("feature") for name in CLASSES]
    found: xr.DataArray = xr.concat(counts, dim="class").assign_coords({"class": strings(CLASSES)})
    return found


def chance_of_counts(
    counts: xr.DataArray, tested: int, control_counts: xr.DataArray, controls_tested: xr.DataArray
) -> xr.DataArray:
    """Return how likely a class is so frequent among features if they have it as often as random directions.

    Fisher's exact test, one-sided, against all draws together; features are taken as independent of each other.

    Args:
        counts: features of each class, dims (..., class).
        tested: features that could have had it.
        control_counts: the same of the controls, dims (control, ..., class) in any order.
        controls_tested: controls that could have had it, dims (control,).

    Returns:
        Dims of `counts`; NaN where there are no random directions.
    """
    from scipy.stats import fisher_exact  # nothing else that measures effects needs SciPy

    random = np.array([name != SHUFFLED for name in controls_tested["control"].values])
    pooled = control_counts.isel(control=random).sum("control").transpose(*counts.dims)
    pool = int(controls_tested.isel(control=random).sum())
    found = np.full(counts.shape, np.nan)
    for place in np.ndindex(found.shape):
        own, other = int(counts.values[place]), int(pooled.values[place])
        if tested and pool:
            found[place] = fisher_exact([[own, tested - own], [other, pool - other]], alternative="greater").pvalue
    return counts.copy(data=found)
