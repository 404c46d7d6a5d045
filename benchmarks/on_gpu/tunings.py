"""Tuning a copy of a random model of Pythia-1B's shape: a step against its products, memory against the plan."""

import time
from collections.abc import Iterator

import attribution
import numpy as np
import torch

from chronocoder.config import MethodSettings, TaskSpaceSettings
from chronocoder.plan.compute import Prompts
from chronocoder.plan.memory import model_bytes
from chronocoder.plan.models import ModelShape, parse_shape
from chronocoder.plan.taskspace import BACKWARD, Texts, trainable_parameters, updating_memory
from chronocoder.taskspace.tuning import Source, tuned
from on_gpu.effects import random_models, shape_of
from on_gpu.measured import Budget, Row, Setting
from on_gpu.memory import begin_peak, memory_row, peak_bytes
from on_gpu.steps import peak_flops


def measure(setting: Setting, budget: Budget) -> Iterator[Row]:
    """Yield the time of a step by each method, what comes before and after it included, and its memory."""
    settings = TaskSpaceSettings()
    shares = budget.shares(1 + len(settings.methods))
    peak = peak_flops(setting, next(shares), torch.float32)
    (model,) = random_models(setting._replace(checkpoints=1))
    shape = parse_shape(model.config.to_dict(), "the benchmark's model")
    task = attribution.random_task(shape_of(setting)).assign_attrs(task="random")
    source, length = Source(task, np.arange(setting.examples), seed=0), float(task["length"].mean())
    for name, method in settings.methods.items():
        begin_peak()
        begin = time.perf_counter()
        with tuned(model, source, name, method, settings):
            step_s = (time.perf_counter() - begin) / settings.steps
        used, texts = peak_bytes(), Texts(shape, Prompts(settings.batch_pairs, length))
        against = f"its products at the peak; {settings.batch_pairs} pairs of {length:.1f} tokens"
        yield Row(f"step by {name}", 1e3 * step_s, "ms", against, BACKWARD * texts.forward / peak / step_s)
        at_once = settings.batch_pairs if method.fraction == 1 else setting.examples
        passing = Texts(shape, Prompts(at_once, length)).gradient_bytes(settings.tokens_at_once)
        yield memory_row(f"memory of {name}", used, planned_bytes(shape, method, settings) + passing)


def planned_bytes(shape: ModelShape, method: MethodSettings, settings: TaskSpaceSettings) -> float:
    """Return the memory on the device that the plan states for a model that is tuned, without that of a pass."""
    gradients = 4.0 * trainable_parameters(shape, settings)
    return model_bytes(shape) + gradients + updating_memory(shape, settings, method).device
