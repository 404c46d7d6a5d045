"""Documents of every kind become whole sequences; what is too short says so."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from chronocoder.config import HubCorpus, NurseryCorpus, TextCorpus
from chronocoder.errors import CorpusError
from chronocoder.suites.corpus import build_corpus, read_documents
from chronocoder.suites.packing import mixed, pack_documents

SIZES = {"train_tokens": 400, "validation_tokens": 100, "sequence_length": 10}


def test_packing_keeps_every_token_in_order() -> None:
    documents = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [1]]
    packed = [list(row) for row in pack_documents(documents, 0, 5)]
    assert packed == [[0, 1, 2, 3, 0], [0, 4, 5, 6, 7], [0, 8, 9, 0, 1]]


def test_cut_packing_begins_no_sequence_within_a_document() -> None:
    documents = [[1, 2, 3], [4, 5, 6, 7, 8, 9], [1, 2], [3, 4]]
    packed = [list(row) for row in pack_documents(documents, 0, 6, cut=True)]
    assert packed == [[0, 1, 2, 3, 0, 4], [0, 1, 2, 0, 3, 4]]


def write_text(path: Path, lines: int) -> TextCorpus:
    texts = [f"the cat number {number} sees the dogs and the boys" for number in range(lines)]
    if path.suffix == ".jsonl":
        texts = [json.dumps({"content": text}) for text in texts]
    path.write_text("\n".join(texts) + "\n")
    field = "content" if path.suffix == ".jsonl" else "text"
    return TextCorpus(kind="text", path=str(path), text_field=field, **SIZES)


@pytest.mark.parametrize("name", ["text.txt", "text.jsonl"])
def test_text_file_is_split_into_disjoint_documents(
    tmp_path: Path, name: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    corpus = write_text(tmp_path / name, 200)
    train, validation = (set(read_documents(corpus, [], split)[""]) for split in ("train", "validation"))
    assert len(train) + len(validation) == 200 and not train & validation
    assert 20 <= len(validation) <= 60  # a fifth
    built = build_corpus(read_documents(corpus, [], "train"), tokenizer, 0, corpus, "train")
    assert built["token_ids"].shape == (40, 10)
    assert (built["token_ids"][:, 0] == 0).all()


def test_hub_dataset_in_a_local_directory(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    write_text(tmp_path / "train.jsonl", 50)
    corpus = HubCorpus(kind="hub", dataset=str(tmp_path), text_field="content", **SIZES)
    documents = list(read_documents(corpus, [], "train")[""])
    assert documents and all(text.startswith("the cat number") for text in documents)
    wrong = HubCorpus(kind="hub", dataset=str(tmp_path), **SIZES)
    with pytest.raises(CorpusError, match="has no column 'text', only content; set corpus.text_field"):
        list(read_documents(wrong, [], "train")[""])


def test_nursery_text_is_generated(tokenizer: PreTrainedTokenizerFast) -> None:
    corpus = NurseryCorpus(kind="nursery", **SIZES)
    built = build_corpus(read_documents(corpus, ["english"], "validation"), tokenizer, 0, corpus, "validation")
    assert built["token_ids"].shape == (10, 10) and built["token_ids"].dtype == np.int32
    assert built["language"].values.tolist() == ["english"] * 10


def test_streams_take_turns_by_a_seeded_draw() -> None:
    def drawn(seed: str) -> list[tuple[str, int]]:
        return list(islice(mixed({"a": iter(range(0, 2000)), "b": iter(range(5000, 7000))}, seed), 1000))

    found = drawn("0")
    assert found == drawn("0") != drawn("1")
    for name, first in (("a", 0), ("b", 5000)):
        own = [number for stream, number in found if stream == name]
        assert own == list(range(first, first + len(own))) and 430 < len(own) < 570
    assert list(mixed({"": iter("xyz")}, "0")) == [("", "x"), ("", "y"), ("", "z")]


def test_each_sequence_is_of_one_language(tokenizer: PreTrainedTokenizerFast) -> None:
    corpus = NurseryCorpus(kind="nursery", train_tokens=6000, validation_tokens=100, sequence_length=30)
    built = build_corpus(read_documents(corpus, ["english", "french"], "train"), tokenizer, 0, corpus, "train")
    languages = built["language"].values
    assert 70 < (languages == "french").sum() < 130
    for language in ("english", "french"):
        alone = build_corpus(read_documents(corpus, [language], "train"), tokenizer, 0, corpus, "train")
        own = built["token_ids"].values[languages == language]
        np.testing.assert_array_equal(own, alone["token_ids"].values[: len(own)])


def test_a_text_file_may_name_its_language(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    corpus = write_text(tmp_path / "text.txt", 200).model_copy(update={"language": "dutch"})
    built = build_corpus(read_documents(corpus, ["english"], "train"), tokenizer, 0, corpus, "train")
    assert set(built["language"].values) == {"dutch"}


def test_corpus_that_is_too_short_says_how_short(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    corpus = write_text(tmp_path / "text.txt", 5)
    with pytest.raises(CorpusError, match=r"train_tokens asks for 400 tokens, the text has only \d+; lower train_tok"):
        build_corpus(read_documents(corpus, [], "train"), tokenizer, 0, corpus, "train")


def test_missing_file_and_missing_field_are_named(tmp_path: Path) -> None:
    corpus = TextCorpus(kind="text", path=str(tmp_path / "no.txt"), **SIZES)
    with pytest.raises(CorpusError, match=r"no\.txt: no such file; correct corpus\.path"):
        list(read_documents(corpus, [], "train")[""])
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n{"body": "y"}\n')
    corpus = TextCorpus(kind="text", path=str(tmp_path / "a.jsonl"), **SIZES)
    with pytest.raises(CorpusError, match=r"a\.jsonl, line 2: needs a JSON object with the key 'text'"):
        list(read_documents(corpus, [], "train")[""])
