"""Handing allocations to submitit, one job or one job array at a time."""

import re
import threading
from collections.abc import Sequence
from pathlib import Path
from time import sleep
from typing import Any

import submitit
from snakemake_interface_common.exceptions import WorkflowError
from submitit.core.utils import FailedJobError, FailedSubmissionError

from snakemake_executor_plugin_submitit.allocation import Allocation
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.schedulers import NoAnswerError, Scheduler, end_jobs

_NO_LIMIT = 1_000_000  # allocations keep count of their requeues themselves
_ATTEMPTS = 3  # to submit while the scheduler is busy
_BUSY = re.compile("timed out|temporarily|unable to contact|connection|try again|zero bytes", re.IGNORECASE)
_BUSY_WAIT_S = 10
_REFUSALS = (FailedJobError, FailedSubmissionError, OSError)


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
            for attempt in range(1, _ATTEMPTS):
                try:
                    return self._send(allocations, label, request, name)
                except _REFUSALS as error:
                    if not _BUSY.search(str(error)):
                        raise WorkflowError(str(error)) from error
                sleep(_BUSY_WAIT_S * attempt)
                self.discard(name)  # it may have taken the jobs, but answered too late
            try:
                return self._send(allocations, label, request, name)
            except _REFUSALS as error:
                self.discard(name)
                raise WorkflowError(str(error)) from error

    def discard(self, name: str) -> None:
        """Cancel what went out under a name, as far as it went out.

        Raises:
            WorkflowError: the scheduler does not answer.
        """
        try:
            end_jobs(self._scheduler, self._scheduler.submitted_as(name))
        except NoAnswerError as error:
            raise WorkflowError(f"what was being submitted as {name} may be queued: {error}; try again") from error

    def log(self, job_id: str) -> Path:
        """Return the file that an allocation, and the scheduler about it, write to."""
        return self._folder / f"{job_id}_0_log.out"

    def _send(self, allocations: Sequence[Allocation], label: str, request: Request, name: str) -> list[str]:
        executor = submitit.AutoExecutor(
            self._folder,
            cluster=self._settings.cluster,
            slurm_max_num_timeout=_NO_LIMIT,
            local_max_num_timeout=_NO_LIMIT,
        )
        executor.update_parameters(**request.parameters(), **self._parameters(allocations[0], label, request, name))
        with executor.batch():
            jobs = [executor.submit(allocation) for allocation in allocations]
        if self._settings.cluster == "debug":
            for job in jobs:
                job.results()
        return [job.job_id for job in jobs]

    def _parameters(self, allocation: Allocation, label: str, request: Request, name: str) -> dict[str, Any]:
        """Return submitit's parameters beside those of the request."""
        # srun inherits no CPUs in some versions; --wait=0 keeps it from ending the first node when the others return.
        srun = ["--wait=0", "--cpu-bind=none", f"--cpus-per-task={request.cpus}"]
        setup = [self._settings.setup] if self._settings.setup else []
        if request.tasks > 1:  # that the job's own srun may start; what calls it runs once a node
            srun += [f"--ntasks={request.nodes}", "--ntasks-per-node=1"]
            setup += ["export SLURM_OVERLAP=1"]
        return {
            "name": label,
            "stderr_to_stdout": True,
            "slurm_comment": name,
            "slurm_array_parallelism": self._settings.array_limit,
            "slurm_signal_delay_s": allocation.signal_delay_s,
            "slurm_setup": setup or None,
            "slurm_srun_args": srun,
        }
