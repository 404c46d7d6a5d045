"""How crosscoders are trained, and how their features are measured."""

import math
from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from chronocoder.settings import Settings

AUTO, EXACT, TWO_STAGES, SCREEN = "auto", "exact", "two_stages", "grouped_gradients"


class HarvestSettings(Settings):
    """How activations are read and stored."""

    dtype: Literal["float16", "float32", "int8"] = Field(
        "float16",
        description="Stored number format; a value too large for `float16` stops the harvest. `int8` has one scale a"
        " token.",
    )
    batch_size: PositiveInt = Field(64, description="Sequences in a forward pass.")


class TrainingSettings(Settings):
    """How trainings run; nothing here changes a crosscoder but by rounding, and with `parts` the processes do not."""

    activations: Literal["cached", "streaming"] = Field(
        "cached",
        description="`cached`: read the stores that the harvest wrote; `streaming`: run the checkpoints' models while"
        " training, and store no training activations.",
    )
    processes: PositiveInt = Field(
        1, description="Processes that `accelerate launch` starts for a crosscoder, over all nodes; one a GPU."
    )
    nodes: PositiveInt = Field(1, description="Nodes that the processes are shared by, on a cluster.")
    dictionary_shards: PositiveInt = Field(
        1, description="Parts that a dictionary too large for one GPU is cut into, each held by another process."
    )
    parts: NonNegativeInt = Field(
        8,
        description="Parts that each batch is dealt to, so that a crosscoder is the same to the last bit for any number"
        " of processes that divides it; `0`: none, and rounding depends on the number of processes.",
    )
    save_every: PositiveInt = Field(1000, description="Steps from one saved state to the next.")

    @model_validator(mode="after")
    def _processes_can_be_shared_out(self) -> "TrainingSettings":
        for key in ("nodes", "dictionary_shards"):
            if self.processes % getattr(self, key):
                raise ValueError(f"processes {self.processes} is no multiple of {key} {getattr(self, key)}; change one")
        if self.parts % self.processes:
            raise ValueError(
                f"processes {self.processes} does not divide parts {self.parts}; change processes, or set parts to a"
                f" multiple of {self.processes}, or to 0, with which rounding depends on the number of processes"
            )
        return self


class EvaluationSettings(Settings):
    """How much is spent on judging a crosscoder."""

    sequences: PositiveInt = Field(256, description="Validation sequences whose cross-entropy is measured.")
    batch_size: PositiveInt = Field(64, description="Sequences in a forward pass.")
    supported_r2: float = Field(
        0.5, ge=0, le=1, description="R2 of a checkpoint's own code from which on the code counts as supported by it."
    )


