"""What the parts of the GPU benchmark measure, at which sizes, and for how long. Nothing here needs torch."""

import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Row(NamedTuple):
    """A line of the table.

    Attributes:
        what: what was measured.
        value: the figure; None where it could not be measured here.
        unit: its unit.
        against: what the ratio compares it with, in words and figures.
        ratio: higher is better, except where `target` is an upper limit.
        target: what the ratio should be; None where nothing is asked for.
        at_most: whether the target is an upper limit.
    """

    what: str
    value: float | None
    unit: str
    against: str = ""
    ratio: float | None = None
    target: float | None = None
    at_most: bool = False

    @property
    def missed(self) -> bool:
        """Whether there is a target, and the ratio misses it."""
        if self.target is None or self.ratio is None:
            return False
        return self.ratio > self.target if self.at_most else self.ratio < self.target


class Setting(NamedTuple):
    """The sizes that are measured; the default is that of the published experiments with Pythia-1B.

    Attributes:
        reduced: whether it only shows that everything runs.
        d_model: width of an activation, and of the models.
        checkpoints: M.
        batch_tokens: tokens of a training step.
        product: rows and columns of the matrices whose product is the measured peak.
        rounds: of a measurement, at most.
        stored_rows: tokens in a store.
        steps: training steps with each loader.
        blocks: of a model.
        heads: of attention.
        vocabulary: of a model.
        site: where activations are read.
        sequence_length: of the text that is streamed.
        sequences: of that text.
        examples: prefixes whose effects are measured.
        k: active features a token of the crosscoder whose effects are measured.
        tasks: of an experiment that is projected.
        pairs: of each of its tasks.
    """

    reduced: bool = False
    d_model: int = 2048
    checkpoints: int = 3
    batch_tokens: int = 4096
    product: int = 8192
    rounds: int = 20
    stored_rows: int = 131_072
    steps: int = 32
    blocks: int = 16
    heads: int = 8
    vocabulary: int = 50_304
    site: str = "residual.8"
    sequence_length: int = 1024
    sequences: int = 64
    examples: int = 160
    k: int = 100
    tasks: int = 9
    pairs: int = 400

    @property
    def dictionary_size(self) -> int:
        """Latents: eight times the width."""
        return 8 * self.d_model

    def judged(self, target: float | None) -> float | None:
        """Return a target, which reduced sizes cannot be held to."""
        return None if self.reduced else target

    def arguments(self, device: str) -> Namespace:
        """Return the arguments by which the other benchmarks make their data."""
        return Namespace(
            d_model=self.d_model,
            width=self.d_model,
            checkpoints=self.checkpoints,
            dictionary_size=self.dictionary_size,
            batch_tokens=self.batch_tokens,
            precision="bfloat16",
            rows=self.stored_rows,
            k=32,
            device=device,
        )


REDUCED = Setting(
    reduced=True,
    d_model=32,
    batch_tokens=128,
    product=64,
    rounds=2,
    stored_rows=16_384,
    steps=4,
    blocks=3,
    heads=2,
    vocabulary=300,
    site="residual.1",
    sequence_length=64,
    sequences=16,
    examples=4,
    k=8,
)


@dataclass(frozen=True)
class Budget:
    """Time until which measurements may begin another round.

    Attributes:
        ends: as `time.monotonic` tells it.
    """

    ends: float

    @classmethod
    def of(cls, seconds: float) -> "Budget":
        """Return a budget of so many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self.ends - time.monotonic())

    def shares(self, parts: int) -> Iterator["Budget"]:
        """Yield a budget for each of several parts: an equal share of what is then left."""
        for others in range(parts, 0, -1):
            yield Budget.of(self.left / others)
