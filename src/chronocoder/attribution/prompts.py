"""Reading the examples of a task at every checkpoint, and what an intervention does to them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from accelerate import PartialState
from accelerate.utils import reduce
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache

from chronocoder.attribution.effects import Prompts
from chronocoder.attribution.interventions import MEAN, NEEDED, OTHER_PREFIX, ZERO, check_prepared
from chronocoder.config import AttributionSettings
from chronocoder.crosscoder.model import Crosscoder, CrosscoderConfig, side_by_side
from chronocoder.errors import NonFiniteError, StoreError
from chronocoder.suites.precision import overflow_remedy
from chronocoder.suites.sites import Site, SiteState
from chronocoder.tasks.readout import readout_of, sequences_at_once
from chronocoder.tasks.rows import Rows, row_batches, row_ids, rows_of


class PromptBatch(NamedTuple):
    """Sequences of one length, at every checkpoint.

    Attributes:
        rows: which sequences of which examples they are.
        prompts: by checkpoint; `change` and `weight` are of all features.
        codes: feature activations on the clean text, shape (batch, position, feature); zero at the first position.
    """

    rows: Rows
    prompts: list[Prompts]
    codes: Float[Tensor, "batch position feature"]


class Place(NamedTuple):
    """A batch at one checkpoint.

    Attributes:
        site: in the checkpoint's model.
        prompts: with the change and the decoder rows of all features.
        rows: which sequences of which examples the batch holds.
        number: of the checkpoint.
        settings: of the attribution.
        past: where keys and values of the clean pass are kept, once it has been run; None where none are.
    """

    site: Site
    prompts: Prompts
    rows: Rows
    number: int
    settings: AttributionSettings
    past: Cache | None = None


def check_checkpoints(config: CrosscoderConfig, suite: str, revisions: Sequence[str], commits: Sequence[str]) -> None:
    """Check that checkpoints are those that a crosscoder is of, in its order.

    Raises:
        StoreError: they are not; the message names what differs.
    """
    _check_equal("suite", [config.suite], [suite])
    _check_equal("checkpoints", config.checkpoints, revisions)
    _check_equal("commits", config.commits, commits)


def check_suite(config: CrosscoderConfig, task: xr.Dataset) -> None:
    """Check that a task was tokenised for a crosscoder's suite.

    Raises:
        StoreError: it was not.
    """
    if task.attrs.get("suite") != config.suite:
        raise StoreError(
            f"task '{task.attrs.get('task')}' is of suite '{task.attrs.get('suite')}', the crosscoder of"
            f" '{config.suite}'; give a task of the same suite"
        )


def check_models(config: CrosscoderConfig, sites: Sequence[Site]) -> None:
    """Check that models are of a crosscoder's number, width and site.

    Raises:
        StoreError: they are not; the message names what differs.
    """
    _check_equal("widths", config.widths, [site.width for site in sites])
    _check_equal("sites", [config.site] * len(sites), [site.name for site in sites])


def bounded(settings: AttributionSettings, task: xr.Dataset, sites: Sequence[Site]) -> AttributionSettings:
    """Return the settings with so small a batch that the logits of a pass are no more than a pass may have."""
    size = sequences_at_once(task, sites[0].model.config.vocab_size, settings.batch_size)
    return settings.model_copy(update={"batch_size": size})


def read_prompts(
    crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset, intervention: str, batch_size: int
) -> Iterator[PromptBatch]:
    """Yield the examples that this process has to do with, in batches without padding.

    Args:
        crosscoder: folded.
        sites: the site in each checkpoint's model, in the crosscoder's order.
        task: as `prepare_task` returns it for the intervention.
        intervention: what features are changed to.
        batch_size: examples at once.

    Raises:
        TaskError: the task lacks what the intervention needs.
        StoreError: the models are not of the crosscoder's number, width or site.
        NonFiniteError: activations are NaN or infinite.
    """
    check_models(crosscoder.config, sites)
    check_prepared(task, intervention)
    state = PartialState()
    evenly = -(-len(rows_of(task).lengths) // state.num_processes)
    for rows in row_batches(task, min(batch_size, evenly))[state.process_index :: state.num_processes]:
        yield _read_batch(crosscoder, sites, task, rows, intervention)


def add_to_examples(
    values: np.ndarray, rows: Rows, found: Tensor, features: Int[Tensor, " feature"] | None = None
) -> None:
    """Add what was found of sequences to values of their examples.

    Args:
        values: shape (example, ...).
        rows: the sequences; both sentences of an example may be among them.
        found: of each sequence, shape (row, ...).
        features: places in the last dimension of `values` that it was found of; None: all.
    """
    places = rows.examples if features is None else np.ix_(rows.examples, features.cpu().numpy())
    np.add.at(values, places, found.cpu().numpy())


def joined(values: np.ndarray) -> np.ndarray:
    """Add up the arrays of all processes; each has zeros where the examples of others belong."""
    state = PartialState()
    if state.num_processes == 1:
        return values
    total: Tensor = reduce(torch.from_numpy(values).to(state.device), reduction="sum")
    return total.cpu().numpy()


@torch.no_grad()
def _read_batch(
    crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset, rows: Rows, intervention: str
) -> PromptBatch:
    device = sites[0].model.device
    ids = torch.from_numpy(row_ids(task, rows)).to(device)
    examples, readout = torch.from_numpy(rows.examples).to(device), readout_of(task, rows, device)
    states, codes = _encode(crosscoder, sites, ids)
    targets, target_codes = _target(crosscoder, sites, task, rows, intervention)
    change = target_codes - codes
    change[:, 0] = 0
    prompts = []
    for state, target, rows_of_checkpoint in zip(states, targets, crosscoder.W_dec, strict=True):
        width = state.activation.shape[-1]
        weight = rows_of_checkpoint[:, :width]
        end = target[..., :width].to(state.activation).expand_as(state.activation).clone()
        end[:, 0] = state.activation[:, 0]
        prompts.append(Prompts(examples, ids, readout, state, end, change, weight))
    mean_length = rows_of(task).lengths.sum() / task.sizes["example"]
    return PromptBatch(rows, [of._replace(mean_length=mean_length) for of in prompts], codes)


def _target(
    crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset, rows: Rows, intervention: str
) -> tuple[Sequence[Tensor], Tensor]:
    """Return what the activation of each checkpoint, and the codes, are changed to: everywhere, or by position."""
    bias = crosscoder.b_dec
    if intervention == ZERO:
        return bias.unbind(), bias.new_zeros(1)
    if intervention == MEAN:
        mean_code, mean_activation = (torch.from_numpy(task[name].values).to(bias) for name in NEEDED[MEAN])
        return mean_activation.unbind(), mean_code
    others = row_ids(task, rows, OTHER_PREFIX[intervention])
    states, codes = _encode(crosscoder, sites, torch.from_numpy(others).to(sites[0].model.device))
    return [state.activation for state in states], codes


def _encode(
    crosscoder: Crosscoder, sites: Sequence[Site], ids: Tensor
) -> tuple[list[SiteState], Float[Tensor, "batch position feature"]]:
    states = [site.read(ids) for site in sites]
    x = side_by_side([state.activation.to(crosscoder.b_dec) for state in states])
    for revision, of_checkpoint, site in zip(crosscoder.config.checkpoints, x.unbind(2), sites, strict=True):
        if not torch.isfinite(of_checkpoint).all():
            raise NonFiniteError(f"activations at checkpoint {revision} are not finite; {overflow_remedy(site.model)}")
    codes = crosscoder.encode(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    codes[:, 0] = 0
    return states, codes


def _check_equal(name: str, expected: Sequence[object], found: Sequence[object]) -> None:
    if list(expected) != list(found):
        listed = (", ".join(map(str, values)) for values in (expected, found))
        raise StoreError(
            "{}: the crosscoder is of {}, not of {}; give the models it was trained on".format(name, *listed)
        )
