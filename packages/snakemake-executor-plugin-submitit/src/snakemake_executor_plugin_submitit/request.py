"""What a job asks of the scheduler, and which jobs go out together. Nothing here needs a cluster."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol, TypeVar

from snakemake_interface_common.exceptions import WorkflowError

_COUNTS = {"mem_mb": 1, "cpus": 1, "gpus": 0, "nodes": 1, "runtime": 1, "pack": 1}
_ARRAY_SIZE = 1000  # what SLURM allows unless a site says otherwise
_NAMES = ("partition", "account", "qos", "constraint", "exclude", "extra", "pack_with", "state")
_OURS = {
    *("array", "comment", "cpus-per-task", "error", "gpus-per-node", "job-name", "mem", "nodes", "ntasks"),
    *("ntasks-per-node", "open-mode", "output", "requeue", "signal", "time"),
}
RESOURCES = (*_COUNTS, *_NAMES)


@dataclass(frozen=True)
class Request:
    """What one allocation is asked to hold.

    Attributes:
        runtime: time limit in minutes.
        mem_mb: memory of each node in MB.
        cpus: CPUs of each node.
        gpus: GPUs of each node.
        nodes: number of nodes.
        partition: where to queue; empty, as the others below, for the site's default.
        account: who pays.
        qos: quality of service.
        constraint: features that the nodes must have.
        exclude: nodes not to use.
        extra: further sbatch options, as `key=value` or `key`, separated by spaces.
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

    def parameters(self) -> dict[str, Any]:
        """Return this as submitit's parameters, on several nodes with one task a node."""
        given = {f"slurm_{name}": value for name in _NAMES[:5] if (value := getattr(self, name))}
        if self.gpus:
            given["gpus_per_node"] = self.gpus
        return {
            "timeout_min": self.runtime,
            "nodes": self.nodes,
            "tasks_per_node": 1,
            "cpus_per_task": self.cpus,
            "slurm_mem": f"{self.mem_mb}MB",
            "slurm_additional_parameters": {"requeue": True, **_options(self.extra)},
            **given,
        }


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
        resources: `runtime` (minutes), `mem_mb`, `cpus` (otherwise its threads), `gpus` and `nodes`; `partition`,
            `account`, `qos`, `constraint`, `exclude`, `extra`; `pack`, `pack_with` and `state`, as in `Wish`.
        threads: of the job.

    Raises:
        WorkflowError: a resource is missing or has no sense.
    """
    counts: dict[str, Any] = {"cpus": threads, "gpus": 0, "nodes": 1, "pack": 1}
    counts |= {name: resources[name] for name in _COUNTS if resources.get(name) is not None}
    for name, least in _COUNTS.items():
        if name not in counts:
            raise WorkflowError(f"rule {rule} has no {name}; give one under its resources, or under default-resources")
        if not isinstance(counts[name], int) or counts[name] < least:
            raise WorkflowError(f"rule {rule}: resource {name}={counts[name]!r} is no whole number from {least} on")
    words: dict[str, Any] = {name: str(resources[name]) for name in _NAMES if resources.get(name)}
    pack, pack_with, state = counts.pop("pack"), words.pop("pack_with", ""), words.pop("state", "")
    _options(words.get("extra", ""), rule)
    return Wish(Request(**counts, **words), pack, pack_with, state)


def _options(extra: str, rule: str = "") -> dict[str, Any]:
    """Return further sbatch options by name."""
    options: dict[str, Any] = {}
    for option in extra.split():
        name, equals, value = option.lstrip("-").partition("=")
        name = name.replace("_", "-")
        if not name or (equals and not value):
            raise WorkflowError(f"rule {rule}: resource extra={extra!r}: {option!r} is not key=value or key; mend it")
        if name in _OURS:
            raise WorkflowError(f"rule {rule}: resource extra={extra!r}: {name} is set otherwise; leave it out")
        options[name] = value if equals else True
    return options


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
