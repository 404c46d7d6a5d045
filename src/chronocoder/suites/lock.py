"""The lock file of a suite: the commit that each revision of a hub repository was resolved to, once.

It lies beside the results, so that a rerun takes the same weights and text after the hub's branches have moved. Delete
an entry to take what its revision points to now.
"""

from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from chronocoder.errors import ConfigError
from chronocoder.stores import write_text
from chronocoder.suites.hub import Kind, is_commit, resolve_commit

_HEADER = (
    "# Commits that revisions on the Hugging Face hub were resolved to when first fetched; runs take these again.\n"
    "# Delete an entry and its results to take what the revision points to now.\n"
)


def locked_commit(lock: Path, repository: str, revision: str, kind: Kind = "model") -> str:
    """Return the commit that the lock file records for a revision; else resolve it on the hub and record it.

    Several processes may call this at once: they resolve together, and all return what the first of them records.

    Args:
        lock: the lock file, `Layout.lock`; it is made where there is none.
        repository: for instance `EleutherAI/pythia-1b`.
        revision: branch, tag or commit.
        kind: of the repository.

    Raises:
        ConfigError: the file cannot be read, or the hub cannot resolve the revision.
    """
    commits = _read(lock).get(f"{kind}s", {}).get(repository, {})
    if revision not in commits:
        commits = _record(lock, repository, revision, kind, resolve_commit(repository, revision, kind))
    if not is_commit(commits[revision]):
        raise ConfigError(
            f"{lock}: {kind}s.{repository}.{revision} is {commits[revision]!r} and no commit; restore it, or delete"
            " the entry to resolve it anew"
        )
    return str(commits[revision])


def locked_digest(lock: Path, address: str, content: bytes) -> str:
    """Return the SHA-256 digest of a file from elsewhere, which is recorded when the file is first fetched.

    Raises:
        ConfigError: the lock file cannot be read, or records another digest.
    """
    digest = sha256(content).hexdigest()
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock.with_name(f".{lock.name}.lock")):
        entries = _read(lock)
        recorded = entries.setdefault("files", {}).setdefault(address, {"sha256": digest})["sha256"]
        if recorded != digest:
            raise ConfigError(
                f"{address}: is not what {lock} records (SHA-256 {digest}, not {recorded}); fetch it from where it has"
                " not changed, or delete the entry to take what is there now"
            )
        write_text(lock, _HEADER + yaml.safe_dump(entries))
        return digest


def _record(lock: Path, repository: str, revision: str, kind: Kind, commit: str) -> dict[str, Any]:
    """Record a commit unless another process has recorded one by now; return the commits of the repository."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock.with_name(f".{lock.name}.lock")):
        entries = _read(lock)
        commits: dict[str, Any] = entries.setdefault(f"{kind}s", {}).setdefault(repository, {})
        if revision not in commits:
            commits[revision] = commit
            write_text(lock, _HEADER + yaml.safe_dump(entries))
    return commits


def _read(lock: Path) -> dict[str, Any]:
    """Return commits by kind, repository and revision; none where there is no file."""
    if not lock.is_file():
        return {}
    try:
        entries = yaml.safe_load(lock.read_text(encoding="utf-8")) or {}
        if not all(isinstance(commits, dict) for kind in entries.values() for commits in kind.values()):
            raise ValueError("it has another form")
    except (ValueError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{lock}: no readable lock file ({reason}); restore it, or delete it to resolve every revision anew"
        ) from None
    return entries
