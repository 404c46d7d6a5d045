"""The checkpoints that crosscoders are trained on: given, or chosen from a suite's curves within a budget."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from chronocoder.labels import Control, control_of, is_examined
from chronocoder.settings import CheckpointName, Name, Settings, Site


class Comparison(Settings):
    """The checkpoints that one crosscoder is trained on."""

    checkpoints: list[CheckpointName] = Field(
        min_length=1,
        description="Revisions in order of training. As a control, one revision twice or more often, or beside it"
        " `revision@suite`, that of a suite with another seed at the same step. A single one makes a dictionary of its"
        " own.",
    )
    site: Site | None = Field(None, description="Site of this comparison, where it is not the suite's.")
    variants: list[Name] | None = Field(None, description="Crosscoder variants to train; all where not given.")
    baseline: list[Name] | None = Field(
        None,
        description="Comparisons of a single checkpoint, one for each checkpoint here in order: their dictionaries are"
        " matched afterwards, to show what training one for all of them is worth.",
    )
    why: str = Field("", description="The reason for this choice, kept in `comparisons.yaml`.")

    @property
    def control(self) -> Control:
        """Which control it is: `identity`, `pretraining seed`, or none."""
        return control_of(self.checkpoints)

    @property
    def single(self) -> bool:
        """Whether it is of one checkpoint alone."""
        return len(self.checkpoints) == 1

    @property
    def examined(self) -> bool:
        """Whether it is neither a control nor single: its features are ablated, matched between seeds and reported."""
        return is_examined(self.checkpoints)


AUTO_COMPARISONS: Literal["auto"] = "auto"
"""In place of comparisons: choose them."""
PAIR, TRIPLET = "change", "course"
"""What chosen comparisons are called, before their number."""


class ChoiceSettings(Settings):
    """Comparisons that are chosen from accuracy curves and similarity, and what they may cost."""

    pairs: NonNegativeInt = Field(2, description="Pairs to choose at most: `change1`, `change2` and so on.")
    triplets: NonNegativeInt = Field(1, description="Triplets to choose at most: `course1` and so on.")
    checkpoints: int = Field(
        4, ge=2, description="Checkpoints that these may have altogether, each of which is harvested once."
    )
    tasks: list[Name] | None = Field(None, description="Tasks whose curves count; all where not given.")
    site: Site | None = Field(None, description="Site of the comparisons, where it is not the suite's.")
    variants: list[Name] | None = Field(None, description="Crosscoder variants to train; all where not given.")
    smallest_change: float = Field(0.1, gt=0, lt=1, description="Smallest change of accuracy of interest.")
    false_discovery_rate: float = Field(
        0.05, gt=0, lt=1, description="Of tasks that are said to change, and of changes within a task by chance."
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="Coverage of the intervals.")
    resamples: PositiveInt = Field(
        2000, description="Resamples of the pairs behind each interval, and curves without change behind each p-value."
    )
    seed: NonNegativeInt = Field(0, description="Seed of the halves, of resamples and of curves without change.")

    @model_validator(mode="after")
    def _something_can_be_chosen(self) -> "ChoiceSettings":
        if not self.pairs and not self.triplets:
            raise ValueError("pairs 0 and triplets 0: nothing may be chosen; allow one, or remove auto")
        if self.triplets and self.checkpoints < 3:
            raise ValueError(f"triplets {self.triplets} need checkpoints 3, not {self.checkpoints}; change one")
        return self

    @property
    def names(self) -> list[str]:
        """Names of the comparisons that may be chosen."""
        return [*_numbered(PAIR, self.pairs), *_numbered(TRIPLET, self.triplets)]

    def named(self, pairs: list[list[str]], triplets: list[list[str]]) -> dict[str, Comparison]:
        """Return chosen pairs and triplets of checkpoints as comparisons, by name."""
        names = [*_numbered(PAIR, len(pairs)), *_numbered(TRIPLET, len(triplets))]
        return {name: self.comparison(one) for name, one in zip(names, [*pairs, *triplets], strict=True)}

    def comparison(self, checkpoints: list[str]) -> Comparison:
        """Return a chosen comparison."""
        return Comparison(checkpoints=checkpoints, site=self.site, variants=self.variants)

    def dearest(self, revisions: list[str]) -> dict[str, Comparison]:
        """Return as many comparisons of as many checkpoints as may be chosen from these revisions."""
        pool = revisions[-self.checkpoints :]
        pairs, triplets = ([pool[start : start + size] for start in range(len(pool) - size + 1)] for size in (2, 3))
        return self.named(pairs[: self.pairs], triplets[::-1][: self.triplets])


class ScanSettings(Settings):
    """A cheap look at every checkpoint; only those that are studied are scored in full."""

    limit: PositiveInt = Field(100, description="Pairs a task, drawn at random, the same at every checkpoint.")
    tokens: PositiveInt = Field(8192, description="Validation tokens on which checkpoints are compared.")
    study: list[Name] = Field(
        default_factory=list, description="Checkpoints to score in full beside those that comparisons name."
    )
    seed: NonNegativeInt = Field(0, description="Seed of the draw of pairs.")


def _numbered(word: str, count: int) -> list[str]:
    return [f"{word}{number}" for number in range(1, count + 1)]
