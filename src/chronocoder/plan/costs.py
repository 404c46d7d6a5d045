"""What each job computes, moves and holds."""

from collections.abc import Callable

from chronocoder.config import NurserySource
from chronocoder.plan.compute import (
    Prompts,
    blocks_flops,
    cross_entropy_flops,
    evaluation_flops,
    logits_flops,
    streaming_flops,
    training_flops,
)
from chronocoder.plan.disk import (
    activation_store_bytes,
    attribution_bytes,
    corpus_bytes,
    effects_bytes,
    own_codes_bytes,
    report_bytes,
    token_bytes,
)
from chronocoder.plan.effects import (
    ablation_cost,
    attribution_cost,
    baseline_cost,
    collection_cost,
    consolidation_cost,
    matching_cost,
    successor_cost,
)
from chronocoder.plan.hardware import Work
from chronocoder.plan.memory import (
    LIGHT_PROCESS_BYTES,
    PROCESS_BYTES,
    Memory,
    ahead_bytes,
    loader_bytes,
    model_bytes,
    on,
    pass_bytes,
    text_bytes,
    training_memory,
)
from chronocoder.plan.place import Cost, Place
from chronocoder.plan.report import report_memory_bytes, report_seconds, shown_crosscoders
from chronocoder.plan.sizes import (
    LOGITS_AT_ONCE,
    TOKENS_AT_ONCE,
    blocks_up_to,
    rows_of,
    scan_entries,
    sequences_of,
    shown_features,
)
from chronocoder.plan.taskspace import (
    bridge_cost,
    gradients_cost,
    joining_cost,
    mapping_cost,
    transfer_cost,
    tuning_cost,
)

BLOCK_TOKENS = 4096
"""Tokens of which evaluation and examples hold the codes at once."""
OWN_CODE_MATRICES = 5.25
"""Matrices (token, feature) of float32 alive while own codes are made beside the codes; measured on a CPU."""
COUNT_BYTES = 12
"""Of a feature shown and a latent: tokens on which both are active, of all blocks so far and of the next one."""
OUTPUT_SEQUENCES, OUTPUT_TOKENS, OUTPUT_FEATURES = 8, 65, 128
"""Text at which the final norm is linearised, and features whose logits are held at once."""
NORMED_BYTES = 200e6
"""What is held while features are taken through the final norm."""
COMPARED_SEQUENCES = 64
"""Sequences in a forward pass of the comparison of checkpoints."""
DOCUMENT_BYTES = 6000
"""Of a document in memory: assumed, since the text is not at hand."""
TOKENISING_PROCESS_BYTES = 200e6
"""Of a process that tokenises, with its documents, measured."""
CHUNK_TOKENS, CORPUS_TOKEN_BYTES = 1 << 21, 16
"""Tokens of a block of a corpus, and bytes of each while it is written, measured."""
PLACE_BYTES = 8
"""Of a sequence's place in a mixture."""
TOKENS_PER_S = 5e5
"""Tokens that one core tokenises a second, measured."""
FIT_S = 1.1e-8
"""Seconds that one core takes for a choice, a task, a resample and two checkpoints, measured."""
PRETRAINING = "pretrain_"
LOADING = (
    "harvest_activations",
    "score_task",
    "compare_checkpoints",
    "train_crosscoder",
    "evaluate_crosscoder",
    "attribute_task",
    "ablate_task",
    "tune_task",
    "compare_gradients",
    "bridge_tasks",
    "find_examples",
)
"""Rules whose jobs load models; trainings where they stream."""


def cost_of(place: Place) -> Cost:
    """Return the cost of a job; of those that compute next to nothing, that of a small process."""
    rule = place.job.rule
    name = PRETRAINING if rule.startswith(PRETRAINING) else rule
    has_work = place.job.tasks or not place.job.task
    if name in COSTS and has_work:
        cost = COSTS[name](place)
        loads = name in LOADING and (name != "train_crosscoder" or place.streams)
        return cost._replace(work=cost.work._replace(devices=place.shape.loaded.gpus if loads else 1))
    return Cost(Work(), Memory(0.0, LIGHT_PROCESS_BYTES))


def _pretrain(place: Place) -> Cost:
    """Train on each token at three times a forward pass; weights, gradients and AdamW's two moments are held."""
    source, shape = place.suite.source, place.shape
    assert isinstance(source, NurserySource)
    tokens = source.steps[-1] * source.batch_size * source.sequence_length
    forward = blocks_flops(shape, tokens, source.sequence_length, shape.blocks) + logits_flops(shape, tokens)
    written = len(source.steps) * shape.checkpoint_bytes
    held = on(place.accelerated, 4 * model_bytes(shape), loading=model_bytes(shape))
    return Cost(Work(3 * forward, disk_bytes=written), held)


