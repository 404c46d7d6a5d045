"""Loading checkpoints: every source ends as an ordinary Hugging Face directory."""

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from chronocoder.config import AS_SAVED, NONE, LoadingSettings
from chronocoder.config.loading import LOADED
from chronocoder.devices import default_device
from chronocoder.errors import ConfigError
from chronocoder.suites.agreement import tokenizer_digest
from chronocoder.suites.download import COMMIT_FILE

AS_TRAINED = LoadingSettings()
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SAVED_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""By what safetensors files call them."""
TOKENS = ("token_ids", "token_id", "right_id", "wrong_id", "counterfactual_id")
"""What stores call the variables that hold token ids."""
LARGEST_HEADER = 100_000_000
"""Bytes of a safetensors file's header at most, as the format says."""


def load_model(path: Path, loading: LoadingSettings = AS_TRAINED, reads: Sequence[xr.Dataset] = ()) -> PreTrainedModel:
    """Load a causal language model for inspection: evaluation mode, weights frozen.

    Args:
        path: a Hugging Face directory.
        loading: number format, attention, quantization, and the devices that it is spread over.
        reads: texts and tasks that the model is to read.

    Raises:
        ConfigError: the directory does not exist or holds no model, or the settings cannot be met here; the message
            names the key. Or there are tokens to read that the model does not know.
    """
    if not (path / "config.json").is_file():
        raise ConfigError(f"{path}: no config.json there; give a Hugging Face model directory")
    check_loading(path, loading)
    options: dict[str, Any] = {"dtype": dtype_of(path, loading)}
    if loading.attention != AS_SAVED:
        options["attn_implementation"] = loading.attention
    if loading.quantization != NONE:
        options["quantization_config"] = _quantization(loading, options["dtype"])
    if loading.device_map != NONE or loading.quantization != NONE:
        options["device_map"] = {"": default_device()} if loading.device_map == NONE else loading.device_map
    try:
        model = AutoModelForCausalLM.from_pretrained(path, local_files_only=True, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"{path}: no readable model ({error}); save or download it again") from error
    _check_loaded(model, loading)
    for text in reads:
        check_vocabulary(model, text)
    model.config.use_cache = False
    model = model.eval().requires_grad_(False)
    return model if "device_map" in options else model.to(default_device())


def check_vocabulary(model: PreTrainedModel, text: xr.Dataset) -> None:
    """Check that a model knows all tokens of a text or a task.

    Raises:
        ConfigError: it does not, so that the tokens are of another tokenizer than its own.
    """
    largest = max(int(text[name].max()) for name in TOKENS if name in text)
    known = int(model.get_input_embeddings().weight.shape[0])
    if largest >= known:
        raise ConfigError(
            f"{model.name_or_path}: {text.encoding.get('source', 'the text')} has token {largest}, but the model knows"
            f" only {known} tokens; compare checkpoints that share their tokenizer"
        )


def dtype_of(path: Path, loading: LoadingSettings) -> torch.dtype | str:
    """Return the number format that a model is loaded in: where it is to be that of its weights, what their files say.

    What a `config.json` says is the author's intention, and need not be what was saved. It counts where the weights are
    in other files than safetensors, or in formats that are no plain floating-point numbers: `auto`.
    """
    if loading.dtype != AS_SAVED:
        return DTYPES[loading.dtype]
    sizes: Counter[str] = Counter()
    for file in path.glob("*.safetensors"):
        for entry in _header(file).values():
            sizes[entry["dtype"]] += math.prod(entry["shape"])
    return SAVED_DTYPES.get(sizes.most_common(1)[0][0], AS_SAVED) if sizes else AS_SAVED


def _header(file: Path) -> dict[str, Any]:
    """Return what a safetensors file says of its tensors; nothing if it is damaged, which loading it will say."""
    with file.open("rb") as content:
        size = int.from_bytes(content.read(8), "little")
        try:
            header: dict[str, Any] = json.loads(content.read(min(size, LARGEST_HEADER)))
        except ValueError:
            return {}
    header.pop("__metadata__", None)
    return header


def check_loading(path: Path, loading: LoadingSettings) -> None:
    """Check that a model can be loaded as the settings say, by its configuration and by what is installed.

    Raises:
        ConfigError: it cannot; the message names the key, and the remedy.
    """
    if loading.quantization != NONE:
        _check_quantization(loading.quantization)
    if loading.attention == AS_SAVED:
        return
    try:
        with torch.device("meta"):
            AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(path, local_files_only=True), attn_implementation=loading.attention
            )
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{path}: loading.attention {loading.attention} cannot be had ({error}); install what it needs, or set"
            f" loading.attention to {AS_SAVED}"
        ) from error


