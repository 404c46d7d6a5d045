"""Small models and crosscoders that the tests make themselves."""

from collections.abc import Callable

import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig
from chronocoder.variants import VARIANTS

VOCABULARY = 300
WIDTH = 16


def tiny_model(architecture: str, seed: int = 0) -> PreTrainedModel:
    """Return a random model of a real architecture with three blocks."""
    torch.manual_seed(seed)
    common = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 2}
    models: dict[str, Callable[[], PreTrainedModel]] = {
        "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**common, **heads)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**common, **heads, num_key_value_heads=2)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=3, n_head=2)),
        "bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, n_layer=3, n_head=2)),
    }
    model = models[architecture]()
    for parameter in model.parameters():  # the usual initialisation is so small that effects drown in rounding
        parameter.data.mul_(4 if parameter.dim() > 1 else 1)
    model.config.use_cache = False
    return model.eval().requires_grad_(False)


ARCHITECTURES = ["gpt_neox", "llama", "gpt2", "bloom"]


OWN_SETTINGS = {
    "l1": {"l1_coefficient": 1.0},
    "topk": {"k": 4},
    "batchtopk": {"k": 4},
    "jumprelu": {"l0_coefficient": 0.5},
}


def tiny_config(sparsity: str, checkpoints: int = 2, seed: int = 0, **settings: float | str) -> CrosscoderConfig:
    """Return a small crosscoder's configuration."""
    common = {"sparsity": sparsity, "dictionary_size": 24, "steps": 10, "batch_tokens": 64}
    return CrosscoderConfig(
        suite="tiny",
        comparison="pair",
        variant=sparsity,
        checkpoints=tuple(f"step{number}" for number in range(checkpoints)),
        site="residual.1",
        d_model=WIDTH,
        settings=VARIANTS[sparsity](**{**common, **OWN_SETTINGS[sparsity], **settings}),
        seed=seed,
        commits=("",) * checkpoints,
        folded=False,
    )


def tiny_crosscoder(sparsity: str = "l1", checkpoints: int = 2, seed: int = 0, **settings: float) -> Crosscoder:
    """Return an untrained crosscoder with decoder rows of unequal norms."""
    generator = torch.Generator().manual_seed(seed)
    config = tiny_config(sparsity, checkpoints, seed, **settings)
    crosscoder = Crosscoder(config, generator).requires_grad_(False)
    crosscoder.decoder_rows.mul_(torch.rand(24, checkpoints, 1, generator=generator) * 10 + 1)
    crosscoder.b_dec.add_(torch.randn(crosscoder.b_dec.shape, generator=generator))
    crosscoder.b_enc.add_(torch.randn(crosscoder.b_enc.shape, generator=generator) * 0.1)
    return crosscoder
