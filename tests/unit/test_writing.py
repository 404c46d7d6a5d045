"""Writer or reader, against a hook that adds what is written, and on models of which the answer is known."""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import xarray as xr
from slow_attribution import folded_crosscoder, tiny_sites
from tiny import tiny_crosscoder, tiny_model
from torch import Tensor, nn

from chronocoder.attribution.ablation import measure_ablations, summarise_ablations
from chronocoder.attribution.attribute import measure_effects
from chronocoder.attribution.controls import mix_rows
from chronocoder.attribution.summary import summarise_effects
from chronocoder.attribution.writing import PURPOSE
from chronocoder.config import AblationSettings, AttributionSettings
from chronocoder.crosscoder.model import Crosscoder
from chronocoder.crosscoder.own_codes import OwnCodes
from chronocoder.suites.sites import Site, resolve_site

SETTINGS = AttributionSettings(estimator="exact", bootstrap_samples=50, batch_size=7, random_directions=2)
ABLATION = AblationSettings(top_features=4, set_sizes=[1], random_sets=1)
PLANTED = 3


class Run(NamedTuple):
    measured: xr.Dataset
    summary: xr.Dataset


def run(
    crosscoder: Crosscoder,
    sites: Sequence[Site],
    task: xr.Dataset,
    own_codes: OwnCodes | None = None,
    settings: AttributionSettings = SETTINGS,
) -> Run:
    """Attribute and ablate."""
    effects = measure_effects(crosscoder, sites, task, settings)
    tokens = {revision: place for place, revision in enumerate(crosscoder.config.checkpoints)}
    attribution = summarise_effects(effects, task, crosscoder.decoder_norms.numpy(), tokens, settings)
    measured = measure_ablations(crosscoder, sites, task, attribution, settings, ABLATION, own_codes)
    return Run(measured, summarise_ablations(measured, task, attribution, settings))


def slow_swapped(site: Site, task: xr.Dataset, example: int, addition: Tensor) -> float:
    """Return what it does to the metric to add something to the site's activation, shape (position, d_model)."""
    ids = torch.from_numpy(task["token_id"].values[[example], : len(addition)].astype(np.int64))

    def add(_module: nn.Module, _input: Any, output: Any) -> Any:
        return (output[0] + addition, *output[1:]) if isinstance(output, tuple) else output + addition

    metrics = []
    for hook in (lambda *_: None, add):
        handle = site.place.module.register_forward_hook(hook)
        logits = site.model(input_ids=ids).logits[0, -1]
        handle.remove()
        metrics.append(float(logits[int(task["wrong_id"][example])] - logits[int(task["right_id"][example])]))
    return metrics[1] - metrics[0]


def activations_of(sites: Sequence[Site], task: xr.Dataset, example: int, name: str = "token_id") -> Tensor:
    """Return the activations of a prefix, shape (position, checkpoint, d_model)."""
    ids = torch.from_numpy(task[name].values[[example], : int(task["length"][example])].astype(np.int64))
    return torch.stack([site.read(ids).activation[0] for site in sites], dim=1)


def slow_own_codes(own_codes: OwnCodes, crosscoder: Crosscoder, x: Tensor, writer: int) -> Tensor:
    """Return own codes one token at a time."""
    codes = []
    for row in x:
        completed = (own_codes.offset[writer] + row[writer] @ own_codes.weights[writer]).view(row.shape)
        completed[writer] = row[writer]
        codes.append(crosscoder.encode(completed[None])[0])
    return torch.stack(codes)


def some_own_codes(crosscoder: Crosscoder, unsupported: Sequence[tuple[int, int]]) -> OwnCodes:
    """Return predictions that are poor, and that are needed for some (checkpoint, feature)."""
    count, width = crosscoder.b_dec.shape
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(count, width, count * width, generator=generator) / width
    supported = np.ones((count, len(crosscoder.b_enc)), dtype=bool)
    for place in unsupported:
        supported[place] = False
    return OwnCodes(weights, torch.randn(count, count * width, generator=generator) / 2, supported)


def expected_effects(
    crosscoder: Crosscoder,
    sites: Sequence[Site],
    task: xr.Dataset,
    features: np.ndarray,
    rows: Tensor,
    own_codes: OwnCodes | None = None,
) -> np.ndarray:
    """Return v of rows in raw units, shape (row, checkpoint, d_model), each with the code of a feature."""
    count, examples = len(sites), task.sizes["example"]
    found = np.zeros((count, count, examples, len(features)))
    for example, writer in product(range(examples), range(count)):
        x = activations_of(sites, task, example)
        codes = crosscoder.encode(x)
        own = codes if own_codes is None else slow_own_codes(own_codes, crosscoder, x, writer)
        for (place, feature), reader in product(enumerate(features), range(count)):
            supported = own_codes is None or own_codes.supported[writer, feature]
            change = -(codes if supported else own)[:, feature]
            change[0] = 0
            row = rows[place, writer] * crosscoder.scale[writer] / crosscoder.scale[reader]
            found[writer, reader, example, place] = slow_swapped(sites[reader], task, example, torch.outer(change, row))
    return found


