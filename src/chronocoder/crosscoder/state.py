"""The state of a training, saved so that it can go on after any kind of end."""

import json
import logging
import os
import shutil
import signal
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from chronocoder.activations.origin import Origin
from chronocoder.crosscoder.launch import STOP_SIGNALS
from chronocoder.crosscoder.model import CrosscoderConfig
from chronocoder.crosscoder.team import Team
from chronocoder.errors import StoreError

Record = dict[str, float | list[float]]
_PREFIX = "step"
_log = logging.getLogger(__name__)


@dataclass
class TrainingState:
    """All that changes from step to step. The data's order and position follow from the seed and the step.

    Attributes:
        step: steps done.
        tensors: weights, buffers, moments of the optimiser, normalisation and the dead-latent clock, by name.
        records: metrics of the steps logged so far.
    """

    step: int
    tensors: dict[str, Tensor]
    records: list[Record]


@dataclass(frozen=True)
class StateDirectory:
    """Where the state of one training is kept: `step<n>/` with one file a dictionary shard, and nothing half-written.

    A state directory exists only while the training is unfinished: the last thing a finished one does is to remove it.

    Attributes:
        path: the directory.
        identity: what the training is, as `identity_of` returns it.
    """

    path: Path
    identity: dict[str, Any]

    def save(self, state: TrainingState, team: Team) -> None:
        """Save the state; it appears by one rename once every process has written its part."""
        final = self.path / f"{_PREFIX}{state.step}"
        partial = self.path / f".{final.name}.partial"
        if team.leads:
            for unfinished in self.path.glob(f".{_PREFIX}*.partial"):
                shutil.rmtree(unfinished)
            partial.mkdir(parents=True)
            document = {"identity": self.identity, "shards": team.shards, "step": state.step, "records": state.records}
            (partial / "state.json").write_text(json.dumps(document), encoding="utf-8")
        team.wait()
        if team.saves:
            whole = {name: value.contiguous() for name, value in state.tensors.items()}
            save_file(whole, partial / f"shard{team.shard}.safetensors")
            _flush(partial / f"shard{team.shard}.safetensors")
        team.wait()
        if team.leads:
            if not final.exists():
                _flush(partial / "state.json")
                _flush(partial)
                partial.rename(final)
                _flush(self.path)
            for old in self._steps():
                if old != state.step:
                    _discard(self.path / f"{_PREFIX}{old}")
        team.wait()

    def load(self, team: Team) -> TrainingState | None:
        """Return the newest state, on the CPU; None where there is none, or another training's, which is set aside.

        Raises:
            StoreError: the state cannot be read, or is of another number of shards.
        """
        if not (steps := self._steps()):
            return None
        directory = self.path / f"{_PREFIX}{max(steps)}"
        try:
            document = json.loads((directory / "state.json").read_text(encoding="utf-8"))
            if document["identity"] != self.identity:
                self._begin_anew(team)
                return None
            self._check_shards(document["shards"], team)
            tensors = load_file(directory / f"shard{team.shard}.safetensors")
            return TrainingState(document["step"], tensors, document["records"])
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise StoreError(f"{directory}: damaged ({error}); delete {self.path} to begin anew") from error

    def _check_shards(self, shards: int, team: Team) -> None:
        if shards != team.shards:
            raise StoreError(
                f"{self.path}: the state is of {shards} dictionary shards, not {team.shards};"
                f" set training.dictionary_shards to {shards}, or delete the directory to begin anew"
            )

    def _begin_anew(self, team: Team) -> None:
        team.wait()
        if team.leads:
            kept = self.path.with_name(f"{self.path.name}.replaced")
            shutil.rmtree(kept, ignore_errors=True)
            self.path.rename(kept)
            _log.warning(
                "%s was of another training (other settings or inputs): begun anew, kept as %s", self.path, kept
            )
        team.wait()

    def remove(self) -> None:
        """Forget the state: the training is finished."""
        if self.path.exists():
            _discard(self.path)

    def _steps(self) -> list[int]:
        if not self.path.is_dir():
            return []
        return [int(entry.name.removeprefix(_PREFIX)) for entry in self.path.glob(f"{_PREFIX}[0-9]*")]


def _discard(directory: Path) -> None:
    """Remove a directory that is never seen half removed."""
    hidden = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(hidden, ignore_errors=True)
    directory.rename(hidden)
    shutil.rmtree(hidden)


def _flush(path: Path) -> None:
    """Wait until a file, or the entries of a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def identity_of(config: CrosscoderConfig, origin: Origin, parts: int) -> dict[str, Any]:
    """Return what a training is: its state is never gone on with by another one.

    Args:
        config: what is trained.
        origin: of the activations.
        parts: into which each batch is dealt.
    """
    settings = config.settings.model_dump(mode="json")
    document = {"config": {**asdict(config), "settings": settings}, "origin": origin._asdict(), "parts": parts}
    identity: dict[str, Any] = json.loads(json.dumps(document))
    return identity


class StopRequest:
    """Notes the signals by which a scheduler announces the end of a job, so that the state can be saved first.

    Attributes:
        received: the signal, or 0.
    """

    def __init__(self, signals: Sequence[signal.Signals] = STOP_SIGNALS) -> None:
        self.received = 0
        self._signals = signals
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._note) for number in self._signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
