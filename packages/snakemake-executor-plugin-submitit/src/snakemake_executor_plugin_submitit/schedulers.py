"""Asking about jobs and cancelling them: one question for all jobs, whatever their number."""

import logging
import os
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from time import monotonic, sleep
from types import MappingProxyType
from typing import NamedTuple

import psutil
from snakemake_interface_common.exceptions import WorkflowError
from submitit.slurm.slurm import SlurmInfoWatcher

ACTIVE = "ACTIVE"
UNKNOWN = "UNKNOWN"
CLUSTERS = ("slurm", "local", "debug")
_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
}
_WAITING = re.compile(r"([^|]+)\|PENDING\|([^|]*)\|(.*)")  # the job, its partition and its reason
_PER_COMMAND = 500  # job numbers on one command line
_ANSWER_S = 60
_END_S = 300  # a site's KillWait and the saving of a state take most of it


class NoAnswerError(RuntimeError):
    """The scheduler could not be asked."""


class Waiting(NamedTuple):
    """Where a job that has not started waits, and why, in the scheduler's words."""

    partition: str
    reason: str


class Scheduler(ABC):
    """What knows of jobs.

    Attributes:
        waiting: the jobs that had not started when `states` was last asked, those of others too, by their numbers.
    """

    waiting: Mapping[str, Waiting] = MappingProxyType({})

    @abstractmethod
    def states(self, job_ids: Collection[str]) -> dict[str, str]:
        """Return how jobs stand: `ACTIVE` (queued, also again, or running), `UNKNOWN`, or the scheduler's final state.

        Raises:
            NoAnswerError: the scheduler does not say; it may be busy.
        """

    @abstractmethod
    def cancel(self, job_ids: Sequence[str]) -> None:
        """Cancel these jobs and no others.

        Raises:
            NoAnswerError: some may not be cancelled.
        """

    def submitted_as(self, submission: str) -> list[str]:
        """Return the jobs, queued or running, that went out under a name.

        Raises:
            NoAnswerError: the scheduler does not say.
        """
        return []


