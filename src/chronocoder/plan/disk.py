"""Bytes on disk of each kind of output."""

from collections.abc import Mapping, Sequence
from math import log2
from typing import NamedTuple

from chronocoder.config import (
    AblationSettings,
    AttributionSettings,
    CorpusSettings,
    Experiment,
    FeatureSettings,
    LocalSource,
    NurserySource,
    Suite,
)
from chronocoder.plan.jobs import TOKENIZER_RULES, Job, jobs_of
from chronocoder.plan.models import CrosscoderShape, ModelShape, crosscoder_shape
from chronocoder.plan.sizes import (
    chosen_features,
    examples_of,
    expected_texts,
    piece_rows_of,
    random_in_place,
    rows_of,
    scan_entries,
    sequences_of,
    shown_features,
    top_features,
)

NUMBER_BYTES = {"float16": 2, "float32": 4, "int8": 1}
STORE_BYTES = 25_000
"""Metadata of a Zarr store of ten to twenty variables, measured; that of an activation store is about half."""
TEXT_BYTES = 50
"""Of a prefix or sentence in the store of its task, compressed: 30 to 80, measured."""
REPORT_BYTES = 2_000_000
"""Of a report without crosscoders: pages, table component, figures of ability; measured, as all that follows of it."""
RUN_FIGURES_BYTES, TASK_FIGURES_BYTES, SPACE_FIGURES_BYTES = 1_000_000, 600_000, 470_000
"""Figures as SVG, PDF and CSV: of a crosscoder, of a task in it, and of a method and checkpoint of a task space."""
LATENT_PAGE_BYTES, EFFECT_PAGE_BYTES = 450, 100
"""What the page of a feature loads, and what it loads for a task and checkpoint; of 67 tasks 30, if it acts on 17."""
ATTRIBUTION_METADATA_BYTES = 145_000
ABLATION_METADATA_BYTES = 139_000
BASELINE_METADATA_BYTES = 32_000
CONSOLIDATION_METADATA_BYTES = 71_000
FEATURES_METADATA_BYTES = 54_000
"""Metadata of stores of 66, 65, 17, 33 and 19 variables, measured; of the last one with nine coordinates."""
TOKENS_AFTER = 6
"""Tokens of an example behind the most active one."""
RANDOM_DIRECTIONS = 256
"""Beside which the nearest latents are shown."""
TUNING_METADATA_BYTES, TRANSFER_METADATA_BYTES = 25_000, 64_000
GRADIENTS_METADATA_BYTES, SPACE_METADATA_BYTES, BRIDGE_METADATA_BYTES = 37_000, 56_000, 85_000
"""Of stores of 13, 31, 18, 28 and 41 variables, measured."""
TRANSFER_NUMBERS, GRADIENT_NUMBERS, BRIDGE_NUMBERS = 9, 14, 20
"""Matrices of every two tasks in these stores, beside one for each seed."""
EFFECT_BYTES = 263
"""Bytes for each checkpoint and latent before compression, of a task with two conditions and three draws of random
directions: effects with their ends, p-values, rates and shares as float32, and whether they are measurable; of the mean
of conditions, of each condition, and of each half of it."""
FEATURE_BYTES = 314
"""Bytes for each latent before compression: frequency, mean activation, and what its course is called."""
COMPRESSED = 0.55
"""What compression leaves of effects and intervals: 0.4 to 0.7 in the nursery, by the share of features in use."""
COMPRESSED_POSITIONS = 0.12
"""What it leaves of effects by position, measured: most features are silent at most positions."""


class Stored(NamedTuple):
    """Outputs of one kind.

    Attributes:
        suite: the suite.
        kind: what they are.
        number: how many.
        size_bytes: bytes of all of them together.
    """

    suite: str
    kind: str
    number: int
    size_bytes: float


def token_bytes(width: int, number_format: str) -> int:
    """Return the bytes of a token's activation: d numbers, and for int8 a float32 scale."""
    return width * NUMBER_BYTES[number_format] + (4 if number_format == "int8" else 0)


