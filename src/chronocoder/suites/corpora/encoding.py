"""Tokenising batches of documents in several processes, in order."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import islice
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Int32
from transformers import PreTrainedTokenizerBase

from chronocoder.errors import CorpusError
from chronocoder.suites.corpora.documents import Document
from chronocoder.suites.tokenizers import load_tokenizer, words_known

BATCH_CHARACTERS = 1 << 19
_BATCH_DOCUMENTS = 1024
_BATCHES_PER_PROCESS = 3
_tokenizers: list[PreTrainedTokenizerBase] = []  # of a process that tokenises, loaded once


class Batch(NamedTuple):
    """Consecutive documents of a source.

    Attributes:
        stop: documents that were read up to here, those left out included.
        documents: those to be used.
    """

    stop: int
    documents: list[Document]


class Encoded(NamedTuple):
    """The token ids of texts.

    Attributes:
        token_ids: of all of them, one after the other.
        ends: where each ends.
    """

    token_ids: Int32[np.ndarray, " token"]
    ends: list[int]

    def split(self) -> list[np.ndarray]:
        """Return the ids of each text."""
        return np.split(self.token_ids, self.ends[:-1]) if self.ends else []


def batches(documents: Iterator[Document], start: int, is_wanted: Callable[[Document], bool]) -> Iterator[Batch]:
    """Put documents into batches.

    Args:
        documents: all of a source.
        start: how many to leave out, since they are dealt with.
        is_wanted: says which of the others to take; asked as they are read.
    """
    taken: list[Document] = []
    size = 0
    stop = start
    for stop, document in enumerate(islice(documents, start, None), start + 1):
        if is_wanted(document):
            taken.append(document)
            size += len(document.content)
            if len(taken) == _BATCH_DOCUMENTS or size >= BATCH_CHARACTERS:
                yield Batch(stop, taken)
                taken, size = [], 0
    yield Batch(stop, taken)


class Encoder:
    """Tokenises without special tokens, in processes of its own where there are several.

    The result does not depend on their number. Only a few batches for each of them are in memory at once.
    """

    def __init__(self, path: Path, tokenizer: PreTrainedTokenizerBase, processes: int) -> None:
        """Remember the tokenizer.

        Args:
            path: its directory, from which each process loads it.
            tokenizer: the same, for use in this process.
            processes: how many tokenise; with 1 this process does it.
        """
        self._tokenizer, self._path, self._processes = tokenizer, path, processes
        self._stack = ExitStack()
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def encode(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, list[np.ndarray]]]:
        """Yield each batch with the ids of its documents, in order.

        Raises:
            CorpusError: a process died.
        """
        if self._processes == 1:
            for batch in batches:
                yield batch, encode_texts(_texts(batch), self._tokenizer).split()
            return
        pool, stream = self._started(), iter(batches)
        waiting: deque[tuple[Batch, Future[Encoded]]] = deque()
        try:
            while True:
                for batch in islice(stream, self._processes * _BATCHES_PER_PROCESS - len(waiting)):
                    waiting.append((batch, pool.submit(_encode, _texts(batch))))
                if not waiting:
                    return
                batch, encoded = waiting.popleft()
                yield batch, encoded.result().split()
        except BrokenProcessPool:
            raise CorpusError(
                "a process that tokenised died, most likely for want of memory; run the target again with more, and it"
                " goes on from there"
            ) from None
        finally:
            for _, encoded in waiting:
                encoded.cancel()

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = get_context("spawn")  # a fork would copy the threads that read compressed files
            self._pool = ProcessPoolExecutor(self._processes, context, _begin, (self._path,))
        return self._pool


def encode_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Encoded:
    """Return the token ids of texts, without special tokens."""
    if not texts:
        return Encoded(np.empty(0, dtype=np.int32), [])
    backend = getattr(tokenizer, "backend_tokenizer", None)
    with words_known(tokenizer):
        if backend is None:
            ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        else:  # without the offsets that a call makes
            backend.no_truncation()
            backend.no_padding()
            ids = [encoding.ids for encoding in backend.encode_batch_fast(list(texts), add_special_tokens=False)]
    arrays = [np.array(one, dtype=np.int32) for one in ids]
    return Encoded(np.concatenate(arrays), np.cumsum([len(one) for one in arrays]).tolist())


def _texts(batch: Batch) -> list[str]:
    return [str(document.content) for document in batch.documents]


def _begin(path: Path) -> None:
    """Prepare a process: it loads the tokenizer, uses one core, and ends when the process that started it is killed."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _tokenizers.append(load_tokenizer(path))


def _end_with_parent() -> None:
    if (parent := parent_process()) is not None:
        parent.join()
        os._exit(1)


def _encode(texts: list[str]) -> Encoded:
    return encode_texts(texts, _tokenizers[0])
