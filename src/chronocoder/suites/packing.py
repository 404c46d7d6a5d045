"""Documents as sequences of tokens, the same way for pretraining in the nursery and for harvesting."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

import numpy as np
from jaxtyping import Int32
from transformers import PreTrainedTokenizerBase

_DOCUMENTS_PER_BATCH = 1024


def pack_documents(
    documents: Iterable[list[int]], separator: int, sequence_length: int, cut: bool = False
) -> Iterator[Int32[np.ndarray, " position"]]:
    """Pack documents, the separator before each, into whole sequences that all begin with the separator.

    Args:
        documents: the token ids of each document.
        separator: the token put before each.
        sequence_length: tokens in a sequence.
        cut: leave out the rest of a document that passes the end of a sequence, rather than begin the next with it.
    """
    sequence: list[int] = []
    for document in documents:
        rest = document
        while rest:
            room = max(sequence_length - len(sequence) - 1, 0)
            sequence += [separator, *rest[:room]]
            rest = [] if cut else rest[room:]
            if len(sequence) >= sequence_length:
                yield np.array(sequence[:sequence_length], dtype=np.int32)
                sequence = []


def encode_documents(documents: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    """Return the token ids of each document, without special tokens; many are tokenised at once."""
    stream = iter(documents)
    batches = iter(lambda: list(islice(stream, _DOCUMENTS_PER_BATCH)), [])
    return chain.from_iterable(tokenizer(batch, add_special_tokens=False)["input_ids"] for batch in batches)
