"""What a job asks of the scheduler, and which jobs go out together. Nothing here needs a cluster."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol, TypeVar

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.gres import gpus_in, gpus_of, is_gres, is_typed, without_gpus
from snakemake_executor_plugin_submitit.options import RESOURCES_TOO, options_of

_ARRAY_SIZE = 1000  # what SLURM allows unless a site says otherwise
_NAMES = ("partition", "account", "qos", "constraint", "exclude", "reservation", "extra", "pack_with", "state")
_SPELLINGS = {"slurm_partition": "partition", "slurm_account": "account", "slurm_extra": "extra"}
_OTHER_CLUSTER = (
    "jobs are looked for on this cluster only; leave it out, and call Snakemake where the other cluster's own sbatch is"
)
_REFUSED = {
    **dict.fromkeys(("cluster", "clusters", "slurm_cluster"), _OTHER_CLUSTER),
    "mem_mb_per_cpu": "memory is asked for by mem_mb, of each node; use that",
    "tasks_per_gpu": "tasks are asked for by tasks_per_node; use that",
}
RESOURCES = (
    *("runtime", "mem_mb", "cpus", "nodes", "tasks_per_node", "gpus", "gres", "pack", *_NAMES),
    *("tasks", "cpus_per_task", "gpu", "gpu_model", *_SPELLINGS),  # as Snakemake's SLURM plugin has them
    *_REFUSED,
)


@dataclass(frozen=True)
class Request:
    """What one allocation is asked to hold.

    Attributes:
        runtime: time limit in minutes.
        mem_mb: memory of each node in MB.
        cpus: CPUs of each node.
        gpus: GPUs of each node, of whatever type.
        nodes: number of nodes.
        partition: where to queue; empty, as the others below, for the site's default.
        account: who pays.
        qos: quality of service.
        constraint: features that the nodes must have.
        exclude: nodes not to use.
        extra: further sbatch options, as `key=value` or `key`, separated by spaces.
        gpu_types: the types of the GPUs, as `a100:2` or `a100:1,v100:1`; empty for any.
        gres: generic resources of each node as sbatch takes them, such as `gpu:1g.5gb:1,tmp:100G`. The GPUs in it are
            those of `gpus`, which are then asked for in this way.
        tasks: how many processes the job's own srun may start on each node.
        reservation: of the site, in which to run.
    """

    runtime: int
    mem_mb: int
    cpus: int
    gpus: int = 0
    nodes: int = 1
    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    exclude: str = ""
    extra: str = ""
    gpu_types: str = ""
    gres: str = ""
    tasks: int = 1
    reservation: str = ""

    def parameters(self) -> dict[str, Any]:
        """Return this as submitit's parameters."""
        given = {f"slurm_{name}": value for name in (*_NAMES[:5], "gres") if (value := getattr(self, name))}
        if self.gpus:
            given["local_gpus_per_node"] = self.gpus
        if self.gpus and not gpus_in(self.gres):
            given["slurm_gpus_per_node"] = self.gpu_types or self.gpus
        further: dict[str, Any] = {"requeue": True, **options_of(self.extra)}
        if self.reservation:
            further["reservation"] = self.reservation
        return {
            "timeout_min": self.runtime,
            "nodes": self.nodes,
            "tasks_per_node": self.tasks,
            "cpus_per_task": self.cpus // self.tasks,
            "slurm_mem": f"{self.mem_mb}MB",
            "slurm_additional_parameters": further,
            **given,
        }

    def without_gpus(self) -> "Request":
        """Return the same without GPUs."""
        return replace(self, gpus=0, gpu_types="", gres=without_gpus(self.gres))


@dataclass(frozen=True)
class Wish:
    """What one Snakemake job asks for.

    Attributes:
        request: what it needs.
        pack: with how many jobs, itself included, it may share an allocation, one after another.
        pack_with: it shares one only with jobs that say the same here.
        state: what grows while the job makes progress that a later attempt goes on from; empty if nothing is kept.
    """

    request: Request
    pack: int = 1
    pack_with: str = ""
    state: str = ""


