"""Running statistics of a crosscoder over a split: blocks may come in any order, and parts measured apart merge."""

from dataclasses import dataclass, fields
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from chronocoder.crosscoder.model import Crosscoder

ULTRA_DENSE = 0.1
PRESENT_RATIO = 0.2
CONSTANT_RATIO = 1e-6
"""Variance over mean square below which codes count as constant: float32 knows no better."""
FREQUENCY_EDGES = [10 ** (exponent / 2) for exponent in range(-12, 1)]


@dataclass
class Sums:
    """Sums over tokens: those of other tokens may be added."""

    def merge(self, other: Self) -> None:
        """Add the sums of other tokens."""
        for field in fields(self):
            getattr(self, field.name).add_(getattr(other, field.name))


@dataclass
class Statistics(Sums):
    """Sums over tokens, in float64 but for the two large ones.

    Activations are in normalised units, x^m = s_m a^m; `coded` and `decoded` are what latent scaling needs.

    Attributes:
        tokens: tokens so far.
        error: sum of ||x - x_hat||^2, shape (checkpoint,).
        square: sum of ||x||^2, shape (checkpoint,).
        total: sum of x, shape (checkpoint, d_model).
        active: tokens each latent is active on, shape (feature,).
        summed: sum of f_i, shape (feature,).
        power: sum of f_i^2, shape (feature,).
        driven: sum of W_enc,i^m a^m over tokens that latent i is active on, shape (checkpoint, feature).
        coded: sum of f_i (x - x_hat), shape (feature, checkpoint * d_model), float32.
        decoded: sum of f_i (x_hat - b_dec), shape (feature, checkpoint * d_model), float32.
    """

    tokens: Float[Tensor, ""]
    error: Float[Tensor, " checkpoint"]
    square: Float[Tensor, " checkpoint"]
    total: Float[Tensor, "checkpoint d_model"]
    active: Float[Tensor, " feature"]
    summed: Float[Tensor, " feature"]
    power: Float[Tensor, " feature"]
    driven: Float[Tensor, "checkpoint feature"]
    coded: Float[Tensor, "feature n"]
    decoded: Float[Tensor, "feature n"]

    @classmethod
    def of(cls, crosscoder: Crosscoder, x: Float[Tensor, "token checkpoint d_model"]) -> "Statistics":
        """Measure a block of raw activations with a folded crosscoder; neither is changed."""
        scale = crosscoder.scale[:, None]
        with torch.no_grad():
            codes = crosscoder.encode(x)
            normalised, decoded = x * scale, (crosscoder.decode(codes) - crosscoder.b_dec) * scale
        error = normalised - decoded - crosscoder.b_dec * scale
        wide = torch.float64
        return cls(
            tokens=torch.tensor(float(len(x)), device=x.device, dtype=wide),
            error=error.pow(2).sum(dim=(0, 2), dtype=wide),
            square=normalised.pow(2).sum(dim=(0, 2), dtype=wide),
            total=normalised.sum(dim=0, dtype=wide),
            active=(codes > 0).sum(dim=0, dtype=wide),
            summed=codes.sum(dim=0, dtype=wide),
            power=codes.pow(2).sum(dim=0, dtype=wide),
            driven=_driven(crosscoder, x, codes),
            coded=codes.T @ error.flatten(1),
            decoded=codes.T @ decoded.flatten(1),
        )

    @property
    def variance(self) -> Float[Tensor, " checkpoint"]:
        """Sum of ||x - x_bar||^2, x_bar over all tokens."""
        return self.square - self.total.pow(2).sum(dim=1) / self.tokens

    @property
    def explained_variance(self) -> Float[Tensor, " checkpoint"]:
        """1 - sum ||x - x_hat||^2 / sum ||x - x_bar||^2: a ratio of sums."""
        return 1 - self.error / self.variance

    @property
    def mean_code(self) -> Float[Tensor, " feature"]:
        """Mean of f_i over all tokens."""
        return self.summed / self.tokens

    @property
    def code_variance(self) -> Float[Tensor, " feature"]:
        """Sum of (f_i - f_bar_i)^2 over all tokens; NaN where f is constant, as that of a latent never active."""
        variance = self.power - self.summed.pow(2) / self.tokens
        return variance.where(variance > CONSTANT_RATIO * self.power, torch.nan)

    @property
    def preactivation(self) -> Float[Tensor, "checkpoint feature"]:
        """Mean of W_enc,i^m a^m over the tokens each latent is active on; NaN for latents never active."""
        return self.driven / self.active

    @property
    def preactivation_share(self) -> Float[Tensor, "checkpoint feature"]:
        """Each checkpoint's part of `preactivation` summed over checkpoints; NaN where that is zero or undefined."""
        total = self.driven.sum(dim=0)
        return self.driven / total.where(total != 0, torch.nan)

    @property
    def frequency(self) -> Float[Tensor, " feature"]:
        """Part of the tokens each latent is active on."""
        return self.active / self.tokens

    @property
    def l0(self) -> Float[Tensor, ""]:
        """Mean number of active latents a token."""
        return self.frequency.sum()

    @property
    def frequency_histogram(self) -> Float[Tensor, " bin"]:
        """Number of latents with a frequency between `FREQUENCY_EDGES`, upper end included; dead ones are in none."""
        edges = torch.tensor(FREQUENCY_EDGES, dtype=torch.float64, device=self.active.device)
        alive = self.frequency[self.active > 0]
        places = torch.bucketize(alive, edges).clamp(1, len(edges) - 1) - 1
        return torch.bincount(places, minlength=len(edges) - 1).double()


