"""Downloading a revision, from a server that speaks the hub's protocol."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from tiny import tiny_model
from transformers import PreTrainedTokenizerFast

from chronocoder.suites.checkpoints import checkpoint_commit, load_model
from chronocoder.suites.tokenizers import load_tokenizer

ROOT = Path(__file__).parents[2]
COMMIT = "a" * 40


@pytest.fixture(params=["safetensors"])
def hub(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve one repository with one revision, `step8`, its weights as safetensors or pickled."""
    served = tmp_path / "served"
    tiny_model("gpt_neox").save_pretrained(served)
    tokenizer.save_pretrained(served)
    if request.param == "pickled":
        (served / "model.safetensors").unlink()
        torch.save(tiny_model("gpt_neox").state_dict(), served / "pytorch_model.bin")
    files = {path.name: path.read_bytes() for path in served.iterdir()}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            path = self.path.split("?")[0]
            if path.startswith("/api/models/lab/model/revision/"):
                known = path.rsplit("/", 1)[1] in ("step8", COMMIT)
                siblings = [{"rfilename": name} for name in files]
                info = {"id": "lab/model", "modelId": "lab/model", "sha": COMMIT, "siblings": siblings}
                self.send(json.dumps(info).encode() if known else None, body)
            elif path == f"/api/models/lab/model/tree/{COMMIT}":
                entries = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
                self.send(json.dumps(entries).encode(), body)
            else:
                self.send(files.get(path.removeprefix(f"/lab/model/resolve/{COMMIT}/")), body)

        def send(self, content: bytes | None, body: bool) -> None:
            self.send_response(404 if content is None else 200)
            content = content or b""
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def download(hub: str, revision: str, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, str(ROOT / "scripts/download_checkpoint.py")]
    flags = ["--repository", "lab/model", "--revision", revision, "--output", str(output), *more]
    environment = {**os.environ, "HF_ENDPOINT": hub, "HF_HOME": str(output.parent / "cache"), "HF_HUB_OFFLINE": "0"}
    return subprocess.run([*script, *flags], env=environment, capture_output=True, text=True)


def test_revision_becomes_a_hugging_face_directory_that_knows_its_commit(hub: str, tmp_path: Path) -> None:
    result = download(hub, "step8", tmp_path / "step8")
    assert result.returncode == 0, result.stderr
    assert load_model(tmp_path / "step8").config.num_hidden_layers == 3
    assert load_tokenizer(tmp_path / "step8").bos_token == "<|endoftext|>"
    assert checkpoint_commit(tmp_path / "step8") == COMMIT


def test_unknown_revision_is_named_and_leaves_nothing(hub: str, tmp_path: Path) -> None:
    result = download(hub, "step9", tmp_path / "step9")
    assert result.returncode == 1
    assert "lab/model has no revision 'step9' that can be read" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "step9").exists()


@pytest.mark.parametrize("hub", ["pickled"], indirect=True)
def test_pickled_weights_are_taken_only_where_asked_for(hub: str, tmp_path: Path) -> None:
    refused = download(hub, "step8", tmp_path / "refused")
    assert refused.returncode == 1 and not (tmp_path / "refused").exists()
    assert "has no safetensors; set source.pickled_weights to true if you trust it" in refused.stderr
    taken = download(hub, "step8", tmp_path / "taken", "--pickled-weights")
    assert taken.returncode == 0, taken.stderr
    assert load_model(tmp_path / "taken").config.num_hidden_layers == 3


def test_a_local_checkpoint_is_known_by_its_weights(tmp_path: Path) -> None:
    for seed in (0, 1):
        tiny_model("gpt_neox", seed).save_pretrained(tmp_path / f"seed{seed}")
        tiny_model("gpt_neox", seed).save_pretrained(tmp_path / f"again{seed}")
    first, second, again = (checkpoint_commit(tmp_path / name) for name in ("seed0", "seed1", "again0"))
    assert first.startswith("sha256:") and first == again and first != second
