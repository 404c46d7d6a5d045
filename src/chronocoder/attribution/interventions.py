"""What an intervention changes features to: found for a whole task, before its examples are cut into batches."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from chronocoder.config import AttributionSettings
from chronocoder.errors import StoreError, TaskError
from chronocoder.tasks.rows import by_member, rows_of

ZERO, MEAN, COUNTERFACTUAL, RESAMPLE = "zero", "mean", "counterfactual", "resample"
MEAN_CODE, MEAN_ACTIVATION = "mean_code", "mean_site_activation"
OTHER_PREFIX = {COUNTERFACTUAL: "counterfactual_id", RESAMPLE: "partner_id"}
"""The variable of a task with the prefix on which features are what they are changed to."""
NEEDED = {ZERO: (), MEAN: (MEAN_CODE, MEAN_ACTIVATION), **{name: (of,) for name, of in OTHER_PREFIX.items()}}


def prepare_task(task: xr.Dataset, settings: AttributionSettings, evaluation: xr.Dataset | None = None) -> xr.Dataset:
    """Return the examples of a task that the settings' intervention can be made on, with what it needs.

    `resample` adds `partner_id`, shaped as `token_id`: the prefix of each example's partner. `mean` adds the corpus
    means, in raw units: `mean_code` (feature) and `mean_site_activation` (checkpoint, d_model).

    Args:
        task: as `tokenise_pairs` returns it.
        settings: the intervention, and the seed of the partners.
        evaluation: the crosscoder's, which `mean` needs.

    Returns:
        The task; its attribute `examples_left_out` counts the examples that are not among them.

    Raises:
        TaskError: there are none.
        StoreError: `mean` has no evaluation with the corpus means.
    """
    if settings.intervention == MEAN:
        prepared = _with_means(task, evaluation)
    elif settings.intervention == RESAMPLE:
        prepared = _with_partners(task, settings.seed)
    else:
        prepared = usable_examples(task, settings.intervention)
    return prepared.assign_attrs(examples_left_out=task.sizes["example"] - prepared.sizes["example"])


def usable_examples(task: xr.Dataset, intervention: str) -> xr.Dataset:
    """Return the examples of a task that `zero` or `counterfactual` can be made on.

    Raises:
        TaskError: there are none.
    """
    if intervention == ZERO:
        return task
    usable = task.isel(example=np.flatnonzero(task["has_counterfactual"].values))
    if not usable.sizes["example"]:
        raise TaskError(
            f"task '{task.attrs.get('task', '')}': no pair has a counterfactual prefix of as many tokens as its prefix;"
            " supply some, or set attribution.intervention to zero"
        )
    return usable


def draw_partners(task: xr.Dataset, seed: int) -> np.ndarray:
    """Return for each example the place of another, drawn at random, with a prefix of as many tokens and other ones.

    Of sentences, what counts as the prefix is all that a model reads of both. Partners may be of any condition. Among
    prefixes of one length each example is the partner of one other, as long as no prefix belongs to more than half of
    the examples; otherwise some are partners several times.

    Args:
        task: all its examples: the partners depend on which there are.
        seed: of the draw.

    Returns:
        Shape (example,); -1 where no example has another prefix of that length.
    """
    generator = np.random.default_rng([seed, 4])
    ids, read = by_member(task, "token_id"), rows_of(task).lengths.reshape(task.sizes["example"], -1)
    tokens = np.where(np.arange(ids.shape[-1]) < read[..., None], ids, -1).reshape(len(ids), -1)
    partners = np.full(len(ids), -1)
    for length in np.unique(read, axis=0):
        examples = np.flatnonzero((read == length).all(axis=1))
        _, prefixes = np.unique(tokens[examples], axis=0, return_inverse=True)
        partners[examples] = [examples[place] if place >= 0 else -1 for place in _others(prefixes.ravel(), generator)]
    return partners


def check_prepared(task: xr.Dataset, intervention: str) -> None:
    """Check that a task has what an intervention needs.

    Raises:
        TaskError: it has not.
    """
    if missing := [name for name in NEEDED[intervention] if name not in task]:
        raise TaskError(
            f"task '{task.attrs.get('task', '')}': has no {', '.join(missing)}, which intervention '{intervention}'"
            " needs; give the task as prepare_task returns it"
        )


def check_evaluation(evaluation: xr.Dataset, facts: Mapping[str, object]) -> None:
    """Check that an evaluation is of a crosscoder, by the crosscoder's facts.

    Raises:
        StoreError: it is not; the message names what differs.
    """
    for key, value in facts.items():
        if (found := evaluation.attrs.get(key)) != value:
            raise StoreError(
                f"the evaluation given has {key} {found}, not {value}; give the evaluation of this crosscoder"
            )


def _with_means(task: xr.Dataset, evaluation: xr.Dataset | None) -> xr.Dataset:
    missing = [name for name in NEEDED[MEAN] if evaluation is None or name not in evaluation]
    if evaluation is None or missing:
        raise StoreError(
            f"intervention '{MEAN}' needs {' and '.join(missing)} from the crosscoder's evaluation;"
            " evaluate the crosscoder anew, and give its evaluation"
        )
    of_checkpoints = evaluation[MEAN_ACTIVATION].transpose("checkpoint", "d_model")
    return task.assign(
        {
            MEAN_CODE: ("feature", evaluation[MEAN_CODE].values),
            MEAN_ACTIVATION: (of_checkpoints.dims, of_checkpoints.values),
        }
    )


def _with_partners(task: xr.Dataset, seed: int) -> xr.Dataset:
    partners = draw_partners(task, seed)
    texts = task["token_id"].transpose("example", ...)
    paired = task.assign({OTHER_PREFIX[RESAMPLE]: (texts.dims, texts.values[partners])})
    usable = paired.isel(example=np.flatnonzero(partners >= 0))
    if not usable.sizes["example"]:
        raise TaskError(
            f"task '{task.attrs.get('task', '')}': no two pairs have different prefixes of as many tokens;"
            " supply some, or set attribution.intervention to zero or mean"
        )
    return usable


def _others(prefixes: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return for each place another whose prefix has another number; -1 where there is none.

    With equal prefixes next to each other in random order, the place as many steps on as the most frequent prefix has
    examples is of another prefix, unless that prefix has more than half of all.
    """
    shuffled = generator.permutation(len(prefixes))
    ranks = generator.permutation(prefixes.max() + 1)
    order = shuffled[np.argsort(ranks[prefixes[shuffled]], kind="stable")]
    others = np.empty_like(order)
    others[order] = np.roll(order, -np.bincount(prefixes).max())
    for place in np.flatnonzero(prefixes[others] == prefixes):
        different = np.flatnonzero(prefixes != prefixes[place])
        others[place] = generator.choice(different) if len(different) else -1
    return others
