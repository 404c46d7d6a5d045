"""Whether checkpoints suit a suite, and read its tokens as the words they were made of.

Imports neither torch nor transformers. Tokenizers are compared by their files, so that hundreds of
checkpoints are checked in less than a second.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chronocoder.config import Experiment, HubSource, LocalSource, Suite
from chronocoder.errors import ConfigError
from chronocoder.labels import place_of
from chronocoder.site_names import parse_site

FORMS = (("tokenizer.json",), ("tokenizer.model",), ("spiece.model",), ("vocab.json", "merges.txt"), ("vocab.txt",))
"""Files that say which tokens there are: those of one form together. The first form that two directories share counts.
"""
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
_BLOCKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
NO_WORDS = ("truncation", "padding")
"""Parts of a `tokenizer.json` that change no token of a text."""


def check_local_checkpoints(experiment: Experiment) -> None:
    """Check, before anything runs, that local checkpoints suit the suite that they are read in.

    They have to agree with its tokenizer, to take sequences as long as its corpus has, and to have the blocks of its
    sites. Nothing is checked of directories that are not there, which is said elsewhere, nor of suites that are trained
    or downloaded: `check_agreement` is a job of theirs.

    Raises:
        ConfigError: one does not; the message names its key, the files, and in what they differ.
    """
    for name, suite in experiment.suites.items():
        if not isinstance(suite.source, LocalSource):
            continue
        directories = {}
        for checkpoint in suite.readers:
            place = place_of(checkpoint, name)
            source = experiment.suites[place.suite].source
            if isinstance(source, LocalSource):
                key = f"suites.{place.suite}.source.checkpoints.{place.revision}"
                directories[key] = Path(source.saved[place.revision].path)
        check_agreement(Path(suite.source.tokenizer), directories)
        for directory in directories.values():
            _check_model(name, suite, directory / "config.json")


def has_to_be_checked(experiment: Experiment, suite: str) -> bool:
    """Say whether some checkpoint that reads a suite's tokens is downloaded, so that a job has to check them all."""
    places = [place_of(checkpoint, suite) for checkpoint in experiment.suites[suite].readers]
    return any(isinstance(experiment.suites[place.suite].source, HubSource) for place in places)


def check_agreement(tokenizer: Path, checkpoints: Mapping[str, Path]) -> None:
    """Check that checkpoints share a tokenizer, and that each has a row for every token of it.

    Args:
        tokenizer: directory of the tokenizer that makes the text.
        checkpoints: directories of the checkpoints, by what messages call them.

    Raises:
        ConfigError: one differs or has too few rows; the message names both files, and in what they differ.
    """
    for name, checkpoint in checkpoints.items():
        try:
            check_same_tokenizer(checkpoint, tokenizer)
            _check_rows(checkpoint, tokenizer)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None


def check_same_tokenizer(checkpoint: Path, tokenizer: Path) -> None:
    """Check that a checkpoint's own tokenizer makes the tokens that another one does, by the files that say so.

    Where the two directories have no such files in common their vocabularies and merges are compared, if both have
    them as JSON or text; else nothing, as `not_compared` says. Truncation and padding do not count.

    Raises:
        ConfigError: they differ; the message names in what.
    """
    names = _common_form(checkpoint, tokenizer)
    for name in names:
        own, other = _Content.of(checkpoint / name), _Content.of(tokenizer / name)
        if own != other and (different := _differences(own, other)):
            raise _differ(own.file, other.file, different)
    if names:
        return
    words, expected = _Words.of(checkpoint), _Words.of(tokenizer)
    if words and expected and (different := words.differences(expected)):
        raise _differ(words.file, expected.file, different)


def not_compared(checkpoint: Path, tokenizer: Path) -> str:
    """Return why a checkpoint's tokenizer cannot be compared with another one; empty where it is compared."""
    if _common_form(checkpoint, tokenizer) or (_Words.of(checkpoint) and _Words.of(tokenizer)):
        return ""
    own, other = (
        ", ".join(name for form in FORMS if _has(place, form) for name in form) or "no tokenizer"
        for place in (checkpoint, tokenizer)
    )
    return f"{checkpoint} has {own}, {tokenizer} has {other}"