class AttributionSettings(Settings):
    """How the indirect effect of features is estimated, and how certain it is."""

    estimator: Literal["auto", "exact", "two_stages", "grouped_gradients", "attribution_patching", "published"] = Field(
        "auto",
        description="`exact` changes every active feature by itself; `two_stages` screens all by grouped gradients and"
        " changes those of largest effect exactly; `auto` takes `exact` where it costs no more than `exact_hours`, else"
        " `two_stages`. The others are gradients alone.",
    )
    exact_hours: NonNegativeFloat = Field(
        1.0,
        description="Accelerator-hours up to which `auto` takes `exact`: planned, for a crosscoder's effects on all"
        " tasks of a suite.",
    )
    accelerator: Literal["v100", "a100", "h100", "h200"] = Field(
        "h100", description="Accelerator that `exact_hours` is counted on, whatever the jobs run on."
    )
    exact_features: PositiveInt = Field(
        40,
        description="`two_stages`: features of each task and checkpoint to change exactly: half of them by the mean"
        " over examples of the estimate's size, half by the size of its mean.",
    )
    exact_controls: PositiveInt = Field(
        50, description="`two_stages`: other features, at random, whose exact effects tell the estimate's error."
    )
    precision: Literal["float32", "tf32", "bfloat16"] = Field(
        "float32",
        description="Number format of the models' products from the site on. Refused where rounding changes an effect"
        " by more than `smallest_effect`, unless that is 0.",
    )
    intervention: Literal["zero", "mean", "counterfactual", "resample"] = Field(
        "zero",
        description="What a feature is changed to: `zero`; its `mean` over the validation text; what it is on the"
        " pair's `counterfactual` prefix, which the task then has to supply; or what it is on another example of the"
        " task, drawn at random (`resample`). With `mean` every latent that is ever active changes at every position,"
        " so that `exact` takes a pass for each of them on each example.",
    )
    alone: NonNegativeInt = Field(
        16,
        description="Features that `grouped_gradients` changes exactly on each example: those of largest effect to"
        " first order.",
    )
    groups: PositiveInt = Field(
        8,
        description="Groups into which `grouped_gradients` deals the other features of an example; a gradient each.",
    )
    points: PositiveInt = Field(
        1, description="Gauss-Legendre points on the path of each group, which multiply the number of gradients."
    )
    steps: PositiveInt = Field(10, description="Points on the path of `published`.")
    path_points: Literal["from_clean", "midpoints"] = Field(
        "from_clean",
        description="Where the points of `published` lie: `from_clean` (0, 0.1, ..., 0.9 with ten, as published), or in"
        " the middle of equal intervals, which integrates better.",
    )
    over_tokens: Literal["mean", "sum"] = Field(
        "mean",
        description="What `published` takes over the tokens of a prefix; the mean, as published, is one over all tokens"
        " of the task. All other estimators take the sum.",
    )
    token_threshold: NonNegativeFloat = Field(
        0.1, description="Effects of single tokens that `published` drops, in logits: those of at most this size."
    )
    completeness_tolerance: PositiveFloat = Field(
        0.05,
        description="Completeness gap of `published`, as a fraction of the true change, above which a warning says to"
        " take more steps; only with `path_points: midpoints`, `over_tokens: sum` and `token_threshold: 0`.",
    )
    batch_size: PositiveInt = Field(
        64,
        description="Sequences in one pass from the site on: examples times points or groups; for exact changes, the"
        " tokens of so many prefixes, on a GPU 8192 if these are fewer.",
    )
    bootstrap_samples: PositiveInt = Field(1000, description="Resamples of the prefixes behind an interval.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Coverage of the intervals.")
    swaps: PositiveInt = Field(
        10_000, description="Random swaps of right and wrong behind a p-value, which is at least 1 / (1 + swaps)."
    )
    false_discovery_rate: float = Field(
        0.05, gt=0, lt=1, description="Of the measurable effects on a task, over all features and checkpoints together."
    )
    smallest_effect: NonNegativeFloat = Field(
        0.02, description="Smallest effect of interest, in logits: 0.02 changes the odds of an answer by two percent."
    )
    random_directions: NonNegativeInt = Field(
        3,
        description="Draws of random directions, the control of every effect and class: a feature's code writes along a"
        " random mix of decoder rows of the same norm. 0: no such control.",
    )
    random_features: PositiveInt = Field(
        128, description="Features of each draw, at random; all of the dictionary if it has no more."
    )
    random_level: float = Field(
        0.95, gt=0, lt=1, description="Fraction of random directions whose |IE| a measurable effect has to exceed."
    )
    shuffled_tokens: bool = Field(
        False,
        description="Another control: the effects once the tokens of each prefix, but for the first, are shuffled.",
    )
    seed: NonNegativeInt = Field(
        0, description="Seed of resampling and swaps, of random directions, and of what is ablated for comparison."
    )

    @property
    def complete(self) -> bool:
        """Whether effects by `published` add up, with the error term's, to the change that all of them make."""
        return (self.path_points, self.over_tokens, self.token_threshold) == ("midpoints", "sum", 0.0)

    @field_validator("random_directions")
    @classmethod
    def _draws_have_others(cls, draws: int) -> int:
        if draws == 1:
            raise ValueError(
                "random_directions 1: each draw is judged by the level of the others; take 0, or 2 and more"
            )
        return draws

    @model_validator(mode="after")
    def _accelerator_has_precision(self) -> "AttributionSettings":
        if self.accelerator == "v100" and self.precision != "float32":
            raise ValueError(
                f"precision {self.precision}: a v100 has no units for it; set it to float32, or accelerator to a100,"
                " h100 or h200"
            )
        return self

    @model_validator(mode="after")
    def _swaps_can_find_effects(self) -> "AttributionSettings":
        smallest, rate = 1 / (1 + self.swaps), self.false_discovery_rate
        if smallest > rate:
            raise ValueError(
                f"swaps {self.swaps}: no p-value can be below {smallest:.2g}; take at least {math.ceil(1 / rate) - 1},"
                f" or a false_discovery_rate larger than {rate:g}"
            )
        return self


