"""Jobs in their allocation: one after another, stopped, queued again, given up."""

import errno
import json
import os
import pickle
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import submitit
from allocations import allocation_of, lines
from snakemake_executor_plugin_submitit import relay
from snakemake_executor_plugin_submitit.allocation import Allocation, AllocationError
from snakemake_executor_plugin_submitit.outcome import Outcome, Outcomes


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


def test_a_job_is_told_what_those_after_it_are_to_make(node: Path) -> None:
    tell = "echo $SUBMITIT_WAITING >> waiting"
    with pytest.raises(AllocationError):
        attempt(allocation_of(node, tell, tell, "exit 1", tell))
    assert lines(node / "waiting") == ['["1.out", "2.out", "3.out"]', '["2.out", "3.out"]', "[]"]


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


class Full(Outcomes):
    """Outcomes on a disk that is full but for what says that a job runs; the scheduler's signal comes upon that."""

    states = ("running",)

    def write(self, token: str, outcome: Outcome) -> None:
        if outcome.state not in self.states:
            os.kill(os.getpid(), signal.SIGUSR2)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(token, outcome)


@pytest.mark.parametrize(("states", "said", "ran"), [(("running",), "done", ["a"]), ((), "running", [])])
def test_an_allocation_that_cannot_say_how_a_job_stands_fails_and_runs_nothing_else(
    node: Path, monkeypatch: pytest.MonkeyPatch, states: tuple[str, ...], said: str, ran: list[str]
) -> None:
    monkeypatch.setattr(Full, "states", states)
    allocation = allocation_of(node, "echo a >> ran", "echo b >> ran")
    allocation.outcomes = Full(allocation.outcomes.directory)
    text = f"job-0.log: that this job is {said} cannot be written: {node}/outcomes: No space left on device; free space"
    with pytest.raises(SystemExit, match=re.escape(text)):
        attempt(allocation)  # and is not queued again
    assert lines(node / "ran") == ran
    assert not [token for token in Outcomes(node / "outcomes").tokens() if outcome_of(node).ended]


def test_a_job_on_several_nodes_is_told_what_to_call_in_place_of_srun(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(allocation_of(node, "echo $SUBMITIT_SRUN >> told"))
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    monkeypatch.setenv("SUBMITIT_SRUN", "")  # for what is set is to be forgotten
    attempt(replace(allocation_of(node, "echo $SUBMITIT_SRUN >> told"), outcomes=Outcomes(node / "others")))
    assert lines(node / "told") == ["", json.dumps([sys.executable, relay.__file__])]


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
    executor.update_parameters(timeout_min=16 / 60, signal_delay_s=12, stderr_to_stdout=True)
    job = executor.submit(allocation_of(tmp_path, command, state=str(tmp_path / "state"), limit_s=16))
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
