"""What is said of jobs that wait, and which of them are taken for hopeless."""

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from snakemake_executor_plugin_submitit import pending
from snakemake_executor_plugin_submitit.pending import Offer, Pending, excess, offers_of
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.schedulers import NoAnswerError, SlurmScheduler, Waiting

LOGGER = logging.getLogger("test_submitit_pending")
REQUEST = Request(runtime=60, mem_mb=4000, cpus=8)
INFINITE = float("inf")
SINFO = """\
main*|2|8|64000|gpu:a100:1,gpu:1g.5gb:1|infinite|1-infinite
big|3|64|512000|gpu:a100:4(S:0-1),gpu:v100:4(S:0-1)|2-12:00:00|1-infinite
big|7|96+|256000+|(null)|2-12:00:00|1-infinite
short|1|8|64000|(null)|5:00|1
slurm_load_partitions: something that is no such line
"""
MAIN = Offer("main", True, 2, 8, 64000, {"a100": 1, "1g.5gb": 1}, INFINITE, INFINITE)
GPUS = Offer("big", False, 3, 64, 512000, {"a100": 4, "v100": 4}, 3600, INFINITE)
CPUS = Offer("big", False, 7, 96, 256000, {}, 3600, INFINITE)
SHORT = Offer("short", False, 1, 8, 64000, {}, 5, 1)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pending, "monotonic", lambda: clock.now)
    return clock


@pytest.fixture
def sinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that says what sinfo does; each of its calls is noted in `calls`."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def say(script: str) -> None:
        (tmp_path / "answer").write_text(SINFO)
        (tmp_path / "sinfo").write_text(f'#!/bin/bash\necho "$*" >> {tmp_path}/calls\n{script}\n')
        (tmp_path / "sinfo").chmod(0o755)

    say(f"cat {tmp_path}/answer")
    return say


def calls(directory: Path) -> list[str]:
    path = directory / "calls"
    return path.read_text().splitlines() if path.exists() else []


def waits(*reasons: str, partition: str = "main") -> dict[str, Waiting]:
    return {str(number): Waiting(partition, reason) for number, reason in enumerate(reasons)}


def test_what_sinfo_prints_is_read_and_all_else_passed_over() -> None:
    assert offers_of(SINFO) == [MAIN, GPUS, CPUS, SHORT]


@pytest.mark.parametrize(
    ("differences", "offers", "text"),
    [
        ({}, [MAIN], ""),
        ({}, [], ""),
        ({"cpus": 9}, [MAIN], "partition main has: cpus=9 (at most 8)"),
        ({"cpus": 9}, [MAIN, GPUS, CPUS], ""),
        (
            {"nodes": 3, "mem_mb": 64001},
            [MAIN],
            "partition main has: mem_mb=64001 (at most 64000), nodes=3 (at most 2)",
        ),
        ({"gpus": 2}, [MAIN], ""),
        ({"gpus": 3}, [MAIN], "partition main has: gpus=3 (at most 2)"),
        ({"gpus": 2, "gpu_types": "a100:2"}, [MAIN], "partition main has: gpus=a100:2 (at most 1)"),
        ({"gpus": 5, "gpu_types": "a100:4,v100:1"}, [GPUS], ""),
        ({"nodes": 10}, [GPUS, CPUS], ""),
        ({"nodes": 2}, [SHORT], "partition short has: nodes=2 (at most 1), runtime=60 (at most 5)"),
        ({"runtime": 3601, "cpus": 100}, [MAIN, GPUS, CPUS], "partitions main, big has: cpus=100 (at most 96)"),
    ],
)
def test_what_is_asked_for_beyond_all_nodes_is_named(
    differences: dict[str, int], offers: list[Offer], text: str
) -> None:
    expected = f"it asks for more than {text}; lower that, or choose another partition" if text else ""
    assert excess(replace(REQUEST, **differences), offers) == expected


def test_what_no_node_has_together_is_named() -> None:
    request = replace(REQUEST, nodes=4, cpus=65, gpus=1)
    text = (
        "no nodes of partition big have all that it asks for: cpus=65, mem_mb=4000, gpus=1, nodes=4, runtime=60; lower"
    )
    assert excess(request, [GPUS, CPUS]).startswith(text)


