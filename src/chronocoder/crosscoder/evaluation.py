"""How well a crosscoder stands for the activations it was trained on."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from chronocoder.activations.origin import Origin
from chronocoder.config import EvaluationSettings
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig, side_by_side
from chronocoder.crosscoder.own_codes import OwnErrors, OwnMaps, reconstruct_from_own
from chronocoder.crosscoder.statistics import (
    FREQUENCY_EDGES,
    PRESENT_RATIO,
    ULTRA_DENSE,
    Statistics,
    latent_scaling,
    present,
    refitted_rows,
)
from chronocoder.errors import NonFiniteError, StoreError
from chronocoder.stores import labelled, strings
from chronocoder.suites.precision import overflow_remedy
from chronocoder.suites.sites import Site

REPLACEMENTS = 5
"""Things that the site is set to, the clean activation among them."""
_log = logging.getLogger(__name__)


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
        own: with it replaced by the reconstruction from the checkpoint's own code.
        mean: with it replaced by the checkpoint's mean activation.
        splice_error: standard error of spliced - clean, over sequences.
    """

    clean: Float[np.ndarray, " checkpoint"]
    spliced: Float[np.ndarray, " checkpoint"]
    zero: Float[np.ndarray, " checkpoint"]
    own: Float[np.ndarray, " checkpoint"]
    mean: Float[np.ndarray, " checkpoint"]
    splice_error: Float[np.ndarray, " checkpoint"]

    @property
    def splice_change(self) -> Float[np.ndarray, " checkpoint"]:
        """What splicing adds to the cross-entropy, spliced - clean, in nats."""
        change: np.ndarray = self.spliced - self.clean
        return change

    @property
    def recovered(self) -> Float[np.ndarray, " checkpoint"]:
        """1 - (spliced - clean) / (zero - clean): one if splicing costs nothing, zero if as much as zeroing."""
        return self._recovered(self.spliced, self.zero)

    @property
    def recovered_own(self) -> Float[np.ndarray, " checkpoint"]:
        """The same of the reconstruction from the own code."""
        return self._recovered(self.own, self.zero)

    @property
    def recovered_from_mean(self) -> Float[np.ndarray, " checkpoint"]:
        """1 - (spliced - clean) / (mean - clean): zero if splicing costs as much as the mean activation."""
        return self._recovered(self.spliced, self.mean)

    @property
    def recovered_above_one(self) -> Bool[np.ndarray, " checkpoint"]:
        """Whether splicing lowers the cross-entropy, so that more than everything is recovered."""
        above: np.ndarray = self.splice_change < 0
        return above

    def _recovered(self, replaced: np.ndarray, nothing: np.ndarray) -> Float[np.ndarray, " checkpoint"]:
        """Return the fraction recovered; NaN where the reference does no worse than the unchanged model."""
        loss = np.where(nothing > self.clean, nothing - self.clean, np.nan)
        recovered: np.ndarray = 1 - (replaced - self.clean) / loss
        return recovered


@torch.no_grad()
def measure_cross_entropy(
    crosscoder: Crosscoder, maps: OwnMaps, sites: Sequence[Site], token_ids: np.ndarray, settings: EvaluationSettings
) -> CrossEntropies:
    """Splice reconstructions into every checkpoint's model and measure its cross-entropy.

    The first token of a sequence keeps its activation and its prediction is not counted: the crosscoder has never
    seen such tokens. A warning names each checkpoint whose cross-entropy splicing lowers.

    Args:
        crosscoder: folded.
        maps: predictions fitted on the activations of the same text.
        sites: the site in each checkpoint's model, in the crosscoder's order.
        token_ids: shape (sequence, position); the first `settings.sequences` are used.
        settings: how many sequences, and how many at once.

    Raises:
        NonFiniteError: a cross-entropy is NaN or infinite.
    """
    used = torch.from_numpy(token_ids[: settings.sequences].astype(np.int64)).to(sites[0].model.device)
    odd = torch.arange(len(used), device=used.device) % 2 == 1
    batches = []
    for ids, is_odd in zip(used.split(settings.batch_size), odd.split(settings.batch_size), strict=True):
        sums = torch.empty(REPLACEMENTS, len(sites), len(ids), dtype=torch.float64)
        states = [site.read(ids) for site in sites]
        x = side_by_side([state.activation.to(crosscoder.b_dec) for state in states])
        for kind, activations in enumerate(_replacements(crosscoder, maps, x, is_odd)):
            for number, (site, state) in enumerate(zip(sites, states, strict=True)):
                activation = activations[:, :, number, : site.width].to(state.activation)
                logits = site.resume(ids, activation, state.entry, last=None)
                sums[kind, number] = _summed_cross_entropy(logits, ids)
        batches.append(sums)
    of_sequences = (torch.cat(batches, dim=2) / (used.shape[1] - 2)).numpy()
    for revision, site, found in zip(crosscoder.config.checkpoints, sites, of_sequences.swapaxes(0, 1), strict=True):
        if not np.isfinite(found).all():
            raise NonFiniteError(
                f"cross-entropies at checkpoint {revision} are not finite; {overflow_remedy(site.model)}"
            )
    change = of_sequences[1] - of_sequences[0]
    error = change.std(axis=1, ddof=1) / np.sqrt(len(used)) if len(used) > 1 else np.full(len(sites), np.nan)
    entropies = CrossEntropies(*[*of_sequences.mean(axis=2), error])
    _warn_of_gains(crosscoder.config.checkpoints, entropies)
    return entropies