@torch.no_grad()
def _driven(
    crosscoder: Crosscoder, x: Float[Tensor, "token checkpoint d_model"], codes: Float[Tensor, "token feature"]
) -> Float[Tensor, "checkpoint feature"]:
    """Return each checkpoint's part of the preactivations, summed over active tokens; one at a time, to save memory."""
    parts = (torch.where(codes > 0, x[:, m] @ crosscoder.encoder_rows[:, m].T, 0) for m in range(x.shape[1]))
    return torch.stack([part.sum(dim=0).double() for part in parts])


@dataclass(frozen=True)
class LatentScaling:
    """How strongly each checkpoint holds a latent's direction, by least squares (Minder et al. 2504.02922).

    The direction of a latent is its decoder row d at the checkpoint where that is longest. For each checkpoint m, beta
    is the number that makes beta f d nearest to a target. A latent whose decoder row has been shrunk by the sparsity
    term, though the checkpoint has the feature, keeps its `error` near one; one that the checkpoint represents by other
    latents has a large `reconstruction`. Where both are near zero the checkpoint has no such feature. The paper's
    ratios nu for a pair are these numbers at the other checkpoint over that at the latent's own. NaN for latents never
    active.

    Attributes:
        error: target x^m - x_hat^m + f d^m: what is left if this latent is taken out. Shape (checkpoint, feature).
        reconstruction: target x_hat^m - b_dec^m - f d^m: what the other latents supply. Shape (checkpoint, feature).

    Both are NaN at a checkpoint that is not as wide as the one the direction is taken from.
    """

    error: Float[Tensor, "checkpoint feature"]
    reconstruction: Float[Tensor, "checkpoint feature"]


@torch.no_grad()
def latent_scaling(crosscoder: Crosscoder, statistics: Statistics) -> LatentScaling:
    """Return the scaling of every latent at every checkpoint, from sums over a split, in normalised units."""
    rows = crosscoder.decoder_rows * crosscoder.scale[:, None]
    longest = rows.norm(dim=-1).argmax(dim=1)
    direction = rows[torch.arange(len(rows), device=rows.device), longest]
    length = direction.pow(2).sum(dim=-1)
    supplied = statistics.decoded.view_as(rows) / statistics.power.float()[:, None, None] - rows
    left = refitted_rows(crosscoder, statistics)
    widths = torch.tensor(crosscoder.config.widths, device=rows.device)
    length = length.where(widths[:, None] == widths[longest], torch.nan)
    error, reconstruction = (torch.einsum("fmd,fd->mf", target, direction) / length for target in (left, supplied))
    return LatentScaling(error, reconstruction)


@torch.no_grad()
def refitted_rows(crosscoder: Crosscoder, statistics: Statistics) -> Float[Tensor, "feature checkpoint d_model"]:
    """Return the decoder row of each latent that fits the activations best while all others stay, in normalised units.

    W_dec + sum f (x - x_hat) / sum f^2: latent scaling in every direction at once, so that a row which the sparsity
    term has shrunk comes back wherever it points, and a feature whose direction turns between checkpoints is not taken
    for absent. NaN for latents never active; noisy for those seldom active.
    """
    rows = crosscoder.decoder_rows * crosscoder.scale[:, None]
    return rows + statistics.coded.view_as(rows) / statistics.power.float()[:, None, None]


def present(norms: Float[Tensor, "... checkpoint feature"]) -> Bool[Tensor, "... checkpoint feature"]:
    """Return at which checkpoints a latent's feature is present: where the norm exceeds a part of its largest.

    The part is `PRESENT_RATIO`, between what trained latents keep of an absent feature and the weakest planted one in
    benchmarks/planted.py. Unlike a bound on the share it does not depend on the number of checkpoints.
    """
    return norms > PRESENT_RATIO * norms.amax(dim=-2, keepdim=True)