@pytest.mark.parametrize(
    ("partitions", "asked", "names"),
    [("", "", "partition main"), ("", "big", "partition big"), ("short", "big", "partition short"),
     ("main,short", "", "partitions main, short"), ("gone", "", "")],
)  # fmt: skip
def test_the_partition_is_the_queue_s_or_the_request_s_or_the_default(
    sinfo: object, partitions: str, asked: str, names: str
) -> None:
    text = Pending(0, LOGGER).excess(replace(REQUEST, cpus=1000, partition=asked), partitions)
    assert text.startswith(f"it asks for more than {names} has: cpus=1000 (") if names else text == ""


FINAL = (
    *("BadConstraints", "InvalidAccount", "AccountNotAllowed", "InvalidQOS", "QOSNotAllowed", "ReservationDeleted"),
    *("DependencyNeverSatisfied", "AssocMaxCpuPerJobLimit", "AssocMaxWallDurationPerJobLimit", "AssocMaxMemPerJob"),
    *("QOSMaxNodePerJobLimit", "QOSMaxGRESPerNode", "QOSMinCpuNotSatisfied", "QOSMinGRES", "MaxMemPerLimit"),
)
TEMPORARY = (
    *("None", "Priority", "Resources", "JobArrayTaskLimit", "JobHeldUser", "JobHeldAdmin", "PartitionDown", "Licenses"),
    *("ReqNodeNotAvail, UnavailableNodes:node[1-2]", "ReqNodeNotAvail, Reserved for maintenance", "Dependency"),
    *("Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions", "BeginTime"),
    *("AssocMaxJobsLimit", "AssocGrpCpuLimit", "AssocGrpCPUMinutesLimit", "QOSMaxJobsPerUserLimit", "QOSGrpGRES"),
    *("QOSMaxCpuPerUserLimit", "JobHoldMaxRequeue", "PartitionInactive", "Reservation", "NodeDown", "Unheard-Of"),
)


@pytest.mark.parametrize("reason", FINAL)
def test_a_job_that_can_never_start_is_hopeless_after_the_time_of_grace(clock: Clock, reason: str) -> None:
    watch = Pending(600, LOGGER)
    for clock.now, hopeless in ((0.0, False), (599.0, False), (600.0, True)):
        found = watch.hopeless(waits(reason, "Priority"), {"0": REQUEST, "1": REQUEST})
        assert [*found] == ["0"] * hopeless
        assert all(why.startswith(f"{reason}: ") and len(why) > len(reason) + 20 for why in found.values())


@pytest.mark.parametrize("reason", TEMPORARY)
def test_a_job_that_may_start_once_something_changes_is_never_given_up(
    clock: Clock, reason: str, sinfo: object
) -> None:
    watch = Pending(0, LOGGER)
    for clock.now in (0.0, 1e9):
        assert watch.hopeless(waits(reason), {"0": replace(REQUEST, cpus=1000)}) == {}


@pytest.mark.parametrize("reason", FINAL)
def test_what_one_of_several_partitions_refuses_another_may_grant(clock: Clock, reason: str) -> None:
    watch = Pending(0, LOGGER)
    assert watch.hopeless(waits(reason, partition="main,big"), {"0": REQUEST}) == {}
    assert watch.hopeless(waits(reason), {"0": replace(REQUEST, qos="long,normal")}) == {}


@pytest.mark.parametrize("reason", ["PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit"])
def test_nodes_that_are_down_make_no_job_hopeless(clock: Clock, reason: str, sinfo: Callable[[str], None]) -> None:
    """SLURM has the same words for a request beyond what nodes are and for one beyond those that are up."""
    watch = Pending(0, LOGGER)
    possible, never = replace(REQUEST, nodes=2), replace(REQUEST, nodes=3, runtime=10000, partition="ignored")
    requests = {"0": possible, "1": never}
    assert [*watch.hopeless(waits(reason, reason), requests)] == ["1"]
    sinfo("exit 1")
    assert [*Pending(0, LOGGER).hopeless(waits(reason, reason), requests)] == []


