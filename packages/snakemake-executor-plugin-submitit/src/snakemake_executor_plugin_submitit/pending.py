"""Jobs that have not started: why, and which of them never can."""

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import NamedTuple

from snakemake_executor_plugin_submitit.gres import gpus_in, gpus_of
from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.schedulers import NoAnswerError, Waiting, ask
from snakemake_executor_plugin_submitit.usage import seconds_of

_USUAL = {"Priority", "Resources", "JobArrayTaskLimit", "Dependency", "BeginTime", "Licenses"}
_BY_NODES = {"PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit"}  # may also mean that nodes are down
_LIMIT = (
    "that is more, or less, than its account or quality of service allows; change its resources, its qos or account"
)
_FINAL = {
    r"(Assoc|QOS)Max\w+Per(Job|Node)(Limit)?|QOSMin\w+": _LIMIT,
    "InvalidAccount|AccountNotAllowed": "change its resource account or partition",
    "InvalidQOS|QOSNotAllowed": "change its resource qos or partition",
    "BadConstraints": "no node is as it asks for; change its resources, such as constraint",
    "MaxMemPerLimit": "lower its resource mem_mb",
    "ReservationDeleted": "change its resource reservation",
    "DependencyNeverSatisfied": "change the dependency in its resource extra",
}
_FORM = "%P|%D|%c|%m|%G|%l|%s"  # of sinfo
_SOON_S, _SELDOM_S = 60, 600  # between two lines that tell of something unusual, or of nothing but other numbers


class Offer(NamedTuple):
    """Nodes of one kind in one partition, whatever state they are in.

    Attributes:
        partition: its name.
        default: whether jobs go there that name none.
        nodes: how many there are.
        cpus: CPUs of each.
        mem_mb: memory of each in MB.
        gpus: GPUs of each by their types.
        runtime: longest time limit in minutes.
        job_nodes: the most nodes of one job.
    """

    partition: str
    default: bool
    nodes: int
    cpus: int
    mem_mb: int
    gpus: dict[str, int]
    runtime: float
    job_nodes: float


class Pending:
    """Watches over jobs that have not started."""

    def __init__(self, grace_s: float, logger: logging.Logger) -> None:
        """Watch from now on.

        Args:
            grace_s: for so many seconds it must be seen that a job can never start, for limits may be raised.
            logger: told why jobs wait, whenever that changes.
        """
        self._grace_s, self._logger = grace_s, logger
        self._since: dict[str, float] = {}
        self._given_up: set[Request] = set()
        self._told: Counter[str] = Counter()
        self._told_at = float("-inf")
        self._offers: list[Offer] = []
        self._offers_at = float("-inf")

    def hopeless(self, waiting: Mapping[str, Waiting], requests: Mapping[str, Request]) -> dict[str, str]:
        """Return why jobs can never start, of those of which that has been so for the time of grace.

        Args:
            waiting: how jobs wait in the queue, by their numbers; those of others are passed over.
            requests: what the jobs ask for.
        """
        ours = {job_id: waiting[job_id] for job_id in requests if job_id in waiting}
        never = {job_id: why for job_id, wait in ours.items() if (why := self._why_never(wait, requests[job_id]))}
        now = monotonic()
        self._since = {job_id: self._since.get(job_id, self._first_seen(requests[job_id], now)) for job_id in never}
        self._tell(Counter(_label(wait, job_id in never) for job_id, wait in ours.items()), now)
        hopeless = {job_id: why for job_id, why in never.items() if now - self._since[job_id] >= self._grace_s}
        self._given_up |= {_kind(requests[job_id]) for job_id in hopeless}
        return hopeless

    def _first_seen(self, request: Request, now: float) -> float:
        """Return since when a job counts as hopeless: a retry of one that was given up has no second time of grace."""
        return now - self._grace_s if _kind(request) in self._given_up else now

    def excess(self, request: Request, partitions: str = "") -> str:
        """Return what is asked for beyond what these partitions have; empty if nothing is, or that is not known.

        Args:
            request: what is asked for.
            partitions: names with commas between; otherwise the request's, or else the site's default.
        """
        wanted = (partitions or request.partition).split(",")
        known = self._known_offers()
        return excess(
            request, [each for each in known if (each.default if wanted == [""] else each.partition in wanted)]
        )

    def _why_never(self, wait: Waiting, request: Request) -> str:
        if wait.reason in _BY_NODES:
            short = self.excess(request, wait.partition)
            return f"{wait.reason}: {short}" if short else ""
        if "," in wait.partition + request.qos:  # of which SLURM gives the reason of one only
            return ""
        remedies = (remedy for reasons, remedy in _FINAL.items() if re.fullmatch(reasons, wait.reason))
        return next((f"{wait.reason}: {remedy}" for remedy in remedies), "")

    def _known_offers(self) -> list[Offer]:
        if monotonic() - self._offers_at >= _SOON_S:
            self._offers, self._offers_at = [], monotonic()
            with suppress(NoAnswerError):
                self._offers = offers_of(
                    ask(["sinfo", "--all", "--exact", "--noconvert", "--noheader", f"--format={_FORM}"])
                )
        return self._offers

    def _tell(self, reasons: Counter[str], now: float) -> None:
        """Say how many jobs wait for what, at once if that is new, seldom if it is usual."""
        unusual = reasons.keys() - _USUAL - self._told.keys()
        if not reasons or reasons == self._told or now - self._told_at < (_SOON_S if unusual else _SELDOM_S):
            return
        self._told, self._told_at = reasons, now
        (label, count), *others = reasons.most_common()
        self._logger.info("; ".join([f"{count} pending: {label}", *(f"{count}: {label}" for label, count in others)]))


