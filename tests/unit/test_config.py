"""What configurations mean; those that are wrong are in test_wrong_inputs.py."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from configurations import DEFAULT, ROOT, SPACE, changed, with_twin

from chronocoder.command_line import add_flags, from_flags, to_flags
from chronocoder.config import ChoiceSettings, HarvestSettings, NurserySource, load_experiment, parse_experiment
from chronocoder.config.reference import PAGE_PATH, SCHEMA_PATH, page_text, schema_text
from chronocoder.errors import ConfigError
from chronocoder.settings import Settings
from chronocoder.variants import VARIANTS


@pytest.mark.parametrize("key", ["attribution_jobs", "training"])
def test_models_that_are_spread_over_gpus_have_one_process(key: str) -> None:
    config = changed("suites.nursery.loading", {"device_map": "auto", "gpus": 2})
    parse_experiment(config, "config.yaml")
    config[key] = {"processes": 2} | ({"activations": "streaming"} if key == "training" else {})
    message = (
        rf"{key}\.processes 2: each process would spread its models over the same GPUs, as suites\.nursery\.loading"
        rf"\.device_map auto says; set {key}\.processes to 1, or device_map to none"
    )
    with pytest.raises(ConfigError, match=message):
        parse_experiment(config, "config.yaml")


def test_controls_are_found() -> None:
    nursery = parse_experiment(with_twin(), "config.yaml").suites["nursery"]
    found = {name: comparison.control for name, comparison in nursery.comparisons.items() if comparison.control}
    assert found == {"identity": "identity", "twins": "pretraining seed"}
    assert nursery.examined == ["abstraction", "onset", "course"]
    config = with_twin({"checkpoints": ["step320@twin"]}, steps=[0, 5, 320])
    experiment = parse_experiment(config, "config.yaml")
    alone = experiment.suites["nursery"].comparisons["twins"]
    assert alone.single and not alone.control and not alone.examined
    assert experiment.tokens_seen_of("nursery", "step5@twin") == 5 * 24 * 64


def test_comparisons_are_followed_by_those_that_begin_where_they_end() -> None:
    config = changed(
        "suites.nursery.comparisons.elsewhere", {"checkpoints": ["step64", "step320"], "site": "residual.1"}
    )
    nursery = parse_experiment(config, "config.yaml").suites["nursery"]
    assert nursery.successors_of("onset", "batchtopk") == ["abstraction", "course"]
    assert nursery.successors_of("onset", "l1") == ["abstraction"]  # course has none
    assert nursery.successors_of("abstraction", "batchtopk") == []  # but for the control


def test_a_suite_may_examine_checkpoints_of_another_alone() -> None:
    for checkpoints in (["step320@twin", "step320@twin"], ["step320@twin"]):
        config = with_twin({"checkpoints": checkpoints})
        nursery = config["suites"]["nursery"]
        nursery["comparisons"] = {"twins": nursery["comparisons"]["twins"]}
        parse_experiment(config, "config.yaml")


@pytest.mark.parametrize("seed", [0, 1])
def test_checkpoints_of_unequal_widths_can_be_compared(seed: int) -> None:
    config = with_twin({"checkpoints": ["step320", "step320@twin"]}, hidden_size=64, seed=seed)
    assert parse_experiment(config, "config.yaml").suites["twin"].source.hidden_size == 64


def test_auto_stands_for_the_default_budget() -> None:
    suite = parse_experiment(changed("suites.nursery.comparisons", "auto"), "config.yaml").suites["nursery"]
    assert suite.comparisons == {} and suite.auto == ChoiceSettings() and suite.reported
    assert suite.comparison_names == ["change1", "change2", "course1"] and suite.sites == ["residual.2"]
    beside = changed("suites.nursery.auto", {"pairs": 1, "triplets": 0, "site": "residual.1"})
    suite = parse_experiment(beside, "config.yaml").suites["nursery"]
    assert suite.comparison_names == ["abstraction", "onset", "course", "identity", "change1"]
    assert suite.sites == ["residual.1", "residual.2"]


def test_names_of_comparisons_to_be_chosen_are_taken() -> None:
    config = changed("suites.nursery.auto", {})
    config["suites"]["nursery"]["comparisons"]["change2"] = {"checkpoints": ["step0", "step1"]}
    with pytest.raises(
        ConfigError, match=r"comparisons\.change2: the name is that of a comparison to be chosen; rename"
    ):
        parse_experiment(config, "config.yaml")
    config["suites"]["nursery"]["auto"] = {"pairs": 1}
    assert parse_experiment(config, "config.yaml")


def test_dearest_choice_takes_all_that_the_budget_allows() -> None:
    budget = ChoiceSettings(pairs=2, triplets=1, checkpoints=4, site="residual.1")
    found = budget.dearest([f"step{number}" for number in range(9)])
    assert list(found) == budget.names and all(one.site == "residual.1" for one in found.values())
    assert len({name for one in found.values() for name in one.checkpoints}) == 4
    assert list(budget.dearest(["step0", "step1"])) == ["change1"]
    experiment = parse_experiment(changed("suites.nursery.auto", {}), "config.yaml").with_dearest_choice()
    assert experiment.with_dearest_choice() == experiment
    assert len(experiment.suites["nursery"].comparisons) == 7


def test_what_is_studied_after_a_scan() -> None:
    def studied(**values: Any) -> list[str]:
        config = changed("suites.nursery.scan", {"study": ["step1"]})
        config["suites"]["nursery"].update(values)
        return parse_experiment(config, "config.yaml").suites["nursery"].studied

    assert studied() == ["step1", "step16", "step64", "step112", "step320"]
    assert studied(scan=None)[:3] == ["step0", "step1", "step2"]
    assert studied(scan={}, comparisons={}) == ["step0", "step320"]


def test_a_site_has_to_be_in_the_other_suites_model_too() -> None:
    config = with_twin({"checkpoints": ["step320", "step320@twin"], "site": "residual.3"}, blocks=3)
    config["suites"]["twin"]["site"] = "residual.0"
    with pytest.raises(
        ConfigError, match=r"site 'residual\.3' is outside the model of 'step320@twin': it has blocks 0 to 2"
    ):
        parse_experiment(config, "config.yaml")


def with_baseline(**late: Any) -> dict[str, Any]:
    """Return the default configuration with single checkpoints as the baseline of its comparison `abstraction`."""
    config = changed("suites.nursery.comparisons.abstraction.baseline", ["early", "late"])
    config["suites"]["nursery"]["comparisons"]["early"] = {"checkpoints": ["step64"]}
    config["suites"]["nursery"]["comparisons"]["late"] = {"checkpoints": ["step320"], **late}
    return config


def test_a_baseline_is_at_the_same_site_and_of_the_same_variants() -> None:
    assert parse_experiment(with_baseline(), "config.yaml").suites["nursery"].examined == [
        "abstraction",
        "onset",
        "course",
    ]
    message = r"abstraction: baseline 'late' is at site residual\.1, not residual\.2; give both the same site"
    with pytest.raises(ConfigError, match=message):
        parse_experiment(with_baseline(site="residual.1"), "config.yaml")
    message = (
        r"abstraction: baseline 'late' has no variant 'l1'; add it to suites\.nursery\.comparisons\.late\.variants"
    )
    with pytest.raises(ConfigError, match=message):
        parse_experiment(with_baseline(variants=["batchtopk"]), "config.yaml")


def test_a_task_space_needs_pairs_to_tune_on_and_to_evaluate_on() -> None:
    config = changed("suites.nursery.taskspace", SPACE)
    few: list[tuple[dict[str, Any], str]] = [
        ({"kind": "nursery", "pairs": 15}, "pairs"),
        ({"kind": "blimp", "name": "passive_1", "limit": 15}, "limit"),
    ]
    for task, key in few:
        config["suites"]["nursery"]["tasks"]["determiner_noun"] = task
        message = (
            rf"suites\.nursery\.tasks\.determiner_noun\.{key} 15: the task space needs 8 pairs to tune on and as many"
            r" to evaluate on, with taskspace\.held_out 0\.5; raise it to several times 16, take a held_out nearer to"
            r" 0\.5, or leave the task out of taskspace\.tasks"
        )
        with pytest.raises(ConfigError, match=message):
            parse_experiment(config, "config.yaml")
    config["suites"]["nursery"]["taskspace"] = SPACE | {"tasks": ["agreement_simple", "reflexive_number"]}
    config["taskspace"] = {"held_out": 0.999}
    with pytest.raises(ConfigError, match=r"agreement_simple\.pairs \d+: .* with taskspace\.held_out 0\.999; raise"):
        parse_experiment(config, "config.yaml")
    del config["taskspace"]
    found = parse_experiment(config, "config.yaml").suites["nursery"]
    assert found.space_tasks == ["agreement_simple", "reflexive_number"]


def test_a_task_space_needs_no_crosscoders() -> None:
    config = changed("suites.nursery.taskspace", SPACE)
    config["suites"]["nursery"]["comparisons"] = {}
    del config["variants"]
    experiment = parse_experiment(config, "config.yaml")
    suite = experiment.suites["nursery"]
    assert experiment.variants == {} and suite.reported and suite.sites == ["residual.2"] and suite.bridged == []


def test_a_task_space_relates_all_tasks_and_groups_them_by_phenomenon() -> None:
    suite = parse_experiment(changed("suites.nursery.taskspace", SPACE), "config.yaml").suites["nursery"]
    assert suite.space_tasks == list(suite.tasks)
    assert suite.hypothesis == {name: name for name in suite.tasks}, "the grammar's tasks are phenomena of their own"
    assert suite.bridged == ["abstraction", "onset", "course"]
    values = {"tasks": ["reflexive_number", "determiner_noun"], "hypothesis": {"nouns": ["determiner_noun"]}}
    changed_space = changed("suites.nursery.taskspace", {"checkpoints": ["step16"], **values})
    suite = parse_experiment(changed_space, "config.yaml").suites["nursery"]
    assert suite.hypothesis == {"determiner_noun": "nouns", "reflexive_number": "reflexive_number"}
    assert suite.bridged == ["onset"], "the others have no checkpoint in common with it"


def test_a_scan_studies_the_checkpoints_of_the_task_space() -> None:
    config = changed("suites.nursery.taskspace", {"checkpoints": ["step8"]})
    config["suites"]["nursery"] |= {"scan": {}, "comparisons": {}}
    assert parse_experiment(config, "config.yaml").suites["nursery"].studied == ["step8"]


def test_tasks_of_one_phenomenon_in_several_languages_are_a_family() -> None:
    nursery = parse_experiment(DEFAULT, "config.yaml").suites["nursery"]
    assert {task.language for task in nursery.tasks.values()} == {"english"} and nursery.families == {}
    assert all(task.task == task.phenomenon == name for name, task in nursery.tasks.items())
    tasks = {
        "simple_en": {"kind": "nursery", "task": "agreement_simple", "language": "english"},
        "determiner_noun": {"kind": "nursery", "language": "english", "phenomenon": "determiners"},
        "simple_fr": {"kind": "nursery", "task": "agreement_simple", "language": "french"},
        "other_fr": {"kind": "nursery", "task": "agreement_across_object_relative", "language": "french"},
        "file": {"kind": "pairs", "path": "x", "language": "dutch", "phenomenon": "determiners"},
        "nameless": {"kind": "pairs", "path": "x", "phenomenon": "determiners"},
    }
    values = changed("suites.nursery.source.language", ["english", "french"])
    values["suites"]["nursery"] |= {"tasks": tasks, "contrasts": {}}
    found = parse_experiment(values, "config.yaml").suites["nursery"]
    assert found.families == {
        "agreement_simple": ["simple_en", "simple_fr"],
        "determiners": ["determiner_noun", "file"],
    }
    assert found.tasks["other_fr"].phenomenon == "agreement_across_object_relative"


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
        r" counterfactual prefixes; leave it out, set its metric to continuation or sentence, whose sentences are each"
        r" other's, or set intervention to zero"
    )
    with pytest.raises(ConfigError, match=message):
        parse_experiment(config, "config.yaml")


@pytest.mark.parametrize("path", [ROOT / "config.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))])
def test_shipped_configurations_are_valid(path: Path) -> None:
    assert load_experiment(path).suites


def test_fewest_swaps_that_can_find_effects_are_accepted() -> None:
    assert parse_experiment(changed("attribution.swaps", 19), "config.yaml").attribution.swaps == 19


def test_experiment_of_several_seeds_repeats_the_default_one() -> None:
    default, seeds = load_experiment(ROOT / "config.yaml"), load_experiment(ROOT / "experiments/nursery-seeds.yaml")
    assert seeds.variants == {"batchtopk": default.variants["batchtopk"]}
    assert len(seeds.seeds) == 3 and len({suite.source.seed for suite in seeds.suites.values()}) == 3
    nursery = default.suites["nursery"]
    for suite in seeds.suites.values():
        assert (suite.corpus, suite.site) == (nursery.corpus, nursery.site)
        assert suite.source.model_copy(update={"seed": 0, "tokenizer_seed": None}) == nursery.source
        assert suite.tasks == {name: nursery.tasks[name] for name in suite.tasks}
        assert suite.contrasts == nursery.contrasts
        for name in ("abstraction", "identity"):
            assert suite.comparisons[name].checkpoints == nursery.comparisons[name].checkpoints
    for part in ("harvest", "evaluation", "attribution", "ablation"):
        assert getattr(seeds, part) == getattr(default, part), part


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
        ChoiceSettings(pairs=3, tasks=["a", "b"], site="mlp_out.3"),
        NurserySource(steps=[0, 3, 9], seed=5),
        NurserySource(language=["french", "english"]),
    ],
)
def test_settings_survive_the_command_line(settings: Settings) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    add_flags(parser, type(settings))
    assert from_flags(parser.parse_args(to_flags(settings)), type(settings)) == settings


def test_building_the_dag_imports_nothing_heavy() -> None:
    names = ["config", "command_line", "layout", "behaviour.comparisons"]
    code = f"import sys, {', '.join(f'chronocoder.{name}' for name in names)}; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "transformers", "xarray", "numpy"} & set(modules)


def test_conda_environment_pins_what_the_constraints_pin() -> None:
    environment = yaml.safe_load((ROOT / "envs/environment.yaml").read_text())
    pins = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    constraints = set((ROOT / "envs/constraints.txt").read_text().split())
    assert set(pins) <= constraints
    executor = ROOT / "packages/snakemake-executor-plugin-submitit"
    projects = [tomllib.loads((each / "pyproject.toml").read_text())["project"] for each in (ROOT, executor)]
    needed = [entry for project in projects for entry in project["dependencies"] if entry != executor.name]
    names = {re.split("[>=]", entry)[0].lower() for entry in needed}
    assert names <= {pin.partition("==")[0].lower() for pin in pins}
