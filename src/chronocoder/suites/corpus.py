"""The text that activations are harvested on: documents, packed into sequences of tokens."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import xarray as xr
from transformers import PreTrainedTokenizerBase

from chronocoder.config import Corpus, CorpusSettings, HubCorpus, NurseryCorpus, TextCorpus
from chronocoder.errors import CorpusError
from chronocoder.stores import labelled, strings
from chronocoder.suites.nursery.grammar import hash_share, sentences_by_language
from chronocoder.suites.packing import pack_languages

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")
_log = logging.getLogger(__name__)


def read_documents(corpus: Corpus, languages: Sequence[str], split: Split) -> dict[str, Iterator[str]]:
    """Return the documents of one split by language; no document is in both splits.

    Args:
        corpus: where they come from.
        languages: the nursery's languages; other corpora do not look at them.
        split: the split.

    Raises:
        CorpusError: the file does not exist, or a line has not the text field.
    """
    if isinstance(corpus, NurseryCorpus):
        return sentences_by_language(languages, split, corpus.seed)
    documents = _read_file(corpus) if isinstance(corpus, TextCorpus) else _read_hub(corpus)
    share = corpus.validation_tokens / (corpus.train_tokens + corpus.validation_tokens)
    return {corpus.language: (text for text in documents if (hash_share(text) < share) == (split == "validation"))}


def build_corpus(
    documents: Mapping[str, Iterable[str]],
    tokenizer: PreTrainedTokenizerBase,
    separator: int,
    settings: CorpusSettings,
    split: Split,
) -> xr.Dataset:
    """Tokenise and pack documents, given by language, into as many whole sequences as the settings ask for.

    Returns:
        `token_ids` with dims (sequence, position), and the `language` of each sequence, empty where none is named.

    Raises:
        CorpusError: the documents end before that.
    """
    wanted = int(getattr(settings, f"{split}_tokens")) // settings.sequence_length
    cut = isinstance(settings, NurseryCorpus)  # as its pretraining does: no sequence begins within a sentence
    seed = f"{split} {settings.seed if isinstance(settings, NurseryCorpus) else ''}"
    packed = pack_languages(documents, tokenizer, separator, settings.sequence_length, cut, seed)
    sequences = list(islice(packed, wanted))
    if len(sequences) < wanted:
        raise CorpusError(
            f"corpus, split '{split}': {split}_tokens asks for {wanted * settings.sequence_length} tokens,"
            f" the text has only {len(sequences) * settings.sequence_length}; lower {split}_tokens or give more text"
        )
    _log.info("corpus, split %s: %d sequences of %d tokens", split, wanted, settings.sequence_length)
    token_ids = np.stack([sequence.token_ids for sequence in sequences])
    languages = strings([sequence.language for sequence in sequences])
    coords = {"sequence": np.arange(wanted), "position": np.arange(settings.sequence_length)}
    return xr.Dataset(
        {
            "token_ids": labelled(("sequence", "position"), token_ids, "token of the text"),
            "language": labelled(("sequence",), languages, "language of the sequence"),
        },
        coords=coords,
    )


def _read_file(corpus: TextCorpus) -> Iterator[str]:
    path = Path(corpus.path)
    if not path.is_file():
        raise CorpusError(f"{path}: no such file; correct corpus.path")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            text = _jsonl_text(line, corpus.text_field, f"{path}, line {number}") if path.suffix == ".jsonl" else line
            if text.strip():
                yield text.strip()


def _jsonl_text(line: str, field: str, where: str) -> str:
    try:
        return str(json.loads(line)[field])
    except (json.JSONDecodeError, KeyError, TypeError):
        raise CorpusError(f"{where}: needs a JSON object with the key '{field}'; set corpus.text_field") from None


def _read_hub(corpus: HubCorpus) -> Iterator[str]:
    from datasets import load_dataset  # here, because it takes a second to import

    dataset = load_dataset(corpus.dataset, corpus.name, split=corpus.split, streaming=True)
    for row in dataset:
        if corpus.text_field not in row:
            raise CorpusError(
                f"dataset '{corpus.dataset}' has no column '{corpus.text_field}', only {', '.join(row)};"
                " set corpus.text_field"
            )
        yield str(row[corpus.text_field])
