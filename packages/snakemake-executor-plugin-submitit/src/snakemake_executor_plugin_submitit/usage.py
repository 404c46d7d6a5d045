"""What jobs used of what they had asked for, by SLURM's accounting, and what their rules had better ask for."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from time import sleep
from typing import NamedTuple

from snakemake_executor_plugin_submitit.request import Request
from snakemake_executor_plugin_submitit.schedulers import ACTIVE, NoAnswerError, ask, state_of

_FIELDS = ("JobID", "State", "ElapsedRaw", "TotalCPU", "AllocCPUS", "MaxRSS", "TRESUsageInMax")
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]+)?)"
_DURATION = re.compile(rf"(?:([0-9]{{1,6}})-)?(?:([0-9]{{1,6}}):)?([0-9]{{1,6}}):{_NUMBER}")
_SIZE = re.compile(_NUMBER + "([KMGTP]?)")
_GPU = re.compile(rf"(?:^|,)gres/gpuutil={_NUMBER}(?:,|$)")
_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}

_MEMORY_MARGIN, _TIME_MARGIN, _CPU_MARGIN = 1.3, 1.5, 1.3  # suggested, times what was used
_LITTLE_MEMORY, _MUCH_MEMORY, _SMALL_MB = 0.5, 0.9, 1000
_LITTLE_TIME, _MUCH_TIME, _SHORT_MIN = 0.25, 0.8, 10
_LITTLE_CPU, _LITTLE_GPU_PERCENT = 0.5, 20
_LAG_S = 5  # that accounting gets to note the last jobs' ends
_SAMPLED_S = 60  # a job as long as this was looked at more than once

_TITLE = (
    "What jobs used of what they had asked for on each node, by SLURM's figures:\n"
    "the longest run and largest memory of a rule's jobs, the mean use of their CPUs, the mean of their GPUs' peaks;\n"
    "of a job that was queued again its last run; memory and GPUs as sampled, which may miss short peaks."
)
_HEADER = ("rule", "jobs", "time limit", "longest", "CPUs", "CPU use", "memory", "largest", "GPUs", "GPU peak")
_NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Usage:
    """What accounting says of one allocation, and of its last run if it was queued again.

    Attributes:
        state: the final state, or `ACTIVE`.
        elapsed_s: how long it ran, in seconds.
        cpu_s: CPU time in seconds; 0 if not recorded.
        cpus: CPUs held on all nodes.
        memory_mb: largest resident set of any task of any step, in MB; 0 if not recorded.
        gpu_percent: highest utilisation sampled of any task, summed over its GPUs; None if not recorded.
        requeued: it had run before.
    """

    state: str
    elapsed_s: float
    cpu_s: float
    cpus: float
    memory_mb: float = 0.0
    gpu_percent: float | None = None
    requeued: bool = False


@dataclass(frozen=True)
class Summary:
    """What the jobs of one label asked for, the most that any did, and used.

    Attributes:
        label: a rule, or the rules packed together, joined by `+`.
        jobs: how many have ended.
        completed: one of them at least ended well, so that what they used may be what they need.
        requeued: one of them was queued again, so that the time it needs is not known.
        request: most minutes, MB, CPUs, GPUs and nodes asked for.
        longest_min: longest run in minutes.
        time_share: largest part of its own time limit that a job used.
        busy_cpus: CPUs kept busy on each node, on average; None if not recorded.
        cpu_share: CPU time as a part of what the allocated CPUs offered; None if not recorded.
        memory_mb: largest use in MB; 0 if not recorded. A job killed for want of memory used all it had asked for.
        memory_share: largest part of its own memory that a job used.
        gpu_percent: highest utilisation sampled of a node's GPUs, averaged over the jobs' time; None if not recorded.
    """

    label: str
    jobs: int
    completed: bool
    requeued: bool
    request: Request
    longest_min: float
    time_share: float
    busy_cpus: float | None
    cpu_share: float | None
    memory_mb: float
    memory_share: float
    gpu_percent: float | None


class Hint(NamedTuple):
    """What to change: why, and which resource to what; the resource is empty where that is up to the user."""

    reason: str
    resource: str = ""
    value: int = 0


def report_usage(allocations: Mapping[str, tuple[str, Request]], logger: logging.Logger) -> None:
    """Log a table of what jobs used of what they had asked for, and suggestions; one sentence if SLURM does not know.

    Args:
        allocations: by SLURM's job number, such as `123` or `123_4`, the label and what was asked for.
        logger: takes the text.
    """
    numbers = ",".join(sorted({job_id.split("_")[0] for job_id in allocations}))
    options = ["--parsable2", "--noheader", "--noconvert", "--duplicates"]
    command = ["sacct", *options, f"--format={','.join(_FIELDS)}", f"--jobs={numbers}"]
    try:
        for _ in range(_LAG_S):
            usages = parse_usage(ask(command))
            if all(job_id in usages and usages[job_id].state != ACTIVE for job_id in allocations):
                break
            sleep(1)
    except NoAnswerError as error:
        why = " ".join(str(error).split())
        logger.info(f"No table of what jobs used, for SLURM's accounting does not answer ({why}).")
        return
    if report := report_of(allocations, usages):
        logger.info(report)


def report_of(allocations: Mapping[str, tuple[str, Request]], usages: Mapping[str, Usage]) -> str:
    """Return the table of the jobs that have ended, suggestions, and how many jobs are not in it.

    Args:
        allocations: by job number, the label and what was asked for.
        usages: what is known, by job number.
    """
    ended = {
        job_id: asked for job_id, asked in allocations.items() if job_id in usages and usages[job_id].state != ACTIVE
    }
    parts: list[str] = []
    if summaries := summarize(ended, usages):
        parts = [_TITLE, table_of(summaries), *suggestions(summaries)]
    if missing := len(allocations) - len(ended):
        parts.append(f"SLURM's accounting does not yet show the end of {missing} of {len(allocations)} jobs.")
    return "\n".join(parts)


def parse_usage(text: str) -> dict[str, Usage]:
    """Return what sacct printed, by job number; lines of other forms are passed over.

    Args:
        text: lines of `_FIELDS` with `|` between, of each job before its steps, of each run before the next.
    """
    usages: dict[str, Usage] = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != len(_FIELDS):
            continue
        job_id, _, step = fields[0].partition(".")
        if not step:
            usages[job_id] = _usage_of(fields, requeued=job_id in usages)
        elif job_id in usages:
            usages[job_id] = _with_step(usages[job_id], *fields[-2:])
    return usages


def _usage_of(fields: Sequence[str], requeued: bool) -> Usage:
    _, state, elapsed, cpu_time, cpus, _, _ = fields
    return Usage(state_of(state), _number(elapsed), seconds_of(cpu_time), _number(cpus), requeued=requeued)


def _with_step(usage: Usage, max_rss: str, tres: str) -> Usage:
    """Return the usage of a job with that of one more step."""
    usage = replace(usage, memory_mb=max(usage.memory_mb, megabytes_of(max_rss)))
    if (found := _GPU.search(tres)) is None:
        return usage
    return replace(usage, gpu_percent=max(usage.gpu_percent or 0.0, float(found[1])))


def _number(text: str) -> float:
    """Return a number; 0 if it is none."""
    return float(text) if re.fullmatch(_NUMBER, text) else 0.0


def seconds_of(text: str) -> float:
    """Return the seconds of `[DD-][HH:]MM:SS[.mmm]`; 0 if it is anything else."""
    if (found := _DURATION.fullmatch(text)) is None:
        return 0.0
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def megabytes_of(text: str) -> float:
    """Return the MB (2**20 bytes, as SLURM's) of a size such as `123456K`, `1.5G` or, in bytes, `8192`; 0 if none."""
    found = _SIZE.fullmatch(text)
    return float(found[1]) * _BYTES[found[2]] / 2**20 if found else 0.0


def summarize(allocations: Mapping[str, tuple[str, Request]], usages: Mapping[str, Usage]) -> list[Summary]:
    """Return the summary of each label, in the order in which they first come.

    Args:
        allocations: by job number, the label and what was asked for.
        usages: of these jobs at least.
    """
    labels: dict[str, list[tuple[Request, Usage]]] = {}
    for job_id, (label, request) in allocations.items():
        labels.setdefault(label, []).append((request, usages[job_id]))
    return [_summary(label, jobs) for label, jobs in labels.items()]


def _summary(label: str, jobs: Sequence[tuple[Request, Usage]]) -> Summary:
    requests, usages = zip(*jobs, strict=True)
    names = ("runtime", "mem_mb", "cpus", "gpus", "nodes")
    most = {name: max(getattr(request, name) for request in requests) for name in names}
    memory = [_memory_of(request, usage) for request, usage in jobs]
    busy_cpus, cpu_share = _cpus_of(jobs)
    return Summary(
        label,
        len(jobs),
        any(usage.state == "COMPLETED" for usage in usages),
        any(usage.requeued for usage in usages),
        replace(max(requests, key=lambda request: request.gpus), **most),
        max(usage.elapsed_s for usage in usages) / 60,
        max(usage.elapsed_s / 60 / request.runtime for request, usage in jobs),
        busy_cpus,
        cpu_share,
        max(memory),
        max(used / request.mem_mb for used, request in zip(memory, requests, strict=True)),
        _gpus_of(jobs),
    )


def _memory_of(request: Request, usage: Usage) -> float:
    return max(usage.memory_mb, request.mem_mb) if usage.state == "OUT_OF_MEMORY" else usage.memory_mb


def _cpus_of(jobs: Sequence[tuple[Request, Usage]]) -> tuple[float | None, float | None]:
    """Return how many CPUs of a node were busy on average, and which part of all that were allocated."""
    known = [(request, usage) for request, usage in jobs if usage.cpu_s and usage.elapsed_s and usage.cpus]
    if not known:
        return None, None
    used = sum(usage.cpu_s for _, usage in known)
    node_s = sum(usage.elapsed_s * request.nodes for request, usage in known)
    return used / node_s, used / sum(usage.elapsed_s * usage.cpus for _, usage in known)


def _gpus_of(jobs: Sequence[tuple[Request, Usage]]) -> float | None:
    """Return the utilisation in percent; a zero of a job too short to be sampled says nothing."""
    known = [
        (usage.gpu_percent / request.gpus, usage.elapsed_s)
        for request, usage in jobs
        if request.gpus and usage.gpu_percent is not None and (usage.gpu_percent or usage.elapsed_s >= _SAMPLED_S)
    ]
    total = sum(elapsed for _, elapsed in known)
    return sum(percent * elapsed for percent, elapsed in known) / total if total else None


def table_of(summaries: Sequence[Summary]) -> str:
    """Return a table with a line for each label, its columns aligned."""
    rows = [_HEADER, *map(_row, summaries)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    form = "  ".join([f"{{:<{widths[0]}}}", *(f"{{:>{width}}}" for width in widths[1:])])
    return "\n".join(form.format(*row) for row in rows)


def _row(summary: Summary) -> tuple[str, ...]:
    request = summary.request
    return (
        summary.label,
        str(summary.jobs),
        f"{request.runtime} min",
        f"{summary.longest_min:.1f} min",
        str(request.cpus),
        _NOT_RECORDED if summary.cpu_share is None else f"{summary.cpu_share:.0%}",
        f"{request.mem_mb} MB",
        f"{summary.memory_mb:.0f} MB" if summary.memory_mb else _NOT_RECORDED,
        request.gpu_types or str(request.gpus),
        "-" if not request.gpus else _NOT_RECORDED if summary.gpu_percent is None else f"{summary.gpu_percent:.0f}%",
    )


def suggestions(summaries: Sequence[Summary]) -> list[str]:
    """Return what to change: a sentence for each resource of a rule, one in all for rules packed together."""
    lines: list[str] = []
    for summary in summaries:
        hints = [hint for find in _HINTS if (hint := find(summary)) is not None]
        if "+" not in summary.label:
            lines += [_line(summary.label, hint) for hint in hints]
        elif hints:
            lines.append(f"{summary.label}, in one allocation: {', '.join(map(_aside, hints))}")
    return ["Suggestions:", *(f"  {line}" for line in lines)] if lines else []


def _line(rule: str, hint: Hint) -> str:
    advice = f"; set-resources: {rule}: {hint.resource}: {hint.value}" if hint.resource else ""
    return f"{rule}: {hint.reason}{advice}"


def _aside(hint: Hint) -> str:
    return f"{hint.reason} ({hint.resource}: {hint.value})" if hint.resource else hint.reason


def _memory_hint(summary: Summary) -> Hint | None:
    asked, used = summary.request.mem_mb, summary.memory_mb
    value = _up(used * _MEMORY_MARGIN, 100)
    if summary.memory_share > _MUCH_MEMORY:
        return Hint(f"up to {summary.memory_share:.0%} of the memory used", "mem_mb", value)
    if summary.completed and asked > _SMALL_MB and 0 < used < _LITTLE_MEMORY * asked:
        return Hint(f"at most {used:.0f} of {asked} MB used", "mem_mb", value)
    return None


def _time_hint(summary: Summary) -> Hint | None:
    asked, used = summary.request.runtime, summary.longest_min
    value = _up(used * _TIME_MARGIN, 5)
    if summary.time_share > _MUCH_TIME:
        return Hint(f"up to {summary.time_share:.0%} of the time limit used", "runtime", value)
    reliable = summary.completed and not summary.requeued
    if reliable and asked > _SHORT_MIN and 0 < used < _LITTLE_TIME * asked:
        return Hint(f"at most {used:.1f} of {asked} min used", "runtime", value)
    return None


def _cpu_hint(summary: Summary) -> Hint | None:
    if summary.busy_cpus is None or summary.cpu_share is None or not summary.completed:
        return None
    value = _up(summary.busy_cpus * _CPU_MARGIN, summary.request.tasks)
    if summary.cpu_share >= _LITTLE_CPU or value >= summary.request.cpus:
        return None
    return Hint(f"{summary.busy_cpus:.1f} of {summary.request.cpus} CPUs busy on average", "cpus", value)


def _gpu_hint(summary: Summary) -> Hint | None:
    if summary.gpu_percent is None or summary.gpu_percent >= _LITTLE_GPU_PERCENT or not summary.completed:
        return None
    return Hint(f"GPUs hardly used, {summary.gpu_percent:.0f}% at their highest, by what was sampled")


def _up(value: float, step: int) -> int:
    """Return a value rounded up to a multiple of a step."""
    return ceil(value / step) * step


_HINTS = (_memory_hint, _time_hint, _cpu_hint, _gpu_hint)
