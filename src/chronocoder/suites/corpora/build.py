"""Making a corpus in bounded memory: one pass over its sources fills both splits, and goes on after an interruption."""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from chronocoder.config import SPLITS, CorpusSettings, HubDataset, NurseryCorpus, Split
from chronocoder.errors import CorpusError
from chronocoder.stores import labelled, provenance, strings, write_blocks
from chronocoder.suites.corpora.documents import Document, Label
from chronocoder.suites.corpora.encoding import Batch, Encoder, batches
from chronocoder.suites.corpora.parts import Part, corpus_parts
from chronocoder.suites.corpora.state import Begun, CorpusState, Progress
from chronocoder.suites.lock import locked_commit
from chronocoder.suites.packing import Packer
from chronocoder.suites.tokenizers import load_tokenizer, separator_id

SAVE_TOKENS = 4_000_000
"""Tokens that are made anew at most after an interruption."""
CHUNK_TOKENS = 1 << 21
"""Tokens of a chunk of a corpus."""
_log = logging.getLogger(__name__)


def build_corpus(
    settings: CorpusSettings,
    tokenizer: Path,
    outputs: Mapping[Split, Path],
    state: Path,
    languages: Sequence[str] = (),
    processes: int = 1,
    lock: Path | None = None,
    suite: str = "",
) -> None:
    """Tokenise and pack the text of both splits, in as many whole sequences as the settings ask for.

    Each store holds `token_ids` (sequence, position), and the `language` and `source` of each sequence, empty where
    none is named. It is the same whatever the number of processes, and wherever the work was interrupted.

    Args:
        settings: of the corpus.
        tokenizer: directory of the tokenizer.
        outputs: store to write of each split.
        state: directory for what is unfinished; removed at the end.
        languages: the nursery's languages; other corpora do not look at them.
        processes: how many tokenise.
        lock: the suite's lock file, for datasets on the hub.
        suite: name of the suite.

    Raises:
        CorpusError: the text cannot be read, or is too short.
        ConfigError: the tokenizer cannot be used, or a dataset's revision is not found.
    """
    loaded = load_tokenizer(tokenizer)
    parts = corpus_parts(settings, languages, len(loaded), lambda dataset: _commit(dataset, lock))
    for part in parts:
        _check_amount(part, settings)
    identity = _identity(settings, languages, loaded, parts)
    sequences = {split: settings.sequences(split) for split in SPLITS}
    with (
        CorpusState(state, identity, len(parts), sequences, settings.sequence_length) as unfinished,
        Encoder(tokenizer, loaded, processes) as encoder,
    ):
        if done := sum(sum(part.values()) for part in unfinished.progress.done):
            _log.info("going on after %d tokens", done * settings.sequence_length)
        for number in range(unfinished.progress.part, len(parts)):
            filler = _Filler(number, parts[number], unfinished, settings, separator_id(loaded))
            _fill(filler, parts[number], unfinished.progress.documents, encoder)
            _check_full(parts[number], filler.done, settings)
            filler.save(0)
        commits = [part.commit for part in parts if part.commit]
        for split, path in outputs.items():
            attributes = provenance(settings, suite=suite, split=split, commits=commits)
            write_blocks(_blocks(unfinished, split, settings), path, attributes, "sequence")
            _log.info("corpus, split %s: %d sequences", split, sequences[split])
    unfinished.remove()


class _Filler:
    """Puts a source's documents into sequences, and these into their places."""

    def __init__(self, number: int, part: Part, state: CorpusState, settings: CorpusSettings, separator: int) -> None:
        self._number, self._part, self._state = number, part, state
        self._settings, self._separator = settings, separator
        self._wanted: dict[Split, int] = {split: len(part.places[split]) for split in SPLITS}
        self.done: dict[Split, int] = dict(state.progress.done[number])
        self._packers = {(one.split, one.label): self._packer(one.token_ids) for one in state.progress.begun}

    @property
    def is_full(self) -> bool:
        return self.done == self._wanted

    @property
    def tokens(self) -> int:
        return sum(self.done.values()) * self._settings.sequence_length

    def wants(self, document: Document) -> bool:
        return self.done[document.split] < self._wanted[document.split]

    def add(self, document: Document, ids: np.ndarray) -> None:
        label = self._state.label_number(document.label, self._part.key)
        for sequence in self._sequences(document.split, label, ids):
            if self.wants(document):
                place = self._part.places[document.split][self.done[document.split]]
                self._state.rows[document.split].write(int(place), label, sequence)
                self.done[document.split] += 1

    def save(self, documents: int) -> None:
        """Note that so many documents are dealt with, or that the source has filled all its places."""
        done = list(self._state.progress.done)
        done[self._number] = self.done.copy()
        if self.is_full:
            progress = Progress(part=self._number + 1, done=done)
        else:
            packers = self._packers.items()
            begun = [Begun(split=split, label=label, token_ids=packer.open) for (split, label), packer in packers]
            progress = Progress(part=self._number, documents=documents, done=done, begun=begun)
        self._state.save(progress)

    def _sequences(self, split: Split, label: int, ids: np.ndarray) -> Iterable[np.ndarray]:
        if not self._part.is_text:
            return [ids]
        if (split, label) not in self._packers:
            self._packers[split, label] = self._packer()
        return self._packers[split, label].add(ids)

    def _packer(self, begun: Sequence[int] = ()) -> Packer:
        # The nursery's pretraining cuts too: no sequence begins within a sentence.
        cut = isinstance(self._settings, NurseryCorpus)
        return Packer(self._separator, self._settings.sequence_length, cut, begun)


