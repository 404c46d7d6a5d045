"""What is kept of jobs on disk, what the scheduler is asked, and what users are told."""

import errno
import fcntl
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
import submitit
from allocations import allocation_of, lines
from snakemake_executor_plugin_submitit.__main__ import cancel, main
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
from snakemake_interface_common.exceptions import WorkflowError

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


def test_an_entry_that_another_thread_forgets_meanwhile_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path)
    journal.write(ENTRY)
    paths = list((tmp_path / "jobs").iterdir())
    journal.forget(ENTRY)
    monkeypatch.setattr(Path, "iterdir", lambda _: iter(paths))
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


def test_what_cannot_be_noted_leaves_what_was_noted_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(path: Path, *_: object, **__: object) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    journal = Journal(tmp_path)
    journal.write(ENTRY)
    monkeypatch.setattr(Path, "write_text", fill)
    with pytest.raises(WorkflowError, match=f"^{tmp_path}/jobs/.{ENTRY.key}: No space left on device; free space"):
        journal.write(replace(ENTRY, job_id="78"))
    assert journal.entries() == [ENTRY]


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


@pytest.mark.parametrize(("end", "last"), [("", "x" * 50), ("\nboom\n", "boom")])
def test_of_a_line_as_long_as_a_log_only_the_end_is_read_and_shown(tmp_path: Path, end: str, last: str) -> None:
    log = tmp_path / "train.log"
    with log.open("w") as file:
        file.truncate(80 << 20)
        file.seek(0, os.SEEK_END)
        file.write("x" * 9000 + end)
    tracemalloc.start()
    texts = explain_failure(FAILED, replace(ENTRY, log=str(log)), REQUEST), explain_death("FAILED", ENTRY, REQUEST, log)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    for text in texts:
        assert len(text) < 10_000
        assert f"The end of {log}:\n    […] xxx" in text
        assert text.endswith(f"{last}\n")


