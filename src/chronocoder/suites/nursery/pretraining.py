"""The pretraining run: a small GPT-NeoX, saved at the steps asked for."""

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

from chronocoder.config import NurserySource
from chronocoder.devices import default_device
from chronocoder.errors import NonFiniteError
from chronocoder.stores import whole_directory
from chronocoder.suites.nursery.grammar import Split, sentences_by_language
from chronocoder.suites.packing import pack_languages

RECORD_FILE = "training.json"

_VALIDATION_SEQUENCES = 32
_FINAL_SHARE = 0.1


@dataclass(frozen=True)
class TrainingRecord:
    """The state of the run at a saved checkpoint.

    Attributes:
        step: optimiser steps made.
        tokens_seen: tokens trained on.
        validation_loss: mean cross-entropy in nats per token, on sentences that the run never trains on.
    """

    step: int
    tokens_seen: int
    validation_loss: float


Sentences = Callable[[Split], Iterable[str]]


def pretrain(
    source: NurserySource, tokenizer: PreTrainedTokenizerFast, output: Path, sentences: Sentences | None = None
) -> None:
    """Train a model on grammar text, or on other sentences, and save each checkpoint asked for as `output/step<n>`.

    A training sequence is of one language; where the source has several, a seeded draw decides of which.
    A checkpoint is a Hugging Face directory with model, tokenizer and a `TrainingRecord` in `training.json`;
    it appears whole. On one machine, equal sources, tokenizers and numbers of threads give equal weights.

    Raises:
        NonFiniteError: if the loss becomes infinite or NaN; the checkpoints saved before remain.
    """
    model = _initial_model(source, tokenizer)
    optimizer = AdamW(model.parameters(), lr=source.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    schedule = LambdaLR(optimizer, lambda step: _learning_rate_share(step, source))
    batches = _batches(source, tokenizer, "pretraining", sentences, source.batch_size)
    validation = next(_batches(source, tokenizer, "validation", sentences, _VALIDATION_SEQUENCES))
    progress = tqdm(range(source.steps[-1] + 1), desc="pretraining", unit="step")
    for step in progress:
        if step in source.steps:
            record = TrainingRecord(step, source.tokens_seen[f"step{step}"], _loss(model, validation))
            _save(model, tokenizer, record, output / f"step{step}")
        if step < source.steps[-1]:
            loss = _train_step(model, optimizer, next(batches), step)
            progress.set_postfix(loss=f"{loss:.3f}")
            schedule.step()


def _initial_model(source: NurserySource, tokenizer: PreTrainedTokenizerFast) -> GPTNeoXForCausalLM:
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer),
        hidden_size=source.hidden_size,
        num_hidden_layers=source.blocks,
        num_attention_heads=source.heads,
        intermediate_size=4 * source.hidden_size,
        max_position_embeddings=source.sequence_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        use_cache=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.seed)
        return GPTNeoXForCausalLM(config).to(default_device())


def _learning_rate_share(step: int, source: NurserySource) -> float:
    """Return the share of the peak learning rate: a linear rise, then half a cosine down to a tenth."""
    warmup = min(1.0, (step + 1) / source.warmup_steps)
    done = max(0.0, step - source.warmup_steps) / max(1, source.steps[-1] - source.warmup_steps)
    return warmup * (_FINAL_SHARE + (1 - _FINAL_SHARE) * (1 + math.cos(math.pi * done)) / 2)


def _batches(
    source: NurserySource, tokenizer: PreTrainedTokenizerFast, split: Split, sentences: Sentences | None, size: int
) -> Iterator[Int64[Tensor, "sequence position"]]:
    given = {"": sentences(split)} if sentences else sentences_by_language(source.languages, split, source.seed)
    seed = f"{split} {source.seed}"
    packed = pack_languages(given, tokenizer, tokenizer.bos_token_id, source.sequence_length, cut=True, seed=seed)
    sequences = (sequence.token_ids for sequence in packed)
    while True:
        yield torch.from_numpy(np.stack(list(islice(sequences, size)))).long().to(default_device())


def _train_step(
    model: GPTNeoXForCausalLM, optimizer: AdamW, tokens: Int64[Tensor, "sequence position"], step: int
) -> float:
    """Make one step and return the loss before it, in nats per token."""
    loss = model(tokens, labels=tokens).loss
    if not math.isfinite(loss.item()):
        raise NonFiniteError(
            f"the pretraining loss is {loss.item()} at step {step}; lower learning_rate or raise warmup_steps"
        )
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.item())


@torch.no_grad()
def _loss(model: GPTNeoXForCausalLM, tokens: Int64[Tensor, "sequence position"]) -> float:
    return float(model(tokens, labels=tokens).loss.item())


def _save(
    model: GPTNeoXForCausalLM, tokenizer: PreTrainedTokenizerFast, record: TrainingRecord, directory: Path
) -> None:
    with whole_directory(directory) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        (partial / RECORD_FILE).write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
