"""A plan agrees with what is computed, held and written."""

import copy
import json
import math
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub.errors import LocalEntryNotFoundError
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel
from warm_python import warm_python

from chronocoder.activations import loader
from chronocoder.activations.formats import DTYPES, StoredFormat
from chronocoder.activations.harvest import SAMPLE_BATCH
from chronocoder.activations.pieces import sequences_per_piece
from chronocoder.activations.writer import ActivationWriter, Rows
from chronocoder.config import (
    BlimpTask,
    Experiment,
    LoadingSettings,
    TextCorpus,
    TrainingSettings,
    load_experiment,
    parse_experiment,
)
from chronocoder.crosscoder.batch import TrainingBatch
from chronocoder.crosscoder.evaluation import measure_reconstruction
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig
from chronocoder.crosscoder.own_codes import fit_maps, measure_own_codes, reconstruct_from_own
from chronocoder.crosscoder.sparse import BACKENDS
from chronocoder.errors import ConfigError
from chronocoder.plan import models
from chronocoder.plan.compute import (
    Prompts,
    blocks_flops,
    cross_entropy_flops,
    evaluation_flops,
    logits_flops,
    own_codes_flops,
    streaming_flops,
    training_flops,
)
from chronocoder.plan.costs import COMPARED_SEQUENCES, PLACE_BYTES, TOKENS_PER_S, cost_of
from chronocoder.plan.disk import NUMBER_BYTES, REPORT_BYTES, activation_store_bytes, report_bytes
from chronocoder.plan.hardware import STARTUP_S, Hardware, Peak, Work, hardware_named
from chronocoder.plan.jobs import Job, count_by_rule, jobs_of
from chronocoder.plan.memory import (
    BATCHES_AHEAD,
    PROCESS_BYTES,
    ahead_bytes,
    held_bytes,
    loader_bytes,
    loading_bytes,
    model_bytes,
    on,
    pass_bytes,
    training_memory,
    widened_bytes,
)
from chronocoder.plan.models import CrosscoderShape, Loaded, ModelShape, known_shape, parse_shape, shape_of
from chronocoder.plan.place import Cost, Place
from chronocoder.plan.plan import Plan, RuleCost, make_plan
from chronocoder.plan.report import (
    FEWEST_MB,
    FEWEST_MINUTES,
    REPORT_PROCESSES,
    REPORT_S,
    report_mb,
    report_memory_bytes,
    report_minutes,
    report_seconds,
    shown_crosscoders,
)
from chronocoder.plan.sizes import blocks_after, blocks_up_to, examples_of, scan_entries
from chronocoder.plan.text import duration, plan_document, plan_text, price_table
from chronocoder.terminal import shortened
from chronocoder.variants import VARIANTS
from chronocoder.variants.base import Batch, CrosscoderSettings, Selection

ROOT = Path(__file__).parents[2]
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
SMALL = ModelShape(8, 3, 8, 8, 32, 100, gated=False, tied=False, stored_bytes=2)
ANY = Hardware("some", Peak(1e12, 1e13), 0.5, 1e9)


def settings(sparsity: str = "l1", **values: float | str) -> CrosscoderSettings:
    own = {"l1": {"l1_coefficient": 1}, "jumprelu": {"l0_coefficient": 1}}.get(sparsity, {"k": 4})
    defaults = {"sparsity": sparsity, "dictionary_size": 24, "steps": 10, "batch_tokens": 64, **own}
    return VARIANTS[sparsity].model_validate({**defaults, **values})


def changed(**values: Any) -> Experiment:
    """Return the default experiment with values at dotted paths, dots written as `__`, replaced or added."""
    config = copy.deepcopy(DEFAULT)
    for path, value in values.items():
        *parents, last = path.split("__")
        place = config
        for key in parents:
            place = place[key]
        place[last] = value
    return parse_experiment(config, "test")


def blimp_experiment(source: dict[str, Any], directory: Path) -> Experiment:
    """Return an experiment on a text file, with one task of three pairs in a file."""
    (directory / "text.txt").write_text("a text\n")
    (directory / "pairs.jsonl").write_text(
        "".join(f'{{"sentence_good": "a {number}", "sentence_bad": "a c"}}\n' for number in range(3))
    )
    suite = {
        "source": source,
        "corpus": {"kind": "text", "path": str(directory / "text.txt"), "sequence_length": 16}
        | {"train_tokens": 3200, "validation_tokens": 640},
        "site": "mlp_out.1",
        "tasks": {"pairs": {"kind": "blimp", "path": str(directory / "pairs.jsonl")}},
        "comparisons": {
            "pair": {"checkpoints": ["early", "late"], "variants": ["batchtopk"]},
            "other": {"checkpoints": ["early", "late"], "site": "residual.0"},
        },
    }
    config = {"seeds": [0, 1], "suites": {"llama": suite}, "variants": DEFAULT["variants"]}
    return parse_experiment(config, "test")


def local_experiment(directory: Path) -> Experiment:
    checkpoints = {}
    for number, name in enumerate(("early", "late")):
        (directory / name).mkdir()
        (directory / name / "config.json").write_text(json.dumps(LLAMA))
        (directory / name / "model.safetensors").write_text("weights")
        checkpoints[name] = {"path": str(directory / name), "tokens_seen": number}
    return blimp_experiment({"kind": "local", "checkpoints": checkpoints}, directory)


def controlled(seeds: tuple[int, ...] = (0, 1)) -> Experiment:
    """Return the default experiment with a twin that only supplies a checkpoint, and a baseline."""
    config = copy.deepcopy(DEFAULT)
    nursery = config["suites"]["nursery"]
    nursery["comparisons"]["abstraction"]["baseline"] = ["early", "late"]
    nursery["comparisons"] |= {
        "early": {"checkpoints": ["step64"]},
        "late": {"checkpoints": ["step320"]},
        "twins": {"checkpoints": ["step320", "step320@twin"]},
    }
    twin = {**copy.deepcopy(nursery), "comparisons": {}, "taskspace": None}
    twin["source"] |= {"seed": 1, "tokenizer_seed": 0}
    return parse_experiment({**config, "suites": {"nursery": nursery, "twin": twin}, "seeds": list(seeds)}, "test")


