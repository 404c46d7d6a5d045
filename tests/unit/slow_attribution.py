"""Interventions in the plainest way: one example at a time, a full forward pass, a hook."""

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from tiny import tiny_crosscoder, tiny_model

from chronocoder.crosscoder.model import Crosscoder, side_by_side
from chronocoder.suites.sites import Site, resolve_site
from chronocoder.tasks.tokenise import MEMBERS

FEATURES = 24


def folded_crosscoder(size: float = 0.02, site: str = "residual.1") -> Crosscoder:
    """Return a crosscoder of two checkpoints whose decoder rows, and so effects, are small."""
    crosscoder = tiny_crosscoder("l1").fold_scale(torch.tensor([0.8, 1.3]))
    crosscoder.decoder_rows.mul_(size)
    crosscoder.config = replace(crosscoder.config, site=site)
    return crosscoder


def tiny_sites(architecture: str = "gpt_neox", name: str = "residual.1") -> list[Site]:
    return [resolve_site(tiny_model(architecture, seed), name) for seed in (0, 1)]


def corpus_means(checkpoints: int = 2, width: int = 16) -> xr.Dataset:
    """Return what an evaluation knows of a corpus: means of codes, the first of them of dead features, and of x."""
    generator = np.random.default_rng(0)
    code = generator.random(FEATURES, dtype=np.float32)
    code[:3] = 0
    activation = generator.standard_normal((checkpoints, width), dtype=np.float32)
    return xr.Dataset(
        {"mean_code": ("feature", code), "mean_site_activation": (("checkpoint", "d_model"), activation)},
        coords={"feature": np.arange(FEATURES)},
    )


@functools.lru_cache
def _read(crosscoder: Crosscoder, sites: tuple[Site, ...], ids: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return activations and codes of a text; a test asks for those of few texts, once for each feature."""
    x = side_by_side([site.read(torch.tensor([ids])).activation[0] for site in sites])
    codes = crosscoder.encode(x)
    codes[0] = 0
    return x, codes


def _ids(task: xr.Dataset, name: str, example: int, member: str) -> torch.Tensor:
    of_text = task.isel(example=example).sel(member=member) if member else task.isel(example=example)
    return torch.from_numpy(of_text[name].values[None, : int(of_text["length"])].astype(np.int64))


@torch.no_grad()
def slow_logits(
    crosscoder: Crosscoder,
    sites: Sequence[Site],
    task: xr.Dataset,
    example: int,
    checkpoint: int,
    features: Sequence[int] = (),
    intervention: str = "zero",
    error_too: bool = False,
    positions: slice | int = slice(1, None),
    member: str = "",
) -> torch.Tensor:
    """Return the logits of all positions with some features, and perhaps the error term, changed somewhere.

    Args:
        crosscoder: folded.
        sites: of its checkpoints.
        task: its metric may be any.
        example: place of the example.
        checkpoint: number of the checkpoint.
        features: those that change.
        intervention: what they change to.
        error_too: whether the error term changes too.
        positions: where the features change.
        member: the sentence, where the metric compares two.
    """
    ids = _ids(task, "token_id", example, member)
    x, codes = _read(crosscoder, tuple(sites), tuple(ids[0].tolist()))
    error = (x - crosscoder.decode(codes))[:, checkpoint]
    if intervention == "zero":
        target, target_error = torch.zeros_like(codes), torch.zeros_like(error)
    elif intervention == "mean":
        target = torch.from_numpy(task["mean_code"].values).expand_as(codes)
        mean = torch.from_numpy(task["mean_site_activation"].values[checkpoint])
        target_error = (mean - crosscoder.decode(target)[:, checkpoint]).clone()
    else:
        name = {"counterfactual": "counterfactual_id", "resample": "partner_id"}[intervention]
        other_ids = _ids(task, name, example, member)[0].tolist()
        other_x, target = _read(crosscoder, tuple(sites), tuple(other_ids))
        target_error = (other_x - crosscoder.decode(target))[:, checkpoint]
    changed = codes.clone()
    for feature in features:
        changed[positions, feature] = target[positions, feature]
    end_error = target_error if error_too else error
    end_error[0] = error[0]
    site = sites[checkpoint]
    activation = (crosscoder.decode(changed)[:, checkpoint] + end_error)[None, :, : site.width]
    with site.place.replaced(activation):  # by a hook in the whole pass; tested against others in test_architectures.py
        logits: torch.Tensor = site.model(input_ids=ids).logits[0]
    return logits


def slow_metric(crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset, example: int, *rest: Any) -> float:
    """Return mu, with the further arguments of `slow_logits`."""
    if "member" not in task.dims:
        logits = slow_logits(crosscoder, sites, task, example, *rest)[-1]
        return float(logits[int(task["wrong_id"][example])] - logits[int(task["right_id"][example])])
    right, wrong = (slow_log_probability(crosscoder, sites, task, example, *rest, member=name) for name in MEMBERS)
    return wrong - right


def slow_log_probability(
    crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset, example: int, *rest: Any, member: str = ""
) -> float:
    """Return the log-probability of the right answer, or of what is scored of a sentence."""
    log_probabilities = slow_logits(crosscoder, sites, task, example, *rest, member=member).log_softmax(dim=-1)
    if not member:
        return float(log_probabilities[-1, int(task["right_id"][example])])
    ids = _ids(task, "token_id", example, member)[0].tolist()
    first = int(task["scored_from"].sel(member=member)[example])
    return sum(float(log_probabilities[place - 1, ids[place]]) for place in range(first, len(ids)))


def slow_effects(
    crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset, intervention: str = "zero"
) -> np.ndarray:
    """Return the exact effects, shape (checkpoint, example, feature), changing one feature at a time."""
    result = np.zeros((len(sites), task.sizes["example"], FEATURES))
    for checkpoint in range(len(sites)):
        for example in range(task.sizes["example"]):
            clean = slow_metric(crosscoder, sites, task, example, checkpoint)
            for feature in range(FEATURES):
                changed = slow_metric(crosscoder, sites, task, example, checkpoint, [feature], intervention)
                result[checkpoint, example, feature] = changed - clean
    return result


def exactly(measured: xr.Dataset) -> xr.Dataset:
    """Return effects as if they had been measured exactly, and without rounding."""
    effects = measured["effects"]
    none = effects.isel(feature=slice(0)).rename(feature="checked_feature")
    estimator = ("feature", np.full(effects.sizes["feature"], "exact"))
    return measured.assign(rounding=xr.zeros_like(measured["clean_metric"]), estimates=none, estimator=estimator)
