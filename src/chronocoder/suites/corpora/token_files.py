"""Token ids made before, as memory maps of which a few rows at a time are read."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from chronocoder.config import TokenFiles
from chronocoder.errors import CorpusError
from chronocoder.suites.corpora.documents import Document, fixed_label, split_of
from chronocoder.suites.corpora.files import corpus_files

_TOKENS_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class TokenFile:
    """A file of token ids in rows.

    Attributes:
        path: the file.
        rows: how many.
        row_tokens: tokens in each.
        dtype: number format of a `.bin` file; None for a `.npy` file, which states its own.
    """

    path: Path
    rows: int
    row_tokens: int
    dtype: str | None

    def read(self, first: int, last: int) -> Int[np.ndarray, "row token"]:
        """Return some rows; the map is closed again, so that its pages do not add up in memory."""
        ids = _map(self.path, self.dtype).reshape(-1)
        return np.array(ids[first * self.row_tokens : last * self.row_tokens]).reshape(-1, self.row_tokens)


def open_token_files(place: TokenFiles, key: str, sequence_length: int) -> list[TokenFile]:
    """Return the files of token ids, after checking their shape and number format.

    Args:
        place: where they are.
        key: of the corpus or its part in the configuration, for messages.
        sequence_length: tokens in the sequences that rows are cut into.

    Raises:
        CorpusError: a file is damaged, has no integers or another shape, or rows are shorter than a sequence.
    """
    return [_open(path, place, key, sequence_length) for path in corpus_files(place, key)]


def count_sequences(files: list[TokenFile], sequence_length: int) -> int:
    """Return the number of sequences that files hold."""
    return sum(file.rows * (file.row_tokens // sequence_length) for file in files)


def read_sequences(
    files: list[TokenFile],
    place: TokenFiles,
    key: str,
    sequence_length: int,
    vocabulary_size: int,
    validation_share: float,
) -> Iterator[Document]:
    """Yield the sequences of files in their order; equal rows are in one split, and so is all of a row.

    Args:
        files: as `open_token_files` returns them.
        place: where they are.
        key: of the corpus or its part in the configuration, for messages.
        sequence_length: tokens in a sequence.
        vocabulary_size: tokens that the tokenizer knows.
        validation_share: the fraction of rows that are for validation.

    Raises:
        CorpusError: an id is not in the vocabulary.
    """
    label = fixed_label(place)
    for file in files:
        for row in _rows(file, sequence_length, vocabulary_size, key):
            split = split_of(row.tobytes(), validation_share)
            for start in range(0, len(row) - sequence_length + 1, sequence_length):
                yield Document(split, label, row[start : start + sequence_length])


def _rows(file: TokenFile, sequence_length: int, vocabulary_size: int, key: str) -> Iterator[np.ndarray]:
    """Yield the rows of a file as int32; of one long row its sequences."""
    long = file.rows == 1
    width = sequence_length if long else file.row_tokens
    rows = TokenFile(file.path, file.row_tokens // width if long else file.rows, width, file.dtype)
    step = max(1, _TOKENS_AT_ONCE // width)
    for first in range(0, rows.rows, step):
        ids = rows.read(first, min(first + step, rows.rows))
        outside = np.flatnonzero((ids < 0) | (ids >= vocabulary_size))
        if len(outside):
            raise CorpusError(
                f"{file.path}, token {first * width + outside[0]}: id {ids.flat[outside[0]]} is outside the tokenizer's"
                f" vocabulary of {vocabulary_size}; give ids made by the suite's tokenizer, or correct {key}.dtype"
            )
        yield from ids.astype(np.int32)


def _open(path: Path, place: TokenFiles, key: str, sequence_length: int) -> TokenFile:
    if path.suffix == ".bin" and place.dtype is None:
        raise CorpusError(f"{path}: a .bin file does not state its number format; set {key}.dtype")
    dtype = place.dtype if path.suffix == ".bin" else None
    ids = _map(path, dtype)
    if ids.dtype.kind not in "iu" or ids.ndim not in (1, 2) or not ids.size or not ids.flags.c_contiguous:
        order = "" if ids.flags.c_contiguous else ", columns first"
        raise CorpusError(
            f"{path}: is an array of {ids.dtype} of shape {ids.shape}{order}, not of token ids; give integers in one or"
            " two dimensions, rows first"
        )
    row_tokens = ids.shape[1] if ids.ndim == 2 else place.row_tokens or len(ids)
    if ids.ndim == 2 and place.row_tokens not in (None, row_tokens):
        raise CorpusError(f"{path}: rows have {row_tokens} tokens, not {key}.row_tokens {place.row_tokens}; remove it")
    if ids.size % row_tokens:
        raise CorpusError(
            f"{path}: {ids.size} ids are no whole rows of {row_tokens}; correct {key}.row_tokens or {key}.dtype"
        )
    if row_tokens < sequence_length:
        raise CorpusError(
            f"{path}: rows of {row_tokens} tokens are shorter than sequence_length {sequence_length}; lower it"
        )
    return TokenFile(path, ids.size // row_tokens, row_tokens, dtype)


def _map(path: Path, dtype: str | None) -> np.ndarray:
    try:
        if dtype is None:
            mapped: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            mapped = np.memmap(path, np.dtype(dtype).newbyteorder("<"), mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise CorpusError(f"{path}: cannot be read ({error}); copy it anew, or correct its dtype or ending") from None
    return mapped
