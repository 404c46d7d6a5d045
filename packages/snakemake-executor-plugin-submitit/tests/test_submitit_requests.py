"""What jobs ask of the scheduler, which of them share an allocation, and which allocations go out as one array."""

import re
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
    with pytest.raises(WorkflowError, match=f"^rule train: resource {name} is missing; give it to the rule, or under"):
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


FOR_RESOURCES = {
    **{"cpus-per-task": "cpus", "cpus-per-gpu": "cpus", "time": "runtime", "nodes": "nodes", "mem": "mem_mb"},
    **{"mem-per-cpu": "mem_mb", "mem-per-gpu": "mem_mb", "ntasks": "tasks", "ntasks-per-node": "tasks"},
    **{"ntasks-per-gpu": "tasks", "gpus": "gpus", "gpus-per-node": "gpus", "gpus-per-socket": "gpus"},
    **{"gpus-per-task": "gpus", "gres": "gres", "tres-per-task": "gres"},
}
SET = ("array", "comment", "error", "job-name", "open-mode", "output", "requeue", "signal")
BREAKING = {
    **{
        "parsable": "changes what sbatch answers, so that the job's number would not be",
        "quiet": "changes what sbatch",
    },
    **{"test-only": "would submit nothing; call sbatch by hand", "help": "would submit", "usage": "would submit"},
    **{
        "version": "would submit nothing",
        "wait": "would have sbatch wait until the job ends",
        "uid": "would send jobs as",
    },
    **{"hold": "would have jobs wait until somebody releases them; .* begin=", "wrap": "would run another command"},
    **{"no-requeue": "would lose jobs .*; use submitit-requeues: 0", "no-kill": "would leave a job running without"},
    **{"chdir": "would move jobs out of Snakemake's working directory", "workdir": "would move jobs out"},
    **{"clusters": "would send jobs where nobody looks for them; call", "cluster-constraint": "would send jobs where"},
    **{"export-file": "would keep Snakemake's environment", "time-min": "may give a job less time than it is told"},
}


def extra_of(extra: str) -> dict[str, Any]:
    wish = wish_of("train", {**LEAST, "extra": extra}, threads=1)
    options: dict[str, Any] = wish.request.parameters()["slurm_additional_parameters"]
    return {name: value for name, value in options.items() if name != "requeue"}


def refusal_of(extra: str) -> str:
    with pytest.raises(WorkflowError) as caught:
        extra_of(extra)
    start = f"rule train: resource extra={extra!r}: "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


def test_an_option_that_a_resource_or_the_executor_sets_is_refused_however_it_is_written() -> None:
    texts = {name: f"{name} is asked for by the resource {one}; give it there" for name, one in FOR_RESOURCES.items()}
    texts |= {name: f"{name} is set by the executor; leave it out" for name in SET}
    for name, text in texts.items():
        for written in (f"{name}=1", name, f"--{name}=1", f"--{name} 1", f"exclusive {name.replace('-', '_')}=1"):
            assert refusal_of(written) == text


@pytest.mark.parametrize("name", BREAKING)
def test_an_option_that_breaks_the_protocol_is_refused_with_the_reason(name: str) -> None:
    for written in (name, f"--{name}", f"--{name}=1", f"mail-type=END {name}"):
        assert re.match(f"{name} {BREAKING[name]}", refusal_of(written))


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("-H", "hold would have jobs wait until somebody releases them"),
        ("-W", "wait would have sbatch wait"),
        ("-Q", "quiet changes what sbatch answers"),
        ("-M other", "clusters would send jobs where nobody looks"),
        ("-D/tmp", "chdir would move jobs out of"),
        ("-t10", "time is asked for by the resource runtime"),
        ("-p gpu", "'-p' is short for partition; write options in full, as mail-type=FAIL"),
        ("-pgpu", "'-pgpu' is short for partition; write"),
        ("p=gpu", "'p=gpu' is short for partition; write"),
        ("-Z", "'-Z' is short for nothing; write"),
        ("hol", "sbatch would take hol for hold; write options in full"),
        ("--parsab", "sbatch would take parsab for parsable; write"),
        ("--clust=x", "sbatch would take clust for cluster-constraint or clusters; write"),
        (
            "export=NONE",
            "export=NONE would keep Snakemake's environment from the job; .* export=ALL,NAME=value",
        ),
        ("export=PATH", "export=PATH would keep"),
        ("mail-type", "mail-type has no value; write mail-type=…"),
        ("--mail-type --exclusive", "mail-type has no value"),
        ("mail-type FAIL", "mail-type has no value"),
        ("comment='a", "No closing quotation"),
    ],
)
def test_an_option_that_is_short_half_written_or_hidden_is_refused(written: str, text: str) -> None:
    assert re.match(text, refusal_of(written))


