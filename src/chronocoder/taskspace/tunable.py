"""The models of a comparison's checkpoints, of which one at a time can be tuned while it is read beside the others."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool

from chronocoder.config import NONE, LoadingSettings, TaskSpaceSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.suites.checkpoints import load_model
from chronocoder.suites.sites import Site, resolve_site
from chronocoder.taskspace.bridge import Tunable
from chronocoder.taskspace.removal import Reading
from chronocoder.taskspace.tuning import Source, tuned


class Checkpoints(NamedTuple):
    """The checkpoints of a comparison.

    Attributes:
        crosscoder: that was trained on them, folded.
        paths: of their models by revision, in its order.
        loading: how models are loaded that are not tuned.
    """

    crosscoder: Crosscoder
    paths: Mapping[str, Path]
    loading: LoadingSettings


def tunable_models(
    checkpoints: Checkpoints,
    revisions: Sequence[str],
    tasks: Mapping[str, xr.Dataset],
    held: Mapping[str, Bool[np.ndarray, " example"]],
    settings: TaskSpaceSettings,
) -> Iterator[Tunable]:
    """Yield the models of some of the checkpoints, in float32, which are read beside those of the others as loaded.

    Each is tuned by the main method with the first seed: tunings are the same wherever they are done, so that none has
    to be stored.

    Args:
        checkpoints: of the comparison.
        revisions: those to tune.
        tasks: all of the task space by name.
        held: of each task, whether each of its pairs is held out.
        settings: how copies are tuned.

    Raises:
        ConfigError: a model cannot be loaded, or does not know all tokens.
    """
    crosscoder, paths, loading = checkpoints
    site = crosscoder.config.site
    reads = list(tasks.values())
    sites = [resolve_site(load_model(path, loading, reads), site) for path in paths.values()]
    for revision in revisions:
        number = list(paths).index(revision)
        own = sites[number]
        if own.model.dtype != torch.float32 or loading.quantization != NONE:
            own = resolve_site(load_model(paths[revision], loading.differentiable), site)
        beside = [*sites[:number], own, *sites[number + 1 :]]
        reading = Reading(crosscoder, beside, number, settings.tokens_at_once)
        yield Tunable(revision, reading, _Tuning(own, tasks, held, settings))


class _Tuning:
    """Tunes one model on any of the tasks."""

    def __init__(
        self,
        site: Site,
        tasks: Mapping[str, xr.Dataset],
        held: Mapping[str, Bool[np.ndarray, " example"]],
        settings: TaskSpaceSettings,
    ) -> None:
        self._model, self._tasks, self._held, self._settings = site.model, tasks, held, settings

    def __call__(self, name: str) -> AbstractContextManager[Any]:
        source = Source(self._tasks[name], np.flatnonzero(~self._held[name]), self._settings.seeds[0])
        method = self._settings.methods[self._settings.main]
        return tuned(self._model, source, self._settings.main, method, self._settings)
