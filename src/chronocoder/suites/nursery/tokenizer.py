"""A byte-level BPE tokenizer for the nursery's text, and the text as sequences of tokens."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

import numpy as np
from jaxtyping import Int64
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SEPARATOR = "<|endoftext|>"
"""Stands before each document; beginning and end of text in one, as in Pythia. Its id is 0."""

_SENTENCES_PER_BATCH = 1024


def train_tokenizer(sentences: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer on sentences; all bytes are in its vocabulary, so that no text is unknown to it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[SEPARATOR],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=SEPARATOR, eos_token=SEPARATOR)


def encode_stream(
    tokenizer: PreTrainedTokenizerFast, sentences: Iterable[str], sequence_length: int
) -> Iterator[Int64[np.ndarray, " position"]]:
    """Pack sentences, a separator before each, into sequences of token ids.

    Every sequence begins with a separator: the sentence that passes the end of a sequence is cut there, and
    its rest left out. Sentences that do not fill the last sequence of a finite text are left out too.
    """
    sequence: list[int] = []
    for ids in chain.from_iterable(_encode_batches(tokenizer, iter(sentences))):
        sequence += [tokenizer.bos_token_id, *ids]
        if len(sequence) >= sequence_length:
            yield np.array(sequence[:sequence_length], dtype=np.int64)
            sequence = []


def _encode_batches(tokenizer: PreTrainedTokenizerFast, sentences: Iterator[str]) -> Iterator[list[list[int]]]:
    while batch := list(islice(sentences, _SENTENCES_PER_BATCH)):
        yield tokenizer(batch, add_special_tokens=False)["input_ids"]
