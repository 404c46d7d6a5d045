"""BLiMP, CLAMS and MultiBLiMP by name: which tasks they become before anything is fetched, and how they are fetched."""

import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import xarray as xr
import yaml
from hub_server import HubServer, hub_server
from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedTokenizerFast

from chronocoder.config import ClamsTask, FileTask, Task, TaskSettings
from chronocoder.config.files import expand_tasks
from chronocoder.errors import ConfigError, TaskError
from chronocoder.tasks.fetching import fetch_pairs
from chronocoder.tasks.published import collection_of
from chronocoder.tasks.sources import read_pairs

ROOT = Path(__file__).parents[2]
SIMPLE = "True\tle chat voit\nFalse\tle chat voient\nTrue\tles chats voient\nFalse\tles chats voit\n"


def expanded(**tasks: dict[str, Any]) -> dict[str, Task]:
    return expand_tasks(TypeAdapter(dict[str, Task]).validate_python(tasks))


def test_blimp_is_the_67_published_sets() -> None:
    tasks = expanded(blimp={"kind": "blimp", "limit": 9})
    assert len(tasks) == 67 and list(tasks) == sorted(tasks, key=str.lower)
    causative = tasks["causative"]
    assert causative.model_dump(exclude_defaults=True) == {
        "kind": "blimp",
        "limit": 9,
        "dataset": "nyu-mll/blimp",
        "name": "causative",
    }
    assert causative.group.phenomenon == "argument_structure"
    assert len(set(collection_of("blimp").phenomena.values())) == 13


def test_blimp_sets_are_chosen_by_phenomenon_or_name() -> None:
    assert list(expanded(own={"kind": "blimp", "phenomenon": "ellipsis"})) == ["ellipsis_n_bar_1", "ellipsis_n_bar_2"]
    assert list(expanded(own={"kind": "blimp", "names": ["wh_island", "causative"]})) == ["wh_island", "causative"]
    assert list(expanded(own={"kind": "blimp", "name": "causative"})) == ["own"]


def test_clams_is_the_sets_that_its_languages_share() -> None:
    assert len(expanded(clams={"kind": "clams"})) == 35
    tasks = expanded(clams={"kind": "clams", "languages": ["en", "fr"]})
    assert len(tasks) == 14 and tasks["subj_rel_fr"].group == ("fr", "subj_rel")
    assert "subj_rel" in expanded(clams={"kind": "clams", "languages": ["fr"]})


def test_multiblimp_is_a_task_a_language() -> None:
    tasks = expanded(multi={"kind": "multiblimp", "languages": ["eng", "fra"], "phenomenon": "SV-#"})
    assert [task.group for task in tasks.values()] == [("eng", "SV-#"), ("fra", "SV-#")]
    assert (
        list(tasks)
        == ["multi_eng", "multi_fra"]
        == list(expanded(multi={"kind": "multiblimp", "names": ["eng", "fra"]}))
    )


def test_single_sets_are_written_and_read_as_they_are() -> None:
    given = {"blimp": {"kind": "blimp"}, "clams": {"kind": "clams"}, "mb": {"kind": "multiblimp", "languages": ["eng"]}}
    for task in expanded(**given).values():
        assert TypeAdapter(Task).validate_json(task.model_dump_json()) == task
        assert isinstance(task, FileTask) and task.needs_network


