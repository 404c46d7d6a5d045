"""What each job computes, moves and holds."""

from collections.abc import Callable
from typing import NamedTuple

from chronocoder.config import Experiment, NurserySource, Suite
from chronocoder.plan.compute import (
    Prompts,
    attribution_flops,
    blocks_flops,
    cross_entropy_flops,
    logits_flops,
    streaming_flops,
    training_flops,
)
from chronocoder.plan.disk import activation_store_bytes, attribution_bytes, token_bytes
from chronocoder.plan.hardware import Work
from chronocoder.plan.jobs import Job
from chronocoder.plan.memory import (
    LIGHT_PROCESS_BYTES,
    Memory,
    loader_bytes,
    model_bytes,
    on,
    pass_bytes,
    training_memory,
)
from chronocoder.plan.models import CrosscoderShape, ModelShape, crosscoder_shape
from chronocoder.plan.sizes import PREFIX_TOKENS, blocks_after, blocks_up_to, examples_of, rows_of, sequences_of

BLOCK_TOKENS = 4096
"""Tokens of which evaluation and examples hold the codes at once."""
COMPARED_SEQUENCES = 64
"""Sequences in a forward pass of the comparison of checkpoints."""
PRETRAINING = "pretrain_"


class Cost(NamedTuple):
    """The cost of a job.

    Attributes:
        work: what it computes and moves, over all its processes.
        memory: the peak of one of its processes.
    """

    work: Work
    memory: Memory


class Place(NamedTuple):
    """A job among the settings it needs.

    Attributes:
        experiment: the configuration.
        shape: of the models of the job's suite.
        job: the job.
        accelerated: whether its tensors lie on an accelerator.
    """

    experiment: Experiment
    shape: ModelShape
    job: Job
    accelerated: bool

    @property
    def suite(self) -> Suite:
        """The job's suite."""
        return self.experiment.suites[self.job.suite]

    @property
    def site(self) -> str:
        """The site of the job's comparison."""
        return self.suite.site_of(self.job.comparison)

    @property
    def crosscoder(self) -> CrosscoderShape:
        """The sizes of the job's crosscoder."""
        job = self.job
        return crosscoder_shape(self.experiment, job.suite, job.comparison, job.variant, self.shape)

    @property
    def streams(self) -> bool:
        """Whether trainings run the models themselves."""
        return self.experiment.training.activations == "streaming"

    def rows_bytes(self, rows: float) -> float:
        """Return the bytes of stored activations of a comparison's checkpoints."""
        return rows * self.crosscoder.checkpoints * token_bytes(self.shape.d_model, self.experiment.harvest.dtype)


def cost_of(place: Place) -> Cost:
    """Return the cost of a job; of rules that compute next to nothing, that of a small process."""
    rule = place.job.rule
    name = PRETRAINING if rule.startswith(PRETRAINING) else rule
    if name in COSTS:
        return COSTS[name](place)
    return Cost(Work(), Memory(0.0, LIGHT_PROCESS_BYTES))


def _pretrain(place: Place) -> Cost:
    """Train on each token at three times a forward pass; weights, gradients and AdamW's two moments are held."""
    source, shape = place.suite.source, place.shape
    assert isinstance(source, NurserySource)
    tokens = source.steps[-1] * source.batch_size * source.sequence_length
    forward = blocks_flops(shape, tokens, source.sequence_length, shape.blocks) + logits_flops(shape, tokens)
    written = len(source.steps) * shape.checkpoint_bytes
    return Cost(Work(3 * forward, disk_bytes=written), on(place.accelerated, 4 * model_bytes(shape)))


def _download(place: Place) -> Cost:
    return Cost(Work(disk_bytes=place.shape.checkpoint_bytes), Memory(0.0, LIGHT_PROCESS_BYTES))


def _harvest(place: Place) -> Cost:
    """Run the model up to the site, on both splits or, where training streams, of validation alone."""
    corpus, shape, dtype = place.suite.corpus, place.shape, place.experiment.harvest.dtype
    splits = ["validation"] if place.streams else ["train", "validation"]
    length, blocks = corpus.sequence_length, blocks_up_to(place.job.site)
    flops = sum(blocks_flops(shape, sequences_of(corpus, split) * length, length, blocks) for split in splits)
    moved = shape.checkpoint_bytes + sum(activation_store_bytes(corpus, split, shape, dtype) for split in splits)
    held = model_bytes(shape) + pass_bytes(shape, place.experiment.harvest.batch_size * length)
    return Cost(Work(flops, disk_bytes=moved), on(place.accelerated, held))


def _score(place: Place) -> Cost:
    """Run every prefix through every checkpoint, to the logits of its last token."""
    shape, checkpoints = place.shape, len(place.suite.tokens_seen)
    examples = examples_of(place.job.suite, place.suite, place.job.task)
    once = blocks_flops(shape, examples * PREFIX_TOKENS, PREFIX_TOKENS, shape.blocks) + logits_flops(shape, examples)
    work = Work(checkpoints * once, disk_bytes=checkpoints * shape.checkpoint_bytes)
    return Cost(work, on(place.accelerated, model_bytes(shape)))


def _compare(place: Place) -> Cost:
    """Run every checkpoint up to each site; the comparisons themselves, in float64 on the CPU, are left out."""
    suite, shape = place.suite, place.shape
    length, checkpoints = suite.corpus.sequence_length, len(suite.tokens_seen)
    tokens = min(place.experiment.similarity.tokens, rows_of(suite.corpus, "validation"))
    sites = {suite.site_of(name) for name in suite.comparisons}
    once = sum(blocks_flops(shape, tokens, length, blocks_up_to(site)) for site in sites)
    work = Work(checkpoints * once, disk_bytes=checkpoints * shape.checkpoint_bytes)
    samples = checkpoints * tokens * shape.d_model * (4 * len(sites) + 8)  # in float32, and one site's in float64
    held = model_bytes(shape) + pass_bytes(shape, min(tokens, COMPARED_SEQUENCES * length))
    return Cost(work, on(place.accelerated, held, samples))


