"""What the jobs about task spaces compute, move and hold.

Copies are tuned in float32, whatever models are saved in: weights, gradients, and Adam's state of what is updated.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from chronocoder.config import RIGHT, MethodSettings, TaskSpaceSettings
from chronocoder.config.taskspace import LABELLINGS
from chronocoder.plan.compute import Measuring, Prompts, blocks_flops, logits_flops, resumed_flops
from chronocoder.plan.disk import bridge_bytes, gradients_bytes, space_bytes, transfer_bytes, tuning_bytes
from chronocoder.plan.effects import CORE_FLOPS
from chronocoder.plan.hardware import Work
from chronocoder.plan.memory import Memory, held_bytes, loading_bytes, model_bytes, on, pass_bytes
from chronocoder.plan.models import Loaded, ModelShape
from chronocoder.plan.place import Cost, Place
from chronocoder.plan.sizes import LOGITS_AT_ONCE, sequences_of

BACKWARD = 3
"""FLOPs of a gradient, in units of a forward pass: weights and activations have gradients."""
LOGITS_ARRAYS = 3
"""Arrays as large as the logits at the peak of a pass: they, a copy, and the softmax or the gradient."""
MOMENT_BYTES, CHOSEN_BYTES = 8, 12
"""For each parameter that is updated: Adam's two moments; where not all are, its place and its gradient besides."""
WORKING_BYTES = 12
"""For each entry of the largest tensor, while the largest gradients are found, or changes are made of moments."""
KEPT_BYTES, MARK_BYTES = 4, 1
"""In main memory, for each parameter that may be updated: its value before; and whether it has been updated."""
CODE_MATRICES = 5
"""Matrices (token, feature) of float32 alive while features are removed, as in attribution."""
JOINING_BYTES = 210e6
"""Python with xarray and SciPy, for jobs that join and compare stores, measured."""
READ_S = 0.011
"""Seconds of one core for reading a tuning, measured."""
SKETCHED_S = 2e-9
"""Seconds of one core for each parameter of a gradient that is projected, measured."""
PERMUTED_S = 5e-8
"""Seconds of one core for each two tasks in a relabelling, for all tests at a checkpoint, measured with 16 tasks."""
COMPARISONS = 3
"""Passes over all gradients, in units of their inner products: these, and overlaps of subspaces, measured."""


class Texts(NamedTuple):
    """Texts that pass through a model in float32, to the logits of what is scored.

    Attributes:
        shape: of the model.
        prompts: the texts.
    """

    shape: ModelShape
    prompts: Prompts

    @property
    def forward(self) -> float:
        """FLOPs of reading the texts once."""
        number, length, scored = self.prompts
        passed = blocks_flops(self.shape, number * length, length, self.shape.blocks)
        return passed + logits_flops(self.shape, number * max(1.0, scored))

    def gradient_bytes(self, tokens_at_once: int) -> float:
        """Return the bytes of a pass of at most so many tokens with what its gradient needs of every block."""
        tokens = self._tokens(tokens_at_once)
        return 4.0 * tokens * self.shape.blocks * saved_numbers(self.shape) + self._logits_bytes(tokens)

    def reading_bytes(self, tokens_at_once: int) -> float:
        """Return the bytes of a pass of at most so many tokens without a gradient."""
        tokens = self._tokens(tokens_at_once)
        return pass_bytes(self.shape, tokens) + self._logits_bytes(tokens)

    def _tokens(self, tokens_at_once: int) -> float:
        number, length, _ = self.prompts
        return min(number * length, tokens_at_once, LOGITS_AT_ONCE / self.shape.vocabulary_size)

    def _logits_bytes(self, tokens: float) -> float:
        _, length, scored = self.prompts
        return 4.0 * LOGITS_ARRAYS * tokens / length * max(1.0, scored) * self.shape.vocabulary_size


def saved_numbers(shape: ModelShape) -> int:
    """Return the numbers that a block keeps of each token for the gradient: 8 d + 2 i, with a gate 10 d + 4 i."""
    width, inner = shape.d_model, shape.intermediate_size
    return 10 * width + 4 * inner if shape.gated else 8 * width + 2 * inner


def updating_memory(shape: ModelShape, settings: TaskSpaceSettings, method: MethodSettings) -> Memory:
    """Return what updating a method's fraction of the parameters takes beside weights and gradients."""
    trainable = trainable_parameters(shape, settings)
    working = float(WORKING_BYTES * shape.vocabulary_size * shape.d_model)
    if method.fraction == 1:
        return Memory(MOMENT_BYTES * trainable + working, float(KEPT_BYTES * trainable))
    if settings.selection == "step":
        return Memory(MOMENT_BYTES * trainable + working, float((KEPT_BYTES + MARK_BYTES) * trainable))
    updated = method.fraction * trainable
    return Memory((MOMENT_BYTES + CHOSEN_BYTES) * updated + working, KEPT_BYTES * updated)


