"""Training a crosscoder, on one process or many, through Accelerate."""

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import torch
import xarray as xr
from accelerate import Accelerator
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import leaky_relu
from tqdm import tqdm

from chronocoder.activations.formats import Stored, normalised
from chronocoder.activations.loader import sampled_blocks, shuffled_batches
from chronocoder.activations.sources import ActivationSource
from chronocoder.crosscoder.awaited import Awaited
from chronocoder.crosscoder.batch import TrainingBatch
from chronocoder.crosscoder.history import Losses, history_dataset
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig
from chronocoder.crosscoder.parts import even_sizes
from chronocoder.crosscoder.sparse import active_where
from chronocoder.crosscoder.state import Record, StateDirectory, StopRequest, TrainingState
from chronocoder.crosscoder.team import Team
from chronocoder.errors import NonFiniteError, StoppedError
from chronocoder.variants.base import CrosscoderSettings, Selection

LOG_EVERY = 10
NEGATIVE_SLOPE = 0.01
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
        crosscoder: folded, so that it takes raw activations; on the CPU; whole on the leading process, and on all where
            the dictionary is not cut into shards.
        history: losses and metrics over the steps.
    """

    crosscoder: Crosscoder
    history: xr.Dataset


class ActivationStatistics(NamedTuple):
    """What the normalisation and the decoder's bias begin with.

    Attributes:
        scale: s_m = sqrt(d_m) / mean_b ||a_b^m||, d_m the width at checkpoint m, shape (checkpoint,).
        mean: mean of the scaled activations, shape (checkpoint, d_model).
    """

    scale: Float[Tensor, " checkpoint"]
    mean: Float[Tensor, "checkpoint d_model"]


def measure_activations(
    source: ActivationSource, settings: CrosscoderSettings, seed: int, team: Team
) -> ActivationStatistics:
    """Measure norm and mean on the first `normalisation_tokens` of the shuffled split, by running sums in float64."""
    tokens = settings.normalisation_tokens
    own = [_sums_of_part(source, tokens, seed, part, team.all_parts) for part in team.own_parts]
    sums = team.gather_all(torch.stack(own)).sum(dim=0)
    scale = torch.tensor(source.widths, dtype=sums.dtype, device=sums.device).sqrt() * sums[:, 0] / sums[:, 1]
    mean = scale[:, None] * sums[:, 2:] / sums[:, :1]
    return ActivationStatistics(scale.float(), mean.float())


def _sums_of_part(
    source: ActivationSource, tokens: int, seed: int, part: int, parts: int
) -> Float[Tensor, "checkpoint n"]:
    """Return tokens, sum of norms, and sum of activations of a part of the sample."""
    sums = torch.zeros(source.checkpoints, source.width + 2, dtype=torch.float64)
    for block in sampled_blocks(source, tokens, seed, part=part, parts=parts):
        sums[:, 0] += len(block)
        sums[:, 1] += block.norm(dim=-1).sum(dim=0, dtype=torch.float64)
        sums[:, 2:] += block.sum(dim=0, dtype=torch.float64)
    return sums


def train_crosscoder(
    config: CrosscoderConfig,
    source: ActivationSource,
    states: StateDirectory,
    rescue_path: Path,
    save_every: int,
    shards: int = 1,
    parts: int = 0,
) -> Trained:
    """Train a crosscoder, or go on with a training that was ended before it was finished.

    The loss is mean_b sum_m ||x_b^m - x_hat_b^m||^2 plus the variant's penalty and the auxiliary loss. With `parts`,
    the result is the same to the last bit for any number of processes that divides them, also where a training goes on
    with another number of processes: for one number of shards, on hardware of one model, with the same versions of
    libraries. On a CPU each process then computes with one thread, since rounding depends on their number too. Without
    parts, rounding depends on the number of processes, and makes another dictionary within some hundred steps. The
    caller removes `states` once the result is stored.

    Args:
        config: what to train; `folded` is false.
        source: training activations of the config's checkpoints, in their order.
        states: where the state is saved.
        rescue_path: where the last good crosscoder is saved if a loss is not finite.
        save_every: steps from one saved state to the next.
        shards: parts that the dictionary is cut into, each held by another process.
        parts: into which each batch is dealt, so that rounding does not depend on the number of processes; 0: none.

    Raises:
        ConfigError: the dictionary or the processes cannot be cut into so many shards, or the parts not be shared out
            among the processes.
        StoppedError: SIGTERM or SIGUSR2 came; the state has been saved.
        NonFiniteError: a loss or gradient is NaN or infinite; the crosscoder before that step has been saved.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    team = Team(accelerator.process_index, accelerator.num_processes, shards, accelerator.device, parts)
    with StopRequest() as stop, _one_thread() if parts else nullcontext():
        trainer = Trainer(config, source, team, accelerator)
        saved = states.load(team)
        if saved is None:
            trainer.begin()
        else:
            trainer.restore(saved)
            _log.info("going on after step %d of %d", saved.step, config.settings.steps)
        trainer.run(states, save_every, stop, rescue_path)
        return Trained(trainer.result(), history_dataset(trainer.records, config.checkpoints))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: sums, and products too, are rounded otherwise where several share them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Trainer:
    """One training: its weights, optimiser and counters, and the step that changes them.

    Attributes:
        crosscoder: the latents that this process holds.
        step: steps done.
        records: metrics of the steps logged so far.
    """

    def __init__(
        self, config: CrosscoderConfig, source: ActivationSource, team: Team, accelerator: Accelerator
    ) -> None:
        self._config, self._source, self._team, self._accelerator = config, source, team, accelerator
        self._settings = config.settings
        generator = torch.Generator().manual_seed(config.seed)
        features = team.features(self._settings.dictionary_size)
        self.crosscoder = Crosscoder(config, generator, features).to(accelerator.device)
        self._parameters = list(self.crosscoder.parameters())
        self._optimizer = torch.optim.Adam(
            self._parameters, lr=self._settings.learning_rate, betas=(0.9, 0.999), fused=True
        )
        self._finish_gradients = team.sum_gradients(self._parameters)
        self._silent_tokens = torch.zeros(len(features), dtype=torch.int64, device=accelerator.device)
        self._scale = torch.ones(source.checkpoints, device=accelerator.device)
        self._smallest: Tensor | None = None
        self.step, self.records = 0, list[Record]()

    def begin(self) -> None:
        """Measure the activations: their norm makes the scale, and their mean the decoder's first bias."""
        statistics = measure_activations(self._source, self._settings, self._config.seed, self._team)
        self._scale.copy_(statistics.scale)
        self.crosscoder.b_dec.data.copy_(statistics.mean)  # else dense latents spend themselves on the mean

    def restore(self, state: TrainingState) -> None:
        """Take over a saved state."""
        self.step, self.records = state.step, state.records
        for name, value in self._tensors().items():
            value.data.copy_(state.tensors[name])

    def run(self, states: StateDirectory, save_every: int, stop: StopRequest, rescue_path: Path) -> None:
        """Train to the last step, saving the state on the way; parameters and errors as `train_crosscoder`."""
        settings, team = self._settings, self._team
        batches = shuffled_batches(
            self._source,
            settings.batch_tokens,
            self._config.seed,
            first_batch=self.step,
            buffer_tokens=settings.shuffle_tokens,
            rank=team.rank,
            processes=team.processes,
            parts=team.parts,
            device=self._accelerator.device,
        )
        left = range(self.step, settings.steps)
        with closing(batches), tqdm(left, desc="train", mininterval=2, disable=not team.leads) as steps:
            for _ in steps:
                self.train_step(next(batches), rescue_path, batches.part_sizes)
                stopped = self._received(stop)
                if stopped or (self.step % save_every == 0 and self.step < settings.steps):
                    states.save(TrainingState(self.step, self._tensors(), self.records), team)
                if stopped:
                    raise StoppedError(stopped, f"stopped at step {self.step}; run again: {states.path} has the state")

    def result(self) -> Crosscoder:
        """Return the trained crosscoder, folded, on the CPU: whole on the leading process, elsewhere what it holds."""
        shared, tensors = ("b_dec", "scale"), self.crosscoder.state_dict()
        gathered = {
            name: value.cpu() if name in shared else self._team.gather_shards(value) for name, value in tensors.items()
        }
        whole = Crosscoder(self._config, features=range(len(gathered["b_enc"])))
        whole.load_state_dict(gathered, assign=True)
        return whole.fold_scale(self._scale.cpu())

    def train_step(self, local: Stored, rescue_path: Path, part_sizes: Sequence[int] = ()) -> None:
        """Change the weights by one batch.

        Args:
            local: what this process has of it, in raw units, its parts one after the other.
            rescue_path: as `train_crosscoder`.
            part_sizes: tokens of each part, of all processes; where not given, those of one process are dealt evenly.
        """
        settings, team = self._settings, self._team
        x = team.share_tokens(normalised(local, self._scale).flatten(1))
        self._optimizer.zero_grad()
        sizes = (part_sizes or even_sizes(len(x), team.parts)) if team.parts else None
        batch = TrainingBatch(self.crosscoder, x, self.step, settings.batch_tokens, team, self._smallest, sizes)
        loss, threshold, record = self._losses(batch)
        self._smallest = batch.smallest
        self._accelerator.backward(loss)
        self._finish_gradients()
        rate = settings.learning_rate * _learning_rate_factor(settings, self.step)
        self._optimizer.param_groups[0]["lr"] = rate
        if not isfinite(self._update()):  # a loss that is not finite makes it so too, on every process at once
            self._rescue(rescue_path)
        if threshold is not None:
            self.crosscoder.threshold.copy_(threshold)
        if record is not None:
            self.records.append({"step": self.step, "learning_rate": rate, **record})
        self.step += 1

    def _losses(self, batch: TrainingBatch) -> tuple[Float[Tensor, ""], Float[Tensor, ""] | None, Record | None]:
        """Return this process's part of the loss, the new threshold if any, and metrics if they are to be logged."""
        crosscoder = self.crosscoder
        halved = self._settings.precision == "bfloat16"  # not Accelerate's: a process could never change it again
        with torch.autocast(batch.x.device.type, torch.bfloat16, enabled=halved):
            selection = self._settings.train(batch)
            dead = self._update_dead(selection)
            number = Awaited(self._team.add_shards(dead.sum()))  # known by the time that it is asked for
            decoded = selection.codes.decode(crosscoder.decoder_rows.flatten(1))
            error = batch.x - self._team.add_shards(decoded) - batch.dealt.spread(crosscoder.b_dec.flatten())
            auxiliary = auxiliary_loss(batch, error.detach(), dead, number)
        penalty = batch.x.new_zeros(()) if selection.penalty is None else selection.penalty
        losses = Losses(error, penalty, auxiliary)
        loss = losses.total(batch)
        logged = self.step % LOG_EVERY == 0 or self.step == self._settings.steps - 1
        return loss, selection.threshold, losses.metrics(batch, selection.codes, dead) if logged else None

    def _update_dead(self, selection: Selection) -> Bool[Tensor, " feature"]:
        active = self._team.add_parts(selection.codes.active().int())
        self._silent_tokens += self._settings.batch_tokens
        self._silent_tokens[active > 0] = 0
        return self._silent_tokens >= self._settings.dead_after

    @torch.no_grad()
    def _update(self) -> float:
        """Clip the gradients to a norm over all shards and change the weights; return the norm that they had.

        Gradients that are not finite change nothing. On a GPU the optimiser itself clips them or leaves them out: it is
        under way before the norm is known here.
        """
        gradients = {name: value.grad for name, value in self.crosscoder.named_parameters() if value.grad is not None}
        squares = {name: value.norm().square() for name, value in gradients.items()}
        shared = squares.pop("b_dec")
        norm = torch.sqrt(self._team.add_shards(torch.stack(list(squares.values())).sum()) + shared)
        if norm.is_cuda:
            known = Awaited(norm)
            divisor = (norm / self._settings.gradient_norm).clamp(min=1)
            vars(self._optimizer).update(grad_scale=divisor, found_inf=norm.isfinite().logical_not().float())
            self._optimizer.step()
            return known.value()
        value = float(norm)
        if value > self._settings.gradient_norm:
            torch._foreach_mul_(list(gradients.values()), self._settings.gradient_norm / value)
        if isfinite(value):
            self._optimizer.step()
        return value

    def _received(self, stop: StopRequest) -> int:
        """Return the signal that this process has received, or SIGTERM where another one has received any."""
        own = stop.received  # a signal that comes from here on waits for the next step: all have to stop after the same
        if self._team.processes == 1:
            return own
        received = self._team.add_all(torch.tensor(own, device=self._accelerator.device))
        return own or (signal.SIGTERM if received else 0)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {**self.crosscoder.state_dict(), "silent_tokens": self._silent_tokens, "normalisation": self._scale}
        for name, parameter in self.crosscoder.named_parameters():
            state = self._optimizer.state[parameter]
            if not state:
                state.update(_first_moments(parameter))
            tensors |= {f"{moment}.{name}": state[moment] for moment in state}
        return tensors

    def _rescue(self, path: Path) -> None:
        whole = self.result()
        if self._team.leads:
            whole.save(path)
        self._team.wait()  # the first process that raises has all others ended, the saving one too
        raise NonFiniteError(
            f"step {self.step}: loss or gradient is not finite; the crosscoder before this step is saved in {path};"
            " lower learning_rate, or look for outliers in the activations"
        )


