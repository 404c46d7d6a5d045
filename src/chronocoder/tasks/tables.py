"""The one reader of tables: rows of JSONL, CSV, TSV and Parquet files and of datasets on the Hugging Face hub."""

import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from chronocoder.config import TABLE_FORMATS, format_of
from chronocoder.encodings import not_utf8, rows_of
from chronocoder.errors import TaskError


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        where: the file and line, or the dataset and row, for messages.
        values: by column.
    """

    where: str
    values: dict[str, Any]


def read_table(path: Path) -> Iterator[Row]:
    """Yield the rows of a file, whose ending names its format.

    Raises:
        TaskError: there is no such file, or it is of another format or encoding: names the line where there is one.
    """
    ending = format_of(path)
    if ending not in _READERS:
        raise TaskError(
            f"{path}: no table has the ending '{ending}'; give a file in {', '.join(TABLE_FORMATS)}, or correct the"
            " task's kind"
        )
    yield from _READERS[ending](path)


def read_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the lines of a text file that are not empty, each with the words that name its place.

    Raises:
        TaskError: there is no such file, or it is no UTF-8 text.
    """
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            yield f"{path}, line {number}", line.removesuffix("\r")


def read_dataset(dataset: str, name: str | None, split: str, revision: str | None = None) -> Iterator[Row]:
    """Yield the rows of a dataset on the hub, or of a local directory in that form.

    Args:
        dataset: its repository, or the directory.
        name: its configuration, where it has several.
        split: its split.
        revision: branch, tag or commit of the repository; None for a directory.

    Raises:
        TaskError: it cannot be had; says what the `datasets` library says.
    """
    from datasets import load_dataset  # here, because it takes a second to import
    from datasets.exceptions import DatasetsError

    where = f"dataset '{dataset}'" + (f", configuration '{name}'" if name else "") + f", split '{split}'"
    try:
        rows = load_dataset(dataset, name, split=split, revision=revision, streaming=True)
        for number, values in enumerate(rows, 1):
            yield Row(f"{where}, row {number}", values)
    except (OSError, ValueError, DatasetsError) as error:
        raise TaskError(f"{where}: cannot be read ({error}); correct the task's dataset, name or split") from None


def shortened(line: str) -> str:
    """Return a line as a message shows it."""
    return line if len(line) < 80 else line[:77] + "..."


def _text(path: Path) -> str:
    """Return the text of a file, without a byte order mark."""
    content = _content(path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"{path}, line {line}: {not_utf8(error)}, or give it the ending of its format"
        raise TaskError(message) from None


def _content(path: Path) -> bytes:
    _check_file(path)
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as file:
            return file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TaskError(f"{path}: is no whole gzip file ({error}); name it without .gz, or copy it anew") from None


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise TaskError(f"{path}: no such file; correct the task's path")
    if not os.access(path, os.R_OK):
        raise TaskError(f"{path}: you may not read it; change its permissions, or correct the task's path")


def _read_jsonl(path: Path) -> Iterator[Row]:
    for where, line in read_lines(path):
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise TaskError(_no_object(where, line, f" ({error})")) from None
        if not isinstance(values, dict):
            raise TaskError(_no_object(where, line, ""))
        yield Row(where, values)


def _no_object(where: str, line: str, reason: str) -> str:
    return (
        f"{where}: needs a JSON object, not {shortened(line)}{reason}; such a file has one on each line: correct the"
        " line, or give the file the ending of its format"
    )


def _read_csv(path: Path) -> Iterator[Row]:
    text = _text(path)
    header = text.partition("\n")[0]
    yield from _separated(path, text, ";" if ";" in header and "," not in header else ",")


def _read_tsv(path: Path) -> Iterator[Row]:
    yield from _separated(path, _text(path), "\t")


def _separated(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    """Yield the rows below a header; quoted fields may hold line breaks, so that a row begins after the last one."""
    if "\0" in text:
        raise TaskError(f"{path}: is no text, since it has zero bytes; give the file the ending of its format")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        header = next(reader, [])
        if repeated := [name for name in header if name and header.count(name) > 1]:
            raise TaskError(
                f"{path}, line 1: has the column '{repeated[0]}' more than once; rename or remove the others"
            )
        line = reader.line_num + 1
        for fields in reader:
            where, line = f"{path}, line {line}", reader.line_num + 1
            if not fields:
                continue
            if len(fields) != len(header):
                raise TaskError(
                    f"{where}: has {len(fields)} fields, and the header {len(header)} ({', '.join(header)}); quote"
                    " fields that contain the separator"
                )
            yield Row(where, dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise TaskError(
            f"{path}, line {line}: {error}; put quotes around the whole field, and double those within it"
        ) from None


def _read_parquet(path: Path) -> Iterator[Row]:
    from pyarrow import ArrowInvalid  # here, because it takes a while to import
    from pyarrow.parquet import ParquetFile

    _check_file(path)
    number = 0
    try:
        for number, values in enumerate(rows_of(ParquetFile(path).iter_batches()), 1):
            yield Row(f"{path}, row {number}", values)
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}, row {number + 1}: {not_utf8(error, whole='a value')}") from None
    except (ArrowInvalid, OSError) as error:
        raise TaskError(f"{path}: is no Parquet file ({error}); give the file the ending of its format") from None


_READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
