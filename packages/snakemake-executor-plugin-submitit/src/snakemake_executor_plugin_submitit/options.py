"""Further options of sbatch, as a user writes them: which are passed on, and which would break what is relied on."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

RESOURCES_TOO = ("account", "constraint", "exclude", "partition", "qos", "reservation")
"""Options that may be written here or, under the same name, as a resource."""

_RESOURCE_FOR = {
    **{"cpus-per-task": "cpus", "cpus-per-gpu": "cpus", "time": "runtime", "nodes": "nodes"},
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "mem_mb"),
    **dict.fromkeys(("ntasks", "ntasks-per-node", "ntasks-per-gpu"), "tasks"),
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"), "gpus"),
    **{"gres": "gres", "tres-per-task": "gres"},
}
_SET = {"array", "comment", "error", "job-name", "open-mode", "output", "requeue", "signal"}
_CLUSTERS = "would send jobs where nobody looks for them; call Snakemake where the other cluster's own sbatch is"
_NOTHING_SENT = "would submit nothing; call sbatch by hand for it"
_DIRECTORY = (
    "would move jobs out of Snakemake's working directory; leave it out, and say where a rule runs in its shell"
)
_NOT_UNDERSTOOD = "changes what sbatch answers, so that the job's number would not be understood; leave it out"
_ENVIRONMENT = "would keep Snakemake's environment from the job; leave it out, or use submitit-setup"
_BREAKS = {
    **{"parsable": _NOT_UNDERSTOOD, "quiet": _NOT_UNDERSTOOD},
    **dict.fromkeys(("help", "test-only", "usage", "version"), _NOTHING_SENT),
    **{"clusters": _CLUSTERS, "cluster-constraint": _CLUSTERS, "chdir": _DIRECTORY, "workdir": _DIRECTORY},
    "export-file": _ENVIRONMENT,
    "hold": "would have jobs wait until somebody releases them; leave it out, or use begin=… for a later start",
    "no-kill": "would leave a job running without the node that it lost, instead of queuing it again; leave it out",
    "no-requeue": "would lose jobs that are preempted or lose their node; use submitit-requeues: 0 to queue none again",
    "time-min": "may give a job less time than it is told it has; lower its resource runtime",
    "uid": "would send jobs as another user, who alone may see and cancel them; call Snakemake as that user",
    "wait": "would have sbatch wait until the job ends, and all others with it; leave it out",
    "wrap": "would run another command in place of the job; leave it out",
}
_LETTERS = {
    **{"A": "account", "B": "extra-node-info", "C": "constraint", "D": "chdir", "F": "nodefile", "G": "gpus"},
    **{"H": "hold", "J": "job-name", "L": "licenses", "M": "clusters", "N": "nodes", "O": "overcommit", "Q": "quiet"},
    **{"S": "core-spec", "V": "version", "W": "wait", "a": "array", "b": "begin", "c": "cpus-per-task"},
    **{"d": "dependency", "e": "error", "h": "help", "i": "input", "k": "no-kill", "m": "distribution", "n": "ntasks"},
    **{"o": "output", "p": "partition", "q": "qos", "s": "oversubscribe", "t": "time", "v": "verbose"},
    **{"w": "nodelist", "x": "exclude"},
}
_WITHOUT_VALUE = {  # or with one that may be left out
    *(
        "consolidate-segments",
        "contiguous",
        "exclusive",
        "get-user-env",
        "help",
        "hold",
        "ignore-pbs",
        "nice",
        "no-kill",
    ),
    *("no-requeue", "overcommit", "oversubscribe", "parsable", "propagate", "quiet", "reboot", "requeue", "resv-ports"),
    *("spread-job", "spread-segments", "stepmgr", "test-only", "usage", "use-min-nodes", "verbose", "version", "wait"),
}
_WITH_VALUE = {
    *("acctg-freq", "admin-comment", "batch", "bb", "bbf", "begin", "chdir", "cluster-constraint", "clusters"),
    *("container", "container-id", "core-spec", "cores-per-socket", "cpu-freq", "deadline", "delay-boot", "dependency"),
    *("distribution", "export", "export-file", "extra", "extra-node-info", "gid", "gpu-bind", "gpu-freq", "gres-flags"),
    *("hint", "input", "kill-on-invalid-dep", "licenses", "mail-type", "mail-user", "mcs-label", "mem-bind", "mincpus"),
    *("network", "nodefile", "nodelist", "ntasks-per-core", "ntasks-per-socket", "oom-kill-step", "power", "prefer"),
    *("priority", "profile", "segment", "sockets-per-node", "switches", "thread-spec", "threads-per-core", "time-min"),
    *("tmp", "tres-bind", "uid", "wait-all-nodes", "wckey", "workdir", "wrap"),
    *(_SET - {"requeue"} | set(_RESOURCE_FOR) | set(RESOURCES_TOO)),
}
_KNOWN = _WITHOUT_VALUE | _WITH_VALUE


def options_of(extra: str) -> dict[str, Any]:
    """Return further options by sbatch's names for them; `True` for one without a value.

    Args:
        extra: `key=value` or `key`, separated by spaces, with or without `--`; quotes as in a shell. Options that
            this does not know are passed on: newer versions have more, and so may a site.

    Raises:
        ValueError: one is not written so, is set otherwise, or would break what the executor relies on.
    """
    try:
        return dict(_options(extra))
    except ValueError as error:
        raise ValueError(f"resource extra={extra!r}: {error}") from error


def _options(extra: str) -> Iterator[tuple[str, Any]]:
    words = iter(shlex.split(extra))
    for word in words:
        dashes = len(word) - len(word.lstrip("-"))
        name, equals, value = word[dashes:].partition("=")
        if dashes == 1 or len(name) == 1:
            if whole := _LETTERS.get(name[:1]):
                _check(whole)
            raise ValueError(f"{word!r} is short for {whole or 'nothing'}; write options in full, as mail-type=FAIL")
        name = name.replace("_", "-")
        if not re.fullmatch("[A-Za-z][A-Za-z0-9-]*", name) or (equals and not value):
            raise ValueError(f"{word!r} is not key=value or key; mend it")
        _check(name, value)
        if not equals and name in _WITH_VALUE:
            value = next(words, "") if dashes else ""
            if not value or value.startswith("-"):
                raise ValueError(f"{name} has no value; write {name}=…")
        yield name, value or True


def _check(name: str, value: str = "") -> None:
    """Check that an option breaks nothing.

    Raises:
        ValueError: it does, or may be meant for one that does.
    """
    if name in _RESOURCE_FOR:
        raise ValueError(f"{name} is asked for by the resource {_RESOURCE_FOR[name]}; give it there")
    if name in _SET:
        raise ValueError(f"{name} is set by the executor; leave it out")
    if name in _BREAKS:
        raise ValueError(f"{name} {_BREAKS[name]}")
    if name == "export" and value.split(",")[0] != "ALL":
        raise ValueError(f"export={value} {_ENVIRONMENT}; export=ALL,NAME=value adds to it")
    if name not in _KNOWN and (whole := sorted(known for known in _KNOWN if known.startswith(name))):
        raise ValueError(f"sbatch would take {name} for {' or '.join(whole)}; write options in full")
