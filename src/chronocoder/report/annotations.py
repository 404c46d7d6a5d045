"""What readers call features: a CSV file beside the configuration, which the report shows, edits and exports."""

import csv
import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from chronocoder.errors import ConfigError

logger = logging.getLogger(__name__)

COLUMNS = ("suite", "comparison", "variant", "seed", "feature", "label", "category", "note")
NUMBERS = ("seed", "feature")
DELIMITERS = ",;\t"
"""Spreadsheets separate cells by one of these, depending on the language of the machine."""
GUARDED = re.compile(r"'+[=+\-@\t\r\n]")
"""A text that a spreadsheet would take for a formula is written with an apostrophe before it."""

FeaturePlace = tuple[str, str, str, int, int]


class Annotation(NamedTuple):
    """What a reader says of a feature.

    Attributes:
        suite: name of the suite.
        comparison: name of the comparison.
        variant: name of the crosscoder variant.
        seed: of the crosscoder.
        feature: number in the dictionary.
        label: a few words, may be empty.
        category: of the reader's own scheme, may be empty.
        note: text of any length, may be empty.
        line: of the file, the first if the annotation has several.
    """

    suite: str
    comparison: str
    variant: str
    seed: int
    feature: int
    label: str
    category: str
    note: str
    line: int = 0

    @property
    def place(self) -> FeaturePlace:
        """What tells the feature from all others of an experiment."""
        return self[:5]

    @property
    def where(self) -> str:
        """The feature in words."""
        return f"{self.suite} · {self.comparison} · {self.variant} · seed {self.seed}, feature {self.feature}"


def read_annotations(path: Path) -> list[Annotation]:
    """Read annotations; rows without label, category and note are none.

    The file is as the report exports it, or as a spreadsheet saves that: separated by commas, semicolons or tabs,
    its columns in any order.

    Args:
        path: a CSV file in UTF-8, with or without a byte order mark.

    Raises:
        ConfigError: names the line that is malformed, or that is of the feature of another line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"annotations {path}: not UTF-8 ({error}); save the file as 'CSV UTF-8'") from None
    try:
        annotations = list(_parse(text))
    except ValueError as error:
        raise ConfigError(f"annotations {path}: {error}") from None
    lines: dict[FeaturePlace, int] = {}
    for one in annotations:
        if first := lines.get(one.place):
            raise ConfigError(f"annotations {path}: lines {first} and {one.line} are both of {one.where}; keep one")
        lines[one.place] = one.line
    return [one for one in annotations if one.label or one.category or one.note]


def warn_of_unknown(
    annotations: Sequence[Annotation], suite: str, dictionary_sizes: Mapping[tuple[str, str, int], int]
) -> None:
    """Warn of annotations of a suite whose feature is in no crosscoder of the report; they are kept, but not shown.

    Args:
        annotations: of this suite and of others.
        suite: name of the suite.
        dictionary_sizes: number of features by comparison, variant and seed.
    """
    for one in annotations:
        run = (one.comparison, one.variant, one.seed)
        if one.suite == suite and not 0 <= one.feature < dictionary_sizes.get(run, 0):
            logger.warning(
                "annotations, line %d: the report has no %s; correct or delete the line, which is not shown",
                one.line,
                one.where,
            )


def _parse(text: str) -> Iterator[Annotation]:
    records = _records(text)
    _, cells = next(records, (1, []))
    header = [name.strip() for name in cells]
    if sorted(header) != sorted(COLUMNS):
        raise ValueError(f"the columns are {', '.join(header) or 'missing'}; they have to be {', '.join(COLUMNS)}")
    return (_annotation(header, cells, line) for line, cells in records if any(cells))


def _records(text: str) -> Iterator[tuple[int, list[str]]]:
    """Give the line at which each record begins, and its cells."""
    delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            yield line, next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ValueError(f"line {line}: {error}; put texts in quotes, and double the quotes in them") from None


def _annotation(header: Sequence[str], cells: Sequence[str], line: int) -> Annotation:
    if len(cells) != len(header):
        raise ValueError(
            f"line {line} has {len(cells)} cells, not {len(header)}; put texts that hold separators in quotes"
        )
    by_name = {name: _unguarded(cell) for name, cell in zip(header, cells, strict=True)}
    for name in NUMBERS:
        if not by_name[name].strip().isdecimal():
            raise ValueError(f"line {line}: {name} '{by_name[name]}' is no whole number; correct it")
    seed, feature = (int(by_name[name]) for name in NUMBERS)
    texts = {name: by_name[name].strip() for name in COLUMNS if name not in NUMBERS}
    return Annotation(**texts, seed=seed, feature=feature, line=line)


def _unguarded(cell: str) -> str:
    return cell[1:] if GUARDED.match(cell) else cell
