"""The shape of a suite's models: what the sizes and the arithmetic of everything else follow from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import hf_hub_download

from chronocoder.config import NONE, Experiment, LocalSource, NurserySource, Suite
from chronocoder.errors import ConfigError
from chronocoder.site_names import parse_site
from chronocoder.suites.families import HubPlace
from chronocoder.suites.hub import hub_errors, hub_token

# What architectures of the transformers library call the same thing in their config.json.
KEYS = {
    "hidden_size": ("hidden_size", "n_embd", "n_embed", "d_model"),
    "blocks": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "vocabulary_size": ("vocab_size",),
    "head_width": ("head_dim",),
    "key_value_heads": ("num_key_value_heads",),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size"),
    "activation": ("hidden_act", "activation_function"),
    "number_format": ("dtype", "torch_dtype"),
}
GATED = ("silu", "swish")
_SHAPES = Path(__file__).with_name("shapes.yaml")
BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
FLOAT32 = "float32"
QUANTISED_BYTES = {"8bit": 1.0, "4bit": 0.5 + 4 / 64}
"""Of a weight of the blocks' matrices; in 4 bits each 64 of them share a float32 scale."""


class Loaded(NamedTuple):
    """How models are loaded.

    Attributes:
        number_format: of weights and activations.
        quantization: of the blocks' matrices, as `loading.quantization` names it.
        gpus: how many a model is spread over.
    """

    number_format: str = FLOAT32
    quantization: str = NONE
    gpus: int = 1

    @property
    def number_bytes(self) -> int:
        """Bytes of a weight or an activation."""
        return BYTES[self.number_format]

    @property
    def block_bytes(self) -> float:
        """Bytes of a weight of the blocks' matrices."""
        return QUANTISED_BYTES.get(self.quantization, self.number_bytes)

    @property
    def is_float32(self) -> bool:
        """Whether nothing is in a lower precision."""
        return (self.number_format, self.quantization) == (FLOAT32, NONE)

    def products(self, precision: str = FLOAT32) -> str:
        """Return the number format of products, where those of float32 weights are in some precision."""
        return precision if self.number_format == FLOAT32 else self.number_format


LOADED_IN_FLOAT32 = Loaded()


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a decoder-only transformer that costs depend on.

    Attributes:
        d_model: width of the residual stream.
        blocks: transformer blocks.
        attention_width: heads times the width of a head.
        key_value_width: heads of keys times the width of a head; less than `attention_width` where heads share keys.
        intermediate_size: width of the MLP.
        vocabulary_size: entries of the vocabulary.
        gated: whether the MLP has a third matrix, its gate.
        tied: whether the input and output embeddings are one matrix.
        stored_bytes: bytes of a number in the checkpoint's files.
        loaded: how the models are loaded.
        head_width: width of a head.
    """

    d_model: int
    blocks: int
    attention_width: int
    key_value_width: int
    intermediate_size: int
    vocabulary_size: int
    gated: bool
    tied: bool
    stored_bytes: int
    loaded: Loaded = LOADED_IN_FLOAT32
    head_width: int = 1

    def width_at(self, site: str) -> int:
        """Return the width of an activation at a site: that of the stream, or of a head."""
        return self.d_model if parse_site(site).head is None else self.head_width

    @property
    def block_parameters(self) -> int:
        """Weights of a block's matrices, d (2 a + 2 v) + (2 or 3) d i; biases and norms, under 1 %, left out."""
        return self.d_model * (self.attention_width + 2 * self.key_value_width) + self.position_parameters

    @property
    def position_parameters(self) -> int:
        """Those of them behind the attention: its output, and the MLP; they see each position by itself."""
        return self.d_model * (self.attention_width + (3 if self.gated else 2) * self.intermediate_size)

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embeddings, one or two."""
        return (1 if self.tied else 2) * self.vocabulary_size * self.d_model

    @property
    def parameters(self) -> int:
        """Weights of the model: its blocks, and its embeddings."""
        return self.blocks * self.block_parameters + self.embedding_parameters

    @property
    def checkpoint_bytes(self) -> int:
        """Bytes of a checkpoint's weights on disk."""
        return self.parameters * self.stored_bytes


class CrosscoderShape(NamedTuple):
    """The sizes of a crosscoder.

    Attributes:
        checkpoints: M.
        d_model: width of an activation, d.
        latents: D.
    """

    checkpoints: int
    d_model: int
    latents: int

    @property
    def parameters(self) -> int:
        """Weights, 2 M d D + D + M d: encoder, decoder and their biases."""
        M, d, D = self
        return 2 * M * d * D + D + M * d

    @property
    def saved_bytes(self) -> int:
        """Bytes of a saved crosscoder: float32 weights, and a threshold for each latent."""
        return 4 * (self.parameters + self.latents)

    @property
    def state_bytes(self) -> int:
        """Bytes of a saved training state: float32 weights, and Adam's two moments of each."""
        return 12 * self.parameters

    def product_flops(self, latents: float | None = None) -> float:
        """Return the FLOPs of one token's product with the encoder or the decoder, 2 M d D, or with fewer latents."""
        return 2 * self.checkpoints * self.d_model * (self.latents if latents is None else latents)