def test_options_are_known_by_sbatch_s_names_with_quotes_as_in_a_shell() -> None:
    assert extra_of("mail_type=FAIL --wckey=course_1 exclusive=user --contiguous") == {
        **{"mail-type": "FAIL", "wckey": "course_1", "exclusive": "user", "contiguous": True},
    }
    assert extra_of("--mail-type END --licenses 'a b' prefer=\"it's\" --nice --begin=now+1hour") == {
        **{"mail-type": "END", "licenses": "a b", "prefer": "it's", "nice": True, "begin": "now+1hour"},
    }
    assert extra_of("export=ALL,A=1 a-site-s-own=x y2") == {"export": "ALL,A=1", "a-site-s-own": "x", "y2": True}


@pytest.mark.parametrize("name", ["partition", "account", "qos", "constraint", "exclude", "reservation"])
def test_what_is_a_resource_may_be_an_option_but_not_both(name: str) -> None:
    assert extra_of(f"{name}=x") == {name: "x"}
    text = rf"^rule train: resource extra='{name}=x': {name} is given as a resource too; leave it out$"
    with pytest.raises(WorkflowError, match=text):
        wish_of("train", {**LEAST, "extra": f"{name}=x", name: "y"}, threads=1)


def test_submitit_is_told_what_is_asked_for_and_leaves_the_rest_to_the_site() -> None:
    assert REQUEST.parameters() == {
        **{"timeout_min": 10, "nodes": 1, "tasks_per_node": 1, "cpus_per_task": 1, "slurm_mem": "1000MB"},
        "slurm_additional_parameters": {"requeue": True},
    }
    full = Request(60, 4000, 8, 2, 3, "gpu", "us", "high", "a100", "node7", "--reservation=course exclusive aa=b=c")
    assert full.parameters() == {
        **{"timeout_min": 60, "nodes": 3, "tasks_per_node": 1, "cpus_per_task": 8, "slurm_mem": "4000MB"},
        **{
            "slurm_gpus_per_node": 2,
            "local_gpus_per_node": 2,
            "slurm_partition": "gpu",
            "slurm_account": "us",
            "slurm_qos": "high",
        },
        **{"slurm_constraint": "a100", "slurm_exclude": "node7"},
        "slurm_additional_parameters": {"requeue": True, "reservation": "course", "exclusive": True, "aa": "b=c"},
    }


@pytest.mark.parametrize(
    ("resources", "gpus", "types"),
    [
        ({"gpus": "a100:2"}, 2, "a100:2"),
        ({"gpus": "a100:1,v100:2"}, 3, "a100:1,v100:2"),
        ({"gpus": "1g.5gb:1"}, 1, "1g.5gb:1"),
        ({"gpus": "nvidia_h100_80gb_hbm3_1g.10gb:3"}, 3, "nvidia_h100_80gb_hbm3_1g.10gb:3"),
        ({"gpu": 2}, 2, ""),
        ({"gpu": 4, "nodes": 2}, 2, ""),
        ({"gpu": 2, "gpu_model": "a100"}, 2, "a100:2"),
        ({"gpu_model": "a100"}, 1, "a100:1"),
        ({"gpu": 0, "gpu_model": "a100"}, 0, ""),
    ],
)
def test_gpus_may_be_of_a_type(resources: dict[str, Any], gpus: int, types: str) -> None:
    request = wish_of("train", {**LEAST, **resources}, threads=1).request
    assert (request.gpus, request.gpu_types, request.gres) == (gpus, types, "")
    assert request.parameters().get("slurm_gpus_per_node") == (types or gpus or None)
    assert request.parameters().get("local_gpus_per_node") == (gpus or None)
    assert "slurm_gres" not in request.parameters()


@pytest.mark.parametrize(
    ("gres", "gpus", "types", "without"),
    [
        ("gpu:a100:2", 2, "a100:2", ""),
        ("gpu:1g.5gb:1", 1, "1g.5gb:1", ""),
        ("gpu:2,tmp:100G", 2, "", "tmp:100G"),
        ("gpu", 1, "", ""),
        ("gpu:a100", 1, "a100:1", ""),
        ("gpu:a100:1,gpu:v100:2,bandwidth:lustre:4g", 3, "a100:1,v100:2", "bandwidth:lustre:4g"),
        ("shard:4,mps:50", 0, "", ""),
    ],
)
def test_gpus_among_generic_resources_are_counted(gres: str, gpus: int, types: str, without: str) -> None:
    request = wish_of("train", {**LEAST, "gres": gres, "gpus": 0}, threads=1).request
    assert (request.gpus, request.gpu_types) == (gpus, types)
    assert request.parameters()["slurm_gres"] == gres
    assert "slurm_gpus_per_node" not in request.parameters()
    assert request.without_gpus() == replace(request, gpus=0, gpu_types="", gres=without)


def test_generic_resources_beside_gpus_are_asked_for_beside_them() -> None:
    parameters = wish_of("train", {**LEAST, "gres": "tmp:100G", "gpus": "a100:2"}, threads=1).request.parameters()
    assert (parameters["slurm_gpus_per_node"], parameters["slurm_gres"]) == ("a100:2", "tmp:100G")


