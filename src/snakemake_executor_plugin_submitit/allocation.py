"""What runs on the nodes: the job steps of one allocation, one after another."""

import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import submitit
from submitit.helpers import DelayedSubmission

from snakemake_executor_plugin_submitit.outcome import Outcome, Outcomes

_DROPPED = ("SNAKEMAKE_PROFILE",)  # the job step is told everything on its command line
_KILL_WAIT_S = 900  # a scheduler that sends SIGTERM kills within its grace time
_POLL_S = 0.1


class AllocationError(RuntimeError):
    """A job of an allocation failed; the scheduler is to know it too."""


@dataclass(frozen=True)
class Step:
    """One Snakemake job.

    Attributes:
        token: its name, unique over all submissions.
        command: the shell command that runs it.
        log: file that its output is appended to.
        state: what grows while it makes progress that a later attempt goes on from; empty if nothing is kept.
    """

    token: str
    command: str
    log: str
    state: str = ""


@dataclass
class Allocation:
    """Runs job steps one after another; a step that fails fails alone. Submitted to, and called by, submitit.

    On several nodes submitit calls it once a node: the first does the work and the others return.

    Attributes:
        steps: the jobs.
        outcomes: where they say how they stand.
        directory: where they run.
        limit_s: the allocation's time limit in seconds.
        signal_delay_s: how long before the limit the scheduler sends its signal: so long a step may save its state.
        requeues: how often the allocation may be queued again, by the scheduler or because its time was over.
        restarts: how often it was.
    """

    steps: Sequence[Step]
    outcomes: Outcomes
    directory: str
    limit_s: float
    signal_delay_s: float
    requeues: int
    restarts: int = 0
    _began: float = field(default=0.0, init=False)
    _finished: int = field(default=0, init=False)
    _current: Step | None = field(default=None, init=False)
    _pid: int = field(default=0, init=False)
    _kept: frozenset[str] = field(default=frozenset(), init=False)
    _warned: bool = field(default=False, init=False)

    def __call__(self) -> None:
        """Run the steps that have not been run.

        Raises:
            AllocationError: one of them failed.
        """
        environment = submitit.JobEnvironment()
        if environment.global_rank:
            return
        self._began = time.time()
        self.restarts = max(self.restarts, int(os.environ.get("SLURM_RESTART_COUNT", 0)))
        if environment.cluster != "debug":  # there this is the controlling process itself
            signal.signal(signal.SIGTERM, self._warn)
        for step in self._open_steps():
            if self.restarts > self.requeues:
                self._end(step, f"queued again {self.restarts} times, which is more than {self.requeues}: given up")
            else:
                self._run(step, environment.job_id)
        failed = [step.token for step in self.steps if self._outcome(step).state == "failed"]
        if failed and environment.cluster != "debug":
            raise AllocationError(f"{len(failed)} of {len(self.steps)} jobs failed: see above, and their own logs")

    def checkpoint(self) -> DelayedSubmission:
        """Stop the step that runs, so that the allocation can be queued again; called by submitit upon its signal.

        A step is given up if its time is over and it has made no progress.

        Raises:
            AllocationError: there is no reason to queue it again.
        """
        step, progress = self._current, False
        if step is not None:
            self._stop(step)
            progress = _kept_by(step.state) != self._kept
            if self._is_over() and not progress and not self._finished:
                self._end(step, self._why_over(step))
        if not (rest := list(self._open_steps())):
            raise AllocationError("nothing is left to run")
        if self.restarts >= self.requeues:
            for step in rest:
                self._end(step, f"out of time or preempted for the {self.restarts + 1}th time: given up")
            raise AllocationError("queued again too often")
        return DelayedSubmission(replace(self, restarts=self.restarts + 1))

    def _run(self, step: Step, job_id: str) -> None:
        began = time.time()
        self._current, self._kept = step, _kept_by(step.state)
        self.outcomes.write(step.token, Outcome("running", "", job_id, began))
        self._pid = _start(step, self.directory, share=len(self.steps) > 1)
        try:
            _wait(self._pid)
        except BaseException:  # interrupted: nothing is to go on without us
            _kill(self._pid)
            raise
        status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        if status and self._warned:  # the scheduler is about to kill us: the end is not ours to call
            time.sleep(_KILL_WAIT_S)
        message = "" if status == 0 else f"its command ended with status {status}"
        self._finished += status == 0
        self._end(step, message)

    def _end(self, step: Step, message: str) -> None:
        known = self.outcomes.read(step.token) or Outcome("running", "", submitit.JobEnvironment().job_id, time.time())
        state = "failed" if message else "done"
        self.outcomes.write(
            step.token, replace(known, state=state, message=message, seconds=time.time() - known.started)
        )
        self._current, self._pid = None, 0

    def _outcome(self, step: Step) -> Outcome:
        return self.outcomes.read(step.token) or Outcome("running")

    def _open_steps(self) -> list[Step]:
        return [step for step in self.steps if not self._outcome(step).ended]

    def _is_over(self) -> bool:
        """Say whether the time limit is near, as opposed to preemption: schedulers signal up to a minute early."""
        return time.time() - self._began >= self.limit_s - self.signal_delay_s - 60

    def _why_over(self, step: Step) -> str:
        minutes = f"its time limit of {self.limit_s / 60:g} min"
        if not step.state:
            return f"ran out of {minutes}, and keeps no state to go on from; raise its resource runtime"
        return f"ran out of {minutes} without progress: {step.state} is as it was; raise its resource runtime"

    def _stop(self, step: Step) -> None:
        """End a step; one that keeps a state gets time to save it."""
        if not self._pid:
            return
        if step.state:
            _signal(self._pid, signal.SIGUSR2)
            _wait(self._pid, self.signal_delay_s * 0.8)
        _kill(self._pid)

    def _warn(self, _number: int, _frame: FrameType | None) -> None:
        """Have the state saved: the scheduler is about to kill the job, to requeue it or for good."""
        self._warned = True
        if self._pid and self._current is not None and self._current.state:
            _signal(self._pid, signal.SIGUSR2)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pid": 0, "_current": None, "_finished": 0}


