"""Tiny random models of many architectures, as transformers builds them from their configurations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

VOCABULARY = 61
WIDTH = 16
BLOCKS = 3
HEADS = 4

COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "max_position_embeddings": 64,
}
SIZES = {"num_hidden_layers": BLOCKS, "num_attention_heads": HEADS, "intermediate_size": 24}
GROUPED = {**SIZES, "num_key_value_heads": 2}
FALCON = {"num_hidden_layers": BLOCKS, "num_attention_heads": HEADS}
FALCON_NEW = {**FALCON, "num_kv_heads": 2, "new_decoder_architecture": True}
WINDOW = {"sliding_window": 3}
MIXED_WINDOWS = {**WINDOW, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}


class Names(NamedTuple):
    """Modules of a block, by their names in transformers' code.

    Attributes:
        attention: the module whose output is what attention adds to the stream.
        mlp: the one whose output is what the MLP adds.
        mlp_in: the one whose input is what the MLP sees.
        projection: the output projection of attention.
    """

    attention: str
    mlp: str
    mlp_in: str
    projection: str


LLAMA = Names("self_attn", "mlp", "mlp", "self_attn.o_proj")
NEOX = Names("attention", "mlp", "mlp", "attention.dense")
POST_NORMS = Names("post_attention_layernorm", "post_feedforward_layernorm", "mlp", "self_attn.o_proj")
BARE_LAYERS = Names("self_attn", "fc2", "fc1", "self_attn.out_proj")
FALCON_NAMES = Names("self_attention", "mlp", "mlp", "self_attention.dense")


class Architecture(NamedTuple):
    """How to build a model, and where things are in it.

    Attributes:
        config: class of its configuration.
        settings: its sizes.
        names: modules of a block; None where it has no attention.
        multiplier: what the model multiplies attention's and the MLP's output by.
        head_width: width of a head.
    """

    config: str
    settings: dict[str, Any]
    names: Names | None = LLAMA
    multiplier: float = 1.0
    head_width: int = WIDTH // HEADS


TABLE = {
    "gpt_neox": Architecture("GPTNeoXConfig", SIZES, NEOX),
    "gpt_neox_sequential": Architecture("GPTNeoXConfig", {**SIZES, "use_parallel_residual": False}, NEOX),
    "gpt2": Architecture(
        "GPT2Config", {"n_layer": BLOCKS, "n_head": HEADS}, Names("attn", "mlp", "mlp", "attn.c_proj")
    ),
    "gptj": Architecture(
        "GPTJConfig",
        {"n_layer": BLOCKS, "n_head": HEADS, "rotary_dim": 2},
        Names("attn", "mlp", "mlp", "attn.out_proj"),
    ),
    "bloom": Architecture(
        "BloomConfig",
        {"n_layer": BLOCKS, "n_head": HEADS},
        Names("self_attention.dense", "mlp.dense_4h_to_h", "mlp", "self_attention.dense"),
    ),
    "olmo": Architecture("OlmoConfig", GROUPED),
    "olmo2": Architecture("Olmo2Config", GROUPED, POST_NORMS),
    "olmo3": Architecture("Olmo3Config", {**GROUPED, **MIXED_WINDOWS}, POST_NORMS),
    "olmoe": Architecture("OlmoeConfig", {**GROUPED, **EXPERTS}),
    "llama": Architecture("LlamaConfig", GROUPED),
    "mistral": Architecture("MistralConfig", {**GROUPED, **WINDOW}),
    "mixtral": Architecture("MixtralConfig", {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2": Architecture("Qwen2Config", GROUPED),
    "qwen3": Architecture("Qwen3Config", {**GROUPED, "head_dim": 8}, head_width=8),
    "qwen3_moe": Architecture(
        "Qwen3MoeConfig", {**GROUPED, **EXPERTS, "head_dim": 8, "moe_intermediate_size": 16}, head_width=8
    ),
    "gemma": Architecture("GemmaConfig", {**GROUPED, "head_dim": 8}, head_width=8),
    "gemma2": Architecture("Gemma2Config", {**GROUPED, **MIXED_WINDOWS, "head_dim": 8}, POST_NORMS, head_width=8),
    "gemma3": Architecture("Gemma3TextConfig", {**GROUPED, **MIXED_WINDOWS, "head_dim": 8}, POST_NORMS, head_width=8),
    "smollm3": Architecture("SmolLM3Config", GROUPED),
    "phi": Architecture("PhiConfig", SIZES, Names("self_attn", "mlp", "mlp", "self_attn.dense")),
    "phi3": Architecture("Phi3Config", GROUPED),
    "opt": Architecture("OPTConfig", {**FALCON, "ffn_dim": 24}, BARE_LAYERS),
    "xglm": Architecture("XGLMConfig", {"num_layers": BLOCKS, "attention_heads": HEADS, "ffn_dim": 24}, BARE_LAYERS),
    "falcon": Architecture("FalconConfig", FALCON, FALCON_NAMES),
    "falcon_new": Architecture("FalconConfig", FALCON_NEW, FALCON_NAMES),
    "falcon_sequential": Architecture("FalconConfig", {**FALCON, "parallel_attn": False}, FALCON_NAMES),
    "mpt": Architecture(
        "MptConfig", {"n_layers": BLOCKS, "n_heads": HEADS}, Names("attn", "ffn.down_proj", "ffn", "attn.out_proj")
    ),
    "stablelm": Architecture("StableLmConfig", GROUPED),
    "stablelm_parallel": Architecture("StableLmConfig", {**GROUPED, "use_parallel_residual": True}),
    "granite": Architecture(
        "GraniteConfig", {**GROUPED, "residual_multiplier": 0.22, "embedding_multiplier": 0.5}, multiplier=0.22
    ),
    "apertus": Architecture("ApertusConfig", GROUPED),
    "mamba": Architecture("MambaConfig", {"num_hidden_layers": BLOCKS, "state_size": 4}, names=None),
}


def build(architecture: str, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """Return a random model of an architecture.

    Args:
        architecture: a name in `TABLE`.
        seed: of its weights.
        settings: further entries of its configuration.
    """
    torch.manual_seed(seed)
    make: Callable[..., PretrainedConfig] = getattr(transformers, TABLE[architecture].config)
    config = make(**{**COMMON, **TABLE[architecture].settings, **settings})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # the usual initialisation is so small that effects drown in rounding
        parameter.data.mul_(4 if parameter.dim() > 1 else 1)
    model.config.use_cache = False
    return model.eval().requires_grad_(False)
