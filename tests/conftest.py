"""Small models, tokenizers and stores that the tests make themselves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
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
    PreTrainedTokenizerFast,
)

from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig
from chronocoder.suites.nursery.tokenizer import train_tokenizer
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.tokenise import tokenise_pairs
from chronocoder.variants import VARIANTS

VOCABULARY = 300
WIDTH = 16

torch.set_num_threads(1)


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


@pytest.fixture(params=ARCHITECTURES)
def any_model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    text = ["the cat sees the dogs", "the dogs see the cat", "a boy near the cats walks", "the boys walk"] * 20
    return train_tokenizer(text, VOCABULARY)


@pytest.fixture
def task(tokenizer: PreTrainedTokenizerFast) -> xr.Dataset:
    """Six pairs with prefixes of three lengths."""
    pairs = [
        MinimalPair("the cat", " sees", " see"),
        MinimalPair("the dogs", " see", " sees"),
        MinimalPair("the cat near the dogs", " sees", " see"),
        MinimalPair("the dogs near the cat", " see", " sees"),
        MinimalPair("a boy", " walks", " walk"),
        MinimalPair("the boy near the cats sees the", " cat", " the"),
    ]
    return tokenise_pairs(pairs, tokenizer, 0, "test").assign_attrs(task="test")


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


@pytest.fixture
def activation_store(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes an activation store of random rows."""
    from chronocoder.activations.formats import StoredFormat
    from chronocoder.activations.writer import ActivationWriter, Rows

    def write(
        revision: str,
        rows: int = 3000,
        site: str = "residual.1",
        shift: int = 0,
        seed: int = 0,
        stored_format: StoredFormat = "float32",
        piece_rows: int = 100,
    ) -> Path:
        path = tmp_path / site / revision / "train.zarr"
        generator = np.random.default_rng([seed, len(revision), int(revision.removeprefix("step"))])
        values = generator.normal(size=(rows, WIDTH)).astype(np.float32) * (1 + int(revision.removeprefix("step")))
        number = np.arange(rows, dtype=np.int32)
        columns = Rows(torch.from_numpy(values), number % 50 + shift, number // 10, number % 10 + 1)
        facts = {"commit": "c", "split": "train", "tokens_digest": "t"}
        attributes = {"suite": "tiny", "revision": revision, "site": site, **facts}
        with ActivationWriter(path, rows, WIDTH, stored_format, piece_rows, attributes) as writer:
            writer.append(columns)
        return path

    return write
