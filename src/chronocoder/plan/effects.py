"""What the jobs about the effects of features compute, move and hold."""

from math import comb

from chronocoder.config import SCREEN, TWO_STAGES
from chronocoder.plan.compute import ablation_flops, attribution_flops, gradients_of
from chronocoder.plan.disk import (
    ablation_bytes,
    attribution_bytes,
    baseline_bytes,
    consolidation_bytes,
    effects_bytes,
    match_bytes,
    own_codes_bytes,
    successor_bytes,
)
from chronocoder.plan.hardware import Work
from chronocoder.plan.memory import (
    LIGHT_PROCESS_BYTES,
    PROCESS_BYTES,
    TORCH_PROCESS_BYTES,
    Memory,
    on,
    pass_bytes,
    widened_bytes,
)
from chronocoder.plan.models import crosscoder_shape
from chronocoder.plan.place import Cost, Place
from chronocoder.plan.sizes import (
    EXACT_ROWS,
    LOGITS_AT_ONCE,
    blocks_after,
    chosen_features,
    control_directions,
    exact_sequences,
    random_in_place,
    top_features,
)

RESAMPLED_ARRAYS = 9
"""Float32 arrays of the resampled means of a condition alive at the peak of a task with two conditions, measured."""
RESAMPLED_S, DRAWN_S = 6e-7, 7e-10
"""Seconds for each resampled mean, swaps included, and for each example in it, measured with two conditions."""
ASSIGNMENT_S = 2.5e-11
"""Seconds of an assignment, for each cubed feature: measured with up to 4,096 features, half of them found again."""
EXCHANGED_S, RESAMPLED_FEATURE_S = 2e-7, 1.2e-7
"""Seconds of a latent in an exchange of features between languages, and in a resample of it, measured."""
SERVING_PART = 0.3
"""Fraction of the latents in strata with one that serves a language, among which alone there are exchanges."""
COMPARING_BYTES = 250e6
"""Python with xarray and SciPy, and the exchanges that are held at once."""
CORE_FLOPS = 5e10
"""FLOP/s of one core's products, measured."""
LOGITS_ARRAYS = 4
"""Arrays as large as the logits of the vocabulary at the peak: of a pass and its gradient, or of two copies without."""


def attribution_cost(place: Place) -> Cost:
    """Measure the effects on each of the job's tasks.

    Where weights are not in float32, a model at a time has them in float32 as well, to tell what rounding does.
    In main memory the effects of every example of one task, 4 bytes for each checkpoint and latent, and how much each
    latent changes; the effects of the latents in use once more; then `RESAMPLED_ARRAYS` of their means in every
    resample. Where several processes share the examples, their effects are added up on the device. Every latent counts
    as used; random directions and shuffled tokens are measured as latents are.
    """
    crosscoder, settings, tasks = place.crosscoder, place.attribution, place.examples
    measured = place.measurings
    flops, reading = sum(map(attribution_flops, measured)), sum(task.reading for task in measured)
    largest, numbers = max(tasks), crosscoder.checkpoints * crosscoder.latents
    texts = max(prompts.number for prompts in place.prompts)
    changed = crosscoder.latents + control_directions(settings, crosscoder)
    estimator = SCREEN if settings.estimator == TWO_STAGES else settings.estimator
    gradients = gradients_of(settings, estimator, changed / crosscoder.latents)
    sequences = min(settings.batch_size, int((gradients or changed) * texts))
    passing = max(_resumed_bytes(place, sequences, gradient=bool(gradients)), _exact_bytes(place))
    joined = 8.0 * largest * numbers if place.experiment.attribution_jobs.processes > 1 else 0.0
    runs = 2 if settings.shuffled_tokens else 1
    host = largest * (4.0 * numbers + runs * 4.0 * (numbers + crosscoder.latents))
    host += 4.0 * RESAMPLED_ARRAYS * settings.bootstrap_samples * numbers
    summarised = changed + (crosscoder.latents if settings.shuffled_tokens else 0)
    means = settings.bootstrap_samples * crosscoder.checkpoints * summarised
    cpu_s = sum(means * (RESAMPLED_S + DRAWN_S * pairs) for pairs in tasks)
    moved = len(tasks) * attribution_bytes(crosscoder)
    loaded, blocks = place.shape.loaded, blocks_after(place.site, place.shape.blocks)
    compared = 0.0 if loaded.is_float32 else widened_bytes(place.shape, blocks)
    work = _passing(place, Work(disk_bytes=moved, cpu_s=cpu_s), reading, flops - reading)
    return _on_tasks(place, work, max(passing + compared, joined), host)


