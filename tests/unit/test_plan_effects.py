"""The planned costs of attribution, ablation and matching agree with what is computed, held and written."""

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from slow_attribution import exactly
from test_baseline import baseline_flags, given
from test_consolidation import EFFECTS, UNRELATED, planted
from test_plan import ROOT, SMALL, changed, controlled
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from chronocoder.attribution.ablation import measure_ablations, summarise_ablations
from chronocoder.attribution.attribute import measure_effects
from chronocoder.attribution.summary import summarise_effects
from chronocoder.behaviour.pool import Pool
from chronocoder.command_line import to_flags
from chronocoder.config import (
    AblationSettings,
    AttributionSettings,
    ConsolidationSettings,
    Experiment,
    FeatureSettings,
    load_experiment,
)
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig
from chronocoder.crosscoder.own_codes import OwnCodes, own_codes_dataset
from chronocoder.plan.compute import Measuring, Prompts, ablation_flops, attribution_flops, writing_flops
from chronocoder.plan.costs import cost_of
from chronocoder.plan.disk import (
    ABLATION_METADATA_BYTES,
    ATTRIBUTION_METADATA_BYTES,
    EFFECT_BYTES,
    ablation_bytes,
    baseline_bytes,
    consolidation_bytes,
    features_bytes,
    match_bytes,
    own_codes_bytes,
    successor_bytes,
)
from chronocoder.plan.effects import ASSIGNMENT_S, CORE_FLOPS, RESAMPLED_ARRAYS
from chronocoder.plan.jobs import jobs_of
from chronocoder.plan.measured import Measured, texts_of
from chronocoder.plan.memory import PROCESS_BYTES, TORCH_PROCESS_BYTES
from chronocoder.plan.models import CrosscoderShape, ModelShape, parse_shape
from chronocoder.plan.place import Cost, Place
from chronocoder.plan.sizes import (
    EXACT_ROWS,
    LOGITS_AT_ONCE,
    PASS_TOKENS,
    PREFIX_TOKENS,
    chosen_features,
    exact_sequences,
    rows_of,
    shown_features,
    top_features,
)
from chronocoder.stores import labelled, strings, write_store
from chronocoder.suites.checkpoints import checkpoint_commit
from chronocoder.suites.sites import Site, resolve_site
from chronocoder.variants import VARIANTS

FEATURES, WIDTH, EXAMPLES, LENGTH, VOCABULARY = 32, 32, 6, PREFIX_TOKENS, 300
SHAPE = CrosscoderShape(2, WIDTH, FEATURES)
ABLATION = AblationSettings(top_features=FEATURES, set_sizes=[1, 2, 4], random_sets=2)
REVISIONS = {"early": 0, "late": 1}


def model(seed: int, width: int = WIDTH) -> GPTNeoXForCausalLM:
    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 4, "num_attention_heads": 2}
    found = GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=VOCABULARY, **sizes)).eval().requires_grad_(False)
    found.config.use_cache = False
    found.set_attn_implementation("eager")  # the others' products are not counted
    return found


def crosscoder(
    site: str, width: int = WIDTH, features: int = FEATURES, commits: tuple[str, ...] = ("", "")
) -> Crosscoder:
    """Return a crosscoder with every feature active on every token."""
    settings = VARIANTS["l1"].model_validate(
        {"sparsity": "l1", "dictionary_size": features, "l1_coefficient": 1, "steps": 1}
    )
    config = CrosscoderConfig("s", "c", "v", tuple(REVISIONS), site, width, settings, 0, commits, True)
    found = Crosscoder(config, torch.Generator().manual_seed(0)).requires_grad_(False)
    found.b_enc.fill_(5.0)
    return found