class BehaviourJobSettings(Settings):
    """How checkpoints are scored on the tasks; nothing here changes a result."""

    tasks_per_job: PositiveInt = Field(
        8,
        description="Tasks that a job may work on, its own and others that wait, so that each model is loaded once for"
        " all of them; on a cluster, jobs that share an allocation.",
    )


class AttributionJobSettings(Settings):
    """How attributions and ablations are run; nothing here changes a result but by rounding."""

    tasks_per_job: PositiveInt = Field(
        1,
        description="Tasks of a crosscoder that a job may work on, its own and others that wait, so that models are"
        " loaded once for all of them; on a cluster, jobs that share an allocation.",
    )
    processes: PositiveInt = Field(
        1,
        description="Processes that `accelerate launch` starts for a job, and that share out the examples; one a GPU.",
    )


class AblationSettings(Settings):
    """Which features are ablated exactly, as a check on the estimator."""

    top_features: PositiveInt = Field(
        20, description="Features by largest |IE| at each checkpoint; as many random active ones serve as control."
    )
    set_sizes: list[PositiveInt] = Field(
        [1, 2, 5, 10, 20, 50], min_length=1, description="How many of the top features are ablated together."
    )
    random_sets: PositiveInt = Field(5, description="Random sets of active features of each size, to compare with.")

    @field_validator("set_sizes")
    @classmethod
    def _ascending(cls, sizes: list[int]) -> list[int]:
        if sizes != sorted(set(sizes)):
            raise ValueError(f"set_sizes {sizes} must ascend without repetition; sort the list")
        return sizes


class TrajectorySettings(Settings):
    """How the courses of features over three or more checkpoints are clustered."""

    clusters: PositiveInt = Field(6, description="Clusters, by k-means on RelIE; at most as many as differ.")
    seed: NonNegativeInt = Field(0, description="Seed of the first centres.")


class ConsolidationSettings(Settings):
    """How effects of features are compared between languages."""

    top_features: PositiveInt = Field(
        20, description="Features of largest effect whose sets are compared; fewer where fewer effects are measurable."
    )
    permutations: PositiveInt = Field(2000, description="Exchanges of features behind each p-value.")
    samples: PositiveInt = Field(1000, description="Resamples of the features behind each interval.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Coverage of the intervals.")
    false_discovery_rate: float = Field(
        0.05, gt=0, lt=1, description="Over families, checkpoints and pairs of languages."
    )
    smallest_overlap: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Smallest overlap of interest: beyond exchanges of features, as a fraction of the ceiling.",
    )
    seed: NonNegativeInt = Field(0, description="Seed of exchanges and resamples.")


class FeatureSettings(Settings):
    """Which features are shown, and with what."""

    top_features: PositiveInt = Field(12, description="Features kept for each task and checkpoint, by largest |IE|.")
    examples: PositiveInt = Field(8, description="Top-activating examples of each of them.")
    context_tokens: PositiveInt = Field(24, description="Tokens shown before the most active one.")
    output_tokens: PositiveInt = Field(
        10, description="Output tokens that each of them promotes most, and suppresses most, at each checkpoint."
    )
    neighbours: PositiveInt = Field(
        8, description="Latents shown with each of them: nearest by decoder rows, and active on the same tokens."
    )


class SimilaritySettings(Settings):
    """How checkpoints are compared before any crosscoder is trained."""

    tokens: PositiveInt = Field(4096, description="Validation tokens whose activations are compared.")
