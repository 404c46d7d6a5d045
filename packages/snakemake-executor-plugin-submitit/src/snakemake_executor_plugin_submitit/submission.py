"""Handing allocations to submitit, one job or one job array at a time."""

import re
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr, suppress
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import submitit
from snakemake_interface_common.exceptions import WorkflowError
from submitit.core.utils import FailedJobError, FailedSubmissionError

from snakemake_executor_plugin_submitit import relay
from snakemake_executor_plugin_submitit.allocation import Allocation
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.schedulers import NoAnswerError, Scheduler
from snakemake_executor_plugin_submitit.storage import writing

_NO_LIMIT = 1_000_000  # allocations keep count of their requeues themselves
_NO_ANSWER = re.compile(
    "timed out|temporarily|unable to contact|connection|try again|zero bytes|standby|unexpected message|not responding"
    "|(send|receive) failure|protocol authentication|endpoint|no route|unreachable|configuration source",
    re.IGNORECASE,
)
_REFUSALS = (FailedJobError, FailedSubmissionError, OSError)


@dataclass(frozen=True)
class Batch:
    """What goes out in one call of the scheduler.

    Attributes:
        allocations: the work, of which each asks for the same; several become a job array.
        label: the jobs' name for people.
        request: what each of them asks for.
        name: the submission's name, under which it can be found in the queue.
    """

    allocations: Sequence[Allocation]
    label: str
    request: Request
    name: str


class Submitter:
    """Submits allocations."""

    def __init__(self, settings: Any, scheduler: Scheduler, folder: Path) -> None:
        """Remember how to submit.

        Args:
            settings: the plugin's `ExecutorSettings`.
            scheduler: what knows of the jobs.
            folder: where submitit keeps its files.
        """
        self._settings, self._scheduler, self._folder = settings, scheduler, folder

    def submit(self, batch: Batch, again: bool = False) -> list[str]:
        """Submit allocations and return their job numbers.

        A scheduler may take jobs and yet not answer in time. Such jobs do nothing, for submitit hands over the work by
        the number that it was told: they are cancelled, not taken over, when the batch is submitted again.

        Args:
            batch: the allocations.
            again: whether that was tried before, without an answer.

        Raises:
            WorkflowError: the scheduler refuses.
            NoAnswerError: it does not answer; it may have taken the jobs.
        """
        if again:
            self._cancel_others(batch.name)
        try:
            numbers = self._send(batch)
        except _REFUSALS as error:
            if _is_unanswered(error):
                raise NoAnswerError(str(error) or "interrupted") from error
            raise WorkflowError(str(error)) from error
        if again:
            with suppress(NoAnswerError):
                self._cancel_others(batch.name, numbers)  # taken late
        return numbers

    def _cancel_others(self, name: str, numbers: Sequence[str] = ()) -> None:
        """Cancel the jobs of a name but these; nobody need wait for their end."""
        self._scheduler.cancel([number for number in self._scheduler.submitted_as(name) if number not in numbers])

    def log(self, job_id: str) -> Path:
        """Return the file that an allocation, and the scheduler about it, write to."""
        return self._folder / f"{job_id}_0_log.out"

    def _send(self, batch: Batch) -> list[str]:
        executor = submitit.AutoExecutor(
            self._folder,
            cluster=self._settings.cluster,
            slurm_max_num_timeout=_NO_LIMIT,
            local_max_num_timeout=_NO_LIMIT,
        )
        executor.update_parameters(**self._parameters(batch))
        # submitit prints what sbatch complains of, which is either told in a message or waited for
        quiet = redirect_stderr(StringIO()) if self._settings.cluster == "slurm" else nullcontext()
        with writing(self._folder), quiet, executor.batch():
            jobs = [executor.submit(allocation) for allocation in batch.allocations]
        if self._settings.cluster == "debug":
            for job in jobs:
                job.results()
        return [job.job_id for job in jobs]

    def _parameters(self, batch: Batch) -> dict[str, Any]:
        """Return submitit's parameters: the request's, the protocol's, and the user's defaults for the rest."""
        request = batch.request
        asked = request.parameters()
        options = asked.pop("slurm_additional_parameters")
        said = {name.removeprefix("slurm_").replace("_", "-") for name in (*asked, *options)}
        defaults = {name: value for name, value in self._scheduler.defaults.items() if name not in said}
        # srun inherits no CPUs in some versions; --wait=0 keeps it from ending the first node when the others return.
        srun = ["--wait=0", "--cpu-bind=none", f"--cpus-per-task={request.cpus}"]
        setup = [self._settings.setup] if self._settings.setup else []
        if request.tasks > 1:  # that the job's own srun may start; what calls it runs once a node
            srun += [f"--ntasks={request.nodes}", "--ntasks-per-node=1"]
        if request.tasks * request.nodes > 1:  # an srun that is called would else wait for what calls it to end
            setup += ["export SLURM_OVERLAP=1"]
        if request.nodes > 1:
            setup += relay.setup()
        return asked | {
            "name": batch.label,
            "stderr_to_stdout": True,
            "slurm_comment": batch.name,
            "slurm_array_parallelism": self._settings.array_limit,
            "slurm_signal_delay_s": batch.allocations[0].signal_delay_s,
            "slurm_setup": setup or None,
            "slurm_srun_args": srun,
            "slurm_additional_parameters": {"export": "ALL", **defaults, **options},
        }


def _is_unanswered(error: Exception) -> bool:
    """Say whether an attempt failed for want of an answer, as when Ctrl-C on the terminal ends sbatch too."""
    cause = error.__cause__
    killed = isinstance(cause, CalledProcessError) and cause.returncode < 0
    return killed or _NO_ANSWER.search(str(error)) is not None
