"""The decisions by whole sentences, against those of lm-evaluation-harness on the same model."""

import copy
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tiny import tiny_model
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from chronocoder.behaviour.pool import Pool
from chronocoder.config import BlimpTask
from chronocoder.suites.nursery.grammar import Grammar
from chronocoder.suites.nursery.tokenizer import SEPARATOR, train_tokenizer
from chronocoder.suites.tokenizers import separator_id
from chronocoder.tasks.sources import read_pairs
from chronocoder.tasks.tokenise import tokenise_pairs

harness = pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install lm-eval==0.4.13")

SETS = {
    "anaphor_number_agreement": "reflexive_number",
    "determiner_noun_agreement_1": "determiner_noun",
    "distractor_agreement_relational_noun": "agreement_across_prepositional_phrase",
    "distractor_agreement_relative_clause": "agreement_across_subject_relative",
    "irregular_plural_subject_verb_agreement_1": "agreement_irregular_plural",
    "irregular_plural_subject_verb_agreement_2": "agreement_irregular_plural",
    "regular_plural_subject_verb_agreement_1": "agreement_simple",
    "regular_plural_subject_verb_agreement_2": "agreement_simple",
}
"""BLiMP's sets, and the task of the nursery's grammar that sentences of their kind are made by."""
ENDINGS = ("", " near the river", " every day")


def write_set(path: Path, name: str, pairs: int) -> None:
    """Write a set in BLiMP's format; in one that ends in `_2` the subjects differ, not the verbs."""
    made = Grammar.load("english").minimal_pairs(SETS[name], pairs, 3)
    lines = []
    for number, pair in enumerate(made):
        ending = ENDINGS[number % len(ENDINGS)] + "."
        bad = pair.counterfactual + pair.right if name.endswith("_2") else pair.bad
        lines.append({"sentence_good": pair.good + ending, "sentence_bad": bad + ending, "UID": name})
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def with_end_only(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return a tokenizer like Pythia's: documents end with a token, and none begins them."""
    changed = copy.deepcopy(tokenizer)
    changed.bos_token, changed.eos_token = None, SEPARATOR
    return changed


def with_beginning(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Return a tokenizer like Llama's: it puts a token of its own before each text."""
    changed = copy.deepcopy(tokenizer)
    changed.add_special_tokens({"bos_token": "<s>"})
    processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", changed.bos_token_id)])
    changed.backend_tokenizer.post_processor = processor
    assert changed.encode("the")[0] == changed.bos_token_id != 0
    return changed


def harness_samples(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, files: dict[str, Path]
) -> dict[str, list[dict[str, Any]]]:
    """Return the samples of the harness's own task `blimp`, with its data replaced by files."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    template = yaml.safe_load((Path(harness.__file__).parent / "tasks" / "blimp" / "_template_yaml").read_text())
    tasks = [
        {
            **template,
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"train": str(file)}},
        }
        for name, file in files.items()
    ]
    found = harness.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16),
        tasks=tasks,
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        verbosity="ERROR",
    )
    return found["samples"]


@pytest.mark.parametrize(("architecture", "change"), [("gpt_neox", with_end_only), ("llama", with_beginning)])
def test_decisions_on_eight_sets_are_those_of_the_harness(
    architecture: str,
    change: Callable[[PreTrainedTokenizerFast], PreTrainedTokenizerFast],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    text = [pair.good for name in SETS.values() for pair in Grammar.load("english").minimal_pairs(name, 60, 0)]
    tokenizer = change(train_tokenizer(text, 290))
    model = tiny_model(architecture)
    files = {name: tmp_path / f"{name}.jsonl" for name in SETS}
    for name, file in files.items():
        write_set(file, name, 40)
    tasks = []
    for name, file in files.items():
        pairs = read_pairs(name, BlimpTask(kind="blimp", path=str(file))).pairs
        tasks.append(tokenise_pairs(pairs, tokenizer, separator_id(tokenizer), name, "sentence"))
    samples = harness_samples(model, tokenizer, files)
    accuracies = []
    for (name, file), task, own in zip(files.items(), tasks, Pool.of(tasks).differences(model), strict=True):
        texts = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        by_text = {str(text): place for place, text in enumerate((task["prefix"] + task["right"]).values)}
        assert {text["sentence_good"] for text in texts} == set(by_text)
        for sample in samples[name]:
            right, wrong = (float(response[0][0]) for response in sample["resps"])
            difference = own[by_text[sample["doc"]["sentence_good"]]]
            assert sample["acc"] == (difference > 0) and right != wrong
            np.testing.assert_allclose(difference, right - wrong, rtol=1e-3, atol=1e-3)
        accuracies.append(float(np.mean(own > 0)))
    assert min(accuracies) > 0 and max(accuracies) < 1 and len(set(accuracies)) > 2