def activation_store_bytes(
    corpus: CorpusSettings, split: str, shape: ModelShape, site: str, number_format: str
) -> float:
    """Return the bytes of a store of activations.

    Activations are not compressed and lie in whole chunks, R rows rounded up: R x `token_bytes`. Compressed token ids
    take log2(V) bits, sequence and position a quarter of a byte together. Checksums are 4 bytes a chunk.
    """
    rows, piece = rows_of(corpus, split), piece_rows_of(corpus)
    written = -(-rows // piece) * piece
    columns = log2(shape.vocabulary_size) / 8 + 0.25
    return written * token_bytes(shape.width_at(site), number_format) + rows * columns + STORE_BYTES / 2


def corpus_bytes(corpus: CorpusSettings, split: str, vocabulary_size: int) -> float:
    """Return the bytes of a tokenised split: compressed ids take log2(V) bits each."""
    tokens = sequences_of(corpus, split) * corpus.sequence_length
    return tokens * log2(vocabulary_size) / 8 + STORE_BYTES / 2


def effects_bytes(crosscoder: CrosscoderShape) -> int:
    """Return the bytes of the effects on one task before compression."""
    return crosscoder.latents * (crosscoder.checkpoints * EFFECT_BYTES + FEATURE_BYTES)


def attribution_bytes(crosscoder: CrosscoderShape, tasks: int = 1) -> float:
    """Return the bytes of a store of the effects on one task, or on several together."""
    return tasks * effects_bytes(crosscoder) * COMPRESSED + ATTRIBUTION_METADATA_BYTES


def ablation_bytes(
    settings: AttributionSettings, ablation: AblationSettings, crosscoder: CrosscoderShape, tokens: float
) -> float:
    """Return the bytes of the ablations on one task, at most: no two checkpoints have a top feature in common.

    For each top feature its activation on each token of the examples, and for each checkpoint its effect there, both
    compressed float32, and 192 bytes of effects by the role of a token; for each checkpoint and chosen feature 93
    bytes: effect and interval by four estimators and by condition, what the answers become, and what is written there;
    for each pair of checkpoints and chosen feature 72 bytes of what is written and read, by condition too, and 8 for
    each random direction in place of a top feature.
    """
    top = top_features(ablation, crosscoder)
    of_tokens = top * 4 * tokens * COMPRESSED_POSITIONS
    chosen, checkpoints = chosen_features(ablation, crosscoder), crosscoder.checkpoints
    of_pairs = checkpoints * (checkpoints - 1) / 2 * (72 * chosen + 8 * random_in_place(settings, ablation, crosscoder))
    of_checkpoints = checkpoints * (of_tokens + 192 * top + 93 * chosen)
    return of_tokens + of_checkpoints + of_pairs + ABLATION_METADATA_BYTES


def features_bytes(settings: FeatureSettings, crosscoder: CrosscoderShape, tasks: int) -> float:
    """Return the bytes of what is shown of features, compressed, at most: others for each task and checkpoint.

    Of each feature 2.5 bytes for each token of its examples, 6 for each output token and 5.5 for each nearest latent at
    each checkpoint, 21 for each latent that is active on the same tokens, and 20 of a histogram: measured. At each
    checkpoint 1,024 for the cosines of random directions.
    """
    windows = settings.examples * (settings.context_tokens + 1 + TOKENS_AFTER)
    of_checkpoints = crosscoder.checkpoints * (6 * 2 * settings.output_tokens + 5.5 * settings.neighbours)
    of_directions = 4 * RANDOM_DIRECTIONS * crosscoder.checkpoints
    of_feature = 2.5 * windows + of_checkpoints + 21 * settings.neighbours + 20
    return shown_features(settings, tasks, crosscoder) * of_feature + of_directions + FEATURES_METADATA_BYTES


def own_codes_bytes(crosscoder: CrosscoderShape) -> float:
    """Return the bytes of what makes own codes: M d (M d + M) float32 and a truth value for each code, M D."""
    M, d, latents = crosscoder
    return 4.0 * M * d * (M * d + M) + M * latents + STORE_BYTES / 2


def match_bytes(crosscoder: CrosscoderShape, seeds: int) -> float:
    """Return the bytes of a comparison of seeds: for each but the first and each latent a partner and a cosine."""
    return (seeds - 1) * crosscoder.latents * 12 * COMPRESSED + STORE_BYTES


def successor_bytes(crosscoder: CrosscoderShape, successors: int) -> float:
    """Return the bytes of matches with what follows: for each successor and latent a partner and a cosine."""
    return successors * crosscoder.latents * 12 * COMPRESSED + STORE_BYTES


def baseline_bytes(crosscoder: CrosscoderShape) -> float:
    """Return the bytes of a comparison with a baseline: for each latent a track and its cosines, and a match."""
    return crosscoder.latents * 12 * (crosscoder.checkpoints + 1) * COMPRESSED + BASELINE_METADATA_BYTES


def consolidation_bytes(crosscoder: CrosscoderShape, families: int) -> float:
    """Return the bytes of a comparison of languages: for each family, checkpoint and latent how many it serves."""
    return families * crosscoder.checkpoints * crosscoder.latents * COMPRESSED + CONSOLIDATION_METADATA_BYTES


def tuning_bytes(experiment: Experiment, pairs: float) -> float:
    """Return the bytes of a tuning: a float32 of each held-out pair and sequence, before and after each method.

    Names of pairs compress to nothing.
    """
    settings = experiment.taskspace
    return 4 * (1 + len(settings.methods)) * (pairs + settings.sequences) + TUNING_METADATA_BYTES


def transfer_bytes(experiment: Experiment, suite: Suite) -> float:
    """Return the bytes of what tuning on each task does to each: float64 of every seed, and of the mean over seeds."""
    assert suite.taskspace is not None
    cells = len(suite.space_tasks) ** 2 * len(suite.taskspace.checkpoints) * len(experiment.taskspace.methods)
    return 8 * cells * (len(experiment.taskspace.seeds) + TRANSFER_NUMBERS) + TRANSFER_METADATA_BYTES


def gradients_bytes(tasks: int) -> float:
    """Return the bytes of the gradients at one checkpoint: `GRADIENT_NUMBERS` of every two tasks."""
    return 8 * GRADIENT_NUMBERS * tasks**2 + GRADIENTS_METADATA_BYTES


def space_bytes(suite: Suite) -> float:
    """Return the bytes of a space: two similarities of every two tasks at each checkpoint; the rest is little."""
    assert suite.taskspace is not None
    return 8 * 2 * len(suite.taskspace.checkpoints) * len(suite.space_tasks) ** 2 + SPACE_METADATA_BYTES


def bridge_bytes(suite: Suite, checkpoints: int) -> float:
    """Return the bytes of a bridge to a crosscoder: `BRIDGE_NUMBERS` of every two tasks at each checkpoint."""
    return 8 * BRIDGE_NUMBERS * checkpoints * len(suite.space_tasks) ** 2 + BRIDGE_METADATA_BYTES


def disk_of(experiment: Experiment, shapes: Mapping[str, ModelShape]) -> list[Stored]:
    """Return what the outputs of an experiment take, suite by suite; logs and benchmarks are left out."""
    jobs = jobs_of(experiment)
    return [
        stored
        for suite, shape in shapes.items()
        for stored in _of_suite(experiment, suite, shape, [job for job in jobs if job.suite == suite])
    ]


def _of_suite(experiment: Experiment, suite: str, shape: ModelShape, jobs: list[Job]) -> list[Stored]:
    settings = experiment.suites[suite]
    corpus, vocabulary = settings.corpus, shape.vocabulary_size
    found = [] if isinstance(settings.source, LocalSource) else [_checkpoints(suite, experiment, shape, jobs)]
    if settings.scan is not None:
        found.append(_scan(suite, settings))
    if not (settings.comparisons or settings.taskspace):
        return found
    corpora = [corpus_bytes(corpus, split, vocabulary) for split in ("train", "validation")]
    found.append(Stored(suite, "corpus", 2, sum(corpora)))
    examples = [examples_of(suite, settings, task) for task in settings.tasks]
    texts = [expected_texts(task) for task in settings.tasks.values()]
    tokens = [pairs * of.tokens for pairs, of in zip(examples, texts, strict=True)]
    if settings.comparisons:
        found += _activations(experiment, suite, shape, jobs)
        found += _of_runs(experiment, suite, shape, jobs, tokens)
    if settings.taskspace:
        found += _of_taskspace(experiment, suite, dict(zip(settings.tasks, examples, strict=True)), jobs)
    read = TEXT_BYTES * sum(pairs * of.number for pairs, of in zip(examples, texts, strict=True))
    count = len(settings.tasks)
    if not settings.reported:
        return [*found, Stored(suite, "tasks", count, count * STORE_BYTES + read)]
    scores = read + sum(examples) * 4 * len(settings.studied)
    small = 2 * count + 3 + (settings.auto is not None)
    report = report_bytes(_crosscoders(experiment, shape, jobs, "find_examples"), count)
    if settings.taskspace:
        report += len(settings.taskspace.checkpoints) * len(experiment.taskspace.methods) * SPACE_FIGURES_BYTES
    return [*found, Stored(suite, "tasks, scores, report", small, small * STORE_BYTES + scores + report)]


def report_bytes(crosscoders: Sequence[CrosscoderShape], tasks: int) -> int:
    """Return what the report of a suite takes that is about some crosscoders and so many tasks."""
    of_crosscoders = (
        RUN_FIGURES_BYTES
        + tasks * TASK_FIGURES_BYTES
        + one.latents * (LATENT_PAGE_BYTES + tasks * one.checkpoints * EFFECT_PAGE_BYTES)
        for one in crosscoders
    )
    return REPORT_BYTES + sum(of_crosscoders)


def _scan(name: str, suite: Suite) -> Stored:
    """Return the scans of all checkpoints, and all together: float32 of each pair, float16 of each kernel's entries."""
    assert suite.scan is not None
    checkpoints, limit = len(suite.tokens_seen), suite.scan.limit
    pairs = 4 * sum(min(limit, examples_of(name, suite, task)) for task in suite.tasks)
    each = pairs + 2 * len(suite.sites) * scan_entries(suite) + STORE_BYTES
    return Stored(name, "scans", checkpoints + 1, checkpoints * (each + pairs) + STORE_BYTES)


def _checkpoints(suite: str, experiment: Experiment, shape: ModelShape, jobs: list[Job]) -> Stored:
    """Return the checkpoints that are trained here, or downloaded."""
    source = experiment.suites[suite].source
    tokenizer = 50 * shape.vocabulary_size  # a saved tokenizer takes 40 to 60 bytes an entry
    downloaded = sum(job.rule == "download_checkpoint" for job in jobs)
    count = len(source.tokens_seen) if isinstance(source, NurserySource) else downloaded
    own = tokenizer if any(job.rule in TOKENIZER_RULES.values() for job in jobs) else 0
    return Stored(suite, "checkpoints", count, count * (shape.checkpoint_bytes + tokenizer) + own)


def _activations(experiment: Experiment, suite: str, shape: ModelShape, jobs: list[Job]) -> list[Stored]:
    """Return the stores of both splits, or of validation alone where training streams."""
    sites = [job.site for job in jobs if job.rule == "harvest_activations"]
    corpus, number_format = experiment.suites[suite].corpus, experiment.harvest.dtype
    splits = ["validation"] if experiment.training.activations == "streaming" else ["train", "validation"]
    return [
        Stored(
            suite,
            f"activations, {split}",
            len(sites),
            sum(activation_store_bytes(corpus, split, shape, site, number_format) for site in sites),
        )
        for split in splits
    ]


def _of_runs(
    experiment: Experiment, suite: str, shape: ModelShape, jobs: list[Job], tokens: list[float]
) -> list[Stored]:
    """Return what every crosscoder leaves: weights, effects of each task and of all together, and the rest.

    Args:
        experiment: the configuration.
        suite: the suite.
        shape: of its models.
        jobs: of the suite.
        tokens: of each task.
    """
    found = _crosscoders(experiment, shape, jobs, "train_crosscoder")
    examined = _crosscoders(experiment, shape, jobs, "find_examples")
    effects = sum(len(tokens) * attribution_bytes(one) + attribution_bytes(one, len(tokens)) for one in found)
    ablations = [
        ablation_bytes(experiment.attribution, experiment.ablation, one, number)
        for one in examined
        for number in tokens
    ]
    stores = 2 * len(found) + len(examined)
    measures: float = sum(
        2 * STORE_BYTES + one.latents * (20 + 33 * one.checkpoints) + 4 * one.checkpoints * one.d_model for one in found
    )
    measures += sum(features_bytes(experiment.features, one, len(tokens)) for one in examined)
    seeds = len(set(experiment.seeds))
    matches = [match_bytes(one, seeds) for one in _crosscoders(experiment, shape, jobs, "match_seeds")]
    baselines = [baseline_bytes(one) for one in _crosscoders(experiment, shape, jobs, "compare_baseline")]
    followed = [
        successor_bytes(one, len(experiment.suites[suite].successors_of(job.comparison, job.variant)))
        for job in jobs
        if job.rule == "match_successors"
        for one in _crosscoders(experiment, shape, [job], job.rule)
    ]
    consolidations = [
        consolidation_bytes(one, len(experiment.suites[suite].families))
        for one in _crosscoders(experiment, shape, jobs, "measure_consolidation")
    ]
    return [
        Stored(suite, "crosscoders", len(found), sum(one.saved_bytes for one in found)),
        Stored(suite, "attributions, relie", len(found) * (len(tokens) + 1), effects),
        Stored(suite, "own codes", len(found), sum(own_codes_bytes(one) for one in found)),
        Stored(suite, "ablations", len(ablations), sum(ablations)),
        Stored(suite, "training, evaluation, features", stores, measures),
        *([Stored(suite, "comparisons of seeds", len(matches), sum(matches))] if matches else []),
        *([Stored(suite, "matches with what follows", len(followed), sum(followed))] if followed else []),
        *(
            [Stored(suite, "comparisons of languages", len(consolidations), sum(consolidations))]
            if consolidations
            else []
        ),
        *([Stored(suite, "baselines", len(baselines), sum(baselines))] if baselines else []),
    ]


def _of_taskspace(experiment: Experiment, suite: str, examples: Mapping[str, int], jobs: list[Job]) -> list[Stored]:
    """Return the tunings, and what they and the gradients come to, of tasks with so many pairs."""
    settings = experiment.suites[suite]
    assert settings.taskspace is not None
    checkpoints = len(settings.taskspace.checkpoints)
    pairs = experiment.taskspace.held_out * sum(examples[task] for task in settings.space_tasks)
    tunings = sum(job.rule == "tune_task" for job in jobs)
    bridges = [job for job in jobs if job.rule == "bridge_tasks"]
    gradients = 2 * checkpoints * gradients_bytes(len(settings.space_tasks))
    small = transfer_bytes(experiment, settings) + gradients + space_bytes(settings)
    small += len(bridges) * bridge_bytes(settings, checkpoints)
    return [
        Stored(suite, "tunings", tunings, tunings * tuning_bytes(experiment, pairs)),
        Stored(suite, "task space", 3 + checkpoints + len(bridges), small),
    ]


def _crosscoders(experiment: Experiment, shape: ModelShape, jobs: list[Job], rule: str) -> list[CrosscoderShape]:
    """Return the sizes of the crosscoder of each job of a rule."""
    return [
        crosscoder_shape(experiment, job.suite, job.comparison, job.variant, shape) for job in jobs if job.rule == rule
    ]
