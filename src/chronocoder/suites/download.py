"""Downloading a revision of a model: it appears whole and verified, and a cut download goes on where it stopped.

Files come over plain HTTP, each verified by the checksum that the hub states before it gets its name; what is there of
an unfinished download stays beside the final place, in a directory whose name begins with a dot.
"""

import hashlib
import json
import logging
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import hf_hub_url
from huggingface_hub.file_download import http_get
from huggingface_hub.utils.tqdm import disable_progress_bars

from chronocoder.errors import ConfigError
from chronocoder.renaming import put_in_place
from chronocoder.suites.families import MAIN, HubPlace
from chronocoder.suites.hub import HubFile, hub_errors, hub_token, revision_files
from chronocoder.suites.lock import locked_commit
from chronocoder.suites.pickled import convert_pickled
from chronocoder.suites.tokenizer_files import CONFIGURATION, TOKENIZER

COMMIT_FILE = "commit.json"
_WEIGHTS = (r"model\.safetensors", r"model-\d+-of-\d+\.safetensors|model\.safetensors\.index\.json")
_PICKLED = (r"pytorch_model\.bin", r"pytorch_model-\d+-of-\d+\.bin|pytorch_model\.bin\.index\.json")
_log = logging.getLogger(__name__)


class Needed(NamedTuple):
    """What a checkpoint is made of.

    Attributes:
        repository: it comes from.
        revision: that was asked for.
        commit: that this is.
        files: those that are needed.
        pickled: whether its weights are pickled, and to be converted.
    """

    repository: str
    revision: str
    commit: str
    files: list[HubFile]
    pickled: bool = False

    @property
    def label(self) -> str:
        """How messages name the revision."""
        return _label(self.revision, self.commit)

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.size_bytes for file in self.files)

    @property
    def weights_digest(self) -> str:
        """A digest of its weights, by the checksums that the hub states."""
        weights = [file for file in self.files if file.name.endswith((".safetensors", ".bin"))]
        checksums = sorted(file.sha256 or file.blob for file in weights)
        return hashlib.sha256(" ".join(checksums).encode()).hexdigest()


def checkpoint_parts(lock: Path, place: HubPlace, tokenizer: str | None, pickled_weights: bool) -> list[Needed]:
    """Return what a checkpoint is made of: configuration, weights in one format, and a tokenizer, its own or another's.

    Safetensors are preferred; optimizer states, other formats and what lies in folders are left out.

    Args:
        lock: file that records the commits of revisions.
        place: repository and revision.
        tokenizer: repository of the tokenizer, for a revision that has none.
        pickled_weights: take pickled weights where there are no safetensors.

    Raises:
        ConfigError: the hub does not supply it, it has pickled weights only and they are not to be taken, or there is
            no tokenizer.
    """
    commit = locked_commit(lock, *place)
    checkpoint = _select(
        place, commit, revision_files(place.repository, _label(place.revision, commit), commit), pickled_weights
    )
    return _with_tokenizer(checkpoint, lock, tokenizer)


def tokenizer_parts(lock: Path, place: HubPlace, tokenizer: str | None) -> list[Needed]:
    """Return what the tokenizer of a checkpoint is made of: its configuration too, by which some are told.

    Args:
        lock: file that records the commits of revisions.
        place: repository and revision.
        tokenizer: repository of the tokenizer, for a revision that has none.

    Raises:
        ConfigError: the hub does not supply it, or there is no tokenizer.
    """
    commit = locked_commit(lock, *place)
    files = revision_files(place.repository, _label(place.revision, commit), commit)
    return _with_tokenizer(Needed(*place, commit, _small(files)), lock, tokenizer)


def _with_tokenizer(checkpoint: Needed, lock: Path, tokenizer: str | None) -> list[Needed]:
    """Return a part, and beside it a tokenizer from another repository where it has none."""
    if any(TOKENIZER.fullmatch(file.name) for file in checkpoint.files):
        return [checkpoint]
    if tokenizer is None:
        raise ConfigError(
            f"model {checkpoint.repository} at '{checkpoint.label}' has no tokenizer; set source.tokenizer to the"
            " repository that has it"
        )
    return [checkpoint, _tokenizer(tokenizer, locked_commit(lock, tokenizer, MAIN))]


def _select(place: HubPlace, commit: str, files: Sequence[HubFile], pickled_weights: bool) -> Needed:
    """Return the files of a revision that are needed."""
    small = _small(files)
    if safe := _weights(files, _WEIGHTS):
        return Needed(*place, commit, [*small, *safe])
    pickled = _weights(files, _PICKLED)
    if not pickled:
        raise ConfigError(
            f"model {place.repository} at '{place.revision}' has no weights that can be read (model.safetensors,"
            " pytorch_model.bin); choose another checkpoint"
        )
    if not pickled_weights:
        raise ConfigError(
            f"model {place.repository} at '{place.revision}' has no safetensors; set source.pickled_weights to true if"
            " you trust it"
        )
    return Needed(*place, commit, [*small, *pickled], pickled=True)


def _small(files: Sequence[HubFile]) -> list[HubFile]:
    return [file for file in files if CONFIGURATION.fullmatch(file.name) or TOKENIZER.fullmatch(file.name)]


