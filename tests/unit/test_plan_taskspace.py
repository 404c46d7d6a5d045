"""A plan of task spaces agrees with what is computed and held."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from tiny import tiny_model
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from chronocoder.config import Experiment, MethodSettings, TaskSpaceSettings, parse_experiment
from chronocoder.plan.compute import Prompts, blocks_flops, logits_flops
from chronocoder.plan.costs import cost_of
from chronocoder.plan.hardware import Hardware, Peak
from chronocoder.plan.jobs import Job, count_by_rule, jobs_of
from chronocoder.plan.memory import PROCESS_BYTES
from chronocoder.plan.models import ModelShape, parse_shape, shape_of
from chronocoder.plan.place import Cost, Place
from chronocoder.plan.plan import make_plan
from chronocoder.plan.taskspace import BACKWARD, Texts, saved_numbers, trainable_parameters, updating_memory
from chronocoder.plan.text import plan_text
from chronocoder.taskspace.losses import Loss, accumulate_gradient

ANY = Hardware("some", Peak(1e12, 1e13), 0.5, 1e9)
SHAPE = ModelShape(8, 3, 8, 8, 32, 100, gated=False, tied=False, stored_bytes=2)
TASKS = ("agreement_simple", "determiner_noun", "reflexive_number")


def experiment(comparisons: dict[str, Any] | None = None, **taskspace: Any) -> Experiment:
    """Return a nursery with three tasks of 40 pairs and a task space at two checkpoints."""
    suite = {
        "source": {"kind": "nursery", "steps": [0, 4, 8]},
        "corpus": {"kind": "nursery", "train_tokens": 6400, "validation_tokens": 1280, "sequence_length": 32},
        "site": "residual.2",
        "tasks": {name: {"kind": "nursery", "pairs": 40} for name in TASKS},
        "comparisons": comparisons or {},
        "taskspace": {"checkpoints": ["step4", "step8"]},
    }
    variants = {"l1": {"sparsity": "l1", "dictionary_size": 48, "l1_coefficient": 0.5, "steps": 40}}
    return parse_experiment({"suites": {"small": suite}, "variants": variants, "taskspace": taskspace}, "test")


def costs(given: Experiment, job: Job, accelerated: bool = True) -> Cost:
    return cost_of(Place(given, shape_of("small", given.suites["small"]), job, accelerated))


def a_tuning() -> Job:
    return Job("tune_task", "small", task=TASKS[0], tasks=TASKS[:1], revision="step4")


def test_jobs_are_of_every_checkpoint_task_and_seed() -> None:
    comparisons = {"pair": {"checkpoints": ["step0", "step8"]}, "early": {"checkpoints": ["step0"]}}
    planned = count_by_rule(jobs_of(experiment(comparisons, seeds=[0, 1, 2])))
    assert planned["tune_task"] == 2 * 3 * 3 and planned["compare_gradients"] == 2
    assert [planned[rule] for rule in ("collect_transfer", "collect_gradients", "map_tasks", "bridge_tasks")] == [1] * 4
    alone = count_by_rule(jobs_of(experiment(seeds=[3])))
    assert alone["tune_task"] == 2 * 3 and alone["write_report"] == 1
    assert not {"bridge_tasks", "train_crosscoder", "harvest_activations"} & set(alone)


def test_flops_of_a_gradient_are_those_of_a_real_one() -> None:
    model = tiny_model("gpt_neox").requires_grad_(True)
    model.set_attn_implementation("eager")  # the others' products are not counted
    shape = parse_shape(model.config.to_dict(), "here")
    ids = np.random.default_rng(0).integers(0, shape.vocabulary_size, (6, 9))
    columns = {"length": np.full(6, 7), "right_id": ids[:, 7], "wrong_id": ids[:, 8]}
    task = xr.Dataset(
        {"token_id": (("example", "position"), ids[:, :7]), **{name: ("example", one) for name, one in columns.items()}}
    )
    with FlopCounterMode(display=False) as counter:
        accumulate_gradient(model, Loss.of(task, np.arange(6), "differential"), 10_000)
    planned = BACKWARD * Texts(shape, Prompts(6, 7)).forward
    assert counter.get_total_flops() == pytest.approx(planned, rel=0.1)


@pytest.mark.parametrize(
    ("kind", "config"), [(GPTNeoXForCausalLM, GPTNeoXConfig), (LlamaForCausalLM, LlamaConfig)], ids=["neox", "llama"]
)
def test_numbers_kept_for_a_gradient_are_those_of_a_real_model(kind: Any, config: Any) -> None:
    sizes = {"vocab_size": 50, "hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 4}
    models = [kind(config(**sizes, num_hidden_layers=blocks)).eval() for blocks in (2, 4)]
    fewer, more = (kept_bytes(model, torch.arange(96).view(4, 24) % 50) for model in models)
    planned = saved_numbers(parse_shape(models[0].config.to_dict(), "here"))
    assert (more - fewer) / 2 / 96 / 4 == pytest.approx(planned, rel=0.03)


def kept_bytes(model: PreTrainedModel, ids: Tensor) -> int:
    """Return the bytes of what a forward pass keeps for its gradient, without the weights."""
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    kept: list[Tensor] = []  # alive, so that no address is used twice

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(input_ids=ids).logits.sum()
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in kept}
    return sum(size for place, size in storages.items() if place not in weights)


def test_memory_of_an_update_by_hand() -> None:
    settings = TaskSpaceSettings()
    few, all_of_them = (MethodSettings(objective="differential", fraction=fraction) for fraction in (0.25, 1.0))
    parameters = 3 * (4 * 64 + 2 * 256) + 2 * 800
    assert trainable_parameters(SHAPE, settings) == SHAPE.parameters == parameters
    assert updating_memory(SHAPE, settings, all_of_them) == (8 * parameters + 12 * 800, 4 * parameters)
    assert updating_memory(SHAPE, settings, few) == (5 * parameters + 12 * 800, parameters)
    stepwise = settings.model_copy(update={"selection": "step"})
    assert updating_memory(SHAPE, stepwise, few) == (8 * parameters + 12 * 800, 5 * parameters)
    frozen = settings.model_copy(update={"embeddings": False})
    assert updating_memory(SHAPE, frozen, all_of_them).host == 4 * (parameters - 1600)


def test_flops_of_a_tuning_by_hand() -> None:
    """Prefixes of 9 tokens: parameters are chosen by those of 20 pairs, and tuned in 3 steps of 4; plain scores all."""
    methods = {
        "ftgd": {"objective": "differential", "fraction": 0.1},
        "plain": {"objective": "right", "fraction": 1.0},
    }
    given = experiment(methods=methods, steps=3, batch_pairs=4, sequences=5)
    shape = shape_of("small", given.suites["small"])

    def forward(number: float, length: int, scored: int) -> float:
        return blocks_flops(shape, number * length, length, shape.blocks) + logits_flops(shape, number * scored)

    evaluating = forward(3 * 20, 9, 1) + forward(5, 32, 32)
    tuning = 3 * (forward(20, 9, 1) + 3 * forward(4, 9, 1)) + 3 * 3 * forward(4, 9, 9)
    assert costs(given, a_tuning()).work.float32 == pytest.approx(3 * evaluating + tuning)
    both = costs(given, a_tuning()._replace(tasks=TASKS[:2]))
    assert both.work.float32 == pytest.approx((1 + 2 * 2) * evaluating + 2 * tuning), "untuned it is read once"
    more = experiment(methods=methods, steps=3, batch_pairs=4, sequences=500)
    assert costs(more, a_tuning()).work.float32 == pytest.approx(
        costs(given, a_tuning()).work.float32 + 3 * (forward(40, 32, 32) - forward(5, 32, 32))
    ), "there are forty sequences"


def test_copies_are_held_in_float32() -> None:
    given = experiment()
    job = a_tuning()
    shape = shape_of("small", given.suites["small"])
    half = given.suites["small"].model_copy(
        update={"loading": given.suites["small"].loading.model_copy(update={"dtype": "float16"})}
    )
    in_half = given.model_copy(update={"suites": {"small": half}})
    assert costs(given, job) == costs(in_half, job)
    assert costs(given, job).memory.device > 4 * 4 * shape.parameters
    assert costs(given, job, accelerated=False).memory.host > costs(given, job).memory.device


def test_gradients_of_large_models_are_compared_in_few_dimensions() -> None:
    """Of three tasks, 8 groups each, twice: as they are below 2 GiB, else projected."""
    given, job = experiment(), Job("compare_gradients", "small", tasks=TASKS, revision="step4")
    shape = shape_of("small", given.suites["small"])
    large = replace(shape, blocks=400)
    assert 2 * 24 * 4 * large.parameters > 2**31
    whole, projected = (cost_of(Place(given, each, job, accelerated=True)) for each in (shape, large))
    assert whole.memory.host == PROCESS_BYTES + 2 * 24 * 4 * shape.parameters + shape.parameters
    assert projected.memory.host == PROCESS_BYTES + max(2 * 24 * 4 * 2**18 + large.parameters, 4 * large.parameters)
    assert projected.work.cpu_s > 2e-9 * 2 * 24 * large.parameters
    assert projected.memory.device > 4 * 4 * large.parameters, "weights, gradients and two sums of these"


def test_plan_of_a_task_space_alone_has_no_trainings() -> None:
    given = experiment()
    plan = make_plan(given, {"small": shape_of("small", given.suites["small"])}, ANY)
    stores = {entry.kind: entry.number for entry in plan.stores}
    assert stores == {"checkpoints": 3, "corpus": 2, "tunings": 12, "task space": 5, "tasks, scores, report": 9}
    assert plan.trainings == [] and plan.effects == []
    text = plan_text(plan)
    assert "Trainings" not in text and "Effects" not in text and "tune_task" in text


def test_a_bridge_costs_a_tuning_of_every_task_and_what_features_change() -> None:
    given = experiment({"pair": {"checkpoints": ["step0", "step8"]}, "both": {"checkpoints": ["step4", "step8"]}})
    jobs = {name: Job("bridge_tasks", "small", name, "l1", 0, tasks=TASKS) for name in ("pair", "both")}
    pair, both = (costs(given, job).work for job in jobs.values())
    assert both.flops == pytest.approx(2 * pair.flops), "of two checkpoints in common, not one"
    assert pair.flops > 3 * 30 * BACKWARD * blocks_flops(shape_of("small", given.suites["small"]), 16 * 9, 9, 4)
