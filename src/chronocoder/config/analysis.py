"""How crosscoders are trained, and how their features are measured."""

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

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
        1, description="Processes that `accelerate launch` starts for a crosscoder; one a GPU."
    )
    dictionary_shards: PositiveInt = Field(
        1, description="Parts that a dictionary too large for one GPU is cut into, each held by another process."
    )
    save_every: PositiveInt = Field(1000, description="Steps from one saved state to the next.")

    @model_validator(mode="after")
    def _shards_fit(self) -> "TrainingSettings":
        if self.processes % self.dictionary_shards:
            raise ValueError(
                f"processes {self.processes} is no multiple of dictionary_shards {self.dictionary_shards}; change one"
            )
        return self


class EvaluationSettings(Settings):
    """How much is spent on judging a crosscoder."""

    sequences: PositiveInt = Field(256, description="Validation sequences whose cross-entropy is measured.")
    batch_size: PositiveInt = Field(64, description="Sequences in a forward pass.")


class AttributionSettings(Settings):
    """How the indirect effect of features is estimated."""

    estimator: Literal["integrated_gradients", "attribution_patching", "exact"] = Field(
        "integrated_gradients", description="The estimator; `exact` ablates every active feature, and is slow."
    )
    steps: PositiveInt = Field(10, description="Steps of the integration path.")
    batch_size: PositiveInt = Field(64, description="Examples in a batch, times the steps.")
    bootstrap_samples: PositiveInt = Field(1000, description="Resamples of the examples behind an interval.")
    confidence: float = Field(0.95, gt=0, lt=1, description="Coverage of the intervals.")
    seed: int = Field(0, description="Seed of the resampling.")


class FeatureSettings(Settings):
    """Which features are shown, and with what."""

    top_features: PositiveInt = Field(12, description="Features kept for each task and checkpoint, by largest |IE|.")
    examples: PositiveInt = Field(8, description="Top-activating examples of each of them.")
    context_tokens: PositiveInt = Field(24, description="Tokens shown before the most active one.")


class SimilaritySettings(Settings):
    """How checkpoints are compared before any crosscoder is trained."""

    tokens: PositiveInt = Field(4096, description="Validation tokens whose activations are compared.")