def _replacements(
    crosscoder: Crosscoder,
    maps: OwnMaps,
    x: Float[Tensor, "batch position checkpoint d_model"],
    odd: Bool[Tensor, " batch"],
) -> Iterator[Float[Tensor, "batch position checkpoint d_model"]]:
    """Yield what the site is set to, in the order of `CrossEntropies`; first tokens keep their activation."""
    seen = x[:, 1:]
    flat, is_odd = seen.flatten(0, 1), odd.repeat_interleave(seen.shape[1])
    yield x
    spliced = crosscoder.decode(crosscoder.encode(flat))
    own = reconstruct_from_own(crosscoder, maps, flat, is_odd)
    for replacement in (spliced, torch.zeros_like(flat), own, maps.mean.expand_as(flat)):
        yield torch.cat([x[:, :1], replacement.unflatten(0, seen.shape[:2])], dim=1)


def _warn_of_gains(checkpoints: Sequence[str], entropies: CrossEntropies) -> None:
    for number in np.flatnonzero(entropies.recovered_above_one).tolist():
        _log.warning(
            "%s: splicing lowers the cross-entropy below that of the unchanged model, %.4f < %.4f nat (by %.4f,"
            " standard error %.4f): the code brings in what other checkpoints know, or it is noise;"
            " cross_entropy_own is without their knowledge",
            checkpoints[number],
            entropies.spliced[number],
            entropies.clean[number],
            -entropies.splice_change[number],
            entropies.splice_error[number],
        )


def evaluation_dataset(
    crosscoder: Crosscoder,
    statistics: Statistics,
    own: OwnErrors,
    entropies: CrossEntropies,
    settings: EvaluationSettings,
    tokens_seen: Mapping[str, int],
) -> xr.Dataset:
    """Return the evaluation with dims (checkpoint,), (feature,), both, (checkpoint, d_model), and (frequency_bin,)."""
    checkpoints = crosscoder.config.checkpoints
    return xr.Dataset(
        {
            **_of_split(statistics),
            **_means(crosscoder, statistics),
            **_of_cross_entropy(entropies),
            **_of_decoder(crosscoder, statistics),
            **_of_own_codes(statistics, own, settings),
        },
        coords={
            "checkpoint": strings(checkpoints),
            "tokens_seen": ("checkpoint", [tokens_seen[revision] for revision in checkpoints]),
            "feature": np.arange(len(crosscoder.b_enc)),
            "frequency_bin": FREQUENCY_EDGES[:-1],
        },
    )


def _of_split(statistics: Statistics) -> dict[str, xr.Variable]:
    frequency = statistics.frequency.cpu().numpy()
    return {
        "explained_variance": labelled(
            ("checkpoint",), statistics.explained_variance.cpu().numpy(), "explained variance on validation"
        ),
        "l0": labelled((), float(statistics.l0), "mean number of active latents a token"),
        "dead_fraction": labelled((), float((frequency == 0).mean()), "latents never active"),
        "ultra_dense_fraction": labelled(
            (), float((frequency > ULTRA_DENSE).mean()), f"latents active on more than {ULTRA_DENSE:.0%} of tokens"
        ),
        "frequency_histogram": labelled(
            ("frequency_bin",),
            statistics.frequency_histogram.cpu().numpy(),
            "latents by activation frequency, from the bin's coordinate up",
        ),
        "activation_frequency": labelled(("feature",), frequency, "part of tokens with the latent active"),
    }