def shape_of(name: str, suite: Suite, given: Path | None = None) -> ModelShape:
    """Return the shape of a suite's models, loaded as it says: of all checkpoints, which differ in their weights alone.

    Args:
        name: the suite's, for messages.
        suite: the suite.
        given: a `config.json` to use rather than that of the suite's first checkpoint.

    Raises:
        ConfigError: the `config.json` is not known, and cannot be read or lacks a size.
    """
    shape, loading = _saved_shape(name, suite, given), suite.loading
    number_format = loading.precision or shape.loaded.number_format
    return replace(shape, loaded=Loaded(number_format, loading.quantization, loading.gpus))


def _saved_shape(name: str, suite: Suite, given: Path | None) -> ModelShape:
    """Return the shape of a suite's models, loaded as they were saved."""
    source = suite.source
    if given is not None:
        return _read_shape(given, f"--model-config {name}={given}")
    if isinstance(source, NurserySource):
        return nursery_shape(source)
    first = next(iter(source.tokens_seen))
    if isinstance(source, LocalSource):
        path = Path(source.saved[first].path) / "config.json"
        return _read_shape(path, f"suites.{name}.source, checkpoint '{first}'")
    place = source.located(first)
    if (known := known_shape(place.repository)) is not None:
        return known
    return _read_shape(_download_config(name, place), f"suites.{name}.source, checkpoint '{first}'")


def known_shape(repository: str) -> ModelShape | None:
    """Return the shape of the models in a repository on the hub, where it is known without asking."""
    shapes = yaml.safe_load(_SHAPES.read_text(encoding="utf-8"))
    fitting = [name for name in shapes if repository == name or repository.startswith(f"{name}-")]
    if not fitting:
        return None
    name = max(fitting, key=len)
    return parse_shape(shapes[name], f"{_SHAPES.name} ({name})")


def crosscoder_shape(
    experiment: Experiment, suite: str, comparison: str, variant: str, model: ModelShape
) -> CrosscoderShape:
    """Return the sizes of the crosscoders of a comparison and a variant."""
    settings = experiment.suites[suite]
    width = model.width_at(settings.site_of(comparison))
    checkpoints = settings.comparisons[comparison].checkpoints
    return CrosscoderShape(len(checkpoints), width, experiment.variants[variant].dictionary_size)


def nursery_shape(source: NurserySource) -> ModelShape:
    """Return the shape of the GPT-NeoX that a nursery trains, in float32."""
    d = source.hidden_size
    return ModelShape(
        d_model=d,
        blocks=source.blocks,
        attention_width=d,
        key_value_width=d,
        intermediate_size=4 * d,
        vocabulary_size=source.vocabulary_size,
        gated=False,
        tied=False,
        stored_bytes=4,
        head_width=d // source.heads,
    )


def parse_shape(values: Any, where: str) -> ModelShape:
    """Return the shape that a Hugging Face `config.json` states.

    Models count as loaded in the number format they were saved in.

    An MLP counts as gated where its activation is SiLU, as in the Llama family; one with a gate of another kind is
    taken for an ordinary one, which leaves out a third of its weights.

    Args:
        values: the file's content.
        where: the file and the key it comes from, for messages.

    Raises:
        ConfigError: a size is missing or no size.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: holds no JSON object; give the config.json of a model")
    d, blocks, heads, vocabulary = (
        _size(values, key, where) for key in ("hidden_size", "blocks", "heads", "vocabulary_size")
    )
    head = _size(values, "head_width", where, default=d // heads)
    saved = str(_value(values, "number_format")).removeprefix("torch.")
    saved = saved if saved in BYTES else FLOAT32
    return ModelShape(
        d_model=d,
        blocks=blocks,
        attention_width=heads * head,
        key_value_width=_size(values, "key_value_heads", where, default=heads) * head,
        intermediate_size=_size(values, "intermediate_size", where, default=4 * d),
        vocabulary_size=vocabulary,
        gated=_value(values, "activation") in GATED,
        tied=values.get("tie_word_embeddings", True),
        stored_bytes=BYTES[saved],
        loaded=Loaded(saved),
        head_width=head,
    )


def _value(values: Mapping[str, Any], key: str) -> Any:
    return next((values[name] for name in KEYS[key] if values.get(name) is not None), None)


def _size(values: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    name = next((name for name in KEYS[key] if values.get(name) is not None), KEYS[key][0])
    found = default if values.get(name) is None else values[name]
    if found is None:
        raise ConfigError(f"{where}: none of {', '.join(KEYS[key])} is there; add one of them")
    if not isinstance(found, int) or found < 1:
        raise ConfigError(f"{where}: {name} {found!r} is no size; correct it to a whole number above 0")
    return found


def _read_shape(path: Path, key: str) -> ModelShape:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{key}: no readable {path} ({error}); correct the path") from error
    return parse_shape(values, f"{path} ({key})")


def _download_config(name: str, place: HubPlace) -> Path:
    try:
        with hub_errors(*place):
            return Path(hf_hub_download(place.repository, "config.json", revision=place.revision, token=hub_token()))
    except ConfigError as error:
        raise ConfigError(
            f"suites.{name}.source: config.json cannot be reached; pass a copy of it with --model-config {name}=FILE,"
            f" or mend this: {error}"
        ) from error