def hub_controlled(directory: Path) -> Experiment:
    """Return two suites of the hub; one has nothing but a control and a single checkpoint, the other nothing at all."""
    config = hub_experiment(directory).model_dump(mode="json", exclude_none=True)
    suite = config["suites"].pop("llama")
    suite["source"]["checkpoints"] = {"early": 0, "middle": 1, "late": 2}
    comparisons = {"twins": {"checkpoints": ["late", "late@twin"]}, "single": {"checkpoints": ["late"]}}
    config["suites"] = {"llama": {**suite, "comparisons": comparisons}, "twin": {**suite, "comparisons": {}}}
    return parse_experiment(config, "test")


def hub_experiment(directory: Path) -> Experiment:
    checkpoints = {"early": 0, "late": 1}
    return blimp_experiment({"kind": "hub", "repository": "some/model", "checkpoints": checkpoints}, directory)


LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}


def test_shape_of_a_model_by_hand() -> None:
    shape = parse_shape(LLAMA, "here")
    loaded = Loaded("bfloat16")
    assert shape == ModelShape(
        32, 3, 32, 16, 48, 100, gated=True, tied=True, stored_bytes=2, loaded=loaded, head_width=8
    )
    assert shape.width_at("head_out.1.3") == 8 and shape.width_at("mlp_in.1") == shape.width_at("final") == 32
    assert shape.block_parameters == 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48
    assert shape.parameters == 3 * 7680 + 100 * 32
    assert shape.checkpoint_bytes == 2 * shape.parameters


def test_parameters_are_those_of_a_real_model(any_model: PreTrainedModel) -> None:
    shape = parse_shape(any_model.config.to_dict(), "here")
    real = {name: value.numel() for name, value in any_model.named_parameters() if value.dim() == 2}
    positions = sum(count for name, count in real.items() if "wpe" in name)
    assert shape.parameters == sum(real.values()) - positions


def test_flops_of_a_forward_pass_are_those_of_a_real_model(any_model: PreTrainedModel) -> None:
    shape = parse_shape(any_model.config.to_dict(), "here")
    any_model.set_attn_implementation("eager")  # the others' products are not counted
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        any_model(input_ids=torch.zeros(2, 5, dtype=torch.long))
    planned = blocks_flops(shape, 10, 5, shape.blocks) + logits_flops(shape, 10)
    assert counter.get_total_flops() == pytest.approx(planned, rel=0.01)