def trainable_parameters(shape: ModelShape, settings: TaskSpaceSettings) -> int:
    """Return the parameters that may be updated."""
    return shape.parameters - (0 if settings.embeddings else shape.embedding_parameters)


def tuning_cost(place: Place) -> Cost:
    """Tune a copy by each method on each of the job's tasks; read held-out pairs of all tasks, and text, each time.

    They are read before the first tuning too. Where not all parameters are updated, they are chosen by the gradient
    over all pairs that are tuned on, or in each step by that of its batch, which is taken in any case.
    """
    settings = place.experiment.taskspace
    read = [*_held_out(place), _validation(place)]
    trained = [step for method in settings.methods.values() for step in _trained(place, method)]
    gradients = sum(BACKWARD * times * texts.forward for texts, times in trained)
    evaluations = 1 + len(place.job.tasks) * len(settings.methods)
    flops = evaluations * sum(texts.forward for texts in read) + gradients
    tuned = tuned_memory(place)
    tuning = tuned.device + max(texts.gradient_bytes(settings.tokens_at_once) for texts, _ in trained)
    reading = max(texts.reading_bytes(settings.tokens_at_once) for texts in read)
    held = max(tuning, model_bytes(_in_float32(place.shape)) + reading)
    moved = len(place.job.tasks) * tuning_bytes(place.experiment, _held_out_pairs(place))
    return _of_model(place, Work(flops, disk_bytes=moved), held, tuned.host)


def gradients_cost(place: Place) -> Cost:
    """Take the gradient of both parts of every group of pairs of every task, and compare groups, or their sketches.

    Both with right and wrong as they are and with those of one part swapped. In main memory the gradients of all
    groups, and whether each parameter is selected; on the device two sums of gradients.
    """
    settings, shape = place.experiment.taskspace, _in_float32(place.shape)
    texts = [Texts(shape, prompts) for prompts in place.prompts]
    trainable = trainable_parameters(shape, settings)
    sketch = settings.sketched(trainable, len(texts))
    groups, width = len(texts) * settings.gradient_groups, sketch or trainable
    compared_s = LABELLINGS * COMPARISONS * 2.0 * width * groups**2 / CORE_FLOPS
    sketched_s = SKETCHED_S * 2 * groups * trainable if sketch else 0.0
    passing = max(of.gradient_bytes(settings.tokens_at_once) for of in texts)
    held = model_bytes(shape) + (1 + LABELLINGS) * 4.0 * trainable + passing
    flops = sum(BACKWARD * of.forward for of in texts)
    work = Work(flops, disk_bytes=gradients_bytes(len(texts)), cpu_s=compared_s + sketched_s)
    return _of_model(place, work, held, LABELLINGS * 4.0 * groups * width + trainable)


def transfer_cost(place: Place) -> Cost:
    """Join the tunings of all checkpoints, seeds and tasks, which are held at once."""
    settings, suite = place.experiment.taskspace, place.suite
    assert suite.taskspace is not None
    tunings = len(suite.taskspace.checkpoints) * len(settings.seeds) * len(suite.space_tasks)
    read = tunings * tuning_bytes(place.experiment, _held_out_pairs(place))
    work = Work(disk_bytes=read + transfer_bytes(place.experiment, suite), cpu_s=READ_S * tunings)
    return Cost(work, Memory(0.0, JOINING_BYTES + 3 * read))


def joining_cost(place: Place) -> Cost:
    """Join the gradients of all checkpoints."""
    assert place.suite.taskspace is not None
    read = len(place.suite.taskspace.checkpoints) * gradients_bytes(len(place.suite.space_tasks))
    return Cost(Work(disk_bytes=2 * read), Memory(0.0, JOINING_BYTES + 2 * read))


def mapping_cost(place: Place) -> Cost:
    """Make a space of transfer and of gradients at every checkpoint, each with its permutation tests."""
    assert place.suite.taskspace is not None
    tasks, checkpoints = len(place.suite.space_tasks), len(place.suite.taskspace.checkpoints)
    permuted_s = PERMUTED_S * checkpoints * place.experiment.taskspace.permutations * tasks**2
    moved = transfer_bytes(place.experiment, place.suite) + checkpoints * gradients_bytes(tasks)
    moved += space_bytes(place.suite)
    return Cost(Work(disk_bytes=moved, cpu_s=permuted_s), Memory(0.0, JOINING_BYTES + 2 * moved))