@pytest.mark.parametrize(
    ("resources", "text"),
    [
        *(({"gpus": text}, f"resource gpus={text!r} is no whole number from 0 on, nor type:count, such as a100:2")
          for text in ("a100", "a100:0", "a100:two", "2", ":2", "a100:1,", "a100:1 v100:1", "a100:1;id")),
        *(({"gres": text}, f"resource gres={text!r} is not name:count or name:type:count, with commas between; mend it")
          for text in ("gpu:", "gpu:a100:x", "'gpu:2'", "gpu:a:b:1", "gpu:1,", "gpu 1", ":1")),
        ({"gpu_model": "a:b"}, "resource gpu_model='a:b' is no type of a GPU, such as a100; mend it"),
        ({"gpu": "two"}, "resource gpu='two' is no whole number from 1 on"),
        ({"gpu": 3, "nodes": 2}, "resource gpu=3 is no multiple of its 2 nodes; use gpus, of each node"),
        ({"gpus": 1, "gres": "gpu:1"}, "resources gpus and gres ask for GPUs twice; leave all but one out, or gpus=0"),
        ({"gpus": 1, "gpu": 1}, "resources gpus and gpu ask for GPUs twice; leave all but one out, or gpus=0"),
        ({"tasks": 3, "nodes": 2}, "resource tasks=3 is no multiple of its 2 nodes; use tasks_per_node, of each node"),
        ({"tasks": 2, "tasks_per_node": 2}, "resources tasks, of the job, and tasks_per_node are one; give tasks_per"),
        ({"tasks": 2, "cpus": 3}, "resource cpus=3 is no multiple of the 2 tasks of a node; use cpus_per_task"),
        ({"tasks": 0}, "resource tasks=0 is no whole number from 1 on"),
        *(({name: "other"}, f"resource {name}='other': jobs are looked for on this cluster only; leave it out")
          for name in ("cluster", "clusters", "slurm_cluster")),
        ({"mem_mb_per_cpu": 9}, "resource mem_mb_per_cpu=9: memory is asked for by mem_mb, of each node; use that"),
        ({"tasks_per_gpu": 2}, "resource tasks_per_gpu=2: tasks are asked for by tasks_per_node; use that"),
        ({"partition": "a", "slurm_partition": "b"}, "resources partition and slurm_partition are one and differ"),
        ({"qos": "a\n#SBATCH --hold"}, "resource qos='a\\n#SBATCH --hold' is more than one line; mend it"),
    ],
)  # fmt: skip
def test_a_resource_without_sense_is_named(resources: dict[str, Any], text: str) -> None:
    with pytest.raises(WorkflowError) as caught:
        wish_of("train", {**LEAST, **resources}, threads=1)
    assert str(caught.value).startswith(f"rule train: {text}")


def test_tasks_have_their_cpus_each() -> None:
    for resources in ({"tasks": 4}, {"tasks_per_node": 2}, {"tasks": 4, "cpus_per_task": 3}, {"tasks": 4, "cpus": 6}):
        request = wish_of("train", {**LEAST, "nodes": 2, **resources}, threads=3).request
        assert (request.tasks, request.cpus) == (2, 6)
        parameters = request.parameters()
        assert (parameters["tasks_per_node"], parameters["cpus_per_task"]) == (2, 3)


def test_the_names_of_snakemake_s_slurm_plugin_are_known() -> None:
    theirs = {"slurm_partition": "gpu", "slurm_account": "us", "slurm_extra": "--mail-type FAIL", "cpus_per_task": 2}
    ours = {"partition": "gpu", "account": "us", "extra": "--mail-type FAIL", "cpus": 2}
    expected = wish_of("train", {**LEAST, **ours}, threads=1)
    assert wish_of("train", {**LEAST, **theirs}, threads=1) == expected
    assert wish_of("train", {**LEAST, **theirs, **ours}, threads=1) == expected


def test_a_reservation_is_an_option_of_sbatch() -> None:
    request = wish_of("train", {**LEAST, "reservation": "course"}, threads=1).request
    assert request.parameters()["slurm_additional_parameters"] == {"requeue": True, "reservation": "course"}


def test_jobs_are_packed_no_more_than_they_allow() -> None:
    assert names_of(packs_of(jobs("abcdefg"))) == ["abc", "def", "g"]


def test_jobs_that_allow_different_sizes_do_not_meet() -> None:
    packs = packs_of(jobs("abcd", wish=Wish(REQUEST, pack=2)) + jobs("efgh") + jobs("i", wish=Wish(REQUEST)))
    assert sorted(names_of(packs)) == ["ab", "cd", "efg", "h", "i"]


def test_jobs_that_differ_in_more_than_size_do_not_meet() -> None:
    others = {"gpus": 1, "nodes": 2, "partition": "gpu", "account": "us", "qos": "high", "constraint": "a100"}
    others |= {"exclude": "node7", "extra": "exclusive", "gpu_types": "a100:1", "gres": "tmp:1", "tasks": 2}
    others |= {"reservation": "course"}
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
