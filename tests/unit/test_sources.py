"""Which checkpoints a suite has: of families, by patterns, of local runs."""

import itertools
import json
import re
from math import log
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError
from tiny import tiny_model
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments, default_data_collator

from chronocoder.config import HubSource, LocalSource, Source, parse_experiment
from chronocoder.config.selection import Selection, spread_in_log
from chronocoder.errors import ConfigError
from chronocoder.suites.checkpoints import load_model
from chronocoder.suites.families import HubPlace, family_names, load_family

SOURCE: TypeAdapter[Any] = TypeAdapter(Source)
PUBLISHED = {
    ("pythia", "1b"): ["step64", "step512", "step2000", "step143000"],
    ("olmo", "1b-0724"): [
        "step0-tokens0B",
        "step1000-tokens2B",
        "step2000-tokens4B",
        "step16000-tokens33B",
        "step137000-tokens287B",
        "step209000-tokens438B",
        "step288000-tokens603B",
        "step551000-tokens1155B",
        "step577000-tokens1209B",
        "step865000-tokens1813B",
        "step1165000-tokens2442B",
        "step1454000-tokens3048B",
    ],
    ("olmo2", "1b"): [
        "stage1-step0-tokens0B",
        "stage1-step1000-tokens3B",
        "stage1-step5000-tokens11B",
        "stage1-step10000-tokens21B",
        "stage1-step760000-tokens1594B",
        "stage1-step1907359-tokens4001B",
    ],
    ("olmo2", "7b"): [
        "stage1-step150-tokens1B",
        "stage1-step2150-tokens10B",
        "stage1-step101000-tokens424B",
        "stage1-step928646-tokens3896B",
    ],
    ("olmo3", "7b"): ["stage1-step0", "stage1-step1413814", "stage2-step47684", "stage3-step11921"],
    ("olmoe", "1b-7b"): ["step5000-tokens20B", "step100000-tokens419B", "step1220000-tokens5117B"],
    ("bloom", "1b1"): ["global_step1000", "global_step10000", "global_step100000", "main"],
    ("smollm2", "1.7b"): ["step-125000", "step-5125000"],
    ("smollm3", "3b"): ["stage1-step-3440000", "stage2-step-3480000", "stage3-step-4720000"],
    ("amber", "7b"): ["ckpt_000", "ckpt_358", "main"],
}
"""Revisions that public records name."""
COUNTS = {
    ("pythia", "1b"): 154,
    ("bloom", "1b1"): 9,
    ("amber", "7b"): 360,
    ("smollm3", "3b"): 86 + 19 + 13,
    ("smollm2", "360m"): 16,
}


def source(**values: Any) -> Any:
    return SOURCE.validate_python(values)


def test_families_have_the_revisions_that_the_record_names() -> None:
    assert {family for family, _ in PUBLISHED} == set(family_names())
    assert all(f"`{family}`" in str(HubSource.model_fields["family"].description) for family in family_names())
    for (family, size), names in PUBLISHED.items():
        known = load_family(family).run(size).known
        assert [name for name in names if name not in known] == [], family
        tokens = [known[name].tokens_seen for name in names]
        assert tokens == sorted(set(tokens))
        for name, seen in zip(names, tokens, strict=True):
            if stated := re.search(r"-tokens(\d+)B", name):
                assert abs(seen / 1e9 - int(stated[1])) < 1, name
    for (family, size), count in COUNTS.items():
        assert len(load_family(family).run(size).known) == count


