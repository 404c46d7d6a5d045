"""How crosscoders are trained, and how their features are measured."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from chronocoder.config.base import Settings


class HarvestSettings(Settings):
    """How activations are read and stored."""

    dtype: Literal["float16", "float32"] = Field(
        "float16", description="Stored number format; a value too large for it stops the harvest."
    )
    batch_size: PositiveInt = Field(64, description="Sequences in a forward pass.")


class CrosscoderSettings(Settings):
    """One variant of crosscoder: its size, its sparsity and its training (arXiv 2509.05291, section 3)."""

    sparsity: Literal["l1", "batchtopk"] = Field(description="The sparsity term.")
    dictionary_size: PositiveInt = Field(description="Latents, D.")
    l1_coefficient: NonNegativeFloat = Field(0.0, description="`l1` only: weight of the sparsity term, lambda.")
    l1_warmup_fraction: float = Field(
        0.05, ge=0, le=1, description="`l1` only: part of the steps over which lambda rises from zero."
    )
    k: NonNegativeInt = Field(0, description="`batchtopk` only: mean number of active latents a token.")
    threshold_decay: float = Field(
        0.99, gt=0, lt=1, description="`batchtopk` only: decay of the moving average of the inference threshold."
    )
    auxiliary_coefficient: NonNegativeFloat | None = Field(
        None,
        description="Weight of the loss by which dead latents learn the residual; where not given 1/32 with"
        " `batchtopk` and 0 with `l1`, as published.",
    )
    auxiliary_k: PositiveInt = Field(64, description="Dead latents that take part in it, per token.")
    dead_after_tokens: PositiveInt = Field(
        20_000, description="A latent is dead once it was inactive for so many tokens."
    )
    decoder_norm: PositiveFloat = Field(0.08, description="Initial norm of each decoder row.")
    batch_tokens: PositiveInt = Field(4096, description="Tokens in a step, over all processes.")
    steps: PositiveInt = Field(description="Training steps.")
    learning_rate: PositiveFloat = Field(5e-5, description="Learning rate of Adam(0.9, 0.999).")
    decay_fraction: float = Field(
        0.2, ge=0, le=1, description="Last part of the steps, over which the learning rate falls to zero."
    )
    gradient_norm: PositiveFloat = Field(1.0, description="Norm to which gradients are clipped.")

    @property
    def auxiliary_weight(self) -> float:
        """Return the auxiliary coefficient, or what is published for the sparsity where it is not given."""
        if self.auxiliary_coefficient is not None:
            return self.auxiliary_coefficient
        return 1 / 32 if self.sparsity == "batchtopk" else 0.0

    @model_validator(mode="after")
    def _sparsity_has_its_parameter(self) -> "CrosscoderSettings":
        needed, other = ("l1_coefficient", "k") if self.sparsity == "l1" else ("k", "l1_coefficient")
        if not getattr(self, needed):
            raise ValueError(f"sparsity '{self.sparsity}' needs {needed} above zero; set it")
        if getattr(self, other):
            raise ValueError(f"{other} means nothing with sparsity '{self.sparsity}'; remove it")
        if self.k > self.dictionary_size:
            raise ValueError(f"k {self.k} exceeds dictionary_size {self.dictionary_size}; lower it")
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