def pairs(examples: int = EXAMPLES, length: int = LENGTH) -> xr.Dataset:
    """Return a task of random prefixes of one length."""
    generator = np.random.default_rng(0)

    def tokens() -> xr.Variable:
        ids = generator.integers(0, VOCABULARY, (examples, length)).astype(np.int32)
        return labelled(("example", "position"), ids, "token")

    def column(values: Any) -> xr.Variable:
        return labelled(("example",), values, "of the pair")

    texts = {name: column(strings(["x"] * examples)) for name in ("right", "wrong")}
    texts["condition"] = column(strings([f"number {number % 2}" for number in range(examples)]))
    roles = [[("subject", "attractor", "other", "last token")[place % 4] for place in range(length)]] * examples
    numbers = {"right_id": np.arange(examples), "wrong_id": np.arange(examples) + 1, "length": [length] * examples}
    return xr.Dataset(
        {
            "token_id": tokens(),
            "counterfactual_id": tokens(),
            "partner_id": tokens(),
            "mean_code": labelled(("feature",), np.full(FEATURES, 3, np.float32), "mean"),
            "mean_site_activation": labelled(("checkpoint", "d_model"), np.zeros((2, WIDTH), np.float32), "mean"),
            "has_counterfactual": column([True] * examples),
            "token": labelled(("example", "position"), strings([["x"] * length] * examples), "text of the token"),
            "role": labelled(("example", "position"), strings(roles), "role of the token"),
            **texts,
            **{name: column(values) for name, values in numbers.items()},
        },
        coords={"example": np.arange(examples), "position": np.arange(length)},
        attrs={"task": "pairs"},
    )


def sentences(scored: int) -> xr.Dataset:
    """Return a task of random pairs of sentences, of which the last tokens are scored; `LENGTH` tokens are read."""
    task = pairs(length=LENGTH + 1).drop_vars(["right_id", "wrong_id"])
    of_both = ["length", *(name for name in task.data_vars if "position" in task[name].dims)]
    both = task[of_both].expand_dims(member=["right", "wrong"]).transpose("example", "member", ...)
    both["token_id"] = (both["token_id"] + xr.DataArray([0, 1], dims="member")) % VOCABULARY
    scored_from = labelled(("example", "member"), np.full((EXAMPLES, 2), LENGTH + 1 - scored), "first scored")
    return task.drop_vars(of_both).merge(both).assign(scored_from=scored_from)


def attribute(
    sites: list[Site], settings: AttributionSettings, task: xr.Dataset | None = None
) -> tuple[int, xr.Dataset]:
    """Return the FLOPs of measuring effects, and what is stored."""
    found, task = crosscoder(sites[0].name), pairs() if task is None else task
    with FlopCounterMode(display=False) as counter:
        measured = measure_effects(found, sites, task, settings)
    attribution = summarise_effects(measured, task, found.decoder_norms.numpy(), REVISIONS, settings)
    return counter.get_total_flops(), attribution


def ablate(
    sites: list[Site], attribution: xr.Dataset, settings: AttributionSettings, task: xr.Dataset | None = None
) -> tuple[int, xr.Dataset]:
    """Return the FLOPs of ablating, and what is stored."""
    task = pairs() if task is None else task
    with FlopCounterMode(display=False) as counter:
        measured = measure_ablations(crosscoder(sites[0].name), sites, task, attribution, settings, ABLATION)
    return counter.get_total_flops(), summarise_ablations(measured, task, attribution, settings)


@pytest.fixture(scope="module")
def sites() -> list[Site]:
    return [resolve_site(model(seed), "residual.1") for seed in (0, 1)]


@pytest.mark.parametrize("intervention", ["zero", "mean", "counterfactual", "resample"])
@pytest.mark.parametrize("estimator", ["attribution_patching", "grouped_gradients", "published", "exact", "two_stages"])
def test_flops_are_those_of_a_real_attribution(estimator: str, intervention: str, sites: list[Site]) -> None:
    settings = AttributionSettings.model_validate(
        {"estimator": estimator, "intervention": intervention, "steps": 6, "batch_size": 25, "bootstrap_samples": 10}
    )
    shape = parse_shape(sites[0].model.config.to_dict(), "here")
    planned = attribution_flops(Measuring(settings, shape, SHAPE, Prompts(EXAMPLES, LENGTH), "residual.1", FEATURES))
    assert attribute(sites, settings)[0] == pytest.approx(planned, rel=0.04)


@pytest.mark.parametrize("intervention", ["zero", "mean", "counterfactual", "resample"])
def test_flops_are_those_of_a_real_ablation(intervention: str, sites: list[Site]) -> None:
    settings = AttributionSettings.model_validate(
        {"intervention": intervention, "steps": 6, "batch_size": 25, "bootstrap_samples": 10}
    )
    shape = parse_shape(sites[0].model.config.to_dict(), "here")
    planned = ablation_flops(
        Measuring(settings, shape, SHAPE, Prompts(EXAMPLES, LENGTH), "residual.1", FEATURES), ABLATION
    )
    flops, _ = ablate(sites, attribute(sites, settings)[1], settings)
    assert flops == pytest.approx(planned, rel=0.02)


