"""Memory of a process at its peak."""

from collections.abc import Sequence
from typing import NamedTuple

from chronocoder.activations.order import RowOrder
from chronocoder.config import NONE, CorpusSettings, TrainingSettings
from chronocoder.plan.models import CrosscoderShape, ModelShape
from chronocoder.plan.sizes import piece_rows_of, rows_of, sequences_of
from chronocoder.variants.base import CrosscoderSettings

PROCESS_BYTES = 600e6
"""Python with torch, transformers, xarray, SciPy and Accelerate imported, on a CPU; a CUDA build takes more."""
TORCH_PROCESS_BYTES = 330e6
"""Python with torch, xarray and SciPy, for jobs that load crosscoders and no models."""
LIGHT_PROCESS_BYTES = 170e6
"""Python with xarray and zarr, for jobs that need no torch."""
BATCHES_AHEAD = 3
"""Batches that the loader holds beside the one in use: two that wait and one being made."""
GRADIENT_TEMPORARIES = 4
"""Bytes a weight of what the decoder norms' gradient passes through, fitted."""


class Memory(NamedTuple):
    """The peak of one process.

    Attributes:
        device: bytes on the accelerator; 0 without one.
        host: bytes in main memory.
    """

    device: float
    host: float


def loader_bytes(
    settings: CrosscoderSettings,
    training: TrainingSettings,
    corpus: CorpusSettings,
    crosscoder: CrosscoderShape,
    row_bytes: int,
) -> float:
    """Return the bytes of a process's loader: two groups of rows, the batches ahead, and the one in use in float32.

    2 x rows x M x `row_bytes` + `ahead_bytes` + batch x M x 4 d. A group is as many whole pieces as
    `shuffle_tokens` has room for, at least one a process; the processes share groups and batches.

    Args:
        settings: the variant.
        training: processes.
        corpus: the text of the activations.
        crosscoder: its sizes.
        row_bytes: of a row of one checkpoint, in the stored format.
    """
    rows, piece = rows_of(corpus, "train"), piece_rows_of(corpus)
    order = RowOrder(rows, piece, 0, settings.shuffle_tokens, rank=0, processes=training.processes)
    batch = settings.batch_tokens / training.processes
    held = crosscoder.checkpoints * (2 * order.largest_part * row_bytes + batch * 4 * crosscoder.d_model)
    return held + ahead_bytes(settings, training, crosscoder, row_bytes)


def ahead_bytes(
    settings: CrosscoderSettings, training: TrainingSettings, crosscoder: CrosscoderShape, row_bytes: int
) -> float:
    """Return the bytes of the batches that a process holds ahead, on an accelerator too where there is one."""
    return BATCHES_AHEAD * settings.batch_tokens / training.processes * crosscoder.checkpoints * row_bytes


def step_bytes(settings: CrosscoderSettings, training: TrainingSettings, crosscoder: CrosscoderShape) -> float:
    """Return the bytes that a training step needs on its device at the peak.

    For each of the shard's weights 16 bytes (weight, gradient, Adam's two moments) and `GRADIENT_TEMPORARIES`; the
    variant's matrices (token, feature) and (token, checkpoint * d_model), of the tokens that the shard sees. Products
    in bfloat16 keep half a matrix more: the copy that is multiplied. `dealing_bytes` come on top.
    """
    shards, cost = training.dictionary_shards, settings.cost
    tokens = settings.batch_tokens * shards / training.processes
    row = crosscoder.checkpoints * crosscoder.d_model
    matrices = cost.matrices + (0.5 if settings.precision == "bfloat16" else 0.0)
    temporaries = 0 if cost.sparse else GRADIENT_TEMPORARIES
    of_weights = crosscoder.parameters / shards * (16 + temporaries)
    of_tokens = 4 * tokens * (matrices * crosscoder.latents / shards + cost.rows * row)
    return of_weights + of_tokens + dealing_bytes(settings, training, crosscoder)


def dealing_bytes(settings: CrosscoderSettings, training: TrainingSettings, crosscoder: CrosscoderShape) -> float:
    """Return what several processes need more where batches are dealt to parts, and gradients are of all tokens.

    Twice, as they come and put together: the rows of a whole batch, the gradient of encoder or decoder, and, where
    codes are dense, the shard's codes of the tokens that a process sends.
    """
    shards = training.dictionary_shards
    if not training.parts or training.processes == shards:
        return 0.0
    rows = settings.batch_tokens * crosscoder.checkpoints * crosscoder.d_model
    codes = 0.0 if settings.cost.sparse else settings.batch_tokens / training.processes * crosscoder.latents
    return 8 * (rows + crosscoder.parameters / 2 / shards + codes)


def folded_bytes(training: TrainingSettings, crosscoder: CrosscoderShape) -> float:
    """Return the bytes on the device when the crosscoder is taken out of a finished training.

    20 bytes for each of the shard's weights: those of the step, and the folded copy; with shards also encoder or
    decoder of the whole, twice, while it is put together.
    """
    shards = training.dictionary_shards
    return crosscoder.parameters * (20 / shards + (4 if shards > 1 else 0))


