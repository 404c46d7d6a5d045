"""How well a crosscoder stands for the activations it was trained on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from chronocoder.activations.origin import Origin
from chronocoder.config import EvaluationSettings
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig
from chronocoder.crosscoder.statistics import (
    FREQUENCY_EDGES,
    PRESENT_RATIO,
    ULTRA_DENSE,
    Statistics,
    latent_scaling,
    present,
    refitted_rows,
)
from chronocoder.errors import StoreError
from chronocoder.stores import labelled, strings
from chronocoder.suites.sites import Site


def measure_reconstruction(
    crosscoder: Crosscoder, blocks: Iterable[Float[Tensor, "token checkpoint d_model"]]
) -> Statistics:
    """Measure a folded crosscoder on a whole split, block by block."""
    parts = (Statistics.of(crosscoder, block.to(crosscoder.b_dec.device)) for block in blocks)
    statistics = next(parts)
    for part in parts:
        statistics.merge(part)
    return statistics


def check_origin(config: CrosscoderConfig, origin: Origin, revisions: Sequence[str]) -> None:
    """Check that activations and checkpoints are those that a crosscoder is of, in its order.

    Raises:
        StoreError: they are not; the message names what differs.
    """
    pairs = {
        "suite": (config.suite, origin.suite),
        "site": (config.site, origin.site),
        "checkpoints of the activations": (config.checkpoints, origin.revisions),
        "commits": (config.commits, origin.commits),
        "checkpoints": (config.checkpoints, tuple(revisions)),
    }
    for name, (expected, found) in pairs.items():
        if expected != found:
            raise StoreError(f"{name}: the crosscoder is of {expected}, not of {found}; give what it was trained on")


class CrossEntropies(NamedTuple):
    """Mean next-token cross-entropy of each checkpoint, in nats, shape (checkpoint,).

    Attributes:
        clean: of the unchanged model.
        spliced: with the site's activation replaced by its reconstruction.
        zero: with it replaced by zero.
    """

    clean: Float[np.ndarray, " checkpoint"]
    spliced: Float[np.ndarray, " checkpoint"]
    zero: Float[np.ndarray, " checkpoint"]

    @property
    def recovered(self) -> Float[np.ndarray, " checkpoint"]:
        """1 - (spliced - clean) / (zero - clean): one if splicing costs nothing, zero if as much as zeroing."""
        recovered: np.ndarray = 1 - (self.spliced - self.clean) / (self.zero - self.clean)
        return recovered


@torch.no_grad()
def measure_cross_entropy(
    crosscoder: Crosscoder, sites: Sequence[Site], token_ids: np.ndarray, settings: EvaluationSettings
) -> CrossEntropies:
    """Splice reconstructions into every checkpoint's model and measure its cross-entropy.

    The first token of a sequence keeps its activation and its prediction is not counted: the crosscoder has never
    seen such tokens.

    Args:
        crosscoder: folded.
        sites: the site in each checkpoint's model, in the crosscoder's order.
        token_ids: shape (sequence, position); the first `settings.sequences` are used.
        settings: how many sequences, and how many at once.
    """
    used = torch.from_numpy(token_ids[: settings.sequences].astype(np.int64))
    sums = torch.zeros(3, len(sites), dtype=torch.float64)
    for ids in used.to(sites[0].model.device).split(settings.batch_size):
        states = [site.read(ids) for site in sites]
        x = torch.stack([state.activation for state in states], dim=2)
        replacement = x.clone()
        flat = x[:, 1:].flatten(0, 1)
        replacement[:, 1:] = crosscoder.decode(crosscoder.encode(flat)).unflatten(0, x[:, 1:].shape[:2])
        zeroed = torch.zeros_like(x)
        zeroed[:, :1] = x[:, :1]
        for kind, activations in enumerate((x, replacement, zeroed)):
            for number, (site, state) in enumerate(zip(sites, states, strict=True)):
                logits = site.resume(ids, activations[:, :, number], state.entry, last_only=False)
                sums[kind, number] += _summed_cross_entropy(logits, ids)
    predictions = len(used) * (used.shape[1] - 2)
    return CrossEntropies(*(sums / predictions).numpy())


def evaluation_dataset(
    crosscoder: Crosscoder, statistics: Statistics, entropies: CrossEntropies, tokens_seen: Mapping[str, int]
) -> xr.Dataset:
    """Return the evaluation with dims (checkpoint,), (feature,), both, and (frequency_bin,)."""
    dims, both = ("checkpoint",), ("checkpoint", "feature")
    checkpoints = crosscoder.config.checkpoints
    norms = crosscoder.decoder_norms.cpu().numpy()
    frequency = statistics.frequency.cpu().numpy()
    scaling = latent_scaling(crosscoder, statistics)
    refitted = refitted_rows(crosscoder, statistics).norm(dim=-1).T
    histogram = statistics.frequency_histogram.cpu().numpy()
    return xr.Dataset(
        {
            "explained_variance": labelled(
                dims, statistics.explained_variance.cpu().numpy(), "explained variance on validation"
            ),
            "cross_entropy_clean": labelled(dims, entropies.clean, "cross-entropy of the model", "nat"),
            "cross_entropy_spliced": labelled(dims, entropies.spliced, "cross-entropy, site reconstructed", "nat"),
            "cross_entropy_zero": labelled(dims, entropies.zero, "cross-entropy, site set to zero", "nat"),
            "cross_entropy_recovered": labelled(dims, entropies.recovered, "cross-entropy recovered by splicing"),
            "l0": labelled((), float(statistics.l0), "mean number of active latents a token"),
            "dead_fraction": labelled((), float((frequency == 0).mean()), "latents never active"),
            "ultra_dense_fraction": labelled(
                (), float((frequency > ULTRA_DENSE).mean()), f"latents active on more than {ULTRA_DENSE:.0%} of tokens"
            ),
            "frequency_histogram": labelled(
                ("frequency_bin",), histogram, "latents by activation frequency, from the bin's coordinate up"
            ),
            "activation_frequency": labelled(("feature",), frequency, "part of tokens with the latent active"),
            "decoder_norm": labelled(both, norms, "decoder norm in normalised units"),
            "refitted_decoder_norm": labelled(
                both, refitted.cpu().numpy(), "norm of the decoder row that fits best while all others stay"
            ),
            "present": labelled(
                both,
                present(refitted).cpu().numpy(),
                f"refitted norm above {PRESENT_RATIO} of the latent's largest; nowhere if never active",
            ),
            "latent_scaling_error": labelled(
                both, scaling.error.cpu().numpy(), "latent scaling, target: error with the latent left out"
            ),
            "latent_scaling_reconstruction": labelled(
                both, scaling.reconstruction.cpu().numpy(), "latent scaling, target: what other latents supply"
            ),
        },
        coords={
            "checkpoint": strings(checkpoints),
            "tokens_seen": ("checkpoint", [tokens_seen[revision] for revision in checkpoints]),
            "feature": np.arange(norms.shape[1]),
            "frequency_bin": FREQUENCY_EDGES[:-1],
        },
    )


def _summed_cross_entropy(
    logits: Float[Tensor, "batch position vocabulary"], token_ids: Int[Tensor, "batch position"]
) -> Tensor:
    predicted, target = logits[:, 1:-1].flatten(0, 1).float(), token_ids[:, 2:].flatten()
    return torch.nn.functional.cross_entropy(predicted, target, reduction="sum").double().cpu()