def _train(place: Place) -> Cost:
    """Train on the batches, after measuring the normalisation on a sample."""
    experiment, corpus, crosscoder = place.experiment, place.suite.corpus, place.crosscoder
    settings, training = experiment.variants[place.job.variant], experiment.training
    products = training_flops(settings, crosscoder)
    low = settings.precision == "bfloat16"
    rows = settings.steps * settings.batch_tokens + min(settings.normalisation_tokens, rows_of(corpus, "train"))
    models, moved = 0.0, place.rows_bytes(rows)
    if place.streams:
        length, blocks = corpus.sequence_length, blocks_up_to(place.site)
        models = streaming_flops(settings, place.shape, crosscoder.checkpoints, length, blocks)
        moved = training.processes * crosscoder.checkpoints * place.shape.checkpoint_bytes
    row_bytes = token_bytes(crosscoder.d_model, experiment.harvest.dtype)
    loader = loader_bytes(settings, training, corpus, crosscoder, row_bytes)
    pass_tokens = experiment.harvest.batch_size * corpus.sequence_length
    work = Work(models + (0 if low else products), products if low else 0, moved, training.processes)
    memory = training_memory(settings, training, place.shape, crosscoder, loader, pass_tokens, place.accelerated)
    return Cost(work, memory)


def _evaluate(place: Place) -> Cost:
    """Measure by four products of each validation token (encode, decode, latent scaling's sums), and cross-entropy."""
    corpus, shape, crosscoder = place.suite.corpus, place.shape, place.crosscoder
    sequences = min(place.experiment.evaluation.sequences, sequences_of(corpus, "validation"))
    rows = rows_of(corpus, "validation")
    spliced = cross_entropy_flops(shape, crosscoder, Prompts(sequences, corpus.sequence_length), place.site)
    moved = place.rows_bytes(rows) + crosscoder.checkpoints * shape.checkpoint_bytes + crosscoder.saved_bytes
    tokens = min(sequences, place.experiment.evaluation.batch_size) * corpus.sequence_length
    logits = 4.0 * tokens * shape.vocabulary_size
    sums = 8.0 * crosscoder.parameters  # two matrices of the decoder's size for all blocks so far, two for the next
    codes = 4.0 * BLOCK_TOKENS * (3 * crosscoder.latents + 4 * crosscoder.checkpoints * crosscoder.d_model)
    held = (
        crosscoder.checkpoints * model_bytes(shape)
        + crosscoder.saved_bytes
        + max(sums + codes, 2 * logits)
        + pass_bytes(shape, tokens)
    )
    return Cost(Work(4 * rows * crosscoder.product_flops() + spliced, disk_bytes=moved), on(place.accelerated, held))


def _examples(place: Place) -> Cost:
    """Encode each validation token twice: to find the peaks, and, at most, to cut out the windows."""
    crosscoder, rows = place.crosscoder, rows_of(place.suite.corpus, "validation")
    moved = 2 * place.rows_bytes(rows) + crosscoder.saved_bytes
    codes = 4.0 * BLOCK_TOKENS * (3 * crosscoder.latents + crosscoder.checkpoints * crosscoder.d_model)
    held = crosscoder.saved_bytes + codes
    return Cost(Work(2 * rows * crosscoder.product_flops(), disk_bytes=moved), on(place.accelerated, held))


def _attribute(place: Place) -> Cost:
    """Measure the effects on one task.

    Memory: all checkpoints' models, the crosscoder, codes and gradients of a batch, and what the backward pass keeps of
    a batch's copies, 4 (8 d + 3 i) bytes a token and block (i: width of the MLP; inputs of frozen matrices are not
    kept). In main memory the effects of every example, 4 bytes for each checkpoint and latent, and as much again while
    they are averaged.
    """
    shape, crosscoder, settings = place.shape, place.crosscoder, place.experiment.attribution
    examples = examples_of(place.job.suite, place.suite, place.job.task)
    flops = attribution_flops(settings, shape, crosscoder, Prompts(examples, PREFIX_TOKENS), place.site)
    copies = settings.steps if settings.estimator == "integrated_gradients" else 1
    tokens = min(settings.batch_size, examples) * PREFIX_TOKENS
    kept = pass_bytes(shape, copies * tokens) * blocks_after(place.site, shape.blocks)
    models = crosscoder.checkpoints * model_bytes(shape)
    held = models + crosscoder.saved_bytes + kept + 12.0 * tokens * crosscoder.latents
    effects = 8.0 * examples * crosscoder.checkpoints * crosscoder.latents
    moved = crosscoder.checkpoints * shape.checkpoint_bytes + crosscoder.saved_bytes + attribution_bytes(crosscoder)
    return Cost(Work(flops, disk_bytes=moved), on(place.accelerated, held, effects))


COSTS: dict[str, Callable[[Place], Cost]] = {
    PRETRAINING: _pretrain,
    "download_checkpoint": _download,
    "harvest_activations": _harvest,
    "score_task": _score,
    "compare_checkpoints": _compare,
    "train_crosscoder": _train,
    "evaluate_crosscoder": _evaluate,
    "find_examples": _examples,
    "attribute_task": _attribute,
}
