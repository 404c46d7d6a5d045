"""Loading checkpoints: every source ends as an ordinary Hugging Face directory."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from chronocoder.devices import default_device
from chronocoder.errors import ConfigError
from chronocoder.suites.download import COMMIT_FILE


def load_model(path: Path) -> PreTrainedModel:
    """Load a causal language model for inspection: float32, evaluation mode, weights frozen.

    Raises:
        ConfigError: the directory does not exist or holds no model.
    """
    if not (path / "config.json").is_file():
        raise ConfigError(f"{path}: no config.json there; give a Hugging Face model directory")
    try:
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"{path}: no readable model ({error}); save or download it again") from error
    model.config.use_cache = False
    return model.eval().requires_grad_(False).to(default_device())


def checkpoint_commit(path: Path) -> str:
    """Return what identifies a checkpoint's weights: the hub commit they are of, else a digest of their files."""
    record = path / COMMIT_FILE
    if record.is_file():
        return str(json.loads(record.read_text(encoding="utf-8"))["commit"])
    digest = hashlib.sha256()
    for file in sorted([*path.glob("*.safetensors"), *path.glob("pytorch_model*.bin")]):
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return f"sha256:{digest.hexdigest()}"