def ablation_cost(place: Place) -> Cost:
    """Change features exactly on each of the job's tasks.

    On the device also all logits of the last tokens of a batch of prefixes, twice, and of every checkpoint what it
    writes with the chosen features and the random directions, twice; in main memory what is measured of every example
    of one task, twice, and the effects that the features are chosen by.
    """
    crosscoder, settings, ablation = place.crosscoder, place.experiment.attribution, place.experiment.ablation
    tasks = place.examples
    measured = place.measurings
    flops, reading = sum(ablation_flops(task, ablation) for task in measured), sum(task.reading for task in measured)
    sequences = _exact_sequences(place, whole=True)
    rows = EXACT_ROWS * sequences if any(texts.number == 1 for texts in place.texts) else 0
    exact = max(_exact_bytes(place, sequences) + 8.0 * rows * place.shape.vocabulary_size, _exact_bytes(place))
    passing = max(_resumed_bytes(place, settings.batch_size, gradient=True), exact)
    sets = len(ablation.set_sizes) * (1 + ablation.random_sets)
    chosen, top = chosen_features(ablation, crosscoder), top_features(ablation, crosscoder)
    random = random_in_place(settings, ablation, crosscoder)
    positions = max(texts.tokens for texts in place.texts)
    of_example = 4 * chosen + positions * top + sets + crosscoder.checkpoints * (chosen + random)
    host = 8.0 * max(tasks) * (crosscoder.checkpoints * of_example + positions * top)
    host += len(tasks) * effects_bytes(crosscoder)
    stored = sum(ablation_bytes(settings, ablation, crosscoder, of.number * of.length) for of in place.prompts)
    moved = len(tasks) * attribution_bytes(crosscoder) + stored
    written = 8.0 * crosscoder.checkpoints * _batch_tokens(place) * (chosen + random)
    work = _passing(place, Work(disk_bytes=moved + own_codes_bytes(crosscoder)), reading, flops - reading)
    return _on_tasks(place, work, passing + written, host)


def _passing(place: Place, work: Work, reading: float, passes: float) -> Work:
    """Return the work with the FLOPs of reading activations, and of passes in the precision of attribution."""
    loaded = place.shape.loaded
    return work.adding(reading, loaded.products()).adding(passes, loaded.products(place.attribution.precision))


def _on_tasks(place: Place, work: Work, passing: float, host: float) -> Cost:
    """Return the cost of a job on some tasks, of which each process loads all models.

    On the device, beside a pass: the models, the crosscoder, a checkpoint's decoder rows once more, and five matrices
    (token, feature) of a batch's examples: codes, their change, those in use, and what the gradient makes of them.

    Args:
        place: the job.
        work: what it computes, reads and writes once the models are loaded.
        passing: bytes on the device of a pass from the site on.
        host: bytes in main memory.
    """
    shape, crosscoder, processes = place.shape, place.crosscoder, place.experiment.attribution_jobs.processes
    matrices = 4.0 * crosscoder.latents * (crosscoder.d_model + 5 * _batch_tokens(place))
    held = place.held(crosscoder.checkpoints) + crosscoder.saved_bytes + matrices + passing
    loaded = processes * (crosscoder.checkpoints * shape.checkpoint_bytes + crosscoder.saved_bytes)
    loading = place.loading(crosscoder.checkpoints, with_crosscoder=True)
    work = work._replace(disk_bytes=loaded + work.disk_bytes, processes=processes)
    return Cost(work, on(place.accelerated, held, host, loading))


