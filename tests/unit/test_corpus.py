"""Corpora of every kind against a slow oracle: the same sequences, however they are read and interrupted."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow
import pyarrow.parquet
import pytest
import xarray as xr
from hub_server import hub_server
from pydantic import TypeAdapter, ValidationError
from transformers import PreTrainedTokenizerFast

from chronocoder.config import Corpus, CorpusSettings
from chronocoder.errors import CorpusError
from chronocoder.stores import load_store, write_blocks
from chronocoder.suites.corpora import build as building
from chronocoder.suites.corpora import documents as reading
from chronocoder.suites.corpora import encoding, state
from chronocoder.suites.corpora.build import build_corpus
from chronocoder.suites.corpora.encoding import Batch, encode_texts
from chronocoder.suites.corpora.files import local_files
from chronocoder.suites.corpora.parts import shares
from chronocoder.suites.nursery.grammar import hash_share, sentences_by_language
from chronocoder.suites.packing import Packer, mixed, pack_documents, pack_languages

SIZES = {"train_tokens": 400, "validation_tokens": 100, "sequence_length": 10}
SHARE = 0.2
SCRIPT = Path(__file__).parents[2] / "scripts/build_corpus.py"
Built = dict[str, xr.Dataset]
Build = Callable[..., Built]


def settings_of(**values: Any) -> CorpusSettings:
    settings: CorpusSettings = TypeAdapter(Corpus).validate_python({**SIZES, **values})
    return settings


@pytest.fixture(scope="session")
def tokenizer_path(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def build(tmp_path: Path, tokenizer_path: Path) -> Build:
    """Return a function that builds a corpus and reads it."""

    def run(place: str = "built", languages: Sequence[str] = (), processes: int = 1, **values: Any) -> Built:
        outputs = {"train": tmp_path / place / "train.zarr", "validation": tmp_path / place / "validation.zarr"}
        unfinished = tmp_path / place / "state"
        build_corpus(settings_of(**values), tokenizer_path, outputs, unfinished, languages, processes)
        assert not unfinished.exists()
        return {split: load_store(path) for split, path in outputs.items()}

    return run


def texts(count: int, noun: str = "cat") -> list[str]:
    return [f"the {noun} number {number} sees the dogs and the boys" for number in range(count)]


def write(path: Path, documents: Sequence[str], **columns: Sequence[str]) -> str:
    """Write documents in the format and compression that a path's ending names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = {"text": documents, **columns}
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(table), path)
        return str(path)
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    lines = documents if ".txt" in path.name else [json.dumps(row) for row in rows]
    compression = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
    with pyarrow.output_stream(str(path), compression=compression) as file:
        file.write(("\n".join(lines) + "\n").encode())
    return str(path)


def of_split(documents: Sequence[str], split: str) -> list[str]:
    return [text for text in documents if (hash_share(text.strip()) < SHARE) == (split == "validation")]


def packed(documents: Sequence[str], tokenizer: PreTrainedTokenizerFast, length: int = 10) -> list[list[int]]:
    """Pack documents one token at a time."""
    stream: list[int] = []
    for text in documents:
        stream.append(0)
        for token_id in tokenizer(text, add_special_tokens=False)["input_ids"]:
            if len(stream) % length == 0:
                stream.append(0)
            stream.append(token_id)
    return [stream[start : start + length] for start in range(0, len(stream) - length + 1, length)]


def assert_packs(built: Built, documents: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> None:
    for split, count in (("train", 40), ("validation", 10)):
        expected = packed(of_split(documents, split), tokenizer)[:count]
        assert built[split]["token_ids"].values.tolist() == expected and len(expected) == count


def assert_same(one: Built, other: Built) -> None:
    for split in ("train", "validation"):
        xr.testing.assert_equal(one[split], other[split])


# Packing


def test_packing_keeps_every_token_in_order() -> None:
    documents = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [1]]
    rows = [list(row) for row in pack_documents(documents, 0, 5)]
    assert rows == [[0, 1, 2, 3, 0], [0, 4, 5, 6, 7], [0, 8, 9, 0, 1]]


def test_cut_packing_begins_no_sequence_within_a_document() -> None:
    documents = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [1, 2], [3, 4]]
    rows = [list(row) for row in pack_documents(documents, 0, 6, cut=True)]
    assert rows == [[0, 1, 2, 3, 0, 4], [0, 1, 2, 0, 3, 4]]