@pytest.mark.parametrize(("size", "increment", "batch"), [("1b1", 16, 256), ("1b7", 16, 512), ("7b1", 32, 512)])
def test_tokens_of_bloom_are_those_of_its_growing_batch(size: str, increment: int, batch: int) -> None:
    known = {name: one.tokens_seen for name, one in load_family("bloom").run(size).known.items() if name != "main"}
    steps = {int(name.removeprefix("global_step")): tokens for name, tokens in known.items()}
    growing, each, sequences = 9_765_625, 9_765_625 / ((batch - 192) // increment), 0
    for step in range(1, max(steps) + 1):
        sequences += batch if sequences > growing else 192 + int(sequences / each) * increment
        assert steps.get(step, sequences * 2048) == sequences * 2048


def test_every_run_ascends_and_has_names_that_paths_can_hold() -> None:
    for family in map(load_family, family_names()):
        for size, run in family.sizes.items():
            tokens = [checkpoint.tokens_seen for checkpoint in run.known.values()]
            assert all(before < after for before, after in itertools.pairwise(tokens)), (family.name, size)
            assert all(re.fullmatch(r"[A-Za-z0-9][\w.\-]*", name) for name in run.known)
            assert all(re.fullmatch(r"[\w.\-]+/[\w.\-]+", known.place.repository) for known in run.known.values())


def test_family_knows_repositories_revisions_and_tokens() -> None:
    pythia = source(kind="hub", family="pythia", size="1b", checkpoints=["step64", "step512", "main"])
    assert pythia.tokens_seen == {"step64": 64 * 2**21, "step512": 512 * 2**21, "main": 143_000 * 2**21}
    assert pythia.located("main") == HubPlace("EleutherAI/pythia-1b", "main")
    twin = source(kind="hub", family="pythia", size="70m", pretraining_seed=3, checkpoints=["step64"])
    assert twin.located("step64") == HubPlace("EleutherAI/pythia-70m-seed3", "step64")
    bloom = source(kind="hub", family="bloom", size="1b1", checkpoints=["global_step1000", "main"])
    assert bloom.located("global_step1000") == HubPlace("bigscience/bloom-1b1-intermediate", "global_step1000")
    assert bloom.located("main") == HubPlace("bigscience/bloom-1b1", "main")
    assert bloom.tokenizer_repository == "bigscience/bloom-1b1"
    early = source(kind="hub", family="olmo2", size="1b", checkpoints="all")
    assert early.located("stage1-step1000-tokens3B").repository == "allenai/OLMo-2-0425-1B-early-training"


def test_tokens_alone_name_a_checkpoint() -> None:
    olmo = source(kind="hub", family="olmo", size="1b-0724", checkpoints=["tokens2B", "tokens33B"])
    assert olmo.located("tokens33B").revision == "step16000-tokens33B"
    assert list(olmo.tokens_seen) == ["tokens2B", "tokens33B"]


def test_revision_that_a_family_does_not_know_is_given_with_its_tokens() -> None:
    odd = source(kind="hub", family="olmo", size="1b-0724", checkpoints={"step4500-tokens9B": 9_434_880_000})
    assert odd.located("step4500-tokens9B") == HubPlace("allenai/OLMo-1B-0724-hf", "step4500-tokens9B")


@pytest.mark.parametrize(
    "values",
    [
        {
            "kind": "hub",
            "family": "pythia",
            "size": "1b",
            "checkpoints": {"log": 5, "from": "step1", "include": ["step3000"]},
        },
        {"kind": "hub", "family": "pythia", "size": "1b", "checkpoints": "all"},
        {"kind": "hub", "repository": "a/b", "checkpoints": {"step1": 5}},
        {"kind": "local", "checkpoints": {n: {"path": n, "tokens_seen": 3} for n in ("first", "last", "late")}},
    ],
)
def test_sources_survive_json(values: dict[str, Any]) -> None:
    found = source(**values)
    again = SOURCE.validate_json(found.model_dump_json())
    assert again == found and again.tokens_seen == found.tokens_seen


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"family": "phythia", "size": "1b"},
            "family 'phythia' is not known; choose from amber, bloom, olmo, .*pythia",
        ),
        ({"family": "pythia"}, "family 'pythia' needs a size; set size to one of 14m, 31m"),
        ({"family": "pythia", "size": "2b"}, "size '2b' is not known of family 'pythia'; choose from 14m"),
        (
            {"family": "pythia", "size": "1b", "checkpoints": ["step1500"]},
            "checkpoint 'step1500' is not known of EleutherAI/pythia-1b; the nearest are step1000, step2000, step512",
        ),
        (
            {"family": "olmo", "size": "1b-0724", "checkpoints": ["tokens3B"]},
            "checkpoint 'tokens3B' is not known of allenai/OLMo-1B-0724-hf; the nearest are",
        ),
        (
            {"family": "pythia", "size": "1b", "pretraining_seed": 1},
            r"pretraining_seed 1 of size '1b' is not known .*; there are \[1, 2.* of sizes 14m, 31m, 70m, 160m, 410m",
        ),
        ({"family": "amber", "size": "7b", "pretraining_seed": 1}, "family 'amber'; there are none"),
        ({}, "needs family or repository, and has neither; give one"),
        ({"family": "pythia", "size": "1b", "repository": "a/b"}, "needs family or repository, and has both"),
        ({"repository": "a/b", "size": "1b"}, "size and pretraining_seed are of a family, and there is a repository"),
        ({"repository": "a/b"}, "checkpoints of repository a/b: their tokens are not known; give each as name: tokens"),
        (
            {"family": "pythia", "size": "1b", "checkpoints": {"every": 2, "log": 3}},
            "has both every 2 and log 3; keep one",
        ),
        (
            {"family": "pythia", "size": "1b", "checkpoints": {"from": "step3", "log": 3}},
            "checkpoint 'step3' is not known of EleutherAI/pythia-1b; the nearest are step2, step4, step1",
        ),
        ({"repository": "a/b", "checkpoints": {"main": -5}}, "Input should be greater than or equal to 0"),
        ({"family": "pythia", "size": "1b", "checkpoints": {"evry": 2}}, r"evry\n.*Extra inputs are not permitted"),
        (
            {"family": "pythia", "size": "1b", "checkpoints": {"from": 5, "to": 6}},
            "from 5 to 6: no checkpoint lies there; widen it",
        ),
    ],
)
def test_error_of_a_hub_source_names_the_remedy(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        source(**{"kind": "hub", "checkpoints": "all", **values})


def test_patterns_pick_of_known_checkpoints() -> None:
    known = {name: known.tokens_seen for name, known in load_family("pythia").run("1b").known.items()}
    names = list(known)
    every = Selection(every=10).choose(known)
    assert every == [name for place, name in enumerate(names) if place % 10 == 0 or place == 153]
    spread = Selection(log=12).choose(known)
    assert len(spread) == 12 and spread[:2] == ["step0", "step1"] and spread[-1] == "step143000"
    bounded = Selection.model_validate({"every": 5, "from": "step64", "to": 1000 * 2**21, "include": ["step143000"]})
    assert bounded.choose(known) == ["step64", "step1000", "step143000"]
    assert Selection().choose(known) == names


def test_patterns_take_every_name_that_lists_take() -> None:
    last = source(kind="hub", family="pythia", size="1b", checkpoints={"every": 60, "include": ["main"]})
    assert list(last.tokens_seen) == ["step0", "step50000", "step110000", "main"]
    assert last.located("main") == HubPlace("EleutherAI/pythia-1b", "main")
    assert list(last.tokens_seen.values()) == sorted(last.tokens_seen.values())
    choice = {"log": 3, "from": "tokens4B", "to": "step16000-tokens33B"}
    olmo = source(kind="hub", family="olmo", size="1b-0724", checkpoints=choice)
    assert list(olmo.tokens_seen) == ["tokens4B", "step6000-tokens12B", "step16000-tokens33B"]
    assert olmo.located("tokens4B").revision == "step2000-tokens4B"


def test_spread_in_log_is_as_even_as_the_best_of_all_choices() -> None:
    tokens = [1, 2, 4, 5, 8, 16, 21, 32, 64]
    for count in range(2, len(tokens) + 1):
        targets = [log(64) * step / (count - 1) for step in range(count)]

        def distance(places: tuple[int, ...], targets: list[float] = targets) -> float:
            return sum(abs(log(tokens[place]) - target) for place, target in zip(places, targets, strict=True))

        best = min(itertools.combinations(range(len(tokens)), count), key=distance)
        found = tuple(spread_in_log(tokens, count))
        assert found[0] == 0 and found[-1] == len(tokens) - 1 and len(set(found)) == count
        assert distance(found) <= distance(best) + 0.7  # in order, a choice never looks ahead
    assert spread_in_log([0, 1, 10, 100], 3) == [0, 1, 3]
    assert spread_in_log([0, 5], 9) == [0, 1]


def saved_run(path: Path, tokens: dict[int, int | None], prefix: str = "checkpoint-") -> Path:
    """Make a directory as the Trainer leaves it; None: a checkpoint without a record of tokens."""
    for step, seen in tokens.items():
        checkpoint = path / f"{prefix}{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "config.json").write_text("{}")
        if seen is not None:
            state = {"global_step": step, "num_input_tokens_seen": seen}
            (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    (path / "tokenizer.json").write_text("{}")
    return path


def test_run_of_the_trainer_is_read_in_order_of_steps(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "mine", {1000: 2_000_000, 500: 1_000_000, 1500: 3_000_000})
    (run / "runs").mkdir()
    found = source(kind="local", path=str(run))
    assert found.tokens_seen == {
        "checkpoint-500": 1_000_000,
        "checkpoint-1000": 2_000_000,
        "checkpoint-1500": 3_000_000,
    }
    assert found.saved["checkpoint-500"].path == str(run / "checkpoint-500")
    assert found.tokenizer == str(run)
    (run / "checkpoint-500/tokenizer.json").write_text("{}")
    assert source(kind="local", path=str(run)).tokenizer == str(run / "checkpoint-500")
    assert list(source(kind="local", path=str(run), checkpoints={"every": 2}).tokens_seen) == [
        "checkpoint-500",
        "checkpoint-1500",
    ]
    picked = source(kind="local", path=str(run), checkpoints=["checkpoint-1000"])
    assert picked.tokens_seen == {"checkpoint-1000": 2_000_000}


def test_run_that_the_trainer_itself_saves_is_recognised(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [{"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4]}] * 8
    options = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "per_device_train_batch_size": 2}
    arguments = TrainingArguments(
        str(tmp_path / "mine"),
        include_num_input_tokens_seen=True,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    model = tiny_model("llama").requires_grad_(True)
    Trainer(model, arguments, default_data_collator, train_dataset=rows, processing_class=tokenizer).train()
    found = source(kind="local", path=str(tmp_path / "mine"))
    assert found.tokens_seen == {"checkpoint-2": 2 * 2 * 4, "checkpoint-4": 4 * 2 * 4}
    assert found.tokenizer == str(tmp_path / "mine/checkpoint-2")
    assert load_model(Path(found.saved["checkpoint-4"].path)).config.num_hidden_layers == 3


def test_untrained_model_saved_without_a_tokenizer_takes_that_of_the_next_checkpoint(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "mine", {0: None, 500: 7})
    (run / "tokenizer.json").rename(run / "checkpoint-500/tokenizer.json")
    assert source(kind="local", path=str(run)).tokenizer == str(run / "checkpoint-500")


def test_checkpoint_that_is_being_saved_is_no_obstacle_to_those_listed(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "mine", {500: 7, 1000: 14})
    (run / "checkpoint-1500").mkdir()
    listed = source(kind="local", path=str(run), checkpoints=["checkpoint-500", "checkpoint-1000"])
    assert listed.tokens_seen == {"checkpoint-500": 7, "checkpoint-1000": 14}
    message = r"checkpoint-1500: no config\.json there; wait if it is being saved, .* list .* in source\.check"
    with pytest.raises(ValidationError, match=message):
        source(kind="local", path=str(run))


def test_run_of_step_directories_takes_its_tokens_from_the_step(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "mine", {0: None, 8: None, 16: None}, prefix="step")
    assert source(kind="local", path=str(run), tokens_per_step=100).tokens_seen == {
        "step0": 0,
        "step8": 800,
        "step16": 1600,
    }


def test_error_of_a_run_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    run = saved_run(tmp_path / "mine", {500: 0})
    state = re.escape(str(run / "checkpoint-500/trainer_state.json"))
    messages = [(lambda: None, rf"{state}: num_input_tokens_seen is not recorded .*; set source\.tokens_per_step: the")]
    messages.append(
        ((run / "checkpoint-500/trainer_state.json").unlink, r"checkpoint-500: no trainer_state\.json there")
    )
    messages.append(
        ((run / "checkpoint-500/config.json").unlink, r"checkpoint-500: no config\.json there; wait if it is being")
    )
    for change, message in messages:
        change()
        with pytest.raises(ValidationError, match=message):
            source(kind="local", path=str(run))
    whole = saved_run(tmp_path / "whole", {500: 7})
    (whole / "trainer_state.json").unlink(missing_ok=True)
    for values, message in (
        (
            {"path": str(tmp_path / "none")},
            r"none' is no directory: there is none named checkpoint-N or stepN; correct",
        ),
        (
            {"path": str(tmp_path)},
            r"holds no directory named checkpoint-N or stepN; correct it, or list the checkpoints",
        ),
        ({}, r"needs the path of a run, or checkpoints with a path and tokens_seen each; give one of them"),
        (
            {"path": str(whole), "checkpoints": {"a": {"path": "x", "tokens_seen": 1}}},
            r"checkpoints are given with their paths, and there is a path of a run; remove one of them",
        ),
        (
            {"path": str(whole), "checkpoints": ["checkpoint-600"]},
            r"checkpoint 'checkpoint-600' is not in .*whole; the nearest are checkpoint-500",
        ),
    ):
        with pytest.raises(ValidationError, match=message):
            source(kind="local", **values)
    (whole / "tokenizer.json").unlink()
    with pytest.raises(ValidationError, match=r"nor any of its checkpoints holds a tokenizer \(tokenizer\.json, "):
        source(kind="local", path=str(whole))


def test_published_configuration_names_a_family(tmp_path: Path) -> None:
    text = "{kind: hub, family: pythia, size: 1b, checkpoints: [step64, step512, main]}"
    assert isinstance(SOURCE.validate_python(yaml.safe_load(text)), HubSource)
    assert isinstance(source(kind="local", path=str(saved_run(tmp_path / "run", {5: 10}))), LocalSource)


def test_pretraining_seeds_of_a_family_are_compared_and_one_run_with_itself_is_refused() -> None:
    corpus = {"kind": "text", "path": "t.txt", "train_tokens": 100, "validation_tokens": 100, "sequence_length": 10}
    common = {"corpus": corpus, "site": "residual.1", "tasks": {"own": {"kind": "pairs", "path": "p.jsonl"}}}
    hub = {"kind": "hub", "family": "pythia", "size": "70m", "checkpoints": ["step512"]}
    controls = {"seeds": {"checkpoints": ["step512", "step512@twin"]}}
    first = {"source": hub, "comparisons": controls, **common}
    variants = {"l1": {"sparsity": "l1", "dictionary_size": 8, "l1_coefficient": 1.0, "steps": 1, "batch_tokens": 8}}
    twin = {"source": {**hub, "pretraining_seed": 4}, "comparisons": {}, **common}
    found = parse_experiment({"suites": {"first": first, "twin": twin}, "variants": variants}, "mine.yaml")
    assert found.suites["twin"].source.located("step512").repository == "EleutherAI/pythia-70m-seed4"
    message = (
        "source's run is EleutherAI/pythia-70m in suite 'first' and in suite 'twin', .*; set suites.twin.source.pretr"
    )
    with pytest.raises(ConfigError, match=message):
        twin = {**twin, "source": hub}
        parse_experiment({"suites": {"first": first, "twin": twin}, "variants": variants}, "mine.yaml")
