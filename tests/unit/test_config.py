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
from chronocoder.config import ChoiceSettings, HarvestSettings, NurserySource, load_experiment, parse_experiment
from chronocoder.config.reference import PAGE_PATH, SCHEMA_PATH, page_text, schema_text
from chronocoder.errors import ConfigError
from chronocoder.settings import Settings
from chronocoder.variants import VARIANTS

ROOT = Path(__file__).parents[2]
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
del DEFAULT["suites"]["nursery"]["taskspace"]  # which names tasks and comparisons that tests take away


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
        {"processes": 3, "dictionary_shards": 3},
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
    ("training.nodes", 0, r"training\.nodes: Input should be greater than 0 \(found 0\)"),
    ("training.dictionary_shards", 2, r"training: processes 1 is no multiple of dictionary_shards 2; change one"),
]


@pytest.mark.parametrize(("path", "value", "message"), WRONG, ids=[f"{path}={value}" for path, value, _ in WRONG])
def test_message_names_key_and_remedy(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse_experiment(changed(path, value), "config.yaml")
    assert str(caught.value).startswith("config.yaml: 1 wrong:")


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


def with_twin(pair: dict[str, Any] | None = None, **source: Any) -> dict[str, Any]:
    """Return the default configuration with a second suite, with another seed, and a comparison of both."""
    config = copy.deepcopy(DEFAULT)
    twin = {**copy.deepcopy(config["suites"]["nursery"]), "comparisons": {}, "contrasts": {}}
    twin["tasks"] = {"agreement_simple": {"kind": "nursery"}}
    twin["source"] |= {"seed": 1, "tokenizer_seed": 0, **source}
    config["suites"]["twin"] = twin
    config["suites"]["nursery"]["comparisons"]["twins"] = pair or {"checkpoints": ["step320", "step320@twin"]}
    return config


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


def test_a_suite_may_examine_checkpoints_of_another_alone() -> None:
    for checkpoints in (["step320@twin", "step320@twin"], ["step320@twin"]):
        config = with_twin({"checkpoints": checkpoints})
        nursery = config["suites"]["nursery"]
        nursery["comparisons"] = {"twins": nursery["comparisons"]["twins"]}
        parse_experiment(config, "config.yaml")


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


@pytest.mark.parametrize(("checkpoints", "source", "message"), WRONG_TWINS)
def test_checkpoints_that_cannot_be_compared_are_refused(
    checkpoints: list[str], source: dict[str, Any], message: str
) -> None:
    config = with_twin({"checkpoints": checkpoints}, **source)
    with pytest.raises(ConfigError, match=rf"suites\.nursery\.comparisons\.twins: .*{message}"):
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


SPACE = {"checkpoints": ["step64", "step320"]}
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


@pytest.mark.parametrize(("values", "message"), WRONG_SPACES)
def test_wrong_task_space_of_a_suite_is_explained(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"suites\.nursery[.:] ?{message}"):
        parse_experiment(changed("suites.nursery.taskspace", SPACE | values), "config.yaml")


def test_a_task_space_needs_two_tasks() -> None:
    config = changed("suites.nursery.taskspace", SPACE)
    config["suites"]["nursery"] |= {"tasks": {"agreement_simple": {"kind": "nursery"}}, "contrasts": {}}
    message = r"suites\.nursery: taskspace: relates tasks, and the suite has only agreement_simple; add one"
    with pytest.raises(ConfigError, match=message):
        parse_experiment(config, "config.yaml")


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


@pytest.mark.parametrize(("values", "message"), WRONG_TUNINGS)
def test_wrong_tuning_is_explained(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_experiment(changed("taskspace", values), "config.yaml")


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