def wish_of(rule: str, resources: Mapping[str, Any], threads: int) -> Wish:
    """Return what a job asks for.

    Args:
        rule: its rule, for errors.
        resources: `runtime` (minutes), `mem_mb`, `cpus` (otherwise its threads, for each task) and `nodes`; `gpus`, a
            number or `type:count`, or else `gres`; `partition`, `account`, `qos`, `constraint`, `exclude`,
            `reservation`, `extra`; `tasks_per_node`; `pack`, `pack_with` and `state`, as in `Wish`. Of Snakemake's
            SLURM plugin also `gpu` with `gpu_model`, and `tasks`, which count those of all nodes; `cpus_per_task`;
            `slurm_partition`, `slurm_account` and `slurm_extra`.
        threads: of the job.

    Raises:
        WorkflowError: a resource is missing or makes no sense.
    """
    try:
        return _wish_of({name: value for name, value in resources.items() if value not in (None, "")}, threads)
    except ValueError as error:
        raise WorkflowError(f"rule {rule}: {error}") from error


def _wish_of(resources: dict[str, Any], threads: int) -> Wish:
    for name in resources.keys() & _REFUSED.keys():
        raise ValueError(f"resource {name}={resources[name]!r}: {_REFUSED[name]}")
    for theirs, ours in _SPELLINGS.items():
        if theirs in resources and resources.setdefault(ours, resources[theirs]) != resources[theirs]:
            raise ValueError(f"resources {ours} and {theirs} are one and differ; give {ours} only")
    runtime, mem_mb = (_count(resources, name) for name in ("runtime", "mem_mb"))
    nodes, pack = _count(resources, "nodes", 1), _count(resources, "pack", 1)
    tasks = _tasks(resources, nodes)
    words: dict[str, Any] = {name: _word(name, resources[name]) for name in _NAMES if name in resources}
    pack_with, state = words.pop("pack_with", ""), words.pop("state", "")
    _check_extra(words)
    request = Request(runtime, mem_mb, _cpus(resources, threads, tasks), nodes=nodes, tasks=tasks, **words)
    return Wish(_with_gpus(request, resources), pack, pack_with, state)


def _count(resources: Mapping[str, Any], name: str, default: int | None = None, least: int = 1) -> int:
    value = resources.get(name, default)
    if value is None:
        raise ValueError(f"resource {name} is missing; give it to the rule, or under default-resources")
    if not isinstance(value, int) or value < least:
        raise ValueError(f"resource {name}={value!r} is no whole number from {least} on")
    return value


def _word(name: str, value: Any) -> str:
    if "\n" in (word := str(value)):
        raise ValueError(f"resource {name}={word!r} is more than one line; mend it")
    return word


def _share(resources: Mapping[str, Any], name: str, nodes: int, instead: str) -> int:
    """Return each node's part of what a job asks for on all of its nodes."""
    count = _count(resources, name)
    if count % nodes:
        raise ValueError(f"resource {name}={count} is no multiple of its {nodes} nodes; use {instead}, of each node")
    return count // nodes


def _tasks(resources: Mapping[str, Any], nodes: int) -> int:
    if "tasks" not in resources:
        return _count(resources, "tasks_per_node", 1)
    if "tasks_per_node" in resources:
        raise ValueError("resources tasks, of the job, and tasks_per_node are one; give tasks_per_node only")
    return _share(resources, "tasks", nodes, "tasks_per_node")


def _cpus(resources: Mapping[str, Any], threads: int, tasks: int) -> int:
    """Return the CPUs of a node, an equal number for each task."""
    cpus = _count(resources, "cpus", _count(resources, "cpus_per_task", threads) * tasks)
    if cpus % tasks:
        raise ValueError(f"resource cpus={cpus} is no multiple of the {tasks} tasks of a node; use cpus_per_task")
    return cpus


