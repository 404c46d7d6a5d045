"""Documents as sequences of tokens, the same way for pretraining in the nursery and for harvesting."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from random import Random
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Int32
from transformers import PreTrainedTokenizerBase

_DOCUMENTS_PER_BATCH = 1024
Item = TypeVar("Item")
Ids = Sequence[int] | Int32[np.ndarray, " token"]


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
        cut: as for `Packer`.
        seed: decides the order of the languages; a single one takes no draw.
    """
    packed = {
        language: pack_documents(encode_documents(texts, tokenizer), separator, sequence_length, cut)
        for language, texts in documents.items()
    }
    return (PackedSequence(language, token_ids) for language, token_ids in mixed(packed, seed))


def mixed(streams: Mapping[str, Iterator[Item]], seed: str) -> Iterator[tuple[str, Item]]:
    """Yield what streams yield, each with the name of its stream, in the order of `turns`; the first to end, ends all.

    Args:
        streams: by name.
        seed: decides the order.
    """
    for name in turns(list(streams), seed):
        for item in islice(streams[name], 1):
            yield name, item
            break
        else:
            return


def turns(names: Sequence[str], seed: str) -> Iterator[str]:
    """Yield names without end, each equally often on average, in an order that the seed decides."""
    random = Random(seed)
    while True:
        yield random.choice(names)


class Packer:
    """Packs documents, the separator before each, into whole sequences that all begin with the separator.

    Attributes:
        open: the tokens of the sequence that is not whole yet.
    """

    def __init__(self, separator: int, sequence_length: int, cut: bool = False, begun: Ids = ()) -> None:
        """Begin with an empty sequence, or go on.

        Args:
            separator: the token put before each document.
            sequence_length: tokens in a sequence.
            cut: leave out the rest of a document that passes the end of a sequence, rather than begin the next with it.
            begun: the tokens of a sequence that is not whole yet.
        """
        self._separator, self._cut = separator, cut
        self._sequence = np.empty(sequence_length, dtype=np.int32)
        self._sequence[: len(begun)] = begun
        self._filled = len(begun)

    @property
    def open(self) -> list[int]:
        """The tokens of the sequence that is not whole yet."""
        return [int(token_id) for token_id in self._sequence[: self._filled]]

    def add(self, document: Ids) -> Iterator[Int32[np.ndarray, " position"]]:
        """Add the token ids of a document; yield the sequences that become whole."""
        length, start = len(self._sequence), 0
        while start < len(document):
            self._sequence[self._filled] = self._separator
            taken = min(length - self._filled - 1, len(document) - start)
            self._sequence[self._filled + 1 : self._filled + 1 + taken] = document[start : start + taken]
            self._filled += 1 + taken
            start = len(document) if self._cut else start + taken
            if self._filled == length:
                yield self._sequence.copy()
                self._filled = 0


def pack_documents(
    documents: Iterable[Ids], separator: int, sequence_length: int, cut: bool = False
) -> Iterator[Int32[np.ndarray, " position"]]:
    """Pack the token ids of documents as `Packer` does."""
    packer = Packer(separator, sequence_length, cut)
    return chain.from_iterable(packer.add(document) for document in documents)


def encode_documents(documents: Iterable[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[int]]:
    """Return the token ids of each document, without special tokens; many are tokenised at once."""
    stream = iter(documents)
    batches = iter(lambda: list(islice(stream, _DOCUMENTS_PER_BATCH)), [])
    return chain.from_iterable(tokenizer(batch, add_special_tokens=False)["input_ids"] for batch in batches)
