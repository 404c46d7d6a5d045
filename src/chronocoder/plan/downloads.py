"""What of an experiment comes over the network, and how many bytes: said before any is fetched."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from chronocoder.config import SPLITS, ClamsTask, CorpusSettings, Experiment, HubDataset, HubSource, TableSource, Task
from chronocoder.errors import ConfigError
from chronocoder.labels import place_of
from chronocoder.layout import Layout
from chronocoder.suites.families import MAIN, HubPlace

ASKING = 8
"""Requests to the hub at once."""


class Download(NamedTuple):
    """A job that takes the network.

    Attributes:
        suite: it is of.
        kind: what comes: a checkpoint, a tokenizer, what is asked for of datasets on the hub, or a file.
        paths: of its results.
        places: repositories and revisions that they come from; of a file, address and name.
    """

    suite: str
    kind: Literal["checkpoint", "tokenizer", "dataset", "file"]
    paths: tuple[str, ...]
    places: tuple[HubPlace, ...]


class Priced(NamedTuple):
    """A download and what it takes.

    Attributes:
        download: the download.
        there: whether its results are there already; those of other settings count too, and are fetched anew.
        size_bytes: bytes to fetch: of a checkpoint what is left of it, of a dataset at most these, all its files; None:
            not stated beforehand.
        problem: why it cannot be fetched; empty where it can.
    """

    download: Download
    there: bool
    size_bytes: int | None = None
    problem: str = ""


def downloads_of(experiment: Experiment) -> list[Download]:
    """Return the jobs of an experiment that take the network: checkpoints, texts and tasks."""
    found = [one for suite in experiment.suites for one in _of_suite(experiment, suite)]
    return list(dict.fromkeys(found))


def priced(experiment: Experiment, downloads: Sequence[Download]) -> list[Priced]:
    """Ask the hub for the size of each download that is not there yet; this records their commits in the lock files.

    What the hub refuses is noted as that download's problem.
    """
    with ThreadPoolExecutor(ASKING) as pool:
        return list(pool.map(lambda download: _priced(experiment, download), downloads))


def _of_suite(experiment: Experiment, suite: str) -> Iterator[Download]:
    """Yield the downloads for a suite, and for what it takes from others; none if it only supplies to others."""
    settings, layout = experiment.suites[suite], Layout(experiment.results)
    if not (settings.comparisons or settings.auto or settings.scan):
        return
    own = list(settings.tokens_seen)
    if isinstance(settings.source, HubSource):
        path = layout.tokenizer.format(suite=suite)
        yield Download(suite, "tokenizer", (path,), _places(settings.source, own[0]))
    # Where there is a report or a scan, all checkpoints are looked at.
    names = own if settings.reported or settings.scan else []
    for name in [*names, *(name for one in settings.comparisons.values() for name in one.checkpoints)]:
        yield from _of_checkpoint(experiment, layout, *place_of(name, suite))
    if settings.corpus.needs_network:
        paths = tuple(layout.corpus.format(suite=suite, split=split) for split in SPLITS)
        yield Download(suite, "dataset", paths, _datasets_of(settings.corpus))
    for name, task in settings.tasks.items():
        yield from _of_task(suite, task, layout.task.format(suite=suite, task=name))


def _of_checkpoint(experiment: Experiment, layout: Layout, suite: str, revision: str) -> Iterator[Download]:
    source = experiment.suites[suite].source
    if isinstance(source, HubSource):
        path = layout.checkpoint.format(suite=suite, revision=revision)
        yield Download(suite, "checkpoint", (path,), _places(source, revision))


def _places(source: HubSource, revision: str) -> tuple[HubPlace, ...]:
    """Return where a checkpoint comes from, and its tokenizer if it has none."""
    tokenizer = source.tokenizer_repository
    return (source.located(revision), *([HubPlace(tokenizer, MAIN)] if tokenizer else []))


def _datasets_of(corpus: CorpusSettings) -> tuple[HubPlace, ...]:
    parts = [part for part in corpus.parts if isinstance(part, HubDataset) and part.is_remote]
    return tuple(dict.fromkeys(HubPlace(part.dataset, part.revision) for part in parts))


def _of_task(suite: str, task: Task, path: str) -> Iterator[Download]:
    if isinstance(task, TableSource) and task.needs_network:
        yield Download(suite, "dataset", (path,), (HubPlace(str(task.dataset), task.revision),))
    if isinstance(task, ClamsTask) and task.needs_network:
        yield Download(suite, "file", (path,), (HubPlace(task.address, str(task.name)),))


def _priced(experiment: Experiment, download: Download) -> Priced:
    if all(Path(path).exists() for path in download.paths):
        return Priced(download, there=True)
    try:
        return Priced(download, there=False, size_bytes=_size(experiment, download))
    except ConfigError as error:
        return Priced(download, there=False, problem=str(error))


def _size(experiment: Experiment, download: Download) -> int | None:
    # Here, since a dry run lists downloads, no more.
    from chronocoder.suites.download import bytes_to_come, checkpoint_parts, tokenizer_parts
    from chronocoder.suites.hub import revision_files
    from chronocoder.suites.lock import locked_commit

    lock = Path(Layout(experiment.results).lock.format(suite=download.suite))
    source = experiment.suites[download.suite].source
    if isinstance(source, HubSource) and download.kind in ("checkpoint", "tokenizer"):
        place, tokenizer = download.places[0], source.tokenizer_repository
        if download.kind == "tokenizer":
            parts = tokenizer_parts(lock, place, tokenizer)
        else:
            parts = checkpoint_parts(lock, place, tokenizer, source.pickled_weights)
        return bytes_to_come(parts, Path(download.paths[0]))
    if download.kind == "file":
        return None
    commits = [(place, locked_commit(lock, *place, kind="dataset")) for place in download.places]
    return sum(file.size_bytes for place, commit in commits for file in revision_files(*place, commit, kind="dataset"))
