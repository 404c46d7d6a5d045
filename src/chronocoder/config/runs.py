"""A pretraining run that was saved here: its checkpoints, what they have seen, and its tokenizer."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_STEP_DIRECTORY = re.compile(r"(?:checkpoint|global_step|step)[-_]?(\d+)")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")
_STATE_FILE = "trainer_state.json"
_REMEDY = "set source.tokens_per_step: the sequences of a step, on all devices, times the tokens of each"


class SavedCheckpoint(NamedTuple):
    """A checkpoint in a local directory.

    Attributes:
        path: Hugging Face directory.
        tokens_seen: tokens the model had been trained on.
    """

    path: str
    tokens_seen: int


def saved_checkpoints(run: str, tokens_per_step: int | None) -> dict[str, SavedCheckpoint]:
    """Return the checkpoints in the directory of a run by their directories' names, in order of their steps.

    Directories named `checkpoint-500`, as transformers' Trainer does, `step500` and the like are taken for checkpoints.

    Args:
        run: the directory.
        tokens_per_step: tokens of a step; None: as the Trainer's state records.

    Raises:
        ValueError: there is none, one is no Hugging Face directory, or tokens are not recorded.
    """
    found = {path: match for path in sorted(Path(run).glob("*/")) if (match := _STEP_DIRECTORY.fullmatch(path.name))}
    if not found:
        what = "holds no directory" if Path(run).is_dir() else "is no directory: there is none"
        raise ValueError(f"path '{run}' {what} named checkpoint-N or stepN; correct it, or list the checkpoints")
    for path in found:
        if not (path / "config.json").is_file():
            raise ValueError(
                f"{path}: no config.json there; delete what is no whole checkpoint, or list the checkpoints"
            )
    steps = sorted((int(match[1]), path) for path, match in found.items())
    return {path.name: SavedCheckpoint(str(path), _tokens(path, step, tokens_per_step)) for step, path in steps}


def tokenizer_directory(run: str, checkpoints: Mapping[str, SavedCheckpoint]) -> str:
    """Return where the tokenizer of a run lies: in its first checkpoint, or else in the directory of the run itself.

    Raises:
        ValueError: in neither.
    """
    first = next(iter(checkpoints.values())).path
    for place in (first, run):
        if any((Path(place) / name).is_file() for name in _TOKENIZER_FILES):
            return place
    raise ValueError(
        f"path '{run}': neither it nor {first} holds a tokenizer ({', '.join(_TOKENIZER_FILES)}); save one"
    )


def _tokens(checkpoint: Path, step: int, tokens_per_step: int | None) -> int:
    if tokens_per_step is not None or step == 0:
        return step * (tokens_per_step or 0)
    state = checkpoint / _STATE_FILE
    if not state.is_file():
        raise ValueError(f"{checkpoint}: no {_STATE_FILE} there that records its tokens; {_REMEDY}")
    try:
        tokens = json.loads(state.read_text(encoding="utf-8")).get("num_input_tokens_seen", 0)
    except (ValueError, AttributeError):
        raise ValueError(f"{state}: no readable JSON; save it again, or {_REMEDY}") from None
    if not tokens:
        raise ValueError(
            f"{state}: num_input_tokens_seen is not recorded (the Trainer does with include_num_input_tokens_seen);"
            f" {_REMEDY}"
        )
    return int(tokens)