def _tokenizer(repository: str, commit: str) -> Needed:
    """Return what is needed of a repository for its tokenizer."""
    found = revision_files(repository, _label(MAIN, commit), commit)
    files = [file for file in found if TOKENIZER.fullmatch(file.name)]
    if not files:
        raise ConfigError(f"model {repository} at '{MAIN}' has no tokenizer; correct source.tokenizer")
    return Needed(repository, MAIN, commit, files)


def download_checkpoint(parts: Sequence[Needed], output: Path) -> None:
    """Download a checkpoint as a Hugging Face directory with weights as safetensors, and note its commit.

    Args:
        parts: what it is made of, itself first.
        output: the directory; it appears whole.

    Raises:
        ConfigError: the disk has too little space, a transfer fails, a file is damaged, or pickled weights hold more
            than weights. What is there stays, and another call goes on from it.
    """
    partial, checkpoint = _partial(output), parts[0]
    record = {"repository": checkpoint.repository, "commit": checkpoint.commit, "weights": checkpoint.weights_digest}
    _begin(partial, json.dumps(record))
    _check_space(parts, output)
    for part in parts:
        for file in part.files:
            _fetch(part, file, partial)
    if checkpoint.pickled:
        convert_pickled(partial)
    put_in_place(partial, output)
    _log.info("downloaded %s at %s to %s", checkpoint.repository, checkpoint.label, output)


def check_distinct(checkpoints: Mapping[str, Path]) -> None:
    """Check that no two downloaded checkpoints of a run have the same weights: some are published under a wrong name.

    Args:
        checkpoints: directories by name; what was not downloaded is left out.

    Raises:
        ConfigError: two have; names both.
    """
    named: dict[str, str] = {}
    for name, path in checkpoints.items():
        record = json.loads((path / COMMIT_FILE).read_text()) if (path / COMMIT_FILE).is_file() else {}
        same = named.setdefault(record.get("weights", name), name)
        if same != name:
            raise ConfigError(
                f"{same} and {name}: the hub has the same weights under both names, so that one of them is wrong; take"
                " that one, or both, out of source.checkpoints"
            )


def bytes_to_come(parts: Sequence[Needed], output: Path) -> int:
    """Return the bytes of a checkpoint that an unfinished download has not fetched yet."""
    present = sum(path.stat().st_size for path in _partial(output).glob("*") if path.name != COMMIT_FILE)
    return max(0, sum(part.size_bytes for part in parts) - present)


def _partial(output: Path) -> Path:
    return output.with_name(f".{output.name}.partial")


def _label(revision: str, commit: str) -> str:
    return revision if revision == commit else f"{revision}, commit {commit}"


def _weights(files: Sequence[HubFile], names: tuple[str, str]) -> list[HubFile]:
    """Return the weights in one file if they are there, else those in several, with their index."""
    found: list[list[HubFile]] = [[file for file in files if re.fullmatch(name, file.name)] for name in names]
    return found[0] or found[1]


def _begin(partial: Path, record: str) -> None:
    """Make the directory of an unfinished download; what is there of another commit goes."""
    if partial.is_dir() and (not (partial / COMMIT_FILE).is_file() or (partial / COMMIT_FILE).read_text() != record):
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    (partial / COMMIT_FILE).write_text(record, encoding="utf-8")


def _check_space(parts: Sequence[Needed], output: Path) -> None:
    """Check that the disk holds what is to come, and the converted weights beside pickled ones."""
    to_come = bytes_to_come(parts, output) + (parts[0].size_bytes if parts[0].pickled else 0)
    free = shutil.disk_usage(output.parent).free
    if to_come > free:
        raise ConfigError(
            f"{output}: {to_come / 1e9:.1f} GB are to come of {parts[0].repository}, and the disk has"
            f" {free / 1e9:.1f} GB; make room, or set results to a directory on another disk"
        )


def _fetch(needed: Needed, file: HubFile, directory: Path) -> None:
    """Download a file, or the rest of it; it gets its name when its checksum agrees."""
    target = directory / file.name
    if target.is_file():
        return
    part = directory / f"{file.name}.incomplete"
    present = part.stat().st_size if part.is_file() else 0
    if present > file.size_bytes:
        part.unlink()
        present = 0
    if present < file.size_bytes:
        _log.info("%s: %s, %d of %d bytes are there", needed.repository, file.name, present, file.size_bytes)
        disable_progress_bars()
        with hub_errors(needed.repository, needed.label), part.open("ab") as content:
            headers = {"Accept-Encoding": "identity"}  # what is sent compressed cannot be resumed
            if token := hub_token():
                headers["Authorization"] = f"Bearer {token}"
            url = hf_hub_url(needed.repository, file.name, revision=needed.commit)
            http_get(url, content, resume_size=present, headers=headers)
    part.touch()
    _verify(needed, file, part)
    part.rename(target)


def _verify(needed: Needed, file: HubFile, part: Path) -> None:
    """Check a file's content: a large one by its SHA-256, another by the name that git gives to it."""
    digest = hashlib.sha256() if file.sha256 else hashlib.sha1(b"blob %d\0" % part.stat().st_size)
    with part.open("rb") as content:
        while block := content.read(1 << 24):
            digest.update(block)
    expected = file.sha256 or file.blob
    if digest.hexdigest() != expected:
        part.unlink()
        raise ConfigError(
            f"model {needed.repository} at '{needed.label}': {file.name} came damaged ({digest.name}"
            f" {digest.hexdigest()}, the hub states {expected}) and is deleted; run it again to fetch it anew"
        )