@pytest.mark.parametrize(("sparsity", "dense"), [("l1", 5), ("jumprelu", 5), ("topk", 1), ("batchtopk", 1)])
def test_flops_of_dense_products_are_those_of_a_real_step(
    sparsity: str, dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(BACKENDS, "cpu")  # oneDNN's products are not counted
    variant = settings(sparsity, dictionary_size=32, auxiliary_coefficient=0)
    config = CrosscoderConfig("s", "c", "v", ("a", "b"), "residual.0", 16, variant, 0, ("", ""), False)
    crosscoder = Crosscoder(config, torch.Generator().manual_seed(0))
    with FlopCounterMode(display=False) as counter:
        batch = TrainingBatch(crosscoder, torch.randn(64, 32), 1, 64)
        codes = variant.train(batch).codes
        (batch.x - codes.decode(crosscoder.decoder_rows.flatten(1))).pow(2).sum().backward()
    product = CrosscoderShape(2, 16, 32).product_flops()
    assert product == 2 * 2 * 16 * 32
    assert counter.get_total_flops() == dense * 64 * product
    sparse = 4 * 4 / 32 if dense == 1 else 0
    assert training_flops(variant, CrosscoderShape(2, 16, 32)) == 10 * 64 * product * (dense + sparse)


def test_flops_of_a_training_by_hand() -> None:
    shape = CrosscoderShape(3, 8, 24)
    auxiliary = settings("l1", auxiliary_coefficient=0.1, auxiliary_k=2)
    assert training_flops(auxiliary, shape) == 640 * (2 * 3 * 8) * (5 * 24 + 4 * 2)
    assert streaming_flops(settings("l1", normalisation_tokens=110), SMALL, 3, 16, 2) == pytest.approx(
        3 * 750 * 16 / 15 * 2 * (2 * (4 * 64 + 2 * 256) + 4 * 16 * 8)
    )


def test_annealing_counts_with_its_mean() -> None:
    annealed = settings("topk", k_initial=24, k_anneal_fraction=1.0, steps=1000)
    assert annealed.mean_k == pytest.approx((24 + 4) / 2, rel=0.02)
    assert settings("l1").mean_k == 0


def test_flops_of_cross_entropy_by_hand() -> None:
    crosscoder, prompts = CrosscoderShape(2, 8, 24), Prompts(10, 4)
    block, logits = 40 * (2 * 768 + 4 * 4 * 8), 2 * 8 * 100
    own = 40 * (2 * 2 * 8 * 16 + 3 * (2 * 2 * 8 * 24))
    expected = 2 * (2 * block + 5 * (block + 40 * logits)) + 40 * 2 * (2 * 2 * 8 * 24) + own
    assert cross_entropy_flops(SMALL, crosscoder, prompts, "residual.1") == expected


@pytest.mark.parametrize(
    ("site", "before", "after"),
    [
        ("embedding", 0, 3),
        ("residual.1", 2, 1),
        ("final", 3, 0),
        ("attention_out.1", 2, 2),
        ("mlp_in.0", 1, 3),
        ("head_out.2.1", 3, 1),
    ],
)
def test_blocks_before_and_after_a_site(site: str, before: int, after: int) -> None:
    assert (blocks_up_to(site, 3), blocks_after(site, 3)) == (before, after)


def test_flops_of_an_evaluation_are_those_of_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(BACKENDS, "cpu")  # oneDNN's products are not counted
    variant = settings("l1", dictionary_size=32)
    config = CrosscoderConfig("s", "c", "v", ("a", "b", "c"), "residual.0", 16, variant, 0, ("",) * 3, True)
    crosscoder = Crosscoder(config, torch.Generator().manual_seed(0))
    x, odd, shape = torch.randn(64, 3, 16), torch.arange(64) % 2 == 1, CrosscoderShape(3, 16, 32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        measure_reconstruction(crosscoder, [x])
        maps = fit_maps(crosscoder, [x], odd)
        measure_own_codes(crosscoder, maps, [x], odd)
    moments = 64 * 2 * 48**2  # products added in place are not counted
    assert counter.get_total_flops() + moments == evaluation_flops(shape, 64)
    with FlopCounterMode(display=False) as counter:
        reconstruct_from_own(crosscoder, maps, x, odd)
    assert counter.get_total_flops() == own_codes_flops(shape, 64)


def test_hours_by_hand() -> None:
    work = Work(float32=1e15, bfloat16=1e16, disk_bytes=1e9, processes=2)
    assert ANY.hours(work) == pytest.approx((STARTUP_S + (1000 + 1000) / 0.5 / 2) / 3600)
    assert ANY.hours(work._replace(disk_bytes=1e13)) == pytest.approx((STARTUP_S + 1e4) / 3600)
    assert ANY.hours(Work(cpu_s=7, processes=2)) == pytest.approx((STARTUP_S + 7) / 3600)


def test_numbers_as_text() -> None:
    assert [shortened(value, "B") for value in (0, 7, 1234, 999_600, 5.678e15)] == [
        "-",
        "7.00 B",
        "1.23 kB",
        "1.00 MB",
        "5.68 PB",
    ]
    assert [duration(hours) for hours in (0, 0.01, 0.5, 30)] == ["-", "36 s", "30 min", "30.0 h"]


def snakemake(directory: Path, experiment: Experiment, *arguments: str) -> str:
    """Run Snakemake on an experiment in a directory of its own; return what it prints."""
    path = directory / "experiment.json"
    path.write_text(experiment.model_dump_json())
    command = [warm_python(), "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--configfile", str(path)]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(
        [*command, "--cores", "1", *arguments],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ).stdout


def stats(directory: Path, experiment: Experiment) -> dict[str, int]:
    """Return the jobs that Snakemake would start for all that an experiment asks for."""
    output = snakemake(directory, experiment, "--dry-run", "--forceall")
    table = re.search(r"Job stats:\n.*\n[- ]+\n((?:\S+ +\d+\n)+)", output)
    assert table is not None, output
    return {name: int(number) for name, number in map(str.split, table.group(1).splitlines())}


EXPERIMENTS: dict[str, Callable[[Path], Experiment]] = {
    "default": lambda _: changed(),
    "streaming": lambda _: changed(training__activations="streaming", seeds=[0, 3]),
    "groups": lambda _: changed(attribution_jobs={"tasks_per_job": 4}, behaviour={"tasks_per_job": 5}),
    "single tasks": lambda _: changed(
        attribution_jobs={"tasks_per_job": 1}, behaviour={"tasks_per_job": 1}, seeds=[0, 1]
    ),
    "controls": lambda _: controlled(),
    "languages": lambda _: load_experiment(ROOT / "experiments" / "nursery-bilingual.yaml"),
    "controls alone": hub_controlled,
    "scan": lambda _: changed(suites__nursery__scan={"limit": 20, "study": ["step0"]}),
    "scan alone": lambda _: changed(
        suites__nursery__scan={}, suites__nursery__comparisons={}, suites__nursery__taskspace=None
    ),
    "task space alone": lambda _: changed(
        suites__nursery__comparisons={},
        suites__nursery__taskspace={"checkpoints": ["step64", "step320"]},
        taskspace={"seeds": [0, 1, 2]},
        behaviour={"tasks_per_job": 2},
    ),
    "local": local_experiment,
    "hub": hub_experiment,
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_jobs_are_those_of_the_dag(name: str, tmp_path: Path) -> None:
    experiment = EXPERIMENTS[name](tmp_path)
    planned = count_by_rule(jobs_of(experiment))
    real = stats(tmp_path, experiment)
    assert {**planned, "total": sum(planned.values())} == real


def test_target_plans_what_would_be_run(tmp_path: Path) -> None:
    output = snakemake(tmp_path, changed(), "plan", "--config", "seeds=[0,1]")
    assert re.search(r"\n  train_crosscoder +10 ", output), output


def test_target_shows_why_it_fails(tmp_path: Path) -> None:
    experiment = local_experiment(tmp_path)
    (tmp_path / "early/config.json").unlink()
    output = snakemake(tmp_path, experiment, "plan")
    assert "suites.llama.source.checkpoints.early.path" in output and "its config.json: there is no such file" in output


def write_activations(path: Path, rows: int, width: int, corpus: TextCorpus, stored_format: StoredFormat) -> None:
    length = corpus.sequence_length
    piece = sequences_per_piece(length) * (length - 1)
    facts = {"suite": "s", "site": "residual.0", "commit": "c", "tokens_digest": "t", "revision": path.parent.name}
    generator = torch.Generator().manual_seed(len(path.parent.name))
    number = np.arange(rows, dtype=np.int32)
    ids = np.random.default_rng(0).integers(0, 768, rows, dtype=np.int32)
    columns = Rows(torch.randn(rows, width, generator=generator), ids, number // (length - 1), number % (length - 1))
    with ActivationWriter(path, rows, width, stored_format, piece, facts) as writer:
        writer.append(columns)


def size_of(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def corpus_of(rows: int) -> TextCorpus:
    """Return a corpus of sequences of 64 tokens that make so many rows."""
    tokens = -(-rows // 63) * 64
    return TextCorpus(kind="text", path="none", train_tokens=tokens, validation_tokens=64, sequence_length=64)


@pytest.mark.parametrize("stored_format", DTYPES)
@pytest.mark.parametrize("sequences", [400, 3125])
def test_bytes_of_a_real_activation_store(tmp_path: Path, stored_format: StoredFormat, sequences: int) -> None:
    corpus = corpus_of(sequences * 63)
    write_activations(tmp_path / "step1" / "train.zarr", sequences * 63, 128, corpus, stored_format)
    shape = shape_of("nursery", changed().suites["nursery"])
    planned = activation_store_bytes(corpus, "train", shape, "residual.0", stored_format)
    assert size_of(tmp_path / "step1") == pytest.approx(planned, rel=0.03)


def test_bytes_of_a_real_crosscoder(tmp_path: Path) -> None:
    variant = settings(dictionary_size=512)
    config = CrosscoderConfig("s", "c", "v", ("a", "b"), "residual.0", 128, variant, 0, ("", ""), False)
    Crosscoder(config, torch.Generator().manual_seed(0)).fold_scale(torch.ones(2)).save(tmp_path / "crosscoder")
    shape = CrosscoderShape(2, 128, 512)
    assert shape.parameters == 2 * 2 * 128 * 512 + 512 + 2 * 128
    assert size_of(tmp_path / "crosscoder") == pytest.approx(shape.saved_bytes, rel=0.01)
    assert shape.state_bytes == 12 * shape.parameters


def test_numbers_that_are_stated_elsewhere_too() -> None:
    assert (BATCHES_AHEAD, COMPARED_SEQUENCES) == (loader.BATCHES_AHEAD + 1, SAMPLE_BATCH)
    assert {name: dtype.itemsize for name, dtype in DTYPES.items()} == NUMBER_BYTES


PEAK_CASES = {
    "dense": ("l1", {"l1_coefficient": 1}),
    "sparse": ("batchtopk", {"k": 32}),
}


@pytest.mark.parametrize("name", PEAK_CASES)
def test_memory_of_a_real_training(name: str, tmp_path: Path) -> None:
    sparsity, own = PEAK_CASES[name]
    width, rows = 256, 20_000
    corpus = corpus_of(rows)
    variant = settings(
        sparsity,
        dictionary_size=16_384,
        batch_tokens=2048,
        steps=2,
        shuffle_tokens=4096,
        normalisation_tokens=1000,
        **own,
    )
    stores = [tmp_path / revision / "train.zarr" for revision in ("a", "bb")]
    for path in stores:
        write_activations(path, rows, width, corpus, "float16")
    shape = ModelShape(width, 1, width, width, 4 * width, 768, gated=False, tied=False, stored_bytes=4)
    crosscoder = CrosscoderShape(2, width, variant.dictionary_size)
    loading = loader_bytes(variant, TrainingSettings(), corpus, crosscoder, 2 * width)
    planned = training_memory(variant, TrainingSettings(), shape, crosscoder, loading, 0, accelerated=False)
    assert planned.device == 0
    assert planned.host == pytest.approx(peak_of_training(stores, variant, tmp_path), rel=0.25)


def peak_of_training(stores: list[Path], variant: CrosscoderSettings, directory: Path) -> int:
    """Return the peak resident bytes of a training in a process of its own."""
    flags = ["--crosscoder", str(directory / "crosscoder"), "--history", str(directory / "history.zarr")]
    flags += ["--comparison", "c", "--variant", "v", "--seed", "0", "--activations", *map(str, stores)]
    for key, value in variant.model_dump(exclude_none=True).items():
        flags += [f"--{key.replace('_', '-')}", str(value)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, str(ROOT / "scripts/train_crosscoder.py"), *flags], env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_of(training: TrainingSettings, accelerated: bool, steps: int = 10) -> tuple[float, float]:
    shape = CrosscoderShape(2, 8, 24)
    device, host = training_memory(settings(steps=steps), training, SMALL, shape, 1e6, 50, accelerated)
    return device, host


def test_shards_divide_weights_and_streaming_adds_models() -> None:
    parameters = 2 * 2 * 8 * 24 + 24 + 16
    one, _ = memory_of(TrainingSettings(), True)
    assert one == 20 * parameters + 4 * 64 * (4.1 * 24 + 12 * 16)
    two, _ = memory_of(TrainingSettings(processes=2, dictionary_shards=2), True)
    assert two == 20 * parameters / 2 + 4 * 64 * (4.1 * 24 / 2 + 12 * 16)
    halves = TrainingSettings(processes=2, parts=0)
    alone, dealt = (memory_of(halves.model_copy(update={"parts": parts}), True)[0] for parts in (0, 8))
    assert alone == 20 * parameters + 4 * 32 * (4.1 * 24 + 12 * 16)
    assert dealt - alone == 8 * (64 * 16 + parameters / 2 + 32 * 24)
    streaming, _ = memory_of(TrainingSettings(activations="streaming"), True)
    assert streaming == one + 2 * 4 * SMALL.parameters + pass_bytes(SMALL, 50)
    assert pass_bytes(SMALL, 50) == 50 * 4 * (8 * 8 + 3 * 32)


def test_models_pass_through_main_memory() -> None:
    size = 4 * SMALL.parameters
    stored_bytes = 2 * SMALL.parameters
    assert loading_bytes(SMALL, 3, accelerated=True) == size + stored_bytes
    assert loading_bytes(SMALL, 3, accelerated=False) == 3 * size + stored_bytes
    assert loading_bytes(replace(SMALL, stored_bytes=4), 1, accelerated=True) == size
    large = CrosscoderShape(2, 8, 10_000)
    assert loading_bytes(SMALL, 1, accelerated=True, crosscoder=large) == 2 * large.saved_bytes
    training = TrainingSettings(activations="streaming")
    _, host = training_memory(settings(), training, SMALL, CrosscoderShape(2, 8, 24), 0.0, 50, accelerated=True)
    assert host == PROCESS_BYTES + size + stored_bytes
    assert on(True, 5.0, host=3.0, loading=4.0) == (5.0, PROCESS_BYTES + 4)
    assert on(False, 5.0, host=3.0, loading=4.0) == (0.0, PROCESS_BYTES + 8)


def test_a_text_is_tokenised_in_bounded_memory(tmp_path: Path) -> None:
    experiment = local_experiment(tmp_path)
    shape = shape_of("llama", experiment.suites["llama"])

    def cost(tokens: int) -> Cost:
        suite = experiment.suites["llama"]
        corpus = suite.corpus.model_copy(update={"train_tokens": tokens})
        suites = {"llama": suite.model_copy(update={"corpus": corpus})}
        job = Job("build_corpus", "llama")
        return cost_of(Place(experiment.model_copy(update={"suites": suites}), shape, job, True))

    little, much = cost(16_000_160), cost(32_000_160)
    assert much.memory.device == 0
    assert much.memory.host - little.memory.host == 1e6 * PLACE_BYTES
    assert much.work.cpu_s - little.work.cpu_s == pytest.approx(16e6 / TOKENS_PER_S / 8)


def test_states_are_saved_through_main_memory() -> None:
    _, without = memory_of(TrainingSettings(save_every=10), True)
    _, saving = memory_of(TrainingSettings(save_every=9), True)
    assert saving - without == 12 * (2 * 2 * 8 * 24 + 24 + 16)


def test_batches_wait_on_the_accelerator() -> None:
    shape = CrosscoderShape(2, 8, 24)
    given = settings(steps=10), TrainingSettings(), SMALL, shape, 1e6, 50
    ahead = ahead_bytes(settings(batch_tokens=64), TrainingSettings(processes=2), shape, 512)
    assert ahead == 3 * 32 * 2 * 512
    without, ahead_of_it = (training_memory(*given, True, ahead=size) for size in (0.0, 1e9))
    assert ahead_of_it.device == pytest.approx(without.device + 1e9, rel=0.01) and ahead_of_it.host == without.host
    assert training_memory(*given, False, ahead=1e9) == training_memory(*given, False)


def test_processes_share_the_buffer() -> None:
    corpus = corpus_of(20_000)
    variant, shape = settings(shuffle_tokens=8192), CrosscoderShape(2, 256, 24)
    whole = loader_bytes(variant, TrainingSettings(), corpus, shape, 512)
    assert whole == 2 * ((2 * 7 * 1071 + 3 * 64) * 512 + 64 * 4 * 256)
    half = loader_bytes(variant, TrainingSettings(processes=2), corpus, shape, 512)
    assert half == 2 * ((2 * 4 * 1071 + 3 * 32) * 512 + 32 * 4 * 256)


def test_a_new_variant_counts_as_dense() -> None:
    class New(CrosscoderSettings):
        def train(self, batch: Batch) -> Selection:
            return Selection(batch.largest_of_token(1))

    assert not New(sparsity="new", dictionary_size=8, steps=1).cost.sparse


@pytest.fixture(scope="module")
def plan() -> Plan:
    experiment = changed(attribution_jobs={"tasks_per_job": 4})
    return make_plan(experiment, {"nursery": shape_of("nursery", experiment.suites["nursery"])}, ANY)


def test_plan_adds_up(plan: Plan) -> None:
    document = plan_document(plan)
    assert document["jobs"] == sum(rule["jobs"] for rule in document["rules"]) == 192
    assert document["stored_bytes"] == sum(stored["size_bytes"] for stored in document["stores"])
    assert document["flops"] == pytest.approx(sum(rule["flops"] for rule in document["rules"]))
    training = next(rule for rule in plan.rules if rule.rule == "train_crosscoder")
    assert training.flops == sum(entry.flops for entry in plan.trainings)
    assert {entry.comparison for entry in plan.trainings} == {"onset", "abstraction", "course", "identity"}


def test_page_states_totals_and_assumptions(plan: Plan) -> None:
    page = plan_text(plan)
    assert re.search(r"\n  attribute_task +45 ", page) and re.search(r"\n  total +192 ", page)
    assert "at 1.00 GB/s" in page and "50% of that" in page
    assert "pairs of sentences are scored by `sentence`, which costs most, others by `next_token`" in page


def test_streaming_stores_validation_alone(plan: Plan) -> None:
    experiment = changed(training__activations="streaming")
    streaming = make_plan(experiment, {"nursery": shape_of("nursery", experiment.suites["nursery"])}, ANY)
    kinds = {entry.kind for entry in streaming.stores}
    assert "activations, validation" in kinds and "activations, train" not in kinds
    assert streaming.stored_bytes < 0.5 * plan.stored_bytes
    assert sum(entry.flops for entry in streaming.trainings) > sum(entry.flops for entry in plan.trainings)


def test_an_identity_needs_no_more_activations_and_no_ablations(plan: Plan) -> None:
    config = copy.deepcopy(DEFAULT)
    del config["suites"]["nursery"]["comparisons"]["identity"]
    config["attribution_jobs"] = {"tasks_per_job": 4}
    experiment = parse_experiment(config, "test")
    without = make_plan(experiment, {"nursery": shape_of("nursery", experiment.suites["nursery"])}, ANY)
    stored, before = ({entry.kind: entry for entry in of.stores} for of in (plan, without))
    assert {kind for kind in stored if stored[kind] != before[kind]} == {
        "crosscoders",
        "attributions, relie",
        "own codes",
        "training, evaluation, features",
    }
    assert stored["crosscoders"].number == 5 and stored["training, evaluation, features"].number == 14
    more, fewer = ({rule.rule: rule.jobs for rule in of.rules} for of in (plan, without))
    assert {rule: jobs - fewer[rule] for rule, jobs in more.items() if jobs != fewer[rule]} == {
        "train_crosscoder": 1,
        "evaluate_crosscoder": 1,
        "attribute_task": 9,
        "collect_attributions": 1,
    }


def test_a_twin_costs_its_pretraining_and_a_baseline_its_dictionaries() -> None:
    experiment = controlled(seeds=(0,))
    plan = make_plan(experiment, {name: shape_of(name, suite) for name, suite in experiment.suites.items()}, ANY)
    assert {entry.kind for entry in plan.stores if entry.suite == "twin"} == {"checkpoints"}
    stored = {entry.kind: entry for entry in plan.stores if entry.suite == "nursery"}
    assert stored["activations, train"].number == 5  # of steps 16, 64, 112 and 320, and the twin's
    assert stored["baselines"].number == 2
    jobs = {rule.rule: rule.jobs for rule in plan.rules}
    assert jobs["pretrain_twin"] == 1 and jobs["train_tokenizer"] == 2 and jobs["compare_baseline"] == 2
    flops = {(entry.comparison, entry.variant): entry.flops for entry in plan.trainings}
    assert flops["early", "l1"] == pytest.approx(flops["abstraction", "l1"] / 2, rel=0.01)


def test_a_choice_costs_what_its_budget_allows() -> None:
    """As much as if so many comparisons were given; what is given beside it is not counted twice."""
    shapes = {"nursery": shape_of("nursery", changed().suites["nursery"])}
    chosen = changed(suites__nursery__auto={"checkpoints": 3})
    steps = ["step192", "step256", "step320"]
    given = {"change1": steps[:2], "change2": steps[1:], "course1": steps}
    same = changed(**{f"suites__nursery__comparisons__{name}": {"checkpoints": one} for name, one in given.items()})
    plans = [make_plan(experiment, shapes, ANY) for experiment in (chosen, same)]
    jobs = [{rule.rule.replace("list_", "choose_"): rule.jobs for rule in plan.rules} for plan in plans]
    assert jobs[0] == jobs[1] and jobs[0]["choose_comparisons"] == 1 and jobs[0]["train_crosscoder"] == 5 + 6
    assert plans[0].flops == plans[1].flops
    text = plan_text(plans[0])
    assert (
        "nursery chooses its comparisons: priced is all that its budget allows (pairs: 2, triplets: 1, checkp" in text
    )
    assert plan_document(plans[0])["choices"] and not plan_document(plans[1])["choices"]


def test_a_choice_is_timed_by_its_fits() -> None:
    experiment = changed(suites__nursery__auto={"resamples": 4000})
    shape = shape_of("nursery", experiment.suites["nursery"])
    cost = cost_of(Place(experiment, shape, Job("choose_comparisons", "nursery"), accelerated=False))
    assert cost.work.cpu_s == pytest.approx(1.1e-8 * 9 * 4000 * 17**2)
    assert cost.memory.host - 8 * 9 * 4000 * 17 == pytest.approx(170e6)


def test_a_scan_lets_fewer_checkpoints_be_scored() -> None:
    shapes = {"nursery": shape_of("nursery", changed().suites["nursery"])}
    whole, scanned = (
        {rule.rule: rule for rule in make_plan(experiment, shapes, ANY).rules}
        for experiment in (changed(), changed(suites__nursery__scan={"limit": 50, "tokens": 1000}))
    )
    assert scanned["scan_checkpoint"].jobs == 17 and scanned["collect_scan"].jobs == 1
    assert scanned["score_task"].flops == pytest.approx(whole["score_task"].flops * 4 / 17)
    of_pairs = whole["score_task"].flops * 50 / 200
    assert of_pairs < scanned["scan_checkpoint"].flops < 4 * of_pairs
    assert scan_entries(changed(suites__nursery__scan={"tokens": 1000}).suites["nursery"]) == 3 * 333 * 332 // 2


def test_only_checkpoints_that_are_compared_are_downloaded(tmp_path: Path) -> None:
    experiment = hub_controlled(tmp_path)
    downloaded = {(job.suite, job.revision) for job in jobs_of(experiment) if job.rule == "download_checkpoint"}
    assert downloaded == {("llama", "late"), ("twin", "late")}
    plan = make_plan(experiment, dict.fromkeys(experiment.suites, parse_shape(LLAMA, "here")), ANY)
    kinds = {(entry.suite, entry.kind): entry.number for entry in plan.stores}
    assert kinds["llama", "checkpoints"] == 1 and kinds["twin", "checkpoints"] == 1
    assert ("llama", "tasks") in kinds and ("llama", "tasks, scores, report") not in kinds


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that runs the script in this process."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["plan.py", *arguments])
        runpy.run_path(str(ROOT / "scripts/plan.py"), run_name="__main__")

    yield run


def test_script_prints_and_writes(
    script: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script(str(ROOT / "config.yaml"), "--accelerator", "cpu", "--flops", "1e11", "--json", "plan.json")
    assert "train_crosscoder" in capsys.readouterr().out
    document = json.loads((tmp_path / "plan.json").read_text())
    assert document["hardware"]["accelerator"] == "cpu" and document["trainings"][0]["device_bytes"] == 0


@pytest.mark.parametrize("given", ["nurserie=x.json", "nursery", "nursery="])
def test_script_refuses_what_names_no_file_of_a_suite(
    given: str, script: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit, match="1"):
        script(str(ROOT / "config.yaml"), "--model-config", given)
    assert caplog.messages == [f"--model-config '{given}' names no suite's file; write SUITE=FILE with one of nursery"]


def test_plan_imports_no_torch() -> None:
    code = "import runpy, sys; sys.argv = ['plan.py', 'config.yaml'];"
    code += "runpy.run_path('scripts/plan.py', run_name='__main__'); sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


def test_shape_of_a_local_suite(tmp_path: Path) -> None:
    suite = local_experiment(tmp_path).suites["llama"]
    assert shape_of("llama", suite) == parse_shape(LLAMA, "here")
    (tmp_path / "early/config.json").unlink()
    with pytest.raises(ConfigError, match=r"suites\.llama\.source, checkpoint 'early': no readable .*config\.json"):
        shape_of("llama", suite)


def test_shape_of_a_hub_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = hub_experiment(tmp_path).suites["llama"]
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    asked: list[tuple[str, str, str]] = []

    def download(repository: str, name: str, revision: str, token: str | bool) -> str:
        asked.append((repository, name, revision))
        return str(tmp_path / name)

    monkeypatch.setattr(models, "hf_hub_download", download)
    assert shape_of("llama", suite) == parse_shape(LLAMA, "here")
    assert asked == [("some/model", "config.json", "early")]


def test_unreachable_hub_is_an_error_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = hub_experiment(tmp_path).suites["llama"]

    def fail(*_: str, **__: str) -> str:
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(models, "hf_hub_download", fail)
    message = r"suites\.llama\.source: config\.json cannot be reached; pass .* --model-config llama=FILE, or mend this:"
    with pytest.raises(ConfigError, match=message + r" model some/model at 'early': cannot be fetched \(no connection"):
        shape_of("llama", suite)
    given = tmp_path / "given.json"
    given.write_text(json.dumps(LLAMA))
    assert shape_of("llama", suite, given).d_model == 32


def test_missing_size_is_an_error() -> None:
    with pytest.raises(ConfigError, match="here: none of vocab_size is there; add one of them"):
        parse_shape({key: value for key, value in LLAMA.items() if key != "vocab_size"}, "here")


WRONG_SIZES: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": "wide"}, r"here: hidden_size 'wide' is no size; correct it to a whole number above 0"),
    ({"num_hidden_layers": -3}, r"here: num_hidden_layers -3 is no size"),
    ({"num_attention_heads": 0}, r"here: num_attention_heads 0 is no size"),
    ({"num_key_value_heads": [2, 4, 4]}, r"here: num_key_value_heads \[2, 4, 4\] is no size"),
    ({"head_dim": 8.5}, r"here: head_dim 8\.5 is no size"),
    ({"intermediate_size": float("nan")}, r"here: intermediate_size nan is no size"),
]


@pytest.mark.parametrize(("values", "message"), WRONG_SIZES)
def test_wrong_size_is_an_error(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_shape({**LLAMA, **values}, "here")


def test_config_that_is_no_object_is_an_error(tmp_path: Path) -> None:
    suite = local_experiment(tmp_path).suites["llama"]
    (tmp_path / "early/config.json").write_text("[1]")
    with pytest.raises(
        ConfigError, match=r"checkpoint 'early'\): holds no JSON object; give the config\.json of a model"
    ):
        shape_of("llama", suite)


def test_site_outside_the_models_is_an_error(tmp_path: Path) -> None:
    experiment = local_experiment(tmp_path)
    shape = shape_of("llama", experiment.suites["llama"])
    make_plan(experiment, {"llama": shape}, ANY)
    with pytest.raises(ConfigError) as caught:
        make_plan(experiment, {"llama": replace(shape, blocks=1)}, ANY)
    assert str(caught.value) == (
        "suites.llama.site 'mlp_out.1': outside the model, which has blocks 0 to 0; choose one of them"
    )


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("residual.3", r"'residual\.3': outside the model, which has blocks 0 to 2; choose"),
        ("head_out.1.4", r"'head_out\.1\.4': outside the model, which has heads 0 to 3; choose one of them"),
    ],
)
def test_site_of_a_comparison_outside_the_models_is_an_error(tmp_path: Path, site: str, message: str) -> None:
    experiment = local_experiment(tmp_path)
    shape = shape_of("llama", experiment.suites["llama"])
    other = experiment.suites["llama"].comparisons["other"].model_copy(update={"site": site})
    comparisons = {**experiment.suites["llama"].comparisons, "other": other}
    suite = experiment.suites["llama"].model_copy(update={"comparisons": comparisons})
    with pytest.raises(ConfigError, match=rf"^suites\.llama\.comparisons\.other\.site {message}"):
        make_plan(experiment.model_copy(update={"suites": {"llama": suite}}), {"llama": shape}, ANY)


def test_pairs_are_counted_in_the_file(tmp_path: Path) -> None:
    suite = local_experiment(tmp_path).suites["llama"]

    def examples(**changes: object) -> int:
        task = suite.tasks["pairs"].model_copy(update=changes)
        return examples_of("llama", suite.model_copy(update={"tasks": {"pairs": task}}), "pairs")

    assert examples() == 3 and examples(limit=2) == 2 and examples(limit=4) == 3
    lines = (tmp_path / "pairs.jsonl").read_text()
    (tmp_path / "pairs.jsonl").write_text(lines + lines)
    assert examples() == 3, "duplicates are left out"
    (tmp_path / "pairs.jsonl").write_text(lines + "{")
    with pytest.raises(ConfigError, match=r"^suites\.llama\.tasks\.pairs: .*pairs\.jsonl, line 4: needs a JSON object"):
        examples()
    (tmp_path / "pairs.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"suites\.llama\.tasks\.pairs\.path: no file .*; put it there, or give the"):
        examples()
    assert examples(limit=2) == 2


def test_pairs_of_a_dataset_are_as_many_as_the_limit_or_as_are_published(tmp_path: Path) -> None:
    suite = local_experiment(tmp_path).suites["llama"]
    for limit, pairs in ((7, 7), (2000, 1000), (None, 1000)):
        blimp = BlimpTask.model_validate({"kind": "blimp", "name": "passive_1", "limit": limit})
        assert examples_of("llama", suite.model_copy(update={"tasks": {"pairs": blimp}}), "pairs") == pairs
    task = {"kind": "blimp", "dataset": "lab/minimal-pairs", "name": "passive_1"}
    limited = suite.model_copy(update={"tasks": {"pairs": BlimpTask.model_validate({**task, "limit": 7})}})
    assert examples_of("llama", limited, "pairs") == 7
    unlimited = suite.model_copy(update={"tasks": {"pairs": BlimpTask.model_validate(task)}})
    with pytest.raises(
        ConfigError, match=r"suites\.llama\.tasks\.pairs: its pairs are not counted before they are fetched"
    ):
        examples_of("llama", unlimited, "pairs")


WRONG_HARDWARE: list[tuple[tuple[Any, ...], str]] = [
    (("tpu", 0.4, 1.0), r"--accelerator 'tpu' has no known peak; give it in FLOP/s with --flops, or choose from v100"),
    (("cpu", 0.4, 1.0), r"--accelerator 'cpu' has no known peak"),
    (("h100", 1.4, 1.0), r"--utilisation 1\.4 is no part of the peak; give more than 0 and at most 1"),
    (("h100", math.nan, 1.0), r"--utilisation nan is no part of the peak"),
    (("h100", 0.4, 0.0), r"--read-gb-per-s 0 is no rate; give a finite number above 0"),
    (("h100", 0.4, math.nan), r"--read-gb-per-s nan is no rate"),
    (("cpu", 0.4, 1.0, -1.0), r"--flops -1 is no rate"),
    (("cpu", 0.4, 1.0, math.inf), r"--flops inf is no rate"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_HARDWARE)
def test_wrong_hardware_is_an_error(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        hardware_named(*arguments)


def test_memory_and_products_follow_the_loading(tmp_path: Path) -> None:
    """A block of LLAMA has 7,680 weights: 32 (32 + 2 x 16 + 32 + 3 x 48), with two embeddings tied, 3,200."""
    suite = local_experiment(tmp_path).suites["llama"]
    blocks, embeddings = 3 * 32 * (32 + 2 * 16 + 32 + 3 * 48), 32 * 100
    expected = {
        ("auto", "none"): (2 * (blocks + embeddings), "bfloat16"),
        ("float32", "none"): (4 * (blocks + embeddings), "tf32"),
        ("float16", "none"): (2 * (blocks + embeddings), "float16"),
        ("auto", "8bit"): (blocks + 2 * embeddings, "bfloat16"),
        ("float32", "4bit"): (blocks * (0.5 + 4 / 64) + 4 * embeddings, "tf32"),
    }
    for (dtype, quantization), (size, products) in expected.items():
        loading = LoadingSettings(dtype=dtype, quantization=quantization, device_map="auto", gpus=4)
        shape = shape_of("llama", suite.model_copy(update={"loading": loading}))
        assert model_bytes(shape) == size and shape.loaded.products("tf32") == products
        assert held_bytes(shape, 3, accelerated=True) == 3 * size / 4
        assert held_bytes(shape, 3, accelerated=False) == 3 * size
        number = 4 if dtype == "float32" else 2
        assert pass_bytes(shape, 50) == 50 * number * (8 * 32 + 3 * 48)
        widened = embeddings + (0 if quantization != "none" else 2 * blocks / 3)
        assert widened_bytes(shape, 2) == (4 - number) * widened
        converted = 0 if (dtype, quantization) in (("auto", "none"), ("float16", "none")) else shape.checkpoint_bytes
        assert loading_bytes(shape, 1, accelerated=True) == size + converted


def test_a_plan_counts_the_format_and_the_gpus_of_models(tmp_path: Path) -> None:
    experiment = local_experiment(tmp_path)
    suite = experiment.suites["llama"]

    def planned(**loading: Any) -> dict[str, RuleCost]:
        changed_suite = suite.model_copy(update={"loading": LoadingSettings(**loading)})
        whole = experiment.model_copy(update={"suites": {"llama": changed_suite}})
        plan = make_plan(whole, {"llama": shape_of("llama", changed_suite)}, ANY)
        return {rule.rule: rule for rule in plan.rules}

    half, wide = planned(), planned(dtype="float32")
    spread = planned(device_map="auto", gpus=2)
    for rule in ("harvest_activations", "score_task", "attribute_task", "evaluate_crosscoder", "compare_checkpoints"):
        assert half[rule].flops == wide[rule].flops == spread[rule].flops
        assert (
            half[rule].device_bytes < wide[rule].device_bytes and half[rule].longest_hours <= wide[rule].longest_hours
        )
        assert spread[rule].device_bytes < half[rule].device_bytes
        assert spread[rule].accelerator_hours == pytest.approx(2 * half[rule].accelerator_hours)
    found = [of["find_examples"].accelerator_hours for of in (half, spread)]  # it holds models, and no more of them
    assert found[1] == pytest.approx(2 * found[0])
    assert spread["train_crosscoder"] == half["train_crosscoder"]  # it loads no models
    works = {name: Work(disk_bytes=1.0).adding(67e12, name) for name in ("float32", "bfloat16", "float16", "tf32")}
    h100 = hardware_named("h100", 1.0, 1.0)
    seconds = {name: 3600 * h100.hours(work) - 5 for name, work in works.items()}
    assert seconds["float32"] == pytest.approx(1) and seconds["float16"] == pytest.approx(seconds["bfloat16"])
    assert seconds["tf32"] == pytest.approx(67 / 494.5)
    assert 3600 * hardware_named("v100", 1.0, 1.0).hours(Work(float16=125e12)) == pytest.approx(6)


def test_no_bfloat16_on_old_accelerators() -> None:
    message = (
        r"'v100' computes no bfloat16; set `precision` of the variants and of `attr.*, and `loading\.dtype` of suites"
        r" to float16 or float32, or choose"
    )
    with pytest.raises(ConfigError, match=message):
        hardware_named("v100", 0.4, 1.0).hours(Work(bfloat16=1.0))


PARAMETERS = {  # https://github.com/EleutherAI/pythia, and the hub's count of the other two
    "EleutherAI/pythia-70m": 70_426_624,
    "EleutherAI/pythia-160m-deduped": 162_322_944,
    "EleutherAI/pythia-410m-seed3": 405_334_016,
    "EleutherAI/pythia-1b": 1_011_781_632,
    "EleutherAI/pythia-1.4b": 1_414_647_808,
    "EleutherAI/pythia-2.8b": 2_775_208_960,
    "EleutherAI/pythia-6.9b": 6_857_302_016,
    "EleutherAI/pythia-12b": 11_846_072_320,
    "allenai/OLMo-1B-0724-hf": 1_279_787_008,
    "bigscience/bloom-1b1-intermediate": 1_065_314_304,
}


@pytest.mark.parametrize(("repository", "parameters"), PARAMETERS.items())
def test_shapes_of_published_models_are_known(repository: str, parameters: int) -> None:
    shape = known_shape(repository)
    assert shape is not None and shape.parameters == pytest.approx(parameters, rel=0.003)


def test_only_names_that_go_on_with_a_hyphen_are_of_the_same_shape() -> None:
    assert known_shape("EleutherAI/pythia-1b") == known_shape("EleutherAI/pythia-1b-deduped")
    assert known_shape("EleutherAI/pythia-1bx") is None and known_shape("some/model") is None


PUBLISHED = sorted(path for path in (ROOT / "experiments").rglob("*.yaml") if not path.name.startswith("nursery"))


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_published_experiment_is_planned_without_a_network(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "hf_hub_download", None)
    experiment = load_experiment(path)
    ((name, suite),) = experiment.suites.items()
    plan = make_plan(experiment, {name: shape_of(name, suite)}, hardware_named("h200", 0.4, 1.0))
    assert len(plan.trainings) == len(suite.comparisons) * len(experiment.variants)
    assert all(entry.device_bytes < 141e9 for entry in plan.trainings)


def test_prices_are_a_row_for_each_experiment(plan: Plan) -> None:
    table = price_table({"one": plan, "two": plan}).splitlines()
    assert table[0] == "| experiment | jobs | all jobs | longest job | device memory | disk |"
    assert len(table) == 4 and table[2].startswith(f"| one | {plan.jobs} | {duration(plan.accelerator_hours)} | ")


def test_reports_grow_with_crosscoders_tasks_and_features() -> None:
    pair, triplet = CrosscoderShape(2, 64, 512), CrosscoderShape(3, 64, 1024)
    alone, of_pair, of_both = (report_bytes(of, 10) for of in ([], [pair], [pair, triplet]))
    assert alone == REPORT_BYTES
    assert of_pair - alone == 1_000_000 + 10 * 600_000 + 512 * (450 + 10 * 2 * 100)
    assert of_both - of_pair == 1_000_000 + 10 * 600_000 + 1024 * (450 + 10 * 3 * 100)


def test_reports_are_of_every_crosscoder_but_those_of_controls() -> None:
    experiment = controlled()
    suite = experiment.suites["nursery"]
    shown = shown_crosscoders(experiment, suite)
    jobs = [job for job in jobs_of(experiment) if job.rule == "find_examples" and job.suite == "nursery"]
    assert [one.checkpoints for one in shown] == [len(suite.comparisons[job.comparison].checkpoints) for job in jobs]
    assert {one.latents for one in shown} == {512}


def test_a_report_takes_the_time_of_its_crosscoders_shared_out_but_no_less_than_the_page_of_one() -> None:
    pair, triplet = CrosscoderShape(2, 0, 16384), CrosscoderShape(3, 0, 16384)
    assert report_seconds([], 67) == REPORT_S
    one, many = report_seconds([triplet], 67), report_seconds([triplet] * 10 * REPORT_PROCESSES, 67)
    assert report_seconds([triplet, pair], 67) - one < report_seconds([pair], 67)
    assert 5 * one < many < 20 * one
    assert report_minutes([triplet], 67) > FEWEST_MINUTES + 3 * one / 60 - 1e-9


def test_the_memory_of_a_report_grows_with_the_effects_of_all_its_crosscoders() -> None:
    triplet = CrosscoderShape(3, 0, 16384)
    few, more = (report_memory_bytes([triplet] * number, 67) for number in (3, 4))
    assert 0.6e9 < more - few < 0.8e9
    assert report_mb([triplet] * 3, 67) > FEWEST_MB + few / 1e6


def test_the_report_is_priced(plan: Plan) -> None:
    (rule,) = (rule for rule in plan.rules if rule.rule == "write_report")
    experiment = changed()
    shown = shown_crosscoders(experiment, experiment.suites["nursery"])
    assert rule.host_bytes == report_memory_bytes(shown, 9)
    assert 3600 * rule.longest_hours > report_seconds(shown, 9) > REPORT_S