@pytest.mark.parametrize("scored", [1, 3, LENGTH])
@pytest.mark.parametrize("estimator", ["attribution_patching", "grouped_gradients", "published", "exact", "two_stages"])
def test_flops_of_two_sentences_are_those_of_a_real_attribution(estimator: str, scored: int, sites: list[Site]) -> None:
    settings = AttributionSettings.model_validate(
        {"estimator": estimator, "steps": 6, "batch_size": 25, "bootstrap_samples": 10}
    )
    task, shape = sentences(scored), parse_shape(sites[0].model.config.to_dict(), "here")
    prompts = Prompts.of(EXAMPLES, texts_of(task))
    assert prompts == (2 * EXAMPLES, LENGTH, scored)
    planned = attribution_flops(Measuring(settings, shape, SHAPE, prompts, "residual.1", FEATURES))
    assert attribute(sites, settings, task)[0] == pytest.approx(planned, rel=0.04)


@pytest.mark.parametrize(("scored", "intervention"), [(1, "zero"), (3, "zero"), (LENGTH, "counterfactual")])
def test_flops_of_two_sentences_are_those_of_a_real_ablation(scored: int, intervention: str, sites: list[Site]) -> None:
    settings = AttributionSettings.model_validate(
        {"intervention": intervention, "steps": 6, "batch_size": 25, "bootstrap_samples": 10}
    )
    task, shape = sentences(scored), parse_shape(sites[0].model.config.to_dict(), "here")
    measuring = Measuring(settings, shape, SHAPE, Prompts.of(EXAMPLES, texts_of(task)), "residual.1", FEATURES)
    flops, _ = ablate(sites, attribute(sites, settings, task)[1], settings, task)
    assert flops == pytest.approx(ablation_flops(measuring, ABLATION), rel=0.04)


@pytest.mark.parametrize(("scored", "number"), [(0, 1), (3, 2), (LENGTH, 2)])
def test_flops_of_scoring_are_those_of_a_real_one(scored: int, number: int, sites: list[Site]) -> None:
    task, shape = sentences(scored) if scored else pairs(), parse_shape(sites[0].model.config.to_dict(), "here")
    different = np.arange(EXAMPLES * number).reshape(task["length"].shape)
    task["token_id"] = task["token_id"].copy()
    task["token_id"][..., 0] = different  # texts that pairs share are read once
    experiment = changed(
        suites__nursery__tasks={"agreement_simple": {"kind": "nursery", "pairs": EXAMPLES}},
        suites__nursery__contrasts={},
        suites__nursery__taskspace=None,
    )
    measured = Measured({}, {("nursery", "agreement_simple"): texts_of(task)})
    job = next(job for job in jobs_of(experiment) if job.rule == "score_task")
    planned = cost_of(Place(experiment, shape, job, True, measured)).work.flops
    with FlopCounterMode(display=False) as counter:
        Pool.of([task]).differences(sites[0].model)
    checkpoints = len(experiment.suites["nursery"].tokens_seen)
    assert counter.get_total_flops() * checkpoints == pytest.approx(planned, rel=0.01)


def test_logits_of_sentences_are_held_and_bounded() -> None:
    shape = replace(SMALL, vocabulary_size=50_304)

    def device(rule: str, metric: str, batch_size: int) -> float:
        tasks = {"agreement_simple": {"kind": "nursery", "pairs": 10_000, "metric": metric}}
        experiment = changed(
            suites__nursery__tasks=tasks,
            suites__nursery__contrasts={},
            suites__nursery__taskspace=None,
            attribution__batch_size=batch_size,
        )
        return cost(experiment, rule, shape).memory.device

    growth = device("attribute_task", "sentence", 5000) - device("attribute_task", "next_token", 5000)
    assert growth == pytest.approx(4 * 4 * LOGITS_AT_ONCE)
    scoring = device("score_task", "sentence", 64) - device("score_task", "next_token", 64)
    assert scoring == pytest.approx(4 * 2048 * 50_304 * (1 - 1 / PREFIX_TOKENS))