def _means(crosscoder: Crosscoder, statistics: Statistics) -> dict[str, xr.Variable]:
    """Return what code and activation are on average, in raw units: what they are changed to by a mean ablation."""
    activation = statistics.total / statistics.tokens / crosscoder.scale[:, None]
    code = statistics.mean_code.float().cpu().numpy()
    return {
        "mean_code": labelled(("feature",), code, "mean activation of the latent"),
        "mean_site_activation": labelled(
            ("checkpoint", "d_model"), activation.float().cpu().numpy(), "mean activation of the site"
        ),
    }


def _of_cross_entropy(entropies: CrossEntropies) -> dict[str, xr.Variable]:
    in_nats = {
        "clean": "cross-entropy of the model",
        "spliced": "cross-entropy, site reconstructed",
        "zero": "cross-entropy, site set to zero",
        "own": "cross-entropy, site reconstructed from the checkpoint's own code",
        "mean": "cross-entropy, site set to its mean activation",
    }
    ratios = {
        "cross_entropy_recovered": "cross-entropy recovered by splicing",
        "cross_entropy_recovered_own": "cross-entropy recovered by splicing, from the checkpoint's own code",
        "cross_entropy_recovered_from_mean": "cross-entropy recovered by splicing, against the mean activation",
        "recovered_above_one": "whether splicing lowers the cross-entropy, so that more than everything is recovered",
    }
    dims = ("checkpoint",)
    change = {
        "splice_change": labelled(
            dims, entropies.splice_change, "cross-entropy, site reconstructed, less clean", "nat"
        ),
        "splice_change_error": labelled(dims, entropies.splice_error, "its standard error over sequences", "nat"),
    }
    return (
        change
        | {
            f"cross_entropy_{kind}": labelled(dims, getattr(entropies, kind), text, "nat")
            for kind, text in in_nats.items()
        }
        | {
            name: labelled(dims, getattr(entropies, name.removeprefix("cross_entropy_")), text)
            for name, text in ratios.items()
        }
    )


def _of_decoder(crosscoder: Crosscoder, statistics: Statistics) -> dict[str, xr.Variable]:
    scaling = latent_scaling(crosscoder, statistics)
    refitted = refitted_rows(crosscoder, statistics).norm(dim=-1).T
    values = {
        "decoder_norm": (crosscoder.decoder_norms, "decoder norm in normalised units"),
        "refitted_decoder_norm": (refitted, "norm of the decoder row that fits best while all others stay"),
        "present": (
            present(refitted),
            f"refitted norm above {PRESENT_RATIO} of the latent's largest; nowhere if never active",
        ),
        "latent_scaling_error": (scaling.error, "latent scaling, target: error with the latent left out"),
        "latent_scaling_reconstruction": (
            scaling.reconstruction,
            "latent scaling, target: what other latents supply",
        ),
    }
    return _of_features(values)


def _of_own_codes(statistics: Statistics, own: OwnErrors, settings: EvaluationSettings) -> dict[str, xr.Variable]:
    r2 = own.code_r2(statistics)
    values = {
        "preactivation": (
            statistics.preactivation.float(),
            "mean of the checkpoint's part of the preactivation where the latent is active",
        ),
        "preactivation_share": (
            statistics.preactivation_share.float(),
            "the checkpoint's part of the preactivation over that of all checkpoints",
        ),
        "own_code_r2": (r2.float(), "R2 of the code that the checkpoint's activation alone tells"),
        "code_supported": (r2 >= settings.supported_r2, f"R2 of the own code at least {settings.supported_r2:g}"),
    }
    explained = labelled(
        ("checkpoint",), own.explained_variance(statistics).cpu().numpy(), "explained variance from own codes"
    )
    return {"explained_variance_own": explained, **_of_features(values)}


def _of_features(values: Mapping[str, tuple[Tensor, str]]) -> dict[str, xr.Variable]:
    both = ("checkpoint", "feature")
    return {name: labelled(both, tensor.cpu().numpy(), text) for name, (tensor, text) in values.items()}


def _summed_cross_entropy(
    logits: Float[Tensor, "batch position vocabulary"], token_ids: Int[Tensor, "batch position"]
) -> Float[Tensor, " batch"]:
    predicted, target = logits[:, 1:-1].transpose(1, 2).float(), token_ids[:, 2:]
    return torch.nn.functional.cross_entropy(predicted, target, reduction="none").sum(dim=1, dtype=torch.float64).cpu()
