"""Minimal pairs as they are read: tables, published forms, folders, labels, and what is said of bad input."""

import csv
import gzip
import io
import json
import logging
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from pydantic import TypeAdapter, ValidationError

from chronocoder.config import FileTask, NurseryTask, Task
from chronocoder.errors import TaskError
from chronocoder.tasks.pairs import MinimalPair
from chronocoder.tasks.presets import split_sentences
from chronocoder.tasks.sampling import draw_pairs
from chronocoder.tasks.sources import TaskPairs, read_pairs
from chronocoder.tasks.tables import _READERS, TABLE_FORMATS, read_table

BLIMP = {"sentence_good": "The cats annoy Tim.", "sentence_bad": "The cats annoys Tim."}
GIVEN = {"prefix": "l\u2019", "right": "ami", "wrong": "amis"}
WHOLE = {"prefix": "a", "right": " b", "wrong": " c", "counterfactual": "d", "condition": "x"}
ROWS = [
    {"sen": "a\u2028b c", "wrong": "a\u2028b d", "kind": "x"},
    {"sen": 'say "no", now', "wrong": 'say "yes", now', "kind": "y; z"},
    {"sen": "这 书", "wrong": "这 猫", "kind": "x"},
]


def task_of(**settings: Any) -> FileTask:
    task = TypeAdapter(Task).validate_python(settings)
    assert isinstance(task, FileTask)
    return task


def read(**settings: Any) -> list[MinimalPair]:
    return found(**settings).pairs


def found(**settings: Any) -> TaskPairs:
    return read_pairs("t", task_of(**settings))


def jsonl(path: Path, *rows: dict[str, Any] | str) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def separated(rows: Sequence[dict[str, str]], delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def parquet(rows: Sequence[dict[str, str]]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), sink, row_group_size=2)
    return sink.getvalue()


def lines(rows: Sequence[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


FILES: dict[str, Callable[[Sequence[dict[str, str]]], bytes]] = {
    "t.jsonl": lines,
    "t.json": lines,
    "t.csv": lambda rows: separated(rows, ","),
    "semicolons.csv": lambda rows: separated(rows, ";"),
    "mark.csv": lambda rows: b"\xef\xbb\xbf" + separated(rows, ","),
    "mark.jsonl": lambda rows: b"\xef\xbb\xbf" + lines(rows),
    "crlf.jsonl": lambda rows: lines(rows).replace(b"\n", b"\r\n"),
    "t.tsv": lambda rows: separated(rows, "\t"),
    "t.parquet": parquet,
    "t.tsv.gz": lambda rows: gzip.compress(separated(rows, "\t")),
    "t.jsonl.gz": lambda rows: gzip.compress(lines(rows)),
    "UPPER.CSV": lambda rows: separated(rows, ","),
}


@pytest.mark.parametrize("name", FILES)
def test_all_formats_hold_the_same_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FILES[name](ROWS))
    assert [row.values for row in read_table(tmp_path / name)] == ROWS
    columns = {"good": "sen", "bad": "wrong", "condition": "kind"}
    assert read(kind="table", path=str(tmp_path / name), columns=columns) == [
        MinimalPair("a\u2028b", " c", " d", "x"),
        MinimalPair("say", ' "no", now', ' "yes", now', "y; z"),
        MinimalPair("这", " 书", " 猫", "x"),
    ]


def test_every_format_has_a_reader() -> None:
    assert tuple(_READERS) == TABLE_FORMATS


def test_rows_of_separated_files_are_counted_by_line_even_after_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('good,bad\n"a\nb c","a\nb d"\n\ne f,e g\n')
    assert [row.where for row in read_table(path)] == [f"{path}, line 2", f"{path}, line 6"]


@pytest.mark.parametrize(
    ("columns", "row", "pair"),
    [
        (
            {"good": "g", "bad": "b", "condition": "n", "language": "l", "phenomenon": "p", "counterfactual": "c"},
            {"g": " a b ", "b": "a c", "n": 3, "l": None, "p": True, "c": "d", "more": [1]},
            MinimalPair("a", " b", " c", "3", "d", phenomenon="True"),
        ),
        (
            {"prefix": "x", "right": "y", "wrong": "z", "language": "l"},
            {"x": "a ", "y": "b", "z": "c", "l": "fr"},
            MinimalPair("a ", "b", "c", language="fr"),
        ),
    ],
)
def test_table_columns_are_those_that_the_config_names(
    tmp_path: Path, columns: dict[str, str], row: dict[str, Any], pair: MinimalPair
) -> None:
    assert read(kind="table", path=jsonl(tmp_path / "a.jsonl", row), columns=columns) == [pair]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "a.csv", "columns": {"good": "g"}}, "columns\n.*names good; name either good and bad, or prefix,"),
        ({"path": "a.csv", "columns": {}}, "names no text; name either good and bad, or prefix, right and wrong"),
        ({"path": "a.csv", "columns": {"good": "g", "bad": "b", "right": "r"}}, "names good, bad, right; name either"),
        ({"columns": {"good": "g", "bad": "b"}}, "needs either path or dataset, and has neither; give one of them"),
        ({"path": "a", "dataset": "d/e", "columns": {"good": "g", "bad": "b"}}, "needs either .* and has both; give"),
        ({"path": "a", "names": ["x"], "columns": {"good": "g", "bad": "b"}}, "name and names are of a dataset, and"),
        (
            {"dataset": "d/e", "name": "x", "names": ["y"], "columns": {"good": "g", "bad": "b"}},
            r"has both name 'x' and names \['y'\]; keep one of them",
        ),
        ({"path": "a", "column": "g", "columns": {"good": "g", "bad": "b"}}, "column\n.*Extra inputs"),
    ],
)
def test_contradictory_settings_of_a_table_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        task_of(kind="table", **settings)