def bridge_cost(place: Place) -> Cost:
    """Tune on each task at every checkpoint that a crosscoder and the task space share, and remove features meanwhile.

    The held-out pairs of each target pass from the site on: before, as they are and without both sets of features for
    each source; after each tuning, as they are and without those for its own source. Each time all of the crosscoder's
    checkpoints read them.
    """
    settings, shape, crosscoder = place.experiment.taskspace, _in_float32(place.shape), place.crosscoder
    assert place.suite.taskspace is not None
    shared = set(place.suite.taskspace.checkpoints) & set(place.suite.comparisons[place.job.comparison].checkpoints)
    tasks, method = len(place.job.tasks), settings.methods[settings.main]
    held = [prompts._replace(number=settings.held_out * prompts.number) for prompts in place.prompts]
    reading = sum(
        Measuring(place.experiment.attribution, shape, crosscoder, prompts, place.site, place.l0).reading
        for prompts in held
    )
    resumed = sum(resumed_flops(shape, prompts, place.site) for prompts in held)
    trained = list(_trained(place, method))
    tuning = sum(BACKWARD * times * texts.forward for texts, times in trained)
    flops = len(shared) * ((1 + tasks) * reading + (1 + 5 * tasks) * resumed + tuning)
    codes = 4.0 * CODE_MATRICES * min(settings.tokens_at_once * crosscoder.latents, LOGITS_AT_ONCE)
    passing = max(codes, *(texts.gradient_bytes(settings.tokens_at_once) for texts, _ in trained))
    others = held_bytes(place.shape, crosscoder.checkpoints - 1, place.accelerated)
    loaded = crosscoder.saved_bytes + crosscoder.checkpoints * place.shape.checkpoint_bytes
    work = Work(flops, disk_bytes=loaded + bridge_bytes(place.suite, len(shared)))
    loading = place.loading(crosscoder.checkpoints, with_crosscoder=True)
    tuned = tuned_memory(place)
    tensors = others + crosscoder.saved_bytes + tuned.device + passing
    return Cost(work, on(place.accelerated, tensors, tuned.host, loading))


def tuned_memory(place: Place) -> Memory:
    """Return what a model takes that is tuned: weights, gradients, and what updates them by the greediest method."""
    settings, shape = place.experiment.taskspace, _in_float32(place.shape)
    updating = [updating_memory(shape, settings, method) for method in settings.methods.values()]
    held = model_bytes(shape) + 4.0 * trainable_parameters(shape, settings)
    return Memory(held + max(one.device for one in updating), max(one.host for one in updating))


def _of_model(place: Place, work: Work, held: float, host: float = 0.0) -> Cost:
    """Return the cost of a job that loads one model in float32."""
    loading = loading_bytes(_in_float32(place.shape), 1, place.accelerated)
    work = work._replace(disk_bytes=work.disk_bytes + place.shape.checkpoint_bytes)
    return Cost(work, on(place.accelerated, held, host, loading))


def _in_float32(shape: ModelShape) -> ModelShape:
    return replace(shape, loaded=Loaded(gpus=shape.loaded.gpus))


def _of_space(place: Place) -> Place:
    """Return a place of all tasks of the task space."""
    return place._replace(job=place.job._replace(tasks=tuple(place.suite.space_tasks)))


def _held_out_pairs(place: Place) -> float:
    """Return the pairs of all tasks that no copy is tuned on."""
    return place.experiment.taskspace.held_out * sum(_of_space(place).examples)


def _held_out(place: Place) -> list[Texts]:
    fraction, shape = place.experiment.taskspace.held_out, _in_float32(place.shape)
    return [Texts(shape, prompts._replace(number=fraction * prompts.number)) for prompts in _of_space(place).prompts]


def _validation(place: Place) -> Texts:
    """Return the text on which the loss of general language modelling is measured."""
    corpus = place.suite.corpus
    sequences = min(place.experiment.taskspace.sequences, sequences_of(corpus, "validation"))
    length = corpus.sequence_length
    return Texts(_in_float32(place.shape), Prompts(sequences, length, length))


def _trained(place: Place, method: MethodSettings) -> Iterator[tuple[Texts, float]]:
    """Yield what gradients are taken of, and how often; of right members each token but the first is scored."""
    settings, shape = place.experiment.taskspace, _in_float32(place.shape)
    for pairs, (number, length, scored) in zip(place.examples, place.prompts, strict=True):
        of_pair = number / pairs
        if method.objective == RIGHT:
            of_pair, scored = 1, length
        if method.fraction < 1 and settings.selection == "task":
            yield Texts(shape, Prompts(of_pair * (1 - settings.held_out) * pairs, length, scored)), 1
        yield Texts(shape, Prompts(of_pair * settings.batch_pairs, length, scored)), settings.steps