def tokenizer_digest(directory: Path) -> str:
    """Return a digest of a directory's tokenizer, its words and what separates documents; empty where it has none."""
    files = next((form for form in FORMS if _has(directory, form)), ())
    digests = [_digest_of_words(_Content.of(directory / name)) for name in files]
    return _digest_of_json([*digests, *_separators(directory)]) if files else ""


def largest_token(tokenizer: Path) -> int | None:
    """Return the largest token id of a tokenizer; None where its files do not tell without a library."""
    for name in ("tokenizer.json", "vocab.json"):
        if (tokenizer / name).is_file():
            return _largest(_Content.of(tokenizer / name))
    return None


def rows_of_model(checkpoint: Path) -> int | None:
    """Return how many tokens a model knows, by its `config.json`; None where that does not tell.

    It may be more than its tokenizer has: the rows of embeddings are often padded to a round number.
    """
    file = checkpoint / "config.json"
    if not file.is_file():
        return None
    config = _read(file)
    found = config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))
    return found if isinstance(found, int) else None


def _check_rows(checkpoint: Path, tokenizer: Path) -> None:
    rows, largest = rows_of_model(checkpoint), largest_token(tokenizer)
    if rows is not None and largest is not None and largest >= rows:
        raise ConfigError(
            f"{checkpoint / 'config.json'} has vocab_size {rows}, but the largest token id in {tokenizer} is {largest}:"
            " the model has no row for it; compare checkpoints that share their tokenizer, or give the model more rows"
            " by transformers' resize_token_embeddings and save it"
        )


def _check_model(name: str, suite: Suite, file: Path) -> None:
    """Check that a model takes sequences as long as the corpus has and has the blocks of all sites, where it tells."""
    config = _read(file) if file.is_file() else {}
    text = config.get("text_config", config)
    for key in _POSITIONS:
        most, asked = text.get(key), suite.corpus.sequence_length
        if isinstance(most, int) and 0 < most < asked:
            raise ConfigError(
                f"suites.{name}.corpus.sequence_length {asked}: {file} has {key} {most}; lower it to that"
            )
    for blocks in [text[key] for key in _BLOCKS if isinstance(text.get(key), int)]:
        for site in sorted({suite.site, *suite.sites}):
            if parse_site(site).block(blocks) >= blocks:
                raise ConfigError(
                    f"suites.{name}: site '{site}' is outside the model: it has blocks 0 to {blocks - 1} ({file});"
                    " choose one of them"
                )


def _differ(own: Path, other: Path, different: list[str]) -> ConfigError:
    return ConfigError(
        f"{own} differs from {other}, which made the text, in {', '.join(different)}: the checkpoint would read other"
        " words; compare checkpoints that share their tokenizer"
    )


def _common_form(checkpoint: Path, tokenizer: Path) -> tuple[str, ...]:
    return next((form for form in FORMS if _has(checkpoint, form) and _has(tokenizer, form)), ())


def _has(directory: Path, form: tuple[str, ...]) -> bool:
    return all((directory / name).is_file() for name in form)


@dataclass(frozen=True)
class _Content:
    """What is in a file, wherever the file is: the same content is read once.

    Attributes:
        digest: of its bytes.
        file: where it was found.
    """

    digest: str
    file: Path = field(compare=False)

    @classmethod
    def of(cls, file: Path) -> "_Content":
        state = file.stat()
        return cls(_digest(file, (state.st_mtime_ns, state.st_size)), file)