def auxiliary_loss(
    batch: TrainingBatch, residual: Float[Tensor, "token n"], dead: Bool[Tensor, " feature"], number: Awaited
) -> Float[Tensor, ""]:
    """Return the loss by which dead latents learn the residual x - x_hat (Gao et al. 2406.04093, appendix A.2).

    The largest `auxiliary_k` preactivations of dead latents guess the residual; the loss is the squared error of the
    guess, summed over tokens, checkpoints and width as the main loss is. Negative ones count a hundredth: a dead latent
    of `l1`, and any that is negative on every token, would else never have a gradient again.

    Args:
        batch: the batch.
        residual: x - x_hat.
        dead: of the latents that this process holds, those that are dead.
        number: of all dead latents.
    """
    settings, team = batch.crosscoder.config.settings, batch.team
    if not settings.auxiliary_coefficient or number.value() == 0:
        return residual.new_zeros(())
    places = dead.nonzero().flatten()
    of_dead = batch.values()[:, places]
    entries = active_where(of_dead >= team.kth_of_token(of_dead, settings.auxiliary_k))
    codes = batch.at(replace(entries, features=places[entries.features]))
    leaking = replace(codes, values=leaky_relu(codes.values, NEGATIVE_SLOPE))
    guess = team.add_shards(leaking.decode(batch.crosscoder.decoder_rows.flatten(1)))
    return batch.dealt.sum((residual - guess).pow(2)).sum()


def _learning_rate_factor(settings: CrosscoderSettings, step: int) -> float:
    decay = settings.decay_fraction * settings.steps
    return min(1.0, (settings.steps - step) / decay) if decay else 1.0


def _first_moments(parameter: Tensor) -> dict[str, Tensor]:
    moments = {name: torch.zeros_like(parameter) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": torch.zeros((), dtype=torch.float32, device=parameter.device), **moments}
