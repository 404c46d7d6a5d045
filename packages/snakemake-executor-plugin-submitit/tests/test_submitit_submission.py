"""What goes out to a scheduler, what is asked for before, and what is found again, or cancelled, after a call died."""

import errno
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import submitit
from snakemake_executor_plugin_submitit import ExecutorSettings, outage, recovery, relay, schedulers
from snakemake_executor_plugin_submitit.allocation import Allocation, Step
from snakemake_executor_plugin_submitit.journal import Entry, Journal
from snakemake_executor_plugin_submitit.outage import Outage
from snakemake_executor_plugin_submitit.outcome import Outcome, Outcomes
from snakemake_executor_plugin_submitit.ready import check_wishes, make_ready
from snakemake_executor_plugin_submitit.recovery import cancel_left, check_cluster, jobs_left
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.schedulers import (
    ACTIVE,
    UNKNOWN,
    NoAnswerError,
    Scheduler,
    StillRunningError,
    end_jobs,
)
from snakemake_executor_plugin_submitit.submission import Batch, Submitter
from snakemake_interface_common.exceptions import WorkflowError

REQUEST = Request(runtime=30, mem_mb=500, cpus=3)
ENTRY = Entry("train-1", "digest", "train-1-a", "train", "snakemake-1", "slurm", "train.log", "77", "train")


class FakeScheduler(Scheduler):
    """What would be said of jobs; those cancelled are still seen for some times."""

    def __init__(self, states: dict[str, str] | None = None, submitted: dict[str, list[str]] | None = None) -> None:
        self.known, self.submitted = dict(states or {}), dict(submitted or {})
        self.lasting = 0
        self.silent: set[str] = set()
        self.cancelled: list[str] = []

    def states(self, job_ids: Collection[str]) -> dict[str, str]:
        self._answer("states")
        if self.lasting:
            self.lasting -= 1
        else:
            self.known |= dict.fromkeys(self.cancelled, "CANCELLED")
        return {job_id: self.known.get(job_id, UNKNOWN) for job_id in job_ids}

    def cancel(self, job_ids: Sequence[str]) -> None:
        self._answer("cancel")
        self.cancelled += job_ids

    def submitted_as(self, submission: str) -> list[str]:
        self._answer("submitted_as")
        return self.submitted.get(submission, [])

    def _answer(self, what: str) -> None:
        if what in self.silent:
            raise NoAnswerError("Unable to contact slurm controller")