@pytest.mark.parametrize(
    ("good", "bad", "expected"),
    [
        ("The cats annoy Tim.", "The cats annoys Tim.", ("The cats", " annoy Tim.", " annoys Tim.")),
        ("The cat sees", "The dog sees", ("The", " cat sees", " dog sees")),
        ("Cats see Tim.", "Cat sees Tim.", ("", "Cats see Tim.", "Cat sees Tim.")),
        ("the cat sees", "the cat", ("the cat", " sees", "")),
        ("the cat", "the cats", ("the", " cat", " cats")),
        ("a  b", "a  c", ("a ", " b", " c")),
        ("a\u00a0bc", "a\u00a0bd", ("a", "\u00a0bc", "\u00a0bd")),
        ("王女士被抓了。", "王女士被抓。", ("王女士被抓", "了。", "。")),
        ("书很好", "猫很好", ("", "书很好", "猫很好")),
        ("他 喜欢书", "他 喜欢猫", ("他", " 喜欢书", " 喜欢猫")),
        ("x", "xy", ("x", "", "y")),
    ],
)
def test_sentences_are_split_where_they_part_but_not_within_words(
    good: str, bad: str, expected: tuple[str, str, str]
) -> None:
    pair = split_sentences(good, bad, "")
    assert (pair.prefix, pair.right, pair.wrong) == expected and (pair.good, pair.bad) == (good, bad)


def test_splitting_agrees_with_comparing_words() -> None:
    """Over all short texts of two letters and spaces: the prefix is what two lists of words share, as it is spelt."""
    texts = ["".join(letters) for length in range(1, 6) for letters in product("ab ", repeat=length)]
    texts = [text for text in texts if text == text.strip() and "  " not in text and " " in text]
    for good, bad in product(texts, texts):
        if good != bad:
            shared = [one for one, other in zip(good.split(), bad.split(), strict=False) if one == other]
            words = zip(good.split(), bad.split(), strict=False)
            count = next((place for place, (one, other) in enumerate(words) if one != other), len(shared))
            assert split_sentences(good, bad, "").prefix == " ".join(good.split()[:count])