@pytest.mark.parametrize("cut", [False, True])
def test_a_packer_goes_on_with_what_is_open(cut: bool) -> None:
    generator = np.random.default_rng(0)
    documents = [generator.integers(1, 9, size=length) for length in generator.integers(0, 25, size=60)]
    whole = [row.tolist() for row in pack_documents(documents, 0, 7, cut)]
    for stop in range(0, 60, 7):
        first = Packer(0, 7, cut)
        rows = [row.tolist() for document in documents[:stop] for row in first.add(document)]
        second = Packer(0, 7, cut, first.open)
        assert rows + [row.tolist() for document in documents[stop:] for row in second.add(document)] == whole


def test_streams_take_turns_by_a_seeded_draw() -> None:
    def drawn(seed: str) -> list[tuple[str, int]]:
        return list(islice(mixed({"a": iter(range(0, 2000)), "b": iter(range(5000, 7000))}, seed), 1000))

    found = drawn("0")
    assert found == drawn("0") != drawn("1")
    for name, first in (("a", 0), ("b", 5000)):
        own = [number for stream, number in found if stream == name]
        assert own == list(range(first, first + len(own))) and 430 < len(own) < 570
    assert list(mixed({"": iter("xyz")}, "0")) == [("", "x"), ("", "y"), ("", "z")]


def test_texts_are_tokenised_as_by_a_call(tokenizer: PreTrainedTokenizerFast) -> None:
    documents = [*texts(3), "", "the cats walk, é \n\n the"]
    expected = tokenizer(documents, add_special_tokens=False)["input_ids"]
    assert [ids.tolist() for ids in encode_texts(documents, tokenizer).split()] == expected
    limited = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    )
    limited.backend_tokenizer.enable_truncation(2)
    limited.backend_tokenizer.enable_padding(length=30)
    assert [ids.tolist() for ids in encode_texts(documents, limited).split()] == expected
    assert encode_texts([], tokenizer).split() == []


# Formats