def _batch_tokens(place: Place) -> float:
    """Return the tokens of the texts that are read at once."""
    return min(place.experiment.attribution.batch_size, max(of.number for of in place.prompts)) * place.length


def _resumed_bytes(place: Place, sequences: int, gradient: bool = False) -> float:
    """Return the bytes of a pass from the site on: 8 d + 3 i numbers a token (i: width of the MLP), and scored logits.

    With a gradient for every block: that is what the backward pass needs; inputs of frozen matrices are not kept.
    """
    blocks = blocks_after(place.site, place.shape.blocks) if gradient else 1
    logits = _logits_bytes(place, sequences * max(texts.scored for texts in place.texts))
    return pass_bytes(place.shape, sequences * place.length) * blocks + logits


def _exact_bytes(place: Place, sequences: int | None = None) -> float:
    """Return the bytes of a batch of exact effects: a pass, keys and values of its rows in one block, scored logits."""
    sequences = sequences or _exact_sequences(place)
    tokens, rows = sequences * place.length, EXACT_ROWS * sequences
    past = 2.0 * place.shape.loaded.number_bytes * rows * place.length * place.shape.key_value_width
    scored = min(tokens, rows * max(texts.scored for texts in place.texts))
    return pass_bytes(place.shape, tokens) + past + _logits_bytes(place, scored)


def _exact_sequences(place: Place, whole: bool = False) -> int:
    """Return the sequences whose tokens a pass of exact effects has at most; `whole`: with logits of all tokens."""
    batch_size = place.experiment.attribution.batch_size
    if not place.accelerated:
        return batch_size
    scored = {texts.scored or float(whole) for texts in place.texts}
    vocabulary = place.shape.vocabulary_size
    return max(exact_sequences(batch_size, place.length, positions, vocabulary) for positions in scored)


def _logits_bytes(place: Place, positions: float) -> float:
    """Return the bytes of the vocabulary's logits at some positions, of which a pass has no more than it may."""
    return 4.0 * LOGITS_ARRAYS * min(positions * place.shape.vocabulary_size, LOGITS_AT_ONCE)


def collection_cost(place: Place) -> Cost:
    """Join the effects of all tasks: they are held as read, joined, and described."""
    crosscoder, tasks = place.crosscoder, len(place.suite.tasks)
    moved = tasks * attribution_bytes(crosscoder) + attribution_bytes(crosscoder, tasks)
    return Cost(Work(disk_bytes=moved), Memory(0.0, LIGHT_PROCESS_BYTES + 3.0 * tasks * effects_bytes(crosscoder)))


def matching_cost(place: Place) -> Cost:
    """Match the features of each seed with the first's, on the CPU.

    Cosines of all pairs of features, and their assignment, 12 bytes a pair. Held are every seed's decoder rows and
    effects, and unit rows of two seeds; or, before, a crosscoder as its file and its weights. Every latent counts as
    used.
    """
    crosscoder, seeds, tasks = place.crosscoder, len(set(place.experiment.seeds)), len(place.suite.tasks)
    row_bytes = 4.0 * crosscoder.checkpoints * crosscoder.d_model * crosscoder.latents
    pairs = crosscoder.latents**2
    cosines_s = pairs * 2 * crosscoder.checkpoints * crosscoder.d_model / CORE_FLOPS
    cpu_s = (seeds - 1) * (cosines_s + ASSIGNMENT_S * crosscoder.latents**3)
    moved = seeds * (crosscoder.saved_bytes + attribution_bytes(crosscoder, tasks)) + match_bytes(crosscoder, seeds)
    held = seeds * (row_bytes + tasks * effects_bytes(crosscoder))
    working = max(12.0 * pairs + 2 * row_bytes, 2.0 * crosscoder.saved_bytes)
    return Cost(Work(disk_bytes=moved, cpu_s=cpu_s), Memory(0.0, PROCESS_BYTES + held + working))


