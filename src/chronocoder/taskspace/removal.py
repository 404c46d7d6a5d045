"""What tuning does to pairs, in models as they are and in models from whose activation features are removed.

A feature i is removed from the activation x of a model at checkpoint m by taking away f_i W_dec,i^m at every position
but the first, on which crosscoders are not trained. What is left, the error term among it, stays. The codes f are those
of the joint code: the crosscoder's encoder is given the model's own activation at m, tuned or not, beside those of the
other checkpoints, which are never tuned.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from chronocoder.attribution.effects import Prompts, metric
from chronocoder.attribution.interventions import ZERO
from chronocoder.attribution.prompts import add_to_examples, read_prompts
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import NonFiniteError
from chronocoder.plan.sizes import LOGITS_AT_ONCE
from chronocoder.suites.precision import overflow_remedy
from chronocoder.suites.sites import Site
from chronocoder.tasks.readout import sequences_at_once
from chronocoder.tasks.rows import rows_of
from chronocoder.taskspace.shared_features import Removed

KINDS = ("intact", "without_shared", "without_others")

Tuning = Callable[[str], AbstractContextManager[Any]]
"""Given a task's name, tunes the model on it; when the context ends, the model is what it was."""


@dataclass(frozen=True)
class Reading:
    """How a model is read, which is that of one of a crosscoder's checkpoints.

    Attributes:
        crosscoder: folded.
        sites: in each checkpoint's model, in the crosscoder's order.
        number: place of the checkpoint among them whose model is read, tuned or not; its weights are in float32.
        tokens_at_once: tokens in one pass from the site on.
    """

    crosscoder: Crosscoder
    sites: Sequence[Site]
    number: int
    tokens_at_once: int

    @torch.no_grad()
    def differences(
        self, task: xr.Dataset, removed: Sequence[np.ndarray | None]
    ) -> Float[np.ndarray, "version example"]:
        """Return right minus wrong of each example, in the unit of the task's metric.

        Args:
            task: as `tokenise_pairs` returns it.
            removed: sets of features to remove; None: a set that could not be chosen.

        Returns:
            First with nothing removed, then without each of the sets; NaN without one that could not be chosen.

        Raises:
            NonFiniteError: one is NaN or infinite.
        """
        found = np.zeros((1 + len(removed), task.sizes["example"]), dtype=np.float32)
        changing = [place for place, of in enumerate(removed, start=1) if of is not None and len(of)]
        size = self._sequences(task)
        for batch in read_prompts(self.crosscoder, self.sites, task, ZERO, size):
            prompts = batch.prompts[self.number]
            copies = max(1, size // len(batch.rows.lengths))
            for first in range(0, 1 + len(changing), copies):
                places = [0, *changing][first : first + copies]
                versions = torch.stack([_without(prompts, removed[place - 1] if place else None) for place in places])
                for place, of_version in zip(places, metric(self._site, prompts, versions), strict=True):
                    add_to_examples(found[place], batch.rows, -of_version)
        if not np.isfinite(found).all():
            raise NonFiniteError(
                f"{self._site.model.name_or_path}: differences of right and wrong with features removed are not finite;"
                f" {overflow_remedy(self._site.model)}"
            )
        for place, of in enumerate(removed, start=1):
            if of is None or not len(of):
                found[place] = np.nan if of is None else found[0]
        return found

    @property
    def _site(self) -> Site:
        return self.sites[self.number]

    def _sequences(self, task: xr.Dataset) -> int:
        """Return how many sequences go through the model together: as many as tokens, logits and codes allow."""
        tokens = min(self.tokens_at_once, LOGITS_AT_ONCE // len(self.crosscoder.b_enc))
        wanted = max(1, tokens // int(rows_of(task).lengths.max()))
        return sequences_at_once(task, self._site.model.config.vocab_size, wanted)


def measure_changes(
    reading: Reading,
    tasks: Mapping[str, xr.Dataset],
    removed: Mapping[tuple[str, str], Removed],
    tuning: Tuning,
) -> xr.Dataset:
    """Measure what tuning on each task does to the pairs of every task, with and without features.

    Args:
        reading: of the model that is tuned.
        tasks: the pairs that no copy is tuned on, by name.
        removed: by source and target, the features that are removed before and after the tuning alike.
        tuning: tunes the model.

    Returns:
        `before` and `after`: right minus wrong; dims (source, kind, entry), the pairs of all targets one after another,
        with the coordinate `target` (entry).
    """
    names = list(tasks)
    ends = np.cumsum([0, *(task.sizes["example"] for task in tasks.values())])
    found = np.zeros((2, len(names), len(KINDS), ends[-1]), dtype=np.float32)
    parts = {target: found[..., first:last] for target, first, last in zip(names, ends, ends[1:], strict=False)}
    for target, task in tasks.items():
        intact, *others = reading.differences(task, [of for source in names for of in removed[source, target]])
        parts[target][0, :, 0] = intact
        parts[target][0, :, 1:] = np.reshape(others, (len(names), len(KINDS) - 1, -1))
    for place, source in enumerate(names):
        with tuning(source):
            for target, task in tasks.items():
                parts[target][1, place] = reading.differences(task, removed[source, target])
    dims = ("source", "kind", "entry")
    target_of = np.repeat(names, np.diff(ends))
    coordinates = {"source": names, "kind": list(KINDS), "target": ("entry", target_of)}
    return xr.Dataset({"before": (dims, found[0]), "after": (dims, found[1])}, coords=coordinates)


def _without(prompts: Prompts, features: np.ndarray | None) -> Float[Tensor, "batch position d_model"]:
    """Return the activation of the site without some features; with all where none are given."""
    x = prompts.state.activation
    if features is None:
        return x
    own = torch.from_numpy(features).to(x.device)
    return x + (prompts.change[..., own] @ prompts.weight[own]).to(x.dtype)
