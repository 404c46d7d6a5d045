"""What a user is told of a job that failed."""

from collections import deque
from pathlib import Path

from snakemake_executor_plugin_submitit.journal import Entry
from snakemake_executor_plugin_submitit.outcome import Outcome
from snakemake_executor_plugin_submitit.request import Request

_LINES = 20
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
    log = Path(entry.log)
    killed = any(sign in line for line in (outcome.message, *_last_lines(log)) for sign in _KILLED)
    hint = f" A part of it was killed: it may need more than the {request.mem_mb} MB asked for." if killed else ""
    return f"Job {entry.job_id}: {outcome.message}.{hint}\n{_shown(log)}"


def explain_death(state: str, entry: Entry, request: Request, allocation_log: Path) -> str:
    """Return what is to be said of a job that was ended from outside.

    Args:
        state: the scheduler's word for it.
        entry: the job.
        request: what it had asked for.
        allocation_log: the log of the allocation, where the scheduler writes.
    """
    if any(sign in line for line in _last_lines(allocation_log) for sign in _OUT_OF_MEMORY):
        state = "OUT_OF_MEMORY"  # not every SLURM says so in the job's state
    logs = "".join(_shown(path) for path in (Path(entry.log), allocation_log))
    return f"Job {entry.job_id} {_reason(state, request)}.\n{logs}"


def _reason(state: str, request: Request) -> str:
    reasons = {
        "OUT_OF_MEMORY": f"needed more than the {request.mem_mb} MB it had asked for; raise its resource mem_mb",
        "TIMEOUT": f"ran out of its time limit of {request.runtime} min; raise its resource runtime",
        "CANCELLED": "was cancelled, by you or by the site",
        "NODE_FAIL": "lost its node and was not queued again",
        "COMPLETED": "ended and left no word of how; look at its logs",
        "UNKNOWN": "is known neither to the queue nor to accounting any more, and left no word of how it ended",
    }
    return reasons.get(state, f"was ended by the scheduler ({state})")


def _shown(log: Path) -> str:
    """Return the last lines of a log and its path."""
    last = "".join(f"    {line}" for line in _last_lines(log)).rstrip()
    return f"The end of {log}:\n{last}\n" if last else f"{log} is empty.\n"


def _last_lines(log: Path) -> list[str]:
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            return list(deque(lines, maxlen=_LINES))
    except OSError:
        return []
