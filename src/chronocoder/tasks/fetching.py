"""Fetching the pairs of a task that are not on this machine: which revision, and that it stays the same."""

from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

from chronocoder.config import ClamsTask, TableSource, Task
from chronocoder.errors import TaskError
from chronocoder.suites.lock import locked_commit, locked_digest

_SECONDS = 60


class Fetched(NamedTuple):
    """A task whose pairs can be read.

    Attributes:
        task: the task, its dataset at a commit, or its set in a local file.
        revision: that commit, or the SHA-256 digest of the file; empty where the pairs were on this machine.
    """

    task: Task
    revision: str


def fetch_pairs(task: Task, lock: Path, folder: Path) -> Fetched:
    """Return a task with its dataset's revision resolved once, or its published set downloaded.

    Args:
        task: the task.
        lock: the lock file that records what is fetched first, and is kept to afterwards.
        folder: where to put a downloaded file.

    Raises:
        ConfigError: the revision cannot be resolved, or a file is not what the lock file records.
        TaskError: a file cannot be fetched.
    """
    if isinstance(task, TableSource) and task.needs_network:
        commit = locked_commit(lock, str(task.dataset), task.revision, "dataset")
        return Fetched(task.model_copy(update={"revision": commit}), commit)
    if isinstance(task, ClamsTask) and task.needs_network:
        content = _download(task.file_address)
        digest = locked_digest(lock, task.file_address, content)
        path = folder / str(task.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return Fetched(task.model_copy(update={"path": str(path), "name": None}), digest)
    return Fetched(task, "")


def _download(address: str) -> bytes:
    try:
        with urlopen(address, timeout=_SECONDS) as answer:
            content: bytes = answer.read()
    except (OSError, ValueError) as error:
        raise TaskError(
            f"{address}: cannot be fetched ({error}); run scripts/fetch.py with your configuration where there is a"
            " network, name another address, or give the task a path to a copy"
        ) from None
    return content
