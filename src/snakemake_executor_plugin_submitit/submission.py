"""Handing allocations to submitit, one job or one job array at a time."""

import re
import threading
from collections.abc import Collection, Sequence
from pathlib import Path
from time import sleep
from typing import Any

import submitit
from snakemake_interface_common.exceptions import WorkflowError
from submitit.core.utils import FailedJobError, FailedSubmissionError

from snakemake_executor_plugin_submitit.allocation import Allocation
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.schedulers import NoAnswerError, Scheduler

_NO_LIMIT = 1_000_000  # allocations keep count of their requeues themselves
_ATTEMPTS = 3  # to submit while the scheduler is busy
_BUSY = re.compile("timed out|temporarily|unable to contact|connection|try again|zero bytes", re.IGNORECASE)
_BUSY_WAIT_S = 10


class Submitter:
    """Submits allocations; one call at a time, whatever thread calls."""

    def __init__(self, settings: Any, scheduler: Scheduler, folder: Path) -> None:
        """Remember how to submit.

        Args:
            settings: the plugin's `ExecutorSettings`.
            scheduler: what knows of the jobs.
            folder: where submitit keeps its files.
        """
        self._settings, self._scheduler, self._folder = settings, scheduler, folder
        self._lock = threading.Lock()

    def submit(self, allocations: Sequence[Allocation], label: str, request: Request, name: str) -> list[str]:
        """Submit allocations that ask for the same and return their job numbers; a busy scheduler is asked again.

        Args:
            allocations: the work; several become a job array.
            label: the jobs' name for people.
            request: what each of them asks for.
            name: the submission's name, under which it can be found in the queue.

        Raises:
            WorkflowError: the scheduler refuses.
        """
        with self._lock:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    return self._send(allocations, self._executor(allocations[0], label, request, name))
                except (FailedJobError, FailedSubmissionError, OSError) as error:
                    if not _BUSY.search(str(error)):
                        raise WorkflowError(str(error)) from error
                    sleep(_BUSY_WAIT_S * attempt)
                    self.discard(name)  # it may have taken the jobs, but answered too late
                    if attempt == _ATTEMPTS:
                        raise WorkflowError(str(error)) from error
        raise AssertionError("unreachable")

    def discard(self, name: str, kept: Collection[str] = ()) -> None:
        """Cancel what went out under a name, as far as it went out, but for what is kept.

        Raises:
            WorkflowError: the scheduler does not answer.
        """
        try:
            numbers = self._scheduler.submitted_as(name)
            self._scheduler.cancel([number for number in numbers if number not in kept])
        except NoAnswerError as error:
            raise WorkflowError(f"what was being submitted as {name} may be queued: {error}; try again") from error

    def log(self, job_id: str) -> Path:
        """Return the file that an allocation, and the scheduler about it, write to."""
        return self._folder / f"{job_id}_0_log.out"

    def _send(self, allocations: Sequence[Allocation], executor: submitit.AutoExecutor) -> list[str]:
        with executor.batch():
            jobs = [executor.submit(allocation) for allocation in allocations]
        if self._settings.cluster == "debug":
            for job in jobs:
                job.results()
        return [job.job_id for job in jobs]

    def _executor(self, allocation: Allocation, label: str, request: Request, name: str) -> submitit.AutoExecutor:
        settings = self._settings
        executor = submitit.AutoExecutor(
            self._folder, cluster=settings.cluster, slurm_max_num_timeout=_NO_LIMIT, local_max_num_timeout=_NO_LIMIT
        )
        executor.update_parameters(
            name=label,
            stderr_to_stdout=True,
            slurm_comment=name,
            slurm_array_parallelism=settings.array_limit,
            slurm_signal_delay_s=allocation.signal_delay_s,
            slurm_setup=[settings.setup] if settings.setup else None,
            **request.parameters(),
        )
        return executor