def _fill(filler: _Filler, part: Part, start: int, encoder: Encoder) -> None:
    """Read a source, from a document on, until it ends or has filled all its places."""
    read = batches(part.read(), start, filler.wants)
    tokenised = encoder.encode(read) if part.is_text else ((batch, _contents(batch)) for batch in read)
    saved = filler.tokens
    with tqdm(initial=saved, unit="token", desc=part.name or part.key, mininterval=2) as bar:
        while not filler.is_full:
            batch, token_ids = next(tokenised, (None, []))
            if batch is None:
                return
            for document, ids in zip(batch.documents, token_ids, strict=True):
                filler.add(document, ids)
            bar.update(filler.tokens - bar.n)
            if filler.tokens - saved >= SAVE_TOKENS and not filler.is_full:
                filler.save(batch.stop)
                saved = filler.tokens


def _contents(batch: Batch) -> list[np.ndarray]:
    return [np.asarray(document.content) for document in batch.documents]


def _check_amount(part: Part, settings: CorpusSettings) -> None:
    """Check what can be known before anything is tokenised.

    Raises:
        CorpusError: a source is too short.
    """
    wanted = sum(len(part.places[split]) for split in SPLITS) * settings.sequence_length
    if part.most_tokens is not None and part.most_tokens < wanted:
        split = max(SPLITS, key=lambda split: len(part.places[split]))
        there = f"{part.most_tokens} bytes" if part.is_text else f"{part.most_tokens} for both splits"
        raise _too_short(part, split, len(part.places[split]) * settings.sequence_length, there)


def _check_full(part: Part, done: Mapping[Split, int], settings: CorpusSettings) -> None:
    """Check that a source has filled all its places.

    Raises:
        CorpusError: it has not.
    """
    for split in SPLITS:
        if done[split] < len(part.places[split]):
            there = ", ".join(f"{done[one] * settings.sequence_length} for {one}" for one in SPLITS)
            raise _too_short(part, split, len(part.places[split]) * settings.sequence_length, there)


def _too_short(part: Part, split: Split, wanted: int, there: str) -> CorpusError:
    name = f" ({part.name})" if part.name else ""
    remedy = f"lower {split}_tokens{' or its weight' if part.name else ''}, or give more text"
    return CorpusError(
        f"{part.key}{name}: {split}_tokens asks for {wanted} tokens{' of it' if part.name else ''}, the text has only"
        f" {there}; {remedy}"
    )


def _blocks(state: CorpusState, split: Split, settings: CorpusSettings) -> Iterator[xr.Dataset]:
    languages, sources = (strings([getattr(label, name) for label in state.labels]) for name in Label._fields)
    for block in state.rows[split].read(max(1, CHUNK_TOKENS // settings.sequence_length)):
        first, labels, token_ids = block
        yield xr.Dataset(
            {
                "token_ids": labelled(("sequence", "position"), token_ids, "token of the text"),
                "language": labelled(("sequence",), languages[labels], "language of the sequence"),
                "source": labelled(("sequence",), sources[labels], "source of the sequence"),
            },
            coords={"sequence": first + np.arange(len(labels)), "position": np.arange(settings.sequence_length)},
        )


def _commit(dataset: HubDataset, lock: Path | None) -> str:
    if lock is None:
        raise CorpusError(f"dataset '{dataset.dataset}' has to be downloaded; give the suite's lock file with --lock")
    return locked_commit(lock, dataset.dataset, dataset.revision, kind="dataset")


def _identity(
    settings: CorpusSettings, languages: Sequence[str], tokenizer: PreTrainedTokenizerBase, parts: Sequence[Part]
) -> dict[str, Any]:
    """Return what a corpus is made of: what is unfinished is never gone on with by another one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = json.dumps(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str()
    files = [path for part in parts for path in part.files]
    return {
        "settings": settings.model_dump(mode="json"),
        "languages": list(languages),
        "tokenizer": hashlib.sha256(vocabulary.encode()).hexdigest(),
        "files": [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files],
        "commits": [part.commit for part in parts],
        "versions": {name: version(name) for name in ("tokenizers", "transformers", "datasets", "numpy")},
    }
