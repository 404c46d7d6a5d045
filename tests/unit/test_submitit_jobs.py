"""Jobs in their allocation, what is kept of them on disk, what the scheduler is asked, and what users are told."""

import errno
import fcntl
import json
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import submitit
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.__main__ import cancel, main
from snakemake_executor_plugin_submitit.allocation import Allocation, AllocationError, Step
from snakemake_executor_plugin_submitit.failure import explain_death, explain_failure
from snakemake_executor_plugin_submitit.journal import Entry, Journal
from snakemake_executor_plugin_submitit.outcome import Outcome, Outcomes
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.schedulers import (
    ACTIVE,
    UNKNOWN,
    NoAnswerError,
    SlurmScheduler,
    scheduler_of,
)

LOGGER = logging.getLogger("test_submitit_jobs")
REQUEST = Request(runtime=30, mem_mb=500, cpus=1)
ENTRY = Entry(
    *("train-1", "digest", "train-1-a", "train", "snakemake-1", "slurm", "train.log", "77", "train", asdict(REQUEST))
)
DONE = Outcome("done", "", "77", 1000.0, 5.0)


@pytest.fixture
def processes() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return a function that starts a Python process with a child; all are gone in the end."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                each.kill()
        process.communicate()


def child_of(process: subprocess.Popen[str]) -> psutil.Process:
    assert process.stdout is not None
    return psutil.Process(int(process.stdout.readline()))


# Outcomes


def test_an_outcome_is_read_as_it_was_written(tmp_path: Path) -> None:
    outcomes = Outcomes(tmp_path / "not" / "yet")
    assert outcomes.read("train-1") is None
    assert list(outcomes.tokens()) == []
    outcomes.write("train-1", Outcome("running", "", "77", 1000.0))
    outcomes.write("train-2", Outcome("failed", "“why”", "77", 1000.0, 5.0))
    outcomes.write("train-1", DONE)
    assert outcomes.read("train-1") == DONE
    assert outcomes.read("train-2") == Outcome("failed", "“why”", "77", 1000.0, 5.0)
    assert sorted(outcomes.tokens()) == ["train-1", "train-2"]


def test_an_outcome_that_is_being_written_is_not_seen(tmp_path: Path) -> None:
    (tmp_path / ".train-1.123").write_text("{")
    assert list(Outcomes(tmp_path).tokens()) == []


@pytest.mark.parametrize("text", ["", '{"state": "do', "\udcff"])
def test_an_outcome_that_a_shared_file_system_half_shows_is_not_known_yet(tmp_path: Path, text: str) -> None:
    (tmp_path / "train-1").write_bytes(text.encode(errors="surrogateescape"))
    assert Outcomes(tmp_path).read("train-1") is None


def test_an_outcome_that_cannot_be_opened_is_not_known_yet(tmp_path: Path) -> None:
    (tmp_path / "train-1").mkdir()
    assert Outcomes(tmp_path).read("train-1") is None


def test_a_job_has_ended_when_it_is_done_or_failed() -> None:
    assert [Outcome(state).ended for state in ("running", "done", "failed")] == [False, True, True]


# Journal


def test_an_entry_is_found_again_until_it_is_forgotten(tmp_path: Path) -> None:
    other = replace(ENTRY, key="train-2", token="train-2-b")
    Journal(tmp_path).write(other)
    Journal(tmp_path).write(replace(ENTRY, job_id=""))
    Journal(tmp_path).write(ENTRY)
    assert Journal(tmp_path).entries() == [ENTRY, other]
    Journal(tmp_path).forget(ENTRY)
    Journal(tmp_path).forget(ENTRY)
    assert Journal(tmp_path).entries() == [other]