def _check(place: Place) -> Cost:
    """Read tokenizers and configurations."""
    return Cost(Work(), Memory(0.0, PROCESS_BYTES))


def _download(place: Place) -> Cost:
    return Cost(Work(disk_bytes=place.shape.checkpoint_bytes), Memory(0.0, LIGHT_PROCESS_BYTES))


def _corpus(place: Place) -> Cost:
    """Tokenise both splits on CPUs: sequences go to a file first, and from there block by block to the stores.

    Beside a block, memory holds the places of the sequences, the processes that tokenise, and the documents that the
    next one of a dataset on the hub is drawn from.
    """
    corpus = place.suite.corpus
    sequences = sum(sequences_of(corpus, split) for split in ("train", "validation"))
    tokens = sequences * corpus.sequence_length
    processes = corpus.tokenising_processes
    tokenising = 0.0 if processes == 1 else processes * TOKENISING_PROCESS_BYTES
    drawn_from = max([getattr(part, "shuffle_buffer", 0) for part in corpus.parts], default=0) * DOCUMENT_BYTES
    block = CORPUS_TOKEN_BYTES * min(tokens, CHUNK_TOKENS)
    held = LIGHT_PROCESS_BYTES + tokenising + drawn_from + block + PLACE_BYTES * sequences
    written = sum(corpus_bytes(corpus, split, place.shape.vocabulary_size) for split in ("train", "validation"))
    moved = written + 2 * 4.0 * tokens  # to the file, and from there
    return Cost(Work(disk_bytes=moved, cpu_s=tokens / TOKENS_PER_S / processes), Memory(0.0, held))


def _harvest(place: Place) -> Cost:
    """Run the model up to the site, on both splits or, where training streams, of validation alone."""
    corpus, shape, dtype = place.suite.corpus, place.shape, place.experiment.harvest.dtype
    length, blocks = corpus.sequence_length, blocks_up_to(place.job.site, place.shape.blocks)
    flops = sum(blocks_flops(shape, sequences_of(corpus, split) * length, length, blocks) for split in place.splits)
    written = sum(activation_store_bytes(corpus, split, shape, place.job.site, dtype) for split in place.splits)
    held = place.held(1) + pass_bytes(shape, place.experiment.harvest.batch_size * length)
    text = text_bytes(corpus, place.splits)
    memory = on(place.accelerated, held, text, text + place.loading(1))
    work = Work(disk_bytes=shape.checkpoint_bytes + written).adding(flops, shape.loaded.products())
    return Cost(work, memory)


def _score(place: Place) -> Cost:
    """Run what is read of the job's tasks through every checkpoint, to the logits of a prefix's or all scored tokens.

    Texts that several pairs share are counted for each of them. A checkpoint's model is held until the next one is
    loaded; beside it a pass and its logits.
    """
    shape, checkpoints = place.shape, len(place.suite.studied)
    once = sum(
        blocks_flops(shape, number * length, length, shape.blocks) + logits_flops(shape, number * max(1, scored))
        for number, length, scored in place.prompts
    )
    work = Work(disk_bytes=checkpoints * shape.checkpoint_bytes).adding(checkpoints * once, shape.loaded.products())
    models = min(2, checkpoints)
    tokens = min(TOKENS_AT_ONCE, LOGITS_AT_ONCE / shape.vocabulary_size)
    scored = max(max(1, texts.scored) / texts.length for texts in place.texts)
    passing = pass_bytes(shape, tokens) + 4.0 * tokens * scored * shape.vocabulary_size
    return Cost(work, on(place.accelerated, place.held(models) + passing, loading=place.loading(models)))


def _compare(place: Place) -> Cost:
    """Run every checkpoint up to each site; the comparisons themselves, in float64 on the CPU, are left out."""
    suite, shape = place.suite, place.shape
    length, checkpoints = suite.corpus.sequence_length, len(suite.studied)
    tokens = min(place.experiment.similarity.tokens, rows_of(suite.corpus, "validation"))
    once = sum(blocks_flops(shape, tokens, length, blocks_up_to(site, shape.blocks)) for site in suite.sites)
    work = Work(disk_bytes=checkpoints * shape.checkpoint_bytes).adding(checkpoints * once, shape.loaded.products())
    widths = [shape.width_at(site) for site in suite.sites] or [0]
    samples = checkpoints * tokens * (4 * sum(widths) + 8 * max(widths))  # in float32, and one site's in float64
    models = min(2, checkpoints)  # one is held until the next is loaded
    held = place.held(models) + pass_bytes(shape, min(tokens, COMPARED_SEQUENCES * length))
    return Cost(work, on(place.accelerated, held, samples, samples + place.loading(models)))


