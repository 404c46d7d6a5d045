"""The effect of every feature of a crosscoder on one task, at every checkpoint."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr

from chronocoder.attribution.effects import ESTIMATORS, Decoder, Prompts
from chronocoder.attribution.measures import classify, mean_interval, resample_means, share, share_interval
from chronocoder.config import AttributionSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.errors import NonFiniteError, StoreError
from chronocoder.stores import labelled, strings
from chronocoder.suites.sites import Site
from chronocoder.tasks.tokenise import prefix_batches, prefix_ids

IN_LOGITS = "logit"


class TaskEffects(NamedTuple):
    """Effects before they are averaged.

    Attributes:
        effects: dims (checkpoint, example, feature), in logits.
        active: on how many tokens of each prefix a feature is active, dims (example, feature).
    """

    effects: xr.DataArray
    active: xr.DataArray


def measure_effects(
    crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset, settings: AttributionSettings
) -> TaskEffects:
    """Estimate the effect of every feature on every example at every checkpoint.

    Args:
        crosscoder: folded.
        sites: the site in each checkpoint's model, in the crosscoder's order.
        task: as `tokenise_pairs` returns it.
        settings: estimator, steps and batch size.

    Raises:
        StoreError: the models are not of the crosscoder's width.
        NonFiniteError: an effect is NaN or infinite.
    """
    _check_width(crosscoder, sites)
    size = (len(sites), task.sizes["example"], crosscoder.config.settings.dictionary_size)
    effects, active = np.zeros(size, dtype=np.float32), np.zeros(size[1:], dtype=np.int32)
    estimate = ESTIMATORS[settings.estimator]
    for examples in prefix_batches(task, settings.batch_size):
        prompts = _read_prompts(crosscoder, sites, task, examples)
        active[examples] = (prompts[0].codes > 0).sum(dim=1).cpu().numpy()
        for number, site in enumerate(sites):
            decoder = Decoder(crosscoder.W_dec[number], crosscoder.b_dec[number])
            effects[number, examples] = estimate(site, prompts[number], decoder, settings.steps).cpu().numpy()
    if not np.isfinite(effects).all():
        bad = crosscoder.config.checkpoints[int(np.argwhere(~np.isfinite(effects))[0][0])]
        raise NonFiniteError(f"effects at checkpoint {bad} are not finite; the checkpoint is damaged or overflows")
    coordinates = {"checkpoint": strings(crosscoder.config.checkpoints), "feature": np.arange(size[2])}
    return TaskEffects(
        xr.DataArray(effects, dims=("checkpoint", "example", "feature"), coords=coordinates),
        xr.DataArray(active, dims=("example", "feature"), coords={"feature": coordinates["feature"]}),
    )


def summarise_effects(
    measured: TaskEffects, decoder_norms: np.ndarray, tokens_seen: Mapping[str, int], settings: AttributionSettings
) -> xr.Dataset:
    """Average effects over examples, with shares, intervals and classes.

    Args:
        measured: what `measure_effects` returns.
        decoder_norms: in normalised units, shape (checkpoint, feature).
        tokens_seen: tokens seen by revision.
        settings: number of resamples, confidence and seed.

    Returns:
        Dims (checkpoint, feature); only features that are active on the task are resampled.
    """
    effects = measured.effects
    effect = effects.mean("example")
    used = (measured.active > 0).any("example")
    means = resample_means(effects.sel(feature=used), settings.bootstrap_samples, np.random.default_rng(settings.seed))
    interval, relative = mean_interval(means, settings.confidence), share_interval(means, settings.confidence)
    widened = [end.reindex(feature=effects["feature"].values) for end in (*interval, *relative)]
    low, high = (end.fillna(0.0) for end in widened[:2])
    relative_low, relative_high = widened[2:]
    classes = classify(type(relative)(relative_low, relative_high))
    norms = xr.DataArray(decoder_norms, dims=effect.dims)
    percent = f"{settings.confidence:.0%}"
    both, feature = ("checkpoint", "feature"), ("feature",)
    variables = {
        "indirect_effect": labelled(both, effect.values, "indirect effect of ablating the feature", IN_LOGITS),
        "indirect_effect_low": labelled(both, low.values, f"lower end of its {percent} interval", IN_LOGITS),
        "indirect_effect_high": labelled(both, high.values, f"upper end of its {percent} interval", IN_LOGITS),
        "relative_indirect_effect": labelled(both, share(effect).values, "share of the absolute indirect effect"),
        "relative_indirect_effect_low": labelled(both, relative_low.values, f"lower end of its {percent} interval"),
        "relative_indirect_effect_high": labelled(both, relative_high.values, f"upper end of its {percent} interval"),
        "relative_decoder_norm": labelled(both, share(norms).values, "share of the decoder norm"),
        "activation_frequency": labelled(
            feature, (measured.active > 0).mean("example").values, "part of the examples with the feature active"
        ),
        "feature_class": labelled(feature, classes["feature_class"].values, "course of the feature over training"),
        "onset": labelled(feature, classes["onset"].values, "checkpoint since which it is present to the end"),
    }
    revisions = [str(revision) for revision in effect["checkpoint"].values]
    return xr.Dataset(
        variables,
        coords={
            "checkpoint": strings(revisions),
            "tokens_seen": ("checkpoint", [tokens_seen[revision] for revision in revisions]),
            "feature": effect["feature"].values,
        },
    )


@torch.no_grad()
def _read_prompts(
    crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset, examples: np.ndarray
) -> list[Prompts]:
    device = sites[0].model.device
    ids = torch.from_numpy(prefix_ids(task, examples)).to(device)
    wrong, right = (
        torch.from_numpy(task[name].values[examples].astype(np.int64)).to(device) for name in ("wrong_id", "right_id")
    )
    states = [site.read(ids) for site in sites]
    x = torch.stack([state.activation for state in states], dim=2)
    codes = crosscoder.encode(x.flatten(0, 1)).unflatten(0, x.shape[:2])
    codes[:, 0] = 0
    return [Prompts(ids, wrong, right, state, codes) for state in states]


def _check_width(crosscoder: Crosscoder, sites: Sequence[Site]) -> None:
    expected = (len(crosscoder.config.checkpoints), crosscoder.config.d_model)
    found = (len(sites), sites[0].model.config.hidden_size)
    if found != expected:
        raise StoreError(
            f"the crosscoder is of {expected[0]} checkpoints of width {expected[1]}, the models are {found[0]} of"
            f" width {found[1]}; give the models it was trained on"
        )
