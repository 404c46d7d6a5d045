"""Training a crosscoder, on one process or many, through Accelerate."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from accelerate import Accelerator
from jaxtyping import Bool, Float
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm

from chronocoder.activations.loader import ActivationStores, shuffled_batches
from chronocoder.config import CrosscoderSettings
from chronocoder.crosscoder.launch import is_launched
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig
from chronocoder.crosscoder.sparsity import Selection
from chronocoder.errors import ConfigError, NonFiniteError
from chronocoder.stores import labelled, strings

LOG_EVERY = 10
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
        crosscoder: folded, so that it takes raw activations.
        history: losses and metrics over the steps.
    """

    crosscoder: Crosscoder
    history: xr.Dataset


@dataclass
class _State:
    """What changes from step to step beside the weights.

    Attributes:
        silent_tokens: tokens since each latent was last active, shape (feature,).
        records: metrics of the steps logged so far.
    """

    silent_tokens: Tensor
    records: list[dict[str, float | list[float]]]


class ActivationStatistics(NamedTuple):
    """What the normalisation and the decoder's bias begin with.

    Attributes:
        scale: s_m = sqrt(d) / mean_b ||a_b^m||, shape (checkpoint,).
        mean: mean of the scaled activations, shape (checkpoint, d_model).
    """

    scale: Float[Tensor, " checkpoint"]
    mean: Float[Tensor, "checkpoint d_model"]


def measure_activations(stores: ActivationStores) -> ActivationStatistics:
    """Measure the activations of a whole split, by running sums in float64."""
    norms = torch.zeros(len(stores.paths), dtype=torch.float64)
    total = torch.zeros(len(stores.paths), stores.width, dtype=torch.float64)
    for block in stores.blocks():
        norms += block.double().norm(dim=-1).sum(dim=0)
        total += block.double().sum(dim=0)
    scale = stores.width**0.5 * stores.rows / norms
    return ActivationStatistics(scale.float(), (scale[:, None] * total / stores.rows).float())


def train_crosscoder(config: CrosscoderConfig, stores: ActivationStores, rescue_path: Path) -> Trained:
    """Train a crosscoder.

    Args:
        config: what to train; `folded` is false.
        stores: training activations of the config's checkpoints, in their order.
        rescue_path: where the last good crosscoder is saved if a loss is not finite.

    Raises:
        ConfigError: the batch cannot be shared evenly between the processes.
        NonFiniteError: a loss or gradient is NaN or infinite; the crosscoder before that step has been saved.
    """
    accelerator = Accelerator(cpu=is_launched() and not torch.cuda.is_available())
    settings, processes = config.settings, accelerator.num_processes
    if settings.batch_tokens % processes:
        raise ConfigError(f"batch_tokens {settings.batch_tokens} is no multiple of {processes} processes; change one")
    scale, mean = measure_activations(stores)
    crosscoder = Crosscoder(config, torch.Generator().manual_seed(config.seed))
    crosscoder.b_dec.data.copy_(mean)  # else dense latents spend themselves on the mean
    optimizer = torch.optim.Adam(crosscoder.parameters(), lr=settings.learning_rate, betas=(0.9, 0.999))
    schedule = LambdaLR(optimizer, _learning_rate_factor(settings))
    model, optimizer = accelerator.prepare(crosscoder, optimizer)
    batches = shuffled_batches(
        stores, settings.batch_tokens, config.seed, rank=accelerator.process_index, processes=processes
    )
    state = _State(torch.zeros(settings.dictionary_size, device=accelerator.device), [])
    device_scale = scale.to(accelerator.device)[:, None]
    progress = tqdm(range(settings.steps), desc="train", mininterval=2, disable=not accelerator.is_main_process)
    for step in progress:
        x = next(batches).to(accelerator.device) * device_scale
        loss, metrics = _losses(model, crosscoder, x, step, state, accelerator)
        optimizer.zero_grad()
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(model.parameters(), settings.gradient_norm)
        if not torch.isfinite(norm):  # a loss that is not finite makes it so too, on every process at once
            _rescue(crosscoder, scale, rescue_path, step, accelerator)
        optimizer.step()
        schedule.step()
        if step % LOG_EVERY == 0 or step == settings.steps - 1:
            state.records.append({"step": step, "learning_rate": float(schedule.get_last_lr()[0]), **metrics()})
            progress.set_postfix(loss=f"{loss.item():.4g}", dead=state.records[-1]["dead_fraction"])
    return Trained(crosscoder.cpu().fold_scale(scale), _history(state.records, config))


