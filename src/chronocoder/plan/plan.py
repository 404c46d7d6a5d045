"""A plan: the costs of all jobs, added up by rule, by training and by kind of output."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from chronocoder.config import Experiment
from chronocoder.plan.changes import changes_of
from chronocoder.plan.costs import cost_of
from chronocoder.plan.disk import Stored, disk_of
from chronocoder.plan.hardware import Hardware, Work
from chronocoder.plan.jobs import Job, jobs_of
from chronocoder.plan.measured import NOTHING, Measured
from chronocoder.plan.memory import Memory
from chronocoder.plan.models import ModelShape, crosscoder_shape
from chronocoder.plan.place import Cost, Place
from chronocoder.plan.sizes import check_sites


class RuleCost(NamedTuple):
    """The jobs of one rule.

    Attributes:
        rule: its name.
        jobs: how many.
        flops: of all of them.
        disk_bytes: bytes that all of them read and write.
        longest_hours: of the longest job.
        accelerator_hours: of all of them, each as often as it has accelerators.
        device_bytes: memory on the accelerator, of the largest process; 0 without one.
        host_bytes: main memory of the largest process.
    """

    rule: str
    jobs: int
    flops: float
    disk_bytes: float
    longest_hours: float
    accelerator_hours: float
    device_bytes: float
    host_bytes: float


class TrainingCost(NamedTuple):
    """A training; those of other seeds cost the same.

    Attributes:
        suite: the suite.
        comparison: the comparison.
        variant: the variant.
        seeds: how many trainings.
        processes: of each.
        parameters: weights of the crosscoder.
        flops: of one training.
        hours: of one training.
        device_bytes: memory on the accelerator of a process; 0 without one.
        host_bytes: main memory of a process.
        state_bytes: what its saved state takes on disk while it runs; twice as much while a new one replaces it.
    """

    suite: str
    comparison: str
    variant: str
    seeds: int
    processes: int
    parameters: int
    flops: float
    hours: float
    device_bytes: float
    host_bytes: float
    state_bytes: int


class EffectsCost(NamedTuple):
    """How the effects of a comparison's and a variant's features will be measured on all tasks of a suite.

    Attributes:
        suite: the suite.
        comparison: the comparison.
        variant: the variant.
        l0: active latents a token, measured or expected.
        changed: features that change in a prefix or sentence.
        rows: prefixes and sentences, checkpoints and features to change exactly, together.
        exact_hours: what that takes on `accelerator`.
        accelerator: `attribution.accelerator`.
        estimator: the one that is taken.
    """

    suite: str
    comparison: str
    variant: str
    l0: float
    changed: float
    rows: float
    exact_hours: float
    accelerator: str
    estimator: str


@dataclass(frozen=True)
class Plan:
    """What an experiment will cost.

    Attributes:
        hardware: what the hours are of.
        rules: costs by rule, in the order of the pipeline.
        trainings: costs of each comparison and variant.
        effects: how effects are measured, of each comparison and variant.
        stores: what is left on disk.
        choices: by suite that chooses its comparisons, what is priced in their place.
    """

    hardware: Hardware
    rules: list[RuleCost]
    trainings: list[TrainingCost]
    effects: list[EffectsCost]
    stores: list[Stored]
    choices: dict[str, str]

    @property
    def jobs(self) -> int:
        """All jobs."""
        return sum(rule.jobs for rule in self.rules)

    @property
    def flops(self) -> float:
        """FLOPs of all jobs."""
        return sum(rule.flops for rule in self.rules)

    @property
    def accelerator_hours(self) -> float:
        """Accelerator-hours of all jobs."""
        return sum(rule.accelerator_hours for rule in self.rules)

    @property
    def stored_bytes(self) -> float:
        """Bytes that are left on disk."""
        return sum(stored.size_bytes for stored in self.stores)


def make_plan(
    experiment: Experiment, shapes: Mapping[str, ModelShape], hardware: Hardware, measured: Measured = NOTHING
) -> Plan:
    """Return the costs of a whole run; what is done already is not taken off.

    Args:
        experiment: the configuration.
        shapes: of the models, by suite.
        hardware: what it runs on.
        measured: what results tell already, in place of what is expected.

    Raises:
        ConfigError: the pairs of a task cannot be counted, a site is outside the models, or the hardware lacks a
            precision.
    """
    experiment = experiment.with_dearest_choice()
    for name, suite in experiment.suites.items():
        check_sites(name, suite, shapes[name])
    jobs = jobs_of(experiment)
    costs = {
        job: cost_of(Place(experiment, shapes[job.suite], job, hardware.accelerated, measured))
        if job.suite
        else Cost(Work(), Memory(0.0, 0.0))
        for job in jobs
    }
    rules = list(dict.fromkeys(job.rule for job in jobs))
    by_rule = [_of_rule(rule, [cost for job, cost in costs.items() if job.rule == rule], hardware) for rule in rules]
    trainings = {
        (job.suite, job.comparison, job.variant): _of_training(experiment, shapes[job.suite], job, cost, hardware)
        for job, cost in costs.items()
        if job.rule == "train_crosscoder"
    }
    attributed = {(job.suite, job.comparison, job.variant): job for job in jobs if job.rule == "attribute_task"}
    effects = [
        _of_effects(Place(experiment, shapes[job.suite], job, hardware.accelerated, measured))
        for job in attributed.values()
    ]
    stores = disk_of(experiment, shapes)
    return Plan(hardware, by_rule, list(trainings.values()), effects, stores, _choices(experiment))


def _choices(experiment: Experiment) -> dict[str, str]:
    budgets = {name: suite.auto for name, suite in experiment.suites.items() if suite.auto}
    return {
        name: f"pairs: {budget.pairs}, triplets: {budget.triplets}, checkpoints: {budget.checkpoints}"
        for name, budget in budgets.items()
    }


def _of_rule(rule: str, costs: list[Cost], hardware: Hardware) -> RuleCost:
    hours = [hardware.hours(cost.work) if rule != "all" else 0.0 for cost in costs]
    return RuleCost(
        rule=rule,
        jobs=len(costs),
        flops=sum(cost.work.flops for cost in costs),
        disk_bytes=sum(cost.work.disk_bytes for cost in costs),
        longest_hours=max(hours),
        accelerator_hours=sum(
            time * cost.work.processes * cost.work.devices for time, cost in zip(hours, costs, strict=True)
        ),
        device_bytes=max(cost.memory.device for cost in costs),
        host_bytes=max(cost.memory.host for cost in costs),
    )


def _of_training(experiment: Experiment, shape: ModelShape, job: Job, cost: Cost, hardware: Hardware) -> TrainingCost:
    crosscoder = crosscoder_shape(experiment, job.suite, job.comparison, job.variant, shape)
    saves = experiment.variants[job.variant].steps > experiment.training.save_every
    return TrainingCost(
        suite=job.suite,
        comparison=job.comparison,
        variant=job.variant,
        seeds=len(set(experiment.seeds)),
        processes=cost.work.processes,
        parameters=crosscoder.parameters,
        flops=cost.work.flops,
        hours=hardware.hours(cost.work),
        device_bytes=cost.memory.device,
        host_bytes=cost.memory.host,
        state_bytes=crosscoder.state_bytes if saves else 0,
    )


def _of_effects(place: Place) -> EffectsCost:
    job, crosscoder, settings = place.job, place.crosscoder, place.attribution
    prompts = place._replace(job=job._replace(tasks=tuple(place.suite.tasks))).prompts
    changed = [changes_of(settings, crosscoder.latents, place.l0, of_task.length).features for of_task in prompts]
    total = sum(of_task.number * features for of_task, features in zip(prompts, changed, strict=True))
    return EffectsCost(
        suite=job.suite,
        comparison=job.comparison,
        variant=job.variant,
        l0=place.l0,
        changed=total / max(1, sum(of_task.number for of_task in prompts)),
        rows=crosscoder.checkpoints * total,
        exact_hours=place.exact_hours,
        accelerator=settings.accelerator,
        estimator=settings.estimator,
    )
