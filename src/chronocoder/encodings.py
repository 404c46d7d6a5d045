"""What is said of files whose text is not UTF-8, the same of corpora and of tasks. Imports nothing heavy."""

from collections.abc import Iterable, Iterator
from typing import Any

_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_WESTERN = "WINDOWS-1252"


def not_utf8(error: UnicodeDecodeError, start: int = 0, whole: str = "the text") -> str:
    """Return what is wrong with bytes that could not be decoded, and the remedy, after the words that name their place.

    Args:
        error: of decoding them.
        start: offset of the first of them.
        whole: what offsets are counted in; of a compressed file that is the text in it.
    """
    offset = start + error.start
    found = _MARKS.get(error.object[:2], "") if not offset else ""
    perhaps = found or f"perhaps {_WESTERN}"
    return (
        f"is no UTF-8 text (byte 0x{error.object[error.start]:02x} at offset {offset} of {whole}; it is {perhaps});"
        f" save the file as UTF-8, for instance by iconv -f {found or _WESTERN} -t UTF-8"
    )


def rows_of(batches: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Yield the rows of Arrow's record batches; where a text is not UTF-8, those before it.

    Raises:
        UnicodeDecodeError: of the next row.
    """
    for batch in batches:
        try:
            rows = batch.to_pylist()
        except UnicodeDecodeError:
            rows = (batch.slice(number, 1).to_pylist()[0] for number in range(batch.num_rows))
        yield from rows
