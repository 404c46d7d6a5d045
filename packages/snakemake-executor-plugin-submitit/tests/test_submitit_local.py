"""The real Snakemake with its jobs sent out through submitit, as processes of this machine or of itself."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from snakemake_executor_plugin_submitit.journal import Journal
from snakemake_executor_plugin_submitit.outcome import Outcome, Outcomes
from submitit_files import GATED, WAIT_S, SubmititWorkflow, command_of

New = Callable[..., SubmititWorkflow]


@pytest.fixture
def new(tmp_path: Path) -> Iterator[New]:
    """Return a function that makes a workflow in an empty directory; nothing of it runs in the end."""
    made: list[SubmititWorkflow] = []

    def make(text: str, cluster: str = "local", directory: str = ".") -> SubmititWorkflow:
        (tmp_path / directory).mkdir(exist_ok=True)
        made.append(SubmititWorkflow(tmp_path / directory, text, cluster))
        return made[-1]

    yield make
    for workflow in made:
        workflow.clean()


def gated(*names: str, pack: int = 1, word: str = "first") -> str:
    return GATED.format(names=list(names), pack=pack, word=word)


# Packing

PACK = """\
rule all:
    input:
        expand("{name}.out", name=["a", "b", "c", "d"])

rule make:
    output:
        "{name}.out"
    resources:
        pack=4
    shell:
        "echo {wildcards.name} ${{SUBMITIT_LOCAL_JOB_ID:-none}} >> begun; echo line of {wildcards.name};"
        " while [ ! -e go -a $(wc -l < begun) = 3 ]; do sleep 0.05; done;"  # the third waits, but not a second time
        " [ {wildcards.name} != b ]; touch {output}"
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SubmititWorkflow, str]]:
    """Four jobs of one allocation, of which one fails; it is preempted while the third runs and two ends are known."""
    workflow = SubmititWorkflow(tmp_path_factory.mktemp("pack"), PACK)
    try:
        process = workflow.start("--keep-going")
        workflow.wait(lambda: len(workflow.begun()) == 3, "the third job has begun")
        open_jobs = workflow.directory / ".snakemake" / "submitit" / "jobs"
        workflow.wait(lambda: len(list(open_jobs.glob("make-*"))) == 2, "the ends of two are known")
        (controller,) = [each for each in workflow.processes() if "submitit.local._local" in command_of(each)]
        (task,) = controller.children()
        task.send_signal(signal.SIGUSR2)
        yield workflow, workflow.end(process, status=1)
    finally:
        workflow.clean()


def test_packed_jobs_share_an_allocation(packed: tuple[SubmititWorkflow, str]) -> None:
    workflow, _ = packed
    assert len({line.split()[1] for line in workflow.lines("begun")}) == 1
    made = sorted(path.name for path in workflow.directory.glob("*.out"))
    assert made == ["a.out", "c.out", "d.out"]  # the other failed alone


def test_a_failed_job_says_why_with_the_end_of_its_log_and_where_it_is(packed: tuple[SubmititWorkflow, str]) -> None:
    workflow, said = packed
    logs = workflow.directory / ".snakemake" / "submitit" / "logs" / "make"
    shown = re.search(rf"Job \d+: its command ended with status 1\.\n *The end of ({logs}/make-\S+\.log):\n", said)
    assert shown is not None, said
    assert "line of b" in Path(shown.group(1)).read_text()
    assert "line of b" in said
    assert "line of a" not in said


def test_jobs_whose_end_is_known_are_not_run_again_after_preemption(packed: tuple[SubmititWorkflow, str]) -> None:
    workflow, _ = packed
    third = workflow.lines("begun")[2].split()[0]
    assert workflow.begun() == sorted(["a", "b", "c", "d", third])


def test_packed_jobs_run_in_the_process_of_snakemake_too(new: New) -> None:
    workflow = new(PACK, "debug")
    (workflow.directory / "go").touch()
    said = workflow.run("--keep-going", status=1)
    assert workflow.begun() == ["a", "b", "c", "d"]
    assert len(list(workflow.directory.glob("*.out"))) == 3
    assert said.count("its command ended with status 1") == 1


# What has no sense is said at once

