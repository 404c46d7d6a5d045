"""Training steps of every variant, in bfloat16, against the five products that a dense one needs; their memory."""

from collections.abc import Iterator

import torch
from training import OWN_SETTINGS, five_products, median_seconds, settings_of, training_step

from chronocoder.config import TrainingSettings
from chronocoder.devices import default_device
from chronocoder.plan.memory import step_bytes
from chronocoder.plan.models import CrosscoderShape
from chronocoder.variants import VARIANTS
from on_gpu.measured import Budget, Row, Setting
from on_gpu.memory import begin_peak, memory_row, peak_bytes

PARTS = 8
"""That batches are dealt to by default, so that any number of processes trains the same."""
TARGET = 0.5
"""Of the measured peak, for a step of a dense variant."""


def measure(setting: Setting, budget: Budget) -> Iterator[Row]:
    """Yield the measured peak, the five products, and each variant's step, its cost with parts, and its memory."""
    device, arguments = default_device(), setting.arguments(default_device().type)
    shares = budget.shares(2 + len(OWN_SETTINGS))
    peak = peak_flops(setting, next(shares))
    yield Row(f"product of {setting.product} x {setting.product} matrices, the peak", peak / 1e12, "TFLOP/s")
    shape = CrosscoderShape(setting.checkpoints, setting.d_model, setting.dictionary_size)
    flops = 5 * setting.batch_tokens * shape.product_flops()
    products = {"products": five_products(arguments, device)}
    bare = median_seconds(products, device, setting.rounds, next(shares).ends)["products"]
    yield Row("five products", 1e3 * bare, "ms", "the peak", flops / peak / bare)
    for variant, share in zip(OWN_SETTINGS, shares, strict=True):
        settings, held = settings_of(variant, arguments), begin_peak()
        step = training_step(variant, arguments, device)
        medians = median_seconds({**products, "step": step}, device, setting.rounds, share.ends)
        used = peak_bytes() - held
        dealt = {"step": step, "dealt": training_step(variant, arguments, device, PARTS)}
        of_parts = median_seconds(dealt, device, setting.rounds, share.ends)
        del step, dealt
        if VARIANTS[variant].cost.sparse:
            against, ratio, target = "five products", medians["products"] / medians["step"], None
        else:
            against, ratio, target = "five products at the peak", flops / peak / medians["step"], TARGET
        yield Row(f"step, {variant}", 1e3 * medians["step"], "ms", against, ratio, None if setting.reduced else target)
        ratio = of_parts["step"] / of_parts["dealt"]
        yield Row(f"step of {PARTS} parts, {variant}", 1e3 * of_parts["dealt"], "ms", "the step without", ratio)
        yield memory_row(f"memory of a step, {variant}", used, step_bytes(settings, TrainingSettings(), shape))


def peak_flops(setting: Setting, budget: Budget, dtype: torch.dtype = torch.bfloat16) -> float:
    """Return the FLOP/s of a product of large square matrices."""
    n, device = setting.product, default_device()
    left, right = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    into = left @ right
    work = {"product": lambda: torch.mm(left, right, out=into)}
    return 2 * n**3 / median_seconds(work, device, setting.rounds, budget.ends)["product"]
