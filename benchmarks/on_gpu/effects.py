"""Effects by every estimator on random models of Pythia-1B's shape: speed, projected time, memory against the plan.

Exact ones in every precision: against the bare products, and with what rounding does to them.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

import attribution
import torch
from torch import Tensor, nn
from training import median_seconds
from transformers import PreTrainedModel

from chronocoder.attribution.effects import Effects, Prompts
from chronocoder.attribution.estimators import ESTIMATORS, Estimator
from chronocoder.attribution.precision import rounding
from chronocoder.attribution.prompts import ZERO, PromptBatch, read_prompts
from chronocoder.config import EXACT, AttributionSettings, Experiment, parse_experiment
from chronocoder.devices import FLOAT32, MATMUL, computing, default_device
from chronocoder.plan import compute
from chronocoder.plan.costs import cost_of
from chronocoder.plan.jobs import jobs_of
from chronocoder.plan.models import ModelShape, parse_shape
from chronocoder.plan.place import Place
from chronocoder.plan.sizes import exact_sequences
from chronocoder.suites.sites import Site, resolve_site
from on_gpu.measured import Budget, Row, Setting
from on_gpu.memory import begin_peak, memory_row, peak_bytes
from on_gpu.steps import peak_flops

METHODS = [*((name, FLOAT32) for name in ESTIMATORS), *((EXACT, name) for name in MATMUL if name != FLOAT32)]
"""Estimators, and the precisions that they are measured in."""


def measure(setting: Setting, budget: Budget) -> Iterator[Row]:
    """Yield the time of reading the prompts, and of each estimator its time, its rows a second and its memory."""
    shares = budget.shares(2 + len(METHODS))
    peak = peak_flops(setting, next(shares), torch.float32)
    yield Row("product of large matrices in float32, the peak", peak / 1e12, "TFLOP/s")
    shape, models = shape_of(setting), random_models(setting)
    model_shape = parse_shape(models[0].config.to_dict(), "the benchmark's model")
    sites, task = [resolve_site(model, setting.site) for model in models], attribution.random_task(shape)
    crosscoder = attribution.random_crosscoder(shape, models, task)
    begin = time.perf_counter()
    batches = list(read_prompts(crosscoder, sites, task, ZERO, AttributionSettings().batch_size))
    _wait()
    yield projected_row("reading the prompts", time.perf_counter() - begin, setting.examples, setting)
    active = torch.cat([batch.codes.any(dim=1).sum(dim=1) for batch in batches]).double().mean()
    yield Row("features active in an example", float(active), "", f"of {setting.dictionary_size}; {setting.k} a token")
    for (name, precision), share in zip(METHODS, shares, strict=False):
        experiment = experiment_with(name, setting, precision)
        settings, what = experiment.attribution, name if precision == FLOAT32 else f"{name} in {precision}"
        places = [replace(site, precision=precision) for site in sites]
        begin_peak()
        done = Measured.of(ESTIMATORS[name], places, batches, settings, share)
        used = peak_bytes()
        yield projected_row(what, done.seconds, done.examples, setting)
        if name == EXACT:
            length = int(task["length"].max())
            at_once = length * exact_sequences(settings.batch_size, length, 0, setting.vocabulary)
            bare = bare_seconds(places[0], done, at_once, setting.rounds, share)
            against, target = "the bare products of the blocks after the site", attribution.PRODUCTS_TARGET
        else:
            passed = compute.Prompts(done.passes, done.tokens / done.rows)
            bare = compute.resumed_flops(model_shape, passed, setting.site) / peak
            against, target = "their products at the peak", None
        against = f"{against}; {done.tokens / done.rows:.1f} tokens a row"
        rate, ratio = done.rows / done.seconds, bare / done.seconds
        yield Row(f"{what}, rows", rate, "1/s", against, ratio, setting.judged(target))
        if name == EXACT:
            yield floor_row(what, noise_floor(places, batches, settings), done.largest, settings)
        yield memory_row(f"memory of {what}", used, planned_bytes(experiment, model_shape))


def projected_row(what: str, seconds: float, examples: int, setting: Setting) -> Row:
    """Return the time of all effects of an experiment, where so many examples at all checkpoints took some seconds."""
    minutes = seconds / 60 * setting.tasks * setting.pairs / examples
    experiment = f"{setting.tasks} tasks of {setting.pairs} pairs at {setting.checkpoints} checkpoints"
    return Row(f"{what}, projected", minutes, "min", f"{experiment}, from {seconds:.3g} s for {examples} pairs")


def bare_seconds(site: Site, done: "Measured", at_once: int, rounds: int, budget: Budget) -> float:
    """Return the time that the products alone of what was done take, from that of the products of one batch.

    Args:
        site: with the precision that they are computed in; bfloat16 without converting anything.
        done: what was done.
        at_once: tokens of the batch.
        rounds: at most.
        budget: time after which no round begins.
    """
    dtype = torch.bfloat16 if site.precision == "bfloat16" else torch.float32
    products = attribution.products_of(site, at_once, round(at_once * done.rows / done.tokens), at_once, dtype)
    with computing(site.precision, site.model.device):
        medians = median_seconds({"products": products}, site.model.device, rounds, budget.ends)
    return medians["products"] * done.tokens / at_once


def noise_floor(sites: list[Site], batches: list[PromptBatch], settings: AttributionSettings) -> float:
    """Return what rounding does to an effect, in logits: the mean over examples, at the checkpoint where it is most."""
    floors = [
        torch.cat([rounding(site, changing(batch.prompts[number]), settings) for batch in batches]).mean()
        for number, site in enumerate(sites)
    ]
    return float(max(floors))


def floor_row(what: str, floor: float, largest: float, settings: AttributionSettings) -> Row:
    """Return a noise floor beside the smallest effect of interest, and whether the precision would be refused."""
    outcome = "refused" if floor > settings.smallest_effect else "accepted"
    against = f"smallest_effect {settings.smallest_effect:g}: {outcome}; the largest effect here is {largest:.2g}"
    return Row(f"noise floor of {what}", floor, "logits", against, floor / settings.smallest_effect)


def changing(prompts: Prompts) -> Prompts:
    """Return prompts with those features alone that change in some example."""
    return prompts.restricted(prompts.change.any(dim=1).any(dim=0).nonzero()[:, 0])


@dataclass
class Measured:
    """What an estimator took for some examples at all checkpoints.

    Attributes:
        seconds: until the device was idle.
        examples: how many.
        rows: sequences that went through the last block, forward.
        passes: the same, and those that went backward.
        tokens: of the rows.
        largest: absolute effect of a feature on an example, in logits.
    """

    seconds: float = 0.0
    examples: int = 0
    rows: int = 0
    passes: int = 0
    tokens: int = 0
    largest: float = 0.0

    @classmethod
    def of(
        cls,
        estimator: Estimator,
        sites: list[Site],
        batches: list[PromptBatch],
        settings: AttributionSettings,
        budget: Budget,
    ) -> "Measured":
        """Measure batch after batch, after a few features that do not count; at least one batch."""
        found = cls()
        for batch in batches:
            if found.examples and not budget.left:
                break
            for site, prompts in zip(sites, map(changing, batch.prompts), strict=True):
                if not found.examples:
                    estimator(site, prompts.restricted(torch.arange(4, device=prompts.change.device)), settings)
                with Passing(site.blocks[-1]) as passing:
                    seconds, effects = _timed(estimator, site, prompts, settings)
                found.seconds += seconds
                found.largest = max(found.largest, float(effects.features.abs().max()))
                found.rows += passing.rows
                found.passes += passing.passes
                found.tokens += passing.tokens
            found.examples += len(batch.rows.examples)
        return found


@dataclass
class Passing:
    """Counts what goes through a module while it is entered.

    Attributes:
        module: whose first input is of shape (row, position, d_model).
        rows: of all inputs.
        passes: of all inputs, twice those whose gradient is taken.
        tokens: of all inputs.
    """

    module: nn.Module
    rows: int = 0
    passes: int = 0
    tokens: int = 0
    _hooks: list[Any] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._hooks.append(self.module.register_forward_pre_hook(self._count, with_kwargs=True))
        return self

    def __exit__(self, _kind: type | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._hooks.pop().remove()

    def _count(self, _module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        hidden: Tensor = arguments[0] if arguments else keywords["hidden_states"]
        self.rows += len(hidden)
        self.passes += len(hidden) * (2 if hidden.requires_grad else 1)
        self.tokens += hidden.shape[:2].numel()


def shape_of(setting: Setting) -> attribution.Setting:
    """Return the shape of the models, and how many examples there are."""
    return attribution.Setting(
        width=setting.d_model,
        vocabulary=setting.vocabulary,
        site=setting.site,
        blocks=setting.blocks,
        examples=setting.examples,
        heads=setting.heads,
        k=setting.k,
    )


def random_models(setting: Setting) -> list[PreTrainedModel]:
    """Return untrained models, one a checkpoint, made where they are used."""
    with default_device():
        made = [attribution.random_model(shape_of(setting), seed) for seed in range(setting.checkpoints)]
    return [model.requires_grad_(False) for model in made]


def experiment_with(estimator: str, setting: Setting, precision: str = FLOAT32) -> Experiment:
    """Return the experiment that is projected: every task of so many pairs, at all checkpoints, with a crosscoder."""
    revisions = {f"step{number}": number for number in range(1, setting.checkpoints + 1)}
    length = setting.sequence_length
    suite = {
        "source": {"kind": "hub", "repository": "random/model", "checkpoints": revisions},
        "corpus": {"kind": "hub", "dataset": "random/text", "sequence_length": length}
        | {"train_tokens": 1000 * length, "validation_tokens": 100 * length},
        "site": setting.site,
        "tasks": {
            f"task{number}": {"kind": "blimp", "path": f"task{number}.jsonl", "limit": setting.pairs}
            for number in range(setting.tasks)
        },
        "comparisons": {"all": {"checkpoints": list(revisions)}},
    }
    variant = {"sparsity": "topk", "k": setting.k, "dictionary_size": setting.dictionary_size, "steps": 1000}
    values = {
        "suites": {"random": suite},
        "variants": {"topk": variant},
        "attribution": {"estimator": estimator, "precision": precision, "random_directions": 0},
    }
    return parse_experiment(values, "the benchmark's experiment")


def planned_bytes(experiment: Experiment, shape: ModelShape) -> float:
    """Return the memory on the device that the plan states for an attribution with models of a shape."""
    job = next(job for job in jobs_of(experiment) if job.rule == "attribute_task")
    return cost_of(Place(experiment, shape, job, accelerated=True)).memory.device


def _timed(estimator: Estimator, site: Site, prompts: Prompts, settings: AttributionSettings) -> tuple[float, Effects]:
    begin = time.perf_counter()
    effects = estimator(site, prompts, settings)
    _wait()
    return time.perf_counter() - begin, effects


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
