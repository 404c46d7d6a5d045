"""Asking the Hugging Face hub: what a revision is, and errors that say what to do.

A token is read from the environment variable HF_TOKEN and nowhere else.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from chronocoder.errors import ConfigError
from chronocoder.nearest import nearest_names

Kind = Literal["model", "dataset"]
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FAILURES: tuple[type[Exception], ...] = (
    OSError,
    *(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)),
)
"""Among the bases is the error of the HTTP library that huggingface_hub uses."""
_TOKEN = "set HF_TOKEN in the environment to a token of an account that may read it (it is read from nowhere else)"


class HubFile(NamedTuple):
    """A file of a revision, as the hub describes it.

    Attributes:
        name: its path in the repository.
        size_bytes: bytes of its content.
        blob: the name that git gives to its content; of a large file, to what stands for it.
        sha256: of its content, where it is a large file.
    """

    name: str
    size_bytes: int
    blob: str
    sha256: str | None


def hub_token() -> str | Literal[False]:
    """Return the token of the environment, or that there is none."""
    return os.environ.get("HF_TOKEN") or False


def hub_api() -> HfApi:
    """Return the hub's interface, with the token of the environment or none."""
    return HfApi(token=hub_token())


def is_commit(revision: object) -> bool:
    """Say whether a value is the name that git gives to a commit."""
    return isinstance(revision, str) and _COMMIT.fullmatch(revision) is not None


def resolve_commit(repository: str, revision: str, kind: Kind = "model") -> str:
    """Return the commit that a branch or tag points to now; a commit is returned as it is, without asking.

    Raises:
        ConfigError: names repository, revision and remedy.
    """
    if is_commit(revision):
        return revision
    with hub_errors(repository, revision, kind):
        commit = hub_api().repo_info(repository, revision=revision, repo_type=kind).sha
    if not commit:
        raise ConfigError(f"{kind} {repository} at '{revision}': the hub names no commit; give one as the revision")
    return str(commit)


def revision_files(repository: str, label: str, commit: str, kind: Kind = "model") -> list[HubFile]:
    """Return the files of a commit with their sizes and checksums.

    Args:
        repository: for instance `EleutherAI/pythia-1b`.
        label: what messages call the revision.
        commit: the commit.
        kind: of the repository.

    Raises:
        ConfigError: names repository, revision and remedy.
    """
    with hub_errors(repository, label, kind):
        ask = hub_api().model_info if kind == "model" else hub_api().dataset_info
        info = ask(repository, revision=commit, files_metadata=True)
    return [
        HubFile(one.rfilename, one.size or 0, one.blob_id or "", one.lfs.sha256 if one.lfs else None)
        for one in info.siblings or []
    ]


@contextmanager
def hub_errors(repository: str, revision: str, kind: Kind = "model") -> Iterator[None]:
    """Turn what the hub refuses, or a network that fails, into a `ConfigError` with a remedy."""
    place = f"{kind} {repository} at '{revision}'"
    try:
        yield
    except GatedRepoError as error:
        raise ConfigError(
            f"{place}: access is granted on request only; ask for it at {_page(repository, kind)} and {_TOKEN}"
        ) from error
    except RevisionNotFoundError as error:
        raise ConfigError(f"{place}: no such revision{_nearest(repository, revision, kind)}") from error
    except RepositoryNotFoundError as error:
        raise ConfigError(
            f"{place}: no such repository, or a private one; correct its name, or if it is private {_TOKEN}"
        ) from error
    except OfflineModeIsEnabled as error:
        raise ConfigError(
            f"{place}: is not here, and HF_HUB_OFFLINE forbids to fetch it; run scripts/fetch.py with your"
            " configuration where there is a network, then this again"
        ) from error
    except _FAILURES as error:
        raise ConfigError(
            f"{place}: cannot be fetched ({error or type(error).__name__}); run it again to go on, or run"
            " scripts/fetch.py with your configuration where there is a network"
        ) from error


def _page(repository: str, kind: Kind) -> str:
    return f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repository}"


def _nearest(repository: str, revision: str, kind: Kind) -> str:
    """Return the revisions whose names are nearest, as a remedy; where the hub lists none, the place of the list."""
    try:
        references = hub_api().list_repo_refs(repository, repo_type=kind)
    except _FAILURES:
        return f"; choose one of {_page(repository, kind)}/branches"
    names = [reference.name for reference in [*references.branches, *references.tags]]
    return f" among its {len(names)}; the nearest are {', '.join(nearest_names(revision, names))}"
