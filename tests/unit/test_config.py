"""A wrong configuration says which key is wrong, what it holds and what to do."""

import copy
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from chronocoder.command_line import add_flags, from_flags, to_flags
from chronocoder.config import HarvestSettings, NurserySource, load_experiment, parse_experiment
from chronocoder.config.reference import PAGE_PATH, SCHEMA_PATH, page_text, schema_text
from chronocoder.errors import ConfigError
from chronocoder.settings import Settings
from chronocoder.variants import VARIANTS

ROOT = Path(__file__).parents[2]
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return the default configuration with the value at a dotted path replaced."""
    config = copy.deepcopy(DEFAULT)
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place = place[key]
    place[last] = value
    return config


WRONG = [
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
    ("suites.nursery.comparisons.onset.variants", ["l2"], r"variant 'l2' is not defined; choose from l1, batchtopk"),
    ("suites.nursery.comparisons.onset.checkpoints", ["step16"], r"onset\.checkpoints: List should have at least 2"),
    ("suites.nursery.site", "residual.4", r"site 'residual\.4' is outside the model: it has blocks 0 to 3"),
    ("suites.nursery.site", "block.1", r"suites\.nursery\.site: String should match pattern"),
    ("suites.nursery.source.steps", [4, 2], r"steps \[4, 2\] must ascend"),
    ("suites.nursery.corpus.train_tokens", 10, r"train_tokens 10 is less than one sequence of sequence_length 64"),
    ("suites.nursery.contrasts", {"agreement_simple": ["x"]}, r"contrasts\.agreement_simple: task 'x' is not among"),
    (
        "suites.nursery.tasks.agreement_simple",
        {"kind": "pears", "path": "x"},
        r"suites\.nursery\.tasks\.agreement_simple: Input tag 'pears' .* expected tags: 'nursery', 'blimp', 'pairs'",
    ),
    ("suites.nursery.tasks.agreement_simple", {"kind": "pairs"}, r"agreement_simple\.path: .*required"),
    ("variants.l1.k", 3, r"variants\.l1\.k: unknown key; remove it"),
    ("variants.l1.sparsity", "l2", r"variants\.l1: Input tag 'l2' .* match any of the expected tags: .*'topk'"),
    ("variants.batchtopk.k", 0, r"variants\.batchtopk\.k: Input should be greater than 0 \(found 0\)"),
    ("variants.batchtopk.k", 600, r"variants\.batchtopk: k 600 exceeds dictionary_size 512; lower it"),
    (
        "training",
        {"processes": 3, "dictionary_shards": 3},
        r"dictionary_size 512 is no multiple of training",
    ),
    ("seeds", [0, 1, 0], r"seeds: seeds \[0, 1, 0\] repeat; list each of them once"),
    ("ablation.set_sizes", [1, 5, 2], r"set_sizes \[1, 5, 2\] must ascend without repetition; sort the list"),
    ("training", {"processes": 3, "nodes": 2}, r"training: processes 3 is no multiple of nodes 2; change one"),
    ("training.nodes", 0, r"training\.nodes: Input should be greater than 0 \(found 0\)"),
    ("training.dictionary_shards", 2, r"training: processes 1 is no multiple of dictionary_shards 2; change one"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG, ids=[f"{path}={value}" for path, value, _ in WRONG])
def test_message_names_key_and_remedy(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_experiment(changed(path, value), "config.yaml")
    assert str(caught.value).startswith("config.yaml: 1 wrong:")


def test_configuration_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for content in (None, "a: [1"):
        path = tmp_path / "mine.yaml"
        if content is not None:
            path.write_text(content)
        with pytest.raises(ConfigError, match=r"(?s)mine\.yaml: no readable configuration .*; correct the path"):
            load_experiment(path)


def test_nursery_task_needs_a_nursery() -> None:
    config = copy.deepcopy(DEFAULT)
    suite = config["suites"]["nursery"]
    suite["source"] = {
        "kind": "local",
        "checkpoints": {f"step{n}": {"path": "x", "tokens_seen": n} for n in (16, 64, 112, 320)},
    }
    with pytest.raises(ConfigError, match=r"tasks\.agreement_simple: kind 'nursery' needs a source of kind 'nursery'"):
        parse_experiment(config, "config.yaml")


def test_tasks_say_whether_they_can_supply_a_counterfactual() -> None:
    given: list[tuple[dict[str, Any], bool]] = [
        ({"kind": "nursery"}, True),
        ({"kind": "pairs", "path": "own.jsonl"}, True),
        ({"kind": "blimp", "path": "blimp.jsonl"}, False),
    ]
    for settings, supplies in given:
        suite = parse_experiment(changed("suites.nursery.tasks.agreement_simple", settings), "config.yaml").suites
        assert suite["nursery"].tasks["agreement_simple"].supplies_counterfactual == supplies


def test_patching_needs_tasks_with_counterfactuals() -> None:
    config = changed("suites.nursery.tasks.determiner_noun", {"kind": "blimp", "path": "blimp.jsonl"})
    config["attribution"]["intervention"] = "counterfactual"
    message = (
        r"attribution\.intervention 'counterfactual': suites\.nursery\.tasks\.determiner_noun of kind 'blimp' has no"
        r" counterfactual prefixes; leave it out, or set intervention to zero"
    )
    with pytest.raises(ConfigError, match=message):
        parse_experiment(config, "config.yaml")


def test_checkpoints_out_of_order_are_refused() -> None:
    config = changed(
        "suites.nursery.source",
        {"kind": "hub", "repository": "a/b", "checkpoints": {"step16": 9, "step64": 5, "step112": 10, "step320": 11}},
    )
    with pytest.raises(ConfigError, match=r"tokens_seen \[9, 5, 10, 11\] must ascend"):
        parse_experiment(config, "config.yaml")


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))])
def test_shipped_configurations_are_valid(path: Path) -> None:
    assert load_experiment(path).suites


def test_schema_and_reference_page_agree_with_the_models() -> None:
    assert (ROOT / SCHEMA_PATH).read_text() == schema_text(), "run `make reference`"
    assert (ROOT / PAGE_PATH).read_text() == page_text(), "run `make reference`"


def test_reference_page_has_whole_rows_and_links_what_mappings_hold() -> None:
    page = page_text()
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 5 for row in rows)
    assert "mapping of names to [Suite](#suite)" in page and "[BatchTopK](#batchtopk)" in page


@pytest.mark.parametrize(
    "settings",
    [
        VARIANTS["batchtopk"](sparsity="batchtopk", dictionary_size=64, k=3, steps=7, learning_rate=2e-5),
        HarvestSettings(dtype="float32"),
        NurserySource(steps=[0, 3, 9], seed=5),
    ],
)
def test_settings_survive_the_command_line(settings: Settings) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_flags(parser, type(settings))
    assert from_flags(parser.parse_args(to_flags(settings)), type(settings)) == settings


def test_building_the_dag_imports_nothing_heavy() -> None:
    code = "import sys, chronocoder.config, chronocoder.command_line, chronocoder.layout; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "xarray", "numpy"} & set(modules)


def test_conda_environment_pins_what_the_constraints_pin() -> None:
    environment = yaml.safe_load((ROOT / "envs/environment.yaml").read_text())
    pins = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    constraints = set((ROOT / "envs/constraints.txt").read_text().split())
    assert set(pins) <= constraints
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split("[>=]", entry)[0].lower() for entry in needed}
    assert names <= {pin.partition("==")[0].lower() for pin in pins}