def test_local_files_and_directories_are_not_fetched(tmp_path: Path) -> None:
    tasks = expanded(
        a={"kind": "blimp", "path": "a.jsonl"},
        b={"kind": "multiblimp", "dataset": str(tmp_path), "name": "eng"},
        c={"kind": "clams", "path": "a.txt"},
    )
    for task in tasks.values():
        assert fetch_pairs(task, tmp_path / "lock.yaml", tmp_path) == (task, "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"kind": "blimp", "names": ["causatives"]},
            "'causatives' is not among the 67 sets of BLiMP; choose for .* causative",
        ),
        (
            {"kind": "blimp", "phenomenon": "binding?"},
            r"phenomenon 'binding\?' is that of no set of BLiMP; choose from .*binding",
        ),
        ({"kind": "clams", "languages": ["it"]}, "'it' is not among the 5 languages of CLAMS; choose .* de, en, fr"),
        ({"kind": "clams", "path": "a", "languages": ["fr"]}, "has languages beside another source; keep one of path"),
        ({"kind": "multiblimp"}, r"needs languages \(`languages: .*a path or a dataset; give one of them"),
        (
            {"kind": "multiblimp", "path": "a", "languages": ["eng"]},
            r"has languages \['eng'\] beside path or dataset; keep",
        ),
    ],
)
def test_message_names_what_is_published(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        expanded(task=settings)


@pytest.fixture
def github(tmp_path: Path) -> Iterator[str]:
    """Serve a folder `fr_evalset` with one set."""
    folder = tmp_path / "github/fr_evalset"
    folder.mkdir(parents=True)
    (folder / "simple_agrmt.txt").write_text(SIMPLE)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder.parent))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def clams(address: str, name: str = "fr_evalset/simple_agrmt.txt") -> ClamsTask:
    return ClamsTask(kind="clams", name=name, address=address)


def test_published_file_is_fetched_and_its_digest_kept(github: str, tmp_path: Path) -> None:
    lock = tmp_path / "results/lock.yaml"
    task, digest = fetch_pairs(clams(github), lock, tmp_path / "first")
    found = read_pairs("t", task)
    assert (found.language, found.phenomenon, len(found.pairs)) == ("fr", "simple_agrmt", 2)
    address = f"{github}/fr_evalset/simple_agrmt.txt"
    assert yaml.safe_load(lock.read_text()) == {"files": {address: {"sha256": digest}}}
    (tmp_path / "github/fr_evalset/simple_agrmt.txt").write_text(SIMPLE * 2)
    with pytest.raises(ConfigError, match=r"simple_agrmt\.txt: is not what .*lock\.yaml records .* delete the entry"):
        fetch_pairs(clams(github), lock, tmp_path / "second")


def test_file_that_cannot_be_fetched_is_named(github: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"fr_evalset/no\.txt: cannot be fetched \(.*404.*\); run scripts/fetch\.py"):
        fetch_pairs(clams(github, "fr_evalset/no.txt"), tmp_path / "lock.yaml", tmp_path)
    with pytest.raises(TaskError, match=r"127\.0\.0\.1:9/.*: cannot be fetched \(.*refused.*a path to a copy"):
        fetch_pairs(clams("http://127.0.0.1:9"), tmp_path / "lock.yaml", tmp_path)


def serve_blimp(hub: HubServer, verb: str) -> str:
    row = {"sentence_good": f"the cat {verb}s", "sentence_bad": f"the cat {verb}", "linguistics_term": "agreement"}
    configurations = [{"config_name": "causative", "data_files": "causative/*.jsonl"}]
    card = f"---\nconfigs: {json.dumps(configurations)}\n---\n"
    files = {"README.md": card.encode(), "causative/train.jsonl": json.dumps(row).encode()}
    return hub.dataset("nyu-mll/blimp").push("main", files)


def build(task: TaskSettings, directory: Path, output: str, environment: dict[str, str]) -> xr.Dataset:
    """Run the script that builds a task."""
    command = [sys.executable, str(ROOT / "scripts/build_task.py"), "--suite", "s", "--task", "t"]
    command += ["--settings", task.model_dump_json(), "--tokenizer", str(directory / "tokenizer")]
    command += ["--lock", str(directory / "lock.yaml"), "--output", str(directory / output)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return xr.open_zarr(directory / output)


def test_published_dataset_is_read_at_the_commit_of_the_lock_file(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    task = expanded(blimp={"kind": "blimp"})["causative"]
    with hub_server() as hub:
        environment = hub.environment(tmp_path / "home")
        commit = serve_blimp(hub, "see")
        first = build(task, tmp_path, "first.zarr", environment)
        assert first.attrs["source_revision"] == commit and first.attrs["phenomenon"] == "agreement"
        serve_blimp(hub, "walk")
        again = build(task, tmp_path, "again.zarr", environment)
    assert again.attrs["source_revision"] == commit
    assert first.drop_attrs().identical(again.drop_attrs())
    assert yaml.safe_load((tmp_path / "lock.yaml").read_text()) == {"datasets": {"nyu-mll/blimp": {"main": commit}}}