@pytest.fixture(autouse=True)
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What was slept, for which nobody waits, by a clock that knows of nothing else."""
    spans: list[float] = []
    for module in (schedulers, outage):
        monkeypatch.setattr(module, "sleep", spans.append)
        monkeypatch.setattr(module, "monotonic", lambda: sum(spans))
    return spans


# Submitting


@dataclass
class Site:
    """A directory with an sbatch that notes how it was called and keeps what it was given."""

    directory: Path
    scheduler: FakeScheduler = field(default_factory=FakeScheduler)

    def sbatch(self, script: str) -> None:
        """Make sbatch do this after it has noted its call."""
        text = f'#!/bin/bash\ncd {self.directory}\necho sbatch >> calls\ncp "$1" script\n{script}\n'
        for name, body in {"sbatch": text, "srun": "#!/bin/bash\nexit 1\n"}.items():
            (self.directory / "bin" / name).write_text(body)
            (self.directory / "bin" / name).chmod(0o755)

    def submit(self, request: Request = REQUEST, count: int = 1, again: bool = False, **settings: Any) -> list[str]:
        """Submit allocations under the name of `snakemake-1`."""
        submitter = Submitter(ExecutorSettings(**settings), self.scheduler, self.directory / "submitit")
        allocations = [
            Allocation([Step(f"train-{number}", "true", "log")], Outcomes(self.directory), "/", 1800, 45, 5)
            for number in range(count)
        ]
        return submitter.submit(Batch(allocations, "train", request, "snakemake-1"), again)

    def calls(self) -> list[str]:
        path = self.directory / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def options(self) -> list[str]:
        """Return what sbatch was asked for, by its options."""
        lines = (self.directory / "script").read_text().splitlines()
        return [line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH --")]

    def commands(self) -> list[str]:
        """Return the lines of the sbatch file that are no comments."""
        lines = (self.directory / "script").read_text().splitlines()
        return [line for line in lines if line and not line.startswith("#")]


SUBMITTED = "echo Submitted batch job 77"
BUSY = "echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2; exit 1"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    made = Site(tmp_path)
    made.sbatch(SUBMITTED)

    def cancel(job_ids: Sequence[str]) -> None:
        with (tmp_path / "calls").open("a") as calls:
            calls.write(f"scancel {' '.join(job_ids)}\n")

    monkeypatch.setattr(made.scheduler, "cancel", cancel)
    return made


def test_sbatch_is_asked_for_what_the_job_asks_for(site: Site) -> None:
    request = replace(REQUEST, gpus=2, nodes=4, partition="gpu", extra="wckey=course reservation=r")
    assert site.submit(request) == ["77"]
    expected = {
        *("job-name=train", "time=30", "mem=500MB", "cpus-per-task=3", "gpus-per-node=2", "nodes=4"),
        *("ntasks-per-node=1", "partition=gpu", "requeue", "signal=USR2@45", "comment=snakemake-1"),
        *(
            "export=ALL",
            "open-mode=append",
            "wckey=course",
            "reservation=r",
            f"output={site.directory}/submitit/%j_0_log.out",
        ),
    }
    assert sorted(site.options()) == sorted(expected)


def test_what_is_not_asked_for_is_left_to_the_site(site: Site) -> None:
    site.submit()
    assert "nodes=1" in site.options()
    names = {option.split("=")[0] for option in site.options()}
    assert not names & {"gpus-per-node", "array", "partition", "account", "qos", "constraint", "exclude", "error"}


def test_every_node_is_waited_for_and_gets_its_cpus(site: Site) -> None:
    site.submit(replace(REQUEST, nodes=2))
    *_, export, srun = site.commands()
    assert export == "export SUBMITIT_EXECUTOR=slurm"
    assert srun.startswith("srun ")
    assert {"--wait=0", "--cpu-bind=none", "--cpus-per-task=3"} <= set(srun.split(" -u -m submitit")[0].split())


def test_what_calls_the_job_runs_once_a_node_however_many_tasks_the_job_may_start(site: Site) -> None:
    site.submit(replace(REQUEST, tasks=3, nodes=2), setup="module load mpi")
    assert {"nodes=2", "ntasks-per-node=3", "cpus-per-task=1"} <= set(site.options())
    *setup, _, srun = site.commands()
    assert setup == ["module load mpi", "export SLURM_OVERLAP=1", *relay.setup()]
    assert {"--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=3"} <= set(srun.split(" -u -m submitit")[0].split())


def test_types_of_gpus_and_quoted_values_reach_sbatch(site: Site) -> None:
    request = replace(REQUEST, gpus=3, gpu_types="a100:2,1g.5gb:1", reservation="course", extra="prefer='a b' nice")
    site.submit(request)
    expected = {"gpus-per-node=a100:2,1g.5gb:1", "reservation=course", "prefer='a b'", "nice"}
    assert expected <= set(site.options())
    site.submit(replace(REQUEST, gpus=2, gpu_types="a100:2", gres="gpu:a100:2,tmp:1G"))
    assert "gres=gpu:a100:2,tmp:1G" in site.options()
    assert not any(option.startswith("gpus") for option in site.options())


def test_the_setup_comes_before_the_job(site: Site) -> None:
    site.submit(setup="module load cuda && true")
    assert site.commands()[0] == "module load cuda && true"
    assert site.commands()[-1].startswith("srun ")


def test_the_batch_script_of_several_nodes_is_ready_to_call_srun(site: Site) -> None:
    site.submit(replace(REQUEST, nodes=2), setup="module load cuda")
    assert site.commands()[:-2] == ["module load cuda", "export SLURM_OVERLAP=1", *relay.setup()]
    site.submit(setup="module load cuda")
    assert site.commands()[:-2] == ["module load cuda"]


def test_a_full_disk_is_no_refusal_of_the_scheduler(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(submitit.core.utils.DelayedSubmission, "dump", fail)
    with pytest.raises(WorkflowError, match=f"^{site.directory}/submitit: No space left on device; free space"):
        site.submit()
    assert site.calls() == []


@pytest.mark.parametrize(("limit", "array"), [(2, "0-2%2"), (256, "0-2%3")])
def test_several_allocations_are_an_array_of_which_so_many_run(site: Site, limit: int, array: str) -> None:
    assert site.submit(count=3, array_limit=limit) == ["77_0", "77_1", "77_2"]
    assert site.calls() == ["sbatch"]
    assert [option for option in site.options() if option.startswith("array")] == [f"array={array}"]
    assert "comment=snakemake-1" in site.options()


def test_what_a_site_needs_is_asked_for_unless_the_job_says_otherwise(site: Site) -> None:
    site.scheduler.defaults = {"account": "a", "partition": "p", "qos": "q", "wckey": "w", "reservation": "r"}
    site.submit(replace(REQUEST, partition="gpu", extra="reservation=course export=ALL,CITY=Bern"))
    assert {"account=a", "qos=q", "partition=gpu", "wckey=w", "reservation=course"} <= set(site.options())
    assert "export=ALL,CITY=Bern" in site.options()
    names = [option.split("=")[0] for option in site.options()]
    assert sorted(names) == sorted(set(names))


UNANSWERED = (
    *("Socket timed out on send/recv operation", "Unable to contact slurm controller (connect failure)"),
    *("Slurm backup controller in standby mode", "Zero Bytes were transmitted or received", "Connection refused"),
    *("Protocol authentication error", "Could not establish a configuration source", "Message send failure"),
)


@pytest.mark.parametrize("complaint", UNANSWERED)
def test_a_scheduler_that_does_not_answer_has_not_refused(site: Site, complaint: str) -> None:
    site.sbatch(f"echo 'sbatch: error: Batch job submission failed: {complaint}' >&2; exit 1")
    with pytest.raises(NoAnswerError, match=f"^sbatch: error: .*{re.escape(complaint)}"):
        site.submit()
    assert site.calls() == ["sbatch"]


def test_an_sbatch_that_is_interrupted_has_not_been_refused(site: Site) -> None:
    site.sbatch("kill -INT $$")
    with pytest.raises(NoAnswerError, match="^interrupted$"):
        site.submit()


def test_before_a_second_attempt_what_went_out_at_the_first_is_cancelled(site: Site) -> None:
    site.scheduler.submitted = {"snakemake-1": ["70_0", "70_1"], "snakemake-2": ["71"]}
    assert site.submit(again=True) == ["77"]
    assert site.calls() == ["scancel 70_0 70_1", "sbatch", "scancel 70_0 70_1"]  # they are seen until they have ended


def test_what_is_taken_late_is_cancelled_and_no_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    queues = iter([[], ["70", "77"]])
    monkeypatch.setattr(site.scheduler, "submitted_as", lambda name: next(queues))
    assert site.submit(again=True) == ["77"]
    assert site.calls() == ["scancel ", "sbatch", "scancel 70"]


def test_what_was_accepted_counts_even_if_the_scheduler_then_falls_silent(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submitted_as(name: str) -> list[str]:
        if "sbatch" in site.calls():
            raise NoAnswerError("Unable to contact slurm controller")
        return []

    monkeypatch.setattr(site.scheduler, "submitted_as", submitted_as)
    assert site.submit(again=True) == ["77"]


@pytest.mark.parametrize("silent", ["submitted_as", "cancel"])
def test_nothing_is_submitted_beside_what_may_be_queued(
    site: Site, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    site.scheduler.submitted = {"snakemake-1": ["70"]}
    site.scheduler.silent = {silent}
    monkeypatch.setattr(site.scheduler, "cancel", lambda numbers: FakeScheduler.cancel(site.scheduler, numbers))
    with pytest.raises(NoAnswerError, match="^Unable to contact slurm controller$"):
        site.submit(again=True)
    assert site.calls() == []


def test_a_refusal_is_quoted_once(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    refusal = "Batch job submission failed: Invalid account or account/partition combination specified"
    site.sbatch(f"echo 'sbatch: error: {refusal}' >&2; exit 1")
    with pytest.raises(WorkflowError, match=refusal):
        site.submit()
    assert capfd.readouterr().err == ""
    assert site.calls() == ["sbatch"]


# While the scheduler does not answer


SILENT = NoAnswerError("Unable to contact slurm controller")


def outage_of(limit_min: float = 30) -> Outage:
    return Outage(limit_min, logging.getLogger("test_submitit_submission"))


def test_the_user_is_told_once_that_an_outage_began_and_once_that_it_is_over(
    slept: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    known = outage_of()
    known.end()
    assert (known.is_on, known.is_due, known.is_long) == (False, True, False)
    for _ in range(3):
        known.note(SILENT)
        slept.append(60)
    assert known.is_on
    for _ in range(2):
        known.end()
    assert (known.is_on, known.is_due) == (False, True)
    assert caplog.messages == [
        "The scheduler does not answer (Unable to contact slurm controller). Jobs that run go on; what is to be"
        " submitted or cancelled waits for up to 30 min.",
        "The scheduler answers again, after 3.0 min.",
    ]


def test_it_is_asked_at_intervals_that_grow_until_its_time_is_over(slept: list[float]) -> None:
    known, asked = outage_of(5), []
    while not known.is_long:
        if known.is_due:
            asked.append(sum(slept))
            known.note(SILENT)
            known.note(SILENT)  # to two questions at once
        slept.append(1)
    assert asked == [0, 5, 15, 35, 75, 135, 195, 255]
    assert sum(slept) == 300
    known.end()
    known.note(SILENT)
    slept.append(10)
    assert (known.is_due, known.is_long) == (True, False)  # another outage begins anew


def test_what_cannot_wait_for_others_endures_an_outage(slept: list[float], caplog: pytest.LogCaptureFixture) -> None:
    answers: list[str | NoAnswerError] = [SILENT] * 5 + ["answer"]

    def act() -> str:
        if isinstance(answer := answers.pop(0), NoAnswerError):
            raise answer
        return answer

    assert outage_of().endure(act) == "answer"
    assert slept == [5, 10, 20, 40, 60]
    assert len(caplog.messages) == 2


def test_an_outage_that_is_too_long_is_quoted_and_said_to_lose_nothing(slept: list[float]) -> None:
    scheduler = FakeScheduler()
    scheduler.silent = {"cancel"}
    text = "^Unable to contact slurm controller; nothing is lost: try again once the scheduler answers$"
    with pytest.raises(WorkflowError, match=text):
        outage_of(30).endure(lambda: scheduler.cancel(["7"]))
    assert 1800 <= sum(slept) <= 1860


def test_jobs_that_do_not_end_are_no_outage(slept: list[float], caplog: pytest.LogCaptureFixture) -> None:
    scheduler = FakeScheduler({"7": ACTIVE})
    scheduler.lasting = 10_000
    with pytest.raises(WorkflowError, match="^not all of 1 cancelled jobs have ended within 300 s$"):
        outage_of().endure(lambda: end_jobs(scheduler, ["7"]))
    assert caplog.messages == []


# Ending jobs


def test_cancelled_jobs_are_waited_for(slept: list[float]) -> None:
    scheduler = FakeScheduler({"7": ACTIVE, "8": "COMPLETED", "9": ACTIVE})
    scheduler.lasting = 2
    end_jobs(scheduler, ["7", "8"])
    assert scheduler.cancelled == ["7", "8"]
    assert len(slept) == 2
    assert scheduler.known["9"] == ACTIVE


def test_jobs_that_do_not_end_are_not_waited_for_without_end(slept: list[float]) -> None:
    scheduler = FakeScheduler({"7": ACTIVE, "8": ACTIVE})
    scheduler.lasting = 10_000
    with pytest.raises(StillRunningError, match="^not all of 2 cancelled jobs have ended within 300 s$"):
        end_jobs(scheduler, ["7", "8"])
    assert 300 <= sum(slept) <= 310


# After a call died


@dataclass
class Left:
    """What a call has left behind."""

    directory: Path
    scheduler: FakeScheduler = field(default_factory=FakeScheduler)

    def __post_init__(self) -> None:
        self.journal, self.outcomes = Journal(self.directory), Outcomes(self.directory / "outcomes")

    def job(self, name: str, job_id: str = "", outcome: Outcome | None = None, **differences: str) -> Entry:
        """Note a job, and what it said itself."""
        entry = replace(ENTRY, key=name, token=f"{name}-a", job_id=job_id, **differences)
        self.journal.write(entry)
        if outcome is not None:
            self.outcomes.write(entry.token, outcome)
        return entry

    def found(self) -> dict[str, Entry]:
        """Look for the jobs, and check that the others are forgotten."""
        found = jobs_left(self.journal, self.outcomes, self.scheduler, outage_of())
        assert {entry.key for entry in self.journal.entries()} == set(found)
        return found


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Left:
    monkeypatch.setattr(recovery, "_BEGAN", 2000.0)
    return Left(tmp_path)


RUNNING = Outcome("running", "", "7", 1990.0)
EARLIER, MEANWHILE = (Outcome("done", "", "7", 1990.0, seconds) for seconds in (5.0, 15.0))
FAILED = Outcome("failed", "its command ended with status 1", "7", 1990.0, 15.0)


@pytest.mark.parametrize(
    ("state", "outcome", "kept"),
    [
        (ACTIVE, None, True),
        (ACTIVE, RUNNING, True),
        ("COMPLETED", None, True),  # a shared file system may not show yet what it wrote
        ("COMPLETED", RUNNING, True),
        ("COMPLETED", MEANWHILE, True),  # Snakemake may not have seen its outputs
        (UNKNOWN, MEANWHILE, True),
        (ACTIVE, MEANWHILE, True),  # others of its allocation run
        ("COMPLETED", EARLIER, False),
        (ACTIVE, EARLIER, False),
        ("FAILED", FAILED, False),
        (ACTIVE, FAILED, False),
        ("TIMEOUT", RUNNING, False),
        ("CANCELLED", None, False),
        (UNKNOWN, None, False),
        (UNKNOWN, RUNNING, False),
    ],
)
def test_what_runs_or_ran_since_is_found_and_all_else_forgotten(
    left: Left, state: str, outcome: Outcome | None, kept: bool
) -> None:
    left.scheduler.known = {"7": state}
    entry = left.job("train-1", "7", outcome)
    assert left.found() == ({"train-1": entry} if kept else {})
    assert left.scheduler.cancelled == []


def test_what_was_being_submitted_and_has_not_begun_is_cancelled(left: Left) -> None:
    left.scheduler.known = {"7": ACTIVE, "8": ACTIVE, "9": ACTIVE}
    left.scheduler.submitted = {"snakemake-1": ["8"], "snakemake-2": ["7"]}
    left.job("train-1", submission="snakemake-1")
    kept = left.job("train-2", "7", submission="snakemake-2")
    assert left.found() == {"train-2": kept}
    assert left.scheduler.cancelled == ["8"]


def test_what_was_being_submitted_and_has_begun_gets_its_number(left: Left) -> None:
    left.scheduler.known = {"7": ACTIVE}
    left.scheduler.submitted = {"snakemake-1": ["7"]}
    entry = left.job("train-1", outcome=RUNNING)
    assert left.found() == {"train-1": replace(entry, job_id="7")}
    assert left.scheduler.cancelled == []


def test_what_is_cancelled_with_others_of_its_submission_is_not_awaited(left: Left) -> None:
    left.scheduler.known = {"7": ACTIVE}
    left.scheduler.submitted = {"snakemake-1": ["7"]}
    left.job("train-1", outcome=RUNNING)
    left.job("train-2")  # of the same allocation, whose turn had not come
    assert left.found() == {}
    assert left.scheduler.cancelled == ["7"]


@pytest.mark.parametrize("silent", ["submitted_as", "states"])
def test_nothing_is_forgotten_while_the_scheduler_does_not_answer(left: Left, silent: str) -> None:
    left.scheduler.silent = {silent}
    entries = [left.job("train-1"), left.job("train-2", "7", EARLIER)]
    with pytest.raises(WorkflowError, match="^Unable to contact slurm controller; nothing is lost: "):
        left.found()
    assert left.journal.entries() == entries


def test_jobs_of_another_cluster_are_not_taken_for_lost(left: Left) -> None:
    check_cluster(left.journal, "slurm")
    left.job("train-1", "7")
    check_cluster(left.journal, "slurm")
    left.job("train-2", "55", cluster="local")
    text = (
        "submitit-cluster slurm: an earlier call left jobs on local; let them end with submitit-cluster as it was, or"
        " cancel them: python -m snakemake_executor_plugin_submitit cancel"
    )
    with pytest.raises(WorkflowError, match=f"^{text}$"):
        check_cluster(left.journal, "slurm")
    with pytest.raises(WorkflowError, match="left jobs on local, slurm; "):
        check_cluster(left.journal, "debug")


def test_exactly_the_jobs_of_a_cluster_are_cancelled(left: Left, slept: list[float]) -> None:
    left.scheduler.known = {"7": ACTIVE, "8": ACTIVE, "9": ACTIVE, "55": ACTIVE}
    left.scheduler.submitted = {"snakemake-1": ["7"], "snakemake-2": ["8"], "snakemake-3": ["9"], "": ["55"]}
    left.scheduler.lasting = 1
    left.job("train-1", "7")
    left.job("train-2", "7")  # of the same allocation
    left.job("train-3", submission="snakemake-2")
    other = left.job("train-4", "55", cluster="local", submission="snakemake-3")
    assert cancel_left(left.journal, left.scheduler, "slurm") == 3
    assert left.scheduler.cancelled == ["7", "8"]
    assert len(slept) == 1
    assert left.journal.entries() == [other]


@pytest.mark.parametrize("silent", ["submitted_as", "cancel", "states"])
def test_nothing_is_forgotten_that_may_not_be_cancelled(left: Left, silent: str) -> None:
    left.scheduler.silent = {silent}
    entries = [left.job("train-1", "7"), left.job("train-2", submission="snakemake-2")]
    with pytest.raises(NoAnswerError):
        cancel_left(left.journal, left.scheduler, "slurm")
    assert left.journal.entries() == entries


# What Snakemake's jobs ask for


@dataclass
class Job:
    """What is looked at of a job of Snakemake."""

    output: Sequence[str] = ("a.out",)
    input: Sequence[str] = ()
    name: str = "train"
    shellcmd: str | None = "train a.out"
    params: dict[str, Any] = field(default_factory=lambda: {"steps": 100})
    resources: dict[str, Any] = field(default_factory=lambda: {"mem_mb": 500, "runtime": 30})
    is_local: bool = False
    threads: int = 3
    attempt: int = 1
    jobid: int = 5

    @property
    def rule(self) -> SimpleNamespace:
        return SimpleNamespace(name=self.name)

    def is_group(self) -> bool:
        return False


@dataclass
class Group:
    """What is looked at of a group of jobs."""

    members: Sequence[Job]
    resources: dict[str, Any] = field(default_factory=lambda: {"mem_mb": 500, "runtime": 30})
    is_local: bool = False
    threads: int = 3
    attempt: int = 1
    jobid: str = "together"

    def __iter__(self) -> Iterator[Job]:
        return iter(self.members)

    def is_group(self) -> bool:
        return True


def entry_of(job: Job | Group) -> Entry:
    return make_ready(job, "slurm", no_gpus=False, logs=Path("/logs")).entry


def request_of(job: Job | Group, no_gpus: bool = False, cluster: str = "slurm") -> Request:
    return make_ready(job, cluster, no_gpus, Path("/logs")).wish.request


def resources(**more: Any) -> dict[str, Any]:
    return {"mem_mb": 500, "runtime": 30, **more}


def test_a_job_is_known_by_its_rule_and_outputs_whatever_call_it_belongs_to() -> None:
    first, second = entry_of(Job(["a.out", "b.out"], jobid=5)), entry_of(Job(["b.out", "a.out"], jobid=6))
    assert (first.key, first.digest) == (second.key, second.digest)
    assert first.token != second.token
    assert first.token.startswith(f"{first.key}-")
    assert (first.rule, first.cluster, first.log) == ("train", "slurm", f"/logs/train/{first.token}.log")
    assert first.job_id == ""
    others = [Job(["a.out"]), Job(["c.out"]), Job(["a.out", "b.out"], name="other"), Job([])]
    assert len({first.key, *(entry_of(other).key for other in others)}) == 5


def test_jobs_without_outputs_are_told_apart() -> None:
    assert entry_of(Job([], jobid=5)).key != entry_of(Job([], jobid=6)).key


CHANGES: dict[str, Callable[[Job], object]] = {
    "command": lambda job: setattr(job, "shellcmd", "train a.out --again"),
    "parameter": lambda job: job.params.update(steps=200),
    "input's time": lambda job: os.utime(job.input[0], (1000, 1000)),
    "no input": lambda job: Path(job.input[0]).unlink(),
    "further input": lambda job: setattr(job, "input", [*job.input, "other.in"]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_job_that_is_asked_for_something_else_is_known_as_such(
    tmp_path: Path, change: Callable[[Job], object]
) -> None:
    (tmp_path / "a.in").touch()
    job = Job(input=[str(tmp_path / "a.in")])
    before = entry_of(job)
    assert entry_of(job).digest == before.digest
    change(job)
    assert entry_of(job).digest != before.digest
    assert entry_of(job).key == before.key


def test_what_a_job_may_use_does_not_make_it_another() -> None:
    assert entry_of(Job(resources=resources(gpus=1), threads=9)).digest == entry_of(Job()).digest


def test_gpus_are_asked_for_unless_the_cluster_has_none() -> None:
    job = Job(resources=resources(gpus=2))
    assert request_of(job) == Request(30, 500, 3, gpus=2)
    assert request_of(job, no_gpus=True) == Request(30, 500, 3)


@pytest.mark.parametrize("cluster", ["local", "debug"])
def test_several_nodes_need_a_cluster(cluster: str) -> None:
    job = Job(resources=resources(nodes=2))
    assert request_of(job).nodes == 2
    with pytest.raises(WorkflowError, match=f"^rule train: 2 nodes need submitit-cluster slurm, not {cluster}$"):
        request_of(job, cluster=cluster)


def test_a_group_runs_on_the_nodes_of_its_largest_job_and_alone() -> None:
    members = [
        Job(resources=resources(nodes=2, pack=4, pack_with="p", state="s")),
        Job(["b.out"], resources=resources(tasks=6)),
        Job(["c.out"], name="evaluate"),
    ]
    group = Group(members, resources(nodes=4, pack=8, state="s", mem_mb=700, tasks=8))
    ready = make_ready(group, "slurm", no_gpus=False, logs=Path("/logs"))
    assert ready.wish.request == Request(30, 700, 9, nodes=2, tasks=3)
    assert (ready.wish.pack, ready.wish.pack_with, ready.wish.state) == (1, "", "")
    assert ready.entry.rule == ready.rule == "evaluate+train"


def test_a_group_is_known_by_all_that_its_jobs_make_and_do() -> None:
    group = Group([Job(["a.out"]), Job(["b.out"])])
    assert entry_of(group).key != entry_of(Group([Job(["a.out"])])).key
    assert entry_of(group).key == entry_of(Group([Job(["a.out"]), Job(["b.out"])])).key
    other = Group([Job(["a.out"]), Job(["b.out"], shellcmd="train otherwise")])
    assert (entry_of(other).key, entry_of(other).digest != entry_of(group).digest) == (entry_of(group).key, True)


def test_groups_of_many_rules_have_short_names_that_differ() -> None:
    names = [f"a_rule_whose_name_is_long_{number}" for number in range(10)]
    groups = [Group([Job(name=name) for name in [*names, last]]) for last in ("y", "z")]
    entries = [entry_of(group) for group in groups]
    assert len({entry.key for entry in entries}) == 2
    assert all(len(Path(entry.log).name) < 130 for entry in entries)


def test_a_wish_without_sense_is_found_among_others() -> None:
    jobs = [Job(), Job(resources=resources(runtime=0), name="late")]
    with pytest.raises(WorkflowError, match="^rule late: resource runtime=0 is no whole number from 1 on$"):
        check_wishes(jobs, "slurm")
    check_wishes(jobs[:1], "slurm")
    with pytest.raises(WorkflowError, match="2 nodes need submitit-cluster slurm"):
        check_wishes([Job(resources=resources(nodes=2))], "local")


def test_only_what_is_decided_and_goes_out_is_looked_at() -> None:
    local, undecided = Job(resources={}, is_local=True), Job(resources={"mem_mb": "<TBD>"})
    check_wishes([local, undecided], "slurm")
    for checked in (replace(local, is_local=False), replace(undecided, resources={"mem_mb": "many"})):
        with pytest.raises(WorkflowError, match="^rule train"):
            check_wishes([checked], "slurm")