def test_blimp_flags_say_which_metrics_ask_what_the_set_is_about(tmp_path: Path) -> None:
    flags = {"one_prefix_method": True, "two_prefix_method": False, "simple_LM_method": True}
    row = {**BLIMP, **flags, "linguistics_term": "subject_verb_agreement", "field": "syntax", "pairID": "0"}
    path = jsonl(tmp_path / "a.jsonl", row, {**BLIMP, "two_prefix_method": "True", "sentence_bad": "The cats x."})
    assert read(kind="blimp", path=path) == [
        MinimalPair(
            "The cats",
            " annoy Tim.",
            " annoys Tim.",
            phenomenon="subject_verb_agreement",
            asks=("next_token", "sentence"),
        ),
        MinimalPair("The cats", " annoy Tim.", " x.", asks=("continuation",)),
    ]


def clams(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return str(path)


TWINS = "True\tle chat dort\nFalse\tle chat dorment\nFalse\tles chat dort\n\nTrue\tun an\nFalse\tune an"


def test_clams_sentences_are_paired_with_each_false_twin(tmp_path: Path) -> None:
    path = clams(tmp_path / "fr_evalset" / "simple_agrmt.txt", TWINS)
    labels = {"language": "fr", "phenomenon": "simple_agrmt"}
    assert read(kind="clams", path=path) == [
        MinimalPair("le chat", " dort", " dorment", **labels),
        MinimalPair("", "le chat dort", "les chat dort", **labels),
        MinimalPair("", "un an", "une an", **labels),
    ]
    assert found(kind="clams", path=path).language == "fr"
    other = clams(tmp_path / "own" / "a.txt", TWINS)
    assert found(kind="clams", path=other).language == ""
    assert {pair.language for pair in read(kind="clams", path=other, language="french")} == {"french"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "True\ta b\nfalse\ta c\n",
            r"a\.txt, line 2: needs True or False, a tab and a sentence, not 'false\ta c'; correct the line,"
            r" or the task's kind if the file is no CLAMS set",
        ),
        ("True a b\n", r"a\.txt, line 1: needs True or False, a tab and a sentence, not 'True a b'"),
        ("True " + "a" * 99, r"not 'True a{72}\.\.\.'; correct"),
        ("True\t \n", r"a\.txt, line 1: needs True or False"),
        ("False\ta b\n", r"a\.txt, line 1: a False sentence comes before any True one; begin with the True one"),
        ("True\ta b\nTrue\ta c\n", r"a\.txt, line 1: no False sentence follows this True one; remove or complete"),
        ("True\ta b\nFalse\ta c\nTrue\ta d\n", r"a\.txt, line 3: no False sentence follows this True one"),
        ("True\ta b\nFalse\ta b\n", r"a\.txt, line 2: right and wrong sentence are the same: 'a b'"),
    ],
)
def test_unusable_line_of_clams_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        read(kind="clams", path=clams(tmp_path / "a.txt", text))


def test_multiblimp_is_read_with_the_language_of_its_folder(tmp_path: Path) -> None:
    rows = [{"sen": "He sees.", "wrong_sen": "He see.", "phenomenon": "SV-#", "prefix": "He", "wo": "SV"}]
    (tmp_path / "eng").mkdir()
    (tmp_path / "eng" / "data.tsv").write_bytes(separated(rows, "\t"))
    expected = MinimalPair("He", " sees.", " see.", language="eng", phenomenon="SV-#")
    assert read(kind="multiblimp", path=str(tmp_path / "eng" / "data.tsv")) == [expected]
    (tmp_path / "own.tsv").write_bytes(separated(rows, "\t"))
    assert found(kind="multiblimp", path=str(tmp_path / "own.tsv")).language == ""
    assert found(kind="multiblimp", path=str(tmp_path / "own.tsv"), language="en").language == "en"