def test_a_log_of_which_all_lines_shown_are_whole_is_not_said_to_be_cut(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    text = explain_failure(FAILED, replace(ENTRY, log=str(log)), REQUEST)
    assert text.splitlines()[2:] == [f"    line {number}" for number in range(9980, 10_000)]


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
        (
            "UNKNOWN",
            r"is not known to the scheduler any more, which does not say how it ended, and left no word of it\.",
        ),
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


def test_of_a_full_disk_the_user_is_told_where_logs_do_not_say_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    entry = replace(ENTRY, log=str(tmp_path / "train.log"))
    for text in (explain_failure(FAILED, entry, REQUEST), explain_death("FAILED", entry, REQUEST, tmp_path / "no")):
        assert f"\n{tmp_path}: No space left on device; free space" in text


# Schedulers


UNHEARD = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
PROGRAMS = {"sbatch": "exit 1", "scancel": "exit 0", "squeue": "exit 1", "scontrol": UNHEARD}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts scripts on a PATH that has nothing else; each notes how it was called."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)

    def write(**scripts: str) -> None:
        for name, text in {**PROGRAMS, **scripts}.items():
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
QUEUE = "squeue --all --me --array --states=all --noheader --format=%i|%T|%P|%r|%k"
ACCOUNTING = "sacct --allocations --parsable2 --format=JobID,State --jobs="
SHOW = "scontrol --all --oneliner show job "


def queue(**states: str) -> str:
    """Return a script that prints jobs and their states."""
    return (
        "".join(f"echo '{job_id.removeprefix('job')}|{state}|main|None|a|b'\n" for job_id, state in states.items())
        + "true"
    )


def test_states_are_those_of_the_queue_and_then_of_accounting(programs: Callable[..., None], tmp_path: Path) -> None:
    queued = queue(job70="RUNNING", job73="PENDING", job76="COMPLETING", job80_2="PENDING", job81="TIMEOUT")
    programs(sacct=CAT + SACCT, squeue=queued)
    numbers = [*map(str, range(70, 80)), *(f"80_{index}" for index in (0, 1, 2, 9)), "81", "90"]
    states = SlurmScheduler(LOGGER).states(numbers)
    assert list(states) == numbers
    assert states == {
        **dict.fromkeys(("70", "73", "76", "80_2"), ACTIVE),  # 73 was queued again
        **{"72": "CANCELLED", "74": "TIMEOUT", "75": "OUT_OF_MEMORY", "78": "NODE_FAIL"},
        **{"80_0": "COMPLETED", "80_1": "FAILED", "81": "TIMEOUT"},
        # accounting takes some of these for alive, and has missed their ends: the controller does not know them
        **dict.fromkeys(("71", "77", "79", "80_9", "90"), UNKNOWN),
    }


SHOWN = """\
case "${!#}" in
71) echo 'JobId=71 JobName=JobState=FAILED UserId=u JobState=RUNNING Reason=None Comment=JobState=FAILED';;
79) echo 'JobId=79 JobName=train UserId=u JobState=NODE_FAIL Reason=None';;
80) echo 'JobId=92 ArrayJobId=80 ArrayTaskId=2-3,7%2 JobName=train JobState=PENDING Reason=Priority'
    echo 'JobId=91 ArrayJobId=80 ArrayTaskId=1 ArrayTaskThrottle=2 JobName=train JobState=CANCELLED Reason=None';;
90) echo 'JobId=90 JobName=train UserId=u JobState=REQUEUED Reason=None';;
*) echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1;;
esac
"""


def test_what_the_queue_does_not_show_is_dead_only_by_two_words_or_the_controllers(
    programs: Callable[..., None], tmp_path: Path
) -> None:
    programs(sacct=CAT + SACCT, squeue="true", scontrol=SHOWN)
    states = SlurmScheduler(LOGGER).states(["70", "71", "77", "79", "80_1", "80_2", "80_3", "80_7", "90", "95"])
    assert states == {
        **{"70": "COMPLETED", "71": ACTIVE, "77": UNKNOWN, "79": "NODE_FAIL", "80_1": "CANCELLED"},
        **{"80_2": ACTIVE, "80_3": ACTIVE, "80_7": ACTIVE, "90": ACTIVE, "95": UNKNOWN},
    }
    assert calls(tmp_path) == [
        QUEUE,
        f"{ACCOUNTING}70,71,77,79,80,90,95",
        *(f"{SHOW}{number}" for number in (71, 77, 79, 80, 90, 95)),
    ]


def test_without_accounting_the_controller_says_what_became_of_jobs(programs: Callable[..., None]) -> None:
    programs(sacct="exit 1", squeue="true", scontrol=SHOWN)
    states = SlurmScheduler(LOGGER).states(["71", "79", "80_1", "95"])
    assert states == {"71": ACTIVE, "79": "NODE_FAIL", "80_1": "CANCELLED", "95": UNKNOWN}


def test_a_controller_that_does_not_answer_declares_no_job_dead(programs: Callable[..., None]) -> None:
    programs(sacct=CAT + SACCT, squeue="true", scontrol="echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(NoAnswerError, match="^scontrol: Unable to contact slurm controller$"):
        SlurmScheduler(LOGGER).states(["71"])


def test_accounting_is_asked_once_and_only_about_jobs_that_left_the_queue(
    programs: Callable[..., None], tmp_path: Path
) -> None:
    sacct = "echo 'JobID|State'; echo '8_1|FAILED'; echo '9|TIMEOUT'"
    programs(sacct=sacct, squeue=queue(job7="RUNNING", job8_0="PENDING", job99="RUNNING"))
    states = SlurmScheduler(LOGGER).states({"7", "8_0", "8_1", "9"})
    assert states == {"7": ACTIVE, "8_0": ACTIVE, "8_1": "FAILED", "9": "TIMEOUT"}
    assert calls(tmp_path) == [QUEUE, f"{ACCOUNTING}8,9"]


def test_accounting_is_left_alone_while_all_jobs_are_queued(programs: Callable[..., None], tmp_path: Path) -> None:
    programs(sacct="exit 1", squeue=queue(job7="RUNNING", job8_0="PENDING"))
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
    programs(squeue=queue(job7="RUNNING"), **sacct)
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
    lines_of_queue = (
        *(
            "7|RUNNING|main|None|snakemake-1",
            "8_0|PENDING|main|None|snakemake-12",
            "8_1|PENDING|main|None|snakemake-1",
            "9|RUNNING|main|None|a|snakemake-1",
        ),
        *("6|COMPLETED|main|None|snakemake-1", "5|RUNNING|main|None|", "squeue: a remark"),
    )
    programs(squeue="".join(f"echo '{line}'\n" for line in lines_of_queue))
    assert sorted(SlurmScheduler(LOGGER).submitted_as("snakemake-1")) == ["7", "8_1"]
    assert calls(tmp_path) == [QUEUE]


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


# What a user's or a site's environment says to SLURM's commands


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch, programs: Callable[..., None]) -> Callable[..., SlurmScheduler]:
    """Return a function that makes a scheduler in an environment that says this to SLURM, and nothing else."""
    programs(squeue="true")

    def speak(**variables: str) -> SlurmScheduler:
        for name in [name for name in os.environ if name.startswith(("S", "PMI_"))]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        return SlurmScheduler(LOGGER)

    return speak


def left_of(*prefixes: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


MEANING = (
    *("SBATCH_ARRAY_INX", "SBATCH_EXPORT", "SBATCH_NO_REQUEUE", "SBATCH_OUTPUT", "SBATCH_REQUEUE", "SBATCH_SIGNAL"),
    *("SBATCH_TIMELIMIT", "SBATCH_WAIT", "SACCT_FEDERATION", "SALLOC_PARTITION", "SCANCEL_STATE", "SCONTROL_LOCAL"),
    *("SLURM_BITSTR_LEN", "SLURM_CLUSTERS", "SLURM_EXPORT_ENV", "SLURM_HINT", "SLURM_TIME_FORMAT", "SQUEUE_FORMAT"),
    *("SQUEUE_STATES", "SRUN_CPUS_PER_TASK", "SRUN_EXPORT_ENV"),
)


@pytest.mark.parametrize("name", MEANING)
def test_what_changes_the_meaning_of_commands_reaches_neither_them_nor_jobs(
    spoken: Callable[..., SlurmScheduler], name: str
) -> None:
    assert spoken(**{name: "1"}).defaults == {}
    assert left_of("S") == {"SLURM_BITSTR_LEN": "0"}


def test_what_finds_the_cluster_and_is_nobody_elses_is_kept(spoken: Callable[..., SlurmScheduler]) -> None:
    kept = {
        **{"SLURM_CONF": "/etc/slurm.conf", "SLURM_JWT": "token", "SLURM_MPI_TYPE": "pmix", "SLURM_UMASK": "0027"},
        **{"SSH_TTY": "/dev/pts/0", "SCRATCH": "/scratch", "PMI_TIME": "500"},
    }
    assert spoken(**kept).defaults == {}
    assert left_of("S", "PMI_") == {**kept, "SLURM_BITSTR_LEN": "0"}


def test_what_a_site_needs_is_an_option_of_jobs_that_say_nothing(spoken: Callable[..., SlurmScheduler]) -> None:
    needed = {
        **{"account": "a", "acctg-freq": "30", "constraint": "c", "delay-boot": "5", "network": "n"},
        **{"partition": "p", "qos": "q", "reservation": "r", "wckey": "w"},
    }
    variables = {f"SBATCH_{name.replace('-', '_').upper()}": value for name, value in needed.items()}
    assert spoken(**variables, SLURM_ACCOUNT="another").defaults == needed
    assert spoken(SBATCH_ACCOUNT="", SBATCH_QOS="q").defaults == {"qos": "q"}
    assert left_of("S") == {"SLURM_BITSTR_LEN": "0"}


def test_the_user_is_told_what_is_not_passed_on(
    spoken: Callable[..., SlurmScheduler], caplog: pytest.LogCaptureFixture
) -> None:
    text = "Not passed on to SLURM's commands and jobs: "
    with caplog.at_level(logging.INFO):
        spoken(SQUEUE_STATES="PENDING", SBATCH_EXPORT="NONE", SBATCH_ACCOUNT="a", SLURM_CLUSTERS="b")
        assert caplog.messages == [f"{text}SBATCH_EXPORT, SLURM_CLUSTERS, SQUEUE_STATES"]
        caplog.clear()
        SlurmScheduler(LOGGER)  # which finds nothing more
        assert caplog.messages == []
        spoken(SLURM_JOB_ID="3", SLURM_MEM_PER_NODE="100", SBATCH_EXPORT="NONE")  # the first are not the user's
        assert caplog.messages == [f"{text}SBATCH_EXPORT"]
        assert left_of("S") == {"SLURM_BITSTR_LEN": "0"}


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
echo '91|RUNNING|main|None|snakemake-3'
echo '99|RUNNING|main|None|'
[ -e TWICE ] || { echo '77|RUNNING|main|None|snakemake-1'; echo '90|PENDING|main|None|snakemake-2'; }
[ ! -e ONCE ] || : > TWICE
: > ONCE
"""  # what is cancelled is seen once more


def test_exactly_the_jobs_of_the_folder_are_cancelled_and_waited_for(
    programs: Callable[..., None],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("snakemake_executor_plugin_submitit.schedulers.sleep", slept.append)
    programs(sacct="exit 1", squeue=f"cd {tmp_path}\n{SLOW_QUEUE}")
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
    assert calls(tmp_path)[-4:] == [QUEUE, f"{ACCOUNTING}77,90", f"{SHOW}77", f"{SHOW}90"]
    assert journal.entries() == []
    assert "3 jobs cancelled" in caplog.text
    journal.lock(LOGGER)  # and the folder is free again
    journal.unlock()


def test_jobs_that_could_not_be_cancelled_are_not_forgotten(programs: Callable[..., None], tmp_path: Path) -> None:
    programs(
        scancel="echo 'scancel: error: Kill job error on job id 77: Unable to contact slurm controller' >&2; exit 1",
        squeue=queue(job77="RUNNING"),
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