@pytest.mark.parametrize("site", ["residual.1", "mlp_out.1"])
@pytest.mark.parametrize("flagged", [False, True])
def test_effects_are_those_of_adding_what_each_checkpoint_writes(site: str, flagged: bool, task: xr.Dataset) -> None:
    crosscoder, sites, task = folded_crosscoder(0.1, site), tiny_sites(name=site), task.isel(example=[0, 3, 5])
    plain = run(crosscoder, sites, task)
    features, top = (plain.measured[name].values for name in ("feature", "top_feature"))
    own_codes = some_own_codes(crosscoder, [(0, top[0]), (0, features[1]), (1, top[2])]) if flagged else None
    found = run(crosscoder, sites, task, own_codes).measured
    expected = expected_effects(
        crosscoder, sites, task, features, crosscoder.decoder_rows[features.tolist()], own_codes
    )
    swapped = found["swapped_effects"].values
    np.testing.assert_allclose(swapped[..., : len(features)], expected, rtol=1e-3, atol=2e-5)
    draws = mix_rows(crosscoder, np.tile(top, (2, 1)), np.random.default_rng([SETTINGS.seed, PURPOSE]))
    assert (draws[0] != draws[1]).all()
    for draw, random in enumerate(draws):
        of_random = expected_effects(crosscoder, sites, task, top, random, own_codes)
        rows = slice(len(features) + draw * len(top), len(features) + (draw + 1) * len(top))
        np.testing.assert_allclose(swapped[..., rows], of_random, rtol=1e-3, atol=2e-5)
    assert swapped.shape[-1] == len(features) + 2 * len(top)
    assert found["own_code"].values.sum() == (3 if flagged else 0)
    changed = ~np.isclose(swapped[0], plain.measured["swapped_effects"].values[0], atol=1e-5).all(axis=(0, 1))
    assert set(np.flatnonzero(changed[: len(features)])) == set(np.flatnonzero(found["own_code"].values[0]))


def test_parts_add_up_and_lie_in_their_intervals(task: xr.Dataset) -> None:
    task = task.assign(condition=("example", ["x", "y", "x", "x", "y", "x"]))
    crosscoder, sites = folded_crosscoder(0.1), tiny_sites()
    measured, found = run(crosscoder, sites, task, some_own_codes(crosscoder, [(0, 2), (1, 5)]))
    assert (found["earlier"].values.tolist(), found["later"].values.tolist()) == (["step0"], ["step1"])
    whole = found["own_effect"].isel(checkpoint=1) - found["own_effect"].isel(checkpoint=0)
    np.testing.assert_allclose((found["written_change"] + found["read_change"])[0], whole, atol=1e-6)
    v = measured["swapped_effects"].transpose("writer", "reader", "row", "example")
    of_condition = [v.values[..., place].mean(axis=-1) for place in ([0, 2, 3, 5], [1, 4])]
    written = [(v[1, 0] - v[0, 0] + v[1, 1] - v[0, 1]) / 2 for v in of_condition]
    read = [(v[0, 1] - v[0, 0] + v[1, 1] - v[1, 0]) / 2 for v in of_condition]
    chosen, top = found.sizes["feature"], found.sizes["top_feature"]
    for name, of_rows in (("written", written), ("read", read)):
        parts = [values[:chosen] for values in of_rows]
        assert found[f"random_{name}_change"].dims == ("pair", "control", "top_feature")
        of_random = np.mean(of_rows, axis=0)[chosen:].reshape(2, top)
        np.testing.assert_allclose(found[f"random_{name}_change"][0], of_random, rtol=1e-4, atol=1e-6)
        assert found[f"condition_{name}_change"].dims == ("pair", "condition", "feature")
        np.testing.assert_allclose(found[f"condition_{name}_change"][0], parts, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found[f"{name}_change"][0], np.mean(parts, axis=0), rtol=1e-4, atol=1e-6)
        for key in (f"{name}_change", f"condition_{name}_change", f"{name}_sum"):
            low, high = found[f"{key}_low"], found[f"{key}_high"]
            assert (low <= found[key] + 1e-5).all() and (found[key] <= high + 1e-5).all() and (high > low).any()
    signs = np.sign(np.add(written, read))
    rows = np.arange(chosen + 2 * top)
    roles = np.append(found["role"].values, [""] * 2 * top)
    groups = [roles == role for role in ("top", "control")]
    groups += [(rows >= chosen + draw * top) & (rows < chosen + (draw + 1) * top) for draw in range(2)]
    for place, members in enumerate(groups):
        sums = [(signs * parts)[:, members].sum(axis=1).mean() for parts in (written, read)]
        assert float(found["written_sum"][0, place]) == pytest.approx(sums[0], rel=1e-4)
        assert float(found["read_sum"][0, place]) == pytest.approx(sums[1], rel=1e-4)
        assert float(found["written_share"][0, place]) == pytest.approx(sums[0] / sum(sums), rel=1e-3)
    draws = ["random directions 0", "random directions 1"]
    assert found["group"].values.tolist() == ["top", "control", *draws] and found["control"].values.tolist() == draws


