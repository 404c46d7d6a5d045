"""A revision is resolved to a commit once."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
import yaml
from hub_server import HubServer, hub_server

from chronocoder.errors import ConfigError
from chronocoder.suites import lock as lock_module
from chronocoder.suites.lock import locked_commit

RESOLVE = (
    "import sys; from pathlib import Path; from chronocoder.suites.lock import locked_commit;"
    "sys.stdout.write(locked_commit(Path(sys.argv[1]), sys.argv[2], sys.argv[3], *sys.argv[4:]))"
)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with hub_server() as server:
        server.model("lab/model").push("step8", {"config.json": b"{}"})
        server.dataset("lab/text").push("main", {"text.jsonl": b"{}"})
        yield server


def process(hub: HubServer, lock: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, **hub.environment(lock.parent / "home")}
    command = [sys.executable, "-c", RESOLVE, str(lock), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_processes_that_ask_together_record_one_commit(hub: HubServer, tmp_path: Path) -> None:
    lock, commit = tmp_path / "suite/lock.yaml", hub.models["lab/model"].branches["step8"]
    asked = [process(hub, lock, "lab/model", "step8") for _ in range(3)]
    text = process(hub, lock, "lab/text", "main", "dataset")
    assert [one.communicate()[0] for one in asked] == [commit] * 3
    assert text.communicate()[0] == hub.datasets["lab/text"].branches["main"]
    assert yaml.safe_load(lock.read_text()) == {
        "models": {"lab/model": {"step8": commit}},
        "datasets": {"lab/text": hub.datasets["lab/text"].branches},
    }
    asked_before = len(hub.requests)
    hub.models["lab/model"].push("step8", {"config.json": b"{ }"})
    assert (
        hub.models["lab/model"].branches["step8"] != commit == process(hub, lock, "lab/model", "step8").communicate()[0]
    )
    assert len(hub.requests) == asked_before


def test_revisions_are_resolved_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = Barrier(8, timeout=20)  # broken unless all eight ask at the same time

    def resolve(repository: str, revision: str, kind: str) -> str:
        together.wait()
        return revision * 40

    monkeypatch.setattr(lock_module, "resolve_commit", resolve)
    lock, revisions = tmp_path / "lock.yaml", list("01234567")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda revision: locked_commit(lock, "lab/model", revision), revisions))
    assert found == [revision * 40 for revision in revisions]
    assert yaml.safe_load(lock.read_text())["models"]["lab/model"] == dict(zip(revisions, found, strict=True))


def test_the_commit_that_is_recorded_first_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "lock.yaml"

    def resolve(repository: str, revision: str, kind: str) -> str:
        lock.write_text(f"models: {{lab/model: {{step8: {'a' * 40}}}}}")  # another process, meanwhile
        return "b" * 40

    monkeypatch.setattr(lock_module, "resolve_commit", resolve)
    assert locked_commit(lock, "lab/model", "step8") == "a" * 40
    assert yaml.safe_load(lock.read_text()) == {"models": {"lab/model": {"step8": "a" * 40}}}


def test_recorded_commit_and_commit_itself_need_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lock = tmp_path / "lock.yaml"
    lock.write_text(f"models: {{lab/model: {{step8: {'a' * 40}}}}}")
    assert locked_commit(lock, "lab/model", "step8") == "a" * 40
    assert locked_commit(lock, "lab/model", "f" * 40) == "f" * 40
    assert yaml.safe_load(lock.read_text())["models"]["lab/model"] == {"step8": "a" * 40, "f" * 40: "f" * 40}


@pytest.mark.parametrize("entry", ["5", "null", "main", "abc"])
def test_entry_that_is_no_commit_is_named(entry: str, tmp_path: Path) -> None:
    (tmp_path / "lock.yaml").write_text(f"datasets: {{lab/text: {{main: {entry}}}}}")
    with pytest.raises(
        ConfigError, match=r"lock\.yaml: datasets\.lab/text\.main is .* and no commit; restore it, or del"
    ):
        locked_commit(tmp_path / "lock.yaml", "lab/text", "main", "dataset")


@pytest.mark.parametrize("text", ["[1, 2]", "models: 3", "models: {a/b: c}", "a: ["])
def test_unreadable_lock_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "lock.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"lock\.yaml: no readable lock file \(.*\); restore it, or delete it"):
        locked_commit(tmp_path / "lock.yaml", "lab/model", "step8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lab/model", "step9"), "model lab/model at 'step9': no such revision among its 1; the nearest are step8"),
        (
            ("lab/mode", "step8"),
            "model lab/mode at 'step8': no such repository, or a private one; correct",
        ),
        (
            ("lab/gated", "main", "dataset"),
            "dataset lab/gated at 'main': access is granted on request only; ask",
        ),
        (
            ("lab/gated", "main", "dataset"),
            "huggingface.co/datasets/lab/gated and set HF_TOKEN in the environment to",
        ),
    ],
)
def test_error_names_repository_revision_and_remedy(
    hub: HubServer, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    hub.dataset("lab/gated").push("main", {"text.jsonl": b"{}"})
    hub.dataset("lab/gated").gated = True
    assert message in process(hub, tmp_path / "lock.yaml", *arguments).communicate()[1]
    assert not (tmp_path / "lock.yaml").exists()
