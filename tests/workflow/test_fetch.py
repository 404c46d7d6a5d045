"""An experiment whose models, text and tasks are on the hub: fetched first, then run without a network."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr
import yaml
from hub_server import HubServer, hub_server
from tiny import tiny_model
from transformers import PreTrainedTokenizerFast

from experiments import ROOT, VARIANTS, Workflow

NOUNS, VERBS = ["cat", "dog", "boy"], ["sees", "walks"]


@pytest.fixture
def hub(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Iterator[HubServer]:
    with hub_server() as server:
        for seed, revision in enumerate(("step0", "step8")):
            tiny_model("gpt_neox", seed).save_pretrained(tmp_path / revision)
            tokenizer.save_pretrained(tmp_path / revision)
            server.model("lab/model").push_directory(revision, tmp_path / revision)
        text = [{"text": f"the {NOUNS[n % 3]} {VERBS[n % 2]} near the {NOUNS[n // 3 % 3]}s {n}"} for n in range(900)]
        pairs = [{"sentence_good": f"the {noun} sees", "sentence_bad": f"the {noun} see"} for noun in NOUNS]
        for name, rows in (("lab/text", text), ("lab/pairs", pairs)):
            lines = "\n".join(json.dumps(row) for row in rows)
            server.dataset(name).push("main", {"train.jsonl": lines.encode()})
        yield server


@pytest.fixture
def workflow(tmp_path: Path, hub: HubServer) -> Workflow:
    suite = {
        "source": {"kind": "hub", "repository": "lab/model", "checkpoints": {"step0": 8, "step8": 8000}},
        "corpus": {
            "kind": "hub",
            "dataset": "lab/text",
            "train_tokens": 3200,
            "validation_tokens": 640,
            "sequence_length": 16,
        },
        "site": "residual.1",
        "tasks": {"agreement": {"kind": "blimp", "dataset": "lab/pairs"}},
        "comparisons": {"pair": {"checkpoints": ["step0", "step8"], "variants": ["batchtopk"]}},
    }
    config = {"suites": {"lab": suite}, "variants": VARIANTS, "attribution": {"bootstrap_samples": 50}}
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "mine.yaml").write_text(yaml.safe_dump(config))
    return Workflow(directory, config, environment=hub.environment(tmp_path / "home"))


def fetch(workflow: Workflow, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/fetch.py"), "mine.yaml", *options]
    return subprocess.run(
        command, cwd=workflow.directory, env=workflow.whole_environment, capture_output=True, text=True
    )


def test_fetched_experiment_runs_without_network(hub: HubServer, workflow: Workflow) -> None:
    said = fetch(workflow, "--dry-run")
    assert said.returncode == 0, said.stderr
    assert re.search(r"results/lab/checkpoints/step8 +lab/model step8 +\d", said.stdout)
    assert "To fetch: " in said.stdout and " kB of checkpoints, and of datasets as much as the conf" in said.stdout
    assert "at most " in said.stdout and not (workflow.directory / "results/lab/checkpoints").exists()
    result = fetch(workflow, "--cores", "2")
    assert result.returncode == 0, result.stdout + result.stderr
    made = {path.name for path in (workflow.directory / "results/lab").iterdir()}
    assert {"checkpoints", "corpus", "tasks", "lock.yaml"} <= made
    assert not {"behaviour", "activations", "pair"} & made
    lock = yaml.safe_load((workflow.directory / "results/lab/lock.yaml").read_text())
    assert lock["models"]["lab/model"] == hub.models["lab/model"].branches
    asked = len(hub.requests)
    again = fetch(workflow)
    assert again.stdout.count("there, unless its settings changed\n") == 5
    assert again.returncode == 0 and len(hub.requests) == asked
    offline = Workflow(
        workflow.directory,
        workflow.config,
        environment={**workflow.environment, "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": "http://127.0.0.1:9"},
        warm=True,
    )
    assert not {"download_tokenizer", "download_checkpoint", "build_corpus", "build_task"} & offline.planned().keys()
    trained = "results/lab/pair/batchtopk/seed0/training.zarr"
    ran = offline.snakemake("results/lab/behaviour.zarr", trained)
    assert ran.returncode == 0, ran.stdout
    assert len(hub.requests) == asked
    assert xr.open_zarr(workflow.directory / "results/lab/behaviour.zarr").sizes["checkpoint"] == 2
    checkpoints = {"main": 0, **workflow.config["suites"]["lab"]["source"]["checkpoints"]}
    earlier = offline.planned(workflow.changed("suites.lab.source.checkpoints", checkpoints))
    made = {"download_tokenizer", "build_corpus", "build_task", "harvest_activations", "train_crosscoder"}
    assert earlier["download_checkpoint"] == earlier["check_checkpoint"] == 1 and not made & earlier.keys()
    changed = workflow.changed("suites.lab.source.checkpoints", checkpoints)
    changed["variants"]["batchtopk"]["steps"] += 1
    assert offline.planned(changed)["train_crosscoder"] == 1, "one more checkpoint hides no other reason"
    more = workflow.changed("suites.lab.corpus.train_tokens", 4800)
    (workflow.directory / "mine.yaml").write_text(yaml.safe_dump(more))
    assert fetch(workflow).returncode == 0
    assert xr.open_zarr(workflow.directory / "results/lab/corpus/train.zarr").sizes["sequence"] == 300
    pickled = workflow.changed("suites.lab.source.pickled_weights", True)
    assert "download_checkpoint" not in workflow.planned(pickled)


def test_fetch_takes_what_the_whole_run_takes_over_the_network(workflow: Workflow) -> None:
    network = {"download_tokenizer", "download_checkpoint", "build_corpus", "build_task"}
    seeds = {"checkpoints": ["step0", "step0@twin"], "variants": ["batchtopk"]}
    twin = {**workflow.config["suites"]["lab"], "comparisons": {}}
    twin["source"] = {"kind": "hub", "repository": "lab/twin", "checkpoints": {"step0": 8, "step8": 8000}}
    controlled = workflow.changed("suites.lab.comparisons.seeds", seeds)
    controlled["suites"]["twin"] = twin
    controls_alone = copy.deepcopy(controlled)
    del controls_alone["suites"]["lab"]["comparisons"]["pair"]
    scanned = workflow.changed("suites.lab.scan", {"limit": 2})
    for config, checkpoints in ((controlled, 3), (controls_alone, 2), (scanned, 2)):
        whole = workflow.planned(config)
        fetched = {rule: count for rule, count in workflow.planned(config, "fetch").items() if rule in network}
        assert fetched == {rule: count for rule, count in whole.items() if rule in network}
        assert fetched["download_checkpoint"] == checkpoints


def test_all_that_cannot_be_fetched_is_said_at_once(hub: HubServer, workflow: Workflow) -> None:
    del hub.models["lab/model"].branches["step8"], hub.datasets["lab/pairs"]
    result = fetch(workflow)
    assert result.returncode == 1 and result.stdout.count("cannot be fetched") == 2
    assert "model lab/model at 'step8': no such revision among its 1; the nearest are step0" in result.stderr
    assert "dataset lab/pairs at 'main': no such repository, or a private one" in result.stderr
    assert not (workflow.directory / "results/lab/checkpoints").exists()