def test_dataset_is_read_like_a_file(tmp_path: Path) -> None:
    """A local directory in the form of a dataset on the hub, with two configurations."""
    for name, verb in (("eng", "sees"), ("fra", "voit")):
        (tmp_path / name).mkdir()
        rows = [{"sen": f"He {verb}.", "wrong_sen": "He see.", "phenomenon": "SV-#"}]
        (tmp_path / name / "train.tsv").write_bytes(separated(rows, "\t"))
    configurations = [{"config_name": name, "data_files": f"{name}/*.tsv"} for name in ("eng", "fra")]
    for entry in configurations:
        entry["sep"] = "\t"
    (tmp_path / "README.md").write_text(f"---\nconfigs: {json.dumps(configurations)}\n---\n")
    pairs = found(kind="multiblimp", dataset=str(tmp_path), name="fra")
    assert pairs.language == "fra" and [pair.good for pair in pairs.pairs] == ["He voit."]
    with pytest.raises(
        TaskError, match=r"configuration 'deu', split 'train': cannot be read .*eng.*; correct the task's"
    ):
        read(kind="multiblimp", dataset=str(tmp_path), name="deu")
    with pytest.raises(TaskError, match=r"split 'test': cannot be read .*train.*; correct the task's dataset, name or"):
        read(kind="multiblimp", dataset=str(tmp_path), name="eng", split="test")
    with pytest.raises(TaskError, match=r"configuration 'eng', split 'train', row 1: no column 'sentence_good'"):
        read(kind="blimp", dataset=str(tmp_path), name="eng")


def test_pairs_file_is_read_as_it_stands(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", GIVEN, "", WHOLE)
    assert read(kind="pairs", path=path) == [
        MinimalPair("l\u2019", "ami", "amis"),
        MinimalPair("a", " b", " c", "x", "d"),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"prefix": "a", "rigth": "b"}',
            r"unknown key 'rigth'; remove it or correct its spelling: a pair has prefix, ",
        ),
        ('{"prefix": "a", "right": " b"}', r"'wrong' is missing; add it: a pair has prefix, right, wrong \(and where"),
        ('{"prefix": "a", "right": 5, "wrong": " c"}', r"'right' is 5; give text, or leave out what is not required"),
        (json.dumps({**WHOLE, "counterfactual": None}), r"'counterfactual' is null; give text, or leave out"),
        (
            '{"prefix": "a", ',
            r"needs a JSON object, not \{\"prefix\": \"a\",  \(.*column.*\); such a file has one on each",
        ),
        ('["a", "b", "c"]', r'needs a JSON object, not \["a", "b", "c"\]; such a file has one on each line: correct'),
        (
            json.dumps({**GIVEN, "prefix": "", "right": ""}),
            r"one sentence is empty, the other is 'amis'; complete or rem",
        ),
        (json.dumps({**GIVEN, "wrong": "ami"}), r"right and wrong continuation are the same: 'ami'; remove or correct"),
    ],
)
def test_unusable_line_of_a_pairs_file_is_named_with_a_remedy(tmp_path: Path, line: str, message: str) -> None:
    path = jsonl(tmp_path / "a.jsonl", GIVEN, line)
    with pytest.raises(TaskError, match=r"a\.jsonl, line 2: " + message):
        read(kind="pairs", path=path)


