"""The published experiments: the DAG of each without a network, and one of each family from the hub to its report.

The hub is a server on this machine with stand-ins of the models, texts and tasks; the configuration is the published
one with smaller sizes.
"""

import functools
import re
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import stand_ins
import xarray as xr
import yaml
from hub_server import HubServer, hub_server

from experiments import ROOT, Workflow

NAMES = sorted(
    str(path.relative_to(ROOT / "experiments").with_suffix("")) for path in (ROOT / "experiments").rglob("*.yaml")
)
NO_HUB = {"HF_ENDPOINT": "http://127.0.0.1:9"}
SIZES: dict[str, Any] = {
    "dictionary_size": 48,
    "steps": 40,
    "batch_tokens": 256,
    "learning_rate": 0.005,
    "dead_after_tokens": 2000,
}
SETS = {
    "regular_plural_subject_verb_agreement_1": "subject_verb_agreement",
    "distractor_agreement_relational_noun": "subject_verb_agreement",
}
OTHER_SETS = {
    "determiner_noun_agreement_1": "determiner_noun_agreement",
    "determiner_noun_agreement_irregular_1": "determiner_noun_agreement",
}


def published(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "experiments" / f"{name}.yaml").read_text())
    return config


@pytest.mark.parametrize("name", NAMES)
def test_whole_dag_is_built_without_a_network(name: str, tmp_path: Path) -> None:
    config = published(name)
    planned = Workflow(tmp_path, config, ("--quiet", "rules"), NO_HUB).planned()
    assert planned["write_report"] == len(config["suites"])
    assert planned["train_crosscoder" if config.get("variants") else "tune_task"] >= 1
    if name == "pythia-1b":
        assert (planned["download_checkpoint"], planned["build_task"], planned["scan_checkpoint"]) == (154, 67, 154)
        assert planned["train_crosscoder"] == 8 * 2 * 3


def test_table_of_the_experiments_names_each_of_them() -> None:
    page = (ROOT / "experiments/README.md").read_text()
    for name in NAMES:
        assert f"experiments/{name}.yaml" in page, f"no command for {name}"
        priced = re.search(rf"^\| experiments/{name} \| \d+ \|", page, re.MULTILINE)
        assert priced or name.startswith("nursery"), f"no price of {name}"


def shrunk(name: str, site: str, variant: str) -> dict[str, Any]:
    """Return a published experiment with its triplet, one seed and variant, and smaller sizes."""
    config = published(name)
    (suite,) = config["suites"].values()
    suite["comparisons"] = {"course": {**suite["comparisons"]["course"], "baseline": None}}
    suite["site"] = site
    suite["corpus"] |= {"train_tokens": 6400, "validation_tokens": 1280, "sequence_length": 32}
    settings = config["variants"][variant] | SIZES
    config["variants"] = {variant: settings | ({"k": 6, "k_initial": 12} if variant == "batchtopk" else {})}
    config["seeds"] = config["seeds"][:1]
    config["attribution"] = {"bootstrap_samples": 50}
    config["ablation"] = {"top_features": 2, "set_sizes": [1, 2], "random_sets": 2}
    config["features"] = {"top_features": 2, "examples": 2}
    config["evaluation"] = {"sequences": 16, "batch_size": 16}
    config["attribution_jobs"] = {"tasks_per_job": 8}
    return config


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """Serve what the shrunk experiments need of the hub."""
    with hub_server() as server:
        revisions = ("step0", "step512", "step2000", "step143000")
        stand_ins.serve_models(server, "EleutherAI/pythia-1b", revisions, stand_ins.pythia)
        stand_ins.serve_models(server, "EleutherAI/pythia-70m", revisions[1::2], stand_ins.pythia)
        revisions = ("step2000-tokens4B", "step16000-tokens33B", "step1454000-tokens3048B")
        stand_ins.serve_models(server, "allenai/OLMo-1B-0724-hf", revisions, stand_ins.olmo)
        revisions = ("global_step10000", "global_step100000")
        early = "bigscience/bloom-1b1-intermediate"
        stand_ins.serve_models(server, early, revisions, stand_ins.bloom, pickled=True)
        stand_ins.serve_models(server, "bigscience/bloom-1b1", ["main"], stand_ins.bloom)
        stand_ins.serve_text(server, "monology/pile-uncopyrighted", "train/00.jsonl.zst")
        stand_ins.serve_text(server, "emozilla/dolma-v1_7-30B", "000_00000.parquet")
        stand_ins.serve_text(server, "allenai/c4", "multilingual/c4-{language}.json.gz", ["en", "fr"])
        stand_ins.serve_blimp(server, SETS | OTHER_SETS)
        stand_ins.serve_multiblimp(server, {"eng": "en", "fra": "fr"})
        yield server