def _scan(place: Place) -> Cost:
    """Run some pairs of every task and some validation tokens through one checkpoint; its kernels are in float64."""
    suite, shape, scan = place.suite, place.shape, place.suite.scan
    assert scan is not None
    of_suite = place._replace(job=place.job._replace(tasks=tuple(suite.tasks)))
    read = [
        Prompts.of(min(scan.limit, pairs), texts)
        for pairs, texts in zip(of_suite.examples, of_suite.texts, strict=True)
    ]
    pairs = sum(
        blocks_flops(shape, number * length, length, shape.blocks) + logits_flops(shape, number * max(1, scored))
        for number, length, scored in read
    )
    length = suite.corpus.sequence_length
    tokens = min(scan.tokens, rows_of(suite.corpus, "validation"))
    sampled = sum(blocks_flops(shape, tokens, length, blocks_up_to(site, shape.blocks)) for site in suite.sites)
    entries = scan_entries(suite)
    work = Work(pairs + sampled, disk_bytes=shape.checkpoint_bytes + 2.0 * len(suite.sites) * entries)
    most = min(TOKENS_AT_ONCE, LOGITS_AT_ONCE / shape.vocabulary_size)
    scored_part = max(max(1, texts.scored) / texts.length for texts in of_suite.texts)
    passing = pass_bytes(shape, most) + 4.0 * most * scored_part * shape.vocabulary_size
    samples = tokens * shape.d_model * (4 * len(suite.sites) + 8) + 16.0 * entries * len(suite.sites)
    return Cost(work, on(place.accelerated, place.held(1) + passing, samples, samples + place.loading(1)))


def _collect_scan(place: Place) -> Cost:
    """Read the kernels of all checkpoints, and take the products of every two at one site in float32."""
    suite = place.suite
    checkpoints, entries, sites = len(suite.tokens_seen), scan_entries(suite), len(suite.sites)
    products = 2.0 * sites * checkpoints**2 * entries
    read = 2.0 * sites * checkpoints * entries
    return Cost(Work(products, disk_bytes=read), Memory(0.0, PROCESS_BYTES + read + 6.0 * checkpoints * entries))


def _choose(place: Place) -> Cost:
    """Fit steps to resamples of every task's curve, tasks x resamples x T^2, and hold all resamples in float64."""
    suite, auto = place.suite, place.suite.auto
    assert auto is not None
    tasks, checkpoints = len(auto.tasks or suite.tasks), len(suite.tokens_seen)
    numbers = float(tasks * auto.resamples * checkpoints)
    seconds = FIT_S * numbers * checkpoints
    return Cost(Work(cpu_s=seconds), Memory(0.0, LIGHT_PROCESS_BYTES + 8 * numbers))


def _train(place: Place) -> Cost:
    """Train on the batches, after measuring the normalisation on a sample."""
    experiment, corpus, crosscoder = place.experiment, place.suite.corpus, place.crosscoder
    settings, training = experiment.variants[place.job.variant], experiment.training
    products = training_flops(settings, crosscoder)
    low = settings.precision == "bfloat16"
    rows = settings.steps * settings.batch_tokens + min(settings.normalisation_tokens, rows_of(corpus, "train"))
    models, moved, text = 0.0, place.rows_bytes(rows), 0.0
    if place.streams:
        length, blocks = corpus.sequence_length, blocks_up_to(place.site, place.shape.blocks)
        models = streaming_flops(settings, place.shape, crosscoder.checkpoints, length, blocks)
        moved = training.processes * crosscoder.checkpoints * place.shape.checkpoint_bytes
        text = text_bytes(corpus, ["train"])
    row_bytes = token_bytes(crosscoder.d_model, experiment.harvest.dtype)
    loader = text + loader_bytes(settings, training, corpus, crosscoder, row_bytes)
    pass_tokens = experiment.harvest.batch_size * corpus.sequence_length
    work = Work(0 if low else products, products if low else 0, moved, training.processes)
    work = work.adding(models, place.shape.loaded.products())
    ahead = ahead_bytes(settings, training, crosscoder, row_bytes)
    sizes = place.shape, crosscoder, loader, pass_tokens
    memory = training_memory(settings, training, *sizes, place.accelerated, ahead)
    return Cost(work, memory)