def test_a_half_written_entry_is_passed_over(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    (tmp_path / "jobs" / ".train-1").write_text("{")
    assert journal.entries() == []


def test_one_process_tends_the_jobs_and_the_other_is_told_which(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.lock(LOGGER)
    owner = rf"snakemake on {socket.gethostname()}, process {os.getpid()},"
    with pytest.raises(WorkflowError, match=rf"{tmp_path}/lock: {owner} tends the jobs of this directory; end it"):
        second.lock(LOGGER)
    first.unlock()
    second.lock(LOGGER)
    second.unlock()
    second.unlock()


def test_the_lock_ends_with_its_process_and_not_with_what_that_started(
    tmp_path: Path, processes: Callable[..., subprocess.Popen[str]]
) -> None:
    script = (
        "import logging, subprocess, sys, time; from pathlib import Path; "
        "from snakemake_executor_plugin_submitit.journal import Journal; "
        "journal = Journal(Path(sys.argv[1])); journal.lock(logging.getLogger()); "
        "child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); time.sleep(60)"
    )
    owner = processes(script, str(tmp_path))
    child = child_of(owner)
    with pytest.raises(WorkflowError, match=rf"process {owner.pid}, tends"):
        Journal(tmp_path).lock(LOGGER)
    owner.kill()
    owner.wait()
    Journal(tmp_path).lock(LOGGER)
    assert child.is_running()
    child.kill()


def test_without_locks_the_user_is_told_to_take_care(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_file: object, _operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    journal = Journal(tmp_path)
    journal.lock(LOGGER)
    journal.unlock()
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith(f"{tmp_path}/lock: no lock (")
    assert "No locks available" in warning
    assert warning.endswith("see to it that one process tends these jobs")


# Allocation


class Requeued(BaseException):
    """What submitit does after `checkpoint`: the process ends, and what was returned is queued again."""

    def __init__(self, delayed: Any) -> None:
        super().__init__()
        self.delayed = delayed


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """The environment of a job that submitit has sent to SLURM, in an empty directory."""
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SUBMITIT_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGALRM)}
    yield tmp_path
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def allocation_of(directory: Path, *commands: str, state: str = "", **differences: Any) -> Allocation:
    """Return an allocation whose limit is far away unless told otherwise."""
    steps = [
        Step(f"job-{number}", command, str(directory / f"job-{number}.log"), state)
        for number, command in enumerate(commands)
    ]
    defaults: dict[str, Any] = {"limit_s": 3600, "signal_delay_s": 2, "requeues": 5}
    return Allocation(steps, Outcomes(directory / "outcomes"), str(directory), **{**defaults, **differences})


def attempt(allocation: Allocation) -> Allocation | None:
    """Run an allocation as submitit does; return what it would run next time, None if that is nothing."""

    def requeue(_number: int, _frame: object) -> None:
        raise Requeued(allocation.checkpoint())

    signal.signal(signal.SIGUSR2, requeue)
    try:
        allocation()
    except Requeued as requeued:
        again = pickle.loads(pickle.dumps(requeued.delayed.function))
        assert isinstance(again, Allocation)
        return again
    return None


def outcome_of(directory: Path, number: int = 0) -> Outcome:
    outcome = Outcomes(directory / "outcomes").read(f"job-{number}")
    assert outcome is not None
    return outcome


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


OVER = {"limit_s": 1, "signal_delay_s": 2}
WARNED = "sleep 0.1; kill -USR2 $PPID; sleep 60"  # a job that the scheduler's signal finds running


def test_jobs_run_one_after_another_and_say_how_they_ended(node: Path) -> None:
    before = time.time()
    assert attempt(allocation_of(node, "sleep 0.2; echo a >> ran", "echo b >> ran; pwd >> ran")) is None
    assert lines(node / "ran") == ["a", "b", str(node)]
    first, second = outcome_of(node, 0), outcome_of(node, 1)
    assert (first.state, first.message, first.job_id) == ("done", "", "7")
    assert before <= first.started <= second.started
    assert 0.2 <= first.seconds < 20


def test_a_job_that_fails_fails_alone(node: Path) -> None:
    with pytest.raises(AllocationError, match=r"^1 of 3 jobs failed: see "):
        attempt(allocation_of(node, "echo a >> ran", "echo why; exit 3", "echo c >> ran"))
    assert lines(node / "ran") == ["a", "c"]
    assert [outcome_of(node, number).state for number in range(3)] == ["done", "failed", "done"]
    assert outcome_of(node, 1).message == "its command ended with status 3"


def test_a_job_that_a_signal_ended_has_failed(node: Path) -> None:
    with pytest.raises(AllocationError, match="1 of 1 jobs"):
        attempt(allocation_of(node, "kill -KILL $$"))
    assert outcome_of(node).message == "its command ended with status -9"


def test_what_a_job_says_is_added_to_its_log(node: Path) -> None:
    """Also where Python's own output goes elsewhere, as in a notebook or here."""
    (node / "job-0.log").write_text("earlier\n")
    attempt(allocation_of(node, "echo now; echo wrong >&2"))
    assert lines(node / "job-0.log") == ["earlier", "now", "wrong"]


def test_a_command_is_the_shell_s_to_read(node: Path) -> None:
    attempt(allocation_of(node, "echo a >> ran # don't stumble", "echo b >> ran"))
    assert lines(node / "ran") == ["a", "b"]


def test_a_job_is_not_told_what_profile_the_user_had(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNAKEMAKE_PROFILE", "slurm")
    monkeypatch.setenv("KEPT", "yes")
    attempt(allocation_of(node, 'echo "${SNAKEMAKE_PROFILE-none} $KEPT" >> told'))
    assert lines(node / "told") == ["none yes"]
    assert os.environ["SNAKEMAKE_PROFILE"] == "slurm"


def test_only_the_first_of_several_nodes_works(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    assert attempt(allocation_of(node, "echo a >> ran")) is None
    assert not (node / "ran").exists()
    assert list(Outcomes(node / "outcomes").tokens()) == []


def test_a_preempted_allocation_goes_on_where_it_was_and_nobody_is_judged(node: Path) -> None:
    allocation = allocation_of(
        node, "echo a >> ran", f"echo b >> ran; [ $(wc -l < ran) -gt 2 ] || {{ {WARNED}; }}", "echo c >> ran"
    )
    again = attempt(allocation)
    assert again is not None
    assert again.restarts == 1
    assert outcome_of(node, 1).state == "running"
    assert attempt(again) is None
    assert lines(node / "ran") == ["a", "b", "b", "c"]
    assert [outcome_of(node, number).state for number in range(3)] == ["done"] * 3


def test_a_job_that_failed_is_not_run_again_after_preemption(node: Path) -> None:
    again = attempt(allocation_of(node, "echo a >> ran; false", f"[ -e second ] || {{ touch second; {WARNED}; }}"))
    assert again is not None
    with pytest.raises(AllocationError, match="1 of 2 jobs failed"):
        attempt(again)
    assert lines(node / "ran") == ["a"]


def test_an_allocation_in_which_all_has_ended_is_not_queued_again(node: Path) -> None:
    allocation = allocation_of(node, "true")
    attempt(allocation)
    with pytest.raises(AllocationError, match="nothing is left to run"):
        allocation.checkpoint()


def test_a_job_out_of_time_that_made_progress_goes_on(node: Path) -> None:
    command = (
        f"mkdir -p state/new; touch state/new/step$(ls state/new | wc -l); [ -e state/new/step1 ] || {{ {WARNED}; }}"
    )
    again = attempt(allocation_of(node, command, state="state", **OVER))
    assert again is not None
    assert attempt(again) is None
    assert outcome_of(node).state == "done"


@pytest.mark.parametrize("left", ["true", "touch state/.partial", "mkdir state/.new; touch state/.new/weights"])
def test_a_job_out_of_time_without_progress_has_failed(node: Path, left: str) -> None:
    (node / "state").mkdir()
    (node / "state" / "step1").touch()
    with pytest.raises(AllocationError, match="nothing is left to run"):
        attempt(allocation_of(node, f"{left}; {WARNED}", state="state", limit_s=30, signal_delay_s=1))
    text = "ran out of its time limit of 0.5 min without progress: state is as it was; raise its resource runtime"
    assert (outcome_of(node).state, outcome_of(node).message) == ("failed", text)


def test_a_job_out_of_time_that_keeps_no_state_has_failed_and_the_next_one_runs(node: Path) -> None:
    again = attempt(allocation_of(node, WARNED, "echo b >> ran", limit_s=60, signal_delay_s=30))
    assert again is not None
    text = "ran out of its time limit of 1 min, and keeps no state to go on from; raise its resource runtime"
    assert (outcome_of(node).state, outcome_of(node).message) == ("failed", text)
    with pytest.raises(AllocationError, match="1 of 2 jobs failed"):
        attempt(again)
    assert lines(node / "ran") == ["b"]


def test_a_job_is_not_judged_by_the_time_that_the_ones_before_it_took(node: Path) -> None:
    again = attempt(allocation_of(node, "true", f"[ -e second ] || {{ touch second; {WARNED}; }}", **OVER))
    assert again is not None
    assert outcome_of(node, 1).state == "running"
    assert attempt(again) is None
    assert outcome_of(node, 1).state == "done"


@pytest.mark.parametrize(("ago", "state"), [(100, "running"), (130, "failed")])
def test_time_counts_from_the_start_that_the_scheduler_names(
    node: Path, monkeypatch: pytest.MonkeyPatch, ago: int, state: str
) -> None:
    """Of five minutes, the last of which is announced, up to two minutes early, setting up may take some."""
    monkeypatch.setenv("SLURM_JOB_START_TIME", str(int(time.time()) - ago))
    attempt(allocation_of(node, WARNED, "true", limit_s=300, signal_delay_s=60))
    assert outcome_of(node).state == state


def test_nothing_is_queued_again_more_often_than_allowed(node: Path) -> None:
    again: Allocation | None = allocation_of(node, f"echo a >> ran; {WARNED}", "echo b >> ran", requeues=2)
    for _ in range(2):
        assert again is not None
        again = attempt(again)
    assert again is not None
    with pytest.raises(AllocationError, match="queued again too often"):
        attempt(again)
    assert lines(node / "ran") == ["a"] * 3
    for number in range(2):
        assert outcome_of(node, number).state == "failed"
        assert outcome_of(node, number).message.startswith("is out of time or preempted, and was queued again 2 times")


def test_what_the_scheduler_queues_again_by_itself_counts(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    attempt(allocation_of(node, "echo a >> ran", requeues=2))
    assert lines(node / "ran") == ["a"]
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")
    second = allocation_of(node, "echo a >> ran", "echo b >> ran", requeues=2)
    with pytest.raises(AllocationError, match="1 of 2 jobs failed"):
        attempt(second)
    assert lines(node / "ran") == ["a"]
    assert outcome_of(node, 1).message == "was queued again 3 times, more than the 2 allowed"


def test_restarts_of_an_allocation_that_snakemake_itself_is_in_do_not_count(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "local")
    monkeypatch.setenv("SUBMITIT_LOCAL_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "3")  # and its processes of this machine are submitit's local executor's
    attempt(allocation_of(node, "echo a >> ran", requeues=2))
    assert lines(node / "ran") == ["a"]


SAVES = """
import os, pathlib, signal, sys, time
def save(*_):
    pathlib.Path("state/saved").touch()
    sys.exit(3)
signal.signal(signal.SIGUSR2, save)
os.kill(int(sys.argv[1]), getattr(signal, sys.argv[2]))
time.sleep(60)
"""


def test_the_signal_reaches_who_asks_for_it_and_nobody_else(node: Path) -> None:
    """A training script saves its state; the shell and Snakemake above it know nothing of the signal."""
    (node / "save.py").write_text(SAVES)
    (node / "state").mkdir()
    command = f"sleep 1.5 & {sys.executable} save.py $PPID SIGUSR2; echo $? >> status; wait $!; echo $? >> status"
    command += "; exit 3"
    again = attempt(allocation_of(node, command, state="state", limit_s=1, signal_delay_s=20))
    assert again is not None
    assert lines(node / "status") == ["3", "0"]
    assert (node / "state" / "saved").exists()


def test_a_job_that_saves_for_too_long_is_ended_in_time(node: Path) -> None:
    began = time.monotonic()
    again = attempt(allocation_of(node, "kill -USR2 $PPID; sleep 60", state="state", signal_delay_s=1))
    assert again is not None
    assert 0.8 <= time.monotonic() - began < 10


def test_nothing_of_a_stopped_job_runs_on(node: Path) -> None:
    """What ignores SIGTERM, as training that saves may, is not to run beside the next attempt."""
    stubborn = (
        "import os, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        ' open("pid", "w").write(str(os.getpid())); os.kill(int(sys.argv[1]), signal.SIGUSR2); time.sleep(60)'
    )
    assert attempt(allocation_of(node, f"{sys.executable} -c '{stubborn}' $PPID; true", "true")) is not None
    (number,) = lines(node / "pid")
    alive = psutil.pid_exists(int(number)) and psutil.Process(int(number)).status() != psutil.STATUS_ZOMBIE
    if alive:
        psutil.Process(int(number)).kill()
    assert not alive


class Killed(BaseException):
    """What the scheduler does at last."""


def test_a_job_about_to_be_killed_saves_its_state_and_has_not_failed(node: Path) -> None:
    (node / "save.py").write_text(SAVES)
    (node / "state").mkdir()

    def kill(_number: int, _frame: object) -> None:
        raise Killed

    signal.signal(signal.SIGALRM, kill)
    allocation = allocation_of(node, f"{sys.executable} save.py $PPID SIGTERM", "echo b >> ran", state="state")
    signal.setitimer(signal.ITIMER_REAL, 2)
    with pytest.raises(Killed):
        attempt(allocation)
    assert (node / "state" / "saved").exists()
    assert outcome_of(node).state == "running"
    assert not (node / "ran").exists()


def test_a_job_that_ends_well_although_a_kill_was_announced_is_done(node: Path) -> None:
    assert attempt(allocation_of(node, "kill -TERM $PPID; sleep 0.2", state="state")) is None
    assert outcome_of(node).state == "done"


def test_preemption_that_sends_first_one_signal_and_then_the_other_queues_again(node: Path) -> None:
    (node / "save.py").write_text(SAVES)
    (node / "state").mkdir()
    later = "(trap '' TERM; sleep 1.5; kill -USR2 $PPID) &"
    again = attempt(allocation_of(node, f"{later} {sys.executable} save.py $PPID SIGTERM; exit 3", state="state"))
    assert again is not None
    assert outcome_of(node).state == "running"


class Interrupting(Outcomes):
    """Outcomes that the scheduler's signal comes upon while they are written."""

    def write(self, token: str, outcome: Outcome) -> None:
        if outcome.ended:
            os.kill(os.getpid(), signal.SIGUSR2)
        super().write(token, outcome)


@pytest.mark.parametrize("state", ["", "state"])
def test_a_job_that_ended_as_the_signal_came_is_not_run_again(node: Path, state: str) -> None:
    allocation = allocation_of(node, "echo a >> ran", "echo b >> ran", state=state)
    allocation.outcomes = Interrupting(allocation.outcomes.directory)
    again = attempt(allocation)
    if again is not None:
        again.outcomes = Outcomes(allocation.outcomes.directory)
        attempt(again)
    assert lines(node / "ran") == ["a", "b"]
    assert [outcome_of(node, number).state for number in range(2)] == ["done", "done"]


def test_a_state_is_looked_for_where_the_job_runs(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (node / "elsewhere").mkdir()
    monkeypatch.chdir(node / "elsewhere")  # as a setup command may leave it
    command = f"mkdir state; touch state/step1; {WARNED}"
    assert attempt(allocation_of(node, command, state="state", **OVER)) is not None


def test_submitit_queues_again_what_is_out_of_time(tmp_path: Path) -> None:
    command = "mkdir -p state; touch state/$(ls state | wc -l); [ -e state/1 ] || sleep 60"
    executor = submitit.LocalExecutor(tmp_path / "logs")
    executor.update_parameters(timeout_min=6 / 60, signal_delay_s=2, stderr_to_stdout=True)
    job = executor.submit(allocation_of(tmp_path, command, state=str(tmp_path / "state"), limit_s=6))
    try:
        job.result()
    finally:
        said = job.stdout()
    assert outcome_of(tmp_path).state == "done", said
    assert outcome_of(tmp_path).job_id == job.job_id
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["0", "1"]


def test_an_allocation_in_the_controlling_process_leaves_its_signals_alone(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUBMITIT_EXECUTOR")
    monkeypatch.setenv("SUBMITIT_DEBUG_JOB_ID", "DEBUG_1")
    before = signal.getsignal(signal.SIGTERM)
    allocation_of(node, "exit 3", "echo b >> ran")()  # and raises nothing, for submitit would start a debugger
    assert signal.getsignal(signal.SIGTERM) == before
    assert [outcome_of(node, number).state for number in range(2)] == ["failed", "done"]


# What users are told

WHY = "Job 77: its command ended with status 3"
FAILED = Outcome("failed", "its command ended with status 3", "77")


def test_a_failure_shows_why_the_end_of_the_log_and_where_the_log_is(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_bytes(b"".join(b"line %d\n" % number for number in range(100)) + b"\xff last without an end")
    text = explain_failure(FAILED, replace(ENTRY, log=str(log)), REQUEST)
    said = text.splitlines()
    assert said[:2] == ["Job 77: its command ended with status 3.", f"The end of {log}:"]
    assert said[2:] == [*(f"    line {number}" for number in range(81, 100)), "    \ufffd last without an end"]


def test_the_end_of_a_log_of_progress_bars_is_short(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("".join(f"\r{number}%" for number in range(1000)) + "\nboom\n", newline="")
    text = explain_failure(FAILED, replace(ENTRY, log=str(log)), REQUEST)
    assert "boom" in text
    assert len(text) < 1000


def test_a_log_that_is_empty_or_missing_is_no_second_failure(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    entry = replace(ENTRY, log=str(log))
    assert explain_failure(FAILED, entry, REQUEST) == f"{WHY}.\n{log} is empty.\n"
    log.touch()
    assert explain_failure(FAILED, entry, REQUEST) == f"{WHY}.\n{log} is empty.\n"
    log.unlink()
    log.mkdir()
    assert explain_failure(FAILED, entry, REQUEST) == f"{WHY}.\n{log} is empty.\n"


@pytest.mark.parametrize(
    "line",
    [
        "Command 'python train.py' died with <Signals.SIGKILL: 9>.",
        "Shell command exited with exit code 137",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=77.0.",
    ],
)
def test_memory_is_suspected_where_a_part_of_a_job_was_killed(tmp_path: Path, line: str) -> None:
    log = tmp_path / "train.log"
    log.write_text(f"{line}\n")
    text = explain_failure(FAILED, replace(ENTRY, log=str(log)), REQUEST)
    hint = "A part of it was killed: it may need more than the 500 MB asked for."
    assert text.splitlines()[:2] == [f"{WHY}. {hint}", f"The end of {log}:"]


def test_memory_is_not_suspected_for_the_name_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "oom_kill" / "train.log"
    log.parent.mkdir()
    log.write_text("as always\n")
    assert explain_failure(FAILED, replace(ENTRY, log=str(log)), REQUEST).startswith(f"{WHY}.\n")


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("OUT_OF_MEMORY", r"needed more than the 500 MB it had asked for; raise its resource mem_mb\."),
        ("TIMEOUT", r"ran out of its time limit of 30 min; raise its resource runtime\."),
        ("CANCELLED", r"was cancelled, by you or by the site\."),
        ("NODE_FAIL", r"lost its node and was not queued again\."),
        ("COMPLETED", r"ended and left no word of how; look at its logs\."),
        ("UNKNOWN", r"is known neither to the queue nor to accounting any more, and left no word of how it ended\."),
        ("BOOT_FAIL", r"was ended by the scheduler \(BOOT_FAIL\)\."),
    ],
)
def test_a_death_is_explained(state: str, reason: str, tmp_path: Path) -> None:
    log, allocation_log = tmp_path / "train.log", tmp_path / "77_0_log.out"
    log.write_text("of the job\n")
    allocation_log.write_text("of the scheduler\n")
    text = explain_death(state, replace(ENTRY, log=str(log)), REQUEST, allocation_log)
    with pytest.raises(AssertionError, match=rf"^Job 77 {reason}\nThe end of {log}:\n    of the job\nThe end of "):
        raise AssertionError(text)
    assert text.endswith(f"The end of {allocation_log}:\n    of the scheduler\n")


@pytest.mark.parametrize(
    "line",
    [
        "slurmstepd: error: StepId=77.0 exceeded memory limit (614400 > 512000), being killed",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=77.0. Some of the step tasks have been OOM Killed.",
        "slurmstepd: error: Detected 1 oom-kill event(s) in StepId=77.batch.",
    ],
)
def test_memory_is_blamed_where_only_the_log_says_so(tmp_path: Path, line: str) -> None:
    (tmp_path / "77_0_log.out").write_text(f"{line}\n")
    text = explain_death("FAILED", replace(ENTRY, log=str(tmp_path / "no")), REQUEST, tmp_path / "77_0_log.out")
    assert text.startswith("Job 77 needed more than the 500 MB it had asked for; raise its resource mem_mb.\n")


def test_memory_is_not_blamed_for_a_file_name(tmp_path: Path) -> None:
    log = tmp_path / "count_oom_kills" / "train.log"
    log.parent.mkdir()
    log.write_text("as always\n")
    text = explain_death("TIMEOUT", replace(ENTRY, log=str(log)), REQUEST, tmp_path / "no")
    assert text.startswith("Job 77 ran out of its time limit")


# Schedulers


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts scripts on a PATH that has nothing else; each notes how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)

    def write(**scripts: str) -> None:
        for name, text in {"sbatch": "exit 1", "scancel": "exit 0", "squeue": "exit 1", **scripts}.items():
            (folder / name).write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/calls\n{text}\n')
            (folder / name).chmod(0o755)

    return write


def calls(directory: Path, name: str = "") -> list[str]:
    return [line for line in lines(directory / "calls") if line.startswith(name)]


SACCT = """\
cat <<END
JobID|State
70|COMPLETED
71|RUNNING
72|CANCELLED by 1000
73|PREEMPTED
74|TIMEOUT
75|OUT_OF_MEMORY
76|REQUEUED
77|COMPLETING
78|NODE_FAIL
79|PENDING
80_0|COMPLETED
80_1|FAILED
80_[2-4,7%2]|PENDING
END
"""
CAT = 'cat() { while read -r line; do echo "$line"; done; }\n'  # the PATH has no other
QUEUE = "squeue --me --array --noheader --format=%i"


def test_states_are_those_of_the_queue_and_then_of_accounting(programs: Callable[..., None], tmp_path: Path) -> None:
    programs(sacct=CAT + SACCT, squeue="for number in 73 76 77 80_2 80_4; do echo $number; done")
    numbers = [*map(str, range(70, 80)), *(f"80_{index}" for index in (0, 1, 2, 3, 4, 7, 9)), "90"]
    states = SlurmScheduler(LOGGER).states(numbers)
    assert list(states) == numbers
    active = {"73", "76", "77", "80_2", "80_4"}  # 73 was queued again
    late = {"71", "79", "80_3", "80_7"}  # accounting lags: it does not know yet how they ended
    assert {number for number, state in states.items() if state == ACTIVE} == active
    assert {number: state for number, state in states.items() if number not in active} == {
        **{"70": "COMPLETED", "72": "CANCELLED", "74": "TIMEOUT", "75": "OUT_OF_MEMORY", "78": "NODE_FAIL"},
        **{"80_0": "COMPLETED", "80_1": "FAILED", "80_9": UNKNOWN, "90": UNKNOWN},
        **dict.fromkeys(late, UNKNOWN),
    }


def test_accounting_is_asked_once_and_only_about_jobs_that_left_the_queue(
    programs: Callable[..., None], tmp_path: Path
) -> None:
    programs(sacct="echo 'JobID|State'; echo '8_1|FAILED'; echo '9|TIMEOUT'", squeue="echo 7; echo 8_0; echo 99")
    states = SlurmScheduler(LOGGER).states({"7", "8_0", "8_1", "9"})
    assert states == {"7": ACTIVE, "8_0": ACTIVE, "8_1": "FAILED", "9": "TIMEOUT"}
    assert calls(tmp_path) == [QUEUE, "sacct --allocations --parsable2 --format=JobID,State --jobs=8,9"]


def test_accounting_is_left_alone_while_all_jobs_are_queued(programs: Callable[..., None], tmp_path: Path) -> None:
    programs(sacct="exit 1", squeue="echo 7; echo 8_0")
    assert SlurmScheduler(LOGGER).states(["7", "8_0"]) == {"7": ACTIVE, "8_0": ACTIVE}
    assert calls(tmp_path) == [QUEUE]


def test_nothing_is_asked_about_no_jobs(programs: Callable[..., None], tmp_path: Path) -> None:
    programs(sacct="exit 1", squeue="exit 1")
    assert SlurmScheduler(LOGGER).states([]) == {}
    assert calls(tmp_path) == []


@pytest.mark.parametrize("sacct", [{}, {"sacct": "echo 'accounting storage is disabled' >&2; exit 1"}])
def test_without_accounting_the_queue_is_asked_and_the_user_told_once(
    programs: Callable[..., None], caplog: pytest.LogCaptureFixture, sacct: dict[str, str]
) -> None:
    programs(squeue="echo 7", **sacct)
    scheduler = SlurmScheduler(LOGGER)
    for _ in range(3):
        assert scheduler.states(["7", "8"]) == {"7": ACTIVE, "8": UNKNOWN}
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("no accounting (sacct: ")
    assert warning.endswith("): what ended a job may remain unknown")


def test_a_queue_that_does_not_answer_is_no_answer(programs: Callable[..., None]) -> None:
    programs(sacct="exit 1", squeue="echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(NoAnswerError, match="^squeue: Unable to contact slurm controller$"):
        SlurmScheduler(LOGGER).states(["7"])


def test_a_scheduler_that_takes_too_long_gives_no_answer(
    programs: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snakemake_executor_plugin_submitit.schedulers._ANSWER_S", 0.3)
    programs(sacct="exec /bin/sleep 20", squeue="exec /bin/sleep 20")
    with pytest.raises(NoAnswerError, match="^squeue: .*timed out"):
        SlurmScheduler(LOGGER).states(["7"])


def test_jobs_are_found_by_the_name_they_went_out_under(programs: Callable[..., None], tmp_path: Path) -> None:
    programs(squeue="echo '7|snakemake-1'; echo '8_0|snakemake-12'; echo '8_1|snakemake-1'; echo '9|a|snakemake-1'")
    assert sorted(SlurmScheduler(LOGGER).submitted_as("snakemake-1")) == ["7", "8_1"]
    (call,) = calls(tmp_path)
    assert call == "squeue --me --array --noheader --format=%i|%k"


def test_many_jobs_are_cancelled_with_few_commands(programs: Callable[..., None], tmp_path: Path) -> None:
    programs()
    numbers = [f"5_{index}" for index in range(1200)]
    SlurmScheduler(LOGGER).cancel(numbers)
    assert len(calls(tmp_path)) == 3
    assert [number for line in calls(tmp_path) for number in line.split()[1:]] == numbers
    SlurmScheduler(LOGGER).cancel([])
    assert len(calls(tmp_path)) == 3


def test_jobs_that_have_ended_meanwhile_can_be_cancelled(programs: Callable[..., None]) -> None:
    programs(scancel="echo 'scancel: error: Kill job error on job id 7: Invalid job id specified' >&2; exit 1")
    SlurmScheduler(LOGGER).cancel(["7"])


def test_slurm_is_missed_at_once(programs: Callable[..., None], tmp_path: Path) -> None:
    programs()
    (tmp_path / "bin" / "sbatch").unlink()
    with pytest.raises(WorkflowError, match="submitit-cluster slurm: sbatch not found; call this where jobs can"):
        SlurmScheduler(LOGGER)


def test_limits_of_the_allocation_around_snakemake_are_not_handed_down(
    programs: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(squeue="true")
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm.conf")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    scheduler_of("slurm", LOGGER)
    assert os.environ["SLURM_MEM_PER_NODE"] == "100"  # a user's own wish, for there is no allocation
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    scheduler_of("slurm", LOGGER)
    assert [name for name in os.environ if name.startswith("SLURM_")] == ["SLURM_CONF"]


def test_an_unknown_cluster_is_named_with_the_known_ones() -> None:
    with pytest.raises(WorkflowError, match="submitit-cluster 'pbs' is unknown; use one of slurm, local, debug"):
        scheduler_of("pbs", LOGGER)


def test_jobs_of_this_process_have_ended() -> None:
    scheduler = scheduler_of("debug", LOGGER)
    scheduler.cancel(["DEBUG_1"])
    assert scheduler.states(["DEBUG_1"]) == {"DEBUG_1": UNKNOWN}
    assert scheduler.submitted_as("snakemake-1") == []


LOCAL_JOB = (
    "import subprocess, sys; child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); child.wait()"
)


def test_a_local_job_is_ended_with_what_it_started(
    tmp_path: Path, processes: Callable[..., subprocess.Popen[str]]
) -> None:
    executor = submitit.LocalExecutor(tmp_path / "logs")
    executor.update_parameters(timeout_min=5)
    jobs = [
        executor.submit(allocation_of(tmp_path / name, "echo $$ > pid; sleep 60; true"))
        for name in ("a", "b")
        if not (tmp_path / name).mkdir()
    ]
    scheduler = scheduler_of("local", LOGGER)
    deadline = time.monotonic() + 20
    while not all(lines(tmp_path / name / "pid") for name in ("a", "b")) and time.monotonic() < deadline:
        time.sleep(0.05)
    numbers = [job.job_id for job in jobs]
    shells = [psutil.Process(int(lines(tmp_path / name / "pid")[0])) for name in ("a", "b")]
    family = [each for shell in shells for each in (shell, *shell.children(recursive=True), *shell.parents()[:1])]
    assert scheduler.states([*numbers, "999999999"]) == {**dict.fromkeys(numbers, ACTIVE), "999999999": UNKNOWN}
    began = time.monotonic()
    scheduler.cancel([*numbers, "999999999"])
    took = time.monotonic() - began
    _, alive = psutil.wait_procs(family, timeout=2)
    assert not alive
    assert scheduler.states(numbers) == dict.fromkeys(numbers, UNKNOWN)
    assert took < 9  # together, not one after another


def test_a_process_that_has_the_number_of_a_job_by_chance_is_spared(
    processes: Callable[..., subprocess.Popen[str]],
) -> None:
    """After a restart of the machine, or in a new container, numbers begin anew: even Snakemake's own may be one."""
    other = processes(LOCAL_JOB, "--executor", "submitit", "--submitit-cluster", "local")
    child = child_of(other)
    scheduler = scheduler_of("local", LOGGER)
    assert scheduler.states([str(other.pid)]) == {str(other.pid): UNKNOWN}
    scheduler.cancel([str(other.pid)])
    assert child.is_running()
    assert other.poll() is None


# The command that cancels


SLOW_QUEUE = """\
case "$*" in
*%k*) echo '90|snakemake-2'; echo '91|snakemake-3'; echo '77|snakemake-1'; echo '99|';;
*) echo 91; echo 99; [ -e GONE ] || { : > GONE; echo 77; echo 90; };;
esac
"""  # what is cancelled is seen once more


def test_exactly_the_jobs_of_the_folder_are_cancelled_and_waited_for(
    programs: Callable[..., None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("snakemake_executor_plugin_submitit.schedulers.sleep", slept.append)
    programs(sacct="exit 1", squeue=SLOW_QUEUE.replace("GONE", str(tmp_path / "gone")))
    folder = tmp_path / "submitit"
    journal = Journal(folder)
    journal.write(ENTRY)
    journal.write(replace(ENTRY, key="train-2", token="train-2-a"))  # of the same allocation
    journal.write(replace(ENTRY, key="train-3", token="train-3-a", submission="snakemake-2", job_id=""))
    with caplog.at_level(logging.INFO):
        cancel(folder, LOGGER)
    cancelled = [number for line in calls(tmp_path, "scancel") for number in line.split()[1:]]
    assert sorted(cancelled) == ["77", "90"]
    assert len(slept) == 1
    assert calls(tmp_path)[-2:] == [QUEUE, "sacct --allocations --parsable2 --format=JobID,State --jobs=77,90"]
    assert journal.entries() == []
    assert "3 jobs cancelled" in caplog.text
    journal.lock(LOGGER)  # and the folder is free again
    journal.unlock()


def test_jobs_that_could_not_be_cancelled_are_not_forgotten(programs: Callable[..., None], tmp_path: Path) -> None:
    programs(
        scancel="echo 'scancel: error: Kill job error on job id 77: Unable to contact slurm controller' >&2; exit 1",
        squeue="echo '77|snakemake-1'",
    )
    journal = Journal(tmp_path / "submitit")
    journal.write(ENTRY)
    with pytest.raises(NoAnswerError, match="Unable to contact slurm controller"):
        cancel(tmp_path / "submitit", LOGGER)
    assert journal.entries() == [ENTRY]


def test_a_queue_that_does_not_answer_is_said_in_words(
    programs: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(squeue="echo 'Unable to contact slurm controller' >&2; exit 1")
    Journal(tmp_path / "submitit").write(replace(ENTRY, job_id=""))
    monkeypatch.setattr(sys, "argv", ["submitit", "cancel", "--folder", str(tmp_path / "submitit")])
    with pytest.raises(SystemExit, match="Unable to contact slurm controller"):
        main()
    assert len(Journal(tmp_path / "submitit").entries()) == 1


def test_jobs_that_a_process_tends_are_not_cancelled_behind_its_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(ENTRY)
    journal.lock(LOGGER)
    with pytest.raises(WorkflowError, match="tends the jobs of this directory"):
        cancel(tmp_path, LOGGER)
    journal.unlock()
    assert journal.entries() == [ENTRY]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["submitit", "cancel", "--folder", str(tmp_path / "no")])
    with pytest.raises(SystemExit, match=rf"{tmp_path}/no: no such folder of jobs; give what submitit-folder"):
        main()
    assert not (tmp_path / "no").exists()


def test_a_folder_of_something_else_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(WorkflowError, match=str(tmp_path)):
        cancel(tmp_path, LOGGER)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_is_kept_on_disk_is_plain_text(tmp_path: Path) -> None:
    Journal(tmp_path).write(ENTRY)
    assert json.loads((tmp_path / "jobs" / "train-1").read_text())["job_id"] == "77"
