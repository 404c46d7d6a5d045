"""The files of a corpus, and what is in them. Imports nothing heavy: the rules ask for the files too."""

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from chronocoder.config import CorpusSource, HubDataset, TextFiles, TokenFiles, files_at, is_pattern
from chronocoder.encodings import not_utf8, rows_of
from chronocoder.errors import CorpusError

TOKEN_FORMATS = (".npy", ".bin")
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_LINES = (".txt", ".jsonl", ".json")
_PARQUET_ROWS = 1024
_SHOWN = 8


class Record(NamedTuple):
    """A document as its file has it.

    Attributes:
        where: file and line or row, for messages.
        values: the text, or values by column.
    """

    where: str
    values: str | Mapping[str, Any]


class Line(NamedTuple):
    """A line of a file, or all of it.

    Attributes:
        where: for messages.
        content: its bytes.
        start: offset of the first of them in the file's text.
    """

    where: str
    content: bytes
    start: int = 0


def corpus_files(place: TextFiles | TokenFiles, key: str) -> list[Path]:
    """Return the files that a corpus is read from, in the order in which they are read.

    Args:
        place: where they are.
        key: of the corpus or its part in the configuration, for messages.

    Raises:
        CorpusError: there is none, or none of a format that can be read.
    """
    formats = _formats(place)
    found = files_at(place.path)
    if files := [path for path in found if _format_of(path) in formats]:
        return files
    if not found and not is_pattern(place.path) and not Path(place.path).is_dir():
        raise CorpusError(f"{place.path}: no such file; correct {key}.path")
    there = ", ".join(str(path) for path in found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
    compressed = f", nor that with {' or '.join(_COMPRESSIONS)}" if isinstance(place, TextFiles) else ""
    raise CorpusError(
        f"{place.path}: no file that ends in {', '.join(formats)}{compressed} (there are: {there or 'no files'});"
        f" correct {key}.path or {key}.kind"
    )


def local_files(place: CorpusSource) -> list[Path]:
    """Return the local files that a corpus is made of, or the path that it should have been; none of a remote dataset.

    Files of other formats in the same folder are not among them.
    """
    if isinstance(place, HubDataset):
        return [] if place.is_remote else files_at(place.dataset)
    return [path for path in files_at(place.path) if _format_of(path) in _formats(place)] or [Path(place.path)]


def most_tokens(files: Sequence[Path]) -> int | None:
    """Return a number of tokens that files cannot hold more than, or None where that takes reading them.

    A token, or the separator before a document, is at least a byte of a file that is not compressed.
    """
    if any(path.suffix not in _LINES for path in files):
        return None
    return sum(path.stat().st_size for path in files)


def read_records(path: Path, place: TextFiles, key: str) -> Iterator[Record]:
    """Yield the documents of a file, whose ending names its format and compression.

    Raises:
        CorpusError: the file is damaged, or no text in UTF-8; names the line where there is one.
    """
    yield from _READERS[_format_of(path)](path, place, key)


def _format_of(path: Path) -> str:
    """Return the ending that names a file's format, without that of its compression where it may have one."""
    name = Path(path.stem if path.suffix in _COMPRESSIONS else path.name)
    return name.suffix if name.suffix in _LINES or path.suffix not in _COMPRESSIONS else path.suffix


def _formats(place: TextFiles | TokenFiles) -> list[str]:
    return list(_READERS) if isinstance(place, TextFiles) else list(TOKEN_FORMATS)


def _read_text(path: Path, place: TextFiles, key: str) -> Iterator[Record]:
    if place.whole_files:
        with _open(path) as file:
            yield Record(str(path), _decoded(Line(str(path), b"".join(_chunks(file, path)))))
        return
    for line in _lines(path):
        yield Record(line.where, _decoded(line).strip())


def _read_jsonl(path: Path, place: TextFiles, key: str) -> Iterator[Record]:
    for line in _lines(path):
        if line.content.isspace():
            continue
        try:
            values = json.loads(_decoded(line))
        except json.JSONDecodeError as error:
            raise CorpusError(_no_object(line, f" ({error})")) from None
        if not isinstance(values, dict):
            raise CorpusError(_no_object(line, ""))
        yield Record(line.where, values)


def _no_object(line: Line, reason: str) -> str:
    return (
        f"{line.where}: needs a JSON object, not {_decoded(line).strip()[:60]!r}{reason}; such a file has one on each"
        " line: correct the line, or give the file the ending of its format"
    )


def _read_parquet(path: Path, place: TextFiles, key: str) -> Iterator[Record]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    wanted = [place.text_field, place.language_field, place.source_field]
    number = 0
    try:
        file = ParquetFile(path)
        there = file.schema_arrow.names
        columns = [name for name in dict.fromkeys(wanted) if name in there]
        if place.text_field not in columns:
            raise missing_column(str(path), place.text_field, there, f"{key}.text_field")
        for number, values in enumerate(rows_of(file.iter_batches(_PARQUET_ROWS, columns=columns)), 1):
            yield Record(f"{path}, row {number}", values)
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path}, row {number + 1}: {not_utf8(error, whole='a value')}") from None
    except (ArrowInvalid, OSError) as error:
        raise CorpusError(f"{path}: cannot be read as Parquet ({error}); copy it anew, or correct its ending") from None


def missing_column(where: str, column: str, there: Sequence[str], key: str) -> CorpusError:
    """Return the error of a key or column that does not exist, with those that do."""
    return CorpusError(f"{where}: has no '{column}', only {', '.join(there) or 'nothing'}; set {key} to one of them")


def _lines(path: Path) -> Iterator[Line]:
    """Yield the lines of a file, without a byte order mark."""
    with _open(path) as file:
        number = start = 0
        try:
            for number, content in enumerate(file, 1):
                text = content if number > 1 else content.removeprefix(b"\xef\xbb\xbf")
                yield Line(f"{path}, line {number}", text, start + len(content) - len(text))
                start += len(content)
        except OSError as error:
            raise _damaged(path, error, f" after line {number}") from None


def _chunks(file: IO[bytes], path: Path) -> Iterator[bytes]:
    try:
        yield from iter(lambda: file.read(1 << 20), b"")
    except OSError as error:
        raise _damaged(path, error, "") from None


def _damaged(path: Path, error: OSError, place: str) -> CorpusError:
    what = f"is no whole {path.suffix} file" if path.suffix in _COMPRESSIONS else "cannot be read"
    return CorpusError(f"{path}: {what}{place} ({error}); copy it anew, or correct its ending")


def _open(path: Path) -> IO[bytes]:
    if path.suffix not in _COMPRESSIONS:
        return path.open("rb")

    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(path), compression=_COMPRESSIONS[path.suffix]), 1 << 20)


def _decoded(line: Line) -> str:
    try:
        return line.content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{line.where}: {not_utf8(error, line.start)}") from None


_READERS: dict[str, Callable[[Path, TextFiles, str], Iterator[Record]]] = {
    ".txt": _read_text,
    ".jsonl": _read_jsonl,
    ".json": _read_jsonl,
    ".parquet": _read_parquet,
}