def _evaluate(place: Place) -> Cost:
    """Measure on all validation tokens, read three times: sums, second moments, own codes; then cross-entropy."""
    corpus, shape, crosscoder = place.suite.corpus, place.shape, place.crosscoder
    sequences = min(place.experiment.evaluation.sequences, sequences_of(corpus, "validation"))
    rows = rows_of(corpus, "validation")
    spliced = cross_entropy_flops(shape, crosscoder, Prompts(sequences, corpus.sequence_length), place.site)
    moved = 3 * place.rows_bytes(rows) + crosscoder.checkpoints * shape.checkpoint_bytes + crosscoder.saved_bytes
    moved += own_codes_bytes(crosscoder)
    tokens = min(sequences, place.experiment.evaluation.batch_size) * corpus.sequence_length
    logits = 4.0 * tokens * shape.vocabulary_size
    width = crosscoder.checkpoints * crosscoder.d_model
    sums = 4.0 * crosscoder.parameters  # two matrices of the decoder's size: of all blocks so far, and of the next
    coded = 4.0 * (OWN_CODE_MATRICES * crosscoder.latents + 5 * width)
    maps = 8.0 * crosscoder.d_model * width * crosscoder.checkpoints  # of two folds
    moments = 8.0 * (5 * width**2 + 2 * BLOCK_TOKENS * width)  # of two folds, and what the maps of one are fitted by
    with_maps = max(moments, coded * max(BLOCK_TOKENS, tokens), 2 * logits)
    held = (
        place.held(crosscoder.checkpoints)
        + crosscoder.saved_bytes
        + sums
        + max(sums + coded * BLOCK_TOKENS, maps + with_maps)
        + pass_bytes(shape, tokens)
    )
    memory = on(place.accelerated, held, loading=place.loading(crosscoder.checkpoints, with_crosscoder=True))
    work = Work(evaluation_flops(crosscoder, rows), disk_bytes=moved).adding(spliced, shape.loaded.products())
    return Cost(work, memory)


def _examples(place: Place) -> Cost:
    """Encode each validation token twice: to find the peaks, and, at most, to cut out the windows.

    Each token's active latents are counted with each feature shown, 2 F D, and decoder rows of features compared with
    all, 2 M F D d. A model at a time reads some text; from the final norm on it is passed by each feature.
    """
    crosscoder, shape, rows = place.crosscoder, place.shape, rows_of(place.suite.corpus, "validation")
    checkpoints, d_model, latents = crosscoder
    shown = shown_features(place.experiment.features, len(place.suite.tasks), crosscoder)
    products = 2 * rows * crosscoder.product_flops() + 2 * rows * shown * latents + shown * crosscoder.product_flops()
    length = min(place.suite.corpus.sequence_length, OUTPUT_TOKENS)
    passed = blocks_flops(shape, OUTPUT_SEQUENCES * length, length, shape.blocks) + logits_flops(shape, shown)
    moved = 2 * place.rows_bytes(rows) + crosscoder.saved_bytes + checkpoints * shape.checkpoint_bytes
    codes = 4.0 * BLOCK_TOKENS * (3 * latents + checkpoints * d_model) + COUNT_BYTES * shown * latents
    models = min(2, checkpoints)
    outputs = place.held(models) + NORMED_BYTES + 8.0 * OUTPUT_FEATURES * shape.vocabulary_size
    effects = float(len(place.suite.tasks) * effects_bytes(crosscoder))
    loading = max(effects + 2 * crosscoder.saved_bytes, place.loading(models, with_crosscoder=True))
    memory = on(place.accelerated, crosscoder.saved_bytes + max(codes, outputs), effects, loading)
    work = Work(products, disk_bytes=moved).adding(checkpoints * passed, shape.loaded.products())
    return Cost(work, memory)


def _report(place: Place) -> Cost:
    """Read the effects of all crosscoders, draw and write: on CPUs, in several processes, whose memory is together."""
    shown, tasks = shown_crosscoders(place.experiment, place.suite), len(place.suite.tasks)
    moved = sum(attribution_bytes(one, tasks) for one in shown) + report_bytes(shown, tasks)
    work = Work(disk_bytes=moved, cpu_s=report_seconds(shown, tasks))
    return Cost(work, Memory(0.0, report_memory_bytes(shown, tasks)))


COSTS: dict[str, Callable[[Place], Cost]] = {
    PRETRAINING: _pretrain,
    "download_checkpoint": _download,
    "check_checkpoint": _check,
    "build_corpus": _corpus,
    "harvest_activations": _harvest,
    "score_task": _score,
    "compare_checkpoints": _compare,
    "scan_checkpoint": _scan,
    "choose_comparisons": _choose,
    "collect_scan": _collect_scan,
    "train_crosscoder": _train,
    "evaluate_crosscoder": _evaluate,
    "attribute_task": attribution_cost,
    "ablate_task": ablation_cost,
    "collect_attributions": collection_cost,
    "find_examples": _examples,
    "measure_consolidation": consolidation_cost,
    "match_seeds": matching_cost,
    "match_successors": successor_cost,
    "compare_baseline": baseline_cost,
    "tune_task": tuning_cost,
    "collect_transfer": transfer_cost,
    "compare_gradients": gradients_cost,
    "collect_gradients": joining_cost,
    "map_tasks": mapping_cost,
    "bridge_tasks": bridge_cost,
    "write_report": _report,
}
