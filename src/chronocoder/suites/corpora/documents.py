"""Documents of a corpus, each with the split that it belongs to wherever it comes up."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from chronocoder.config import Documents, HubDataset, Labelled, Split, TextFiles
from chronocoder.errors import CorpusError
from chronocoder.suites.corpora.files import Record, missing_column, read_records
from chronocoder.suites.hub import hub_errors
from chronocoder.suites.nursery.grammar import hash_share


class Label(NamedTuple):
    """What is kept of the origin of a sequence.

    Attributes:
        language: empty where none is known.
        source: likewise.
    """

    language: str
    source: str


class Document(NamedTuple):
    """A document, or a sequence of token ids made before.

    Attributes:
        split: that it belongs to.
        label: of all of it.
        content: its text, or its ids.
    """

    split: Split
    label: Label
    content: str | Int32[np.ndarray, " position"]


def split_of(content: bytes, validation_share: float) -> Split:
    """Return the split of a document, which depends on its content alone, so that no two splits share one.

    Args:
        content: of the document.
        validation_share: the fraction of documents that are for validation.
    """
    return "validation" if hash_share(content) < validation_share else "train"


def read_documents(
    place: TextFiles | HubDataset, key: str, validation_share: float, files: Sequence[Path] = (), commit: str = ""
) -> Iterator[Document]:
    """Yield the documents of files or a dataset in a fixed order; empty ones are left out.

    White space around a document makes no difference to its split, since formats differ in it.

    Args:
        place: where they are.
        key: of the corpus or its part in the configuration, for messages.
        validation_share: the fraction of documents that are for validation.
        files: of local text, in order.
        commit: of a dataset on the hub.

    Raises:
        CorpusError: a file or the dataset cannot be read, or lacks a column.
    """
    if isinstance(place, HubDataset):
        records = _read_dataset(place, commit)
    else:
        records = chain.from_iterable(read_records(path, place, key) for path in files)
    for record in records:
        text = _text(record, place, key)
        stripped = text.strip()
        if stripped:
            split = split_of(_encoded(stripped, record.where), validation_share)
            yield Document(split, Label(*(_label(record, place, name, key) for name in Label._fields)), text)


def fixed_label(place: Labelled) -> Label:
    """Return the label that all text of a source has."""
    return Label(place.language, place.source)


def _read_dataset(place: HubDataset, commit: str) -> Iterator[Record]:
    from datasets import load_dataset  # here, because it takes a second to import
    from datasets.exceptions import DatasetsError

    where = f"dataset '{place.dataset}'" + (f", configuration '{place.name}'" if place.name else "")
    where += f", split '{place.split}'"
    hub = hub_errors(place.dataset, place.revision, "dataset") if place.is_remote else nullcontext()
    token = os.environ.get("HF_TOKEN") or False
    try:
        with hub:
            dataset = load_dataset(
                place.dataset, place.name, split=place.split, streaming=True, revision=commit or None, token=token
            )
            if place.shuffle_buffer:
                dataset = dataset.shuffle(seed=place.shuffle_seed, buffer_size=place.shuffle_buffer)
            for values in dataset:
                yield Record(where, values)
    except (OSError, ValueError, DatasetsError) as error:
        raise CorpusError(
            f"{where}: cannot be read ({error}); correct the corpus' dataset, name, split or revision"
        ) from None


def _text(record: Record, place: Documents, key: str) -> str:
    """Return the text of a document, empty where its column has no value."""
    if isinstance(record.values, str):
        return record.values
    text = _value(record.where, record.values, place.text_field, f"{key}.text_field")
    if text is None:
        return ""
    if not isinstance(text, str):
        raise CorpusError(
            f"{record.where}: '{place.text_field}' is no text but of type {type(text).__name__}; set {key}.text_field"
            f" to one of {', '.join(record.values)}"
        )
    return text


def _label(record: Record, place: Documents, name: str, key: str) -> str:
    field: str | None = getattr(place, f"{name}_field")
    if field is None:
        return str(getattr(place, name))
    if isinstance(record.values, str):
        raise CorpusError(f"{record.where}: plain text has no '{field}'; give {key}.{name} instead of {name}_field")
    value = _value(record.where, record.values, field, f"{key}.{name}_field")
    return "" if value is None else str(value)


def _value(where: str, values: Mapping[str, Any], column: str, key: str) -> Any:
    if column not in values:
        raise missing_column(where, column, list(values), key)
    return values[column]


def _encoded(text: str, where: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(f"{where}: holds half a surrogate pair ({error}); remove it from the text") from None
