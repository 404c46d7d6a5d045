"""What of an experiment comes from the hub, and how many bytes: said before any is fetched."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from chronocoder.config import ClamsTask, Experiment, HubSource, Settings
from chronocoder.errors import ChronocoderError
from chronocoder.layout import Layout
from chronocoder.plan.jobs import Job, jobs_of
from chronocoder.suites.families import MAIN, HubPlace

ASKING = 8
"""Requests to the hub at once."""


class Download(NamedTuple):
    """A result that takes the network to make.

    Attributes:
        job: that makes it.
        path: of the result.
        places: repositories and revisions on the hub that it comes from.
        address: of the file elsewhere that it comes from; empty where it is from the hub.
    """

    job: Job
    path: str
    places: tuple[HubPlace, ...]
    address: str = ""


class Priced(NamedTuple):
    """A download and what it takes.

    Attributes:
        download: the download.
        there: whether its result is there already.
        size_bytes: bytes to fetch: of a checkpoint what is left of it, of a dataset at most these, all its files.
        problem: why it cannot be fetched; empty where it can.
    """

    download: Download
    there: bool
    size_bytes: int
    problem: str = ""


def downloads_of(experiment: Experiment) -> list[Download]:
    """Return the results of an experiment's jobs that need the network, in the order of the jobs."""
    layout = Layout(experiment.results)
    patterns = {"download_checkpoint": layout.checkpoint, "build_corpus": layout.corpus, "build_task": layout.task}
    found = []
    for job in jobs_of(experiment):
        if job.rule not in patterns:
            continue
        places, address = _places(experiment, job), _address(experiment, job)
        if places or address:
            path = patterns[job.rule].format(suite=job.suite, revision=job.revision, split="train", task=job.task)
            found.append(Download(job, path, places, address))
    return found


def priced(experiment: Experiment, downloads: Sequence[Download]) -> list[Priced]:
    """Ask the hub for the size of each download that is not there yet; this records their commits in the lock files.

    What the hub refuses is noted as that download's problem.
    """
    with ThreadPoolExecutor(ASKING) as pool:
        return list(pool.map(lambda download: _priced(experiment, download), downloads))


def hub_datasets(settings: Settings) -> list[HubPlace]:
    """Return the datasets on the hub that a corpus or a task is read from; a local directory is none."""
    return list(dict.fromkeys(_datasets(settings.model_dump())))


def _places(experiment: Experiment, job: Job) -> tuple[HubPlace, ...]:
    suite = experiment.suites[job.suite]
    if job.rule == "build_corpus":
        return tuple(hub_datasets(suite.corpus))
    if job.rule == "build_task":
        return tuple(hub_datasets(suite.tasks[job.task]))
    assert isinstance(suite.source, HubSource), "only checkpoints on the hub are downloaded"
    tokenizer = suite.source.tokenizer_repository
    place = suite.source.located(job.revision)
    return (place,) if tokenizer is None else (place, HubPlace(tokenizer, MAIN))


def _address(experiment: Experiment, job: Job) -> str:
    task = experiment.suites[job.suite].tasks.get(job.task) if job.rule == "build_task" else None
    return task.file_address if isinstance(task, ClamsTask) and task.needs_network else ""


def _datasets(values: Any) -> Iterator[HubPlace]:
    if isinstance(values, dict):
        dataset = values.get("dataset")
        if isinstance(dataset, str) and not Path(dataset).is_dir():
            yield HubPlace(dataset, values.get("revision") or MAIN)
        values = list(values.values())
    if isinstance(values, list | tuple):
        for value in values:
            yield from _datasets(value)


def _priced(experiment: Experiment, download: Download) -> Priced:
    if Path(download.path).exists():
        return Priced(download, True, 0)
    try:
        return Priced(download, False, _size(experiment, download))
    except ChronocoderError as error:
        return Priced(download, False, 0, str(error))


def _size(experiment: Experiment, download: Download) -> int:
    from chronocoder.suites.download import bytes_to_come, checkpoint_parts  # here: a dry run lists downloads, no more
    from chronocoder.suites.hub import revision_files
    from chronocoder.suites.lock import locked_commit
    from chronocoder.tasks.fetching import file_bytes

    if download.address:
        return file_bytes(download.address)
    lock = Path(Layout(experiment.results).lock.format(suite=download.job.suite))
    source = experiment.suites[download.job.suite].source
    if download.job.rule == "download_checkpoint" and isinstance(source, HubSource):
        parts = checkpoint_parts(lock, download.places[0], source.tokenizer_repository, source.pickled_weights)
        return bytes_to_come(parts, Path(download.path))
    commits = [(place, locked_commit(lock, *place, kind="dataset")) for place in download.places]
    return sum(file.size_bytes for place, commit in commits for file in revision_files(*place, commit, kind="dataset"))
