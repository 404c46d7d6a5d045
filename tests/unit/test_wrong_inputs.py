"""Every wrong input is named with its key or file, what is there, and the remedy; and never by a traceback.

A table of them all. Most are given to what the Snakefile calls first, or to a script, in this process;
tests/workflow/test_nursery_workflow.py gives some to Snakemake.
"""

import copy
import gzip
import json
import logging
import os
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from configurations import DEFAULT, ROOT, SPACE, changed, with_twin
from tiny import VOCABULARY
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from chronocoder.config import BlimpTask, NurseryTask, PairsTask
from chronocoder.errors import ConfigError
from chronocoder.suites.inputs import checked_experiment, task_files
from chronocoder.suites.nursery.tokenizer import train_tokenizer

WRONG: list[tuple[str, Any, str]] = [
    ("reslts", "x", r"reslts: unknown key; remove it or correct its spelling"),
    ("variants.l1.lambda", 2, r"variants\.l1\.lambda: unknown key"),
    (
        "suites.nursery.comparisons.onset.checkpoints",
        ["step16", "step65"],
        r"suites\.nursery: comparisons\.onset: checkpoint 'step65' does not exist in the suite; choose from step0, ",
    ),
    (
        "suites.nursery.comparisons.onset.checkpoints",
        ["step64", "step16"],
        r"comparisons\.onset: checkpoints \['step64', 'step16'\] must be in order of training",
    ),
    ("suites.nursery.comparisons.onset.variants", ["l2"], r"variant 'l2' is not defined; choose from batchtopk, l1"),
    ("suites.nursery.comparisons.onset.checkpoints", [], r"onset\.checkpoints: List should have at least 1 item"),
    (
        "suites.nursery.comparisons.onset.checkpoints",
        ["step16", "step16", "step64"],
        r"onset: checkpoints \['step16', 'step16', 'step64'\] must be in order of .* repetition, or all the same",
    ),
    (
        "suites.nursery.comparisons.onset.checkpoints",
        ["step16@"],
        r"onset\.checkpoints\.0: String should match pattern",
    ),
    (
        "suites.nursery.comparisons.onset.checkpoints",
        ["step16", "step16@nursery"],
        r"onset: checkpoint 'step16@nursery' is of the suite itself; write 'step16'",
    ),
    (
        "suites.nursery.comparisons.onset.checkpoints",
        ["step16", "step16@twin"],
        r"onset: checkpoint 'step16@twin' is of no suite that is defined; the others are none: define one",
    ),
    (
        "suites.nursery.comparisons",
        {},
        r"suites\.nursery\.comparisons: empty, and no comparison of another suite .* as revision@nursery; add one,"
        r" or a taskspace, or remove the suite",
    ),
    ("variants", {}, r"variants: empty, and suites\.nursery has comparisons; define a variant"),
    (
        "suites.nursery.comparisons.onset.baseline",
        ["early", "late"],
        r"comparisons\.onset: baseline 'early' is not among the suite's comparisons; choose from abstraction, onset",
    ),
    (
        "suites.nursery.comparisons.onset.baseline",
        ["course", "abstraction"],
        r"onset: baseline \['course', 'abstraction'\] is of checkpoints \[\['step64', 'step112', 'step320'\],"
        r" \['step64', 'step320'\]\]; name a comparison of one checkpoint for each of \['step16', 'step64'\], in this",
    ),
    (
        "suites.nursery.comparisons.identity.baseline",
        ["onset"],
        r"identity: baseline \['onset'\] is given to a control or a single checkpoint; remove it",
    ),
    ("suites.nursery.auto", {"pairs": 0, "triplets": 0}, r"auto: pairs 0 and triplets 0: nothing may be chosen; allow"),
    ("suites.nursery.auto", {"checkpoints": 2}, r"auto: triplets 1 need checkpoints 3, not 2; change one"),
    (
        "suites.nursery.auto",
        {"tasks": ["x"]},
        r"auto\.tasks: 'x' is not among the suite's tasks; choose from agreement_",
    ),
    (
        "suites.nursery.auto",
        {"resamples": 100},
        r"auto\.resamples 100: a change of one of 9 tasks could not be told from chance; take at least 180",
    ),
    (
        "suites.nursery.auto",
        {"variants": ["l2"]},
        r"auto\.variants: variant 'l2' is not defined; choose from batchtopk",
    ),
    ("suites.nursery.auto", {"site": "residual.4"}, r"site 'residual\.4' is outside the model: it has blocks 0 to 3"),
    ("suites.nursery.comparisons", "some", "comparisons: is neither `auto` nor a mapping of comparisons"),
    (
        "suites.nursery.scan",
        {"study": ["step9"]},
        r"scan\.study: checkpoint 'step9' does not exist in the suite; choose from step0, ",
    ),
    (
        "suites.nursery.loading",
        {"dtype": "int8"},
        r"suites\.nursery\.loading\.dtype: Input should be 'auto', 'float32', 'bfloat16' or 'float16' \(found 'int8'\)",
    ),
    (
        "suites.nursery.loading",
        {"gpus": 2},
        r"loading: gpus 2: a model is loaded on one of them; set device_map to auto",
    ),
    ("suites.nursery.site", "residual.4", r"site 'residual\.4' is outside the model: it has blocks 0 to 3"),
    ("suites.nursery.site", "head_out.1.4", r"site 'head_out\.1\.4' is outside the model: it has heads 0 to 3"),
    ("suites.nursery.site", "block.1", r"site: no site of a model; write .* \(found 'block\.1'\)"),
    ("suites.nursery.source.language", ["english", "english"], r"language \['english', 'english'\] repeats; list each"),
    (
        "suites.nursery.source.language",
        ["english", "french"],
        r"tasks\.agreement_simple: no language is given, of the suite's languages english, french; set language to one",
    ),
    (
        "suites.nursery.tasks.agreement_simple",
        {"kind": "nursery", "language": "french"},
        r"tasks\.agreement_simple: language 'french' is not among the suite's languages english; set language to one",
    ),
    ("suites.nursery.source.steps", [4, 2], r"steps \[4, 2\] must ascend"),
    ("suites.nursery.corpus.train_tokens", 10, r"train_tokens 10 is less than one sequence of sequence_length 64"),
    ("suites.nursery.contrasts", {"agreement_simple": ["x"]}, r"contrasts\.agreement_simple: task 'x' is not among"),
    (
        "suites.nursery.tasks.agreement_simple",
        {"kind": "pears", "path": "x"},
        r"suites\.nursery\.tasks\.agreement_simple: kind 'pears' is not known; choose from nursery, blimp, clams,"
        r" multiblimp, table, pairs",
    ),
    ("suites.nursery.tasks.agreement_simple", {"kind": "pairs"}, r"agreement_simple\.path: missing; give it"),
    ("suites.nursery.tasks.agreement_simple", {"path": "x"}, r"agreement_simple: kind is missing; give it \(keys"),
    ("variants.l1.k", 3, r"variants\.l1\.k: unknown key; remove it"),
    ("variants.l1.sparsity", "l2", r"variants\.l1: sparsity 'l2' is not known; choose from .*topk"),
    ("variants.batchtopk.k", 0, r"variants\.batchtopk\.k: Input should be greater than 0 \(found 0\)"),
    ("variants.batchtopk.k", 600, r"variants\.batchtopk: k 600 exceeds dictionary_size 512; lower it"),
    (
        "training",
        {"processes": 3, "dictionary_shards": 3, "parts": 3},
        r"dictionary_size 512 is no multiple of training",
    ),
    ("seeds", [0, 1, 0], r"seeds: seeds \[0, 1, 0\] repeat; list each of them once"),
    (
        "attribution.swaps",
        10,
        r"attribution: swaps 10: no p-value can be below 0\.091; take at least 19, or a false_discovery_rate larger",
    ),
    ("attribution.swaps", 18, r"attribution: swaps 18: no p-value can be below 0\.053; take at least 19"),
    ("ablation.set_sizes", [1, 5, 2], r"set_sizes \[1, 5, 2\] must ascend without repetition; sort the list"),
    ("training", {"processes": 3, "nodes": 2}, r"training: processes 3 is no multiple of nodes 2; change one"),
    ("training.processes", 3, r"training: processes 3 does not divide parts 8; change processes, or set parts to a"),
    ("training.nodes", 0, r"training\.nodes: Input should be greater than 0 \(found 0\)"),
    ("training.dictionary_shards", 2, r"training: processes 1 is no multiple of dictionary_shards 2; change one"),
    (
        "suites.nursery.tasks.agrement",
        {"kind": "nursery"},
        r"nursery: tasks\.agrement: the grammar of english has no task 'agrement'; choose from agreement_simple, ",
    ),
    ("reslts", "x", r"reslts: .*its spelling, perhaps to results \(keys are listed in docs/configuration\.md\)"),
    (
        "suites.nursery.source.stpes",
        [0, 4],
        r"source\.stpes: unknown key; remove it or correct its spelling, perhaps to steps",
    ),
    (
        "suites.nursery.corpus.sequence_lenght",
        9,
        r"corpus\.sequence_lenght: unknown key; .*, perhaps to sequence_length \(",
    ),
    (
        "variants.l1.dictionary_sise",
        9,
        r"variants\.l1\.dictionary_sise: unknown key; .*, perhaps to dictionary_size \(",
    ),
    ("variants.batchtopk.l1_coefficient", 2, r"\.l1_coefficient: unknown key; remove it or correct its spelling \("),
    ("suites.nursery.comparisons.onset.chekpoints", [], r"onset\.chekpoints: .*, perhaps to checkpoints \("),
    ("suites", None, r"suites: Input should be a valid dictionary \(found None\)"),
    ("seeds", "many", r"seeds: Input should be a valid list \(found 'many'\)"),
    ("variants.l1.steps", "3 k", r"variants\.l1\.steps: Input should be a valid integer.* \(found '3 k'\)"),
    ("suites.nursery.source", {"kind": "hbu"}, r"source: kind 'hbu' is not known; choose from nursery, local, hub"),
    (
        "suites.nursery.source",
        {"kind": "hub", "family": "pithia", "size": "1b", "checkpoints": "all"},
        r"suites\.nursery\.source: .*'pithia'.*choose from",
    ),
    (
        "suites.nursery.source",
        {"kind": "hub", "repository": "a/b", "checkpoints": {"step16": 9, "step64": 5, "step112": 10, "step320": 11}},
        r"source\.checkpoints: tokens_seen \[9, 5, 10, 11\] must ascend; list the checkpoints in order of training",
    ),
    (
        "suites.nursery.source",
        {
            "kind": "local",
            "checkpoints": {f"step{n}": {"path": "x", "tokens_seen": n} for n in (16, 64, 112, 320)},
        },
        r"tasks\.agreement_simple: kind 'nursery' needs a source of kind 'nursery', not 'local'; give a file instead",
    ),
    (
        "suites.nursery.tasks.agreement_simple",
        {"kind": "blimp", "name": "anaphor_gendr_agreement"},
        r"'anaphor_gendr_agreement' is not among the 67 sets of BLiMP; choose for instance from anaphor_gender_agr",
    ),
    (
        "suites.nursery.tasks.agreement_simple",
        {"kind": "pairs", "path": "pairs/*.jsonl"},
        r"agreement_simple\.path: 'pairs/\*\.jsonl' matches no file that ends in \.jsonl \(there are: no files\); cor",
    ),
    (
        "suites.nursery",
        DEFAULT["suites"]["nursery"]
        | {"tasks": {"agreement_simple": {"kind": "nursery"}}, "contrasts": {}, "taskspace": SPACE},
        r"suites\.nursery: taskspace: relates tasks, and the suite has only agreement_simple; add one",
    ),
]
WRONG_TWINS: list[tuple[list[str], dict[str, Any], str]] = [
    (["step320", "step321@twin"], {}, r"'step321@twin' does not exist in suite 'twin'; choose from step0, step1, "),
    (
        ["step320", "step64@twin"],
        {},
        r"\['step320', 'step64@twin'\] with tokens_seen \[491520, 98304\] differ in more than the pretraining seed;"
        r" take checkpoints of equal tokens_seen",
    ),
    (["step64", "step320@twin"], {}, r"with tokens_seen \[98304, 491520\] differ in more"),
    (["step64", "step320", "step320@twin"], {}, r"with tokens_seen \[98304, 491520, 491520\] differ in more"),
    (["step320", "step320@twin", "step320@twin"], {}, r"checkpoints \[.*\] repeat step320@twin; list it once"),
    (
        ["step64@twin", "step320@twin"],
        {},
        r"checkpoints \['step64@twin', 'step320@twin'\] are all of other suites; add one of suite 'nursery'",
    ),
    (
        ["step320", "step320@twin"],
        {"seed": 0},
        r"source\.seed is 0 in suite 'nursery' and in suite 'twin', which makes them the same run; set"
        r" suites\.twin\.source\.seed to another",
    ),
    (
        ["step320", "step320@twin"],
        {"tokenizer_seed": None},
        r"'step320@twin' cannot be compared, since source\.tokenizer_seed is 0 in suite 'nursery' and 1 in suite"
        r" 'twin'; set suites\.twin\.source\.tokenizer_seed to 0",
    ),
    (["step320", "step320@twin"], {"language": "french"}, r"source\.language is english in suite 'nursery' and french"),
    (["step320", "step320@twin"], {"vocabulary_size": 700}, r"set suites\.twin\.source\.vocabulary_size to 768"),
]