def test_passes_of_exact_effects_on_a_gpu_are_large_and_bounded() -> None:
    assert exact_sequences(64, 8, 0, 50_304) == PASS_TOKENS // 8
    assert exact_sequences(2000, 8, 0, 50_304) == 2000
    assert exact_sequences(64, 8, 1, 50_304) == LOGITS_AT_ONCE // (50_304 * 8)
    assert exact_sequences(64, 12, 1, 50_304) == LOGITS_AT_ONCE // (50_304 * EXACT_ROWS)
    assert exact_sequences(64, 9, 9, 300) == PASS_TOKENS // 9


def test_flops_of_writing_are_those_of_a_real_ablation(sites: list[Site], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AttributionSettings(batch_size=25, bootstrap_samples=10)
    shape = parse_shape(sites[0].model.config.to_dict(), "here")
    attribution = attribute(sites, settings)[1]
    whole, _ = ablate(sites, attribution, settings)
    monkeypatch.setattr("chronocoder.attribution.ablation.measure_writing", lambda *_: None)
    rest, _ = ablate(sites, attribution, settings)
    mixing = settings.random_directions * FEATURES * SHAPE.product_flops()
    prompts = Prompts(EXAMPLES, LENGTH)
    planned = writing_flops(Measuring(settings, shape, SHAPE, prompts, "residual.1", FEATURES), ABLATION)
    assert whole - rest == pytest.approx(planned - mixing, rel=0.02)
    alone = SHAPE._replace(checkpoints=1)
    assert writing_flops(Measuring(settings, shape, alone, prompts, "residual.1", FEATURES), ABLATION) == 0


def test_flops_of_attribution_by_hand() -> None:
    crosscoder, prompts = CrosscoderShape(2, 8, 24), Prompts(10, 4)
    token, behind = 2 * 768 + 4 * 4 * 8, 2 * (8 * 8 + 2 * 8 * 32)
    block, trimmed = 40 * token, 30 * behind
    suffix = 30 * token - 20 * behind  # all but the first token, in the last block
    products = 40 * 2 * (2 * 2 * 8 * 24)
    path = AttributionSettings(estimator="published", steps=5)
    copies = 2 + 1 + 5 * 2  # the true change, a clean one for rounding, forward and backward
    expected = 2 * (2 * block + copies * (block - trimmed) + suffix) + products
    directions = 3 * 24
    mixing, projecting = directions * 2 * (2 * 8 * 24), products / 2 * directions / 24
    assert attribution_flops(Measuring(path, SMALL, crosscoder, prompts, "residual.1", 24)) == pytest.approx(
        expected + mixing + projecting
    )
    exact = AttributionSettings(estimator="exact")
    whole = 2 * block - trimmed
    row = 2 * 30 * token - 20 * behind  # of two blocks
    expected = 2 * (2 * block + 5 * whole + (1 + 24 + directions) * row) + products + mixing
    assert attribution_flops(Measuring(exact, SMALL, crosscoder, prompts, "mlp_out.1", 24)) == pytest.approx(expected)
    shuffled = exact.model_copy(update={"random_directions": 0, "shuffled_tokens": True})
    expected = 2 * (2 * (2 * block + 5 * whole + (1 + 24) * row) + products)
    assert attribution_flops(Measuring(shuffled, SMALL, crosscoder, prompts, "mlp_out.1", 24)) == pytest.approx(
        expected
    )
    patched = AttributionSettings(estimator="attribution_patching", intervention="counterfactual", random_directions=0)
    reading = 2 * (2 * 3 * block) + products  # nothing comes after the last block
    assert attribution_flops(Measuring(patched, SMALL, crosscoder, prompts, "residual.2", 24)) == reading + products / 2


def test_numbers_of_features_are_limited_by_the_dictionary() -> None:
    ablation = AblationSettings(top_features=10)
    assert (top_features(ablation, CrosscoderShape(3, 8, 100)), top_features(ablation, CrosscoderShape(3, 8, 20))) == (
        30,
        20,
    )
    assert (
        chosen_features(ablation, CrosscoderShape(3, 8, 100)),
        chosen_features(ablation, CrosscoderShape(3, 8, 50)),
    ) == (60, 50)


def test_shown_features_are_others_for_each_task_and_checkpoint_at_most() -> None:
    settings = FeatureSettings(top_features=10)
    assert shown_features(settings, 4, CrosscoderShape(2, 8, 100)) == 80
    assert shown_features(settings, 4, CrosscoderShape(3, 8, 100)) == 100


def test_features_are_counted_with_every_latent_on_every_validation_token() -> None:
    few, more = (cost(changed(features__top_features=number), "find_examples") for number in (1, 2))
    experiment = changed()
    place = Place(experiment, SMALL, next(job for job in jobs_of(experiment) if job.rule == "find_examples"), True)
    shown, rows = 9 * place.crosscoder.checkpoints, rows_of(place.suite.corpus, "validation")
    products = shown * (2 * rows * 512 + place.crosscoder.product_flops())
    logits = place.crosscoder.checkpoints * shown * 2 * SMALL.d_model * SMALL.vocabulary_size
    assert more.work.flops - few.work.flops == pytest.approx(products + logits)
    assert few.work.flops > 2 * rows * place.crosscoder.product_flops()


def test_numbers_that_are_stored(sites: list[Site], tmp_path: Path) -> None:
    settings = AttributionSettings(steps=1, bootstrap_samples=10)
    _, attribution = attribute(sites, settings)
    _, ablation = ablate(sites, attribution, settings)
    effects = [values for values in attribution.values() if {"checkpoint", "feature"} <= set(values.dims)]
    of_one = [values.isel(checkpoint=0, feature=0).nbytes for values in effects]
    assert sum(of_one) == EFFECT_BYTES
    assert ablation["position_effect"].dtype.itemsize == 4
    of_features = [values for values in ablation.values() if {"checkpoint", "feature"} <= set(values.dims)]
    assert sum(values.isel(checkpoint=0, feature=0).nbytes for values in of_features) == 93
    of_pairs = [values for values in ablation.values() if {"pair", "feature"} <= set(values.dims)]
    assert sum(values.isel(pair=0, feature=0).nbytes for values in of_pairs) == 72
    of_random = [values for values in ablation.values() if {"pair", "control", "top_feature"} <= set(values.dims)]
    assert sum(values.isel(pair=0, control=0, top_feature=0).nbytes for values in of_random) == 8
    assert of_random[0].sizes["control"] == settings.random_directions
    for store, planned in ((attribution, ATTRIBUTION_METADATA_BYTES), (ablation, ABLATION_METADATA_BYTES)):
        write_store(store, tmp_path / "store.zarr", {"suite": "s"})
        written = sum(file.stat().st_size for file in tmp_path.rglob("zarr.json"))
        assert written == pytest.approx(planned, rel=0.05)


def test_own_codes_fill_their_store(tmp_path: Path) -> None:
    large, generator = crosscoder("residual.1", width=96, features=1000), torch.Generator().manual_seed(0)
    weights = torch.randn(2, 96, 2 * 96, generator=generator)
    own_codes = OwnCodes(weights, weights[:, 0], torch.rand(2, 1000, generator=generator).numpy() > 0.5)
    write_store(own_codes_dataset(own_codes, large.config), tmp_path / "own_codes.zarr", large.facts)
    written = sum(file.stat().st_size for file in (tmp_path / "own_codes.zarr").rglob("*") if file.is_file())
    assert written == pytest.approx(own_codes_bytes(CrosscoderShape(2, 96, 1000)), rel=0.15)


def test_resampled_means_are_held_several_times() -> None:
    checkpoints, examples, features, samples = 3, 50, 256, 1000
    effects = np.random.default_rng(0).normal(size=(checkpoints, examples, features)).astype(np.float32)
    revisions = {f"step{number}": number for number in range(checkpoints)}
    measured = xr.Dataset(
        {
            "effects": (("checkpoint", "example", "feature"), effects),
            "control_effects": (("control", "checkpoint", "example", "control_feature"), effects[None, :, :, :0]),
            "control_features": (("control", "control_feature"), np.empty((1, 0), dtype=int)),
            "changes": (("example", "feature"), abs(effects[0])),
            "clean_metric": (("checkpoint", "example"), effects[:, :, 0]),
            "error_effects": (("checkpoint", "example"), effects[:, :, 0]),
            "total_effects": (("checkpoint", "example"), effects.sum(axis=2) + effects[:, :, 0]),
            "activation_frequency": ("feature", np.ones(features)),
            "mean_activation": ("feature", np.ones(features)),
        },
        coords={
            "checkpoint": strings(list(revisions)),
            "feature": np.arange(features),
            "control": strings(["random directions 0"]),
        },
    )
    norms = np.ones((checkpoints, features), dtype=np.float32)
    tracemalloc.start()
    summarise_effects(
        exactly(measured), pairs(examples), norms, revisions, AttributionSettings(bootstrap_samples=samples)
    )
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak == pytest.approx(effects.nbytes + 4 * RESAMPLED_ARRAYS * samples * checkpoints * features, rel=0.15)


def cost(experiment: Experiment, rule: str, shape: ModelShape = SMALL, accelerated: bool = True) -> Cost:
    """Return the cost of the first job of a rule."""
    job = next(job for job in jobs_of(experiment) if job.rule == rule)
    return cost_of(Place(experiment, shape, job, accelerated))


def test_each_task_has_a_job_of_which_some_work_on_all() -> None:
    experiment = changed(attribution_jobs={"tasks_per_job": 4}, behaviour={"tasks_per_job": 5})
    tasks = tuple(experiment.suites["nursery"].tasks)
    run = [job for job in jobs_of(experiment) if (job.comparison, job.variant) == ("onset", "batchtopk")]
    for rule, jobs, size in (
        ("attribute_task", run, 4),
        ("ablate_task", run, 4),
        ("score_task", jobs_of(experiment), 5),
    ):
        of_rule = [job for job in jobs if job.rule == rule]
        assert [job.task for job in of_rule] == list(tasks)
        assert [job.tasks for job in of_rule if job.tasks] == [tasks[i : i + size] for i in range(0, 9, size)]


def test_a_job_whose_result_another_makes_costs_next_to_nothing() -> None:
    jobs = [job for job in jobs_of(changed(behaviour={"tasks_per_job": 5})) if job.rule == "score_task"]
    costs = [cost_of(Place(changed(), SMALL, job, True)) for job in jobs]
    assert [cost.work.flops > 0 for cost in costs] == [True, False, False, False, False, True, False, False, False]
    assert costs[1].work.disk_bytes == 0 and costs[1].memory.host < costs[0].memory.host / 2


def test_seeds_are_matched_where_there_are_several() -> None:
    matched = [job for job in jobs_of(changed(seeds=[0, 1, 2])) if job.rule == "match_seeds"]
    assert [job[1:4] for job in matched] == [
        ("nursery", "abstraction", "batchtopk"),
        ("nursery", "abstraction", "l1"),
        ("nursery", "onset", "batchtopk"),
        ("nursery", "course", "batchtopk"),
    ]
    assert not [job for job in jobs_of(changed(seeds=[0])) if job.rule == "match_seeds"]


@pytest.mark.parametrize("rule", ["attribute_task", "ablate_task"])
def test_tasks_in_a_job_add_work_and_no_memory(rule: str) -> None:
    one, three = (cost(changed(attribution_jobs={"tasks_per_job": number}), rule) for number in (1, 3))
    assert three.work.flops == 3 * one.work.flops
    assert three.work.cpu_s == 3 * one.work.cpu_s
    read_once = 2 * SMALL.checkpoint_bytes + CrosscoderShape(2, 8, 512).saved_bytes
    read_once += own_codes_bytes(CrosscoderShape(2, 8, 512)) if rule == "ablate_task" else 0
    assert three.work.disk_bytes == pytest.approx(3 * one.work.disk_bytes - 2 * read_once)
    assert three.memory.device == one.memory.device
    assert three.memory.host < 1.01 * one.memory.host


def test_scored_tasks_in_a_job_add_work_and_neither_memory_nor_loading() -> None:
    one, three = (cost(changed(behaviour={"tasks_per_job": number}), "score_task") for number in (1, 3))
    assert three.work.flops == 3 * one.work.flops
    assert three.work.disk_bytes == one.work.disk_bytes == 17 * SMALL.checkpoint_bytes
    assert three.memory == one.memory


@pytest.mark.parametrize("rule", ["attribute_task", "ablate_task"])
def test_each_process_loads_all_models(rule: str) -> None:
    one, two = (cost(changed(attribution_jobs={"processes": number}), rule) for number in (1, 2))
    models = 2 * SMALL.checkpoint_bytes + CrosscoderShape(2, 8, 512).saved_bytes
    assert two.work.disk_bytes - one.work.disk_bytes == pytest.approx(models)
    assert two.work.flops == one.work.flops and two.work.processes == 2
    assert two.memory.device >= one.memory.device


def test_batch_bounds_what_the_backward_pass_keeps() -> None:
    """Examples and steps together make a batch: more steps take no more memory, more sequences do."""
    shape = replace(SMALL, blocks=5)  # two blocks come after the site

    def held(**settings: int) -> float:
        values = {"estimator": "published", "batch_size": 64, **settings}
        return cost(changed(attribution=values), "attribute_task", shape, accelerated=False).memory.host

    assert held(steps=100) == held(steps=10)
    of_token = 4 * (2 * (8 * 8 + 3 * 32) + 5 * 512)
    assert held(batch_size=128) - held(batch_size=64) == 64 * PREFIX_TOKENS * of_token


def test_matching_is_work_of_the_cpu() -> None:
    found = cost(changed(seeds=[0, 1, 2]), "match_seeds")
    assert found.work.flops == found.memory.device == 0
    assert found.work.cpu_s == pytest.approx(2 * (512**2 * 2 * 2 * 8 / CORE_FLOPS + ASSIGNMENT_S * 512**3))
    more = cost(changed(seeds=[0, 1, 2], variants__batchtopk__dictionary_size=5120), "match_seeds")
    assert more.memory.host - PROCESS_BYTES > 12 * 5120**2
    assert match_bytes(CrosscoderShape(2, 8, 512), 3) - match_bytes(CrosscoderShape(2, 8, 512), 2) < 12 * 512


def test_features_are_matched_with_those_of_each_comparison_that_follows() -> None:
    experiment = changed(seeds=[0, 1])
    matched = [job for job in jobs_of(experiment) if job.rule == "match_successors"]
    assert [job[1:5] for job in matched] == [("nursery", "onset", "batchtopk", seed) for seed in (0, 1)]
    found = cost_of(Place(experiment, SMALL, matched[0], True))
    assert found.work.flops == found.memory.device == 0
    assert found.work.cpu_s == pytest.approx(2 * (512**2 * 2 * 8 / CORE_FLOPS + ASSIGNMENT_S * 512**3))
    sizes = [CrosscoderShape(checkpoints, 8, 512) for checkpoints in (2, 2, 3)]
    assert found.work.disk_bytes == sum(one.saved_bytes for one in sizes) + successor_bytes(sizes[0], 2)
    assert found.memory.host - PROCESS_BYTES > 12 * 512**2


def test_a_baseline_is_matched_once_for_each_checkpoint() -> None:
    found = cost(controlled(seeds=(0,)), "compare_baseline")
    assert found.work.flops == found.memory.device == 0
    cosines_s = 512**2 * 2 * (1 + 2) * 8 / CORE_FLOPS
    assert found.work.cpu_s == pytest.approx(cosines_s + 2 * ASSIGNMENT_S * 512**3)
    assert found.memory.host > TORCH_PROCESS_BYTES + 12 * 512**2
    assert baseline_bytes(CrosscoderShape(3, 8, 512)) - baseline_bytes(CrosscoderShape(2, 8, 512)) < 12 * 512


def test_effects_and_activations_by_position_fill_the_store_of_ablations() -> None:
    settings, ablation, shape = AttributionSettings(), AblationSettings(), CrosscoderShape(2, 8, 512)
    few, many = (ablation_bytes(settings, ablation, shape, number * PREFIX_TOKENS) for number in (100, 1100))
    assert many - few == pytest.approx(0.12 * (2 + 1) * 40 * 1000 * PREFIX_TOKENS * 4)


def test_what_is_shown_of_features_grows_with_what_is_asked_for() -> None:
    settings, shape = FeatureSettings(), CrosscoderShape(2, 8, 512)
    sizes = {
        name: features_bytes(settings.model_copy(update={name: value}), shape, 3) - features_bytes(settings, shape, 3)
        for name, value in (("examples", 9), ("output_tokens", 11), ("neighbours", 9))
    }
    shown = 12 * 3 * 2
    assert sizes == {"examples": shown * 2.5 * 31, "output_tokens": shown * 24, "neighbours": shown * (11 + 21)}


def test_memory_of_a_real_attribution(tmp_path: Path) -> None:
    """In a process of its own, with a dictionary so large that codes and resampled means outweigh the imports."""
    width, features, examples = 64, 8192, 100
    for seed, revision in enumerate(REVISIONS):
        model(seed, width).save_pretrained(tmp_path / revision)
    checkpoints = [tmp_path / revision for revision in REVISIONS]
    commits = tuple(checkpoint_commit(path) for path in checkpoints)
    crosscoder("residual.1", width, features, commits).save(tmp_path / "crosscoder")
    of_task = {"suite": "s", "task": "pairs", "metric": "next_token", "unit": "logit"}
    write_store(pairs(examples), tmp_path / "task.zarr", of_task)
    experiment = changed(
        attribution={"estimator": "attribution_patching", "bootstrap_samples": 500},
        attribution_jobs={"tasks_per_job": 1},
        suites__nursery__tasks={"agreement_simple": {"kind": "nursery", "pairs": examples}},
        suites__nursery__contrasts={},
        suites__nursery__taskspace=None,
        variants__batchtopk__dictionary_size=features,
    )
    shape = parse_shape(json.loads((tmp_path / "early/config.json").read_text()), "here")
    planned = cost(experiment, "attribute_task", shape, accelerated=False).memory
    flags = ["--suite", "s", "--revisions", *REVISIONS, "--checkpoints", *map(str, checkpoints)]
    flags += ["--tokens-seen", "0", "1", "--crosscoder", str(tmp_path / "crosscoder")]
    flags += ["--tasks", str(tmp_path / "task.zarr"), "--outputs", str(tmp_path / "attribution.zarr")]
    peak = peak_of("attribute_task.py", *flags, *to_flags(experiment.attribution))
    assert planned.device == 0 and planned.host > 1.3 * PROCESS_BYTES
    assert peak == pytest.approx(planned.host, rel=0.2)


def test_memory_and_bytes_of_a_real_baseline(tmp_path: Path) -> None:
    width, features = 64, 4096
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(features, 2, width)).astype(np.float32)
    effects = generator.normal(size=(2, 2, features)).astype(np.float32)
    singles, own = [rows[:, number] for number in (0, 1)], [effects[:, number] for number in (0, 1)]
    flags = baseline_flags(given(rows, singles, effects, own, effects, np.arange(100)), tmp_path)
    peak = peak_of("compare_baseline.py", *flags)
    experiment = controlled(seeds=(0,))
    variants = {name: one.model_copy(update={"dictionary_size": features}) for name, one in experiment.variants.items()}
    shape = replace(SMALL, d_model=width)
    planned = cost(experiment.model_copy(update={"variants": variants}), "compare_baseline", shape, accelerated=False)
    assert planned.memory.host > 1.3 * TORCH_PROCESS_BYTES
    assert peak == pytest.approx(planned.memory.host, rel=0.2)
    written = sum(file.stat().st_size for file in (tmp_path / "baseline.zarr").rglob("*") if file.is_file())
    assert written == pytest.approx(baseline_bytes(CrosscoderShape(2, width, features)), rel=0.2)