def test_the_time_of_grace_starts_again_when_the_reason_was_another(clock: Clock) -> None:
    watch = Pending(600, LOGGER)
    for clock.now, reason in ((0.0, "BadConstraints"), (500.0, "ReqNodeNotAvail"), (700.0, "BadConstraints")):
        assert watch.hopeless(waits(reason), {"0": REQUEST}) == {}
    clock.now = 1299.0
    assert watch.hopeless({}, {"0": REQUEST}) == {}  # no answer
    assert watch.hopeless(waits("BadConstraints"), {"0": REQUEST}) == {}
    clock.now = 1899.0
    assert [*watch.hopeless(waits("BadConstraints"), {"0": REQUEST})] == ["0"]


def test_a_retry_of_a_hopeless_job_has_no_second_time_of_grace(clock: Clock) -> None:
    watch, retried = Pending(600, LOGGER), replace(REQUEST, mem_mb=8000)
    for clock.now in (0.0, 600.0):
        found = watch.hopeless(waits("BadConstraints"), {"0": REQUEST})
    assert [*found] == ["0"]
    assert watch.hopeless(waits("None", "Priority"), {"1": retried}) == {}
    requests = {"1": retried, "2": replace(REQUEST, cpus=1)}
    assert [*watch.hopeless(waits("None", "BadConstraints", "BadConstraints"), requests)] == ["1"]


def test_jobs_of_others_are_passed_over(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert Pending(0, LOGGER).hopeless(waits("BadConstraints"), {"77": REQUEST}) == {}
    assert caplog.messages == []


def test_nodes_are_asked_about_seldom_and_only_where_they_matter(tmp_path: Path, clock: Clock, sinfo: object) -> None:
    watch = Pending(600, LOGGER)
    watch.hopeless(waits("Priority", "BadConstraints"), {"0": REQUEST, "1": REQUEST})
    assert calls(tmp_path) == []
    for clock.now in (0.0, 10.0, 59.0, 60.0):
        watch.hopeless(waits("PartitionConfig", "PartitionConfig"), {"0": REQUEST, "1": REQUEST})
    assert calls(tmp_path) == ["--all --exact --noconvert --noheader --format=%P|%D|%c|%m|%G|%l|%s"] * 2


def test_reasons_are_told_in_a_line_whenever_they_change(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    watch = Pending(600, LOGGER)
    usual, never = ("Priority",) * 3, "BadConstraints"

    def look(seconds: float, *reasons: str) -> list[str]:
        clock.now += seconds
        caplog.clear()
        watch.hopeless(waits(*reasons), dict.fromkeys(map(str, range(9)), REQUEST))
        return caplog.messages

    caplog.set_level(logging.INFO)
    assert look(0) == []
    assert look(1, *usual) == ["3 pending: Priority"]
    assert look(9, *usual, never) == []
    assert look(51, *usual, never) == ["3 pending: Priority; 1: BadConstraints, can never start"]
    assert look(61, *usual, never) == []
    assert look(61, "Resources", never) == []  # nothing unusual that is new
    assert look(601, "Resources", never, never) == ["2 pending: BadConstraints, can never start; 1: Resources"]
    assert look(61, "ReqNodeNotAvail, UnavailableNodes:node7") == ["1 pending: ReqNodeNotAvail"]
    assert look(601, "ReqNodeNotAvail, UnavailableNodes:node8") == []
    assert look(61, "ReqNodeNotAvail, Reserved for maintenance") == [
        "1 pending: ReqNodeNotAvail, Reserved for maintenance"
    ]


def test_the_queue_is_asked_once_for_states_and_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = (
        "7_1|PENDING|main|Priority|",
        "7_2|RUNNING|main|None|",
        "8|PENDING|a,b|ReqNodeNotAvail, Unavailable:n[1-2]|a|b",
    )
    scripts = {"squeue": f"echo squeue >> {tmp_path}/calls; printf '%s\\n' {' '.join(map(repr, lines))}"}
    for name, script in {"sbatch": "", "scancel": "", "sacct": "exit 1", **scripts}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    scheduler = SlurmScheduler(LOGGER)
    assert scheduler.waiting == {}
    scheduler.states(["7_1", "7_2", "8"])
    assert scheduler.waiting == {
        "7_1": Waiting("main", "Priority"),
        "8": Waiting("a,b", "ReqNodeNotAvail, Unavailable:n[1-2]"),
    }
    assert calls(tmp_path) == ["squeue"]
    (tmp_path / "squeue").write_text("#!/bin/bash\nexit 1\n")
    with pytest.raises(NoAnswerError):
        scheduler.states(["8"])
    assert scheduler.waiting == {}
