"""A checkpoint of another suite has to read the text with the words it was made of."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from tiny import VOCABULARY, tiny_model
from transformers import PreTrainedTokenizerFast

from chronocoder.config import HarvestSettings
from chronocoder.errors import ConfigError
from chronocoder.stores import labelled, provenance, write_store
from chronocoder.suites.nursery.tokenizer import train_tokenizer
from chronocoder.suites.tokenizers import check_same_tokenizer

SCRIPT = Path(__file__).parents[2] / "scripts/harvest_activations.py"


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


def test_another_tokenizer_is_refused(saved: Path) -> None:
    message = r"other/tokenizer\.json differs from .*corpus/tokenizer\.json, which made the text, in model: the"
    with pytest.raises(ConfigError, match=message):
        check_same_tokenizer(saved / "other", saved / "corpus")


def test_nothing_is_compared_where_a_directory_does_not_say(saved: Path) -> None:
    (saved / "other/tokenizer.json").unlink()
    check_same_tokenizer(saved / "other", saved / "corpus")


def harvest(saved: Path, name: str, token: int, *more: str) -> subprocess.CompletedProcess[str]:
    """Harvest a text of one token alone by a small model in the directory of a tokenizer."""
    tiny_model("gpt_neox").save_pretrained(saved / name)
    ids = labelled(("sequence", "position"), np.full((4, 9), token, dtype=np.int32), "token")
    corpus = xr.Dataset({"token_ids": ids})
    write_store(corpus, saved / "text.zarr", provenance(HarvestSettings(), suite="tiny", split="train"))
    command = [sys.executable, str(SCRIPT), "--suite", "tiny", "--revision", "step1@twin", "--site", "residual.1"]
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
