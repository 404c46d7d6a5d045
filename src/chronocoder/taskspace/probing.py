"""Similarity probing: what tuning a copy of a model on one task does to all tasks, and to the language as a whole.

As in Weber et al. 2024 (arXiv 2406.06441) the untuned model is evaluated on all tasks, a copy is tuned on one of them
and evaluated again. What each copy loses in modelling text is measured beside.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from transformers import PreTrainedModel

from chronocoder.behaviour.pool import Pool
from chronocoder.config import MethodSettings, TuningSettings
from chronocoder.errors import NonFiniteError
from chronocoder.stores import labelled, strings
from chronocoder.tasks.rows import unit_of
from chronocoder.taskspace.losses import tokens_in_pass
from chronocoder.taskspace.split import held_out_pairs
from chronocoder.taskspace.tuning import Source, Tuning, tuned, updatable


class Evaluation(NamedTuple):
    """How a model does.

    Attributes:
        differences: right minus wrong of each held-out pair of all tasks, one task after the other.
        losses: of each sequence of text, in nats a token.
    """

    differences: Float[np.ndarray, " entry"]
    losses: Float[np.ndarray, " sequence"]


class Probe:
    """A model that copies are tuned of, evaluated once before, and again after each tuning.

    Attributes:
        held: of each task, whether each of its pairs is held out.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tasks: Mapping[str, xr.Dataset],
        token_ids: Int[np.ndarray, "sequence position"],
        settings: TuningSettings,
        seed: int,
    ) -> None:
        """Evaluate the untuned model.

        Args:
            model: in float32 and in evaluation mode, without gradients.
            tasks: all of the task space by name, as `tokenise_pairs` returns them.
            token_ids: validation text; the first `settings.sequences` are read.
            settings: how copies are tuned.
            seed: of the tunings.

        Raises:
            TaskError: a task has too few pairs.
            NonFiniteError: the model is damaged.
        """
        self._model, self._tasks, self._settings, self._seed = model, tasks, settings, seed
        self.held: dict[str, Bool[np.ndarray, " example"]] = held_out_pairs(tasks, settings.held_out, seed)
        self._places = {name: np.flatnonzero(of_task) for name, of_task in self.held.items()}
        self._pool = Pool.of([tasks[name].isel(example=places) for name, places in self._places.items()])
        self._text = token_ids[: settings.sequences]
        self._parameters = updatable(model, settings.embeddings)
        self._before = self._evaluate()

    def of(self, name: str) -> xr.Dataset:
        """Tune a copy on a task by every method and return how it does.

        Returns:
            `difference` (tuning, entry) and `difference_before` (entry) of the held-out pairs of all tasks, `loss`
            (tuning, sequence) and `loss_before` (sequence), `training_loss` (tuning, step), `updated_parameters` and
            `update_norm` (tuning). The coordinates `target` and `example` say which pair an entry is.

        Raises:
            NonFiniteError: a number in a tuning or of a tuned model is NaN or infinite.
        """
        source = Source(self._tasks[name], np.flatnonzero(~self.held[name]), self._seed)
        found = [self._tuned(source, method, of) for method, of in self._settings.methods.items()]
        tunings, evaluations = zip(*found, strict=True)
        return self._dataset(tunings, evaluations).assign_attrs(
            parameters=self._parameters,
            pairs_tuned=len(source.pairs),
            pairs_held_out=len(self._places[name]),
            unit=unit_of(source.task),
        )

    def _tuned(self, source: Source, name: str, method: MethodSettings) -> tuple[Tuning, Evaluation]:
        with tuned(self._model, source, name, method, self._settings) as tuning:
            try:
                return tuning, self._evaluate()
            except NonFiniteError as error:
                raise NonFiniteError(
                    f"after tuning on task '{source.name}' by method '{name}': {error}; lower"
                    f" taskspace.methods.{name}.learning_rate {method.learning_rate:g}"
                ) from error

    def _evaluate(self) -> Evaluation:
        differences = np.concatenate(self._pool.differences(self._model))
        return Evaluation(differences, sequence_losses(self._model, self._text, self._settings.tokens_at_once))

    def _dataset(self, tunings: Sequence[Tuning], evaluations: Sequence[Evaluation]) -> xr.Dataset:
        methods, before = self._settings.methods, self._before
        by_entry, by_sequence, by_step = (("tuning", dim) for dim in ("entry", "sequence", "step"))
        change = "after tuning"
        return xr.Dataset(
            {
                "difference": labelled(
                    by_entry,
                    np.stack([one.differences for one in evaluations]),
                    f"right minus wrong {change}",
                    "that of the target",
                ),
                "difference_before": labelled(
                    by_entry[1:], before.differences, "right minus wrong of the untuned model", "that of the target"
                ),
                "loss": labelled(
                    by_sequence,
                    np.stack([one.losses for one in evaluations]),
                    f"mean loss of the tokens of a validation sequence {change}",
                    "nat/token",
                ),
                "loss_before": labelled(by_sequence[1:], before.losses, "the same of the untuned model", "nat/token"),
                "training_loss": labelled(
                    by_step,
                    np.stack([one.losses for one in tunings]),
                    "loss of a step's batch before the step",
                    "that of the objective",
                ),
                "updated_parameters": labelled(
                    ("tuning",), [one.updated for one in tunings], "entries of parameters that were updated"
                ),
                "update_norm": labelled(("tuning",), [one.norm for one in tunings], "norm of the weights' change"),
            },
            coords={
                "tuning": strings(list(methods)),
                "objective": ("tuning", strings([one.objective for one in methods.values()])),
                "fraction": ("tuning", [one.fraction for one in methods.values()]),
                "target": ("entry", strings([name for name, places in self._places.items() for _ in places])),
                "example": ("entry", np.concatenate(list(self._places.values()))),
                "step": np.arange(self._settings.steps),
            },
        )


@torch.no_grad()
def sequence_losses(
    model: PreTrainedModel, token_ids: Int[np.ndarray, "sequence position"], tokens_at_once: int
) -> Float[np.ndarray, " sequence"]:
    """Return the mean loss of each sequence of text over all its tokens but the first, in nats.

    Raises:
        NonFiniteError: one is NaN or infinite.
    """
    at_once = max(1, tokens_in_pass(model, tokens_at_once) // token_ids.shape[1])
    losses = np.concatenate([_losses(model, ids) for ids in _split(token_ids, at_once)])
    if not np.isfinite(losses).all():
        raise NonFiniteError(f"{model.name_or_path}: the loss of a sequence of text is not finite")
    return losses


def _split(token_ids: np.ndarray, size: int) -> Iterator[torch.Tensor]:
    yield from torch.from_numpy(token_ids.astype(np.int64)).split(size)


def _losses(model: PreTrainedModel, ids: torch.Tensor) -> np.ndarray:
    logits = model(input_ids=ids.to(model.device)).logits[:, :-1].float()
    following = ids[:, 1:].to(logits.device)
    of_tokens = torch.nn.functional.cross_entropy(logits.transpose(1, 2), following, reduction="none")
    losses: np.ndarray = of_tokens.mean(dim=1, dtype=torch.float64).cpu().numpy()
    return losses
