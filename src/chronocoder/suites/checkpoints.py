"""Loading checkpoints: every source ends as an ordinary Hugging Face directory."""

import hashlib
import json
import logging
from pathlib import Path

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from chronocoder.devices import default_device
from chronocoder.errors import ConfigError
from chronocoder.stores import whole_directory

COMMIT_FILE = "commit.json"
_log = logging.getLogger(__name__)


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


def download_checkpoint(repository: str, revision: str, output: Path, pickled_weights: bool = False) -> None:
    """Download one revision of a hub repository as a Hugging Face directory, and note its commit.

    Args:
        repository: for instance `EleutherAI/pythia-1b`.
        revision: branch, tag or commit.
        output: the directory; it appears whole.
        pickled_weights: take `pytorch_model*.bin` where there are no safetensors; transformers reads weights only.

    Raises:
        ConfigError: the repository or the revision does not exist or cannot be reached, or has pickled weights only.
    """
    try:
        info = HfApi().model_info(repository, revision=revision)
        names = [sibling.rfilename for sibling in info.siblings or []]
        safe = any(name.endswith(".safetensors") for name in names)
        if not safe and not pickled_weights:
            raise ConfigError(
                f"{repository} at '{revision}' has no safetensors; set source.pickled_weights to true if you trust it"
            )
        weights = "*.safetensors" if safe else "pytorch_model*"
        with whole_directory(output) as partial:
            patterns = ["*.json", "*.txt", "*.model", weights]
            snapshot_download(repository, revision=info.sha, local_dir=partial, allow_patterns=patterns)
            (partial / COMMIT_FILE).write_text(json.dumps({"repository": repository, "commit": info.sha}), "utf-8")
    except (HfHubHTTPError, OSError) as error:
        raise ConfigError(
            f"{repository} has no revision '{revision}' that can be read ({error}); correct source.repository or"
            " source.checkpoints, or log in"
        ) from error
    _log.info("downloaded %s at %s (%s) to %s", repository, revision, info.sha, output)
