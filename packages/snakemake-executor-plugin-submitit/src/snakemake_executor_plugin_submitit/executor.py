"""The executor: submits what Snakemake finds ready, watches over it, and finds it again after a restart."""

import shlex
import shutil
import signal
import threading
import uuid
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.allocation import Allocation, Step
from snakemake_executor_plugin_submitit.failure import explain_death, explain_failure
from snakemake_executor_plugin_submitit.journal import Entry, Journal
from snakemake_executor_plugin_submitit.outage import Outage
from snakemake_executor_plugin_submitit.outcome import Outcome, Outcomes
from snakemake_executor_plugin_submitit.pending import Pending
from snakemake_executor_plugin_submitit.ready import Ready, check_wishes, make_ready
from snakemake_executor_plugin_submitit.recovery import cancel_left, check_cluster, ended_meanwhile, jobs_left
from snakemake_executor_plugin_submitit.request import Request, arrays_of, label_of, packs_of, request_of
from snakemake_executor_plugin_submitit.schedulers import ACTIVE, NoAnswerError, end_jobs, scheduler_of
from snakemake_executor_plugin_submitit.storage import check_path, writing
from snakemake_executor_plugin_submitit.submission import Batch, Submitter
from snakemake_executor_plugin_submitit.usage import report_usage