@pytest.fixture(scope="module")
def github(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve sets of CLAMS, and return the address."""
    folder = tmp_path_factory.mktemp("github")
    stand_ins.write_clams(folder, ["simple_agrmt"], ["en", "fr"])
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def run(directory: Path, config: dict[str, Any], hub: HubServer) -> Path:
    """Run an experiment to its report, and return its results."""
    workflow = Workflow(directory, config, environment=hub.environment(directory.parent / "home"), warm=True)
    result = workflow.snakemake()
    assert result.returncode == 0, result.stdout
    (name,) = config["suites"]
    results = directory / "results" / name
    assert (results / "report/index.html").exists() and list((results / "report/figures").rglob("*.svg"))
    assert workflow.planned() == {}
    return results


def commits(results: Path) -> dict[str, Any]:
    locked: dict[str, Any] = yaml.safe_load((results / "lock.yaml").read_text())
    return locked


def test_pythia_reaches_its_report(hub: HubServer, tmp_path: Path) -> None:
    config = shrunk("pythia-1b", "residual.1", "batchtopk")
    suite = config["suites"]["pythia-1b"]
    suite["source"]["checkpoints"] = ["step0", "step512", "step2000", "step143000"]
    suite["scan"] = {"limit": 4, "tokens": 640}
    suite["tasks"]["blimp"] |= {"names": list(SETS), "limit": 8}
    suite["contrasts"] = {}
    results = run(tmp_path, config, hub)
    models = commits(results)["models"]["EleutherAI/pythia-1b"]
    assert models == hub.models["EleutherAI/pythia-1b"].branches
    relie = xr.open_zarr(results / "course/batchtopk/seed124/relie.zarr")
    assert relie["tokens_seen"].values.tolist() == [1_073_741_824, 4_194_304_000, 299_892_736_000]
    assert set(relie["phenomenon"].values.tolist()) == {"subject_verb_agreement"}


def test_a_task_space_of_pythia_reaches_its_report(hub: HubServer, tmp_path: Path) -> None:
    """By naming checkpoints and tasks, without crosscoders."""
    config = published("smoke/taskspace-pythia-70m")
    suite = config["suites"]["pythia-70m"]
    suite["corpus"] |= {"train_tokens": 640, "validation_tokens": 640, "sequence_length": 32}
    suite["site"] = "residual.1"
    config["results"] = "results"
    config["taskspace"] |= {"seeds": [0], "steps": 2, "sequences": 8, "permutations": 50, "bootstrap_samples": 50}
    results = run(tmp_path, config, hub)
    transfer = xr.open_zarr(results / "taskspace/transfer.zarr").load()
    assert transfer["source"].values.tolist() == transfer["target"].values.tolist() == list(SETS | OTHER_SETS)
    assert transfer["group"].values.tolist() == list((SETS | OTHER_SETS).values())
    assert transfer["tokens_seen"].values.tolist() == [1_073_741_824, 299_892_736_000]
    assert transfer["mean_transfer"].notnull().all() and transfer["mean_loss_change"].notnull().all()
    space = xr.open_zarr(results / "taskspace/space.zarr")
    assert space["similarity"].sel(basis="gradients").notnull().all()
    assert space["contrast_smallest_p"].sel(basis="gradients").values == pytest.approx(1 / 3), (
        "of three ways to pair four"
    )


def test_olmo_reaches_its_report(hub: HubServer, tmp_path: Path) -> None:
    config = shrunk("olmo-1b", "residual.1", "l1")
    suite = config["suites"]["olmo-1b"]
    suite["source"]["checkpoints"] = ["tokens4B", "tokens33B", "tokens3048B"]
    suite["tasks"]["blimp"] |= {"names": list(SETS)[:1], "limit": 8}
    suite["contrasts"] = {}
    results = run(tmp_path, config, hub)
    assert commits(results)["datasets"].keys() == {"emozilla/dolma-v1_7-30B", "nyu-mll/blimp"}


def test_bloom_reaches_its_report_with_several_languages(hub: HubServer, github: str, tmp_path: Path) -> None:
    config = shrunk("bloom-1b1", "residual.1", "batchtopk")
    suite = config["suites"]["bloom-1b1"]
    suite["source"]["checkpoints"] = ["global_step10000", "global_step100000", "main"]
    sources = suite["corpus"]["sources"]
    suite["corpus"]["sources"] = [source for source in sources if source["language"] in ("en", "fr")]
    sets = {f"simple_agrmt_{code}": f"{code}_evalset/simple_agrmt.txt" for code in ("en", "fr")}
    clams = {name: {"kind": "clams", "name": path, "address": github, "limit": 8} for name, path in sets.items()}
    suite["tasks"] = {**clams, "multiblimp": {**suite["tasks"]["multiblimp"], "languages": ["eng", "fra"], "limit": 8}}
    suite["contrasts"] = {}
    results = run(tmp_path, config, hub)
    assert (results / "course/batchtopk/seed124/consolidation.zarr").is_dir()
    locked = commits(results)
    assert len(locked["files"]) == 2
    assert locked["models"].keys() == {"bigscience/bloom-1b1", "bigscience/bloom-1b1-intermediate"}
    corpus = xr.open_zarr(results / "corpus/train.zarr")
    assert set(corpus["language"].values.tolist()) == {"en", "fr"}
