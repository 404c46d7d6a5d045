import csv
import logging
from pathlib import Path

import pytest
from report_stores import six_features, toy_inputs

from chronocoder.errors import ConfigError
from chronocoder.report.annotations import COLUMNS, Annotation, read_annotations, warn_of_unknown
from chronocoder.report.inputs import RunKey

HEADER = ",".join(COLUMNS)
PLACE = "toy,pair,l1,0"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "annotations.csv"


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join((HEADER, *lines, "")), encoding="utf-8")
    return path


def test_texts_come_back_as_a_spreadsheet_saves_them(path: Path) -> None:
    texts = ('é, “quoted” "twice"', "a;b\tc", "first\nsecond")
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([COLUMNS, ("toy", "pair", "l1", 0, 3, *texts), [""] * 8])
    assert read_annotations(path) == [Annotation("toy", "pair", "l1", 0, 3, *texts, 2)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_any_delimiter_and_order_of_columns_will_do(path: Path, delimiter: str) -> None:
    values = dict(zip(COLUMNS, ("toy", "pair", "l1", 0, 3, "label", "", ""), strict=True))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, sorted(COLUMNS), delimiter=delimiter)
        writer.writeheader()
        writer.writerow(values)
    assert read_annotations(path) == [Annotation(*values.values(), 2)]


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("'=1+1", "=1+1"),
        ("''=1", "'=1"),
        ("'tis", "'tis"),
        ("'-", "-"),
        ("'@x", "@x"),
        ("=1+1", "=1+1"),
        ("' =", "' ="),
    ],
)
def test_guarded_formulas_come_back_as_they_were(path: Path, cell: str, text: str) -> None:
    (one,) = read_annotations(written(path, f"{PLACE},3,{cell},,"))
    assert one.label == text


def test_lines_are_counted_where_notes_have_several(path: Path) -> None:
    path = written(path, f'{PLACE},3,,,"one\n\ntwo"', "", f"{PLACE},4,b,,", f"{PLACE},5,,,")
    assert [(one.feature, one.line) for one in read_annotations(path)] == [(3, 2), (4, 6)]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([f"{PLACE},3,a,"], "line 2 has 7 cells, not 8; put texts that hold separators in quotes"),
        ([f"{PLACE},x,a,,"], "line 2: feature 'x' is no whole number; correct it"),
        (["toy,pair,l1,-1,3,a,,"], "line 2: seed '-1' is no whole number; correct it"),
        (
            [f"{PLACE},3,a,,", f"{PLACE},3,b,,"],
            "lines 2 and 3 are both of toy · pair · l1 · seed 0, feature 3; keep one",
        ),
        ([f'{PLACE},3,a,,"never closed'], "line 2: unexpected end of data; put texts in quotes, and double the quotes"),
    ],
)
def test_wrong_lines_are_named(path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"annotations {path}: {message}"):
        read_annotations(written(path, *lines))


@pytest.mark.parametrize(("text", "found"), [("", "missing"), ("suite,label\n", "suite, label")])
def test_wrong_columns_are_named(path: Path, text: str, found: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"the columns are {found}; they have to be suite, comparison, variant"):
        read_annotations(path)


def test_another_encoding_is_an_error(path: Path) -> None:
    path.write_bytes(f"{HEADER}\n{PLACE},3,é,,\n".encode("cp1252"))
    with pytest.raises(ConfigError, match="not UTF-8 .*; save the file as 'CSV UTF-8'"):
        read_annotations(path)


def test_unknown_features_are_warned_of_by_line(caplog: pytest.LogCaptureFixture) -> None:
    places = [("toy", "pair", 5), ("toy", "pair", 6), ("toy", "trio", 0), ("other", "trio", 0)]
    annotations = [
        Annotation(suite, comparison, "l1", 0, feature, "a", "", "", line)
        for line, (suite, comparison, feature) in enumerate(places, start=2)
    ]
    with caplog.at_level(logging.WARNING):
        warn_of_unknown(annotations, "toy", {RunKey("pair", "l1", 0): 6})
    remedy = "; correct or delete the line, which is not shown"
    assert [record.getMessage() for record in caplog.records] == [
        f"annotations, line 3: the report has no toy · pair · l1 · seed 0, feature 6{remedy}",
        f"annotations, line 4: the report has no toy · trio · l1 · seed 0, feature 0{remedy}",
    ]


def test_a_report_knows_what_its_features_are_called() -> None:
    inputs = toy_inputs(six_features())
    one = Annotation("toy", "pair", "l1", 0, 3, "plural", "", "")
    annotated = type(inputs)(**{**vars(inputs), "annotations": [one, one._replace(suite="other", feature=4)]})
    key = inputs.runs[0].key
    assert [annotated.annotation(key, feature) for feature in (3, 4)] == [one, None]
    assert key.slug == "pair-l1-seed0"