WRONG_SPACES: list[tuple[dict[str, Any], str]] = [
    ({"checkpoints": []}, r"taskspace\.checkpoints: List should have at least 1 item after validation, not 0"),
    (
        {"checkpoints": ["step65"]},
        r"taskspace\.checkpoints: 'step65' is not among the suite's checkpoints; choose from step0, step1, ",
    ),
    ({"checkpoints": ["step64", "step64"]}, r"taskspace\.checkpoints: 'step64' is named twice; name it once"),
    (
        {"checkpoints": ["step320", "step64"]},
        r"taskspace\.checkpoints \['step320', 'step64'\] must be in order of training; list them as step64, step320$",
    ),
    ({"tasks": ["reflexive_number"]}, r"taskspace\.tasks: List should have at least 2 items after validation, not 1"),
    (
        {"tasks": ["reflexive_number", "reflexive_numbre"]},
        r"taskspace\.tasks: 'reflexive_numbre' is not among the suite's tasks; choose from agreement_simple, ",
    ),
    (
        {"tasks": ["agreement_simple", "determiner_noun"], "hypothesis": {"nouns": ["reflexive_number"]}},
        r"taskspace\.hypothesis: 'reflexive_number' is not among the tasks of the task space; choose from"
        r" agreement_simple, determiner_noun$",
    ),
    (
        {"hypothesis": {"one": ["reflexive_number"], "other": ["reflexive_number"]}},
        r"taskspace\.hypothesis: 'reflexive_number' is named twice; name it once",
    ),
    (
        {"bridge": ["identity"]},
        r"taskspace\.bridge: 'identity' is not among the comparisons that the report is about; choose from"
        r" abstraction, onset, course$",
    ),
    (
        {"checkpoints": ["step0"], "bridge": ["abstraction"]},
        r"taskspace\.bridge: 'abstraction' has no checkpoint among step0; add one to taskspace\.checkpoints$",
    ),
    ({"steps": 3}, r"taskspace\.steps: unknown key; remove it or correct its spelling"),
]


