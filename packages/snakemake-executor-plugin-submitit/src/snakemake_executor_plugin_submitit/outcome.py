"""How a job stands, as a file that the node writes and the controlling process reads."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Outcome:
    """How a job stands.

    Attributes:
        state: `running`, `done` or `failed`.
        message: why it failed; empty otherwise.
        job_id: the scheduler's name for the allocation it ran in.
        started: when this attempt began, in seconds since 1970.
        seconds: how long this attempt ran; 0 while it runs.
    """

    state: str
    message: str = ""
    job_id: str = ""
    started: float = 0.0
    seconds: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether the job has run, well or not."""
        return self.state != "running"


@dataclass(frozen=True)
class Outcomes:
    """The outcomes of a run's jobs, a file each, named by the job's token.

    Attributes:
        directory: where they are, on a file system that the nodes share.
    """

    directory: Path

    def write(self, token: str, outcome: Outcome) -> None:
        """Write an outcome whole."""
        self.directory.mkdir(parents=True, exist_ok=True)
        partial = self.directory / f".{token}.{os.getpid()}"
        partial.write_text(json.dumps(asdict(outcome)), encoding="utf-8")
        partial.replace(self.directory / token)

    def read(self, token: str) -> Outcome | None:
        """Return an outcome; None if the job has not begun, or a shared file system does not show it yet."""
        try:
            return Outcome(**json.loads((self.directory / token).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def tokens(self) -> Iterator[str]:
        """List the jobs that have begun; listing makes network file systems look anew."""
        if self.directory.is_dir():
            yield from (entry.name for entry in os.scandir(self.directory) if not entry.name.startswith("."))
