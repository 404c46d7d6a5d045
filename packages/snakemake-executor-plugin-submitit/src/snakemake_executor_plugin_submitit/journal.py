"""What a run has submitted and not yet taken note of, kept on disk so that the next call finds it again."""

import fcntl
import json
import logging
import os
import socket
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.storage import writing


@dataclass(frozen=True)
class Entry:
    """One submitted Snakemake job.

    Attributes:
        key: names the job by its outputs, whatever run it belongs to.
        digest: what it was asked to do, and from which inputs.
        token: names this submission of it.
        rule: its rule.
        submission: names what went out with it in one call of the scheduler.
        cluster: `slurm`, `local` or `debug`.
        log: file with its output.
        job_id: the scheduler's name for the allocation; empty while it is being submitted.
        label: name of the allocation.
        request: what the allocation asked for, by the names of `Request`.
    """

    key: str
    digest: str
    token: str
    rule: str
    submission: str
    cluster: str
    log: str
    job_id: str = ""
    label: str = ""
    request: dict[str, Any] = field(default_factory=dict)


class Journal:
    """The entries of a working directory, one file each, and the lock of the process that tends them."""

    def __init__(self, directory: Path) -> None:
        """Make the journal's directory.

        Args:
            directory: on a file system that the nodes share.

        Raises:
            WorkflowError: it cannot be written.
        """
        self._entries = directory / "jobs"
        self._lock_path = directory / "lock"
        self._lock: FileIO | None = None
        with writing(directory):
            self._entries.mkdir(parents=True, exist_ok=True)

    def lock(self, logger: logging.Logger) -> None:
        """Let no other process tend these jobs; the lock ends with the process, however it ends.

        Args:
            logger: told where the file system has no locks.

        Raises:
            WorkflowError: another one does, or nothing can be written.
        """
        with writing(self._lock_path):
            file = self._lock_path.open("a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().decode().strip() or "another process"
            file.close()
            raise WorkflowError(f"{self._lock_path}: {owner} tends the jobs of this directory; end it first") from error
        except OSError as error:
            logger.warning(f"{self._lock_path}: no lock ({error}); see to it that one process tends these jobs")
        self._lock = file
        with writing(self._lock_path):
            file.truncate(0)
            file.write(f"snakemake on {socket.gethostname()}, process {os.getpid()},\n".encode())

    def unlock(self) -> None:
        """Let others tend these jobs."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def write(self, entry: Entry) -> None:
        """Note an entry, in place of an earlier one of the same job, which stays if this cannot be written.

        Raises:
            WorkflowError: it cannot be written.
        """
        partial = self._entries / f".{entry.key}"
        with writing(partial):
            partial.write_text(json.dumps(asdict(entry)), encoding="utf-8")
            partial.replace(self._entries / entry.key)

    def forget(self, entry: Entry) -> None:
        """Remove an entry: its end has been taken note of.

        Raises:
            WorkflowError: it cannot be removed.
        """
        with writing(self._entries):
            (self._entries / entry.key).unlink(missing_ok=True)

    def entries(self) -> list[Entry]:
        """Return all entries.

        Raises:
            WorkflowError: one cannot be read.
        """
        paths = sorted(path for path in self._entries.iterdir() if not path.name.startswith("."))
        return [entry for path in paths if (entry := _read(path)) is not None]


def _read(path: Path) -> Entry | None:
    """Return an entry; None if another thread has removed it meanwhile."""
    try:
        return Entry(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise WorkflowError(f"{path}: unreadable ({error}); delete it once no job of this directory runs") from error
