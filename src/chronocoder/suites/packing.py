"""Documents as sequences of tokens, the same way for pretraining in the nursery and for harvesting."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from random import Random
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int32
from transformers import PreTrainedTokenizerBase

_DOCUMENTS_PER_BATCH = 1024
Item = TypeVar("Item")


class PackedSequence(NamedTuple):
    """Tokens of one language.

    Attributes:
        language: of all its documents; empty where their source names none.
        token_ids: shape (position,).
    """

    language: str
    token_ids: Int32[np.ndarray, " position"]


def pack_languages(
    documents: Mapping[str, Iterable[str]],
    tokenizer: PreTrainedTokenizerBase,
    separator: int,
    sequence_length: int,
    cut: bool,
    seed: str,
) -> Iterator[PackedSequence]:
    """Tokenise and pack documents by language: no sequence has two, and languages get equal shares of the sequences.

    Args:
        documents: by language.
        tokenizer: of all languages.
        separator: the token put before each document.
        sequence_length: tokens in a sequence.
        cut: as for `pack_documents`.
        seed: decides the order of the languages; a single one takes no draw.
    """
    packed = {
        language: pack_documents(encode_documents(texts, tokenizer), separator, sequence_length, cut)
        for language, texts in documents.items()
    }
    return (PackedSequence(language, token_ids) for language, token_ids in mixed(packed, seed))


def mixed(streams: Mapping[str, Iterator[Item]], seed: str) -> Iterator[tuple[str, Item]]:
    """Yield what streams yield, each with the name of its stream, in an order that the seed decides.

    Every stream is drawn equally often on average; the first one that ends, ends all.
    """
    names, random = list(streams), Random(seed)
    while True:
        name = random.choice(names)
        for item in islice(streams[name], 1):
            yield name, item
            break
        else:
            return


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
