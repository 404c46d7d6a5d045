"""A Snakemake job, with what it asks for and what the journal says of it."""

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface

from snakemake_executor_plugin_submitit.journal import Entry
from snakemake_executor_plugin_submitit.request import RESOURCES, Wish, wish_of

_LONGEST_NAME = 80  # characters: the rules of a group may be many
_UNDECIDED = "<TBD>"  # Snakemake's word for a resource that depends on files that are not there yet


@dataclass
class Ready:
    """A Snakemake job that is to be submitted, or was.

    Attributes:
        job: Snakemake's job.
        wish: what it asks for.
        entry: what the journal says of it.
        silent_since: when the scheduler was first heard to have no such job any more; None if it has.
    """

    job: JobExecutorInterface
    wish: Wish
    entry: Entry
    silent_since: float | None = None

    @property
    def rule(self) -> str:
        """Rule of the job."""
        return self.entry.rule

    @property
    def outputs(self) -> tuple[str, ...]:
        """Files that the job makes."""
        return _outputs(self.job)

    @property
    def attempt(self) -> int:
        """How often Snakemake has tried the job."""
        return int(self.job.attempt)


def make_ready(job: JobExecutorInterface, cluster: str, no_gpus: bool, logs: Path) -> Ready:
    """Describe a job, or a group of jobs, for submission.

    Args:
        job: Snakemake's job.
        cluster: where it is to run.
        no_gpus: whether GPUs that its rule asks for are left out.
        logs: directory for its log.

    Raises:
        WorkflowError: what its rule asks for makes no sense.
    """
    rule = _rule(job)[:_LONGEST_NAME]
    members = _members(job)
    outputs = _outputs(job) or (str(job.jobid),)
    inputs = sorted({str(path) for member in members for path in member.input})
    asked = [f"{member.shellcmd} {sorted(member.params.items(), key=str)}" for member in members]
    key = f"{rule}-{_digest([_rule(job), *outputs])}"
    token = f"{key}-{uuid.uuid4().hex[:8]}"
    digest = _digest([*asked, *(_stamp(path) for path in inputs)])
    entry = Entry(key, digest, token, rule, "", cluster, str(logs / rule / f"{token}.log"))
    return Ready(job, _wish(job, cluster, no_gpus), entry)


def check_wishes(jobs: Iterable[JobExecutorInterface], cluster: str) -> None:
    """Check what jobs ask for, before any of them runs, as far as it is known.

    Raises:
        WorkflowError: as `make_ready`.
    """
    for job in jobs:
        if not job.is_local and not any(str(job.resources.get(name)) == _UNDECIDED for name in RESOURCES):
            _wish(job, cluster, no_gpus=False)


def _wish(job: JobExecutorInterface, cluster: str, no_gpus: bool) -> Wish:
    resources = {name: job.resources.get(name) for name in RESOURCES}
    if job.is_group():  # whose members Snakemake adds up, as if they ran on nodes of their own
        resources |= {
            **{name: _most(job, name) for name in ("nodes", "tasks", "tasks_per_node")},
            **{"pack": 1, "pack_with": "", "state": ""},
        }
    wish = wish_of(_rule(job), resources, job.threads)
    if wish.request.nodes > 1 and cluster != "slurm":
        raise WorkflowError(f"rule {_rule(job)}: {wish.request.nodes} nodes need submitit-cluster slurm, not {cluster}")
    return replace(wish, request=wish.request.without_gpus()) if no_gpus else wish


def _most(job: JobExecutorInterface, name: str) -> Any:
    """Return the most of a resource that any member of a group asks for; None if none does."""
    return max((count for member in job if (count := member.resources.get(name)) is not None), default=None)


def _members(job: JobExecutorInterface) -> list[JobExecutorInterface]:
    return list(job) if job.is_group() else [job]


def _outputs(job: JobExecutorInterface) -> tuple[str, ...]:
    return tuple(sorted(str(path) for member in _members(job) for path in member.output))


def _rule(job: JobExecutorInterface) -> str:
    return "+".join(sorted({member.rule.name for member in _members(job)}))


def _digest(words: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def _stamp(path: str) -> str:
    """Return a path and when it was changed."""
    return f"{path} {Path(path).stat().st_mtime_ns if Path(path).exists() else 'missing'}"
