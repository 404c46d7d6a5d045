"""What jobs ask of the scheduler, which of them share an allocation, and which allocations go out as one array."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
from snakemake_executor_plugin_submitit.request import (
    Request,
    Wish,
    arrays_of,
    label_of,
    packs_of,
    request_of,
    wish_of,
)
from snakemake_interface_common.exceptions import WorkflowError

LEAST = {"mem_mb": 1000, "runtime": 10}
REQUEST = Request(runtime=10, mem_mb=1000, cpus=1)
PACKED = Wish(REQUEST, pack=3)


@dataclass(frozen=True)
class Job:
    name: str
    wish: Wish = PACKED
    rule: str = "train"
    attempt: int = 1


def jobs(names: str, **differences: Any) -> list[Job]:
    return [Job(name, **differences) for name in names]


def names_of(packs: list[list[Job]]) -> list[str]:
    return ["".join(job.name for job in pack) for pack in packs]


def test_a_job_that_states_little_asks_for_little() -> None:
    assert wish_of("train", LEAST, threads=3) == Wish(Request(runtime=10, mem_mb=1000, cpus=3))


def test_a_job_gets_all_that_it_states() -> None:
    resources = {
        **{"mem_mb": 4000, "runtime": 60, "cpus": 8, "gpus": 2, "nodes": 3, "pack": 4, "state": "results/state"},
        "pack_with": "results",
        **{"partition": "gpu", "account": "us", "qos": "high", "constraint": "a100", "exclude": "node[1-3]"},
        **{"extra": "reservation=course", "tmpdir": "/tmp", "disk_mb": 1000, "_cores": 1, "_nodes": 1},
    }
    request = Request(60, 4000, 8, 2, 3, "gpu", "us", "high", "a100", "node[1-3]", "reservation=course")
    assert wish_of("train", resources, threads=1) == Wish(request, 4, "results", "results/state")


@pytest.mark.parametrize("name", ["runtime", "mem_mb"])
def test_a_job_must_state_time_and_memory(name: str) -> None:
    resources = {key: value for key, value in LEAST.items() if key != name}
    with pytest.raises(WorkflowError, match=rf"^rule train has no {name}; give one under its resources, or under def"):
        wish_of("train", resources, threads=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("runtime", 0), ("runtime", -5), ("runtime", "1h"), ("runtime", 1.5), ("mem_mb", 0), ("mem_mb", "<TBD>")),
        *(("cpus", 0), ("gpus", -1), ("gpus", "2"), ("nodes", 0), ("pack", 0), ("pack", "many")),
    ],
)
def test_a_number_without_sense_is_named(name: str, value: object) -> None:
    with pytest.raises(WorkflowError, match=rf"rule train: resource {name}={value!r} is no whole number from [01] on"):
        wish_of("train", {**LEAST, name: value}, threads=1)


def test_a_resource_that_is_not_there_counts_as_not_stated() -> None:
    nothing = dict.fromkeys(("cpus", "gpus", "nodes", "pack"), None) | {"partition": "", "extra": None, "state": ""}
    assert wish_of("train", {**LEAST, **nothing}, threads=2) == wish_of("train", LEAST, threads=2)


@pytest.mark.parametrize("extra", ["reservation=", "=course", "--", "mail-type=FAIL reservation="])
def test_an_option_without_sense_is_named(extra: str) -> None:
    wrong = extra.split()[-1]
    with pytest.raises(
        WorkflowError, match=rf"rule train: resource extra={extra!r}: {wrong!r} is not key=value or key"
    ):
        wish_of("train", {**LEAST, "extra": extra}, threads=1)


OURS = {
    *("array", "comment", "cpus-per-task", "error", "gpus-per-node", "job-name", "mem", "nodes", "ntasks"),
    *("ntasks-per-node", "open-mode", "output", "requeue", "signal", "time"),
}


@pytest.mark.parametrize("name", sorted(OURS))
def test_an_option_that_is_set_otherwise_is_refused_however_it_is_written(name: str) -> None:
    for written in (f"{name}=1", name, f"--{name}=1", f"exclusive {name.replace('-', '_')}=1"):
        text = rf"^rule train: resource extra={written!r}: {name} is set otherwise; leave it out$"
        with pytest.raises(WorkflowError, match=text):
            wish_of("train", {**LEAST, "extra": written}, threads=1)


def test_an_option_is_known_by_sbatch_s_name_for_it() -> None:
    wish = wish_of("train", {**LEAST, "extra": "mail_type=FAIL --wckey=course_1 mem-per-gpu=1G"}, threads=1)
    options = {"requeue": True, "mail-type": "FAIL", "wckey": "course_1", "mem-per-gpu": "1G"}
    assert wish.request.parameters()["slurm_additional_parameters"] == options


def test_submitit_is_told_what_is_asked_for_and_leaves_the_rest_to_the_site() -> None:
    assert REQUEST.parameters() == {
        **{"timeout_min": 10, "nodes": 1, "tasks_per_node": 1, "cpus_per_task": 1, "slurm_mem": "1000MB"},
        "slurm_additional_parameters": {"requeue": True},
    }
    full = Request(60, 4000, 8, 2, 3, "gpu", "us", "high", "a100", "node7", "--reservation=course exclusive a=b=c")
    assert full.parameters() == {
        **{"timeout_min": 60, "nodes": 3, "tasks_per_node": 1, "cpus_per_task": 8, "slurm_mem": "4000MB"},
        **{"gpus_per_node": 2, "slurm_partition": "gpu", "slurm_account": "us", "slurm_qos": "high"},
        **{"slurm_constraint": "a100", "slurm_exclude": "node7"},
        "slurm_additional_parameters": {"requeue": True, "reservation": "course", "exclusive": True, "a": "b=c"},
    }


def test_jobs_are_packed_no_more_than_they_allow() -> None:
    assert names_of(packs_of(jobs("abcdefg"))) == ["abc", "def", "g"]


def test_jobs_that_allow_different_sizes_do_not_meet() -> None:
    packs = packs_of(jobs("abcd", wish=Wish(REQUEST, pack=2)) + jobs("efgh") + jobs("i", wish=Wish(REQUEST)))
    assert sorted(names_of(packs)) == ["ab", "cd", "efg", "h", "i"]


def test_jobs_that_differ_in_more_than_size_do_not_meet() -> None:
    others = {"gpus": 1, "nodes": 2, "partition": "gpu", "account": "us", "qos": "high", "constraint": "a100"}
    others |= {"exclude": "node7", "extra": "exclusive"}
    for name, value in others.items():
        other = Job("b", Wish(replace(REQUEST, **{name: value}), pack=3))
        assert names_of(packs_of([Job("a"), other, Job("c")])) == ["ac", "b"], name


def test_jobs_meet_only_those_that_they_are_to_be_packed_with() -> None:
    others = [Job(name, Wish(REQUEST, pack=3, pack_with="others")) for name in "xyz"]
    mixed = [job for pair in zip(jobs("abc"), others, strict=True) for job in pair]
    assert names_of(packs_of(mixed)) == ["abc", "xyz"]


def test_a_job_that_is_tried_again_is_alone() -> None:
    assert sorted(names_of(packs_of([*jobs("ab"), Job("c", attempt=2), *jobs("d")]))) == ["abd", "c"]


def test_jobs_of_different_rules_may_share_an_allocation() -> None:
    (pack,) = packs_of([Job("a", rule="train"), Job("b", rule="evaluate"), Job("c", rule="train")])
    assert label_of(pack) == "evaluate+train"


def test_no_job_is_lost_or_doubled() -> None:
    many = [
        Job(str(number), Wish(replace(REQUEST, gpus=number % 2), pack=1 + number % 4), attempt=1 + (number % 7 == 0))
        for number in range(50)
    ]
    packed = [job for pack in packs_of(many) for job in pack]
    assert sorted(packed, key=lambda job: int(job.name)) == many


def test_an_allocation_asks_for_the_most_and_not_for_the_sum() -> None:
    requests = [
        Request(runtime=10, mem_mb=4000, cpus=1, gpus=1, partition="gpu"),
        Request(runtime=30, mem_mb=1000, cpus=2, gpus=1, partition="gpu"),
        Request(runtime=20, mem_mb=2000, cpus=8, gpus=1, partition="gpu"),
    ]
    assert request_of([Wish(request) for request in requests]) == Request(30, 4000, 8, gpus=1, partition="gpu")


def test_like_allocations_go_out_together() -> None:
    longer = Wish(replace(REQUEST, runtime=20), pack=3)
    packs = [
        *([Job("a"), Job("b", longer)], [Job("c", longer)], [Job("d")], [Job("e")], [Job("f", rule="evaluate")]),
        [Job("g"), Job("h", rule="evaluate")],
    ]
    arrays = arrays_of(packs)
    assert [names_of(array) for array in arrays] == [["ab", "c"], ["d", "e"], ["f"], ["gh"]]