def _with_gpus(request: Request, resources: Mapping[str, Any]) -> Request:
    """Return a request with its GPUs, which are asked for in one of three ways."""
    gres = _word("gres", resources.get("gres", ""))
    if gres and not is_gres(gres):
        raise ValueError(f"resource gres={gres!r} is not name:count or name:type:count, with commas between; mend it")
    ways = {"gpus": _gpus(resources), "gpu": _gpu(resources, request.nodes), "gres": gpus_in(gres)}
    asked = {name: gpus for name, gpus in ways.items() if sum(gpus.values())}
    if len(asked) > 1:
        raise ValueError(f"resources {' and '.join(asked)} ask for GPUs twice; leave all but one out, or gpus=0")
    gpus = next(iter(asked.values()), {})
    types = "" if "" in gpus else ",".join(f"{kind}:{count}" for kind, count in gpus.items())
    return replace(request, gpus=sum(gpus.values()), gpu_types=types, gres=gres)


def _gpus(resources: Mapping[str, Any]) -> dict[str, int]:
    gpus = resources.get("gpus", 0)
    if isinstance(gpus, str) and is_typed(gpus):
        return gpus_of(gpus)
    try:
        return {"": _count(resources, "gpus", 0, least=0)}
    except ValueError as error:
        raise ValueError(f"{error}, nor type:count, such as a100:2") from error


def _gpu(resources: Mapping[str, Any], nodes: int) -> dict[str, int]:
    """Return the GPUs of each node as Snakemake's SLURM plugin has them: a number for all nodes, and a model."""
    model = _word("gpu_model", resources.get("gpu_model", ""))
    if model and not is_typed(f"{model}:1"):
        raise ValueError(f"resource gpu_model={model!r} is no type of a GPU, such as a100; mend it")
    if not resources.get("gpu", bool(model)):
        return {}
    return {model: _share({"gpu": 1, **resources}, "gpu", nodes, "gpus")}


def _check_extra(words: Mapping[str, str]) -> None:
    extra = words.get("extra", "")
    for name in options_of(extra).keys() & words.keys() & set(RESOURCES_TOO):
        raise ValueError(f"resource extra={extra!r}: {name} is given as a resource too; leave it out")


class Wishing(Protocol):
    """Anything that asks for something."""

    @property
    def rule(self) -> str:
        """Rule of the job."""

    @property
    def wish(self) -> Wish:
        """What the job asks for."""

    @property
    def attempt(self) -> int:
        """How often the job was tried, this time included."""


Job = TypeVar("Job", bound=Wishing)


def packs_of(jobs: Iterable[Job]) -> list[list[Job]]:
    """Share jobs out to allocations: those whose rule allows it together, all others, and retried ones, alone.

    Jobs of a pack agree in all but runtime, memory and CPUs; no pack is larger than any of its jobs allows.
    """
    packs: list[list[Job]] = []
    together: dict[tuple[Request, int, str], list[Job]] = {}
    for job in jobs:
        if job.wish.pack == 1 or job.attempt > 1:
            packs.append([job])
        else:
            alike = replace(job.wish.request, runtime=0, mem_mb=0, cpus=0)
            together.setdefault((alike, job.wish.pack, job.wish.pack_with), []).append(job)
    for (_, size, _), members in together.items():
        rest = iter(members)
        while pack := list(islice(rest, size)):
            packs.append(pack)
    return packs


def request_of(wishes: Sequence[Wish]) -> Request:
    """Return what an allocation for these jobs asks for: the most that any of them needs, never the sum."""
    requests = [wish.request for wish in wishes]
    most = {name: max(getattr(request, name) for request in requests) for name in ("runtime", "mem_mb", "cpus")}
    return replace(requests[0], **most)


def arrays_of(packs: Iterable[list[Job]]) -> list[list[list[Job]]]:
    """Share allocations out to job arrays: those of the same rules that ask for the same."""
    alike: dict[tuple[str, Request], list[list[Job]]] = {}
    for pack in packs:
        alike.setdefault((label_of(pack), request_of([job.wish for job in pack])), []).append(pack)
    return [
        array[first : first + _ARRAY_SIZE] for array in alike.values() for first in range(0, len(array), _ARRAY_SIZE)
    ]


def label_of(pack: Sequence[Wishing]) -> str:
    """Return the name of an allocation: the rules of its jobs."""
    return "+".join(sorted({job.rule for job in pack}))