def _losses(
    model: torch.nn.Module, crosscoder: Crosscoder, x: Tensor, step: int, state: _State, accelerator: Accelerator
) -> tuple[Tensor, Callable[[], dict[str, float | list[float]]]]:
    """Return the loss of this process's part of a batch, and a function that measures the batch."""
    settings = crosscoder.config.settings
    selection, reconstruction = model(x)
    error = x - reconstruction
    squared = error.pow(2).sum(dim=-1).mean(dim=0)
    dead = _update_dead(selection, state, settings, accelerator)
    penalty = settings.l1_coefficient * _l1_factor(settings, step) * selection.penalty
    auxiliary = auxiliary_loss(crosscoder, selection, error.detach(), dead)
    loss = squared.sum() + penalty + settings.auxiliary_weight * auxiliary
    if torch.isfinite(loss):
        _update_threshold(crosscoder, selection, step)

    def metrics() -> dict[str, float | list[float]]:
        centred = x - x.mean(dim=0)
        explained = 1 - squared / centred.pow(2).sum(dim=-1).mean(dim=0)
        return {
            "loss": loss.item(),
            "squared_error": squared.tolist(),
            "explained_variance": explained.tolist(),
            "penalty": penalty.item(),
            "auxiliary_loss": auxiliary.item(),
            "l0": (selection.codes > 0).sum(dim=1).float().mean().item(),
            "dead_fraction": dead.float().mean().item(),
            "threshold": crosscoder.threshold.item(),
        }

    return loss, metrics


def auxiliary_loss(
    crosscoder: Crosscoder,
    selection: Selection,
    residual: Float[Tensor, "token checkpoint d_model"],
    dead: Bool[Tensor, " feature"],
) -> Float[Tensor, ""]:
    """Return the loss by which dead latents learn the residual x - x_hat (Gao et al. 2406.04093, appendix A.2).

    The largest `auxiliary_k` positive preactivations of dead latents guess the residual; the loss is the squared error
    of the guess, summed over checkpoints and width as the main loss is.
    """
    count = min(crosscoder.config.settings.auxiliary_k, int(dead.sum()))
    if count == 0:
        return residual.new_zeros(())
    of_dead = torch.relu(selection.preactivations[:, dead])
    top = of_dead.topk(count, dim=1)
    codes = torch.zeros_like(of_dead).scatter(1, top.indices, top.values)
    guess = torch.einsum("tf,mfd->tmd", codes, crosscoder.W_dec[:, dead])
    return (residual - guess).pow(2).sum(dim=(1, 2)).mean()


def _update_dead(
    selection: Selection, state: _State, settings: CrosscoderSettings, accelerator: Accelerator
) -> Bool[Tensor, " feature"]:
    active: Tensor = accelerator.reduce((selection.codes > 0).any(dim=0).float(), "sum")
    state.silent_tokens += settings.batch_tokens
    state.silent_tokens[active > 0] = 0
    return state.silent_tokens >= settings.dead_after_tokens


@torch.no_grad()
def _update_threshold(crosscoder: Crosscoder, selection: Selection, step: int) -> None:
    if torch.isnan(selection.smallest_kept):
        return
    decay = crosscoder.config.settings.threshold_decay if step else 0.0
    crosscoder.threshold.lerp_(selection.smallest_kept, 1 - decay)


def _l1_factor(settings: CrosscoderSettings, step: int) -> float:
    warmup = settings.l1_warmup_fraction * settings.steps
    return min(1.0, step / warmup) if warmup else 1.0


def _learning_rate_factor(settings: CrosscoderSettings) -> Callable[[int], float]:
    decay = settings.decay_fraction * settings.steps

    def factor(step: int) -> float:
        return min(1.0, (settings.steps - step) / decay) if decay else 1.0

    return factor


def _rescue(crosscoder: Crosscoder, scale: Tensor, path: Path, step: int, accelerator: Accelerator) -> None:
    if accelerator.is_main_process:
        crosscoder.cpu().fold_scale(scale).save(path)
    accelerator.wait_for_everyone()  # the first process that raises has all others ended, the saving one too
    raise NonFiniteError(
        f"step {step}: loss or gradient is not finite; the crosscoder before this step is saved in {path};"
        " lower learning_rate, or look for outliers in the activations"
    )


def _history(records: list[dict[str, float | list[float]]], config: CrosscoderConfig) -> xr.Dataset:
    names = {
        "loss": "training loss",
        "squared_error": "squared error summed over the width, in normalised units",
        "explained_variance": "explained variance of the batch",
        "penalty": "sparsity term of the loss",
        "auxiliary_loss": "squared error of the dead latents' guess of the residual",
        "l0": "mean number of active latents a token",
        "dead_fraction": "part of the latents that have been silent for dead_after_tokens",
        "threshold": "inference threshold",
        "learning_rate": "learning rate after the step",
    }
    variables = {}
    for name, long_name in names.items():
        values = np.array([record[name] for record in records], dtype=np.float64)
        variables[name] = labelled(("step", "checkpoint")[: values.ndim], values, long_name)
    coordinates = {"step": [record["step"] for record in records], "checkpoint": strings(config.checkpoints)}
    return xr.Dataset(variables, coords=coordinates)