class SlurmScheduler(Scheduler):
    """SLURM: its accounting where it answers, and its queue."""

    def __init__(self, logger: logging.Logger) -> None:
        """Check that SLURM is there, and forget the allocation that this process may itself run in.

        Raises:
            WorkflowError: it is not.
        """
        _forget_allocation()
        self._logger = logger
        self._warned: set[str] = set()
        self._parser = SlurmInfoWatcher()
        if missing := [name for name in ("sbatch", "squeue", "scancel") if shutil.which(name) is None]:
            raise WorkflowError(
                f"submitit-cluster slurm: {', '.join(missing)} not found; call this where jobs can be"
                " submitted from, or set submitit-cluster to local"
            )

    def states(self, job_ids: Collection[str]) -> dict[str, str]:
        """Return how jobs stand; accounting, which may lag, is asked only about those that have left the queue."""
        if not job_ids:
            return {}
        self.waiting = {}
        lines = self._queued("%i|%T|%P|%r")
        waiting = filter(None, (_WAITING.fullmatch(line) for line in lines))
        self.waiting = {line[1]: Waiting(line[2], line[3]) for line in waiting}
        queued = {line.split("|")[0] for line in lines}
        left = [job_id for job_id in job_ids if job_id not in queued]
        accounted = self._accounted(left) if left else {}
        return {job_id: ACTIVE if job_id in queued else accounted.get(job_id, UNKNOWN) for job_id in job_ids}

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Cancel jobs with as few commands as can be; those that have ended meanwhile do no harm."""
        for first in range(0, len(job_ids), _PER_COMMAND):
            try:
                ask(["scancel", *job_ids[first : first + _PER_COMMAND]])
            except NoAnswerError as error:
                if any("Invalid job id" not in line for line in str(error).splitlines()):
                    raise

    def submitted_as(self, submission: str) -> list[str]:
        """Return the jobs in the queue whose comment is the submission's name."""
        lines = (line.split("|", 1) for line in self._queued("%i|%k"))
        return [job_id for job_id, comment in lines if comment == submission]

    def _accounted(self, job_ids: Collection[str]) -> dict[str, str]:
        """Return the final states that accounting knows; none where there is none, of which the user is told once."""
        numbers = ",".join(sorted({job_id.split("_")[0] for job_id in job_ids}))
        command = ["sacct", "--allocations", "--parsable2", "--format=JobID,State", f"--jobs={numbers}"]
        try:
            facts = self._parser.read_info(ask(command))
        except NoAnswerError as error:
            self._warn_once("sacct", f"no accounting ({error}): what ended a job may remain unknown")
            return {}
        states = {job_id: state_of(fact["State"]) for job_id, fact in facts.items()}
        return {job_id: state for job_id, state in states.items() if state != ACTIVE}

    def _queued(self, form: str) -> set[str]:
        """Return a line for each job of this user that is in the queue."""
        return set(ask(["squeue", "--me", "--array", "--noheader", f"--format={form}"]).splitlines())

    def _warn_once(self, topic: str, text: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            self._logger.warning(text)


def _forget_allocation() -> None:
    """Drop what would make new jobs inherit limits of the allocation that Snakemake itself was started in."""
    if "SLURM_JOB_ID" in os.environ:
        for name in [name for name in os.environ if name.startswith("SLURM_") and name != "SLURM_CONF"]:
            del os.environ[name]


def state_of(text: str) -> str:
    """Return a state as `Scheduler.states` does; accounting adds who cancelled a job."""
    state = text.split(" ")[0].rstrip("+")
    return state if state in _ENDED else ACTIVE


def ask(command: Sequence[str]) -> str:
    """Return what a command prints.

    Raises:
        NoAnswerError: it cannot be run, fails, or takes more than a minute.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_ANSWER_S)
    except subprocess.CalledProcessError as error:
        raise NoAnswerError(f"{command[0]}: {error.stderr.strip() or error}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoAnswerError(f"{command[0]}: {error}") from error
    return done.stdout


class LocalScheduler(Scheduler):
    """Processes of this machine, started through submitit's local executor; a job is named by its process."""

    def states(self, job_ids: Collection[str]) -> dict[str, str]:
        """Return which of them run."""
        return {job_id: ACTIVE if _process(job_id) else UNKNOWN for job_id in job_ids}

    def cancel(self, job_ids: Sequence[str]) -> None:
        """End processes and what they have started."""
        found = [process for job_id in job_ids if (process := _process(job_id)) is not None]
        tree = [member for process in found for member in (*process.children(recursive=True), process)]
        for end in (psutil.Process.terminate, psutil.Process.kill):
            for member in tree:
                with suppress(psutil.NoSuchProcess):
                    end(member)
            _, tree = psutil.wait_procs(tree, timeout=3)


def _process(job_id: str) -> psutil.Process | None:
    """Return the process of a local job; None if it has ended and its number may be another's."""
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process = psutil.Process(int(job_id))
        if process.status() != psutil.STATUS_ZOMBIE and "submitit.local._local" in process.cmdline():
            return process
    return None


class DebugScheduler(Scheduler):
    """Jobs that have ended by the time they are submitted."""

    def states(self, job_ids: Collection[str]) -> dict[str, str]:
        """Return nothing known: the jobs' outcomes say all."""
        return dict.fromkeys(job_ids, UNKNOWN)

    def cancel(self, job_ids: Sequence[str]) -> None:
        """Do nothing: none is running."""


def end_jobs(scheduler: Scheduler, job_ids: Sequence[str]) -> None:
    """Cancel these jobs and no others, and wait until they are gone, as they may write files until then.

    Raises:
        NoAnswerError: the scheduler does not answer, or does not end them in time.
    """
    scheduler.cancel(job_ids)
    end = monotonic() + _END_S
    while ACTIVE in scheduler.states(job_ids).values():
        if monotonic() > end:
            raise NoAnswerError(f"not all of {len(job_ids)} cancelled jobs have ended within {_END_S} s")
        sleep(1)


def scheduler_of(cluster: str, logger: logging.Logger) -> Scheduler:
    """Return what knows of a cluster's jobs.

    Raises:
        WorkflowError: there is no such kind of cluster, or it is not here.
    """
    if cluster == "slurm":
        return SlurmScheduler(logger)
    if cluster == "local":
        return LocalScheduler()
    if cluster == "debug":
        return DebugScheduler()
    raise WorkflowError(f"submitit-cluster {cluster!r} is unknown; use one of {', '.join(CLUSTERS)}")
