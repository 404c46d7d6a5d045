"""The untrained model that benchmarks measure on."""

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from chronocoder.devices import default_device


def gpt_neox(width: int, blocks: int, heads: int, vocabulary: int, seed: int = 0) -> GPTNeoXForCausalLM:
    """Return a model of Pythia's architecture with random weights, for evaluation."""
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        use_cache=False,
    )
    return GPTNeoXForCausalLM(config).eval().to(default_device())
