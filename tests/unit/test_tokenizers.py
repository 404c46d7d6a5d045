"""A checkpoint of another suite has to read the text with the words it was made of."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
import yaml
from tiny import VOCABULARY, WIDTH, tiny_model
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from warm_python import warm_python

from chronocoder.config import HarvestSettings, parse_experiment
from chronocoder.errors import ConfigError
from chronocoder.stores import labelled, provenance, write_store
from chronocoder.suites.agreement import (
    check_agreement,
    check_local_checkpoints,
    check_same_tokenizer,
    largest_token,
    not_compared,
    rows_of_model,
    tokenizer_digest,
)
from chronocoder.suites.nursery.tokenizer import train_tokenizer
from chronocoder.suites.tokenizer_files import copy_tokenizer
from chronocoder.suites.tokenizers import load_tokenizer
from experiments import ROOT

SCRIPT, CHECK, PLAN = (ROOT / f"scripts/{name}.py" for name in ("harvest_activations", "check_checkpoint", "plan"))


@pytest.fixture
def saved(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    tokenizer.save_pretrained(tmp_path / "corpus")
    tokenizer.save_pretrained(tmp_path / "same")
    train_tokenizer(["other words than those"] * 20, VOCABULARY).save_pretrained(tmp_path / "other")
    return tmp_path


def test_the_same_tokenizer_is_taken_whatever_its_padding(saved: Path) -> None:
    file = saved / "same/tokenizer.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**document, "truncation": {"max_length": 8}}), encoding="utf-8")
    check_same_tokenizer(saved / "same", saved / "corpus")


def test_the_version_of_the_library_that_saved_it_does_not_count(saved: Path) -> None:
    file = saved / "same/tokenizer.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    model = document["model"]
    model["merges"] = [" ".join(pair) for pair in model["merges"]]
    del model["ignore_merges"], model["byte_fallback"], model["type"], document["normalizer"]
    for part in ("pre_tokenizer", "decoder"):
        document[part].pop("use_regex")
    file.write_text(json.dumps(document), encoding="utf-8")
    texts = ["the cat near the dogs sees", " a  boy's"]
    early, late = (Tokenizer.from_file(str(saved / name / "tokenizer.json")) for name in ("same", "corpus"))
    assert [early.encode(text).ids for text in texts] == [late.encode(text).ids for text in texts]
    check_same_tokenizer(saved / "same", saved / "corpus")
    model["ignore_merges"] = True
    file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"in model\.ignore_merges: the"):
        check_same_tokenizer(saved / "same", saved / "corpus")


def test_another_tokenizer_is_refused(saved: Path) -> None:
    message = (
        r"other/tokenizer\.json differs from .*corpus/tokenizer\.json, .* text, in model\.merges, model\.vocab: the"
    )
    with pytest.raises(ConfigError, match=message):
        check_same_tokenizer(saved / "other", saved / "corpus")


def test_nothing_is_compared_where_a_directory_does_not_say(saved: Path) -> None:
    (saved / "other/tokenizer.json").unlink()
    check_same_tokenizer(saved / "other", saved / "corpus")
    assert tokenizer_digest(saved / "other") == "" != tokenizer_digest(saved / "corpus")
    assert not_compared(saved / "same", saved / "corpus") == ""
    (saved / "other/spiece.model").write_text("pieces")
    assert not_compared(saved / "other", saved / "corpus").endswith("has tokenizer.json")
    assert "other has spiece.model, " in not_compared(saved / "other", saved / "corpus")


def as_two_files(directory: Path) -> None:
    """Save the tokenizer of a directory as `vocab.json` and `merges.txt` alone, one of its tokens added to them."""
    document = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    ids = document["model"]["vocab"]
    added = {document["added_tokens"][0]["content"]: ids.pop(document["added_tokens"][0]["content"])}
    (directory / "tokenizer.json").unlink()
    (directory / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    (directory / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in document["model"]["merges"])
    (directory / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")


def test_vocabularies_are_compared_across_forms(saved: Path) -> None:
    for name in ("same", "other"):
        as_two_files(saved / name)
    for pair in (("same", "corpus"), ("corpus", "same")):
        check_same_tokenizer(*(saved / name for name in pair))
        assert not_compared(*(saved / name for name in pair)) == ""
    message = r"other/vocab\.json differs from .*corpus/tokenizer\.json, .* text, in vocabulary, merges: the"
    with pytest.raises(ConfigError, match=message):
        check_same_tokenizer(saved / "other", saved / "corpus")
    merges = (saved / "same/merges.txt").read_text(encoding="utf-8")
    (saved / "same/merges.txt").write_text(merges.rsplit("\n", 2)[0], encoding="utf-8")
    with pytest.raises(ConfigError, match="in merges: the"):
        check_same_tokenizer(saved / "same", saved / "corpus")


def test_a_list_of_words_is_compared_across_forms(tmp_path: Path) -> None:
    for name, words in (("own", ["[UNK]", "a", "b"]), ("turned", ["[UNK]", "b", "a"])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    model = models.WordPiece({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]")
    (tmp_path / "corpus").mkdir()
    Tokenizer(model).save(str(tmp_path / "corpus/tokenizer.json"))
    check_same_tokenizer(tmp_path / "own", tmp_path / "corpus")
    with pytest.raises(ConfigError, match="in vocabulary: the"):
        check_same_tokenizer(tmp_path / "turned", tmp_path / "corpus")


OTHER_FORMS = {
    "tokenizer.model": ({"tokenizer.model": "pieces"}, {"tokenizer.model": "others"}, "their bytes"),
    "vocab.json": (
        {"vocab.json": '{"a": 0, "b": 1}', "merges.txt": "a b"},
        {"vocab.json": '{"a": 1, "b": 0}', "merges.txt": "a b"},
        "a, b",
    ),
    "merges.txt": (
        {"vocab.json": '{"a": 0}', "merges.txt": "a b"},
        {"vocab.json": '{"a": 0}', "merges.txt": "b a"},
        "their bytes",
    ),
}


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_other_forms_of_tokenizers_are_compared_by_their_files(tmp_path: Path, name: str) -> None:
    own, other, difference = OTHER_FORMS[name]
    for place, files in (("corpus", own), ("same", own), ("other", other)):
        (tmp_path / place).mkdir()
        for file, content in files.items():
            (tmp_path / place / file).write_text(content, encoding="utf-8")
    check_same_tokenizer(tmp_path / "same", tmp_path / "corpus")
    with pytest.raises(ConfigError, match=rf"other/{name} differs from .*corpus/{name}, .* in {difference}: the"):
        check_same_tokenizer(tmp_path / "other", tmp_path / "corpus")


@pytest.mark.parametrize("nested", [False, True])
def test_a_model_needs_a_row_for_every_token_and_may_have_more(saved: Path, nested: bool) -> None:
    largest = largest_token(saved / "corpus")
    assert largest == max(PreTrainedTokenizerFast.from_pretrained(saved / "corpus").get_vocab().values())
    for rows, name in ((largest + 1, "same"), (largest + 51, "same"), (largest, "other")):
        size = {"vocab_size": rows}
        (saved / name / "config.json").write_text(json.dumps({"text_config": size} if nested else size))
        if name == "same":
            check_agreement(saved / "corpus", {"step1": saved / name})
    (saved / "other/tokenizer.json").unlink()
    message = (
        rf"step2: .*other/config\.json has vocab_size {largest}, but the largest token id in .*corpus is {largest}: the"
        r" model has no row for it; compare checkpoints that share their tokenizer, or give the model more rows"
    )
    with pytest.raises(ConfigError, match=message):
        check_agreement(saved / "corpus", {"step1": saved / "same", "step2": saved / "other"})


def test_what_has_changed_is_read_again(saved: Path) -> None:
    check_same_tokenizer(saved / "same", saved / "corpus")
    (saved / "same/tokenizer.json").write_text((saved / "other/tokenizer.json").read_text(encoding="utf-8"))
    with pytest.raises(ConfigError, match="differs from"):
        check_same_tokenizer(saved / "same", saved / "corpus")


def test_damaged_files_are_named(saved: Path) -> None:
    (saved / "other/tokenizer.json").write_text("{")
    with pytest.raises(ConfigError, match=r"other/tokenizer\.json: no readable JSON .*; save or download it again"):
        check_same_tokenizer(saved / "other", saved / "corpus")
    (saved / "other/config.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"other/config\.json: holds no JSON object; save or download it again"):
        rows_of_model(saved / "other")


def local_suite(directory: Path, names: list[str], **comparisons: list[str]) -> dict[str, Any]:
    """Return a suite of local directories, at least valid."""
    checkpoints = {name: {"path": str(directory / name), "tokens_seen": at} for at, name in enumerate(names)}
    return {
        "source": {"kind": "local", "checkpoints": checkpoints},
        "corpus": {
            "kind": "text",
            "path": "text.txt",
            "sequence_length": 8,
            "train_tokens": 80,
            "validation_tokens": 80,
        },
        "site": "residual.1",
        "tasks": {"pairs": {"kind": "pairs", "path": "pairs.jsonl"}},
        "comparisons": {name: {"checkpoints": of} for name, of in comparisons.items()},
    }


def experiment_of(**suites: dict[str, Any]) -> dict[str, Any]:
    return {
        "suites": suites,
        "variants": {"l1": {"sparsity": "l1", "dictionary_size": 8, "l1_coefficient": 1, "steps": 2}},
    }


def test_local_checkpoints_are_checked_before_anything_runs(saved: Path) -> None:
    whole = experiment_of(
        own=local_suite(saved, ["corpus", "same"], pair=["corpus", "same"], twins=["same", "same@twin"]),
        twin=local_suite(saved, ["other", "same"]),
    )
    check_local_checkpoints(parse_experiment(whole, "test"))  # nothing reads the twin's own tokenizer
    whole["suites"]["own"]["comparisons"]["twins"]["checkpoints"] = ["corpus", "other@twin"]
    message = r"suites\.twin\.source\.checkpoints\.other: .*other/tokenizer\.json differs from .*corpus/tokenizer\.json"
    with pytest.raises(ConfigError, match=message):
        check_local_checkpoints(parse_experiment(whole, "test"))
    whole = experiment_of(own=local_suite(saved, ["corpus", "other"], pair=["corpus", "other"]))
    path = saved / "experiment.yaml"
    path.write_text(yaml.safe_dump(whole))
    result = subprocess.run([warm_python(), str(PLAN), str(path)], capture_output=True, text=True)
    assert result.returncode == 1 and "suites.own.source.checkpoints.other: " in result.stderr


def test_a_job_checks_and_describes_a_downloaded_checkpoint(saved: Path) -> None:
    tiny_model("gpt_neox").to(torch.bfloat16).save_pretrained(saved / "corpus")
    tiny_model("llama").save_pretrained(saved / "same")
    (saved / "corpus/commit.json").write_text('{"commit": "abc", "weights": "w"}')

    def check(name: str) -> subprocess.CompletedProcess[str]:
        command = [warm_python(), str(CHECK), "--revision", name, "--checkpoint", str(saved / name), "--others"]
        command += [str(saved / "corpus"), str(saved / "not_there_yet"), "--tokenizer", str(saved / "corpus")]
        return subprocess.run([*command, "--output", str(saved / "found.yaml")], capture_output=True, text=True)

    def found() -> dict[str, Any]:
        described: dict[str, Any] = yaml.safe_load((saved / "found.yaml").read_text())
        return described

    result = check("corpus")
    assert result.returncode == 0, result.stderr
    digest = tokenizer_digest(saved / "corpus")
    facts = {"width": WIDTH, "vocabulary": VOCABULARY, "dtype": "bfloat16", "tokenizer": digest}
    assert found() == {"commit": "abc", **facts}
    (saved / "same/tokenizer.json").unlink()
    assert check("same").returncode == 0
    reason = f"{saved / 'same'} has no tokenizer, {saved / 'corpus'} has tokenizer.json"
    assert (found()["tokenizer"], found()["dtype"]) == (f"not compared: {reason}", "float32")
    (saved / "same/commit.json").write_text('{"commit": "abd", "weights": "w"}')
    result = check("same")
    assert result.returncode == 1 and "corpus and same: the hub has the same weights under both names" in result.stderr


def harvest(saved: Path, name: str, token: int, *more: str) -> subprocess.CompletedProcess[str]:
    """Harvest a text of one token alone by a small model in the directory of a tokenizer."""
    tiny_model("gpt_neox").save_pretrained(saved / name)
    ids = labelled(("sequence", "position"), np.full((4, 9), token, dtype=np.int32), "token")
    corpus = xr.Dataset({"token_ids": ids})
    write_store(corpus, saved / "text.zarr", provenance(HarvestSettings(), suite="tiny", split="train"))
    command = [warm_python(), str(SCRIPT), "--suite", "tiny", "--revision", "step1@twin", "--site", "residual.1"]
    command += ["--checkpoint", str(saved / name), "--corpora", str(saved / "text.zarr")]
    command += ["--outputs", str(saved / f"{name}.zarr"), *more]
    return subprocess.run(command, capture_output=True, text=True)


def test_harvest_stops_before_it_reads_other_words(saved: Path) -> None:
    result = harvest(saved, "other", 5, "--tokenizer", str(saved / "corpus"))
    assert result.returncode == 1 and "compare checkpoints that share their tokenizer" in result.stderr
    assert "Traceback" not in result.stderr and not (saved / "other.zarr").exists()
    result = harvest(saved, "same", 5, "--tokenizer", str(saved / "corpus"))
    assert result.returncode == 0, result.stderr
    result = harvest(saved, "corpus", VOCABULARY)
    assert result.returncode == 1
    assert f"text.zarr has token {VOCABULARY}, but the model knows only {VOCABULARY} tokens" in result.stderr


@pytest.mark.parametrize("document", ['{"version": "1.0"}', "{", '{"added_tokens": [], "model": 3}'])
def test_a_file_that_holds_no_tokenizer_is_named(document: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(document)
    with pytest.raises(ConfigError, match=r"tokenizer\.json: holds no tokenizer \(.+\); save or download it again"):
        load_tokenizer(tmp_path)


def test_digest_is_of_words_and_separators(saved: Path) -> None:
    digest = tokenizer_digest(saved / "corpus")
    file = saved / "same/tokenizer.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["model"]["merges"] = [" ".join(pair) for pair in document["model"]["merges"]]
    file.write_text(json.dumps({**document, "padding": {"direction": "Left"}}), encoding="utf-8")
    assert tokenizer_digest(saved / "same") == digest != tokenizer_digest(saved / "other")
    config = saved / "same/tokenizer_config.json"
    separators = json.loads(config.read_text(encoding="utf-8"))
    written = {**separators, "eos_token": {"content": separators["eos_token"], "lstrip": False}}
    config.write_text(json.dumps(written), encoding="utf-8")
    assert tokenizer_digest(saved / "same") == digest
    config.write_text(json.dumps({**separators, "eos_token": "the"}), encoding="utf-8")
    assert tokenizer_digest(saved / "same") != digest


def test_only_the_files_of_a_tokenizer_are_copied(saved: Path) -> None:
    for name in ("config.json", "model.safetensors", "training_args.bin"):
        (saved / "same" / name).write_text("{}")
    copy_tokenizer(saved / "same", saved / "copy")
    names = {file.name for file in (saved / "copy").iterdir()}
    assert {"tokenizer.json", "tokenizer_config.json", "config.json"} <= names
    assert not {"model.safetensors", "training_args.bin"} & names
    assert tokenizer_digest(saved / "copy") == tokenizer_digest(saved / "same")
    (saved / "empty").mkdir()
    (saved / "empty/config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"empty: holds no tokenizer; save the suite's there with tokenizer"):
        copy_tokenizer(saved / "empty", saved / "copy")
