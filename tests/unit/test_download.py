"""Downloading a revision, from a server that speaks the hub's protocol."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, HubServer, hub_server
from huggingface_hub import constants
from safetensors.torch import load_file
from tiny import tiny_model
from transformers import PreTrainedTokenizerFast

from chronocoder.errors import ConfigError
from chronocoder.suites.checkpoints import checkpoint_commit, load_model
from chronocoder.suites.download import Needed, check_distinct, download_checkpoint
from chronocoder.suites.hub import HubFile
from chronocoder.suites.pickled import convert_pickled
from chronocoder.suites.tokenizers import load_tokenizer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> dict[str, bytes]:
    """Return the files of a model and its tokenizer, with much that a checkpoint does not need."""
    directory = tmp_path_factory.mktemp("saved")
    tiny_model("gpt_neox").save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    return files | {"README.md": b"A model.", "optimizer.pt": b"states", "tf_model.h5": b"x", "onnx/model.onnx": b"x"}


@pytest.fixture
def hub(saved: dict[str, bytes]) -> Iterator[HubServer]:
    with hub_server() as server:
        server.model("lab/model").push("step8", {**saved, "pytorch_model.bin": b"pickled too"})
        yield server


def command(hub: HubServer, revision: str, output: Path, *more: str) -> tuple[list[str], dict[str, str]]:
    script = [sys.executable, str(ROOT / "scripts/download_checkpoint.py")]
    flags = ["--repository", "lab/model", "--revision", revision, "--output", str(output)]
    environment = {**os.environ, **hub.environment(output.parent / "cache")}
    return [*script, *flags, "--lock", str(output.parent / "lock.yaml"), *more], environment


def download(
    hub: HubServer, revision: str, output: Path, *more: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    arguments, given = command(hub, revision, output, *more)
    return subprocess.run(arguments, env={**given, **environment}, capture_output=True, text=True)


def test_revision_becomes_a_hugging_face_directory_that_knows_its_commit(hub: HubServer, tmp_path: Path) -> None:
    result = download(hub, "step8", tmp_path / "step8")
    assert result.returncode == 0, result.stderr
    assert load_model(tmp_path / "step8").config.num_hidden_layers == 3
    assert load_tokenizer(tmp_path / "step8").bos_token == "<|endoftext|>"
    assert checkpoint_commit(tmp_path / "step8") == hub.models["lab/model"].branches["step8"]
    there = {path.name for path in (tmp_path / "step8").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "commit.json"} <= there
    assert not {"README.md", "optimizer.pt", "tf_model.h5", "pytorch_model.bin"} & there
    assert not any(path.name.endswith((".partial", ".incomplete")) for path in tmp_path.rglob("*"))
    assert not any("xet" in path for _, path in hub.requests)


def test_weights_that_are_published_under_two_names_are_refused(
    hub: HubServer, saved: dict[str, bytes], tmp_path: Path
) -> None:
    hub.models["lab/model"].push("step16", {**saved, "generation_config.json": b"{}"})
    hub.models["lab/model"].push("step24", {**saved, "model.safetensors": b"others"})
    for revision in ("step8", "step16", "step24"):
        assert download(hub, revision, tmp_path / revision).returncode == 0
    check_distinct({name: tmp_path / name for name in ("step8", "step24")})
    check_distinct({"made": tmp_path, "here": tmp_path})
    with pytest.raises(ConfigError, match="step8 and step16: the hub has the same weights under both names, .*; take"):
        check_distinct({name: tmp_path / name for name in ("step24", "step8", "step16")})


def test_branch_that_moves_changes_nothing(hub: HubServer, tmp_path: Path) -> None:
    download(hub, "step8", tmp_path / "step8")
    moved = hub.models["lab/model"].push("step8", {"config.json": b"{}"})
    shutil.rmtree(tmp_path / "step8")
    assert download(hub, "step8", tmp_path / "step8").returncode == 0
    assert checkpoint_commit(tmp_path / "step8") != moved
    assert load_model(tmp_path / "step8").config.num_hidden_layers == 3


def test_cut_transfer_goes_on_where_it_stopped(hub: HubServer, saved: dict[str, bytes], tmp_path: Path) -> None:
    chunk = constants.DOWNLOAD_CHUNK_SIZE  # what is written at a time
    large = bytes(range(256)) * (5 * chunk // 512)
    hub.models["lab/model"].push("step8", {**saved, "model.safetensors": large})
    hub.cut_after, hub.stop_after_cut = 2 * chunk + 1000, True
    arguments, environment = command(hub, "step8", tmp_path / "step8")
    process = subprocess.Popen(arguments, env=environment, stderr=subprocess.DEVNULL)
    partial = tmp_path / ".step8.partial/model.safetensors.incomplete"
    deadline = time.monotonic() + 60
    while not (partial.is_file() and partial.stat().st_size == 2 * chunk) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert not (tmp_path / "step8").exists() and partial.stat().st_size == 2 * chunk
    hub.stop_after_cut, hub.sent = False, 0
    assert download(hub, "step8", tmp_path / "step8").returncode == 0
    assert (tmp_path / "step8/model.safetensors").read_bytes() == large
    assert hub.sent == len(large) - 2 * chunk


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_damaged_file_is_refused_and_fetched_anew(hub: HubServer, tmp_path: Path, name: str) -> None:
    hub.corrupted.add(name)
    result = download(hub, "step8", tmp_path / "step8")
    assert result.returncode == 1 and not (tmp_path / "step8").exists()
    kind = "sha256" if name == "model.safetensors" else "sha1"
    assert (
        f"model lab/model at 'step8, commit {hub.models['lab/model'].branches['step8']}': {name} came" in result.stderr
    )
    assert f"damaged ({kind} " in result.stderr and "run it again to fetch it anew" in result.stderr
    hub.corrupted.clear()
    assert download(hub, "step8", tmp_path / "step8").returncode == 0


def test_unfinished_download_of_another_commit_is_dropped(hub: HubServer, tmp_path: Path) -> None:
    hub.corrupted.add("model.safetensors")
    download(hub, "step8", tmp_path / "step8")
    hub.corrupted.clear()
    (tmp_path / "lock.yaml").unlink()
    (tmp_path / ".step8.partial/config.json").write_text("of the first commit")
    files = next(iter(hub.models["lab/model"].commits.values()))
    moved = hub.models["lab/model"].push("step8", {**files, "generation_config.json": b"{ }"})
    assert download(hub, "step8", tmp_path / "step8").returncode == 0
    assert checkpoint_commit(tmp_path / "step8") == moved
    assert json.loads((tmp_path / "step8/config.json").read_text())["num_hidden_layers"] == 3


def test_gated_repository_needs_the_token_of_the_environment(hub: HubServer, tmp_path: Path) -> None:
    hub.models["lab/model"].gated = True
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/token").write_text(TOKEN)
    refused = download(hub, "step8", tmp_path / "step8")
    assert refused.returncode == 1
    assert "access is granted on request only; ask for it at https://huggingface.co/lab/model and set" in refused.stderr
    assert "HF_TOKEN in the environment to a token of an account that may read it" in refused.stderr
    assert download(hub, "step8", tmp_path / "step8", HF_TOKEN=TOKEN).returncode == 0


def test_download_without_network_says_where_to_fetch(hub: HubServer, tmp_path: Path) -> None:
    offline = download(hub, "step8", tmp_path / "step8", HF_HUB_OFFLINE="1")
    assert "model lab/model at 'step8': is not here, and HF_HUB_OFFLINE forbids to fetch it; run" in offline.stderr
    unreachable = download(hub, "step8", tmp_path / "step8", HF_ENDPOINT="http://127.0.0.1:9")
    assert "cannot be fetched (" in unreachable.stderr and "scripts/fetch.py with your" in unreachable.stderr
    assert offline.returncode == unreachable.returncode == 1 and "Traceback" not in unreachable.stderr


def test_tokenizer_comes_from_where_the_source_says(hub: HubServer, saved: dict[str, bytes], tmp_path: Path) -> None:
    hub.model("lab/final").push("main", saved)
    hub.models["lab/model"].push("step8", {name: saved[name] for name in ("config.json", "model.safetensors")})
    refused = download(hub, "step8", tmp_path / "step8")
    assert "has no tokenizer; set source.tokenizer to the repository that has it" in refused.stderr
    assert download(hub, "step8", tmp_path / "step8", "--tokenizer", "lab/final").returncode == 0
    assert load_tokenizer(tmp_path / "step8").bos_token == "<|endoftext|>"
    assert load_model(tmp_path / "step8").config.num_hidden_layers == 3
    assert "lab/final" in (tmp_path / "lock.yaml").read_text()


def test_a_tokenizer_comes_without_weights(hub: HubServer, saved: dict[str, bytes], tmp_path: Path) -> None:
    hub.model("lab/final").push("main", saved)
    hub.models["lab/model"].push("bare", {name: saved[name] for name in ("config.json", "model.safetensors")})

    def fetch(revision: str, *more: str) -> subprocess.CompletedProcess[str]:
        (_, _, *flags), environment = command(hub, revision, tmp_path / revision, *more)
        script = [sys.executable, str(ROOT / "scripts/download_tokenizer.py")]
        return subprocess.run([*script, *flags], env=environment, capture_output=True, text=True)

    assert "has no tokenizer; set source.tokenizer to the repository that has it" in fetch("bare").stderr
    for result, revision in ((fetch("step8"), "step8"), (fetch("bare", "--tokenizer", "lab/final"), "bare")):
        assert result.returncode == 0, result.stderr
        assert load_tokenizer(tmp_path / revision).bos_token == "<|endoftext|>"
        there = {path.name for path in (tmp_path / revision).iterdir()}
        assert "config.json" in there and not {"model.safetensors", "README.md"} & there


def test_full_disk_is_said_beforehand(tmp_path: Path) -> None:
    needed = Needed("lab/model", "step8", "a" * 40, [HubFile("model.safetensors", 10**18, "", None)])
    with pytest.raises(
        ConfigError, match=r"1000000000\.0 GB are to come of lab/model, and the disk has \d+\.\d GB; make"
    ):
        download_checkpoint([needed], tmp_path / "step8")


def pickled(path: Path, state: object) -> bytes:
    torch.save(state, path)
    return path.read_bytes()


def test_pickled_weights_are_taken_only_where_asked_for(
    hub: HubServer, saved: dict[str, bytes], tmp_path: Path
) -> None:
    weights = tiny_model("gpt_neox").state_dict()
    files = {name: content for name, content in saved.items() if not name.endswith(".safetensors")}
    hub.models["lab/model"].push("step8", {**files, "pytorch_model.bin": pickled(tmp_path / "saved.bin", weights)})
    refused = download(hub, "step8", tmp_path / "refused")
    assert refused.returncode == 1 and not (tmp_path / "refused").exists()
    assert "has no safetensors; set source.pickled_weights to true if you trust it" in refused.stderr
    taken = download(hub, "step8", tmp_path / "taken", "--pickled-weights")
    assert taken.returncode == 0, taken.stderr
    assert not list((tmp_path / "taken").glob("*.bin"))
    assert all(torch.equal(load_file(tmp_path / "taken/model.safetensors")[name], weights[name]) for name in weights)
    assert load_model(tmp_path / "taken").config.num_hidden_layers == 3


def test_tied_tensors_and_shards_are_converted(tmp_path: Path) -> None:
    embedding = torch.randn(6, 4)
    first = {"embed": embedding, "head": embedding, "rows": embedding[2:4], "turned": embedding.T}
    torch.save(first, tmp_path / "pytorch_model-00001-of-00002.bin")
    torch.save({"block": torch.ones(3)}, tmp_path / "pytorch_model-00002-of-00002.bin")
    names = {**dict.fromkeys(first, "pytorch_model-00001-of-00002.bin"), "block": "pytorch_model-00002-of-00002.bin"}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    convert_pickled(tmp_path)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    for name, tensor in {**first, "block": torch.ones(3)}.items():
        assert torch.equal(load_file(tmp_path / index[name])[name], tensor)
    assert not list(tmp_path.glob("*.bin*"))


class Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch attacked",)


def test_pickle_that_holds_more_than_weights_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Attack()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(
        ConfigError, match="its pickled weights cannot be converted .*; choose a checkpoint with safetens"
    ):
        convert_pickled(tmp_path)
    assert not (tmp_path / "attacked").exists() and (tmp_path / "pytorch_model.bin").is_file()


@pytest.mark.parametrize("kernel_allows", [True, False])
def test_process_that_unpickles_has_no_network(hub: HubServer, kernel_allows: bool) -> None:
    forbid = (
        "" if kernel_allows else "pickled.ctypes.CDLL = lambda *_, **__: type('C', (), {'unshare': lambda *_: -1})();"
    )
    address = hub.url.removeprefix("http://").split(":")
    code = f"import socket; from chronocoder.suites import pickled; {forbid} pickled.leave_network();"
    code += f" socket.create_connection(({address[0]!r}, {address[1]}), timeout=5)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1
    assert "unreachable" in result.stderr or "this process has no network" in result.stderr


def test_a_local_checkpoint_is_known_by_its_weights(tmp_path: Path) -> None:
    for seed in (0, 1):
        tiny_model("gpt_neox", seed).save_pretrained(tmp_path / f"seed{seed}")
        tiny_model("gpt_neox", seed).save_pretrained(tmp_path / f"again{seed}")
    first, second, again = (checkpoint_commit(tmp_path / name) for name in ("seed0", "seed1", "again0"))
    assert first.startswith("sha256:") and first == again and first != second