FTGD = {"objective": "differential", "fraction": 0.1}
WRONG_TUNINGS: list[tuple[dict[str, Any], str]] = [
    ({"seeds": []}, r"taskspace\.seeds: List should have at least 1 item"),
    ({"seeds": [3, 3]}, r"taskspace\.seeds: seeds \[3, 3\] repeat; list each of them once"),
    ({"methods": {}}, r"taskspace\.methods: Dictionary should have at least 1 item"),
    (
        {"methods": {"plain": {"objective": "right", "fraction": 1.0}, "ftgd": FTGD}},
        r"taskspace\.methods: methods\.plain\.objective 'right' of the first method makes the task space; list one with"
        r" objective differential first",
    ),
    ({"methods": {"ftgd": {"objective": "differential"}}}, r"taskspace\.methods\.ftgd\.fraction: missing; give it"),
    ({"methods": {"ftgd": FTGD | {"fraction": 0}}}, r"ftgd\.fraction: Input should be greater than 0 \(found 0\)"),
    ({"methods": {"ftgd": FTGD | {"fraction": 2}}}, r"ftgd\.fraction: Input should be less than or equal to 1"),
    ({"methods": {"ftgd": FTGD | {"objective": "wrong"}}}, r"objective: Input should be 'differential', 'right' or"),
    ({"methods": {"ftgd": FTGD | {"learning_rate": 0}}}, r"ftgd\.learning_rate: Input should be greater than 0"),
    ({"methods": {"ftgd": FTGD | {"rate": 1}}}, r"taskspace\.methods\.ftgd\.rate: unknown key; remove it"),
    ({"held_out": 1.0}, r"taskspace\.held_out: Input should be less than 1"),
    ({"selection": "batch"}, r"taskspace\.selection: Input should be 'task' or 'step'"),
    ({"gradient_groups": 1}, r"taskspace\.gradient_groups: Input should be greater than or equal to 2"),
    ({"smallest_gain": -0.1}, r"taskspace\.smallest_gain: Input should be greater than or equal to 0"),
]


