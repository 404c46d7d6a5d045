"""What a user is told of a job that failed."""

import os
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

from snakemake_executor_plugin_submitit.journal import Entry
from snakemake_executor_plugin_submitit.outcome import Outcome
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.storage import find_fault

_LINES = 20
_BYTES = 8192  # a line of progress, which never ends, may be as long as the log
_KILLED = (
    "Signals.SIGKILL",
    "status -9",
    "exit code 137",
    "status 137",
    "oom_kill",
    "oom-kill",
)  # as control groups do
_OUT_OF_MEMORY = ("exceeded memory limit", "oom_kill", "oom-kill")


def explain_failure(outcome: Outcome, entry: Entry, request: Request) -> str:
    """Return what is to be said of a job that ended by itself: why, the end of its log and where the whole is.

    Args:
        outcome: how it ended.
        entry: the job.
        request: what it had asked for.
    """
    log = _Tail.of(Path(entry.log))
    killed = any(sign in text for text in (outcome.message, log.text) for sign in _KILLED)
    hint = f" A part of it was killed: it may need more than the {request.mem_mb} MB asked for." if killed else ""
    return f"Job {entry.job_id}: {outcome.message}.{hint}\n{log.shown()}{_fault_of(log)}"


def explain_death(state: str, entry: Entry, request: Request, allocation_log: Path) -> str:
    """Return what is to be said of a job that was ended from outside.

    Args:
        state: the scheduler's word for it.
        entry: the job.
        request: what it had asked for.
        allocation_log: the log of the allocation, where the scheduler writes.
    """
    log, of_allocation = _Tail.of(Path(entry.log)), _Tail.of(allocation_log)
    if any(sign in of_allocation.text for sign in _OUT_OF_MEMORY):
        state = "OUT_OF_MEMORY"  # not every SLURM says so in the job's state
    return f"Job {entry.job_id} {_reason(state, request)}.\n{log.shown()}{of_allocation.shown()}{_fault_of(log)}"


def _reason(state: str, request: Request) -> str:
    reasons = {
        "OUT_OF_MEMORY": f"needed more than the {request.mem_mb} MB it had asked for; raise its resource mem_mb",
        "TIMEOUT": f"ran out of its time limit of {request.runtime} min; raise its resource runtime",
        "CANCELLED": "was cancelled, by you or by the site",
        "NODE_FAIL": "lost its node and was not queued again",
        "COMPLETED": "ended and left no word of how; look at its logs",
        "UNKNOWN": "is not known to the scheduler any more, which does not say how it ended, and left no word of it",
    }
    return reasons.get(state, f"was ended by the scheduler ({state})")


def _fault_of(log: "_Tail") -> str:
    """Return what keeps logs from being written, if something does: then they do not say it."""
    fault = find_fault(log.path.parent)
    return f"{fault}\n" if fault else ""


class _Tail(NamedTuple):
    """The end of a log.

    Attributes:
        path: the log.
        text: its last lines; of a long one, the end.
        is_cut: whether the first of them is such an end.
    """

    path: Path
    text: str
    is_cut: bool

    @classmethod
    def of(cls, path: Path) -> "_Tail":
        """Read the end of a log, and no more, whatever its size; nothing where it cannot be read."""
        try:
            with path.open("rb") as file:
                begin = max(0, file.seek(0, os.SEEK_END) - _BYTES)
                file.seek(begin)
                lines = file.read(_BYTES).decode(errors="replace").splitlines()
        except OSError:
            return cls(path, "", is_cut=False)
        return cls(path, "\n".join(lines[-_LINES:]), is_cut=begin > 0 and len(lines) <= _LINES)

    def shown(self) -> str:
        """Return the last lines and the path."""
        if not self.text.strip():
            return f"{self.path} is empty.\n"
        return f"The end of {self.path}:\n{indent('[…] ' * self.is_cut + self.text.rstrip(), '    ')}\n"
