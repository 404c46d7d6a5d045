"""A server on this machine that speaks the Hugging Face hub's protocol, as far as reading goes.

`HF_ENDPOINT` set to its `url` makes huggingface_hub and datasets talk to it.
"""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".parquet", ".gz", ".zst")
TOKEN = "hf_token_of_the_tests"


def blob_id(content: bytes) -> str:
    """Return the name that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repository:
    """A repository: files by commit, commits by branch, and whether a token is needed.

    Attributes:
        commits: path to content, by commit.
        branches: commits by branch.
        gated: whether reading it needs `TOKEN`.
    """

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def push(self, branch: str, files: Mapping[str, bytes]) -> str:
        """Make a commit of files, move a branch to it, and return it."""
        commit = hashlib.sha1(repr((branch, sorted(files.items()))).encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.branches[branch] = commit
        return commit

    def push_directory(self, branch: str, directory: Path) -> str:
        """Make a commit of the files of a directory, move a branch to it, and return it."""
        files = {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
        return self.push(branch, files)


@dataclass
class HubServer:
    """The server's content, and what it has been asked.

    Attributes:
        url: where it listens.
        models: repositories by name.
        datasets: repositories by name.
        cut_after: bytes after which it ends a transfer of a larger file, once; None: never.
        stop_after_cut: whether it refuses to send files once a transfer was ended.
        corrupted: names of files whose first byte it sends wrong.
        requests: method and path of each request.
        sent: bytes of file content sent.
    """

    url: str = ""
    models: dict[str, Repository] = field(default_factory=dict)
    datasets: dict[str, Repository] = field(default_factory=dict)
    cut_after: int | None = None
    stop_after_cut: bool = False
    corrupted: set[str] = field(default_factory=set)
    requests: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0

    def model(self, name: str) -> Repository:
        """Return a model's repository, made where it is new."""
        return self.models.setdefault(name, Repository())

    def dataset(self, name: str) -> Repository:
        """Return a dataset's repository, made where it is new."""
        return self.datasets.setdefault(name, Repository())

    def environment(self, home: Path) -> dict[str, str]:
        """Return what has to be set for a process that is to take this server for the hub."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""}


@contextmanager
def hub_server() -> Iterator[HubServer]:
    """Run a server on a free port."""
    hub = HubServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _RefusedError(Exception):
    """An answer that is an error: its status and the code by which huggingface_hub tells errors apart."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        try:
            if path.startswith("/api/"):
                self._send_json(self._api(path.removeprefix("/api/")))
            else:
                self._send_file(path)
        except _RefusedError as refused:
            self._send(refused.status, b"", {"X-Error-Code": refused.code, "X-Error-Message": refused.code})

    def _repository(self, kind: str, name: str) -> Repository:
        repository = (self.hub.datasets if kind == "datasets" else self.hub.models).get(name)
        if repository is None:
            raise _RefusedError(401, "RepoNotFound")
        if repository.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise _RefusedError(401 if "Authorization" not in self.headers else 403, "GatedRepo")
        return repository

    def _files(self, repository: Repository, revision: str) -> tuple[str, dict[str, bytes]]:
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            raise _RefusedError(404, "RevisionNotFound")
        return commit, repository.commits[commit]

    def _api(self, path: str) -> Any:
        parts = path.split("/")
        if len(parts) < 3 or parts[0] not in ("models", "datasets"):
            raise _RefusedError(404, "EntryNotFound")
        kind, owner, name, *rest = parts
        repository = self._repository(kind, f"{owner}/{name}")
        what, revision = rest[0] if rest else "revision", rest[1] if len(rest) > 1 else "main"
        if what == "refs":
            branches = [
                {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": commit}
                for branch, commit in repository.branches.items()
            ]
            return {"branches": branches, "tags": [], "converts": []}
        commit, files = self._files(repository, revision)
        if what == "revision":
            siblings = [{"rfilename": name, **_metadata(name, content)} for name, content in files.items()]
            return {"id": f"{owner}/{name}", "sha": commit, "siblings": siblings, "tags": [], "private": False}
        if what == "tree":
            return _tree(files, "/".join(rest[2:]))
        if what == "paths-info":
            return self._paths_info(files)
        raise _RefusedError(404, "EntryNotFound")

    def _paths_info(self, files: dict[str, bytes]) -> list[dict[str, Any]]:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = [entry for entry in _tree(files, "", recursive=True) if entry["path"] in asked["paths"]]
        return found

    def _send_file(self, path: str) -> None:
        kind, _, rest = path.strip("/").partition("/")
        parts = (rest if kind == "datasets" else path.strip("/")).split("/")
        if len(parts) < 5 or parts[2] != "resolve":
            raise _RefusedError(404, "EntryNotFound")
        repository = self._repository(kind if kind == "datasets" else "models", "/".join(parts[:2]))
        commit, files = self._files(repository, parts[3])
        name = "/".join(parts[4:])
        if name not in files:
            raise _RefusedError(404, "EntryNotFound")
        content = files[name]
        if self.hub.stop_after_cut and self.hub.cut_after is None:
            raise _RefusedError(503, "Stopped")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_etag(name, content)}"', "Accept-Ranges": "bytes"}
        if name in self.hub.corrupted:
            content = bytes([content[0] ^ 1]) + content[1:]
        status, start, end = 200, 0, len(content)
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            status, start, end = 206, int(first), min(int(last) + 1 if last else end, end)
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        self._send(status, content[start:end], headers, count=True)

    def _send_json(self, document: Any) -> None:
        self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], count: bool = False) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if count and self.hub.cut_after is not None and len(body) > self.hub.cut_after:
            body, self.hub.cut_after = body[: self.hub.cut_after], None
            self.close_connection = True
        self.hub.sent += len(body) if count else 0
        self.wfile.write(body)


def _etag(name: str, content: bytes) -> str:
    return hashlib.sha256(content).hexdigest() if name.endswith(LARGE) else blob_id(content)


def _metadata(name: str, content: bytes) -> dict[str, Any]:
    metadata: dict[str, Any] = {"size": len(content), "blobId": blob_id(content)}
    if name.endswith(LARGE):
        digest = hashlib.sha256(content).hexdigest()
        metadata["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
    return metadata


def _tree(files: Mapping[str, bytes], folder: str, recursive: bool = True) -> list[dict[str, Any]]:
    inside = {name: content for name, content in files.items() if not folder or name.startswith(f"{folder}/")}
    if folder and not inside:
        raise _RefusedError(404, "EntryNotFound")
    entries = [{"type": "file", "path": name, **_tree_metadata(name, content)} for name, content in inside.items()]
    folders = {name.rpartition("/")[0] for name in inside} - {"", folder} if recursive else set()
    return entries + [{"type": "directory", "path": name, "size": 0, "oid": blob_id(b"")} for name in sorted(folders)]


def _tree_metadata(name: str, content: bytes) -> dict[str, Any]:
    metadata = _metadata(name, content)
    tree = {"size": metadata["size"], "oid": metadata["blobId"]}
    if "lfs" in metadata:
        tree["lfs"] = {"oid": metadata["lfs"]["sha256"], "size": len(content), "pointerSize": 134}
    return tree
