"""The sources of a corpus, and which of its sequences each of them fills."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int

from chronocoder.config import (
    SPLITS,
    CorpusSettings,
    CorpusSource,
    HubDataset,
    MixtureCorpus,
    NurseryCorpus,
    Split,
    TextFiles,
    TokenFiles,
)
from chronocoder.errors import CorpusError
from chronocoder.suites.corpora.documents import Document, Label, read_documents
from chronocoder.suites.corpora.files import corpus_files, local_files, most_tokens
from chronocoder.suites.corpora.token_files import count_sequences, open_token_files, read_sequences
from chronocoder.suites.nursery.grammar import sentences_by_language
from chronocoder.suites.packing import turns

Places = range | Int[np.ndarray, " sequence"]


@dataclass(frozen=True)
class Part:
    """A source of a corpus.

    Attributes:
        key: in the configuration, for messages.
        name: what messages call it besides; empty for the only one.
        places: the sequences of each split that it fills.
        read: yields its documents, always the same ones in the same order.
        is_text: whether they have to be tokenised and packed; else they are sequences.
        most_tokens: a number of tokens that it cannot have more than; None where that is not known.
        files: what it is read from.
        commit: of a dataset on the hub; empty for other sources.
    """

    key: str
    name: str
    places: Mapping[Split, Places]
    read: Callable[[], Iterator[Document]]
    is_text: bool = True
    most_tokens: int | None = None
    files: Sequence[Path] = ()
    commit: str = ""


def corpus_parts(
    settings: CorpusSettings, languages: Sequence[str], vocabulary_size: int, commit_of: Callable[[HubDataset], str]
) -> list[Part]:
    """Return the sources of a corpus.

    Args:
        settings: of the corpus.
        languages: the nursery's languages; other corpora do not look at them.
        vocabulary_size: tokens that the tokenizer knows.
        commit_of: returns the commit of a dataset that has to be downloaded.

    Raises:
        CorpusError: a file cannot be used, or a weight is too small.
    """
    if isinstance(settings, NurseryCorpus):
        return _nursery_parts(settings, languages)
    places = _mixed_places(settings)
    mixed = isinstance(settings, MixtureCorpus)
    keys = [f"corpus.sources[{number}]" if mixed else "corpus" for number in range(len(settings.parts))]
    return [
        _part(source, key, of_source, settings, vocabulary_size, commit_of)
        for source, key, of_source in zip(settings.parts, keys, places, strict=True)
    ]


def shares(weights: Sequence[float], total: int) -> list[int]:
    """Return whole numbers in proportion to weights, as nearly as can be, whose sum is `total`."""
    exact = np.array(weights) / sum(weights) * total
    counts = np.floor(exact).astype(int)
    order = np.argsort(counts - exact, kind="stable")  # the largest remainder first
    counts[order[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def _nursery_parts(settings: NurseryCorpus, languages: Sequence[str]) -> list[Part]:
    """Return a part for each split and language: languages take turns by a draw, and each split has its own text."""
    parts = []
    for split in SPLITS:
        order = list(islice(turns(languages, f"{split} {settings.seed}"), settings.sequences(split)))
        for language in languages:
            places = np.array([place for place, name in enumerate(order) if name == language], dtype=np.int64)
            read = partial(_sentences, language, split, settings.seed)
            parts.append(Part("corpus", "", {**_nothing(), split: places}, read))
    return parts


def _sentences(language: str, split: Split, seed: int) -> Iterator[Document]:
    label = Label(language, "")
    return (Document(split, label, text) for text in sentences_by_language([language], split, seed)[language])


def _nothing() -> dict[Split, Places]:
    return {split: range(0) for split in SPLITS}


def _mixed_places(settings: CorpusSettings) -> list[dict[Split, Places]]:
    """Return the places of each source's sequences: in proportion to the weights, in an order that the seed decides.

    Raises:
        CorpusError: a source would have none to train on.
    """
    if not isinstance(settings, MixtureCorpus):
        return [{split: range(settings.sequences(split)) for split in SPLITS}]
    places: list[dict[Split, Places]] = [{} for _ in settings.sources]
    for number, split in enumerate(SPLITS):
        counts = shares([source.weight for source in settings.sources], settings.sequences(split))
        if split == "train" and 0 in counts:
            place = counts.index(0)
            raise CorpusError(
                f"corpus.sources[{place}]: weight {settings.sources[place].weight} gives it none of"
                f" {sum(counts)} sequences; raise it or train_tokens, or remove the source"
            )
        order = np.repeat(np.arange(len(counts), dtype=np.uint16), counts)
        np.random.default_rng([settings.seed, number]).shuffle(order)
        for source, of_source in enumerate(places):
            of_source[split] = np.flatnonzero(order == source)
    return places


def _part(
    source: CorpusSource,
    key: str,
    places: Mapping[Split, Places],
    settings: CorpusSettings,
    vocabulary_size: int,
    commit_of: Callable[[HubDataset], str],
) -> Part:
    share = settings.validation_tokens / (settings.train_tokens + settings.validation_tokens)
    name = ""
    if isinstance(settings, MixtureCorpus):
        name = source.source or (source.dataset if isinstance(source, HubDataset) else source.path)
        if getattr(source, "source_field", None) is None:
            source = source.model_copy(update={"source": name})
    if isinstance(source, HubDataset):
        commit = commit_of(source) if source.is_remote else ""
        read = partial(read_documents, source, key, share, commit=commit)
        return Part(key, name, places, read, files=local_files(source), commit=commit)
    files = corpus_files(source, key)
    if isinstance(source, TextFiles):
        read = partial(read_documents, source, key, share, files)
        return Part(key, name, places, read, most_tokens=most_tokens(files), files=files)
    return _token_part(source, key, name, places, settings.sequence_length, vocabulary_size, share)


def _token_part(
    source: TokenFiles,
    key: str,
    name: str,
    places: Mapping[Split, Places],
    length: int,
    vocabulary_size: int,
    share: float,
) -> Part:
    opened = open_token_files(source, key, length)
    read = partial(read_sequences, opened, source, key, length, vocabulary_size, share)
    most = count_sequences(opened, length) * length
    return Part(key, name, places, read, False, most, [file.path for file in opened])