def training_memory(
    settings: CrosscoderSettings,
    training: TrainingSettings,
    shape: ModelShape,
    crosscoder: CrosscoderShape,
    loader: float,
    pass_tokens: int,
    accelerated: bool,
    ahead: float = 0.0,
) -> Memory:
    """Return the peak of a training process.

    The peak is in a step, or at the end, when weights, moments and two copies of the weights are alive. Streaming adds
    M models, a forward pass, and the text in main memory. On an accelerator the loader and what is being
    saved stay in main memory, through which the models go before; without one all of it adds up.

    Args:
        settings: the variant.
        training: processes, shards, and where activations come from.
        shape: of the models.
        crosscoder: its sizes.
        loader: bytes of the loader, and of the text where activations are streamed.
        pass_tokens: tokens of a forward pass, where activations are streamed.
        accelerated: whether there is an accelerator.
        ahead: bytes of the batches that wait on it.
    """
    models = loading = 0.0
    if training.activations == "streaming":
        models = held_bytes(shape, crosscoder.checkpoints, accelerated) + pass_bytes(shape, pass_tokens)
        loading = loading_bytes(shape, crosscoder.checkpoints, accelerated)
    step = step_bytes(settings, training, crosscoder)
    folded = folded_bytes(training, crosscoder)
    if not accelerated:
        return on(False, models + max(step + loader, folded + 4 * crosscoder.parameters), loading=loading)
    state = crosscoder.state_bytes / training.dictionary_shards if settings.steps > training.save_every else 0.0
    return on(True, models + max(step + ahead, folded), max(loader + state, 12.0 * crosscoder.parameters), loading)


def model_bytes(shape: ModelShape) -> float:
    """Return the bytes of a loaded model's weights, over all devices that it is spread over."""
    blocks = shape.blocks * shape.block_parameters * shape.loaded.block_bytes
    return blocks + shape.embedding_parameters * shape.loaded.number_bytes


def held_bytes(shape: ModelShape, models: int, accelerated: bool) -> float:
    """Return the bytes of some loaded models on one device."""
    return models * model_bytes(shape) / (shape.loaded.gpus if accelerated else 1)


def widened_bytes(shape: ModelShape, blocks: int) -> float:
    """Return what it adds to give a model, in some of its blocks and its embeddings, float32 weights for a while.

    Quantised matrices are widened one by one.
    """
    loaded = shape.loaded
    widened = shape.embedding_parameters + (blocks * shape.block_parameters if loaded.quantization == NONE else 0)
    return (4.0 - loaded.number_bytes) * widened


def pass_bytes(shape: ModelShape, tokens: float) -> float:
    """Return the bytes of a forward pass at its widest, 8 d + 3 i numbers a token (i: width of the MLP)."""
    return float(shape.loaded.number_bytes) * tokens * (8 * shape.d_model + 3 * shape.intermediate_size)


def loading_bytes(
    shape: ModelShape, models: int, accelerated: bool, crosscoder: CrosscoderShape | None = None
) -> float:
    """Return the main memory that loading models takes at its peak, and a crosscoder before them.

    Where there is an accelerator, a model goes there before the next one is read. Files that are not of the format that
    is loaded are held as well while they are converted. A crosscoder is held twice: as its file and as its weights.

    Args:
        shape: of the models.
        models: how many are kept.
        accelerated: whether there is an accelerator.
        crosscoder: sizes of the crosscoder, where one is loaded first.
    """
    saved = crosscoder.saved_bytes if crosscoder else 0.0
    as_stored = shape.stored_bytes == shape.loaded.block_bytes == shape.loaded.number_bytes
    converted = 0 if as_stored else shape.checkpoint_bytes
    if accelerated:
        return max(2 * saved, model_bytes(shape) + converted)
    return max(2 * saved, saved + models * model_bytes(shape) + converted)


def text_bytes(corpus: CorpusSettings, splits: Sequence[str]) -> float:
    """Return the bytes of a text in main memory: int32 ids, and those of a split again while their digest is taken."""
    tokens = [sequences_of(corpus, split) * corpus.sequence_length for split in splits]
    return 4.0 * (sum(tokens) + max(tokens))


def on(accelerated: bool, tensors: float, host: float = 0.0, loading: float = 0.0) -> Memory:
    """Return the peak of a process.

    Args:
        accelerated: whether there is an accelerator.
        tensors: bytes on the device; without an accelerator that is main memory.
        host: bytes in main memory at the same time.
        loading: bytes in main memory earlier, while what goes to the device is loaded.
    """
    if accelerated:
        return Memory(tensors, PROCESS_BYTES + max(host, loading))
    return Memory(0.0, PROCESS_BYTES + max(tensors + host, loading))