class Executor(RemoteExecutor):
    """Runs Snakemake's jobs through submitit."""

    def __init__(self, *arguments: Any) -> None:
        """Be ready for the questions of the thread that `RemoteExecutor` starts, before it calls `__post_init__`."""
        self._postponed: deque[tuple[Sequence[Sequence[Ready]], Batch]] = deque()
        self._interrupted = False
        super().__init__(*arguments)

    def __post_init__(self) -> None:
        """Take the lock of the working directory and look for jobs of an earlier call.

        Raises:
            WorkflowError: a setting makes no sense, a path cannot be passed to jobs, nothing can be written, or another
                process tends the jobs of this directory.
        """
        settings = self.settings = self.workflow.executor_settings
        self._submitting = threading.RLock()
        self._outage = Outage(settings.max_outage, self.logger)
        self._scheduler = scheduler_of(settings.cluster, self.logger)
        _check(settings)
        check_wishes(self.workflow.dag.needrun_jobs(), settings.cluster)
        folder = Path(settings.folder).absolute()
        check_path(folder, "submitit-folder", reserved="%" if settings.cluster == "slurm" else "")  # a log's pattern
        check_path(Path(self.get_snakefile()), "the path of the Snakefile")
        self._logs = folder / "logs"
        self._outcomes = Outcomes(folder / "outcomes")
        self._submitter = Submitter(settings, self._scheduler, self._logs / "allocations")
        self._journal = Journal(folder)
        self._journal.lock(self.logger)
        check_cluster(self._journal, settings.cluster)
        self._pending = Pending(settings.pending_grace, self.logger)
        self._cancelled: set[str] = set()
        self._begun: set[str] = set()
        self._unheard = False  # the scheduler did not say how jobs stand, which it may do and yet take no new ones
        self._allocations: dict[str, tuple[str, Request]] = {}
        try:
            self._left = jobs_left(self._journal, self._outcomes, self._scheduler, self._outage)
        except KeyboardInterrupt as error:  # which Snakemake does not expect yet
            raise WorkflowError("interrupted while jobs of an earlier call were looked for; nothing is lost") from error
        # Jobs wait for Snakemake's temporary directory, which must outlive this process as they do.
        if not self._left:
            for old in ("tmp", "outcomes"):
                shutil.rmtree(folder / old, ignore_errors=True)
        self._tmpdir = folder / "tmp" / uuid.uuid4().hex[:8]
        with writing(self._tmpdir):
            self._tmpdir.mkdir(parents=True)

    def run_jobs(self, jobs: list[JobExecutorInterface]) -> None:
        """Submit jobs: those of an earlier call are found again, short ones packed, like ones sent out as an array."""
        for job in jobs:
            self.run_job_pre(job)
        readies = [self._prepare(job) for job in jobs]
        self._end_outdated(readies)
        fresh = [ready for ready in readies if not self._attach(ready)]
        for array in arrays_of(packs_of(fresh)):
            self._submit(array)

    def run_job(self, job: JobExecutorInterface) -> None:
        """Submit one job."""
        self.run_jobs([job])

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncIterator[SubmittedJobInfo]:
        """Conclude jobs that have ended, by their own word or else by the scheduler's; yield the others."""
        # this may be asked before there is anything to ask with
        known = set(self._outcomes.tokens()) if active_jobs else set()
        silent: list[SubmittedJobInfo] = []
        for info in active_jobs:
            ready: Ready = info.aux["ready"]
            outcome = self._outcomes.read(ready.entry.token) if ready.entry.token in known else None
            if outcome is not None and outcome.ended:
                self._conclude(info, outcome)
            else:
                silent.append(info)
        if silent:
            async with self.status_rate_limiter:
                states = self._states([info.external_jobid for info in silent])
            never = self._end_hopeless(silent)
            dead = []
            for info in silent:
                if info.external_jobid in never:
                    self._report_hopeless(info, never[info.external_jobid])
                elif self._is_dead(info.aux["ready"], states[info.external_jobid]):
                    dead.append(info)
                else:
                    yield info
            self._bury(dead, states)
        if self._postponed:
            self._submit_postponed()

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel these jobs and no others."""
        end_jobs(self._scheduler, sorted({info.external_jobid for info in active_jobs}))

    def cancel(self) -> None:
        """Do upon Ctrl-C as the settings say: leave the jobs running for the next call, or cancel them.

        Another Ctrl-C ends the wait for that; the journal has what is left.
        """
        interrupted = False
        try:
            self._let_go()
            self.shutdown()
        except KeyboardInterrupt:
            interrupted = True
        with suppress(ValueError):  # in a thread there is none
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Snakemake only tidies up now
        if interrupted:
            self.logger.warning(f"Interrupted again: jobs may go on. {self._how_to_cancel()}")
            self._journal.unlock()

    def _let_go(self) -> None:
        self._interrupted = True
        if self.settings.on_interrupt == "cancel" or self.settings.cluster != "slurm":
            try:
                with self._submitting:
                    cancel_left(self._journal, self._scheduler, self.settings.cluster)
            except NoAnswerError as error:
                self.logger.error(f"Jobs may go on: {error}. {self._how_to_cancel()}")
        elif count := sum(bool(entry.job_id) for entry in self._journal.entries()):
            self.logger.warning(f"{count} submitted jobs go on. {self._how_to_cancel()}")

    def get_python_executable(self) -> str:
        """Return Python's path as the shell is to read it."""
        return shlex.quote(super().get_python_executable())

    def _how_to_cancel(self) -> str:
        command = f"python -m snakemake_executor_plugin_submitit cancel --folder {self.settings.folder}"
        return f"The same command finds them again; to cancel them: {command}"

    def shutdown(self) -> None:
        """Stop watching and say what the jobs used of what they asked for."""
        with self.lock:
            self.wait = False
        self.wait_thread.join()
        self._journal.unlock()
        go_on = {entry.job_id for entry in self._journal.entries()}
        ended = {job_id: asked for job_id, asked in self._allocations.items() if job_id not in go_on}
        if self.settings.cluster == "slurm" and ended:
            report_usage(ended, self.logger)

    def _prepare(self, job: JobExecutorInterface) -> Ready:
        return make_ready(job, self.settings.cluster, self.settings.no_gpus, self._logs)

    def _end_outdated(self, readies: Sequence[Ready]) -> None:
        """Cancel jobs of an earlier call that would now be asked to do something else, or have ended long ago."""
        outdated = []
        for ready in readies:
            left = self._left.get(ready.entry.key)
            if left is not None and (left.digest != ready.entry.digest or self._is_stale(left)):
                outdated.append(self._left.pop(left.key))
        numbers = sorted({left.job_id for left in outdated if not self._is_stale(left)})
        if numbers:
            self.logger.info(f"Cancelling {', '.join(numbers)}: what they do is to be done otherwise now.")
            self._cancelled.update(numbers)
            self._outage.endure(partial(end_jobs, self._scheduler, numbers))
        for left in outdated:
            self._journal.forget(left)

    def _is_stale(self, left: Entry) -> bool:
        outcome = self._outcomes.read(left.token)
        return outcome is not None and outcome.ended and not ended_meanwhile(outcome)

    def _attach(self, ready: Ready) -> bool:
        """Take over a job of an earlier call."""
        left = self._left.pop(ready.entry.key, None)
        if left is None:
            return False
        self.logger.info(f"Found again: {left.rule} is job {left.job_id}.")
        ready.entry = left
        ready.wish = replace(ready.wish, request=Request(**left.request))
        self._watch(ready)
        return True

    def _submit(self, array: Sequence[Sequence[Ready]]) -> None:
        """Submit allocations that ask for the same, several as one job array; during an outage keep them for later."""
        request = request_of([ready.wish for pack in array for ready in pack])
        readies = [ready for pack in array for ready in pack]
        label, name = label_of(array[0]), f"snakemake-{uuid.uuid4().hex[:12]}"
        try:
            with writing(self._tmpdir):
                self._announce(readies, label, request, name)
                batch = Batch([self._allocation(pack, request) for pack in array], label, request, name)
        except WorkflowError as error:
            self._refuse(array, error)
            return
        with self._submitting:
            if self._outage.is_on or self._interrupted:
                self._postponed.append((array, batch))
            else:
                self._send(array, batch)

    def _submit_postponed(self) -> None:
        """Submit what waits for the scheduler, as long as it answers; after Ctrl-C nothing is submitted any more."""
        with self._submitting:
            while self._postponed and self._outage.is_due and not self._interrupted:
                self._send(*self._postponed.popleft(), again=True)

    def _send(self, array: Sequence[Sequence[Ready]], batch: Batch, again: bool = False) -> None:
        """Submit allocations and watch over them; while the scheduler does not answer they wait, but not for ever."""
        try:
            submitted = self._submitter.submit(batch, again)
        except NoAnswerError as error:
            self._outage.note(error)
            self._postponed.append((array, batch))
            while self._outage.is_long and self._postponed:
                self._refuse(self._postponed.popleft()[0], error)
            return
        except WorkflowError as error:
            self._refuse(array, error)
        else:
            for pack, job_id in zip(array, submitted, strict=True):
                for ready in pack:
                    ready.entry = replace(ready.entry, job_id=job_id)
                    self._note_number(ready.entry)
                    self._watch(ready)
        self._outage.end()

    def _refuse(self, array: Sequence[Sequence[Ready]], error: Exception) -> None:
        request, partition = array[0][0].wish.request, self._scheduler.defaults.get("partition", "")
        excess = (
            "" if isinstance(error, NoAnswerError) else self._pending.excess(request, request.partition or partition)
        )
        why = f"{error}\n{excess}\n" if excess else f"{error}\n"
        for ready in (ready for pack in array for ready in pack):
            self._journal.forget(ready.entry)
            self.report_job_error(SubmittedJobInfo(ready.job), msg=f"It could not be submitted: {why}")

    def _announce(self, readies: Sequence[Ready], label: str, request: Request, submission: str) -> None:
        """Note what is about to be submitted."""
        for ready in readies:
            Path(ready.entry.log).parent.mkdir(parents=True, exist_ok=True)
            ready.wish = replace(ready.wish, request=request)
            ready.entry = replace(ready.entry, submission=submission, label=label, request=asdict(request))
            self._journal.write(ready.entry)

    def _note_number(self, entry: Entry) -> None:
        """Note what number a job got; without the note it is watched all the same, and a later call finds it out."""
        try:
            self._journal.write(entry)
        except WorkflowError as error:
            self.logger.warning(f"Job {entry.job_id} was submitted, but not noted: {error}")

    def _allocation(self, pack: Sequence[Ready], request: Request) -> Allocation:
        steps = [
            Step(ready.entry.token, self.format_job_exec(ready.job), ready.entry.log, ready.wish.state, ready.outputs)
            for ready in pack
        ]
        limit_s = request.runtime * 60
        delay_s = min(self.settings.signal_delay, limit_s // 4)
        requeues = self.settings.requeues + len(pack) - 1  # as if each were alone
        return Allocation(steps, self._outcomes, str(Path.cwd()), limit_s, delay_s, requeues)

    def _watch(self, ready: Ready) -> None:
        self._allocations[ready.entry.job_id] = ready.entry.label, ready.wish.request
        self.report_job_submission(SubmittedJobInfo(ready.job, ready.entry.job_id, {"ready": ready}))

    def _states(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Return how jobs stand; all as active while the scheduler gives no answer."""
        wanted = set(job_ids)
        if self._unheard and not self._outage.is_due:
            return dict.fromkeys(wanted, ACTIVE)
        try:
            states = self._scheduler.states(wanted)
        except NoAnswerError as error:
            self._unheard = True
            self._outage.note(error)
            return dict.fromkeys(wanted, ACTIVE)
        self._unheard = False
        if not self._postponed:  # which show as well whether it answers
            self._outage.end()
        return states

    def _is_dead(self, ready: Ready, state: str) -> bool:
        """Say whether a job is gone: a shared file system may take a while to show what it wrote at its end."""
        if state == ACTIVE:
            ready.silent_since = None
            return False
        if ready.silent_since is None:
            ready.silent_since = monotonic()
        return bool(monotonic() - ready.silent_since >= self.workflow.execution_settings.latency_wait)

    def _end_hopeless(self, silent: Sequence[SubmittedJobInfo]) -> dict[str, str]:
        """Cancel the jobs that can never start and return why; none if that fails, for they are seen again."""
        requests = {info.external_jobid: info.aux["ready"].wish.request for info in silent}
        never = self._pending.hopeless(self._scheduler.waiting, requests)
        try:
            end_jobs(self._scheduler, sorted(never))
        except NoAnswerError as error:
            self.logger.debug(f"Jobs that can never start are not cancelled yet: {error}")
            return {}
        return never

    def _report_hopeless(self, info: SubmittedJobInfo, why: str) -> None:
        entry = info.aux["ready"].entry
        self._journal.forget(entry)
        self._allocations.pop(entry.job_id, None)  # it has used nothing
        self.report_job_error(info, msg=f"Job {entry.job_id} can never start, and was cancelled: {why}.\n")

    def _conclude(self, info: SubmittedJobInfo, outcome: Outcome) -> None:
        entry, request = info.aux["ready"].entry, info.aux["ready"].wish.request
        self._begun.add(entry.job_id)
        self._journal.forget(entry)  # but not its outcome, lest an allocation that is queued again runs the job again
        if outcome.state == "done":
            self.report_job_success(info)
        else:
            self.report_job_error(info, msg=explain_failure(outcome, entry, request), aux_logs=[entry.log])

    def _bury(self, dead: Sequence[SubmittedJobInfo], states: dict[str, str]) -> None:
        """Report jobs whose allocation ended under them; those that had not begun are submitted again."""
        outcomes = [self._outcomes.read(info.aux["ready"].entry.token) for info in dead]
        self._begun |= {outcome.job_id for outcome in outcomes if outcome is not None}
        again: list[Ready] = []
        for info, outcome in zip(dead, outcomes, strict=True):
            ready: Ready = info.aux["ready"]
            if outcome is not None and outcome.ended:  # seen only now
                self._conclude(info, outcome)
                continue
            self._journal.forget(ready.entry)
            if ready.entry.job_id in self._cancelled or (outcome is None and ready.entry.job_id in self._begun):
                again.append(self._prepare(ready.job))
            else:
                self._report_death(info, states[info.external_jobid])
        for array in arrays_of(packs_of(again)):
            self._submit(array)

    def _report_death(self, info: SubmittedJobInfo, state: str) -> None:
        ready: Ready = info.aux["ready"]
        log = self._submitter.log(ready.entry.job_id)
        message = explain_death(state, ready.entry, ready.wish.request, log)
        self.report_job_error(info, msg=message, aux_logs=[ready.entry.log, str(log)])


def _check(settings: Any) -> None:
    """Check what a user may have set.

    Raises:
        WorkflowError: a setting makes no sense.
    """
    if settings.on_interrupt not in ("detach", "cancel"):
        raise WorkflowError(f"submitit-on-interrupt {settings.on_interrupt!r} is unknown; use detach or cancel")
    least_of = {"array_limit": 1, "requeues": 0, "signal_delay": 0, "pending_grace": 0, "max_outage": 0}
    for name, least in least_of.items():
        if getattr(settings, name) < least:
            raise WorkflowError(f"submitit-{name.replace('_', '-')} {getattr(settings, name)} is below {least}")