REFUSED = {
    "runtime": (
        ("--default-resources", "mem_mb=100"),
        "rule make: resource runtime is missing; give it to the rule, or",
    ),
    "hold": (("--set-resources", "make:extra=-H"), "rule make: resource extra='-H': hold would have jobs wait until"),
    "nodes": (("--set-resources", "make:nodes=2"), "rule make: 2 nodes need submitit-cluster slurm, not local"),
    "cluster": (("--submitit-cluster", "pbs"), "submitit-cluster 'pbs' is unknown; use one of slurm, local, debug"),
    "interrupt": (("--submitit-on-interrupt", "stop"), "submitit-on-interrupt 'stop' is unknown; use detach or cancel"),
    "array-limit": (("--submitit-array-limit=0",), "submitit-array-limit 0 is below 1"),
    "requeues": (("--submitit-requeues=-1",), "submitit-requeues -1 is below 0"),
    "signal-delay": (("--submitit-signal-delay=-1",), "submitit-signal-delay -1 is below 0"),
}


@pytest.mark.parametrize(("arguments", "text"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_sense_is_refused(new: New, arguments: tuple[str, ...], text: str) -> None:
    workflow = new(gated("a"))
    said = workflow.run(*arguments, status=1)
    assert text in " ".join(said.split())
    assert "Traceback" not in said
    assert workflow.begun() == []


LATER = """\
rule all:
    input:
        "late.out"

rule early:
    output:
        "early.out"
    shell:
        "echo early >> begun; touch {output}"

rule late:
    input:
        "early.out"
    output:
        "late.out"
    resources:
        extra="time=5"
    shell:
        "echo late >> begun; touch {output}"
"""


def test_what_has_no_sense_is_refused_before_what_comes_earlier_has_run(new: New) -> None:
    workflow = new(LATER)
    said = workflow.run(status=1)
    assert "rule late: resource extra='time=5': time is asked for by the resource runtime; give it there" in " ".join(
        said.split()
    )
    assert workflow.begun() == []


# Jobs outlive Snakemake


def test_jobs_are_found_again_after_snakemake_was_killed(new: New) -> None:
    workflow = new(gated("quick", "slow", "bad"))
    first = workflow.start("--keep-going")
    workflow.wait(lambda: workflow.begun() == ["bad", "quick", "slow"], "all have begun")

    refused = workflow.run(status=1)
    assert f"process {first.pid}, tends the jobs of this directory; end it first" in " ".join(refused.split())

    workflow.kill(first)
    workflow.allow("quick")
    workflow.wait(lambda: not workflow.steps("quick"), "the quick job has ended")
    for step in workflow.steps("bad"):
        step.kill()
    assert workflow.steps("slow")
    outcomes = workflow.directory / ".snakemake" / "submitit" / "outcomes"
    states = ['"done"', '"failed"', '"running"']
    workflow.wait(
        lambda: (
            sorted(re.findall('"(?:done|failed|running)"', "".join(p.read_text() for p in outcomes.glob("make-*"))))
            == states
        ),
        "one is done, one failed, one runs",
    )
    second = workflow.start("--keep-going")
    workflow.wait(lambda: workflow.begun().count("bad") == 2, "the failed job was sent out again")
    workflow.allow("slow", "bad")
    said = workflow.end(second)
    assert workflow.begun() == ["bad", "bad", "quick", "slow"]
    assert re.search(r"Found again: make is job \d+\.", said)
    assert [workflow.lines(f"{name}.out") for name in ("quick", "slow", "bad")] == [["first"]] * 3


def test_a_job_that_ended_unwatched_does_not_stand_for_one_that_is_forced_later(new: New) -> None:
    workflow = new(gated("a"))
    first = workflow.start()
    workflow.wait(lambda: workflow.begun() == ["a"], "it has begun")
    workflow.kill(first)
    workflow.allow("a")
    workflow.wait(lambda: len(workflow.processes()) == 0, "it has ended")
    workflow.run()
    assert workflow.begun() == ["a"]
    workflow.run("--forceall")
    assert workflow.begun() == ["a", "a"]


def test_a_job_that_is_asked_for_something_else_is_cancelled(new: New) -> None:
    workflow = new(gated("a"))
    first = workflow.start()
    workflow.wait(lambda: workflow.begun() == ["a"], "it has begun")
    workflow.kill(first)
    old = workflow.steps("a")
    assert old
    workflow.write(gated("a", word="second"))
    second = workflow.start()
    workflow.wait(lambda: workflow.begun() == ["a", "a"], "a new one has begun")
    assert not [process for process in old if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    workflow.allow("a")
    said = workflow.end(second)
    assert re.search(r"Cancelling \d+: what they do is to be done otherwise now\.", said), said
    assert workflow.lines("a.out") == ["second"]


def test_jobs_left_running_can_be_cancelled(new: New) -> None:
    workflow = new(gated("a"))
    first = workflow.start()
    workflow.wait(lambda: workflow.begun() == ["a"], "it has begun")
    command = [sys.executable, "-m", "snakemake_executor_plugin_submitit", "cancel"]
    place = {"cwd": workflow.directory, "env": workflow.environment, "capture_output": True, "text": True}
    refused = subprocess.run(command, **place, timeout=WAIT_S)
    assert refused.returncode == 1
    assert f"process {first.pid}, tends the jobs of this directory; end it first" in refused.stderr
    assert workflow.steps("a")
    workflow.kill(first)
    done = subprocess.run(command, **place, timeout=WAIT_S)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "1 jobs cancelled")
    assert workflow.processes() == []  # at once, for the command waits
    assert not list((workflow.directory / ".snakemake" / "submitit" / "jobs").iterdir())


def test_jobs_left_elsewhere_are_not_taken_for_lost(new: New) -> None:
    workflow = new(gated("a"))
    first = workflow.start()
    workflow.wait(lambda: workflow.begun() == ["a"], "it has begun")
    workflow.kill(first)
    refused = " ".join(workflow.run("--submitit-cluster", "debug", status=1).split())
    assert "submitit-cluster debug: an earlier call left jobs on local; let them end with" in refused
    assert "Traceback" not in refused
    assert workflow.steps("a")
    workflow.allow("a")
    workflow.run()
    assert workflow.begun() == ["a"]


def test_an_interrupt_cancels_local_jobs(new: New) -> None:
    workflow = new(gated("a", "b"))
    process = workflow.start()
    workflow.wait(lambda: workflow.begun() == ["a", "b"], "they have begun")
    process.send_signal(signal.SIGINT)
    said = workflow.end(process, status=1)
    workflow.wait(lambda: workflow.processes() == [], "nothing runs")
    assert not list(workflow.directory.glob("*.out")), said


def test_interrupts_that_follow_each_other_are_quiet_and_lose_nothing(new: New) -> None:
    workflow = new(gated("a"))
    process = workflow.start("--seconds-between-status-checks", "30")
    workflow.wait(lambda: workflow.begun() == ["a"], "it has begun")
    process.send_signal(signal.SIGINT)
    workflow.wait(lambda: "Terminating" in (workflow.directory / "said").read_text(), "Snakemake is about to end")
    time.sleep(1)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    said = workflow.end(process, status=1)
    assert "Traceback" not in said
    assert "Interrupted again: jobs may go on. The same command finds them again; to cancel them: python -m" in said
    workflow.allow("a")
    workflow.run()
    assert workflow.lines("a.out") == ["first"]


# Directories, and disks that are full


def test_a_directory_may_have_almost_any_name(new: New) -> None:
    workflow = new(gated("a", "b", pack=2), directory="a $HOME `b` 50%; {c} & \u00fc*?#")
    workflow.allow("a", "b")
    workflow.run()
    assert workflow.begun() == ["a", "b"]


def test_a_directory_whose_name_jobs_cannot_be_told_is_refused(new: New) -> None:
    workflow = new(gated("a"), directory="it's $HOME")
    said = " ".join(workflow.run(status=1).split())
    assert "it's $HOME/.snakemake/submitit\": '$' in a path cannot be passed to jobs; rename or move it" in said
    assert "Traceback" not in said


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "filled").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_a_full_disk_is_named_and_nothing_is_lost(new: New, disk: Path) -> None:
    workflow = new(gated("a"))
    folder = ("--submitit-folder", str(disk / "submitit"))
    fill(disk)
    said = workflow.run(*folder, status=1)
    assert f"{disk}/submitit/lock: No space left on device; free space or files there, and call the same" in said
    assert "Traceback" not in said
    (disk / "filled").unlink()
    process = workflow.start(*folder)
    workflow.wait(lambda: workflow.begun() == ["a"], "it has begun")
    fill(disk)
    workflow.allow("a")
    said = workflow.end(process, status=1)
    assert re.search(rf"{disk}/submitit/logs\S*: No space left on device; free space or files there", said), said
    assert "Traceback" not in said
    (disk / "filled").unlink()
    workflow.run(*folder)
    assert workflow.lines("a.out") == ["first"]


# Groups, and what can only be seen where there seems to be a SLURM

NAMES = [f"a_rule_whose_name_says_at_length_what_it_is_for_{number}" for number in range(6)]
GROUP = "rule all:\n    input:\n        'last.out'\n\n" + "\n".join(
    f"""\
rule {name}:
    input:
        {[f"{earlier}.out" for earlier in NAMES[:number][-1:]]!r}
    output:
        '{"last" if name == NAMES[-1] else name}.out'
    group:
        "together"
    resources:
        nodes=1
    shell:
        "touch {{output}}"
"""
    for number, name in enumerate(NAMES)
)
PARALLEL = """\
rule all:
    input:
        "all.out"

rule part:
    output:
        "{name}.part"
    group:
        "together"
    resources:
        nodes=1, pack=2
    shell:
        "touch {output}"

rule whole:
    input:
        expand("{name}.part", name=["a", "b"])
    output:
        "all.out"
    group:
        "together"
    resources:
        nodes=1, pack=2
    shell:
        "touch {output}"
"""


@pytest.mark.parametrize("text", [GROUP, PARALLEL], ids=["of many rules", "of jobs beside each other"])
def test_a_group_is_one_job(new: New, text: str) -> None:
    workflow = new(text, "debug")
    workflow.run()
    assert len(list((workflow.directory / ".snakemake" / "submitit" / "logs").glob("*/*.log"))) == 1


FAKE_SLURM = {
    "sbatch": "cp $1 script; touch queued; echo Submitted batch job 77",
    "squeue": "[ -e queued ] || exit 0; echo asked >> asked; sleep 2; echo '77|RUNNING|main|None|'",
    "scancel": "echo $* >> cancelled; rm -f queued",
    "scontrol": "echo Invalid job id specified >&2; exit 1",
    "sacct": "exit 1",
    "srun": "exit 1",
}


def fake_slurm(workflow: SubmititWorkflow, **programs: str) -> None:
    """Have a workflow find these programs in place of SLURM's."""
    directory = workflow.directory / "bin"
    directory.mkdir(exist_ok=True)
    for name, text in programs.items():
        (directory / name).write_text(f"#!/bin/bash\ncd {workflow.directory}\n{text}\n")
        (directory / name).chmod(0o755)
    workflow.environment["PATH"] = f"{directory}{os.pathsep}{workflow.environment['PATH']}"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SubmititWorkflow, str]]:
    """A job of two minutes, interrupted while SLURM takes its time to say how it stands."""
    workflow = SubmititWorkflow(tmp_path_factory.mktemp("slurm"), gated("a"), "slurm")
    fake_slurm(workflow, **FAKE_SLURM)
    try:
        process = workflow.start("--submitit-on-interrupt", "cancel", "--set-resources", "make:runtime=2")
        workflow.wait(lambda: workflow.lines("asked") == ["asked"], "the queue is being asked")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        yield workflow, workflow.end(process, status=1)
    finally:
        workflow.clean()