def _kept_by(state: str) -> frozenset[str]:
    """Return the names below a path; what a running process has not finished writing begins with a dot."""
    names = (str(path.relative_to(state)) for path in Path(state).glob("**/*")) if state else ()
    return frozenset(name for name in names if not any(part.startswith(".") for part in Path(name).parts))


def _start(step: Step, directory: str, share: bool) -> int:
    """Start a step and return its process.

    Args:
        step: the job.
        directory: where it runs.
        share: whether Snakemake is loaded once, here, for all steps, and not by each: that is most of what it costs.
    """
    arguments = shlex.split(step.command)
    plain = share and arguments[:3] == [sys.executable, "-m", "snakemake"]
    if plain:
        from snakemake.cli import main
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    status = 1
    try:
        _become(step.log, directory)
        if not plain:
            os.execv("/bin/bash", ["bash", "-c", step.command])
        main(arguments[3:])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        logging.exception("Snakemake failed")
    finally:
        sys.stdout.flush()
        os._exit(status)


def _become(log: str, directory: str) -> None:
    """Make a new process that of a step: only those of its own act on the scheduler's signal that ask for it."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(descriptor, sys.stdout.fileno())
    os.dup2(descriptor, sys.stderr.fileno())
    for number in (signal.SIGTERM, signal.SIGCONT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    os.chdir(directory)
    for name in _DROPPED:
        os.environ.pop(name, None)


def _wait(pid: int, seconds: float = float("inf")) -> None:
    """Wait for the end of a child; not through Popen, whose lock a signal handler would find taken."""
    end = time.monotonic() + seconds
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while time.monotonic() < end and os.waitid(os.P_PID, pid, flags) is None:
        time.sleep(_POLL_S)


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _signal(pid: int, number: int) -> None:
    for process in _tree(pid):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _kill(pid: int) -> None:
    _signal(pid, signal.SIGTERM)
    _, alive = psutil.wait_procs(_tree(pid), timeout=5)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
