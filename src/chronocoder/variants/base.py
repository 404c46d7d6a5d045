"""What every variant of crosscoder has in common: the settings of its training, and the interface of its sparsity.

A latent's weight in selections and penalties is f_i sum_m ||W_dec,i^m||, with the decoder norms in normalised units, so
that it is the same before and after the normalisation is folded into the weights. Nothing here imports torch: the
configuration reads these classes while the DAG is built.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from chronocoder.settings import Settings

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from chronocoder.crosscoder.codes import Codes


class Selection(NamedTuple):
    """What a variant makes of a batch.

    Attributes:
        codes: the activations of the latents.
        penalty: the sparsity term with its coefficient, summed over tokens by `Batch.sum_tokens`, and over this
            process's latents; None where the variant has none.
        threshold: the inference threshold after this batch, shape (); None where the variant has none, or learns it
            by gradient.
    """

    codes: Codes
    penalty: Float[Tensor, ""] | None = None
    threshold: Float[Tensor, ""] | None = None


class StepCost(NamedTuple):
    """What a training step costs, for planning; the two memories were fitted to the peaks of real trainings on a CPU.

    Attributes:
        sparse: whether only the encoder multiplies with the whole dictionary.
        matrices: matrices (token, feature) of float32 alive at the peak.
        rows: matrices (token, checkpoint * d_model) of float32 alive at the peak, beside the batches read ahead.
    """

    sparse: bool
    matrices: float
    rows: float


class Batch(Protocol):
    """A batch as a variant sees it, whatever part of the tokens and latents this process holds.

    Attributes:
        step: training step, from 0.
        tokens: tokens of the batch over all processes.
    """

    step: int
    tokens: int

    @property
    def norms(self) -> Float[Tensor, " feature"]:
        """Return the sum over checkpoints of the decoder norms, with gradient."""

    @property
    def log_threshold(self) -> Float[Tensor, " feature"]:
        """Return the logarithm of the learnt thresholds, with gradient, where the variant learns any."""

    @property
    def threshold(self) -> Float[Tensor, ""]:
        """Return the inference threshold before this batch."""

    def preactivations(self) -> Float[Tensor, "token feature"]:
        """Return W_enc x + b_enc, with gradient."""

    def dense(self, codes: Float[Tensor, "token feature"]) -> Codes:
        """Return codes that are held as a matrix."""

    def sum_tokens(self, values: Float[Tensor, "token n"]) -> Float[Tensor, " n"]:
        """Return the sum over tokens, with gradient: for penalties, so that they do not depend on the processes."""

    def above(self, threshold: Float[Tensor, " feature"], bandwidth: float) -> tuple[Codes, Float[Tensor, ""]]:
        """Return the activations whose weight reaches a threshold as codes, and their number.

        The threshold's gradients are pseudo-derivatives: a rectangle of that width around it.
        """

    def largest_of_batch(self, count: int) -> tuple[Codes, Float[Tensor, ""]]:
        """Return the `count` largest weighted activations of the whole batch as codes, and the smallest of them."""

    def largest_of_token(self, count: int) -> Codes:
        """Return the `count` largest weighted activations of each token, over all latents, as codes."""


class CrosscoderSettings(Settings, ABC):
    """The settings that all variants have (arXiv 2509.05291, section 3); each variant adds its own."""

    learns_threshold: ClassVar[bool] = False
    cost: ClassVar[StepCost] = StepCost(sparse=False, matrices=4.1, rows=12)

    sparsity: str = Field(description="The variant: `l1`, `topk`, `batchtopk` or `jumprelu`.")
    dictionary_size: PositiveInt = Field(description="Latents, D.")
    auxiliary_coefficient: NonNegativeFloat = Field(
        0.0, description="Weight of the loss by which dead latents learn the residual."
    )
    auxiliary_k: PositiveInt = Field(64, description="Dead latents that take part in it, per token.")
    dead_after_tokens: PositiveInt | None = Field(
        None,
        description="A latent is dead once it was inactive for so many tokens; where not given, 2 % of the training's.",
    )
    decoder_norm: PositiveFloat = Field(0.08, description="Initial norm of each decoder row.")
    batch_tokens: PositiveInt = Field(4096, description="Tokens in a step, over all processes.")
    steps: PositiveInt = Field(description="Training steps.")
    learning_rate: PositiveFloat = Field(5e-5, description="Learning rate of Adam(0.9, 0.999).")
    decay_fraction: float = Field(
        0.2, ge=0, le=1, description="Last part of the steps, over which the learning rate falls to zero."
    )
    gradient_norm: PositiveFloat = Field(1.0, description="Norm to which gradients are clipped.")
    shuffle_tokens: PositiveInt = Field(
        65_536, description="Tokens in the shuffle buffer, over all processes; two are held at once."
    )
    normalisation_tokens: PositiveInt = Field(
        1_000_000,
        description="Tokens on which norm and mean of the activations are measured; at most all there are.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="Number format of the matrix products; the weights are float32 in any case."
    )

    @property
    def dead_after(self) -> int:
        """Return the tokens after which an inactive latent is dead."""
        return self.dead_after_tokens or max(1, self.steps * self.batch_tokens // 50)

    @property
    def mean_k(self) -> float:
        """Return the mean over the steps of the active latents a token, where that is given; else 0."""
        return 0.0

    @abstractmethod
    def train(self, batch: Batch) -> Selection:
        """Return the codes of a training batch, and what they cost."""

    def infer(
        self,
        preactivations: Float[Tensor, "token feature"],
        norms: Float[Tensor, " feature"],
        threshold: Float[Tensor, " feature"],
    ) -> Float[Tensor, "token feature"]:
        """Return the codes of tokens that do not depend on each other: those whose weight reaches the threshold."""
        positive = preactivations.relu()
        return positive * (positive * norms >= threshold)


def linear_warmup(step: int, fraction: float, steps: int) -> float:
    """Return a factor that rises from zero to one over the first part of the steps."""
    length = fraction * steps
    return min(1.0, step / length) if length else 1.0
