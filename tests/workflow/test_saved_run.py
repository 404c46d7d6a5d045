"""The DAG on a run that transformers' Trainer saves, while it goes on."""

import json
import shutil
from pathlib import Path

from tiny import tiny_model
from transformers import PreTrainedTokenizerFast

from experiments import VARIANTS, Workflow


def save_checkpoint(run: Path, step: int) -> None:
    tiny_model("gpt_neox", step).save_pretrained(run / f"checkpoint-{step}")
    state = {"global_step": step, "num_input_tokens_seen": step * 1000}
    (run / f"checkpoint-{step}/trainer_state.json").write_text(json.dumps(state))


def workflow_of(tmp_path: Path, pair: list[str]) -> Workflow:
    (tmp_path / "text.txt").write_text("\n".join(f"the cat sees the dogs near a boy {n}" for n in range(200)))
    suite = {
        "source": {"kind": "local", "path": "runs/mine"},
        "corpus": {"kind": "text", "path": "text.txt", "train_tokens": 640, "validation_tokens": 160},
        "site": "residual.1",
        "tasks": {"agreement": {"kind": "pairs", "path": "pairs.jsonl"}},
        "comparisons": {"pair": {"checkpoints": pair, "variants": ["batchtopk"]}},
    }
    suite["corpus"]["sequence_length"] = 16
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prefix": "the cat", "right": " sees", "wrong": " see"}))
    return Workflow(tmp_path, {"suites": {"mine": suite}, "variants": VARIANTS})


def test_run_that_goes_on_adds_jobs_and_repeats_none(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    run = tmp_path / "runs/mine"
    save_checkpoint(run, 5)
    save_checkpoint(run, 10)
    tokenizer.save_pretrained(run)
    workflow = workflow_of(tmp_path, ["checkpoint-5", "checkpoint-10"])
    corpora = [f"results/mine/corpus/{split}.zarr" for split in ("train", "validation")]
    result = workflow.snakemake(*corpora)
    assert result.returncode == 0, result.stdout
    before = workflow.planned()
    save_checkpoint(run, 15)
    assert "build_corpus" not in before
    assert workflow.planned() == before
    assert "checkpoint-15" in workflow.snakemake("--dry-run", "--printshellcmds").stdout


def test_run_may_delete_its_first_checkpoint(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    run = tmp_path / "runs/mine"
    for step in (5, 10, 15):
        save_checkpoint(run, step)
        tokenizer.save_pretrained(run / f"checkpoint-{step}")
    workflow = workflow_of(tmp_path, ["checkpoint-10", "checkpoint-15"])
    assert workflow.snakemake("results/mine/tasks/agreement.zarr").returncode == 0
    target = "results/mine/pair/batchtopk/seed0/training.zarr"
    before = workflow.planned(None, target)
    shutil.rmtree(run / "checkpoint-5")
    assert workflow.planned(None, target) == before and "copy_tokenizer" not in before
    assert "build_task" not in workflow.planned()