TABLE = {"kind": "table", "columns": {"good": "good", "bad": "bad", "condition": "condition"}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            b'{"good": "a b", "bad": "a c"}\n',
            r"a\.jsonl, line 1: no column 'condition'; there are good, bad: ",
        ),
        (
            "a.csv",
            b"good;bad\na b;a c\n",
            r"a\.csv, line 2: no column 'condition'; there are good, bad: name the right",
        ),
        (
            "a.tsv",
            b"good,bad\na,b\n",
            r"a\.tsv, line 2: no column 'good'; there are good,bad: name the right one in `col",
        ),
        ("a.parquet", parquet([{"a": "b"}]), r"a\.parquet, row 1: no column 'good'; there are a: name the right one"),
        (
            "a.jsonl",
            b"good,bad\na,b\n",
            r"a\.jsonl, line 1: needs a JSON object, not good,bad .* the ending of its format",
        ),
        ("a.parquet", b"good,bad\na,b\n", r"a\.parquet: is no Parquet file \(.*\); give the file the ending of its"),
        (
            "a.csv",
            parquet([{"a": "b"}]),
            r"a\.csv: is no text, since it has zero bytes|a\.csv, line .* is no UTF-8 text",
        ),
        ("a.csv", b"good,bad\0\n", r"a\.csv: is no text, since it has zero bytes; give the file the ending of its"),
        ("a.csv.gz", b"good,bad\na,b\n", r"a\.csv\.gz: is no whole gzip file \(.*\); name it without \.gz, or copy it"),
        ("a.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9], r"a\.jsonl\.gz: is no whole gzip file"),
        (
            "a.xlsx",
            b"",
            r"a\.xlsx: no table has the ending '\.xlsx'; give a file in \.jsonl, \.json, \.csv, \.tsv,"
            r" \.parquet, or correct the task's kind",
        ),
        ("a.jsonl", b"", r"a\.jsonl: holds no pairs; give a table with a pair in each row"),
        ("a.jsonl", b" \n\n", r"a\.jsonl: holds no pairs"),
        ("a.csv", b"", r"a\.csv: holds no pairs"),
        ("a.csv", b"good,bad,condition\n", r"a\.csv: holds no pairs"),
        ("a.csv", b"good,bad,condition\na,b,c\nd,e\n", r"a\.csv, line 3: has 2 fields, and the header 3 \(good, bad, "),
        (
            "a.csv",
            b'good,bad,condition\n"a"x,b,c\n',
            r"a\.csv, line 2: .*; put quotes around the whole field, and double",
        ),
        ("a.csv", b'good,bad,condition\na,b,c\n"a,b,c\n', r"a\.csv, line 3: unexpected end of data; put quotes around"),
        (
            "a.csv",
            b"good,bad,condition\na b,a b,c\n",
            r"a\.csv, line 2: right and wrong sentence are the same: 'a b'; rem",
        ),
        (
            "a.csv",
            b"good,bad,condition\na b, ,c\n",
            r"a\.csv, line 2: one sentence is empty, the other is 'a b'; complete or remove the pair",
        ),
        (
            "a.csv",
            b"good,bad,bad\na b,a c,a d\n",
            r"a\.csv, line 1: has the column 'bad' more than once; rename or rem",
        ),
        ("a.jsonl", b'{"good": 5, "bad": "a", "condition": ""}', r"a\.jsonl, line 1: 'good' is 5; give text"),
        (
            "a.jsonl",
            b'{"good": "a", "bad": "b", "condition": [1]}',
            r"line 1: 'condition' is \[1\]; give text or a number",
        ),
        ("a.jsonl", None, r"a\.jsonl: no such file; correct the task's path"),
        ("a.parquet", None, r"a\.parquet: no such file; correct the task's path"),
    ],
)
def test_unusable_file_is_named_with_a_remedy(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError, match=message):
        read(path=str(tmp_path / name), **TABLE)


def test_duplicates_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    other = {**BLIMP, "linguistics_term": "x"}
    pairs = found(kind="blimp", path=jsonl(tmp_path / "a.jsonl", BLIMP, other, BLIMP, BLIMP))
    assert len(pairs.pairs) == 2 and pairs.duplicates == 2 and pairs.not_drawn == 0
    assert "task t: 2 pairs from" in caplog.text and "2 duplicates left out, 0 not drawn" in caplog.text


def test_language_and_phenomenon_are_those_of_all_pairs_or_of_the_config(tmp_path: Path) -> None:
    rows = [
        {"good": f"a {number}", "bad": "a x", "lang": language, "what": what}
        for number, (language, what) in enumerate([("en", "p"), ("en", "q"), ("fr", "p")])
    ]
    path = jsonl(tmp_path / "a.jsonl", *rows)
    plain = {"kind": "table", "path": path, "columns": {"good": "good", "bad": "bad"}}
    labelled = {**plain, "columns": {**plain["columns"], "language": "lang", "phenomenon": "what"}}
    everything = found(**labelled)
    assert (everything.language, everything.phenomenon) == ("", "") and len(everything.pairs) == 3
    english = found(**labelled, language="en")
    assert (english.language, english.phenomenon) == ("en", "") and len(english.pairs) == 2
    both = found(**labelled, language="en", phenomenon="q")
    assert (both.language, both.phenomenon) == ("en", "q") and [pair.good for pair in both.pairs] == ["a 1"]
    assert found(**labelled, language="fr").phenomenon == "p"
    given = found(**plain, language="de", phenomenon="agreement")
    assert (given.language, given.phenomenon) == ("de", "agreement") and len(given.pairs) == 3
    assert {(pair.language, pair.phenomenon) for pair in given.pairs} == {("de", "agreement")}
    message = r"a\.jsonl: no pair has language 'de'; there are en, fr: set the task's language to one of them, or leave"
    with pytest.raises(TaskError, match=message):
        read(**labelled, language="de")
    with pytest.raises(
        TaskError, match=r"a\.jsonl: no pair has phenomenon 'q'; there are p: set the task's phenomenon"
    ):
        read(**labelled, language="fr", phenomenon="q")


