"""How tasks are related to one another: which checkpoints and tasks, how copies are tuned, and what is compared."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from chronocoder.settings import Name, Settings

DIFFERENTIAL, RIGHT, SWAPPED = "differential", "right", "swapped"
FEWEST_PAIRS = 8
"""Pairs of a task that there have to be to tune on, and as many to evaluate on."""
FLOAT32_BYTES = 4
LABELLINGS = 2
"""Sets of gradients that are compared: with right and wrong as they are, and swapped in half of the pairs."""
LARGEST_GRADIENTS = 1 << 31
"""Bytes of the gradients of all groups of all tasks that are compared as they are."""


class SpaceSettings(Settings):
    """What the task space of a suite is made of."""

    checkpoints: list[Name] = Field(
        min_length=1, description="Revisions of the suite at which copies are tuned, in order of training."
    )
    tasks: list[Name] | None = Field(
        None, min_length=2, description="Tasks that are tuned on and evaluated; all of the suite where not given."
    )
    hypothesis: dict[Name, list[Name]] = Field(
        default_factory=dict,
        description="The hypothesised space: tasks that belong together, by a name for each group. A task that is in no"
        " group belongs to its phenomenon.",
    )
    bridge: list[Name] | None = Field(
        None,
        description="Comparisons whose features are held against the transfer between tasks; where not given, all that"
        " the report is about and that have a checkpoint in common with `checkpoints`.",
    )


class MethodSettings(Settings):
    """One way of tuning a copy on a task."""

    objective: Literal["differential", "right", "swapped"] = Field(
        description="`differential`: the loss of the right member of each pair less that of the wrong one; `right`: the"
        " loss of the right member, as in plain fine-tuning; `swapped`: as `differential`, with right and wrong swapped"
        " in half of the pairs, at random: what tuning does where there is nothing to learn."
    )
    fraction: float = Field(
        gt=0,
        le=1,
        description="Fraction of the parameters that may be updated which are: those of largest gradient by size.",
    )
    learning_rate: PositiveFloat = Field(1e-4, description="Of Adam, constant.")


class TuningSettings(Settings):
    """How copies of checkpoints are tuned on tasks."""

    methods: dict[Name, MethodSettings] = Field(
        default_factory=lambda: {
            "ftgd": MethodSettings(objective="differential", fraction=0.01),
            "plain": MethodSettings(objective="right", fraction=1.0),
            "swapped": MethodSettings(objective="swapped", fraction=0.01),
        },
        min_length=1,
        description="Ways of tuning, by name; the first one, which has to be `differential`, makes the task space.",
    )
    steps: PositiveInt = Field(30, description="Steps of each tuning.")
    batch_pairs: PositiveInt = Field(16, description="Minimal pairs in a step.")
    held_out: float = Field(
        0.5, gt=0, lt=1, description="Fraction of the pairs that no copy is tuned on and all are evaluated on."
    )
    selection: Literal["task", "step"] = Field(
        "task",
        description="When the parameters to update are chosen: once, by the mean gradient over the pairs that are tuned"
        " on (`task`), or in each step by the gradient of its batch (`step`), which takes the memory of `fraction: 1`.",
    )
    embeddings: bool = Field(True, description="Whether the embeddings of tokens, input and output, may be updated.")
    sequences: PositiveInt = Field(
        64, description="Validation sequences on which the loss of general language modelling is measured."
    )
    tokens_at_once: PositiveInt = Field(
        16_384, description="Tokens in one pass through a model at most; fewer where their logits would not fit."
    )

    @property
    def main(self) -> str:
        """Name of the method that makes the task space."""
        return next(iter(self.methods))

    @field_validator("methods")
    @classmethod
    def _first_is_differential(cls, methods: dict[str, MethodSettings]) -> dict[str, MethodSettings]:
        first = next(iter(methods))
        if methods[first].objective != DIFFERENTIAL:
            raise ValueError(
                f"methods.{first}.objective '{methods[first].objective}' of the first method makes the task space; list"
                f" one with objective {DIFFERENTIAL} first"
            )
        return methods


class TaskSpaceSettings(TuningSettings):
    """How copies of checkpoints are tuned on tasks, and how the tasks are compared."""

    seeds: list[int] = Field(
        [0, 1], min_length=1, description="Each splits the pairs and orders the batches anew, for every task."
    )
    gradient_groups: PositiveInt = Field(
        8, ge=2, description="Groups of pairs whose gradients span the subspace of a task, and tell its sampling error."
    )
    sketch: PositiveInt = Field(
        1 << 18,
        description="Dimensions that gradients are projected to, at random, for comparison, where those of all groups"
        " of all tasks would take more than 2 GiB.",
    )
    top_features: PositiveInt = Field(
        20, description="Features of largest |IE| of a task at a checkpoint, whose overlap is held against transfer."
    )
    permutations: PositiveInt = Field(10_000, description="Relabellings of the tasks behind each p-value.")
    bootstrap_samples: PositiveInt = Field(1000, description="Resamples of prefixes behind an interval of the bridge.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Coverage of the intervals.")
    smallest_gain: NonNegativeFloat = Field(
        0.0,
        description="Gain of a task by tuning on itself, in its unit, up to which transfer relative to it is left out.",
    )
    seed: NonNegativeInt = Field(0, description="Seed of projections, permutations and resampling.")

    @property
    def tuning(self) -> TuningSettings:
        """The part that the tunings depend on."""
        return TuningSettings(**{name: getattr(self, name) for name in TuningSettings.model_fields})

    @property
    def gradients(self) -> "TaskSpaceSettings":
        """The part that the comparison of gradients depends on; the rest is as by default."""
        names = ("embeddings", "tokens_at_once", "gradient_groups", "sketch", "confidence", "seed")
        main = MethodSettings(objective=DIFFERENTIAL, fraction=self.methods[self.main].fraction)
        return TaskSpaceSettings(methods={self.main: main}, **{name: getattr(self, name) for name in names})

    def sketched(self, parameters: int, tasks: int) -> int:
        """Return how many dimensions gradients of so many parameters are projected to; 0 where they are kept whole."""
        whole = LABELLINGS * tasks * self.gradient_groups * parameters * FLOAT32_BYTES
        return self.sketch if whole > LARGEST_GRADIENTS else 0

    @property
    def bridging(self) -> "TaskSpaceSettings":
        """What the bridge depends on: the main method and the first seed; what has no say in it is as by default."""
        kept = self.model_copy(update={"seeds": self.seeds[:1], "methods": {self.main: self.methods[self.main]}})
        return TaskSpaceSettings(**kept.model_dump(exclude={"sequences", "gradient_groups", "sketch", "smallest_gain"}))

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: list[int]) -> list[int]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds {seeds} repeat; list each of them once")
        return seeds
