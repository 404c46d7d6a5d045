"""docs/your_own.md, followed as a new user would: a run saved by transformers' Trainer, own text, own pairs."""

import gzip
import itertools
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
import yaml
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from experiments import ROOT, Workflow

NOUNS = [("boy", "boys"), ("dog", "dogs"), ("cat", "cats"), ("girl", "girls")]
VERBS = [("sees", "see"), ("likes", "like"), ("finds", "find")]
PREPOSITIONS = ["near", "behind"]
WORDS = ["<s>", ".", "the", *PREPOSITIONS, *itertools.chain(*NOUNS, *VERBS)]
SMALLER = {"train_tokens": 3200, "validation_tokens": 640, "sequence_length": 16}
VARIANT = {"dictionary_size": 32, "k": 4, "steps": 30, "batch_tokens": 64, "learning_rate": 0.005}


def pairs() -> list[dict[str, str]]:
    """Return every prefix with its right and its wrong verb."""
    found = []
    for subject, other, verb in itertools.product(NOUNS, NOUNS, VERBS):
        for number, (preposition, distractor) in itertools.product((0, 1), itertools.product(PREPOSITIONS, other)):
            found.append(
                {
                    "prefix": f"the {subject[number]} {preposition} the {distractor}",
                    "right": f" {verb[number]}",
                    "wrong": f" {verb[1 - number]}",
                    "condition": "plural subject" if number else "singular subject",
                }
            )
    return found


def train(directory: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Pretrain a tiny Llama as a user of the Trainer would, saving the untrained model too."""
    draw = random.Random(0)
    clauses = [pair["prefix"] + pair["right"] for pair in pairs()] * 16
    sentences = [f"<s> {clause} the {draw.choice(draw.choice(NOUNS))} ." for clause in clauses]
    draw.shuffle(sentences)
    tokens = [tokenizer(sentence)["input_ids"] for sentence in sentences]
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), **sizes, tie_word_embeddings=False))
    model.save_pretrained(directory / "checkpoint-0")
    tokenizer.save_pretrained(directory / "checkpoint-0")
    settings = TrainingArguments(
        str(directory),
        max_steps=400,
        save_steps=80,
        per_device_train_batch_size=16,
        learning_rate=5e-3,
        warmup_steps=20,
        include_num_input_tokens_seen=True,
        report_to=[],
        use_cpu=True,
        seed=0,
    )
    data = Dataset.from_dict({"input_ids": tokens, "labels": tokens})
    Trainer(model, settings, default_data_collator, data, processing_class=tokenizer).train()


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """Return the page's configuration with smaller sizes, beside what it names."""
    directory = tmp_path_factory.mktemp("mine")
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    train(directory / "runs/mine", PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="."))
    (directory / "agreement.jsonl").write_text("\n".join(json.dumps(pair) for pair in pairs()))
    (directory / "text").mkdir()
    draw = random.Random(1)
    words = [" ".join(draw.choices(WORDS[2:], k=draw.randrange(6, 14))) for _ in range(800)]
    (directory / "text/words.txt").write_text("\n".join(words[:400]))
    with gzip.open(directory / "text/more.jsonl.gz", "wt") as lines:
        lines.writelines(json.dumps({"text": text}) + "\n" for text in words[400:])
    return Workflow(directory, smaller(written()))


def written() -> dict[str, Any]:
    """Return the configuration that the page gives."""
    (block,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/your_own.md").read_text(), re.DOTALL)
    config: dict[str, Any] = yaml.safe_load(block)
    return config


def smaller(config: dict[str, Any]) -> dict[str, Any]:
    config["suites"]["mine"]["corpus"] |= SMALLER
    config["suites"]["mine"]["site"] = "residual.0"
    config["variants"]["batchtopk"] |= VARIANT
    return config | {"attribution": {"bootstrap_samples": 50}, "ablation": {"top_features": 2, "set_sizes": [1, 2]}}


def test_the_page_leads_from_a_trainers_run_to_a_report(mine: Workflow) -> None:
    result = mine.snakemake()
    assert result.returncode == 0, result.stdout
    results = mine.directory / "results/mine"
    behaviour = xr.open_zarr(results / "behaviour.zarr")
    assert behaviour["checkpoint"].values.tolist() == [f"checkpoint-{step}" for step in range(0, 401, 80)]
    tokens_of_a_step = 16 * 10  # sequences, words of each
    assert behaviour["tokens_seen"].values.tolist() == [step * tokens_of_a_step for step in range(0, 401, 80)]
    accuracy = behaviour["accuracy"].sel(task="agreement")
    assert accuracy[0] < 0.75 and accuracy[-1] > 0.9, accuracy.values
    chosen = yaml.safe_load((results / "comparisons.yaml").read_text())
    assert {one["chosen"] for one in chosen.values()} == {"from accuracy curves"}, chosen
    assert (results / "report/index.html").exists() and list((results / "report/figures").rglob("*.svg"))
    assert mine.planned() == {}


def test_every_command_of_the_page_is_one(mine: Workflow) -> None:
    (block,) = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/your_own.md").read_text(), re.DOTALL)
    targets = [line.split("#")[0].split()[-1] for line in block.splitlines() if "behaviour.zarr" in line]
    assert targets and all(mine.planned(None, target) == {} for target in targets)
    assert all((ROOT / path).is_file() for path in re.findall(r"python (\S+\.py)", block))
    assert all(
        (ROOT / "docs" / page).is_file()
        for page in re.findall(r"\]\((\w+\.md)", (ROOT / "docs/your_own.md").read_text())
    )