def test_an_interrupt_while_states_are_asked_for_cancels_too(interrupted: tuple[SubmititWorkflow, str]) -> None:
    workflow, said = interrupted
    assert workflow.lines("cancelled") == ["77"], said
    assert "The scheduler does not answer" not in said
    assert not list((workflow.directory / ".snakemake" / "submitit" / "jobs").iterdir())


def test_nothing_is_submitted_while_an_interrupt_cancels(new: New) -> None:
    """Jobs of a pack that had not begun when their allocation died are else submitted again."""
    workflow = new(gated("a", "b", pack=2), "slurm")
    slow = {
        "sbatch": "cp $1 script; echo sbatch >> calls; echo Submitted batch job 77",
        "squeue": '[ ! -e calls ] || echo "77|$([ -e gone ] && echo CANCELLED || echo RUNNING)|main|None|"',
        "scancel": "touch gone; sleep 4",
    }
    fake_slurm(workflow, **FAKE_SLURM | slow)
    process = workflow.start("--submitit-on-interrupt", "cancel", "--latency-wait", "0")
    folder = workflow.directory / ".snakemake" / "submitit"
    workflow.wait(lambda: sum(bool(entry.job_id) for entry in Journal(folder).entries()) == 2, "both are submitted")
    begun, _ = Journal(folder).entries()
    Outcomes(folder / "outcomes").write(begun.token, Outcome("running", "", "77", time.time()))
    process.send_signal(signal.SIGINT)
    said = workflow.end(process, status=1)
    assert "was cancelled, by you or by the site" in said  # the death was seen
    assert workflow.lines("calls") == ["sbatch"]


