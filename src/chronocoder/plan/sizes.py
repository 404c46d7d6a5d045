"""Numbers of tokens, rows and examples that a configuration asks for."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from chronocoder.activations.pieces import sequences_per_piece
from chronocoder.config import (
    AblationSettings,
    AttributionSettings,
    CorpusSettings,
    FeatureSettings,
    FileTask,
    NurseryTask,
    PairsTask,
    Suite,
    TableTask,
    Task,
)
from chronocoder.errors import ConfigError, TaskError
from chronocoder.plan.models import CrosscoderShape, ModelShape
from chronocoder.site_names import parse_site
from chronocoder.tasks.sources import read_source

PREFIX_TOKENS = 9
"""Tokens of a minimal pair's prefix: assumed, since the tokenizer is not at hand; 3 to 9 on average in the nursery."""
SENTENCE_TOKENS = 9
"""Tokens that are read of a sentence: assumed likewise; the separator and all but the last of 6 to 10 in BLiMP."""
ENDING_TOKENS = 3
"""Tokens that both sentences of a pair end with: assumed likewise."""
LOGITS_AT_ONCE = 2**27
"""Numbers that the logits of a pass may have: half a gigabyte in float32."""
TOKENS_AT_ONCE = 2048
"""Tokens in a forward pass that scores pairs, padding included."""
KERNEL_TOKENS = 256
"""Tokens of a block whose inner products a scan keeps."""

PASS_TOKENS = 8192
"""Tokens in a pass of exact effects on a GPU, where a batch has fewer: so many keep it busy."""

EXACT_ROWS = 8
"""Rows of a batch of exact effects at most, in units of its sequences: each has the keys and values of its past."""


class TaskTexts(NamedTuple):
    """What a model reads of a pair.

    Attributes:
        number: a prefix, 1, or sentences, 2.
        length: tokens of each.
        scored: last positions of each whose logits of the vocabulary are wanted; 0 where those of two answers are.
    """

    number: int
    length: float
    scored: float

    @property
    def tokens(self) -> float:
        """Tokens of a pair."""
        return self.number * self.length


EXPECTED_TEXTS = {
    "next_token": TaskTexts(1, PREFIX_TOKENS, 0),
    "continuation": TaskTexts(2, SENTENCE_TOKENS, ENDING_TOKENS),
    "sentence": TaskTexts(2, SENTENCE_TOKENS, SENTENCE_TOKENS),
}
"""By metric, before a task has been tokenised."""


def expected_texts(task: Task) -> TaskTexts:
    """Return what will be read of a pair; where the metric is `auto`, of pairs of sentences, both."""
    if task.metric != "auto":
        return EXPECTED_TEXTS[task.metric]
    parted = isinstance(task, NurseryTask | PairsTask) or (isinstance(task, TableTask) and task.columns.good is None)
    return EXPECTED_TEXTS["next_token" if parted else "sentence"]


def exact_sequences(batch_size: int, length: float, positions: float, vocabulary: int) -> int:
    """Return the sequences whose tokens a pass of exact effects has on a GPU: more than a batch, where these are few.

    Args:
        batch_size: sequences of a batch.
        length: tokens of each.
        positions: of each row, those whose logits of the whole vocabulary are wanted.
        vocabulary: its tokens.
    """
    most = PASS_TOKENS / length
    if positions:
        most = min(most, LOGITS_AT_ONCE / (vocabulary * min(EXACT_ROWS * positions, length)))
    return max(batch_size, int(most))


def sequences_of(corpus: CorpusSettings, split: str) -> int:
    """Return the sequences of a split: as many whole ones as its tokens make."""
    return corpus.sequences(split)


def rows_of(corpus: CorpusSettings, split: str) -> int:
    """Return the rows of an activation store: all tokens but the first of each sequence."""
    return sequences_of(corpus, split) * (corpus.sequence_length - 1)


def piece_rows_of(corpus: CorpusSettings) -> int:
    """Return the rows that are stored, read and shuffled together."""
    return sequences_per_piece(corpus.sequence_length) * (corpus.sequence_length - 1)


