"""The DAG on directories of another architecture, a text file, and a task in BLiMP's format."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import xarray as xr
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from chronocoder.stores import write_store
from experiments import ROOT, VARIANTS, Workflow

WORDS = ["the", "a", "cat", "dog", "cats", "dogs", "boy", "sees", "see", "walks", "walk", "near", "and", "old"]
WORDS += [".", "<s>", "</s>"]


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="."))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token=".")


def make_checkpoint(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=seed == 0,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    make_tokenizer().save_pretrained(path)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    directory = tmp_path_factory.mktemp("local")
    for seed, name in enumerate(("early", "late")):
        make_checkpoint(directory / "models" / name, seed)
    text = [f"the {WORDS[2 + n % 5]} {WORDS[7 + n % 4]} near the {WORDS[2 + n // 5 % 5]} {n}" for n in range(900)]
    (directory / "text.txt").write_text("\n".join(text))
    pairs = [("the cat near the dogs sees a boy", "the cat near the dogs see a boy"), ("the dogs see", "the dogs sees")]
    lines = [json.dumps({"sentence_good": good, "sentence_bad": bad}) for good, bad in pairs * 2]
    (directory / "agreement.jsonl").write_text("\n".join(lines))
    checkpoints = {
        "early": {"path": "models/early", "tokens_seen": 1000},
        "late": {"path": "models/late", "tokens_seen": 1_000_000},
    }
    suite = {
        "source": {"kind": "local", "checkpoints": checkpoints},
        "corpus": {
            "kind": "text",
            "path": "text.txt",
            "train_tokens": 3200,
            "validation_tokens": 640,
            "sequence_length": 16,
        },
        "site": "mlp_out.1",
        "tasks": {"blimp_agreement": {"kind": "blimp", "path": "agreement.jsonl"}},
        "comparisons": {"pair": {"checkpoints": ["early", "late"], "variants": ["batchtopk"]}},
    }
    config = {"suites": {"llama": suite}, "variants": VARIANTS, "attribution": {"bootstrap_samples": 50}}
    return Workflow(directory, config)


def test_other_architecture_reaches_its_report(local: Workflow) -> None:
    result = local.snakemake()
    assert result.returncode == 0, result.stdout
    results = local.directory / "results/llama"
    assert (results / "report/index.html").exists() and list((results / "report/figures").rglob("*.svg"))
    corpus = xr.open_zarr(results / "corpus/train.zarr")
    assert (corpus["token_ids"][:, 0] == WORDS.index("<s>")).all()
    task = xr.open_zarr(results / "tasks/blimp_agreement.zarr")
    assert task.sizes["example"] == task.attrs["duplicates"] == 2 and set(task["length"].values.tolist()) == {3, 6}
    relie = xr.open_zarr(results / "pair/batchtopk/seed0/relie.zarr")
    assert relie.attrs["site"] == "mlp_out.1" and (abs(relie["indirect_effect"]) > 0).any()
    assert local.planned() == {}


def test_a_changed_text_file_is_harvested_anew(local: Workflow) -> None:
    text = local.directory / "text.txt"
    content, status = text.read_text(), text.stat()
    text.write_text(content + "\nthe old cat sees the dogs")
    planned = local.planned()
    text.write_text(content)
    os.utime(text, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert planned["build_corpus"] == 1 and planned["harvest_activations"] == 2 and planned["train_crosscoder"] == 1
    assert "score_task" not in planned
    assert local.planned() == {}


def test_weights_that_are_written_anew_are_read_anew(local: Workflow) -> None:
    weights = local.directory / "models/late/model.safetensors"
    content, status = weights.read_bytes(), weights.stat()
    weights.write_bytes(content + b"!")
    planned = local.planned()
    weights.write_bytes(content)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert planned["score_task"] == planned["compare_checkpoints"] == planned["train_crosscoder"] == 1
    assert planned["harvest_activations"] == 1 and "build_corpus" not in planned
    assert local.planned() == {}


def test_a_new_checkpoint_adds_its_own_jobs(local: Workflow) -> None:
    checkpoint = {"path": "models/late", "tokens_seen": 2_000_000}
    config = local.changed("suites.llama.source.checkpoints.last", checkpoint)
    config["suites"]["llama"]["comparisons"]["end"] = {"checkpoints": ["late", "last"], "variants": ["batchtopk"]}
    assert local.planned(config) == {
        "score_task": 1,
        "collect_behaviour": 1,
        "compare_checkpoints": 1,
        "list_comparisons": 1,
        "harvest_activations": 1,
        "train_crosscoder": 1,
        "evaluate_crosscoder": 1,
        "attribute_task": 1,
        "ablate_task": 1,
        "collect_attributions": 1,
        "find_examples": 1,
        "match_successors": 1,  # of pair, which ends where the new comparison begins
        "write_report": 1,
    }


def test_an_earlier_checkpoint_adds_its_own_jobs(local: Workflow) -> None:
    config = local.changed("suites.llama.source.checkpoints", {"first": {"path": "models/first", "tokens_seen": 0}})
    make_checkpoint(local.directory / "models/first", 2)
    config["suites"]["llama"]["source"]["checkpoints"] |= local.config["suites"]["llama"]["source"]["checkpoints"]
    assert local.planned(config) == {
        "score_task": 1,
        "collect_behaviour": 1,
        "compare_checkpoints": 1,
        "write_report": 1,
    }
    assert local.planned() == {}


def test_another_tokenizer_reruns_what_it_makes(local: Workflow) -> None:
    files = [local.directory / f"models/{name}/tokenizer_config.json" for name in ("early", "late")]
    contents = [file.read_text() for file in files]
    for file, content in zip(files, contents, strict=True):
        file.write_text(json.dumps({**json.loads(content), "bos_token": "."}))
    planned = local.planned()
    for file, content in zip(files, contents, strict=True):
        file.write_text(content)
    assert planned["copy_tokenizer"] == planned["build_corpus"] == planned["build_task"] == 1
    assert planned["harvest_activations"] == 2
    assert local.planned() == {}


def test_two_processes_are_not_another_result(local: Workflow) -> None:
    assert (
        local.planned(
            {**local.config, "training": {"processes": 2, "save_every": 7}, "attribution_jobs": {"processes": 2}}
        )
        == {}
    )


def test_only_means_over_the_corpus_make_attribution_wait_for_the_evaluation(local: Workflow, tmp_path: Path) -> None:
    run = "results/llama/pair/batchtopk/seed0"
    evaluation = f"--evaluation {run}/evaluation.zarr"
    target = f"{run}/attribution/blimp_agreement.zarr"
    fresh = Workflow(tmp_path / "fresh", local.config)
    shutil.copytree(local.directory, fresh.directory, ignore=shutil.ignore_patterns("results"))
    for intervention, scripts in (("zero", 0), ("resample", 0), ("mean", 1)):
        config = fresh.changed("attribution.intervention", intervention)
        planned = fresh.planned(config, target)
        assert ("evaluate_crosscoder" in planned) == (intervention == "mean") and planned["attribute_task"] == 1
        commands = fresh.snakemake("--dry-run", "--printshellcmds", target, config=config).stdout
        assert commands.count(evaluation) == scripts


def test_means_over_the_corpus_reach_the_ablation(local: Workflow, tmp_path: Path) -> None:
    copy = Workflow(tmp_path / "mean", local.changed("attribution.intervention", "mean"))
    shutil.copytree(local.directory, copy.directory)
    run = "results/llama/pair/batchtopk/seed0"
    result = copy.snakemake(f"{run}/ablation/blimp_agreement.zarr")
    assert result.returncode == 0, result.stdout
    ablation = xr.open_zarr(copy.directory / run / "ablation/blimp_agreement.zarr")
    settings = json.loads(ablation.attrs["attribution_settings"])
    assert settings["intervention"] == "mean" and (abs(ablation["indirect_effect"]) > 0).any()
    assert (ablation.attrs["examples"], ablation.attrs["examples_left_out"]) == (2, 0)


def test_corpus_that_is_too_short_is_named_and_keeps_what_was_computed(local: Workflow) -> None:
    config = local.changed("suites.llama.corpus.train_tokens", 100_000)
    config["results"] = "other"
    result = local.snakemake("--keep-going", "other/llama/corpus/train.zarr", config=config)
    assert result.returncode != 0 and "train_tokens asks for 100000 tokens, the text has only" in result.stdout
    assert not (local.directory / "other/llama/corpus/train.zarr").exists()


def test_damaged_checkpoint_is_named(local: Workflow) -> None:
    damaged = local.directory / "models/damaged"
    model = AutoModelForCausalLM.from_pretrained(local.directory / "models/late")
    model.model.layers[0].mlp.down_proj.weight.data[:] = torch.nan
    model.save_pretrained(damaged)
    make_tokenizer().save_pretrained(damaged)
    config = local.changed("suites.llama.source.checkpoints.late.path", "models/damaged")
    config["results"] = "other"
    result = local.snakemake("other/llama/behaviour/blimp_agreement.zarr", config=config)
    assert result.returncode != 0
    assert "models/damaged: 2 differences of right and wrong are not finite; the checkpoint is damaged" in result.stdout


def test_half_written_store_is_named(local: Workflow) -> None:
    corpus = local.directory / "results/llama/corpus/validation.zarr"
    chunk = next(path for path in (corpus / "token_ids/c").rglob("*") if path.is_file())
    content = chunk.read_bytes()
    chunk.unlink()
    result = local.snakemake("--force", "results/llama/similarity.zarr")
    chunk.write_bytes(content)
    assert result.returncode != 0
    assert "validation.zarr: holds" in result.stdout and "delete it and run its target again" in result.stdout


def ablate(local: Workflow, *arguments: str) -> str:
    """Run the ablation's script by hand with other arguments than the DAG's, and return what it says."""
    run = "results/llama/pair/batchtopk/seed0"
    command = [
        sys.executable,
        str(ROOT / "scripts/ablate_task.py"),
        "--suite",
        "llama",
        "--revisions",
        "early",
        "late",
    ]
    command += ["--checkpoints", "models/early", "models/late", "--tokens-seen", "1000", "1000000"]
    command += ["--crosscoder", f"{run}/crosscoder", "--tasks", "results/llama/tasks/blimp_agreement.zarr"]
    command += ["--attributions", f"{run}/attribution/blimp_agreement.zarr", "--outputs", "never.zarr"]
    command += ["--own-codes", f"{run}/own_codes.zarr", "--bootstrap-samples", "50", *arguments]
    done = subprocess.run(command, cwd=local.directory, capture_output=True, text=True)
    assert done.returncode == 1 and not (local.directory / "never.zarr").exists()
    return done.stderr


def test_what_does_not_belong_together_is_named(local: Workflow) -> None:
    assert "--outputs and --attributions list 2 and 1 values" in ablate(local, "--outputs", "never.zarr", "x.zarr")
    assert "commits: the crosscoder is of" in ablate(local, "--checkpoints", "models/early", "models/early")
    assert "no pair has a counterfactual prefix" in ablate(local, "--intervention", "counterfactual")
    assert "no two pairs have different prefixes of as many tokens" in ablate(local, "--intervention", "resample")
    assert "--evaluation: not given; intervention 'mean' takes the means" in ablate(local, "--intervention", "mean")
    other = xr.open_zarr(local.directory / "results/llama/pair/batchtopk/seed0/attribution/blimp_agreement.zarr").load()
    write_store(other, local.directory / "other.zarr", {**other.attrs, "task": "another"})
    said = ablate(local, "--attributions", "other.zarr")
    assert "the attribution given for task 'blimp_agreement' has task another, not blimp_agreement" in said
