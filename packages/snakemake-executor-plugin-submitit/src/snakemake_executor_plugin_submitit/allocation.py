"""What runs on the nodes: the job steps of one allocation, one after another."""

import json
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import submitit
from submitit.helpers import DelayedSubmission

from snakemake_executor_plugin_submitit import relay
from snakemake_executor_plugin_submitit.outcome import Outcome, Outcomes
from snakemake_executor_plugin_submitit.storage import why_unwritten

_DROPPED = ("SNAKEMAKE_PROFILE",)  # the job step is told everything on its command line
_KILL_WAIT_S = 900  # a scheduler that sends SIGTERM kills within its grace time
_EARLY_S = 120  # schedulers signal up to a minute early, and what runs in an allocation may start late
_POLL_S = 0.1
WAITING = "SUBMITIT_WAITING"
"""Tells a step which files the steps after it are to make, as a JSON list."""
SRUN = "SUBMITIT_SRUN"
"""Tells a step on several nodes what to call in place of `srun`, as a JSON list: unlike that, it survives SIGTERM."""


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
        outputs: the files that it makes.
    """

    token: str
    command: str
    log: str
    state: str = ""
    outputs: tuple[str, ...] = ()


@dataclass
class Allocation:
    """Runs job steps one after another; a step that fails fails alone. Submitted to, and called by, submitit.

    On several nodes submitit calls it once a node: the first does the work and the others return.

    Attributes:
        steps: the jobs.
        outcomes: where they say how they stand; one that has ended is not run again.
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
    _busy: bool = field(default=False, init=False)
    _late: bool = field(default=False, init=False)
    _handler: Any = field(default=None, init=False)

    def __call__(self) -> None:
        """Run the steps that have not been run.

        Raises:
            AllocationError: one of them failed.
            SystemExit: how one of them stands cannot be written.
        """
        environment = submitit.JobEnvironment()
        if environment.global_rank:
            return
        self._began = float(os.environ.get("SLURM_JOB_START_TIME", time.time()))
        self._listen(environment.cluster)
        if environment.num_nodes > 1:
            os.environ[SRUN] = json.dumps(relay.command())
        # Snakemake's own process goes on, and is to start no debugger.
        with suppress(AllocationError, SystemExit) if environment.cluster == "debug" else nullcontext():
            self._work(environment)

    def checkpoint(self) -> DelayedSubmission:
        """Stop the step that runs, so that the allocation can be queued again; called by submitit upon its signal.

        A step is given up if its time is over and it has made no progress.

        Raises:
            AllocationError: there is no reason to queue it again.
        """
        step = self._current
        if step is not None and self._stop(step) == 0:  # it had just ended
            self._end(step)
        elif step is not None and self._is_over() and not self._finished and self._kept_by(step) == self._kept:
            self._end(step, self._why_over(step))
        if not (rest := self._open_steps()):
            raise AllocationError("nothing is left to run")
        if self.restarts >= self.requeues:
            for left in rest:
                self._end(left, f"is out of time or preempted, and was queued again {self.restarts} times already")
            raise AllocationError("queued again too often")
        return DelayedSubmission(replace(self, restarts=self.restarts + 1))

    def _work(self, environment: submitit.JobEnvironment) -> None:
        for step in self._open_steps():
            if self.restarts > self.requeues:
                self._end(step, f"was queued again {self.restarts} times, more than the {self.requeues} allowed")
            else:
                self._run(step, environment)
        if failed := [step for step in self.steps if self._outcome(step).state == "failed"]:
            raise AllocationError(f"{len(failed)} of {len(self.steps)} jobs failed: see {failed[0].log}")

    def _listen(self, cluster: str) -> None:
        """Heed the scheduler's signals, as far as there is something to gain."""
        if cluster == "slurm":
            self.restarts = max(self.restarts, int(os.environ.get("SLURM_RESTART_COUNT", 0)))
            signal.signal(signal.SIGTERM, self._warn)
        self._handler = signal.getsignal(signal.SIGUSR2)
        alone = len(self.steps) == 1 and not self.steps[0].state  # it would but end sooner
        signal.signal(signal.SIGUSR2, signal.SIG_IGN if alone else self._announce)

    def _announce(self, number: int, frame: FrameType | None) -> None:
        """Pass submitit its signal, at once or when what may not be disturbed is done."""
        self._late = self._busy
        if not self._busy and callable(self._handler):
            self._handler(number, frame)

    @contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """Have submitit's signal wait, so that it does not fall between a process and the note of it.

        Where the note fails, it waits for ever: what may have ended is not to be queued again.
        """
        self._busy = True
        yield
        self._busy = False
        if self._late:
            self._announce(signal.SIGUSR2, None)

    def _run(self, step: Step, environment: submitit.JobEnvironment) -> None:
        self._kept = self._kept_by(step)
        share = len(self.steps) > 1 and environment.cluster != "debug"  # there this is Snakemake itself
        with self._undisturbed():
            self._note(step, Outcome("running", "", environment.job_id, time.time()))
            self._current, self._pid = step, _start(step, self.directory, share, self._waiting(step))
        try:
            _wait(self._pid)
        except BaseException:  # interrupted: nothing is to go on without us
            _kill(self._pid)
            raise
        with self._undisturbed():
            status = self._reap()
            if status == 0 or not self._warned:
                self._end(step, f"its command ended with status {status}" if status else "")
                return
        time.sleep(_KILL_WAIT_S)  # the scheduler is about to kill us: the end is not ours to call
        self._end(step, f"its command ended with status {status}, after a signal to end")

    def _end(self, step: Step, message: str = "") -> None:
        known = self.outcomes.read(step.token) or Outcome("running", "", submitit.JobEnvironment().job_id, time.time())
        state = "failed" if message else "done"
        ended = replace(known, state=state, message=message, seconds=time.time() - known.started)
        self._note(step, ended)
        self._finished += not message
        self._current = None

    def _note(self, step: Step, outcome: Outcome) -> None:
        """Write how a step stands.

        Raises:
            SystemExit: it cannot be written, so that nobody would know what the allocation does.
        """
        try:
            self.outcomes.write(step.token, outcome)
        except OSError as error:
            why = why_unwritten(error, self.outcomes.directory)
            raise SystemExit(f"{step.log}: that this job is {outcome.state} cannot be written: {why}") from error

    def _reap(self) -> int:
        """Return the status of a step's process that has ended, and forget the process."""
        pid, self._pid = self._pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _stop(self, step: Step) -> int | None:
        """End a step, which gets time to save a state that it keeps, and return its status; None if it had ended."""
        if not self._pid:
            return None
        if step.state:
            _signal(_tree(self._pid), signal.SIGUSR2)
            _wait(self._pid, self.signal_delay_s * 0.8)
        _kill(self._pid)
        return self._reap()

    def _warn(self, _number: int, _frame: FrameType | None) -> None:
        """Have the state saved: the scheduler is about to kill the job, to requeue it or for good."""
        self._warned = True
        if self._pid and self._current is not None and self._current.state:
            _signal(_tree(self._pid), signal.SIGUSR2)

    def _outcome(self, step: Step) -> Outcome:
        return self.outcomes.read(step.token) or Outcome("running")

    def _open_steps(self) -> list[Step]:
        return [step for step in self.steps if not self._outcome(step).ended]

    def _waiting(self, step: Step) -> list[str]:
        """Return the files that are to be made by the steps that are left beside this one."""
        return [output for other in self._open_steps() if other != step for output in other.outputs]

    def _kept_by(self, step: Step) -> frozenset[str]:
        """Return the names below a step's state; what is not finished being written begins with a dot."""
        if not step.state:
            return frozenset()
        state = Path(self.directory) / step.state
        names = (path.relative_to(state) for path in state.glob("**/*"))
        return frozenset(str(name) for name in names if not any(part.startswith(".") for part in name.parts))

    def _is_over(self) -> bool:
        """Say whether the time limit is near, as opposed to preemption."""
        return time.time() - self._began >= self.limit_s - self.signal_delay_s - _EARLY_S

    def _why_over(self, step: Step) -> str:
        minutes = f"its time limit of {self.limit_s / 60:g} min"
        if not step.state:
            return f"ran out of {minutes}, and keeps no state to go on from; raise its resource runtime"
        return f"ran out of {minutes} without progress: {step.state} is as it was; raise its resource runtime"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pid": 0, "_current": None, "_finished": 0, "_handler": None}