def _kind(request: Request) -> Request:
    """Return a request without what retries ask more of."""
    return replace(request, mem_mb=0, runtime=0)


def _label(wait: Waiting, never: bool) -> str:
    reason = re.split(r"\W+Unavailable", wait.reason)[0].replace("_", " ")
    return f"{reason}, can never start" if never else reason


def offers_of(text: str) -> list[Offer]:
    """Return what sinfo printed of partitions and their nodes, by `_FORM`; lines of other forms are passed over."""
    found = re.finditer(
        r"^(.+?)(\*?)\|(\d+)\|(\d+)\+?\|(\d+)\+?\|(.*)\|(.*)\|(?:\d+-)?(\d+|infinite)$", text, re.MULTILINE
    )
    return [
        Offer(
            *(line[1], bool(line[2]), int(line[3]), int(line[4]), int(line[5]), gpus_in(line[6])),
            *(seconds_of(line[7]) / 60 or float("inf"), float(line[8].replace("infinite", "inf"))),
        )
        for line in found
    ]


def excess(request: Request, offers: Sequence[Offer]) -> str:
    """Return what is asked for beyond what partitions have, with the remedy; empty if one has all, or none is known."""
    partitions = {offer.partition: [each for each in offers if each.partition == offer.partition] for offer in offers}
    if not partitions or any(_suffices(kinds, request) for kinds in partitions.values()):
        return ""
    where = f"partition{'s' if len(partitions) > 1 else ''} {', '.join(partitions)}"
    asked = [
        (f"cpus={request.cpus}", request.cpus, max(offer.cpus for offer in offers)),
        (f"mem_mb={request.mem_mb}", request.mem_mb, max(offer.mem_mb for offer in offers)),
        *(
            (f"gpus={kind and f'{kind}:'}{count}", count, max(_gpus(offer, kind) for offer in offers))
            for kind, count in _asked_gpus(request)
        ),
        (f"nodes={request.nodes}", request.nodes, max(min(_count(k), k[0].job_nodes) for k in partitions.values())),
        (f"runtime={request.runtime}", request.runtime, max(offer.runtime for offer in offers)),
    ]
    if over := [f"{what} (at most {most:.0f})" for what, count, most in asked if count > most]:
        return f"it asks for more than {where} has: {', '.join(over)}; lower that, or choose another partition"
    together = ", ".join(what for what, *_ in asked)
    return f"no nodes of {where} have all that it asks for: {together}; lower that, or choose another partition"


def _suffices(kinds: Sequence[Offer], request: Request) -> bool:
    """Say whether the nodes of a partition have all that is asked for."""
    fit = [kind for kind in kinds if _fits(kind, request)]
    return _count(fit) >= request.nodes <= kinds[0].job_nodes and request.runtime <= kinds[0].runtime


def _fits(kind: Offer, request: Request) -> bool:
    enough = all(_gpus(kind, name) >= count for name, count in _asked_gpus(request))
    return enough and kind.cpus >= request.cpus and kind.mem_mb >= request.mem_mb


def _asked_gpus(request: Request) -> list[tuple[str, int]]:
    """Return the types, empty for any, and numbers of the GPUs that are asked for."""
    return list(gpus_of(request.gpu_types).items()) or [("", request.gpus)] * bool(request.gpus)


def _gpus(offer: Offer, kind: str) -> int:
    return offer.gpus.get(kind, 0) if kind else sum(offer.gpus.values())


def _count(kinds: Iterable[Offer]) -> int:
    return sum(kind.nodes for kind in kinds)