def test_generated_pairs_have_the_language_of_the_grammar() -> None:
    generated = read_pairs("t", NurseryTask(kind="nursery", task="agreement_simple", language="english", pairs=3))
    assert len(generated.pairs) == 3 and all(pair.counterfactual for pair in generated.pairs)
    assert generated.language == "english" and generated.phenomenon == "" and generated.duplicates == 0
    named = NurseryTask(kind="nursery", task="agreement_simple", language="english", phenomenon="agreement")
    assert read_pairs("t", named).phenomenon == "agreement"


GROUPS = {("en", "p", ""): 50, ("en", "p", "c"): 7, ("fr", "p", ""): 3, ("fr", "q", ""): 20}


def grouped() -> list[MinimalPair]:
    pairs = [
        MinimalPair("a", f" {number}", " x", condition, language=language, phenomenon=phenomenon)
        for (language, phenomenon, condition), count in GROUPS.items()
        for number in range(count)
    ]
    return pairs[::2] + pairs[1::2]


def group_of(pair: MinimalPair) -> tuple[str, str, str]:
    return pair.language, pair.phenomenon, pair.condition


@pytest.mark.parametrize("seed", [0, 1])
def test_draw_is_balanced_stable_and_in_order(seed: int) -> None:
    pairs = grouped()
    previous: set[MinimalPair] = set()
    for limit in range(1, len(pairs) + 3):
        drawn = draw_pairs(pairs, limit, seed)
        assert drawn == [pair for pair in pairs if pair in set(drawn)] and len(drawn) == min(limit, len(pairs))
        assert previous <= set(drawn), "a larger limit keeps what was drawn"
        previous = set(drawn)
        counts = {group: sum(group_of(pair) == group for pair in drawn) for group in GROUPS}
        most = max(counts.values())
        assert all(count in (most, most - 1, GROUPS[group]) for group, count in counts.items())
    assert draw_pairs(pairs, None, seed) == pairs


def test_draw_depends_on_the_seed_and_hardly_on_what_else_the_file_holds() -> None:
    pairs = [MinimalPair("a", f" {number}", " x") for number in range(1000)]
    drawn = set(draw_pairs(pairs, 100, 0))
    assert drawn == set(draw_pairs(pairs[::-1], 100, 0)) != set(draw_pairs(pairs, 100, 1))
    assert len(drawn & set(draw_pairs(pairs, 100, 1))) < 30
    assert len(drawn & set(draw_pairs(pairs[10:], 100, 0))) > 90
    first_half = sum(int(pair.right) < 500 for pair in drawn)
    assert 30 < first_half < 70, "not the first lines"


def test_limit_draws_after_duplicates_and_other_languages_are_left_out(tmp_path: Path) -> None:
    rows = [
        {"prefix": "a", "right": f" {n % 40}", "wrong": " x", "language": "en" if n % 2 else "fr"} for n in range(80)
    ]
    path = jsonl(tmp_path / "a.jsonl", *rows)
    pairs = found(kind="pairs", path=path, language="en", limit=5, sample_seed=3)
    assert len(pairs.pairs) == 5 and pairs.not_drawn == 15 and pairs.duplicates == 20
    assert set(pairs.pairs) <= set(found(kind="pairs", path=path, language="en", limit=9, sample_seed=3).pairs)
    assert found(kind="pairs", path=path, limit=40, sample_seed=3).not_drawn == 0
