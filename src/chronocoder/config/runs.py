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


def steps_of(run: str) -> dict[str, int]:
    """Return the steps of the checkpoints in the directory of a run by their directories' names, in order.

    Directories named `checkpoint-500`, as transformers' Trainer does, `step500` and the like are taken for checkpoints.

    Raises:
        ValueError: there is none.
    """
    found = {path: match for path in sorted(Path(run).glob("*/")) if (match := _STEP_DIRECTORY.fullmatch(path.name))}
    if not found:
        what = "holds no directory" if Path(run).is_dir() else "is no directory: there is none"
        raise ValueError(f"path '{run}' {what} named checkpoint-N or stepN; correct it, or list the checkpoints")
    return {name: step for step, name in sorted((int(match[1]), path.name) for path, match in found.items())}


def saved_checkpoints(run: str, steps: Mapping[str, int], tokens_per_step: int | None) -> dict[str, SavedCheckpoint]:
    """Return checkpoints in the directory of a run by their directories' names.

    Args:
        run: the directory.
        steps: their steps, by name; others are not looked at.
        tokens_per_step: tokens of a step; None: as the Trainer's state records.

    Raises:
        ValueError: one is no Hugging Face directory, or its tokens are not recorded.
    """
    paths = {name: Path(run) / name for name in steps}
    for path in paths.values():
        if not (path / "config.json").is_file():
            raise ValueError(
                f"{path}: no config.json there; wait if it is being saved, delete it if it is no whole checkpoint, or"
                " list those to take in source.checkpoints"
            )
    return {
        name: SavedCheckpoint(str(path), _tokens(path, steps[name], tokens_per_step)) for name, path in paths.items()
    }


def tokenizer_directory(run: str, checkpoints: Mapping[str, SavedCheckpoint]) -> str:
    """Return where the tokenizer of a run lies: in its first checkpoint that has one, or else beside the checkpoints.

    Raises:
        ValueError: in none of these places.
    """
    for place in (*(checkpoint.path for checkpoint in checkpoints.values()), run):
        if any((Path(place) / name).is_file() for name in _TOKENIZER_FILES):
            return place
    raise ValueError(
        f"path '{run}': neither it nor any of its checkpoints holds a tokenizer ({', '.join(_TOKENIZER_FILES)});"
        f" save it with tokenizer.save_pretrained('{run}')"
    )


def _tokens(checkpoint: Path, step: int, tokens_per_step: int | None) -> int:
    if tokens_per_step is not None or step == 0:
        return step * (tokens_per_step or 0)
    state = checkpoint / _STATE_FILE
    if not state.is_file():
        raise ValueError(
            f"{checkpoint}: no {_STATE_FILE} there that records its tokens; wait if it is being saved, or {_REMEDY}"
        )
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