def test_memory_and_bytes_of_a_real_comparison_of_languages(tmp_path: Path) -> None:
    relie = planted(EFFECTS, UNRELATED).pad(feature=(0, 2048 - 60), constant_values=0)
    facts = dict.fromkeys(("suite", "comparison", "variant", "site", "seed", "commits"), "x")
    described = {name: labelled(values.dims, values.values, name) for name, values in relie.data_vars.items()}
    write_store(relie.assign(described), tmp_path / "relie.zarr", facts)
    languages = load_experiment(ROOT / "experiments" / "nursery-bilingual.yaml")
    planned = cost(languages, "measure_consolidation", accelerated=False)
    output = tmp_path / "consolidation.zarr"
    flags = ["--relie", str(tmp_path / "relie.zarr"), "--output", str(output), "--permutations", "50"]
    peak = peak_of("measure_consolidation.py", *flags)
    assert peak == pytest.approx(planned.memory.host, rel=0.25)
    written = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    assert written == pytest.approx(consolidation_bytes(CrosscoderShape(2, WIDTH, 2048), 3), rel=0.2)
    more = languages.model_copy(update={"consolidation": ConsolidationSettings(permutations=4000, samples=2000)})
    assert cost(more, "measure_consolidation").work.cpu_s == pytest.approx(2 * planned.work.cpu_s)
    with xr.open_zarr(output) as found:
        assert found.attrs["comparison"] == "x" and json.loads(found.attrs["settings"])["permutations"] == 50
        assert all({"long_name", "units"} <= set(values.attrs) for values in found.data_vars.values())


def peak_of(script: str, *flags: str) -> int:
    """Return the peak resident bytes of a script in a process of its own, without those of the one that starts it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__');"
        " print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    command = [sys.executable, "-c", code, str(ROOT / "scripts" / script), *flags]
    return 1024 * int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