SIZES = {"train_tokens": 640, "validation_tokens": 64, "sequence_length": 16}
TEXT = {"kind": "text", "path": "text.txt", **SIZES}
PAIR = {"prefix": "the cat", "right": " sees", "wrong": " see"}
TABLE = {"kind": "table", "columns": {"good": "good", "bad": "bad"}}
MODEL = {"vocab_size": 4, "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2}
WORDS = {word: number for number, word in enumerate(["the", "cat", "sees", "</s>"])}
Change = Callable[[dict[str, Any]], object]


def local_config() -> dict[str, Any]:
    """Return a configuration of local files, and write them to the working directory: small, but accepted."""
    for name in ("early", "late"):
        Path(name).mkdir()
        (Path(name) / "config.json").write_text(json.dumps(MODEL))
        (Path(name) / "model.safetensors").write_text("weights")
        write_words(Path(name), WORDS)
    Path("text.txt").write_text("the cat sees\n" * 9)
    Path("pairs.jsonl").write_text(json.dumps(PAIR))
    Path("empty").mkdir()
    suite = {
        "source": {
            "kind": "local",
            "checkpoints": {name: {"path": name, "tokens_seen": at} for at, name in enumerate(("early", "late"))},
        },
        "corpus": dict(TEXT),
        "site": "residual.1",
        "tasks": {"own": {"kind": "pairs", "path": "pairs.jsonl"}},
        "comparisons": {"pair": {"checkpoints": ["early", "late"]}},
    }
    return {"suites": {"mine": suite}, "variants": copy.deepcopy(DEFAULT["variants"])}


def write_words(directory: Path, words: dict[str, int], unknown: str = "the") -> None:
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(directory)


def suite_of(config: dict[str, Any]) -> dict[str, Any]:
    suite: dict[str, Any] = config["suites"]["mine"]
    return suite


def removed(path: str) -> Change:
    return lambda _: Path(path).unlink()


def written(path: str, content: str | bytes) -> Change:
    return lambda _: Path(path).write_bytes(content if isinstance(content, bytes) else content.encode())


def in_place_of(path: str) -> Change:
    """Return a change that puts a directory in place of a file."""

    def change(_: dict[str, Any]) -> None:
        Path(path).unlink()
        Path(path).mkdir()

    return change


def corpus(**values: Any) -> Change:
    return lambda config: suite_of(config).update(corpus=TEXT | values)


def task(**values: Any) -> Change:
    return lambda config: suite_of(config).update(tasks={"own": values})


def checkpoint(path: str) -> Change:
    return lambda config: suite_of(config)["source"]["checkpoints"]["late"].update(path=path)


def mixture(config: dict[str, Any]) -> None:
    sources = [{"kind": "text", "path": path, "weight": 1} for path in ("text.txt", "nowhere.txt")]
    suite_of(config)["corpus"] = {"kind": "mixture", "sources": sources, **SIZES}


OF_MINE = r"suites\.mine\."
LATE = OF_MINE + r"source\.checkpoints\.late"
WRONG_FILES: list[tuple[str, Change, str]] = [
    (
        "no task file",
        removed("pairs.jsonl"),
        OF_MINE + r"tasks\.own\.path 'pairs\.jsonl': there is no such file; correct it, or remove the task",
    ),
    ("an empty task file", written("pairs.jsonl", ""), r"tasks\.own\.path 'pairs\.jsonl': is empty; correct it"),
    (
        "a directory as a task file",
        in_place_of("pairs.jsonl"),
        r"tasks\.own\.path: 'pairs\.jsonl' holds no file that ends in \.jsonl",
    ),
    (
        "no directory of a task's dataset",
        task(kind="blimp", dataset="./data/pairs"),
        r"tasks\.own\.dataset './data/pairs': there is no such directory, and on the hub names are of the form owner/",
    ),
    (
        "an empty dataset of a task",
        task(kind="blimp", dataset="empty"),
        r"tasks\.own\.dataset 'empty': the directory holds no files; correct it, or remove the task",
    ),
    ("no text", removed("text.txt"), OF_MINE + r"corpus: text\.txt: no such file; correct corpus\.path"),
    ("an empty text", written("text.txt", ""), r"corpus\.path 'text\.txt': is empty; correct the path, or the file"),
    (
        "an empty folder of texts",
        corpus(path="empty"),
        r"corpus: empty: no file that ends in \.txt, .* \(there are: no files\); correct corpus\.path or corpus\.kind",
    ),
    (
        "a pattern that matches no text",
        corpus(path="texts/*.txt"),
        r"corpus: texts/\*\.txt: no file that ends in .* correct corpus\.path",
    ),
    (
        "no directory of a corpus' dataset",
        lambda config: suite_of(config).update(corpus=SIZES | {"kind": "hub", "dataset": "/nowhere/text"}),
        r"corpus\.dataset '/nowhere/text': there is no such directory, and on the hub names are",
    ),
    (
        "no text in a mixture",
        mixture,
        r"corpus\.sources\.1: nowhere\.txt: no such file; correct corpus\.sources\.1\.path",
    ),
    (
        "no checkpoint",
        checkpoint("nowhere"),
        LATE + r"\.path 'nowhere': there is no such directory; give a Hugging Face model directory, or remove",
    ),
    ("a file as a checkpoint", checkpoint("text.txt"), LATE + r"\.path 'text\.txt': is a file, not a directory; give"),
    (
        "no configuration of a model",
        removed("late/config.json"),
        LATE + r"\.path 'late': its config\.json: there is no such file; give a Hugging Face model directory",
    ),
    (
        "no weights",
        removed("late/model.safetensors"),
        LATE + r"\.path 'late': holds no weights \(\*\.safetensors, pytorch_model\*\.bin\)",
    ),
    (
        "empty weights",
        written("late/model.safetensors", ""),
        LATE + r"\.path 'late': model\.safetensors: is empty; give",
    ),
    (
        "weights that an index names",
        lambda _: (
            Path("late/model.safetensors")
            .rename("late/model.safetensors.index.json")
            .write_text(json.dumps({"weight_map": {"a": "model-00002.safetensors"}}))
        ),
        LATE + r"\.path 'late': model-00002\.safetensors: there is no such file; give a Hugging Face model directory",
    ),
    (
        "a damaged configuration of a model",
        written("late/config.json", "{"),
        LATE + r": late/config\.json: no readable JSON \(.*\); save or download it again",
    ),
    (
        "a damaged tokenizer",
        written("late/tokenizer.json", "[]"),
        LATE + r": late/tokenizer\.json: holds no JSON object; save or download it again",
    ),
    (
        "another tokenizer",
        lambda _: write_words(Path("late"), {**WORDS, "cat": 2, "sees": 1}),
        LATE + r": late/tokenizer\.json differs from early/tokenizer\.json, which made the text, in model\.vocab",
    ),
    (
        "too few rows",
        written("late/config.json", '{"vocab_size": 3}'),
        LATE
        + r": late/config\.json has vocab_size 3, but the largest token id in early is 3: the model has no row for",
    ),
    (
        "long sequences",
        written("late/config.json", '{"vocab_size": 4, "n_positions": 8}'),
        OF_MINE + r"corpus\.sequence_length 16: late/config\.json has n_positions 8; lower it to that",
    ),
    (
        "few blocks",
        written("late/config.json", '{"vocab_size": 4, "n_layer": 1}'),
        r"suites\.mine: site 'residual\.1' is outside the model: it has blocks 0 to 0 \(late/config\.json\); choose",
    ),
    (
        "a file as the results",
        lambda config: config.update(results="text.txt"),
        r"results 'text\.txt': is no directory; name one, or move the file away",
    ),
]


def parquet_of_latin_1() -> bytes:
    """Return a Parquet file whose second text is not UTF-8."""
    offsets, texts = (
        pa.py_buffer(bytes(4) + (2).to_bytes(4, "little") + (6).to_bytes(4, "little")),
        pa.py_buffer(b"okcaf\xe9"),
    )
    column = pa.Array.from_buffers(pa.string(), 2, [None, offsets, texts])
    stream = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": column, "good": column, "bad": column}), stream)
    content: bytes = stream.getvalue().to_pybytes()
    return content


def building_task(file: str, content: str | bytes, **settings: Any) -> Callable[[], list[str]]:
    """Return the arguments that build a task from a file."""

    def arguments() -> list[str]:
        written(file, content)({})
        given = json.dumps({"path": file, **(settings or {"kind": "pairs"})})
        return ["build_task", "--task", "own", "--settings", given, "--output", "task.zarr"]

    return arguments


def building_corpus(file: str, content: str | bytes, **settings: Any) -> Callable[[], list[str]]:
    """Return the arguments that build a corpus from a file, which is followed by text enough."""

    def arguments() -> list[str]:
        written(file, content)({})
        Path("z.txt").write_text("the cat sees\n" * 999)
        given = json.dumps({**TEXT, "path": "?.*", **settings})
        places = ["--state", "state", "--train", "train.zarr", "--validation", "validation.zarr"]
        return ["build_corpus", "--corpus", given, "--processes", "1", *places]

    return arguments


def lacking_words(arguments: Callable[[], list[str]]) -> Callable[[], list[str]]:
    """Return arguments by which the tokenizer has no token for most words."""

    def changed_arguments() -> list[str]:
        given = arguments()
        write_words(Path("tokenizer"), {"the": 0, "</s>": 1}, unknown="?")
        Path("tokenizer/config.json").write_text('{"vocab_size": 900}')
        return given

    return changed_arguments


def collecting(store: str, content: str | None = None) -> Callable[[], list[str]]:
    """Return the arguments that collect scores from a store of which there is only its metadata."""

    def arguments() -> list[str]:
        if content is not None:
            Path(store).mkdir()
            (Path(store) / "zarr.json").write_text(content)
        return ["collect_behaviour", "--scores", store, "--output", "behaviour.zarr"]

    return arguments


def checking(path: str, content: str) -> Callable[[], list[str]]:
    """Return the arguments that check a downloaded checkpoint of which one file is another."""

    def arguments() -> list[str]:
        local_config()
        written(path, content)({})
        return ["check_checkpoint", "--revision", "step8", "--checkpoint", "late", "--output", "checked.yaml"]

    return arguments


def with_config(script: str, content: str | bytes | None, *more: str) -> Callable[[], list[str]]:
    """Return the arguments that plan or fetch an experiment."""

    def arguments() -> list[str]:
        if content is not None:
            written("mine.yaml", content)({})
        return [script, "mine.yaml", *more]

    return arguments


def with_local(script: str, change: Change) -> Callable[[], list[str]]:
    """Return the arguments that plan or fetch an experiment of local files, of which one is changed."""

    def arguments() -> list[str]:
        config = local_config()
        change(config)
        Path("mine.yaml").write_text(yaml.safe_dump(config))
        return [script, "mine.yaml"]

    return arguments


LATIN = "caf\xe9 au lait\n".encode("latin-1")
WESTERN = r"; it is perhaps WINDOWS-1252\); save the file as UTF-8, for instance by iconv -f WINDOWS-1252 -t UTF-8"
WRONG_RUNS: list[tuple[str, Callable[[], list[str]], str]] = [
    (
        "a task in Latin-1",
        building_task("a.jsonl", b"\n" + LATIN),
        r"a\.jsonl, line 2: .*byte 0xe9 at offset 4 of the text" + WESTERN,
    ),
    (
        "a compressed task in Latin-1",
        building_task("a.tsv.gz", gzip.compress(b"good\tbad\n" + LATIN), **TABLE),
        r"a\.tsv\.gz, line 2: is no UTF-8 text \(byte 0xe9 at offset 12 of the text" + WESTERN,
    ),
    (
        "a Parquet task in Latin-1",
        building_task("a.parquet", parquet_of_latin_1(), **TABLE),
        r"a\.parquet, row [12]: .*(byte 0xe9 at offset 3 of a value|are the same)",
    ),
    (
        "a task in UTF-16",
        building_task("a.jsonl", json.dumps(PAIR).encode("utf-16")),
        r"a\.jsonl, line 1: is no UTF-8 text \(byte 0x.. at offset 0 .* it is UTF-16\); .* iconv -f UTF-16 -t UTF-8",
    ),
    (
        "a damaged gzip file",
        building_task("a.jsonl.gz", gzip.compress(os.urandom(999))[:500], kind="pairs"),
        r"a\.jsonl\.gz: is no whole gzip file",
    ),
    (
        "no JSON",
        building_task("a.jsonl", '{"prefix": "the'),
        r"a\.jsonl, line 1: needs a JSON object, not \{.*correct the line",
    ),
    (
        "no field",
        building_task("a.jsonl", '{"prefix": "the"}'),
        r"a\.jsonl, line 1: 'right' is missing; add it: a pair has",
    ),
    (
        "an unknown field",
        building_task("a.jsonl", json.dumps({**PAIR, "rigt": "x"})),
        r"a\.jsonl, line 1: .*'rigt'; remove it or correct its",
    ),
    (
        "a number as a text",
        building_task("a.jsonl", json.dumps({**PAIR, "right": 3})),
        r"a\.jsonl, line 1: 'right' is 3; give text",
    ),
    (
        "equal sentences",
        building_task("a.csv", "good,bad\nthe cat,the cat\n", **TABLE),
        r"a\.csv, line 2: right and wrong sentence are the same: 'the cat'; remove or correct the pair",
    ),
    (
        "no pairs",
        building_task("a.csv", "good,bad\n", **TABLE),
        r"a\.csv: holds no pairs; give a table with a pair in each row",
    ),
    (
        "no column",
        building_task("a.csv", "good,worse\nthe cat,the dog\n", **TABLE),
        r"a\.csv, line 2: no column 'bad'; there are good, worse: name the right one in `columns`",
    ),
    (
        "no language",
        building_task("a.jsonl", json.dumps({**PAIR, "language": "eng"}), kind="pairs", language="fra"),
        r"a\.jsonl: no pair has language 'fra'; there are eng: set the task's language to one of them",
    ),
    (
        "words that a task's tokenizer lacks",
        lacking_words(building_task("a.jsonl", json.dumps(PAIR))),
        r"tokenizer: the tokenizer has 2 tokens, and the model 900, none of them for words that it does not know",
    ),
    (
        "a text in Latin-1",
        building_corpus("a.txt", b"the cat\n" + LATIN),
        r"a\.txt, line 2: is no UTF-8 text \(byte 0xe9 at offset 11 of the text" + WESTERN,
    ),
    (
        "a marked text in Latin-1",
        building_corpus("a.txt", b"\xef\xbb\xbf" + LATIN),
        r"a\.txt, line 1: is no UTF-8 text \(byte 0xe9 at offset 6 of the text" + WESTERN,
    ),
    (
        "a compressed text in Latin-1",
        building_corpus("a.jsonl.gz", gzip.compress(b'{"text": "the"}\n{"text": "' + LATIN)),
        r"a\.jsonl\.gz, line 2: is no UTF-8 text \(byte 0xe9 at offset 29 of the text" + WESTERN,
    ),
    (
        "a whole file in Latin-1",
        building_corpus("a.txt", b"the cat\n" + LATIN, whole_files=True),
        r"a\.txt: is no UTF-8 text \(byte 0xe9 at offset 11 of the text" + WESTERN,
    ),
    (
        "a Parquet text in Latin-1",
        building_corpus("a.parquet", parquet_of_latin_1()),
        r"a\.parquet, row 2: is no UTF-8 text \(byte 0xe9 at offset 3 of a value" + WESTERN,
    ),
    (
        "a text in UTF-16",
        building_corpus("a.txt", "the cat\n".encode("utf-16")),
        r"a\.txt, line 1: .* it is UTF-16\); save the file as UTF-8",
    ),
    (
        "a damaged text",
        building_corpus("a.txt.gz", gzip.compress(LATIN)[:9]),
        r"a\.txt\.gz: is no whole \.gz file after line 0",
    ),
    (
        "words that a text's tokenizer lacks",
        lacking_words(building_corpus("a.txt", "the cat\n")),
        r"tokenizer: the tokenizer has 2 tokens, and the model 900, none of them for words that it does not know"
        r" \(.*\); give the tokenizer that the checkpoints were trained with",
    ),
    ("no store", collecting("scores.zarr"), r"scores\.zarr: does not exist; run its target again"),
    (
        "a damaged store",
        collecting("scores.zarr", "{"),
        r"scores\.zarr: zarr\.json is damaged or unsealed; delete it and run",
    ),
    (
        "a store that lacks files",
        collecting("scores.zarr", '{"attributes": {"files": 7}}'),
        r"scores\.zarr: holds \d files of 7; delete it and run its target again",
    ),
    (
        "a download with another tokenizer",
        checking("late/tokenizer.json", "{}"),
        r"step8: late/tokenizer\.json differs from",
    ),
    (
        "a damaged download",
        checking("late/config.json", "{"),
        r"step8: late/config\.json: no readable JSON .*; save or download it",
    ),
    (
        "no configuration to plan",
        with_config("plan", None),
        r"mine\.yaml: no readable configuration \(.*\); correct the path or the",
    ),
    ("no configuration to fetch", with_config("fetch", None), r"mine\.yaml: no readable configuration"),
    (
        "no YAML",
        with_config("plan", "a: [1"),
        r"mine\.yaml: no readable configuration \(.*\); correct the path or the file",
    ),
    (
        "no mapping",
        with_config("plan", "[1]"),
        r"mine\.yaml: 1 wrong:\s+\(whole file\): Input should be a valid dictionary",
    ),
    (
        "an empty configuration",
        with_config("fetch", ""),
        r"mine\.yaml: 1 wrong:\s+suites: missing; give it \(keys are listed in",
    ),
    (
        "a configuration in Latin-1",
        with_config("plan", LATIN),
        r"mine\.yaml: no readable configuration \(.*0xe9.*\); correct",
    ),
    (
        "an unknown accelerator",
        with_config("plan", (ROOT / "config.yaml").read_text(), "--accelerator", "h1"),
        r"accelerator 'h1' .*choose from",
    ),
    (
        "a plan without its task",
        with_local("plan", removed("pairs.jsonl")),
        OF_MINE + r"tasks\.own\.path: no file pairs\.jsonl; put it there",
    ),
    (
        "a plan without its model",
        with_local("plan", removed("early/config.json")),
        r"suites\.mine\.source, checkpoint 'early': no readable early/",
    ),
    (
        "fetching without a task",
        with_local("fetch", removed("pairs.jsonl")),
        OF_MINE + r"tasks\.own\.path 'pairs\.jsonl': there is no such file",
    ),
]


class Wrong(NamedTuple):
    """A wrong input.

    Attributes:
        name: of the case.
        said: what is said of it, given to a configuration's check or a script in the working directory.
        message: what has to be in that.
    """

    name: str
    said: Callable[[], str]
    message: str


def said_of(config: Callable[[], dict[str, Any]]) -> Callable[[], str]:
    """Return what gives a configuration to what the Snakefile calls first, and returns what it says."""

    def said() -> str:
        with pytest.raises(ConfigError) as caught:
            checked_experiment(config(), "config.yaml")
        return str(caught.value)

    return said


def said_of_local(change: Change) -> Callable[[], str]:
    def config() -> dict[str, Any]:
        found = local_config()
        change(found)
        return found

    return said_of(config)


def said_by_script(arguments: Callable[[], list[str]]) -> Callable[[], str]:
    """Return what runs a script in this process, and returns the errors that it logs."""

    def said() -> str:
        given = arguments()
        if given[0] in ("build_task", "build_corpus"):
            given += ["--suite", "mine", "--tokenizer", "tokenizer", "--lock", "lock.yaml"]
        if given[0] == "check_checkpoint":
            given += ["--tokenizer", "early"]
        messages: list[str] = []
        handler = logging.Handler(logging.ERROR)
        handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("chronocoder").addHandler(handler)
        try:
            with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
                patch.setattr(sys, "argv", given)
                runpy.run_path(str(ROOT / f"scripts/{given[0]}.py"), run_name="__main__")
        finally:
            logging.getLogger("chronocoder").removeHandler(handler)
        assert ended.value.code == 1
        return "\n".join(messages)

    return said


CASES = [
    *(
        Wrong(f"{path}={value}"[:80], said_of(lambda path=path, value=value: changed(path, value)), message)
        for path, value, message in WRONG
    ),
    *(
        Wrong(
            f"{names} {source}",
            said_of(lambda names=names, source=source: with_twin({"checkpoints": names}, **source)),
            rf"comparisons\.twins: .*{message}",
        )
        for names, source, message in WRONG_TWINS
    ),
    *(
        Wrong(
            f"suite's {values}",
            said_of(lambda values=values: changed("suites.nursery.taskspace", SPACE | values)),
            rf"suites\.nursery[.:] ?{message}",
        )
        for values, message in WRONG_SPACES
    ),
    *(
        Wrong(f"taskspace.{values}", said_of(lambda values=values: changed("taskspace", values)), message)
        for values, message in WRONG_TUNINGS
    ),
    *(Wrong(name, said_of_local(change), message) for name, change, message in WRONG_FILES),
    *(Wrong(name, said_by_script(arguments), message) for name, arguments, message in WRONG_RUNS),
]


@pytest.fixture(scope="module")
def tokenizer_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words")
    train_tokenizer(["the cat sees the dogs"] * 9, VOCABULARY).save_pretrained(path)
    return path


@pytest.mark.parametrize("wrong", CASES, ids=lambda wrong: wrong.name)
def test_what_is_wrong_is_named_with_its_place_and_remedy(
    wrong: Wrong, tmp_path: Path, tokenizer_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tokenizer").symlink_to(tokenizer_files)
    said = wrong.said()
    assert re.search(wrong.message, said, re.DOTALL), said
    assert "Traceback" not in said and ".smk" not in said


def test_what_is_right_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checked_experiment(DEFAULT, "config.yaml")
    config = local_config()
    Path("texts").mkdir()
    for name, content in (("a.txt", ""), ("b.txt", "the cat sees\n")):
        (Path("texts") / name).write_text(content)
    suite_of(config)["corpus"]["path"] = "texts"
    checked_experiment(config, "config.yaml")
    for name in ("early", "late"):  # a closed vocabulary, and more rows than words, as of a round number
        write_words(Path(name), WORDS, unknown="?")
        (Path(name) / "config.json").write_text('{"vocab_size": 64}')
    checked_experiment(config, "config.yaml")


def test_a_task_is_read_from_all_files_of_a_local_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    files = [Path("data") / name for name in ("README.md", "train.jsonl")]
    for file in files:
        file.write_text("{}")
    assert task_files(BlimpTask(kind="blimp", dataset="data")) == files
    assert task_files(BlimpTask(kind="blimp", dataset="owner/data")) == []
    assert task_files(PairsTask(kind="pairs", path="pairs.jsonl")) == [Path("pairs.jsonl")]
    assert task_files(NurseryTask(kind="nursery")) == []


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def change(config: dict[str, Any]) -> None:
        removed("text.txt")(config)
        removed("pairs.jsonl")(config)
        checkpoint("nowhere")(config)

    said = said_of_local(change)()
    assert len(said.splitlines()) == 3 and all(key in said for key in ("corpus: ", "tasks.own", "checkpoints.late"))


@pytest.mark.parametrize("path", ["pairs.jsonl", "text.txt", "late", "late/config.json"])
def test_what_may_not_be_read_is_named(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "access", lambda asked, _: Path(asked) != Path(path))  # the superuser may read everything
    said = said_of_local(lambda _: None)()
    assert "you may not read it: change its permissions" in said and path.split("/")[0] in said