def examples_of(name: str, suite: Suite, task: str) -> int:
    """Return the pairs of a task; those that the tokenizer makes unusable are counted too.

    Raises:
        ConfigError: how many there are is not known before they are fetched, or they are in a file that is not there,
            and no `limit` is given; or the file cannot be used.
    """
    settings = suite.tasks[task]
    if isinstance(settings, NurseryTask):
        return settings.pairs
    key = f"suites.{name}.tasks.{task}"
    if settings.path is not None and Path(settings.path).is_file():
        state = Path(settings.path).stat()
        return _pairs_in_file(key, settings, (state.st_mtime_ns, state.st_size))
    known = settings.published_pairs
    if settings.limit is not None or known is not None:
        return min(count for count in (settings.limit, known) if count is not None)
    if settings.path is None:
        raise ConfigError(f"{key}: its pairs are not counted before they are fetched; give the task a limit")
    raise ConfigError(f"{key}.path: no file {settings.path}; put it there, or give the task a limit")


@functools.cache
def _pairs_in_file(key: str, task: FileTask, state: tuple[int, int]) -> int:
    """Count the pairs that are drawn from a file, once for each `state`, its time of change and its size."""
    try:
        return len(read_source(key, task).pairs)
    except TaskError as error:
        raise ConfigError(f"{key}: {error}") from None


def scan_entries(suite: Suite) -> int:
    """Return the numbers that a scan keeps of a checkpoint's activations at a site."""
    assert suite.scan is not None
    tokens = min(suite.scan.tokens, rows_of(suite.corpus, "validation"))
    blocks = max(1, tokens // KERNEL_TOKENS)
    size = tokens // blocks
    return blocks * size * (size - 1) // 2


def top_features(ablation: AblationSettings, crosscoder: CrosscoderShape) -> int:
    """Return how many features are among those of largest effect at some checkpoint, at most: others at each."""
    return min(ablation.top_features * crosscoder.checkpoints, crosscoder.latents)


def shown_features(settings: FeatureSettings, tasks: int, crosscoder: CrosscoderShape) -> int:
    """Return how many features are shown, at most: others for each task and checkpoint."""
    return min(settings.top_features * tasks * crosscoder.checkpoints, crosscoder.latents)


def chosen_features(ablation: AblationSettings, crosscoder: CrosscoderShape) -> int:
    """Return how many features are changed alone, at most: those of largest effect, and as many controls."""
    return min(2 * top_features(ablation, crosscoder), crosscoder.latents)


def blocks_up_to(site: str, blocks: int) -> int:
    """Return the blocks that are run to read a site, of so many; a site inside a block counts as its whole block."""
    return parse_site(site).block(blocks) + 1


def blocks_after(site: str, blocks: int) -> int:
    """Return the blocks that are run to go on from a site, of so many: its own block too where it is inside one."""
    parsed = parse_site(site)
    return blocks - parsed.block(blocks) - (1 if parsed.is_stream else 0)


def check_sites(name: str, suite: Suite, shape: ModelShape) -> None:
    """Check that every site of a suite is inside its models.

    Args:
        name: the suite's.
        suite: the suite.
        shape: of its models.

    Raises:
        ConfigError: names each site that is not, and the blocks or heads there are.
    """
    sites = {f"suites.{name}.site": suite.site}
    for comparison, settings in suite.comparisons.items():
        if settings.site is not None:
            sites[f"suites.{name}.comparisons.{comparison}.site"] = settings.site
    if suite.auto is not None and suite.auto.site is not None:
        sites[f"suites.{name}.auto.site"] = suite.auto.site
    blocks, heads = shape.blocks, shape.attention_width // shape.head_width
    _check_inside(sites, "blocks", blocks, lambda site: parse_site(site).block(blocks))
    _check_inside(sites, "heads", heads, lambda site: parse_site(site).head or 0)


def _check_inside(sites: Mapping[str, str], things: str, count: int, number: Callable[[str], int]) -> None:
    if outside := [f"{key} '{site}'" for key, site in sites.items() if number(site) >= count]:
        raise ConfigError(
            f"{', '.join(outside)}: outside the model, which has {things} 0 to {count - 1}; choose one of them"
        )


def control_directions(settings: AttributionSettings, crosscoder: CrosscoderShape) -> int:
    """Return the random directions that are tried on a task, over all draws."""
    return settings.random_directions * min(settings.random_features, crosscoder.latents)


def random_in_place(settings: AttributionSettings, ablation: AblationSettings, crosscoder: CrosscoderShape) -> int:
    """Return the random directions that are written in place of top features, over all draws."""
    return settings.random_directions * top_features(ablation, crosscoder)


def exact_features(settings: AttributionSettings, crosscoder: CrosscoderShape) -> int:
    """Return the features that two stages change exactly on a task, at most: others at each checkpoint."""
    return min(settings.exact_features * crosscoder.checkpoints + settings.exact_controls, crosscoder.latents)
