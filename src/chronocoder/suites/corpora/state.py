"""What is written of a corpus while it is unfinished, so that an interrupted job goes on from there.

    <state>/identity.json         what the corpus is made of; the state of another one is thrown away
    <state>/progress.json         how far the sources are read, and what is begun
    <state>/<split>.rows          the sequences of a split, each a row: number of its label, token ids

Sequences have their final places from the beginning, whatever source they are of. So rows may be there that the
progress does not tell of yet: the same ones are written there again.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Int32
from pydantic import Field

from chronocoder.config import Settings, Split
from chronocoder.errors import CorpusError
from chronocoder.suites.corpora.documents import Label

MOST_LABELS = 1000
_ID_BYTES = 4


class Begun(Settings):
    """A sequence that is not whole yet: its split, the number of its label, and its tokens."""

    split: Split
    label: int
    token_ids: list[int]


class Progress(Settings):
    """How far a corpus is made."""

    part: int = Field(0, description="The source that is being read.")
    documents: int = Field(0, description="Documents of it that are dealt with.")
    done: list[dict[Split, int]] = Field(description="Whole sequences of each source.")
    labels: list[Label] = Field(default_factory=list, description="All labels so far.")
    begun: list[Begun] = Field(default_factory=list, description="Sequences of the source that are not whole yet.")


class Block(NamedTuple):
    """Consecutive sequences of a split.

    Attributes:
        first: number of the first one.
        labels: numbers of their labels, shape (sequence,).
        token_ids: shape (sequence, position).
    """

    first: int
    labels: Int32[np.ndarray, " sequence"]
    token_ids: Int32[np.ndarray, "sequence position"]


class SplitRows:
    """The file of one split's sequences."""

    def __init__(self, path: Path, sequences: int, sequence_length: int) -> None:
        """Open the file, or make it, with room for all sequences."""
        self._width, self._sequences = 1 + sequence_length, sequences
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        os.truncate(self._file, sequences * self._width * _ID_BYTES)

    def write(self, place: int, label: int, token_ids: Int32[np.ndarray, " position"]) -> None:
        """Put a sequence into its place."""
        row = np.concatenate([np.array([label], dtype=np.int32), token_ids])
        os.pwrite(self._file, row.tobytes(), place * self._width * _ID_BYTES)

    def read(self, size: int) -> Iterator[Block]:
        """Yield all sequences, `size` at a time."""
        for first in range(0, self._sequences, size):
            count = min(size, self._sequences - first)
            content = os.pread(self._file, count * self._width * _ID_BYTES, first * self._width * _ID_BYTES)
            rows = np.frombuffer(content, dtype=np.int32).reshape(count, self._width)
            yield Block(first, rows[:, 0], rows[:, 1:])

    def flush(self) -> None:
        """Wait until what is written is on the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


class CorpusState:
    """The directory in which a corpus is made.

    Attributes:
        progress: how far it is.
        rows: the sequences of each split.
    """

    def __init__(
        self, path: Path, identity: Mapping[str, Any], parts: int, sequences: Mapping[Split, int], sequence_length: int
    ) -> None:
        """Open the state of a corpus, or begin one.

        Args:
            path: the directory.
            identity: what the corpus is made of: the state of another one is thrown away.
            parts: how many sources it has.
            sequences: of each split.
            sequence_length: tokens in each.
        """
        self._path = path
        self.progress = self._load(json.loads(json.dumps(identity))) or Progress(
            done=[dict.fromkeys(sequences, 0) for _ in range(parts)]
        )
        self._numbers = {label: number for number, label in enumerate(self.progress.labels)}
        self.rows = {
            split: SplitRows(path / f"{split}.rows", count, sequence_length) for split, count in sequences.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for rows in self.rows.values():
            rows.close()

    def label_number(self, label: Label, key: str) -> int:
        """Return the number of a label, a new one where it is new.

        Raises:
            CorpusError: there are too many.
        """
        if label not in self._numbers:
            if len(self._numbers) == MOST_LABELS:
                raise CorpusError(
                    f"{key}.language_field and source_field have more than {MOST_LABELS} values, for instance"
                    f" {', '.join(filter(None, label))}; choose columns that have few"
                )
            self._numbers[label] = len(self._numbers)
        return self._numbers[label]

    @property
    def labels(self) -> list[Label]:
        """All labels so far, by number."""
        return list(self._numbers)

    def save(self, progress: Progress) -> None:
        """Note how far the corpus is made, after all that it says is on the disk."""
        for rows in self.rows.values():
            rows.flush()
        self.progress = progress.model_copy(update={"labels": self.labels})
        _write(self._path / "progress.json", self.progress.model_dump_json())

    def remove(self) -> None:
        """Forget the state: the corpus is finished."""
        shutil.rmtree(self._path)

    def _load(self, identity: dict[str, Any]) -> Progress | None:
        known, progress = self._path / "identity.json", self._path / "progress.json"
        if known.is_file() and json.loads(known.read_text(encoding="utf-8")) == identity:
            return Progress.model_validate_json(progress.read_bytes()) if progress.is_file() else None
        shutil.rmtree(self._path, ignore_errors=True)
        self._path.mkdir(parents=True)
        _write(known, json.dumps(identity))
        return None


def _write(path: Path, text: str) -> None:
    """Write a file that is on the disk, whole, when it is there."""
    new = path.with_name(f"{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