def _start(step: Step, directory: str, share: bool, waiting: Sequence[str]) -> int:
    """Start a step and return its process.

    Args:
        step: the job.
        directory: where it runs.
        share: whether Snakemake is loaded once, here, for all steps, and not by each: that is most of what it costs.
        waiting: the files that later steps are to make.
    """
    arguments = _snakemake_arguments(step.command) if share else None
    if arguments is not None:
        from snakemake.cli import main
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    status = 1
    try:
        _become(step.log, directory)
        os.environ[WAITING] = json.dumps(waiting)
        if arguments is None:
            os.execv("/bin/bash", ["bash", "-c", step.command])
        main(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        logging.exception("Snakemake failed")
    finally:
        sys.stdout.flush()
        os._exit(status)


def _snakemake_arguments(command: str) -> list[str] | None:
    """Return the arguments of a command that only calls Snakemake; None of one that is the shell's to read."""
    with suppress(ValueError):
        words = shlex.split(command)
        if words[:3] == [sys.executable, "-m", "snakemake"]:
            return words[3:]
    return None


def _become(log: str, directory: str) -> None:
    """Make a new process that of a step: only those of its own act on the scheduler's signal that ask for it."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    for number in (signal.SIGTERM, signal.SIGCONT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    os.chdir(directory)
    for name in _DROPPED:
        os.environ.pop(name, None)


def _wait(pid: int, seconds: float = float("inf")) -> None:
    """Wait for the end of a child, which stays to be asked for its status; a signal's handler may have asked."""
    end = time.monotonic() + seconds
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    with suppress(ChildProcessError):
        while time.monotonic() < end and os.waitid(os.P_PID, pid, flags) is None:
            time.sleep(_POLL_S)


def _tree(pid: int) -> list[psutil.Process]:
    """Return a process and all that it has started."""
    if not pid:
        return []
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _signal(processes: Sequence[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _kill(pid: int) -> None:
    """End a process and all that it has started; the process itself stays to be asked for its status."""
    if not (tree := _tree(pid)):
        return
    _signal(tree, signal.SIGTERM)
    end = time.monotonic() + 5
    while time.monotonic() < end and any(_lives(process) for process in tree):
        time.sleep(_POLL_S)
    _signal([process for process in tree if _lives(process)], signal.SIGKILL)
    while any(_lives(process) for process in tree):
        time.sleep(_POLL_S)


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
