"""Asking about jobs and cancelling them: one question for all jobs, whatever their number."""

import logging
import re
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import NamedTuple

import psutil
from snakemake_interface_common.exceptions import WorkflowError
from submitit.slurm.slurm import SlurmInfoWatcher

from snakemake_executor_plugin_submitit.environment import take_defaults

ACTIVE = "ACTIVE"
UNKNOWN = "UNKNOWN"
CLUSTERS = ("slurm", "local", "debug")
_ENDED = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
    *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
}
_SHOWN = re.compile(r"^JobId=(\d+)(?: ArrayJobId=(\d+) ArrayTaskId=(\S+))?.*? JobState=(\S+)", re.MULTILINE)
_PER_COMMAND = 500  # job numbers on one command line
_ANSWER_S = 60
_END_S = 300  # a site's KillWait and the saving of a state take most of it


class NoAnswerError(RuntimeError):
    """The scheduler could not be asked."""


class StillRunningError(NoAnswerError):
    """Jobs that were cancelled do not end."""


class Waiting(NamedTuple):
    """Where a job that has not started waits, and why, in the scheduler's words."""

    partition: str
    reason: str


class Scheduler(ABC):
    """What knows of jobs.

    Attributes:
        defaults: options of submission, by name, for jobs that say nothing else.
        waiting: all jobs of the user that had not started when the queue was last asked, by their numbers.
    """

    defaults: Mapping[str, str] = {}
    waiting: Mapping[str, Waiting] = {}

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
    """SLURM: its controller, and its accounting where there is one."""

    def __init__(self, logger: logging.Logger) -> None:
        """Check that SLURM is there, and have it understand what it is told by its commands' arguments alone.

        Raises:
            WorkflowError: it is not.
        """
        self.defaults = take_defaults(logger)
        self._logger = logger
        self._warned: set[str] = set()
        self._parser = SlurmInfoWatcher()
        if missing := [name for name in ("sbatch", "squeue", "scancel", "scontrol") if shutil.which(name) is None]:
            raise WorkflowError(
                f"submitit-cluster slurm: {', '.join(missing)} not found; call this where jobs can be"
                " submitted from, or set submitit-cluster to local"
            )

    def states(self, job_ids: Collection[str]) -> dict[str, str]:
        """Return how jobs stand, by one question to the queue, one to accounting of those that are not in it.

        A job has ended if the queue says so, if it is not in the queue and ended by accounting, or if the controller,
        asked for that job alone, says so. What accounting takes for running, but the controller does not know, is
        gone: accounting missed its end, which the controller forgot after `MinJobAge`.
        """
        if not job_ids:
            return {}
        known = {job_id: state for job_id, state, _ in self._queue()}
        if left := [job_id for job_id in job_ids if job_id not in known]:
            known = self._accounted(left) | known
            doubtful = [job_id for job_id in left if known.get(job_id, ACTIVE) == ACTIVE]
            known |= dict.fromkeys(doubtful, UNKNOWN) | self._shown(doubtful)
        return {job_id: known.get(job_id, UNKNOWN) for job_id in job_ids}

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
        return [job_id for job_id, state, comment in self._queue() if comment == submission and state == ACTIVE]

    def _queue(self) -> list[tuple[str, str, str]]:
        """Return number, state and comment of the user's jobs in all partitions, also of some that have ended."""
        form = "--format=%i|%T|%P|%r|%k"
        self.waiting = {}
        lines = ask(["squeue", "--all", "--me", "--array", "--states=all", "--noheader", form]).splitlines()
        jobs = [line.split("|", 4) for line in lines if line.count("|") >= 4]
        self.waiting = {job_id: Waiting(*where) for job_id, state, *where, _ in jobs if state == "PENDING"}
        return [(job_id, state_of(state), comment) for job_id, state, *_, comment in jobs]

    def _accounted(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Return the states that accounting knows; none where there is none, of which the user is told once."""
        command = ["sacct", "--allocations", "--parsable2", "--format=JobID,State"]
        try:
            return self._parsed(ask([*command, f"--jobs={','.join(_numbers(job_ids))}"]))
        except NoAnswerError as error:
            self._warn_once("sacct", f"no accounting ({error}): what ended a job may remain unknown")
            return {}

    def _shown(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Return the states of those jobs that the controller knows, asked for each job or array."""
        lines = ["JobID|State"]
        for number in _numbers(job_ids):
            try:
                text = ask(["scontrol", "--all", "--oneliner", "show", "job", number])
            except NoAnswerError as error:
                if "Invalid job id" not in str(error):
                    raise
                text = ""
            found = _SHOWN.findall(text)
            lines += [f"{array}_[{tasks}]|{state}" if array else f"{job}|{state}" for job, array, tasks, state in found]
        return self._parsed("\n".join(lines))

    def _parsed(self, table: str) -> dict[str, str]:
        return {job_id: state_of(fact["State"]) for job_id, fact in self._parser.read_info(table).items()}

    def _warn_once(self, topic: str, text: str) -> None:
        if topic not in self._warned:
            self._warned.add(topic)
            self._logger.warning(text)


def _numbers(job_ids: Iterable[str]) -> list[str]:
    """Return the numbers of jobs and of arrays, each once."""
    return sorted({job_id.split("_")[0] for job_id in job_ids})


def state_of(text: str) -> str:
    """Return a state as `Scheduler.states` does; accounting adds who cancelled a job."""
    state = text.split(" ")[0].rstrip("+")
    return state if state in _ENDED else ACTIVE


def ask(command: Sequence[str]) -> str:
    """Return what a command prints; Ctrl-C on the terminal does not reach it.

    Raises:
        NoAnswerError: it cannot be run, fails, or takes more than a minute.
    """
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_ANSWER_S, start_new_session=True
        )
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
        NoAnswerError: the scheduler does not answer.
        StillRunningError: it does not end them in time.
    """
    scheduler.cancel(job_ids)
    end = monotonic() + _END_S
    while ACTIVE in scheduler.states(job_ids).values():
        if monotonic() > end:
            raise StillRunningError(f"not all of {len(job_ids)} cancelled jobs have ended within {_END_S} s")
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