@dataclass(frozen=True)
class _Words:
    """The words of a tokenizer, from any form that is JSON or text.

    Attributes:
        file: where they were found.
        ids: of the vocabulary.
        added: ids of tokens beside it.
        merges: pairs of BPE; None where it does not merge.
    """

    file: Path
    ids: Mapping[str, int]
    added: Mapping[str, int]
    merges: list[list[str]] | None

    @classmethod
    def of(cls, directory: Path) -> "_Words | None":
        """Return the words of a directory's tokenizer; None where no file tells them without a library."""
        if _has(directory, ("tokenizer.json",)):
            return _words_of_json(_Content.of(directory / "tokenizer.json"))
        extra = directory / "added_tokens.json"
        added = _read(extra) if extra.is_file() else {}
        if _has(directory, ("vocab.json", "merges.txt")):
            lines = _lines(directory / "merges.txt")
            merges = _pairs([line for line in lines if line and not line.startswith("#version")])
            return cls(directory / "vocab.json", _read(directory / "vocab.json"), added, merges)
        if _has(directory, ("vocab.txt",)):
            ids = {word: number for number, word in enumerate(_lines(directory / "vocab.txt"))}
            return cls(directory / "vocab.txt", ids, added, None)
        return None

    def differences(self, other: "_Words") -> list[str]:
        """Return in what two differ; what is in the vocabulary of one may be added to that of the other."""
        found, expected = {**self.ids, **self.added}, {**other.ids, **other.added}
        same = self.ids.items() <= expected.items() and other.ids.items() <= found.items()
        return [*([] if same else ["vocabulary"]), *([] if self.merges == other.merges else ["merges"])]


@functools.cache
def _words_of_json(content: _Content) -> _Words | None:
    parts = _parts(content)
    ids = parts.get("model.vocab")
    if not isinstance(ids, dict):
        return None
    added = {token["content"]: token["id"] for token in parts.get("added_tokens", [])}
    return _Words(content.file, ids, added, parts.get("model.merges"))


@functools.cache
def _digest(file: Path, _state: tuple[int, int]) -> str:
    """Return a digest of a file's bytes, once for each `state`, its time of change and its size."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@functools.cache
def _digest_of_words(content: _Content) -> str:
    return _digest_of_json(_parts(content)) if content.file.suffix == ".json" else content.digest


def _digest_of_json(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _separators(directory: Path) -> list[str | None]:
    """Return the tokens that begin and end a sequence, whichever version of transformers saved them."""
    files = [directory / name for name in ("special_tokens_map.json", "tokenizer_config.json")]
    found = {key: token for file in files if file.is_file() for key, token in _read(file).items()}
    tokens = [found.get(name) for name in ("bos_token", "eos_token")]
    return [token.get("content") if isinstance(token, dict) else token for token in tokens]


@functools.cache
def _differences(own: _Content, other: _Content) -> list[str]:
    """Return in what two files of tokenizers differ: keys of JSON, those below `model` too."""
    if own.file.suffix != ".json":
        return ["their bytes"]
    found, expected = _parts(own), _parts(other)
    return sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))


def _parts(content: _Content) -> dict[str, Any]:
    """Return what a file says about words, the same whichever version of the tokenizers library saved it."""
    document = {key: value for key, value in _bare(_read(content.file)).items() if key not in NO_WORDS}
    model = document.pop("model", None)
    if not isinstance(model, dict):
        return document | {"model": model}
    if "merges" in model:
        model.pop("type", None)  # early versions leave it out; what merges is BPE
        model["merges"] = _pairs(model["merges"])
    return document | {f"model.{key}": value for key, value in model.items()}


def _bare(value: Any) -> Any:
    """Return JSON without the keys that early versions leave out and whose absence means the same."""
    if isinstance(value, list):
        return [_bare(one) for one in value]
    if not isinstance(value, dict):
        return value
    kept = {key: one for key, one in value.items() if one is not None and one is not False}
    return {key: _bare(one) for key, one in kept.items() if not (key == "use_regex" and one is True)}


def _pairs(merges: list[Any]) -> list[list[str]]:
    """Return merges as pairs; early versions write each as a text with a space."""
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]


@functools.cache
def _largest(content: _Content) -> int | None:
    document = _read(content.file)
    if content.file.name == "vocab.json":
        return max(document.values(), default=None)
    vocabulary = document.get("model", {}).get("vocab", {})
    ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else range(len(vocabulary))
    return max([*ids, *(token["id"] for token in document.get("added_tokens", []))], default=None)


def _lines(file: Path) -> list[str]:
    """Return the lines of a text; words may hold any other character that `str.splitlines` splits at."""
    return file.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def _read(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: no readable JSON ({error}); save or download it again") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{file}: holds no JSON object; save or download it again")
    return document
