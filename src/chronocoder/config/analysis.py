"""How crosscoders are trained, and how their features are measured."""

from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator

from chronocoder.settings import Settings


class HarvestSettings(Settings):
    """How activations are read and stored."""

    dtype: Literal["float16", "float32", "int8"] = Field(
        "float16",
        description="Stored number format; a value too large for `float16` stops the harvest. `int8` has one scale a"
        " token.",
    )
    batch_size: PositiveInt = Field(64, description="Sequences in a forward pass.")


class TrainingSettings(Settings):
    """How trainings run; nothing here changes a crosscoder but by rounding."""

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
    save_every: PositiveInt = Field(1000, description="Steps from one saved state to the next.")

    @model_validator(mode="after")
    def _processes_can_be_shared_out(self) -> "TrainingSettings":
        for key in ("nodes", "dictionary_shards"):
            if self.processes % getattr(self, key):
                raise ValueError(f"processes {self.processes} is no multiple of {key} {getattr(self, key)}; change one")
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

    estimator: Literal["integrated_gradients", "attribution_patching", "exact"] = Field(
        "integrated_gradients", description="The estimator; `exact` intervenes on every active feature, and is slow."
    )
    intervention: Literal["zero", "counterfactual"] = Field(
        "zero",
        description="What a feature is changed to: `zero`, or what it is on the pair's counterfactual prefix, which the"
        " task then has to supply.",
    )
    steps: PositiveInt = Field(10, description="Steps of the integration path.")
    completeness_tolerance: PositiveFloat = Field(
        0.05,
        description="Completeness gap of integrated gradients, as a part of the true change, above which a warning says"
        " to take more steps.",
    )
    batch_size: PositiveInt = Field(
        64, description="Sequences in one pass from the site on: examples times steps of the path, or times features."
    )
    bootstrap_samples: PositiveInt = Field(
        1000, description="Resamples of the examples behind an interval, and random swaps behind the null band."
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="Coverage of the intervals and of the null band.")
    seed: NonNegativeInt = Field(0, description="Seed of resampling and swaps, and of what is ablated for comparison.")


class BehaviourJobSettings(Settings):
    """How checkpoints are scored on the tasks; nothing here changes a result."""

    tasks_per_job: PositiveInt = Field(
        8,
        description="Tasks that share a job, so that each model is loaded once for all of them; a change reruns them.",
    )


class AttributionJobSettings(Settings):
    """How attributions and ablations are run; nothing here changes a result but by rounding."""

    tasks_per_job: PositiveInt = Field(
        1,
        description="Tasks of a crosscoder that share a job, so that models are loaded once for all of them; a change"
        " reruns them.",
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


class FeatureSettings(Settings):
    """Which features are shown, and with what."""

    top_features: PositiveInt = Field(12, description="Features kept for each task and checkpoint, by largest |IE|.")
    examples: PositiveInt = Field(8, description="Top-activating examples of each of them.")
    context_tokens: PositiveInt = Field(24, description="Tokens shown before the most active one.")


class SimilaritySettings(Settings):
    """How checkpoints are compared before any crosscoder is trained."""

    tokens: PositiveInt = Field(4096, description="Validation tokens whose activations are compared.")