def _check_quantization(kind: str) -> None:
    if find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"loading.quantization {kind}: bitsandbytes is not installed; run `pip install bitsandbytes`, or set"
            f" loading.quantization to {NONE}"
        )
    if default_device().type == "cpu":  # its products on a CPU are of weights in another order than it can widen again
        raise ConfigError(
            f"loading.quantization {kind}: there is no GPU here; run it where there is one, or set"
            f" loading.quantization to {NONE}"
        )


def _quantization(loading: LoadingSettings, dtype: torch.dtype | str) -> BitsAndBytesConfig:
    if loading.quantization == "8bit":
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says at every product that it rounds to float16
        return BitsAndBytesConfig(load_in_8bit=True)
    computed = dtype if isinstance(dtype, torch.dtype) else torch.float32
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=computed)


def _check_loaded(model: PreTrainedModel, loading: LoadingSettings) -> None:
    """Check that a model is on devices that compute, and in a number format that its attention can compute."""
    if loading.attention == "flash_attention_2" and model.dtype == torch.float32:
        raise ConfigError(
            f"{model.name_or_path}: loading.attention flash_attention_2 computes no float32, in which the weights were"
            " saved; set loading.dtype to bfloat16 or float16, or loading.attention to sdpa"
        )
    elsewhere = {str(device) for device in getattr(model, "hf_device_map", {}).values()} & {"cpu", "disk"}
    if elsewhere and default_device().type != "cpu":
        raise ConfigError(
            f"{model.name_or_path}: the model does not fit on the {torch.cuda.device_count()} GPUs of the job, so that"
            f" parts of it would stay on {' and '.join(sorted(elsewhere))}; raise loading.gpus, or set"
            " loading.quantization to 8bit or 4bit, or loading.dtype to bfloat16"
        )


def loading_facts(model: PreTrainedModel) -> dict[str, str]:
    """Return what a store says of how the model behind it was loaded."""
    facts = str(model.dtype).removeprefix("torch."), str(model.config._attn_implementation), quantization_of(model)
    return dict(zip(LOADED, facts, strict=True))


def quantization_of(model: PreTrainedModel) -> str:
    """Return in which format the blocks' matrices are, as `loading.quantization` names them."""
    bits = {"is_loaded_in_8bit": "8bit", "is_loaded_in_4bit": "4bit"}
    return next((name for attribute, name in bits.items() if getattr(model, attribute, False)), NONE)


def describe_checkpoint(path: Path) -> dict[str, str | int]:
    """Return what a checkpoint is, as its files say: commit, width, vocabulary, number format, digest of its tokenizer.

    Raises:
        ConfigError: its `config.json` cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True).get_text_config()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: no readable config.json ({error}); save or download it again") from error
    return {
        "commit": checkpoint_commit(path),
        "width": int(config.hidden_size),
        "vocabulary": int(config.vocab_size),
        "dtype": str(dtype_of(path, AS_TRAINED)).removeprefix("torch."),
        "tokenizer": tokenizer_digest(path),
    }


class ModelsInTurn:
    """Models of several checkpoints, loaded when their turn comes.

    Attributes:
        facts: what stores say of how the models were loaded that have had their turn, in order.
    """

    def __init__(
        self, paths: Mapping[str, Path], loading: LoadingSettings = AS_TRAINED, reads: Sequence[xr.Dataset] = ()
    ) -> None:
        """Take directories by revision; the other arguments are those of `load_model`, as are the errors."""
        self._paths, self._loading, self._reads = paths, loading, reads
        self.facts: dict[str, list[str]] = {name: [] for name in LOADED}

    def __iter__(self) -> Iterator[tuple[str, PreTrainedModel]]:
        """Yield (revision, model)."""
        for revision, path in self._paths.items():
            model = load_model(path, self._loading, self._reads)
            for name, fact in loading_facts(model).items():
                self.facts[name].append(fact)
            yield revision, model


def joint_loading_facts(models: Iterable[PreTrainedModel]) -> dict[str, list[str]]:
    """Return the same of the models of several checkpoints, in their order."""
    facts = [loading_facts(model) for model in models]
    return {name: [of_model[name] for of_model in facts] for name in facts[0]}


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