FORMATS = ["a.txt", "a.txt.gz", "a.txt.zst", "a.jsonl", "a.json.gz", "a.jsonl.zst", "a.parquet"]


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_packed_document_by_document(
    tmp_path: Path, name: str, build: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    path = write(tmp_path / name, texts(120))
    built = build(kind="text", path=path)
    assert_packs(built, texts(120), tokenizer)
    assert built["train"]["token_ids"].dtype == np.int32 and built["train"].attrs["split"] == "train"
    assert set(built["train"]["language"].values) == set(built["train"]["source"].values) == {""}
    assert built["train"]["sequence"].values.tolist() == list(range(40))


@pytest.mark.parametrize("path", ["folder", "folder/**/*.*", "fold*"])
def test_folders_and_patterns_of_mixed_formats_are_read_in_order_of_their_paths(
    tmp_path: Path, path: str, build: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    documents = texts(120)
    for number, name in enumerate(["a/z.jsonl.zst", "b.parquet", "c.txt", "d.json.gz"]):
        write(tmp_path / "folder" / name, documents[30 * number : 30 * number + 30])
    (tmp_path / "folder/README.md").write_text("no text of the corpus")
    (tmp_path / "folder/.hidden.txt").write_text("no text of the corpus")
    assert_packs(build(kind="text", path=str(tmp_path / path)), documents, tokenizer)


def test_files_that_a_corpus_hangs_on_are_those_that_are_read(tmp_path: Path) -> None:
    there = [tmp_path / "in" / name for name in ("a.txt", "b/c.jsonl.gz", "README.md", "d.npy")]
    (tmp_path / "in/b").mkdir(parents=True)
    for path in there:
        path.touch()
    assert local_files(settings_of(kind="text", path=str(tmp_path / "in")).parts[0]) == there[:2]
    assert local_files(settings_of(kind="tokens", path=str(tmp_path / "in")).parts[0]) == there[3:]
    missing = settings_of(kind="text", path=str(tmp_path / "none.txt")).parts[0]
    assert local_files(missing) == [tmp_path / "none.txt"]
    dataset = settings_of(kind="hub", dataset=str(tmp_path / "in")).parts[0]
    assert local_files(dataset) == sorted(there)
    assert local_files(settings_of(kind="hub", dataset="lab/text").parts[0]) == []


def test_whole_files_are_documents(tmp_path: Path, build: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    documents = ["\n".join(texts(3, f"dog of {number}")) + "\n" for number in range(60)]
    for number, text in enumerate(documents):
        write(tmp_path / f"in/{number:03}.txt", [text.removesuffix("\n")])
    assert_packs(build(kind="text", path=str(tmp_path / "in"), whole_files=True), documents, tokenizer)


def test_a_dataset_in_a_local_directory(tmp_path: Path, build: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    write(tmp_path / "data/train.jsonl", texts(150))
    hub = {"kind": "hub", "dataset": str(tmp_path / "data")}
    assert_packs(build("a", **hub, shuffle_buffer=0), texts(150), tokenizer)
    shuffled = build("b", **hub, shuffle_buffer=50, shuffle_seed=3)
    assert_same(shuffled, build("c", **hub, shuffle_buffer=50, shuffle_seed=3))
    other = build("d", **hub, shuffle_buffer=50, shuffle_seed=4)
    assert not other["train"]["token_ids"].equals(shuffled["train"]["token_ids"])
    assert shuffled["train"].attrs["commits"] == []


def test_documents_are_shuffled_and_none_is_lost(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", texts(50))
    corpus = settings_of(kind="hub", dataset=str(tmp_path), shuffle_buffer=10).parts[0]
    found = [document.content for document in reading.read_documents(corpus, "corpus", SHARE)]
    assert sorted(found) == sorted(texts(50)) and found != texts(50)


@pytest.mark.parametrize("languages", [["english"], ["english", "french"]])
def test_the_nursery_packs_as_its_pretraining_does(
    languages: list[str], build: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    built = build(languages=languages, kind="nursery", train_tokens=3000, validation_tokens=300, sequence_length=30)
    for split, count in (("train", 100), ("validation", 10)):
        sentences = sentences_by_language(languages, split, 1)
        expected = list(islice(pack_languages(sentences, tokenizer, 0, 30, True, f"{split} 1"), count))
        np.testing.assert_array_equal(built[split]["token_ids"], [sequence.token_ids for sequence in expected])
        assert built[split]["language"].values.tolist() == [sequence.language for sequence in expected]


# Token ids made before


def blocks(count: int, length: int = 10) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 280, size=(count, length))


def of_rows(rows: np.ndarray, split: str, length: int = 10) -> list[list[int]]:
    """Cut rows of a split into sequences."""
    return [
        row[start : start + length].tolist()
        for row in rows.astype(np.int32)
        if (hash_share(row.tobytes()) < SHARE) == (split == "validation")
        for start in range(0, len(row) - length + 1, length)
    ]


def save_rows(path: Path, rows: np.ndarray, dtype: str = "uint16") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = rows.astype(np.dtype(dtype).newbyteorder("<"))
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        values.tofile(path)
    return str(path)


@pytest.mark.parametrize("name", ["a.npy", "a.bin"])
def test_rows_of_token_ids_are_cut_into_sequences(tmp_path: Path, name: str, build: Build) -> None:
    rows = blocks(60, 25)
    path = save_rows(tmp_path / name, rows)
    built = build(
        kind="tokens", path=path, source="pile", **({"dtype": "uint16", "row_tokens": 25} if "bin" in name else {})
    )
    for split, count in (("train", 40), ("validation", 10)):
        assert built[split]["token_ids"].values.tolist() == of_rows(rows, split)[:count]
        assert set(built[split]["source"].values) == {"pile"}


@pytest.mark.parametrize(("name", "dtype"), [("a.npy", "int64"), ("a.bin", "uint32")])
def test_a_flat_file_of_token_ids_is_cut_into_sequences(tmp_path: Path, name: str, dtype: str, build: Build) -> None:
    rows = blocks(70)
    path = save_rows(tmp_path / name, np.append(rows.ravel(), [1, 2, 3]), dtype)
    built = build(kind="tokens", path=path, dtype=dtype)
    for split, count in (("train", 40), ("validation", 10)):
        assert built[split]["token_ids"].values.tolist() == of_rows(rows, split)[:count]


def test_token_files_of_a_folder_follow_each_other(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = blocks(70)
    save_rows(tmp_path / "t/a.npy", rows[:30])
    save_rows(tmp_path / "t/b.bin", rows[30:])
    monkeypatch.setattr("chronocoder.suites.corpora.token_files._TOKENS_AT_ONCE", 35)
    built = build(kind="tokens", path=str(tmp_path / "t"), dtype="uint16")
    assert built["train"]["token_ids"].values.tolist() == of_rows(rows, "train")[:40]


BAD_TOKENS: dict[str, tuple[Callable[[Path], str], dict[str, Any], str]] = {
    "outside": (
        lambda path: save_rows(path / "a.npy", np.where(np.arange(600).reshape(60, 10) == 437, 300, 5)),
        {},
        r"a\.npy, token 437: id 300 is outside the tokenizer's vocabulary of \d+; give ids made by",
    ),
    "negative": (lambda path: save_rows(path / "a.npy", -blocks(60), "int32"), {}, r"id -\d+ is outside"),
    "floats": (
        lambda path: save_rows(path / "a.npy", blocks(60), "float32"),
        {},
        r"a\.npy: is an array of float32 of shape \(60, 10\), not of token ids; give integers in one or two",
    ),
    "three": (
        lambda path: save_rows(path / "a.npy", blocks(60)[None]),
        {},
        r"of shape \(1, 60, 10\), not of token ids",
    ),
    "short rows": (
        lambda path: save_rows(path / "a.npy", blocks(60, 9)),
        {},
        r"a\.npy: rows of 9 tokens are shorter than sequence_length 10; lower it",
    ),
    "rows": (
        lambda path: save_rows(path / "a.bin", blocks(60)),
        {"dtype": "uint16", "row_tokens": 11},
        r"a\.bin: 600 ids are no whole rows of 11; correct corpus\.row_tokens or corpus\.dtype",
    ),
    "other rows": (
        lambda path: save_rows(path / "a.npy", blocks(60)),
        {"row_tokens": 20},
        r"a\.npy: rows have 10 tokens, not corpus\.row_tokens 20; remove it",
    ),
    "bytes": (
        lambda path: str(path / "a.bin") if (path / "a.bin").write_bytes(b"abc") else "",
        {"dtype": "uint16"},
        r"a\.bin: cannot be read \(.*multiple.*\); copy it anew, or correct its dtype",
    ),
    "cut": (
        lambda path: (
            str(path / "a.npy")
            if (path / "a.npy").write_bytes(Path(save_rows(path / "b.npy", blocks(60))).read_bytes()[:400])
            else ""
        ),
        {},
        r"a\.npy: cannot be read",
    ),
    "no dtype": (
        lambda path: str(Path(save_rows(path / "t/a.bin", blocks(60))).parent),
        {},
        r"a\.bin: a \.bin file does not state its number format; set corpus\.dtype",
    ),
    "short": (
        lambda path: save_rows(path / "a.npy", blocks(49)),
        {},
        r"corpus: train_tokens asks for 400 tokens, the text has only 490 for both splits; lower train_tokens",
    ),
    "no files": (
        lambda path: str(path / "*.npy"),
        {},
        r"\*\.npy: no file that ends in \.npy, \.bin \(there are: no",
    ),
}


@pytest.mark.parametrize("name", BAD_TOKENS)
def test_token_ids_that_cannot_be_used_are_named(tmp_path: Path, name: str, build: Build) -> None:
    make, values, message = BAD_TOKENS[name]
    with pytest.raises(CorpusError, match=message):
        build(kind="tokens", path=make(tmp_path), **values)


# Splits


def test_no_document_is_in_both_splits_whatever_its_source(tmp_path: Path, build: Build) -> None:
    """The same documents in two formats, with other white space around them, and each twice."""
    one = write(tmp_path / "a.txt", [text for text in texts(150) for _ in range(2)])
    other = write(tmp_path / "b.jsonl", [f"  {text}\n" for text in reversed(texts(150))])
    sources = [{"kind": "text", "path": path, "weight": 1} for path in (one, other)]
    found: dict[str, set[str]] = {}
    for source in settings_of(kind="mixture", sources=sources).parts:
        for document in reading.read_documents(source, "corpus", SHARE, [Path(source.path)]):
            found.setdefault(document.split, set()).add(str(document.content).strip())
    assert found["train"] | found["validation"] == set(texts(150)) and not found["train"] & found["validation"]
    assert 15 < len(found["validation"]) < 50
    build(kind="mixture", sources=sources)


# Mixtures and labels


def test_shares_are_whole_and_sum_up() -> None:
    assert shares([1, 1], 10) == [5, 5] and shares([3, 1], 10) == [8, 2] and shares([1, 1, 1], 10) == [4, 3, 3]
    generator = np.random.default_rng(0)
    for _ in range(50):
        weights, total = generator.random(5), int(generator.integers(1, 1000))
        found = np.array(shares(weights.tolist(), total))
        assert found.sum() == total and (abs(found - weights / weights.sum() * total) < 1).all()


def test_a_mixture_has_the_sequences_of_its_sources_by_weight(tmp_path: Path, build: Build) -> None:
    cats = {"kind": "text", "path": write(tmp_path / "cats.txt", texts(120)), "language": "english"}
    dogs = {"kind": "text", "path": write(tmp_path / "dogs.parquet", texts(120, "dog")), "source": "kennel"}
    ids = {"kind": "tokens", "path": save_rows(tmp_path / "a.npy", blocks(100))}
    sources = [{**cats, "weight": 2}, {**dogs, "weight": 1}, {**ids, "weight": 1}]
    built = build("a", kind="mixture", sources=sources)
    names = [cats["path"], "kennel", ids["path"]]
    for split, counts in (("train", (20, 10, 10)), ("validation", (5, 3, 2))):
        found = built[split]["source"].values
        assert [int((found == name).sum()) for name in names] == list(counts)
        assert ((built[split]["language"].values == "english") == (found == cats["path"])).all()
        for name, source in zip(names, (cats, dogs, ids), strict=True):
            alone = build(f"alone {name[-5:]}", **source)[split]["token_ids"].values
            own = built[split]["token_ids"].values[found == name]
            np.testing.assert_array_equal(own, alone[: len(own)])
    assert_same(built, build("b", kind="mixture", sources=sources))
    other = build("c", kind="mixture", sources=sources, seed=1)["train"]["source"].values
    assert (other != built["train"]["source"].values).any() and sorted(other) == sorted(built["train"]["source"].values)


def test_a_weight_too_small_for_a_sequence_is_refused(tmp_path: Path, build: Build) -> None:
    sources = [
        {"kind": "text", "path": write(tmp_path / f"{name}.txt", texts(100)), "weight": weight}
        for name, weight in (("much", 1000.0), ("little", 0.5))
    ]
    with pytest.raises(CorpusError, match=r"corpus\.sources\[1\]: weight 0\.5 gives it none of 40 sequences; raise it"):
        build(kind="mixture", sources=sources)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_languages_and_sources_come_from_columns(
    tmp_path: Path, name: str, build: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    documents = texts(200)
    columns = {
        "lang": ["en" if number % 3 else "fr" for number in range(200)],
        "site": ["ab"[number % 2] for number in range(200)],
    }
    path = write(tmp_path / name, documents, **columns)
    built = build(kind="text", path=path, language_field="lang", source_field="site")
    for split in ("train", "validation"):
        labels = list(zip(built[split]["language"].values, built[split]["source"].values, strict=True))
        assert len(set(labels)) >= 3
        for label in set(labels):
            own = [text for text, *found in zip(documents, *columns.values(), strict=True) if tuple(found) == label]
            rows = [
                row
                for row, of_row in zip(built[split]["token_ids"].values.tolist(), labels, strict=True)
                if of_row == label
            ]
            assert rows == packed(of_split(own, split), tokenizer)[: len(rows)]


def test_a_language_given_for_all_is_that_of_all(tmp_path: Path, build: Build) -> None:
    built = build(kind="text", path=write(tmp_path / "a.txt", texts(120)), language="dutch")
    assert set(built["train"]["language"].values) == {"dutch"}


def test_too_many_labels_are_refused(tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "MOST_LABELS", 20)
    path = write(tmp_path / "a.jsonl", texts(200), url=[f"page{number}" for number in range(200)])
    with pytest.raises(CorpusError, match=r"corpus\.language_field and source_field have more than 20 values, for in"):
        build(kind="text", path=path, source_field="url")


# Processes and interruptions


class StopError(Exception):
    pass


def interrupt(documents: Iterator[reading.Document], after: int) -> Iterator[reading.Document]:
    yield from islice(documents, after)
    raise StopError


@pytest.fixture
def mixture(tmp_path: Path) -> dict[str, Any]:
    """Sources of every sort, in which some documents are longer than several sequences."""
    long = [" ".join(texts(number % 7 + 1, f"dog {number}")) for number in range(80)]
    languages = ["en" if number % 3 else "fr" for number in range(80)]
    sources = [
        {"kind": "text", "path": write(tmp_path / "in/a.txt.gz", texts(200)), "weight": 2},
        {
            "kind": "text",
            "path": write(tmp_path / "in/b.jsonl", long, lang=languages),
            "language_field": "lang",
            "weight": 3,
        },
        {"kind": "tokens", "path": save_rows(tmp_path / "in/c.npy", blocks(200)), "weight": 1},
    ]
    return {"kind": "mixture", "sources": sources, "train_tokens": 1500, "validation_tokens": 300}


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of few documents, saved and written in small pieces."""
    monkeypatch.setattr(encoding, "BATCH_CHARACTERS", 150)
    monkeypatch.setattr(building, "SAVE_TOKENS", 40)
    monkeypatch.setattr(building, "CHUNK_TOKENS", 70)


def test_small_steps_make_no_difference(mixture: dict[str, Any], build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = build("plain", **mixture)
    monkeypatch.setattr(encoding, "BATCH_CHARACTERS", 150)
    monkeypatch.setattr(building, "CHUNK_TOKENS", 70)
    assert_same(plain, build("pieces", **mixture))


@pytest.mark.usefixtures("small_steps")
def test_an_interrupted_corpus_goes_on_to_the_same_result(
    mixture: dict[str, Any], build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build("whole", **mixture)
    read_text, read_ids = building.batches, encode_texts
    for after in (1, 7, 40, 95):
        tokenised: list[int] = []

        def counted(documents: Sequence[str], tokenizer: Any, seen: list[int] = tokenised) -> encoding.Encoded:
            seen.append(len(documents))
            return read_ids(documents, tokenizer)

        monkeypatch.setattr(encoding, "encode_texts", counted)
        for _ in range(60):  # each time a little further
            with monkeypatch.context() as patch:

                def cut(documents: Iterator[Any], start: int, wanted: Any, after: int = after) -> Iterator[Batch]:
                    return read_text(interrupt(documents, start + after), start, wanted)

                patch.setattr(building, "batches", cut)
                try:
                    found = build(f"cut{after}", **mixture)
                    break
                except StopError:
                    continue
        else:
            found = build(f"cut{after}", **mixture)
        assert_same(whole, found)


@pytest.mark.usefixtures("small_steps")
def test_what_is_written_is_not_tokenised_again(
    mixture: dict[str, Any], build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def counted(documents: Sequence[str], tokenizer: Any) -> encoding.Encoded:
        counts.append(len(documents))
        return encode_texts(documents, tokenizer)

    monkeypatch.setattr(encoding, "encode_texts", counted)
    build("whole", **mixture)
    once = sum(counts)
    counts.clear()
    read = building.batches
    with monkeypatch.context() as patch:
        patch.setattr(
            building, "batches", lambda documents, start, wanted: read(interrupt(documents, 20), start, wanted)
        )
        with pytest.raises(StopError):
            build("cut", **mixture)
    build("cut", **mixture)
    assert once <= sum(counts) <= once + 10


def test_stores_are_written_again_without_tokenising(
    mixture: dict[str, Any], build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, written = build("whole", **mixture), []

    def once(*arguments: Any) -> None:
        written.append(write_blocks(*arguments) if not written else iter(()).__next__())

    with monkeypatch.context() as patch:
        patch.setattr(building, "write_blocks", once)
        with pytest.raises(StopIteration):
            build("cut", **mixture)
    monkeypatch.setattr(encoding, "encode_texts", lambda *_: pytest.fail("something was tokenised again"))
    assert_same(whole, build("cut", **mixture))


def test_the_number_of_processes_makes_no_difference(mixture: dict[str, Any], build: Build) -> None:
    assert_same(build("one", **mixture), build("two", processes=2, **mixture))


def test_the_state_of_another_corpus_is_thrown_away(
    tmp_path: Path, mixture: dict[str, Any], build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build("whole", **{**mixture, "seed": 1})
    monkeypatch.setattr(building, "SAVE_TOKENS", 40)
    monkeypatch.setattr(encoding, "BATCH_CHARACTERS", 150)
    read = building.batches
    with monkeypatch.context() as patch:
        patch.setattr(
            building, "batches", lambda documents, start, wanted: read(interrupt(documents, 20), start, wanted)
        )
        with pytest.raises(StopError):
            build("cut", **mixture)
    assert (tmp_path / "cut/state/progress.json").exists()
    assert_same(whole, build("cut", **{**mixture, "seed": 1}))


# Errors


def test_a_text_that_is_too_short_says_how_short(tmp_path: Path, build: Build) -> None:
    path = write(tmp_path / "a.txt.gz", texts(5))
    with pytest.raises(
        CorpusError,
        match=r"corpus: train_tokens asks for 400 tokens, the text has only \d+ for train, \d+ for validation; lower",
    ):
        build(kind="text", path=path)


def test_a_text_that_is_too_short_for_certain_is_refused_at_once(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "encode_texts", lambda *_: pytest.fail("something was tokenised"))
    path = write(tmp_path / "a.txt", texts(5))
    with pytest.raises(CorpusError, match=r"train_tokens asks for 400 tokens, the text has only \d+ bytes; lower"):
        build(kind="text", path=path)


def test_a_source_that_is_too_short_for_its_weight_is_named(tmp_path: Path, build: Build) -> None:
    sources = [
        {"kind": "text", "path": write(tmp_path / "a.txt", texts(200)), "weight": 1},
        {"kind": "text", "path": write(tmp_path / "b.jsonl.gz", texts(6)), "weight": 1, "source": "small"},
    ]
    with pytest.raises(
        CorpusError,
        match=r"corpus\.sources\[1\] \(small\): train_tokens asks for 200 tokens of it, the text has only \d+ for"
        r" train, \d+ for validation; lower train_tokens or its weight, or give more text",
    ):
        build(kind="mixture", sources=sources)


WRONG: dict[str, tuple[str, bytes, Mapping[str, Any], str]] = {
    "no object": ("a.jsonl", b'{"text": "x"}\n[1]\n', {}, r"a\.jsonl, line 2: needs a JSON object, not '\[1\]'"),
    "no JSON": (
        "a.jsonl",
        b'{"text": "x"}\n{"text"\n',
        {},
        r"a\.jsonl, line 2: needs a JSON object, not .* \(Exp",
    ),
    "no field": (
        "a.jsonl",
        b'{"text": "x"}\n{"body": "y", "n": 1}\n',
        {},
        r"a\.jsonl, line 2: has no 'text', only body, n; set corpus\.text_field to one of them",
    ),
    "no text": (
        "a.jsonl",
        b'{"text": 7}\n',
        {},
        r"a\.jsonl, line 1: 'text' is no text but of type int; set corpus",
    ),
    "no language": (
        "a.jsonl",
        b'{"text": "x", "lang": "en"}\n',
        {"language_field": "language"},
        r"a\.jsonl, line 1: has no 'language', only text, lang; set corpus\.language_field",
    ),
    "plain text": (
        "a.txt",
        b"x\n",
        {"source_field": "site"},
        r"a\.txt, line 1: plain text has no 'site'; give corpus\.source instead of source_field",
    ),
    "surrogate": ("a.jsonl", b'{"text": "\\ud800"}\n', {}, r"a\.jsonl, line 1: holds half a surrogate pair"),
    "gz": (
        "a.txt.gz",
        gzip.compress(b"x\n" * 99_999)[:60],
        {},
        r"a\.txt\.gz: is no whole \.gz file after line \d+ \(",
    ),
    "zst": ("a.txt.zst", b"x\n" * 99, {}, r"a\.txt\.zst: is no whole \.zst file after line 0 \(.*\); copy it anew"),
    "whole gz": ("a.txt.gz", b"x\n", {"whole_files": True}, r"a\.txt\.gz: is no whole \.gz file \(.*\); copy it anew"),
    "parquet": (
        "a.parquet",
        b"x\n",
        {},
        r"a\.parquet: cannot be read as Parquet \(.*\); copy it anew, or corr",
    ),
    "ending": (
        "a.csv",
        b"x\n",
        {},
        r"a\.csv: no file that ends in \.txt, \.jsonl, \.json, \.parquet, nor that with \.gz or \.zst \(there are:",
    ),
    "empty": ("a.jsonl.gz", gzip.compress(b"\n \n"), {}, r"the text has only 0 for train, 0 for validation"),
}


@pytest.mark.parametrize("name", WRONG)
def test_text_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chronocoder.suites.corpora.parts.most_tokens", lambda _: None)
    file, content, values, message = WRONG[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        build(kind="text", path=str(tmp_path / file), **values)


def test_missing_files_and_columns_are_named(tmp_path: Path, build: Build) -> None:
    with pytest.raises(CorpusError, match=r"no\.txt: no such file; correct corpus\.path"):
        build(kind="text", path=str(tmp_path / "no.txt"))
    path = write(tmp_path / "data/a.parquet", texts(3), lang=["en"] * 3)
    with pytest.raises(CorpusError, match=r"a\.parquet: has no 'body', only text, lang; set corpus\.text_field"):
        build(kind="text", path=path, text_field="body")
    with pytest.raises(CorpusError, match=r"dataset '.*data', split 'train': has no 'body', only text, lang; set corp"):
        build(kind="hub", dataset=str(tmp_path / "data"), text_field="body")
    with pytest.raises(CorpusError, match=r"dataset '.*data', split 'test': cannot be read \(.*\); correct the corpus"):
        build(kind="hub", dataset=str(tmp_path / "data"), split="test")
    with pytest.raises(CorpusError, match=r"dataset .owner/no. has to be downloaded; give the suite's lock file"):
        build(kind="hub", dataset="owner/no")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"kind": "tokens", "path": "a.bin"},
            r"path 'a\.bin': a \.bin file does not state its number format; give its",
        ),
        (
            {"kind": "text", "path": "a", "language": "x", "language_field": "y"},
            r"language 'x' and language_field 'y' are both given; give one",
        ),
        ({"kind": "mixture", "sources": []}, r"at least 1 item"),
        ({"kind": "mixture", "sources": [{"kind": "text", "path": "a", "weight": 0}]}, r"greater than 0"),
    ],
)
def test_contradictions_in_the_configuration_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings_of(**values)


# As the DAG runs it


def test_a_killed_script_leaves_no_process_and_goes_on(tmp_path: Path, tokenizer_path: Path, build: Build) -> None:
    long = [" ".join(texts(40, f"dog {number}")) for number in range(1500)]
    sizes = {"train_tokens": 300_000, "validation_tokens": 3000, "sequence_length": 100}
    values = {"kind": "text", "path": write(tmp_path / "a.jsonl.zst", long), **sizes}
    whole = build("whole", **values)
    places = [f"--{name}={tmp_path / 'killed' / name}" for name in ("train", "validation", "state")]
    flags = ["--suite", "tiny", "--corpus", settings_of(**values).model_dump_json(), "--tokenizer", str(tokenizer_path)]
    command = [sys.executable, "-c", SLOWLY, *flags, *places, "--processes", "2"]
    script = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    progress = tmp_path / "killed/state/progress.json"
    while not progress.exists() and script.poll() is None:
        time.sleep(0.05)
    others = psutil.Process(script.pid).children(recursive=True)
    script.kill()
    script.communicate()
    assert len(others) >= 2 and script.returncode == -signal.SIGKILL
    assert not psutil.wait_procs(others, timeout=30)[1]
    assert 0 < json.loads(progress.read_text())["documents"] < 1500
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "going on after" in result.stderr, result.stderr
    for split in ("train", "validation"):
        found = load_store(tmp_path / "killed" / split)
        xr.testing.assert_equal(found, whole[split])
        assert found.attrs["suite"] == "tiny"
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["train", "validation"]


SLOWLY = f"""
import runpy, sys
from chronocoder.suites.corpora import build, encoding
build.SAVE_TOKENS, encoding.BATCH_CHARACTERS = 20_000, 10_000
sys.argv[0] = {str(SCRIPT)!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_dataset_of_the_hub_is_that_of_the_locked_commit(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, tokenizer_path: Path
) -> None:
    first, later = (write(tmp_path / name / "train.jsonl", texts(150, name)) for name in ("cat", "dog"))
    settings = settings_of(kind="hub", dataset="owner/text", shuffle_buffer=0)
    places = [f"--{name}={tmp_path / name}" for name in ("train", "validation", "state", "lock")]
    commits: list[str] = []
    flags = ["--suite", "tiny", "--corpus", settings.model_dump_json(), "--tokenizer", str(tokenizer_path)]
    with hub_server() as hub:
        repository = hub.dataset("owner/text")
        for number, file in enumerate((first, later)):
            commits.append(repository.push("main", {"train.jsonl": Path(file).read_bytes()}))
            environment = os.environ | hub.environment(tmp_path / f"home{number}")
            command = [sys.executable, SCRIPT, *flags, *places]
            result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert result.returncode == 0, result.stderr
            built = {split: load_store(tmp_path / split) for split in ("train", "validation")}
            assert_packs(built, texts(150, "cat"), tokenizer)
            assert built["train"].attrs["commits"] == commits[:1] and commits[0] in (tmp_path / "lock").read_text()
    environment["HF_HUB_OFFLINE"] = "1"
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert "dataset owner/text at 'main': cannot be fetched (" in result.stderr