def test_a_short_job_is_not_told_to_stop_as_it_begins(interrupted: tuple[SubmititWorkflow, str]) -> None:
    workflow, _ = interrupted
    script = (workflow.directory / "script").read_text()
    delays = re.findall(r"^#SBATCH --signal=\S*@(\d+)$", script, re.MULTILINE)
    assert re.findall(r"^#SBATCH --time=(\d+)$", script, re.MULTILINE) == ["2"]
    assert len(delays) == 1
    assert int(delays[0]) < 2 * 60


AWAY = "echo $0 >> asked; echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1"


def test_an_interrupt_ends_the_wait_for_the_scheduler_and_nothing_is_lost(new: New) -> None:
    workflow = new(gated("a"), "slurm")
    fake_slurm(workflow, **{**FAKE_SLURM, "sbatch": AWAY, "squeue": AWAY})
    for asked in ("sbatch", "squeue"):  # a second call has to know first what became of the jobs of the first
        process = workflow.start()
        workflow.wait(lambda: "does not answer" in (workflow.directory / "said").read_text(), "the user is told")
        process.send_signal(signal.SIGINT)
        said = workflow.end(process, status=1)
        assert said.count("The scheduler does not answer (") == 1
        assert "for up to 30 min" in said
        assert "submitted jobs go on" not in said
        assert "Traceback" not in said
        assert workflow.lines("asked")[-1].endswith(asked)
        assert len(list((workflow.directory / ".snakemake" / "submitit" / "jobs").iterdir())) == 1
    fake_slurm(workflow, **FAKE_SLURM)
    process = workflow.start("--submitit-on-interrupt", "cancel")
    workflow.wait(lambda: workflow.lines("asked")[-1] == "asked", "the job is submitted")
    process.send_signal(signal.SIGINT)
    workflow.end(process, status=1)
    assert workflow.lines("cancelled") == ["77"]


def test_a_scheduler_that_stays_away_is_given_up_and_quoted(new: New) -> None:
    workflow = new(gated("a"), "slurm")
    fake_slurm(workflow, **{**FAKE_SLURM, "sbatch": AWAY})
    said = workflow.run("--submitit-max-outage", "0", status=1)
    assert "It could not be submitted: Unable to contact slurm controller (connect failure)" in said


def test_a_job_that_ends_while_the_scheduler_is_away_is_concluded_by_its_own_word(new: New) -> None:
    workflow = new(gated("a"), "slurm")
    fake_slurm(workflow, **FAKE_SLURM)
    process = workflow.start()
    folder = workflow.directory / ".snakemake" / "submitit"
    workflow.wait(lambda: any(entry.job_id for entry in Journal(folder).entries()), "the job is submitted")
    fake_slurm(workflow, squeue=AWAY)
    workflow.wait(lambda: "does not answer" in (workflow.directory / "said").read_text(), "the user is told")
    (workflow.directory / "a.out").touch()
    (entry,) = Journal(folder).entries()
    Outcomes(folder / "outcomes").write(entry.token, Outcome("done", "", "77", time.time(), 1.0))
    workflow.end(process)