def test_without_draws_there_is_no_group_of_random_directions(task: xr.Dataset) -> None:
    settings = SETTINGS.model_copy(update={"random_directions": 0})
    crosscoder, sites = folded_crosscoder(0.1), tiny_sites()
    with_draws, found = (run(crosscoder, sites, task, settings=of).summary for of in (SETTINGS, settings))
    assert found["group"].values.tolist() == ["top", "control"]
    assert not {"random_written_change", "random_read_change", "control"} & set(found.variables)
    xr.testing.assert_allclose(found["written_share"], with_draws["written_share"].isel(group=[0, 1]))


def test_every_later_checkpoint_is_compared_with_every_earlier_one(task: xr.Dataset) -> None:
    crosscoder = tiny_crosscoder("l1", 3).fold_scale(torch.tensor([0.8, 1.3, 1.0]))
    crosscoder.decoder_rows.mul_(0.1)
    sites = [resolve_site(tiny_model("gpt_neox", seed), "residual.1") for seed in range(3)]
    measured, found = run(crosscoder, sites, task.isel(example=[0, 1]))
    pairs = list(zip(found["earlier"].values, found["later"].values, strict=True))
    assert pairs == [("step0", "step1"), ("step0", "step2"), ("step1", "step2")]
    v = measured["swapped_effects"].isel(row=slice(found.sizes["feature"])).mean("example").values
    np.testing.assert_allclose(
        found["written_change"][1], (v[2, 0] - v[0, 0] + v[2, 2] - v[0, 2]) / 2, rtol=1e-3, atol=1e-6
    )


def test_a_single_checkpoint_has_no_parts(task: xr.Dataset) -> None:
    crosscoder = tiny_crosscoder("l1", 1).fold_scale(torch.ones(1))
    crosscoder.decoder_rows.mul_(0.1)
    found = run(crosscoder, tiny_sites()[:1], task).summary
    assert not {"written_change", "read_change", "written_share", "own_effect"} & set(found)


def with_rows_of_the_first(crosscoder: Crosscoder) -> Crosscoder:
    """Let all checkpoints have the rows of the first, in equal units."""
    crosscoder.scale.fill_(1.0)
    for rows in (crosscoder.decoder_rows, crosscoder.encoder_rows):
        rows[:, 1] = rows[:, 0]
    return crosscoder


def test_the_same_checkpoint_twice_changes_neither(task: xr.Dataset) -> None:
    found = run(with_rows_of_the_first(folded_crosscoder(0.1)), tiny_sites()[:1] * 2, task).summary
    assert abs(found["own_effect"]).max() > 1e-3
    for name in ("written_change", "read_change", "random_written_change", "random_read_change"):
        np.testing.assert_allclose(found[name], 0, atol=1e-6)


def test_models_that_differ_after_the_site_only_read_differently(task: xr.Dataset) -> None:
    """Activations and rows are the same; the last block and the output embedding are another model's."""
    first, second, other = (tiny_model("gpt_neox", seed) for seed in (0, 0, 1))
    second.gpt_neox.layers[2].load_state_dict(other.gpt_neox.layers[2].state_dict())
    second.get_output_embeddings().load_state_dict(other.get_output_embeddings().state_dict())
    sites = [resolve_site(model, "residual.1") for model in (first, second)]
    found = run(with_rows_of_the_first(folded_crosscoder(0.1)), sites, task).summary
    whole = found["own_effect"].isel(checkpoint=1) - found["own_effect"].isel(checkpoint=0)
    np.testing.assert_allclose(found["read_change"][0], whole, atol=1e-6)
    np.testing.assert_allclose(found["written_change"], 0, atol=1e-6)
    assert abs(whole).max() > 1e-3
    np.testing.assert_allclose(found["written_share"].sel(group="top"), 0, atol=1e-3)