def successor_cost(place: Place) -> Cost:
    """Match the features of a crosscoder with those of each comparison that follows, on the CPU, as `matching_cost`.

    Rows are of one checkpoint. Held are all these crosscoders, one of them as its file as well, and unit rows of two.
    """
    job, crosscoder = place.job, place.crosscoder
    names = place.suite.successors_of(job.comparison, job.variant)
    following = [crosscoder_shape(place.experiment, job.suite, name, job.variant, place.shape) for name in names]
    pairs = crosscoder.latents**2
    cosines_s = pairs * 2 * crosscoder.d_model / CORE_FLOPS
    cpu_s = len(names) * (cosines_s + ASSIGNMENT_S * crosscoder.latents**3)
    read = [one.saved_bytes for one in (crosscoder, *following)]
    row_bytes = 4.0 * crosscoder.d_model * crosscoder.latents
    held = sum(read) + max(12.0 * pairs + 4 * row_bytes, max(read))
    moved = sum(read) + successor_bytes(crosscoder, len(names))
    return Cost(Work(disk_bytes=moved, cpu_s=cpu_s), Memory(0.0, PROCESS_BYTES + held))


def consolidation_cost(place: Place) -> Cost:
    """Compare languages in each family at each checkpoint, on the CPU: exchanges and resamples of all latents."""
    crosscoder, suite, settings = place.crosscoder, place.suite, place.experiment.consolidation
    languages = [len({suite.tasks[name].group.language for name in names}) for names in suite.families.values()]
    pairs, served = sum(comb(count, 2) for count in languages), sum(languages)
    exchanged = EXCHANGED_S * settings.permutations * (pairs + SERVING_PART * served)
    entries = crosscoder.checkpoints * (exchanged + RESAMPLED_FEATURE_S * settings.samples * pairs)
    tasks, families = len(suite.tasks), len(suite.families)
    moved = attribution_bytes(crosscoder, tasks) + consolidation_bytes(crosscoder, families)
    held = COMPARING_BYTES + 2.0 * tasks * effects_bytes(crosscoder) + 8.0 * settings.samples * crosscoder.latents
    return Cost(Work(disk_bytes=moved, cpu_s=crosscoder.latents * entries), Memory(0.0, held))


def baseline_cost(place: Place) -> Cost:
    """Match the dictionaries of single checkpoints with each other and with the joint one, on the CPU.

    M assignments as in `matching_cost`: all but the last dictionary with the last one, d wide, and then the joint one,
    M d wide. Held are all crosscoders and effects, the rows of the joint one, of the single ones and of the tracks, and
    unit rows of both sides while they are matched. Of the ablations little is read.
    """
    crosscoder, tasks = place.crosscoder, len(place.suite.tasks)
    single = crosscoder._replace(checkpoints=1)
    pairs = crosscoder.latents**2
    width = (2 * crosscoder.checkpoints - 1) * crosscoder.d_model
    cpu_s = pairs * 2 * width / CORE_FLOPS + crosscoder.checkpoints * ASSIGNMENT_S * crosscoder.latents**3
    effects = attribution_bytes(crosscoder, tasks) + crosscoder.checkpoints * attribution_bytes(single, tasks)
    weights = crosscoder.saved_bytes + crosscoder.checkpoints * single.saved_bytes
    row_bytes = 4.0 * crosscoder.checkpoints * crosscoder.d_model * crosscoder.latents
    loaded = tasks * (effects_bytes(crosscoder) + crosscoder.checkpoints * effects_bytes(single))
    held = weights + loaded + 3 * row_bytes
    moved = effects + weights + baseline_bytes(crosscoder)
    host = TORCH_PROCESS_BYTES + held + 12.0 * pairs + 2 * row_bytes
    return Cost(Work(disk_bytes=moved, cpu_s=cpu_s), Memory(0.0, host))