@pytest.mark.parametrize(("site", "tolerance"), [("residual.2", 1e-4), ("residual.1", 0.05)])
def test_models_that_differ_in_the_direction_of_a_feature_only_write_differently(
    site: str, tolerance: float, task: xr.Dataset
) -> None:
    """An MLP writes a constant feature in one direction, and in another model in another.

    After the last block a linear map alone reads it; where blocks follow, the rest of the activation matters too, by
    so much less as the feature is small.
    """
    generator = torch.Generator().manual_seed(3)
    rows, code = torch.randn(2, 16, generator=generator), 0.02
    crosscoder = with_rows_of_the_first(folded_crosscoder(0.1, site))
    crosscoder.decoder_rows[PLANTED] = rows
    crosscoder.encoder_rows[PLANTED] = 0
    crosscoder.b_enc[PLANTED] = code
    sites = []
    for row in rows:
        model = tiny_model("gpt_neox", 0)
        model.gpt_neox.layers[int(site[-1])].mlp.dense_4h_to_h.bias += code * row
        if site == "residual.2":
            model.gpt_neox.final_layer_norm = nn.Identity()
        sites.append(resolve_site(model, site))
    settings = AblationSettings(top_features=24, set_sizes=[1], random_sets=1)
    effects = measure_effects(crosscoder, sites, task, SETTINGS)
    attribution = summarise_effects(effects, task, crosscoder.decoder_norms.numpy(), {"step0": 0, "step1": 1}, SETTINGS)
    measured = measure_ablations(crosscoder, sites, task, attribution, SETTINGS, settings)
    found = summarise_ablations(measured, task, attribution, SETTINGS).sel(feature=PLANTED)
    written, read = (found[f"{name}_change"].item() for name in ("written", "read"))
    assert abs(written) > 1e-3
    assert abs(read) < tolerance * abs(written)


@pytest.mark.parametrize(
    ("intervention", "other"), [("counterfactual", "counterfactual_id"), ("resample", "partner_id")]
)
def test_own_codes_of_another_prefix_are_its_own(intervention: str, other: str, task: xr.Dataset) -> None:
    """The change of the own code is from the own code of the prefix to that of the other one."""
    settings = SETTINGS.model_copy(update={"intervention": intervention})
    pair = task.isel(example=[0, 1])
    pair = pair.assign({other: (("example", "position"), pair["token_id"].values[[1, 0]])})
    crosscoder, sites = folded_crosscoder(0.1), tiny_sites()
    features = run(crosscoder, sites, pair, settings=settings).measured["feature"].values
    own_codes = some_own_codes(crosscoder, [(0, feature) for feature in features])
    found = run(crosscoder, sites, pair, own_codes, settings).measured["swapped_effects"].values
    for example, (place, feature) in product(range(2), enumerate(features)):
        clean, target = (
            slow_own_codes(own_codes, crosscoder, activations_of(sites, pair, example, name), 0)[:, feature]
            for name in ("token_id", other)
        )
        expected = swapped_to_second(crosscoder, sites, pair, example, feature, target - clean)
        assert found[0, 1, example, place] == pytest.approx(expected, rel=1e-3, abs=2e-5)


def test_own_codes_are_changed_to_the_mean_of_codes(task: xr.Dataset) -> None:
    settings = SETTINGS.model_copy(update={"intervention": "mean"})
    crosscoder, sites = folded_crosscoder(0.1), tiny_sites()
    means = torch.rand(24, generator=torch.Generator().manual_seed(1))
    pair = task.isel(example=[0, 1]).assign(
        mean_code=("feature", means.numpy()),
        mean_site_activation=(("checkpoint", "d_model"), crosscoder.b_dec.numpy()),
    )
    features = run(crosscoder, sites, pair, settings=settings).measured["feature"].values
    own_codes = some_own_codes(crosscoder, [(0, feature) for feature in features])
    found = run(crosscoder, sites, pair, own_codes, settings).measured["swapped_effects"].values
    for example, (place, feature) in product(range(2), enumerate(features)):
        x = activations_of(sites, pair, example)
        change = means[feature] - slow_own_codes(own_codes, crosscoder, x, 0)[:, feature]
        expected = swapped_to_second(crosscoder, sites, pair, example, feature, change)
        assert found[0, 1, example, place] == pytest.approx(expected, rel=1e-3, abs=2e-5)


def swapped_to_second(
    crosscoder: Crosscoder, sites: Sequence[Site], task: xr.Dataset, example: int, feature: int, change: Tensor
) -> float:
    """Return the effect in the second model of a change of the code along what the first writes."""
    row = crosscoder.decoder_rows[feature, 0] * crosscoder.scale[0] / crosscoder.scale[1]
    added = torch.outer(change, row)
    added[0] = 0
    return slow_swapped(sites[1], task, example, added)
